"""The migrator: the files of migrations/, each whole or not at all, on new databases, the bot's and wrangler's."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from service import resources
from service.storage import migrator, sqlite
from service.storage.migrator import MigrationError
from tests.rows import all_rows
from tests.some import some

MIGRATIONS = migrator.load(resources.folder("migrations"))
LATEST = len(MIGRATIONS) - 1
BOT_ROWS = """
INSERT INTO users (telegram_id, username) VALUES ('123456', 'testuser'), ('2', '김😀'), ('3', NULL), ('4', 'none');
INSERT INTO user_deposits (user_id, balance) VALUES (1, 10000), (2, -500), (3, 700), (999, 40), (998, -1000);
INSERT INTO deposit_transactions (user_id, type, amount, depositor_name, status) VALUES
  (1, 'deposit', 5000, '홍길동', 'confirmed'), (2, 'deposit', 100, printf('%.60c', '가'), 'confirmed'),
  (3, 'deposit', 1000, 'x', 'confirmed'), (3, 'withdrawal', 300, NULL, 'confirmed'), (3, 'refund', -7, NULL, 'pending'),
  (4, 'withdrawal', 50, NULL, 'confirmed');
INSERT INTO bank_notifications (depositor_name, amount, matched_transaction_id) VALUES ('홍길동', 5000, 1);
INSERT INTO user_domains (user_id, domain, price) VALUES (1, '한글.kr', 11000);
"""


def quiet(_: str) -> None:
    """Reports to nobody."""


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[sqlite.Connection]:
    """An empty database file."""
    connection = sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True)
    yield connection
    connection.close()


@pytest.fixture
def bots(empty: sqlite.Connection) -> sqlite.Connection:
    """The bot's database before 001, with rows of every awkward kind and no record of migrations."""
    for statement in (*migrator.statements(MIGRATIONS[0].up), *migrator.statements(BOT_ROWS)):
        empty.execute(statement)
    return empty


def test_new_database_goes_to_the_latest_and_says_so(empty: sqlite.Connection) -> None:
    """From nothing to the latest; the guide's line is reported; every migration is on record with its checksum."""
    said: list[str] = []
    assert migrator.up(empty, MIGRATIONS, said.append) == len(MIGRATIONS)
    assert any(line.startswith("✅ Migration 001 completed successfully") for line in said)
    assert migrator.version_of(empty, MIGRATIONS) == LATEST
    status = migrator.status(empty, MIGRATIONS)
    assert len(status) == len(MIGRATIONS)
    assert all(row.applied_at and not row.checksum_differs for row in some(status))
    assert migrator.up(empty, MIGRATIONS, quiet) == 0


def test_up_down_up_gives_the_same_schema_and_rows(bots: sqlite.Connection) -> None:
    """Down to the baseline gives back its schema; up again gives the schema and the balances of the first time."""
    baseline = migrator.schema_of(bots)
    migrator.up(bots, MIGRATIONS, quiet)
    first_schema, first = migrator.schema_of(bots), all_rows(bots)
    migrator.down(bots, MIGRATIONS, quiet, to=0)
    assert migrator.schema_of(bots) == baseline
    migrator.up(bots, MIGRATIONS, quiet)
    assert migrator.schema_of(bots) == first_schema
    again = all_rows(bots)
    for table in ("users", "deposit_transactions", "bank_notifications", "user_domains"):
        assert again[table] == first[table], table
    balances = "SELECT user_id, balance, version FROM user_deposits ORDER BY user_id"
    assert sorted(row[1:3] for row in first["user_deposits"]) == [row[:2] for row in bots.execute(balances).fetchall()]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_each_rollback_undoes_its_migration(bots: sqlite.Connection, version: int) -> None:
    """Up to N and down to N - 1 is the schema of N - 1."""
    migrator.up(bots, MIGRATIONS, quiet, to=version - 1)
    before = migrator.schema_of(bots)
    migrator.up(bots, MIGRATIONS, quiet, to=version)
    assert migrator.schema_of(bots) != before
    assert migrator.down(bots, MIGRATIONS, quiet, to=version - 1) == 1
    assert migrator.schema_of(bots) == before
    assert migrator.version_of(bots, MIGRATIONS) == version - 1


