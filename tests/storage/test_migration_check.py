"""The guide's checklist: every line passes on a migrated database, and each fails when what it tells of is broken."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from service import resources
from service.storage import copies, migration_check, migrator, sqlite
from service.storage.migration_check import Before, CheckLine
from tests.some import some
from tests.storage.test_importer import make_bots_file

MIGRATIONS = migrator.load(resources.folder("migrations"))


def migrated(folder: Path, *, to: int | None = None) -> tuple[Path, Before]:
    """The bot's database brought to `to`, and what was counted before."""
    path = make_bots_file(folder / "bot.db")
    connection = sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)
    before = migration_check.count_before(connection, MIGRATIONS)
    migrator.up(connection, MIGRATIONS, lambda _: None, to=to)
    connection.close()
    return path, before


def lines_of(path: Path, before: Before | None, backup: Path | None = None) -> dict[str, CheckLine]:
    """The checklist by the beginnings of its lines."""
    connection = sqlite.connect_reader(path, busy_timeout_ms=0)
    try:
        return {
            line.check: line for line in migration_check.checklist(connection, MIGRATIONS, before=before, backup=backup)
        }
    finally:
        connection.close()


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
@pytest.mark.long
def test_every_line_passes_at_every_version_up_and_down(tmp_path: Path, version: int) -> None:
    """With rows of every kind the accounts add up after each migration, and after the way back to 000."""
    path, before = migrated(tmp_path, to=version)
    failed = [line for line in lines_of(path, before).values() if line.passed is False]
    assert failed == []
    connection = sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)
    before = migration_check.count_before(connection, MIGRATIONS)
    migrator.down(connection, MIGRATIONS, lambda _: None, to=0)
    connection.close()
    lines = lines_of(path, before)
    assert [line for line in lines.values() if line.passed is False] == []
    assert lines["audit_logs removed"].passed
    assert lines["Constraints of 001 are gone"].passed


NO_TRIGGERS = "DROP TRIGGER deposit_transactions_refuse_delete; DROP TRIGGER user_deposits_refuse_delete;"
REBUILT = (
    "PRAGMA writable_schema = ON;"
    "UPDATE sqlite_master SET sql = replace(sql, '{0}', '') WHERE name = '{1}'; PRAGMA writable_schema = RESET;"
)


@pytest.mark.parametrize(
    ("sql", "check", "said"),
    [
        ("PRAGMA ignore_check_constraints = ON; DROP TRIGGER user_deposits_need_transaction;"
         "UPDATE user_deposits SET balance = -3 WHERE id = 1;", "All user_deposits records", "1 of 4 do not"),
        ("PRAGMA ignore_check_constraints = ON; DROP TRIGGER deposit_transactions_move_forwards;"
         "UPDATE deposit_transactions SET depositor_name = printf('%.51c', 'x') WHERE id = 5;",
         "All deposit_transactions records", "1 of 9 do not"),
        ("ALTER TABLE audit_logs ADD COLUMN more TEXT;", "audit_logs table exists", "more TEXT"),
        ("DROP INDEX idx_deposits_user;", "All indexes recreated", "idx_deposits_user is not there"),
        ("DROP INDEX idx_domains_live;", "All indexes recreated", "idx_domains_live is not there"),
        ("INSERT INTO users (telegram_id) VALUES ('900000001');", "Record counts match", "should have 4"),
        (NO_TRIGGERS + "DELETE FROM deposit_transactions WHERE id = 5;", "Record counts match", "should have 9"),
        (NO_TRIGGERS + "DELETE FROM user_deposits WHERE user_id = 4;", "Record counts match", "should have 4"),
        ("DROP TRIGGER users_refuse_delete;", "Schema is what", "users_refuse_delete is not there"),
        ("CREATE TRIGGER mine AFTER INSERT ON users BEGIN SELECT 1; END;", "Schema is what", "mine on users is of no"),
        ("CREATE TABLE migration_001_audit (x);", "Schema is what", "migration_001_audit is left over"),
        ("UPDATE schema_migrations SET checksum = 'x' WHERE version = 2;", "Applied files", "002_audit_trail.sql was"),
        (REBUILT.format(" CHECK (length(depositor_name) <= 50)", "deposit_transactions"),
         "Constraints hold", "a long name is taken"),
        (REBUILT.format(" CHECK (balance >= 0)", "user_deposits") + "DROP TRIGGER user_deposits_open_empty;",
         "Constraints hold", "a negative balance is taken"),
        ("DROP TRIGGER deposit_transactions_move_balance_update;", "Deposit system works", "the balance is 0"),
        ("PRAGMA foreign_keys = OFF; INSERT INTO user_domains (user_id, domain) VALUES (77, 'x');",
         "No errors in the file", "points at no row of users"),
    ],
)  # fmt: skip
@pytest.mark.long
def test_each_line_fails_for_what_it_tells_of(tmp_path: Path, sql: str, check: str, said: str) -> None:
    """The mutants of the checklist: break one thing, and its line names it."""
    path, before = migrated(tmp_path)
    connection = sqlite3.connect(path)
    connection.executescript(sql)
    connection.close()
    (line,) = [line for name, line in lines_of(path, before).items() if name.startswith(check)]
    assert line.passed is False
    assert said in line.said


