"""Whole copies of a database: made while the service writes, proved before they get their name, and put back.

Both are made by `copies.py`, so that a file under its final name is whole, whenever the process dies. A restore copies
and checks beside the database; then one rename puts it in place. The earlier database gets a second name first and is
never deleted.
"""

import contextlib
import os
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace as altered

from service.ledger.integrity import IntegrityStatus
from service.ledger.timestamps import Clock
from service.storage import copies, lock, migrator, sqlite
from service.storage.copies import CopyFailed
from service.storage.integrity import Proof
from service.storage.migrator import Migration
from service.storage.progress import Progress
from service.storage.sqlite import Connection

LAST_STEP = "putting it in place"
"""From this step on there is nothing left to stop: a few renames and syncs."""
_HEADER = 100


class BackupReport(Struct, frozen=True, kw_only=True):
    """A copy as it was checked. `audit_head`: id of the last audit row, null when there is none.

    pending: how many of the program's migrations the copy has not. proved: whether it was proved that the copy adds up.
    """

    path: Path
    size_bytes: int
    pending: int
    proved: bool
    users: int
    transactions: int
    audit_rows: int
    audit_head: int | None


class RestoreReport(Struct, frozen=True, kw_only=True):
    """The restored database, and the files that the earlier one is kept in."""

    database: BackupReport
    kept: list[Path]


def stamp(clock: Clock) -> str:
    """The present instant as names of files hold it."""
    return f"{clock():%Y%m%dT%H%M%SZ}"


def back_up(
    source: Connection, target: Path, migrations: list[Migration], clock: Clock, on_progress: Progress, *, prove: bool
) -> BackupReport:
    """Copies what `source` sees now to `target`, a name that is not taken; the folder is there.

    `source` is in no transaction; read-only is enough. Without `prove`, or where the schema is not the program's, the
    copy passes only SQLite's own check. Raises CopyFailed, MigrationError, OSError; then there is no file.
    """
    _check_name_is_free(target)
    _check_holds_something(source, migrations)
    with copies.partial(source, target, on_progress) as partial:
        report = _checked(partial, migrations, clock, on_progress, prove=prove)
        on_progress(LAST_STEP, 0, 1)
        _check_name_is_free(target)
        copies.give_name(partial, target)
    return altered(report, path=target)


def restore(
    file: Path,
    target: Path,
    migrations: list[Migration],
    clock: Clock,
    on_progress: Progress,
    *,
    prove: bool,
    replace: bool,
) -> RestoreReport:
    """Makes `target` the database that `file` holds. One that is there already is kept beside it if `replace`.

    Raises CopyFailed, MigrationError, DatabaseInUse, OSError; then `target` is as it was.
    """
    target = target.resolve()
    _check_is_whole(file)
    if target.exists() and file.samefile(target):
        raise CopyFailed(f"{file} is the database itself.")
    if target.is_dir():
        raise CopyFailed(f"{target} is a folder.")
    sqlite.make_folder(target.parent)
    with lock.exclusive(target, purpose="restore"):
        drop_second_names(target)
        if not replace and target.exists() and target.stat().st_size > 0:
            raise CopyFailed(f"{target} is there already. To put {file} in its place and keep it aside: --replace")
        with contextlib.closing(sqlite.connect_reader(file, busy_timeout_ms=0)) as source:
            _check_holds_something(source, migrations)
            with copies.partial(source, target, on_progress) as partial:
                report = _checked(partial, migrations, clock, on_progress, prove=prove)
                on_progress(LAST_STEP, 0, 1)
                try:
                    kept = _put_in_place(partial, target, f"before-restore-{stamp(clock)}")
                finally:
                    drop_second_names(target)
        with contextlib.closing(sqlite.connect_reader(target, busy_timeout_ms=0)) as restored:
            if _counts(restored) != (report.users, report.transactions, report.audit_rows, report.audit_head):
                raise CopyFailed(f"{target} is not what was restored; another program has written to it.")
    return RestoreReport(database=altered(report, path=target), kept=kept)


def _check_name_is_free(target: Path) -> None:
    if target.name.endswith(sqlite.SIDE_FILES):
        raise CopyFailed(f"{target} is a name that SQLite gives to its own files; take another.")
    for path in (target, *sqlite.side_files(target)):
        # SQLite would replay the log of an earlier database over the copy.
        if path.is_symlink() or path.exists():
            raise CopyFailed(f"{path} is there already; a backup overwrites nothing.")


