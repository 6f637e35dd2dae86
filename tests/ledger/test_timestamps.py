"""Instants as rows hold them and as the API speaks them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.timestamps import bound, duration, spoken, stored

INSTANTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(UTC))
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
