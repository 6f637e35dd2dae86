"""The lock file: at most one process serves or rebuilds a database."""

import fcntl
import os
import re
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


def is_left_behind(database: Path) -> bool:
    """Whether the process that took the lock has ended, and only one that inherited it holds it: it is about to end."""
    try:
        descriptor = os.open(_file_of(database.resolve()), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        taken_by = re.search(rb"[0-9]+", os.pread(descriptor, 64, 0))
        return taken_by is not None and not _runs(int(taken_by[0]))
    finally:
        os.close(descriptor)
    return False


def _runs(pid: int) -> bool:
    """Whether there is such a process, as far as can be seen; one that has ended and waits to be asked does not run."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:
        return False
    except OSError:  # another user's, or there is no /proc
        return True


def _file_of(database: Path) -> Path:
    """By any name, also through a link, a database has one lock file: `database` is resolved."""
    return database.with_name(database.name + ".lock")


def _named_in(descriptor: int) -> str:
    return os.read(descriptor, 64).decode("ascii", "replace").strip() or "unknown"
