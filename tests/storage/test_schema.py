"""schema/schema.sql is what the migrations make, and the triggers refuse what the invariants forbid."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import resources
from service.storage import migrator, schema, sqlite
from tests.rows import all_rows

MIGRATIONS = migrator.load(resources.folder("migrations"))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite.Connection]:
    """A fully migrated database with two users, the first of which has 1,000 won from a confirmed deposit."""
    connection = sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True)
    migrator.up(connection, MIGRATIONS, lambda _: None)
    connection.execute("INSERT INTO users (telegram_id) VALUES ('1'), ('2')")
    connection.execute(
        "INSERT INTO deposit_transactions (user_id, type, amount, status, balance_before, balance_after, version)"
        " VALUES (1, 'deposit', 1000, 'confirmed', 0, 1000, 1)"
    )
    connection.execute("INSERT INTO deposit_transactions (user_id, type, amount) VALUES (1, 'deposit', 500)")
    connection.execute("INSERT INTO audit_logs (action) VALUES ('deposit_confirmed')")
    connection.execute(
        "INSERT INTO bank_notifications (depositor_name, amount, bank_transaction_id, match_name, status,"
        " matched_transaction_id, match_method) VALUES ('a', 1000, 'b1', 'a', 'matched', 1, 'automatic'),"
        " ('a', 500, 'b2', 'a', 'unmatched', NULL, NULL), ('a', 1000, 'b3', 'a', 'ambiguous', NULL, NULL)"
    )
    connection.execute(
        "INSERT INTO idempotency_answers (actor, idempotency_key, operation, request, status, body, created_at)"
        " VALUES ('bot', 'k', 'POST /v1/debits', '{}', 201, x'31', 'now')"
    )
    connection.execute(
        "INSERT INTO import_archive (source_table, row_id, column_values, imported_at) VALUES ('users', 1, '{}', 'now')"
    )
    yield connection
    connection.close()


def test_schema_file_equals_migrations(database: sqlite.Connection) -> None:
    """Every table, index and trigger of schema.sql, and no other, is in a migrated database, token by token."""
    from_file = sqlite3.connect(":memory:")
    from_file.executescript((resources.folder("schema") / "schema.sql").read_text("utf-8"))
    assert migrator.schema_of(from_file) == migrator.schema_of(database)
    from_file.close()


def test_schema_file_says_when_nullable_columns_are_null() -> None:
    """No nullable column of ours is left unexplained: each has a comment above it or shares its neighbour's."""
    text = (resources.folder("schema") / "schema.sql").read_text("utf-8")
    for column in (
        "balance_before",
        "version INTEGER CHECK",
        "reference",
        "actor",
        "request_id",
        "revoked_at",
        "location",
    ):
        before = text[: text.index(f"\n  {column}")].rsplit("\n", 1)[1]
        assert before.lstrip().startswith("--"), column


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE user_deposits SET balance = 5000 WHERE user_id = 1", "a balance changes only together"),
        ("UPDATE user_deposits SET balance = 0, version = 2 WHERE user_id = 1", "a balance changes only together"),
        ("UPDATE user_deposits SET balance = 1000, version = 1 WHERE user_id = 2", "a balance changes only together"),
        ("UPDATE user_deposits SET user_id = 3 WHERE user_id = 2", "a balance changes only together"),
        ("INSERT INTO user_deposits (user_id, balance) VALUES (999999, -1000)", "an account opens once"),
        ("INSERT INTO user_deposits (user_id, balance) VALUES (2, 0)", "an account opens once"),
        ("INSERT OR REPLACE INTO user_deposits (user_id, balance) VALUES (1, 0)", "an account opens once"),
        ("DELETE FROM user_deposits", "accounts are never deleted"),
        ("DELETE FROM deposit_transactions", "transactions are never deleted"),
        (
            "INSERT OR REPLACE INTO deposit_transactions (id, user_id, type, amount) VALUES (1, 1, 'deposit', 1)",
            "never",
        ),
        ("UPDATE deposit_transactions SET amount = 1 WHERE id = 2", "keeps what it says"),
        ("UPDATE deposit_transactions SET status = 'pending' WHERE id = 1", "continues the account|keeps what"),
        ("UPDATE deposit_transactions SET status = 'confirmed' WHERE id = 2", "continues the account"),
        (
            "UPDATE deposit_transactions SET status = 'confirmed', balance_before = 0, balance_after = 500,"
            " version = 2 WHERE id = 2",
            "continues the account",
        ),
        (
            "INSERT INTO deposit_transactions (user_id, type, direction, amount, status, balance_before, balance_after,"
            " version) VALUES (1, 'debit', 'debit', 10, 'confirmed', 1000, 1010, 2)",
            "continues the account",
        ),
        (
            "INSERT INTO deposit_transactions (user_id, type, amount, status) VALUES (1, 'x', 1, 'confirmed')",
            "continues",
        ),
        ("INSERT INTO deposit_transactions (user_id, type, amount, version) VALUES (1, 'x', 1, 2)", "continues"),
        ("INSERT INTO deposit_transactions (user_id, type, amount) VALUES (77, 'deposit', 1)", "FOREIGN KEY"),
        ("UPDATE users SET telegram_id = '3' WHERE id = 1", "keeps its id"),
        ("DELETE FROM users WHERE id = 2", "users are never deleted"),
        ("INSERT OR REPLACE INTO users (telegram_id, username) VALUES ('1', 'x')", "users are never replaced"),
        ("INSERT INTO users (telegram_id) VALUES ('1')", "users are never replaced"),
        ("UPDATE idempotency_answers SET status = 500", "never updated"),
        ("DELETE FROM idempotency_answers", "never deleted"),
        (
            "INSERT OR REPLACE INTO idempotency_answers (actor, idempotency_key, operation, request, status, body,"
            " created_at) VALUES ('bot', 'k', 'x', '{}', 200, x'7b7d', 'now')",
            "never replaced",
        ),
        ("UPDATE bank_notifications SET amount = 1 WHERE id = 2", "keeps what it says"),
        ("UPDATE bank_notifications SET match_name = 'b' WHERE id = 2", "keeps what it says"),
        ("UPDATE bank_notifications SET status = 'ambiguous' WHERE id = 2", "matched once"),
        ("UPDATE bank_notifications SET status = 'matched' WHERE id = 2", "matched once"),
        ("UPDATE bank_notifications SET matched_by = 'x' WHERE id = 1", "matched once|amount, once"),
        (
            "UPDATE bank_notifications SET status = 'matched', matched_transaction_id = 2 WHERE id = 2",
            "confirmed deposit of its amount",
        ),
        (
            "UPDATE bank_notifications SET status = 'matched', matched_transaction_id = 1 WHERE id = 2",
            "confirmed deposit of its amount",
        ),
        (
            "UPDATE bank_notifications SET status = 'matched', matched_transaction_id = 1 WHERE id = 3",
            "confirmed deposit of its amount",
        ),
        ("INSERT INTO bank_notifications (amount, status) VALUES (1000, 'matched')", "confirmed deposit of its amount"),
        ("INSERT INTO bank_notifications (amount, matched_transaction_id) VALUES (1000, 1)", "confirmed deposit"),
        ("INSERT INTO bank_notifications (amount, bank_transaction_id) VALUES (1, 'b1')", "never replaced"),
        ("DELETE FROM bank_notifications", "never deleted"),
        ("UPDATE deposit_transactions SET match_name = 'b' WHERE id = 2", "keeps what it says|matched by"),
        ("UPDATE import_archive SET column_values = '[]'", "never updated"),
        ("DELETE FROM import_archive", "never deleted"),
        ("INSERT OR REPLACE INTO import_archive VALUES (1, 'users', 1, '{}', 'now')", "never replaced"),
        ("INSERT INTO import_archive VALUES (2, 'users', 1, '{', 'now')", "json_valid"),
        ("UPDATE audit_logs SET details = '{}'", "never updated"),
        ("DELETE FROM audit_logs", "never deleted"),
        ("INSERT OR REPLACE INTO audit_logs (id, action) VALUES (1, 'x')", "never replaced"),
    ],
)
def test_database_itself_refuses(database: sqlite.Connection, statement: str, message: str) -> None:
    """Also a hand with sqlite3 cannot move a balance without its transaction or rewrite what was recorded."""
    before = all_rows(database)
    with pytest.raises(sqlite.IntegrityError, match=message):
        database.execute(statement)
    assert all_rows(database) == before


