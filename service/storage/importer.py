"""Takes the bot's database over: what `wrangler d1 export` wrote, or an SQLite file, becomes a new Passbook database.

The tables of the baseline are copied by column name, then all migrations run over them. Everything happens in a file
beside the target; the target appears, whole and verified, by one rename at the end.
"""

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from service.ledger.fields import BALANCE_MAX
from service.storage import import_values, lock, migrator, sql_text, sqlite
from service.storage.import_values import Refused, Value
from service.storage.migrator import Migration, MigrationError, Report
from service.storage.sqlite import Connection, transaction

TABLES = ("users", "user_deposits", "deposit_transactions", "bank_notifications", "user_domains")
"""The bot's tables that are taken over, parents before children."""
# Without these columns a row would come over with a balance, a status or links that it did not have.
_REQUIRED = {
    "users": ("id", "telegram_id"),
    "user_deposits": ("user_id", "balance"),
    "deposit_transactions": ("id", "user_id", "type", "amount", "status"),
    "bank_notifications": ("amount",),
    "user_domains": ("user_id", "domain"),
    "audit_logs": ("action",),
}
_RESOURCE_TYPES = {
    "users": "user",
    "user_deposits": "user_deposits",
    "deposit_transactions": "deposit_transaction",
    "bank_notifications": "bank_notification",
    "user_domains": "user_domains",
    "audit_logs": "audit_log",
}
"""Table -> its name in audit_logs.resource_type, as the guide spells it."""
_KNOWN_CREDITS = ("deposit", "refund", "credit", "bonus", "opening_credit")
# The driver's own refusals (a NUL, a text too long) are no DatabaseError; before 3.12 its Warning is no Error either.
_STATEMENT_ERRORS = (sqlite.DatabaseError, sqlite3.Error, sqlite3.Warning, ValueError, OverflowError)
_PROBLEMS_MAX = 20
_EXAMPLES_MAX = 5
_SIDE_FILES = ("-wal", "-shm", "-journal")
_SQLITE_MAGIC = b"SQLite format 3\x00"
# What an export may do while it is read into a scratch database; everything else is refused.
_ALLOWED = {
    sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_CREATE_TRIGGER,
    sqlite3.SQLITE_CREATE_VIEW, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE,
    sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_REINDEX,
}  # fmt: skip
_ALLOWED_PRAGMAS = {"foreign_keys", "defer_foreign_keys"}
_TRANSACTION = re.compile(r"(BEGIN|COMMIT|END)(\s+(DEFERRED|IMMEDIATE|EXCLUSIVE))?(\s+TRANSACTION)?\s*;", re.IGNORECASE)
_ROLLBACK = re.compile(r"ROLLBACK\b", re.IGNORECASE)
_NAME = r"""("(?:[^"]|"")+"|`(?:[^`]|``)+`|\[[^\]]+\]|'(?:[^']|'')+'|[^\s("'`\[;]+)"""
# What an export makes beside tables and indexes: it is of no use here, and a trigger would change what is copied.
_LEFT_ASIDE = re.compile(
    rf"CREATE\s+(?:TEMP\s+|TEMPORARY\s+)?(TRIGGER|VIEW|VIRTUAL\s+TABLE)\s+(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}",
    re.IGNORECASE,
)
_INSERT = re.compile(rf"(?:INSERT|REPLACE)(?:\s+OR\s+\w+)?\s+INTO\s+{_NAME}", re.IGNORECASE)


class ImportFailed(Exception):
    """The file cannot be taken over. The text is one sentence; no database was made."""


class ImportReport(Struct, frozen=True, kw_only=True):
    """What came over. `tables`: name -> rows; balances_rejected to accounts_removed count the migrations' audit rows.

    left_aside names what the source holds and Passbook does not know: "table (rows)", "table.column", "trigger name".
    times_respelled: times that are the same instant in other letters. values_mended: audit rows import_value_mended.
    unreachable_users counts telegram_ids that the API cannot name; the examples are the first few.
    unknown_types: "type (rows)" of transactions counted as credits because nothing says otherwise.
    """

    tables: dict[str, int]
    left_aside: list[str]
    balances_rejected: int
    names_truncated: int
    opening_entries: int
    accounts_removed: int
    times_respelled: int
    values_mended: int
    unreachable_users: int
    unreachable_examples: list[str]
    unknown_types: list[str]


