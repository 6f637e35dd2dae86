"""Where a request begins and ends in a stream of bytes (RFC 9112), each part of it bounded. No I/O.

httptools reads heads, one complete head at a time. This module finds where a body ends: httptools takes the fields
after a chunked body for headers, bounds nothing, and cannot stop after a request.
"""

import re

import httptools

HEAD_BYTES_MAX = 16 * 1024
"""Request line and headers together, with the empty line that ends them; and the trailer of a chunked body."""
HEADERS_MAX = 100
EMPTY_LINES_MAX = 4
"""So many empty lines may stand before a request (RFC 9112 §2.2)."""
_CHUNK_LINE_BYTES_MAX = 1024
_LINES_AT_ONCE = 256
_EXTENSION_BYTES_MAX = 4096
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(;[\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_VERSIONS = {"1.0", "1.1"}


class NotHttp(Exception):
    """The bytes are no request of HTTP/1.1. The text says what is wrong with them."""


class TooLarge(Exception):
    """A head or a trailer is beyond its bound. The text names the bounds."""

    def __init__(self) -> None:
        super().__init__(
            f"There may be {HEADERS_MAX} headers, and {HEAD_BYTES_MAX} bytes of request target and headers together."
        )


class Head:
    """The head of one request. Names of headers are in small letters.

    `length` is that of the body; of a `chunked` one it is 0. `expects` says whether the client waits for 100 Continue.
    """

    __slots__ = (
        *("begun", "chunked", "connection", "ended", "expects", "headers", "length", "method"),
        *("path", "query", "url", "version"),
    )

    def __init__(self) -> None:
        self.begun = self.ended = self.chunked = self.expects = False
        self.url = self.path = self.query = self.connection = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.length = 0
        self.method = self.version = ""

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow over the same connection."""
        if self.version != "1.1":
            return False
        return not self.connection or b"close" not in {part.strip().lower() for part in self.connection.split(b",")}

    def on_message_begin(self) -> None:
        """Called by httptools, as are the others."""
        if self.begun:
            raise NotHttp("There are two requests where one was looked for.")
        self.begun = True

    def on_url(self, url: bytes) -> None:
        """The request target."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if len(self.headers) == HEADERS_MAX:
            raise TooLarge
        name = name.lower()
        if name in _MEANT_HERE:
            if name == b"content-length":
                self.length = int(value)  # httptools has seen that it is one, of digits alone
            elif name == b"transfer-encoding":
                self.chunked = True  # httptools refuses any that does not end with it
            elif name == b"connection":
                self.connection = self.connection + b"," + value if self.connection else value
            elif value.lower() == b"100-continue":
                self.expects = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The empty line."""
        self.ended = True


_MEANT_HERE = frozenset({b"content-length", b"transfer-encoding", b"connection", b"expect"})


def read_head(data: bytes) -> Head:
    """The head that `data` is, from the request line to the empty line. Raises NotHttp, TooLarge."""
    head = Head()
    parser = httptools.HttpRequestParser(head)
    _feed(parser, data)
    if not head.ended or b"\x7f" in data:
        raise NotHttp("The head of the request is malformed.")
    head.version = parser.get_http_version()
    head.method = parser.get_method().decode("ascii")
    if head.version not in _VERSIONS:
        raise NotHttp("The version is not HTTP/1.1.")
    if head.chunked and head.version == "1.0":
        raise NotHttp("HTTP/1.0 has no Transfer-Encoding.")
    try:
        parsed = httptools.parse_url(head.url)
    except httptools.HttpParserError as error:
        raise NotHttp("The request target is malformed.") from error
    head.path, head.query = parsed.path or b"/", parsed.query or b""
    return head


def check_beginning(data: bytes) -> None:
    """Refuses what cannot become a head, of which only the beginning is there. Raises NotHttp, TooLarge."""
    _feed(httptools.HttpRequestParser(Head()), data)


def _feed(parser: httptools.HttpRequestParser, data: bytes) -> None:
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # RFC 9110 §7.8 lets a server ignore Upgrade
    except httptools.HttpParserError as error:
        if isinstance(error.__context__, TooLarge):
            raise error.__context__ from None
        raise NotHttp("The head of the request is malformed.") from error


class Chunks:
    """A chunked body (RFC 9112 §7.1), taken apart as it comes.

    Extensions of chunks are ignored and the trailer is dropped (RFC 9110 §6.5.1), each within a bound. `ended` is set
    behind the empty line that ends the trailer.
    """

    __slots__ = ("_extensions", "_in_trailer", "_left", "_line", "_trailer", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._left = 0
        """Bytes of the chunk that are still to come, and 1 more for the line end behind them."""
        self._line = b""
        self._in_trailer = False
        self._trailer = self._extensions = 0

    def feed(self, data: bytes, at: int) -> tuple[bytes, int]:
        """What is body in `data` from `at` on, and where it goes on. Raises NotHttp, TooLarge.

        That is behind the request where it has `ended`. Before its end it is within `data` after so many lines that
        others should have their turn: chunks of one byte are a hundred times as much work as the same bytes in one.
        """
        body = []
        lines = _LINES_AT_ONCE
        while at < len(data) and not self.ended and lines:
            if self._left > 1:
                piece = data[at : at + self._left - 1]
                body.append(piece)
                at += len(piece)
                self._left -= len(piece)
            else:
                at = self._feed_line(data, at)
                lines -= 1
        return b"".join(body), at

    def _feed_line(self, data: bytes, at: int) -> int:
        most = HEAD_BYTES_MAX if self._in_trailer else _CHUNK_LINE_BYTES_MAX
        end = data.find(b"\n", at, at + most - len(self._line))
        line = self._line + data[at : end + 1 if end >= 0 else at + most - len(self._line)]
        if end < 0:
            if len(line) < most:
                self._line = line
                return len(data)
            raise TooLarge if self._in_trailer else NotHttp("The size of a chunk, with its extensions, is too long.")
        if not line.endswith(b"\r\n"):
            raise NotHttp("A line of the chunked body does not end with CR LF.")
        self._line = b""
        self._take_line(line[:-2])
        return end + 1

    def _take_line(self, line: bytes) -> None:
        if self._left:
            if line:
                raise NotHttp("A chunk is longer than its size.")
            self._left = 0
        elif not self._in_trailer:
            found = _CHUNK.fullmatch(line)
            if found is None:
                raise NotHttp("The size of a chunk must be one to eight hexadecimal digits.")
            self._extensions += len(found[2] or b"")
            if self._extensions > _EXTENSION_BYTES_MAX:
                raise NotHttp(f"There may be {_EXTENSION_BYTES_MAX} bytes of chunk extensions.")
            size = int(found[1], 16)
            self._in_trailer = size == 0
            self._left = size + 1 if size else 0
        elif line:
            self._trailer += len(line) + 2
            if self._trailer > HEAD_BYTES_MAX:
                raise TooLarge
            if _FIELD.fullmatch(line) is None:
                raise NotHttp("The trailer of the chunked body is malformed.")
        else:
            self.ended = True
