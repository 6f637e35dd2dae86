"""`passbook migrate`: the guide's procedure, a copy before, the checklist after, one sentence for what is wrong."""

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from service.storage import migrator
from tests.contents import contents
from tests.faults.disks import small_disk
from tests.live import CHECKOUT, PASSBOOK, LiveService, passbook
from tests.printed import stands
from tests.storage.test_importer import MIGRATIONS, make_bots_file

LATEST = f"{MIGRATIONS[-1].version:03}"
GUIDES_CHECKLIST = (
    "All user_deposits records have balance >= 0",
    "All deposit_transactions records have `depositor_name` length <= 50",
    "audit_logs table exists with correct schema",
    "All indexes recreated successfully",
    "Record counts match pre-migration",
    "Deposit system works (잔액 command)",
    "Backup file created and validated",
)


def migrate(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`passbook migrate …` on a database."""
    return passbook("migrate", *arguments, "--database", str(path))


def test_the_guides_procedure_in_three_commands(tmp_path: Path) -> None:
    """plan changes nothing; up copies, migrates, ticks the guide's list and says the way back; the way back works."""
    path = make_bots_file(tmp_path / "bot.db")
    before, rows = path.read_bytes(), contents(path)
    planned = migrate(path, "plan")
    assert planned.returncode == 0
    assert stands("negative balances, rejected by 001 and kept in audit_logs: 2", planned.stdout)
    assert json.loads(migrate(path, "plan", "--json").stdout)["negative_balances"]["count"] == 2
    assert path.read_bytes() == before
    up = migrate(path, "up")
    assert up.returncode == 0, up.stderr
    assert all(f"✅ {line}" in up.stdout for line in GUIDES_CHECKLIST)
    assert "❌" not in up.stdout
    (copy,) = tmp_path.glob("bot.db.before-migrate-*")
    assert f"A copy from before is at {copy}." in up.stdout
    assert contents(copy) == rows
    assert not list(tmp_path.glob("bot.db-*")), "everything is in the file itself"
    after = contents(path)
    assert way_back(up.stdout) == f"passbook restore {copy} --database {path} --replace"
    restored = passbook(*shlex.split(way_back(up.stdout))[1:])
    assert restored.returncode == 0, restored.stderr
    assert restored.stdout.splitlines()[-1] == f"Next: passbook migrate up --database {path}"
    assert contents(path) == rows
    (kept,) = tmp_path.glob("bot.db.before-restore-*")
    assert contents(kept) == after


def way_back(said: str) -> str:
    """The command that puts the copy from before in place again, as `up` and `down` print it."""
    return next(line for line in said.splitlines() if line.startswith("Or as it was")).partition(": ")[2]


@pytest.mark.parametrize("dropped", ["user_deposits", "deposit_transactions"])
def test_way_back_to_an_interrupted_001_is_exact(tmp_path: Path, dropped: str) -> None:
    """Half-way, while a table of the bot is missing: the copy is restored to the letter, and `up` can be run again."""
    path = make_bots_file(tmp_path / "the bot's.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as wrangler:
        for statement in migrator.statements(MIGRATIONS[1].up):
            wrangler.execute(statement)
            if statement.endswith(f"DROP TABLE {dropped};"):
                break
    rows = contents(path)
    up = migrate(path, "up")
    assert up.returncode == 0, up.stderr
    restored = passbook(*shlex.split(way_back(up.stdout))[1:])
    assert restored.returncode == 0, restored.stderr
    assert contents(path) == rows
    assert migrate(path, "up").returncode == 0


def test_way_back_from_down_is_the_migrated_database(tmp_path: Path) -> None:
    """The copy from before a rollback is the program's schema: it is proved and served."""
    path = make_bots_file(tmp_path / "bot.db")
    migrate(path, "up")
    rows = contents(path)
    down = migrate(path, "down", "--to", "0", "--yes")
    restored = passbook(*shlex.split(way_back(down.stdout))[1:])
    assert restored.returncode == 0, restored.stderr
    assert ("It adds up." in restored.stdout, contents(path)) == (True, rows)


def test_up_without_backup_must_be_typed_and_a_new_database_needs_none(tmp_path: Path) -> None:
    """--no-backup leaves no copy; nor does a database that is made new; a second up has nothing to do."""
    path = make_bots_file(tmp_path / "bot.db")
    assert migrate(path, "up", "--no-backup").returncode == 0
    new = tmp_path / "new.db"
    assert migrate(new, "up").returncode == 0
    again = migrate(new, "up")
    assert (again.returncode, again.stdout.startswith("Nothing was pending.")) == (0, True)
    assert not list(tmp_path.glob("*.before-*"))


def test_down_goes_one_back_asks_first_and_checks_after(tmp_path: Path) -> None:
    """Without --yes and without an answer nothing happens; --to 0 leaves what the guide says: no audit_logs."""
    path = make_bots_file(tmp_path / "bot.db")
    migrate(path, "up")
    latest = contents(path)
    unanswered = migrate(path, "down")
    assert (unanswered.returncode, contents(path)) == (1, latest)
    down = migrate(path, "down", "--yes")
    assert (down.returncode, stands("1 rolled back.", down.stdout)) == (0, True)
    assert migrate(path, "status").stdout.count("pending") == 1
    down = migrate(path, "down", "--to", "0", "--yes")
    assert down.returncode == 0, down.stderr
    assert "✅ audit_logs removed" in down.stdout
    assert "✅ Constraints of 001 are gone: the guide's two inserts are taken" in down.stdout
    assert len(list(tmp_path.glob("bot.db.before-rollback-*"))) == 2
    assert migrate(path, "up").returncode == 0


def test_verify_fails_by_line_and_reads_only(tmp_path: Path) -> None:
    """Exit code 0 while all is well, 1 with the object named when it is not; --json has the same lines."""
    path = make_bots_file(tmp_path / "bot.db")
    migrate(path, "up")
    assert migrate(path, "verify").returncode == 0
    with closing(sqlite3.connect(path)) as hand:
        hand.execute("DROP TRIGGER users_refuse_delete")
        hand.commit()
    before = contents(path)
    failed = migrate(path, "verify")
    assert failed.returncode == 1
    check = f"Schema is what the migrations up to {LATEST} make"
    assert f"❌ {check}: trigger users_refuse_delete is not there" in failed.stdout
    as_json = migrate(path, "verify", "--json")
    assert as_json.returncode == 1, as_json.stderr
    lines = json.loads(as_json.stdout)
    assert [line["check"] for line in lines if line["passed"] is False] == [check]
    assert contents(path) == before


def test_half_finished_by_hand_is_explained_and_untouched(tmp_path: Path) -> None:
    """Rows that lie in a renamed table: plan and up say what to do, exit code 1, and nothing is moved."""
    path = make_bots_file(tmp_path / "bot.db", extra="ALTER TABLE user_deposits RENAME TO user_deposits_old;")
    before = path.read_bytes()
    for command in ("plan", "up"):
        refused = migrate(path, command)
        assert refused.returncode == 1
        assert "ALTER TABLE user_deposits_old RENAME TO user_deposits" in refused.stderr
    assert path.read_bytes() == before


def _not_a_database(path: Path) -> None:
    path.write_bytes(b"not a database at all, but long enough " * 100)


def _recipes(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
        connection.commit()


def _newer(path: Path) -> None:
    migrate(path, "up")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (99, '099_later', 'x')")
        connection.commit()


@pytest.mark.parametrize(
    ("make", "said"),
    [(_not_a_database, "file is not a database"), (_recipes, "passbook import FILE"), (_newer, "Update it")],
)
@pytest.mark.parametrize("command", [("plan",), ("up",), ("down", "--yes"), ("verify",)], ids=lambda c: c[0])
def test_wrong_file_is_one_sentence_and_untouched(tmp_path: Path, make, said: str, command: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    """No database, somebody else's, a later program's: exit code 1, no traceback, every byte as it was."""
    path = tmp_path / "p.db"
    make(path)
    before = path.read_bytes()
    refused = migrate(path, *command)
    assert refused.returncode == 1
    assert said in refused.stderr
    assert (refused.stderr.count("\n"), "Traceback" in refused.stderr) == (1, False)
    assert path.read_bytes() == before


@pytest.mark.parametrize("command", ["plan", "down", "verify", "status"])
def test_missing_database_is_said_and_not_made(tmp_path: Path, command: str) -> None:
    """Only `up` makes one."""
    refused = migrate(tmp_path / "p.db", command)
    assert (refused.returncode, "There is no database" in refused.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_runs_keeps_migrations_out_but_not_verify(own_service: LiveService) -> None:
    """up and down are refused by the lock; plan and verify read beside it."""
    own_service.start()
    for command in (("up",), ("down", "--yes")):
        refused = migrate(own_service.database, *command)
        assert (refused.returncode, "is in use by process" in refused.stderr) == (1, True)
    assert migrate(own_service.database, "plan").returncode == 0
    assert migrate(own_service.database, "verify").returncode == 0


def test_no_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    """On a disk with too little room plan and up say how much is missing; nothing is copied, every byte as it was."""
    with small_disk(tmp_path / "disk") as disk:
        path = make_bots_file(disk / "bot.db")
        before = path.read_bytes()
        for command in ("plan", "up"):
            refused = migrate(path, command)
            assert refused.returncode == 1
            assert "MiB may be needed; free some space" in refused.stdout + refused.stderr
        assert path.read_bytes() == before
        assert {other.name for other in disk.iterdir()} <= {"bot.db", "bot.db.lock"}


@contextmanager
def _read_only(folder: Path) -> Iterator[tuple[str, ...]]:
    """`folder` without the right to write, and a prefix that takes root's right to ignore that away."""
    folder.chmod(0o555)
    try:
        if os.geteuid() != 0:
            yield ()
        elif shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and setpriv is not there")
        else:
            yield ("setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search")
    finally:
        folder.chmod(0o755)


def test_read_only_folder_is_said(tmp_path: Path) -> None:
    """Neither lock nor copy can be made there: one sentence with the path; plan works."""
    path = make_bots_file(tmp_path / "bots" / "bot.db") if (tmp_path / "bots").mkdir() is None else tmp_path
    before = path.read_bytes()
    with _read_only(path.parent) as prefix:
        for command, code in (("up", 1), ("plan", 0)):
            run = subprocess.run(
                [*prefix, *PASSBOOK, "migrate", command, "--database", str(path)],
                env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUTF8": "1"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert run.returncode == code, run.stderr
            assert code == 0 or run.stderr == f"Error: {path}.lock: Permission denied.\n"
    assert path.read_bytes() == before


def test_plan_knows_what_backup_made(tmp_path: Path) -> None:
    """Whatever the database is called, a backup in its default place is named as the newest there is."""
    database = str(tmp_path / "bot.db")
    assert passbook("migrate", "up", "--database", database).returncode == 0
    made = passbook("backup", "--database", database)
    assert made.returncode == 0, made.stderr
    plan = json.loads(passbook("migrate", "plan", "--json", "--database", database).stdout)
    assert (plan["backups"], Path(plan["backup"]).parent) == (1, tmp_path / "backups")