def test_taken_over_balances_equal_their_transactions(bots: sqlite.Connection) -> None:
    """After all migrations each balance is the signed sum of its confirmed rows; what had to give is logged whole."""
    migrator.up(bots, MIGRATIONS, quiet)
    rows = bots.execute(
        "SELECT u.telegram_id, d.balance, (SELECT SUM(CASE direction WHEN 'credit' THEN amount ELSE -amount END)"
        " FROM deposit_transactions WHERE user_id = u.id AND status = 'confirmed')"
        " FROM users AS u JOIN user_deposits AS d ON d.user_id = u.id ORDER BY u.id"
    ).fetchall()
    assert rows == [("123456", 10000, 10000), ("2", 0, 0), ("3", 700, 700), ("4", 0, 0)]
    opened = bots.execute(
        "SELECT user_id, type, direction, amount FROM deposit_transactions WHERE type LIKE 'opening_%' ORDER BY user_id"
    ).fetchall()
    assert opened == [
        (1, "opening_credit", "credit", 5000),
        (2, "opening_debit", "debit", 100),
        (4, "opening_credit", "credit", 50),
    ]
    logged = bots.execute("SELECT action, COUNT(*) FROM audit_logs GROUP BY action ORDER BY action").fetchall()
    assert logged == [
        ("migration_amount_made_positive", 1),
        ("migration_balance_rejected", 2),
        ("migration_depositor_name_truncated", 1),
        ("migration_orphan_account_removed", 1),
        ("opening_adjustment", 3),
    ]
    orphan = bots.execute(
        "SELECT json_extract(details, '$.user_id'), json_extract(details, '$.balance') FROM audit_logs"
        " WHERE action = 'migration_orphan_account_removed'"
    ).fetchone()
    assert orphan == (999, 40)
    assert bots.execute("PRAGMA foreign_key_check").fetchall() == []


def test_links_are_checked_at_the_end_though_foreign_keys_are_off(bots: sqlite.Connection) -> None:
    """A file that leaves a link to nothing changes nothing; afterwards foreign keys are on as before."""
    last = "DROP TABLE IF EXISTS migration_001_audit;"
    assert last in MIGRATIONS[1].up
    lossy = MIGRATIONS[1].up.replace(last, f"{last}\nUPDATE bank_notifications SET matched_transaction_id = 77;")
    spoilt = msgspec.structs.replace(MIGRATIONS[1], up=lossy)
    before = all_rows(bots)
    with pytest.raises(
        MigrationError, match="001_schema_enhancements failed and changed nothing: bank_notifications, row 1"
    ):
        migrator.up(bots, [MIGRATIONS[0], spoilt, *MIGRATIONS[2:]], quiet)
    assert all_rows(bots) == before
    assert bots.execute("PRAGMA foreign_keys").fetchone() == (1,)


def test_a_table_of_the_bot_that_deletes_with_its_transaction_keeps_its_rows(bots: sqlite.Connection) -> None:
    """001 drops the table that it points at and makes it anew: that is no deletion."""
    bots.execute(
        "CREATE TABLE receipts (id INTEGER PRIMARY KEY, of_transaction INTEGER"
        " REFERENCES deposit_transactions(id) ON DELETE CASCADE)"
    )
    bots.execute("INSERT INTO receipts VALUES (1, 1), (2, 3)")
    migrator.up(bots, MIGRATIONS, quiet, to=1)
    migrator.down(bots, MIGRATIONS, quiet, to=0)
    assert bots.execute("SELECT * FROM receipts").fetchall() == [(1, 1), (2, 3)]


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
@pytest.mark.long
def test_database_migrated_by_wrangler_is_recognised(bots: sqlite.Connection, version: int) -> None:
    """Without a record the version is told from the schema, and the rest is applied."""
    for migration in MIGRATIONS[1 : version + 1]:
        for statement in migrator.statements(migration.up):
            bots.execute(statement)
    assert migrator.version_of(bots, MIGRATIONS) == version
    assert migrator.up(bots, MIGRATIONS, quiet) == LATEST - version
    assert migrator.version_of(bots, MIGRATIONS) == LATEST


