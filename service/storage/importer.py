"""Takes the bot's database over: what `wrangler d1 export` wrote, or an SQLite file, becomes a new Passbook database.

The tables of the baseline are copied by column name, then all migrations run over them. Everything happens in a file
beside the target; the target appears, whole and verified, by one rename at the end.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from service.storage import lock, migrator, sqlite
from service.storage.migrator import Migration, MigrationError, Report
from service.storage.sqlite import Connection, transaction

TABLES = ("users", "user_deposits", "deposit_transactions", "bank_notifications", "user_domains")
"""The bot's tables that are taken over, parents before children."""
_GUIDE_AUDIT_COLUMNS = (
    "id", "user_id", "telegram_id", "action", "resource_type", "resource_id", "details", "ip_address", "user_agent",
    "created_at",
)  # fmt: skip
_SQLITE_MAGIC = b"SQLite format 3\x00"
# What an export may do while it is read into a scratch database; everything else is refused.
_ALLOWED = {
    sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_CREATE_TRIGGER,
    sqlite3.SQLITE_CREATE_VIEW, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE,
    sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_REINDEX,
}  # fmt: skip
_ALLOWED_PRAGMAS = {"foreign_keys", "defer_foreign_keys"}


class ImportFailed(Exception):
    """The file cannot be taken over. The text is one sentence; no database was made."""


class ImportReport(Struct, frozen=True, kw_only=True):
    """What came over. `tables`: name -> rows; the numbers below count audit rows that the migrations wrote.

    left_aside names what the source holds and Passbook does not know: "table (rows)" or "table.column".
    """

    tables: dict[str, int]
    left_aside: list[str]
    balances_rejected: int
    names_truncated: int
    opening_entries: int
    accounts_removed: int


