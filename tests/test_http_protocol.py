"""What goes to the socket, write by write: an answer is one, a stream begins before its first event is there."""

import ast
import asyncio
import json
import re
import socket
import sqlite3
import threading
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import ServerState

from service.api.problems import CATALOGUE
from service.connections import Bounds, Connections, Cut
from service.http_protocol import BoundedHttp, _Phase
from service.ledger.errors import ErrorCode
from service.measures import Measures
from tests.live import CHECKOUT, LiveService
from tests.printed import stands
from tests.waiting import until

TIMEOUT_S = 20
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


async def exchange(
    app: App,
    request: bytes,
    until: Callable[[bytes], bool],
    began: Callable[[Recording], None] = lambda _: None,
    on_refused: Callable[[ErrorCode], None] = lambda _: None,
) -> tuple[list[bytes], bytes]:
    """What `app` makes the protocol write for `request`, and what the client had received when `until` held.

    `began` is called when the client has the first bytes of an answer.
    """
    loop = asyncio.get_running_loop()
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", server_header=False, date_header=False)
    config.load()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    received = b""
    with ours, theirs:
        _, protocol = await loop.connect_accepted_socket(
            lambda: Recording(
                config,
                server_state=ServerState(),
                app_state={},
                connections=Connections(Bounds(), Measures([])),
                on_refused=on_refused,
            ),
            theirs,
        )
        await loop.sock_sendall(ours, request)
        async with asyncio.timeout(TIMEOUT_S):
            while not until(received):
                chunk = await loop.sock_recv(ours, 65536)
                if not received:
                    began(protocol)
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


@pytest.mark.parametrize(
    ("why", "code"), [(Cut.HELD, ErrorCode.OVERLOADED), (Cut.REQUEST_TIMEOUT, ErrorCode.REQUEST_TIMEOUT)]
)
def test_what_is_cut_in_the_middle_of_an_answer_is_refused_behind_it(why: Cut, code: ErrorCode) -> None:
    """The answer under way is whole, no byte of the refusal is in it, and the refusal is told of once."""
    over, told = asyncio.Event(), list[ErrorCode]()

    async def app(_scope: dict[str, Any], _receive: Any, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": LENGTH})
        await send({"type": "http.response.body", "body": b"bo", "more_body": True})
        await over.wait()
        await send({"type": "http.response.body", "body": b"dy"})

    def cut(protocol: Recording) -> None:
        protocol.cut(why)
        over.set()

    _, received = asyncio.run(exchange(app, GET * 2, lambda received: received.endswith(b"}"), cut, told.append))
    first, refused = received[: len(HEAD) + 4], received[len(HEAD) + 4 :]
    assert first == HEAD + b"body", "a refusal is in the middle of the answer"
    assert refused.startswith(b"HTTP/1.1 %d " % CATALOGUE[code].status)
    assert told == [code]


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"\x00\r\n\r\n", ErrorCode.MALFORMED_HTTP),
        (b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"a" * 100_000), ErrorCode.HEADERS_TOO_LARGE),
        (GET + b"\x00\r\n\r\n", ErrorCode.MALFORMED_HTTP),
    ],
    ids=["no HTTP", "a long head", "behind a request"],
)
def test_a_refusal_that_the_application_does_not_see_is_told_of(request_bytes: bytes, code: ErrorCode) -> None:
    """Once each, so that the metrics count it as they count those of the application."""
    told: list[ErrorCode] = []
    _, received = asyncio.run(
        exchange(answering(b"body"), request_bytes, lambda received: received.endswith(b"}"), on_refused=told.append)
    )
    assert (told, json.loads(received.rpartition(b"\r\n\r\n")[2])["code"]) == ([code], code)


_AT = 1024.0
_SHORT_S = 1 / 1024


