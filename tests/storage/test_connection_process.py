"""The connection's own process: what crosses to it and back, and what is left when one of the two is gone."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest

from service.ledger.errors import InsufficientFunds
from service.storage import lock, sqlite
from service.storage.connection_process import ConnectionLost, ConnectionProcess, NotStarted
from service.storage.sqlite import Connection, EngineError
from tests.live import CHECKOUT, START_TIMEOUT_S
from tests.waiting import until, until_async

ROWS = "SELECT COUNT(*) FROM written"


def make_table(tx: Connection) -> None:
    """The table that the tests write to."""
    tx.execute("CREATE TABLE IF NOT EXISTS written (told TEXT)")


def write(tx: Connection, told: str, *, then: str = "", reached: str | None = None, go_on: str | None = None) -> int:
    """Writes a row; before its COMMIT it touches `reached`, waits for `go_on` and does what `then` says."""
    tx.execute("BEGIN IMMEDIATE")
    tx.execute("INSERT INTO written VALUES (?)", (told,))
    if reached:
        Path(reached).touch()
    if go_on:
        until(Path(go_on).exists, "the test lets it go on")
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    tx.execute("COMMIT")
    return count(tx)


def count(tx: Connection) -> int:
    """How many rows there are."""
    return int(tx.execute(ROWS).fetchone()[0])


def fail(_tx: Connection, what: str) -> None:
    """Raises as `what` says."""

    class Local(Exception):
        """Known in the other process alone."""

    errors: dict[str, Exception] = {
        "refusal": InsufficientFunds("The balance is too small.", balance=1, required=3),
        "local": Local("nobody can name my class"),
    }
    raise errors[what]


def echo(_tx: Connection, data: bytes) -> bytes:
    """What it is given."""
    return data


def is_open(tx: Connection) -> bool:
    """Whether a transaction is under way."""
    return tx.in_transaction


@asynccontextmanager
async def opened(path: Path, *, keeps: Sequence[int] = ()) -> AsyncIterator[ConnectionProcess]:
    """A process with a connection to `path` and its table."""
    process = ConnectionProcess(
        partial(sqlite.connect_writer, path, busy_timeout_ms=5000, checkpoints=True), keeps=keeps
    )
    await process.open()
    try:
        await process.run(make_table)
        yield process
    finally:
        await process.close()


def rows(path: Path) -> int:
    """How many rows another connection sees."""
    with closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as connection:
        return count(connection)


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    return Path(f"/proc/{pid}").exists()


def test_calls_run_one_after_the_other_on_one_connection(tmp_path: Path) -> None:
    """Values and results of any size cross; the connection stays the same; closing it ends the process cleanly."""

    async def run() -> None:
        async with opened(tmp_path / "a.db") as process:
            assert [await process.run(write, str(n)) for n in range(3)] == [1, 2, 3]
            data = os.urandom(9_000_000)
            assert await process.run(echo, data) == data
            pid = process.pid
            assert pid is not None
        assert process.pid is None
        assert not is_alive(pid)
        # The last connection to close brings the log into the file; what is killed leaves it.
        assert [file.name for file in tmp_path.iterdir()] == ["a.db"]

    asyncio.run(run())


def test_what_is_raised_there_is_raised_here(tmp_path: Path) -> None:
    """The class, its attributes and a note with the traceback; a class that cannot cross is told in words."""

    async def run() -> None:
        async with opened(tmp_path / "a.db") as process:
            with pytest.raises(InsufficientFunds) as refused:
                await process.run(fail, "refusal")
            assert (refused.value.detail, refused.value.members) == (
                "The balance is too small.",
                {"balance": 1, "required": 3},
            )
            assert "in fail" in refused.value.__notes__[0]
            with pytest.raises(RuntimeError, match="Local: nobody can name my class"):
                await process.run(fail, "local")
            with pytest.raises(sqlite.DatabaseError, match="no such table") as broken:
                await process.run(_select_nothing)
            assert sqlite.is_of_statement(broken.value)
            assert await process.run(write, "after") == 1

    asyncio.run(run())


def _select_nothing(tx: Connection) -> None:
    tx.execute("SELECT * FROM nowhere")


def test_a_database_that_cannot_be_opened_leaves_no_process(tmp_path: Path) -> None:
    """EngineError as in this process."""
    (tmp_path / "a.db").write_bytes(b"no database at all" * 100)

    async def run() -> None:
        with pytest.raises(EngineError, match=r"Cannot use .* as a database"):
            async with opened(tmp_path / "a.db"):
                raise AssertionError

    asyncio.run(run())
    assert not [pid for pid in _children() if "connection_process" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_a_process_that_dies_at_work_loses_that_call_alone(tmp_path: Path) -> None:
    """ConnectionLost; nothing of its transaction is there; the next call starts another process."""

    async def run() -> None:
        async with opened(tmp_path / "a.db") as process:
            assert await process.run(write, "before") == 1
            first = process.pid
            with pytest.raises(ConnectionLost, match="ended with -9"):
                await process.run(write, "lost", then="die")
            assert await process.run(write, "after") == 2
            assert process.pid not in {None, first}

    asyncio.run(run())
    assert rows(tmp_path / "a.db") == 2


def test_a_process_that_died_while_idle_is_started_anew(tmp_path: Path) -> None:
    """Nobody was waiting, nobody notices."""

    async def run() -> None:
        async with opened(tmp_path / "a.db") as process:
            pid = process.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert await process.run(write, "after") == 1

    asyncio.run(run())


def test_a_cancelled_call_is_carried_out_and_its_answer_is_nobody_elses(tmp_path: Path) -> None:
    """Its row is there, and the next call gets its own result."""

    async def run() -> None:
        async with opened(tmp_path / "a.db") as process:
            reached, go_on = tmp_path / "reached", tmp_path / "go_on"
            call = asyncio.create_task(process.run(write, "mine", reached=str(reached), go_on=str(go_on)))
            await until_async(reached.exists, "the call is before its COMMIT")
            call.cancel()
            await asyncio.sleep(0)
            go_on.touch()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await process.run(is_open) is False
            assert await process.run(echo, b"mine") == b"mine"
            assert await process.run(count) == 1

    asyncio.run(run())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_it_starts_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A signal to the whole group may come before the new process has said which ones it ignores."""

    class Signalled(subprocess.Popen[bytes]):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type,call-overload]
            self.send_signal(number)

    monkeypatch.setattr(subprocess, "Popen", Signalled)

    async def run() -> None:
        async with opened(tmp_path / "test.db") as process:
            assert await process.run(write, "after the signal") == 1

    asyncio.run(run())
    assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_signals_for_the_whole_group_do_not_end_it(tmp_path: Path) -> None:
    """Ctrl-C in a terminal and the SIGTERM of a service manager reach both processes; the first one says when."""

    async def run() -> None:
        async with opened(tmp_path / "a.db") as process:
            pid = process.pid
            assert pid is not None
            for number in (signal.SIGINT, signal.SIGTERM):
                os.kill(pid, number)
                assert await process.run(echo, b"there") == b"there"
            assert process.pid == pid

    asyncio.run(run())


