"""The bot's database as an import reads it: an SQLite file as it is, SQL text by way of a scratch database.

Text may be a `wrangler d1 export`, also one of the data alone, or an sqlite3 `.dump`. Where it has no CREATE TABLE, a
table is made from its rows: by the columns that they name, else in the order of the baseline, if the number fits.
"""

import re
import sqlite3
from pathlib import Path

from msgspec import Struct, field

from service.storage import adoption, migrator, sql_text, sqlite
from service.storage.import_values import Value
from service.storage.migrator import Migration, Report
from service.storage.progress import Progress
from service.storage.sqlite import Connection

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
# The driver's own refusals (a NUL, a text too long) are no DatabaseError; before 3.12 its Warning is no Error either.
_STATEMENT_ERRORS = (sqlite.DatabaseError, sqlite3.Error, sqlite3.Warning, ValueError, OverflowError)
_OURS_ONLY = {"idempotency_answers", "balance_change_references", "import_archive"}
"""Tables that no bot has: where one is, Passbook kept the database."""
# What an export may do while it is read into a scratch database; everything else is refused.
_ALLOWED = {
    sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_CREATE_TRIGGER,
    sqlite3.SQLITE_CREATE_VIEW, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE,
    sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_REINDEX,
}  # fmt: skip
_ALLOWED_PRAGMAS = {"foreign_keys", "defer_foreign_keys"}
_BEGIN = re.compile(r"BEGIN(\s+(DEFERRED|IMMEDIATE|EXCLUSIVE))?(\s+TRANSACTION)?\s*;", re.IGNORECASE)
_COMMIT = re.compile(r"(COMMIT|END)(\s+TRANSACTION)?\s*;", re.IGNORECASE)
_ROLLBACK = re.compile(r"ROLLBACK\b", re.IGNORECASE)
_NAME = r"""("(?:[^"]|"")+"|`(?:[^`]|``)+`|\[[^\]]+\]|'(?:[^']|'')+'|[^\s("'`\[;]+)"""
_COLUMN = r"""(?:"(?:[^"]|"")+"|`(?:[^`]|``)+`|\[[^\]]+\]|'(?:[^']|'')+'|[^\s,()"'`\[;]+)"""
_COLUMNS = re.compile(rf"\s*\(\s*({_COLUMN}(?:\s*,\s*{_COLUMN})*)\s*\)\s*(?:VALUES|SELECT)\b", re.IGNORECASE)
# What an export makes beside tables and indexes: it is of no use here, and a trigger would change what is copied.
LEFT_ASIDE = re.compile(
    rf"CREATE\s+(?:TEMP\s+|TEMPORARY\s+)?(TRIGGER|VIEW|VIRTUAL\s+TABLE)\s+(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}",
    re.IGNORECASE,
)
_INSERT = re.compile(rf"(?:INSERT|REPLACE)(?:\s+OR\s+\w+)?\s+INTO\s+{_NAME}", re.IGNORECASE)
# As wrangler and .dump write a row: many of these are carried out as one statement, which takes a fraction of the time.
_ROW = re.compile(r"""(INSERT INTO (?:"[^"]+"|\w+)(?: ?\([^()'"]*\))? VALUES) ?(?=\()""")
_RETURNING = re.compile(r"\bRETURNING\b", re.IGNORECASE)
_TOGETHER_MAX = 50_000
_OTHER_COUNT = re.compile(r"has (\d+) columns? but (\d+) values? were supplied")
_OTHER_COLUMN = re.compile(r"has no column named (.+)", re.DOTALL)
_SHOWN_MAX = 80


class ImportFailed(Exception):
    """The file cannot be taken over. The text is one sentence, or one and the rows; no database was made."""


class Source(Struct, kw_only=True):
    """The bot's rows, to be read only. `connection` is for the caller to close.

    left_aside: triggers, views and virtual tables, by name. by_order: the tables whose columns are those of the
    baseline because the text named none. misfits: table -> why its columns cannot be told. doubts: sentences about what
    may be missing.
    """

    connection: Connection
    left_aside: list[str] = field(default_factory=list)
    by_order: set[str] = field(default_factory=set)
    misfits: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