def import_database(source: Path, target: Path, migrations: list[Migration], report: Report) -> ImportReport:
    """Makes `target` from `source`. Raises ImportFailed, MigrationError, DatabaseInUse; then nothing was made."""
    if not source.is_file():
        raise ImportFailed(f"There is no file {source}.")
    sqlite.make_folder(target.parent)
    with lock.exclusive(target), _working_files(target) as (scratch, fresh):
        _check_target_is_free(target)
        old, objects = _open_source(source, scratch, report)
        with contextlib.closing(old):
            _check_is_bots(old, source)
            with contextlib.closing(sqlite.connect_writer(fresh, busy_timeout_ms=0, checkpoints=True)) as new:
                migrator.up(new, migrations, report, to=0)
                with transaction(new):
                    copy = _Copy(old, new, migrations, report)
                    copy.run()
                migrator.up(new, migrations, report)
                result = _result(new, copy, _left_aside(old, copy.columns) + objects)
                _verify(new)
                new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sqlite.sync(fresh)
        fresh.replace(target)
        sqlite.sync(target.parent)
    return result


def _check_target_is_free(target: Path) -> None:
    if target.exists() and target.stat().st_size > 0:
        raise ImportFailed(f"{target} is there already; import makes a new database. Move it away first.")
    # SQLite would replay the log of the earlier database over the new one.
    stale = [path.name for path in _side_files(target) if path.exists()]
    if stale:
        raise ImportFailed(
            f"Beside {target} there is still {', '.join(stale)} of an earlier database, which SQLite would mix into"
            f" the new one; move it away together with the earlier {target.name}."
        )


