"""The disk says no: EIO at fsync, write and read, once and from then on, and ENOSPC, for a service under load."""

import asyncio
import contextlib
import json
import os
import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.faults import lies, tracing
from tests.faults.disks import fill, small_disk_or_none
from tests.faults.journal import Journal, Load, check
from tests.faults.row import Row, Run
from tests.faults.variants import OFTEN_CHECKPOINTED, variant
from tests.live import LiveService

ACTOR = "first-admin"
CLIENTS = 8
ASKS = 12


@dataclass(frozen=True)
class Error:
    """`calls` of the writing process on the file that ends with `file` fail with `error`; `places` are tried."""

    name: str
    calls: str
    error: str
    file: str
    places: tuple[str, ...]
    stops: bool = True
    """Whether the writer must take no more writes after it, until a restart, if a commit made the call."""


ERRORS = (
    Error("fsync EIO once", "fsync,fdatasync", "EIO", "passbook.db-wal", ("1", "2", "5")),
    Error("fsync EIO from then on", "fsync,fdatasync", "EIO", "passbook.db-wal", ("1+", "3+")),
    Error("write EIO once", "pwrite64", "EIO", "passbook.db-wal", ("1", "9", "31")),
    Error("write EIO from then on", "pwrite64", "EIO", "passbook.db-wal", ("1+", "20+")),
    Error("fsync EIO of the database", "fsync,fdatasync", "EIO", "passbook.db", ("1", "1+"), stops=False),
    Error("read EIO from then on", "pread64", "EIO", "passbook.db", ("1+",), stops=False),
    Error("ENOSPC once", "pwrite64", "ENOSPC", "passbook.db-wal", ("1", "9", "31"), stops=False),
    Error("ENOSPC from then on", "pwrite64", "ENOSPC", "passbook.db-wal", ("1+", "20+"), stops=False),
)


def inject(run: Run) -> None:
    """Each error at each place, as far as the time goes; then a disk that is really full."""
    run.skipped = tracing.why_not()
    if run.skipped:
        return
    environment = variant(run.folder / "variant", [OFTEN_CHECKPOINTED])
    cases = [(error, place) for place in range(3) for error in ERRORS if place < len(error.places)]
    told = 0
    for number, (error, place) in enumerate(cases):
        if not run.goes_on(number):
            break
        told += _writer(run, error, error.places[place], environment, run.folder / f"{number}", lie=number == 0)
    run.must(told > 0, "no injected error was ever told to a client")
    _reader(run)


def _writer(run: Run, error: Error, when: str, environment: dict[str, str], folder: Path, *, lie: bool) -> int:
    """How many requests were told that something failed."""
    folder.mkdir()
    where = f"{error.name} ({error.calls} {when})"
    live = LiveService(folder / "passbook.db", environment=environment).start()
    with Journal.opened(folder / "journal") as journal:
        asyncio.run(_load(live, journal, run.seed, "before"))
        inject = [f"{error.calls}:error={error.error}:when={when}"]
        target = live.database.with_name(error.file)
        pid = live.writer_pid
        traced = f"{error.calls},pwrite64"
        with tracing.attached(pid, folder / "trace", calls=traced, inject=inject, paths=[target]):
            asyncio.run(_load(live, journal, run.seed, "during"))
            ready = live.client().get("/readyz").status_code
            probe = live.client().get("/v1/deposits", params={"limit": 1})
            run.must(probe.status_code == 200, f"{where}: a read was answered {probe.status_code}")
        trace = (folder / "trace").read_text()
        injected = trace.count("(INJECTED)")
        run.count("errors injected", injected)
        run.count(f"{error.name}: injected", injected)
        after = live.client().write("/v1/debits", {"telegram_id": "7700", "amount": 10**9, "reason": "x"}).status_code
        refused = _refused(journal)
        if error.stops and hurts_a_commit(trace):
            run.must(ready == 503, f"{where}: /readyz said {ready} after the error")
            run.must(
                after == 503, f"{where}: a write after the error was answered {after}; the writer must have stopped"
            )
        elif error.error == "ENOSPC":
            run.must(
                after in {201, 409, 404}, f"{where}: with space again a write was answered {after}, without a restart"
            )
        run.must({status for status, _ in refused.values()} <= {503}, f"{where}: {set(refused.values())}")
        run.must(live.stop(code=None) == 0, f"{where}: {live.said[-300:]}")
        run.must("unexpected" not in live.said, f"{where}: the log calls it unexpected: {live.said[-300:]}")
        stored = _stored(live.database)
        for key, (_, code) in refused.items():
            outcome = "done" if key in stored else "not done"
            run.count(f"{code}, {outcome}")
            run.must(
                outcome == "not done" or code == "outcome_unknown",
                f"{where}: {key} was told {code}, which says that nothing was changed, and it is done",
            )
        live.start()
        found = check(live.database, journal, live, actor=ACTOR, api_key=live.admin_key)
        found.broken = [fault for fault in found.broken if "that nobody asked for" not in fault]  # the probe above
        run.found(found, where)
        run.must(live.stop(code=None) == 0, f"{where}: {live.said[-300:]}")
        if lie:
            lies.tell(run, live.database, journal.entries, actor=ACTOR)
    return len(refused)