@pytest.mark.parametrize("short", [_SHORT_S, 0])
@pytest.mark.parametrize(
    ("state", "length"),
    [
        ({}, "request_timeout_s"),
        ({"_served": True}, "keep_alive_s"),
        ({"_served": True, "_begun": True}, "request_timeout_s"),
        ({"_phase": _Phase.BODY}, "request_timeout_s"),
        ({"_phase": _Phase.LEAVING}, "linger_s"),
        ({"_unsent": 1}, "answer_timeout_s"),
    ],
    ids=["no request yet", "kept alive", "the beginning of a head", "a body", "leaving", "an answer"],
)
def test_a_connection_is_ended_at_the_very_moment(state: dict[str, Any], length: str, short: float) -> None:
    """Just short of its time nothing is done to it; when its time is over it is ended or told so."""
    bounds = Bounds(request_timeout_s=64, answer_timeout_s=32, keep_alive_s=128, linger_s=2)

    async def run(transport: _Transport) -> None:
        protocol = _standing(transport, bounds)
        transport.unsent = int(state.get("_unsent", 0))
        vars(protocol).update({name: value for name, value in state.items() if name != "_unsent"})
        protocol.look(_AT + getattr(bounds, length) - short)
        assert transport.ended == ("" if short else "closed")

    _with_transport(run)


@pytest.mark.parametrize(("taken", "ended"), [(0, "closed"), (16 * 1024 - 1, "closed"), (16 * 1024, "")])
def test_an_answer_that_trickles_away_counts_as_not_taken(taken: int, ended: str) -> None:
    """Whoever takes a byte now and then would hold an answer, and its place, for ever."""

    async def run(transport: _Transport) -> None:
        protocol = _standing(transport, Bounds(answer_timeout_s=32))
        protocol._written = transport.unsent = 100_000
        protocol.look(_AT + 1)
        transport.unsent -= taken
        protocol.look(_AT + 31)
        protocol.look(_AT + 32)
        assert transport.ended == ended, f"{taken} bytes were taken"

    _with_transport(run)


def test_who_takes_an_answer_keeps_the_place_for_ten_seconds() -> None:
    """Only a connection whose client has taken nothing for so long counts as idle, since then; so it can give way."""

    async def run(transport: _Transport) -> None:
        protocol = _standing(transport, Bounds())
        assert protocol.idle_since(_AT + 1) == _AT, "it waits for a request"
        transport.unsent = 1
        assert protocol.idle_since(_AT + 10 - _SHORT_S) is None, "its client may be taking its answer"
        assert protocol.idle_since(_AT + 10) == _AT, "its client takes nothing, and keeps a place"

    _with_transport(run)


class _Transport(asyncio.Transport):
    """Of a connection whose client has not taken `unsent` bytes."""

    unsent = 0
    ended = ""

    def __init__(self, ours: socket.socket) -> None:
        super().__init__({"socket": ours})

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def close(self) -> None:
        self.ended = "closed"

    abort = close


def _standing(transport: _Transport, bounds: Bounds) -> BoundedHttp:
    """A connection at which nothing has happened since _AT; to cut it off closes the transport."""
    config = uvicorn.Config(answering(b""), lifespan="off", log_config=None, ws="none")
    config.load()
    connections = Connections(bounds, Measures([]))
    protocol = BoundedHttp(
        config, server_state=ServerState(), app_state={}, connections=connections, on_refused=lambda _: None
    )
    protocol.cut = lambda why: transport.close()  # type: ignore[method-assign]  # noqa: ARG005
    protocol.transport = transport
    protocol._since = protocol._taken_at = _AT
    protocol._stuck = True
    return protocol


