"""`make bench` and `make bench-full`: every figure of docs/performance.md in one run, as ratios.

The machine may be shared and its speed may drift: what is compared runs by turns, in rounds of a few seconds, and a
figure is the median of the rounds' ratios with the least and the most of them. Load comes from other processes. Every
write is committed with synchronous=FULL before it is answered. At the end the service is killed with SIGKILL in the
midst of load, and the database must hold every write that was answered and keep every invariant.

F: POST /empty and GET /empty/… – key check, strict body, an answer; nothing is stored. P: POST /v1/deposits and
/v1/debits by turns – the same, and the transaction, its audit row, the leaf above it and the stored answer. S: the same
writes without HTTP. N: naive.py. PostgreSQL: postgres.py. `--full` goes to ten million transactions instead of some
hundred thousand.
"""

import argparse
import contextlib
import http.client
import io
import multiprocessing
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from service.storage.sqlite import DRIVER_NAME, SQLITE_VERSION, side_files
from tests.benchmarks import integrity, postgres, report, storage
from tests.benchmarks.figures import (
    Goal,
    Line,
    Load,
    Plot,
    Report,
    Row,
    Spread,
    interleaved,
    p50_ms,
    p99_ms,
    per_s,
    percentile,
    ratio,
    spread,
)
from tests.benchmarks.processes import PEERS, Server, Wrk, disk_reads, output_of, rss_mib, serving
from tests.benchmarks.telemetry import Cost
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, PASSBOOK, passbook
from tests.some import some

T = TypeVar("T")

CONNECTIONS = (1, 8, 64, 256)
MANY = 64
USERS = storage.USERS
SMALL = 10_000
"""Transactions in the database that most figures are taken on: 50 of each user."""
BATCHES = (16, 64, 256)


class Scale(Struct, frozen=True, kw_only=True):
    """How much is done. sizes: transactions in the databases that are compared, in `times_for_sizes` times the rounds,
    since a large one's figures vary the most; writes: after which memory is read.
    """

    name: str
    rounds: int
    times_for_sizes: int
    seconds: int
    sizes: tuple[int, ...]
    writes: int


BRIEF = Scale(name="make bench", rounds=3, times_for_sizes=1, seconds=3, sizes=(SMALL, 30_000, 100_000), writes=40_000)
FULL = Scale(
    name="make bench-full", rounds=4, times_for_sizes=3, seconds=5, sizes=(SMALL, 1_000_000, 10_000_000),
    writes=1_000_000,
)  # fmt: skip


