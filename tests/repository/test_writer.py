"""The writer on real SQLite with real operations; a wrapper around its connection records and breaks statements.

Only the service's own driver opens the database while the writer has it: a second SQLite library in the same process
would let go of the first one's locks (https://www.sqlite.org/howtocorrupt.html §2.2.1).
"""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service import resources
from service.api import problems
from service.ledger.audit_logs import DEPOSIT_TRANSACTION
from service.ledger.balance_changes import BalanceChange, BalanceChangesPost
from service.ledger.debits import DebitPost
from service.ledger.deposits import DepositAnnounce, DepositConfirm
from service.ledger.errors import (
    DatabaseBusy,
    IdempotencyKeyReused,
    InsufficientFunds,
    OutcomeUnknown,
    Overloaded,
    StorageFull,
    Unavailable,
    WritesStalled,
    WritesStopped,
)
from service.ledger.idempotency import Answer, Request
from service.ledger.policy import Policy
from service.ledger.timestamps import system_clock
from service.repository import balance_changes, debits, deposits
from service.repository.unit_of_work import Context, Operation, UnitOfWork
from service.repository.write_times import Watch
from service.repository.writer import Patience, Writer, WriteState
from service.storage import migrator, sqlite
from tests.ledger_check import broken_invariants
from tests.some import some
from tests.waiting import until_async

USER = "3001"


class Recording:
    """A connection that writes down its statements; `on` is called before each and may raise in its place."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.statements: list[str] = []
        self.on: Callable[[str], None] = lambda _: None

    def execute(self, sql: str, *parameters: Any) -> Any:
        self.statements.append(sql)
        self.on(sql)
        return self.connection.execute(sql, *parameters)

    def executemany(self, sql: str, rows: Any) -> Any:
        self.statements.append(sql)
        self.on(sql)
        return self.connection.executemany(sql, rows)

    @property
    def total_changes(self) -> int:
        return int(self.connection.total_changes)

    @property
    def in_transaction(self) -> bool:
        return bool(self.connection.in_transaction)

    def close(self) -> None:
        self.connection.close()

    def control(self) -> list[str]:
        """The statements that begin and end transactions."""
        return [s for s in self.statements if s in {"BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"}]


class Thread(sqlite.Thread):
    """A connection's thread that counts the hops to it."""

    hops = 0

    async def run(self, *arguments: Any, **named: Any) -> Any:
        self.hops += 1
        return await super().run(*arguments, **named)


@dataclass
class Desk:
    """A running writer, what it does to its connection, and short ways to ask it."""

    path: Path
    writer: Writer
    thread: Thread
    connection: Recording
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**6)))

    def submit(
        self, operation: Operation, command: msgspec.Struct, target: int = 0, key: str | None = None
    ) -> "asyncio.Task[Answer]":
        """A request that waits for its answer."""
        key = key or f"key-{next(self._numbers)}"
        body = msgspec.json.encode(command).decode()
        return asyncio.create_task(
            self.writer.submit(
                operation,
                command,
                target,
                request=Request(idempotency_key=key, operation=f"POST {operation.name} {target}", body=body),
                context=Context(actor="test", request_id=f"request-{key}", ip_address=None, user_agent=None),
            )
        )

    def announce(self, amount: int = 1000, key: str | None = None) -> "asyncio.Task[Answer]":
        return self.submit(
            deposits.ANNOUNCE, DepositAnnounce(telegram_id=USER, amount=amount, depositor_name="홍길동"), key=key
        )

    def debit(self, amount: int, key: str | None = None) -> "asyncio.Task[Answer]":
        return self.submit(debits.POST, DebitPost(telegram_id=USER, amount=amount, reason="test"), key=key)

    async def credit(self, amount: int) -> None:
        announced = msgspec.json.decode((await self.announce(amount)).body)
        await self.submit(deposits.CONFIRM, DepositConfirm(), announced["id"])

    def rows(self, sql: str) -> list[Any]:
        """What an independent reader sees."""
        with closing(sqlite.connect_reader(self.path, busy_timeout_ms=0)) as reader:
            return reader.execute(sql).fetchall()

    def counts(self) -> tuple[int, int, int]:
        """Transactions, audit rows, stored answers."""
        tables = ("deposit_transactions", "audit_logs", "idempotency_answers")
        return tuple(self.rows(f"SELECT COUNT(*) FROM {table}")[0][0] for table in tables)  # type: ignore[return-value]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A database with the whole schema; sound when the test is over."""
    made = tmp_path / "passbook.db"
    with closing(sqlite.connect_writer(made, busy_timeout_ms=0, checkpoints=True)) as connection:
        migrator.up(connection, migrator.load(resources.folder("migrations")), lambda _: None)
    yield made
    assert broken_invariants(made) == []


