"""Which announced names a person would see at once in what a bank printed, although matching does not take them for it.

Nothing here confirms anything: these are candidates for people. RULES is the whole table, the likeliest first. The work
is bounded: only the first NAME_CHARACTERS_MAX characters count, and each rule tries a limited number of readings.
"""

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from itertools import islice, permutations

from msgspec import Struct

from service.ledger.depositor_names import match_name

NAME_CHARACTERS_MAX = 64
"""So much of a name is compared; only the bot's rows may have longer ones."""
READINGS_MAX = 16
"""Most readings of one name: itself, and what is left with more and more taken away."""
WORDS_MAX = 5
"""A Latin name of more words is compared in the order it has."""
CORE_CHARACTERS_MIN = 2
"""A shorter rest is no name: half of all names end with it."""
NOTED_CHARACTERS_MIN = 3
"""A shorter name is not looked for behind a note that stands before it."""


class Likeness(StrEnum):
    """How a candidate's name is like the bank's, the likeliest first.

    same_name: the same; learned_name: people taught that it means the user; truncated_name: one is the beginning of
    the other (banks cut names, and write something behind them); corporate_name: the same but for marks such as (주);
    decorated_name: the same but for a bank's or an app's word, a note, an honorific, brackets or digits around it;
    latin_name: Latin words in another order or otherwise joined; masked_name: the bank hides letters; same_amount: the
    amount alone.
    """

    SAME_NAME = "same_name"
    LEARNED_NAME = "learned_name"
    TRUNCATED_NAME = "truncated_name"
    CORPORATE_NAME = "corporate_name"
    DECORATED_NAME = "decorated_name"
    LATIN_NAME = "latin_name"
    MASKED_NAME = "masked_name"
    SAME_AMOUNT = "same_amount"


_MARKS = (
    *("주식회사", "유한책임회사", "유한회사", "합자회사", "합명회사", "사단법인", "재단법인", "농업회사법인"),
    *(
        "영농조합법인",
        "사회복지법인",
        "사회적협동조합",
        "협동조합",
        "의료법인",
        "학교법인",
        "(주)",
        "(유)",
        "(사)",
        "(재)",
    ),
    *("(합)", "(의)", "(학)", "주)", "유)", "(주", "(유"),
)
"""Corporate marks, as they fold. Banks print half of a bracket where the other half was cut."""
_LATIN_MARKS = ("co.,ltd.", "co.,ltd", "co.ltd.", "co.ltd", "coltd", ",inc.", ",inc", "inc.", "ltd.", "corp.", "llc")
_HONORIFICS = ("고객님", "회원님", "사장님", "선생님", "대표님", "님", "귀하", "씨")
_WORDS = (
    *("국민은행", "국민", "kb국민은행", "kb국민", "kb", "신한은행", "신한", "우리은행", "우리", "하나은행", "하나"),
    *("keb하나은행", "keb하나", "농협은행", "농협", "nh농협은행", "nh농협", "nh", "기업은행", "기업", "ibk기업은행"),
    *("ibk기업", "ibk", "카카오뱅크", "카카오페이", "카카오", "카뱅", "카페이", "kakaobank", "kakaopay", "kakao"),
    *("토스뱅크", "토스페이", "토스", "tossbank", "toss", "케이뱅크", "케뱅", "kbank", "네이버페이", "네이버", "npay"),
    *("페이코", "payco", "삼성페이", "새마을금고", "새마을", "신협", "수협은행", "수협", "우체국", "산업은행", "kdb"),
    *("sc제일은행", "sc제일", "제일은행", "씨티은행", "씨티", "부산은행", "대구은행", "im뱅크", "아이엠뱅크"),
    *("광주은행", "전북은행", "경남은행", "제주은행", "저축은행", "증권", "오픈뱅킹", "오픈", "인터넷", "모바일"),
    *(
        "스마트폰",
        "스마트",
        "폰뱅킹",
        "펌뱅킹",
        "전자금융",
        "타행이체",
        "타행",
        "당행",
        "이체",
        "송금",
        "입금",
        "무통장",
    ),
    *("fbs", "atm", "cd", "은행", "뱅크"),
)
"""What banks and apps write before a name or behind it, as it folds."""


