"""Whether the files that a service has open are still the database: asked around every commit.

A file that was removed, or replaced under its name, still takes writes through its open descriptors. All these writes
are gone when the last descriptor closes. So the writing connection compares what the names lead to with what is open,
before a batch begins and before it is answered. It compares the database with its number of names, the write-ahead log,
and the index of that log. Their headers show a log that was cut and a database that was written over.

Before writes stop, the content of the log is copied into the database. So all earlier answers are in the file, even if
the log has lost its name.

The descriptors that are opened here for the database and the index of its log are never closed. A process that closes
any descriptor of a file loses all of its POSIX locks on it, and SQLite's are among them.
"""

import contextlib
import os
import re
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from service.storage import lock, schema, sqlite
from service.storage.schema import Thing
from service.storage.sqlite import Connection, NotTrusted

Identity = tuple[int, int]
"""Device and inode."""

_FRESH_NS = 1_000_000
_HEADER = 100
_IN_WAL_MODE = b"\x02\x02"
"""Of the database's header: the versions of the format for writing and for reading."""
_LOG_HEADER, _FRAME_HEADER = 32, 24
_INDEX = struct.Struct("=14xHII8x8s8x48xI20x8xI")
"""Of the index of the log: two copies of its header, then what a checkpoint keeps there."""
_INDEX_COPY, _INDEX_BYTES = 48, 132
_OCTAL = re.compile(rb"\\([0-7]{3})")
"""How /proc/self/mountinfo spells spaces and the like."""


class FilesSwapped(NotTrusted):
    """The names of the database lead to other files than those that are open. The text says which, and what to do."""


def require_one_name(database: Path, *, aside: int = 0) -> None:
    """Raises FilesSwapped for a database with more than one name: under each it would have another log beside it.

    `aside`: how many further names do no harm. A file that is mounted by itself has a name elsewhere too.
    """
    _check_names(str(database), database.stat().st_nlink - aside)
    if str(database.resolve()) in _mount_points():
        raise FilesSwapped(
            f"{database.name} is mounted by itself, without the log that lies beside the file that was mounted."
            " Mount the folder that it is in"
        )


def _mount_points() -> set[str]:
    """Where file systems, folders and files are mounted; empty where there is no /proc."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return set()
    return {os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ")[4])) for line in lines}


def require_log(database: Path) -> None:
    """Raises FilesSwapped when the log lacks what its index says it holds: it was removed or cut after a kill.

    The caller holds the lock and has no connection. Of an index from before the last boot nothing is believed: a power
    loss may leave one that is older than the log.
    """
    real = database.resolve()
    log, index = (real.with_name(real.name + suffix) for suffix in ("-wal", "-shm"))
    try:
        with index.open("rb") as file:
            raw, written = file.read(_INDEX_BYTES), os.fstat(file.fileno()).st_mtime
    except OSError:
        return
    found = _index_of(raw)
    if found is None or found.frames <= found.backfilled or written < _booted_at():
        return
    what = _lacks(log, found)
    if what is not None:
        raise FilesSwapped(
            f"{log.name}, which belongs to the database {database.name}, {what}, with writes that were answered. Put it"
            f" back, or restore a backup; to go on without them, remove {index.name}"
        )


def _lacks(log: Path, index: "_Index") -> str | None:
    """What became of the log, if it is not the one of the index."""
    try:
        with log.open("rb") as file:
            size, salt = os.fstat(file.fileno()).st_size, os.pread(file.fileno(), 8, 16)
    except FileNotFoundError:
        return "is gone"
    if size < index.log_bytes:
        return "was cut off"
    return None if salt == index.salt else "was replaced by another one"


def _booted_at() -> float:
    """When the system was started, by its own clock; 0.0 where that is not told."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/stat").read_text("ascii").splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0


def _check_names(path: str, names: int) -> None:
    if names > 1:
        raise FilesSwapped(
            f"{Path(path).name} has {names} names (hard links): a program that opens another one would not see the log."
            " Remove the other names"
        )