def open_source(path: Path, scratch: Path, migrations: list[Migration], report: Report, progress: Progress) -> Source:
    """The source as an SQLite database, checked to be the bot's. Raises ImportFailed, EngineError."""
    with path.open("rb") as file:
        is_database = file.read(len(sqlite.MAGIC)) == sqlite.MAGIC
    if is_database:
        connection = sqlite.connect_reader(path, busy_timeout_ms=0)
        rows = connection.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchall()
        source = Source(connection=connection, left_aside=sorted(f"{kind} {name}" for kind, name in rows))
    else:
        report(f"reading {path} …")
        source = Source(connection=sqlite.open_scratch(scratch))
    try:
        source.connection.text_factory = text_or_bytes
        if not is_database:
            _Filling(source, path, baseline_columns(migrations), progress).run()
        _check_is_bots(source, path, migrations, is_database=is_database)
    except BaseException:
        source.connection.close()
        raise
    return source


def text_or_bytes(raw: bytes) -> str | bytes:
    """Text of a row; where it is no UTF-8, its bytes, which are then refused with the row's name."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def tables_of(connection: Connection) -> dict[str, str]:
    """Lower-case name -> name as the database spells it; SQL does not tell them apart."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {name.lower(): name for (name,) in rows if not name.lower().startswith(("sqlite_", "_cf_", "d1_migrations"))}


def columns_of(connection: Connection, table: str) -> dict[str, str]:
    """Lower-case name -> name as the table spells it, in the table's order."""
    rows = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
    return {name.lower(): name for (name,) in rows}


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def count_of(connection: Connection, table: str) -> int | None:
    """The number of rows; None for a virtual table of an extension that is not here."""
    try:
        return int(connection.execute(f"SELECT COUNT(*) FROM {quoted(table)}").fetchone()[0])
    except sqlite.DatabaseError:
        return None


def baseline_columns(migrations: list[Migration]) -> dict[str, list[str]]:
    """Table -> its columns in order, as migrations 000 and 001 make the bot's tables."""
    scratch = sqlite.open_scratch()
    try:
        for migration in migrations[:2]:
            for statement in migrator.statements(migration.up):
                scratch.execute(statement)
        return {table: list(columns_of(scratch, table).values()) for table in (*TABLES, "audit_logs")}
    finally:
        scratch.close()


