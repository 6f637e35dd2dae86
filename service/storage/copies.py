"""Copies of a whole database: one snapshot, page by page, that has its name only when it is whole.

It is read with SQLite's backup API in one read transaction: what was committed before it began is in it, nothing half.
It grows under a temporary name in the folder that it is for, is closed as one plain file without a write-ahead log,
synced, checked, and only then named. What a killed process left, the next copy into that folder deletes.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from service.storage import sqlite
from service.storage.progress import Progress, quiet
from service.storage.sqlite import Connection

FOLDER = "backups"
"""Beside the database: where a backup goes that was given no other place."""
PREFIX = "passbook-"
"""How the name begins of a backup that was given none."""
_PARTIAL = ".passbook-partial"
_PAGES = 256
_LOOKS = 200_000
_NO_COPIES = (*sqlite.SIDE_FILES, ".lock", ".turn", ".source", ".importing")
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class CopyFailed(Exception):
    """No copy was made, or nothing was restored. The text is one sentence that says why; the database is as it was."""


def keep(source: Connection, path: Path, *, purpose: str, now: datetime, on_progress: Progress) -> Path:
    """A copy of the database at `path`, which `source` reads, beside it: from before what somebody may want undone.

    It passes SQLite's own check and has as many rows in every table; its owner alone reads it. Raises CopyFailed,
    OSError; then there is no copy.
    """
    with partial(source, path, on_progress) as copy:
        wrong = faults(copy, on_progress, like=source)
        if wrong:
            raise CopyFailed(f"The copy of {path} is not sound ({wrong}); nothing was changed.")
        kept = free_name(path, f"before-{purpose}-{now:%Y%m%d_%H%M%S}")
        give_name(copy, kept)
    return kept


@contextlib.contextmanager
def partial(source: Connection, target: Path, on_progress: Progress) -> Iterator[Path]:
    """A synced copy of what `source` sees now, under another name beside `target`; gone after the block unless renamed.

    `source` is in no transaction; read-only is enough. Only the owner reads the file, which is held by flock, so that
    what a killed process left behind is told from what another one is writing. Raises CopyFailed, OSError.
    """
    if not target.parent.is_dir():
        raise CopyFailed(f"There is no folder {target.parent}.")
    _remove_leftovers(target.parent)
    while True:
        path = target.with_name(f".{target.name}.{os.urandom(4).hex()}{_PARTIAL}")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not path.exists():  # another process took it for a leftover before it was held
                continue
            _copy(source, path, on_progress)
            yield path
            return
        finally:
            _remove(path)
            os.close(descriptor)


def faults(copy: Path, on_progress: Progress = quiet, *, like: Connection | None = None) -> str:
    """What is wrong with a copy by its pages and, given the database, by its row counts; empty when nothing is."""
    try:
        with contextlib.closing(sqlite.connect_reader(copy, busy_timeout_ms=0, immutable=True)) as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            with looked_in_upon(connection, lambda: on_progress("checking the file", 0, pages)):
                said = "; ".join(row[0] for row in connection.execute("PRAGMA quick_check(3)"))
            if said != "ok":
                return " ".join(said.split())
            if like is not None and _row_counts(connection) != _row_counts(like):
                return "its tables have other numbers of rows"
            return ""
    except (sqlite.EngineError, sqlite.DatabaseError) as error:
        return str(error)


def beside(path: Path) -> list[Path]:
    """The copies of the database in its folder, by their names its own, and in that of the backups; newest first."""
    found = []
    names = (f"{path.stem}.", f"{path.stem}-")
    folder = path.parent / FOLDER
    for other in (*path.parent.iterdir(), *(folder.iterdir() if folder.is_dir() else ())):
        named = other.name.startswith(names if other.parent == path.parent else (*names, PREFIX))
        if named and other.name != path.name and not other.name.endswith(_NO_COPIES) and is_database(other):
            found.append((other.stat().st_mtime_ns, other))
    return [other for _, other in sorted(found, reverse=True)]


def is_database(path: Path) -> bool:
    """Whether the file begins as SQLite's do."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(sqlite.MAGIC)) == sqlite.MAGIC
    return False


def give_name(partial: Path, target: Path) -> None:
    """Names the file, and syncs the folder. Raises CopyFailed when the name is taken: a link replaces nothing."""
    try:
        target.hardlink_to(partial)
    except FileExistsError as error:
        raise CopyFailed(f"{target} is there already; a backup overwrites nothing.") from error
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        partial.rename(target)
    sqlite.sync(target.parent)


def free_name(target: Path, end: str) -> Path:
    """`target` with `end`, and a number where that is taken."""
    number = 1
    while True:
        name = target.with_name(f"{target.name}.{end}{'' if number == 1 else f'-{number}'}")
        if not any(path.exists() for path in (name, *sqlite.side_files(name))):
            return name
        number += 1


@contextlib.contextmanager
def looked_in_upon(connection: Connection, look: Callable[[], None]) -> Iterator[None]:
    """Calls `look` now and then during a long statement, so that signals are heard; what it raises ends it."""
    raised: list[BaseException] = []

    def called() -> int:
        try:
            look()
        except BaseException as error:  # it cannot pass through SQLite
            raised.append(error)
        return len(raised)

    connection.set_progress_handler(called, _LOOKS)
    try:
        yield
    except sqlite.DatabaseError:
        if not raised:
            raise
    finally:
        connection.set_progress_handler(None, 0)
    if raised:
        raise raised[0]


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(f".*{_PARTIAL}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    for one in (path, *sqlite.side_files(path)):
        one.unlink(missing_ok=True)


def _copy(source: Connection, partial: Path, on_progress: Progress) -> None:
    """All pages of one snapshot of `source`, as a plain file, synced. Raises CopyFailed."""
    try:
        with contextlib.closing(sqlite.open_scratch(partial)) as copy:
            # Nobody needs half of it: no journal while it grows, one sync when it is done.
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            # Without an open snapshot the copy would begin anew whenever another process writes.
            source.execute("BEGIN")
            try:
                sqlite.ping(source)
                source.backup(
                    copy,
                    pages=_PAGES,
                    progress=lambda _, left, total: on_progress("copying", total - left, total),
                )
            finally:
                source.execute("COMMIT")
            # The pages say WAL as those of the source do; a copy is one file.
            copy.execute("PRAGMA journal_mode = DELETE")
        sqlite.sync(partial)
    except (sqlite.DatabaseError, OSError) as error:
        if sqlite.is_out_of_space(error):
            free = shutil.disk_usage(partial.parent).free
            raise CopyFailed(f"There is no space for the copy in {partial.parent}: {free:,} bytes are free.") from error
        raise CopyFailed(f"The copy into {partial.parent} failed: {error}.") from error


def _row_counts(connection: Connection) -> dict[str, int]:
    """Table -> how many rows it has, without SQLite's and Cloudflare's own tables."""
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
    ).fetchall()
    return {
        name: connection.execute('SELECT COUNT(*) FROM "' + name.replace('"', '""') + '"').fetchone()[0]
        for (name,) in tables
        if not name.startswith(("sqlite_", "_cf_"))
    }
