"""Import: whole or nothing, from every form that the bot's database comes in. (The real wrangler: test_main_job.)"""

import contextlib
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import resources
from service.storage import import_source, lock, migrator, sql_text, sqlite
from service.storage.import_findings import Findings
from service.storage.importer import TABLES, ImportFailed, ImportReport, import_database
from service.storage.migrator import Migration, MigrationError
from tests.ledger_check import broken_invariants
from tests.named_files import Disk
from tests.printed import stands
from tests.some import some
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
    """Whether `folder` holds nothing but `kept`, what signs the audit log where a service ran, and the turns' lock."""
    names = {path.name for path in folder.iterdir() if ".audit-key" not in path.name}
    return {name for name in names if not name.endswith(".db.turn")} <= set(kept)


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


_NOT_FREE: dict[str, object] = {
    "users.telegram_id": "7001",
    "user_deposits.user_id": 1,
    "user_deposits.balance": 500,
    "deposit_transactions.user_id": 1,
    "deposit_transactions.type": "deposit",
    "deposit_transactions.amount": 500,
    "deposit_transactions.status": "confirmed",
    "bank_notifications.amount": 500,
    "bank_notifications.matched_transaction_id": 31,
    "user_domains.user_id": 1,
    "audit_logs.details": '{"a":"b"}',
}
"""Table.column -> a value that the bot's other rows, or the kind of the column, ask for."""
_FIRST_IDS = {"users": 1, "user_deposits": 21, "deposit_transactions": 31, "bank_notifications": 41, "user_domains": 51}


def _row_of(table: str, columns: list[tuple[str, str]]) -> dict[str, object]:
    """A value for each column, unlike any other's."""
    row: dict[str, object] = {}
    for number, (name, kind) in enumerate(columns, start=_FIRST_IDS.get(table, 61)):
        made = {"INTEGER": number * 1000, "DATETIME": f"2026-01-02 03:04:{number % 60:02d}", "TEXT": f"{table} {name}"}
        row[name] = number if name == "id" else _NOT_FREE.get(f"{table}.{name}", made[kind])
    return row


def test_every_column_comes_over_as_it_is(tmp_path: Path) -> None:
    """A row of each table of the bot, with a value of its own in each column: the same values in the same columns."""
    rows = {}
    with contextlib.closing(sqlite3.connect(tmp_path / "bots.sqlite")) as bot:
        bot.executescript(MIGRATIONS[0].up + MIGRATIONS[1].up)
        for table in (*_FIRST_IDS, "audit_logs"):
            columns = [(row[1], row[2]) for row in bot.execute(f"PRAGMA table_info({table})")]
            rows[table] = row = _row_of(table, columns)
            bot.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", [*row.values()])
        bot.commit()
    assert rows.keys() == {*TABLES, "audit_logs"}
    report = take_over(tmp_path / "bots.sqlite", tmp_path / "p.db")
    assert report.tables == dict.fromkeys(rows, 1)
    for table, row in some(rows.items()):
        found = read(tmp_path / "p.db", f"SELECT {', '.join(row)} FROM {table} ORDER BY id LIMIT 1")
        assert found == [tuple(row.values())], table
    assert read(tmp_path / "p.db", "SELECT status FROM bank_notifications") == [("matched",)]
    assert broken_invariants(tmp_path / "p.db") == []


def test_audit_rows_of_a_database_after_001_are_kept(tmp_path: Path) -> None:
    """Where wrangler ran 001 already, its audit rows come along with their ids, and nothing is rejected twice."""
    bots = make_bots_file(tmp_path / "bots.sqlite", through=1)
    before = read(bots, "SELECT id, action, details, created_at FROM audit_logs ORDER BY id")
    report = take_over(dump_of(bots, tmp_path / "bots.sql"), tmp_path / "p.db")
    after = read(tmp_path / "p.db", "SELECT id, action, details, created_at FROM audit_logs ORDER BY id")
    assert after[: len(before)] == before
    assert report.tables["audit_logs"] == len(before) == 3
    assert broken_invariants(tmp_path / "p.db") == []


