"""The messages of each bank as they are printed, what could be taken for something else, and what is unreadable."""

import re
import sys
import unicodedata
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.ledger import bank_formats
from service.ledger.bank_formats import FORMATS, MESSAGE_MAX, MessageKind, ReadMessage, read
from tests.live import CHECKOUT
from tests.some import some

ARRIVED = datetime(2026, 11, 28, 3, 0, tzinfo=UTC)
"""Noon in Korea."""


def _read(text: str, received_at: datetime = ARRIVED) -> ReadMessage | None:
    return read(text.replace("⏎", "\n"), received_at=received_at)


def _parts(message: ReadMessage | None) -> tuple[object, ...]:
    assert message is not None
    return (
        message.kind.value,
        message.amount,
        message.depositor_name,
        message.occurred_at.strftime("%Y-%m-%d %H:%M"),
        message.account,
        message.balance_after,
    )


EXAMPLES: list[tuple[str, tuple[object, ...]]] = [
    (
        "[Web발신]⏎하나,01/16,12:39⏎427******27104⏎입금50,000원⏎홍길동⏎잔액1,050,000원",
        ("deposit", 50000, "홍길동", "2026-01-16 03:39", "427******27104", 1050000),
    ),
    (
        "하나,01/16, 12:39⏎427******27104⏎입금50,000원⏎홍길동⏎잔액80,090",
        ("deposit", 50000, "홍길동", "2026-01-16 03:39", "427******27104", 80090),
    ),
    (
        "[Web발신]\r\n하나,01/16 08:59\r\n427******27104\r\n입금50,000원\r\n홍길동\u3000\u3000\r\n",
        ("deposit", 50000, "홍길동", "2026-01-15 23:59", "427******27104", None),
    ),
    (
        "[Web발신]⏎하나,01/16,12:39⏎427******27104⏎출금50,000원⏎홍길동⏎잔액-55,279,562원",
        ("withdrawal", 50000, "홍길동", "2026-01-16 03:39", "427******27104", -55279562),
    ),
    (
        "[Web발신]⏎하나,01/16,12:39⏎427******27104⏎입금취소50,000원⏎홍길동⏎잔액1,000,000원",
        ("deposit_cancelled", 50000, "홍길동", "2026-01-16 03:39", "427******27104", 1000000),
    ),
    (
        "[Web발신]⏎하나,01/16,12:39⏎427******27104⏎입금50,000원⏎잔액1,050,000원",
        ("deposit", 50000, "", "2026-01-16 03:39", "427******27104", 1050000),
    ),
    (
        "[Web발신]⏎[KB]04/06 16:15⏎606401**772⏎홍길순⏎전자금융입금⏎55,000",
        ("deposit", 55000, "홍길순", "2026-04-06 07:15", "606401**772", None),
    ),
    (
        "[Web발신]⏎[KB]04/06 16:15⏎606401**772⏎한국주택금융공⏎FBS입금⏎55,000⏎잔액1,050,000",
        ("deposit", 55000, "한국주택금융공", "2026-04-06 07:15", "606401**772", 1050000),
    ),
    (
        "[KB]04/06 16:15⏎606401**772⏎오픈뱅킹출금⏎55,000⏎잔액1,050,000",
        ("withdrawal", 55000, "", "2026-04-06 07:15", "606401**772", 1050000),
    ),
    (
        "이*름님 04/01 14:48 941602-**-***318 홍길동 FBS입금 1,000 잔액225,023",
        ("deposit", 1000, "홍길동", "2026-04-01 05:48", "941602-**-***318", 225023),
    ),
    (
        "이*름님 04/01 14:48 941602-**-***318 HONG GIL DONG 스마트입금 1,000",
        ("deposit", 1000, "HONG GIL DONG", "2026-04-01 05:48", "941602-**-***318", None),
    ),
    (
        "[Web발신]⏎신한04/08 04:32⏎140-012-603310⏎입금     55,000⏎홍길동",
        ("deposit", 55000, "홍길동", "2026-04-07 19:32", "140-012-603310", None),
    ),
    (
        "[Web발신]⏎신한04/08 04:32⏎140-012-603310⏎입금     55,000⏎잔액   1,055,000⏎홍길동",
        ("deposit", 55000, "홍길동", "2026-04-07 19:32", "140-012-603310", 1055000),
    ),
    (
        "[Web발신]⏎2026/08/10 14:49⏎입금 407,000원⏎잔액 144,153,377원⏎㈜가나다⏎452***38801011⏎기업",
        ("deposit", 407000, "㈜가나다", "2026-08-10 05:49", "452***38801011", 144153377),
    ),
    (
        "2024/02/29 14:49⏎출금 407,000원⏎452***38801011⏎기업",
        ("withdrawal", 407000, "", "2024-02-29 05:49", "452***38801011", None),
    ),
    (
        "농협 입금3,825,000원⏎08/11 14:48 352-****-1682-33 홍길동 잔액9,536,103원",
        ("deposit", 3825000, "홍길동", "2026-08-11 05:48", "352-****-1682-33", 9536103),
    ),
    (
        "[Web발신]⏎농협 입금3,825,000원⏎08/11 14:48 352-****-1682-33 홍길동",
        ("deposit", 3825000, "홍길동", "2026-08-11 05:48", "352-****-1682-33", None),
    ),
    (
        "농협 입금1원⏎08/11 14:48 352-****-1682-33 잔액9,536,103원",
        ("deposit", 1, "", "2026-08-11 05:48", "352-****-1682-33", 9536103),
    ),
]


