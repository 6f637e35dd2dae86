"""What a migration cannot mend is refused with the import that can; the two have one opinion of every value."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from service.storage import migration_plan, migrator, sqlite
from service.storage.importer import ImportFailed, import_database
from service.storage.migration_plan import Plan
from tests.contents import contents
from tests.ledger_check import broken_invariants
from tests.live import passbook
from tests.migrations import guide
from tests.storage.test_importer import MIGRATIONS, make_bots_file, read


def plan_of(path: Path) -> Plan:
    """The plan, after which every byte is as it was."""
    before = path.read_bytes()
    with closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as connection:
        plan = migration_plan.plan(connection, path, MIGRATIONS)
        assert connection.text_factory is str
    assert path.read_bytes() == before
    return plan


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (0, "0 is below 1, the least id that can be sealed; give the row one that is free"),
        (-7, "-7 is below 1, the least id that can be sealed; give the row one that is free"),
        (2**63 - 1, "9223372036854775807 is beyond 9,007,199,254,740,991"),
    ],
)
def test_audit_row_whose_id_cannot_be_sealed_or_followed_is_refused(tmp_path: Path, row: int, why: str) -> None:
    """By the plan and by the import, by table, row and column; nothing is made."""
    path = make_bots_file(tmp_path / "bot.db", through=1)
    with closing(sqlite3.connect(path)) as bot, bot:
        bot.execute("INSERT INTO audit_logs (id, action) VALUES (?, 'login')", (row,))
    loose, *more = plan_of(path).blockers
    assert f"audit_logs, row {row}, id: {why}" in loose
    assert more == (
        ["audit_logs can take no more rows: sqlite_sequence says that 9223372036854775807 was the last id that it gave"
         " out, and there is such a row. Give it a lower id in the file that it came from, or put a backup back."]
        if row > 0 else []
    )  # fmt: skip
    with pytest.raises(ImportFailed, match=re.escape(f"audit_logs, row {row}, id: {why}")):
        import_database(path, tmp_path / "p.db", MIGRATIONS, lambda _: None)
    assert not (tmp_path / "p.db").exists()


def test_table_that_is_out_of_ids_is_in_the_way(tmp_path: Path) -> None:
    """Also without such a row; what the plan says puts it right."""
    path = make_bots_file(tmp_path / "bot.db", through=1)
    with closing(sqlite3.connect(path)) as bot, bot:
        bot.execute("INSERT INTO audit_logs (action) VALUES ('login')")
        bot.execute("UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'audit_logs'")
    (blocker,) = plan_of(path).blockers
    assert "sqlite_sequence says that 9223372036854775807 was the last id that it gave out" in blocker
    with closing(sqlite3.connect(path)) as bot, bot:
        bot.execute(blocker.partition("service stopped: ")[2].rstrip("."))
        sql = "SELECT seq, (SELECT MAX(id) FROM audit_logs) FROM sqlite_sequence WHERE name = 'audit_logs'"
        last, highest = bot.execute(sql).fetchone()
        assert last == highest < 100
    assert plan_of(path).blockers == []


LOOSE = [
    ("UPDATE deposit_transactions SET amount = '5,000원' WHERE id = 1", "deposit_transactions", "1", "amount"),
    ("UPDATE deposit_transactions SET amount = 1000.5 WHERE id = 3", "deposit_transactions", "3", "amount"),
    ("UPDATE deposit_transactions SET amount = X'35' WHERE id = 3", "deposit_transactions", "3", "amount"),
    ("UPDATE deposit_transactions SET amount = 9e999 WHERE id = 3", "deposit_transactions", "3", "amount"),
    ("UPDATE deposit_transactions SET amount = 1 << 53 WHERE id = 3", "deposit_transactions", "3", "amount"),
    ("INSERT INTO deposit_transactions VALUES (9, 1, 'deposit', 0, 'pending', 'x', NULL, NULL, NULL)",
     "deposit_transactions", "9", "status"),
    ("INSERT INTO deposit_transactions VALUES (9, 1, 'deposit', -5, 'pending', 'x', NULL, NULL, NULL)",
     "deposit_transactions", "9", "status"),
    ("UPDATE deposit_transactions SET depositor_name = CAST(X'41ff' AS TEXT) WHERE id = 1",
     "deposit_transactions", "1", "depositor_name"),
    ("UPDATE deposit_transactions SET confirmed_at = '2026-01-19T12:00:00Z' WHERE id = 1",
     "deposit_transactions", "1", "confirmed_at"),
    ("UPDATE deposit_transactions SET created_at = 1768824000 WHERE id = 1", "deposit_transactions", "1", "created_at"),
    ("UPDATE deposit_transactions SET created_at = '2026-02-31 00:00:00' WHERE id = 1",
     "deposit_transactions", "1", "created_at"),
    ("UPDATE user_deposits SET balance = 'much' WHERE id = 1", "user_deposits", "1", "balance"),
    ("UPDATE users SET telegram_id = '123.0' WHERE id = 2", "users", "2", "telegram_id"),
    ("UPDATE users SET telegram_id = X'31' WHERE id = 4", "users", "4", "telegram_id"),
    ("UPDATE users SET created_at = 'yesterday' WHERE id = 2", "users", "2", "created_at"),
    ("UPDATE bank_notifications SET balance_after = 0.5", "bank_notifications", "1", "balance_after"),
    ("UPDATE user_domains SET price = 'free'", "user_domains", "1", "price"),
]  # fmt: skip


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(("sql", "table", "row", "column"), LOOSE)
def test_loose_value_is_named_and_in_the_way(
    tmp_path: Path, sql: str, table: str, row: str, column: str, version: int
) -> None:
    """Table, row and column; what an import makes of it is another value, or it refuses the same one."""
    path = make_bots_file(tmp_path / "bot.db", through=version)
    with closing(sqlite3.connect(path)) as bot, bot:
        bot.execute(sql)
    plan = plan_of(path)
    (example,) = plan.loose_values.examples
    assert (plan.loose_values.count, example["table"], example["row"], example["column"]) == (1, table, row, column)
    (blocker,) = plan.blockers
    assert f"{table}, row {row}, {column}: " in blocker
    assert f"passbook import {path} --database NEW" in blocker
    value = f"SELECT CAST({column} AS BLOB), typeof({column}) FROM {table} WHERE id = {row}"
    said = ""
    try:
        import_database(path, tmp_path / "p.db", MIGRATIONS, lambda _: None)
    except ImportFailed as refused:
        said = str(refused)
    if said:
        assert f"{table}, row {row}, {column}: {example['why']}" in said
    else:
        assert read(tmp_path / "p.db", value) != read(path, value)
        assert broken_invariants(tmp_path / "p.db") == []


def test_what_an_import_takes_as_it_is_goes_through(tmp_path: Path) -> None:
    """The last day of a month, a fraction of a second, null, a name without digits, a refund that waits."""
    extra = (
        "UPDATE users SET telegram_id = 'kim', created_at = '2026-01-31 23:59:59' WHERE id = 2;"
        "UPDATE users SET created_at = '2026-01-30 00:00:00.123' WHERE id = 3;"
        "UPDATE deposit_transactions SET created_at = NULL WHERE id = 1;"
        "UPDATE bank_notifications SET transaction_time = '2024-02-29 00:00:00';"
    )
    path = make_bots_file(tmp_path / "bot.db", extra=extra)
    plan = plan_of(path)
    assert (plan.loose_values.count, plan.blockers) == (0, [])


def test_the_guides_own_rows_are_in_order(tmp_path: Path) -> None:
    """Those of its local test, and the account of nobody that it makes after the rollback."""
    commands = [*guide.commands("Step 2: Populate Test Data"), guide.commands("Step 5: Test Rollback (Optional)")[-1]]
    path = tmp_path / "bot.db"
    with closing(sqlite3.connect(path)) as bot:
        rows = "".join(command.partition("--command ")[2].strip().strip('"') + ";" for command in commands)
        bot.executescript(MIGRATIONS[0].up + rows)
    assert rows.count("INSERT INTO") == 4
    plan = plan_of(path)
    assert (plan.loose_values.count, plan.negative_balances.count, plan.blockers) == (0, 1, [])


def test_up_refuses_before_anything_is_touched_and_import_is_the_way(tmp_path: Path) -> None:
    """One sentence with the first rows and how many more; every byte as it was; the command in it works."""
    extra = "UPDATE deposit_transactions SET created_at = '2026-01-19T12:00:00Z';"
    extra += "UPDATE users SET created_at = 1768824000;"
    path = make_bots_file(tmp_path / "bot.db", extra=extra)
    before = path.read_bytes()
    refused = passbook("migrate", "up", "--database", str(path))
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert refused.stderr.startswith(
        "Error: 10 values cannot stay as they are (users, row 1, created_at: 1768824000 would become"
        " '2026-01-19 12:00:00'; users, row 2"
    )
    assert "deposit_transactions, row 1, created_at" in refused.stderr
    assert "; and 5 more)" in refused.stderr
    planned = passbook("migrate", "plan", "--database", str(path))
    assert (planned.returncode, "❌ 10 values cannot stay" in planned.stdout) == (1, True)
    told = passbook("migrate", "plan", "--json", "--database", str(path))
    assert told.returncode == 1, told.stderr
    as_json = json.loads(told.stdout)
    assert as_json["loose_values"]["count"] == 10
    assert path.read_bytes() == before
    assert {other.name for other in tmp_path.iterdir()} <= {"bot.db", "bot.db.lock"}
    taken = passbook("import", str(path), "--database", str(tmp_path / "new.db"))
    assert taken.returncode == 0, taken.stderr
    assert passbook("integrity", "--database", str(tmp_path / "new.db")).returncode == 0


def test_001_alone_is_not_held_up_and_is_the_way_out_of_a_half_finished_one(tmp_path: Path) -> None:
    """import takes no database in which 001 stopped half-way: `up --to 1` finishes it, and then import takes it."""
    path = make_bots_file(tmp_path / "bot.db", extra="UPDATE users SET created_at = 1768824000 WHERE id = 1;")
    rows = contents(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as wrangler:
        for statement in migrator.statements(MIGRATIONS[1].up):
            wrangler.execute(statement)
            if statement.endswith("DROP TABLE user_deposits;"):
                break
    assert contents(path) != rows
    (blocker,) = plan_of(path).blockers
    assert "finish 001 (passbook migrate up --to 1), then take the file over" in blocker
    finished = passbook("migrate", "up", "--to", "1", "--database", str(path))
    assert finished.returncode == 0, finished.stderr
    assert passbook("migrate", "up", "--database", str(path)).returncode == 1
    import_database(path, tmp_path / "p.db", MIGRATIONS, lambda _: None)
    assert broken_invariants(tmp_path / "p.db") == []
