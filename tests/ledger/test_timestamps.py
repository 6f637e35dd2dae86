"""Instants as rows hold them and as the API speaks them."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.timestamps import (
    SteadyClock,
    around,
    bound,
    day_began,
    day_ended,
    duration,
    spoken,
    stored,
    zone,
)

INSTANTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(UTC))
Spelling = Callable[[datetime], str]
OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(INSTANTS, INSTANTS)
def test_stored_texts_compare_in_the_order_of_time(one: datetime, other: datetime) -> None:
    """To the millisecond, which is what is kept."""
    cut = [moment.replace(microsecond=moment.microsecond // 1000 * 1000) for moment in (one, other)]
    assert (stored(one) < stored(other)) == (cut[0] < cut[1])


@given(INSTANTS, OFFSETS, INSTANTS)
def test_a_bound_compares_with_rows_as_the_instants_do(asked: datetime, offset: timezone, row: datetime) -> None:
    """In whatever offset it is asked for, and however fine."""
    text = bound(asked.astimezone(offset).isoformat())
    kept = row.replace(microsecond=row.microsecond // 1000 * 1000)
    assert (stored(row) >= text) == (kept >= asked)
    assert (stored(row) < text) == (kept < asked)


@given(INSTANTS, st.integers(1, 10**9), INSTANTS)
def test_a_row_lies_around_an_instant_as_the_instants_do(middle: datetime, seconds: int, row: datetime) -> None:
    """To the millisecond, and the calendar's ends cut the window instead of failing."""
    since, until = around(stored(middle), seconds)
    distance = abs(stored_again(row) - stored_again(middle))
    assert (since <= stored(row) <= until) == (distance <= timedelta(seconds=seconds))


@given(INSTANTS, st.integers(1, 10**6))
def test_the_window_has_both_its_ends_however_a_row_is_spelled(middle: datetime, seconds: int) -> None:
    """A line is kept without trailing zeros, a deposit with milliseconds: exactly a window apart is within it."""
    since, until = around(stored(middle), seconds)
    for edge in (timedelta(seconds=seconds), timedelta(seconds=-seconds)):
        try:
            moment = stored_again(middle) + edge
        except OverflowError:
            continue
        for row in (stored(moment), bound(moment.isoformat())):
            assert since <= row <= until


def stored_again(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@given(INSTANTS, st.integers(0, 86_400), st.sampled_from([stored, lambda instant: bound(instant.isoformat())]))
def test_what_lies_exactly_at_an_edge_lies_between(instant: datetime, seconds: int, spelled: Spelling) -> None:
    """However the row at the edge is spelled: with milliseconds, as ours are, or without trailing zeros."""
    instant = instant.replace(microsecond=instant.microsecond // 1000 * 1000)
    since, until = around(spelled(instant), seconds)
    length, moment = timedelta(seconds=seconds), timedelta(milliseconds=1)
    for row in (spelled(instant - length), spelled(instant + length)):
        assert since <= row <= until
    assert spelled(instant - length - moment) < since
    assert spelled(instant + length + moment) > until


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("2026-01-19T12:00:00Z", "2026-01-19 12:00:00"),
        ("2026-01-19t12:00:00z", "2026-01-19 12:00:00"),
        ("2026-01-19T21:00:00+09:00", "2026-01-19 12:00:00"),
        ("2026-01-19T12:00:00.000Z", "2026-01-19 12:00:00"),
        ("2026-01-19T12:00:00.120Z", "2026-01-19 12:00:00.12"),
        ("2026-01-19T12:00:00.000001Z", "2026-01-19 12:00:00.000001"),
        ("2026-01-19T12:00:00-00:00", "2026-01-19 12:00:00"),
    ],
)
def test_bounds_are_kept_without_trailing_zeros(text: str, kept: str) -> None:
    """A row of CURRENT_TIMESTAMP has no fraction and must equal a bound at .000."""
    assert bound(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "now",
        "",
    ],
)
def test_what_is_no_instant_is_a_value_error(text: str) -> None:
    """Never an OverflowError, which nobody would catch."""
    with pytest.raises(ValueError):  # noqa: PT011  the message is not part of the contract
        bound(text)


def test_old_rows_are_spoken_and_strange_ones_left_alone() -> None:
    """Texts of CURRENT_TIMESTAMP and ours get their T and Z; nothing makes a row unreadable."""
    assert spoken("2026-01-19 12:00:00") == "2026-01-19T12:00:00Z"
    assert spoken("2026-01-19 12:00:00.123") == "2026-01-19T12:00:00.123Z"
    for strange in ("", "yesterday", "2026-01-19", "2026-01-19 12:00:00+09:00", "2026-01-19T12:00:00Z"):
        assert spoken(strange) == strange
    for number in (1768800000000, 1768800000.5):
        assert spoken(number) == str(number)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("PT1H", timedelta(hours=1)),
        ("P1D", timedelta(days=1)),
        ("P1DT2H3M4S", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        ("PT90M", timedelta(minutes=90)),
        ("PT0S", timedelta()),
    ],
)
def test_durations_are_read(text: str, length: timedelta) -> None:
    """Days, hours, minutes and seconds; years and months have no fixed length."""
    assert duration(text) == length


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "P1Y", "P1M", "-PT1H", "pt1h", "PT1H\n", "PT١H", "1H", "PT1.5H", "P1000D"]
)
def test_other_durations_are_refused(text: str) -> None:
    """ValueError, whatever else ISO 8601 knows."""
    with pytest.raises(ValueError, match="ISO 8601"):
        duration(text)