@pytest.mark.parametrize(("text", "parts"), EXAMPLES)
def test_a_message_is_read_as_its_bank_prints_it(text: str, parts: tuple[object, ...]) -> None:
    assert _parts(_read(text)) == parts


def test_every_shape_has_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that no message above has would never have been seen to work."""
    assert len(FORMATS) >= 6
    for one in some(FORMATS):
        monkeypatch.setattr(bank_formats, "FORMATS", (one,))
        assert any(_read(text) for text, _ in EXAMPLES), one.begins.pattern


@pytest.mark.parametrize(
    ("text", "name", "amount"),
    [
        ("이*름님 04/01 14:48 941602-**-***318 FBS입금 9,000,000 FBS입금 1,000", "FBS입금 9,000,000", 1000),
        ("이*름님 04/01 14:48 941602-**-***318 가 입금 9 잔액1 FBS입금 1,000 잔액2", "가 입금 9 잔액1", 1000),
        ("[KB]04/06 16:15⏎606401**772⏎9,000,000⏎전자금융입금⏎55,000", "9,000,000", 55000),
        ("[KB]04/06 16:15⏎606401**772⏎스마트입금⏎전자금융입금⏎55,000", "스마트입금", 55000),
        ("하나,01/16,12:39⏎427******27104⏎입금50원⏎입금9,000원⏎잔액1원", "입금9,000원", 50),
        ("농협 입금1원⏎08/11 14:48 352-****-1682-33 잔액5원 잔액9,536,103원", "잔액5원", 1),
        ("2026/08/10 14:49⏎입금 1원⏎452***38801011⏎452***38801011⏎기업", "452***38801011", 1),
    ],
)
def test_a_payers_name_that_looks_like_something_else_is_a_name(text: str, name: str, amount: int) -> None:
    """A payer chooses what the bank prints: it must not become money."""
    message = _read(text)
    assert message is not None
    assert (message.depositor_name, message.amount) == (name, amount)


@pytest.mark.parametrize(
    ("text", "arrived", "occurred"),
    [
        ("12/31 23:58", datetime(2026, 12, 31, 15, 3, tzinfo=UTC), "2026-12-31 14:58"),
        ("12/31 23:58", datetime(2027, 6, 1, tzinfo=UTC), "2026-12-31 14:58"),
        ("01/01 00:00", datetime(2026, 12, 31, 14, 57, tzinfo=UTC), "2026-12-31 15:00"),
        ("01/01 00:00", datetime(2026, 12, 31, 14, 54, tzinfo=UTC), "2025-12-31 15:00"),
        ("02/29 10:00", datetime(2028, 2, 29, 2, tzinfo=UTC), "2028-02-29 01:00"),
        ("02/29 10:00", datetime(2029, 1, 5, tzinfo=UTC), "2028-02-29 01:00"),
        ("02/29 10:00", datetime(2026, 3, 1, tzinfo=UTC), None),
        ("02/30 10:00", ARRIVED, None),
        ("13/01 10:00", ARRIVED, None),
        ("00/10 10:00", ARRIVED, None),
        ("10/10 24:00", ARRIVED, None),
        ("10/10 23:60", ARRIVED, None),
    ],
)
def test_the_year_is_the_latest_that_is_not_ahead(text: str, arrived: datetime, occurred: str | None) -> None:
    """On New Year's Day a message of the last evening is last year's; a bank's clock may be five minutes ahead."""
    message = _read(f"신한{text}⏎140-012-603310⏎입금 55,000⏎홍길동", arrived)
    assert (message and message.occurred_at.strftime("%Y-%m-%d %H:%M")) == occurred


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[Web발신]",
        "안녕하세요",
        "하나,01/16,12:39⏎427******27104⏎입금50,000원⏎홍길동⏎잔액1원⏎(광고) 대출",
        "하나,01/16,12:39⏎427******27104⏎입금0원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금50,00원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금5,0000원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금-50,000원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금50,000.5원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금050,000원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금,000원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금²원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금٥٠원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금50,000원⏎홍길동⏎김철수",
        "하나,01/16,12:39⏎427******27104⏎입금50,000원⏎홍길동⏎잔액1,00원",
        "하나,01/16,12:39⏎427******27104⏎입금50,000원⏎홍길동⏎잔액9,007,199,254,740,992원",
        "하나,01/16,12:39⏎427******27104⏎취소입금50,000원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금예정50,000원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금정정50,000원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금취소취소50,000원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎출금취소입금50,000원⏎홍길동",
        "하나,01/16,12:39⏎입금50,000원⏎홍길동",
        "입금50,000원⏎홍길동",
        "[KB]04/06 16:15⏎606401**772⏎전자금융입금",
        "[KB]04/06 16:15⏎606401**772⏎홍길순⏎55,000⏎전자금융입금",
        "[KB]04/06 16:15⏎606401**772⏎홍길순⏎김철수⏎전자금융입금⏎55,000",
        "이*름님 04/01 14:48 941602-**-***318 홍길동 1,000",
        "이*름님 04/01 14:48 941602-**-***318 홍길동 입금예정 1,000",
        "0000/08/10 14:49⏎입금 407,000원⏎452***38801011⏎기업",
        "1999/08/10 14:49⏎입금 407,000원⏎452***38801011⏎기업",
        "9999/12/31 23:59⏎입금 407,000원⏎452***38801011⏎기업",
        "2026/08/10 14:49⏎입금 407,000원⏎452***38801011",
        "2026.09.28 09:58:55|전자금융|홍길동||0|50,000|1,050,000|강남|",
        "하나,01/16,12:39⏎427******27104⏎입금1,000,000,000,001원⏎홍길동",
        "하나,01/16,12:39⏎427******27104⏎승인50,000원⏎홍길동",
        "농협 입금3,825,000달러⏎08/11 14:48 352-****-1682-33 홍길동",
        "하나,01/16,12:39⏎427******27104⏎입금50,000원⏎" + "가" * 51,
        "⏎".join(["하나,01/16,12:39", *["가"] * 20]),
        "가" * 2000,
        "하나,01/16,12:39⏎427******27104⏎입금50원⏎홍" + " " * 2000,
        "0" * 2000,
    ],
)
def test_what_is_not_read_whole_is_not_read(text: str) -> None:
    assert _read(text) is None


