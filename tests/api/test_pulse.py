"""What /readyz asks the database: on a connection of its own, in a bounded time, once for all who ask."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.api.pulse import Pulse
from service.storage import sqlite

LIMIT_S = 1.0


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A database."""
    made = tmp_path / "some.db"
    with closing(sqlite.connect_writer(made, busy_timeout_ms=0, checkpoints=True)) as connection:
        connection.execute("CREATE TABLE t (x INTEGER) STRICT")
        yield made


@pytest.mark.long
def test_a_read_that_hangs_is_told_in_time_and_joined_by_no_other(path: Path) -> None:
    """A hundred ask while the thread hangs: each hears of it within the limit, and afterwards it answers again."""

    async def run() -> None:
        go_on = threading.Event()
        async with Pulse(path, sqlite.ping, limit_s=LIMIT_S).running() as pulse:
            await pulse.feel()
            hung = asyncio.ensure_future(pulse._readers.read(lambda _: go_on.wait(60)))
            try:
                began = time.monotonic()
                answers = await asyncio.gather(*(pulse.feel() for _ in range(100)), return_exceptions=True)
                assert {type(answer) for answer in answers} == {TimeoutError}
                assert time.monotonic() - began < 10 * LIMIT_S, "those who ask wait for the hung read"
                reading = pulse._reading
                with pytest.raises(TimeoutError):
                    await pulse.feel()
                assert pulse._reading is reading
            finally:
                go_on.set()
            await hung
            await pulse.feel()

    asyncio.run(run())


def test_a_lock_that_another_process_holds_is_no_hang(path: Path) -> None:
    """Readers do not wait for a writer; the pulse goes on while one holds the write lock."""

    async def run() -> None:
        with closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with Pulse(path, sqlite.ping, limit_s=5).running() as pulse:
                await pulse.feel()
            other.execute("ROLLBACK")

    asyncio.run(run())
