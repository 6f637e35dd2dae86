"""Group commit: one connection, one fsync for every request that queued while the last commit ran.

A batch is one hop to whoever owns the connection, a process or a thread: BEGIN IMMEDIATE; the operations, one after the
other, through one session; COMMIT; only then are the waiting requests answered. Should an operation break after it has
written, the batch is rolled back and begins again with a savepoint for each. A lone request waits for no company: there
is no timer. A request that is cancelled while it waits is carried out all the same and its answer is stored.

What a commit carries is bounded in operations and in weight, about the rows that they take. Between callers the queue
is fair (`fair_queue.py`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from sys import getsizeof

from msgspec import Struct
from msgspec.structs import replace

from service.ledger.errors import (
    AnswerErased,
    DatabaseBusy,
    KeyRefused,
    OutcomeUnknown,
    Overloaded,
    Refusal,
    StorageFull,
    Unavailable,
    WritesStopped,
)
from service.ledger.idempotency import Answer, Request
from service.ledger.policy import Policy
from service.ledger.timestamps import Clock, stored
from service.repository.fair_queue import FairQueue
from service.repository.session import Context, Session, Spoilt
from service.repository.unit_of_work import Operation, RenderRefusal, perform
from service.repository.write_times import BatchTimes, Watch, WriteTimes, now_ns
from service.storage import audit_chain, sqlite
from service.storage.audit_chain import Sealing, TreeBroken
from service.storage.connection_process import ConnectionLost, Owner, portable
from service.storage.sqlite import Connection

_log = logging.getLogger(__name__)
_FULL_DETAIL = "The disk of the database is full; nothing was changed. Free some space and send the request again."
_BUSY_DETAIL = "Another process holds the database; nothing was changed. Send the request again."
_UNKNOWN_DETAIL = (
    "The commit failed in a way that does not say whether the change is on disk. Send the same request with the same"
    " Idempotency-Key again: it is carried out at most once."
)


class Work(Struct, frozen=True):
    """One operation as it is handed to the owner of the connection. `request` is None for the service's own work."""

    operation: Operation
    command: Struct
    target: int
    request: Request | None
    context: Context


class Done(Struct, frozen=True):
    """What came of a batch that is on disk, operation by operation: its answer or error, when it began and ended.

    Instants are those of `write_times`.
    """

    outcomes: list[Answer | Exception]
    instants: list[tuple[int, int]]
    commit_began_ns: int
    committed_ns: int


class BatchFailed(Exception):
    """No operation of the batch is on disk, or it is not known; `reason` is what to tell each of them.

    stop: why no more writes may be taken; None where the next batch may do better.
    """

    def __init__(self, reason: Unavailable, stop: str | None) -> None:
        super().__init__(reason, stop)
        self.reason = reason
        self.stop = stop


@dataclass(slots=True, eq=False)
class _Job:
    work: Work
    answered: asyncio.Future[Answer]
    times: WriteTimes
    lane: str
    weight: int
    size: int


