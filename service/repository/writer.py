"""Group commit: one thread, one connection, one fsync for every request that queued while the last commit ran.

A batch is one hop to the connection's thread: BEGIN IMMEDIATE; for each operation a SAVEPOINT, the operation, RELEASE
(or ROLLBACK TO); COMMIT; only then are the waiting requests answered. A lone request waits for no company: there is no
timer. A request that is cancelled while it waits is carried out all the same and its answer is stored.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from service.ledger.errors import DatabaseBusy, OutcomeUnknown, Overloaded, StorageFull, Unavailable, WritesStopped
from service.ledger.idempotency import Answer, Request
from service.ledger.policy import Policy
from service.ledger.timestamps import Clock, stored
from service.repository.unit_of_work import Context, Operation, RenderRefusal, perform
from service.repository.write_times import BatchTimes, Watch, WriteTimes, now_ns
from service.storage import audit_chain, sqlite
from service.storage.audit_chain import Sealing, TreeBroken
from service.storage.sqlite import Connection, Thread

_log = logging.getLogger(__name__)
_FULL_DETAIL = "The disk of the database is full; nothing was changed. Free some space and send the request again."
_BUSY_DETAIL = "Another process holds the database; nothing was changed. Send the request again."
_UNKNOWN_DETAIL = (
    "The commit failed in a way that does not say whether the change is on disk. Send the same request with the same"
    " Idempotency-Key again: it is carried out at most once."
)


@dataclass(slots=True, eq=False)
class _Job:
    operation: Operation
    command: Struct
    target: int
    request: Request | None
    context: Context
    answered: asyncio.Future[Answer]
    times: WriteTimes


class _BatchFailed(Exception):
    """No operation of the batch is on disk, or it is not known; `reason` is what to tell each of them."""

    def __init__(self, reason: Unavailable, *, stop: bool) -> None:
        super().__init__(reason.detail)
        self.reason = reason
        self.stop = stop


class Writer:
    """Owns the writing connection's work. Lifetime: within the application's, inside `running`.

    `queue_max` bounds the requests that wait; `batch_max` the operations in one commit.
    """

    def __init__(
        self,
        thread: Thread,
        *,
        clock: Clock,
        policy: Policy,
        render_refusal: RenderRefusal,
        queue_max: int,
        batch_max: int,
        watch: Watch = lambda _batch, _writes: None,
    ) -> None:
        self._thread = thread
        self._clock = clock
        self._run_all = partial(_run_batch, policy=policy, render_refusal=render_refusal)
        self.queue_max = queue_max
        self._batch_max = batch_max
        self._watch = watch
        self._queue: deque[_Job] = deque()
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
        if len(self._queue) >= self.queue_max:
            raise Overloaded(f"{self.queue_max} writes are waiting already; nothing was changed. Send it again.")
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        times = times or WriteTimes(operation.name, now_ns())
        self._queue.append(_Job(operation, command, target, request, context, answered, times))
        self._wake.set()
        return await answered

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    self._batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch_max))]
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
        outcomes: list[Answer | BaseException]
        times = BatchTimes(len(batch))
        if self._stopped_because is not None:
            outcomes = [WritesStopped(f"Writes have stopped: {self._stopped_because}.") for _ in batch]
        else:
            try:
                outcomes = await self._thread.run(self._run_all, batch, times, now=stored(self._clock()))
                self._committed.set()
                self._committed = asyncio.Event()
            except _BatchFailed as failed:
                if failed.stop:
                    self._stop(str(failed.__cause__ or failed), failed)
                # One exception for each: a shared one would gather the tracebacks of all who raise it.
                outcomes = [type(failed.reason)(failed.reason.detail) for _ in batch]
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


def _run_batch(
    tx: Connection,
    batch: list[_Job],
    times: BatchTimes,
    *,
    now: str,
    policy: Policy,
    render_refusal: RenderRefusal,
) -> list[Answer | BaseException]:
    try:
        sealing = _begin(tx)
        outcomes = _with_leaves(tx, sealing, [_run_one(tx, job, now, policy, render_refusal) for job in batch])
    except BaseException:
        _roll_back(tx)
        raise
    times.commit_began_ns = now_ns()
    try:
        tx.execute("COMMIT")
    except Exception as error:
        _roll_back(tx)  # also when writes stop: an open transaction would keep the lock, and `keys revoke` out
        if sqlite.is_busy(error) or sqlite.is_full(error):
            raise _failed_before_commit(error) from error
        raise _BatchFailed(OutcomeUnknown(_UNKNOWN_DETAIL), stop=True) from error
    times.committed_ns = now_ns()
    return outcomes


def _begin(tx: Connection) -> Sealing:
    try:
        tx.execute("BEGIN IMMEDIATE")
        return Sealing(tx)
    except (sqlite.DatabaseError, TreeBroken) as error:
        raise _failed_before_commit(error) from error


def _with_leaves(
    tx: Connection, sealing: Sealing, outcomes: list[Answer | BaseException]
) -> list[Answer | BaseException]:
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


def _run_one(
    tx: Connection, job: _Job, now: str, policy: Policy, render_refusal: RenderRefusal
) -> Answer | BaseException:
    """One operation in its savepoint. Returns what it raised, unless the whole transaction is spoilt: _BatchFailed.

    An error of one statement, such as a broken constraint or a text that is too long, is that operation's alone.
    """
    job.times.began_ns = now_ns()
    try:
        tx.execute("SAVEPOINT operation")
        answer = perform(
            tx,
            job.operation,
            job.command,
            job.target,
            request=job.request,
            context=job.context,
            policy=policy,
            now=now,
            render_refusal=render_refusal,
        )
        tx.execute("RELEASE operation")
    except Exception as error:
        if isinstance(error, sqlite.DatabaseError) and not sqlite.is_of_statement(error):
            raise _failed_before_commit(error) from error
        tx.execute("ROLLBACK TO operation")
        tx.execute("RELEASE operation")
        # A future takes no StopIteration.
        return RuntimeError("StopIteration") if isinstance(error, StopIteration) else error
    finally:
        job.times.ended_ns = now_ns()
    return answer


def _failed_before_commit(error: BaseException) -> _BatchFailed:
    """What a storage error before a completed COMMIT means: nothing of the batch is on disk."""
    if sqlite.is_busy(error):
        return _BatchFailed(DatabaseBusy(_BUSY_DETAIL), stop=False)
    if sqlite.is_full(error):
        return _BatchFailed(StorageFull(_FULL_DETAIL), stop=False)
    return _BatchFailed(WritesStopped(f"The database failed: {error}. Nothing was changed."), stop=True)


def _roll_back(tx: Connection) -> None:
    if tx.in_transaction:
        tx.execute("ROLLBACK")