class _Filling:
    """The statements of a text on their way into the scratch database."""

    def __init__(self, source: Source, path: Path, baseline: dict[str, list[str]], progress: Progress) -> None:
        self._source = source
        self._connection = source.connection
        self._path = path
        self._baseline = baseline
        self._progress = progress
        self._size = path.stat().st_size
        self._virtual: set[str] = set()
        self._known: set[str] | None = None
        """The tables that are there, in lower case; None when it has to be asked."""
        self._has_schema = False
        self._made: set[str] = set()
        """The tables that were made from their rows."""
        self._named: set[str] = set()
        """Those of them whose rows named their columns."""
        self._misfits = source.misfits
        self._together: list[sql_text.Statement] = []
        """Rows for one table that wait to be carried out together, as long as `_together_size`."""
        self._together_head = ""
        self._together_size = 0

    def run(self) -> None:
        """Raises ImportFailed with the line of what cannot be carried out."""
        connection = self._connection
        for pragma in ("journal_mode = MEMORY", "synchronous = OFF", "cache_size = -65536"):
            connection.execute(f"PRAGMA {pragma}")
        # Text of the data alone fills sqlite_sequence, which SQLite makes with the first table that needs it.
        connection.execute("CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT)")
        connection.execute("DROP TABLE counted")
        connection.set_authorizer(_authorize)
        connection.execute("BEGIN")
        began = 0
        counters = False
        wranglers = False
        try:
            for statement in sql_text.statements(self._path, self._bytes_read):
                if self._joins_others(statement):
                    continue
                self._carry_out_together()
                if statement.sql[:1] in "BbCcEeRr" and self._is_about_transaction(statement):
                    began = 0 if _COMMIT.fullmatch(statement.sql) else statement.line
                    continue
                wranglers = wranglers or statement.sql == "PRAGMA defer_foreign_keys=TRUE;"
                counters = counters or "sqlite_sequence" in statement.sql[:40]
                self._carry_out(statement)
            self._carry_out_together()
        except sql_text.NotSql as error:
            raise ImportFailed(f"{self._path}: {error}.") from error
        if began:
            raise ImportFailed(
                f"{self._path}: the transaction that begins in line {began} has no COMMIT; the text is not complete."
            )
        if connection.in_transaction:
            connection.execute("COMMIT")
        connection.set_authorizer(None)
        if wranglers and not counters and self._counts_ids():
            self._source.doubts.append(
                "The export ends without the counters (sqlite_sequence) that wrangler writes after all rows: it may be"
                " cut off, and rows of the last tables missing. Compare the numbers of rows."
            )
        self._source.left_aside.sort()

    def _bytes_read(self, count: int) -> None:
        self._progress("reading", count, self._size)

    def _is_about_transaction(self, statement: sql_text.Statement) -> bool:
        if _ROLLBACK.match(statement.sql):
            raise ImportFailed(f"{self._path}, line {statement.line}: the export ends in ROLLBACK; it is not complete.")
        return bool(_BEGIN.fullmatch(statement.sql) or _COMMIT.fullmatch(statement.sql))  # .dump has them

    def _counts_ids(self) -> bool:
        found = self._connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table'").fetchall()
        return self._has_schema and any("AUTOINCREMENT" in (sql or "").upper() for (sql,) in found)

    def _joins_others(self, statement: sql_text.Statement) -> bool:
        """Whether the statement is a row that waits now, together with others of its table."""
        sql = statement.sql
        found = _ROW.match(sql)
        if not found or not sql.endswith(");") or _RETURNING.search(sql):
            return False
        if found[1] != self._together_head or self._together_size + len(sql) > _TOGETHER_MAX:
            self._carry_out_together()
            if len(sql) > _TOGETHER_MAX:
                return False
            self._together_head = found[1]
        self._together.append(statement)
        self._together_size += len(sql)
        return True

    def _carry_out_together(self) -> None:
        """The rows that wait; one by one where the table has to be made, or one of them cannot be carried out."""
        waiting, self._together, self._together_size = self._together, [], 0
        if not waiting:
            return
        begin = len(self._together_head)
        table = bare(self._together_head.split(" ", 3)[2].split("(")[0]).lower()
        self._together_head = ""
        head = waiting[0].sql[:begin]
        special = table in self._virtual or table in self._misfits or (table in self._named and "(" not in head)
        if table in (self._known or ()) and not special:
            try:
                self._connection.execute(f"{head} {','.join(one.sql[begin:-1] for one in waiting)}")
            except _STATEMENT_ERRORS as error:
                if sqlite.is_full(error):
                    raise
            else:
                return
        for statement in waiting:
            self._carry_out(statement)

    def _carry_out(self, statement: sql_text.Statement) -> None:
        into = _INSERT.match(statement.sql)
        table = bare(into[1]).lower() if into else ""
        if into:
            if table in self._virtual or table in self._misfits:
                return
            if not self._is_there(table):
                self._make(table, bare(into[1]), statement.sql[into.end() :])
            if table in self._named and not _COLUMNS.match(statement.sql, into.end()):
                self._misfits[table] = "some of its rows name their columns, others do not"
                return
        else:
            unused = LEFT_ASIDE.match(statement.sql)
            if unused:
                self._leave_aside(unused[1].split()[0].lower(), bare(unused[2]))
                return
            self._known = None
        try:
            self._connection.execute(statement.sql).fetchall()
        except _STATEMENT_ERRORS as error:
            if sqlite.is_full(error):
                raise
            if table in self._made and self._mend(table, str(error)):
                self._carry_out(statement)
            elif table not in self._misfits:
                shown = statement.sql[:_SHOWN_MAX]
                raise ImportFailed(f"{self._path}, line {statement.line}: {error}: {shown!r}.") from error

    def _leave_aside(self, kind: str, name: str) -> None:
        self._source.left_aside.append(f"{kind} {name}" if kind != "virtual" else f"virtual table {name}")
        if kind == "virtual":
            self._virtual.add(name.lower())

    def _is_there(self, table: str) -> bool:
        if self._known is None:
            rows = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            self._known = {name.lower() for (name,) in rows}
            self._has_schema = bool({name for name in self._known if not name.startswith("sqlite_")} - self._made)
        # Where the text has a schema, rows of a table that is not in it are a mistake, and SQLite says so.
        return self._has_schema or table in self._known

    def _make(self, table: str, spelled: str, rest: str) -> None:
        """The table, from the first of its rows."""
        named = _COLUMNS.match(rest)
        if named:
            columns = [bare(name) for name in re.findall(_COLUMN, named[1])]
            self._named.add(table)
        elif table in self._baseline:
            columns = self._baseline[table]
            self._source.by_order.add(table)
        else:
            columns = ["column 1"]
        self._create(spelled, columns)
        self._made.add(table)

    def _create(self, name: str, columns: list[str]) -> None:
        try:
            self._connection.execute(f"CREATE TABLE {quoted(name)} ({', '.join(map(quoted, columns))})")
        except _STATEMENT_ERRORS as error:
            raise ImportFailed(
                f"{self._path}: the rows of {name} name columns that no table can have: {error}."
            ) from error
        self._known = None

    def _mend(self, table: str, error: str) -> bool:
        """Whether the statement may be tried again, after a table that was made from its rows was made to fit."""
        column, count = _OTHER_COLUMN.search(error), _OTHER_COUNT.search(error)
        if column and table in self._named:
            self._unguarded(f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(column[1])}")
            return True
        if count and table in self._baseline:
            self._misfits[table] = f"its rows have {count[2]} values, the baseline {count[1]} columns"
        elif count and count[1] == "1":
            self._unguarded(f"DROP TABLE {quoted(table)}")
            self._create(table, [f"column {number}" for number in range(1, int(count[2]) + 1)])
            return True
        return False

    def _unguarded(self, sql: str) -> None:
        self._connection.set_authorizer(None)
        self._connection.execute(sql)
        self._connection.set_authorizer(_authorize)


