"""Who runs the proofs of the ledger: one at a time, beside the requests, for all who ask."""

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path

from service.ledger.integrity import IntegrityReport, IntegrityStatus
from service.ledger.timestamps import Clock
from service.storage import sqlite
from service.storage.integrity import Proof
from service.storage.migrator import Migration

_ASK_AGAIN_S = 0.05


class Proofs:
    """The proof under way and the last one. Lifetime: within the application's, from its making to `close`.

    A proof has a thread and a read-only connection of its own, so that no request waits for it.
    """

    def __init__(self, path: Path, migrations: list[Migration], clock: Clock, *, busy_timeout_ms: int) -> None:
        self._connector = partial(sqlite.connect_reader, path, busy_timeout_ms=busy_timeout_ms, index_is_kept=True)
        self._migrations = migrations
        self._clock = clock
        self._last: Proof | None = None
        self._proof: Proof | None = None
        self._task: asyncio.Task[IntegrityReport] | None = None
        self._stopping = False

    @property
    def last(self) -> Proof | None:
        """The last one that came to a finding."""
        return self._last

    async def report(self, max_age: timedelta, *, wait_s: float) -> IntegrityReport:
        """The last finished proof if it is not older than `max_age`, else the one under way or a new one.

        That one is waited for at most `wait_s`; then the answer is how far it is, with the last finished one.
        """
        last = self._last
        if last is not None and last.finished_at is not None:
            age = self._clock() - last.finished_at
            if timedelta(0) <= age <= max_age:  # negative after the clock was set back: it says nothing
                return last.report()
        if self._task is None or self._task.done():
            self._proof = Proof(self._migrations, self._clock)
            self._task = asyncio.create_task(self._run(self._proof), name="passbook-proof")
        proof, task = self._proof, self._task
        assert proof is not None
        await asyncio.wait([task], timeout=wait_s)
        return task.result() if task.done() else proof.report(last.report() if last else None)

    async def _run(self, proof: Proof) -> IntegrityReport:
        if self._stopping:
            proof.fail("The service is stopping.")
            return proof.report()
        thread = sqlite.Thread(self._connector)
        try:
            await thread.open()
        except sqlite.EngineError as error:
            proof.fail(str(error))
            return proof.report()
        try:
            await thread.run(_run_gently, proof)
        finally:
            await thread.close()
        report = proof.report()
        if report.status != IntegrityStatus.UNFINISHED:
            self._last = proof
        return report

    def stop(self) -> None:
        """Ends the proof under way, and answers those who wait for it; there will be no other."""
        self._stopping = True
        if self._proof is not None:
            self._proof.stop()

    async def close(self) -> None:
        """Returns when no proof runs."""
        while self._task is not None and not self._task.done():
            self.stop()  # again: between two statements nothing is there to be interrupted
            await asyncio.wait([self._task], timeout=_ASK_AGAIN_S)


def _run_gently(connection: sqlite.Connection, proof: Proof) -> None:
    sqlite.yield_to_others()
    proof.run(connection)
