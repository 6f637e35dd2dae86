"""The cursor of an explanation holds its moment whole."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.explanations import Cause, Place, Source, cursor_after, place_of, whole_milliseconds
from service.ledger.transactions import Direction


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
    after = place_of(cursor_after(place, cause(last, None)))
    assert (after.at, after.version, after.before_id, after.version_max) == (place.at, version, last, 0)
    assert at - after.at < timedelta(milliseconds=1)
    after = place_of(cursor_after(place, cause(5, last)))
    assert (after.at, after.version, after.version_max) == (place.at, version, min(version or 0, last - 1))


@pytest.mark.parametrize("digits", range(1, 15))
def test_every_number_of_14_digits_is_an_instant(digits: int) -> None:
    """So no cursor of the right form is refused by the calendar."""
    assert place_of(f"{'9' * digits}-1-v1").at.tzinfo is UTC