def test_unknown_tables_are_left_aside_and_unknown_columns_archived(tmp_path: Path) -> None:
    """Other tables of the bot are reported with their rows; values of other columns are kept with their row's id."""
    extra = "CREATE TABLE conversations (id INTEGER); INSERT INTO conversations VALUES (1), (2);"
    extra += "ALTER TABLE users ADD COLUMN Language TEXT; UPDATE users SET language = '한국어' WHERE id IN (2, 3);"
    extra += "ALTER TABLE users ADD COLUMN photo BLOB; UPDATE users SET photo = X'00ff' WHERE id = 3;"
    report = take_over(make_bots_file(tmp_path / "bots.sqlite", extra=extra), tmp_path / "p.db")
    assert report.left_aside == ["conversations (2 rows)"]
    assert report.archived == ["users.Language (2 values)", "users.photo (1 values)"]
    assert archived(tmp_path) == [
        ("users", 2, {"Language": "한국어"}),
        ("users", 3, {"Language": "한국어", "photo": "X'00ff'"}),
    ]


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
        (b"INSERT INTO nowhere VALUES (1);", "no table users, user_deposits, deposit_transactions"),
        (b"CREATE TABLE users (id);\nINSERT INTO nowhere VALUES (1);", "line 2: no such table"),
        (b"BEGIN;\nCREATE TABLE users (id INTEGER);", "begins in line 1 has no COMMIT"),
        ("CREATE TABLE users (id INTEGER);".encode("utf-16"), "is UTF-16 text; .*iconv"),
        ("CREATE TABLE users (id INTEGER);".encode("utf-16-le"), "is UTF-16 text without its mark"),
        ("CREATE TABLE users (id);\n-- 홍길동".encode("cp949"), "line 2 is no UTF-8 text .*CP949"),
        (b"\x1f\x8b\x08rubbish", "compressed"),
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
    with pytest.raises(ImportFailed, match=r"Passbook database already.*passbook serve --database"):
        take_over(tmp_path / "p.db", tmp_path / "q.db")
    with pytest.raises(ImportFailed, match=r"Passbook database already.*passbook restore"):
        take_over(dump_of(tmp_path / "p.db", tmp_path / "p.sql"), tmp_path / "q.db")
    text = data_only((tmp_path / "p.sql").read_text("utf-8"))
    with pytest.raises(ImportFailed, match="Passbook database already"):
        take_over(export(tmp_path, text), tmp_path / "q.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "p.db")) as newer:
        newer.execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (99, '099_later', '')")
        newer.commit()
    with pytest.raises(ImportFailed, match=r"at migration 099; this program knows up to .*Update it"):
        take_over(tmp_path / "p.db", tmp_path / "q.db")


USERS = (
    "CREATE TABLE users (id INTEGER PRIMARY KEY AUTOINCREMENT, telegram_id TEXT NOT NULL UNIQUE, username TEXT,"
    " created_at DATETIME);\n"
)
DEPOSITS = (
    "CREATE TABLE user_deposits (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL UNIQUE,"
    " balance INTEGER NOT NULL, created_at DATETIME);\n"
)
TRANSACTIONS = (
    "CREATE TABLE deposit_transactions (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL,"
    " type TEXT NOT NULL, amount INTEGER NOT NULL, status TEXT, depositor_name TEXT, description TEXT,"
    " confirmed_at DATETIME, created_at DATETIME);\n"
)
SCHEMA = USERS + DEPOSITS + TRANSACTIONS
USER = "INSERT INTO users VALUES(1,'111','a','2026-01-01 00:00:00');\n"
ACCOUNT = "INSERT INTO user_deposits VALUES(1,1,5000,'2026-01-01 00:00:00');\n"
AUDIT_LOGS = (
    "CREATE TABLE audit_logs (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER, telegram_id TEXT,"
    " action TEXT NOT NULL, resource_type TEXT, resource_id INTEGER, details TEXT, ip_address TEXT, user_agent TEXT,"
    " created_at DATETIME);\n"
)


def moved(number: int, amount: str = "5000", *, status: str = "confirmed", kind: str = "deposit", **given: str) -> str:
    """An INSERT of a transaction; values are SQL."""
    name, when = given.get("name", "'n'"), given.get("when", "'2026-01-01 00:00:00'")
    return (
        f"INSERT INTO deposit_transactions VALUES({number},1,'{kind}',{amount},'{status}',{name},NULL,{when},{when});\n"
    )


def export(folder: Path, text: str) -> Path:
    """An export that says `text`."""
    source = folder / "d1.sql"
    source.write_text(text, "utf-8", newline="")
    return source


def take_over_text(folder: Path, text: str) -> ImportReport:
    """The import of an export that says `text`, to p.db; it must be sound."""
    report = take_over(export(folder, text), folder / "p.db")
    assert broken_invariants(folder / "p.db") == []
    return report


def refused(folder: Path, text: str) -> str:
    """What the import says when it refuses `text`; nothing is made."""
    with pytest.raises(ImportFailed) as raised:
        take_over(export(folder, text), folder / "p.db")
    assert only(folder, "d1.sql", "p.db.lock")
    return str(raised.value)


def mended(folder: Path) -> list[tuple[object, ...]]:
    """What the audit log of p.db says of mended values."""
    rows = read(
        folder / "p.db",
        "SELECT user_id, telegram_id, resource_type, resource_id, details FROM audit_logs"
        " WHERE action = 'import_value_mended' ORDER BY id",
    )
    return [(*row[:4], json.loads(str(row[4]))) for row in rows]


def archived(folder: Path) -> list[tuple[object, ...]]:
    """What import_archive of p.db keeps."""
    rows = read(folder / "p.db", "SELECT source_table, row_id, column_values FROM import_archive ORDER BY id")
    return [(*row[:2], json.loads(str(row[2]))) for row in rows]


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_side_file_of_an_earlier_database_is_refused(tmp_path: Path, suffix: str) -> None:
    """SQLite would replay an old log over the new file; the file is named and nothing is made."""
    stale = tmp_path / f"p.db{suffix}"
    stale.write_bytes(b"of an earlier database")
    with pytest.raises(ImportFailed, match=f"p.db{suffix}.*move it away together with"):
        take_over(make_bots_file(tmp_path / "bots.sqlite"), tmp_path / "p.db")
    assert stale.read_bytes() == b"of an earlier database"
    assert only(tmp_path, "bots.sqlite", stale.name, "p.db.lock")


@pytest.mark.parametrize("table", sorted(migrator.WORKING_TABLES_OF_001))
def test_half_finished_001_is_refused(tmp_path: Path, table: str) -> None:
    """A working table of 001 may hold the only copy of a balance."""
    assert "stopped half-way" in refused(tmp_path, SCHEMA + USER + f"CREATE TABLE {table.upper()} (id INTEGER);\n")


def test_dropped_table_with_its_copy_is_refused_as_half_finished(tmp_path: Path) -> None:
    """The sentence says what to do about the table, not that the file is none of the bot's."""
    assert "run it again there first" in refused(
        tmp_path, USERS + TRANSACTIONS + "CREATE TABLE accounts_backup (id);\n"
    )


@pytest.mark.parametrize("column", ["balance", "user_id"])
def test_table_without_its_money_or_links_is_refused(tmp_path: Path, column: str) -> None:
    """A default would state a balance that nobody had."""
    text = SCHEMA.replace(f"{column} INTEGER", f"x_{column} INTEGER", 1)
    assert f"user_deposits has no column {column}" in refused(tmp_path, text)


BANK_LINES = "CREATE TABLE bank_notifications (id INTEGER PRIMARY KEY, amount INTEGER);\n"
DOMAINS = "CREATE TABLE user_domains (id INTEGER PRIMARY KEY, user_id INTEGER, domain TEXT);\n"


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("users", "id"),
        ("users", "telegram_id"),
        *(("deposit_transactions", column) for column in ("id", "user_id", "type", "amount", "status")),
        ("bank_notifications", "amount"),
        ("user_domains", "user_id"),
        ("user_domains", "domain"),
        ("audit_logs", "action"),
    ],
)
def test_a_table_without_a_column_that_says_what_a_row_is_is_refused(tmp_path: Path, table: str, column: str) -> None:
    """A row would come over with a status, a kind or links that it did not have."""
    tables = (SCHEMA + BANK_LINES + DOMAINS + AUDIT_LOGS).splitlines(keepends=True)
    text = "".join(
        re.sub(rf"([(,] ?){column} ", r"\1other ", line, count=1) if f"TABLE {table} " in line else line
        for line in tables
    )
    assert f"its table {table} has no column {column}." in refused(tmp_path, text)


