"""Export: the bot's tables to the letter, in statements that D1 takes, one snapshot, whole or nothing."""

import contextlib
import json
import re
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.ledger.bank_notifications import BankNotificationStatus
from service.ledger.domain_purchases import DomainPurchaseStatus
from service.ledger.transactions import TransactionStatus
from service.storage import exporter, migrator, sql_text, sqlite
from service.storage.exporter import ExportFailed, ExportReport, export_database
from service.storage.importer import TABLES
from tests.ledger_check import broken_invariants
from tests.some import some
from tests.storage.test_importer import MIGRATIONS, make_bots_file, only, read, take_over

AWKWARD = (
    "it's", 'say "hi"', "a\nb\r\nc", "back\\slash\\n", "🐙👨‍👩‍👧", "a\0b", "\0", "", " ", "; -- no comment",
    "/* neither */", "BEGIN TRANSACTION; COMMIT;", "'BEGIN TRANSACTION'", "$tag$", "\ufeff", "\u202e", "0x1", "1e5",
    "NULL", "X'00'",
)  # fmt: skip


def bots_columns() -> dict[str, list[str]]:
    """Table -> all its columns, as the bot has them after migration 001."""
    with contextlib.closing(sqlite3.connect(":memory:")) as bot:
        bot.executescript(MIGRATIONS[0].up + MIGRATIONS[1].up)
        return {
            table: [row[1] for row in bot.execute(f"PRAGMA table_info({table})")] for table in (*TABLES, "audit_logs")
        }


_TOLD_AGAIN = {
    "deposit_transactions": ["direction"],
    # Which deposits an ambiguous line may be of is not the bot's affair.
    "bank_notifications": ["iif(status = 'matched', status, 'unmatched')"],
}
"""What has no column of its own there and is told again after the way back."""
SHAPES = {table: ", ".join(bots_columns()[table] + _TOLD_AGAIN.get(table, [])) for table in TABLES}
"""What of a ledger goes to D1 and comes back."""
LOG = ", ".join(bots_columns()["audit_logs"])


def write_back(database: Path, target: Path, *, with_schema: bool = True) -> ExportReport:
    """The export, telling nobody how far it is."""
    return export_database(
        database, target, MIGRATIONS, with_schema=with_schema, busy_timeout_ms=0, progress=lambda _s, _d, _t: None
    )


def assert_came_back(before: Path, after: Path) -> None:
    """The same users, balances, transactions, notifications, domains; every row of the log, and more after them."""
    for table, columns in some(SHAPES.items()):
        wanted = f"SELECT {columns} FROM {table} ORDER BY 1"
        assert read(after, wanted) == read(before, wanted), table
    log = read(before, f"SELECT {LOG} FROM audit_logs ORDER BY id")
    assert read(after, f"SELECT {LOG} FROM audit_logs ORDER BY id")[: len(log)] == log
    sequences = f"SELECT name, seq FROM sqlite_sequence WHERE name IN {TABLES} ORDER BY name"
    assert read(after, sequences) == read(before, sequences)
    assert broken_invariants(after) == []


def change(database: Path, *statements: str) -> None:
    """Runs SQL on a database."""
    # By the same library: two of them in one process lose each other's locks.
    with contextlib.closing(sqlite.connect_writer(database, busy_timeout_ms=0, checkpoints=False)) as connection:
        for statement in statements:
            connection.execute(statement)


def ledger(folder: Path, extra: str = "") -> Path:
    """A Passbook database made from the bot's rows and `extra` ones."""
    take_over(make_bots_file(folder / "bots.sqlite", extra=extra), folder / "p.db")
    return folder / "p.db"