class _Clocks:
    """A wall clock that can be set and a clock of the time that goes by."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 19, 12, tzinfo=UTC)
        self.ran = 5000.0
        self.steady = SteadyClock(lambda: self.now, lambda: self.ran, window_s=100)

    def goes_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.ran += seconds


def test_steady_clock_is_the_wall_clock_while_nobody_sets_it() -> None:
    """To the microsecond, however long it runs."""
    clocks = _Clocks()
    for seconds in (0, 1, 0.25, 99, 1, 250, 10_000):
        clocks.goes_by(seconds)
        assert clocks.steady() == clocks.now


def test_steady_clock_believes_a_jump_ahead_after_two_windows_at_most() -> None:
    """Until then it goes on as if nobody had set the other; it never stands still for ever."""
    clocks = _Clocks()
    right = clocks.now
    clocks.now += timedelta(days=20_000)
    for seconds in range(201):
        if seconds <= 100:
            assert clocks.steady() == right + timedelta(seconds=seconds)
        caught_up = clocks.steady() == clocks.now
        clocks.goes_by(1)
    assert caught_up


@pytest.mark.parametrize("short", [0.001, 0])
def test_steady_clock_begins_another_part_at_the_very_end_of_its_window(short: float) -> None:
    """A jump ahead is believed two windows after it, and not a millisecond before."""
    clocks = _Clocks()
    right = clocks.now
    clocks.goes_by(100)
    clocks.now += timedelta(hours=1)
    clocks.steady()  # the part that ends here still has the old time in it
    clocks.goes_by(100 - short)
    found = clocks.steady()
    assert found == (right + timedelta(seconds=200 - short) if short else clocks.now)


def test_steady_clock_follows_a_jump_back_at_once() -> None:
    """It is never ahead of the wall clock."""
    clocks = _Clocks()
    clocks.now -= timedelta(days=3)
    assert clocks.steady() == clocks.now


@given(
    st.lists(
        st.tuples(st.floats(0, 80), st.sampled_from([0, 0, 0, 1, -1, 30, -30, 10**6, -(10**6)]), st.booleans()),
        max_size=60,
    )
)
def test_no_row_looks_older_by_the_steady_clock_than_it_is(steps: list[tuple[float, int, bool]]) -> None:
    """Whatever the wall clock does: of rows written by it, none looks 100 s old (the window) that is younger."""
    clocks = _Clocks()
    rows: list[tuple[datetime, float]] = []
    for seconds, jump, writes in steps:
        clocks.goes_by(seconds)
        clocks.now += timedelta(seconds=jump)
        now = clocks.steady()
        if writes:
            rows.append((clocks.now, clocks.ran))
        for written_at, ran in rows:
            if now - written_at >= timedelta(seconds=100):
                assert clocks.ran - ran >= 100 - 0.001


@pytest.mark.parametrize(
    ("day", "name", "began", "hours"),
    [
        ("2026-11-22", "Asia/Seoul", "2026-11-21 15:00:00", 24),
        ("2026-11-22", "UTC", "2026-11-22 00:00:00", 24),
        ("2026-03-29", "Europe/Berlin", "2026-03-28 23:00:00", 23),
        ("2026-10-25", "Europe/Berlin", "2026-10-24 22:00:00", 25),
        ("2026-03-08", "America/New_York", "2026-03-08 05:00:00", 23),
        ("2026-11-01", "America/New_York", "2026-11-01 04:00:00", 25),
        ("2026-10-04", "Australia/Lord_Howe", "2026-10-03 13:30:00", 23.5),
        ("2018-11-04", "America/Sao_Paulo", "2018-11-04 03:00:00", 23),  # 00:00 was left out
        ("2018-02-17", "America/Sao_Paulo", "2018-02-17 02:00:00", 25),  # 00:00 was put back to 23:00
        ("2020-11-01", "America/Havana", "2020-11-01 04:00:00", 25),  # 00:00 came twice
        ("2011-12-30", "Pacific/Apia", "2011-12-30 10:00:00", 0),  # the day was left out
        ("1988-05-08", "Asia/Seoul", "1988-05-07 15:00:00", 23),  # summer time, of the Olympic Games
        ("2026-01-19", "Asia/Kathmandu", "2026-01-18 18:15:00", 24),
    ],
)
def test_a_day_is_as_long_as_it_is_there(day: str, name: str, began: str, hours: float) -> None:
    """23 or 25 hours where the clocks are changed."""
    at, when = zone(name), date.fromisoformat(day)
    assert day_began(when, at) == began
    assert datetime.fromisoformat(day_ended(when, at)) - datetime.fromisoformat(began) == timedelta(hours=hours)


@given(st.dates(), st.sampled_from(["Asia/Seoul", "America/Sao_Paulo", "Africa/Cairo", "Pacific/Kiritimati", "UTC"]))
def test_days_follow_each_other_without_a_gap(day: date, name: str) -> None:
    """The end of one is the beginning of the next, at the ends of the calendar too."""
    began, ended = day_began(day, zone(name)), day_ended(day, zone(name))
    assert began <= ended
    if day < date.max:
        assert ended == day_began(day + timedelta(days=1), zone(name))


@pytest.mark.parametrize("name", ["", "Asia", "Nowhere/City", "../UTC", "/UTC", "asia/seoul\n", "UTC/.."])
def test_what_is_no_zone_is_refused(name: str) -> None:
    """A folder of zones is none, and no name leads out of them."""
    with pytest.raises(ValueError, match="not a time zone"):
        zone(name)


def test_zones_are_known_where_the_system_has_none() -> None:
    """A slim image has no zone data; the package brings its own."""
    code = "from service.ledger.timestamps import zone; print(zone('Asia/Seoul').key)"
    env = {**os.environ, "PYTHONTZPATH": ""}
    assert (
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout == b"Asia/Seoul\n"
    )
