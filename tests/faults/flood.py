"""Callers that mean harm, as a program: each kind of them takes what memory and time a service lets it take.

`python -m tests.faults.flood URL KEY,… SECONDS` runs all kinds at once against a service of the loopback interface. The
last API key asks for pages, the others send batches. What they send is bounded, and they end by themselves.
"""

import asyncio
import contextlib
import itertools
import json
import resource
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

TRAILER_BYTES = 67 * 2**20
PIPELINES = 200
HEADS = 10_000
HEAD_BYTES = 200_000
SMALL_HEAD_BYTES = 15_000
PAGES = 120
BATCHES = 800
CHANGES = 1000
_AT_ONCE = 1500
"""Unfinished heads that one kind keeps open; what the service ends is begun anew."""


class Flood:
    """All kinds of floods on one service, until `seconds` have gone by."""

    def __init__(self, url: str, keys: list[str], seconds: float) -> None:
        target = urlsplit(url)
        self._address = str(target.hostname), int(target.port or 0)
        self._page_key = keys[-1]
        self._keys = itertools.cycle(keys[:-1])
        self._end = asyncio.get_running_loop().time() + seconds

    @property
    def _left(self) -> float:
        return max(0.0, self._end - asyncio.get_running_loop().time())

    @asynccontextmanager
    async def _connected(self, *, receive_bytes: int = 0) -> AsyncIterator[socket.socket]:
        loop = asyncio.get_running_loop()
        with socket.socket() as one:
            one.setblocking(False)
            if receive_bytes:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            await loop.sock_connect(one, self._address)
            yield one

    async def _until_the_end(self, kind: Callable[[], Awaitable[None]]) -> None:
        """`kind` again and again: what the service ends, fails, or refuses is tried anew."""
        while self._left:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._left):
                    await kind()
            await asyncio.sleep(0.05)

    async def trailers(self) -> None:
        """67 MiB of a trailer, five bytes at a time."""
        async with self._connected() as one:
            await self._send(one, b"POST /v1/debits HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
            for _ in range(TRAILER_BYTES // 65_535):
                await self._send(one, b"a:b\r\n" * 13_107)
            await self._hold(one)

    async def pipeline(self) -> None:
        """Requests without a key, as many as go, and no answer is read."""
        async with self._connected() as one:
            while self._left:
                await self._send(one, b"GET /v1/users/1/balance HTTP/1.1\r\nHost: x\r\n\r\n" * 1400)

    async def large_head(self) -> None:
        """A head of 200 KB without an end."""
        async with self._connected() as one:
            await self._send(one, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * HEAD_BYTES)
            await self._hold(one)

    async def small_head(self) -> None:
        """A head that could be one, without an end."""
        async with self._connected() as one:
            await self._send(one, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * SMALL_HEAD_BYTES)
            await self._hold(one)

    async def page(self) -> None:
        """A large page of the audit log that nobody reads: two, since the kernel takes much of one."""
        async with self._connected(receive_bytes=4096) as one:
            head = (
                f"GET /v1/audit-logs?limit=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._page_key}\r\n\r\n"
            )
            await self._send(one, head.encode() * 2)
            await asyncio.sleep(self._left)

    async def batch(self) -> None:
        """A batch of a thousand changes to user 8."""
        async with self._connected() as one:
            name = f"{id(one)}-{self._left}"
            changes = [
                {"telegram_id": "8", "amount": 1 - n % 2 * 2, "reason": "x" * 60, "reference": f"{name}-{n}"}
                for n in range(CHANGES)
            ]
            body = json.dumps({"changes": changes}).encode()
            head = (
                f"POST /v1/balance-changes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {next(self._keys)}\r\n"
                f"Content-Type: application/json\r\nIdempotency-Key: {name}\r\n"
                f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            await self._send(one, head.encode() + body)
            await self._hold(one)

    async def _send(self, one: socket.socket, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(one, data)

    async def _hold(self, one: socket.socket) -> None:
        """Until the service ends it."""
        while await asyncio.get_running_loop().sock_recv(one, 65_536):
            pass

    async def run(self, kinds: list[str]) -> None:
        """The kinds of these names at once."""
        counts = {
            "trailers": (self.trailers, 2),
            "pipeline": (self.pipeline, PIPELINES),
            "large_head": (self.large_head, _AT_ONCE),
            "small_head": (self.small_head, _AT_ONCE),
            "page": (self.page, PAGES),
            "batch": (self.batch, BATCHES),
        }
        async with asyncio.TaskGroup() as group:
            for name in kinds or list(counts):
                kind, count = counts[name]
                for _ in range(count):
                    group.create_task(self._until_the_end(kind))


async def _main(url: str, keys: str, seconds: str, *kinds: str) -> None:
    await Flood(url, keys.split(","), float(seconds)).run(list(kinds))


if __name__ == "__main__":
    _, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
    asyncio.run(_main(*sys.argv[1:]))
