"""Where requests begin and end: what is read is read in one way, and everything has a bound."""

import pytest

from service.http_framing import HEAD_BYTES_MAX, HEADERS_MAX, Chunks, NotHttp, TooLarge, check_beginning, read_head


def head(*lines: str, first: str = "POST /v1/debits HTTP/1.1") -> bytes:
    """A head of these headers."""
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1")


def test_a_head_says_how_its_body_is_framed() -> None:
    """By Content-Length, by chunks, or not at all; also where the client would rather speak another protocol."""
    assert read_head(head("Host: x")).length == 0
    upgrading = read_head(head("Upgrade: h2c", "Connection: Upgrade", "Content-Length: 12 "))
    assert (upgrading.length, upgrading.chunked, upgrading.keeps_alive) == (12, False, True)
    assert read_head(head("Transfer-Encoding: chunked", "Connection: Keep-Alive, Close")).chunked
    assert not read_head(head("Connection: a", "Connection: close")).keeps_alive
    assert not read_head(head(first="GET / HTTP/1.0")).keeps_alive


def test_a_name_with_an_underscore_is_another_name() -> None:
    """Some servers take `_` for `-`; what a proxy let pass under the one must not count as the other."""
    found = read_head(head("Content_Length: 5", "Transfer_Encoding: chunked"))
    assert (found.length, found.chunked) == (0, False)


@pytest.mark.parametrize(
    "data",
    [
        head("Content-Length: 5", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: chunked", "Content-Length: 5"),
        head("Content-Length: 5", "Content-Length: 6"),
        head("Content-Length: 5_0"),
        head("Content-Length: 0x5"),
        head("Content-Length: -1"),
        head("Content-Length:"),
        head("Transfer-Encoding: chunked, identity"),
        head("Transfer-Encoding: xchunked"),
        head("Transfer-Encoding: chunked;a=b"),
        head("Transfer-Encoding:\tchunked", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding : chunked"),
        head("Transfer-Encoding: chunked", first="POST / HTTP/1.0"),
        head("Host: x", " folded"),
        head(" Host: x"),
        head("Host : x"),
        head(": x"),
        head("no colon"),
        head("A: a\x00b"),
        head("A: a\rb"),
        head("A: a\x7fb"),
        head("A\xff: b"),
        head(first="GET /"),
        head(first="GET / HTTP/2.0"),
        head(first="GET / HTTP/0.9"),
        head(first="GET /a b HTTP/1.1"),
        head(first="CONNECT x:443 HTTP/1.1"),
        head("Host: x").replace(b"\r\n", b"\n"),
        head("Host: x").replace(b"\r\n\r\n", b"\n\r\n"),
    ],
)
def test_what_could_be_read_in_two_ways_is_read_in_none(data: bytes) -> None:
    """Lengths that contradict, lines that are not quite lines, names that are not quite names."""
    with pytest.raises(NotHttp):
        read_head(data)


def test_no_more_headers_are_kept_than_there_may_be() -> None:
    """A head of 16 KiB could have four thousand."""
    assert len(read_head(head(*(f"a{n}: b" for n in range(HEADERS_MAX)))).headers) == HEADERS_MAX
    with pytest.raises(TooLarge):
        read_head(head(*("a:b" for _ in range(HEADERS_MAX + 1))))


def test_what_cannot_become_a_head_is_known_from_its_beginning() -> None:
    """TLS on a port without it, or SMTP; a slow head is no such thing."""
    check_beginning(b"GET /live")
    check_beginning(b"GET /livez HTTP/1.1\r\nHost: x\r\nA")
    for data in (b"\x16\x03\x01\x02\x00", b"EHLO x\r\n", b"GET / HTTP/1.1\n"):
        with pytest.raises(NotHttp):
            check_beginning(data)


BODY = b"5;a=b\r\nhello\r\n00000006\r\n world\r\n0\r\nX-A: 1\r\nAuthorization: Bearer x\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_chunked_body_is_the_same_however_it_comes(size: int) -> None:
    """Byte by byte too; what is behind it is left alone, and its trailer is dropped."""
    chunks, found = Chunks(), b""
    data = BODY + b"GET / HTTP/1.1\r\n\r\n"
    for begin in range(0, len(data), size):
        part = data[begin : begin + size]
        at = 0
        while at < len(part) and not chunks.ended:
            body, at = chunks.feed(part, at)
            found += body
        if chunks.ended:
            assert begin + at == len(BODY)
            break
    assert (found, chunks.ended) == (b"hello world", True)


def test_small_chunks_are_taken_apart_a_few_at_a_time() -> None:
    """Others have their turn between two times; all of the body comes in the end."""
    data = b"1\r\nx\r\n" * 3000 + b"0\r\n\r\nGET"
    chunks, found, at = Chunks(), [], 0
    while not chunks.ended:
        body, at = chunks.feed(data, at)
        found.append(len(body))
    assert (sum(found), data[at:]) == (3000, b"GET")
    assert max(found) <= 128


@pytest.mark.parametrize(
    "data",
    [
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"100000000\r\nhello",
        b"0000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5;\x00\r\nhello\r\n0\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n folded: 1\r\n\r\n",
        b"0\r\nA : 1\r\n\r\n",
        b"0\r\nA: \x00\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_malformed_chunk_is_refused(data: bytes) -> None:
    """Sizes that only some would read, line ends that are none, more than was announced, a trailer that is none."""
    with pytest.raises(NotHttp):
        _fed([data])


def _fed(parts: list[bytes]) -> None:
    chunks = Chunks()
    for part in parts:
        at = 0
        while at < len(part):
            _, at = chunks.feed(part, at)


def test_extensions_and_trailers_are_bounded() -> None:
    """However small the pieces are: one long line, or many short ones."""
    for parts in (
        [b"5;" + b"a" * 5000],
        [b"5"] + [b";"] * 5000,
        [b"1;" + b"a" * 500 + b"\r\nx\r\n"] * 10,
        [b"1" * 5000],
    ):
        with pytest.raises(NotHttp):
            _fed(parts)
    for parts in ([b"0\r\n", *[b"a:b\r\n"] * HEAD_BYTES_MAX], [b"0\r\n", b"a:" + b"b" * HEAD_BYTES_MAX]):
        with pytest.raises(TooLarge):
            _fed(parts)
