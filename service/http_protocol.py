"""HTTP/1.1 over one connection: one request at a time, each answered before the next is looked at.

So answers come in the order of their requests, and an error of a later request is answered after the earlier requests.
A client that sends ahead only fills a bounded buffer. The application's side, ASGI, is uvicorn's.
"""

import asyncio
import fcntl
import logging
import termios
from collections.abc import Callable
from enum import IntEnum
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from service.api import problems, request_ids
from service.api.audit_feed import CONNECTION
from service.connections import Connections, Cut
from service.http_framing import (
    EMPTY_LINES_MAX,
    HEAD_BYTES_MAX,
    Chunks,
    Head,
    NotHttp,
    TooLarge,
    check_beginning,
    read_head,
)
from service.ledger.errors import ErrorCode

_WRITE_BUFFER_BYTES = 16 * 1024
_BODY_BYTES_AHEAD = 16 * 1024
_LINGER_BYTES_MAX = 4 * 2**20
_CONTINUE = b"HTTP/1.1 100 "
_LENGTH = b"\r\ncontent-length: "
_OVERLOADED = "The service holds too much that is not finished. Send the request again later, head and body at once."
_RETRY_AFTER_S = 1
_LARGE_BYTES = 64 * 1024
_PROGRESS_BYTES = 16 * 1024
"""So much of an answer must be taken, or all of it, to count as taking something."""
_EVICTED_AFTER_S = 10
_log = logging.getLogger(__name__)


class _Phase(IntEnum):
    HEAD = 1
    """Between two requests, or in the head of one. No answer is under way."""
    BODY = 2
    """The body of a request is read. Its answer may be under way, or be there already."""
    ANSWER = 3
    """A whole request is being answered. What comes meanwhile is kept, and no more is read."""
    LEAVING = 4
    """The last answer was given, and all that still comes is thrown away until the client ends its side."""


class _AnswerTransport(asyncio.Transport):
    """The transport as uvicorn's answer to one request sees it: head and body become one write to the socket.

    The head waits for the body where it tells how long that is, since then it comes at once. That of a stream does not,
    nor that of an answer to HEAD, which has no body.
    """

    def __init__(self, connection: "BoundedHttp", *, bodiless: bool) -> None:
        super().__init__()
        self._connection = connection
        self._began = bodiless
        self._head = b""

    def write(self, data: bytes) -> None:  # type: ignore[override]
        if self._head:
            head, self._head = self._head, b""
            if len(data) > _LARGE_BYTES:  # which is not copied
                self._connection.write(head)
            else:
                data = head + data
        elif not self._began and not data.startswith(_CONTINUE):
            self._began = True
            if _LENGTH in data:
                self._head = data
                return
        self._connection.write(data)

    def is_closing(self) -> bool:
        return self._connection.transport.is_closing()

    def close(self) -> None:
        if self._head:
            self.write(b"")
        self._connection.leave()