class Writer:
    """Owns the writing connection's work. Lifetime: within the application's, inside `running`.

    `queue_max` and `queue_bytes_max` bound the requests that wait; `batch_max` the operations in one commit, and their
    weight, but for one that is heavier alone.
    """

    def __init__(
        self,
        owner: Owner,
        *,
        clock: Clock,
        policy: Policy,
        render_refusal: RenderRefusal,
        queue_max: int,
        queue_bytes_max: int,
        batch_max: int,
        watch: Watch = lambda _batch, _writes: None,
    ) -> None:
        self._owner = owner
        self._clock = clock
        self._run_batch = partial(run_batch, policy=policy, render_refusal=render_refusal)
        self._batch_max = batch_max
        self._watch = watch
        self._queue: FairQueue[_Job] = FairQueue(count_max=queue_max, bytes_max=queue_bytes_max)
        self._batch: list[_Job] = []
        self._wake = asyncio.Event()
        self._committed = asyncio.Event()
        self._accepting = False
        self._stopped_because: str | None = None

    @property
    def stopped_because(self) -> str | None:
        """Why no writes are taken until a restart; None while all is well."""
        return self._stopped_because

    @property
    def queue_max(self) -> int:
        """How many requests may wait."""
        return self._queue.count_max

    @property
    def queue_depth(self) -> int:
        """How many requests wait for the next commit."""
        return len(self._queue)

    async def next_commit(self) -> None:
        """Returns when the batch that is carried out now, or else the next one, is on disk."""
        await self._committed.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Writer"]:
        """Takes writes for the block; at its end takes no more and finishes what was taken."""
        task = asyncio.create_task(self._run(), name="passbook-writer")
        self._accepting = True
        try:
            yield self
        finally:
            self._accepting = False
            self._wake.set()
            await task

    async def submit(
        self,
        operation: Operation,
        command: Struct,
        target: int,
        *,
        request: Request | None,
        context: Context,
        times: WriteTimes | None = None,
    ) -> Answer:
        """The answer of `operation`, after COMMIT returned. `request` is None for the service's own work.

        `times` is filled in on the way.

        Raises Overloaded, WritesStopped, DatabaseBusy, StorageFull (nothing was done), OutcomeUnknown,
        IdempotencyKeyReused, or what the operation raised.
        """
        if self._stopped_because is not None:
            raise WritesStopped(f"Writes have stopped: {self._stopped_because}. Restart the service.")
        if not self._accepting:
            raise WritesStopped("The service is stopping; nothing was changed. Send the request again.")
        lane, size = context.actor, getsizeof(request.body) if request is not None else 0
        if not self._queue.has_room(lane, size):
            raise Overloaded(
                f"{len(self._queue)} writes wait already, and the queue has no room for more of {lane}; nothing was"
                " changed. Send the request again."
            )
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        times = times or WriteTimes(operation.name, now_ns())
        work = Work(operation, command, target, request, context)
        self._queue.append(_Job(work, answered, times, lane, operation.weigh(command), size))
        self._wake.set()
        return await answered

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    self._batch = self._queue.take(count_max=self._batch_max, weight_max=self._batch_max)
                    await self._commit(self._batch)
                if not self._accepting:
                    return
        except BaseException as error:
            # Nobody else would ever answer those who wait.
            self._stop(f"the writer ended by {type(error).__name__}", error)
            for job in (*self._batch, *self._queue):
                if not job.answered.done():
                    job.answered.set_exception(OutcomeUnknown(_UNKNOWN_DETAIL))
            raise

    def _stop(self, because: str, error: BaseException) -> None:
        self._stopped_because = because
        _log.critical("writes stop: %s", because, exc_info=error)

    def _tell(self, times: BatchTimes, batch: list[_Job]) -> None:
        for job in batch:
            job.times.batch = times
        try:
            self._watch(times, [job.times for job in batch])
        except Exception:  # who only watches must not keep the answers from those who wait
            _log.exception("a batch could not be watched")

    async def _commit(self, batch: list[_Job]) -> None:
        outcomes: list[Answer | Exception]
        times = BatchTimes(len(batch))
        if self._stopped_because is not None:
            outcomes = [WritesStopped(f"Writes have stopped: {self._stopped_because}.") for _ in batch]
        else:
            try:
                done = await self._owner.run(self._run_batch, [job.work for job in batch], now=stored(self._clock()))
                outcomes = done.outcomes
                times.commit_began_ns, times.committed_ns = done.commit_began_ns, done.committed_ns
                for job, instants in zip(batch, done.instants, strict=True):
                    job.times.began_ns, job.times.ended_ns = instants
                self._committed.set()
                self._committed = asyncio.Event()
            except BatchFailed as failed:
                if failed.stop is not None:
                    self._stop(failed.stop, failed)
                # One exception for each: a shared one would gather the tracebacks of all who raise it.
                outcomes = [type(failed.reason)(failed.reason.detail) for _ in batch]
            except ConnectionLost as error:
                _log.critical("a batch of %d is lost: %s; the next one starts another", len(batch), error)
                outcomes = [OutcomeUnknown(_UNKNOWN_DETAIL) for _ in batch]
            except Exception as error:
                self._stop(f"unexpected {type(error).__name__}", error)
                outcomes = [OutcomeUnknown(_UNKNOWN_DETAIL) for _ in batch]
            self._tell(times, batch)
        for job, outcome in zip(batch, outcomes, strict=True):
            if job.answered.done():  # its request was cancelled; the answer is stored
                continue
            if isinstance(outcome, Answer):
                job.answered.set_result(outcome)
            else:
                job.answered.set_exception(outcome)