@asynccontextmanager
async def _desk(
    path: Path,
    *,
    queue_max: int = 1000,
    queue_bytes_max: int = 2**25,
    batch_max: int = 100,
    busy_timeout_ms: int = 0,
    patience: Patience | None = None,
    watch: Watch = lambda _batch, _writes: None,
) -> AsyncIterator[Desk]:
    made: list[Recording] = []

    def connect() -> Any:
        made.append(Recording(sqlite.connect_writer(path, busy_timeout_ms=busy_timeout_ms, checkpoints=True)))
        return made[0]

    thread = Thread(connect)
    await thread.open()
    try:
        writer = Writer(
            thread,
            clock=system_clock,
            policy=Policy(),
            render_refusal=problems.render_refusal,
            queue_max=queue_max,
            queue_bytes_max=queue_bytes_max,
            batch_max=batch_max,
            patience=patience,
            watch=watch,
        )
        async with writer.running():
            made[0].statements.clear()
            yield Desk(path, writer, thread, made[0])
    finally:
        await thread.close()


def _error(name: str, code: int) -> Exception:
    """An error as the driver raises it when SQLite answers `code`."""
    error = sqlite.driver.OperationalError(name)
    error.sqlite_errorcode = code
    return error


def _raise_at(statement: str, error: Exception) -> Callable[[str], None]:
    def on(sql: str) -> None:
        if sql.startswith(statement):
            raise error

    return on


def _reached(task: "asyncio.Task[Any]") -> Any:
    """The exception that a finished task raised."""
    assert task.done()
    return task.exception()


def test_a_batch_is_one_hop_with_one_begin_and_one_commit(path: Path) -> None:
    """What queued together is committed together: 20 operations, one hop to the thread, one transaction."""

    async def run() -> None:
        async with _desk(path) as desk:
            hops = desk.thread.hops
            answers = await asyncio.gather(*(desk.announce(n + 1) for n in range(20)))
            assert {answer.status for answer in answers} == {201}
            assert desk.thread.hops - hops == 1
            assert desk.connection.control() == ["BEGIN IMMEDIATE", "COMMIT"]
            assert desk.connection.statements[-1] == "COMMIT"
            assert "SAVEPOINT operation" not in desk.connection.statements

    asyncio.run(run())


def test_no_batch_is_larger_than_its_bound_and_all_are_in_order(path: Path) -> None:
    """20 operations with at most 8 in a commit: three commits, in the order in which they came."""

    async def run() -> None:
        async with _desk(path, batch_max=8) as desk:
            answers = await asyncio.gather(*(desk.announce(n + 1) for n in range(20)))
            assert desk.connection.control() == ["BEGIN IMMEDIATE", "COMMIT"] * 3
            ids = [msgspec.json.decode(answer.body)["id"] for answer in answers]
            assert ids == sorted(ids)

    asyncio.run(run())


def test_no_commit_carries_more_than_its_bound_weighs(path: Path) -> None:
    """A batch of changes weighs as much as it has changes: of four with 5 each, one goes into a commit of 8."""

    async def run() -> None:
        async with _desk(path, batch_max=8) as desk:
            asked = [
                BalanceChangesPost(
                    changes=[
                        BalanceChange(telegram_id=USER, amount=1, reason="test", reference=f"{batch}-{place}")
                        for place in range(5)
                    ]
                )
                for batch in range(4)
            ]
            await asyncio.gather(*(desk.submit(balance_changes.POST, one) for one in asked))
            assert desk.connection.control() == ["BEGIN IMMEDIATE", "COMMIT"] * 4

    asyncio.run(run())


