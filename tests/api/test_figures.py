"""The figures of the ledger are read by the way: a read that fails is tried again, and none keeps a stop waiting."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api import figures
from service.api.figures import Figures
from service.storage import sqlite
from service.storage.figures import LedgerFigures
from tests.waiting import until_async

LONG = "WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n LIMIT 20000000) SELECT MAX(v) FROM n"
"""Takes seconds, so that a test whose read is not broken off ends all the same."""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A database that a writer has open, which keeps the index of the log for those who read."""
    with contextlib.closing(sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True)) as writer:
        writer.execute("CREATE TABLE t (x)")
        yield tmp_path / "p.db"


def test_figures_that_could_not_be_read_are_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why; until then there are none, and none that are older than they say."""
    found, asked = LedgerFigures(balance=5.0, users=1), []

    def of_ledger(tx: sqlite.Connection) -> LedgerFigures:
        asked.append(1)
        if len(asked) == 1:
            tx.execute("SELECT * FROM nothing_of_this_name")
        return found

    monkeypatch.setattr(figures, "INTERVAL_S", 0.001)
    monkeypatch.setattr(figures.figures, "of_ledger", of_ledger)

    async def run() -> None:
        async with Figures(path, busy_timeout_ms=0).running() as reading:
            await until_async(lambda: len(asked) >= 1, "the first read began")
            await until_async(lambda: reading.ledger == found, "the figures are there", within_s=10)
            assert reading.read_at > 0

    asyncio.run(run())
    assert "could not be read: no such table: nothing_of_this_name" in caplog.text


def test_a_stop_breaks_a_read_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many accounts there are: whoever stops the service does not wait until they are summed."""
    began, ended = asyncio.Event(), list[str]()

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def of_ledger(tx: sqlite.Connection) -> LedgerFigures:
            loop.call_soon_threadsafe(began.set)
            try:
                tx.execute(LONG).fetchall()
            except sqlite.DatabaseError as error:
                ended.append("broken off" if sqlite.is_interrupted(error) else str(error))
                raise
            ended.append("read to the end")
            return LedgerFigures(balance=0.0, users=0)

        monkeypatch.setattr(figures.figures, "of_ledger", of_ledger)
        async with Figures(path, busy_timeout_ms=0).running():
            await began.wait()

    asyncio.run(run())
    assert ended == ["broken off"]
