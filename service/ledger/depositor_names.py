"""Names of depositors: as users announce them, as banks print them, and which may mean the same person.

Banks print a name in a field of their own width and cut what is longer. A printed name therefore means each announced
name that it is, and each that it begins. It is never longer than the name that it means.
"""

import re
import unicodedata
from enum import StrEnum

from msgspec import Struct

from service.ledger.fields import BLANK

FOLDING_RULE = 2
"""How `match_name` folds. Whoever changes what it gives adds a rule, and a migration that folds stored names anew."""
OTHER_THAN_PLAIN = "*[^ -~가-힣]*"
"""SQL's GLOB of names that the rules may fold differently. Of all others they make lower case without spaces."""

_BLANKS_OF_RULE_1 = re.compile(rf"[\s{BLANK}]+")
_PLAIN = re.compile("[ -~가-힣]*")
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
# Unicode's Default_Ignorable_Code_Point where the category does not say it, and the blank Braille pattern.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_ROUNDS_MAX = 4
"""Of folding until nothing changes: what is taken out lets its neighbours combine. Two were never exceeded."""


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


def match_name(depositor_name: str, *, rule: int = FOLDING_RULE) -> str:
    """The name as matching compares it: NFKC, case folded, without what cannot be seen. May be empty; at most 18 times
    as long. Folded again it stays as it is. Rule 1 is that of before migration 016: NFC instead."""
    if rule == 1:
        folded = unicodedata.normalize("NFC", depositor_name).casefold()
        return unicodedata.normalize("NFC", _BLANKS_OF_RULE_1.sub("", folded))
    if _PLAIN.fullmatch(depositor_name):
        return depositor_name.replace(" ", "").lower()
    for _ in range(_ROUNDS_MAX):
        folded = "".join(character for character in _spelled_out(depositor_name) if not _is_unseen(character))
        if folded == depositor_name:
            break
        depositor_name = folded
    return depositor_name


def printed_width(depositor_name: str) -> int:
    """Columns of the name in EUC-KR, in which banks print: 1 of ASCII, 2 of all else, 0 of what has no width.

    Spaces around the name do not count, and letters in pieces (NFD) count as the letters that they make.
    """
    return sum(map(_columns, _trimmed(unicodedata.normalize("NFC", depositor_name))))


def printed(depositor_name: str, *, field_width: int) -> PrintedName:
    """What a bank printed. A field is full at its width, and one column before it where a wide letter did not fit."""
    return PrintedName(match_name(depositor_name), printed_width(depositor_name) in {field_width - 1, field_width})


def announced(depositor_name: str, *, field_width: int) -> AnnouncedName:
    """What a user announced, and how a bank may print it: as it was typed, or spelled out (㈜ as three letters)."""
    name = match_name(depositor_name)
    if 2 * len(depositor_name) < field_width and _PLAIN.fullmatch(depositor_name):
        return AnnouncedName(name, name)
    spellings = (unicodedata.normalize("NFC", depositor_name), _spelled_out(depositor_name))
    prints = (match_name(_cut(_trimmed(text), field_width)) for text in spellings)
    return AnnouncedName(name, min((name, *(cut for cut in prints if cut and name.startswith(cut))), key=len))


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


def _cut(text: str, field_width: int) -> str:
    """The shortest beginning of the text that fills a field; the text where none does."""
    width = 0
    for end, character in enumerate(text):
        width += _columns(character)
        if width > field_width:
            return text[:end]
        if width == field_width - 1 and end + 1 < len(text):
            return text[: end + 1]
    return text


def _spelled_out(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _trimmed(text: str) -> str:
    seen = [place for place, character in enumerate(text) if not _is_unseen(character)]
    return text[seen[0] : seen[-1] + 1] if seen else ""


def _columns(character: str) -> int:
    if character.isascii():
        return 1
    return 0 if _is_unseen(character) and unicodedata.category(character) != "Zs" else 2


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN_CATEGORIES or _UNSEEN.match(character) is not None
