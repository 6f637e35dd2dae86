"""Reads from time to time the figures that are too expensive for a scrape: the sum of all balances."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from service.storage import figures, sqlite
from service.storage.figures import LedgerFigures

_log = logging.getLogger(__name__)
INTERVAL_S = 30.0
"""The least time between two readings."""
SHARE_MAX = 0.01
"""The most of the time that readings may take: one that took a second is followed by the next after 100."""


class Figures:
    """The last reading. Lifetime: within the application's, inside `running`.

    It has a connection and a thread of low priority of its own, so that no request waits for it. Two readings are at
    least 30 s apart, and a hundred times as long as the last one took. With ten million accounts they cost 1 % of a
    core. read_at : seconds since the epoch; 0 and no `ledger` before the first reading.
    """

    def __init__(self, path: Path, *, busy_timeout_ms: int) -> None:
        self._thread = sqlite.Thread(
            partial(sqlite.connect_reader, path, busy_timeout_ms=busy_timeout_ms, index_is_kept=True)
        )
        self._stopping = asyncio.Event()
        self.ledger: LedgerFigures | None = None
        self.read_at = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Figures"]:
        """Reads for the block; at its end a reading under way is broken off."""
        await self._thread.open()
        await self._thread.run(_be_gentle)
        task = asyncio.create_task(self._run(), name="passbook-figures")
        try:
            yield self
        finally:
            self._stopping.set()
            await task
            await self._thread.close()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                reading = asyncio.ensure_future(self._thread.run(figures.of_ledger))
                stop = asyncio.ensure_future(self._stopping.wait())
                await asyncio.wait({reading, stop}, return_when=asyncio.FIRST_COMPLETED)
                stop.cancel()
                while not reading.done():
                    self._thread.interrupt()  # again: before the statement begins nothing is there to be interrupted
                    await asyncio.wait({reading}, timeout=0.05)
                self.ledger, self.read_at = reading.result(), time.time()
            except sqlite.DatabaseError as error:
                if not self._stopping.is_set():
                    _log.warning("the figures of the ledger could not be read: %s", error)
            pause_s = max(INTERVAL_S, (time.monotonic() - began) / SHARE_MAX)
            try:
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass


def _be_gentle(_connection: sqlite.Connection) -> None:
    sqlite.yield_to_others()