def bare(name: str) -> str:
    """A name of SQL without its quotes."""
    if name[0] == "[":
        return name[1:-1]
    return name[1:-1].replace(name[0] * 2, name[0]) if name[0] in "\"'`" else name


def _authorize(action: int, first: str | None, *_: object) -> int:
    allowed = action in _ALLOWED or (action == sqlite3.SQLITE_PRAGMA and first in _ALLOWED_PRAGMAS)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _check_is_bots(source: Source, path: Path, migrations: list[Migration], *, is_database: bool) -> None:
    old = source.connection
    tables = tables_of(old)
    missing = [table for table in ("users", "user_deposits", "deposit_transactions") if table not in tables]
    copies = [table for table in tables if table.endswith("_backup")]
    if migrator.WORKING_TABLES_OF_001 & tables.keys() or (missing and copies):
        raise ImportFailed(
            f"Migration 001 stopped half-way in the database of {path}; run it again there first, then export."
        )
    _refuse_ours(old, path, tables, migrations, is_database=is_database)
    if source.misfits:
        named = "; ".join(f"{table} ({why})" for table, why in sorted(source.misfits.items()))
        raise ImportFailed(
            f"{path} is an export of the data alone, and nothing says which value of a row is which in {named}. Export"
            " with the schema: wrangler d1 export NAME --output FILE, without --no-schema."
        )
    if missing:
        like = _like(old, [(table, None) for table in missing])
        raise ImportFailed(f"{path} is no database of the bot: it has no table {', '.join(missing)}{like}.")
    for table, columns in _REQUIRED.items():
        lacking = [name for name in columns if table in tables and name not in columns_of(old, tables[table])]
        if lacking:
            like = _like(old, [(table, name) for name in lacking])
            raise ImportFailed(
                f"{path} cannot be taken over: its table {table} has no column {', '.join(lacking)}{like}."
            )


def _like(old: Connection, missing: list[tuple[str, str | None]]) -> str:
    """Where the like of what is missing was seen, as the end of a sentence."""
    seen = [like for table, column in missing if (like := adoption.like_of(old, table, column))]
    return f"; its like was seen in {', '.join(seen)}" if seen else ""


def _refuse_ours(
    old: Connection, path: Path, tables: dict[str, str], migrations: list[Migration], *, is_database: bool
) -> None:
    """Raises ImportFailed for a database that Passbook keeps, in whatever form."""
    version = _recorded_version(old, tables)
    versioned = "version" in columns_of(old, tables.get("user_deposits", "")) and {
        "direction",
        "balance_before",
        "version",
    } <= set(columns_of(old, tables.get("deposit_transactions", "")))
    if not (version > 1 or versioned or _OURS_ONLY & tables.keys()):
        return
    if version >= len(migrations):
        raise ImportFailed(
            f"{path} is a Passbook database at migration {version:03d}; this program knows up to"
            f" {len(migrations) - 1:03d}. Update it; nothing has to be imported."
        )
    remedy = (
        f"use the file as it is: passbook serve --database {path}"
        if is_database
        else "bring back its file or a backup of it (passbook restore), or write the way back with passbook export"
    )
    raise ImportFailed(f"{path} is a Passbook database already, and import takes what the bot wrote; {remedy}.")


def _recorded_version(old: Connection, tables: dict[str, str]) -> int:
    """The last migration on record; -1 where there is no record."""
    columns = columns_of(old, tables.get("schema_migrations", ""))
    column = "version" if "version" in columns else "column 1"  # of data alone
    if column not in columns:
        return -1
    found: Value = old.execute(f"SELECT MAX({quoted(column)}) FROM schema_migrations").fetchone()[0]
    return found if isinstance(found, int) else -1
