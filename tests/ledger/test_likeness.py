"""Which announced names a person would see in a printed one: the table of cases, with those that are not alike."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.depositor_names import printed_width
from service.ledger.likeness import (
    NAME_CHARACTERS_MAX,
    RULES,
    Likeness,
    Printed,
    likely_names,
    likeness,
    read,
    seen_in,
)
from tests.some import some

FIELD = 14
SAME, CUT, CORPORATE = Likeness.SAME_NAME, Likeness.TRUNCATED_NAME, Likeness.CORPORATE_NAME
DECORATED, LATIN, MASKED = Likeness.DECORATED_NAME, Likeness.LATIN_NAME, Likeness.MASKED_NAME

CASES: list[tuple[str, Likeness | None, str]] = [
    # announced, how it is alike, what banks print (several, divided by two spaces)
    ("홍길동", SAME, "홍길동  홍 길동  홍길동\u200b"),
    ("ＨＯＮＧ", SAME, "HONG"),
    ("(주)가나", SAME, "（주）가나  ㈜가나"),
    # One begins the other: the bank cut it, or wrote more behind it.
    ("홍길동", CUT, "홍  홍길  홍길동전자  홍길동전"),
    ("주식회사코딩하는사람들", CUT, "주식회사  주식회사코딩하"),
    ("Michael Kim", CUT, "Michael  MICHAEL KIM JR"),
    # Corporate marks, of any kind, before or behind, whole or cut.
    ("(주)철수상사", CORPORATE, "주)철수상사  주식회사철수상사  철수상사  철수상사(주)  철수상사㈜  철수상사주식회사"),
    ("철수상사", CORPORATE, "㈜철수상사  (주)철수상사  주식회사 철수상사  유한회사철수상사  (유)철수상사  주)철수상사"),
    ("주식회사 철수상사", CORPORATE, "㈜철수상사  철수상사  유한회사 철수상사"),
    ("유한회사 하늘", CORPORATE, "하늘  (유)하늘  하늘유한회사"),
    ("농업회사법인 주식회사 들판", CORPORATE, "들판  (주)들판"),
    ("사단법인 나눔", CORPORATE, "나눔  (사)나눔"),
    ("(주)가", CORPORATE, "주식회사가  가"),
    ("주식회사코딩하는사람들", CORPORATE, "(주)코딩하는사"),
    ("(주)철수상사", CORPORATE, "철수상사주식회"),
    ("Passbook Co., Ltd.", CUT, "PASSBOOK"),
    ("PASSBOOK", CORPORATE, "Passbook Inc.  Passbook Co.,Ltd"),
    # A bank, an app, a note, an honorific, brackets or digits around it.
    ("홍길동", DECORATED, "홍길동(국민)  (국민)홍길동  홍길동[토스]  [카카오뱅크]홍길동  홍길동（국민）  홍길동(회비)"),
    (
        "홍길동",
        DECORATED,
        "홍길동-토스  토스-홍길동  토스 홍길동  홍길동 토스  홍길동/카카오  카카오_홍길동  홍길동·신한",
    ),
    ("홍길동", DECORATED, "국민홍길동  KB홍길동  카카오페이홍길동  네이버페이 홍길동  농협홍길동  홍길동우체국"),
    ("홍길동", DECORATED, "홍길동님  홍길동 고객님  토스홍길동님  홍길동씨"),
    ("홍길동", DECORATED, "홍길동1234  홍길동 010-1234-5678  1234홍길동  홍길동5678(국민)"),
    ("홍길동", DECORATED, "홍길동(국민은행  홍길동(  대청회비홍길동  홍길동-회비  동창회/홍길동"),
    ("홍길동 5만원", DECORATED, "국민홍길동  홍길동(토스)  홍길동1234"),
    ("홍길동5678", DECORATED, "홍길동5678(국민)  국민홍길동"),
    ("토스 홍길동", DECORATED, "홍길동  홍길동(국민)"),
    ("남궁하나", DECORATED, "남궁하나(국민)  하나남궁하나"),
    ("철수상사", DECORATED, "㈜철수상사(국민)  국민(주)철수상사"),
    ("Hong", DECORATED, "TOSS HONG  HONG(KB)"),
    # Latin names, with their words in another order, or otherwise divided.
    ("Hong Gil-dong", LATIN, "HONG GILDONG  HONGGILDONG  GILDONG HONG  GIL DONG HONG  Hong, Gil Dong"),
    ("Hong, Gildong", LATIN, "HONG GILDONG  GILDONG HONG"),
    ("Gildong Hong", LATIN, "HONG GILDONG  HONGGILDONG  HONG,GILDONG"),
    ("José García", LATIN, "JOSE GARCIA  GARCIA JOSE"),
    ("O'Brien Pat", LATIN, "PAT OBRIEN"),
    ("Nam-Il Christopher", LATIN, "CHRISTOPHER NA"),
    # Letters that the bank hides.
    ("홍길동", MASKED, "홍*동  홍＊동  홍○동  홍**  홍*동(국민)  홍*동님  토스홍*동  홍x*"),
    ("남궁길동", MASKED, "남**동  남궁*동  남***"),
    ("김철", MASKED, "김*"),
    ("Hong Gildong", MASKED, "H*** G******"),
    ("주식회사코딩하는사람들", MASKED, "주식**코딩하는"),
    ("(주)철수상사", MASKED, "철*상사"),
    ("홍*동", MASKED, "홍길동"),
    # Nothing that a person would take for it.
    ("홍길동", None, "홍길순  김길동  길동  동길홍  카카오뱅크  토스  국민은행  1234  님  황홍길동  이몽룡(국민)"),
    ("홍길동", None, "홍*순  김*동  ***  ***(동)  홍*  홍**동  *"),
    ("홍길동5678", None, "홍길동1234  홍길동9999(국민)"),
    ("가게1", None, "가게2  2가게"),
    ("김하나", None, "김국민  김(하나)  박하나"),
    ("(주)철수상사", None, "(주)영희상사  주식회사  유한회사  (유)철수"),
    ("주식회사", None, "(주)  ㈜  유한회사"),
    ("주식회사가나다라", None, "(주)가나다마"),
    ("Hong Gildong", None, "HONG GILSOON  GILDONG  KIM GILDONG  GILDONGG HON"),
    ("Kim Lee", None, "KIMM LE  LEE KIN"),
    ("홍", None, "홍길동  국민홍  김철홍"),
    ("", None, "홍길동  (국민)"),
]


def how(announced: str, printed_name: str) -> Likeness | None:
    """How the announced name is like the printed one, in a field of seven Hangul."""
    line = Printed(read(printed_name), printed_width(printed_name) in {FIELD - 1, FIELD})
    found = seen_in(announced, line)
    return found[1] if found else None


@pytest.mark.parametrize(("announced", "alike", "banks"), CASES, ids=[f"{case[0]} {case[1]}" for case in CASES])
def test_what_a_person_would_see(announced: str, alike: Likeness | None, banks: str) -> None:
    """Each printed name of the row, also in the letters that a Mac writes (NFD)."""
    told = {name: how(announced, name) for name in some(banks.split("  "))}
    assert told == dict.fromkeys(banks.split("  "), alike)
    apart = {name: how(unicodedata.normalize("NFD", announced), unicodedata.normalize("NFD", name)) for name in told}
    assert apart == told


def test_an_empty_print_is_like_no_name() -> None:
    """Nor is one that nobody can see."""
    assert [how("홍길동", name) for name in ("", " ", "\u200b\u3000")] == [None, None, None]


def test_every_rule_has_cases_of_its_own() -> None:
    """A rule that finds nothing by itself fails here: its likeness stands in the table, and none is missing."""
    assert (
        {alike for _, alike, _ in CASES if alike}
        == {alike for alike, _ in RULES}
        == {*Likeness} - {Likeness.SAME_AMOUNT, Likeness.LEARNED_NAME}
    )


def test_the_likeliest_comes_first() -> None:
    """Of several deposits a person reads the most probable one first."""
    line = Printed(read("국민홍길동"), fills_field=False)
    ranked = sorted(
        (found, name)
        for name in ("국민", "국*홍길동", "홍길동", "국민홍길동전", "국민홍길동")
        if (found := seen_in(name, line))
    )
    assert [name for _, name in ranked] == ["국민홍길동", "국민홍길동전", "홍길동", "국*홍길동", "국민"]
    by_name = [alike for alike in Likeness if alike not in {Likeness.LEARNED_NAME, Likeness.SAME_AMOUNT}]
    assert [alike for alike, _ in RULES[:6]] == by_name


@pytest.mark.parametrize(
    ("printed_name", "looked_for"),
    [
        ("국민홍길동", "홍길동"),
        ("홍길동(국민)", "홍길동"),
        ("철수상사", "(주)철수상사"),
        ("주식회사철수상사", "철수상사"),
        ("주식회사철수상사", "(주)철수상사"),
        ("철수상사", "철수상사주식회사"),
        ("HONG GILDONG", "gildonghong"),
        ("대청회비홍길동", "홍길동"),
        ("홍길동1234", "홍길동"),
        ("홍길동전자", "홍길동"),
    ],
)
def test_likely_names_are_looked_for_by_themselves(printed_name: str, looked_for: str) -> None:
    """They are found by an index, however many deposits of the amount there are."""
    assert looked_for in likely_names(Printed(read(printed_name), fills_field=False))


@given(st.text(max_size=80), st.text(max_size=80), st.booleans())
@pytest.mark.long
def test_any_text_can_be_read(announced: str, printed_name: str, fills_field: bool) -> None:
    """Nothing raises, the same name is always the same, and what is seen without a reading is what the rules say."""
    line = Printed(read(printed_name), fills_field)
    for name in (announced, printed_name + announced):
        assert seen_in(name, line) in {None, likeness(read(name), line)}
    assert len(likely_names(line)) <= 200
    if line.reading.name:
        assert seen_in(printed_name, line) == (0, SAME)


HOSTILE = [
    *("(" * 60, ")" * 60, "(국민" * 20, "국민" * 30, "*" * 60, "a " * 30, "-" * 60, "주)" * 30, "주식회사" * 15),
    *("1-" * 30, "님" * 60, "a" * 100_000, "é" * 100_000, "ﷺ" * 64),
]


def test_hostile_names_cost_little() -> None:
    """A thousand comparisons of the worst texts end in well under a second of processor time."""
    lines = [Printed(read(name), fills_field=True) for name in some(HOSTILE)]
    names = [read(name) for name in HOSTILE]
    assert all(len(reading.name) <= NAME_CHARACTERS_MAX for reading in names)
    began = time.process_time()
    for line in lines:
        for _ in range(5):
            for name in HOSTILE:
                seen_in(name, line)
    assert time.process_time() - began < 5
