"""The lock: at most one process serves or rebuilds a database, whatever name it has for it.

There are two, held together. The lock file beside the database is there before the database is, and says who holds it.
The database itself is locked by its inode, so a second name for it (a hard link, a bind mount) does not help. This is
an open file description lock on a byte far behind all that SQLite locks or writes. It belongs to the descriptor, and a
process that inherits the descriptor holds it too.

That descriptor is not closed before the process ends. A process that closes any descriptor of a file loses all its
POSIX locks on it (fcntl(2)), and SQLite's are among them.
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from service.ledger.timestamps import Clock, spoken, stored, system_clock

_BYTE = 2**62
_FLOCK = struct.Struct("hhqqi0q")
"""struct flock: type, whence, start, length, pid."""
_SET, _GET = getattr(fcntl, "F_OFD_SETLK", None), getattr(fcntl, "F_OFD_GETLK", None)
"""None where the system has no such locks; there the lock file alone counts."""
_TEXT_MAX = 1024


class DatabaseInUse(Exception):
    """Another process holds the lock. The text names it and says what to do."""


class Held(Struct, frozen=True):
    """The lock as its holder has it. `descriptors` are what another process inherits to hold it too.

    database: a descriptor of the database, None when it was not there as the lock was taken.
    """

    lock_file: int
    database: int | None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Those of the lock file and of the database."""
        return (self.lock_file,) if self.database is None else (self.lock_file, self.database)


@contextmanager
def exclusive(database: Path, *, purpose: str = "passbook", clock: Clock = system_clock) -> Iterator[Held]:
    """Holds the lock of `database` for the block; the system lets go of it when the process ends, however it ends.

    `purpose` is the command, for who finds the lock held. Raises DatabaseInUse at once when another process holds it.
    """
    real = database.resolve()
    path = _file_of(real)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    inode: int | None = None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatabaseInUse(
                f"{real} is in use by {_told(_text_of(descriptor))} (lock file {path}). Stop it first; one"
                " process at a time may serve, migrate, import or restore."
            ) from None
        inode = _lock_inode(real)
        os.ftruncate(descriptor, 0)
        since = spoken(stored(clock()))
        host = os.uname().nodename
        os.pwrite(descriptor, f"pid {os.getpid()}\nsince {since}\ncommand {purpose}\nhost {host}\n".encode(), 0)
        yield Held(descriptor, inode)
    finally:
        os.close(descriptor)
        if inode is not None and _SET is not None and not _is_held(path):
            fcntl.fcntl(inode, _SET, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, _BYTE, 1, 0))


def sign_as_writer(lock_file: int) -> None:
    """Adds this process, which inherited the lock, to what the lock file says."""
    text = "".join(f"{line}\n" for line in _text_of(lock_file).splitlines() if not line.startswith("writer "))
    text += f"writer {os.getpid()}\n"
    os.pwrite(lock_file, text.encode(), 0)
    os.ftruncate(lock_file, len(text))


def holder(database: Path) -> str | None:
    """Who holds the lock, in words; None when nobody does. Makes no file.

    Not for a process that has a connection to the database.
    """
    real = database.resolve()
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(_file_of(real), os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _told(_text_of(descriptor))
        finally:
            os.close(descriptor)
    with contextlib.suppress(OSError):
        descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # should it be a pipe
        try:
            if _is_locked(descriptor):
                return _holder_of_inode(descriptor)
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
        said = _parsed(_text_of(descriptor))
        return said["host"] == os.uname().nodename and not _runs(said["pid"])
    finally:
        os.close(descriptor)
    return False


def _runs(pid: str) -> bool:
    """Whether there is such a process, as far as can be seen; one that has ended and waits to be asked does not run."""
    try:
        os.kill(int(pid), 0)
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:
        return False
    except (OSError, ValueError):  # another user's, or there is no /proc
        return True


def _file_of(database: Path) -> Path:
    """By any name, also through a link, a database has one lock file: `database` is resolved."""
    return database.with_name(database.name + ".lock")


def _lock_inode(database: Path) -> int | None:
    """A locked descriptor of the file, if it is there. Raises DatabaseInUse, OSError."""
    try:
        descriptor = os.open(database, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    if _SET is not None:
        try:
            fcntl.fcntl(descriptor, _SET, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0))
        except OSError as error:
            if not isinstance(error, BlockingIOError | PermissionError):
                raise
            raise DatabaseInUse(
                f"{database} is in use by {_holder_of_inode(descriptor)}. Stop it first, and use one name for the"
                " database."
            ) from None
    return descriptor


def _is_held(lock_file: Path) -> bool:
    """Whether a process that inherited the lock has it still: what it holds is not taken from it."""
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_locked(descriptor: int) -> bool:
    if _GET is None:
        return False
    answer = fcntl.fcntl(descriptor, _GET, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _holder_of_inode(descriptor: int) -> str:
    """Who has the file open under another name, as far as this process may see."""
    wanted = os.fstat(descriptor)
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        if link.parent.parent.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            found = os.stat(link)
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                name = Path(os.readlink(link))
                with contextlib.suppress(OSError, UnicodeError):
                    return f"{_told(_file_of(name).read_text('utf-8'))} under the name {name}"
                return f"process {link.parent.parent.name} under the name {name}"
    return "another process under another name"


def _text_of(descriptor: int) -> str:
    return os.pread(descriptor, _TEXT_MAX, 0).decode("utf-8", "replace")


def _parsed(text: str) -> dict[str, str]:
    """What a lock file says: pid and host always; since, command and writer where they are told.

    One of an earlier version holds a number alone.
    """
    said = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    return {"pid": text.strip() or "unknown", "host": os.uname().nodename, **said}


def _told(text: str) -> str:
    """What a lock file says, as a phrase."""
    said = _parsed(text)
    pid, writer = said["pid"], said.get("writer")
    about = [f"passbook {said['command']}"] if "command" in said else []
    about += [f"since {said['since']}"] if "since" in said else []
    is_here = said["host"] == os.uname().nodename
    if not is_here:
        about.append(f"on {said['host']}")
    about_it = f" ({', '.join(about)})" if about else ""
    if is_here and writer is not None and not _runs(pid) and _runs(writer):
        return f"process {writer}, which finishes the last writes of process {pid}{about_it}, which has ended"
    return f"process {pid}{about_it}"
