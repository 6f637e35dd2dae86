"""The ledger without HTTP: the writer's own batches, in one process, on a database of its own on the same disk.

A child process that carries out one order a line on its standard input, so that its rounds can alternate with those of
the services. Orders are `mixed BATCH SECONDS`, `announce BATCH SECONDS` and `debit BATCH SECONDS` (announcements and
debits by turns, or one of them alone, so many to a commit), `changes BATCH SECONDS` (operations of 1,000 balance
changes; counted are changes), `raw SECONDS` (one row and COMMIT with synchronous=FULL, in a file beside) and `sealing
BATCH ROUNDS`.

Usage: python -m tests.benchmarks.storage DATABASE
"""

import contextlib
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from service import garbage
from service.api import problems
from service.ledger.balance_changes import CHANGES_MAX, BalanceChange, BalanceChangesPost
from service.ledger.debits import DebitPost
from service.ledger.deposits import DepositAnnounce
from service.ledger.idempotency import Answer, Request
from service.ledger.policy import Policy
from service.ledger.timestamps import stored, system_clock
from service.repository import balance_changes, debits, deposits, writer
from service.repository.unit_of_work import Context, Operation
from service.storage import audit_chain, sqlite
from service.storage.sqlite import Connection
from tests.benchmarks.figures import Load, Spread, percentile, spread
from tests.live import CHECKOUT
from tests.some import some

FIRST_USER = 1_000_000
USERS = 200
AMOUNT_MAX = 5_000_000
"""Won. So many different ones that hardly two announcements collide, which costs more."""


class Sealing(Struct, frozen=True, kw_only=True):
    """Processor time of the writer for one operation, in µs, with and without leaves, nodes and hashes."""

    with_us: Spread
    without_us: Spread
    ratio: Spread


class _Unsealed:
    """Stands in for service.storage.audit_chain.Sealing."""

    def __init__(self, _tx: Connection) -> None:
        pass

    def seal(self) -> dict[int, bytes]:
        return {}


class Ledger:
    """Runs batches on its own connection. What the writer needs to be told is said in `job` and `run` alone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chance = random.Random(1)
        self._number = itertools.count()
        self._run = f"storage-{os.getpid()}"

    def job(self, operation: Operation, command: Struct, path: str) -> writer.Work:
        """A request as the writer hands it over."""
        number = next(self._number)
        return writer.Work(
            operation,
            command,
            0,
            Request(
                idempotency_key=f"{self._chance.getrandbits(32):08x}-{self._run}-{number}",
                operation=f"POST {path}",
                body=msgspec.json.encode(command).decode(),
            ),
            Context(
                actor="bench",
                request_id=f"{number:032x}",
                ip_address="127.0.0.1",
                user_agent="storage",
                key_prefix="pbk_benchmrk",
            ),
        )

    def run(self, jobs: list[writer.Work]) -> None:
        """One transaction, committed; every answer must be a success."""
        done = writer.run_batch(
            self._connection,
            jobs,
            now=stored(system_clock()),
            policy=Policy(),
            render_refusal=problems.render_refusal,
        )
        for outcome in some(done.outcomes):
            assert isinstance(outcome, Answer), outcome
            assert outcome.status < 300, outcome.body

    def _user(self) -> int:
        return FIRST_USER + self._chance.randrange(USERS)

    def announce(self) -> writer.Work:
        """An announcement like load.lua's."""
        user, amount = self._user(), self._chance.randrange(1, AMOUNT_MAX)
        command = DepositAnnounce(telegram_id=str(user), amount=amount, depositor_name=f"홍길동{user}")
        return self.job(deposits.ANNOUNCE, command, "/v1/deposits")

    def debit(self) -> writer.Work:
        """A debit like load.lua's."""
        command = DebitPost(telegram_id=str(self._user()), amount=1, reason="한글.kr")
        return self.job(debits.POST, command, "/v1/debits")

    def funds(self) -> writer.Work:
        """1,000,000 won for each user, who is made if need be."""
        each = [
            BalanceChange(
                telegram_id=str(FIRST_USER + n), amount=1_000_000, reason="start", reference=f"{self._run}-funds-{n}"
            )
            for n in range(USERS)
        ]
        return self.job(balance_changes.POST, BalanceChangesPost(changes=each), "/v1/balance-changes")

    def changes(self) -> writer.Work:
        """A thousand balance changes."""
        command = changes(f"{self._run}-{next(self._number)}", USERS)
        return self.job(balance_changes.POST, command, "/v1/balance-changes")


