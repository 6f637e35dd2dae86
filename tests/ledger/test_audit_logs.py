"""What a caller's event may hold, to the byte, the level and the digit."""

from typing import Any

import msgspec
import pytest

from service.ledger.audit_logs import DETAILS_BYTES_MAX, AuditLogPost, Invalid, check_is_callers, posted
from service.ledger.fields import BALANCE_MAX


def event(details: Any) -> AuditLogPost:
    """A caller's event."""
    return AuditLogPost(action="seen", details=details)


def nested(levels: int) -> Any:
    """Details of so many levels."""
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("beyond", [0, 1])
def test_details_are_bounded_to_the_byte(beyond: int) -> None:
    """By their JSON in UTF-8, where a Korean letter has three bytes."""
    details = {"text": "한" + "x" * (DETAILS_BYTES_MAX - len('{"text":""}') - 3 + beyond)}
    assert len(msgspec.json.encode(details)) == DETAILS_BYTES_MAX + beyond
    if not beyond:
        assert posted(event(details)).details == details
        return
    with pytest.raises(Invalid, match="must be at most 8192 bytes"):
        posted(event(details))


@pytest.mark.parametrize("levels", [16, 17])
def test_details_are_bounded_to_the_level(levels: int) -> None:
    """Sixteen are taken, seventeen are not."""
    if levels == 16:
        assert posted(event(nested(levels))).details == nested(levels)
        return
    with pytest.raises(Invalid, match="nested at most 16 levels"):
        posted(event(nested(levels)))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("number", [BALANCE_MAX + 1, float(2**60)])
def test_whole_numbers_beyond_what_readers_hold_are_refused(sign: int, number: float) -> None:
    """On both sides of 0, also when written with an exponent, however deep."""
    for details in ({"n": sign * number}, {"a": [{"n": sign * number}]}):
        with pytest.raises(Invalid, match="must hold whole numbers up to"):
            (posted if isinstance(number, int) else check_is_callers)(event(details))
    fits = {"n": sign * BALANCE_MAX, "half": sign * 0.5}
    check_is_callers(event(fits))
    assert posted(event(fits)).details == fits
