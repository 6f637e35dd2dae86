"""What a printed name can mean, and which announced names a bank may print alike."""

import hashlib
import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.depositor_names import (
    Meaning,
    announced,
    could_be_confused,
    could_be_meant,
    match_name,
    printed,
    printed_width,
)
from service.ledger.fields import BLANK
from tests.live import CHECKOUT

FIELD = 14
odd_names = st.text() | st.text("ㅏᄀ가각\u11a8ｶﾞ゛´\u0345\u0301\u200b\u3164Ａßİﷺㄱ①Ⅻ ", max_size=12)
"""Names of letters that combine, come apart, or are not seen."""
few = st.text("가나aB㈜Ａ ", max_size=10)
"""Names that are cut, or begin each other, more often than not."""


@pytest.mark.parametrize(
    ("announced", "banks"),
    [
        ("홍길동", "홍 길동"),
        ("홍길동", unicodedata.normalize("NFD", "홍길동")),
        ("Kim Lee", "KIMLEE"),
        ("Straße", "STRASSE"),
        ("홍길동", "\u3000홍\u200b길\u00a0동 "),
        ("é", "E\u0301"),
    ],
)
def test_names_that_read_the_same_are_the_same(announced: str, banks: str) -> None:
    """NFKC, case and spaces are folded, and what cannot be seen does not count."""
    assert match_name(announced) == match_name(banks)


@pytest.mark.parametrize(("announced", "banks"), [("홍길동", "홍길순"), ("Kim", "Kím"), ("ab", "ba"), ("1", "Ⅰ")])
def test_other_names_are_others(announced: str, banks: str) -> None:
    """Nothing else is folded: marks, order and letters that look alike."""
    assert could_be_meant(printed(banks, field_width=FIELD), match_name(announced)) is None


DOCUMENTED = [
    tuple(cell.strip().strip("`") for cell in line.split("|")[1:4])
    for line in (CHECKOUT / "docs" / "names.md").read_text("utf-8").splitlines()
    if line.startswith("| `")
]
"""(one name, another, whether they are the same) of the page about names."""


def spelled(text: str) -> str:
    """The text that the page writes, with its characters by number."""
    return re.sub(r"\+?U\+([0-9A-F]{4,5})\+?", lambda found: chr(int(found[1], 16)), text.replace("+U+", "U+"))


@pytest.mark.parametrize(("one", "other", "same"), DOCUMENTED)
def test_names_are_the_same_where_the_page_says_so(one: str, other: str, same: str) -> None:
    """docs/names.md is right, name by name."""
    assert (match_name(spelled(one)) == match_name(spelled(other))) is {"yes": True, "no": False}[same]


def test_the_page_names_enough() -> None:
    """It was read: names that are the same, and names that are not."""
    assert Counter(same for _, _, same in DOCUMENTED) == {"yes": 22, "no": 8}


@given(odd_names)
def test_a_folded_name_folds_to_itself(name: str) -> None:
    """Folding is a projection, and what the earlier rule made is folded on to the same: equal names stay equal."""
    folded = match_name(name)
    assert match_name(folded) == folded
    assert match_name(match_name(name, rule=1)) == folded


@given(odd_names)
def test_a_folded_name_is_bounded(name: str) -> None:
    """At most eighteen characters for each: what one sign of Arabic stands for."""
    assert len(match_name(name)) <= 18 * len(name)


def test_every_character_folds_to_what_can_be_seen() -> None:
    """All of Unicode, surrogates and what is not assigned too: folded twice as once, nothing unseen, of 18 at most."""
    characters = [chr(code) for code in range(0x110000)]
    folded = [match_name(character) for character in characters]
    others = [text for text, character in zip(folded, characters, strict=True) if text != character]
    assert [text for text in others if match_name(text) != text or len(text) > 18] == []
    left = set("".join(folded))
    assert re.search(rf"[\s{BLANK}]", "".join(left)) is None
    assert {"Cc", "Cf", "Zs", "Zl", "Zp"} & {unicodedata.category(character) for character in left} == set()


