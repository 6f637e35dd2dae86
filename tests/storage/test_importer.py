"""Import: whole or nothing, from every form that the bot's database comes in. (The real wrangler: test_main_job.)"""

import sqlite3
from pathlib import Path

import pytest

from service import resources
from service.storage import lock, migrator
from service.storage.importer import ImportFailed, ImportReport, import_database
from tests.ledger_check import broken_invariants
from tests.storage.test_migrator import BOT_ROWS

MIGRATIONS = migrator.load(resources.folder("migrations"))


def make_bots_file(path: Path, *, through: int = 0, extra: str = "") -> Path:
    """The bot's database as an SQLite file, with migrations up to `through` and `extra` SQL at its end."""
    connection = sqlite3.connect(path)
    connection.executescript(MIGRATIONS[0].up + BOT_ROWS + extra)
    for migration in MIGRATIONS[1 : through + 1]:
        connection.executescript(migration.up)
    connection.commit()
    connection.close()
    return path


def dump_of(database: Path, target: Path) -> Path:
    """What sqlite3's .dump writes of `database`."""
    connection = sqlite3.connect(database)
    target.write_text("\n".join(connection.iterdump()), "utf-8")
    connection.close()
    return target


def take_over(source: Path, target: Path) -> ImportReport:
    """The import, reporting to nobody."""
    return import_database(source, target, MIGRATIONS, lambda _: None)


def read(database: Path, sql: str) -> list[tuple[object, ...]]:
    """Rows of a query by a connection of its own."""
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def only(folder: Path, *kept: str) -> bool:
    """Whether `folder` holds nothing but `kept`."""
    return {path.name for path in folder.iterdir()} <= set(kept)


def test_sqlite_file_and_dump_give_the_same_database(tmp_path: Path) -> None:
    """The bot's file and its .dump are taken over alike: all rows, balances equal to the sums, nothing left over."""
    bots = make_bots_file(tmp_path / "bots.sqlite")
    reports = [
        take_over(bots, tmp_path / "a.db"),
        take_over(dump_of(bots, tmp_path / "bots.sql"), tmp_path / "b.db"),
    ]
    assert reports[0] == reports[1]
    assert reports[0].tables == {
        "users": 4,
        "user_deposits": 5,
        "deposit_transactions": 6,
        "bank_notifications": 1,
        "user_domains": 1,
    }
    assert (reports[0].balances_rejected, reports[0].names_truncated, reports[0].opening_entries) == (2, 1, 3)
    assert only(tmp_path, "bots.sqlite", "bots.sql", "a.db", "b.db", "a.db.lock", "b.db.lock")
    for name in ("a.db", "b.db"):
        assert broken_invariants(tmp_path / name) == []


def test_audit_rows_of_a_database_after_001_are_kept(tmp_path: Path) -> None:
    """Where wrangler ran 001 already, its audit rows come along with their ids, and nothing is rejected twice."""
    bots = make_bots_file(tmp_path / "bots.sqlite", through=1)
    before = read(bots, "SELECT id, action, details, created_at FROM audit_logs ORDER BY id")
    report = take_over(dump_of(bots, tmp_path / "bots.sql"), tmp_path / "p.db")
    after = read(tmp_path / "p.db", "SELECT id, action, details, created_at FROM audit_logs ORDER BY id")
    assert after[: len(before)] == before
    assert report.tables["audit_logs"] == len(before) == 3
    assert broken_invariants(tmp_path / "p.db") == []


def test_what_is_not_known_is_left_aside_and_named(tmp_path: Path) -> None:
    """Other tables of the bot and columns that Passbook does not know are reported."""
    extra = "CREATE TABLE conversations (id INTEGER); INSERT INTO conversations VALUES (1), (2);"
    extra += "ALTER TABLE users ADD COLUMN language TEXT;"
    report = take_over(make_bots_file(tmp_path / "bots.sqlite", extra=extra), tmp_path / "p.db")
    assert report.left_aside == ["conversations (2 rows)", "users.language"]


def test_ids_given_out_once_are_not_given_out_again(tmp_path: Path) -> None:
    """The bot deleted its newest transaction; the first one after the import does not take its id."""
    bots = make_bots_file(tmp_path / "bots.sqlite", extra="DELETE FROM deposit_transactions WHERE id = 6;")
    take_over(bots, tmp_path / "p.db")
    assert read(tmp_path / "p.db", "SELECT MIN(id) FROM deposit_transactions WHERE type LIKE 'opening_%'") == [(7,)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no database of the bot"),
        (b"CREATE TABLE recipes (id INTEGER);", "no table users, user_deposits, deposit_transactions"),
        (b"INSERT INTO nowhere VALUES (1);", "line 1: no such table"),
        (
            b"CREATE TABLE users (id INTEGER);\nINSERT INTO users VALUES (1",
            "ends within the statement that begins in line 2",
        ),
        (b"CREATE TABLE users (name TEXT);\nINSERT INTO users VALUES ('\xff');", "no UTF-8"),
        (b"ATTACH 'other.db' AS other;", "not authorized"),
        (b"PRAGMA writable_schema = ON;", "not authorized"),
        (b"SELECT load_extension('x');", "line 1"),
        (b"SQLite format 3\x00 and then rubbish", "database"),
    ],
)
def test_bad_source_makes_no_database(tmp_path: Path, content: bytes, message: str) -> None:
    """One sentence that says what is wrong and where; no target, no working files."""
    source = tmp_path / "d1.sql"
    source.write_bytes(content)
    with pytest.raises(Exception, match=message) as raised:
        take_over(source, tmp_path / "p.db")
    assert type(raised.value).__name__ in {"ImportFailed", "EngineError"}
    assert only(tmp_path, "d1.sql", "p.db.lock")


def test_target_that_is_there_is_not_touched(tmp_path: Path) -> None:
    """A database is never overwritten."""
    bots = make_bots_file(tmp_path / "bots.sqlite")
    take_over(bots, tmp_path / "p.db")
    before = (tmp_path / "p.db").read_bytes()
    with pytest.raises(ImportFailed, match="there already"):
        take_over(bots, tmp_path / "p.db")
    assert (tmp_path / "p.db").read_bytes() == before


def test_passbook_database_is_no_source(tmp_path: Path) -> None:
    """A database that Passbook keeps already is not imported a second time."""
    take_over(make_bots_file(tmp_path / "bots.sqlite"), tmp_path / "p.db")
    with pytest.raises(ImportFailed, match="Passbook database already"):
        take_over(tmp_path / "p.db", tmp_path / "q.db")


def test_import_waits_for_nobody(tmp_path: Path) -> None:
    """While another process holds the target's lock, import says so at once."""
    with lock.exclusive(tmp_path / "p.db"), pytest.raises(lock.DatabaseInUse, match="in use by process"):
        take_over(make_bots_file(tmp_path / "bots.sqlite"), tmp_path / "p.db")