def _check_is_whole(file: Path) -> None:
    """Raises CopyFailed unless `file` begins as an SQLite database does and is as long as it says."""
    if not file.is_file():
        raise CopyFailed(f"There is no file {file}.")
    with file.open("rb") as opened:
        header = opened.read(_HEADER)
        size = os.fstat(opened.fileno()).st_size
    if not header.startswith(sqlite.MAGIC) or len(header) < _HEADER:
        raise CopyFailed(f"{file} is no SQLite database.")
    # https://www.sqlite.org/fileformat.html, 1.3: the page size, where 1 is 65,536, and the size in pages.
    page = int.from_bytes(header[16:18], "big")
    wanted = (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
    has_log = any(path.exists() and path.stat().st_size > 0 for path in sqlite.side_files(file))
    if size < wanted and not has_log:
        raise CopyFailed(f"{file} is cut off: it has {size:,} of {wanted:,} bytes.")


def _check_holds_something(source: Connection, migrations: list[Migration]) -> None:
    if migrator.version_of(source, migrations) < 0:
        raise CopyFailed("The database is empty; there is nothing to copy.")


def _checked(
    path: Path, migrations: list[Migration], clock: Clock, on_progress: Progress, *, prove: bool
) -> BackupReport:
    """What the copy at `path` holds. Raises CopyFailed, MigrationError when it is not sound."""
    with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as copy:
        pending = len(migrations) - 1 - migrator.version_of(copy, migrations)
        if prove and not pending:
            _prove(copy, Proof(migrations, clock), on_progress)
        elif wrong := copies.faults(path, on_progress):
            raise CopyFailed(f"The copy does not pass SQLite's own check: {wrong}")
        users, transactions, audit_rows, audit_head = _counts(copy)
    return BackupReport(
        path=path,
        size_bytes=path.stat().st_size,
        pending=pending,
        proved=prove and not pending,
        users=users,
        transactions=transactions,
        audit_rows=audit_rows,
        audit_head=audit_head,
    )


def _prove(copy: Connection, proof: Proof, on_progress: Progress) -> None:
    def show() -> None:
        on_progress("proving", *proof.progress)

    with copies.looked_in_upon(copy, show):
        proof.run(copy, show)
    report = proof.report()
    if report.status == IntegrityStatus.UNFINISHED:
        raise CopyFailed(f"The copy cannot be proved. {report.reason}")
    if report.status == IntegrityStatus.BROKEN:
        failed = ", ".join(f"{check.name} ({check.failed:,})" for check in report.checks if check.failed)
        raise CopyFailed(f"What was copied does not add up: {failed}. With --no-proof it is copied all the same.")


def _counts(connection: Connection) -> tuple[int, int, int, int | None]:
    """Users, transactions, audit rows, and the id of the last audit row; 0 of what the bot's database has not (yet)."""
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    (users, _), (transactions, _), (rows, head) = (
        connection.execute(f"SELECT COUNT(*), MAX(id) FROM {table}").fetchone() if table in there else (0, None)
        for table in ("users", "deposit_transactions", "audit_logs")
    )
    return users, transactions, rows, head


def _put_in_place(partial: Path, target: Path, aside: str) -> list[Path]:
    """One rename makes `partial` the database; the files in which the earlier one is kept. The folder is synced."""
    kept = []
    name = copies.free_name(target, aside)
    if target.exists() and target.stat().st_size > 0:
        _fold_log(target)
        name.hardlink_to(target)
        kept.append(name)
    # What is still here is of no database, or of one that SQLite cannot read: it would be replayed over the new one.
    for path in sqlite.side_files(target):
        if path.exists():
            if path.name.endswith("-shm") or path.stat().st_size == 0:
                path.unlink()
            else:
                kept.append(path.rename(name.with_name(name.name + path.name.removeprefix(target.name))))
    sqlite.sync(target.parent)
    partial.rename(target)
    sqlite.sync(target.parent)
    return kept


def _fold_log(database: Path) -> None:
    """Brings what the write-ahead log holds into the file, so that it is whole under any name.

    A file that SQLite cannot read stays as it is. Raises CopyFailed when another program has it open.
    """
    try:
        # Opened for writing, a file that is no database would lose its log as the connection closes.
        sqlite.connect_reader(database, busy_timeout_ms=0).close()
    except sqlite.EngineError:
        return
    with contextlib.closing(sqlite.open_scratch(database)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite.DatabaseError as error:
            if sqlite.is_busy(error):
                raise CopyFailed(f"Another program has {database} open; close it first.") from error
            raise


def drop_second_names(target: Path) -> None:
    """Takes back the second name that a restore gave to `target` before it was killed: SQLite wants one for a file."""
    for path in second_names(target):
        path.unlink()


def second_names(target: Path) -> list[Path]:
    """The names that a restore gave to `target`, and that it or the next one takes back."""
    return [
        path
        for path in target.parent.glob("*.before-restore-*")
        if path.name.startswith(f"{target.name}.") and target.exists() and path.samefile(target)
    ]
