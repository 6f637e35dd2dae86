"""kill -9 and SIGTERM at random moments under load, and the oracle afterwards."""

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.faults.journal import Findings, Journal, Load, check
from tests.faults.wire import Connection, Request
from tests.live import START_TIMEOUT_S, LiveService
from tests.waiting import until

SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(2**32))
CLIENTS = 32
KILLS = int(os.environ.get("FAULTS_KILLS") or 4)


def _under_load(live: LiveService, journal: Journal, *, name: str, answers: int, end: Callable[[], int]) -> int:
    """Calls `end` in the moment when `answers` have come; its result, when every client has noticed."""

    async def run() -> int:
        load = Load(journal, url=live.url, api_key=live.admin_key, seed=SEED, clients=CLIENTS, name=name)
        reached = journal.after(answers)
        clients = asyncio.create_task(load.run())
        await reached.wait()
        code = await asyncio.to_thread(end)
        await clients
        return code

    return asyncio.run(run())


def _check(live: LiveService, journal: Journal) -> Findings:
    return check(live.database, journal, live, actor="first-admin", api_key=live.admin_key)


@pytest.mark.parametrize("alone", [False, True], ids=["both processes", "the one that speaks HTTP"])
def test_kill_9_under_load_loses_and_doubles_nothing(own_service: LiveService, tmp_path: Path, alone: bool) -> None:
    """After every SIGKILL: what was answered is there once, what was not answered is there once or not at all."""
    print(f"FAULTS_SEED={SEED}")
    chance = random.Random(f"{SEED} {alone}")
    kill = own_service.kill_alone if alone else own_service.kill
    unknown = 0
    with Journal.opened(tmp_path / "journal") as journal:
        own_service.start()
        for number in range(KILLS):
            answers = chance.randrange(1, 400)
            end = kill if number else partial(_kill_while_a_write_waits, own_service, alone=alone)
            code = _under_load(own_service, journal, name=f"kill{number}", answers=answers, end=end)
            assert code == -signal.SIGKILL
            own_service.start()
            found = _check(own_service, journal)
            unknown += found.unknown
            assert found.broken == []
        print(f"{KILLS} kills, {found.done} done, {found.refused} refused, {unknown} unknown")
        assert own_service.stop() == 0
    # Not by chance: the first kill waited until a write was under way.
    assert unknown > 0


def _stop_the_writer_under_a_write(live: LiveService) -> int:
    """Stops the writing process while a write waits for it; its pid."""
    pid = live.writer_pid
    os.kill(pid, signal.SIGSTOP)
    with httpx.Client(base_url=live.url, timeout=START_TIMEOUT_S) as probe:
        until(lambda: probe.get("/readyz").json().get("queue_depth", 0) > 0, "a write waits for the stopped process")
    return pid


def _kill_the_writer_while_a_write_waits(live: LiveService) -> None:
    os.kill(_stop_the_writer_under_a_write(live), signal.SIGKILL)


def _kill_while_a_write_waits(live: LiveService, *, alone: bool) -> int:
    pid = _stop_the_writer_under_a_write(live)
    if not alone:
        return live.kill()
    assert live.process is not None
    live.process.kill()
    os.kill(pid, signal.SIGCONT)
    return live.kill_alone()


def test_kill_9_of_the_writing_process_alone_loses_and_doubles_nothing(
    own_service: LiveService, tmp_path: Path
) -> None:
    """Those who waited are told that the outcome is not known, the next are answered, and all of it is true."""
    print(f"FAULTS_SEED={SEED}")
    chance = random.Random(f"{SEED} writer")
    own_service.start()
    client = own_service.client()

    def is_ready() -> bool:
        return client.get("/readyz").status_code == 200

    async def run(journal: Journal) -> None:
        load = Load(
            journal, url=own_service.url, api_key=own_service.admin_key, seed=SEED, clients=CLIENTS, name="writer"
        )
        clients = asyncio.create_task(load.run())
        for _ in range(KILLS):
            await journal.after(chance.randrange(1, 400)).wait()
            killed = own_service.writer_pid
            os.kill(killed, signal.SIGKILL)
        # A process that is stopped before it takes writes keeps none waiting.
        await asyncio.to_thread(until, lambda: own_service.writer_pid != killed and is_ready(), "a new process writes")
        await asyncio.to_thread(_kill_the_writer_while_a_write_waits, own_service)
        load.leave()
        await clients

    with Journal.opened(tmp_path / "journal") as journal:
        asyncio.run(run(journal))
        statuses = {attempt.status for entry in journal.entries.values() for attempt in entry.attempts}
        assert 503 in statuses  # not by chance: the last kill waited until a batch was under way
        until(is_ready, "a new process writes, though nobody asks for a write")
        found = _check(own_service, journal)
        assert found.broken == []
        assert found.unknown > 0
    assert own_service.stop() == 0
    assert own_service.said.count("is lost: the process of the writing connection ended with -9") > 0


