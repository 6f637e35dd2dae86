"""Two spellings of an instant: UTC text as SQLite's date functions read it, and RFC 3339 as the API speaks it.

Stored: ``2026-01-19 12:00:00.123`` (or without the fraction, in rows from CURRENT_TIMESTAMP). Such texts compare in
the order of time. Spoken: ``2026-01-19T12:00:00.123Z``.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Clock = Callable[[], datetime]
"""Returns the present instant with a time zone; the only source of time, so that tests can set it."""

Elapsed = Callable[[], float]
"""Returns seconds since some moment, from a clock that runs evenly and that nobody sets."""

_DURATION = re.compile(
    r"P(?:(?P<days>\d{1,3})D)?(?:T(?:(?P<hours>\d{1,4})H)?(?:(?P<minutes>\d{1,5})M)?(?:(?P<seconds>\d{1,7})S)?)?",
    re.ASCII,
)

_OLD_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[ Tt](\d\d:\d\d(?::\d\d)?)(?:(?<=:\d\d:\d\d)[.,](\d{1,12}))? ?([Zz]|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def system_clock() -> datetime:
    """The operating system's clock, in UTC."""
    return datetime.now(UTC)


class SteadyClock:
    """`wall`, but never ahead of the time that has really gone by: for deciding that a row has waited long enough.

    No row that was written since this clock was made looks older by it than it is, up to `window_s`. A wall clock that
    jumps ahead makes nothing old, and one that was behind makes nothing old when it comes back. A change that comes and
    goes between two calls is not seen. The price is lateness: a wall clock that jumped ahead is believed again after at
    most twice `window_s`, or after a restart.

    wall - elapsed is constant but for jumps. This clock starts from its least value within the window, kept as two
    values: that of the part of `window_s` that runs, and that of the part before.
    """

    def __init__(self, wall: Clock, elapsed: Elapsed, *, window_s: float) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._window_s = window_s
        self._part_began = elapsed()
        self._least = self._least_before = wall() - timedelta(seconds=self._part_began)

    def __call__(self) -> datetime:
        elapsed = self._elapsed()
        start = self._wall() - timedelta(seconds=elapsed)
        if elapsed - self._part_began >= self._window_s:
            self._least_before, self._least, self._part_began = self._least, start, elapsed
        self._least = min(self._least, start)
        return min(self._least, self._least_before) + timedelta(seconds=elapsed)


def stored(instant: datetime) -> str:
    """The text of an aware `instant` as rows hold it: UTC with milliseconds."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")


def spoken(text: str) -> str:
    """RFC 3339 with Z for a stored `text`; any other value is returned as text, so that no old row is unreadable.

    SQLite keeps what a program gave it: a column of times may hold a number.
    """
    text = str(text)
    if len(text) >= 19 and text[10] == " " and "+" not in text:
        return f"{text[:10]}T{text[11:]}Z"
    return text


def restored(value: object) -> tuple[str, bool]:
    """The stored spelling of an old row's time, and whether it is the same instant to the last digit.

    It reads ISO 8601 with T or a space, with or without an offset (UTC without one), and a bare date. It also reads a
    number of seconds (1973 to 2286) or milliseconds (the same years) since 1970. Raises ValueError for everything else.
    """
    if isinstance(value, str):
        return _restored_text(value.strip())
    if isinstance(value, int | float):
        for low, milliseconds in ((10**8, 1000), (10**11, 1)):
            if low <= value < low * 100:
                count = round(value * milliseconds)
                return _shortest(_EPOCH + timedelta(milliseconds=count)), True
    raise ValueError("not a time")


def _restored_text(text: str) -> tuple[str, bool]:
    found = _OLD_TIME.fullmatch(text)
    if not found:
        raise ValueError("not a time")
    day, time_of_day, fraction, offset = found.groups()
    try:
        instant = datetime.fromisoformat(f"{day}T{time_of_day or '00:00'}{(offset or 'Z').upper()}").astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the instant is out of range") from error
    digits = (fraction or "").ljust(3, "0")
    same = not digits[3:].strip("0")
    return _shortest(instant + timedelta(milliseconds=int(digits[:3]))), same


def _shortest(instant: datetime) -> str:
    text = stored(instant)
    return text.removesuffix(".000")


def parsed(text: str) -> datetime:
    """The instant of an RFC 3339 `text`, in UTC. Raises ValueError when it is none of the years 1 to 9999."""
    try:
        return datetime.fromisoformat(text.upper().replace("Z", "+00:00")).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the instant is out of range") from error


def bound(text: str) -> str:
    """The stored spelling of an RFC 3339 `text`, for comparison with stored rows.

    Trailing zeros of the fraction are dropped: a row without a fraction must equal a bound at .000.
    Raises ValueError when `text` is no instant of the years 1 to 9999.
    """
    return _without_zeros(parsed(text).replace(tzinfo=None))


@lru_cache(maxsize=16)  # all operations of a batch ask for the same one
def around(text: str, seconds: int) -> tuple[str, str]:
    """The stored spellings of the instants `seconds` before and after a stored `text`; clamped to the years 1 to 9999.

    Rows spell an instant with any number of digits, and a shorter text sorts first. So the instant before is spelled as
    short as possible, and the one after in full: a row exactly there lies between them. Raises ValueError when `text`
    is no instant.
    """
    instant = datetime.fromisoformat(text).replace(tzinfo=None)
    try:
        before = instant - timedelta(seconds=seconds)
    except OverflowError:
        before = datetime.min
    try:
        after = instant + timedelta(seconds=seconds)
    except OverflowError:
        after = datetime.max
    return _without_zeros(before), after.isoformat(sep=" ", timespec="microseconds")


def zone(name: str) -> ZoneInfo:
    """The time zone of that IANA name. Raises ValueError when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: a folder of zones, such as Asia
        raise ValueError("not a time zone") from error


def day_began(day: date, at: ZoneInfo) -> str:
    """The shortest stored text of the instant at which `day` begins in that zone; clamped to the years 1 to 9999.

    Where the clocks go ahead at midnight it begins when they do; where 00:00 comes twice, with the first.
    """
    try:
        return _without_zeros(datetime.combine(day, time.min, at).astimezone(UTC).replace(tzinfo=None))
    except OverflowError:
        return _without_zeros(datetime.min)


def day_ended(day: date, at: ZoneInfo) -> str:
    """The same for the day after; of the last day that there is, the last instant."""
    return _without_zeros(datetime.max) if day == date.max else day_began(day + timedelta(days=1), at)


def _without_zeros(instant: datetime) -> str:
    """The shortest stored text of an `instant` of UTC that has lost its time zone."""
    text = instant.isoformat(sep=" ")
    return text.rstrip("0") if instant.microsecond else text


def duration(text: str) -> timedelta:
    """The length of an ISO 8601 duration of days, hours, minutes and seconds, such as PT1H. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    given = {unit: int(number) for unit, number in found.groupdict().items() if number} if found else {}
    if not given:
        raise ValueError("not an ISO 8601 duration such as PT1H")
    return timedelta(**given)
