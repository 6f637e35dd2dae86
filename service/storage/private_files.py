"""Files that only their owner may read, written whole or not at all."""

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from service.storage import sqlite

_OTHERS = 0o077


def partial_of(path: Path) -> Path:
    """The name under which `path` is written, beside it."""
    return path.with_name(f".{path.name}.partial")


def mend(paths: Iterable[Path]) -> list[str]:
    """Takes from everybody but the owner what they may do with the files that are there; a sentence for each file."""
    said = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found = path.stat().st_mode
            mode = stat.S_IMODE(found)
            if stat.S_ISREG(found) and mode & _OTHERS:
                try:
                    path.chmod(mode & ~_OTHERS)
                    said.append(f"{path} could be read by others (mode {mode:04o}); it is private now.")
                except PermissionError:
                    said.append(f"{path} can be read by others (mode {mode:04o}), and belongs to another user.")
    return said


def is_open_to_others(path: Path) -> bool:
    """Whether anybody but its owner may do something with the file that is there."""
    return path.exists() and bool(path.stat().st_mode & _OTHERS)


def create(path: Path) -> IO[bytes]:
    """Opens a new file. Raises FileExistsError, OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def write(path: Path, content: bytes) -> None:
    """Makes `content` the whole of `path` by one rename; it is on disk when this returns.

    Raises OSError; what was written under the other name is gone then.
    """
    partial = partial_of(path)
    partial.unlink(missing_ok=True)  # what a killed run left
    try:
        with create(partial) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sqlite.sync(path.absolute().parent)
