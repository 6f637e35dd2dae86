"""SIGKILL and SIGTERM at random under load: of both processes, or of one of them alone."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial

from tests.faults import lies
from tests.faults.journal import Journal, Load, check, check_at_rest, load_until
from tests.faults.row import Row, Run
from tests.live import LiveService
from tests.waiting import until

ACTOR = "first-admin"
CLIENTS = (32, 64)
KILLS_OF_A_LEDGER = 4
KILLS_OF_THE_WRITER = 4


def kill(run: Run) -> None:
    """Kills until the time is up; each restart is timed to its first answer, then the oracle looks."""
    recovered: list[float] = []
    number = 0
    while run.goes_on(number):
        folder = run.folder / str(number)  # a ledger of its own: the oracle reads all of it after each kill
        folder.mkdir()
        live = LiveService(folder / "passbook.db").start()
        with Journal.opened(folder / "journal") as journal:
            for _ in range(min(KILLS_OF_A_LEDGER, run.at_least)):
                number += 1
                recovered.append(_kill_once(run, live, journal, number))
            _kill_writers(run, live, journal, number)
            run.must(live.stop(code=None) == 0, live.said[-500:])
            run.count("answered writes", journal.answered)
            if not run.goes_on(number):
                lies.tell(run, live.database, journal.entries, actor=ACTOR)
    run.times("recovery", recovered)


def _kill_once(run: Run, live: LiveService, journal: Journal, number: int) -> float:
    """How long it took until the service was ready again."""
    chance = run.chance(number)
    who, end = (("both processes", live.kill), ("the HTTP process alone", live.kill_alone))[number % 2]
    load_until(live, journal, end, seed=run.seed, clients=chance.choice(CLIENTS), name=f"kill{number}",
               answers=chance.randrange(1, 300))  # fmt: skip
    seconds = _seconds_until_ready(live)
    run.count("kills")
    run.count(f"kills of {who}")
    run.found(check(live.database, journal, live, actor=ACTOR, api_key=live.admin_key), f"kill {number}")
    return seconds


def _kill_writers(run: Run, live: LiveService, journal: Journal, number: int) -> None:
    """The writing process alone, a few times under one load: the service goes on by itself."""
    chance = run.chance(f"writer {number}")

    async def work() -> None:
        load = Load(journal, url=live.url, api_key=live.admin_key, seed=run.seed, clients=32, name=f"writer{number}")
        clients = asyncio.create_task(load.run(count=KILLS_OF_THE_WRITER * 15))
        for _ in range(KILLS_OF_THE_WRITER):
            reached = asyncio.create_task(journal.after(chance.randrange(1, 300)).wait())
            await asyncio.wait({clients, reached}, return_when=asyncio.FIRST_COMPLETED)
            reached.cancel()
            os.kill(live.writer_pid, signal.SIGKILL)
            run.count("kills")
            run.count("kills of the writing process alone")
        await clients

    asyncio.run(work())
    where = f"the writer killed after {number}"
    _wait_until_ready(live)
    run.found(check(live.database, journal, live, actor=ACTOR, api_key=live.admin_key), where)


def _seconds_until_ready(live: LiveService) -> float:
    began = time.monotonic()
    live.start()
    _wait_until_ready(live)
    return time.monotonic() - began


def _wait_until_ready(live: LiveService) -> None:
    until(lambda: live.client().get("/readyz").status_code == 200, "/readyz says that it is ready")


def stop(run: Run) -> None:
    """SIGTERM under load, then a second one at once; exit code 0, and every answer that came is true."""
    chance = run.chance("stop")
    live = LiveService(run.folder / "passbook.db")
    took: list[float] = []
    with Journal.opened(run.folder / "journal") as journal:
        number = 0
        while run.goes_on(number):
            live.start()
            number += 1
            end = _twice(live, signal.SIGTERM) if number % 2 else partial(live.stop, code=None)
            began = time.monotonic()

            def timed(end: Callable[[], int] = end) -> int:
                nonlocal began
                began = time.monotonic()
                return end()

            code = load_until(live, journal, timed, seed=run.seed, clients=chance.choice(CLIENTS),
                              name=f"stop{number}", answers=chance.randrange(1, 400))  # fmt: skip
            took.append(time.monotonic() - began)
            run.count("stops")
            run.count("stops by two signals", number % 2)
            run.must(code == 0, f"stop {number} ended with {code}: {live.said[-300:]}")
            run.found(check_at_rest(live.database, journal.entries, actor=ACTOR), f"stop {number}")
        live.start()
        run.found(check(live.database, journal, live, actor=ACTOR, api_key=live.admin_key), "after all stops")
        run.must(live.stop(code=None) == 0, live.said[-500:])
        run.count("answered writes", journal.answered)
        run.times("stop", took)
        lies.tell(run, live.database, journal.entries, actor=ACTOR)


def _twice(live: LiveService, number: signal.Signals) -> Callable[[], int]:
    def end() -> int:
        assert live.process is not None
        live.signal_all(number)
        try:
            live.process.wait(0.02)
        except subprocess.TimeoutExpired:
            live.signal_all(number)
        return live.stop(code=None)

    return end


ROWS = (
    Row(
        "kill",
        "kill -9 at random under 32–64 clients",
        "the harness",
        share=0.09,
        at_least=8,
        inject=kill,
        mutants=tuple(lies.LIES),
    ),
    Row(
        "stop",
        "SIGTERM under load, twice",
        "the harness",
        share=0.04,
        at_least=4,
        inject=stop,
        mutants=tuple(lies.LIES),
    ),
)