def _side_files(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{suffix}") for suffix in _SIDE_FILES]


@contextlib.contextmanager
def _working_files(target: Path) -> Iterator[tuple[Path, Path]]:
    """Two free paths beside `target` for the block; what is left of them is deleted after it."""
    scratch, fresh = (target.with_name(f"{target.name}.{part}") for part in ("source", "importing"))
    leftovers = [one for path in (scratch, fresh) for one in (path, *_side_files(path))]
    for path in leftovers:
        path.unlink(missing_ok=True)
    try:
        yield scratch, fresh
    finally:
        for path in leftovers:
            path.unlink(missing_ok=True)


def _open_source(source: Path, scratch: Path, report: Report) -> tuple[Connection, list[str]]:
    """The source as an SQLite database that is only read, and its triggers and views. Raises ImportFailed."""
    with source.open("rb") as file:
        is_database = file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    if is_database:
        connection = sqlite.connect_reader(source, busy_timeout_ms=0)
        connection.text_factory = _text
        rows = connection.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchall()
        return connection, sorted(f"{kind} {name}" for kind, name in rows)
    report(f"reading {source} …")
    connection = sqlite.open_scratch(scratch)
    connection.text_factory = _text
    try:
        connection.set_authorizer(_authorize)
        connection.execute("BEGIN")
        aside = _fill(connection, source)
        if connection.in_transaction:
            connection.execute("COMMIT")
        connection.set_authorizer(None)
    except BaseException:
        connection.close()
        raise
    return connection, aside


def _text(raw: bytes) -> str | bytes:
    """Text of a row; where it is no UTF-8, its bytes, which are then refused with the row's name."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _fill(connection: Connection, source: Path) -> list[str]:
    """Runs the statements of an export but for triggers, views and virtual tables, which are returned by name."""
    aside: list[str] = []
    virtual: set[str] = set()
    try:
        for statement in sql_text.statements(source):
            if _TRANSACTION.fullmatch(statement.sql):  # .dump has them
                continue
            if _ROLLBACK.match(statement.sql):
                raise ImportFailed(f"{source}, line {statement.line}: the export ends in ROLLBACK; it is not complete.")
            unused = _LEFT_ASIDE.match(statement.sql)
            if unused:
                kind, name = unused[1].split()[0].lower(), _bare(unused[2])
                aside.append(f"{kind} {name}" if kind != "virtual" else f"virtual table {name}")
                if kind == "virtual":
                    virtual.add(name.lower())
                continue
            into = _INSERT.match(statement.sql) if virtual else None
            if into and _bare(into[1]).lower() in virtual:
                continue
            try:
                connection.execute(statement.sql).fetchall()
            except _STATEMENT_ERRORS as error:
                raise ImportFailed(f"{source}, line {statement.line}: {error}: {statement.sql[:80]!r}.") from error
    except sql_text.NotSql as error:
        raise ImportFailed(f"{source}: {error}.") from error
    return sorted(aside)


def _bare(name: str) -> str:
    """A name of SQL without its quotes."""
    if name[0] == "[":
        return name[1:-1]
    return name[1:-1].replace(name[0] * 2, name[0]) if name[0] in "\"'`" else name


def _authorize(action: int, first: str | None, *_: object) -> int:
    allowed = action in _ALLOWED or (action == sqlite3.SQLITE_PRAGMA and first in _ALLOWED_PRAGMAS)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _tables(connection: Connection) -> dict[str, str]:
    """Lower-case name -> name as the database spells it; SQL does not tell them apart."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {name.lower(): name for (name,) in rows if not name.lower().startswith(("sqlite_", "_cf_", "d1_migrations"))}


def _columns(connection: Connection, table: str) -> dict[str, str]:
    """Lower-case name -> name as the table spells it, in the table's order."""
    rows = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
    return {name.lower(): name for (name,) in rows}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _check_is_bots(old: Connection, source: Path) -> None:
    tables = _tables(old)
    missing = [table for table in ("users", "user_deposits", "deposit_transactions") if table not in tables]
    copies = [table for table in tables if table.endswith("_backup")]
    if migrator.WORKING_TABLES_OF_001 & tables.keys() or (missing and copies):
        raise ImportFailed(
            f"Migration 001 stopped half-way in the database of {source}; run it again there first, then export."
        )
    if missing:
        raise ImportFailed(f"{source} is no database of the bot: it has no table {', '.join(missing)}.")
    if "version" in _columns(old, "user_deposits") and {"direction", "balance_before", "version"} <= set(
        _columns(old, "deposit_transactions")
    ):
        raise ImportFailed(f"{source} is a Passbook database already; use its file as it is.")
    for table, columns in _REQUIRED.items():
        lacking = [name for name in columns if name not in _columns(old, table)]
        if table in tables and lacking:
            raise ImportFailed(f"{source} cannot be taken over: its table {table} has no column {', '.join(lacking)}.")


class _Copy:
    """The bot's rows on their way into the baseline of `new`, within one transaction; what happened is counted."""

    def __init__(self, old: Connection, new: Connection, migrations: list[Migration], report: Report) -> None:
        self._old = old
        self._new = new
        self._migrations = migrations
        self._report = report
        self._problems: list[str] = []
        self.rows: dict[str, int] = {}
        self.columns: dict[str, set[str]] = {}
        """Table -> the columns that were copied."""
        self.times_respelled = 0
        self.values_mended = 0
        self.unreachable_users = 0
        self.unreachable_examples: list[str] = []

    def run(self) -> None:
        """Copies every table that is there. Raises ImportFailed with the first rows that cannot be taken over."""
        tables = _tables(self._old)
        for statement in migrator.statements(self._migrations[1].up):
            if "CREATE TABLE IF NOT EXISTS audit_logs" in statement:
                self._new.execute(statement)
        # The log comes first, so that what is added to it has ids after its own.
        for table in ("audit_logs", *TABLES):
            if table in tables:
                self._copy_table(table)
                self._copy_high_water_mark(table)
        if self._problems:
            more = ", and perhaps more" if len(self._problems) >= _PROBLEMS_MAX else ""
            raise ImportFailed(
                f"These rows cannot be taken over{more}; correct them in the source:\n  " + "\n  ".join(self._problems)
            )
        for table in (*TABLES, "audit_logs"):
            if table in self.rows:
                self._report(f"  {table}: {self.rows[table]:,} rows")

    def _copy_table(self, table: str) -> None:
        known = _columns(self._new, table)
        columns = [name for name in _columns(self._old, table) if name in known]
        self.columns[table] = set(columns)
        insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        self.rows[table] = 0
        for row in self._source_rows(table, columns):
            if len(self._problems) >= _PROBLEMS_MAX:
                return
            self.rows[table] += 1
            old = dict(zip(columns, row, strict=True))
            name = f"{table}, row {import_values.shown(old['id']) if 'id' in old else self.rows[table]}"
            taken, mended = self._take(table, name, old)
            if self._problems:  # nothing is made any more; the remaining rows are looked at for the same message
                continue
            try:
                cursor = self._new.execute(insert, list(taken.values()))
            except sqlite.DatabaseError as error:
                if not sqlite.is_of_statement(error):
                    raise
                self._problems.append(f"{name}: {error}{self._same_telegram_id(table, taken)}")
                continue
            for details in mended:
                self._log(table, cursor.lastrowid, taken, details)

    def _source_rows(self, table: str, columns: list[str]) -> Iterator[tuple[Value, ...]]:
        spelled = _columns(self._old, table)
        names = ", ".join(_quoted(spelled[column]) for column in columns)
        order = _quoted(spelled.get("id", next(iter(spelled.values()))))
        try:
            rows = self._old.execute(f"SELECT {names} FROM {_quoted(_tables(self._old)[table])} ORDER BY {order}")
            while batch := rows.fetchmany(1000):
                yield from batch
        except sqlite.DatabaseError as error:
            raise ImportFailed(f"The table {table} of the source cannot be read: {error}.") from error

    def _take(self, table: str, name: str, old: dict[str, Value]) -> tuple[dict[str, Value], list[dict[str, object]]]:
        """The row as it will be stored, and the details of what the log must say of it."""
        taken: dict[str, Value] = {}
        mended: list[dict[str, object]] = []
        for column, value in old.items():
            try:
                result = import_values.take(table, column, value)
            except Refused as refused:
                self._problems.append(f"{name}, {column}: {refused}")
                continue
            taken[column] = result.value
            self.times_respelled += result.respelled and not result.mended
            if result.mended:
                mended.append({"column": column, "old": import_values.logged(value), "new": result.value})
        if self._problems:
            return taken, []
        if table == "deposit_transactions" and _never_confirmable(taken):
            row = {column: import_values.logged(value) for column, value in old.items()}
            mended.append({"column": "status", "old": "pending", "new": "cancelled", "row": row})
            taken["status"] = "cancelled"
        if table == "users" and not import_values.is_telegram_id(str(taken["telegram_id"])):
            self.unreachable_users += 1
            if len(self.unreachable_examples) < _EXAMPLES_MAX:
                self.unreachable_examples.append(import_values.shown(taken["telegram_id"]))
        return taken, mended

    def _same_telegram_id(self, table: str, taken: dict[str, Value]) -> str:
        """The row that stands in the way of this one, for the message."""
        if table != "users":
            return ""
        wanted = "SELECT id FROM users WHERE telegram_id = ? AND id <> ?"
        found = self._new.execute(wanted, (taken["telegram_id"], taken["id"])).fetchone()
        return f"; row {found[0]} has the same {import_values.shown(taken['telegram_id'])}" if found else ""

    def _log(self, table: str, row_id: int | None, taken: dict[str, Value], details: dict[str, object]) -> None:
        user_id = taken.get("id") if table == "users" else taken.get("user_id")
        self._new.execute(
            "INSERT INTO audit_logs (user_id, telegram_id, action, resource_type, resource_id, details)"
            " VALUES (?, (SELECT telegram_id FROM users WHERE id = ?), 'import_value_mended', ?, ?, ?)",
            (user_id, user_id, _RESOURCE_TYPES[table], row_id, msgspec.json.encode(details).decode()),
        )
        self.values_mended += 1

    def _copy_high_water_mark(self, table: str) -> None:
        """An id that was given out once is never given out again, even when its row is gone."""
        if not self._old.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'").fetchone():
            return
        for name, sequence in self._old.execute("SELECT name, seq FROM sqlite_sequence").fetchall():
            if str(name).lower() != table or not isinstance(sequence, int):
                continue
            if sequence > BALANCE_MAX:
                self._problems.append(f"sqlite_sequence, {table}: {sequence} leaves no id to give out")
            elif self._new.execute("SELECT 1 FROM sqlite_sequence WHERE name = ?", (table,)).fetchone():
                self._new.execute("UPDATE sqlite_sequence SET seq = MAX(seq, ?) WHERE name = ?", (sequence, table))
            else:  # the table is empty now
                self._new.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, sequence))