def _by_character(place: int, *tables: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The words of the tables by their character at this place, the longest first."""
    words = sorted((word for table in tables for word in table), key=len, reverse=True)
    return {of: tuple(word for word in words if word[place] == of) for of in {word[place] for word in words}}


_FRONTS = _by_character(0, _MARKS, _WORDS)
_BACKS = _by_character(-1, _MARKS, _LATIN_MARKS, _WORDS, _HONORIFICS)
_MARKS_IN_FRONT = _by_character(0, _MARKS)
_MARKS_BEHIND = _by_character(-1, _MARKS, _LATIN_MARKS)
_PARTS_OF_MARKS = tuple(sorted({mark[:end] for mark in _MARKS for end in range(2, len(mark))}, key=len, reverse=True))
_BRACKETS = {"(": ")", "[": "]", "{": "}", "<": ">", "〈": "〉", "《": "》", "【": "】", "「": "」"}
_CLOSING = {closing: opening for opening, closing in _BRACKETS.items()}
_OPENING = frozenset(_BRACKETS)
_SEPARATORS = frozenset("-_/|·:;,.~+=#@&ㆍᆞ・\\'\"")
_MASKS = frozenset("*○●◯〇•□■※◎x×")
_SURE_MASKS = _MASKS - {"x", "×", "〇"}


class Reading(Struct, frozen=True):
    """What can be read in a name.

    name: as matching compares it; bare: without corporate marks; readings: it, and what is left with more and more
    taken away from its ends; digits: those of it; words: its words where all of it is Latin; masked: some letters are
    hidden.
    """

    name: str
    bare: str
    readings: tuple[str, ...]
    digits: str
    words: tuple[str, ...]
    masked: bool


class Printed(Struct, frozen=True):
    """A printed name that was read. fills_field: the bank may have cut it."""

    reading: Reading
    fills_field: bool


def read(name: str) -> Reading:
    """What can be read in a name as it is written, announced or printed."""
    text = unicodedata.normalize("NFKC", name[:NAME_CHARACTERS_MAX])[:NAME_CHARACTERS_MAX]
    folded = match_name(text)[:NAME_CHARACTERS_MAX]
    told = _without_amount(folded)
    readings = tuple(islice(dict.fromkeys(_readings(*dict.fromkeys((folded, told)))), READINGS_MAX))
    return Reading(
        name=folded,
        bare=_bare(folded),
        readings=readings,
        digits="".join(filter(str.isdigit, told)),
        words=_latin_words(text),
        masked=not _SURE_MASKS.isdisjoint(folded),
    )


def likeness(announced: Reading, printed: Printed) -> tuple[int, Likeness] | None:
    """How an announced name is like a printed one, and the place of its rule, the likeliest first; None when it is
    not."""
    if not announced.name or not printed.reading.name:
        return None
    for place, (alike, rule) in enumerate(RULES):
        if rule(announced, printed):
            return place, alike
    return None


def seen_in(depositor_name: str, printed: Printed) -> tuple[int, Likeness] | None:
    """`likeness` of a name as it was announced, most of which have nothing in common with what is printed."""
    text = unicodedata.normalize("NFKC", depositor_name[:NAME_CHARACTERS_MAX])[:NAME_CHARACTERS_MAX]
    folded = match_name(text)[:NAME_CHARACTERS_MAX]
    if frozenset(printed.reading.name).isdisjoint(folded):
        return None
    if folded.startswith(printed.reading.name):  # the first two rules, without a reading
        place = int(folded != printed.reading.name)
        return place, RULES[place][0]
    return likeness(read(depositor_name), printed)


def likely_names(printed: Printed) -> list[str]:
    """Folded names that would be alike, the likeliest first, to be looked for by an index: a limited number."""
    reading, name = printed.reading, printed.reading.name
    likely = [*reading.readings, reading.bare]
    likely += [mark + reading.bare for mark in _MARKS if reading.bare]
    likely += [reading.bare + mark for mark in _MARKS if reading.bare]
    if len(reading.words) <= WORDS_MAX:
        likely += ["".join(order) for order in islice(permutations(reading.words), 24)]
    likely += [name[:end] for end in range(CORE_CHARACTERS_MIN, len(name))]
    likely += [name[start:] for start in range(CORE_CHARACTERS_MIN, len(name) - NOTED_CHARACTERS_MIN + 1)]
    return [one for one in dict.fromkeys(likely) if len(one) >= CORE_CHARACTERS_MIN]


def says_who(printed_name: str) -> bool:
    """Whether a printed name may be a person's: it hides no letters, and is not a bank's or an app's word alone."""
    reading = read(printed_name)
    core = min(reading.readings, key=len, default=reading.name)
    letters = any(character.isalpha() for character in reading.name)
    return letters and not reading.masked and core not in _WORDS and reading.name not in {*_WORDS, *_MARKS}


def _is_the_same(announced: Reading, printed: Printed) -> bool:
    return announced.name == printed.reading.name


def _begins_with_it(announced: Reading, printed: Printed) -> bool:
    return announced.name.startswith(printed.reading.name)


def _differs_by_corporate_marks(announced: Reading, printed: Printed) -> bool:
    one, other = announced.bare, printed.reading.bare
    if not one or not other or (one, other) == (announced.name, printed.reading.name):
        return False
    if not printed.fills_field:
        return one == other
    return (len(other) >= CORE_CHARACTERS_MIN and one.startswith(other)) or one == _bare(other, cut=True)


def _is_decorated(announced: Reading, printed: Printed) -> bool:
    ours, banks = announced, printed.reading
    if ours.digits and banks.digits and not (ours.digits.endswith(banks.digits) or banks.digits.endswith(ours.digits)):
        return False
    if ours.name in banks.readings or banks.name in ours.readings or ours.bare in banks.readings:
        return True
    if _stands_behind_a_note(ours.name, banks):
        return True
    return any(len(one) >= NOTED_CHARACTERS_MIN and one in banks.readings for one in ours.readings)


def _stands_behind_a_note(name: str, printed: Reading) -> bool:
    note = len(printed.name) - len(name)
    long_enough = note >= CORE_CHARACTERS_MIN and len(name) >= NOTED_CHARACTERS_MIN
    return long_enough and not printed.words and printed.name.endswith(name)


def _is_latin_and_turned(announced: Reading, printed: Printed) -> bool:
    ours, banks = announced.words, printed.reading.words
    if not ours or not banks:
        return False
    one, other = "".join(ours), "".join(banks)
    if one == other:
        return True
    if len(ours) > WORDS_MAX or len(banks) > WORDS_MAX:
        return False
    if printed.fills_field and len(one) > len(other):
        return any("".join(order).startswith(other) for order in permutations(ours))
    if len(one) != len(other) or sorted(one) != sorted(other):
        return False
    return any("".join(order) == other for order in permutations(ours)) or any(
        "".join(order) == one for order in permutations(banks)
    )


def _is_masked(announced: Reading, printed: Printed) -> bool:
    if printed.reading.masked:
        return any(
            _hides(mask, name, cut=printed.fills_field)
            for mask in (*printed.reading.readings, printed.reading.bare)
            for name in (*announced.readings, announced.bare)
        )
    return announced.masked and any(_hides(announced.name, name, cut=False) for name in printed.reading.readings)


def _goes_on_behind_it(announced: Reading, printed: Printed) -> bool:
    return len(announced.name) >= CORE_CHARACTERS_MIN and printed.reading.name.startswith(announced.name)


RULES: tuple[tuple[Likeness, Callable[[Reading, Printed], bool]], ...] = (
    (Likeness.SAME_NAME, _is_the_same),
    (Likeness.TRUNCATED_NAME, _begins_with_it),
    (Likeness.CORPORATE_NAME, _differs_by_corporate_marks),
    (Likeness.DECORATED_NAME, _is_decorated),
    (Likeness.LATIN_NAME, _is_latin_and_turned),
    (Likeness.MASKED_NAME, _is_masked),
    (Likeness.TRUNCATED_NAME, _goes_on_behind_it),
)
"""Each rule, and how a name is alike by it; the likeliest first. The first that holds counts."""


def _bare(name: str, *, cut: bool = False) -> str:
    """The name without corporate marks at its ends; `cut`: also without the beginning of one at its end."""
    for _ in range(READINGS_MAX):
        shorter = _without_word_in_front(name, _MARKS_IN_FRONT)
        shorter = _without_word_behind(shorter, _MARKS_BEHIND)
        if shorter == name:
            break
        name = shorter
    if cut:
        part = next((part for part in _PARTS_OF_MARKS if name.endswith(part)), "")
        name = name[: len(name) - len(part)]
    return name


def _without_word_in_front(name: str, words: Mapping[str, tuple[str, ...]]) -> str:
    word = next((word for word in words.get(name[:1], ()) if name.startswith(word)), "")
    return name[len(word) :]


def _without_word_behind(name: str, words: Mapping[str, tuple[str, ...]]) -> str:
    word = next((word for word in words.get(name[-1:], ()) if name.endswith(word)), "")
    return name[: len(name) - len(word)]


def _readings(*names: str) -> Iterator[str]:
    """The names, and each with more and more taken away from its end and from its front."""
    for name in names:
        for shorter in _shortened(name, _without_back):
            yield from islice(_shortened(shorter, _without_front), 4)
        yield from _parts(name)


def _shortened(name: str, once: Callable[[str], str]) -> Iterator[str]:
    """The name, and what is left each time that something was taken away; no rest is too short to be a name."""
    for _ in range(READINGS_MAX):
        if len(name) < CORE_CHARACTERS_MIN:
            return
        yield name
        name, before = once(name), name
        if name == before:
            return


def _without_back(name: str) -> str:
    """The name without one thing at its end: brackets, also unclosed ones, digits, a word, a separator."""
    last = name[-1]
    if last in _CLOSING and (opening := name.rfind(_CLOSING[last])) > 0:
        return name[:opening]
    if not _OPENING.isdisjoint(name):
        unclosed = max((name.rfind(opening) for opening in _OPENING if _BRACKETS[opening] not in name), default=-1)
        if unclosed > 0:
            return name[:unclosed]
    if last in _SEPARATORS:
        return name[:-1]
    if last.isdigit():
        return name.rstrip("0123456789")
    return _without_word_behind(name, _BACKS)


def _without_front(name: str) -> str:
    """The name without one thing at its front."""
    first = name[0]
    if first in _BRACKETS and not name.startswith(_MARKS) and (closing := name.find(_BRACKETS[first])) > 0:
        return name[closing + 1 :]
    if first in _SEPARATORS:
        return name[1:]
    if first.isdigit():
        return name.lstrip("0123456789")
    return _without_word_in_front(name, _FRONTS)


def _parts(name: str) -> Iterator[str]:
    """What stands before the first separator and behind the last one; of Latin names nothing, which are written so."""
    if name.isascii() or _SEPARATORS.isdisjoint(name):
        return
    places = [place for place, character in enumerate(name) if character in _SEPARATORS]
    yield from (part for part in (name[: places[0]], name[places[-1] + 1 :]) if len(part) >= CORE_CHARACTERS_MIN)


def _without_amount(name: str) -> str:
    """The name without an amount of won behind it, as in 홍길동 5만원."""
    for unit in ("만원", "천원", "만", "원"):
        if name.endswith(unit) and name[-len(unit) - 1 : -len(unit)].isdigit():
            return name[: -len(unit)].rstrip("0123456789,.")
    return name


def _latin_words(text: str) -> tuple[str, ...]:
    """The words of a name in Latin letters, without their marks; none where it has other letters or hides some."""
    if any(character > "\u1fff" for character in text):
        return ()
    plain = "".join(one for one in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(one))
    if any(character in _SURE_MASKS or (character.isalpha() and not character.isascii()) for character in plain):
        return ()
    spaced = "".join(character if character.isalpha() else " " for character in plain.replace("'", ""))
    return tuple(spaced.split())


def _hides(mask: str, name: str, *, cut: bool) -> bool:
    """Whether the masked name may be this one: each letter that is shown is the same, and one at least is shown."""
    if len(mask) != len(name) and not (cut and len(mask) < len(name)):
        return False
    shown = [one == other for one, other in zip(mask, name, strict=False) if one not in _MASKS]
    return len(shown) < len(mask) and any(shown) and all(shown)