def test_export_comes_back_as_the_same_ledger(tmp_path: Path) -> None:
    """Also what 003 had made positive, what Passbook debits, reverses and changes, and ids that were given out."""
    database = ledger(tmp_path)
    balance, user = 10000, 1
    statements = []
    for version, (kind, signed) in enumerate(
        (("debit", -700), ("balance_change", -300), ("reversal", -20), ("reversal", 20), ("domain_refund", 5)), start=1
    ):
        direction = "debit" if signed < 0 else "credit"
        statements.append(
            "INSERT INTO deposit_transactions (user_id, type, direction, amount, status, balance_before, balance_after,"
            f" version) VALUES ({user}, '{kind}', '{direction}', {abs(signed)}, 'confirmed', {balance},"
            f" {balance + signed}, {version})"
        )
        balance += signed
    change(database, *statements)
    report = write_back(database, tmp_path / "back.sql")
    assert report.tables["deposit_transactions"] == 14
    assert report.size == (tmp_path / "back.sql").stat().st_size
    assert take_over(tmp_path / "back.sql", tmp_path / "q.db").opening_entries == 0
    assert_came_back(database, tmp_path / "q.db")
    assert only(tmp_path, *(f"{n}{s}" for n in ("p.db", "q.db") for s in ("", ".lock", "-wal", "-shm")), "back.sql",
                "bots.sqlite")  # fmt: skip


_T = "'2026-02-03 04:05:06.789'"
_DEPOSITS = """
INSERT INTO deposit_transactions (id, user_id, type, direction, amount, depositor_name, match_name, reference,
  created_at) VALUES
  (100, 1, 'deposit', 'credit', 10, '가', '가', 'r1', {T}), (101, 1, 'deposit', 'credit', 20, '나', '나', NULL, {T}),
  (102, 1, 'deposit', 'credit', 30, '다', '다', NULL, {T}), (103, 3, 'deposit', 'credit', 40, '라', '라', NULL, {T});
UPDATE deposit_transactions SET status = 'cancelled' WHERE id = 101;
UPDATE deposit_transactions SET status = 'expired' WHERE id = 102
""".replace("{T}", _T)
_MOVEMENTS = (
    # type, what it adds, its reason, the transaction that it takes back
    ("deposit", 5000, None, None), ("debit", -700, "fee", None), ("balance_change", -300, "x", None),
    ("balance_change", 40, "y", None), ("domain_purchase", -400, "a.kr", None), ("domain_purchase", -400, "b.kr", None),
    ("domain_purchase", -400, "c.kr", None), ("domain_purchase", -400, "d.kr", None),
    ("domain_refund", 400, "c.kr", 206), ("domain_refund", 400, "d.kr", 207), ("reversal", 700, "back", 201),
    ("reversal", -5000, "back", 200),
)  # fmt: skip
_PURCHASES = """
INSERT INTO user_domains (id, user_id, domain, status, price, created_at, ascii_name, transaction_id) VALUES
  (300, 1, 'a.kr', 'pending', 400, {T}, 'a.kr', 204), (301, 1, '통장.kr', 'pending', 400, {T}, 'xn--bj0b.kr', 205),
  (302, 1, 'c.kr', 'pending', 400, {T}, 'c.kr', 206), (303, 1, 'd.kr', 'pending', 400, {T}, 'd.kr', 207);
UPDATE user_domains SET status = 'registered', registered_at = {T}, expires_at = {T} WHERE id = 301
""".replace("{T}", _T)
_SETTLED = """
UPDATE user_domains SET status = 'released' WHERE id = 302;
UPDATE user_domains SET status = 'expired' WHERE id = 303;
INSERT INTO bank_notifications (id, bank_name, depositor_name, amount, balance_after, transaction_time, raw_message,
  created_at, bank_transaction_id, match_name, status, matched_transaction_id, match_method, matched_by, matched_at)
  VALUES
  (400, 'KB', '가', 5000, 1, {T}, 'm', {T}, 'b1', '가', 'matched', 200, 'automatic', 'bot', {T}),
  (401, 'NH', '나', 6, 2, {T}, 'n', {T}, 'b2', '나', 'unmatched', NULL, NULL, NULL, NULL),
  (402, 'IBK', '다', 7, NULL, NULL, 'o', {T}, 'b3', '다', 'ambiguous', NULL, NULL, NULL, NULL);
INSERT INTO user_erasures VALUES (3, {T}, 'cli', NULL);
UPDATE users SET telegram_id = 'erased-3', username = NULL WHERE id = 3;
UPDATE deposit_transactions SET depositor_name = NULL, description = NULL, match_name = '' WHERE id = 103;
UPDATE user_erasures SET finished_at = {T} WHERE user_id = 3
""".replace("{T}", _T)


