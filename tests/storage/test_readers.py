"""The pool of reading connections: what is cancelled or breaks within it costs nobody else anything."""

import asyncio
import mmap
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.storage import sqlite
from tests.live import CHECKOUT


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A database with one table of one row, and a writer beside the readers, which keeps the index of its log."""
    made = tmp_path / "some.db"
    with closing(sqlite.connect_writer(made, busy_timeout_ms=0, checkpoints=True)) as connection:
        connection.execute("CREATE TABLE t (x INTEGER) STRICT")
        connection.execute("INSERT INTO t VALUES (1)")
        yield made


def _count(tx: Any) -> int:
    return int(tx.execute("SELECT COUNT(*) FROM t").fetchone()[0])


def _readers(path: Path, count: int) -> sqlite.Readers:
    return sqlite.Readers(path, count=count, busy_timeout_ms=0)


def test_a_cancelled_read_keeps_its_connection_until_its_thread_is_done(path: Path) -> None:
    """Cancelled within the read: others use the connection that is free; afterwards both are free again."""

    async def run() -> None:
        inside, go_on = threading.Event(), threading.Event()

        def slow(tx: Any) -> int:
            inside.set()
            assert go_on.wait(60)
            return _count(tx)

        async with _readers(path, 2).opened() as readers:
            try:
                reading = asyncio.create_task(readers.read(slow))
                await asyncio.to_thread(inside.wait, 30)
                reading.cancel()
                await asyncio.wait([reading])
                assert reading.cancelled()
                async with asyncio.timeout(30):  # would wait for ever behind the slow one
                    assert [await readers.read(_count) for _ in range(3)] == [1, 1, 1]
            finally:
                go_on.set()
            await _both_at_once(readers)

    asyncio.run(run())


async def _both_at_once(readers: sqlite.Readers) -> None:
    together = threading.Barrier(2, timeout=30)
    await asyncio.gather(*(readers.read(lambda _: together.wait()) for _ in range(2)))


def test_reads_cancelled_at_any_moment_lose_no_connection(path: Path) -> None:
    """Cancelled after every number of turns, also while waiting for a connection: afterwards all of them are free."""

    async def run() -> None:
        async with _readers(path, 2).opened() as readers:
            for turns in range(15):
                tasks = [asyncio.create_task(readers.read(_count)) for _ in range(6)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                done = await asyncio.gather(*tasks, return_exceptions=True)
                assert {r for r in done if not isinstance(r, asyncio.CancelledError)} == {1}
            await _both_at_once(readers)

    asyncio.run(run())


def test_who_asks_for_much_waits_behind_itself(path: Path) -> None:
    """One asks for twenty reads, then two others for one each: they are next, in turn with the first one's."""

    async def run() -> list[str]:
        order: list[str] = []
        inside, go_on = threading.Event(), threading.Event()

        def first(_tx: Any) -> None:
            inside.set()
            assert go_on.wait(60)

        async with _readers(path, 1).opened() as readers:
            holding = asyncio.create_task(readers.read_for("a", first))
            await asyncio.to_thread(inside.wait, 30)
            asked = [asyncio.create_task(readers.read_for("a", lambda _: order.append("a"))) for _ in range(20)]
            await asyncio.sleep(0)
            gone = asyncio.create_task(readers.read_for("gone", lambda _: order.append("gone")))
            asked += [
                asyncio.create_task(readers.read_for(who, lambda _, who=who: order.append(who))) for who in "bcbc"
            ]
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait([gone])
            go_on.set()
            await asyncio.gather(holding, *asked)
        return order

    order = asyncio.run(run())
    assert order[:6] == ["a", "b", "c", "a", "b", "c"]
    assert order[6:] == ["a"] * 18


def _raises(_tx: Any) -> None:
    raise RuntimeError("a bug")


def _ends_the_transaction_and_raises(tx: Any) -> None:
    tx.execute("ROLLBACK")  # as SQLite itself does on an I/O error
    raise RuntimeError("a bug")


@pytest.mark.parametrize("broken", [_raises, _ends_the_transaction_and_raises])
def test_a_read_that_breaks_says_why_and_spoils_no_later_read(path: Path, broken: Callable[[Any], None]) -> None:
    """The error that is raised is the read's own, and the same connection then sees what was committed since."""

    async def run() -> None:
        async with _readers(path, 1).opened() as readers:
            with pytest.raises(RuntimeError, match="a bug"):
                await readers.read(broken)
            with closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=False)) as other:
                other.execute("INSERT INTO t VALUES (2)")
            assert await readers.read(_count) == 2

    asyncio.run(run())