@pytest.mark.parametrize("table", ["idempotency_answers", "balance_change_references", "import_archive"])
def test_a_table_that_no_bot_has_tells_that_it_is_passbooks(tmp_path: Path, table: str) -> None:
    """Also where nothing else is left of its schema."""
    assert "is a Passbook database already" in refused(tmp_path, SCHEMA + f"CREATE TABLE {table} (id INTEGER);\n")


@pytest.mark.parametrize(
    ("behind", "said"), [(-1, "is a Passbook database already"), (0, "Update it"), (1, "Update it")]
)
def test_a_database_of_a_later_passbook_is_called_one(tmp_path: Path, behind: int, said: str) -> None:
    """The first migration that this program does not know is enough."""
    version = len(MIGRATIONS) + behind
    record = f"CREATE TABLE schema_migrations (version INTEGER);\nINSERT INTO schema_migrations VALUES({version});\n"
    assert said in refused(tmp_path, SCHEMA + record)


@pytest.mark.parametrize("schema", [SCHEMA + 'CREATE TABLE "a""b" (x);\n', ""], ids=["with a schema", "data alone"])
@pytest.mark.long
def test_a_table_with_a_quote_in_its_name_is_counted_and_left_aside(tmp_path: Path, schema: str) -> None:
    """Whatever a name holds; it is written doubled."""
    text = schema + USER + ACCOUNT + moved(1) + 'INSERT INTO "a""b" VALUES(1);\n'
    assert take_over_text(tmp_path, text).left_aside == ['a"b (1 rows)']


def test_triggers_and_views_of_a_file_are_told_like_those_of_text(tmp_path: Path) -> None:
    """They stay behind in the bot's file, and the report names them."""
    made = "CREATE TRIGGER mine AFTER INSERT ON users BEGIN SELECT 1; END; CREATE VIEW seen AS SELECT 1;"
    report = take_over(make_bots_file(tmp_path / "bots.sqlite", extra=made), tmp_path / "p.db")
    assert [told for told in report.left_aside if "mine" in told or "seen" in told] == ["trigger mine", "view seen"]


def test_rows_that_name_their_columns_do_not_go_with_rows_that_do_not(tmp_path: Path) -> None:
    """The values of the second kind would land in the columns of the first."""
    text = USER.replace("VALUES", "(telegram_id, id, username, created_at) VALUES").replace("(1,'111'", "('111',1")
    said = refused(tmp_path, text + USER.replace("1,'111'", "2,'222'") + ACCOUNT + moved(1))
    assert "users (some of its rows name their columns, others do not)" in said


def test_what_an_export_may_not_do_it_may_not_do_after_a_column_was_added(tmp_path: Path) -> None:
    """Its rows make a table grow; what comes after them is watched as before."""
    grown = "INSERT INTO users (id, telegram_id) VALUES(1,'111');\nINSERT INTO users (id, more) VALUES(2,'x');\n"
    said = refused(tmp_path, grown + f"ATTACH '{tmp_path / 'other.db'}' AS other;\n")
    assert "not authorized" in said
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("'5,000원'", "'5,000원' is no whole number"),
        ("1000.5", "1000.5 is no whole number"),
        ("9007199254740992", "9007199254740992 is beyond"),
        ("-9007199254740992", "is beyond"),
        ("9e999", "inf is no whole number"),
        ("X'35'", "X'35' is no whole number"),
        ("''", "'' is no whole number"),
    ],
)
def test_money_that_is_no_whole_number_is_refused(tmp_path: Path, value: str, words: str) -> None:
    """Table, row, column and value are named, for a balance and for an amount; nothing is made."""
    said = refused(tmp_path, SCHEMA + USER + ACCOUNT.replace("5000", value) + moved(7, value))
    assert "user_deposits, row 1, balance: " in said
    assert "deposit_transactions, row 7, amount: " in said
    assert said.count(words) == 2


def test_fractions_of_a_won_are_told_in_one_sentence(tmp_path: Path) -> None:
    """With each table, column and number of rows, and a statement that mends them; what is refused otherwise is not."""
    real = SCHEMA.replace("balance INTEGER", "balance REAL").replace("amount INTEGER", "amount REAL")
    odd = "".join(moved(number, value) for number, value in ((7, "0.5"), (8, "2.25"), (9, "3.0"), (10, "'x'")))
    said = refused(tmp_path, real + USER + ACCOUNT.replace("5000", "5000.75") + odd)
    lines = said.splitlines()
    assert lines[0] == "4 rows or values cannot be taken over; correct them in the source:"
    assert lines[1] == (
        "  There are fractions of a won in user_deposits.balance (1 row), deposit_transactions.amount (2 rows), and"
        " Passbook keeps whole won: round them in the source, each in your user's favour or as you decide, such as"
        " UPDATE user_deposits SET balance = round(balance); UPDATE deposit_transactions SET amount = round(amount);"
    )
    assert len(lines) == 6
    mended = tmp_path / "mended.db"
    with contextlib.closing(sqlite3.connect(mended)) as bots:
        bots.executescript(real + USER + ACCOUNT.replace("5000", "5000.75") + odd.replace("'x'", "4"))
        bots.executescript(lines[1].partition("such as ")[2])
    import_database(mended, tmp_path / "p.db", MIGRATIONS, lambda _: None)


def test_money_that_is_null_is_refused(tmp_path: Path) -> None:
    """Where the ledger needs a number, none is made up."""
    text = SCHEMA.replace("amount INTEGER NOT NULL", "amount INTEGER") + USER + ACCOUNT + moved(7, "NULL")
    assert "deposit_transactions, row 7, amount: NULL is no whole number" in refused(tmp_path, text)


def test_twenty_bad_rows_are_listed_at_once(tmp_path: Path) -> None:
    """So that they can be corrected in one go; not all of a million."""
    said = refused(tmp_path, SCHEMA + USER + ACCOUNT + "".join(moved(n, "0.5") for n in range(1, 31)))
    assert said.count("no whole number") == 20
    assert said.startswith("30 rows or values")
    assert "and 10 more: --report FILE lists all" in said


