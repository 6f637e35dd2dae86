"""What goes to the socket, write by write: an answer is one, a stream begins before its first event is there."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import ServerState

from service.http_protocol import BoundedHttp

TIMEOUT_S = 10
LENGTH = [(b"Content-Length", b"4")]

Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Any, Send], Awaitable[None]]


class Recording(BoundedHttp):
    """Keeps what is written to the socket, one entry for each write."""

    writes: list[bytes]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.writes = []
        write = transport.write

        def recorded(data: bytes) -> None:
            self.writes.append(bytes(data))
            write(data)

        transport.write = recorded  # type: ignore[method-assign,assignment]
        super().connection_made(transport)


async def exchange(app: App, request: bytes, until: Callable[[bytes], bool]) -> tuple[list[bytes], bytes]:
    """What `app` makes the protocol write for `request`, and what the client had received when `until` held."""
    loop = asyncio.get_running_loop()
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", server_header=False, date_header=False)
    config.load()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    received = b""
    with ours, theirs:
        _, protocol = await loop.connect_accepted_socket(
            lambda: Recording(
                config, server_state=ServerState(), app_state={}, request_timeout_s=TIMEOUT_S, on_refused=lambda _: None
            ),
            theirs,
        )
        await loop.sock_sendall(ours, request)
        async with asyncio.timeout(TIMEOUT_S):
            while not until(received):
                chunk = await loop.sock_recv(ours, 65536)
                received += chunk
                if not chunk:
                    break
        protocol.transport.abort()
    return protocol.writes, received


def answering(*bodies: bytes, headers: list[tuple[bytes, bytes]] = LENGTH) -> App:
    """An application that answers with 200 and these bodies."""

    async def app(_scope: dict[str, Any], _receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    return app


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("app", "request_bytes", "writes"),
    [
        pytest.param(answering(b"body"), GET, [HEAD + b"body"], id="head and body are one"),
        pytest.param(answering(b"bo", b"dy"), GET, [HEAD + b"bo", b"dy"], id="the first part goes with the head"),
        pytest.param(
            answering(b"\r\ncontent-length: ", b"7", headers=[(b"content-length", b"19")]),
            GET,
            [b"HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n\r\ncontent-length: ", b"7"],
            id="a body that looks like a head is none",
        ),
        pytest.param(
            answering(b"", headers=[(b"content-length", b"0")]),
            GET,
            [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"],
            id="no body",
        ),
        pytest.param(answering(b""), GET.replace(b"GET", b"HEAD"), [HEAD], id="the answer to HEAD has none"),
        pytest.param(answering(b"body"), GET * 2, [HEAD + b"body"] * 2, id="requests in one packet"),
        pytest.param(
            answering(b"body", headers=[]),
            GET,
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"4\r\nbody\r\n0\r\n\r\n"],
            id="a stream's head goes out by itself",
        ),
        pytest.param(
            answering(b"body"),
            GET.replace(b"1.1", b"1.0"),
            [HEAD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + b"body"],
            id="before the connection is closed",
        ),
    ],
)
def test_an_answer_is_one_write(app: App, request_bytes: bytes, writes: list[bytes]) -> None:
    """Two would be two packets: a tenth of what a small request costs this process, and two wake-ups of the caller."""
    whole = b"".join(writes)
    written, received = asyncio.run(exchange(app, request_bytes, lambda received: len(received) >= len(whole)))
    assert (written, received) == (writes, whole)


def test_a_stream_begins_before_its_first_event() -> None:
    """Whoever follows the audit log knows at once that it follows, however long nothing happens."""

    async def app(_scope: dict[str, Any], receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass

    _, received = asyncio.run(exchange(app, GET, lambda received: b"\r\n\r\n" in received))
    assert received == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def test_100_continue_goes_out_before_the_body_is_read() -> None:
    """And the answer is one write after it."""

    async def app(scope: dict[str, Any], receive: Any, send: Send) -> None:
        await receive()
        await answering(b"body")(scope, receive, send)

    asked = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
    written, _ = asyncio.run(exchange(app, asked, lambda received: received.endswith(b"body")))
    assert written == [b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + b"body"]


def test_an_answer_that_breaks_off_tells_that_it_does() -> None:
    """The head says how much would have come, and the connection ends."""

    async def app(_scope: dict[str, Any], _receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": LENGTH})
        raise RuntimeError("between head and body")

    written, received = asyncio.run(exchange(app, GET, lambda _: False))
    assert (b"".join(written), received) == (HEAD, HEAD)
