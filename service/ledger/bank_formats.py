"""What a bank's message says: the money, the payer's name, and when. One row of `FORMATS` for each shape of a message.

A message is text, mostly without a year and always in Korea's time. It is read whole or not at all: each shape says
what every part is, so that a message with something else in it is unreadable, and a person looks at it. Nothing is
guessed. Reading never goes back: each pattern takes all that it can, and the parts behind the payer's name are read
from the end. So a payer, who chooses what the bank prints as the name, can write no other amount into a message.

The time: a message without a year is of the latest year in which it is not more than `AHEAD` ahead of its arrival.
Seconds are not printed; the minute's first is meant.
"""

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

from msgspec import Struct

from service.ledger.fields import AMOUNT_MAX, BALANCE_MAX

KOREA = timezone(timedelta(hours=9), "KST")
"""Korea has had no summer time since 1988."""
AHEAD = timedelta(minutes=5)
"""How far a bank's clock may be ahead of ours."""
MESSAGE_MAX = 2000
LINES_MAX = 12
NAME_MAX = 50
"""Characters and lines; a message with more is not read."""
_YEAR_MIN = 2000


class MessageKind(StrEnum):
    """deposit: money came. withdrawal: money went. The cancelled ones take an earlier message back."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    DEPOSIT_CANCELLED = "deposit_cancelled"
    WITHDRAWAL_CANCELLED = "withdrawal_cancelled"


class ReadMessage(Struct, frozen=True, kw_only=True):
    """A message that was read; amounts in won. `account` is as it was printed, mostly masked.

    `depositor_name` is as it was printed, and empty where the bank printed none. `balance_after` may be negative, and
    is None where the bank printed none. `occurred_at` is the first second of the printed minute, in UTC.
    """

    bank_name: str
    kind: MessageKind
    amount: int
    depositor_name: str
    occurred_at: datetime
    account: str
    balance_after: int | None


class Format(Struct, frozen=True, kw_only=True):
    """One shape: what it begins with, then the payer's name and the balance, either of which may be missing.

    begins: the message up to the name. divider: what is between the parts behind that: lines, or words of one line.
    ends: the parts behind the name. balance_is_last: behind these too; else it comes before the name.
    """

    bank_name: str
    begins: re.Pattern[str]
    divider: str = "\n"
    ends: Sequence[re.Pattern[str]] = ()
    balance_is_last: bool = True


# Every repetition is possessive (`?+`, `++`, `{1,2}+`): what is taken is never given back.
_DATE = r"(?P<month>[0-9]{2})/(?P<day>[0-9]{2})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})"
_ACCOUNT = r"(?P<account>[0-9*-]{6,40}+)"
_KIND = r"(?P<kind>[^ \n0-9]{2,20}+(?: \(?+취소\)?+)?+)"
_AMOUNT = r"(?P<amount>[0-9,]{1,20}+)(?: ?+원)?+"
_BALANCE = re.compile(r"잔액 ?+:?+ ?+(?P<balance>-?+[0-9,]{1,21}+)(?: ?+원)?+")

FORMATS = (
    Format(
        bank_name="하나은행",
        begins=re.compile(rf"하나 ?+,?+ ?+{_DATE} ?+,?+ ?+{_TIME}\n{_ACCOUNT}\n{_KIND} ?+{_AMOUNT}"),
    ),
    Format(
        bank_name="국민은행",
        begins=re.compile(rf"\[KB\] ?+{_DATE} {_TIME}\n{_ACCOUNT}"),
        ends=(re.compile(_KIND), re.compile(_AMOUNT)),
    ),
    Format(
        bank_name="국민은행",
        begins=re.compile(rf"(?:(?!님 )[^ \n]){{1,20}}+님 {_DATE} {_TIME} {_ACCOUNT}"),
        divider=" ",
        ends=(re.compile(_KIND), re.compile(_AMOUNT)),
    ),
    Format(
        bank_name="신한은행",
        begins=re.compile(rf"신한 ?+{_DATE} {_TIME}\n{_ACCOUNT}\n{_KIND} ?+{_AMOUNT}"),
        balance_is_last=False,
    ),
    Format(
        bank_name="기업은행",
        begins=re.compile(rf"(?P<year>[0-9]{{4}})/{_DATE} {_TIME}\n{_KIND} ?+{_AMOUNT}"),
        ends=(re.compile(_ACCOUNT), re.compile("기업")),
        balance_is_last=False,
    ),
    Format(
        bank_name="농협은행",
        begins=re.compile(rf"농협 ?+{_KIND} ?+{_AMOUNT}\n{_DATE} {_TIME} {_ACCOUNT}"),
        divider=" ",
    ),
)
"""Every shape that is read; docs/bank-messages.md has an example of each."""
_SENT_BY_WEB = re.compile(r"\[(?:web|웹)발신\] ?+", re.IGNORECASE)
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_SPACES = re.compile(r"[ \t\u00a0\u3000\x00]++")
_UNSEEN = " \u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""What may stand around a line and is not seen."""
_NARROW = str.maketrans({0xFF01 + offset: 0x21 + offset for offset in range(94)} | {0x2212: "-"})
"""Full-width signs and digits, one for one; a name is taken from the text before they are made narrow."""
_NOT_PLAIN = ("입금", "출금", "취소", "정정", "반환", "오류", "예정", "실패", "거절", "불가", "보류")
"""Before 입금 or 출금 such a word could turn its meaning around."""
_WORDS_OF_A_PART = {"\n": 1, " ": 3}
"""A balance may have blanks around its number: where words are parts, it may be up to three of them."""