def test_whole_list_of_refused_rows_is_in_the_report(tmp_path: Path) -> None:
    """Every one of 30, with table, row, column, value and why; rows that point at a refused one are not listed too."""
    text = (
        SCHEMA + USER.replace("'111'", "X'31'") + ACCOUNT + moved(99) + "".join(moved(n, "0.5") for n in range(1, 31))
    )
    text += moved(98).replace("98,1,", "98,77,")
    findings = Findings(tmp_path / "list.ndjson")
    with pytest.raises(ImportFailed, match=r"see .*list\.ndjson"):
        import_database(export(tmp_path, text), tmp_path / "p.db", MIGRATIONS, lambda _: None, findings=findings)
    rows = [json.loads(line) for line in (tmp_path / "list.ndjson").read_text("utf-8").splitlines()]
    assert [row["row"] for row in rows] == [1, *range(1, 31), 98]
    assert rows[1] == {
        "kind": "refused", "table": "deposit_transactions", "row": 1, "column": "amount", "value": "0.5",
        "why": "0.5 is no whole number",
    }  # fmt: skip
    assert (rows[-1]["column"], rows[-1]["why"]) == ("user_id", "there is no row 77 in users")
    assert only(tmp_path, "d1.sql", "p.db.lock", "list.ndjson")


def test_report_is_not_written_over_another_file(tmp_path: Path) -> None:
    """Nor left behind by an import that no row is the reason of."""
    (tmp_path / "list.ndjson").write_text("mine")
    with pytest.raises(FileExistsError):
        import_database(
            export(tmp_path, SCHEMA),
            tmp_path / "p.db",
            MIGRATIONS,
            lambda _: None,
            findings=Findings(tmp_path / "list.ndjson"),
        )
    assert (tmp_path / "list.ndjson").read_text() == "mine"
    with pytest.raises(ImportFailed, match="no database of the bot"):
        import_database(
            export(tmp_path, ""), tmp_path / "p.db", MIGRATIONS, lambda _: None, findings=Findings(tmp_path / "other")
        )
    assert only(tmp_path, "d1.sql", "p.db.lock", "list.ndjson")


def test_whole_numbers_in_other_types_are_taken(tmp_path: Path) -> None:
    """7000.0 and '7000' are 7000, also where the source's columns have no type."""
    untyped = SCHEMA.replace("balance INTEGER NOT NULL", "balance").replace("amount INTEGER NOT NULL", "amount")
    report = take_over_text(
        tmp_path, untyped + USER + ACCOUNT.replace("5000", "'7000'") + moved(1, "6000.0") + moved(2, "'1000'")
    )
    assert report.values_mended == 3
    assert [(row[2], row[4]) for row in mended(tmp_path)] == [
        ("user_deposits", {"column": "balance", "old": "7000", "new": 7000}),
        ("deposit_transaction", {"column": "amount", "old": 6000.0, "new": 6000}),
        ("deposit_transaction", {"column": "amount", "old": "1000", "new": 1000}),
    ]
    assert read(tmp_path / "p.db", "SELECT balance, typeof(balance) FROM user_deposits") == [(7000, "integer")]
    amounts = read(tmp_path / "p.db", "SELECT amount, typeof(amount) FROM deposit_transactions")
    assert amounts == [(6000, "integer"), (1000, "integer")]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("'2026-01-19T12:00:00Z'", "2026-01-19 12:00:00"),
        ("'2026-01-19T21:00:00.5+09:00'", "2026-01-19 12:00:00.500"),
        ("'2026-01-19T12:00:00.000Z'", "2026-01-19 12:00:00"),
        ("'2026-01-19'", "2026-01-19 00:00:00"),
        ("1768824000", "2026-01-19 12:00:00"),
        ("1768824000.25", "2026-01-19 12:00:00.250"),
        ("1768824000123", "2026-01-19 12:00:00.123"),
        ("1768824000123.0", "2026-01-19 12:00:00.123"),
    ],
)
def test_times_are_spelled_as_rows_hold_them(tmp_path: Path, value: str, kept: str) -> None:
    """In the audit log too, so that since and until find the row; the same instant needs no audit row of its own."""
    text = SCHEMA + USER + ACCOUNT + moved(1, when=value) + AUDIT_LOGS
    report = take_over_text(
        tmp_path, text + f"INSERT INTO audit_logs VALUES(1,1,'111','login',NULL,NULL,NULL,NULL,NULL,{value});\n"
    )
    found = read(tmp_path / "p.db", "SELECT confirmed_at, created_at FROM deposit_transactions WHERE id = 1")
    assert found == [(kept, kept)]
    assert read(tmp_path / "p.db", "SELECT created_at FROM audit_logs WHERE id = 1") == [(kept,)]
    assert (report.times_respelled, report.values_mended) == (3, 0)


@pytest.mark.parametrize(
    ("value", "old", "new"),
    [
        ("'yesterday'", "yesterday", None),
        ("'2026-02-30 00:00:00'", "2026-02-30 00:00:00", None),
        ("'2026-01-19 24:00:00'", "2026-01-19 24:00:00", None),
        ("20260119", 20260119, None),
        ("X'00FF'", "X'00ff'", None),
        ("'2026-01-19 12:00:00.123456'", "2026-01-19 12:00:00.123456", "2026-01-19 12:00:00.123"),
    ],
)
def test_time_that_is_lost_is_logged_whole(tmp_path: Path, value: str, old: object, new: object) -> None:
    """The row stays; the old value is in the audit log with its user, table, row and column."""
    report = take_over_text(tmp_path, SCHEMA + USER + ACCOUNT.replace("'2026-01-01 00:00:00'", value) + moved(1))
    assert report.values_mended == 1
    assert read(tmp_path / "p.db", "SELECT balance, created_at FROM user_deposits") == [(5000, new)]
    assert mended(tmp_path) == [(1, "111", "user_deposits", 1, {"column": "created_at", "old": old, "new": new})]


def test_pending_deposit_of_nothing_is_cancelled(tmp_path: Path) -> None:
    """It could never be confirmed; the row as it was is in the audit log. A pending amount above 0 waits on."""
    text = SCHEMA + USER + ACCOUNT + moved(1) + moved(2, "0", status="pending") + moved(3, "-5", status="pending")
    report = take_over_text(tmp_path, text + moved(4, "1", status="pending"))
    statuses = read(tmp_path / "p.db", "SELECT id, status FROM deposit_transactions ORDER BY id")
    assert statuses == [(1, "confirmed"), (2, "cancelled"), (3, "cancelled"), (4, "pending")]
    assert report.values_mended == 2
    _, _, kind, row, details = mended(tmp_path)[1]
    assert (kind, row) == ("deposit_transaction", 3)
    assert isinstance(details, dict)
    assert (details["old"], details["new"], details["row"]["amount"]) == ("pending", "cancelled", -5)