def test_the_answer_comes_after_commit(path: Path) -> None:
    """While COMMIT is about to run nobody is answered; when the answer is there an independent reader sees the row."""

    async def run() -> None:
        async with _desk(path) as desk:
            task = desk.announce()
            answered_at_commit: list[bool] = []
            seen_at_commit: list[int] = []

            def on(sql: str) -> None:
                if sql == "COMMIT":
                    # The loop had every chance to answer before the commit.
                    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(30)
                    answered_at_commit.append(task.done())
                    seen_at_commit.append(desk.counts()[0])

            loop = asyncio.get_running_loop()
            desk.connection.on = on
            answer = await task
            found = msgspec.json.decode(answer.body)["id"]
            assert desk.rows("SELECT id FROM deposit_transactions") == [(found,)]
            assert (answered_at_commit, seen_at_commit) == ([False], [0])

    asyncio.run(run())


def test_a_failed_operation_leaves_nothing_and_its_neighbours_whole(path: Path) -> None:
    """Operations that break after they wrote raise to their own caller alone; the others of the batch are stored.

    The batch is rolled back and begins again, with a savepoint for each operation.
    """

    def broken(error: Exception) -> Operation:
        def run(work: UnitOfWork, command: Any, target: int) -> Answer:
            deposits.ANNOUNCE.run(work, command, target)
            raise error

        return Operation("broken", DEPOSIT_TRANSACTION, run)

    def too_long(work: UnitOfWork, _command: Any, _target: int) -> Answer:
        work.tx.execute("UPDATE users SET username = 'written'")
        work.tx.execute("SELECT zeroblob(2000000000)")
        raise AssertionError

    def no_such_table(work: UnitOfWork, _command: Any, _target: int) -> Answer:
        work.tx.execute("UPDATE users SET username = 'written'")
        work.tx.execute("SELECT * FROM no_such_table")
        raise AssertionError

    def constraint(work: UnitOfWork, _command: Any, _target: int) -> Answer:
        work.tx.execute("DELETE FROM audit_logs")
        raise AssertionError

    command = DepositAnnounce(telegram_id="3002", amount=5, depositor_name="김철수")
    breaking = [
        broken(RuntimeError("a bug")),
        broken(StopIteration()),
        broken(MemoryError()),
        broken(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate")),
        Operation("too_long", DEPOSIT_TRANSACTION, too_long),
        Operation("no_such_table", DEPOSIT_TRANSACTION, no_such_table),
        Operation("constraint", DEPOSIT_TRANSACTION, constraint),
    ]

    async def run() -> None:
        async with _desk(path) as desk:
            await desk.announce()
            tasks = []
            for operation in breaking:
                tasks += [desk.announce(), desk.submit(operation, command)]
            tasks.append(desk.announce())
            await asyncio.wait(tasks)
            began_again = ["BEGIN IMMEDIATE", "ROLLBACK", "BEGIN IMMEDIATE", "COMMIT"]
            assert desk.connection.control() == ["BEGIN IMMEDIATE", "COMMIT", *began_again]
            assert desk.connection.statements.count("SAVEPOINT operation") == len(tasks)
            assert [_reached(task) for task in tasks[::2]] == [None] * (len(breaking) + 1)
            assert all(isinstance(_reached(task), Exception) for task in some(tasks[1::2]))
            assert not any(isinstance(_reached(task), Unavailable) for task in tasks[1::2])
            assert desk.counts() == (len(breaking) + 2, len(breaking) + 3, len(breaking) + 2)
            assert desk.rows("SELECT telegram_id, username FROM users") == [(USER, None)]
            assert desk.writer.stopped_because is None
            assert (await desk.announce()).status == 201

    asyncio.run(run())


def test_a_refusal_is_audited_stored_and_the_same_for_ever(path: Path) -> None:
    """Refused for lack of money, asked again with the money there: the same bytes, one audit row, no debit."""

    async def run() -> None:
        async with _desk(path) as desk:
            await desk.credit(100)
            refused = await desk.debit(101, key="too much")
            assert (refused.status, refused.replayed) == (409, False)
            logged = (
                "SELECT action, actor, request_id, json_extract(details, '$.code') FROM audit_logs"
                " WHERE action GLOB '*_failed'"
            )
            row = ("debit_failed", "test", "request-too much", InsufficientFunds.code.value)
            assert desk.rows(logged) == [row]
            await desk.credit(1000)
            for _ in range(3):
                again = await desk.debit(101, key="too much")
                assert (again.status, again.body, again.replayed) == (409, refused.body, True)
            assert desk.rows(logged) == [row]
            assert desk.rows("SELECT COUNT(*) FROM deposit_transactions WHERE type = 'debit'") == [(0,)]
            assert (await desk.debit(101)).status == 201

    asyncio.run(run())


def test_a_reused_key_is_refused_without_a_trace(path: Path) -> None:
    """The same key with another body: IdempotencyKeyReused names the member, nothing is written, the answer stays."""

    async def run() -> None:
        async with _desk(path) as desk:
            first = await desk.announce(1, key="once")
            before = desk.counts()
            same_batch = [desk.announce(2, key="once"), desk.announce(1, key="once")]
            await asyncio.wait(same_batch)
            reused = _reached(same_batch[0])
            assert isinstance(reused, IdempotencyKeyReused)
            assert reused.members == {"differing_fields": ["amount"]}
            assert same_batch[1].result().body == first.body
            assert desk.counts() == before

    asyncio.run(run())


def test_the_same_key_twice_in_one_batch_is_carried_out_once(path: Path) -> None:
    """Neighbours in one transaction see each other's stored answer."""

    async def run() -> None:
        async with _desk(path) as desk:
            answers = await asyncio.gather(*(desk.announce(7, key="twin") for _ in range(10)))
            assert len({answer.body for answer in answers}) == 1
            assert [answer.replayed for answer in answers] == [False] + [True] * 9
            assert desk.counts() == (1, 2, 1)
            assert desk.connection.control() == ["BEGIN IMMEDIATE", "COMMIT"]

    asyncio.run(run())


def test_a_cancelled_request_is_carried_out_and_the_writer_stays_clean(path: Path) -> None:
    """Cancelled after every number of turns of the loop: the key's answer is there, once, and no transaction open."""

    async def run() -> None:
        async with _desk(path) as desk:
            for turns in range(25):
                key = f"cancelled-{turns}"
                task = desk.announce(turns + 1, key=key)
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                again = await desk.announce(turns + 1, key=key)
                if turns > 0:  # before its first turn the request has not reached the writer
                    assert again.replayed
                assert desk.rows(f"SELECT COUNT(*) FROM deposit_transactions WHERE amount = {turns + 1}") == [(1,)]
            assert desk.connection.in_transaction is False
            assert desk.counts() == (25, 26, 25)

    asyncio.run(run())


@pytest.mark.parametrize("timeout_us", [0, 50, 100, 200, 400, 800, 1600, 3200, 6400])
def test_a_request_that_times_out_is_carried_out_at_most_once(path: Path, timeout_us: int) -> None:
    """`wait_for` of any length among neighbours that wait: they are answered, and the key gives one answer."""

    async def run() -> None:
        async with _desk(path) as desk:
            for number in range(5):
                neighbours = [desk.announce(1) for _ in range(3)]
                try:
                    async with asyncio.timeout(timeout_us / 1e6):
                        await desk.announce(10 + number, key=f"late-{number}")
                except TimeoutError:
                    pass
                assert [answer.status for answer in await asyncio.gather(*neighbours)] == [201] * 3
                again = await desk.announce(10 + number, key=f"late-{number}")
                assert again.body == (await desk.announce(10 + number, key=f"late-{number}")).body
            assert desk.rows(
                "SELECT amount, COUNT(*) FROM deposit_transactions WHERE amount >= 10 GROUP BY amount"
            ) == [(10 + number, 1) for number in range(5)]

    asyncio.run(run())


def test_a_full_queue_refuses_and_what_was_taken_is_done(path: Path) -> None:
    """Beyond half of the bound one caller gets Overloaded at once, with nothing done; those before are answered."""

    async def run() -> None:
        async with _desk(path, queue_max=10) as desk:
            tasks = [desk.announce() for _ in range(8)]
            await asyncio.wait(tasks)
            assert [type(_reached(task)) for task in tasks] == [type(None)] * 5 + [Overloaded] * 3
            assert desk.counts()[0] == 5
            assert (await desk.announce()).status == 201

    asyncio.run(run())


def test_a_held_write_lock_fails_the_batch_and_nothing_else(path: Path) -> None:
    """Another connection holds the lock beyond the timeout: DatabaseBusy for each, nothing done; then on it goes."""

    async def run() -> None:
        async with _desk(path) as desk:
            with closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=False)) as other:
                other.execute("BEGIN IMMEDIATE")
                tasks = [desk.announce() for _ in range(3)]
                await asyncio.wait(tasks)
                errors = [_reached(task) for task in tasks]
                assert [type(error) for error in errors] == [DatabaseBusy] * 3
                assert len({id(error) for error in errors}) == 3
                assert desk.counts() == (0, 0, 0)
                other.execute("ROLLBACK")
            assert desk.writer.stopped_because is None
            assert (await desk.announce()).status == 201

    asyncio.run(run())


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "INSERT INTO deposit_transactions", "COMMIT"])
def test_busy_at_any_statement_of_the_writer_is_definite(path: Path, statement: str) -> None:
    """SQLITE_BUSY at the begin, a write or the commit: nothing is on disk, the lock is free, writes go on."""

    async def run() -> None:
        async with _desk(path) as desk:
            desk.connection.on = _raise_at(statement, _error("database is locked", sqlite3.SQLITE_BUSY))
            tasks = [desk.announce() for _ in range(3)]
            await asyncio.wait(tasks)
            assert [type(_reached(task)) for task in tasks] == [DatabaseBusy] * 3
            desk.connection.on = lambda _: None
            assert desk.counts() == (0, 0, 0)
            assert [a.status for a in await asyncio.gather(*(desk.announce() for _ in range(3)))] == [201] * 3

    asyncio.run(run())