def _with_transport(run: Callable[[_Transport], Coroutine[Any, Any, None]]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        asyncio.run(run(_Transport(ours)))


class Client:
    """A connection to a live service, as bytes."""

    def __init__(self, service: LiveService, *, receive_buffer: int = 0) -> None:
        target = urlsplit(service.url)
        self.key = service.admin_key
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect((str(target.hostname), int(target.port or 0)))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def rest(self) -> list[tuple[int, bytes]]:
        """Status and body of each answer until the service ends the connection."""
        received = b""
        while part := self.socket.recv(65536):
            received += part
        answers = []
        while received:
            head, _, rest = received.partition(b"\r\n\r\n")
            found = re.search(rb"content-length: (\d+)", head)
            length = int(found[1]) if found else len(rest)
            answers.append((int(head.split()[1]), rest[:length]))
            received = rest[length:]
        return answers

    def get(self, path: str, *headers: str) -> bytes:
        """A request for `path`."""
        lines = [f"GET {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {self.key}", *headers, "", ""]
        return "\r\n".join(lines).encode()

    def debit(self, name: str, *headers: str, chunked: bytes = b"") -> bytes:
        """A debit of 1 won from user 7 under the key `name`; in chunks, with this behind the last one."""
        body = b'{"telegram_id": "7", "amount": 1, "reason": "a"}'
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        head = (
            f"POST /v1/debits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nIdempotency-Key: {name}\r\n{framing}\r\n"
        ).encode()
        head += b"".join(f"{header}\r\n".encode() for header in headers) + b"\r\n"
        return head + (b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(body), body, chunked) if chunked else body)


def balance(service: LiveService) -> int:
    """What user 7 has."""
    return int(service.client().get("/v1/users/7/balance").json()["balance"])


def holds_nothing(service: LiveService) -> None:
    """Returns when the service holds no byte of any connection; what another test has just closed may take a moment."""
    client = service.client()
    until(lambda: stands("passbook_connections_held_bytes 0", client.get("/metrics").text), "nothing is held any more")


@pytest.fixture(scope="module")
def rich(service: LiveService) -> LiveService:
    """A service whose user 7 has money."""
    service.client().credit("7", 100_000)
    return service


GARBAGE = [
    pytest.param(b"\x00\x01\x02\r\n\r\n", 400, id="no HTTP"),
    pytest.param(b"\x16\x03\x01\x02\x00", 400, id="TLS"),
    pytest.param(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, id="a bad header"),
    pytest.param(b"GET / HTTP/1.1\r\nA: " + b"x" * 17_000 + b"\r\n\r\n", 431, id="a large head"),
    pytest.param(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200, 431, id="many headers, and no end"),
    pytest.param(b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, id="two lengths"),
    pytest.param(b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400, id="CONNECT"),
    pytest.param(b"GET / HTTP/2.0\r\n\r\n", 400, id="another version"),
    pytest.param(b"\r\n" * 20, 400, id="empty lines"),
]


@pytest.mark.parametrize(("garbage", "status"), GARBAGE)
@pytest.mark.parametrize("apart", [False, True], ids=["in one segment", "in two"])
def test_what_was_carried_out_is_answered_before_what_is_behind_it_is_refused(
    rich: LiveService, garbage: bytes, status: int, apart: bool
) -> None:
    """Three debits and garbage: three answers that say so, in order, then the refusal, then the end."""
    before = balance(rich)
    with Client(rich) as client:
        debits = [client.debit(f"behind-{uuid.uuid4()}") for _ in range(3)]
        for data in [b"".join(debits), garbage] if apart else [b"".join(debits) + garbage]:
            client.socket.sendall(data)
        answers = client.rest()
    assert [found for found, _ in answers] == [201, 201, 201, status]
    assert [json.loads(body)["balance_after"] for _, body in answers[:3]] == [before - 1, before - 2, before - 3]
    assert json.loads(answers[3][1])["code"] == ("malformed_http" if status == 400 else "headers_too_large")
    assert balance(rich) == before - 3


