"""SIGKILL at the Nth system call of a service under load, N and the call swept: of the writing process, of the one that
speaks HTTP, and of both in the same moment."""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.faults import lies, tracing
from tests.faults.journal import Journal, Load, check
from tests.faults.row import Row, Run
from tests.faults.variants import OFTEN_CHECKPOINTED, variant
from tests.live import LiveService
from tests.waiting import until_async

ACTOR = "first-admin"
CLIENTS = 8
ASKS_MAX = 60
WRITER_CALLS = {
    "pwrite64": 160,
    "fsync,fdatasync": 12,
    "ftruncate": 3,
    "pread64": 12,
    "fcntl": 60,
    "recvfrom": 8,
    "sendto": 8,
}
"""What the writing process asks of the system, and how far it is swept: over several commits and a checkpoint."""
HTTP_CALLS = {"write": 30, "recvfrom,read": 30, "fcntl": 40, "pread64": 4, "epoll_wait,epoll_pwait": 20}
POINTS_OF_A_LEDGER = 12


def inject(run: Run) -> None:
    """Half of the time the writing process alone; the rest both, and the one that speaks HTTP."""
    run.skipped = tracing.why_not()
    if run.skipped:
        return
    environment = variant(run.folder / "variant", [OFTEN_CHECKPOINTED])
    _writer_alone(run.part(0.5, run.at_least // 2), environment)
    _with_restarts(run.part(0.25, run.at_least // 4), environment, both=True)
    _with_restarts(run.part(0.25, run.at_least // 4), environment, both=False)


def _points(run: Run, calls: dict[str, int], what: str) -> Iterator[tuple[str, int]]:
    """Every call at every place, in the order of the seed: each kind of call in turn, so that a short run has all."""
    places = {call: list(range(1, last + 1)) for call, last in calls.items()}
    for call, numbers in places.items():
        run.chance(f"{what} {call}").shuffle(numbers)
    for row in itertools.zip_longest(*places.values()):
        yield from ((call, number) for call, number in zip(places, row, strict=True) if number is not None)


@contextlib.contextmanager
def _ledger(run: Run, number: int, environment: dict[str, str], what: str) -> Iterator[tuple[LiveService, Journal]]:
    folder = run.folder / f"{what}-{number}"
    folder.mkdir()
    live = LiveService(folder / "passbook.db", environment=environment).start()
    with Journal.opened(folder / "journal") as journal:
        yield live, journal
        if live.process is not None:
            run.must(live.stop(code=None) == 0, live.said[-500:])
        run.count("answered writes", journal.answered)


def _oracle(run: Run, live: LiveService, journal: Journal, where: str) -> None:
    run.found(check(live.database, journal, live, actor=ACTOR, api_key=live.admin_key), where)


def _writer_alone(run: Run, environment: dict[str, str]) -> None:
    points = _points(run, WRITER_CALLS, "writer")
    done = 0
    for number in itertools.count():
        batch = list(itertools.islice(points, 3 * POINTS_OF_A_LEDGER))
        if not batch or not run.goes_on(done):
            return
        with _ledger(run, number, environment, "writer") as (live, journal):
            tried = []
            for place, (call, at) in enumerate(batch):
                if tried and not run.goes_on(done):  # of a ledger of no writes no lie could be noticed
                    break
                tried.append(f"{call} {at}")
                reached = asyncio.run(_until_killed(run, live, journal, call, at, name=f"w{number}-{place}"))
                run.count("points of the writing process" if reached else "points that no load reached", 1)
                done += 1
            ready = live.client().get("/readyz")
            run.must(ready.status_code == 200, f"the writer killed at {tried}: /readyz says {ready.text[:200]}")
            _oracle(run, live, journal, f"the writer killed at {tried}")
            run.must(live.stop(code=None) == 0, live.said[-500:])
            if not run.goes_on(done):
                lies.tell(run, live.database, journal.entries, actor=ACTOR)


async def _until_killed(run: Run, live: LiveService, journal: Journal, call: str, at: int, *, name: str) -> bool:
    """A load until strace has killed the writing process at the call; whether it has."""
    pid = live.writer_pid
    inject = [f"{call}:signal=SIGKILL:when={at}"]
    with tracing.attached(pid, run.folder / "trace", calls=call, inject=inject):
        for part in range(4):
            load = Load(
                journal, url=live.url, api_key=live.admin_key, seed=run.seed, clients=CLIENTS, name=f"{name}.{part}"
            )
            asked = asyncio.create_task(load.run(count=ASKS_MAX // 4))
            while not asked.done() and _lives(pid):
                await asyncio.sleep(0.01)
            if not _lives(pid):
                await _enough(asked, journal)
                return True
            await asked
    return not _lives(pid)


async def _enough(asked: "asyncio.Task[None]", journal: Journal) -> None:
    """Lets the clients meet the next writing process."""
    await asked


def _lives(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _with_restarts(run: Run, environment: dict[str, str], *, both: bool) -> None:
    what, calls = ("both", WRITER_CALLS) if both else ("http", HTTP_CALLS)
    points = _points(run, calls, what)
    done = 0
    for number in itertools.count():
        batch = list(itertools.islice(points, POINTS_OF_A_LEDGER))
        if not batch or not run.goes_on(done):
            return
        with _ledger(run, number, environment, what) as (live, journal):
            for place, (call, at) in enumerate(batch):
                if not run.goes_on(done):
                    break
                reached = asyncio.run(
                    _until_down(run, live, journal, call, at, both=both, name=f"{what}{number}-{place}")
                )
                name = "both processes" if both else "the HTTP process"
                run.count(f"points of {name}" if reached else "points that no load reached")
                done += 1
                if reached:
                    live._end()
                    live.start()
                _oracle(run, live, journal, f"{name} killed at {call} {at}")


async def _until_down(
    run: Run, live: LiveService, journal: Journal, call: str, at: int, *, both: bool, name: str
) -> bool:
    """A load until the service has been killed at the call; whether it has.

    Both: the writing process stops at its call, and then all are killed; the other one has told nobody by then.
    """
    assert live.process is not None
    pid, how = (live.writer_pid, "SIGSTOP") if both else (live.process.pid, "SIGKILL")
    record = run.folder / "trace"
    record.write_text("")
    load = Load(journal, url=live.url, api_key=live.admin_key, seed=run.seed, clients=CLIENTS, name=name)

    def is_reached() -> bool:
        return "stopped by SIGSTOP" in record.read_text() if both else not _lives(pid)

    with tracing.attached(pid, record, calls=call, inject=[f"{call}:signal={how}:when={at}"]):
        asked = asyncio.create_task(load.run(count=ASKS_MAX if both else ASKS_MAX // 2))
        while not asked.done() and not is_reached():
            await asyncio.sleep(0.005)
    if not is_reached():  # nor will it be: an idle process makes calls too, but nobody traces them now
        return False
    with contextlib.suppress(ProcessLookupError):
        if both:
            os.killpg(live.process.pid, signal.SIGKILL)
    dead = live.process.pid
    await until_async(lambda: not _lives(dead), "the killed process has ended", every_s=0.005)
    await asked
    return True


ROW = Row(
    "syscalls",
    "kill at each system call of a service under load",
    "strace -e inject=CALL:signal=SIGKILL:when=N",
    share=0.14,
    at_least=40,
    inject=inject,
    mutants=tuple(lies.LIES),
)