def test_an_io_error_at_commit_is_unknown_and_stops_the_writes(path: Path) -> None:
    """IOERR from COMMIT: OutcomeUnknown for the batch, WritesStopped for whoever comes later, and the lock is let go.

    What the batch did is not claimed either way; the next process gives one answer for its keys.
    """

    async def run() -> None:
        async with _desk(path, batch_max=3) as desk:
            await desk.announce(key="before")
            desk.connection.on = _raise_at("COMMIT", _error("disk I/O error", sqlite3.SQLITE_IOERR | 4 << 8))
            tasks = [desk.announce(key=f"unknown-{n}") for n in range(5)]
            await asyncio.wait(tasks)
            errors = [_reached(task) for task in tasks]
            assert [type(error) for error in errors] == [OutcomeUnknown] * 3 + [WritesStopped] * 2
            assert len({id(error) for error in errors}) == 5
            desk.connection.on = lambda _: None
            assert desk.writer.stopped_because == "disk I/O error"
            with pytest.raises(WritesStopped, match="disk I/O error"):
                await desk.announce()
            assert desk.connection.statements.count("BEGIN IMMEDIATE") == 2
            with closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=False)) as other:
                other.execute("BEGIN IMMEDIATE")  # `passbook keys revoke` must get through
        async with _desk(path) as desk:
            assert desk.writer.stopped_because is None
            for n in range(5):
                assert (await desk.announce(key=f"unknown-{n}")).status == 201
            assert (await desk.announce(key="before")).replayed
            assert desk.counts() == (6, 7, 6)

    asyncio.run(run())