def test_a_refusal_waits_for_a_slow_answer_and_for_a_stream(rich: LiveService) -> None:
    """It is never written into the middle of another answer, however long that takes."""
    newest = rich.client().get("/v1/audit-logs?limit=1").json()["items"][0]["id"]
    with Client(rich) as client:
        client.socket.sendall(client.get(f"/v1/audit-logs?follow={newest}&wait=1") + b"\x00\r\n\r\n")
        assert [status for status, _ in client.rest()] == [200, 400]
    with Client(rich) as client:
        client.socket.sendall(client.get("/v1/audit-logs", "Accept: text/csv") + b"\x00\r\n\r\n")
        received = b""
        while part := client.socket.recv(65536):
            received += part
    stream, _, refused = received.partition(b"\r\n0\r\n\r\n")
    assert stream.startswith(b"HTTP/1.1 200")
    assert refused.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_what_follows_a_last_request_takes_nothing_from_its_answer(rich: LiveService, version: str) -> None:
    """After Connection: close, and after HTTP/1.0, nothing is looked at; and no reset overtakes the answer."""
    before = balance(rich)
    for _ in range(20):
        with Client(rich) as client:
            last = client.debit(f"last-{uuid.uuid4()}", "Connection: close").replace(
                b"HTTP/1.1", f"HTTP/{version}".encode()
            )
            client.socket.sendall(last + client.debit(f"never-{uuid.uuid4()}") + b"\x00" * 200_000)
            assert [status for status, _ in client.rest()] == [201]
    assert balance(rich) == before - 20


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service that waits a second for a request."""
    environment = {"PASSBOOK_REQUEST_TIMEOUT_S": "1"}
    live = LiveService(tmp_path_factory.mktemp("impatient") / "passbook.db", environment).start()
    live.client().credit("7", 100_000)
    yield live
    assert live.stop() == 0, live.said


@pytest.mark.parametrize(
    "slow", [b"GET /livez HT", b"POST /v1/debits HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"]
)
def test_408_comes_after_the_answers_to_what_came_in_time(impatient: LiveService, slow: bytes) -> None:
    """Of a head that is not whole; one whose body is not whole has no key, and got its answer: 401."""
    before = balance(impatient)
    with Client(impatient) as client:
        client.socket.sendall(client.debit(f"408-{uuid.uuid4()}") + slow)
        assert [status for status, _ in client.rest()] == [201, 401 if slow.endswith(b"{") else 408]
    assert balance(impatient) == before - 1


def test_408_waits_for_an_answer_that_takes_longer_than_a_request_may(impatient: LiveService) -> None:
    """The first request is answered after two seconds, the second one is not whole a second later."""
    newest = impatient.client().get("/v1/audit-logs?limit=1").json()["items"][0]["id"]
    with Client(impatient) as client:
        client.socket.sendall(client.get(f"/v1/audit-logs?follow={newest}&wait=2") + client.debit("never")[:-1])
        assert [status for status, _ in client.rest()] == [200, 408]


def refusals(service: LiveService) -> Counter[str]:
    """How many answers were problem documents, by their code, as /metrics has it."""
    text = service.client("").get("/metrics").text
    return Counter(
        {code: int(count) for code, count in re.findall(r'^passbook_refusals_total{code="(\w+)"} (\d+)$', text, re.M)}
    )


REFUSED_BY_THE_PROTOCOL = {
    ErrorCode.MALFORMED_HTTP: b"\x00\x01\x02\r\n\r\n",
    ErrorCode.HEADERS_TOO_LARGE: b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200,
    ErrorCode.REQUEST_TIMEOUT: b"GET /livez HT",
}
"""What the application never sees: the code that it is refused with, and a request that brings it about."""


@pytest.mark.parametrize("behind", [False, True], ids=["alone", "behind a request"])
@pytest.mark.parametrize("code", REFUSED_BY_THE_PROTOCOL)
def test_a_refusal_that_the_application_does_not_see_is_counted(
    impatient: LiveService, code: ErrorCode, behind: bool
) -> None:
    """Once, under its code, and under no other."""
    before = refusals(impatient)
    with Client(impatient) as client:
        client.socket.sendall((client.get("/livez") if behind else b"") + REFUSED_BY_THE_PROTOCOL[code])
        answers = client.rest()
    assert json.loads(answers[-1][1])["code"] == code
    assert refusals(impatient) - before == {code: 1}, "a refusal of the protocol is not counted as what it was"


def test_every_refusal_of_the_protocol_is_counted_by_a_test() -> None:
    """Those of the program are those above; that of too many connections is counted in tests/test_server.py."""
    named: set[str] = set()
    for file in ("http_protocol.py", "server.py"):
        tree = ast.parse((CHECKOUT / "service" / file).read_text("utf-8"))
        named |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ErrorCode"
        }
    assert named == {code.name for code in (*REFUSED_BY_THE_PROTOCOL, ErrorCode.OVERLOADED)}


def test_a_body_that_never_ends_gets_one_answer(rich: LiveService) -> None:
    """413 comes before the body's end; what follows is thrown away, and is answered by nothing."""
    head = (
        f"POST /v1/debits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {rich.admin_key}\r\n"
        "Content-Type: application/json\r\nIdempotency-Key: endless\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()
    with Client(rich) as client:
        client.socket.sendall(head + b"4000\r\n%s\r\n" % (b" " * 0x4000) * 40 + b"zz\r\n" * 10)
        assert [status for status, _ in client.rest()] == [413]


def test_chunks_of_one_byte_hold_nobody_up(rich: LiveService) -> None:
    """Twenty connections without a key send them without an end: another caller is answered all the same.

    Such a chunk is a hundred times as much work as the same bytes in a large one.
    """
    head = b"POST /v1/debits HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"1\r\nx\r\n" * 10_000
    over = threading.Event()

    def flood(client: Client) -> None:
        client.socket.settimeout(0.1)
        left = head
        while not over.is_set():
            with suppress(TimeoutError):
                left = left[client.socket.send(left) :] or chunks

    with ExitStack() as stack:
        clients = [stack.enter_context(Client(rich)) for _ in range(20)]
        flooding = [threading.Thread(target=flood, args=(client,)) for client in clients]
        for thread in flooding:
            thread.start()
        probe = rich.client()
        try:
            for _ in range(5):
                assert probe.get("/v1/users/7/balance", timeout=TIMEOUT_S).status_code == 200
        finally:
            over.set()
            for thread in flooding:
                thread.join()
    holds_nothing(rich)


@pytest.mark.parametrize("fin", [False, True])
def test_a_body_in_chunks_of_one_byte_is_taken_whole(rich: LiveService, fin: bool) -> None:
    """Also what was sent behind it, and where the client closes its side; what is wrong in the middle is found."""
    before = balance(rich)
    blanks = b" " * 5000

    def debit(client: Client) -> bytes:
        head, _, body = client.debit(f"small-{uuid.uuid4()}", chunked=b"A: b\r\n").partition(b"\r\n\r\n")
        content = blanks + body.split(b"\r\n")[1]
        return head + b"\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % one for one in content) + b"0\r\nA: b\r\n\r\n"

    with Client(rich) as client:
        client.socket.sendall(debit(client) + debit(client) + client.get("/livez", "Connection: close"))
        if fin:
            client.socket.shutdown(socket.SHUT_WR)
        assert [status for status, _ in client.rest()] == [201, 201, 200]
    assert balance(rich) == before - 2
    with Client(rich) as client:
        client.socket.sendall(debit(client).replace(b"1\r\n1\r\n", b"1\r\n11\r\n", 1))
        assert [status for status, _ in client.rest()] == [400]
    assert balance(rich) == before - 2
    with Client(rich) as client:  # refused while its body comes, and then whole
        client.socket.sendall(debit(client).replace(client.key.encode(), b"pbk_none") + client.get("/livez"))
        client.socket.sendall(client.get("/livez", "Connection: close"))
        assert [status for status, _ in client.rest()] == [401, 200, 200]
    holds_nothing(rich)


def test_a_request_behind_an_upgrade_is_a_request(rich: LiveService) -> None:
    """Upgrade is ignored, and the body is a body, whatever the client would rather speak."""
    before = balance(rich)
    with Client(rich) as client:
        asked = client.debit(f"upgrade-{uuid.uuid4()}", "Upgrade: h2c", "Connection: Upgrade")
        client.socket.sendall(asked + client.debit(f"behind-{uuid.uuid4()}", "Connection: close"))
        assert [status for status, _ in client.rest()] == [201, 201]
    assert balance(rich) == before - 2


def test_only_the_head_has_headers(rich: LiveService) -> None:
    """What a trailer says is dropped: no key, no Idempotency-Key, nothing of the audit row."""
    client = rich.client()
    with Client(rich) as raw:
        trailer = (
            b"X-Request-ID: from-trailer-1234\r\nUser-Agent: trailer\r\nX-Forwarded-For: 9.9.9.9\r\n"
            b"Idempotency-Key: other\r\nContent-Length: 9\r\nHost: y\r\n"
        )
        raw.socket.sendall(raw.debit(f"t-{uuid.uuid4()}", "User-Agent: head", "Connection: close", chunked=trailer))
        [(status, body)] = raw.rest()
    assert status == 201
    row = client.get(f"/v1/audit-logs/{json.loads(body)['audit_log_id']}").json()
    assert (row["user_agent"], row["ip_address"]) == ("head", "127.0.0.1")
    assert row["request_id"] != "from-trailer-1234"
    for name in ("Authorization", "Idempotency-Key"):
        with Client(rich) as raw:
            whole = raw.debit(f"t-{uuid.uuid4()}", "Connection: close", chunked=b"X: y\r\n")
            line = re.search(rf"{name}: [^\r]*\r\n".encode(), whole)
            assert line
            moved = whole.replace(line[0], b"").replace(b"X: y\r\n", line[0])
            raw.socket.sendall(moved)
            [(status, body)] = raw.rest()
        assert (
            json.loads(body)["code"]
            == {
                "Authorization": "api_key_required",
                "Idempotency-Key": "idempotency_key_required",
            }[name]
        )


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (b"x" * 20_000 + b": y\r\n", "headers_too_large"),
        (b"a:b\r\n" * 10_000, "headers_too_large"),
        (b"no colon\r\n", "malformed_http"),
    ],
)
def test_a_bad_trailer_refuses_the_request(rich: LiveService, last: bytes, code: str) -> None:
    """Before anything is carried out."""
    before = balance(rich)
    with Client(rich) as client:
        client.socket.sendall(client.debit(f"t-{uuid.uuid4()}", chunked=last))
        [(_, body)] = client.rest()
    assert json.loads(body)["code"] == code
    assert balance(rich) == before


