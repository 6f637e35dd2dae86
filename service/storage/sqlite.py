"""The SQLite engine: which library, how a connection is opened and checked, and how it is reached from asyncio.

One connection writes and checkpoints (SQLite before 3.51.3 can lose commits when two do both at once); the readers
open the file read-only. The command line writes beside a running service with automatic checkpoints off.
Everything that differs between SQLite and another SQL engine belongs in this file.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import aiosqlite
import msgspec
from msgspec import Struct

try:
    from pysqlite3 import dbapi2 as driver

    DRIVER_NAME = "pysqlite3"
except ImportError:  # no wheel for this platform: the standard library's SQLite serves
    driver = sqlite3
    DRIVER_NAME = "sqlite3"

SQLITE_VERSION: str = driver.sqlite_version
SQLITE_VERSION_MIN = (3, 40, 0)
"""STRICT tables, RETURNING and DROP COLUMN are there, and this is the oldest version that the tests run on."""

Connection = sqlite3.Connection
"""An open transaction as storage functions receive it. The bundled driver's connections have the same methods."""
DatabaseError: type[Exception] = driver.DatabaseError
IntegrityError: type[Exception] = driver.IntegrityError

P = ParamSpec("P")
T = TypeVar("T")

MAGIC = b"SQLite format 3\x00"
"""How every database file begins."""
SIDE_FILES = ("-wal", "-shm", "-journal")
"""What SQLite appends to a database's name for the files that it keeps beside it."""

_LOG_INDEX_BYTES = 32 * 1024
_STATEMENTS_CACHED = 256
# Primary result codes, https://www.sqlite.org/rescode.html
_ERROR, _BUSY, _LOCKED, _READONLY, _FULL, _TOOBIG, _CONSTRAINT, _MISMATCH, _RANGE = 1, 5, 6, 8, 13, 18, 19, 20, 25
_IOERR, _CORRUPT, _CANTOPEN, _PROTOCOL, _FORMAT, _NOTADB = 10, 11, 14, 15, 24, 26
_NONE = 0
_INTERRUPT = 9
READ_LIMIT_S = 10.0
"""How long a caller's read may take. Those that are built to be short take a hundredth of it."""
_STEPS_BETWEEN_LOOKS = 200_000
_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
_NICENESS = 15
_TURN_SUFFIX = ".turn"
_TURN_POLL_S = 0.001
_LOOKS_AT_INDEX, _LOOK_AGAIN_S = 10, 0.0005
_WRITER_CACHE_MIB = 16
LOG_BYTES_MAX = 64 * 2**20
"""The write-ahead log is cut to this length when it begins anew after it has grown beyond it."""
_LOG_PAGES = 4000
"""How long the write-ahead log gets before it is written back: 16 MiB, in which most pages are there many times."""


class EngineError(Exception):
    """The database cannot be opened as Passbook needs it. The text says why and what to do."""


class NotTrusted(EngineError):
    """What was opened is no longer what the ledger can be trusted to. The text says in what, and what to do."""


class EngineInfo(Struct, frozen=True, kw_only=True):
    """What /readyz says of the engine. `wal_reset_bug`: this version has it; one writing connection guards against."""

    driver: str
    version: str
    journal_mode: str
    synchronous: str
    wal_reset_bug: bool


def version_tuple() -> tuple[int, ...]:
    """SQLite's version as numbers."""
    return tuple(int(part) for part in SQLITE_VERSION.split("."))


def error_code(error: BaseException) -> int:
    """The primary result code of a driver error; 0 where it carries none."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def is_busy(error: BaseException) -> bool:
    """Whether `error` says that another connection holds the lock."""
    return error_code(error) in {_BUSY, _LOCKED}


def is_interrupted(error: BaseException) -> bool:
    """Whether `error` says that a statement was broken off, as one is that reads for too long."""
    return error_code(error) == _INTERRUPT


def is_full(error: BaseException) -> bool:
    """Whether `error` says that the disk is full. What SQLite's backup API raises carries no code."""
    return error_code(error) == _FULL or str(error) == "database or disk is full"