class Files:
    """The files that a service has open, by name and identity. Lifetime: the service's; its processes share it.

    `database` may be a link; the log lies beside what it leads to.
    """

    def __init__(self, database: Path, *, descriptor: int) -> None:
        """`descriptor` is of the database, and stays open as long as the process lives."""
        self.path = database.absolute()
        self.descriptor = descriptor
        self._holder = os.getpid()
        real = database.resolve()
        self._log, self._index = (real.with_name(real.name + suffix) for suffix in ("-wal", "-shm"))
        found = os.fstat(descriptor)
        # There it must be the file itself: through a link, whoever opens it next looks elsewhere for the log.
        self._real = str(real)
        self._wanted: dict[str, Identity] = dict.fromkeys((str(self.path), self._real), (found.st_dev, found.st_ino))

    @property
    def log(self) -> Path:
        """The write-ahead log."""
        return self._log

    @property
    def index(self) -> Path:
        """The index of the log, by which the connections of all processes share it."""
        return self._index

    def learn(self) -> None:
        """Takes the log and its index as they are now, at the start, when a connection has opened both."""
        for path in (self._log, self._index):
            if str(path) not in self._wanted:
                found = path.stat()
                self._wanted[str(path)] = found.st_dev, found.st_ino

    def check(self) -> None:
        """Raises FilesSwapped. Some microseconds: a stat for each of the three."""
        for path, wanted in self._wanted.items():
            try:
                found = os.stat(path, follow_symlinks=path != self._real)
            except OSError as error:
                raise FilesSwapped(self._said(path, f"is gone ({error.strerror})")) from error
            if (found.st_dev, found.st_ino) != wanted:
                raise FilesSwapped(self._said(path, "was replaced by another file, or by a link"))
            if found.st_nlink > 1:
                _check_names(path, found.st_nlink)

    def _said(self, path: str, what: str) -> str:
        if path not in {str(self._log), str(self._index)}:
            return (
                f"The database {self.path.name} {what}. The file that was served is still open as"
                f" /proc/{self._holder}/fd/{self.descriptor}: copy it before the service stops, then put the right one"
                " in place"
            )
        return f"{Path(path).name}, which belongs to the database that is served, {what}. Let nothing touch it"


