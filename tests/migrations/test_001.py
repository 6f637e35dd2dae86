"""Migration 001 and its rollback on SQLite itself: what they keep, and that they end well from every state.

An interruption is played statement by statement without a surrounding transaction: each statement stands for itself,
the run stops after the k-th, and the whole file is run again.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.migrations.d1 import MIGRATIONS

try:
    import pysqlite3
except ImportError:
    pysqlite3 = None

ENGINES: list[ModuleType] = [sqlite3] + ([pysqlite3] if pysqlite3 else [])
Database = sqlite3.Connection
State = dict[str, Any]

NAMES = {
    1: "홍길동",
    2: "가" * 50,
    3: "나" * 51,
    4: "x" * 60,
    5: None,
    6: "😀" * 55,
    7: 'it\'s "so"\n' * 6,
    8: "",
    9: "라" * 49 + "😀",
}
LONG_NAMES = {id_: name for id_, name in NAMES.items() if name is not None and len(name) > 50}
ROWS = """
INSERT INTO users (telegram_id, username) VALUES
  ('123456', 'testuser'), ('7', NULL), ('8', '문어🐙'), ('9', 'O''Brien');
INSERT INTO user_deposits (id, user_id, balance, created_at) VALUES
  (1, 1, 10000, '2026-01-01 00:00:00'), (2, 2, -1, '2026-01-02 00:00:00'), (4, 3, 0, NULL),
  (5, 777, -9007199254740991, NULL), (6, 888, 9007199254740991, '2026-01-03 00:00:00'), (9, 889, 1, NULL);
DELETE FROM user_deposits WHERE id = 9;
INSERT INTO bank_notifications (amount) VALUES (1);
"""
ROWS_AFTER = """
INSERT INTO deposit_transactions (id, user_id, type, amount) VALUES (40, 1, 'deposit', 1);
DELETE FROM deposit_transactions WHERE id = 40;
INSERT INTO bank_notifications (amount, matched_transaction_id) VALUES (5000, 1), (6000, 4), (7000, 6);
INSERT INTO user_domains (user_id, domain) VALUES (1, 'example.com');
"""


def statements(path: Path) -> list[str]:
    """The file's statements, split as the migrator splits them."""
    found: list[str] = []
    pending = ""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        pending += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    assert not pending.strip(), "the file ends inside a statement"
    return found


BASELINE = statements(MIGRATIONS / "000_baseline.sql")
UP = statements(MIGRATIONS / "001_schema_enhancements.sql")
DOWN = statements(MIGRATIONS / "001_rollback.sql")
UP_SAYS = "✅ Migration 001 completed successfully"
DOWN_SAYS = "✅ Rollback 001 completed successfully"


def run(database: Database, script: list[str]) -> str:
    """Run each statement by itself; the first value of the last one."""
    rows: list[Any] = []
    for statement in script:
        rows = database.execute(statement).fetchall()
    return str(rows[0][0]) if rows else ""


def baseline(engine: ModuleType) -> Database:
    """A bot's database in memory, foreign keys on as on D1, with every kind of row that 001 treats differently."""
    database: Database = engine.connect(":memory:", isolation_level=None)
    database.execute("PRAGMA foreign_keys = ON")
    run(database, BASELINE)
    database.executescript(ROWS)
    database.executemany(
        "INSERT INTO deposit_transactions (id, user_id, type, amount, status, depositor_name, description,"
        " confirmed_at, created_at)"
        " VALUES (?, 1, 'deposit', 5000, 'confirmed', ?, 'line\nline', NULL, '2026-01-01 00:00:00')",
        list(NAMES.items()),
    )
    database.executescript(ROWS_AFTER)
    for table in ("users", "bank_notifications", "user_domains"):
        # The clock may tick between two databases that are going to be compared.
        database.execute(f"UPDATE {table} SET created_at = '2026-01-01 00:00:00'")
    return database