def is_out_of_space(error: BaseException) -> bool:
    """The same, also of what the system says itself: a full disk, or a quota that is used up."""
    return is_full(error) or (isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT})


def is_of_disk(error: BaseException) -> bool:
    """Whether `error` says that the system refused something, and not why: a quota that is used up is one of these."""
    return error_code(error) == _IOERR


def is_unrecovered(error: BaseException) -> bool:
    """Whether a reader met a log whose index only the writer can put right: the one before was killed at work on it."""
    return error_code(error) == _READONLY


def has_table(connection: Connection, name: str) -> bool:
    """Whether the database has that table, one of SQLite's own included."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None


def is_of_file(error: BaseException) -> bool:
    """Whether `error` says that the file cannot be read, or is not what it was when it was opened.

    A table that is missing is one of these: the start has compared the whole schema.
    """
    code = error_code(error)
    lacks_table = code == _ERROR and str(error).startswith(("no such table", "no such column", "no such index"))
    return lacks_table or code in {_IOERR, _CORRUPT, _CANTOPEN, _PROTOCOL, _FORMAT, _NOTADB}


def is_of_statement(error: BaseException) -> bool:
    """Whether `error` undid one statement and left the transaction whole (https://www.sqlite.org/lang_transaction.html).

    An error without a code is the driver's, from before the statement reached SQLite.
    """
    return error_code(error) in {_NONE, _ERROR, _TOOBIG, _CONSTRAINT, _MISMATCH, _RANGE}


def connect_writer(
    path: Path, *, busy_timeout_ms: int, checkpoints: bool, factory: type[Connection] = driver.Connection
) -> Connection:
    """Opens `path` for writing, creates it when it is not there, and reads back what was set.

    `checkpoints` is True for the one connection of the service and for exclusive work such as migrations.
    Raises EngineError.
    """
    if version_tuple() < SQLITE_VERSION_MIN:
        raise EngineError(f"SQLite {SQLITE_VERSION} is too old; 3.40 or newer is needed.")
    try:
        make_private(path)
        connection: Connection = driver.connect(
            path, isolation_level=None, cached_statements=_STATEMENTS_CACHED, check_same_thread=False, factory=factory
        )
    except (DatabaseError, OSError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise EngineError(f"Cannot open the database {path}: {said}.{_full_disk(path)}") from error
    try:
        connection.execute(f"PRAGMA busy_timeout = {busy_timeout_ms:d}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA recursive_triggers = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        # A page that is split leaves no copy of its rows behind, which nobody could ever erase.
        connection.execute("PRAGMA secure_delete = FAST")
        # A batch of a thousand changes fits: else pages would go to the log once more, before they are whole.
        use_memory(connection, mib=_WRITER_CACHE_MIB)
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES if checkpoints else 0}")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}")
        _check_settings(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, DatabaseError):
            raise EngineError(f"Cannot use {path} as a database: {error}.{_full_disk(path)}") from error
        raise
    return connection


class _BesideTheWriter(driver.Connection):  # type: ignore[misc]
    """A reader that writes nothing into the log's index, and asks again where it met the writer at work on it.

    It looks at the index twice to begin a snapshot. Where the writer commits and notes its own place in between, SQLite
    says READONLY, for the reader may not note a place for itself. The next look finds both as they are now. An index
    that a killed writer has left half done stays so, and is told after some looks.
    """

    def execute(self, *args: Any) -> Any:
        for _ in range(_LOOKS_AT_INDEX - 1):
            try:
                return super().execute(*args)
            except DatabaseError as error:
                if not is_unrecovered(error):
                    raise
                time.sleep(_LOOK_AGAIN_S)
        return super().execute(*args)


def connect_reader(
    path: Path, *, busy_timeout_ms: int, immutable: bool = False, index_is_kept: bool = False
) -> Connection:
    """Opens `path` read-only. Raises EngineError when it is not there or no database.

    `immutable` is for a file that nobody writes and that has no log: nothing is made beside it, no lock is taken.
    `index_is_kept` is for a connection beside the service's writer, which keeps the log's index (-shm): it does not
    write there either. Else the first read after a commit notes in the index up to where it reads, and hangs where the
    file system is frozen. It can then read up to where the writer has noted itself, one commit behind, without harm:
    that mark only keeps a checkpoint from going further.
    """
    flags = f"mode=ro{'&immutable=1' if immutable else ''}{'&readonly_shm=1' if index_is_kept else ''}"
    try:
        connection: Connection = driver.connect(
            f"{path.absolute().as_uri()}?{flags}",
            uri=True,
            isolation_level=None,
            cached_statements=_STATEMENTS_CACHED,
            check_same_thread=False,
            factory=_BesideTheWriter if index_is_kept else driver.Connection,
        )
    except DatabaseError as error:
        raise EngineError(f"Cannot read the database {path}: {error}.{_full_disk(path)}") from error
    try:
        connection.execute(f"PRAGMA busy_timeout = {busy_timeout_ms:d}")
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except DatabaseError as error:
        connection.close()
        raise EngineError(f"Cannot read the database {path}: {error}.{_full_disk(path)}") from error
    return connection


def _full_disk(path: Path) -> str:
    """What helps where not even the index of the log fits, of which SQLite says that it is an I/O error; or nothing."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(path.parent).free < _LOG_INDEX_BYTES:
            return " Its disk is full: free some space."
    return ""


def use_memory(connection: Connection, *, mib: int) -> None:
    """Lets the connection keep so many MiB of pages: who rewrites a whole file then writes each page fewer times."""
    connection.execute(f"PRAGMA cache_size = {-1024 * mib:d}")


def undo_interrupted(path: Path) -> None:
    """Undoes the transaction that a killed process has left in a rollback journal; a reader may not do that.

    The switch of a new database to a write-ahead log is such a one. The caller holds the lock file. Raises EngineError.
    """
    journal = path.with_name(f"{path.name}-journal")
    if journal.is_file() and journal.stat().st_size > 0:
        try:
            with contextlib.closing(driver.connect(path, isolation_level=None)) as connection:
                ping(connection)
        except DatabaseError as error:
            raise EngineError(f"Cannot undo what {journal} says was interrupted in {path}: {error}.") from error


def _check_settings(connection: Connection, path: Path) -> None:
    """Reads back what the invariants rest on: an unknown or refused pragma is silent. Raises EngineError."""
    for pragma, wanted in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("recursive_triggers", 1)):
        found = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
        if found != wanted:
            raise EngineError(f"{path}: {pragma} is {found!r} where {wanted!r} was set; is the file system local?")