@pytest.mark.parametrize("old", ["123456.0", " 123456 "])
def test_telegram_id_is_mended(tmp_path: Path, old: str) -> None:
    """A REAL's spelling and spaces around the digits go, and the log says so."""
    report = take_over_text(tmp_path, SCHEMA + USER.replace("111", old) + ACCOUNT + moved(1))
    assert read(tmp_path / "p.db", "SELECT telegram_id FROM users") == [("123456",)]
    assert mended(tmp_path) == [(1, "123456", "user", 1, {"column": "telegram_id", "old": old, "new": "123456"})]
    assert report.unreachable_users == 0


@pytest.mark.parametrize("other", ["111", "111.0"])
def test_two_users_with_one_telegram_id_are_refused(tmp_path: Path, other: str) -> None:
    """Both rows are named."""
    said = refused(
        tmp_path, SCHEMA + USER.replace("111", " 111") + f"INSERT INTO users VALUES(2,'{other}','b',NULL);\n"
    )
    assert stands("users, row 2", said)
    assert "row 1 has the same '111'" in said


def test_users_that_the_api_cannot_name_are_reported(tmp_path: Path) -> None:
    """They are kept as they are."""
    text = SCHEMA + USER + ACCOUNT + moved(1)
    for number, name in enumerate(["@kim", "", "1" * 21, "１２", "a", "b"], start=2):
        text += f"INSERT INTO users VALUES({number},'{name}',NULL,NULL);\n"
    report = take_over_text(tmp_path, text)
    assert report.unreachable_users == 6
    assert report.unreachable_examples[:2] == ["'@kim'", "''"]
    assert len(report.unreachable_examples) == 5
    assert read(tmp_path / "p.db", "SELECT telegram_id FROM users WHERE id = 2") == [("@kim",)]
    assert report.values_mended == 0


@pytest.mark.parametrize(
    "text",
    [
        SCHEMA + USER.strip() + " " + ACCOUNT + moved(1),
        SCHEMA + USER.strip() + " -- it's the first; user\n" + ACCOUNT + moved(1),
        "BEGIN;\n" + SCHEMA + USER + ACCOUNT + moved(1) + "COMMIT;\n",
        "-- a dump\n\n/* of ; it */ BEGIN TRANSACTION;\n" + SCHEMA + USER + ACCOUNT + moved(1) + "END;\n",
        "\ufeffBEGIN;\n" + SCHEMA + USER + ACCOUNT + moved(1) + "COMMIT;\n",
        (SCHEMA + USER + ACCOUNT + moved(1)).replace("\n", "\r\n"),
        (SCHEMA + USER + ACCOUNT + moved(1)).replace("\n", ""),
        ";;"
        + SCHEMA.replace("users", '"users"').replace("user_deposits", "[user_deposits]")
        + USER
        + ACCOUNT
        + moved(1),
        SCHEMA.replace("deposit_transactions", "`deposit_transactions`") + USER + ACCOUNT + moved(1) + "-- the end",
    ],
)
def test_statements_are_split_wherever_they_stand(tmp_path: Path, text: str) -> None:
    """Several on a line, comments, quotes of every kind, transactions, a byte order mark: the same rows."""
    assert take_over_text(tmp_path, text).tables == {"users": 1, "user_deposits": 1, "deposit_transactions": 1}


def test_triggers_views_and_virtual_tables_are_left_aside(tmp_path: Path) -> None:
    """They are not run, and named; a semicolon within a trigger does not end it."""
    text = (
        SCHEMA
        + 'CREATE TRIGGER "t;1" AFTER INSERT ON users BEGIN UPDATE users SET username = CASE WHEN 1 THEN \';\' END;\n'
        + "  DELETE FROM users;\nEND;CREATE VIEW v AS SELECT 1;\nCREATE VIRTUAL TABLE f USING unheard_of(x);\n"
        + "INSERT INTO f VALUES('x');\n" + USER + ACCOUNT + moved(1)
    )  # fmt: skip
    report = take_over_text(tmp_path, text)
    assert report.left_aside == ["trigger t;1", "view v", "virtual table f"]
    assert read(tmp_path / "p.db", "SELECT username FROM users") == [("a",)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SCHEMA + "INSERT INTO users VALUES(1,'a\0b',NULL,NULL);", "line 4 holds a NUL"),
        (SCHEMA + USER + "INSERT INTO users VALUES(;", "line 5: near"),
        (SCHEMA + USER + "ROLLBACK; -- due to errors", "line 5: .* not complete"),
        (SCHEMA + "/* unclosed", "ends within a comment"),
        (SCHEMA + "\n\nINSERT INTO users VALUES('x", "begins in line 6"),
        (SCHEMA + "CREATE TRIGGER t AFTER INSERT ON users BEGIN SELECT 1;", "begins in line 4"),
        (SCHEMA + "INSERT INTO sqlite_sequence VALUES('users', 9223372036854775807);", "leaves no id"),
    ],
)
def test_text_that_is_no_export_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    """One sentence with the line, no traceback."""
    with pytest.raises(ImportFailed, match=words):
        take_over(export(tmp_path, text), tmp_path / "p.db")
    assert only(tmp_path, "d1.sql", "p.db.lock")


def test_long_text_is_split_in_linear_time(tmp_path: Path) -> None:
    """60,000 lines that each end in a semicolon within one text: seconds, not minutes, and whole."""
    text = "x;\n" * 60_000
    began = time.process_time()
    take_over_text(tmp_path, SCHEMA + USER + ACCOUNT + moved(1).replace("NULL", f"'{text}'"))
    assert time.process_time() - began < 10
    assert read(tmp_path / "p.db", "SELECT description FROM deposit_transactions") == [(text,)]


def test_columns_of_later_migrations_are_archived_and_named(tmp_path: Path) -> None:
    """The bot's own reference, direction or version is not Passbook's, and does not vanish unsaid."""
    text = SCHEMA.replace("status TEXT", "reference TEXT, direction TEXT, status TEXT").replace(
        "balance INTEGER NOT NULL", "balance INTEGER NOT NULL, version INTEGER"
    )
    text += AUDIT_LOGS.replace("ip_address", "actor TEXT, ip_address")
    assert take_over_text(tmp_path, text).archived == [
        "audit_logs.actor (0 values)",
        "deposit_transactions.direction (0 values)",
        "deposit_transactions.reference (0 values)",
        "user_deposits.version (0 values)",
    ]