SPELLINGS: list[tuple[str, Any]] = [
    ("Windows line ends", lambda text: text.replace("\n", "\r\n")),
    ("old line ends", lambda text: text.replace("\n", "\r")),
    ("blanks behind each line", lambda text: text.replace("\n", " \t\u3000\n") + "\u3000 \n"),
    ("blanks before each line", lambda text: "\u3000" + text.replace("\n", "\n  ")),
    ("empty lines", lambda text: "\n\n" + text.replace("\n", "\n \n") + "\n"),
    ("blanks doubled", lambda text: text.replace(" ", " \u00a0")),
    ("full-width", lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)),
    (
        "full-width and decomposed",
        lambda text: unicodedata.normalize("NFD", text.replace(":", "：").replace(",", "，")),
    ),
    ("a mark of byte order", lambda text: f"\ufeff{text}\u200b"),
    ("no sender", lambda text: text.removeprefix("[Web발신]\n").removeprefix("[Web발신]\r\n")),
    ("a sender", lambda text: f"[Web발신]\n{text.removeprefix('[Web발신]').lstrip()}"),
    ("a sender on the same line", lambda text: f"[WEB발신] {text.removeprefix('[Web발신]').lstrip()}"),
    ("a sender in Hangul", lambda text: f"[웹발신]\n{text.removeprefix('[Web발신]').lstrip()}"),
    ("no 원", lambda text: text.replace("원", "")),
    ("a blank before 원", lambda text: text.replace("원", " 원")),
    ("a blank after 잔액", lambda text: text.replace("잔액", "잔액 ")),
    ("a colon after 잔액", lambda text: text.replace("잔액", "잔액: ")),
    ("a blank before the amount", lambda text: re.sub("(입금|출금|취소)(?=[0-9])", r"\1 ", text)),
]