def run_batch(tx: Connection, batch: list[Work], *, now: str, policy: Policy, render_refusal: RenderRefusal) -> Done:
    """All of `batch` in one transaction of the connection, which is on disk when this returns. Raises BatchFailed."""
    try:
        try:
            outcomes, instants = _run_all(tx, batch, now, policy, render_refusal, careful=False)
        except Spoilt as spoilt:
            _log.warning("a batch of %d begins again, with care: %r", len(batch), spoilt.__cause__)
            _roll_back(tx)
            outcomes, instants = _run_all(tx, batch, now, policy, render_refusal, careful=True)
    except BaseException:
        _roll_back(tx)
        raise
    commit_began_ns = now_ns()
    try:
        tx.execute("COMMIT")
    except Exception as error:
        _roll_back(tx)  # also when writes stop: an open transaction would keep the lock, and `keys revoke` out
        if sqlite.is_busy(error) or sqlite.is_full(error):
            raise _failed_before_commit(error) from error
        raise BatchFailed(OutcomeUnknown(_UNKNOWN_DETAIL), str(error)) from error
    return Done(outcomes, instants, commit_began_ns, now_ns())


def _run_all(
    tx: Connection, batch: list[Work], now: str, policy: Policy, render_refusal: RenderRefusal, *, careful: bool
) -> tuple[list[Answer | Exception], list[tuple[int, int]]]:
    """What came of each operation, and when; the transaction is ready for COMMIT. Raises BatchFailed, Spoilt."""
    sealing = _begin(tx)
    outcomes: list[Answer | Exception] = []
    instants: list[tuple[int, int]] = []
    try:
        session = Session(tx, now=now, policy=policy, careful=careful)
        session.read_ahead(
            [(work.context.actor, work.request.idempotency_key) for work in batch if work.request is not None],
            [work.command.telegram_id for work in batch if hasattr(work.command, "telegram_id")],
        )
        for work in batch:
            began_ns = now_ns()
            outcomes.append(_run_one(session, work, render_refusal))
            instants.append((began_ns, now_ns()))
        session.flush()
    except sqlite.DatabaseError as error:
        raise _failed_before_commit(error) from error
    return _with_leaves(tx, sealing, outcomes), instants


def _begin(tx: Connection) -> Sealing:
    try:
        sqlite.give_way(tx)
        tx.execute("BEGIN IMMEDIATE")
        return Sealing(tx)
    except (sqlite.DatabaseError, TreeBroken) as error:
        raise _failed_before_commit(error) from error


def _with_leaves(tx: Connection, sealing: Sealing, outcomes: list[Answer | Exception]) -> list[Answer | Exception]:
    """Seals what the batch wrote to the audit log; each answer with the leaf of its last row."""
    try:
        leaves = sealing.seal()
        return [
            replace(outcome, leaf=leaves.get(outcome.audit_log_id) or audit_chain.find_leaf(tx, outcome.audit_log_id))
            if isinstance(outcome, Answer) and outcome.audit_log_id is not None
            else outcome
            for outcome in outcomes
        ]
    except (sqlite.DatabaseError, TreeBroken) as error:
        raise _failed_before_commit(error) from error


def _run_one(session: Session, work: Work, render_refusal: RenderRefusal) -> Answer | Exception:
    """One operation. Returns what it raised, unless the whole transaction is spoilt: Spoilt, or a DatabaseError.

    An error of one statement, such as a broken constraint or a text that is too long, is that operation's alone.
    """
    session.begin_operation()
    try:
        answer = perform(
            session,
            work.operation,
            work.command,
            work.target,
            request=work.request,
            context=work.context,
            render_refusal=render_refusal,
        )
        session.end_operation()
    except Spoilt:
        raise
    except Exception as error:
        if isinstance(error, sqlite.DatabaseError) and not sqlite.is_of_statement(error):
            raise
        session.abandon_operation(error)
        if isinstance(error, Refusal | AnswerErased | KeyRefused):
            return error
        # A future takes no StopIteration.
        return RuntimeError("StopIteration") if isinstance(error, StopIteration) else portable(error)
    return answer


def _failed_before_commit(error: BaseException) -> BatchFailed:
    """What a storage error before a completed COMMIT means: nothing of the batch is on disk."""
    if sqlite.is_busy(error):
        return BatchFailed(DatabaseBusy(_BUSY_DETAIL), None)
    if sqlite.is_full(error):
        return BatchFailed(StorageFull(_FULL_DETAIL), None)
    return BatchFailed(WritesStopped(f"The database failed: {error}. Nothing was changed."), str(error))


def _roll_back(tx: Connection) -> None:
    if tx.in_transaction:
        tx.execute("ROLLBACK")