def everything(folder: Path) -> Path:
    """A ledger with rows of every kind: the bot's, with more columns than ours, and Passbook's in every status."""
    rejected = "INSERT INTO deposit_transactions (user_id, type, amount, status) VALUES (1, 'deposit', 9, 'rejected');"
    more_columns = "ALTER TABLE users ADD COLUMN language TEXT; UPDATE users SET language = 'ko';"
    database = ledger(folder, extra=more_columns + rejected)
    change(database, *_DEPOSITS.split(";"))
    balance = 10_000
    for version, (kind, adds, reason, reverses) in enumerate(_MOVEMENTS, start=1):
        row = (199 + version, kind, "credit" if adds > 0 else "debit", abs(adds), reason, balance, balance + adds)
        with contextlib.closing(sqlite.connect_writer(database, busy_timeout_ms=0, checkpoints=False)) as connection:
            connection.execute(
                "INSERT INTO deposit_transactions (id, user_id, type, direction, amount, status, description,"
                " balance_before, balance_after, version, reverses_id, confirmed_at, created_at)"
                f" VALUES (?, 1, ?, ?, ?, 'confirmed', ?, ?, ?, ?, ?, {_T}, '2026-02-01 00:00:00.001')",
                (*row, version, reverses),
            )
        balance += adds
        if version == len(_MOVEMENTS) - 4:  # before the first price goes back
            change(database, *_PURCHASES.split(";"))
    change(database, *_SETTLED.split(";"))
    # Rows with higher ids were there and are gone.
    change(database, f"UPDATE sqlite_sequence SET seq = seq + 100 WHERE name IN {TABLES}")
    return database


def test_who_loads_an_export_gives_no_id_out_again(tmp_path: Path) -> None:
    """Each table has one counter there, the ledger's: SQLite makes one of its own with the rows, and would go by it."""
    database = ledger(tmp_path)
    change(database, f"UPDATE sqlite_sequence SET seq = seq + 100 WHERE name IN {TABLES}")
    write_back(database, tmp_path / "back.sql")
    with contextlib.closing(sqlite3.connect(tmp_path / "d1.sqlite")) as bot:
        bot.executescript((tmp_path / "back.sql").read_text("utf-8"))
        counters = bot.execute(f"SELECT name, seq FROM sqlite_sequence WHERE name IN {TABLES} ORDER BY name").fetchall()
        asked = f"SELECT name, seq FROM sqlite_sequence WHERE name IN {TABLES} ORDER BY name"
        assert counters == read(database, asked), "a table has another counter, or two"
        made = bot.execute("INSERT INTO users (telegram_id) VALUES ('4711')").lastrowid
        assert made == dict(counters)["users"] + 1, "an id is given out again"