def test_a_reader_cannot_write(path: Path) -> None:
    """The connections are read-only: a write in a read is an error and changes nothing."""

    async def run() -> None:
        async with _readers(path, 1).opened() as readers:
            with pytest.raises(sqlite.DatabaseError):
                await readers.read(lambda tx: tx.execute("INSERT INTO t VALUES (3)"))
            assert await readers.read(_count) == 1

    asyncio.run(run())


def test_what_is_no_database_is_named_and_closed(tmp_path: Path) -> None:
    """Another file in its place: EngineError with the path, and no connection is left open."""
    other = tmp_path / "notes.txt"
    other.write_text("no database at all, but longer than the header of one would be, to be sure of it" * 20)
    with pytest.raises(sqlite.EngineError, match=r"notes\.txt"):
        sqlite.connect_reader(other, busy_timeout_ms=0)


def test_a_read_that_takes_very_long_is_broken_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody waits behind it for ever; the connection serves the next. The service's own may take longer."""
    monkeypatch.setattr(sqlite, "READ_LIMIT_S", 0.05)
    endless = "WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n LIMIT {}) SELECT MAX(v) FROM n"

    async def run() -> None:
        async with _readers(path, 1).opened() as readers:
            with pytest.raises(sqlite.DatabaseError) as broken:
                # Seconds, and not for ever: a read that is not broken off fails the test when it ends.
                await readers.read_for("a", lambda tx: tx.execute(endless.format(2 * 10**7)).fetchone())
            assert sqlite.is_interrupted(broken.value)
            assert await readers.read_for("a", _count) == 1
            slow = await readers.read(lambda tx: tx.execute(endless.format(10**6)).fetchone())
            assert slow == (10**6,)

    asyncio.run(run())


_WRITES = """
import sys
from pathlib import Path
from service.storage import sqlite
connection = sqlite.connect_writer(Path(sys.argv[1]), busy_timeout_ms=0, checkpoints=False)
connection.execute("CREATE TABLE t (x INTEGER) STRICT")
connection.execute("INSERT INTO t VALUES (7)")
print(flush=True)
sys.stdin.read()
"""
_MARKS_AT, _MARKS, _NO_MARK = 104, 4, 0xFFFFFFFF
"""In the log's index (https://www.sqlite.org/walformat.html): up to where readers read, without the first."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[mmap.mmap]:
    """The index of a log that another process writes, beside the database `some.db`."""
    command = [sys.executable, "-c", _WRITES, str(tmp_path / "some.db")]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"\n"
        with (tmp_path / "some.db-shm").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            yield mapped
        assert writer.stdin is not None
        writer.stdin.close()
        assert writer.wait(60) == 0


def note(index: mmap.mmap, mark: int) -> None:
    """Puts `mark` in the place of every reader's."""
    struct.pack_into(f"={_MARKS}I", index, _MARKS_AT, *[mark] * _MARKS)


@pytest.mark.parametrize("looks", [1, 9])
def test_a_reader_that_meets_the_writer_at_work_looks_again(
    tmp_path: Path, index: mmap.mmap, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """No mark is as old as the snapshot that the reader is about to begin: the next looks find one that is."""
    slept = []

    def notes(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == looks:
            note(index, 0)

    with closing(sqlite.connect_reader(tmp_path / "some.db", busy_timeout_ms=0, index_is_kept=True)) as reader:
        note(index, _NO_MARK)
        monkeypatch.setattr(sqlite, "time", SimpleNamespace(sleep=notes))
        assert reader.execute("SELECT x FROM t").fetchall() == [(7,)]
        assert len(slept) == looks


def test_a_reader_does_not_look_for_ever(tmp_path: Path, index: mmap.mmap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody writes any more, the tenth look says that the log's index is not as it should be."""
    slept: list[float] = []
    with closing(sqlite.connect_reader(tmp_path / "some.db", busy_timeout_ms=0, index_is_kept=True)) as reader:
        note(index, _NO_MARK)
        monkeypatch.setattr(sqlite, "time", SimpleNamespace(sleep=slept.append))
        with pytest.raises(sqlite.DatabaseError) as failed:
            reader.execute("SELECT x FROM t")
        assert sqlite.is_unrecovered(failed.value)
        assert len(slept) == 9
        note(index, 0)