def import_database(source: Path, target: Path, migrations: list[Migration], report: Report) -> ImportReport:
    """Makes `target` from `source`. Raises ImportFailed, MigrationError, DatabaseInUse; then nothing was made."""
    if not source.is_file():
        raise ImportFailed(f"There is no file {source}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock.exclusive(target), _working_files(target) as (scratch, fresh):
        if target.exists() and target.stat().st_size > 0:
            raise ImportFailed(f"{target} is there already; import makes a new database. Move it away first.")
        with contextlib.closing(_open_source(source, scratch, report)) as old:
            _check_is_bots(old, source)
            with contextlib.closing(sqlite.connect_writer(fresh, busy_timeout_ms=0, checkpoints=True)) as new:
                copied = _copy(old, new, migrations, report)
                migrator.up(new, migrations, report)
                result = _result(new, copied, _left_aside(old, new))
                _verify(new)
                new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _sync(fresh)
        fresh.replace(target)
        _sync(target.parent)
    return result


@contextlib.contextmanager
def _working_files(target: Path) -> Iterator[tuple[Path, Path]]:
    """Two free paths beside `target` for the block; what is left of them is deleted after it."""
    scratch, fresh = (target.with_name(f"{target.name}.{part}") for part in ("source", "importing"))
    leftovers = [Path(f"{path}{suffix}") for path in (scratch, fresh) for suffix in ("", "-wal", "-shm", "-journal")]
    for path in leftovers:
        path.unlink(missing_ok=True)
    try:
        yield scratch, fresh
    finally:
        for path in leftovers:
            path.unlink(missing_ok=True)


def _open_source(source: Path, scratch: Path, report: Report) -> Connection:
    """The source as an SQLite database that is only read."""
    with source.open("rb") as file:
        is_database = file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    if is_database:
        return sqlite.connect_reader(source, busy_timeout_ms=0)
    report(f"reading {source} …")
    connection = sqlite.open_scratch(scratch)
    try:
        connection.set_authorizer(_authorize)
        connection.execute("BEGIN")
        for number, statement in _statements(source):
            try:
                connection.execute(statement).fetchall()
            except sqlite.DatabaseError as error:
                raise ImportFailed(f"{source}, line {number}: {error}: {statement[:80]!r}.") from error
        if connection.in_transaction:
            connection.execute("COMMIT")
        connection.set_authorizer(None)
    except BaseException:
        connection.close()
        raise
    return connection


def _authorize(action: int, first: str | None, *_: object) -> int:
    allowed = action in _ALLOWED or (action == sqlite3.SQLITE_PRAGMA and first in _ALLOWED_PRAGMAS)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _statements(source: Path) -> Iterator[tuple[int, str]]:
    """The statements of an export with the number of the line each begins in. Raises ImportFailed."""
    pending: list[str] = []
    begun = 0
    try:
        with source.open(encoding="utf-8", newline="") as file:
            for number, line in enumerate(file, start=1):
                begun = begun if pending else number
                pending.append(line)
                if line.rstrip().endswith(";") and sqlite3.complete_statement("".join(pending)):
                    statement = "".join(pending).strip()
                    pending = []
                    if not statement.upper().startswith(("BEGIN TRANSACTION", "COMMIT")):  # .dump has them
                        yield begun, statement
    except UnicodeDecodeError as error:
        raise ImportFailed(f"{source} is no UTF-8 text: {error.reason} at byte {error.start}.") from error
    if "".join(pending).strip():
        raise ImportFailed(f"{source} ends within the statement that begins in line {begun}; is it complete?")


def _tables(connection: Connection) -> set[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {name for (name,) in rows if not name.startswith(("sqlite_", "_cf_", "d1_migrations"))}


def _columns(connection: Connection, table: str) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()]


def _check_is_bots(old: Connection, source: Path) -> None:
    tables = _tables(old)
    missing = [table for table in ("users", "user_deposits", "deposit_transactions") if table not in tables]
    if missing:
        raise ImportFailed(f"{source} is no database of the bot: it has no table {', '.join(missing)}.")
    if "version" in _columns(old, "user_deposits"):
        raise ImportFailed(f"{source} is a Passbook database already; use its file as it is.")


def _copy(old: Connection, new: Connection, migrations: list[Migration], report: Report) -> dict[str, int]:
    """Copies the bot's tables into the baseline; name -> rows."""
    copied = {}
    migrator.up(new, migrations, report, to=0)
    tables = [table for table in TABLES if table in _tables(old)]
    with transaction(new):
        for table in tables:
            known = _columns(new, table)
            copied[table] = _copy_table(old, new, table, [name for name in _columns(old, table) if name in known])
            report(f"  {table}: {copied[table]:,} rows")
        if "audit_logs" in _tables(old):
            for statement in migrator.statements(migrations[1].up):
                if "CREATE TABLE IF NOT EXISTS audit_logs" in statement:
                    new.execute(statement)
            copied["audit_logs"] = _copy_table(old, new, "audit_logs", list(_GUIDE_AUDIT_COLUMNS))
            report(f"  audit_logs: {copied['audit_logs']:,} rows")
        _copy_high_water_marks(old, new, list(copied))
    return copied


def _copy_table(old: Connection, new: Connection, table: str, columns: list[str]) -> int:
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    rows = old.execute(f"SELECT {names} FROM {table} ORDER BY rowid")
    count = 0
    while batch := rows.fetchmany(1000):
        for row in batch:
            try:
                new.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", row)
            except sqlite.DatabaseError as error:
                raise ImportFailed(f"Table {table}, row {row[0]}: {error}.") from error
        count += len(batch)
    return count


def _copy_high_water_marks(old: Connection, new: Connection, tables: list[str]) -> None:
    """An id that was given out once is never given out again, even when its row is gone."""
    if not old.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'").fetchone():
        return
    for name, sequence in old.execute("SELECT name, seq FROM sqlite_sequence").fetchall():
        if name in tables:
            new.execute("UPDATE sqlite_sequence SET seq = MAX(seq, ?) WHERE name = ?", (sequence, name))


def _left_aside(old: Connection, new: Connection) -> list[str]:
    known = {*TABLES, "audit_logs"}
    aside = []
    for table in sorted(_tables(old)):
        if table not in known:
            count = old.execute(f'SELECT COUNT(*) FROM "{table.replace(chr(34), chr(34) * 2)}"').fetchone()[0]
            aside.append(f"{table} ({count:,} rows)")
        else:
            kept = _columns(new, table)
            aside += [f"{table}.{column}" for column in _columns(old, table) if column not in kept]
    return aside


def _result(new: Connection, copied: dict[str, int], left_aside: list[str]) -> ImportReport:
    def logged(action: str) -> int:
        row = new.execute("SELECT COUNT(*) FROM audit_logs WHERE action = ?", (action,)).fetchone()
        return int(row[0])

    return ImportReport(
        tables=copied,
        left_aside=left_aside,
        balances_rejected=logged("migration_balance_rejected"),
        names_truncated=logged("migration_depositor_name_truncated"),
        opening_entries=logged("opening_adjustment"),
        accounts_removed=logged("migration_orphan_account_removed"),
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