def test_every_kind_of_row_comes_back(tmp_path: Path) -> None:
    """Movements of every type, deposits, purchases and bank lines of every status, an erased user: every column."""
    database = everything(tmp_path)
    held = {
        table: {word for (word,) in read(database, f"SELECT DISTINCT status FROM {table}")}
        for table in ("deposit_transactions", "user_domains", "bank_notifications")
    }
    assert held["deposit_transactions"] >= {status.value for status in TransactionStatus} - {"reversed"}
    assert held["user_domains"] >= {status.value for status in DomainPurchaseStatus}
    assert held["bank_notifications"] == {status.value for status in BankNotificationStatus} - {
        "dismissed",  # is said in a column of its own, as the next one
        "cancelled",
    }
    assert read(database, "SELECT COUNT(*) FROM import_archive") != [(0,)]
    for table, columns in some(bots_columns().items()):
        for column in some(columns):
            assert read(database, f"SELECT 1 FROM {table} WHERE {column} IS NOT NULL LIMIT 1") or column in {
                "ip_address", "user_agent",
            }, f"{table}.{column} holds nothing to compare"  # fmt: skip
    write_back(database, tmp_path / "back.sql")
    assert take_over(tmp_path / "back.sql", tmp_path / "q.db").opening_entries == 0
    assert_came_back(database, tmp_path / "q.db")


def test_amounts_are_those_that_the_bot_wrote(tmp_path: Path) -> None:
    """A withdrawal that the bot wrote as a negative amount is one again; one that it wrote as a positive amount stays.

    Rows of the log about something else make no difference.
    """
    rows = "(20, 1, 'withdrawal', -9, 'pending'), (21, 1, 'withdrawal', 8, 'pending'), (22, 1, 'fee', 7, 'pending')"
    insert = f"INSERT INTO deposit_transactions (id, user_id, type, amount, status) VALUES {rows};"
    database = ledger(tmp_path, extra=insert)
    change(
        database,
        "INSERT INTO audit_logs (action, resource_type, resource_id) VALUES"
        " ('migration_amount_made_positive', 'other', 21), ('other', 'deposit_transaction', 22)",
    )
    write_back(database, tmp_path / "back.sql")
    amounts = "SELECT id, type, amount FROM deposit_transactions WHERE type NOT LIKE 'opening_%' ORDER BY id"
    with contextlib.closing(sqlite.open_scratch()) as d1:
        for statement in sql_text.statements(tmp_path / "back.sql"):
            d1.execute(statement.sql)
        assert d1.execute(amounts).fetchall() == read(tmp_path / "bots.sqlite", amounts)


def test_shape_is_that_of_migration_001(tmp_path: Path) -> None:
    """The schema is recognised as the one that 001 leaves, so that the bot runs and every later migration applies."""
    write_back(ledger(tmp_path), tmp_path / "back.sql")
    d1 = sqlite.open_scratch()
    for statement in sql_text.statements(tmp_path / "back.sql"):
        d1.execute(statement.sql)
    assert migrator.version_of(d1, MIGRATIONS) == 1
    d1.close()


def test_rows_alone_go_into_tables_that_are_there(tmp_path: Path) -> None:
    """Without the schema every INSERT names its columns, and import takes it as an export of the data alone."""
    database = ledger(tmp_path)
    write_back(database, tmp_path / "back.sql", with_schema=False)
    assert "CREATE" not in (tmp_path / "back.sql").read_text("utf-8")
    report = take_over(tmp_path / "back.sql", tmp_path / "q.db")
    assert report.by_order == []
    assert_came_back(database, tmp_path / "q.db")


def test_debit_types_are_those_of_migration_003() -> None:
    """Another word there would lose a direction here."""
    listed = re.search(r"amount >= 0 AND type IN \(([^)]*)\)", MIGRATIONS[3].up)
    assert listed
    assert tuple(re.findall(r"'(\w+)'", listed[1])) == exporter.DEBIT_TYPES


def test_awkward_text_comes_back_to_the_letter(tmp_path: Path) -> None:
    """And no value makes wrangler look for a transaction."""
    names = ", ".join(f"({number}, '{number}', ?)" for number in range(10, 10 + len(AWKWARD)))
    bots = make_bots_file(tmp_path / "bots.sqlite")
    with contextlib.closing(sqlite3.connect(bots)) as connection:
        connection.execute(f"INSERT INTO users (id, telegram_id, username) VALUES {names}", AWKWARD)
        connection.commit()
    take_over(bots, tmp_path / "p.db")
    write_back(tmp_path / "p.db", tmp_path / "back.sql")
    assert b"BEGIN TRANSACTION" not in (tmp_path / "back.sql").read_bytes()
    take_over(tmp_path / "back.sql", tmp_path / "q.db")
    found = read(tmp_path / "q.db", "SELECT username FROM users WHERE id >= 10 ORDER BY id")
    assert tuple(name for (name,) in found) == AWKWARD


