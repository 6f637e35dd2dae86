"""The lock file: at most one process serves or rebuilds a database."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DatabaseInUse(Exception):
    """Another process holds the lock. The text names it and says what to do."""


@contextmanager
def exclusive(database: Path) -> Iterator[int]:
    """Holds `<database>.lock` for the block; the operating system lets go of it when the process ends, however it ends.

    A process that inherits the descriptor that is given holds it too.

    Raises DatabaseInUse at once when another process holds it.
    """
    database = database.resolve()
    path = _file_of(database)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatabaseInUse(
                f"{database} is in use by process {_named_in(descriptor)} (lock file {path}). Stop it first; one"
                " process at a time may serve, migrate, import or restore."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def holder(database: Path) -> str | None:
    """The number of the process that holds the lock, or None. Makes no file."""
    try:
        descriptor = os.open(_file_of(database.resolve()), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named_in(descriptor)
    finally:
        os.close(descriptor)
    return None


def _file_of(database: Path) -> Path:
    """By any name, also through a link, a database has one lock file: `database` is resolved."""
    return database.with_name(database.name + ".lock")


def _named_in(descriptor: int) -> str:
    return os.read(descriptor, 64).decode("ascii", "replace").strip() or "unknown"