class _Cycle(RequestResponseCycle):
    """One request and its answer, as ASGI has them."""

    connection: "BoundedHttp"
    awaiting = 0
    """How many wait in `receive`."""
    delivered = False
    """Whether the application has the whole body."""

    async def receive(self) -> Any:
        """The next part of the body, and at the end http.disconnect: also when the client has closed its side."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        while not (self.disconnected or self.response_complete):
            if self.body or not (self.more_body or self.delivered):
                body, self.body = bytes(self.body), bytearray()
                self.delivered = not self.more_body
                if self.more_body:
                    self.connection.body_taken()
                return {"type": "http.request", "body": body, "more_body": self.more_body}
            if self.more_body:
                if not self.connection.body_wanted():
                    break
            elif self.connection.half_closed:
                break
            self.awaiting += 1
            try:
                await self.message_event.wait()
            finally:
                self.awaiting -= 1
            self.message_event.clear()
        return {"type": "http.disconnect"}


class BoundedHttp(asyncio.BufferedProtocol):
    """One connection. Lifetime: from accept to close.

    `on_refused` is told of each refusal that the application does not see.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
        on_refused: Callable[[ErrorCode], None],
    ) -> None:
        self.transport: asyncio.Transport
        self.half_closed = False
        self._flow: FlowControl
        self._loop = _loop or asyncio.get_running_loop()
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._connections = connections
        self._bounds = connections.bounds
        self._on_refused = on_refused

        self._lost = False
        self._phase = _Phase.HEAD
        self._since = self._loop.time()
        """When the phase began; for a request, when the first byte of it came."""
        self._served = False
        """Whether a request has come over this connection."""
        self._begun = False
        """Whether the first byte of a head has come, and not all of it."""
        self._held = b""
        """What has come and was not acted on: the beginning of a head, or what is behind the request under way."""
        self._told = 0
        """How much all connections together were told that this one holds."""
        self._empty_lines = 0
        self._cycle: _Cycle | None = None
        """The request whose answer is not complete."""
        self._left = 0
        """Bytes of its body that are still to come, unless `_chunks` tells."""
        self._chunks: Chunks | None = None
        self._refusal: tuple[ErrorCode, str] | None = None
        """What is to be told when the answer under way is complete, or when the application asks for more body."""
        self._thrown_away = 0
        self._read_paused = False
        self._waits_for_turn = False
        """Whether more of the body is there, and is taken apart when others had their turn."""
        self._written = self._taken = self._last_write = 0
        self._taken_at = self._since
        self._stuck = False

    # From the event loop.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection is there."""
        self.transport = transport
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self._flow = FlowControl(transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        self._connections.add(self)
        self._addresses: dict[str, Any] = {
            "server": get_local_addr(transport),
            "client": get_remote_addr(transport),
            "scheme": "https" if is_ssl(transport) else "http",
        }

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The connection is gone. Those who wait for it are told."""
        self._server_state.connections.discard(self)
        self._connections.remove(self)
        self._lost = True
        self._held = b""
        self._phase = _Phase.LEAVING
        self._give_up_cycle()
        self._flow.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Where to read into."""
        return self._connections.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So much was read."""
        data = bytes(self._connections.buffer[:nbytes])
        if self._phase is _Phase.ANSWER:
            self._held += data
            self._tell(len(self._held))
            self._pause_reading()
        elif self._phase is _Phase.LEAVING:
            self._thrown_away += nbytes
            if self._thrown_away > _LINGER_BYTES_MAX:
                self.transport.close()
        else:
            self._take(self._held + data if self._held else data)

    def eof_received(self) -> bool:
        """The client sends no more. True keeps the connection: whole requests are answered."""
        self.half_closed = True
        if self._phase is not _Phase.ANSWER:
            return False
        if self._cycle is not None:
            self._cycle.message_event.set()
        return True

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._flow.pause_writing()
        self._taken_at = self._loop.time()
        # The whole of what was written stays in memory until its last byte is taken.
        self._connections.unsent(self, max(self._last_write, self.transport.get_write_buffer_size()))

    def resume_writing(self) -> None:
        """There is room again."""
        self._flow.resume_writing()
        self._connections.unsent(self, 0)
        if self._phase is _Phase.ANSWER and self._cycle is None:
            self._next()

    # From uvicorn's server.

    def shutdown(self) -> None:
        """Ends the connection when the request under way is answered."""
        if self._cycle is not None:
            self._cycle.keep_alive = False
        else:
            self.transport.close()

    # From all connections together.

    def look(self, now: float) -> None:
        """Ends what has taken too long."""
        unsent = self.transport.get_write_buffer_size()
        if unsent and self._is_stalled(now, unsent):
            self.cut(Cut.STALLED)
            return
        self._stuck = bool(unsent)
        if self._phase is _Phase.BODY and self._read_paused and not self._waits_for_turn:
            self._since = now  # it is the service that does not read
        waited = now - self._since
        if self._phase is _Phase.BODY or self._begun:
            if waited >= self._bounds.request_timeout_s:
                self.cut(Cut.REQUEST_TIMEOUT)
        elif unsent:
            pass
        elif self._phase is _Phase.HEAD:
            if waited >= (self._bounds.keep_alive_s if self._served else self._bounds.request_timeout_s):
                self.transport.close()
        elif self._phase is _Phase.LEAVING and waited >= self._bounds.linger_s:
            self.transport.abort()

    def _is_stalled(self, now: float, unsent: int) -> bool:
        """Counted in bytes that the client has, not in those that the kernel took from here."""
        taken = self._written - unsent - _in_kernel(self.transport)
        if not self._stuck or taken - self._taken >= _PROGRESS_BYTES:
            self._taken, self._taken_at = taken, now
        return now - self._taken_at >= self._bounds.answer_timeout_s

    def idle_since(self, now: float) -> float | None:
        """Since when nothing is under way; None while a request is, or its answer is being taken."""
        if self._cycle is not None or (self._phase is _Phase.ANSWER and not self._flow.write_paused):
            return None
        if self.transport.get_write_buffer_size():
            return self._taken_at if now - self._taken_at >= _EVICTED_AFTER_S else None
        return self._since

    def taken_at(self) -> float:
        """When its client last took something of an answer."""
        return self._taken_at

    def cut(self, why: Cut) -> None:
        """Ends it, and says why where no answer is under way."""
        self._connections.cut(why)
        if why is Cut.REQUEST_TIMEOUT:
            self._break(
                ErrorCode.REQUEST_TIMEOUT, f"The request was not whole after {self._bounds.request_timeout_s:g} s."
            )
        elif why is Cut.HELD:
            self._break(ErrorCode.OVERLOADED, _OVERLOADED)
        elif why is Cut.IDLE and not self.transport.get_write_buffer_size():
            self.transport.close()
        else:  # to close waits until the client has taken all of its answer, which one that stands still never does
            self.transport.abort()

    def go_on(self) -> None:
        """Takes the next request, which came behind one that is answered, or more of a body that is there."""
        if self.transport.is_closing():
            return
        if self._waits_for_turn:
            self._waits_for_turn = False
            if self._phase is not _Phase.BODY:
                return
            self._tell(len(self._cycle.body) if self._cycle is not None else 0)
        elif self._phase is _Phase.ANSWER and self._cycle is None:
            self._phase = _Phase.HEAD
            self._since = self._loop.time()
        else:
            return
        self._take(self._held)
        if self.half_closed and self._phase in {_Phase.HEAD, _Phase.BODY} and not self._waits_for_turn:
            self.transport.close()  # the rest of what was begun will never come
        self._read_more()

    # From the answer under way.

    def write(self, data: bytes) -> None:
        """Sends bytes of an answer."""
        if self._phase is not _Phase.LEAVING and not self.transport.is_closing():
            self._last_write = len(data)
            self._written += len(data)
            self.transport.write(data)

    def leave(self) -> None:
        """Sends no more. What the client still sends is thrown away for a while: a reset could take the answer back."""
        if self._phase is _Phase.LEAVING or self.transport.is_closing():
            return
        self._phase = _Phase.LEAVING
        self._since = self._loop.time()
        self._held, self._begun = b"", False
        self._tell(0)
        if self.half_closed:
            self.transport.close()
        else:
            self.transport.write_eof()
            self._resume_reading()

    def body_wanted(self) -> bool:
        """The application waits for more of the body. False: there will be none, and the request was refused."""
        if self._refusal is not None:
            self._refuse_instead(*self._refusal)
            return False
        if not self._waits_for_turn:
            self._resume_reading()
        return True

    def body_taken(self) -> None:
        """The application has what has come of the body."""
        self._tell(len(self._held) if self._waits_for_turn else 0)

    def _answered(self) -> None:
        self._server_state.total_requests += 1
        self._cycle = None
        if self._phase is _Phase.LEAVING or self.transport.is_closing():
            return
        self._since = self._loop.time()
        if self._refusal is not None:
            self._refuse(*self._refusal)
        elif self._phase is _Phase.ANSWER:
            self._next()
        else:  # the rest of its body is thrown away
            self._tell(len(self._held))
            self._read_more()

    def _next(self) -> None:
        if self._held:
            if not self._flow.write_paused:  # else: when what is there is taken
                self._connections.take_turn(self)
        elif self.half_closed:
            self.transport.close()
        else:
            self._phase = _Phase.HEAD
            self._resume_reading()

    # What has come.

    def _take(self, data: bytes) -> None:
        """Acts on `data`, and holds what cannot be acted on yet."""
        at, end = 0, len(data)
        self._held = b""
        try:
            while at < end and (self._phase is _Phase.HEAD or self._phase is _Phase.BODY):
                if self._phase is _Phase.BODY:
                    at = self._take_body(data, at)
                    if at < end and self._phase is _Phase.BODY:
                        self._wait_for_turn(data[at:])
                        return
                elif not (at := self._take_head(data, at)):
                    return
        except NotHttp as error:
            self._break(ErrorCode.MALFORMED_HTTP, f"This is no request of HTTP/1.1: {error} The connection is closed.")
            return
        except TooLarge as error:
            self._break(ErrorCode.HEADERS_TOO_LARGE, str(error))
            return
        if self._phase is _Phase.ANSWER:
            if at < end:
                self._held = data[at:]
                self._pause_reading()
            self._tell(len(self._held))

    def _take_head(self, data: bytes, at: int) -> int:
        """Where the body begins; 0 where the head is not whole yet, and is held."""
        while data.startswith(b"\r\n", at):
            at += 2
            self._empty_lines += 1
            if self._empty_lines > EMPTY_LINES_MAX:
                raise NotHttp("There are too many empty lines before it.")
        end = data.find(b"\r\n\r\n", at)
        if (end + 4 if end >= 0 else len(data)) - at > HEAD_BYTES_MAX:
            raise TooLarge
        if end < 0:
            self._held = data[at:]
            if self._held and not self._begun:
                self._begun = True
                self._since = self._loop.time()
                check_beginning(self._held)
            self._tell(len(self._held))
            return 0
        head = read_head(data[at : end + 4])
        if self._begun:
            self._begun = False
        else:
            self._since = self._loop.time()
        self._empty_lines = 0
        self._begin(head)
        return end + 4

    def _begin(self, head: Head) -> None:
        path = head.path.decode("ascii")
        cycle = _Cycle(
            scope={
                "type": "http",
                "asgi": {"version": self._config.asgi_version, "spec_version": "2.3"},
                "http_version": head.version,
                **self._addresses,  # type: ignore[typeddict-item]
                "root_path": "",
                "headers": head.headers,
                "state": self._app_state.copy(),
                "method": head.method,
                "path": unquote(path) if "%" in path else path,
                "raw_path": head.path,
                "query_string": head.query,
                "extensions": {CONNECTION: {"abort": self.transport.abort, "lost": self._is_lost}},
            },
            transport=_AnswerTransport(self, bodiless=head.method == "HEAD"),
            flow=self._flow,
            logger=_log,
            access_logger=_log,
            access_log=False,
            default_headers=self._server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects,
            keep_alive=head.keeps_alive,
            on_response=self._answered,
        )
        cycle.connection = self
        self._cycle = cycle
        self._served = True
        self._left = head.length
        self._chunks = Chunks() if head.chunked else None
        if head.chunked or head.length:
            self._phase = _Phase.BODY
        else:
            self._phase = _Phase.ANSWER
            cycle.more_body = False
        task = self._loop.create_task(cycle.run_asgi(self._config.loaded_app))
        task.add_done_callback(self._server_state.tasks.discard)
        self._server_state.tasks.add(task)

    def _take_body(self, data: bytes, at: int) -> int:
        if self._chunks is not None:
            body, at = self._chunks.feed(data, at)
            whole = self._chunks.ended
        else:
            body = data[at : at + self._left] if at or len(data) > self._left else data
            at += len(body)
            self._left -= len(body)
            whole = self._left == 0
        cycle = self._cycle
        if cycle is not None:
            cycle.body += body
            cycle.more_body = not whole
            cycle.message_event.set()
            if not whole:
                self._tell(len(cycle.body))
                if len(cycle.body) >= _BODY_BYTES_AHEAD:
                    self._pause_reading()
        if whole:
            self._phase = _Phase.HEAD if cycle is None else _Phase.ANSWER
        return at

    def _wait_for_turn(self, data: bytes) -> None:
        """Goes on with `data`, more of the body, when others had their turn; until then no more is read."""
        self._held = data
        self._tell(len(data) + (len(self._cycle.body) if self._cycle is not None else 0))
        self._waits_for_turn = True
        self._pause_reading()
        self._connections.take_turn(self)

    def _read_more(self) -> None:
        """Reads on, unless the application comes first with what is there, or others do."""
        if self._phase is _Phase.BODY:
            is_full = self._cycle is not None and len(self._cycle.body) >= _BODY_BYTES_AHEAD
        else:
            is_full = self._phase is _Phase.ANSWER and self._held != b""
        if not self._waits_for_turn and not is_full:
            self._resume_reading()

    def _tell(self, held: int) -> None:
        if held != self._told:
            self._told = held
            self._connections.hold(self, held)

    def _pause_reading(self) -> None:
        if not self._read_paused and not self.half_closed:
            self._read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused and not self.half_closed:
            self._read_paused = False
            self.transport.resume_reading()

    def _is_lost(self) -> bool:
        return self._lost

    # What cannot be gone on with.

    def _break(self, code: ErrorCode, detail: str) -> None:
        """Refuses what is being read: at once, or in its turn."""
        if self._phase is _Phase.ANSWER:  # what is behind the request under way
            self._held = b""
            self._tell(0)
            self._refusal = (code, detail)
            if self._cycle is None:
                self._refuse(code, detail)
        elif self._phase is _Phase.HEAD:
            self._refuse(code, detail)
        elif self._phase is _Phase.BODY:
            self._pause_reading()
            self._held = b""
            self._tell(0)
            if self._cycle is None:  # it has its answer, and may have no second one
                self.leave()
            elif self._cycle.response_started:
                self._phase = _Phase.ANSWER
                self._cycle.keep_alive = False
                self._refusal = None
            elif self._cycle.awaiting:
                self._refuse_instead(code, detail)
            else:  # the application may be about to answer it
                self._phase = _Phase.ANSWER
                self._cycle.keep_alive = False
                self._refusal = (code, detail)

    def _refuse_instead(self, code: ErrorCode, detail: str) -> None:
        """In place of the answer that the application would give, if it had the whole request."""
        self._give_up_cycle()
        self._refuse(code, detail)

    def _give_up_cycle(self) -> None:
        if self._cycle is not None:
            self._cycle.disconnected = True
            self._cycle.message_event.set()
            self._cycle = None

    def _refuse(self, code: ErrorCode, detail: str) -> None:
        self._on_refused(code)
        self.write(refusal(code, detail))
        self.leave()


def refusal(code: ErrorCode, detail: str) -> bytes:
    """A whole answer that refuses, and says that the connection ends."""
    request_id = request_ids.new()
    body = problems.encode(code, detail, request_id, {})
    status = HTTPStatus(problems.CATALOGUE[code].status)
    retry = f"retry-after: {_RETRY_AFTER_S}\r\n" if code is ErrorCode.OVERLOADED else ""
    head = (
        f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: {problems.MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\n{retry}connection: close\r\n\r\n"
    )
    return head.encode() + body


def _in_kernel(transport: asyncio.Transport) -> int:
    """Bytes that the kernel has of what was sent and the client's has not acknowledged; 0 where it does not tell."""
    found = transport.get_extra_info("socket")
    try:
        return int.from_bytes(fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, bytes(4)), "little")
    except OSError:
        return 0