def read(message: str, *, received_at: datetime) -> ReadMessage | None:
    """What `message` says; None where it has none of the shapes, or a time or an amount that cannot be."""
    text = _lines(message)
    if text is None:
        return None
    plain = text.translate(_NARROW)
    for one in FORMATS:
        begun = one.begins.match(plain)
        found = _fields(one, begun, text, plain) if begun else None
        if found is not None:
            return _message(one, found, received_at)
    return None


def _lines(message: str) -> str | None:
    """The lines that say something, without outer and double blanks; None where there are too many."""
    if len(message) > MESSAGE_MAX:
        return None
    lines = [_SPACES.sub(" ", line).strip(_UNSEEN) for line in _LINE_ENDS.split(unicodedata.normalize("NFC", message))]
    lines = [line for line in lines if line]
    if not lines or len(lines) > LINES_MAX:
        return None
    sent_by_web = _SENT_BY_WEB.match(lines[0].translate(_NARROW))
    lines[0] = lines[0][sent_by_web.end() :] if sent_by_web else lines[0]
    return "\n".join(line for line in lines if line)


def _fields(one: Format, begun: re.Match[str], text: str, plain: str) -> dict[str, str] | None:
    """What each part says, by name; None where a part is missing or too much."""
    rest = plain[begun.end() :]
    if rest and not rest.startswith(one.divider):
        return None
    parts = rest.split(one.divider)[1:]
    printed = text[begun.end() :].split(one.divider)[1:]
    found = {name: value for name, value in begun.groupdict().items() if value is not None}
    begin, end = 0, len(parts)
    left = _taken(_BALANCE, parts, end, one.divider, found) if one.balance_is_last else None
    end = end if left is None else left
    for pattern in reversed(one.ends):
        left = _taken(pattern, parts, end, one.divider, found)
        if left is None:
            return None
        end = left
    if one.divider == "\n":
        if "balance" not in found and end and _taken(_BALANCE, parts, 1, one.divider, found) == 0:
            begin = 1
        if end - begin > 1:
            return None
    found["name"] = " ".join(printed[begin:end]).strip(_UNSEEN)
    return found if len(found["name"]) <= NAME_MAX else None


def _taken(pattern: re.Pattern[str], parts: Sequence[str], end: int, divider: str, found: dict[str, str]) -> int | None:
    """Adds to `found` what the last of the parts before `end` say, as few as fit; where these begin, or None."""
    for count in range(1, min(_WORDS_OF_A_PART[divider], end) + 1):
        fits = pattern.fullmatch(" ".join(parts[end - count : end]))
        if fits and ("kind" not in fits.groupdict() or _kind(fits["kind"])):
            found.update(fits.groupdict())
            return end - count
    return None


def _message(one: Format, found: dict[str, str], received_at: datetime) -> ReadMessage | None:
    kind, amount = _kind(found["kind"]), _won(found["amount"], most=AMOUNT_MAX)
    occurred_at = _instant(found, received_at)
    balance = found.get("balance")
    balance_after = None if balance is None else _won(balance.removeprefix("-"), most=BALANCE_MAX)
    if kind is None or not amount or occurred_at is None or (balance is not None and balance_after is None):
        return None
    return ReadMessage(
        bank_name=one.bank_name,
        kind=kind,
        amount=amount,
        depositor_name=found["name"],
        occurred_at=occurred_at,
        account=found["account"],
        balance_after=-balance_after if balance_after and balance and balance.startswith("-") else balance_after,
    )


def _won(text: str, *, most: int) -> int | None:
    """The number, with its commas where they belong or without any."""
    first, *groups = text.split(",")
    fits = len(first) in {1, 2, 3} and all(len(group) == 3 for group in groups) if groups else bool(first)
    number = "".join([first, *groups])
    if not fits or (number.startswith("0") and number != "0") or int(number) > most:
        return None
    return int(number)


def _kind(printed: str) -> MessageKind | None:
    """What a word such as 전자금융입금 or 입금취소 says."""
    word = printed.replace(" ", "")
    plain = word.removesuffix("(취소)").removesuffix("취소")
    before, came, went = plain[:-2], plain.endswith("입금"), plain.endswith("출금")
    if not (came or went) or any(one in before for one in _NOT_PLAIN):
        return None
    if plain == word:
        return MessageKind.DEPOSIT if came else MessageKind.WITHDRAWAL
    return MessageKind.DEPOSIT_CANCELLED if came else MessageKind.WITHDRAWAL_CANCELLED


def _instant(found: dict[str, str], received_at: datetime) -> datetime | None:
    """The printed minute in UTC: of the printed year, or of the latest in which it is not ahead of its arrival."""
    latest = received_at.astimezone(KOREA) + AHEAD
    years = [int(found["year"])] if "year" in found else [latest.year, latest.year - 1]
    month, day, hour, minute = (int(found[part]) for part in ("month", "day", "hour", "minute"))
    for year in years:
        try:
            instant = datetime(max(year, _YEAR_MIN), month, day, hour, minute, tzinfo=KOREA)
        except ValueError:
            continue  # the 29th of February of another year, or no time at all
        if year >= _YEAR_MIN and instant <= latest:
            return instant.astimezone(UTC)
    return None
