"""Two spellings of an instant: UTC text as SQLite's date functions read it, and RFC 3339 as the API speaks it.

Stored: ``2026-01-19 12:00:00.123`` (or without the fraction, in rows from CURRENT_TIMESTAMP). Such texts compare in
the order of time. Spoken: ``2026-01-19T12:00:00.123Z``.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Returns the present instant with a time zone; the only source of time, so that tests can set it."""

_DURATION = re.compile(
    r"P(?:(?P<days>\d{1,3})D)?(?:T(?:(?P<hours>\d{1,4})H)?(?:(?P<minutes>\d{1,5})M)?(?:(?P<seconds>\d{1,7})S)?)?",
    re.ASCII,
)


def system_clock() -> datetime:
    """The operating system's clock, in UTC."""
    return datetime.now(UTC)


def stored(instant: datetime) -> str:
    """The text of an aware `instant` as rows hold it: UTC with milliseconds."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")


def spoken(text: str) -> str:
    """RFC 3339 with Z for a stored `text`; any other text is returned as it is, so that no old row is unreadable."""
    if len(text) >= 19 and text[10] == " " and "+" not in text:
        return f"{text[:10]}T{text[11:]}Z"
    return text


def bound(text: str) -> str:
    """The stored spelling of an RFC 3339 `text`, for comparison with stored rows.

    Trailing zeros of the fraction are dropped: a row without a fraction must equal a bound at .000.
    Raises ValueError when `text` is no instant of the years 1 to 9999.
    """
    try:
        instant = datetime.fromisoformat(text.upper().replace("Z", "+00:00")).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the instant is out of range") from error
    seconds = instant.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
    return f"{seconds}.{instant.microsecond:06d}".rstrip("0").rstrip(".") if instant.microsecond else seconds


def duration(text: str) -> timedelta:
    """The length of an ISO 8601 duration of days, hours, minutes and seconds, such as PT1H. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    given = {unit: int(number) for unit, number in found.groupdict().items() if number} if found else {}
    if not given:
        raise ValueError("not an ISO 8601 duration such as PT1H")
    return timedelta(**given)