def test_how_characters_fold_does_not_change() -> None:
    """Stored names stay right with another Python: those of Unicode 3.2 fold as they did with migration 016."""
    old = unicodedata.ucd_3_2_0
    table = "".join(
        f"{code:x} {match_name(chr(code))}\n"
        for code in range(0x110000)
        if old.category(chr(code)) not in {"Cn", "Co", "Cs"}
    )
    assert (
        hashlib.sha256(table.encode()).hexdigest() == "aa1b6ce4fdf73ac28fef805ee8e78683f53ceb1fe1b805c022e598e1a7115c70"
    )


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.sampled_from("가나힣")))
def test_plain_names_fold_alike_by_every_rule(name: str) -> None:
    """So that the migration need not look at them, and SQL folds them too."""
    assert match_name(name) == match_name(name, rule=1) == name.replace(" ", "").lower()


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0),
        ("홍길동", 6),
        ("주식회사가나다", 14),
        ("Michael Kim", 11),
        ("홍 길동", 7),
        ("홍\u3000길동", 8),
        ("㈜한빛", 6),
        ("(주)한빛", 8),
        ("ＨＯＮＧ", 8),
        (" 홍길동\u3000\t", 6),
        ("홍\u200b길동\ufeff", 6),
        (unicodedata.normalize("NFD", "홍길동"), 6),
    ],
)
def test_a_name_is_as_wide_as_the_bank_prints_it(text: str, width: int) -> None:
    """EUC-KR's columns of the text as it came: not of what it folds to, nor of the spaces around it."""
    assert printed_width(text) == width


@pytest.mark.parametrize(
    ("line", "name", "meaning"),
    [
        ("홍길동", "홍길동", Meaning.WHOLE),
        ("홍 길동 ", "홍길동", Meaning.WHOLE),
        ("홍길동", "홍길동5678", Meaning.BEGINNING),
        ("김철", "김철수", Meaning.BEGINNING),
        ("홍", "홍길동", Meaning.BEGINNING),
        ("Michael", "Michael Kim", Meaning.BEGINNING),
        ("주식회사코딩하", "주식회사코딩하는사람들", Meaning.CUT),
        ("주식회사 코딩", "주식회사코딩하는사람들", Meaning.CUT),
        ("주식회사코딩", "주식회사코딩하는사람들", Meaning.BEGINNING),
        ("주식회사코딩하는", "주식회사코딩하는사람들", Meaning.BEGINNING),
        ("주식회사가나다", "주식회사가나다", Meaning.WHOLE),
        ("Christopher Na", "Christopher Nam-Il", Meaning.CUT),
        ("김철수", "김철", None),
        ("홍길동", "홍길순", None),
        ("길동", "홍길동", None),
        ("홍길동(국민)", "홍길동", None),
        ("", "홍길동", None),
        ("\u200b", "홍길동", None),
        ("홍길동", "", None),
        ("", "", None),
    ],
)
def test_a_printed_name_means_what_it_is_and_what_it_begins(line: str, name: str, meaning: Meaning | None) -> None:
    """It is never longer than the name, and only one that fills the field may have been cut."""
    assert could_be_meant(printed(line, field_width=FIELD), match_name(name)) is meaning


@pytest.mark.parametrize("width", [4, 7, 14, 20])
def test_a_field_is_full_at_its_width_and_one_before(width: int) -> None:
    """Where the field has one column left, a Hangul letter is left out; with two left, it is not full."""
    full = [columns for columns in range(width + 4) if printed("a" * columns, field_width=width).fills_field]
    assert full == [width - 1, width]


@pytest.mark.parametrize(
    ("one", "other", "confused"),
    [
        ("홍길동", "홍 길동", True),
        ("홍길동", "홍길동5678", True),
        ("주식회사가나다", "주식회사가나다라마바", True),
        ("주식회사가나다라", "주식회사가나다마바", True),
        ("주식회사가나다라", "주식회사가나라", False),
        ("주식회사가나a다", "주식회사가나a라", True),
        ("㈜가나다라마바", "㈜가나다라마사", True),
        ("홍길동", "홍길순", False),
        ("홍길동1", "홍길동2", False),
        ("홍길동", "", False),
        ("", "", False),
    ],
)
def test_names_that_a_bank_may_print_alike_are_confused(one: str, other: str, confused: bool) -> None:
    """One is the other, or begins with it, or both are cut to the same."""
    names = [announced(name, field_width=FIELD) for name in (one, other)]
    assert could_be_confused(*names) is confused
    assert could_be_confused(*reversed(names)) is confused


def as_printed(name: str, width: int) -> str:
    """As a bank prints it: as much of it as its field holds."""
    name = name.strip()
    while printed_width(name) > width:
        name = name[:-1]
    return name


@given(few, few, st.integers(4, 12))
def test_whoever_a_printed_name_could_mean_is_warned_of(one: str, other: str, width: int) -> None:
    """What the bank prints for one, whole or cut, means the other only where the announcements told of a collision."""
    text = as_printed(one, width)
    line = printed(text, field_width=width)
    if text.strip() and not text.endswith(" "):  # a space at the cut cannot be told from the bank's padding
        assert could_be_meant(line, match_name(one)) in {Meaning.WHOLE, Meaning.CUT}
    if could_be_meant(line, match_name(other)) is not None:
        assert could_be_confused(announced(one, field_width=width), announced(other, field_width=width))
