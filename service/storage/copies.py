"""Copies of a whole database beside it, made before something is done to it that somebody may want undone.

A copy appears under its name by one rename, after it was checked and synced; a killed run leaves only a file that the
next one deletes.
"""

import contextlib
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from service.storage import backups, sqlite
from service.storage.sqlite import Connection

_PAGES_AT_ONCE = 4096
_MAGIC = b"SQLite format 3\x00"
_NO_COPIES = ("-wal", "-shm", "-journal", ".lock", ".copying", ".source", ".importing")

Copied = Callable[[int, int], None]
"""Hears how many pages are copied and how many there are."""


class CopyFailed(Exception):
    """There is no copy. The text says why; the database is as it was."""


def make(connection: Connection, path: Path, *, purpose: str, now: datetime, copied: Copied | None = None) -> Path:
    """A checked and synced copy of the database at `path`, which `connection` reads; its path. Raises CopyFailed.

    The copy has every page of the database, and the same rows in every table.
    """
    partial = path.with_name(f"{path.name}.copying")
    try:
        try:
            partial.unlink(missing_ok=True)
            # As private as the database: SQLite itself would make it readable by everybody.
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, path.stat().st_mode & 0o777))
            with contextlib.closing(sqlite.open_scratch(partial)) as target:
                connection.backup(
                    target,
                    pages=_PAGES_AT_ONCE,
                    progress=lambda _, left, total: copied(total - left, total) if copied else None,
                )
            sqlite.sync(partial)
            wrong = faults(partial, like=connection)
            if wrong:
                raise CopyFailed(f"The copy of {path} is not sound ({wrong}); nothing was changed.")
            copy = _free_name(path, f"before-{purpose}-{now:%Y%m%d_%H%M%S}")
            partial.rename(copy)
            sqlite.sync(copy.parent)
            return copy
        finally:
            for left in (partial, Path(f"{partial}-journal"), Path(f"{partial}-wal"), Path(f"{partial}-shm")):
                left.unlink(missing_ok=True)
    except sqlite.DatabaseError as error:
        raise CopyFailed(f"{path} cannot be copied: {error}; nothing was changed.") from error
    except OSError as error:
        raise CopyFailed(f"{path} cannot be copied: {error.strerror or error}; nothing was changed.") from error


def faults(copy: Path, *, like: Connection | None = None) -> str:
    """What is wrong with a copy by its pages and, given the database, by its row counts; empty when nothing is."""
    try:
        with contextlib.closing(sqlite.connect_reader(copy, busy_timeout_ms=0, immutable=True)) as connection:
            said = "; ".join(row[0] for row in connection.execute("PRAGMA quick_check(3)"))
            if said != "ok":
                return said
            if like is not None and row_counts(connection) != row_counts(like):
                return "its tables have other numbers of rows"
            return ""
    except (sqlite.EngineError, sqlite.DatabaseError) as error:
        return str(error)


def row_counts(connection: Connection) -> dict[str, int]:
    """Table -> how many rows it has, without SQLite's and Cloudflare's own tables."""
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
    ).fetchall()
    return {
        name: connection.execute('SELECT COUNT(*) FROM "' + name.replace('"', '""') + '"').fetchone()[0]
        for (name,) in tables
        if not name.startswith(("sqlite_", "_cf_"))
    }


def beside(path: Path) -> list[Path]:
    """The copies of the database in its folder, by their names its own, and in that of the backups; newest first."""
    found = []
    names = (f"{path.stem}.", f"{path.stem}-")
    folder = path.parent / backups.FOLDER
    for other in (*path.parent.iterdir(), *(folder.iterdir() if folder.is_dir() else ())):
        named = other.name.startswith(names if other.parent == path.parent else (*names, backups.PREFIX))
        if named and other.name != path.name and not other.name.endswith(_NO_COPIES):
            with contextlib.suppress(OSError), other.open("rb") as file:
                if file.read(len(_MAGIC)) == _MAGIC:
                    found.append((other.stat().st_mtime_ns, other))
    return [other for _, other in sorted(found, reverse=True)]


def _free_name(path: Path, end: str) -> Path:
    copy, number = path.with_name(f"{path.name}.{end}"), 1
    while copy.exists():
        number += 1
        copy = path.with_name(f"{path.name}.{end}-{number}")
    return copy
