"""Group commit: one connection, one fsync for every request that queued while the last commit ran.

A batch is one call of the owner of the connection, a process or a thread. The owner does BEGIN IMMEDIATE, then the
operations one after the other through one session, then COMMIT. Only then the waiting requests are answered. If an
operation breaks after it has written, the batch is rolled back and begins again with a savepoint for each operation. A
lone request does not wait for others: there is no timer. A request that is cancelled while it waits is carried out all
the same, and its answer is stored.

A commit is bounded in operations and in weight, which is roughly the number of rows that they write. Between callers
the queue is fair (`fair_queue.py`).

The owner of the connection may hang, for example on a disk that does not answer. A watch looks at the age of the call
under way. First new writes are refused, then those who wait are answered, and at last the owner is killed, if it can
be. The work of a killed owner is on disk or it is not; a retry with the same key finds out.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from sys import getsizeof
from typing import TypeVar

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
    WritesStalled,
    WritesStopped,
)
from service.ledger.idempotency import Answer, Request
from service.ledger.policy import Policy
from service.ledger.timestamps import Clock, stored
from service.repository.fair_queue import FairQueue
from service.repository.session import Context, Session, Spoilt
from service.repository.unit_of_work import Operation, RenderRefusal, perform
from service.repository.write_times import BatchTimes, Watch, WriteTimes, now_ns
from service.storage import audit_chain, guard, probes, sqlite
from service.storage.audit_chain import Sealing, TreeBroken
from service.storage.connection_process import ConnectionLost, NotStarted, Owner, portable
from service.storage.sqlite import Connection, NotTrusted

T = TypeVar("T")
_log = logging.getLogger(__name__)
_FULL_DETAIL = "The disk of the database is full; nothing was changed. Free some space and send the request again."
_BUSY_DETAIL = "Another process holds the database; nothing was changed. Send the request again."
_TICK_S = 0.25
_LATE_S = 1.0
_IDLE_CHECK_S = 1.0
"""How often an idle owner is asked whether it is there, and looks after its files."""
_TROUBLED_CHECK_S = 1.0
"""How often it is tried whether writes are taken again while none come."""
_START_AGAIN_S = (0.25, 0.5, 1.0, 2.0)
"""How long after each failed start of the owner the next one is tried; then always after the last."""
_KILLED_WITHIN_S = 1.0
_HURRIED_S = 2.0
_ONE_CALL_S = 1.0
"""What a call that has just begun is given at the end in any case."""
_UNKNOWN_DETAIL = (
    "The commit failed in a way that does not say whether the change is on disk. Send the same request with the same"
    " Idempotency-Key again: it is carried out at most once."
)
_UNANSWERED_DETAIL = (
    "The write was begun, and its commit was not answered in time: whether the change is on disk is not known. Send the"
    " same request with the same Idempotency-Key again: it is carried out at most once."
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


class Patience(Struct, frozen=True, kw_only=True):
    """How long a call of the owner may take, in seconds.

    After stall_s, writes count as stalled, and new ones are refused at once. After timeout_s, those who wait are
    answered, in the batch and in the queue. After restart_s, the owner is killed and another one is started; 0 means
    never.
    """

    stall_s: float = 10
    timeout_s: float = 30
    restart_s: float = 60


class WriteState(StrEnum):
    """Whether writes can be taken, and what keeps them from it."""

    OK = "ok"
    STALLED = "stalled"
    NOT_STARTED = "not_started"
    STORAGE_FULL = "storage_full"
    DATABASE_BUSY = "database_busy"
    STOPPED = "stopped"


class Condition(Struct, frozen=True):
    """A state and, in a clause, why it is so; empty where all is well."""

    state: WriteState
    why: str = ""


_WELL = Condition(WriteState.OK)


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
        patience: Patience | None = None,
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
        self._patience = patience or Patience()
        self._call_began: float | None = None
        self._idle_since = 0.0
        self._check_due = False
        self._killed = False
        self._stalled = False
        self._trouble = _WELL
        self._failed_starts = 0
        self._start_not_before = 0.0
        self._refuses: str | None = None
        self._finish_by: float | None = None
        self.unfinished: str | None = None
        """After the end: what was not finished, as a sentence."""

    @property
    def condition(self) -> Condition:
        """Whether writes can be taken now, as far as is known."""
        if self._stopped_because is not None:
            return Condition(WriteState.STOPPED, f"{self._stopped_because}. Restart the service")
        if self._stalled:
            age = self.call_age_s
            killed = " and was killed; it ends when its disk answers" if self._killed else ""
            return Condition(WriteState.STALLED, f"the writing process has not answered for {age:.0f} s{killed}")
        return self._trouble

    @property
    def call_age_s(self) -> float:
        """How long the batch that is under way has taken so far, in seconds; 0 where there is none."""
        return 0.0 if self._call_began is None else asyncio.get_running_loop().time() - self._call_began

    @property
    def stopped_because(self) -> str | None:
        """Why no writes are taken until a restart; None while all is well."""
        return self._stopped_because

    @staticmethod
    def stopped(because: str) -> WritesStopped:
        """What a write is told that comes when writes have stopped."""
        return WritesStopped(f"Writes have stopped: {because}. Restart the service.")

    @property
    def queue_max(self) -> int:
        """How many requests may wait."""
        return self._queue.count_max

    @property
    def queue_depth(self) -> int:
        """How many requests wait for their commit, those of the batch under way among them."""
        return len(self._queue) + len(self._batch)

    async def next_commit(self) -> None:
        """Returns when the batch that is carried out now, or else the next one, is on disk."""
        await self._committed.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Writer"]:
        """Takes writes for the block; at its end takes no more and finishes what was taken.

        It waits for that until what `finish_by` said, by default as long as a write may wait for its commit. Then it
        kills the owner, and tells what was left of it in `unfinished`.
        """
        task = asyncio.create_task(self._run(), name="passbook-writer")
        watchdog = asyncio.create_task(self._watch_over(), name="passbook-writer-watch")
        self._accepting = True
        try:
            yield self
        finally:
            self._accepting = False
            self._wake.set()
            await self._end(task)
            watchdog.cancel()

    def finish_by(self, seconds: float) -> None:
        """At the end, what was taken has so many seconds from now to be finished."""
        self._finish_by = asyncio.get_running_loop().time() + seconds

    def hurry(self) -> None:
        """Finishes soon, or not at all: somebody asked twice."""
        self.finish_by(0 if self._stalled else _HURRIED_S)

    async def _end(self, task: "asyncio.Task[None]") -> None:
        loop = asyncio.get_running_loop()
        if self._finish_by is None:
            self.finish_by(self._patience.timeout_s)
        at_least = max(loop.time() + _TICK_S, (self._call_began or 0) + _ONE_CALL_S)
        while not task.done() and loop.time() < max(at_least, self._finish_by or 0):  # which may come nearer meanwhile
            await asyncio.wait({task}, timeout=_TICK_S)
        if task.done():
            await task
            return
        said = f"The writing process did not answer for {self.call_age_s:.0f} s and was killed"
        _log.critical("%s; what it was doing is on disk or is not, and a retry of the same key tells", said)
        self._answer_waiting()
        self._owner.kill()
        self.unfinished = f"{said}."
        await asyncio.wait({task}, timeout=_KILLED_WITHIN_S)
        if task.done():
            await task
            return
        task.cancel()  # whoever closes the owner tells whether it has ended
        await asyncio.wait({task}, timeout=_KILLED_WITHIN_S)

    def _answer_waiting(self) -> None:
        """Tells everybody who waits that they wait in vain."""
        self._fail(self._batch, OutcomeUnknown, _UNANSWERED_DETAIL)
        waiting = list(self._queue)
        for job in waiting:
            self._queue.remove(job)
        self._fail(waiting, WritesStopped, "The service is stopping; nothing was changed. Send the request again.")

    @staticmethod
    def _fail(jobs: Iterable[_Job], kind: type[Unavailable], detail: str) -> None:
        for job in jobs:
            if not job.answered.done():
                job.answered.set_exception(kind(detail))

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

        Raises Overloaded, WritesStalled, WritesStopped, DatabaseBusy, StorageFull (nothing was done), OutcomeUnknown,
        IdempotencyKeyReused, or what the operation raised.
        """
        if self._stopped_because is not None:
            raise self.stopped(self._stopped_because)
        if not self._accepting:
            raise WritesStopped("The service is stopping; nothing was changed. Send the request again.")
        if self._refuses is not None:
            raise WritesStalled(f"{self._refuses}; nothing was begun. Send the request again.")
        lane = context.key_prefix or context.actor
        size = getsizeof(request.body) if request is not None else 0
        if not self._queue.has_room(lane, size):
            raise Overloaded(
                f"{len(self._queue)} writes wait already, and there is no room for more of {lane}; nothing was changed."
                " Send the request again."
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
                if self._check_due:
                    self._check_due = False
                    await self._check()
                while self._queue:
                    self._batch = self._queue.take(count_max=self._batch_max, weight_max=self._batch_max)
                    await self._commit(self._batch)
                    self._batch = []
                if not self._accepting:
                    return
        except asyncio.CancelledError:  # the owner could not even be killed
            self._answer_waiting()
            raise
        except BaseException as error:
            # Nobody else would ever answer those who wait.
            self._stop(f"the writer ended by {type(error).__name__}", error)
            self._fail((*self._batch, *self._queue), OutcomeUnknown, _UNKNOWN_DETAIL)
            raise

    async def _watch_over(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            looked = loop.time()
            await asyncio.sleep(_TICK_S)
            late = loop.time() - looked - _TICK_S
            if late > _LATE_S and self._call_began is not None:
                self._call_began += late  # this process stood still, and the owner may have answered long ago
            try:
                self._look()
            except Exception:  # it looks again; nobody else would
                _log.exception("the watch of the writer failed")

    def _look(self) -> None:
        """What the age of the call under way, and of those who wait, asks for."""
        now, age = asyncio.get_running_loop().time(), self.call_age_s
        stalled = age >= self._patience.stall_s
        if stalled and not self._stalled:
            _log.critical("the writing process has not answered for %.0f s; new writes are refused", age)
        self._stalled = stalled
        self._refuses = f"The writing process has not answered for {age:.0f} s" if stalled else None
        if self._trouble.state is WriteState.NOT_STARTED and now < self._start_not_before:
            self._refuses = f"The writing process is not there: {self._trouble.why}"
        if age >= self._patience.timeout_s:
            self._fail(self._batch, OutcomeUnknown, _UNANSWERED_DETAIL)
        self._refuse_older(now_ns() - int(self._patience.timeout_s * 1e9), stalled=stalled)
        if self._finish_by is not None and now >= self._finish_by:
            self._accepting = False
            self._answer_waiting()
        if 0 < self._patience.restart_s <= age and not self._killed:
            self._killed = True
            if self._owner.kill():
                _log.critical("the writing process has not answered for %.0f s and is killed", age)
        if self._call_began is None and self._accepting and self._stopped_because is None:
            troubled = self._trouble is not _WELL
            wait_s = _TROUBLED_CHECK_S if troubled else _IDLE_CHECK_S
            if now >= max(self._idle_since + wait_s, self._start_not_before):
                self._check_due = True
                self._wake.set()

    def _refuse_older(self, than_ns: int, *, stalled: bool) -> None:
        """Takes what has queued before that instant out of the queue, so that it is truly not begun."""
        late = [job for job in self._queue if job.times.queued_ns <= than_ns]
        for job in late:
            self._queue.remove(job)
        waited = f"waited {self._patience.timeout_s:g} s for its turn; nothing was begun. Send the request again."
        if stalled:
            self._fail(late, WritesStalled, f"The writing process does not answer. The write {waited}")
        else:
            self._fail(late, Overloaded, f"The write {waited}")

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

    async def _on_owner(self, call: Awaitable[T]) -> T:
        """What the call of the owner gives. Raises Unavailable; what that means for other writes is noted first."""
        loop = asyncio.get_running_loop()
        self._call_began = loop.time()
        trouble = _WELL
        try:
            return await call
        except BatchFailed as failed:
            if failed.stop is not None:
                self._stop(failed.stop, failed)
            elif isinstance(failed.reason, StorageFull):
                trouble = Condition(WriteState.STORAGE_FULL, "the disk of the database is full")
            else:
                trouble = Condition(WriteState.DATABASE_BUSY, "another process holds the database")
            raise failed.reason from None
        except NotStarted as error:
            trouble = self._put_off(str(error))
            raise WritesStalled(f"The writing process is not there: {error}; nothing was begun.") from error
        except ConnectionLost as error:
            lost = f"a batch of {len(self._batch)} is lost" if self._batch else "there was no batch"
            _log.critical("%s: %s; the next one starts another", lost, error)
            raise OutcomeUnknown(_UNKNOWN_DETAIL) from error
        except Exception as error:
            self._stop(f"unexpected {type(error).__name__}", error)
            raise OutcomeUnknown(_UNKNOWN_DETAIL) from error
        finally:
            if trouble.state is not WriteState.NOT_STARTED:
                self._failed_starts, self._start_not_before = 0, 0.0
            if trouble.state is not self._trouble.state:
                _log.warning("writes: %s", f"{trouble.state}: {trouble.why}" if trouble.why else "taken again")
            self._trouble = trouble
            self._call_began, self._killed, self._stalled, self._refuses = None, False, False, None
            self._idle_since = loop.time()

    def _put_off(self, why: str) -> Condition:
        pause_s = _START_AGAIN_S[min(self._failed_starts, len(_START_AGAIN_S) - 1)]
        self._failed_starts += 1
        self._start_not_before = asyncio.get_running_loop().time() + pause_s
        return Condition(WriteState.NOT_STARTED, why)

    async def _check(self) -> None:
        """Asks an idle owner whether it is there, and a troubled one whether it can write again."""
        with contextlib.suppress(Unavailable):
            await self._on_owner(self._owner.run(look_after if self._trouble is _WELL else try_to_write))

    async def _commit(self, batch: list[_Job]) -> None:
        outcomes: list[Answer | Exception]
        times = BatchTimes(len(batch))
        if self._stopped_because is not None:
            outcomes = [WritesStopped(f"Writes have stopped: {self._stopped_because}.") for _ in batch]
        elif asyncio.get_running_loop().time() < self._start_not_before:
            why = f"The writing process is not there: {self._trouble.why}; nothing was begun. Send the request again."
            outcomes = [WritesStalled(why) for _ in batch]
        else:
            try:
                done = await self._on_owner(
                    self._owner.run(self._run_batch, [job.work for job in batch], now=stored(self._clock()))
                )
                outcomes = done.outcomes
                times.commit_began_ns, times.committed_ns = done.commit_began_ns, done.committed_ns
                for job, instants in zip(batch, done.instants, strict=True):
                    job.times.began_ns, job.times.ended_ns = instants
                self._committed.set()
                self._committed = asyncio.Event()
            except Unavailable as reason:
                # One exception for each: a shared one would gather the tracebacks of all who raise it.
                outcomes = [type(reason)(reason.detail) for _ in batch]
            self._tell(times, batch)
        for job, outcome in zip(batch, outcomes, strict=True):
            if job.answered.done():  # its request was cancelled, or waited too long; the answer is stored
                continue
            if isinstance(outcome, Answer):
                job.answered.set_result(outcome)
            else:
                job.answered.set_exception(outcome)


def look_after(tx: Connection) -> None:
    """What is due while nobody writes: are the files still the database, and has the log grown? Raises BatchFailed."""
    try:
        guard.check_files(tx, committed=False)
        sqlite.shorten_log(tx)
    except NotTrusted as error:
        raise BatchFailed(WritesStopped(f"{error}."), str(error)) from error
    except (sqlite.DatabaseError, OSError) as error:
        _log.warning("the write-ahead log could not be looked after: %s", error)  # a write meets it, and tells


def try_to_write(tx: Connection) -> None:
    """A commit that changes nothing, behind some space on the disk. Raises BatchFailed as a batch would."""
    try:
        probes.write_nothing(tx)
    except (sqlite.DatabaseError, OSError) as error:
        _roll_back(tx)
        raise _failed_before_commit(tx, error) from error


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
        full = sqlite.is_full(error) or (probes.is_out_of_space(tx, error) and guard.left_no_commit(tx))
        if full or sqlite.is_busy(error):
            raise _failed_before_commit(tx, error) from error
        raise BatchFailed(OutcomeUnknown(_UNKNOWN_DETAIL), str(error)) from error
    committed_ns = now_ns()
    _check_went_into_the_database(tx)
    return Done(outcomes, instants, commit_began_ns, committed_ns)


def _check_went_into_the_database(tx: Connection) -> None:
    """What was committed to a file that is no longer the database is answered to nobody. Raises BatchFailed."""
    try:
        guard.check_files(tx, committed=True)
    except (sqlite.DatabaseError, OSError) as error:
        raise BatchFailed(OutcomeUnknown(_UNKNOWN_DETAIL), str(error)) from error
    except NotTrusted as error:
        raise BatchFailed(OutcomeUnknown(f"{error}. {_UNKNOWN_DETAIL}"), str(error)) from error


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
            [who for work in batch if isinstance(who := getattr(work.command, "telegram_id", None), str)],
        )
        for work in batch:
            began_ns = now_ns()
            outcomes.append(_run_one(session, work, render_refusal))
            instants.append((began_ns, now_ns()))
        session.flush()
    except sqlite.DatabaseError as error:
        raise _failed_before_commit(tx, error) from error
    return _with_leaves(tx, sealing, outcomes), instants


def _begin(tx: Connection) -> Sealing:
    try:
        sqlite.give_way(tx)
        guard.check_files(tx, committed=False)
        tx.execute("BEGIN IMMEDIATE")
        guard.check_schema(tx)
        return Sealing(tx)
    except NotTrusted as error:
        raise BatchFailed(WritesStopped(f"{error}. Nothing was changed."), str(error)) from error
    except (sqlite.DatabaseError, TreeBroken, OSError) as error:  # the guard reads the files itself
        raise _failed_before_commit(tx, error) from error


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
        raise _failed_before_commit(tx, error) from error


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


def _failed_before_commit(tx: Connection, error: BaseException) -> BatchFailed:
    """What a storage error before a completed COMMIT means: nothing of the batch is on disk."""
    if sqlite.is_busy(error):
        return BatchFailed(DatabaseBusy(_BUSY_DETAIL), None)
    if probes.is_out_of_space(tx, error):
        return BatchFailed(StorageFull(_FULL_DETAIL), None)
    return BatchFailed(WritesStopped(f"The database failed: {error}. Nothing was changed."), str(error))


def _roll_back(tx: Connection) -> None:
    if tx.in_transaction:
        tx.execute("ROLLBACK")