ONE_CHARACTER_LEFT = "x" * (exporter._FIRST_PIECE + 10 * exporter._PIECE + 1)
"""Whose last piece is of one character."""


@pytest.mark.parametrize(
    "text", ["'" * 150_000, "🐙" * 60_000, "a\0'" * 50_000, "BEGIN TRANSACTION" * 9_000, ONE_CHARACTER_LEFT]
)
@pytest.mark.long
def test_no_statement_is_longer_than_d1_takes(tmp_path: Path, text: str) -> None:
    """A row beyond 100,000 bytes comes in pieces and is whole again."""
    database = ledger(tmp_path)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("INSERT INTO audit_logs (action, details) VALUES ('x', ?)", (json.dumps(text),))
        connection.execute(
            "INSERT INTO bank_notifications (amount, raw_message, bank_name) VALUES (1, ?, ?)", (text, text)
        )
        connection.commit()
    write_back(database, tmp_path / "back.sql")
    sizes = [len(statement.sql.encode()) for statement in sql_text.statements(tmp_path / "back.sql")]
    assert max(sizes) <= exporter.STATEMENT_BYTES_MAX
    take_over(tmp_path / "back.sql", tmp_path / "q.db")
    assert_came_back(database, tmp_path / "q.db")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("INSERT INTO audit_logs (action, resource_id) VALUES ('x', 9007199254740992)", "D1 would round"),
        ("INSERT INTO audit_logs (action, resource_id) VALUES ('x', 9e999)", "inf is"),
        ("INSERT INTO audit_logs (action, details) VALUES ('x', zeroblob(50000))", "longer than a statement"),
        ("INSERT INTO audit_logs (action, details) VALUES ('x', CAST(X'41ff' AS TEXT))", "cannot be read"),
    ],
)
def test_value_that_d1_would_change_is_refused(tmp_path: Path, statement: str, words: str) -> None:
    """One sentence with the table; no file."""
    database = ledger(tmp_path)
    change(database, statement)
    with pytest.raises(ExportFailed, match=f"audit_logs.*{words}"):
        write_back(database, tmp_path / "back.sql")
    assert not list(tmp_path.glob("back.sql*"))


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """Neither a file that is there nor one that appears meanwhile, nor a link that leads nowhere."""
    database = ledger(tmp_path)
    (tmp_path / "back.sql").write_text("mine")
    with pytest.raises(ExportFailed, match="there already"):
        write_back(database, tmp_path / "back.sql")
    (tmp_path / "link.sql").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ExportFailed, match="there already"):
        write_back(database, tmp_path / "link.sql")

    def appear(_step: str, _done: int, _total: int) -> None:
        (tmp_path / "late.sql").write_text("mine")

    with pytest.raises(ExportFailed, match="there already"):
        export_database(
            database, tmp_path / "late.sql", MIGRATIONS, with_schema=True, busy_timeout_ms=0, progress=appear
        )
    assert (tmp_path / "back.sql").read_text() == (tmp_path / "late.sql").read_text() == "mine"
    assert not list(tmp_path.glob("*.exporting-*"))


def test_export_is_one_instant(tmp_path: Path) -> None:
    """What is committed while it writes is in none of the tables."""
    database = ledger(tmp_path)
    done: list[str] = []

    def meanwhile(step: str, _done: int, _total: int) -> None:
        if not done:
            change(
                database,
                "INSERT INTO users (telegram_id) VALUES ('late')",
                "INSERT INTO audit_logs (action) VALUES ('late')",
            )
        done.append(step)

    export_database(
        database, tmp_path / "back.sql", MIGRATIONS, with_schema=True, busy_timeout_ms=0, progress=meanwhile
    )
    assert done[-1] == "writing audit_logs"
    assert "'late'" not in (tmp_path / "back.sql").read_text("utf-8")