def test_audit_rows_come_by_the_columns_they_have(tmp_path: Path) -> None:
    """A log with fewer columns is taken; a resource_id that is no number is kept in a row about it."""
    text = SCHEMA + "CREATE TABLE audit_logs (id INTEGER PRIMARY KEY, action TEXT, resource_id);\n"
    report = take_over_text(tmp_path, text + "INSERT INTO audit_logs VALUES(9,'login','abc');\n")
    assert report.tables["audit_logs"] == 1
    assert read(tmp_path / "p.db", "SELECT id, action, resource_id FROM audit_logs WHERE id = 9") == [
        (9, "login", None)
    ]
    assert mended(tmp_path) == [(None, None, "audit_log", 9, {"column": "resource_id", "old": "abc", "new": None})]


def test_names_of_tables_and_columns_are_matched_without_case(tmp_path: Path) -> None:
    """SQL does not tell Users from users."""
    text = SCHEMA.replace("TABLE users", "TABLE Users").replace("telegram_id", "Telegram_ID")
    report = take_over_text(tmp_path, text + USER + ACCOUNT + moved(1))
    assert (report.tables["users"], report.left_aside) == (1, [])


def test_table_without_rowid_is_taken(tmp_path: Path) -> None:
    """It has nothing but its key to be ordered by."""
    text = SCHEMA.replace("AUTOINCREMENT", "").replace("created_at DATETIME);", "created_at DATETIME) WITHOUT ROWID;")
    assert take_over_text(tmp_path, text + USER + ACCOUNT + moved(1)).tables["users"] == 1


@pytest.mark.parametrize("value", ["X'41ff'", "CAST(X'41ff' AS TEXT)"])
def test_text_that_is_binary_is_refused(tmp_path: Path, value: str) -> None:
    """A name that no reader of JSON could be told; the row is named."""
    said = refused(tmp_path, SCHEMA + USER + ACCOUNT + moved(3, name=value))
    assert "deposit_transactions, row 3, depositor_name: X'41ff' is no text" in said


def test_unknown_types_are_reported(tmp_path: Path) -> None:
    """Nothing says whether such money came or went; it is counted as a credit, and said."""
    text = SCHEMA + USER + ACCOUNT + moved(1) + moved(2, "20", kind="domain_registration") + moved(3, kind="bonus")
    text += moved(4, "-7", kind="mystery") + moved(5, kind="withdrawal")
    assert take_over_text(tmp_path, text).unknown_types == ["domain_registration (1)"]


def test_ids_of_an_emptied_table_are_not_given_out_again(tmp_path: Path) -> None:
    """The bot deleted every transaction; SQLite still knew the last id."""
    take_over_text(tmp_path, SCHEMA + USER + ACCOUNT + moved(41) + "DELETE FROM deposit_transactions;\n")
    assert read(tmp_path / "p.db", "SELECT id FROM deposit_transactions") == [(42,)]


def test_new_folders_are_synced(tmp_path: Path) -> None:
    """Each folder that was made is written down in the one above it before the import says that it is done."""
    bots = make_bots_file(tmp_path / "bots.sqlite")
    with Disk(tmp_path, (".lock", ".turn", "-wal", "-shm")) as disk:
        take_over(bots, tmp_path / "a" / "b" / "p.db")
    synced = {call.path for call in disk.calls if call.what == "fsync"}
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= synced
    assert disk.judge() == []


def test_import_waits_for_nobody(tmp_path: Path) -> None:
    """While another process holds the target's lock, import says so at once."""
    with lock.exclusive(tmp_path / "p.db"), pytest.raises(lock.DatabaseInUse, match="in use by process"):
        take_over(make_bots_file(tmp_path / "bots.sqlite"), tmp_path / "p.db")


def data_only(text: str) -> str:
    """What --no-schema leaves of an export."""
    return "PRAGMA defer_foreign_keys=TRUE;\n" + "".join(
        line for line in text.splitlines(keepends=True) if line.startswith("INSERT")
    )


def test_data_without_schema_gives_the_same_database(tmp_path: Path) -> None:
    """Rows in the baseline's order need no CREATE TABLE; other tables are left aside; counters count."""
    bots = make_bots_file(tmp_path / "bots.sqlite", extra="DELETE FROM deposit_transactions WHERE id = 6;")
    text = data_only(dump_of(bots, tmp_path / "bots.sql").read_text("utf-8"))
    text += "INSERT INTO \"conversations\" VALUES(1,'hello',NULL);\nINSERT INTO conversations VALUES(2,'x',3);\n"
    report = take_over_text(tmp_path, text)
    assert report.left_aside == ["conversations (2 rows)"]
    assert report.by_order == [
        "bank_notifications", "deposit_transactions", "user_deposits", "user_domains", "users",
    ]  # fmt: skip
    take_over(bots, tmp_path / "q.db")
    for table in ("users", "user_deposits", "deposit_transactions", "bank_notifications", "user_domains"):
        columns = "user_id, balance" if table == "user_deposits" else "id"
        wanted = f"SELECT {columns} FROM {table} ORDER BY 1"
        assert read(tmp_path / "p.db", wanted) == read(tmp_path / "q.db", wanted), table


def test_data_without_schema_goes_by_the_columns_that_it_names(tmp_path: Path) -> None:
    """In any order, with more and with fewer, and not the same ones in each row."""
    text = (
        "INSERT INTO users (username, id, telegram_id) VALUES('a',1,'111');\n"
        "INSERT INTO users (language, telegram_id, id) VALUES('ko','222',2);\n"
        'INSERT INTO "user_deposits" ("balance", [user_id]) VALUES(5000,1);\n'
        "INSERT INTO deposit_transactions (id,amount,user_id,status,type) VALUES(7,5000,1,'confirmed','deposit');\n"
    )
    report = take_over_text(tmp_path, text)
    assert (report.by_order, report.archived) == ([], ["users.language (1 values)"])
    assert archived(tmp_path) == [("users", 2, {"language": "ko"})]
    assert read(tmp_path / "p.db", "SELECT balance FROM user_deposits ORDER BY user_id") == [(5000,), (0,)]


def test_data_without_schema_that_does_not_fit_is_refused_by_table(tmp_path: Path) -> None:
    """Each table is named with its numbers, and the remedy."""
    said = refused(tmp_path, USER.replace("'a'", "'a','b'") + ACCOUNT.replace(",5000", "") + moved(1))
    assert "users (its rows have 5 values, the baseline 4 columns)" in said
    assert "user_deposits (its rows have 3 values, the baseline 4 columns)" in said
    assert "without --no-schema" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (USER + "INSERT INTO user_deposits VALUES(1,5000,1,NULL);\n" + moved(1), "belong to no user"),
        (USER + ACCOUNT.replace("'2026-01-01 00:00:00'", "'kim'") + moved(1), "'kim' is no time; the export names no"),
    ],
)
def test_data_without_schema_in_another_order_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """Accounts of nobody and times that are none tell that the columns are others."""
    assert words in refused(tmp_path, text)