@pytest.mark.parametrize(
    ("number", "repeated"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGQUIT, True)],
)
def test_a_stop_under_load_keeps_every_answer_and_exits_0(
    own_service: LiveService, tmp_path: Path, number: signal.Signals, repeated: bool
) -> None:
    """SIGTERM once, or any of them over and over until the end: exit code 0, and every answer that came is true."""
    print(f"FAULTS_SEED={SEED}")
    chance = random.Random(f"{SEED} {number} {repeated}")

    def end() -> int:
        return _signal_over_and_over(own_service, number) if repeated else own_service.stop(code=None)

    with Journal.opened(tmp_path / "journal") as journal:
        own_service.start()
        code = _under_load(own_service, journal, name="stop", answers=chance.randrange(1, 400), end=end)
        assert code == 0, own_service.said
        own_service.start()
        assert _check(own_service, journal).broken == []
        assert own_service.stop() == 0


MEANINGLESS = sorted(
    signal.valid_signals()
    - {signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP}
    - {signal.SIGTTIN, signal.SIGTTOU, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}
    - {signal.SIGSYS, signal.SIGTRAP, signal.SIGXCPU}
)
"""Every signal but those that end the service, stop it, or tell of a fault of its own."""


def test_signals_that_mean_nothing_end_nothing(own_service: LiveService, tmp_path: Path) -> None:
    """SIGHUP, SIGUSR1, SIGALRM and all their kind, to both processes under load; to the one that writes the others too.

    Nothing is unknown: no connection ends and no batch is lost.
    """
    print(f"FAULTS_SEED={SEED}")
    own_service.start()
    http, writer = own_service.process.pid, own_service.writer_pid  # type: ignore[union-attr]

    async def run(journal: Journal) -> None:
        load = Load(journal, url=own_service.url, api_key=own_service.admin_key, seed=SEED, clients=CLIENTS, name="hup")
        clients = asyncio.create_task(load.run(count=100))
        for number in [*MEANINGLESS, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]:
            answered = asyncio.create_task(journal.after(1).wait())
            await asyncio.wait({answered, clients}, return_when=asyncio.FIRST_COMPLETED)
            assert not clients.done(), "the load ended before the last signal"
            if number in MEANINGLESS:
                os.kill(http, number)
            os.kill(writer, number)
        await clients

    with Journal.opened(tmp_path / "journal") as journal:
        asyncio.run(run(journal))
        assert own_service.writer_pid == writer
        unknown = [attempt for entry in journal.entries.values() if not entry.answers for attempt in entry.attempts]
        assert unknown == []
        assert _check(own_service, journal).broken == []
    assert own_service.stop() == 0, own_service.said


def _signal_over_and_over(live: LiveService, number: signal.Signals) -> int:
    """The signal every 5 ms to all its processes while the first is there; the exit code."""
    process = live.process
    assert process is not None

    def has_ended() -> bool:
        with suppress(ProcessLookupError):  # it ended while it was waited for
            live.signal_all(number)
        try:
            process.wait(0.005)
        except subprocess.TimeoutExpired:
            return False
        return True

    until(has_ended, "the service ends", every_s=0)
    return live.stop(code=None)


@asynccontextmanager
async def _connection(live: LiveService) -> AsyncIterator[Connection]:
    connection = await Connection.open(live.url)
    try:
        yield connection
    finally:
        await connection.close()


def test_sigterm_does_not_wait_for_idle_connections(own_service: LiveService) -> None:
    """With an hour's grace and a keep-alive connection that says nothing more, the service ends all the same."""
    own_service.environment = {"PASSBOOK_SHUTDOWN_GRACE_S": "3600"}
    own_service.start()

    async def run() -> int:
        async with _connection(own_service) as used, _connection(own_service):
            assert (await used.ask(Request("/livez", "", "", method="GET"), own_service.admin_key)).status == 200
            return await asyncio.to_thread(own_service.stop)

    assert asyncio.run(run()) == 0


def test_sigterm_waits_no_longer_than_the_grace_for_half_a_request(own_service: LiveService) -> None:
    """A client that never sends the rest of its body is answered after the grace, and no error is logged of it; the
    exit code is 0.
    """
    own_service.environment = {"PASSBOOK_SHUTDOWN_GRACE_S": "1"}
    own_service.start()

    async def run() -> int:
        async with _connection(own_service) as half:
            request = Request("/v1/deposits", '{"telegram_id": "1", "amount": 1, "depositor_name": "a"}', "half")
            await half.send(request.encoded(own_service.admin_key)[:-10])
            async with _connection(own_service) as other:  # answered after the half was read
                assert (await other.ask(Request("/livez", "", "", method="GET"), "")).status == 200
            code = await asyncio.to_thread(own_service.stop)
            answer = await half.receive()
            assert (answer.status, answer.json()["code"]) == (503, "outcome_unknown"), answer
            return code

    assert asyncio.run(run()) == 0
    assert "was answered" not in own_service.said
    assert "Traceback" not in own_service.said, own_service.said
    own_service.start()
    client = own_service.client()
    assert client.get("/v1/deposits").json()["items"] == []


def test_a_lock_outlives_no_kill(own_service: LiveService) -> None:
    """The lock file of a killed process does not keep the next one from starting."""
    own_service.start()
    held = own_service.database.with_name("passbook.db.lock")
    assert f"pid {own_service.process.pid}\n" in held.read_text()  # type: ignore[union-attr]
    own_service.kill()
    assert held.exists()
    own_service.start()
    assert own_service.process is not None
    assert own_service.client().get("/readyz", timeout=START_TIMEOUT_S).status_code == 200