def test_balance_beyond_the_limit_is_refused_by_the_database(database: sqlite.Connection) -> None:
    """2^53 - 1 won is the most that a transaction may leave."""
    with pytest.raises(sqlite.IntegrityError):
        database.execute(
            "INSERT INTO deposit_transactions (user_id, type, amount, status, balance_before, balance_after, version)"
            " VALUES (1, 'deposit', 9007199254740991, 'confirmed', 1000, 9007199254741991, 2)"
        )


def test_confirmed_transaction_moves_the_balance_by_itself(database: sqlite.Connection) -> None:
    """Written by hand too: the balance and the version follow in the same statement."""
    database.execute(
        "INSERT INTO deposit_transactions (user_id, type, direction, amount, status, balance_before, balance_after,"
        " version) VALUES (1, 'debit', 'debit', 400, 'confirmed', 1000, 600, 2)"
    )
    database.execute(
        "UPDATE deposit_transactions SET status = 'confirmed', balance_before = 600, balance_after = 1100, version = 3"
        " WHERE id = 2"
    )
    account = database.execute("SELECT balance, version FROM user_deposits WHERE user_id = 1").fetchone()
    assert account == (1100, 3)


def test_user_written_by_hand_has_an_account(database: sqlite.Connection) -> None:
    """The guide's own INSERT INTO users gives a user that can be paid."""
    database.execute("INSERT INTO users (telegram_id, username) VALUES ('123456', 'testuser')")
    assert database.execute(
        "SELECT balance, version FROM user_deposits WHERE user_id = (SELECT id FROM users WHERE telegram_id = '123456')"
    ).fetchone() == (0, 0)