def test_export_cut_off_between_two_rows_is_doubted(tmp_path: Path) -> None:
    """wrangler ends every export with SQLite's counters; without them the report warns."""
    text = "PRAGMA defer_foreign_keys=TRUE;\n" + SCHEMA + USER + ACCOUNT + moved(1)
    (doubt,) = take_over(export(tmp_path, text), tmp_path / "p.db").doubts
    assert "may be cut off" in doubt
    assert take_over(export(tmp_path, text + "DELETE FROM sqlite_sequence;\n"), tmp_path / "q.db").doubts == []


def test_every_way_of_cutting_an_export_off_leaves_nothing(tmp_path: Path) -> None:
    """Cut anywhere within a statement: the line is named; nothing is there but the source."""
    text = SCHEMA + USER + ACCOUNT + moved(1, name="'it''s; ok'")
    for size in range(len(SCHEMA) + 1, len(text) - 2, 7):
        if text[:size].endswith((";", ";\n")):
            continue
        assert "begins in line" in refused(tmp_path, text[:size])


@pytest.mark.parametrize("value", ["123456", "123456.0"])
def test_telegram_id_that_is_a_number_is_taken_exactly(tmp_path: Path, value: str) -> None:
    """The digits are the same; a REAL is in the log."""
    untyped = SCHEMA.replace("telegram_id TEXT", "telegram_id")
    report = take_over_text(tmp_path, untyped + USER.replace("'111'", value) + ACCOUNT + moved(1))
    assert read(tmp_path / "p.db", "SELECT telegram_id FROM users") == [("123456",)]
    assert (report.numbers_retyped, report.values_mended) == ((1, 0) if value == "123456" else (0, 1))


@pytest.mark.parametrize("value", ["9007199254740992.0", "9007199254740993", "1e300"])
def test_telegram_id_beyond_2_53_that_is_a_number_is_refused(tmp_path: Path, value: str) -> None:
    """It may have been rounded: another user's name."""
    said = refused(tmp_path, SCHEMA.replace("telegram_id TEXT", "telegram_id") + USER.replace("'111'", value))
    assert "users, row 1, telegram_id: " in said
    assert "may have been rounded" in said


def test_unknown_status_is_kept_counted_and_no_money(tmp_path: Path) -> None:
    """The balance it stands for becomes an opening entry, which the report names."""
    text = SCHEMA + USER + ACCOUNT + moved(1, "3000", status="completed") + moved(2, "2000") + moved(3, status="done")
    report = take_over_text(tmp_path, text)
    assert report.unknown_statuses == {"completed": 1, "done": 1}
    assert report.openings == ["user 111: balance 5000, history 2000; transaction 4, a credit of 3000"]
    assert read(tmp_path / "p.db", "SELECT status FROM deposit_transactions WHERE id = 1") == [("completed",)]


def test_status_is_mapped_and_the_old_word_kept(tmp_path: Path) -> None:
    """completed=confirmed counts as money; each row's word is in the archive and each mapping in the audit log."""
    text = SCHEMA + USER + ACCOUNT + moved(1, "3000", status="completed") + moved(2, "2000") + moved(3, status="done")
    report = import_database(
        export(tmp_path, text),
        tmp_path / "p.db",
        MIGRATIONS,
        lambda _: None,
        statuses={"completed": "confirmed", "done": "cancelled"},
    )
    assert broken_invariants(tmp_path / "p.db") == []
    assert (report.opening_entries, report.unknown_statuses) == (0, {})
    assert report.statuses_mapped == {"completed": 1, "done": 1}
    statuses = read(tmp_path / "p.db", "SELECT status FROM deposit_transactions ORDER BY id")
    assert statuses == [("confirmed",), ("confirmed",), ("cancelled",)]
    assert archived(tmp_path) == [
        ("deposit_transactions", 1, {"status": "completed"}),
        ("deposit_transactions", 3, {"status": "done"}),
    ]
    logged = read(tmp_path / "p.db", "SELECT details FROM audit_logs WHERE action = 'import_status_mapped' ORDER BY id")
    assert [json.loads(str(row[0])) for row in logged] == [
        {"old": "completed", "new": "confirmed", "rows": 1},
        {"old": "done", "new": "cancelled", "rows": 1},
    ]


def test_status_that_no_row_has_is_a_typing_error(tmp_path: Path) -> None:
    """Nothing is made."""
    with pytest.raises(ImportFailed, match="No transaction has the status 'compelted'"):
        import_database(
            export(tmp_path, SCHEMA + USER + ACCOUNT + moved(1)),
            tmp_path / "p.db",
            MIGRATIONS,
            lambda _: None,
            statuses={"compelted": "confirmed"},
        )
    assert only(tmp_path, "d1.sql", "p.db.lock")


