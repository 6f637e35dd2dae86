"""Every command of the migration guide, run unchanged on a local D1, with the result that the guide states.

The guide's procedures are played in the order in which they are meant, each on a local D1 of its own; commands without
`--local` run on the local database too, because that is what wrangler does with them today.
"""

import re
import shutil
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.migrations import guide
from tests.migrations.d1 import TABLES, LocalD1, results, succeeded
from tests.some import some

Process = subprocess.CompletedProcess[str]

# Commands that cannot do their work here, with what they print instead.
REFUSED = {
    '.dump" > backup_$(date +%Y%m%d_%H%M%S).sql': 'near ".": syntax error',  # `wrangler d1 export` is its successor.
    "wrangler tail": "it's necessary to set a CLOUDFLARE_API_TOKEN",  # It needs an account.
    "wrangler tail --format pretty": "it's necessary to set a CLOUDFLARE_API_TOKEN",
}
# The guide's commands that a constraint must refuse, with the message that it states.
REFUSED_BY_CONSTRAINT = (
    ("Step 4: Verify Migration", 1, "CHECK constraint failed: balance >= 0"),
    ("Step 2: Verify Migration Success", 1, "CHECK constraint failed"),
)
UP_SAYS = "✅ Migration 001 completed successfully"
EXPORT = "wrangler d1 export telegram-conversations --local --output backup_20260119_120000.sql"


@dataclass
class Transcript:
    """What was run, and what came of it, by the heading in the guide."""

    heard: dict[str, list[Process]] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    folders: dict[str, LocalD1] = field(default_factory=dict)

    def play(self, d1: LocalD1, heading: str) -> list[Process]:
        """Run all commands below a heading of the guide, unchanged, through a shell."""
        processes = []
        for command in guide.commands(heading):
            process = d1.run_shell(command)
            if process.returncode != 0:
                self.failed.append(command)
            processes.append(process)
            self.commands.append(command)
        self.heard.setdefault(heading, []).extend(processes)
        return processes


def play_local_testing(heard: Transcript, base: Path, node_modules: Path) -> LocalD1:
    """Local Testing Procedure. Answers a copy of the database as it was before the migration."""
    local = heard.folders["local"] = LocalD1.create(base / "local", node_modules)
    heard.play(local, "Step 1: Initialize Local Test Database")
    heard.play(local, "Step 2: Populate Test Data")
    populated = local.copy_to(base / "populated")
    heard.play(local, "Step 3: Run Migration")
    heard.folders["migrated"] = local.copy_to(base / "migrated")
    heard.play(local, "Step 4: Verify Migration")
    heard.play(local, "Step 5: Test Rollback (Optional)")
    succeeded(
        populated.execute_command(
            "INSERT INTO user_deposits (user_id, balance) VALUES (2, -700);"
            " INSERT INTO deposit_transactions (user_id, type, amount, depositor_name)"
            f" VALUES (1, 'deposit', 1, '{'긴' * 60}');"
        )
    )
    return populated


def play_production(heard: Transcript, production: LocalD1, restored: LocalD1) -> None:
    """Pre-Migration Checklist, Production Deployment, Rollback Procedure.

    The rollback's last step restores a backup, which wants an empty database, so it runs on a fresh one.
    """
    heard.folders |= {"production": production, "restored": restored}
    heard.play(production, "1. Backup Production Database")
    heard.heard["export"] = [production.run_shell(EXPORT)]
    heard.heard["ls"] = [production.run_shell("ls -lh backup_*.sql")]
    heard.play(production, "2. Review Current Data")
    heard.play(production, "Step 1: Execute Migration")
    heard.play(production, "Step 2: Verify Migration Success")
    heard.play(production, "Step 3: Test Bot Functionality")
    heard.play(production, "Step 4: Monitor for Issues")

    *rollback, restore = guide.commands("Rollback Steps")
    heard.heard["rollback"] = [production.run_shell(command) for command in rollback]
    shutil.copy(production.folder / "backup_20260119_120000.sql", restored.folder)
    heard.heard["restore"] = [restored.run_shell(restore)]
    heard.commands += [*rollback, restore]


def play_troubleshooting(heard: Transcript, troubled: LocalD1) -> None:
    """Troubleshooting: each piece of advice, and then the migration again, as the guide says."""
    heard.folders["troubled"] = troubled
    heard.play(troubled, 'Issue: Migration Fails with "CHECK constraint failed"')
    heard.play(troubled, "Step 3: Run Migration")
    heard.play(troubled, 'Issue: "Table already exists" Error')
    heard.play(troubled, "Step 3: Run Migration")
    heard.play(troubled, "Issue: Performance Degradation After Migration")