def engine_info(connection: Connection) -> EngineInfo:
    """The engine as this connection finds it."""
    synchronous = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
    return EngineInfo(
        driver=DRIVER_NAME,
        version=SQLITE_VERSION,
        journal_mode=connection.execute("PRAGMA journal_mode").fetchone()[0],
        synchronous=synchronous[connection.execute("PRAGMA synchronous").fetchone()[0]],
        wal_reset_bug=has_wal_reset_bug(),
    )


def overwrite_what_goes(connection: Connection) -> None:
    """From now on the connection writes zeros over what it deletes or replaces, over whole pages that fall free too."""
    connection.execute("PRAGMA secure_delete = ON").fetchall()


def empty_log(connection: Connection) -> bool:
    """Brings the write-ahead log into the file and cuts it to nothing; False when a reader is in the way for too long.

    For a connection that is alone, or for a version of SQLite without the WAL-reset bug.
    """
    return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]


def file_of(connection: Connection) -> str:
    """The path of the database; empty for one in memory."""
    path: str = connection.execute("PRAGMA database_list").fetchone()[2]
    return path


def shorten_log(connection: Connection) -> None:
    """Empties the write-ahead log when it is longer than LOG_BYTES_MAX, unless a reader needs it; waits for nobody.

    A log that grew behind a reader keeps its length until it begins anew, which without a write it never does.
    """
    if os.stat(f"{file_of(connection)}-wal").st_size <= LOG_BYTES_MAX:
        return
    (waits_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0").fetchall()
    try:
        empty_log(connection)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {waits_ms:d}").fetchall()


def checkpoint_if_safe(connection: Connection) -> None:
    """From now on the connection keeps the write-ahead log short, where this version may do so beside a service."""
    if not has_wal_reset_bug():
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}").fetchall()


