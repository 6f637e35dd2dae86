"""Questions to the writing connection while nobody writes: is it there, and could it write?"""

import contextlib
import os
import tempfile

from service.storage import sqlite
from service.storage.sqlite import Connection

ROOM_BYTES = 256 * 1024
"""What must fit on the disk before it counts as not full: some writes with their log."""
_BUSY_TIMEOUT_MS = 100


def write_nothing(tx: Connection) -> None:
    """Commits a page as it was, to the write-ahead log and to the disk, behind proof that more would fit.

    A page alone would say little: what a failed commit left of the log takes it though the disk is full. So room is
    taken for a moment in a file without a name beside the database. The free bytes that a file system tells of know
    nothing of quotas. It waits for the lock only briefly, since a write might come meanwhile.

    Raises DatabaseError, OSError.
    """
    (waits_ms,) = tx.execute("PRAGMA busy_timeout").fetchone()
    _take_room(os.path.dirname(sqlite.file_of(tx)))
    tx.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS:d}").fetchall()
    try:
        tx.execute("BEGIN IMMEDIATE")
        (version,) = tx.execute("PRAGMA user_version").fetchone()
        tx.execute(f"PRAGMA user_version = {version:d}")  # writes its page, also where the value is the same
        tx.execute("COMMIT")
    finally:
        with contextlib.suppress(Exception):
            tx.execute(f"PRAGMA busy_timeout = {waits_ms:d}").fetchall()


def is_out_of_space(tx: Connection, error: BaseException) -> bool:
    """Whether `error`, which the connection met, comes of a full disk, or of a quota that is used up.

    What SQLite cannot tell is asked of the system: whether another file finds room beside the database.
    """
    if not sqlite.is_of_disk(error):
        return sqlite.is_out_of_space(error)
    folder = os.path.dirname(sqlite.file_of(tx))
    try:
        _take_room(folder)
    except OSError as refused:
        return sqlite.is_out_of_space(refused)
    return False


def _take_room(folder: str) -> None:
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        left = ROOM_BYTES
        while left > 0:
            left -= file.write(b"\0" * min(left, 65536))
        os.fsync(file.fileno())