def test_whoever_says_nothing_more_still_gets_all_answers(rich: LiveService) -> None:
    """FIN behind one request, behind several, behind one whose answer takes a second, and behind a stream."""
    newest = rich.client().get("/v1/audit-logs?limit=1").json()["items"][0]["id"]
    with Client(rich) as client:
        for asked, statuses in (
            (client.debit(f"fin-{uuid.uuid4()}"), [201]),
            (
                client.debit(f"fin-{uuid.uuid4()}") + client.get("/v1/users/7/balance") + client.get("/nope"),
                [201, 200, 404],
            ),
            (client.get(f"/v1/audit-logs?follow={newest + 1000}&wait=1"), [400]),
            (client.get("/v1/audit-logs", "Accept: text/csv"), [200]),
            (client.get("/livez") + b"GET /livez HT", [200]),
            (client.debit(f"fin-{uuid.uuid4()}")[:-1], []),
            (b"", []),
        ):
            with Client(rich) as other:
                other.socket.sendall(asked)
                other.socket.shutdown(socket.SHUT_WR)
                assert [status for status, _ in other.rest()] == statuses, asked


def test_a_write_that_waits_is_answered_to_one_that_has_closed_its_side(own_service: LiveService) -> None:
    """The commit comes after FIN."""
    own_service.environment = {"PASSBOOK_BUSY_TIMEOUT_MS": "60000"}
    own_service.start().client().credit("7", 100)
    with closing(sqlite3.connect(own_service.database, isolation_level=None)) as other, Client(own_service) as client:
        other.execute("BEGIN IMMEDIATE")
        client.socket.sendall(client.debit("fin"))
        client.socket.shutdown(socket.SHUT_WR)
        probe = own_service.client()
        until(lambda: "http_server_active_requests 2" in probe.get("/metrics").text, "the write is under way")
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        other.execute("ROLLBACK")
        client.socket.settimeout(TIMEOUT_S)
        assert [status for status, _ in client.rest()] == [201]
