"""The way back: the bot's tables as SQL text for `wrangler d1 execute --file`, so that the bot can run on D1 again.

The shape is that of the database after migration 001: the five tables of the baseline and audit_logs. What the ledger
added is left out (versions, references, keys, stored answers). The direction of a movement has no column there. If the
type of a debit does not say that it is one, its amount is negative, and migration 003 reads that as a debit.

The text:

- has no BEGIN, COMMIT or denied PRAGMA, and nowhere, not within a value either, words that make wrangler look for them;
- has statements of at most 100,000 bytes: D1's limit. A row that is longer comes in pieces, by UPDATE … || …;
- names every column; text is quoted as it stands, with a NUL in it as CAST(X'…' AS TEXT);
- ends with the highest ids that were ever given out.
"""

import contextlib
import io
import math
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO

from msgspec import Struct

from service.ledger.fields import BALANCE_MAX
from service.storage import migrator, private_files, sqlite
from service.storage.import_source import TABLES, columns_of
from service.storage.import_values import Value
from service.storage.migrator import Migration
from service.storage.progress import Progress
from service.storage.sqlite import Connection

DEBIT_TYPES = (
    "withdrawal", "withdraw", "debit", "purchase", "domain_purchase", "domain", "payment", "spend", "fee",
    "opening_debit",
)  # fmt: skip
"""The types that migration 003 reads as debits."""
STATEMENT_BYTES_MAX = 100_000
_TABLES = (*TABLES, "audit_logs")
_SCHEMA_VERSION = 1
# wrangler's own splitter takes time with the square of a statement's length.
_STATEMENT_BYTES = 8_000
_ROW_BYTES_MAX = 90_000
_FIRST_PIECE, _PIECE = 1_000, 10_000
"""Characters: written out they are at most eight bytes each."""
_FORBIDDEN = "BEGIN TRANSACTION"
"""wrangler cuts these words out wherever they stand."""
_BATCH = 1000


class ExportFailed(Exception):
    """The database cannot be written as SQL for D1. The text is one sentence; no file was made."""


class ExportReport(Struct, frozen=True, kw_only=True):
    """What was written. `tables`: name -> rows; size in bytes."""

    tables: dict[str, int]
    size: int


def export_database(
    database: Path,
    target: Path,
    migrations: list[Migration],
    *,
    with_schema: bool,
    busy_timeout_ms: int,
    progress: Progress,
) -> ExportReport:
    """Writes `database` as it is at one instant to `target`, which must not be there; beside a running service too.

    Without the schema only rows are written, for tables that are there. Raises ExportFailed, MigrationError,
    EngineError.
    """
    with new_file(target) as partial:
        connection = sqlite.connect_reader(database, busy_timeout_ms=busy_timeout_ms)
        with contextlib.closing(connection), new_text(partial) as file:
            migrator.require_latest(connection, migrations)
            connection.execute("BEGIN")
            tables = _write(connection, file, migrations, with_schema=with_schema, progress=progress)
            connection.execute("COMMIT")
        size = partial.stat().st_size
    return ExportReport(tables=tables, size=size)


def new_text(path: Path) -> IO[str]:
    """A new file for text, which its owner alone reads; line ends are written as they are."""
    return io.TextIOWrapper(private_files.create(path), encoding="utf-8", newline="")


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A path to make a file at, which is on disk under the name `target` when the block ends, and gone when it raises.

    Raises ExportFailed when `target` is there, before the block and after it.
    """
    _refuse_existing(target)
    partial = target.with_name(f"{target.name}.exporting-{os.getpid()}")
    try:
        yield partial
        sqlite.sync(partial)
        _publish(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise ExportFailed(f"{target} is there already; nothing is written over it.")


def _publish(partial: Path, target: Path) -> None:
    """Gives the whole file its name; never another file's."""
    try:
        target.hardlink_to(partial)
    except FileExistsError as error:
        raise ExportFailed(f"{target} is there already; nothing is written over it.") from error
    except OSError:  # a file system without links
        _refuse_existing(target)
        partial.rename(target)
    sqlite.sync(target.absolute().parent)


def _write(
    connection: Connection, file: IO[str], migrations: list[Migration], *, with_schema: bool, progress: Progress
) -> dict[str, int]:
    tables, indexes, columns = _shape(migrations)
    totals = {table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in _TABLES}
    file.write("PRAGMA defer_foreign_keys=TRUE;\n")
    if with_schema:
        for table in _TABLES:
            file.write(f"{tables[table]};\n")
    for table in _TABLES:
        for count, statement in inserts(table, columns[table], _rows(connection, table, columns[table])):
            file.write(statement)
            progress(f"writing {table}", count, totals[table])
    for statement in counters(connection, _TABLES):
        file.write(statement)
    if with_schema:
        for sql in indexes:
            file.write(f"{sql};\n")
    return totals


