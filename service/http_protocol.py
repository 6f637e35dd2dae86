"""HTTP/1.1 as uvicorn speaks it, with bounds on the head of a request and a problem document for what is no HTTP.

httptools bounds nothing but the request target: a header of any length, and any number of them, would be kept in memory
before the application sees the request.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api import problems, request_ids
from service.api.audit_feed import ABORT
from service.ledger.errors import ErrorCode

HEAD_BYTES_MAX = 16 * 1024
"""Request target and headers together."""
HEADERS_MAX = 100
_READ_BYTES_MAX = 256 * 1024
"""The most that the event loop hands over at once; it may hold the end of the request before."""
_CONTINUE = b"HTTP/1.1 100 "
_LENGTH = b"\r\ncontent-length: "
_TOO_LARGE = f"There may be {HEADERS_MAX} headers, and {HEAD_BYTES_MAX} bytes of request target and headers together."


class _AnswerTransport(asyncio.Transport):
    """The transport as uvicorn's answer to one request sees it: head and body become one write to the socket.

    The head waits for the body where it tells how long that is, since then it comes at once. That of a stream does not.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._began = False
        self._head = b""

    def write(self, data: bytes) -> None:  # type: ignore[override]
        if self._head:
            data, self._head = self._head + data, b""
        elif not self._began and not data.startswith(_CONTINUE):
            self._began = True
            if _LENGTH in data:
                self._head = data
                return
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        if self._head:
            self.write(b"")
        self._transport.close()


class BoundedHttp(HttpToolsProtocol):
    """One connection. Lifetime: from accept to close."""

    def __init__(
        self, *args: Any, request_timeout_s: float, on_refused: Callable[[ErrorCode], None], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._on_refused = on_refused
        self._request_timeout_s = request_timeout_s
        self._cut_off: asyncio.TimerHandle | None = None
        """Set while a request has begun and not ended, or none has come yet over this connection."""
        self._in_message = False
        self._in_head = False
        self._head_bytes_read = 0
        """Never less than the head of the request that is being read."""
        self._head_too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._cut_off = self.loop.call_later(self._request_timeout_s, self._cut)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head_bytes_read = self._head_bytes_read + len(data) if self._in_head else len(data)
        super().data_received(data)
        # Almost every request comes in one read, and costs no timer.
        if not self._in_message:
            self._stop_timer()
        elif self._cut_off is None and not self.transport.is_closing():
            self._cut_off = self.loop.call_later(self._request_timeout_s, self._cut)
        if self._in_head and self._head_bytes_read > HEAD_BYTES_MAX + _READ_BYTES_MAX:
            self._refuse(ErrorCode.HEADERS_TOO_LARGE, _TOO_LARGE)

    def _stop_timer(self) -> None:
        if self._cut_off is not None:
            self._cut_off.cancel()
            self._cut_off = None

    def _cut(self) -> None:
        """Ends the connection of a client that has not sent a whole request in time."""
        self._cut_off = None
        if self.flow.read_paused:  # it is the service that does not read
            self._cut_off = self.loop.call_later(self._request_timeout_s, self._cut)
        elif self._in_message:
            self._refuse(ErrorCode.REQUEST_TIMEOUT, f"The request was not whole after {self._request_timeout_s:g} s.")
        else:
            self.transport.close()

    def on_message_begin(self) -> None:
        self._in_head = True
        self._in_message = True
        self._stop_timer()  # of the request before, in one read
        super().on_message_begin()
        # To close waits until the client has taken what is buffered for it, which one that stands still never does.
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.headers) > HEADERS_MAX or (
            # The sum is asked for only where it can matter: almost every head comes in one small read.
            self._head_bytes_read > HEAD_BYTES_MAX
            and len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES_MAX
        ):
            self._head_too_large = True
            raise ValueError(_TOO_LARGE)  # makes the parser give up, and uvicorn call send_400_response
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":  # which has no body to wait for
            self.cycle.transport = _AnswerTransport(self.transport)

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn passes it by place
        """Answers bytes that the parser refused, and closes. uvicorn's own answer is plain text."""
        if self._head_too_large:
            self._refuse(ErrorCode.HEADERS_TOO_LARGE, _TOO_LARGE)
        else:
            self._refuse(ErrorCode.MALFORMED_HTTP, "This is no request of HTTP/1.1; the connection is closed.")

    def _refuse(self, code: ErrorCode, detail: str) -> None:
        self._on_refused(code)
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            request_id = request_ids.new()
            body = problems.encode(code, detail, request_id, {})
            status = HTTPStatus(problems.CATALOGUE[code].status)
            head = (
                f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: {problems.MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: RFC 9110 §7.8 lets a server ignore Upgrade, and the request is answered as HTTP/1.1."""