@pytest.fixture(scope="module")
def transcript(tmp_path_factory: pytest.TempPathFactory, node_modules: Path) -> Transcript:
    """All procedures of the guide, played once; those on different databases at the same time."""
    base = tmp_path_factory.mktemp("guide")
    heard = Transcript()
    populated = play_local_testing(heard, base, node_modules)
    troubled = populated.copy_to(base / "troubled")
    restored = LocalD1.create(base / "restored", node_modules)
    with ThreadPoolExecutor(max_workers=2) as pool:
        production = pool.submit(play_production, heard, populated, restored)
        pool.submit(play_troubleshooting, heard, troubled).result()
        production.result()
    return heard


def test_every_command_of_the_guide_was_run(transcript: Transcript) -> None:
    """No shell command of the guide is left out, and all succeed but for the few that must not or cannot."""
    everything = [command for block in guide.blocks("bash") for command in block.commands]
    text = guide.GUIDE.read_text(encoding="utf-8")
    assert len(everything) == len(re.findall(r"^(?:wrangler|npm|ls) ", text, re.MULTILINE)) == 28
    assert set(transcript.commands) == set(everything)
    refused = 0
    for heading, processes in some(transcript.heard.items()):
        for number, process in enumerate(some(processes)):
            command = process.args[2]
            said = process.stdout + process.stderr
            refusals = [says for end, says in REFUSED.items() if command.endswith(end)]
            refusals += [says for where, which, says in REFUSED_BY_CONSTRAINT if (where, which) == (heading, number)]
            if refusals:
                refused += 1
                assert process.returncode != 0, command
                assert refusals[0] in said, command
            else:
                assert process.returncode == 0, f"{heading}: {command}\n{said}"
    assert refused == len(transcript.failed)


def test_fenced_blocks_are_all_accounted_for() -> None:
    """The guide has bash, sql and typescript blocks and no others, so none escapes these tests."""
    fences = re.findall(r"^```(\w*)", guide.GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences) - {""} == {"bash", "sql", "typescript"}
    assert sum(len(guide.blocks(language)) for language in ("bash", "sql", "typescript")) * 2 == len(fences)


def test_migration_prints_the_expected_line(transcript: Transcript) -> None:
    """Step 3 of the local test, and the production step, say that the migration completed."""
    for heading in ("Step 3: Run Migration", "Step 1: Execute Migration"):
        for process in some(transcript.heard[heading]):
            assert UP_SAYS in process.stdout
            assert results(process)[-1][0]["result"] == UP_SAYS


def test_verification_shows_the_constraint_and_an_empty_log(transcript: Transcript) -> None:
    """Step 4: the CHECK stands in the table's SQL, and audit_logs exists."""
    structure, _, count = transcript.heard["Step 4: Verify Migration"]
    assert "CHECK (balance >= 0)" in results(structure)[0][0]["sql"]
    assert results(count) == [[{"COUNT(*)": 0}]]


def test_local_rollback_lifts_the_constraint(transcript: Transcript) -> None:
    """Step 5: an account with -1000 won for a user that does not exist is taken again, and the rest is as before."""
    local = transcript.folders["local"]
    assert local.read("SELECT user_id, balance FROM user_deposits ORDER BY id") == [(1, 10000), (999, -1000)]
    assert local.read("SELECT depositor_name, amount FROM deposit_transactions") == [("홍길동", 5000)]


def test_review_names_what_will_be_rejected_and_cut(transcript: Transcript) -> None:
    """The pre-migration queries find the one negative balance and the one long name."""
    negative, long = transcript.heard["2. Review Current Data"]
    assert [(row["user_id"], row["balance"]) for row in results(negative)[0]] == [(2, -700)]
    assert [(row["depositor_name"], row["len"]) for row in results(long)[0]] == [("긴" * 60, 60)]


def test_record_counts_match_but_for_the_rejected_row(transcript: Transcript) -> None:
    """After the production run each count is that of before; the rejected account and the cut name are in the log."""
    count, _ = transcript.heard["Step 2: Verify Migration Success"]
    assert {row["table_name"]: row["count"] for row in results(count)[0]} == {
        "users": 1,
        "user_deposits": 1,
        "deposit_transactions": 2,
        "audit_logs": 2,
    }