def test_a_commit_that_failed_yet_happened_gives_its_answer_to_the_retry(path: Path) -> None:
    """The other half of unknown: COMMIT raised after the frames were on disk; the same key finds its answer."""

    async def run() -> None:
        async with _desk(path) as desk:

            def on(sql: str) -> None:
                if sql == "COMMIT":
                    desk.connection.connection.execute("COMMIT")
                    raise _error("disk I/O error", sqlite3.SQLITE_IOERR)

            desk.connection.on = on
            task = desk.announce(key="happened")
            await asyncio.wait([task])
            assert type(_reached(task)) is OutcomeUnknown
        async with _desk(path) as desk:
            assert (await desk.announce(key="happened")).replayed
            assert desk.counts() == (1, 2, 1)

    asyncio.run(run())


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB])
def test_a_storage_error_within_an_operation_stops_the_writes_with_nothing_done(path: Path, code: int) -> None:
    """IOERR or CORRUPT before COMMIT: the whole batch is rolled back and told so, and no more writes are taken."""

    async def run() -> None:
        async with _desk(path) as desk:

            def on(sql: str) -> None:
                if sql.startswith("INSERT INTO audit_logs"):
                    raise _error("storage", code)

            desk.connection.on = on
            tasks = [desk.announce() for _ in range(3)]
            await asyncio.wait(tasks)
            assert [type(_reached(task)) for task in tasks] == [WritesStopped] * 3
            assert desk.connection.control() == ["BEGIN IMMEDIATE", "ROLLBACK"]
            assert desk.counts() == (0, 0, 0)
            assert desk.writer.stopped_because == "storage"

    asyncio.run(run())


