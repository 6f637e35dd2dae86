"""The cursor of an explanation holds its moment whole."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.explanations import Cause, Place, Source, Summed, Sums, cursor_of, place_of, whole_milliseconds
from service.ledger.fields import EXPLANATION_CURSOR_PATTERN
from service.ledger.transactions import Direction

KEY = b"a key of this run"


def cause(transaction_id: int, version: int | None) -> Cause:
    """A cause of which only the place counts."""
    unknown = dict.fromkeys(
        (name for name in Cause.__struct_fields__ if name not in {"type", "amount", "effect"}), None
    )
    return Cause(
        **{
            **unknown,
            "transaction_id": transaction_id,
            "version": version,
            "source": Source.PASSBOOK,
            "type": "deposit",
            "direction": Direction.CREDIT,
            "amount": 1,
            "effect": 1,
        }
    )


@given(
    at=st.datetimes(max_value=datetime(3100, 1, 1), timezones=st.just(UTC)),
    version=st.none() | st.integers(0, 10**15 - 1),
    last=st.integers(1, 10**15 - 1),
)
def test_a_cursor_gives_back_the_moment_and_the_version(at: datetime, version: int | None, last: int) -> None:
    """To the millisecond, from the year 1 on; the page begins after the last cause."""
    place = Place(at=whole_milliseconds(at), version=version)
    after = place_of(cursor_of(place.after(cause(last, None)), "7", KEY), "7", KEY)
    assert (after.at, after.version, after.before_id, after.version_max) == (place.at, version, last, 0)
    assert at - after.at < timedelta(milliseconds=1)
    after = place_of(cursor_of(place.after(cause(5, last)), "7", KEY), "7", KEY)
    assert (after.at, after.version, after.version_max) == (place.at, version, min(version or 0, last - 1))


@pytest.mark.parametrize("digits", range(1, 15))
def test_every_number_of_14_digits_is_an_instant(digits: int) -> None:
    """So no cursor of the right form is refused by the calendar."""
    assert place_of(f"{'9' * digits}-1-v1", "7", KEY).at.tzinfo is UTC


SUMS = Sums(count=7, credits=10**19, debits=3, apart=1)


@pytest.mark.parametrize("version", [None, 0, 12])
def test_a_cursor_gives_back_what_was_summed(version: int | None) -> None:
    """On the first page too, before there is a last cause; and its form is the one that the edge lets pass."""
    summed = Summed(history=SUMS, row=9, history_end=4, history_is_whole=True, chain=SUMS, version=5, balance=-3)
    place = Place(at=datetime(2026, 1, 19, tzinfo=UTC), version=version, summed=summed)
    for one in (place, place.after(cause(3, None)), place.after(cause(3, 2))):
        cursor = cursor_of(one, "7", KEY)
        assert place_of(cursor, "7", KEY) == one
        assert re.search(EXPLANATION_CURSOR_PATTERN, cursor)
        assert len(cursor) <= 450


def test_sums_that_are_not_ours_are_passed_over() -> None:
    """Of another key, user, moment or version, changed or cut: the place holds, and everything is summed again."""
    place = Place(at=datetime(2026, 1, 19, tzinfo=UTC), version=12, summed=Summed(history=SUMS, history_is_whole=True))
    cursor = cursor_of(place, "7", KEY)
    at, version, position, sums = cursor.split("-", 3)
    flipped = ("B" if sums[0] != "B" else "C") + sums[1:]
    for text, telegram_id, key in (
        (cursor, "8", KEY),
        (cursor, "7", b"another"),
        (f"{at}-{version}-{position}", "7", KEY),
        (f"{at}-{version}-{position}-{sums[:20]}", "7", KEY),
        (f"{at}-{version}-{position}-{sums[:-4]}", "7", KEY),
        (f"{at}-{version}-{position}-{flipped}", "7", KEY),
        (f"{at}-{version}-{position}-x", "7", KEY),
        (f"{at}-11-{position}-{sums}", "7", KEY),
        (f"{int(at) + 1}-{version}-{position}-{sums}", "7", KEY),
    ):
        found = place_of(text, telegram_id, key)
        assert found.summed == Summed(), text
        assert found.before_version == place.before_version