class Bench:
    """One run: parts that add rows and plots. Lifetime: one `make bench`."""

    def __init__(self, scale: Scale, folder: Path, kept: Path | None, show: Callable[[str], None]) -> None:
        self.scale = scale
        self.folder = folder
        self.kept = kept
        self.show = show
        self.rows: list[Row] = []
        self.plots: list[Plot] = []
        self.checks: dict[str, str] = {}
        self.settings: dict[str, str] = {}
        self.acknowledged = 0
        self.databases = self._databases()
        self.key = ""

    def _databases(self) -> dict[int, Path]:
        """Built in processes of their own, all at once: nothing is measured yet."""
        self.show(f"databases of {', '.join(f'{size:,}' for size in self.scale.sizes)} transactions")
        paths = {size: self.folder / f"{size}.db" for size in self.scale.sizes}
        builders = [multiprocessing.Process(target=_build, args=(*given, self.kept)) for given in paths.items()]
        for builder in builders:
            builder.start()
        for builder in some(builders):
            builder.join()
            assert builder.exitcode == 0
        os.sync()  # Or the disk would be busy with them while it is measured.
        return paths

    def _key_of(self, database: Path) -> str:
        made = passbook("keys", "create", "--name", "bench", "--role", "admin", "--database", str(database))
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    def _row(
        self, name: str, what: str, value: Spread, *, unit: str = "", goal: Goal | None = None, figures: str = ""
    ) -> None:
        self.rows.append(Row(name=name, what=what, value=value, unit=unit, goal=goal, figures=figures))

    def _rounds(self, part: str, runs: dict[str, Callable[[int], T]], rounds: int = 0) -> dict[str, list[T]]:
        return interleaved(runs, rounds or self.scale.rounds, lambda step: self.show(f"{part}: {step}"))

    def run(self) -> None:
        """Everything on the small database, then what compares sizes, then the kill."""
        copy = self.folder / "storage.db"
        fresh = self.folder / "memory.db"
        little = self.folder / "little.db"
        for another in (copy, fresh, little):
            shutil.copyfile(self.databases[SMALL], another)
        self.key = self._key_of(self.databases[SMALL])
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(serving("tests.benchmarks.serve", str(self.databases[SMALL])))
            engine = stack.enter_context(storage.child(copy))
            wrk = Wrk(server.url, self.key, users=USERS)
            self.show("the first 10,000 writes")
            while self.acknowledged < 10_000:
                self._write(wrk, "mixed", f"first-{self.acknowledged}")
            with contextlib.ExitStack() as peers:
                naive = peers.enter_context(
                    serving("tests.benchmarks.naive", str(self.folder / "naive.db"), self.key, python=PEERS)
                )
                cluster = peers.enter_context(postgres.running())
                self.settings["PostgreSQL"] = f"{cluster.version}; {cluster.settings}; pgbench -M prepared, Unix socket"
                self._throughput(wrk, Wrk(naive.url, self.key, users=USERS), cluster, engine)
                self._lone(wrk, engine)
                self._other_connections(wrk, Wrk(naive.url, self.key, users=USERS), cluster)
                naive.kill()
            self.checks["N, after 64 connections"] = _told_of_naive(self.folder / "naive.db")
            self._large_batches(server, engine)
            self._memory(fresh)
            self._sizes({**self.databases, SMALL: little})
            self._kill(server, wrk)
            self._sealing(engine)
        self._telemetry()
        self._verify()
        self._start()

    def _write(self, wrk: Wrk, kind: str, run: str, *, connections: int = MANY, seconds: float = 0) -> Load:
        load = wrk.sound(kind, run, connections=connections, seconds=seconds or self.scale.seconds)
        if kind in {"mixed", "announce"}:
            self.acknowledged += load.requests
        return load

    def _throughput(self, wrk: Wrk, naive: Wrk, cluster: postgres.Postgres, engine: storage.Child) -> None:
        seconds = self.scale.seconds
        best = {kind: self._best_batch(engine, kind) for kind in ("mixed", "announce")}
        runs: dict[str, Callable[[int], Load]] = {
            "F": lambda n: self._write(wrk, "empty", f"F{n}"),
            "P": lambda n: self._write(wrk, "mixed", f"P{n}"),
            "P announce": lambda n: self._write(wrk, "announce", f"A{n}"),
            "S": lambda _: engine.load(f"mixed {best['mixed']} {seconds}"),
            "S announce": lambda _: engine.load(f"announce {best['announce']} {seconds}"),
            "N": lambda n: naive.run("mixed", f"N{n}", connections=MANY, seconds=seconds),
            "PostgreSQL": lambda _: cluster.load(connections=MANY, seconds=seconds),
            "F GET": lambda n: self._write(wrk, "empty_get", f"FG{n}"),
            "G": lambda n: self._write(wrk, "balance", f"G{n}"),
        }
        found = self._rounds(f"{MANY} connections", runs)
        self.many = found

        def said(*names: str) -> str:
            return ", ".join(f"{name} {per_s(found[name]):,.0f}/s" for name in names)

        self._row(
            "P/F", "durable deposits and debits ÷ the empty handler", ratio(found["P"], found["F"]),
            goal=Goal(True, 0.60),
            figures=f"{said('P', 'F')}; p50 {p50_ms(found['P']):.1f} ms, p99 {p99_ms(found['P']):.1f} ms",
        )  # fmt: skip
        self._row(
            "P/F, announcements", "announcements alone ÷ the empty handler", ratio(found["P announce"], found["F"]),
            figures=f"{said('P announce')}; p99 {p99_ms(found['P announce']):.1f} ms",
        )  # fmt: skip
        self._row(
            "P/S", "durable deposits and debits ÷ the writer's batches without HTTP", ratio(found["P"], found["S"]),
            figures=f"{said('S', 'S announce')}; batches of {best['mixed']} and {best['announce']}",
        )  # fmt: skip
        failed = sum(load.not_2xx + load.broken for load in found["N"])
        self._row(
            "P/N", "durable deposits and debits ÷ FastAPI, SQLAlchemy and aiosqlite with a commit each",
            ratio(found["P"], found["N"]), goal=Goal(True, 20),
            figures=f"{said('N')}; p50 {p50_ms(found['N']):.0f} ms, p99 {p99_ms(found['N']):.0f} ms; {failed} failed",
        )  # fmt: skip
        self._row(
            "P/PostgreSQL", "durable deposits and debits ÷ the same rows in PostgreSQL under pgbench, without HTTP",
            ratio(found["P"], found["PostgreSQL"]),
            figures=f"{said('PostgreSQL')}; p99 {p99_ms(found['PostgreSQL']):.1f} ms",
        )  # fmt: skip
        self._row(
            "G/F", "reading a balance ÷ the empty GET", ratio(found["G"], found["F GET"]), goal=Goal(True, 0.75),
            figures=said("G", "F GET"),
        )  # fmt: skip

    def _best_batch(self, engine: storage.Child, kind: str) -> int:
        self.show(f"the best batch of {kind}")
        found = interleaved({str(size): lambda _, s=size: engine.load(f"{kind} {s} 0.5") for size in BATCHES}, 2)
        return int(max(found, key=lambda size: per_s(found[size])))

    def _lone(self, wrk: Wrk, engine: storage.Child) -> None:
        runs: dict[str, Callable[[int], Load]] = {
            "raw commit": lambda _: engine.load("raw 1"),
            "P": lambda n: self._write(wrk, "mixed", f"L{n}", connections=1, seconds=2),
            "F": lambda n: self._write(wrk, "empty", f"LF{n}", connections=1, seconds=1),
        }
        found = self._rounds("one connection", runs, self.scale.rounds + 2)
        over = [(p.p50_us - raw.p50_us) / 1000 for p, raw in zip(found["P"], found["raw commit"], strict=True)]
        self._row(
            "L", "median write of a lone client, less one raw commit on this disk", spread(over), unit="ms",
            goal=Goal(False, 0.5),
            figures=f"P {p50_ms(found['P']):.2f} ms, raw commit {p50_ms(found['raw commit']):.2f} ms,"
            f" F {p50_ms(found['F']):.2f} ms; p99 of P {p99_ms(found['P']):.1f} ms, of the raw commit"
            f" {p99_ms(found['raw commit']):.1f} ms",
        )  # fmt: skip

    def _other_connections(self, wrk: Wrk, naive: Wrk, cluster: postgres.Postgres) -> None:
        found: dict[str, dict[int, list[Load]]] = {name: {} for name in ("F", "P", "PostgreSQL", "N")}
        for connections in CONNECTIONS:
            if connections == MANY:
                for name, loads in found.items():
                    loads[connections] = self.many[name]
                continue
            runs: dict[str, Callable[[int], Load]] = {
                "F": lambda n, c=connections: self._write(wrk, "empty", f"F{c}-{n}", connections=c),  # type: ignore[misc]
                "P": lambda n, c=connections: self._write(wrk, "mixed", f"P{c}-{n}", connections=c),  # type: ignore[misc]
                "PostgreSQL": lambda _, c=connections: cluster.load(connections=c, seconds=self.scale.seconds),  # type: ignore[misc]
                "N": lambda n, c=connections: naive.run(  # type: ignore[misc]
                    "mixed", f"N{c}-{n}", connections=c, seconds=self.scale.seconds
                ),
            }
            for name, loads in self._rounds(f"{connections} connections", runs, 2).items():
                found[name][connections] = loads
        for name, title, label, value in (
            ("throughput", "Answers a second", "per second", per_s),
            ("p99", "99th percentile of the time of an answer", "ms", p99_ms),
        ):
            lines = [
                Line(kind, [float(c) for c in CONNECTIONS], [round(value(loads[c]), 3) for c in CONNECTIONS])
                for kind, loads in found.items()
            ]
            self.plots.append(Plot(name=name, title=title, x_label="connections", y_label=label, lines=lines))

    def _large_batches(self, server: Server, engine: storage.Child) -> None:
        """One HTTP caller posts a thousand changes after the other."""
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)

        def over_http(number: int) -> Load:
            done, spent = 0, 0.0
            while spent < self.scale.seconds:
                body = msgspec.json.encode(storage.changes(f"http-{number}-{done}", USERS))
                headers = {
                    "Authorization": f"Bearer {self.key}",
                    "Content-Type": "application/json",
                    "Idempotency-Key": f"changes-{number}-{done}",
                }
                began = time.perf_counter()
                connection.request("POST", "/v1/balance-changes", body=body, headers=headers)
                answer = connection.getresponse()
                said = answer.read()
                spent += time.perf_counter() - began
                assert answer.status == 200, said
                done += storage.CHANGES_MAX
            self.acknowledged += done
            return Load(requests=done, duration_us=spent * 1e6)

        with contextlib.closing(connection):
            found = self._rounds(
                "batches of 1,000",
                {
                    "B": over_http,
                    "S": lambda _: engine.load(f"changes 1 {self.scale.seconds}"),
                    "D": lambda _: engine.load(f"debit {max(BATCHES)} {self.scale.seconds}"),
                },
            )
        self._row(
            "B/S", "batches of 1,000 balance changes by one HTTP caller ÷ the same without HTTP",
            ratio(found["B"], found["S"]), goal=Goal(True, 0.80),
            figures=f"B {per_s(found['B']):,.0f} changes/s, S {per_s(found['S']):,.0f} changes/s",
        )  # fmt: skip
        self._row(
            "S/D", "a change of such a batch ÷ a plain debit, 256 of them in a commit, both without HTTP",
            ratio(found["S"], found["D"]), goal=Goal(True, 1.5),
            figures=f"S {per_s(found['S']):,.0f} changes/s, D {per_s(found['D']):,.0f} debits/s",
        )  # fmt: skip

    def _memory(self, fresh: Path) -> None:
        """On a server of its own, which sees nothing but this load: other kinds would add what they need once."""
        done, early = 0, 0.0
        key = self._key_of(fresh)
        with serving("tests.benchmarks.serve", str(fresh)) as server:
            wrk = Wrk(server.url, key, users=USERS)
            while done < self.scale.writes:
                self.show(f"memory: {done:,} of {self.scale.writes:,} writes")
                seconds = 10 if early else self.scale.seconds
                done += wrk.sound("mixed", f"memory-{done}", connections=MANY, seconds=seconds).requests
                if not early and done >= 10_000:
                    early = rss_mib(server.process.pid)
            late = rss_mib(server.process.pid)
        for file in (fresh, *side_files(fresh)):
            file.unlink(missing_ok=True)  # It would take room in the page cache from those that are compared next.
        self._row(
            "M", f"resident memory after {done:,} writes ÷ after 10,000", spread([late / early]),
            goal=Goal(False, 1.2), figures=f"{late:.0f} MiB, {early:.0f} MiB; the service and its children",
        )  # fmt: skip

    def _sizes(self, databases: dict[int, Path]) -> None:
        """P, a lone client and pages of the audit log in databases of each size, by turns."""
        with contextlib.ExitStack() as stack:
            at: dict[int, tuple[Server, str]] = {}
            for size, database in databases.items():
                key = self._key_of(database)
                at[size] = (stack.enter_context(serving("tests.benchmarks.serve", str(database))), key)
            loads = {size: Wrk(server.url, key, users=size // 50) for size, (server, key) in at.items()}

            def write(part: str, size: int, connections: int, number: int) -> Load:
                run = f"{part}{size}-{number}"
                return loads[size].sound("mixed", run, connections=connections, seconds=self.scale.seconds)

            self.show("the databases into memory")
            for database in databases.values():
                _read(database)
            for wrk in loads.values():
                wrk.sound("mixed", "warm", connections=MANY, seconds=1)
            largest = str(self.scale.sizes[-1])
            in_largest = at[int(largest)][0].process.pid
            before = disk_reads(in_largest)
            runs = {str(size): partial(write, "W", size, MANY) for size in at}
            many = self._rounds("sizes, 64 connections", runs, self.scale.rounds * self.scale.times_for_sizes)
            read = disk_reads(in_largest) - before
            lone = self._rounds("sizes, one connection", {str(s): partial(write, "lone", s, 1) for s in at}, 2)
            written = sum(load.requests for load in many[largest])
            self._row(
                "W", f"writes at {int(largest):,} transactions ÷ writes at {SMALL:,}, both in memory",
                ratio(many[largest], many[str(SMALL)]), goal=Goal(True, 0.8),
                figures=", ".join(f"{int(size):,}: {per_s(found):,.0f}/s" for size, found in many.items())
                + f"; p99 {p99_ms(many[str(SMALL)]):.0f} ms and {p99_ms(many[largest]):.0f} ms, {read / written:,.0f}"
                " bytes from the disk with each write in the largest",
            )  # fmt: skip
            sizes = [float(size) for size in self.scale.sizes]
            self.plots.append(
                Plot(
                    name="size",
                    title="Time of a durable write by the size of the ledger",
                    x_label="transactions",
                    y_label="ms",
                    lines=[
                        Line(
                            f"{name}, {clients}",
                            sizes,
                            [round(value(found[str(size)]), 3) for size in self.scale.sizes],
                        )
                        for clients, found in (("1 connection", lone), (f"{MANY} connections", many))
                        for name, value in (("p50", p50_ms), ("p99", p99_ms))
                    ],
                )
            )
            self._pages(at)

            def write_cold(number: int) -> Load:
                _forget(databases[int(largest)])
                return write("cold", int(largest), MANY, number)

            from_disk: dict[str, Callable[[int], Load]] = {
                str(SMALL): partial(write, "beside", SMALL, MANY),
                largest: write_cold,
            }
            cold = self._rounds(f"from the disk, {MANY} connections", from_disk)
            self._row(
                "W from the disk",
                f"writes in the same databases, with nothing of the {int(largest):,} in the page cache at first",
                ratio(cold[largest], cold[str(SMALL)]),
                figures=f"{per_s(cold[largest]):,.0f}/s, p99 {p99_ms(cold[largest]):.0f} ms",
            )  # fmt: skip

    def _pages(self, at: dict[int, tuple[Server, str]]) -> None:
        largest = self.scale.sizes[-1]
        filters = {
            "by telegram_id": {"telegram_id": str(storage.FIRST_USER + 7)},
            "by action": {"action": "balance_debited"},
            "by action and day": {"action": "balance_debited", "on": "2026-01-01"},
        }
        with contextlib.ExitStack() as stack:
            asks = {size: stack.enter_context(_asking(*at[size])) for size in (SMALL, largest)}
            for name, query in filters.items():
                found = self._rounds(
                    f"a page of the audit log {name}",
                    {str(size): partial(_pages_p50_ms, ask, query) for size, ask in asks.items()},
                    10,
                )
                ratios = [large / little for large, little in zip(found[str(largest)], found[str(SMALL)], strict=True)]
                self._row(
                    f"A {name}", f"median page of the audit log at {largest:,} transactions ÷ at {SMALL:,}",
                    spread(ratios), goal=Goal(False, 1.5),
                    figures=", ".join(f"{int(s):,}: {statistics.median(times):.2f} ms" for s, times in found.items()),
                )  # fmt: skip

    def _kill(self, server: Server, wrk: Wrk) -> None:
        """SIGKILL under load; what was answered must be there."""
        self.show("SIGKILL under load")
        database = self.databases[SMALL]
        before = _transactions_in(database)
        dying = wrk.start("mixed", "dying", connections=MANY, seconds=3)
        while _transactions_in(database) < before + 500:
            time.sleep(0.01)
        server.kill()
        said, _ = dying.communicate()
        last = msgspec.json.decode(said.splitlines()[-1], type=Load)
        answered = SMALL + self.acknowledged + last.requests - last.not_2xx
        kept = _transactions_in(database)
        self.show("the invariants")
        broken = broken_invariants(database)
        self.checks["SIGKILL under load"] = f"{answered:,} transactions answered, {kept:,} in the database: " + (
            "none is missing" if kept >= answered else f"{answered - kept:,} ARE MISSING"
        )
        self.checks["invariants"] = "; ".join(broken) or "all hold"
        for name, command in (("integrity", ("integrity",)), ("audit verify", ("audit", "verify"))):
            self.show(name)
            done = subprocess.run(
                [*PASSBOOK, *command, "--database", str(database)],
                cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            told = " ".join((done.stdout + done.stderr).split())[:500]
            self.checks[f"passbook {name}"] = "sound" if done.returncode == 0 else f"exit {done.returncode}: {told}"
        self.failed = (
            bool(broken)
            or kept < answered
            or any(not said.startswith("sound") for name, said in self.checks.items() if name.startswith("passbook"))
        )

    def _sealing(self, engine: storage.Child) -> None:
        self.show("the cost of sealing")
        cost = engine.sealing(MANY, 100)
        self._row(
            "sealing", "processor time of the writer for announcements with the audit chain ÷ without",
            cost.ratio, figures=f"{cost.with_us.median:.0f} µs and {cost.without_us.median:.0f} µs, batches of {MANY}",
        )  # fmt: skip

    def _telemetry(self) -> None:
        self.show("metrics and traces")
        said = output_of([sys.executable, "-m", "tests.benchmarks.telemetry", "2", "--json"])
        for cost in msgspec.json.decode(said, type=list[Cost]):
            if cost.kind == "deposit" and cost.variant != "bare":
                self._row(
                    cost.variant, f"processor time of an announcement with {cost.variant} ÷ without, no HTTP",
                    cost.ratio, figures=f"{cost.us.median:.0f} µs",
                )  # fmt: skip

    def _verify(self) -> None:
        largest = self.databases[self.scale.sizes[-1]]
        rates, rows = [], 0
        for number in range(1 if self.scale.name == FULL.name else 3):
            self.show(f"audit verify, {number + 1}")
            said = msgspec.json.decode(
                output_of(
                    [sys.executable, "-m", "service.cli", "audit", "verify", "--json", "--database", str(largest)]
                )
            )
            assert said["sound"], said
            rows = said["checked"]
            rates.append(rows / said["seconds"])
        self._row(
            "V", "`passbook audit verify`", spread(rates), unit="rows/s", goal=Goal(True, 250_000),
            figures=f"{rows:,} rows",
        )  # fmt: skip

    def _start(self) -> None:
        size = self.scale.sizes[1 if self.scale.name == FULL.name else -1]
        database, taken = self.databases[size], []
        for number in range(5):
            self.show(f"start, {number + 1}")
            began = time.perf_counter()
            with serving("tests.benchmarks.serve", str(database)) as server:
                connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
                with contextlib.closing(connection):
                    connection.request("GET", "/readyz")
                    assert connection.getresponse().status == 200
                taken.append(time.perf_counter() - began)
        self._row(
            "C", f"from the start of the process to /readyz, a database of {database.stat().st_size / 1e9:.2f} GB",
            spread(taken), unit="s", goal=Goal(False, 1.5),
        )  # fmt: skip


def _build(size: int, path: Path, kept: Path | None) -> None:
    """Makes the database; with `kept`, a folder, as a copy of the one there, which is made when there is none."""
    with contextlib.redirect_stdout(io.StringIO()):
        if kept is None:
            integrity.build(path, size, notifications=False)
            return
        original = kept / path.name
        if not original.exists():
            with tempfile.TemporaryDirectory(prefix="unfinished-", dir=kept) as folder:
                integrity.build(Path(folder) / path.name, size, notifications=False)
                (Path(folder) / path.name).rename(original)
        shutil.copyfile(original, path)
        _forget(original)  # Or it would take the page cache's room from the copy, which is the one that is used.


def _read(database: Path) -> None:
    """Brings all of it into the page cache, as far as that has room, in the pages that reads at random leave there.

    What is copied or read in sequence stands there in pieces of up to 2 MiB (seen on ext4, Linux 6.18), and a page
    written into one of those takes its writer longer.
    """
    _forget(database)
    with database.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        while file.read(2**24):
            pass


def _forget(database: Path) -> None:
    """Has the page cache drop all of it."""
    os.sync()
    for file in (file for file in (database, *side_files(database)) if file.exists()):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _asking(server: Server, key: str) -> Iterator[Callable[[dict[str, str]], float]]:
    """Asks for a page of the audit log; the milliseconds that it took."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)

    def ask(query: dict[str, str]) -> float:
        began = time.perf_counter()
        connection.request("GET", f"/v1/audit-logs?{urlencode(query)}", headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        body = answer.read()
        took = (time.perf_counter() - began) * 1000
        assert answer.status == 200, body
        assert msgspec.json.decode(body)["items"], query
        return took

    with contextlib.closing(connection):
        yield ask


def _pages_p50_ms(ask: Callable[[dict[str, str]], float], query: dict[str, str], _number: int) -> float:
    return percentile([ask(query) for _ in range(30)], 0.5)


def _told_of_naive(database: Path) -> str:
    """Whether the naive peer's balances are what its own confirmed debits leave of them."""
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    with contextlib.closing(connection):
        users, moved, debited, wrong, twice = connection.execute(
            "WITH a AS (SELECT d.user_id, 1000000000 - d.balance AS moved, (SELECT COALESCE(SUM(amount), 0) FROM"
            " deposit_transactions AS t WHERE t.user_id = d.user_id AND t.status = 'confirmed') AS debited"
            " FROM user_deposits AS d) SELECT COUNT(*), SUM(moved), SUM(debited), SUM(moved <> debited), (SELECT"
            " COUNT(*) FROM (SELECT 1 FROM deposit_transactions WHERE version IS NOT NULL GROUP BY user_id, version"
            " HAVING COUNT(*) > 1)) FROM a"
        ).fetchone()
    if not wrong:
        return f"{debited:,} won debited, and the balances say the same"
    return (
        f"{debited:,} won debited and answered, {moved:,} taken from the balances: {debited - moved:,} lost;"
        f" {wrong} of {users} balances are not the sum of their transactions, {twice:,} versions were given out twice"
    )


def _transactions_in(database: Path) -> int:
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    with contextlib.closing(connection):
        count: int = connection.execute("SELECT COUNT(*) FROM deposit_transactions").fetchone()[0]
    return count


def _settings(scale: Scale, folder: Path) -> dict[str, str]:
    peers = output_of(
        [PEERS, "-c", "from importlib.metadata import version as v; print(*(f'{n} {v(n)}' for n in ('fastapi',"
         " 'sqlalchemy', 'aiosqlite', 'uvicorn')), sep=', ')"]
    ).strip()  # fmt: skip
    processor = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    file_system = output_of(["stat", "-f", "-c", "%T", str(folder)]).strip()
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split()[1]
    return {
        "run": f"`{scale.name}`, {scale.rounds} rounds of {scale.seconds} s by turns, {MANY} connections where none are"
        f" named, {USERS} users; W {scale.rounds * scale.times_for_sizes} rounds",
        "durability": "`synchronous=FULL`, WAL; every 2xx after COMMIT",
        "SQLite": f"{DRIVER_NAME} {SQLITE_VERSION}",
        "Python": platform.python_version(),
        "server": f"uvicorn {version('uvicorn')}, uvloop {version('uvloop')}, httptools {version('httptools')};"
        f" Litestar {version('litestar')}",
        "machine": f"{os.cpu_count()} cores ({processor}) shared with wrk and everything else; Linux"
        f" {platform.release()}; {file_system}; load {os.getloadavg()[0]:.1f} at the start",
        "load": f"wrk {wrk} over the loopback interface",
        "N": f"{peers}; synchronous=FULL, WAL, pool of SQLAlchemy's default size",
    }


def _keep(path: Path, bench: Bench, began: float) -> Report:
    """What was found until now, into a file."""
    found = Report(
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seconds=round(time.monotonic() - began),
        settings=bench.settings,
        rows=sorted(bench.rows, key=lambda row: bool(row.unit)),
        plots=bench.plots,
        checks=bench.checks,
    )
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench")
    parser.add_argument("--full", action="store_true", help="ten million transactions, a million writes")
    parser.add_argument("--json", type=Path, default=CHECKOUT / "build" / "bench.json", help="where the report goes")
    parser.add_argument(
        "--databases", type=Path, help="a folder in which the databases are kept before they are used, for other runs"
    )
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--seconds", type=int, help="seconds of each round")
    given = parser.parse_args()
    for needed in (given.json.parent, *([given.databases] if given.databases else [])):
        needed.mkdir(parents=True, exist_ok=True)
    scale = FULL if given.full else BRIEF
    changed: dict[str, Any] = {k: v for k in ("rounds", "seconds") if (v := getattr(given, k)) is not None}
    console = Console(width=None if sys.stdout.isatty() else 180)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=given.json.parent.resolve()) as folder,
        Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
        ) as progress,
    ):
        task = progress.add_task("", total=None)

        def tell(text: str) -> None:
            progress.update(task, description=text)
            if not console.is_terminal:
                print(f"{time.monotonic() - began:5.0f} s  {text}", file=sys.stderr)

        bench = Bench(msgspec.structs.replace(scale, **changed), Path(folder), given.databases, tell)
        bench.settings = _settings(bench.scale, bench.folder)
        try:
            bench.run()
        except BaseException:
            _keep(given.json.with_suffix(".unfinished.json"), bench, began)
            raise
    found = _keep(given.json, bench, began)
    report.show(found, console)
    console.print(f"{given.json}; into docs/performance.md with: make bench-docs")
    if bench.failed:
        sys.exit("The database does not hold what was answered, or not as it should.")


if __name__ == "__main__":
    main()