def test_a_full_disk_refuses_the_batch_and_the_writer_goes_on_when_there_is_room(path: Path) -> None:
    """SQLITE_FULL, from SQLite itself: StorageFull, nothing of the batch is there; with room again writes succeed."""

    async def run() -> None:
        async with _desk(path, batch_max=500) as desk:
            raw = desk.connection.connection
            pages = raw.execute("PRAGMA page_count").fetchone()[0]
            raw.execute(f"PRAGMA max_page_count = {pages}")
            tasks = [desk.announce() for _ in range(200)]
            await asyncio.wait(tasks)
            assert {type(_reached(task)) for task in tasks} == {StorageFull}
            assert desk.counts() == (0, 0, 0)
            assert desk.writer.stopped_because is None
            raw.execute("PRAGMA max_page_count = 1000000")
            answers = await asyncio.gather(*(desk.announce() for _ in range(200)))
            assert {answer.status for answer in answers} == {201}
            assert desk.counts() == (200, 201, 200)

    asyncio.run(run())


def test_a_stop_finishes_what_was_queued_and_takes_no_more(path: Path) -> None:
    """At the end of `running` the queue is empty and everybody is answered; later requests are refused."""

    async def run() -> None:
        async with _desk(path, batch_max=4) as desk:
            tasks = [desk.announce() for _ in range(30)]
            await asyncio.sleep(0)
            assert desk.writer.queue_depth == 30
        assert [task.done() for task in tasks] == [True] * 30
        assert {task.result().status for task in tasks} == {201}
        assert desk.counts()[0] == 30
        with pytest.raises(WritesStopped):
            await desk.announce()

    asyncio.run(run())


def test_a_writer_that_dies_answers_those_who_wait(path: Path) -> None:
    """Even when the writer's own task is ended from outside nobody waits for ever, and later requests are told."""

    async def end_the_writer() -> None:
        async with _desk(path, batch_max=2) as desk:
            tasks = [desk.announce(key=f"dead-{n}") for n in range(5)]
            await asyncio.sleep(0)
            writer = next(task for task in asyncio.all_tasks() if task.get_name() == "passbook-writer")
            writer.cancel()
            await asyncio.wait(tasks)
            assert {type(_reached(task)) for task in tasks} == {OutcomeUnknown}
            with pytest.raises(WritesStopped):
                await desk.announce()

    async def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            await end_the_writer()
        async with _desk(path) as desk:
            for n in range(5):
                assert (await desk.announce(key=f"dead-{n}")).status == 201
            assert desk.counts() == (5, 6, 5)

    asyncio.run(run())