def _never_confirmable(transaction_row: dict[str, Value]) -> bool:
    """Whether it is a deposit that waits for an amount nobody can pay in."""
    amount = transaction_row["amount"]
    return (
        (transaction_row["type"], transaction_row["status"]) == ("deposit", "pending")
        and isinstance(amount, int)
        and amount <= 0
    )


def _left_aside(old: Connection, copied: dict[str, set[str]]) -> list[str]:
    aside = []
    for table, name in sorted(_tables(old).items()):
        if table not in copied:
            aside.append(f"{name} ({_count(old, name)})")
        else:
            aside += [
                f"{table}.{spelled}" for column, spelled in _columns(old, table).items() if column not in copied[table]
            ]
    return aside


def _count(old: Connection, table: str) -> str:
    try:
        return f"{old.execute(f'SELECT COUNT(*) FROM {_quoted(table)}').fetchone()[0]:,} rows"
    except sqlite.DatabaseError:  # a virtual table of an extension that is not here
        return "rows unknown"


def _result(new: Connection, copy: _Copy, left_aside: list[str]) -> ImportReport:
    def logged(action: str) -> int:
        row = new.execute("SELECT COUNT(*) FROM audit_logs WHERE action = ?", (action,)).fetchone()
        return int(row[0])

    unknown = new.execute(
        "SELECT type, COUNT(*) FROM deposit_transactions"
        f" WHERE direction = 'credit' AND type NOT IN ({', '.join('?' * len(_KNOWN_CREDITS))})"
        " GROUP BY type ORDER BY type",
        _KNOWN_CREDITS,
    ).fetchall()
    return ImportReport(
        tables={table: copy.rows[table] for table in (*TABLES, "audit_logs") if table in copy.rows},
        left_aside=left_aside,
        balances_rejected=logged("migration_balance_rejected"),
        names_truncated=logged("migration_depositor_name_truncated"),
        opening_entries=logged("opening_adjustment"),
        accounts_removed=logged("migration_orphan_account_removed"),
        times_respelled=copy.times_respelled,
        values_mended=copy.values_mended,
        unreachable_users=copy.unreachable_users,
        unreachable_examples=copy.unreachable_examples,
        unknown_types=[f"{name} ({count:,})" for name, count in unknown],
    )


def _verify(new: Connection) -> None:
    """Raises MigrationError unless every balance is the sum of its transactions and the file is sound."""
    wrong = new.execute(
        "SELECT d.user_id FROM user_deposits AS d WHERE d.balance <> ("
        " SELECT COALESCE(SUM(CASE direction WHEN 'credit' THEN amount ELSE -amount END), 0)"
        " FROM deposit_transactions WHERE user_id = d.user_id AND status = 'confirmed') LIMIT 1"
    ).fetchone()
    if wrong:
        raise MigrationError(f"After the import the balance of user {wrong[0]} is not the sum of its transactions.")
    if new.execute("PRAGMA foreign_key_check").fetchone() or new.execute("PRAGMA integrity_check").fetchone() != (
        "ok",
    ):
        raise MigrationError("After the import the database does not pass SQLite's own checks.")