@pytest.mark.parametrize(("how", "spelt"), SPELLINGS, ids=[how for how, _ in SPELLINGS])
def test_another_spelling_says_the_same(how: str, spelt: Any) -> None:
    """Spaces, line ends, widths and the sender's mark are no part of what a message says."""
    for text, parts in some(EXAMPLES):
        message = spelt(text.replace("⏎", "\n"))
        came = _parts(read(message, received_at=ARRIVED))
        as_printed = (*parts[:2], unicodedata.normalize("NFKC", str(parts[2])), *parts[3:])
        assert (*came[:2], unicodedata.normalize("NFKC", str(came[2])), *came[3:]) == as_printed, f"{how}: {message!r}"


@pytest.mark.parametrize(
    "printed", ["입금", "전자금융입금", "FBS입금", "스마트입금", "오픈뱅킹입금", "타행입금", "CD입금", "이체입금"]
)
def test_every_word_for_a_deposit_is_one(printed: str) -> None:
    """The word ends in 입금; with 취소 behind it, joined, apart or in brackets, it takes a deposit back."""
    for head in (
        "[KB]04/06 16:15⏎606401**772⏎홍길순⏎{}⏎55,000",
        "하나,04/06,16:15⏎606401**772⏎{}55,000⏎홍길순",
        "이*름님 04/06 16:15 606401**772 홍길순 {} 55,000",
        "농협 {}55,000원⏎04/06 16:15 606401**772 홍길순",
    ):
        for behind, kind in (("", "deposit"), ("취소", "deposit_cancelled"), (" 취소", "deposit_cancelled"),
                             ("(취소)", "deposit_cancelled")):  # fmt: skip
            parts = _parts(_read(head.format(printed + behind)))
            assert parts[:3] == (kind, 55000, "홍길순"), head.format(printed + behind)


_PIECES = st.sampled_from(
    ["입금", "출금", "취소", "잔액", "1,000", "1", " ", "  ", "\n", "FBS입금", "님", "홍", "04/01", "14:48", "*", "-",
     ",", "941602-**-***318", "원", "이*름님 04/01 14:48 941602-**-***318", "[KB]04/06 16:15\n606401**772\n", "기업",
     "농협 입금3원\n08/11 14:48 352-****-1682-33", "하나,01/16,12:39\n427******27104\n입금50원", "[Web발신]\n",
     "2026/08/10 14:49\n입금 1원\n", "신한04/08 04:32\n140-012-603310\n입금 5\n", "02/30", "99:99", "0000/"]
)  # fmt: skip
_ALMOST = st.lists(_PIECES, max_size=200).map(lambda pieces: "".join(pieces)[:MESSAGE_MAX])
_ARRIVALS = st.datetimes(datetime(2020, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC))