def test_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is no text at all must not be read into memory in one piece."""
    monkeypatch.setattr(sql_text, "_LINE_BYTES_MAX", 1000)
    assert "line 4 is longer than 1,000 bytes" in refused(tmp_path, SCHEMA + moved(1, name=f"'{'x' * 1000}'"))


def test_rows_are_told_apart_where_one_of_many_fails(tmp_path: Path) -> None:
    """They are carried out together; the line is still that of the one that fails, and what it says."""
    rows = "".join(moved(number) for number in range(1, 300))
    assert "line 201: near" in refused(tmp_path, SCHEMA + USER + rows.replace("(197,1,", "(197 1,"))
    text = (
        SCHEMA + USER + ACCOUNT.replace("5000", "0") + "".join(moved(n, "1", status="pending") for n in range(1, 300))
    )
    assert take_over_text(tmp_path, text).tables["deposit_transactions"] == 299


@contextlib.contextmanager
def scratches_of(
    monkeypatch: pytest.MonkeyPatch, factory: type[sqlite3.Connection] = sqlite.driver.Connection
) -> Iterator[list[sqlite3.Connection]]:
    """The connections to databases that imports read text into, or read themselves."""
    made: list[sqlite3.Connection] = []

    def scratch(path: Path | str = ":memory:") -> sqlite3.Connection:
        if isinstance(path, str):
            return open_scratch(path)
        made.append(sqlite.driver.connect(path, isolation_level=None, factory=factory))
        return made[-1]

    def reader(path: Path, *, busy_timeout_ms: int) -> sqlite3.Connection:
        made.append(connect_reader(path, busy_timeout_ms=busy_timeout_ms))
        return made[-1]

    connect_reader, open_scratch = sqlite.connect_reader, sqlite.open_scratch
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "open_scratch", scratch)
        patched.setattr(sqlite, "connect_reader", reader)
        yield made


class _Traced(sqlite.driver.Connection):  # type: ignore[misc]
    longest = 0
    full_at = ""

    def execute(self, sql: str, *args: Any) -> Any:
        """Notes the length of the longest; the disk is full the first time that one holds `full_at`."""
        type(self).longest = max(self.longest, len(sql))
        if self.full_at and self.full_at in sql:
            type(self).full_at = ""
            error = sqlite.driver.OperationalError("database or disk is full")
            error.sqlite_errorcode = 13
            raise error
        return super().execute(sql, *args)


MANY_ROWS = "".join(f"INSERT INTO users VALUES({n},'{n}','{'u' * 80}',NULL);\n" for n in range(1, 2001))


def read_text(folder: Path, text: str) -> None:
    """What the import does first with an export that says `text`: reads it into a scratch database."""
    source = export(folder, text)
    found = import_source.open_source(source, folder / "scratch", MIGRATIONS, lambda _: None, lambda *_: None)
    found.connection.close()


def test_rows_that_are_carried_out_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a table is: else the whole export would be in memory, as one statement."""
    monkeypatch.setattr(_Traced, "longest", 0)
    with scratches_of(monkeypatch, _Traced):
        read_text(tmp_path, SCHEMA + ACCOUNT + MANY_ROWS)
    assert _Traced.longest > 10_000, "no rows were carried out together"
    assert _Traced.longest < 100_000, "all rows of the table are one statement"


def test_a_disk_that_is_full_for_rows_together_ends_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite may have undone the whole transaction then: rows that go in one by one would be all that is left."""
    monkeypatch.setattr(_Traced, "full_at", f"),({1500},")
    with scratches_of(monkeypatch, _Traced), pytest.raises(sqlite.DatabaseError, match="disk is full"):
        read_text(tmp_path, SCHEMA + ACCOUNT + MANY_ROWS)


@pytest.mark.parametrize("text", ["SELECT 1 FROM nowhere;", "CREATE TABLE users (id INTEGER);"])
def test_a_source_that_is_refused_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """An open one would keep its file, and the room that it takes, after it has been removed."""
    database = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE others (id INTEGER)")
    with scratches_of(monkeypatch) as made:
        with pytest.raises(ImportFailed):
            read_text(tmp_path, text)
        with pytest.raises(ImportFailed):
            take_over(database, tmp_path / "p.db")
    assert len(made) == 2
    for connection in some(made):
        with pytest.raises(sqlite.driver.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


def test_log_rows_keep_their_ids_though_one_before_them_is_mended(tmp_path: Path) -> None:
    """What the import adds to the log comes after all that it had."""
    text = SCHEMA + AUDIT_LOGS
    for number, when in ((1, "yesterday"), (2, "2026-01-01 00:00:00"), (3, "2026-01-01 00:00:00")):
        text += f"INSERT INTO audit_logs VALUES({number},1,'1','a{number}',NULL,NULL,NULL,NULL,NULL,'{when}');\n"
    take_over_text(tmp_path, text)
    assert read(tmp_path / "p.db", "SELECT id, action FROM audit_logs ORDER BY id") == [
        (1, "a1"), (2, "a2"), (3, "a3"), (4, "import_value_mended"),
        (5, "import_finished"),
    ]  # fmt: skip


def test_bad_row_among_thousands_of_good_ones_is_found_by_number(tmp_path: Path) -> None:
    """Rows go in by the thousand; the one that a constraint refuses is still named."""
    rows = "".join(f"INSERT INTO users VALUES({n},'{n}','u',NULL);\n" for n in range(1, 2501))
    schema = SCHEMA.replace("telegram_id TEXT NOT NULL UNIQUE", "telegram_id TEXT")
    said = refused(tmp_path, schema + rows + "INSERT INTO users VALUES(2501,'1234','u',NULL);\n")
    assert said.startswith("1 rows or values")
    assert "users, row 2501, telegram_id: " in said
    assert "row 1234 has the same '1234'" in said


def test_report_lists_what_was_mended_archived_and_left(tmp_path: Path) -> None:
    """One JSON object a line, of an import that succeeded."""
    extra = "CREATE TABLE conversations (id INTEGER); ALTER TABLE users ADD COLUMN language TEXT;"
    findings = Findings(tmp_path / "list.ndjson")
    source = make_bots_file(tmp_path / "bots.sqlite", extra=extra)
    import_database(source, tmp_path / "p.db", MIGRATIONS, lambda _: None, findings=findings)
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "list.ndjson").read_text("utf-8").splitlines()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "balance_rejected": 2,
        "name_truncated": 1,
        "amount_made_positive": 1,
        "account_removed": 1,
        "opening_adjustment": 3,
        "archived": 1,
        "left_aside": 1,
    }


@pytest.mark.parametrize(
    ("bug", "said"),
    [
        (
            "DROP TRIGGER user_deposits_need_transaction;\nUPDATE user_deposits SET balance = balance + 1;",
            "is not the sum of its transactions",
        ),
        (
            "DROP TRIGGER users_refuse_delete;\nDELETE FROM users WHERE id = (SELECT MIN(user_id) FROM user_deposits);",
            "does not pass SQLite's own checks",
        ),
    ],
    ids=["a balance", "a link"],
)
def test_import_that_went_wrong_leaves_no_database(tmp_path: Path, bug: str, said: str) -> None:
    """A last migration that spoils what was taken over, as a bug of the import would: it proves itself at its end."""
    wrong = Migration(version=len(MIGRATIONS), name="999_bug", up=bug, down="SELECT 1;", checksum="")
    with pytest.raises(MigrationError, match=said):
        import_database(
            make_bots_file(tmp_path / "bots.sqlite"), tmp_path / "a.db", [*MIGRATIONS, wrong], lambda _: None
        )
    assert only(tmp_path, "bots.sqlite", "a.db.lock")
