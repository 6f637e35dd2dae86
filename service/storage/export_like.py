"""The way back into the bot's own tables: rows of the ledger as another database of the bot's takes them.

A scratch database gets the tables that the original has. Each row is put into it, so that SQLite itself says what does
not fit: CHECK, NOT NULL, UNIQUE, STRICT. What it holds in the end is what is written.

| of the ledger | in the bot's tables |
|---|---|
| columns that the import archived | their values; of a row that is new, the column's default |
| `version` of an account | the bot's number, counted on by each movement since |
| `…_prefix` of a name | the archived one; of a new row the first characters of the name |
| `updated_at` | the archived time or that of the last movement, whichever is later |
| a type that a CHECK refuses | `withdrawal` for debits, `refund` for a debit taken back, `deposit` for other credits |
| `expired`, `rejected`, where a CHECK refuses them | `cancelled` |
| a domain name that is not registered | left out where the table has no status |
| a name that is missing and must not be | an empty text |
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec import Struct

from service.ledger.transactions import Direction
from service.storage import import_words, migrator, schema, sql_text, sqlite
from service.storage.exporter import ExportFailed, counters, inserts, new_file, new_text
from service.storage.import_source import LEFT_ASIDE, TABLES, columns_of, open_source, quoted
from service.storage.import_values import Value, logged, shown
from service.storage.migrator import Migration
from service.storage.progress import Progress
from service.storage.sqlite import Connection

_OURS = (*TABLES, "audit_logs")
_DEBIT = ("withdrawal", "withdraw", "debit", "출금")
_TAKEN_BACK = ("refund", "환불", "deposit", "입금")
_CREDIT = ("deposit", "입금", "refund", "환불")
_REFUNDS = {"reversal", "domain_refund", "refund", "환불"}
_STATUSES = {"expired": ("cancelled", "rejected"), "rejected": ("cancelled",), "cancelled": ("rejected",)}
_OWNED = {"registered", "active"}
_PREFIX = "_prefix"
_PREFIX_CHARACTERS = 7
"""The bank's SMS shows so many of a name, and the bot matched by them."""
_SHOWN_MAX = 20
_MADE_POSITIVE = "migration_amount_made_positive"


class LikeReport(Struct, frozen=True, kw_only=True):
    """What was written. `tables`: name -> rows; size in bytes; mapped, left_out as in `Fitted`."""

    tables: dict[str, int]
    size: int
    mapped: dict[str, int]
    left_out: list[str]


class Misfit(Struct, frozen=True):
    """A row that the original's tables do not take, and why."""

    table: str
    row: Value
    why: str


class Misfits:
    """How many rows the original's tables do not take, the first of them, and `tell`, who hears of each.

    Lifetime: one export. Of a million none but the first few is held.
    """

    def __init__(self, tell: Callable[[Misfit], None]) -> None:
        self.count = 0
        self.first: list[Misfit] = []
        self._tell = tell

    def add(self, table: str, row: Value, why: str) -> None:
        """One row."""
        misfit = Misfit(table, row, why)
        self.count += 1
        if len(self.first) < _SHOWN_MAX:
            self.first.append(misfit)
        self._tell(misfit)


class DoesNotFit(ExportFailed):
    """Rows that the original's tables do not take. No file was made."""

    def __init__(self, misfits: Misfits) -> None:
        first = "\n  ".join(f"{one.table}, row {shown(one.row)}: {one.why}" for one in misfits.first)
        more = f"\n  … and {misfits.count - _SHOWN_MAX:,} more" if misfits.count > _SHOWN_MAX else ""
        super().__init__(f"{misfits.count:,} rows do not fit the tables of the original:\n  {first}{more}")


class Words(Struct, frozen=True, kw_only=True):
    """What the operator says: our type or "type:direction", and our status -> the word there; whether names are cut."""

    types: Mapping[str, str]
    statuses: Mapping[str, str]
    cut_names: bool = False


class Fitted(Struct, kw_only=True):
    """What is to be written. `fit` holds the rows, and is the caller's to close; the rest is SQL of the original.

    mapped: "type a -> b" -> rows. left_out: sentences.
    """

    fit: Connection
    tables: dict[str, str]
    others: list[str]
    mapped: dict[str, int]
    left_out: list[str]
    misfits: Misfits