def rewrite(connection: Connection) -> None:
    """Writes the whole file anew (VACUUM), without what is left in unused parts of its pages."""
    connection.execute("VACUUM")


def has_wal_reset_bug() -> bool:
    """Whether this version can lose commits when two connections write and checkpoint at once."""
    return (3, 7, 0) <= version_tuple() < (3, 51, 3)


def as_json(values: Iterable[str]) -> str:
    """Texts as one parameter of a statement: `IN (SELECT value FROM json_each(?))`."""
    return msgspec.json.encode(list(values)).decode()


def side_files(path: Path) -> list[Path]:
    """The files that SQLite may keep beside the database `path`."""
    return [path.with_name(f"{path.name}{suffix}") for suffix in SIDE_FILES]


def files_of(path: Path) -> list[Path]:
    """The database `path`, and what may be kept beside it while it is open."""
    return [path, *side_files(path), path.with_name(f"{path.name}{_TURN_SUFFIX}")]


def make_private(path: Path) -> bool:
    """Makes the empty file `path`, which its owner alone may read, unless it is there; whether it was made.

    SQLite would make it as the umask says, and what it keeps beside a file gets the file's mode. Raises OSError.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_FILE))
    except FileExistsError:  # it stays unopened: to close it would take SQLite's locks from this process
        return False
    return True


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes `folder` and what is missing above it, for their owner alone; a power cut does not take them away again."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        sync(path.parent)


def ping(connection: Connection) -> None:
    """Reads one page of the database; raises DatabaseError when that cannot be done."""
    connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()


def yield_to_others() -> None:
    """Makes the calling thread one that runs when no other wants to, where the system knows such threads (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def open_scratch(path: Path | str = ":memory:") -> Connection:
    """A throwaway database in memory or at `path`, without any of the settings above."""
    if isinstance(path, Path):
        make_private(path)
    # Its statements are seldom the same twice, and may be long.
    connection: Connection = driver.connect(path, isolation_level=None, cached_statements=5)
    return connection


@contextmanager
def transaction(connection: Connection) -> Iterator[Connection]:
    """One immediate transaction for exclusive, synchronous work; rolled back when the block raises.

    A service that writes at the same time gives way to it after the commit under way.
    """
    with _turn(connection):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


# SQLite's lock is no queue: whoever waits for it looks again after ever longer pauses, and a service under load takes
# it again within a millisecond. So whoever wants a turn beside the service holds this lock, and the service asks.
@contextmanager
def _turn(connection: Connection) -> Iterator[None]:
    path = _turn_file(connection)
    if path is None:
        yield
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for_turn(connection, descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def give_way(connection: Connection) -> None:
    """Returns when nobody wants a turn beside the service, or after the busy timeout."""
    path = _turn_file(connection)
    if path is None:
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # nobody ever did
        return
    try:
        _wait_for_turn(connection, descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _wait_for_turn(connection: Connection, descriptor: int, lock: int) -> None:
    """After the busy timeout SQLite itself is asked, which says that the database is busy."""
    deadline = time.monotonic() + connection.execute("PRAGMA busy_timeout").fetchone()[0] / 1000
    while True:
        try:
            fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return
            time.sleep(_TURN_POLL_S)
        else:
            return


def _turn_file(connection: Connection) -> str | None:
    """The file whose lock is a turn; None for a database in memory."""
    path = file_of(connection)
    return f"{path}{_TURN_SUFFIX}" if path else None


class Thread:
    """One connection and the thread that owns it. Lifetime: from `open` to `close`, within the application's.

    Whatever is handed to `run` is carried out, even when the caller is cancelled while it waits.
    """

    def __init__(self, connector: Callable[[], Connection]) -> None:
        self._connection = aiosqlite.Connection(connector, iter_chunk_size=64)

    async def open(self) -> None:
        """Starts the thread and opens the connection. Raises EngineError."""
        await self._connection

    async def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `function(connection, …)` as one hop to the thread: aiosqlite's own methods cost a hop each."""
        result: T = await self._connection._execute(  # type: ignore[no-untyped-call]
            partial(_call, self._connection, function), *args, **kwargs
        )
        return result

    def interrupt(self) -> None:
        """Makes the statement that runs, if one does, end with an error."""
        self._connection._conn.interrupt()

    def kill(self) -> bool:
        """False: a thread cannot be ended from outside."""
        return False

    async def close(self) -> None:
        """Closes the connection after what is queued, and ends the thread; it would keep the process alive."""
        await self._connection.close()


def _call(connection: aiosqlite.Connection, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return function(connection._conn, *args, **kwargs)


class Readers:
    """A few read-only connections; each read sees one snapshot. Lifetime: within the application's.

    Callers take turns: one that asks for a hundred reads has one turn where another caller has one. So a read must be
    short, and long work is split into many reads.
    """

    def __init__(self, path: Path, *, count: int, busy_timeout_ms: int) -> None:
        connector = partial(connect_reader, path, busy_timeout_ms=busy_timeout_ms, index_is_kept=True)
        self._threads = [Thread(connector) for _ in range(count)]
        self._free: list[Thread] = []
        self._waiting: dict[Hashable, deque[asyncio.Future[Thread]]] = {}
        """By who asks, in the order of their next turns."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Readers"]:
        """Opens all connections and closes them at the end of the block."""
        async with contextlib.AsyncExitStack() as stack:
            for thread in self._threads:
                await thread.open()
                stack.push_async_callback(thread.close)
                self._free.append(thread)
            yield self

    async def read(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(connection, …)` in one read transaction, for the service itself."""
        return await self.read_for(None, function, *args, **kwargs)

    async def read_for(
        self, who: Hashable, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The same in the turn of `who` asks; broken off when it takes very long, so that no other waits behind it."""
        thread = self._free.pop() if self._free else await self._turn(who)
        limited = _in_snapshot if who is None else _in_limited_snapshot
        work = asyncio.ensure_future(thread.run(partial(limited, function), *args, **kwargs))
        # A cancelled caller must not give the connection back while its thread still reads.
        work.add_done_callback(lambda _: self._give(thread))
        return await asyncio.shield(work)

    async def _turn(self, who: Hashable) -> Thread:
        given: asyncio.Future[Thread] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(who, deque())
        queue.append(given)
        try:
            return await given
        except asyncio.CancelledError:
            if not given.cancelled():  # it was given at the same moment
                self._give(given.result())
            elif given in queue:
                queue.remove(given)
            raise

    def _give(self, thread: Thread) -> None:
        while self._waiting:
            who = next(iter(self._waiting))
            queue = self._waiting.pop(who)
            given = queue.popleft() if queue else None
            if queue:
                self._waiting[who] = queue  # behind all others
            if given is not None and not given.done():
                given.set_result(thread)
                return
        self._free.append(thread)


def _in_limited_snapshot(function: Callable[..., T], connection: Connection, *args: Any, **kwargs: Any) -> T:
    until = time.monotonic() + READ_LIMIT_S
    connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS_BETWEEN_LOOKS)
    try:
        return _in_snapshot(function, connection, *args, **kwargs)
    finally:
        connection.set_progress_handler(None, 0)


def _in_snapshot(function: Callable[..., T], connection: Connection, *args: Any, **kwargs: Any) -> T:
    connection.execute("BEGIN")
    try:
        return function(connection, *args, **kwargs)
    finally:
        if connection.in_transaction:  # after some errors SQLite itself has ended it
            connection.execute("COMMIT")