def test_rollback_removes_the_log_and_puts_everything_back(transcript: Transcript) -> None:
    """The guide expects 0 tables named audit_logs; the rejected row and the whole name are in their tables again."""
    _, count = transcript.heard["rollback"]
    assert list(results(count)[0][0].values()) == [0]
    production, restored = transcript.folders["production"], transcript.folders["restored"]
    for table in some(TABLES):
        rows = f"SELECT * FROM {table} ORDER BY id"
        assert production.read(rows) == restored.read(rows)
    assert (2, -700) in production.read("SELECT user_id, balance FROM user_deposits")


def test_backup_is_there_and_restores_the_same_rows_and_schema(transcript: Transcript) -> None:
    """The export is listed by the guide's `ls`, and a fresh D1 made of it has the schema and the rows of before."""
    assert "backup_20260119_120000.sql" in transcript.heard["ls"][0].stdout
    production, restored = transcript.folders["production"], transcript.folders["restored"]
    schema = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '\\_cf\\_%' ESCAPE '\\' ORDER BY type, name"
    assert restored.read(schema) == production.read(schema)
    assert restored.read("SELECT COUNT(*) FROM deposit_transactions") == [(2,)]
    sequence = "SELECT name, seq FROM sqlite_sequence ORDER BY name"
    assert restored.read(sequence) == production.read(sequence)


def test_troubleshooting_leads_to_a_finished_migration(transcript: Transcript) -> None:
    """Balances set to 0 are kept with 0; audit_logs dropped comes back; all indexes of both tables are there."""
    find, mend = transcript.heard['Issue: Migration Fails with "CHECK constraint failed"']
    assert [row["balance"] for row in results(find)[0]] == [-700]
    assert mend.returncode == 0
    names, _ = transcript.heard['Issue: "Table already exists" Error']
    assert {"audit_logs", *TABLES} <= {row["name"] for row in results(names)[0]}
    troubled = transcript.folders["troubled"]
    assert troubled.read("SELECT user_id, balance FROM user_deposits ORDER BY id") == [(1, 10000), (2, 0)]
    assert troubled.read("SELECT COUNT(*) FROM sqlite_master WHERE name = 'audit_logs'") == [(1,)]
    indexes, _ = transcript.heard["Issue: Performance Degradation After Migration"]
    assert {"idx_deposits_user", "idx_transactions_user", "idx_transactions_status", "idx_audit_logs_action"} <= {
        row["name"] for row in results(indexes)[0]
    }


def test_sql_blocks_of_the_guide_hold(transcript: Transcript) -> None:
    """Its table definitions stand in sqlite_master, and its two verification inserts break their constraints on D1."""
    migrated = transcript.folders["migrated"]
    stored = dict(migrated.read("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    refused = 0
    for block in some(guide.blocks("sql")):
        if created := re.match(r"CREATE TABLE (\w+)", block.text):
            wanted = [line.strip() for line in block.text.rstrip(";").splitlines() if line.strip() != "..."]
            have = [line.strip() for line in stored[created[1]].splitlines()]
            assert [line for line in have if line in wanted] == wanted
            if "..." not in block.text:
                assert have == wanted, "the guide gives this table whole"
        else:
            assert "-- Should fail with CHECK constraint violation" in block.text
            process = migrated.execute_command(block.text)
            assert process.returncode != 0
            column = "balance >= 0" if "user_deposits" in block.text else "length(depositor_name) <= 50"
            assert f"CHECK constraint failed: {column}" in process.stdout + process.stderr
            refused += 1
    assert refused == 2


def test_typescript_examples_are_sql_that_works(transcript: Transcript, tmp_path: Path) -> None:
    """Every INSERT of the guide's examples writes an audit row, and its three queries find what they look for."""
    inserts: list[str] = []
    queries: list[str] = []
    for block in guide.blocks("typescript"):
        for sql in re.findall(r"`([^`]*)`", block.text):
            (inserts if "INSERT" in sql else queries).append(sql)
    assert (len(inserts), len(queries)) == (3, 3)
    file = transcript.folders["migrated"].database_file
    for path in file.parent.glob(f"{file.name}*"):
        shutil.copy(path, tmp_path)
    database = sqlite3.connect(tmp_path / file.name, isolation_level=None)
    actions = ("deposit_confirmed", "deposit_confirmed", "domain_registered")
    for sql, action in zip(inserts, actions, strict=True):
        database.execute(sql, (1, "123456", action, "deposit_transaction", 1, '{"amount": 5000}'))
    for _ in range(6):
        database.execute(inserts[0], (1, "123456", "withdrawal_failed", None, None, None))
    recent, today, suspicious = queries
    assert len(database.execute(recent, ("123456",)).fetchall()) == 9
    assert len(database.execute(today).fetchall()) == 2
    assert database.execute(suspicious).fetchall() == [("123456", "withdrawal_failed", 6)]
    database.close()
