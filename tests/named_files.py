"""What a command does with files, call by call, and what of it would be lost by a power cut or read by others.

`Disk` stands between a command in this process and the system: it notes each call that gives, takes or syncs a name,
it can let one of them fail, and it can let one sync do nothing. SQLite's own calls are not
seen: what SQLite wrote counts as synced only where Passbook says so.
"""

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

from service.storage import sqlite

SERVICE = Path(__file__).parents[1] / "service"
SYNCS = ("fsync", "fdatasync")
NAMES = ("link", "rename", "replace", "symlink")
"""Calls that give a name to what is there."""
WATCHED = ("open", *SYNCS, *NAMES, "unlink", "mkdir", "chmod", "truncate")
_OTHERS = 0o077
Node = tuple[int, int]
Place = tuple[str, str]
"""A file below service/ and a function in it."""


@dataclass(frozen=True)
class Call:
    """One call: what, on which path, and from where in service/, the innermost first."""

    what: str
    path: Path
    places: tuple[Place, ...]


@dataclass
class Disk:
    """Watches `folder` for a `with` block; what was there before counts as on the disk.

    passing: how names end of what nobody needs after a power cut. fail_at: the number of a call that fails with EIO.
    deaf_at: of a sync that does nothing. faults: what was done wrong so far, each as a sentence. idle: the numbers of
    syncs of what was on the disk already.
    """

    folder: Path
    passing: tuple[str, ...] = ()
    fail_at: int | None = None
    deaf_at: int | None = None
    calls: list[Call] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    idle: set[int] = field(default_factory=set)
    _modes: dict[Path, int] = field(default_factory=dict)
    _made: set[Node] = field(default_factory=set)
    _on_disk: dict[Node, bytes] = field(default_factory=dict)
    _unsynced_names: dict[Path, str] = field(default_factory=dict)
    _thread: int = 0
    _mask: int = 0
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> "Disk":
        self._thread = threading.get_ident()
        for path in files_below(self.folder):
            self._modes[path] = os.stat(path).st_mode
            self._on_disk[_node(path)] = _digest(path)
        # So that a file has the mode that was asked for.
        self._mask = os.umask(0)
        self._stack.enter_context(mock.patch.object(os, "umask", return_value=0))
        for name in WATCHED:
            self._stack.enter_context(mock.patch.object(os, name, self._watched(name, getattr(os, name))))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        os.umask(self._mask)

    @property
    def failed(self) -> Call | None:
        """The call that failed."""
        return self.calls[self.fail_at] if self.fail_at is not None and self.fail_at < len(self.calls) else None

    def named(self) -> set[Path]:
        """What got its name by a link or a rename."""
        return {call.path for call in self.calls if call.what in NAMES}

    def judge(self) -> list[str]:
        """The faults, with what a power cut would take away now."""
        found = [*self.faults]
        for path in sorted(self._waiting()):
            if os.path.lexists(path):
                found.append(f"{self._told(path)}: its folder was not synced after the {self._unsynced_names[path]}")
        for path in files_below(self.folder):
            mode = os.stat(path).st_mode
            if mode & _OTHERS & ~self._modes.get(path, 0):
                found.append(f"{self._told(path)} can be read by others: {mode & 0o777:04o}")
            if not path.name.endswith(self.passing) and not _is_database(path) and not self._is_on_disk(path):
                found.append(f"{self._told(path)}: its content was not synced at the end")
        return found

    def _is_on_disk(self, path: Path) -> bool:
        return self._on_disk.get(_node(path)) == _digest(path)

    def _told(self, path: Path) -> str:
        return str(path.relative_to(self.folder))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            path = self._path_of(name, arguments)
            is_read = name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if path is None or is_read or threading.get_ident() != self._thread:
                return real(*arguments, **named)
            return self._carry_out(Call(name, path, _places()), lambda: real(*arguments, **named), arguments)

        return call

    def _path_of(self, name: str, arguments: tuple[Any, ...]) -> Path | None:
        """The file that the call is about, where it is below the folder: of two names the second."""
        if name in SYNCS:
            path = os.readlink(f"/proc/self/fd/{arguments[0]}")
        else:
            path = os.fsdecode(arguments[1 if name in NAMES else 0])
        whole = Path(os.path.abspath(path))
        return whole if whole == self.folder or self.folder in whole.parents else None

    def _carry_out(self, call: Call, real: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        number = len(self.calls)
        self.calls.append(call)
        if number == self.fail_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(call.path))
        if call.what in SYNCS:
            return None if number == self.deaf_at else self._sync(call, real)
        if call.what in NAMES:
            self._before_naming(Path(os.path.abspath(os.fsdecode(arguments[0]))), call)
        is_new = call.what == "open" and not os.path.lexists(call.path)
        if call.what == "open" and not call.path.name.startswith(".") and not call.path.name.endswith(self.passing):
            self._before_next(call)
        result = real()
        if is_new:
            self._made.add(_node(call.path))
            if os.stat(call.path).st_mode & _OTHERS:
                self.faults.append(f"{self._told(call.path)} was made so that others can read it")
        if is_new or call.what in {*NAMES, "mkdir"}:
            self._unsynced_names[call.path] = call.what
        return result

    def _sync(self, call: Call, real: Callable[[], Any]) -> None:
        real()
        before = (self._waiting(), dict(self._on_disk))
        if call.path.is_dir():
            for path in [path for path in self._unsynced_names if path.parent == call.path]:
                del self._unsynced_names[path]
        elif call.path.exists():
            self._on_disk[_node(call.path)] = _digest(call.path)
        if before == (self._waiting(), self._on_disk):
            self.idle.add(len(self.calls) - 1)

    def _waiting(self) -> set[Path]:
        """Names that a power cut would take away. Nobody needs those that begin with a dot: they are unfinished."""
        return {
            path
            for path in self._unsynced_names
            if not path.name.startswith(".") and not path.name.endswith(self.passing)
        }

    def _before_naming(self, source: Path, call: Call) -> None:
        """A name is given within a folder, to what is on the disk, when the names before it are there."""
        if source.parent != call.path.parent:
            self.faults.append(f"{self._told(call.path)}: it came from another folder")
        if _node(source) in self._made and not self._is_on_disk(source):
            self.faults.append(f"{self._told(call.path)}: its content was not synced before the {call.what}")
        self._before_next(call, source)

    def _before_next(self, call: Call, source: Path | None = None) -> None:
        for path in sorted(self._waiting()):
            if path.parent == call.path.parent and path not in {source, call.path}:
                self.faults.append(f"{self._told(path)}: its folder was not synced before the next {call.what}")


def files_below(folder: Path) -> list[Path]:
    """The regular files below `folder`."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _is_database(path: Path) -> bool:
    """SQLite syncs what it writes. What Passbook copied into one is looked at as it gets its name."""
    with path.open("rb") as file:
        return file.read(len(sqlite.MAGIC)) == sqlite.MAGIC


def _digest(path: Path) -> bytes:
    return sha256(path.read_bytes()).digest()


def _node(path: Path) -> Node:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _places() -> tuple[Place, ...]:
    """The functions of service/ on the stack, the innermost first."""
    frame: FrameType | None = sys._getframe(2)
    places = []
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if SERVICE in file.parents:
            name = frame.f_code.co_qualname.replace(".<locals>", "").split(".<")[0]
            places.append((str(file.relative_to(SERVICE)), name))
        frame = frame.f_back
    return tuple(places)