def test_a_writer_that_breaks_in_a_batch_answers_that_batch_too(path: Path) -> None:
    """What nobody foresaw ends the writer between a commit and its answers: those of the batch and of the queue are
    told that nobody knows."""

    class Ended(BaseException):
        pass

    def breaks(*_: object) -> None:
        raise Ended

    async def break_the_writer() -> None:
        async with _desk(path, batch_max=2, watch=breaks) as desk:
            tasks = [desk.announce(key=f"broken-{n}") for n in range(5)]
            done, waiting = await asyncio.wait(tasks, timeout=10)
            told.update(never=len(waiting), unknown=sum(type(one.exception()) is OutcomeUnknown for one in done))

    told: dict[str, int] = {}
    with pytest.raises(Ended):
        asyncio.run(break_the_writer())
    assert told == {"never": 0, "unknown": 5}, "some were never answered"


@pytest.mark.parametrize("stall_s", [0.1, 60], ids=["stalled", "only slow"])
def test_whoever_waits_too_long_is_told_whether_it_was_begun(path: Path, stall_s: float) -> None:
    """In the batch the outcome is unknown, and the answer stored; what had queued is out of the queue, never done."""

    async def run() -> None:
        async with _desk(path, patience=Patience(stall_s=stall_s, timeout_s=0.3)) as desk:
            goes_on = threading.Event()
            reached = threading.Event()

            def on(sql: str) -> None:
                if sql == "COMMIT":
                    reached.set()
                    goes_on.wait(30)

            desk.connection.on = on
            begun = desk.announce(1, key="begun")
            await asyncio.to_thread(reached.wait, 30)
            queued = desk.announce(2, key="queued")
            await asyncio.wait([begun, queued])
            assert isinstance(_reached(begun), OutcomeUnknown)
            assert isinstance(_reached(queued), WritesStalled if stall_s < 1 else Overloaded)
            assert "nothing was begun" in str(_reached(queued))
            assert desk.writer.condition.state is (WriteState.STALLED if stall_s < 1 else WriteState.OK)
            if stall_s < 1:
                with pytest.raises(WritesStalled):
                    await desk.announce(3, key="refused")
            assert desk.writer.queue_depth == 1
            desk.connection.on = lambda _: None
            goes_on.set()
            await until_async(lambda: not desk.writer.call_age_s, "the call ends", every_s=0)
            assert desk.writer.condition.state is WriteState.OK
            assert desk.rows("SELECT amount FROM deposit_transactions") == [(1,)]
            assert (await desk.announce(1, key="begun")).replayed
            assert not (await desk.announce(2, key="queued")).replayed

    asyncio.run(run())


@pytest.mark.long
def test_a_full_disk_is_tried_again_by_a_commit_that_changes_nothing(path: Path) -> None:
    """The state says so until the commit succeeds, and the ledger is what it was."""

    async def run() -> None:
        async with _desk(path) as desk:
            desk.connection.on = _raise_at("COMMIT", _error("full", sqlite3.SQLITE_FULL))
            with pytest.raises(StorageFull):
                await desk.announce()
            assert desk.writer.condition.state is WriteState.STORAGE_FULL
            before = desk.counts()
            tried = len(desk.connection.control())
            # One that fails, and is rolled back, and the next.
            await until_async(lambda: len(desk.connection.control()) >= tried + 4, "a commit is tried again")
            assert desk.writer.condition.state is WriteState.STORAGE_FULL
            desk.connection.on = lambda _: None
            await until_async(lambda: desk.writer.condition.state is WriteState.OK, "a commit succeeds again")
            assert desk.counts() == before == (0, 0, 0)
            assert (await desk.announce()).status == 201

    asyncio.run(run())