@pytest.mark.parametrize("version", range(-1, len(MIGRATIONS) - 1))
def test_a_database_of_every_earlier_version_becomes_the_same(tmp_path: Path, version: int) -> None:
    """Upgraded in place, it has what a new one has, and nothing else."""
    with contextlib.closing(
        sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True)
    ) as connection:
        if version >= 0:
            migrator.up(connection, MIGRATIONS, lambda _: None, to=version)
        migrator.up(connection, MIGRATIONS, lambda _: None)
        assert schema.faults(schema.read(connection), migrator.schema_after(MIGRATIONS)) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("CREATE TABLE a (b TEXT)", 'CREATE TABLE "a"(\n  b TEXT -- c\n)', True),
        ("CREATE TABLE a (b TEXT)", "create table [A] ( `B` text /* c */ )", True),
        ("CREATE TABLE a (b TEXT DEFAULT 'x')", "CREATE TABLE a (b TEXT DEFAULT 'X')", False),
        ("CREATE TABLE a (b TEXT DEFAULT 'x y')", "CREATE TABLE a (b TEXT DEFAULT 'x  y')", False),
        ("CREATE TABLE a (b TEXT DEFAULT '--')", "CREATE TABLE a (b TEXT DEFAULT '-- c')", False),
        ("CREATE TABLE a (b TEXT DEFAULT 'x')", 'CREATE TABLE a (b TEXT DEFAULT "x")', False),
        ("CREATE TABLE a (b TEXT)", "CREATE TABLE a (b TEXT, c)", False),
        ("CREATE TABLE a (b TEXT)", "CREATE TABLE a (bTEXT)", False),
        ("SELECT a -- b\n, c", "SELECT a, c", True),
        ("SELECT 'it''s -- not'", "SELECT 'it''s'", False),
        ('CREATE TABLE a ("b c" TEXT)', "CREATE TABLE a (b c TEXT)", False),
        ('CREATE TABLE a ("b")', "CREATE TABLE a ([b])", True),
    ],
)
def test_what_makes_two_texts_the_same(one: str, other: str, *, same: bool) -> None:
    """Words and texts count; whitespace, comments, quotes around names and the case of letters do not."""
    assert schema.same(schema.normalised(one), schema.normalised(other)) is same


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DROP TRIGGER users_refuse_delete", "The trigger users_refuse_delete is not there."),
        ("DROP INDEX idx_domains_live", "The index idx_domains_live is not there."),
        ("ALTER TABLE users ADD COLUMN mine TEXT", "The table users is not as it was made."),
        ("CREATE INDEX mine ON users(username)", "The index mine on users is of no migration."),
        (
            "CREATE TRIGGER mine AFTER INSERT ON USERS BEGIN SELECT 1; END",
            "The trigger mine on users is of no migration.",
        ),
        (
            "CREATE TRIGGER _cf_1 AFTER INSERT ON users BEGIN SELECT 1; END",
            "The trigger _cf_1 on users is of no migration.",
        ),
        ("CREATE TABLE mine (a)", None),
        ("CREATE TABLE _cf_KV (a)", None),
        ("CREATE VIEW mine AS SELECT * FROM users", None),
        ("CREATE TEMP TRIGGER mine AFTER INSERT ON users BEGIN SELECT 1; END", None),
    ],
)
def test_each_difference_is_named(database: sqlite.Connection, sql: str, said: str | None) -> None:
    """What is missing, changed or extra, one sentence each; what others keep beside is not ours to judge."""
    wanted = migrator.schema_after(MIGRATIONS)
    watch = schema.Watch(wanted)
    watch.check(database)
    database.execute(sql)
    assert schema.faults(schema.read(database), wanted) == ([said] if said else [])
    if said:
        for _ in range(2):  # what was found once is found again
            with pytest.raises(schema.SchemaChanged, match=said):
                watch.check(database)
    else:
        watch.check(database)