def state(database: Database) -> State:
    """Schema and every row. Of audit_logs all but id and created_at, which tell when it was written."""
    objects = database.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name <> 'sqlite_sequence' ORDER BY type, name"
    ).fetchall()
    found: State = {"sqlite_master": objects}
    for kind, table, _, _ in objects:
        if kind == "table":
            columns = (
                "user_id, telegram_id, action, resource_type, resource_id, details, ip_address, user_agent"
                if table == "audit_logs"
                else "*"
            )
            found[table] = sorted(database.execute(f"SELECT {columns} FROM {table}").fetchall(), key=repr)
    found["sqlite_sequence"] = sorted(
        database.execute("SELECT name, seq FROM sqlite_sequence WHERE seq > 0 AND name <> 'audit_logs'").fetchall()
    )
    found["foreign_key_check"] = database.execute("PRAGMA foreign_key_check").fetchall()
    return found


@pytest.fixture(params=ENGINES, ids=[engine.sqlite_version for engine in ENGINES])
def engine(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


@pytest.fixture
def bot(engine: ModuleType) -> Iterator[Database]:
    database = baseline(engine)
    yield database
    database.close()


def finished(engine: ModuleType, *scripts: list[str]) -> State:
    """The state after undisturbed runs."""
    database = baseline(engine)
    for script in scripts:
        run(database, script)
    found = state(database)
    database.close()
    return found


@pytest.mark.parametrize("name", ["001_schema_enhancements.sql", "001_rollback.sql"])
def test_file_holds_no_transaction_words(name: str) -> None:
    """D1 refuses BEGIN, COMMIT and SAVEPOINT, even in a comment, and its splitter is led astray by CASE."""
    words = set(re.findall(r"[A-Za-z_]+", (MIGRATIONS / name).read_text(encoding="utf-8").upper()))
    assert not words & {"BEGIN", "COMMIT", "SAVEPOINT", "CASE", "ROLLBACK_TO", "ATTACH", "VACUUM", "TEMP"}


def test_up_enforces_the_guides_constraints_with_its_messages(bot: Database) -> None:
    """A negative balance and a name of 51 characters are refused, one of 50 is taken, and a refusal changes nothing."""
    assert run(bot, UP) == UP_SAYS
    before = state(bot)
    with pytest.raises(Exception, match=r"^CHECK constraint failed: balance >= 0$"):
        bot.execute("INSERT INTO user_deposits (user_id, balance) VALUES (999, -1000)")
    with pytest.raises(Exception, match=r"^CHECK constraint failed: length\(depositor_name\) <= 50$"):
        bot.execute("UPDATE deposit_transactions SET depositor_name = ? WHERE id = 1", ("가" * 51,))
    assert state(bot) == before
    bot.execute("UPDATE deposit_transactions SET depositor_name = ? WHERE id = 1", ("😀" * 50,))


def test_up_keeps_every_row_and_logs_what_it_rejects_and_cuts(bot: Database) -> None:
    """Negative balances are out and whole in the log; names are cut to 50 code points and whole in the log."""
    old_accounts = bot.execute("SELECT id, user_id, balance, created_at FROM user_deposits").fetchall()
    old_transactions = bot.execute("SELECT * FROM deposit_transactions").fetchall()
    untouched = {
        table: bot.execute(f"SELECT * FROM {table}").fetchall()
        for table in ("users", "bank_notifications", "user_domains")
    }
    run(bot, UP)
    kept = bot.execute("SELECT id, user_id, balance, created_at FROM user_deposits").fetchall()
    assert kept == [row for row in old_accounts if row[2] >= 0]
    transactions = bot.execute("SELECT * FROM deposit_transactions").fetchall()
    assert transactions == [(*row[:5], row[5] and row[5][:50], *row[6:]) for row in old_transactions]
    for table, rows in untouched.items():
        assert bot.execute(f"SELECT * FROM {table}").fetchall() == rows
    logged = bot.execute(
        "SELECT action, resource_type, resource_id, user_id, telegram_id, details FROM audit_logs ORDER BY id"
    ).fetchall()
    rejected = [
        ("migration_balance_rejected", "user_deposits", 2, 2, "7",
         {"id": 2, "user_id": 2, "balance": -1, "created_at": "2026-01-02 00:00:00"}),
        ("migration_balance_rejected", "user_deposits", 5, 777, None,
         {"id": 5, "user_id": 777, "balance": -9007199254740991, "created_at": None}),
    ]  # fmt: skip
    cut = [
        ("migration_depositor_name_truncated", "deposit_transaction", id_, 1, "123456",
         {"depositor_name": name, "new_depositor_name": name[:50]})
        for id_, name in LONG_NAMES.items()
    ]  # fmt: skip
    assert [(*row[:5], json.loads(row[5])) for row in logged] == rejected + cut


def test_up_leaves_the_guides_audit_columns_and_no_working_table(bot: Database) -> None:
    """audit_logs has the guide's ten columns in its order; all tables and indexes of 000 are there and nothing else."""
    before = {row[0] for row in bot.execute("SELECT name FROM sqlite_master")}
    run(bot, UP)
    assert [row[1] for row in bot.execute("PRAGMA table_info(audit_logs)")] == [
        "id", "user_id", "telegram_id", "action", "resource_type", "resource_id", "details", "ip_address", "user_agent",
        "created_at",
    ]  # fmt: skip
    after = {row[0] for row in bot.execute("SELECT name FROM sqlite_master")}
    assert after - before == {
        "audit_logs", "idx_audit_logs_telegram_id", "idx_audit_logs_action", "idx_audit_logs_resource",
    }  # fmt: skip
    assert before <= after


def test_no_id_is_given_out_twice(bot: Database) -> None:
    """The highest ids ever used, of rows deleted or rejected since, survive both rebuilds."""
    for script in (UP, DOWN):
        run(bot, script)
        sequence = dict(bot.execute("SELECT name, seq FROM sqlite_sequence"))
        assert (sequence["user_deposits"], sequence["deposit_transactions"]) == (9, 40)
    assert bot.execute("INSERT INTO user_deposits (user_id) VALUES (5000) RETURNING id").fetchall() == [(10,)]


def test_rollback_gives_back_the_baseline(bot: Database, engine: ModuleType) -> None:
    """After up and down the schema and every row are those of before, and the guide's -1000 insert succeeds."""
    before = state(bot)
    run(bot, UP)
    assert state(bot) != before
    assert run(bot, DOWN) == DOWN_SAYS
    assert state(bot) == before
    run(bot, UP)
    assert state(bot) == finished(engine, UP)
    run(bot, DOWN)
    bot.execute("INSERT INTO user_deposits (user_id, balance) VALUES (999, -1000)")


def test_rollback_keeps_the_newer_account_and_the_newer_name(bot: Database) -> None:
    """A rejected row stays out where the user has an account again; a name that was changed since the cut is kept."""
    run(bot, UP)
    bot.execute("INSERT INTO user_deposits (user_id, balance) VALUES (2, 70)")
    bot.execute("UPDATE deposit_transactions SET depositor_name = '새이름' WHERE id = 3")
    run(bot, DOWN)
    assert bot.execute("SELECT balance FROM user_deposits WHERE user_id IN (2, 777) ORDER BY user_id").fetchall() == [
        (70,),
        (-9007199254740991,),
    ]
    names = dict(bot.execute("SELECT id, depositor_name FROM deposit_transactions"))
    assert names == {**NAMES, 3: "새이름"}


@pytest.mark.parametrize(("script", "says"), [(UP, UP_SAYS), (DOWN, DOWN_SAYS)], ids=["up", "down"])
def test_second_run_changes_nothing(bot: Database, script: list[str], says: str) -> None:
    """A file that has finished may be run again."""
    run(bot, UP)
    run(bot, script)
    before = state(bot)
    assert run(bot, script) == says
    assert state(bot) == before


@pytest.mark.parametrize("script", [UP, DOWN], ids=["up", "down"])
def test_one_transaction_gives_the_same_as_single_statements(
    bot: Database, engine: ModuleType, script: list[str]
) -> None:
    """Inside a transaction with foreign keys on the result is the same; rolled back, nothing has happened."""
    if script is DOWN:
        run(bot, UP)
    before = state(bot)
    for end in ("ROLLBACK", "COMMIT"):
        bot.execute("BEGIN IMMEDIATE")
        run(bot, script)
        bot.execute(end)
        assert state(bot) == (
            before if end == "ROLLBACK" else finished(engine, *([UP] if script is UP else [UP, DOWN]))
        )


def test_unknown_tables_may_point_at_the_rebuilt_ones_inside_a_transaction(bot: Database) -> None:
    """A table of the bot that 000 does not know keeps its foreign key to deposit_transactions."""
    bot.execute("CREATE TABLE receipts (transaction_id INTEGER REFERENCES deposit_transactions(id))")
    bot.execute("INSERT INTO receipts VALUES (4)")
    for script in (UP, DOWN):
        bot.execute("BEGIN")
        run(bot, script)
        bot.execute("COMMIT")
        assert state(bot)["foreign_key_check"] == []
        assert state(bot)["receipts"] == [(4,)]


Meanwhile = Callable[[Database], None]


def nothing(database: Database) -> None:
    """Nobody touches the database."""


def audit_logs_dropped(database: Database) -> None:
    """The guide's advice under 'Table already exists'."""
    database.execute("DROP TABLE IF EXISTS audit_logs")


# After the very last working table is gone 001 has finished; who drops the log then, drops a log and no remains.
FINISHED_AFTER = len(UP) - 2


# Until the first backup is dropped, the backups alone are enough to end well.
BACKUPS_UNTIL = next(k for k, statement in enumerate(UP) if "DROP TABLE IF EXISTS user_deposits_backup" in statement)


def notes_dropped(database: Database) -> None:
    """Somebody tidies up: the log and the working table that nobody knows, but not the backups."""
    audit_logs_dropped(database)
    database.execute("DROP TABLE IF EXISTS migration_001_audit")


INTERRUPTIONS = [
    pytest.param(nothing, len(UP), id="nothing"),
    pytest.param(audit_logs_dropped, FINISHED_AFTER, id="audit_logs_dropped"),
    pytest.param(notes_dropped, BACKUPS_UNTIL, id="notes_dropped"),
]


def attempt(database: Database, statement: str, *refusals: str) -> list[Any] | None:
    """The rows of a statement, or None if it failed with one of these messages."""
    try:
        return database.execute(statement).fetchall()
    except Exception as error:
        if not any(refusal in str(error) for refusal in refusals):
            raise
        return None


@pytest.mark.parametrize(("meanwhile", "last"), INTERRUPTIONS)
def test_up_ends_well_from_every_interruption(engine: ModuleType, meanwhile: Meanwhile, last: int) -> None:
    """Stopped after any statement, and with audit_logs dropped: a re-run gives the undisturbed state."""
    expected = finished(engine, UP)
    for k in range(last + 1):
        database = baseline(engine)
        run(database, UP[:k])
        meanwhile(database)
        assert run(database, UP) == UP_SAYS
        assert state(database) == expected, f"stopped after statement {k}: {UP[k - 1]}"
        database.close()


def test_up_ends_well_from_two_interruptions(engine: ModuleType) -> None:
    """Stopped after any statement, and the re-run stopped too, after any other one."""
    expected = finished(engine, UP)
    for first in range(0, len(UP), 2):
        for second in range(0, len(UP), 3):
            database = baseline(engine)
            run(database, UP[:first])
            run(database, UP[:second])
            run(database, UP)
            assert state(database) == expected, f"stopped after statements {first} and {second}"
            database.close()


def test_down_ends_well_from_every_interruption(engine: ModuleType) -> None:
    """The rollback, stopped after any statement and run again, gives the baseline."""
    expected = finished(engine)
    for k in range(len(DOWN) + 1):
        database = baseline(engine)
        run(database, UP)
        run(database, DOWN[:k])
        assert run(database, DOWN) == DOWN_SAYS
        assert state(database) == expected, f"stopped after statement {k}: {DOWN[k - 1]}"
        database.close()


@pytest.mark.parametrize(("meanwhile", "last"), INTERRUPTIONS)
def test_down_ends_well_from_every_interruption_of_up(engine: ModuleType, meanwhile: Meanwhile, last: int) -> None:
    """'Migration fails mid-execution' is the guide's first reason to roll back: the baseline comes back."""
    expected = finished(engine)
    for k in range(last + 1):
        database = baseline(engine)
        run(database, UP[:k])
        meanwhile(database)
        run(database, DOWN)
        assert state(database) == expected, f"stopped after statement {k}: {UP[k - 1]}"
        database.close()


def test_up_ends_well_from_every_interruption_of_down(engine: ModuleType) -> None:
    """A rollback that is broken off may be answered with the migration as well."""
    expected = finished(engine, UP)
    for k in range(len(DOWN) + 1):
        database = baseline(engine)
        run(database, UP)
        run(database, DOWN[:k])
        run(database, UP)
        assert state(database) == expected, f"stopped after statement {k}: {DOWN[k - 1]}"
        database.close()


BOT_WRITES = (
    "INSERT INTO users (telegram_id, created_at) VALUES ('5555', '2026-02-01 00:00:00') RETURNING id",
    "INSERT INTO user_deposits (user_id, balance, created_at) VALUES (5555, 30, '2026-02-01 00:00:00') RETURNING id",
    "INSERT INTO deposit_transactions (user_id, type, amount, depositor_name, created_at)"
    " VALUES (1, 'deposit', 30, '새손님', '2026-02-01 00:00:00') RETURNING id",
    "INSERT INTO bank_notifications (amount, created_at, matched_transaction_id)"
    " VALUES (30, '2026-02-01 00:00:00', (SELECT id FROM deposit_transactions WHERE depositor_name = '새손님'))"
    " RETURNING id",
)


@pytest.mark.parametrize("then", [UP, DOWN], ids=["up", "down"])
def test_rows_of_the_bot_between_two_runs_are_kept(engine: ModuleType, then: list[str]) -> None:
    """What the bot could write after an interruption is there after the next run, under the id that it was given."""
    for k in range(len(UP) + 1):
        database, expected = baseline(engine), baseline(engine)
        run(database, UP[:k])
        for statement in BOT_WRITES:
            # While the table is away the bot answers an error, and nothing was promised.
            written = attempt(database, statement, "no such table")
            if written is not None:
                assert expected.execute(statement).fetchall() == written, "an id that was used before"
        run(database, then)
        if then is UP:
            run(expected, UP)
        assert state(database) == state(expected), f"stopped after statement {k}: {UP[k - 1]}"
        database.close()
        expected.close()


def test_balance_mended_by_the_operator_between_two_runs_is_kept(engine: ModuleType) -> None:
    """The guide's `SET balance = 0`: a row still there is kept with 0, one that is out already is in the log."""
    for k in range(len(UP) + 1):
        database = baseline(engine)
        run(database, UP[:k])
        update = "UPDATE user_deposits SET balance = 0 WHERE balance < 0 RETURNING id"
        mended = {id_ for (id_,) in attempt(database, update, "no such table") or []}
        run(database, UP)
        there = {id_ for (id_,) in database.execute("SELECT id FROM user_deposits WHERE id IN (2, 5) AND balance = 0")}
        logged = {
            id_
            for (id_,) in database.execute(
                "SELECT resource_id FROM audit_logs WHERE action = 'migration_balance_rejected'"
            )
        }
        assert (there, logged) == (mended, {2, 5} - mended), f"stopped after statement {k}"
        database.close()


def test_second_account_of_a_user_between_two_runs_loses_neither(engine: ModuleType) -> None:
    """If the bot opens an account anew while the old one lies in the backup, the new one stays, the old is logged."""
    superseded = 0
    for k in range(len(UP) + 1):
        database = baseline(engine)
        run(database, UP[:k])
        opened = "INSERT INTO user_deposits (user_id, balance) VALUES (1, 5)"
        if attempt(database, opened, "no such table", "UNIQUE constraint failed") is None:
            database.close()
            continue
        run(database, UP)
        assert database.execute("SELECT balance FROM user_deposits WHERE user_id = 1").fetchall() == [(5,)]
        ((details,),) = database.execute(
            "SELECT details FROM audit_logs WHERE action = 'migration_account_superseded'"
        ).fetchall()
        assert json.loads(details) == {"id": 1, "user_id": 1, "balance": 10000, "created_at": "2026-01-01 00:00:00"}
        superseded += 1
        database.close()
    assert superseded > 0, "no interruption left the table empty, so this test has shown nothing"


GUARDED = [
    ("ALTER TABLE user_deposits ADD COLUMN bonus INTEGER", "has columns that this file does not know"),
    ("ALTER TABLE deposit_transactions ADD COLUMN memo TEXT", "has columns that this file does not know"),
    ("CREATE INDEX idx_own ON user_deposits(balance)", "has indexes or triggers that this file does not know"),
    (
        "CREATE TRIGGER own AFTER INSERT ON deposit_transactions BEGIN SELECT 1; END",
        "has indexes or triggers that this file does not know",
    ),
]


@pytest.mark.parametrize("script", [UP, DOWN], ids=["up", "down"])
@pytest.mark.parametrize(("change", "message"), GUARDED)
def test_guard_stops_before_anything_unknown_is_lost(
    bot: Database, change: str, message: str, script: list[str]
) -> None:
    """A column, index or trigger that the rebuild would lose stops the file with a sentence, and no row has moved."""
    if script is DOWN:
        run(bot, UP)
    bot.execute(change)
    before = state(bot)
    with pytest.raises(Exception, match=message):
        run(bot, script)
    bot.execute("DROP TABLE migration_001_guard")
    assert state(bot) == before


def test_rollback_under_a_later_migration_is_stopped(bot: Database) -> None:
    """audit_logs with more columns than the guide's is not dropped."""
    run(bot, UP)
    bot.execute("ALTER TABLE audit_logs ADD COLUMN hash TEXT")
    before = state(bot)
    with pytest.raises(Exception, match="roll that one back first"):
        run(bot, DOWN)
    bot.execute("DROP TABLE migration_001_guard")
    assert state(bot) == before


@pytest.mark.parametrize("script", [UP, DOWN], ids=["up", "down"])
@pytest.mark.parametrize(
    ("after", "defect", "message"),
    [
        (
            "CREATE INDEX IF NOT EXISTS idx_deposits_user",
            "DELETE FROM user_deposits WHERE id = 1",
            "rows of user_deposits_backup were",
        ),
        (
            "CREATE INDEX IF NOT EXISTS idx_transactions_user",
            "DELETE FROM deposit_transactions WHERE id = 2",
            "rows of deposit_transactions_backup were not restored",
        ),
        (
            "CREATE INDEX IF NOT EXISTS idx_transactions_user",
            "UPDATE bank_notifications SET matched_transaction_id = NULL",
            "bank_notifications lost links",
        ),
    ],
)
def test_guard_stops_when_a_row_is_missing(
    bot: Database, engine: ModuleType, *, script: list[str], after: str, defect: str, message: str
) -> None:
    """Restored + rejected = before, or the file stops while the backups are still there, and a re-run ends well."""
    if script is DOWN:
        run(bot, UP)
    (position,) = (k for k, statement in enumerate(script) if after in statement)
    with pytest.raises(Exception, match=message):
        run(bot, [*script[:position], defect, *script[position:]])
    run(bot, script)
    assert state(bot) == finished(engine, *([UP] if script is UP else [UP, DOWN]))