class Guard:
    """The checks of one writing connection, which it has from its opening to its end."""

    def __init__(self, files: Files, wanted: Mapping[str, Thing]) -> None:
        self._files = files
        self._schema = schema.Watch(wanted)
        self._seen: _Seen | None = None
        self._log = self._index = -1
        self._checked_ns = 0
        self.trusts_log = True

    def open(self) -> None:
        """Takes the files as they are now that the connection is open. Raises FilesSwapped."""
        self._files.learn()
        self._files.check()
        self._log = os.open(self._files.log, os.O_RDONLY | os.O_CLOEXEC)
        self._index = os.open(self._files.index, os.O_RDONLY | os.O_CLOEXEC)

    def check_files(self, connection: Connection, *, committed: bool) -> None:
        """For between two transactions. What the log holds is in the database when this raises FilesSwapped."""
        if not committed and time.monotonic_ns() < self._checked_ns + _FRESH_NS:
            return
        try:
            self._files.check()
        except FilesSwapped as swapped:
            self._check_contents(connection)
            raise FilesSwapped(f"{swapped}. {self._saved(connection)}") from swapped
        self._check_contents(connection)
        self._checked_ns = time.monotonic_ns()

    def check_schema(self, connection: Connection) -> None:
        """For within a transaction. Raises SchemaChanged."""
        self._schema.check(connection)

    def close(self) -> None:
        """Closes what may be closed."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def left_no_commit(self) -> bool:
        """Whether the log has no end of a transaction behind those that its index knows."""
        index = self._read_index()
        if index is None:
            return False
        at, frame = index.log_bytes or _LOG_HEADER, _FRAME_HEADER + index.page
        while (header := os.pread(self._log, 16, at)) and header[8:] == index.salt:
            if header[4:8] != bytes(4):  # the size of the database, which the last frame of a transaction has
                return False
            at += frame
        return True

    def _saved(self, connection: Connection) -> str:
        """Brings what the log holds into the database, by the descriptors that are open; whether that could be done."""
        with contextlib.suppress(sqlite.DatabaseError):
            if sqlite.empty_log(connection):
                return "All that was answered is in the database file now"
        return "What the log holds could not be brought into the database file, since a reader is in the way"

    def _check_contents(self, connection: Connection) -> None:
        """Raises FilesSwapped when the log was cut or the database written over."""
        fault = self._fault()
        if fault is None:
            return
        # Another connection may have committed or checkpointed between two looks: nobody can while this one writes.
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                fault = self._fault()
            finally:
                connection.execute("ROLLBACK")
        except sqlite.DatabaseError as error:
            if not sqlite.is_of_file(error):  # else there is nothing left that could be locked
                raise
        if fault is not None:
            self.trusts_log = False
            raise FilesSwapped(f"{fault}. What was answered lately may be gone: restore the last backup")

    def _fault(self) -> str | None:
        index = self._read_index()
        if index is None:
            return None
        header = os.pread(self._files.descriptor, _HEADER, 0)
        size, log_size = os.fstat(self._files.descriptor).st_size, os.fstat(self._log).st_size
        page, frames, pages = index.page, index.frames, index.pages
        seen = self._seen
        log = self._files.log.name
        if log_size < index.log_bytes:
            return f"{log}, which belongs to the database that is served, was cut off"
        if frames and os.pread(self._log, 8, 16) != index.salt:
            return f"{log}, which belongs to the database that is served, was written over"
        if seen is not None and seen.index.frames and seen.index.salt == index.salt:
            start = _LOG_HEADER + (seen.index.frames - 1) * (_FRAME_HEADER + page)
            if os.pread(self._log, 8, start + 8) != index.salt:
                return f"{log}, which belongs to the database that is served, was cut off"
        if seen is not None and header != seen.header and not index.was_checkpointed_since(seen.index):
            return f"The database {self._files.path.name} was written over by another program"
        if header[18:20] != _IN_WAL_MODE or (seen is not None and header[16:18] != seen.header[16:18]):
            return f"The database {self._files.path.name} was written over by another program"
        if seen is not None and size < seen.size and size < pages * page:
            return f"The database {self._files.path.name} was cut off"
        self._seen = _Seen(index, header, size)
        return None

    def _read_index(self) -> "_Index | None":
        """What the index of the log says; None while its two copies differ, since a commit is writing them.

        Raises FilesSwapped when it was cut: SQLite, which has it in memory, would end the process by touching it.
        """
        raw = os.pread(self._index, _INDEX_BYTES, 0)
        if len(raw) < _INDEX_BYTES:
            self.trusts_log = False
            raise FilesSwapped(
                f"{self._files.index.name}, which belongs to the database that is served, was cut off. Nothing that was"
                " answered is lost by that"
            )
        return _index_of(raw)


class _Index(Struct, frozen=True):
    """The index of the log (https://www.sqlite.org/walformat.html, 2.1). `salt` tells one run of the log from the next.

    frames: of the log, up to the last commit; pages: of the database then. backfilled: frames that are in the database.
    """

    page: int
    frames: int
    pages: int
    salt: bytes
    backfilled: int
    attempted: int

    @property
    def log_bytes(self) -> int:
        """How long the log is at least."""
        return _LOG_HEADER + self.frames * (_FRAME_HEADER + self.page) if self.frames else 0

    def was_checkpointed_since(self, earlier: "_Index") -> bool:
        """Whether a checkpoint may have written to the database since then, or is writing."""
        before = (earlier.salt, earlier.backfilled, earlier.attempted)
        return (self.salt, self.backfilled, self.attempted) != before or self.attempted > self.backfilled


def _index_of(raw: bytes) -> _Index | None:
    """What an index begins with; None where its two copies differ, since a commit is writing them, or it is cut."""
    if len(raw) < _INDEX_BYTES or raw[:_INDEX_COPY] != raw[_INDEX_COPY : 2 * _INDEX_COPY]:
        return None
    page, frames, pages, salt, backfilled, attempted = _INDEX.unpack(raw)
    return _Index(65536 if page == 1 else page, frames, pages, salt, backfilled, attempted)


class _Seen(Struct, frozen=True):
    """The files when they were last found to be right: `header` and `size` are the database's."""

    index: _Index
    header: bytes
    size: int


class ReadersGuard:
    """The same for connections that only read: what they would answer from is still the database."""

    def __init__(self, files: Files, wanted: Mapping[str, Thing]) -> None:
        self._files = files
        self._schema = schema.Watch(wanted)

    def check(self, connection: Connection) -> None:
        """Reads a page too. Raises FilesSwapped, SchemaChanged, DatabaseError."""
        self._files.check()
        self._schema.check(connection)


class GuardedConnection(sqlite.driver.Connection):  # type: ignore[misc,name-defined]
    """A writing connection with its guard."""

    guard: Guard | None = None

    def close(self) -> None:
        """Leaves a log that was cut as it is: SQLite would copy what is missing in it into the database as zeros."""
        if self.guard is not None and not self.guard.trusts_log:
            return
        super().close()
        if self.guard is not None:
            self.guard.close()


def connect_writer(
    files: Files, wanted: Mapping[str, Thing], *, busy_timeout_ms: int, lock_file: int | None
) -> Connection:
    """The connection of the service that writes; it checkpoints. `lock_file` is signed by the process that it is in.

    Raises FilesSwapped before anything is made or opened in the place of what is gone; EngineError.
    """
    if lock_file is not None:
        lock.sign_as_writer(lock_file)
    files.check()
    connection = sqlite.connect_writer(
        files.path, busy_timeout_ms=busy_timeout_ms, checkpoints=True, factory=GuardedConnection
    )
    try:
        sqlite.ping(connection)  # SQLite opens the log when it first reads
        guard = Guard(files, wanted)
        guard.open()
        connection.guard = guard  # type: ignore[attr-defined]
    except BaseException:
        connection.close()
        raise
    return connection


def check_files(connection: Connection, *, committed: bool) -> None:
    """For between two transactions of a connection of `connect_writer`; others pass. Raises FilesSwapped.

    Before a batch (not `committed`) what was found a millisecond ago counts; after it nothing but what is now.
    """
    guard: Guard | None = getattr(connection, "guard", None)
    if guard is not None:
        guard.check_files(connection, committed=committed)


def left_no_commit(connection: Connection) -> bool:
    """Of a commit that failed and was rolled back: whether it is certain that no start will find it on disk."""
    guard: Guard | None = getattr(connection, "guard", None)
    return guard is not None and guard.left_no_commit()


def check_schema(connection: Connection) -> None:
    """For within a transaction of such a connection; others pass. Raises SchemaChanged."""
    guard: Guard | None = getattr(connection, "guard", None)
    if guard is not None:
        guard.check_schema(connection)
