"""GET /metrics: everything that is measured, as text for Prometheus; the same is sent over OTLP where that is on.

A scrape costs a few milliseconds however large the ledger is: it reads counters, one row, and the sizes of files.
"""

import contextlib
import os
import platform
import resource
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from litestar import Response, Router, get

from service import __version__
from service.api.auth import opened
from service.api.request import ApiRequest, Passbook
from service.ledger.integrity import IntegrityStatus
from service.measures import CONTENT_TYPE, Family, Kind, Metric, Value, gauge, to_prometheus
from service.repository.writer import WriteState
from service.storage import audit_chain, figures
from service.storage.audit_chain import TreeBroken
from service.storage.sqlite import DatabaseError

_PAGE_BYTES = resource.getpagesize()
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@get(
    "/metrics",
    operation_id="metrics",
    summary="What is measured",
    media_type="text/plain",
    opt=opened(produces=("text/plain",)),
)
async def metrics(request: ApiRequest) -> Response[str]:
    """For Prometheus, in its text format 0.0.4. Names no user."""
    return Response(to_prometheus(collect(request.passbook)), media_type=CONTENT_TYPE)


def collect(passbook: Passbook) -> list[Family]:
    """All that is measured, as it is now."""
    return [
        *passbook.measures.families(),
        *_of_limits(passbook),
        *_of_writer(passbook),
        *_of_audit_log(passbook),
        *_of_ledger(passbook),
        *_of_files(passbook.database),
        *_of_process(passbook.measures.started_at_ns),
        *_of_writing_process(passbook.writes_in()),
        gauge(
            "passbook.build.info",
            "",
            "Always 1; the versions are its attributes.",
            1,
            version=__version__,
            schema_version=str(passbook.schema_version),
            sqlite_version=passbook.engine.version,
            python_version=platform.python_version(),
        ),
    ]


def _of_limits(passbook: Passbook) -> Iterator[Family]:
    limits = passbook.limits
    yield Family(limits.limited.metric, limits.limited.points)
    yield gauge("passbook.bodies.size", "By", "Bodies of requests that are being answered.", limits.bodies_bytes)
    yield gauge("passbook.bodies.limit", "By", "What they may take together.", limits.bodies_bytes_max)


def _of_writer(passbook: Passbook) -> Iterator[Family]:
    writer = passbook.writer
    yield gauge("passbook.writer.queue.depth", "{write}", "Writes that wait for their commit.", writer.queue_depth)
    yield gauge("passbook.writer.queue.limit", "{write}", "Writes that may wait; more get 503.", writer.queue_max)
    stopped = int(writer.stopped_because is not None)
    age_s = writer.call_age_s
    yield gauge(
        "passbook.writer.batch.age", "s", "How long the batch under way has taken; 0 where there is none.", age_s
    )
    now = writer.condition.state
    yield Family(
        Metric(
            "passbook.writer.state", Kind.GAUGE, "", "1 for what is so: ok, or what keeps writes from it.", ("state",)
        ),
        {(state.value,): int(state is now) for state in WriteState},
    )
    yield gauge("passbook.writer.stopped", "", "1 when no writes are taken until a restart.", stopped)


def _of_audit_log(passbook: Passbook) -> Iterator[Family]:
    size = "Rows of the audit log that are sealed."
    # Where the database cannot be read, all the other figures are needed most.
    with contextlib.suppress(DatabaseError, TreeBroken):
        tree = audit_chain.tree(passbook.lookups)  # one row; the readers may all be busy for long
        yield gauge("passbook.audit.tree.size", "{leaf}", size, tree.size)
    signed = passbook.checkpoints.signer.last
    covered = signed.size if signed else 0
    yield gauge("passbook.audit.checkpoint.size", "{leaf}", "Rows that the last signed checkpoint covers.", covered)


def _of_ledger(passbook: Passbook) -> Iterator[Family]:
    found = passbook.figures
    if found.ledger is not None:
        yield gauge("passbook.ledger.balance_won", "{won}", "The sum of all balances.", found.ledger.balance)
        yield gauge("passbook.ledger.accounts", "{account}", "Accounts that the sum is of.", found.ledger.users)
        yield gauge("passbook.ledger.read.timestamp", "s", "When the sum was read, since 1970.", found.read_at)
    proof = passbook.proofs.last
    if proof is not None and proof.finished_at is not None:
        sound = int(proof.report().status is IntegrityStatus.SOUND)
        yield gauge("passbook.integrity.sound", "", "1 when the last proof found all sound, 0 when not.", sound)
        finished_at = proof.finished_at.timestamp()
        yield gauge("passbook.integrity.finished.timestamp", "s", "When the last proof ended, since 1970.", finished_at)
        age = (passbook.clock() - proof.finished_at) / timedelta(seconds=1)
        yield gauge("passbook.integrity.age", "s", "How long ago the last proof ended.", max(0.0, age))


def _of_files(database: Path) -> Iterator[Family]:
    try:
        found = figures.of_files(database)
    except OSError:
        return
    yield gauge("passbook.database.size", "By", "The database without its write-ahead log.", found.database)
    yield gauge("passbook.database.wal.size", "By", "The write-ahead log beside it.", found.wal)
    yield gauge("passbook.database.disk.free", "By", "What the file system of the database still takes.", found.free)


def _of_process(started_at_ns: int) -> Iterator[Family]:
    """By the names that every client library of Prometheus gives them."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    found: list[tuple[str, Kind, str, str, str, Value]] = [
        ("cpu.time", Kind.COUNTER, "s", "Processor time.", "cpu_seconds_total", used.ru_utime + used.ru_stime),
        ("start.timestamp", Kind.GAUGE, "s", "When it began, since 1970.", "start_time_seconds", started_at_ns / 1e9),
    ]
    try:
        resident = _resident_bytes("self")
        opened = len(os.listdir("/proc/self/fd"))
    except OSError:
        pass  # only Linux tells
    else:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        unit = "{file_descriptor}"
        found += [
            ("memory.usage", Kind.GAUGE, "By", "Resident memory.", "resident_memory_bytes", resident),
            ("unix.file_descriptor.count", Kind.GAUGE, unit, "Open file descriptors.", "open_fds", opened),
            ("unix.file_descriptor.limit", Kind.GAUGE, unit, "Those that may be open.", "max_fds", limit),
        ]
    for name, kind, unit, description, prometheus, value in found:
        metric = Metric(f"process.{name}", kind, unit, description, prometheus=f"process_{prometheus}")
        yield Family(metric, {(): value})


def _resident_bytes(pid: int | str) -> int:
    """Raises OSError where there is no such process, and everywhere but on Linux."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * _PAGE_BYTES


def _of_writing_process(pid: int | None) -> Iterator[Family]:
    """The same of the process that owns the writing connection, which counts from 0 when it had to be started anew."""
    if pid is None:
        return
    try:
        # After the name in brackets, which may hold anything: the 12th and the 13th are the ticks of user and system.
        ticks = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[11:13]
        resident = _resident_bytes(pid)
    except OSError:
        return  # not on Linux, or it ended just now
    whose = "of the process that owns the writing connection."
    cpu = Metric("passbook.writer.process.cpu.time", Kind.COUNTER, "s", f"Processor time {whose}")
    yield Family(cpu, {(): sum(map(int, ticks)) / _TICKS_PER_S})
    yield gauge("passbook.writer.process.memory.usage", "By", f"Resident memory {whose}", resident)


ROUTER = Router("/", route_handlers=[metrics], tags=["health"])
BODIES: list[object] = []