@pytest.mark.long
def test_half_finished_001_is_recognised_at_every_statement_and_ends_well(tmp_path: Path) -> None:
    """Stopped after any statement of 001, `up` goes on to the same schema as an undisturbed run."""
    statements = list(migrator.statements(MIGRATIONS[1].up))
    wanted = None
    for stop in range(len(statements) + 1):
        connection = sqlite.connect_writer(tmp_path / f"{stop}.db", busy_timeout_ms=0, checkpoints=True)
        connection.execute("PRAGMA synchronous = OFF")
        for statement in (*migrator.statements(MIGRATIONS[0].up), *migrator.statements(BOT_ROWS), *statements[:stop]):
            connection.execute(statement)
        migrator.up(connection, MIGRATIONS, quiet)
        found = migrator.schema_of(connection)
        wanted = wanted or found
        assert found == wanted, stop
        assert connection.execute("SELECT COUNT(*) FROM deposit_transactions").fetchone() == (9,), stop
        connection.close()


def test_failing_file_changes_nothing_and_is_named(bots: sqlite.Connection) -> None:
    """A migration that fails at its last statement leaves no trace of its first."""
    broken = [*MIGRATIONS[:2], migrator.Migration(
        version=2, name="002_broken", up="CREATE TABLE left_over (x);\nSELECT no_such_column;\n", down="", checksum=""
    )]  # fmt: skip
    migrator.up(bots, MIGRATIONS, quiet, to=1)
    with pytest.raises(MigrationError, match="002_broken failed and changed nothing"):
        migrator.up(bots, broken, quiet)
    assert migrator.version_of(bots, MIGRATIONS) == 1
    assert "left_over" not in migrator.schema_of(bots)


def test_foreign_database_is_refused(empty: sqlite.Connection) -> None:
    """A database of something else is neither migrated nor changed; the way in is named."""
    empty.execute("CREATE TABLE recipes (id INTEGER)")
    with pytest.raises(
        MigrationError,
        match=r"not the bot's database as the baseline describes it.*\. Export it and use: passbook import FILE$",
    ):
        migrator.up(empty, MIGRATIONS, quiet)
    assert migrator.schema_of(empty) == {"recipes": "CREATE TABLE recipes(id INTEGER)"}


def test_newer_database_is_refused(empty: sqlite.Connection) -> None:
    """A database from a later program is not touched."""
    migrator.up(empty, MIGRATIONS, quiet)
    with pytest.raises(
        MigrationError, match=r"The database is at migration \d{3}; this program knows fewer\. Update it\.$"
    ):
        migrator.up(empty, MIGRATIONS[:-1], quiet)


def test_edited_file_is_seen(empty: sqlite.Connection) -> None:
    """A migration whose file changed after it was applied is marked in the status."""
    migrator.up(empty, MIGRATIONS, quiet)
    empty.execute("UPDATE schema_migrations SET checksum = 'other' WHERE version = 3")
    assert [row.migration.version for row in migrator.status(empty, MIGRATIONS) if row.checksum_differs] == [3]


def test_statements_keep_triggers_whole_and_refuse_an_unfinished_end() -> None:
    """The splitter gives a trigger as one statement and does not swallow what has no semicolon."""
    sql = "-- a\nCREATE TRIGGER t BEFORE DELETE ON x\nBEGIN\n  SELECT 1;\n  SELECT 2;\nEND;\nSELECT ';';\n"
    assert len(list(migrator.statements(sql))) == 2
    with pytest.raises(MigrationError, match="within a statement"):
        list(migrator.statements(sql + "SELECT 3"))


def test_migrations_use_only_what_d1_takes() -> None:
    """No transaction words and no denied pragma in any file: wrangler refuses them, also in comments."""
    paths = list(resources.folder("migrations").glob("*.sql"))
    assert len(paths) >= len(MIGRATIONS)
    for path in some(paths):
        text = path.read_text("utf-8").upper()
        for word in ("BEGIN TRANSACTION", "COMMIT", "SAVEPOINT", "PRAGMA USER_VERSION", "ATTACH", "VACUUM", " TEMP "):
            assert not re.search(rf"(?<!\w){word}(?!\w)", text), (path.name, word)
        assert sqlite3.complete_statement(path.read_text("utf-8"))
