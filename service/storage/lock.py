"""The lock file: at most one process serves or rebuilds a database."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DatabaseInUse(Exception):
    """Another process holds the lock. The text names it and says what to do."""


@contextmanager
def exclusive(database: Path) -> Iterator[None]:
    """Holds `<database>.lock` for the block; the operating system lets go of it when the process ends, however it ends.

    Raises DatabaseInUse at once when another process holds it.
    """
    # By any name, also through a link, a database has one lock file.
    database = database.resolve()
    path = database.with_name(database.name + ".lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 64).decode("ascii", "replace").strip() or "unknown"
            raise DatabaseInUse(
                f"{database} is in use by process {holder} (lock file {path}). Stop it first; one process at a time"
                " may serve, migrate, import or restore."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