def export_database(
    database: Path,
    target: Path,
    migrations: list[Migration],
    *,
    like: Path,
    words: Words,
    with_schema: bool,
    busy_timeout_ms: int,
    progress: Progress,
    on_misfit: Callable[[Misfit], None] = lambda _: None,
) -> LikeReport:
    """Writes `database` as it is at one instant to `target`, for the tables of `like`; whole or not at all.

    Tables of the bot's own come with the rows that `like` has of them; without the schema only ours are written, for
    tables that are there. Raises DoesNotFit, ExportFailed, ImportFailed, MigrationError, EngineError.
    """
    scratch = target.with_name(f"{target.name}.like-{os.getpid()}")
    with new_file(target) as partial:
        try:
            connection = sqlite.connect_reader(database, busy_timeout_ms=busy_timeout_ms)
            with contextlib.closing(connection):
                migrator.require_latest(connection, migrations)
                connection.execute("BEGIN")
                found = fitted(connection, like, scratch, migrations, words, progress, on_misfit)
                with contextlib.closing(found.fit):
                    if found.misfits.count:
                        raise DoesNotFit(found.misfits)
                    with new_text(partial) as file:
                        tables = _write(connection, found, file, with_schema=with_schema, progress=progress)
                connection.execute("COMMIT")
        finally:
            for path in (scratch, scratch.with_name(f"{scratch.name}-source")):
                for leftover in sqlite.files_of(path):
                    leftover.unlink(missing_ok=True)
        size = partial.stat().st_size
    return LikeReport(tables=tables, size=size, mapped=found.mapped, left_out=found.left_out)


def _write(
    ledger: Connection, found: Fitted, file: IO[str], *, with_schema: bool, progress: Progress
) -> dict[str, int]:
    names = [name for name in found.tables if with_schema or name.lower() in _OURS]
    file.write("PRAGMA defer_foreign_keys=TRUE;\n")
    if with_schema:
        for name in names:
            file.write(f"{found.tables[name]};\n")
    totals = {}
    for name in names:
        totals[name] = found.fit.execute(f"SELECT COUNT(*) FROM {quoted(name)}").fetchone()[0]
        columns = [quoted(column) for column in columns_of(found.fit, name).values()]
        columns.sort(key=lambda column: column.lower() != '"id"')
        rows = found.fit.execute(f"SELECT {', '.join(columns)} FROM {quoted(name)} ORDER BY {columns[0]}")
        for count, statement in inserts(quoted(name), columns, rows):
            file.write(statement)
            progress(f"writing {name}", count, totals[name])
    if sqlite.has_table(found.fit, "sqlite_sequence"):
        for table, seq in ledger.execute("SELECT name, seq FROM sqlite_sequence").fetchall():
            if table in _OURS:
                found.fit.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE lower(name) = ?", (seq, table))
        for statement in counters(found.fit, names):
            file.write(statement)
    if with_schema:
        for sql in found.others:
            file.write(f"{sql};\n")
    return totals


def fitted(
    connection: Connection,
    like: Path,
    scratch: Path,
    migrations: list[Migration],
    words: Words,
    progress: Progress,
    on_misfit: Callable[[Misfit], None],
) -> Fitted:
    """The rows that `connection` sees, in the tables of `like`; `scratch` is the stem of two files for the caller to
    delete.

    Raises ImportFailed when `like` is no database of the bot's.
    """
    source = open_source(like, scratch.with_name(f"{scratch.name}-source"), migrations, lambda _: None, progress)
    with contextlib.closing(source.connection) as old:
        rows = old.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
        made = [(kind, name, sql) for kind, name, sql in rows if not name.lower().startswith(("sqlite_", "_cf_"))]
        result = Fitted(
            fit=sqlite.open_scratch(scratch),
            tables={name: sql for kind, name, sql in made if kind == "table" and "VIRTUAL" not in sql[:20].upper()},
            others=[sql for kind, _, sql in made if kind != "table"],
            mapped={},
            left_out=[],
            misfits=Misfits(on_misfit),
        )
        if not any(kind in {"trigger", "view"} for kind, _, _ in made):
            result.others += _left_aside(like)
        unique = [sql for kind, _, sql in made if kind == "index" and "unique" in schema.words(sql.split("(")[0])]
        for sql in (*result.tables.values(), *unique):
            result.fit.execute(sql)
        result.fit.execute("BEGIN")
        for name in result.tables:
            if name.lower() not in _OURS:
                _copy(old, result.fit, name)
    fitting = _Fitting(connection, result, words)
    for table in _OURS:
        fitting.fill(table)
    result.fit.execute("COMMIT")
    for table, row, parent, _ in result.fit.execute("PRAGMA foreign_key_check"):
        result.misfits.add(table, row, f"it points at a row of {parent} that is not there")
    return result