_ABANDONED = """
import asyncio, sys
from pathlib import Path
from service.storage import lock
from tests.storage.test_connection_process import opened, write

async def run(folder):
    with lock.exclusive(folder / "a.db") as held:
        async with opened(folder / "a.db", keeps=held.descriptors) as process:
            print(process.pid, flush=True)
            await process.run(write, "last", reached=str(folder / "reached"), go_on=str(folder / "go_on"))

asyncio.run(run(Path(sys.argv[1])))
"""


def _runs(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("stopped", [False, True], ids=["at work", "stopped"])
def test_it_ends_with_the_other_and_holds_the_lock_until_then(tmp_path: Path, stopped: bool) -> None:
    """Its transaction is rolled back: nobody would get the answer. Whoever has the lock finds it gone."""
    with subprocess.Popen(
        [sys.executable, "-c", _ABANDONED, str(tmp_path)], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        until((tmp_path / "reached").exists, "the call is before its COMMIT")
        with pytest.raises(lock.DatabaseInUse), lock.exclusive(tmp_path / "a.db"):
            raise AssertionError
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        parent.kill()
        assert parent.wait(START_TIMEOUT_S) == -signal.SIGKILL

    def has_let_go() -> bool:
        with contextlib.suppress(lock.DatabaseInUse), lock.exclusive(tmp_path / "a.db"):
            assert not _runs(pid)
            return True
        return False

    until(has_let_go, "the lock is free", within_s=START_TIMEOUT_S)
    assert rows(tmp_path / "a.db") == 0
    assert (tmp_path / "a.db-wal").stat().st_size > 0


def test_a_stopped_process_is_killed_and_the_next_call_starts_another(tmp_path: Path) -> None:
    """Its call is lost, nothing of it is there."""

    async def run() -> None:
        async with opened(tmp_path / "a.db") as process:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
            call = asyncio.create_task(process.run(write, "never"))
            await asyncio.sleep(0)
            assert process.kill()
            with pytest.raises(ConnectionLost, match="ended with -9"):
                await call
            assert await process.run(write, "after") == 1

    asyncio.run(run())


def test_a_stopped_process_does_not_keep_close_waiting(tmp_path: Path) -> None:
    """It is killed when its time is over, and the log is left to the next who opens the database."""

    async def run() -> None:
        async with opened(tmp_path / "a.db") as process:
            assert await process.run(write, "kept") == 1
            pid = process.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            assert await process.close(within_s=0.1) is None
            assert not is_alive(pid)

    asyncio.run(run())
    assert rows(tmp_path / "a.db") == 1


def test_who_is_at_work_is_given_longer_to_close(tmp_path: Path) -> None:
    """A close that works for much longer than a hung one is given ends in order; one that works for ever is killed."""

    async def close(path: Path, *, work_s: float, at_most_s: float) -> bool:
        process = ConnectionProcess(partial(_slow_to_close, path, work_s))
        await process.open()
        pid = process.pid
        assert pid is not None
        assert await process.close(within_s=0.3, at_most_s=at_most_s) is None
        assert not is_alive(pid)
        return path.with_name("closed").exists()

    assert asyncio.run(close(tmp_path / "a.db", work_s=1.5, at_most_s=120)), "it was killed while it was at work"
    (tmp_path / "closed").unlink()
    assert not asyncio.run(close(tmp_path / "b.db", work_s=3600, at_most_s=1)), "it closed in an hour of work"


class _Slow(sqlite.driver.Connection):  # type: ignore[misc]
    work_s: float
    closed: Path

    def close(self) -> None:
        """Keeps a processor busy before it closes."""
        until_s = time.process_time() + self.work_s
        for _at_work in iter(lambda: time.process_time() < until_s, False):
            pass
        super().close()
        self.closed.touch()


def _slow_to_close(path: Path, work_s: float) -> Connection:
    connection = sqlite.connect_writer(path, busy_timeout_ms=5000, checkpoints=True, factory=_Slow)
    connection.work_s, connection.closed = work_s, path.with_name("closed")  # type: ignore[attr-defined]
    return connection


def test_a_start_that_fails_is_tried_again_with_the_next_call(tmp_path: Path) -> None:
    """No descriptors beyond those that were kept, then not even those: NotStarted, and then a process again."""

    async def run() -> None:
        async with opened(tmp_path / "a.db") as process:
            unlimited = resource.getrlimit(resource.RLIMIT_NOFILE)
            used = len(os.listdir("/proc/self/fd")) - 1
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (used, unlimited[1]))
                for _ in range(3):  # what was kept for a start is kept again
                    assert process.pid is not None
                    os.kill(process.pid, signal.SIGKILL)
                    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                    assert await process.run(write, "with what was kept") > 0
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, unlimited[1]))
                for _ in range(3):
                    with pytest.raises(NotStarted, match="Too many open files"):
                        await process.run(write, "never")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, unlimited)
            assert await process.run(write, "after") == 4

    asyncio.run(run())
    assert not [pid for pid in _children() if "connection_process" in Path(f"/proc/{pid}/cmdline").read_text()]


@pytest.mark.parametrize("end", ["raise", "die"])
def test_a_connector_that_fails_for_a_while_is_called_again(tmp_path: Path, end: str) -> None:
    """What it raises, or its death, is NotStarted; nothing of the call was begun."""
    broken = tmp_path / "broken"

    async def run() -> None:
        process = ConnectionProcess(partial(_fragile, tmp_path / "a.db", broken, end))
        await process.open()
        try:
            await process.run(make_table)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            broken.touch()
            for _ in range(2):
                with pytest.raises(NotStarted, match="broken for now" if end == "raise" else "ended with -9"):
                    await process.run(write, "never")
            broken.unlink()
            assert await process.run(write, "after") == 1
        finally:
            await process.close()

    asyncio.run(run())


def _fragile(path: Path, broken: Path, end: str) -> Connection:
    if broken.exists():
        if end == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        raise EngineError("broken for now")
    return sqlite.connect_writer(path, busy_timeout_ms=5000, checkpoints=True)


def _children() -> list[str]:
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