def test_database_that_is_not_migrated_is_refused(tmp_path: Path) -> None:
    """It is the bot's own still, or an earlier program's."""
    with pytest.raises(migrator.NotMigrated):
        write_back(make_bots_file(tmp_path / "bots.sqlite"), tmp_path / "back.sql")
    assert only(tmp_path, "bots.sqlite")


_TEXT = st.none() | st.sampled_from(AWKWARD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_AMOUNT = st.integers(-(10**6), 10**9)
_TYPE = st.sampled_from(["deposit", "withdrawal", "purchase", "refund", "bonus", "이체"])
_STATUS = st.sampled_from(["confirmed", "confirmed", "pending", "cancelled", "completed"])
_WHEN = st.sampled_from(["2026-01-01 00:00:00", "2026-01-01 00:00:00.123", None])


@settings(max_examples=12)
@given(
    users=st.lists(_TEXT, min_size=1, max_size=4),
    accounts=st.lists(_AMOUNT, max_size=4),
    moved=st.lists(st.tuples(st.integers(1, 4), _TYPE, _AMOUNT, _STATUS, _TEXT, _TEXT, _WHEN), max_size=12),
    lines=st.lists(st.tuples(_TEXT, _TEXT, _AMOUNT, _WHEN), max_size=4),
    domains=st.lists(st.tuples(st.integers(1, 4), _TEXT, st.none() | _AMOUNT, _WHEN), max_size=4),
    log=st.lists(st.tuples(_TEXT, _TEXT, _TEXT), max_size=4),
)
@pytest.mark.long
def test_any_ledger_comes_back(
    users: list[str | None],
    accounts: list[int],
    moved: list[tuple[object, ...]],
    lines: list[tuple[object, ...]],
    domains: list[tuple[object, ...]],
    log: list[tuple[object, ...]],
) -> None:
    """Taken over, written back and taken over again, whatever the bot wrote: the same ledger."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with contextlib.closing(sqlite3.connect(folder / "bots.sqlite")) as bot:
            bot.executescript(MIGRATIONS[0].up + MIGRATIONS[1].up)
            insert = "INSERT INTO users (telegram_id, username) VALUES (?, ?)"
            bot.executemany(insert, [(str(number), name) for number, name in enumerate(users)])
            insert = "INSERT INTO user_deposits (user_id, balance) VALUES (?, ?)"
            bot.executemany(insert, [(user, abs(balance)) for user, balance in enumerate(accounts, start=1)])
            insert = (
                "INSERT INTO deposit_transactions (user_id, type, amount, status, depositor_name, description,"
                " confirmed_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
            )
            bot.executemany(insert, [(min(int(str(row[0])), len(users)), *row[1:]) for row in moved])
            insert = (
                "INSERT INTO bank_notifications (bank_name, raw_message, amount, transaction_time) VALUES (?, ?, ?, ?)"
            )
            bot.executemany(insert, lines)
            insert = "INSERT INTO user_domains (user_id, domain, price, registered_at) VALUES (?, ?, ?, ?)"
            bot.executemany(insert, [(min(int(str(r[0])), len(users)), r[1] or "", *r[2:]) for r in domains])
            insert = "INSERT INTO audit_logs (action, details, user_agent) VALUES (?, ?, ?)"
            bot.executemany(insert, [(row[0] or "", *row[1:]) for row in log])
            bot.commit()
        take_over(folder / "bots.sqlite", folder / "p.db")
        write_back(folder / "p.db", folder / "back.sql")
        assert take_over(folder / "back.sql", folder / "q.db").opening_entries == 0
        assert_came_back(folder / "p.db", folder / "q.db")