def _left_aside(like: Path) -> list[str]:
    """The triggers and views of an export: reading it leaves them out."""
    with like.open("rb") as file:
        if file.read(len(sqlite.MAGIC)) == sqlite.MAGIC:
            return []
    found = (one.sql for one in sql_text.statements(like))
    return [
        sql.rstrip(";") for sql in found if (kind := LEFT_ASIDE.match(sql)) and kind[1].upper() in {"TRIGGER", "VIEW"}
    ]


def _copy(old: Connection, fit: Connection, name: str) -> None:
    columns = list(columns_of(old, name).values())
    if columns:
        named, marks = ", ".join(map(quoted, columns)), ", ".join("?" * len(columns))
        rows = old.execute(f"SELECT {named} FROM {quoted(name)}")
        fit.executemany(f"INSERT INTO {quoted(name)} ({named}) VALUES ({marks})", rows)


class _Fitting:
    """The ledger's rows on their way into the original's tables."""

    def __init__(self, ledger: Connection, result: Fitted, words: Words) -> None:
        self._ledger = ledger
        self._result = result
        self._fit = result.fit
        self._words = words
        self._names = {name.lower(): name for name in result.tables}
        self._checks: dict[str, list[str]] = {name.lower(): schema.checks(sql) for name, sql in result.tables.items()}
        self._allowed: dict[tuple[str, str, Value], bool] = {}
        self._statuses_of_bot = self._mapped_statuses()
        self._widths: dict[tuple[str, str], int] = {}

    def fill(self, table: str) -> None:
        """All rows of one table; what does not fit is added to the misfits."""
        name = self._names.get(table)
        if name is None:
            count = self._ledger.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            if count:
                self._result.left_out.append(f"{count:,} rows of {table}, for which there is no table")
            return
        columns = {
            row[0].lower(): (row[0], bool(row[1]), row[2])
            for row in self._fit.execute(
                'SELECT name, "notnull", dflt_value FROM pragma_table_info(?)', (name,)
            ).fetchall()
        }
        left_out = 0
        for row in self._rows(table):
            taken = self._row(table, row, columns)
            if taken is None:
                left_out += 1
                continue
            named = ", ".join(quoted(columns[column][0]) for column in taken)
            insert = f"INSERT INTO {quoted(name)} ({named}) VALUES ({', '.join('?' * len(taken))})"
            try:
                self._fit.execute(insert, list(taken.values()))
            except sqlite.DatabaseError as error:
                if not sqlite.is_of_statement(error):
                    raise
                self._result.misfits.add(table, row["id"], f"{error} ({_shown(taken)})")
        if left_out:
            self._result.left_out.append(f"{left_out:,} rows of {table} that are no registered name")

    def _rows(self, table: str) -> Iterator[dict[str, Any]]:
        cursor = self._ledger.execute(f"{_SELECTS[table]} ORDER BY o.id")
        names = [column[0] for column in cursor.description]
        for values in cursor:
            row = dict(zip(names, values, strict=True))
            archived: dict[str, Any] = {}
            for text in (row.pop("archived") or "").split("\x1e"):
                archived |= msgspec.json.decode(text) if text else {}
            row["archived"] = {key.lower(): _restored(value) for key, value in archived.items()}
            yield row

    def _row(
        self, table: str, row: dict[str, Any], columns: Mapping[str, tuple[str, bool, Any]]
    ) -> dict[str, Any] | None:
        archived = row["archived"]
        if table == "user_domains" and "status" not in columns and row["status"] not in _OWNED:
            return None
        if table == "deposit_transactions":
            self._transaction(row)
        taken: dict[str, Any] = {}
        for column, (_, not_null, default) in columns.items():
            if column in row and not (table == "user_deposits" and column == "version"):
                taken[column] = row[column]
            elif (table, column) == ("user_deposits", "version"):
                begun = archived.get("version", _whole(default))
                taken[column] = begun + row["version"] if isinstance(begun, int) else begun
            elif column.endswith(_PREFIX) and column.removesuffix(_PREFIX) in row:
                taken[column] = self._prefix(table, column, row[column.removesuffix(_PREFIX)], archived.get(column))
            elif column == "updated_at":
                taken[column] = max(
                    filter(None, (archived.get(column), row.get("moved_at"), row["created_at"])), default=None
                )
            elif column in archived:
                taken[column] = archived[column]
            else:
                continue
            if taken[column] is None and not_null:
                _fill(taken, column, default)
        name = taken.get("depositor_name")
        if self._words.cut_names and isinstance(name, str):
            taken["depositor_name"] = self._cut(table, name)
        return taken

    def _prefix(self, table: str, column: str, name: str | None, archived: Value) -> Value:
        """The bot's own where the name is still there; else as many characters as the bot keeps of others."""
        if name is None:
            return None
        if archived is not None:
            return archived
        key = (table, column)
        if key not in self._widths:
            found = self._ledger.execute(
                "SELECT MAX(length(json_extract(a.column_values, ?))) FROM import_archive AS a"
                f" JOIN {table} AS o ON o.id = a.row_id WHERE a.source_table = ?"
                f" AND length({column.removesuffix(_PREFIX)}) > length(json_extract(a.column_values, ?))",
                (f'$."{column}"', table, f'$."{column}"'),
            ).fetchone()[0]
            self._widths[key] = found or _PREFIX_CHARACTERS
        return name[: self._widths[key]]

    def _transaction(self, row: dict[str, Any]) -> None:
        """Type, status and the sign of the amount in the words of the target; counts what is another one."""
        kind, status, debit = row["type"], row["status"], row["direction"] == Direction.DEBIT
        row["type"] = self._type(kind, row["direction"], row["archived"].get("type"))
        row["status"] = self._status(status, row["archived"].get("status"))
        for what, old, new in (("type", kind, row["type"]), ("status", status, row["status"])):
            if old != new:
                key = f"{what} {old} -> {new}"
                self._result.mapped[key] = self._result.mapped.get(key, 0) + 1
        says_debit = row["type"] in import_words.DEBITS
        if debit and (not says_debit or (row["was_negative"] and self._allows("deposit_transactions", "amount", -1))):
            row["amount"] = -row["amount"]
        if not debit and says_debit and row["amount"]:
            why = f"a credit of the type {row['type']} would count as a debit; say another word with --type {kind}=WORD"
            self._result.misfits.add("deposit_transactions", row["id"], why)

    def _type(self, kind: str, direction: str, of_the_bot: str | None) -> str:
        told = self._words.types.get(f"{kind}:{direction}", self._words.types.get(kind))
        if told is not None:
            return told
        others = _DEBIT if direction == Direction.DEBIT else _TAKEN_BACK if kind in _REFUNDS else _CREDIT
        return self._first_allowed("type", [*filter(None, [of_the_bot]), kind, *others]) or kind

    def _status(self, status: str, of_the_bot: str | None) -> str:
        told = self._words.statuses.get(status)
        if told is not None:
            return told
        same = [of_the_bot] if of_the_bot and self._statuses_of_bot.get(of_the_bot) == status else []
        words = [word for word, meant in self._statuses_of_bot.items() if meant == status]
        return self._first_allowed("status", [*same, status, *words, *_STATUSES.get(status, ())]) or status

    def _mapped_statuses(self) -> dict[str, str]:
        """The bot's word -> the status that an import was told it means."""
        rows = self._ledger.execute(
            "SELECT details ->> '$.old', details ->> '$.new' FROM audit_logs WHERE action = 'import_status_mapped'"
        ).fetchall()
        return dict(rows)

    def _first_allowed(self, column: str, words: list[str]) -> str | None:
        return next((word for word in words if self._allows("deposit_transactions", column, word)), None)

    def _allows(self, table: str, column: str, value: Value) -> bool:
        """Whether no CHECK of the column alone refuses the value."""
        key = (table, column, value)
        if key not in self._allowed:
            self._allowed[key] = all(_holds(self._fit, check, column, value) for check in self._checks[table])
        return self._allowed[key]

    def _cut(self, table: str, name: str) -> str:
        fits: Callable[[int], bool] = lambda length: self._allows(table, "depositor_name", name[:length])  # noqa: E731
        return name[: next((length for length in range(len(name), 0, -1) if fits(length)), len(name))]


