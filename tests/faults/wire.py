"""HTTP/1.1 by hand: one connection whose bytes, and whose end, a test decides."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests import looks

ANSWER_TIMEOUT_S = 60


class NoAnswer(Exception):
    """The connection ended, or could not be made, before the whole answer was there."""


@dataclass(frozen=True)
class Request:
    """A write as a caller puts it: what its Idempotency-Key names, and the key of who asks."""

    path: str
    body: str
    key: str
    request_id: str | None = None
    method: str = "POST"

    def encoded(self, api_key: str) -> bytes:
        """The request's bytes."""
        body = self.body.encode()
        lines = [
            f"{self.method} {self.path} HTTP/1.1",
            "Host: passbook",
            f"Authorization: Bearer {api_key}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        if self.key:
            lines.append(f"Idempotency-Key: {self.key}")
        if self.request_id is not None:
            lines.append(f"X-Request-ID: {self.request_id}")
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, repr=False)
class Answer(looks.Watched):
    """What came back; the names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Answer({vars(self)})"  # no look: asyncio shows what its tasks return

    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)


class Connection:
    """One keep-alive connection. `reset` ends it as a client that dies does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> "Connection":
        """Connects. Raises NoAnswer when nobody listens."""
        address = urlsplit(url)
        try:
            return cls(*await asyncio.open_connection(address.hostname, address.port))
        except OSError as error:
            raise NoAnswer(str(error)) from error

    async def send(self, data: bytes) -> None:
        """Hands `data` to the system. Raises NoAnswer when the other side is gone."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise NoAnswer(str(error)) from error

    async def receive(self) -> Answer:
        """The next answer, whole. Raises NoAnswer."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise NoAnswer(str(error)) from error
        status = int(head[0].split()[1])
        answer = Answer(status, headers, body)
        if status >= looks.FAILURE_MIN:
            looks.keep(answer, f"over a connection by hand: {head[0]}: {body[:300].decode(errors='replace')}")
        return answer

    async def ask(self, request: Request, api_key: str) -> Answer:
        """Sends and receives. Raises NoAnswer."""
        await self.send(request.encoded(api_key))
        return await self.receive()

    def reset(self) -> None:
        """Ends the connection with RST: what was sent may have arrived, no answer can."""
        linger = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):  # the other side was faster
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def close(self) -> None:
        """Ends the connection in order."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def at_once(url: str, asked: Sequence[tuple[Request, str]]) -> list[Answer]:
    """Every (request, API key) on a connection of its own, sent when all are open; the answers in order."""
    connections = await asyncio.gather(*(Connection.open(url) for _ in asked))
    try:
        return list(
            await asyncio.gather(
                *(
                    connection.ask(request, api_key)
                    for connection, (request, api_key) in zip(connections, asked, strict=True)
                )
            )
        )
    finally:
        for connection in connections:
            await connection.close()
