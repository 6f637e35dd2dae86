"""Files that only their owner may read, written whole or not at all."""

import os
from pathlib import Path
from typing import IO

from service.storage import sqlite


def partial_of(path: Path) -> Path:
    """The name under which `path` is written, beside it."""
    return path.with_name(f".{path.name}.partial")


def create(path: Path) -> IO[bytes]:
    """Opens a new file. Raises FileExistsError, OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def write(path: Path, content: bytes) -> None:
    """Makes `content` the whole of `path` by one rename; it is on disk when this returns. Raises OSError."""
    partial = partial_of(path)
    partial.unlink(missing_ok=True)  # what a killed run left
    with create(partial) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sqlite.sync(path.absolute().parent)
