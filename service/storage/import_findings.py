"""What an import found, row by row: the first few of each kind for the terminal, all of them in a file of NDJSON."""

import contextlib
import os
from pathlib import Path
from typing import IO

import msgspec

from service.storage import private_files, sqlite

EXAMPLES_MAX = 20
"""Of each kind, for the terminal."""


class Findings:
    """Counts, examples, and lines like {"kind": "refused", "table": "users", "row": 7, …} in `path` where one is given.

    Lifetime: one import. The file is made by `open` and must not be there; `discard` takes it away again.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._is_ours = False
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}

    @property
    def path(self) -> Path | None:
        """Where the whole list is."""
        return self._path

    def open(self) -> None:
        """Makes the file. Raises FileExistsError: a list is never written over another one."""
        if self._path is not None:
            self._file = private_files.create(self._path)
            self._is_ours = True

    def add(self, kind: str, said: str, **fields: object) -> None:
        """A row that the report names; `fields` as JSON holds them."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES_MAX:
            examples.append(said)
        if self._file is not None:
            self._file.write(msgspec.json.encode({"kind": kind, **fields}) + b"\n")

    def close(self) -> None:
        """Writes what is left and closes the file, which is on disk then. Raises OSError."""
        file, self._file = self._file, None
        if file is not None and self._path is not None:
            with file:
                file.flush()
                os.fsync(file.fileno())
            sqlite.sync(self._path.absolute().parent)

    def discard(self) -> None:
        """Closes the file and deletes it, where this object made it."""
        if self._is_ours and self._path is not None:
            with contextlib.suppress(OSError):  # the disk is full, and that is being told already
                self.close()
            self._path.unlink(missing_ok=True)