def test_a_name_is_the_same_in_other_letters_and_another_kind_is_said(database: sqlite.Connection) -> None:
    """SQLite tells names apart by nothing else; a view in a table's place is called one."""
    wanted = migrator.schema_after(MIGRATIONS)
    found = schema.read(database)
    assert schema.faults({name.upper(): thing for name, thing in found.items()}, wanted) == []
    view = {**found, "users": schema.Thing("view", "users", found["users"].sql)}
    assert schema.faults(view, wanted) == ["The table users is a view."]


@pytest.mark.parametrize("extra", [4, 5, 6, 8])
def test_five_differences_are_named_and_the_others_counted(database: sqlite.Connection, extra: int) -> None:
    """However many there are, the refusal is a few lines long."""
    for number in range(extra):
        database.execute(f"CREATE INDEX mine_{number} ON users(username)")
    with pytest.raises(schema.SchemaChanged) as raised:
        schema.check(database, migrator.schema_after(MIGRATIONS))
    said = str(raised.value)
    assert said.count("is of no migration.") == min(extra, 5)
    assert f" And {extra - 5} more. " in said if extra > 5 else " more. " not in said, said


_BACK = (
    "INSERT INTO deposit_transactions (user_id, type, direction, amount, status, balance_before, balance_after,"
    " version, reverses_id) VALUES (1, '{type}', '{direction}', 400, 'confirmed', {before}, {after}, {version}, {of})"
)


def _back(kind: str, direction: str, version: int, of: int) -> str:
    before, after = (600, 1000) if direction == "credit" else (1000, 600)
    return _BACK.format(type=kind, direction=direction, before=before, after=after, version=version, of=of)


def test_the_price_of_a_held_name_stays_where_its_status_says(database: sqlite.Connection) -> None:
    """Through a chain of reversals as well; a refund may go with the name, and nothing else."""
    database.execute(
        "INSERT INTO deposit_transactions (id, user_id, type, direction, amount, status, balance_before, balance_after,"
        " version) VALUES (10, 1, 'domain_purchase', 'debit', 400, 'confirmed', 1000, 600, 2)"
    )
    database.execute(
        "INSERT INTO user_domains (id, user_id, domain, ascii_name, status, price, transaction_id)"
        " VALUES (1, 1, 'a.kr', 'a.kr', 'pending', 400, 10)"
    )
    price, back = "a name is registered while its price is taken", "what a held name was paid with"
    with pytest.raises(sqlite.IntegrityError, match=back):
        database.execute(_back("reversal", "credit", 3, 10))
    with pytest.raises(sqlite.IntegrityError, match=price):
        database.execute("UPDATE user_domains SET status = 'released' WHERE id = 1")
    (guard,) = database.execute(
        "SELECT sql FROM sqlite_master WHERE name = 'deposit_transactions_keep_payments'"
    ).fetchone()
    database.execute("DROP TRIGGER deposit_transactions_keep_payments")
    database.execute(_back("reversal", "credit", 3, 10))
    database.execute(guard)
    with pytest.raises(sqlite.IntegrityError, match=price):
        database.execute("UPDATE user_domains SET status = 'registered' WHERE id = 1")
    (first,) = database.execute("SELECT MAX(id) FROM deposit_transactions").fetchone()
    database.execute(_back("reversal", "debit", 4, first))
    (again,) = database.execute("SELECT MAX(id) FROM deposit_transactions").fetchone()
    with pytest.raises(sqlite.IntegrityError, match=back):
        database.execute(_back("reversal", "credit", 5, again))
    database.execute("SAVEPOINT refunded")
    database.execute(_back("domain_refund", "credit", 5, again))
    with pytest.raises(sqlite.IntegrityError, match=price):
        database.execute("UPDATE user_domains SET status = 'registered' WHERE id = 1")
    database.execute("UPDATE user_domains SET status = 'expired' WHERE id = 1")
    database.execute("ROLLBACK TO refunded")
    database.execute("UPDATE user_domains SET status = 'registered' WHERE id = 1")
    database.execute(_back("reversal", "credit", 5, again))  # goodwill is the program's to ask for
