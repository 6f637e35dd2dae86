"""The background task that lets pending deposits and held domain purchases expire.

It only looks and asks. A reader lists what is due, and the writer gets it like a request, one batch at a time, each
after the commit of the one before. So no request ever waits behind more than one of these batches.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from msgspec import Struct

from service.ledger.errors import Unavailable
from service.ledger.expiry import ACTOR, BATCH_MAX, FIRST, Due, Expire, Expired
from service.ledger.policy import Policy
from service.ledger.timestamps import Clock, stored
from service.repository import expiry
from service.repository.session import Context
from service.repository.unit_of_work import Operation
from service.repository.writer import Writer
from service.storage import deposits, domain_purchases
from service.storage.sqlite import Readers

_log = logging.getLogger(__name__)
_CONTEXT = Context(actor=ACTOR, request_id=None, ip_address=None, user_agent=None)
# Where there is one, the clock that also counts while the machine sleeps.
_CLOCK_ID: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def system_elapsed() -> float:
    """Seconds since some moment, from a clock that nobody sets."""
    return time.clock_gettime(_CLOCK_ID)


class Swept(Struct, frozen=True, kw_only=True):
    """How many pending deposits and held purchases expired in one sweep."""

    deposits: int
    purchases: int


@dataclass(frozen=True, slots=True)
class _Kind:
    """What can expire: its noun in the log, how it is listed, and how it is closed."""

    noun: str
    list_due: Callable[..., list[Due]]
    operation: Operation


_DEPOSITS = _Kind("deposit", deposits.list_due, expiry.DEPOSITS)
_PURCHASES = _Kind("held domain purchase", domain_purchases.list_due, expiry.PURCHASES)


class Sweeper:
    """Sweeps every `interval_s` within `running`, for the first time after one interval.

    By then the bank's news that waited while the service was down has come in, and the deposits that it is about are
    confirmed. Lifetime: within the writer's.
    """

    def __init__(self, readers: Readers, writer: Writer, *, clock: Clock, policy: Policy, interval_s: float) -> None:
        self._readers = readers
        self._writer = writer
        self._clock = clock
        self._policy = policy
        self._interval_s = interval_s
        self._stopping = asyncio.Event()
        self._told: set[tuple[str, int]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Sweeper"]:
        """Sweeps for the block; at its end a batch under way is finished and no other begun."""
        task = asyncio.create_task(self._run(), name="passbook-sweeper")
        try:
            yield self
        finally:
            self._stopping.set()
            await task

    async def sweep(self, now: datetime) -> Swept:
        """Lets everything expire that is due at `now`. Raises Unavailable; the batches before stay done."""
        counts: Counter[str] = Counter()
        try:
            await self._expire_all(_DEPOSITS, now - timedelta(seconds=self._policy.deposit_expiry_s), counts)
            await self._expire_all(_PURCHASES, now - timedelta(seconds=self._policy.hold_expiry_s), counts)
        finally:
            if counts.total():
                _log.info("expired %s", " and ".join(_counted(noun, n) for noun, n in counts.items() if n))
        return Swept(deposits=counts[_DEPOSITS.noun], purchases=counts[_PURCHASES.noun])

    async def _run(self) -> None:
        while not await self._stops_within(self._interval_s):
            try:
                await self.sweep(self._clock())
            except Unavailable as error:
                _log.warning("what has expired waits for the next sweep: %s", error.detail)
            except Exception:
                _log.exception("a sweep failed; the next one is due in %g s", self._interval_s)

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        except TimeoutError:
            return False

    async def _expire_all(self, kind: _Kind, before: datetime, counts: Counter[str]) -> None:
        """Expires batch after batch until no more is due. A row that cannot expire is skipped and delays nothing."""
        created_before, after = stored(before), FIRST
        while not self._stopping.is_set():
            due = await self._readers.read(kind.list_due, created_before=created_before, after=after, limit=BATCH_MAX)
            if due:
                after = due[-1]
                counts[kind.noun] += await self._expire(kind, [row.id for row in due], created_before)
            if len(due) < BATCH_MAX:
                return

    async def _expire(self, kind: _Kind, ids: list[int], created_before: str) -> int:
        """How many of `ids` expired. A row that breaks the unit of work is left out: the others get their own."""
        try:
            answer = await self._writer.submit(
                kind.operation, Expire(ids=ids, created_before=created_before), 0, request=None, context=_CONTEXT
            )
        except Unavailable:
            raise
        except Exception as error:
            if len(ids) == 1:
                self._tell_once(kind, ids[0], f"{type(error).__name__}: {error}")
                return 0
            return sum(
                [await self._expire(kind, [single], created_before) for single in ids if not self._stopping.is_set()]
            )
        done = msgspec.json.decode(answer.body, type=Expired)
        for refused in done.refused:
            self._tell_once(kind, refused, "its price would take the balance beyond the limit")
        return len(done.expired)

    def _tell_once(self, kind: _Kind, row_id: int, reason: str) -> None:
        """Every sweep meets the row again; the log needs it once."""
        if (kind.noun, row_id) not in self._told:
            self._told.add((kind.noun, row_id))
            _log.error("%s %d is due and cannot expire: %s", kind.noun, row_id, reason)


def _counted(noun: str, count: int) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