def _shape(migrations: list[Migration]) -> tuple[dict[str, str], list[str], dict[str, list[str]]]:
    """CREATE TABLE by table, the indexes, and the columns by table, as migration 001 leaves them."""
    scratch = sqlite.open_scratch()
    try:
        for migration in migrations[: _SCHEMA_VERSION + 1]:
            for statement in migrator.statements(migration.up):
                scratch.execute(statement).fetchall()
        made = scratch.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"
        ).fetchall()
        tables = {name: sql for kind, name, sql in made if kind == "table"}
        indexes = [sql for kind, _, sql in made if kind == "index"]
        return tables, indexes, {table: list(columns_of(scratch, table)) for table in _TABLES}
    finally:
        scratch.close()


def inserts(table: str, columns: list[str], found: Iterable[tuple[Value, ...]]) -> Iterator[tuple[int, str]]:
    """Statements that write these rows, and how many are written with each; names as SQL takes them.

    The first column tells the rows apart. Raises ExportFailed.
    """
    head = f"INSERT INTO {table} ({', '.join(columns)}) VALUES\n"
    rows: list[str] = []
    size = count = 0
    for row in found:
        text = _row(table, row)
        length = len(text.encode())
        if rows and size + length > _STATEMENT_BYTES:
            yield count, head + ",\n".join(rows) + ";\n"
            rows, size = [], 0
        count += 1
        if length > _ROW_BYTES_MAX:
            yield from ((count, statement) for statement in _in_pieces(table, head, columns, row))
        else:
            rows.append(text)
            size += length + 2
    if rows:
        yield count, head + ",\n".join(rows) + ";\n"


def _rows(connection: Connection, table: str, columns: list[str]) -> Iterator[tuple[Value, ...]]:
    wanted = ", ".join(columns)
    if table == "deposit_transactions":
        says_debit = (
            f"type IN ({', '.join('?' * len(DEBIT_TYPES))}) AND NOT EXISTS (SELECT 1 FROM audit_logs"
            " WHERE resource_type = 'deposit_transaction' AND resource_id = deposit_transactions.id"
            " AND action = 'migration_amount_made_positive')"
        )
        wanted = wanted.replace(
            "amount", f"iif(direction = 'credit' OR {says_debit}, amount, -amount)"
        )  # no other column's name has this word in it
    parameters = DEBIT_TYPES if table == "deposit_transactions" else ()
    try:
        rows = connection.execute(f"SELECT {wanted} FROM {table} ORDER BY id", parameters)
        while batch := rows.fetchmany(_BATCH):
            yield from batch
    except sqlite.DatabaseError as error:
        raise ExportFailed(f"The table {table} cannot be read: {error}.") from error


def _row(table: str, row: tuple[Value, ...]) -> str:
    try:
        return "(" + ", ".join(map(_literal, row)) + ")"
    except _NotExact as error:
        raise ExportFailed(f"{table}, row {row[0]!r}: {error}.") from error


class _NotExact(Exception):
    """A value that D1 would give back as another one."""


def _literal(value: Value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes):
        if len(value) * 2 > _ROW_BYTES_MAX:
            raise _NotExact(f"its binary data of {len(value):,} bytes is longer than a statement may be")
        return f"X'{value.hex()}'"
    if abs(value) > BALANCE_MAX:
        raise _NotExact(f"{value} is beyond {BALANCE_MAX:,}, which D1 would round")
    if isinstance(value, float) and not math.isfinite(value):
        raise _NotExact(f"{value} is no number that D1 keeps")
    return repr(value)


def _text(value: str) -> str:
    if "\0" in value:
        return f"CAST(X'{value.encode().hex()}' AS TEXT)"
    text = value.replace("'", "''")
    if _FORBIDDEN in text:
        text = text.replace(_FORBIDDEN, "BEGIN'||' TRANSACTION")
        return f"('{text}')"
    return f"'{text}'"


def _in_pieces(table: str, head: str, columns: list[str], row: tuple[Value, ...]) -> Iterator[str]:
    """A row that is too long for one statement: the beginning of each text, then the rest of it, piece by piece."""
    first = tuple(value[:_FIRST_PIECE] if isinstance(value, str) else value for value in row)
    yield f"{head}{_row(table, first)};\n"
    for column, value in zip(columns, row, strict=True):
        if isinstance(value, str):
            for start in range(_FIRST_PIECE, len(value), _PIECE):
                piece = _text(value[start : start + _PIECE])
                yield f"UPDATE {table} SET {column} = {column} || {piece} WHERE {columns[0]} = {_literal(row[0])};\n"


def counters(connection: Connection, tables: Collection[str]) -> Iterator[str]:
    """The highest ids that were given out, so that none is given out again."""
    found = connection.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name").fetchall()
    for name, sequence in found:
        if name in tables:
            yield f"DELETE FROM sqlite_sequence WHERE name = {_text(name)};\n"
            yield f"INSERT INTO sqlite_sequence (name, seq) VALUES ({_text(name)}, {int(sequence)});\n"
