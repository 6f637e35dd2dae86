"""Names of depositors: as users announce them, as banks print them, and which may mean the same person.

Banks print a name in a field of their own width and cut what is longer. A printed name therefore means each announced
name that it is, and each that it begins. It is never longer than the name that it means.
"""

import re
import unicodedata
from enum import StrEnum

from msgspec import Struct

from service.ledger.fields import BLANK

_BLANKS = re.compile(rf"[\s{BLANK}]+")
_EDGES = re.compile(rf"^[\s{BLANK}]+|[\s{BLANK}]+$")


class Meaning(StrEnum):
    """How a printed name means an announced one: in full; cut where the bank's field ends; or as its mere beginning,
    which confirms nothing by itself."""

    WHOLE = "whole"
    CUT = "cut"
    BEGINNING = "beginning"


class PrintedName(Struct, frozen=True):
    """A name as a bank printed it. name: as `match_name` folds it; fills_field: the bank may have cut it there."""

    name: str
    fills_field: bool


class AnnouncedName(Struct, frozen=True):
    """A name as a user announced it. name: as `match_name` folds it; print: the shortest text that a bank whose field
    is narrower than the name may print for it, folded too."""

    name: str
    print: str

    def beginnings(self) -> list[str]:
        """All that the name begins with, itself left out, shortest first."""
        return [self.name[:end] for end in range(1, len(self.name))]


def match_name(depositor_name: str) -> str:
    """The name as matching compares it: NFC, case folded, without spaces and what cannot be seen. May be empty."""
    folded = unicodedata.normalize("NFC", depositor_name).casefold()
    return unicodedata.normalize("NFC", _BLANKS.sub("", folded))


def printed_width(depositor_name: str) -> int:
    """Columns of the name in EUC-KR, in which banks print: 1 of ASCII, 2 of all else, 0 of what has no width.

    Spaces around the name do not count, and letters in pieces (NFD) count as the letters that they make.
    """
    return sum(map(_columns, _EDGES.sub("", unicodedata.normalize("NFC", depositor_name))))


def printed(depositor_name: str, *, field_width: int) -> PrintedName:
    """What a bank printed. A field is full at its width, and one column before it where a wide letter did not fit."""
    return PrintedName(match_name(depositor_name), printed_width(depositor_name) in {field_width - 1, field_width})


def announced(depositor_name: str, *, field_width: int) -> AnnouncedName:
    """What a user announced, and how a bank may print it."""
    name = match_name(depositor_name)
    if 2 * len(depositor_name) < field_width:
        return AnnouncedName(name, name)
    width, text = 0, _EDGES.sub("", unicodedata.normalize("NFC", depositor_name))
    for end, character in enumerate(text):
        width += 1 if character.isascii() else _columns(character)
        if width > field_width:
            return AnnouncedName(name, match_name(text[:end]))
        if width == field_width - 1 and end + 1 < len(text):
            return AnnouncedName(name, match_name(text[: end + 1]))
    return AnnouncedName(name, name)


def could_be_meant(line: PrintedName, name: str) -> Meaning | None:
    """How the printed name means the announced one, which is folded; None when it cannot. An empty one means nobody."""
    if not line.name or not name.startswith(line.name):
        return None
    if name == line.name:
        return Meaning.WHOLE
    return Meaning.CUT if line.fills_field else Meaning.BEGINNING


def could_be_confused(one: AnnouncedName, other: AnnouncedName) -> bool:
    """Whether a bank may print for one of them what could mean the other too."""
    if not one.name or not other.name:
        return False
    return one.name.startswith(other.print) or other.name.startswith(one.print)


def _columns(character: str) -> int:
    if character.isascii():
        return 1
    return 0 if _BLANKS.fullmatch(character) and unicodedata.category(character) != "Zs" else 2
