"""The statements of an SQL text, in one pass and in bounded memory: what `wrangler d1 export` or .dump wrote.

A statement ends at a semicolon that is in no quotes ('…', "…", `…`, […]), no comment (-- or /* */) and no trigger; a
trigger ends at "; END ;", as https://www.sqlite.org/c3ref/complete.html has it. Comments are not handed on.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

_TOKEN = re.compile(r"""['"`\[;]|--|/\*""")
_CLOSING = {"'": "'", '"': '"', "`": "`", "[": "]", "/*": "*/", "--": "\n"}
_COMMENTS = {"--", "/*"}
_CLOSING_COMMENT = {"*/", "\n"}
_BEGIN_OF_TRIGGER = re.compile(r"\s*CREATE\s+(TEMP\s+|TEMPORARY\s+)?TRIGGER\b", re.IGNORECASE)
_END_OF_TRIGGER = re.compile(r"\s*END\s*;", re.IGNORECASE)
_BYTE_ORDER_MARK = "\ufeff"


class NotSql(Exception):
    """The text cannot be split into statements. The message names the line."""


class Statement(Struct, frozen=True):
    """`sql` with its semicolon, and the number of the line that it begins in."""

    line: int
    sql: str


def statements(path: Path) -> Iterator[Statement]:
    """The statements of the file, in order; empty ones are left out. Raises NotSql."""
    parts: list[str] = []
    begun = 0  # the line that the statement in `parts` began in; 0 while there is none
    last_part = 0  # where the parts after the latest semicolon within a trigger begin
    for number, text, ends in _pieces(path):
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


def _pieces(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Line number and text without comments, cut at line ends and after semicolons; whether a semicolon ends it."""
    closing = ""  # what ends the quotes or the comment that the text is in
    for number, line in _lines(path):
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


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise NotSql(f"line {number} is no UTF-8 text: {error.reason} at its byte {error.start + 1}") from error
            if "\0" in line:
                raise NotSql(f"line {number} holds a NUL character, which SQL text cannot")
            yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