@given(st.one_of(_ALMOST, st.text(max_size=MESSAGE_MAX)), _ARRIVALS)
@example("잔액" * 1000, ARRIVED)
@example("입금 " * 600, ARRIVED)
def test_any_text_is_read_or_not_in_steps_that_its_length_bounds(text: str, arrived: datetime) -> None:
    """It never raises, what it reads is a line that can be, and it runs no more lines of code than the text needs."""
    message, lines_run = _counted(text, arrived)
    assert lines_run <= 2 * text.count("\n") + 2 * text.count("\r") + 400
    if message is not None:
        assert 0 < message.amount <= 10**12
        assert message.occurred_at <= arrived + timedelta(minutes=5)
        assert message.depositor_name == message.depositor_name.strip()
        assert len(message.depositor_name) <= 50
        assert "\n" not in message.depositor_name


def _counted(text: str, arrived: datetime) -> tuple[ReadMessage | None, int]:
    """What was read, and how many lines of code the reader ran for it."""
    count = 0

    def traced(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != bank_formats.__file__:
            return None
        count += event == "line"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        message = read(text, received_at=arrived)
    finally:
        sys.settrace(before)
    return message, count


def test_no_pattern_ever_gives_back_what_it_took() -> None:
    """Each is matched in one pass over the text: none has a repetition that could try another length."""
    parser: Any = re._parser  # type: ignore[attr-defined]
    patterns = [value for value in vars(bank_formats).values() if isinstance(value, re.Pattern)]
    patterns += [pattern for one in FORMATS for pattern in (one.begins, *one.ends)]
    assert len(patterns) > 10
    for pattern in some(patterns):
        wrong = [name for name in _repetitions(parser.parse(pattern.pattern)) if name != "POSSESSIVE_REPEAT"]
        assert wrong == [], pattern.pattern
    assert [*_repetitions(parser.parse("a{1,2}b++"))] == ["MAX_REPEAT", "POSSESSIVE_REPEAT"]


def _repetitions(parsed: Any) -> Any:
    for operation, argument in parsed:
        name = str(operation)
        if name.endswith("_REPEAT") and argument[0] != argument[1]:
            yield name
        for part in argument if isinstance(argument, tuple | list) else ():
            if type(part).__name__ == "SubPattern":
                yield from _repetitions(part)
            for inner in part if isinstance(part, list) else ():
                yield from _repetitions(inner) if type(inner).__name__ == "SubPattern" else ()


def test_each_kind_is_told_apart() -> None:
    texts = {kind: f"하나,01/16,12:39⏎427******27104⏎{printed}50원⏎홍" for kind, printed in {
        MessageKind.DEPOSIT: "입금", MessageKind.WITHDRAWAL: "출금", MessageKind.DEPOSIT_CANCELLED: "입금취소",
        MessageKind.WITHDRAWAL_CANCELLED: "출금취소",
    }.items()}  # fmt: skip
    read_kinds = {kind: _read(text) for kind, text in texts.items()}
    assert {kind: message and message.kind for kind, message in read_kinds.items()} == {
        kind: kind for kind in MessageKind
    }


def test_the_page_has_an_example_of_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/bank-messages.md: each is read, by the bank that stands beside it, and no shape is without one."""
    page = (CHECKOUT / "docs" / "bank-messages.md").read_text("utf-8")
    rows = re.findall(r"^\| (\w+은행) \| `([^`]+)` \|$", page, re.MULTILINE)
    for one, (bank, text) in some(zip(FORMATS, rows, strict=True)):
        monkeypatch.setattr(bank_formats, "FORMATS", (one,))
        message = _read(text, datetime(2026, 11, 28, 3, 0, tzinfo=UTC))
        assert (message and message.bank_name) == bank