def _fill(taken: dict[str, Any], column: str, default: Any) -> None:
    """A value that is missing where there must be one: no name is an empty one, and else there may be a default."""
    if column in {"depositor_name", f"depositor_name{_PREFIX}"}:
        taken[column] = ""
    elif default is not None:
        del taken[column]


def _archive(table: str) -> str:
    return (
        "(SELECT group_concat(column_values, char(30)) FROM import_archive"
        f" WHERE source_table = '{table}' AND row_id = o.id) AS archived"
    )


_LAST_MOVE = "(SELECT MAX(confirmed_at) FROM deposit_transactions WHERE user_id = o.user_id AND version IS NOT NULL)"
_SELECTS = {
    "users": f"SELECT o.id, o.telegram_id, o.username, o.created_at, {_archive('users')} FROM users AS o",
    "user_deposits": "SELECT o.id, o.user_id, o.balance, o.created_at, o.version,"
    f" {_LAST_MOVE} AS moved_at, {_archive('user_deposits')} FROM user_deposits AS o",
    "deposit_transactions": "SELECT o.id, o.user_id, o.type, o.amount, o.status, o.depositor_name, o.description,"
    " o.confirmed_at, o.created_at, o.direction, o.confirmed_at AS moved_at, EXISTS (SELECT 1 FROM audit_logs"
    f" WHERE resource_type = 'deposit_transaction' AND resource_id = o.id AND action = '{_MADE_POSITIVE}')"
    f" AS was_negative, {_archive('deposit_transactions')} FROM deposit_transactions AS o",
    "bank_notifications": "SELECT o.id, o.bank_name, o.depositor_name, o.amount, o.balance_after, o.transaction_time,"
    f" o.raw_message, o.matched_transaction_id, o.created_at, {_archive('bank_notifications')}"
    " FROM bank_notifications AS o",
    "user_domains": "SELECT o.id, o.user_id, o.domain, o.status, o.price, o.registered_at, o.expires_at, o.created_at,"
    f" {_archive('user_domains')} FROM user_domains AS o",
    # A link to a user that is gone is told in the details; a bot that keeps the link would not take it.
    "audit_logs": "SELECT o.id, iif(o.user_id IN (SELECT id FROM users), o.user_id, NULL) AS user_id, o.telegram_id,"
    " o.action, o.resource_type, o.resource_id, o.details, o.ip_address, o.user_agent, o.created_at,"
    f" {_archive('audit_logs')} FROM audit_logs AS o",
}
"""Table -> its rows, what its derived columns need, and the archived values of each."""


def _holds(fit: Connection, check: str, column: str, value: Value) -> bool:
    try:
        said = fit.execute(f"SELECT {check} FROM (SELECT ? AS {quoted(column)})", (value,)).fetchone()[0]
    except sqlite.DatabaseError:  # it is about other columns too
        return True
    return bool(said != 0)


def _restored(value: Any) -> Any:
    """An archived value as the column held it."""
    if isinstance(value, str) and value.startswith("X'") and value.endswith("'"):
        with contextlib.suppress(ValueError):
            return bytes.fromhex(value[2:-1])
    return value


def _whole(default: Any) -> int:
    text = str(default or "").strip("()' ")
    return int(text) if text.isdecimal() else 1


def _shown(taken: Mapping[str, Value]) -> str:
    return ", ".join(f"{column} {shown(logged(value))}" for column, value in taken.items() if column != "id")
