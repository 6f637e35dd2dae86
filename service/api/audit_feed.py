"""Readers of the audit log that wait for its next row, and readers of the whole log.

Nobody polls the database in a loop. The writer announces each commit, and once a second one indexed read on the event
loop's own connection finds what the command line has written. Searches have connections of their own, so that no
balance waits behind a long one.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from litestar import Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from service.ledger.audit_logs import AuditLog, AuditLogFilter, Order
from service.ledger.errors import AuditRowsArchived, Overloaded
from service.repository.writer import Writer
from service.storage import audit_logs, audit_prunes, audit_search
from service.storage.sqlite import Connection, Readers

PAGE_BUDGET_S = 0.25
"""How long a search looks before it answers what it has."""
FOLLOWERS_MAX, ALL_FOLLOWERS_MAX = 256, 1024
"""Of one API key, and of all."""
EXPORTS_MAX, ALL_EXPORTS_MAX = 4, 16
"""Of one API key, and of all."""
_CHUNK_ROWS = 1000
_LOOK_EVERY_S = 1.0
_PAUSE_S = 0.05
CONNECTION = "passbook.connection"
"""The extension of the ASGI scope about the connection: `abort` ends it at once, `lost` says whether it has ended.

http.disconnect says less: it also comes when the client has closed its side, and may still read.
"""
_log = logging.getLogger(__name__)

Encode = Callable[[list[AuditLog]], bytes]


class _Slots:
    """How many of a kind each may have at once, and all together."""

    def __init__(self, most: int, all_most: int, kind: str) -> None:
        self._most, self._all_most, self._kind = most, all_most, kind
        self._taken: Counter[Hashable] = Counter()

    def take(self, who: Hashable) -> None:
        """Raises Overloaded when none is free for `who` asks."""
        if self._taken[who] >= self._most:
            raise Overloaded(f"{self._most} {self._kind} of this API key are under way. Send the request again later.")
        if self._taken.total() >= self._all_most:
            raise Overloaded(f"{self._all_most} {self._kind} are under way already. Send the request again later.")
        self._taken[who] += 1

    def give_back(self, who: Hashable) -> None:
        """For each one that was taken."""
        self._taken[who] -= 1
        if not self._taken[who]:
            del self._taken[who]


class AuditFeed:
    """The reads of the audit log that take long. Lifetime: within the application's, from its making to `stop`.

    `newest_id` is the event loop's own look at the id of the newest row. An export whose client takes nothing for long
    is ended by the server, like every answer.
    """

    def __init__(self, readers: Readers, writer: Writer, newest_id: Callable[[], int]) -> None:
        self.readers = readers
        self._writer = writer
        self._newest_id = newest_id
        self._followers = _Slots(FOLLOWERS_MAX, ALL_FOLLOWERS_MAX, "requests with follow")
        self._exports = _Slots(EXPORTS_MAX, ALL_EXPORTS_MAX, "exports of the audit log")
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Answers those who wait for a row, and cuts off those who read the whole."""
        self._stopping.set()

    async def follow(
        self, wanted: AuditLogFilter, *, after: int, limit: int, wait_s: float, receive: Receive, who: Hashable = None
    ) -> tuple[list[AuditLog], int] | None:
        """The next rows behind the id `after`, oldest first, and the id up to which it looked.

        Waits for the first of them for at most `wait_s`, until the client goes away or the service stops. None when
        `after` is beyond the newest row. It reads in the turn of `who` asks. Raises Overloaded, AuditRowsArchived.
        """
        self._followers.take(who)
        try:
            with _tasks(_gone(receive), self._stopping.wait()) as ended:
                until = asyncio.get_running_loop().time() + wait_s
                return await self._follow(wanted, after, limit, until, ended, who)
        finally:
            self._followers.give_back(who)

    async def _follow(
        self,
        wanted: AuditLogFilter,
        after: int,
        limit: int,
        until: float,
        ended: set[asyncio.Task[Any]],
        who: Hashable,
    ) -> tuple[list[AuditLog], int] | None:
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        while True:
            rows, reached, newest = await self.readers.read_for(who, _next_rows, wanted, after, limit)
            if newest < after:
                return None
            after = reached
            if rows or loop.time() >= until or any(task.done() for task in ended):
                return rows, after
            # Commits may come by the hundred, and none of them need be what is waited for.
            await asyncio.wait(ended, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            await self._more(after, until, ended)
            pause_s = _PAUSE_S

    async def _more(self, after: int, until: float, ended: set[asyncio.Task[Any]]) -> None:
        """Returns when there is a row above `after`, or there may be, or nothing is to be waited for any more."""
        while self._newest_id() <= after:
            left = min(_LOOK_EVERY_S, until - asyncio.get_running_loop().time())
            with _tasks(self._writer.next_commit()) as committed:
                done, _ = await asyncio.wait(ended | committed, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if done or left < _LOOK_EVERY_S:
                return

    async def export(
        self,
        wanted: AuditLogFilter,
        *,
        order: Order,
        after: int | None,
        limit: int | None,
        who: Hashable = None,
        encode: Encode,
        header: bytes,
        media_type: str,
        headers: dict[str, str],
    ) -> "Export":
        """All rows behind the id `after` in that order, at most `limit`, as they are when this is asked, encoded.

        Read in the turn of `who` asks. What fails at the first rows is raised here, before an answer has begun. Raises
        Overloaded.
        """
        self._exports.take(who)
        try:
            chunks = self._chunks(wanted, order, after, limit, encode, who)
            first = header + await anext(chunks, b"")
        except BaseException:
            self._exports.give_back(who)
            raise
        parts = Parts(first, chunks, self._stopping, partial(self._exports.give_back, who))
        return Export(parts, media_type=media_type, headers=headers)

    async def _chunks(
        self,
        wanted: AuditLogFilter,
        order: Order,
        after: int | None,
        limit: int | None,
        encode: Encode,
        who: Hashable,
    ) -> AsyncIterator[bytes]:
        """Each chunk is a read of its own: the log only grows, so that no snapshot need be held."""
        newest = await self.readers.read_for(who, audit_logs.find_newest_id)
        while limit is None or limit > 0:
            most = _CHUNK_ROWS if limit is None else min(limit, _CHUNK_ROWS)
            encoded, count, after = await self.readers.read_for(who, _chunk, wanted, order, after, newest, most, encode)
            limit = None if limit is None else limit - count
            yield encoded
            if after is None:
                return


def _next_rows(tx: Connection, wanted: AuditLogFilter, after: int, limit: int) -> tuple[list[AuditLog], int, int]:
    prune = audit_prunes.find_of_next(tx, after)
    if prune is not None:
        raise AuditRowsArchived(
            f"The rows after {after} up to {prune.through_id} were archived and removed, the last of them into"
            f" {prune.archive}. Follow {prune.through_id} for those that came after them.",
            archive=prune.archive,
            through_id=prune.through_id,
        )
    return audit_search.find_after(tx, wanted, after=after, limit=limit, budget_s=PAGE_BUDGET_S)


def _chunk(
    tx: Connection,
    wanted: AuditLogFilter,
    order: Order,
    after: int | None,
    newest: int,
    limit: int,
    encode: Encode,
) -> tuple[bytes, int, int | None]:
    """The next rows encoded, how many they are, and the id behind which to go on; None at the end."""
    found = audit_search.search(tx, wanted, order=order, after=after, limit=limit, budget_s=PAGE_BUDGET_S, up_to=newest)
    return encode([audit_logs.audit_log(row) for row in found.rows]), len(found.rows), found.reached


class Parts(NamedTuple):
    """What an export is made of. ended: called once, at the end."""

    first: bytes
    chunks: AsyncIterator[bytes]
    stopping: asyncio.Event
    ended: Callable[[], None]


class Export(Response[bytes]):
    """An answer that is read while it is sent, no faster than the client takes it."""

    def __init__(self, parts: Parts, *, media_type: str, headers: dict[str, str]) -> None:
        super().__init__(b"", media_type=media_type, headers=headers)
        self._parts = parts

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIResponse:
        """The same as Litestar sends it."""
        return _Sending(self._parts, media_type=self.media_type, headers=self.headers)


class _Sending(ASGIResponse):
    _should_set_content_length = False

    def __init__(self, parts: Parts, *, media_type: Any, headers: dict[str, Any]) -> None:
        super().__init__(media_type=media_type, headers=headers)
        self._parts = parts
        self._abort: Callable[[], None] = lambda: None
        self._lost: Callable[[], bool] = lambda: False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extension: dict[Any, Any] = (scope.get("extensions") or {}).get(CONNECTION) or {}
        self._abort, self._lost = extension.get("abort", self._abort), extension.get("lost", self._lost)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._parts.ended()

    async def send_body(self, send: Send, receive: Receive) -> None:  # noqa: ARG002
        """Sends everything. What ends it early leaves the body without its end, by which the client can tell."""
        sending = asyncio.create_task(self._send_all(send))
        try:
            with _tasks(self._parts.stopping.wait()) as stopping:
                await asyncio.wait({sending, *stopping}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            else:
                await self._cut_off("the service is stopping")
        finally:
            sending.cancel()

    async def _cut_off(self, because: str) -> None:
        _log.warning("an export of the audit log is cut off: %s", because)
        self._abort()
        await asyncio.sleep(0)  # until the server knows; it would complain of an answer without an end

    async def _send_all(self, send: Send) -> None:
        """Each part is sent when there is room for it, and none after the connection has ended."""
        await send({"type": "http.response.body", "body": self._parts.first, "more_body": True})
        async for chunk in self._parts.chunks:
            if self._lost():
                return
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    """Returns when the client has gone away, or has said all that it will say."""
    while (await receive())["type"] != "http.disconnect":
        pass


@contextmanager
def _tasks(*coroutines: Coroutine[Any, Any, object]) -> Iterator[set[asyncio.Task[Any]]]:
    """A task for each, for the block."""
    tasks = {asyncio.ensure_future(coroutine) for coroutine in coroutines}
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