def changes(run: str, users: int) -> BalanceChangesPost:
    """The largest batch of balance changes; `run` names it for ever."""
    return BalanceChangesPost(
        changes=[
            BalanceChange(
                telegram_id=str(FIRST_USER + n * 7919 % users), amount=1000 if n % 2 else -1, reason="한글.kr",
                reference=f"{run}-{n}",
            )
            for n in range(CHANGES_MAX)
        ]
    )  # fmt: skip


def batches(ledger: Ledger, make: list[Callable[[], Any]], size: int, seconds: float, counts: int = 1) -> Load:
    """Batches of `size` operations, made by turns, for `seconds`; only the batches are timed, not their making."""
    turns, done, spent = itertools.cycle(make), 0, 0.0
    while spent < seconds:
        jobs = [next(turns)() for _ in range(size)]
        began = time.perf_counter()
        ledger.run(jobs)
        spent += time.perf_counter() - began
        done += size * counts
    return Load(requests=done, duration_us=spent * 1e6)


def raw_commits(path: Path, seconds: float) -> Load:
    """INSERT and COMMIT of one row of 100 bytes, in WAL mode with synchronous=FULL, one after the other."""
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, text TEXT)")
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO rows (text) VALUES (?)", ("x" * 100,))
            connection.execute("COMMIT")
            taken.append((time.perf_counter() - began) * 1e6)
    return Load(
        requests=len(taken), duration_us=sum(taken), p50_us=percentile(taken, 0.5), p99_us=percentile(taken, 0.99)
    )


def sealing_cost(ledger: Ledger, size: int, rounds: int) -> Sealing:
    """Batches with and without sealing by turns. The unsealed rows never get leaves: it spoils the database."""
    real, find_leaf = writer.Sealing, audit_chain.find_leaf
    spent: dict[bool, list[float]] = {True: [], False: []}
    try:
        for number in range(2 * rounds):
            sealed = number % 2 == 0
            writer.Sealing = real if sealed else _Unsealed  # type: ignore[misc,assignment]
            audit_chain.find_leaf = find_leaf if sealed else (lambda _tx, _id: b"")
            jobs = [ledger.announce() for _ in range(size)]
            began = time.process_time()
            ledger.run(jobs)
            spent[sealed].append((time.process_time() - began) / size * 1e6)
    finally:
        writer.Sealing, audit_chain.find_leaf = real, find_leaf  # type: ignore[misc]
    ratios = [with_ / without for with_, without in zip(spent[True], spent[False], strict=True)]
    return Sealing(with_us=spread(spent[True]), without_us=spread(spent[False]), ratio=spread(ratios))


class Child:
    """The other end: a process of this module. Lifetime: from its making to `close`."""

    def __init__(self, database: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.storage", str(database)],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _order(self, order: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(order, file=self._process.stdin, flush=True)
        return self._process.stdout.readline()

    def load(self, order: str) -> Load:
        """One round of `mixed`, `announce`, `changes` or `raw`."""
        return msgspec.json.decode(self._order(order), type=Load)

    def sealing(self, size: int, rounds: int) -> Sealing:
        """What sealing costs."""
        return msgspec.json.decode(self._order(f"sealing {size} {rounds}"), type=Sealing)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


@contextlib.contextmanager
def child(database: Path) -> Iterator[Child]:
    """A child for the block."""
    one = Child(database)
    try:
        yield one
    finally:
        one.close()


def main() -> None:
    database = Path(sys.argv[1])
    with contextlib.closing(sqlite.connect_writer(database, busy_timeout_ms=0, checkpoints=True)) as connection:
        ledger = Ledger(connection)
        garbage.look_seldom()  # as the writing process does
        for line in sys.stdin:
            kind, *numbers = line.split()
            if kind == "raw":
                answer: Any = raw_commits(database.with_name(f"{database.name}-raw.db"), float(numbers[0]))
            elif kind == "sealing":
                answer = sealing_cost(ledger, int(numbers[0]), int(numbers[1]))
            else:
                make, counts = {
                    "mixed": ([ledger.announce, ledger.debit], 1),
                    "announce": ([ledger.announce], 1),
                    "debit": ([ledger.debit], 1),
                    "changes": ([ledger.changes], CHANGES_MAX),
                }[kind]
                answer = batches(ledger, make, int(numbers[0]), float(numbers[1]), counts)
            print(msgspec.json.encode(answer).decode(), flush=True)


if __name__ == "__main__":
    main()
