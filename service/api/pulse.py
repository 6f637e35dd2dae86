"""Whether the database answers: one small read on a connection of its own, which no other read can hold up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from service.storage import sqlite

LIMIT_S = 2.0
"""How long a read of one page may take before the disk counts as hung."""


class Pulse:
    """The connection of /readyz and its thread; `check` reads. Lifetime: within the application's, inside `running`.

    All who ask at once share one read, so that however many ask, there is one; and one that hangs is not joined by
    others.
    """

    def __init__(self, path: Path, check: Callable[[sqlite.Connection], None], *, limit_s: float = LIMIT_S) -> None:
        # It never waits for a lock that another process holds: a read that has to wait is no answer.
        self._readers = sqlite.Readers(path, count=1, busy_timeout_ms=0)
        self._check = check
        self._limit_s = limit_s
        self._reading: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Pulse"]:
        """Opens the connection and closes it at the end of the block."""
        async with self._readers.opened():
            yield self

    async def feel(self) -> None:
        """Returns when `check` has. Raises what it does, TimeoutError when the database does not answer for long."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._readers.read(self._check))
        async with asyncio.timeout(self._limit_s):
            await asyncio.shield(self._reading)