def test_a_row_of_the_log_that_is_lost_on_the_way_up_is_counted(tmp_path: Path) -> None:
    """A migration may add rows to the log, and takes none."""
    path = make_bots_file(tmp_path / "bot.db", through=2)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("INSERT INTO audit_logs (action) VALUES ('a'), ('b')")
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as writer:
        before = migration_check.count_before(writer, MIGRATIONS)
        migrator.up(writer, MIGRATIONS, lambda _: None)
    assert lines_of(path, before)["Record counts match pre-migration"].passed
    with contextlib.closing(sqlite3.connect(path)) as connection:
        triggers = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_logs'"
        )
        connection.executescript("".join(f"DROP TRIGGER {name};" for (name,) in triggers.fetchall()))
        connection.executescript(f"DELETE FROM audit_logs WHERE id > {before.rows['audit_logs'] - 1}")
    line = lines_of(path, before)["Record counts match pre-migration"]
    assert line.passed is False, "a row of the log is lost, and the checklist does not say so"
    assert f"should have {before.rows['audit_logs']} or more" in line.said


@pytest.mark.parametrize("gone", [4, 5, 6, 8])
@pytest.mark.long
def test_five_faults_of_a_line_are_named_and_the_others_counted(tmp_path: Path, gone: int) -> None:
    """Whatever is wrong, a line stays a line."""
    path, before = migrated(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE INDEX%'")
        ]
        for name in names[:gone]:
            connection.execute(f"DROP INDEX {name}")
    said = lines_of(path, before)["All indexes recreated successfully"].said
    assert said.count("is not there") == min(gone, 5)
    assert said.endswith(f" and {gone - 5} more") if gone > 5 else " more" not in said, said


@pytest.mark.long
def test_what_is_counted_before_a_migration_is_what_it_goes_by(tmp_path: Path) -> None:
    """Negative accounts without empty ones, openings of both directions, and whether 001 stopped half-way."""
    path = make_bots_file(tmp_path / "bot.db")

    def counted(sql: str = "") -> Before:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(sql)
        with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as connection:
            return migration_check.count_before(connection, MIGRATIONS)

    was = counted()
    found = counted(
        "INSERT INTO users (id, telegram_id) VALUES (50, '50'), (51, '51'), (52, '52');"
        "INSERT INTO user_deposits (user_id, balance) VALUES (50, -1), (51, 0), (52, 1);"
        "INSERT INTO deposit_transactions (user_id, type, amount) VALUES (50, 'opening_credit', 1),"
        " (51, 'opening_debit', 1), (52, 'deposit', 1);"
    )
    assert (found.negative - was.negative, found.openings - was.openings) == (1, 2)
    assert {table: found.rows[table] - was.rows[table] for table in ("users", "user_deposits")} == {
        "users": 3,
        "user_deposits": 3,
    }
    assert not found.half_finished
    for table in some(sorted(migrator.WORKING_TABLES_OF_001)):
        source = table.removesuffix("_backup") if table.endswith("_backup") else "users"
        half = counted(f"CREATE TABLE {table} AS SELECT * FROM {source}")
        assert half.half_finished, table
        counted(f"DROP TABLE {table}")


@pytest.mark.long
def test_opening_entries_of_an_earlier_way_up_are_not_expected_again(tmp_path: Path) -> None:
    """Up, back to the beginning and up once more: those that 003 made the first time are history by then."""
    path, _ = migrated(tmp_path)
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        migrator.down(connection, MIGRATIONS, lambda _: None, to=0)
        before = migration_check.count_before(connection, MIGRATIONS)
        migrator.up(connection, MIGRATIONS, lambda _: None)
    assert before.openings > 0
    assert [line for line in lines_of(path, before).values() if line.passed is False] == []


@pytest.mark.long
def test_backup_line_reads_the_backup(tmp_path: Path) -> None:
    """A copy whose pages are damaged fails the line; without one it is left open."""
    path, before = migrated(tmp_path)
    assert lines_of(path, before)["Backup file created and validated"].passed is None
    damaged = tmp_path / "bot.db.before-x"
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 6] = b"\xff" * (4096 * 3)
    damaged.write_bytes(bytes(content))
    assert lines_of(path, before, damaged)["Backup file created and validated"].passed is False
    assert copies.faults(damaged)
