"""The statements of an SQL text, in one pass and in bounded memory: what `wrangler d1 export` or .dump wrote.

A statement ends at a semicolon that is in no quotes ('…', "…", `…`, […]), no comment (-- or /* */) and no trigger; a
trigger ends at "; END ;", as https://www.sqlite.org/c3ref/complete.html has it. Comments are not handed on.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

_TOKEN = re.compile(r"""['"`\[;]|--|/\*""")
_CLOSING = {"'": "'", '"': '"', "`": "`", "[": "]", "/*": "*/", "--": "\n"}
_COMMENTS = {"--", "/*"}
_CLOSING_COMMENT = {"*/", "\n"}
_BEGIN_OF_TRIGGER = re.compile(r"\s*CREATE\s+(TEMP\s+|TEMPORARY\s+)?TRIGGER\b", re.IGNORECASE)
_END_OF_TRIGGER = re.compile(r"\s*END\s*;", re.IGNORECASE)
_BYTE_ORDER_MARK = "\ufeff"
_LINE_BYTES_MAX = 2**26
_LINES_BETWEEN_NEWS = 4096
_OTHER_FORMATS = {
    b"\x1f\x8b": "is compressed (gzip); unpack it first",
    b"PK\x03\x04": "is compressed (zip); unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed (zstd); unpack it first",
    b"\xff\xfe": "is UTF-16 text; write it as UTF-8 first: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "is UTF-16 text; write it as UTF-8 first: iconv -f UTF-16 -t UTF-8",
}
"""First bytes -> what the file is, where it is certainly no SQL text."""


class NotSql(Exception):
    """The text cannot be split into statements. The message names the line."""


class Statement(Struct, frozen=True):
    """`sql` with its semicolon, and the number of the line that it begins in."""

    line: int
    sql: str


def statements(path: Path, bytes_read: Callable[[int], None] = lambda _: None) -> Iterator[Statement]:
    """The statements of the file, in order; empty ones are left out. `bytes_read` hears now and then how far it is.

    Raises NotSql.
    """
    parts: list[str] = []
    begun = 0  # the line that the statement in `parts` began in; 0 while there is none
    last_part = 0  # where the parts after the latest semicolon within a trigger begin
    for number, text, ends in _pieces(path, bytes_read):
        if not begun:
            if not text.rstrip(";").strip():
                continue
            begun = number
        parts.append(text)
        if ends and _is_unfinished_trigger(parts, last_part):
            last_part = len(parts)
        elif ends:
            yield Statement(begun, "".join(parts).strip())
            parts, begun, last_part = [], 0, 0
    if begun:
        raise NotSql(f"the text ends within the statement that begins in line {begun}; is it complete?")


def _pieces(path: Path, bytes_read: Callable[[int], None]) -> Iterator[tuple[int, str, bool]]:
    """Line number and text without comments, cut at line ends and after semicolons; whether a semicolon ends it."""
    closing = ""  # what ends the quotes or the comment that the text is in
    for number, line in _lines(path, bytes_read):
        start = at = 0
        while True:
            if closing:
                end = line.find(closing, at)
                if end < 0:
                    break
                at = end + len(closing)
                start = at if closing in _CLOSING_COMMENT else start
            found = _TOKEN.search(line, at)
            closing = _CLOSING.get(found[0], "") if found else ""
            if not found:
                break
            at = found.end()
            if found[0] == ";":
                yield number, line[start:at], True
                start = at
            elif found[0] in _COMMENTS:
                yield number, line[start : found.start()] + " ", False
        if closing not in _CLOSING_COMMENT:
            yield number, line[start:], False
    if closing == "*/":
        raise NotSql("the text ends within a comment; is it complete?")


def _is_unfinished_trigger(parts: list[str], last_part: int) -> bool:
    """Whether the semicolon at the end of `parts` is one within a trigger."""
    if last_part:
        return not _END_OF_TRIGGER.fullmatch("".join(parts[last_part:]))
    return bool(_BEGIN_OF_TRIGGER.match("".join(parts)))


def _lines(path: Path, bytes_read: Callable[[int], None]) -> Iterator[tuple[int, str]]:
    count = number = 0
    with path.open("rb") as file:
        while raw := file.readline(_LINE_BYTES_MAX + 1):
            number += 1
            count += len(raw)
            if number == 1:
                _refuse_other_formats(raw)
            if number % _LINES_BETWEEN_NEWS == 0:
                bytes_read(count)
            if len(raw) > _LINE_BYTES_MAX:
                raise NotSql(f"line {number} is longer than {_LINE_BYTES_MAX:,} bytes")
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise NotSql(
                    f"line {number} is no UTF-8 text (byte {error.start + 1}: {error.reason}); if it was saved in"
                    " another encoding, such as CP949 or Latin-1, write it as UTF-8 first: iconv -f CP949 -t UTF-8"
                ) from error
            if "\0" in line:
                raise NotSql(f"line {number} holds a NUL character, which SQL text cannot")
            yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line


def _refuse_other_formats(beginning: bytes) -> None:
    for mark, what in _OTHER_FORMATS.items():
        if beginning.startswith(mark):
            raise NotSql(f"it {what}")
    if beginning[1:8:2] == b"\0\0\0\0" or beginning[:8:2] == b"\0\0\0\0":
        raise NotSql("it is UTF-16 text without its mark; write it as UTF-8 first: iconv -f UTF-16LE -t UTF-8")