def hurts_a_commit(trace: str) -> bool:
    """Whether a call that was made to fail was a commit's: a write, or a sync that follows a write since the last sync.

    A checkpoint syncs the log too, before it copies frames that their commits have synced: its failure loses nothing.
    """
    written = pending = 0
    for line in trace.splitlines():
        if "pwrite64(" in line:
            written += 1
            pending = written
        elif "sync(" in line:
            written, pending = 0, written
        if "(INJECTED)" in line and pending:
            return True
    return False


async def _load(live: LiveService, journal: Journal, seed: int, name: str) -> None:
    load = Load(journal, url=live.url, api_key=live.admin_key, seed=seed, clients=CLIENTS, name=name)
    await load.run(count=ASKS)


def _refused(journal: Journal) -> dict[str, tuple[int, str]]:
    """Of each key with no better answer: the last 5xx."""
    return {
        entry.key: (attempt.status, json.loads(attempt.answer)["code"])
        for entry in journal.entries.values()
        if not entry.answers
        for attempt in entry.attempts
        if attempt.status is not None and attempt.answer is not None
    }


def _stored(database: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        return {key for (key,) in connection.execute("SELECT idempotency_key FROM idempotency_answers")}


def _reader(run: Run) -> None:
    """The process that speaks HTTP cannot read the file: every answer is a problem with a code, and it gets over it."""
    folder = run.folder / "reader"
    folder.mkdir()
    live = LiveService(folder / "passbook.db").start()
    client = live.client()
    for number in range(30):
        client.credit(str(100 + number), 5)
    assert live.process is not None
    told: Counter[str] = Counter()
    inject = ["pread64:error=EIO:when=1+"]
    paths = [live.database, live.database.with_name("passbook.db-wal")]
    with tracing.attached(live.process.pid, folder / "trace", calls="pread64", inject=inject, paths=paths):
        for number in range(60):
            answer = client.get(f"/v1/users/{100 + number % 30}/balance")
            if answer.status_code >= 500:
                told[answer.json()["code"]] += 1
            run.must(answer.status_code in {200, 500, 503}, f"read EIO: {answer.status_code} {answer.text[:200]}")
    run.count("errors injected", (folder / "trace").read_text().count("(INJECTED)"))
    for code, number in told.items():
        run.count(f"read EIO of the HTTP process: {code}", number)
    after = client.get("/v1/users/100/balance").status_code
    run.must(after == 200, f"after read EIO of the HTTP process a read is answered {after}")
    run.must(live.stop(code=None) == 0, live.said[-500:])


def full_disk(run: Run) -> None:
    """A small disk runs full under load, is emptied, and runs full again: without a restart."""
    with small_disk_or_none(run.folder / "disk", "24m") as disk:
        if disk is None:
            run.skipped = "a small disk can be mounted by root only, outside most containers"
            return
        live = LiveService(disk / "passbook.db").start()
        with Journal.opened(run.folder / "journal") as journal:
            number = 0
            while run.goes_on(number):
                number += 1
                fill(disk / "filler")
                refused_before = len(_refused(journal))
                for part in range(40):
                    asyncio.run(_load(live, journal, run.seed, f"full{number}.{part}"))
                    if len(_refused(journal)) > refused_before:
                        break
                else:
                    run.broken.append("the disk was full and nobody was refused")
                read = live.client().get("/v1/deposits", params={"limit": 1}).status_code
                run.must(read == 200, f"with the disk full a read was answered {read}")
                codes = set(_refused(journal).values())
                run.must({code for _, code in codes} <= {"storage_full"}, f"with the disk full: {codes}")
                (disk / "filler").unlink()
                _until_ready(run, live, journal, f"again{number}")
                run.count("times full")
                run.count("writes refused", len(_refused(journal)))
                run.found(check(live.database, journal, live, actor=ACTOR, api_key=live.admin_key), f"full {number}")
                if _disk_is_small(disk):
                    break
            run.must(live.stop(code=None) == 0, live.said[-500:])
            lies.tell(run, live.database, journal.entries, actor=ACTOR)


def _until_ready(run: Run, live: LiveService, journal: Journal, name: str) -> None:
    """Space again: without a restart writes succeed and /readyz says so."""
    for part in range(20):
        refused = len(_refused(journal))
        asyncio.run(_load(live, journal, run.seed, f"{name}.{part}"))
        if len(_refused(journal)) == refused and live.client().get("/readyz").status_code == 200:
            return
    run.broken.append(f"with space again: {live.client().get('/readyz').text[:300]}")


def _disk_is_small(disk: Path) -> bool:
    """Whether the ledger has grown so much that the next round would be full without a filler."""
    left = os.statvfs(disk)
    return left.f_bavail * left.f_frsize < 2 * 2**20


ROWS = (
    Row(
        "io-errors",
        "fsync EIO once and sticky, write and read EIO, ENOSPC",
        "strace -e inject=CALL:error=E:when=N",
        share=0.1,
        at_least=8,
        inject=inject,
        mutants=tuple(lies.LIES),
    ),
    Row(
        "disk-full",
        "disk full, then space again",
        "a small tmpfs and a file that fills it",
        share=0.03,
        at_least=1,
        inject=full_disk,
        mutants=tuple(lies.LIES),
    ),
)
