"""Which deposit a notification confirms by itself."""

import pytest

from service.ledger.bank_notifications import (
    BankNotification,
    BankNotificationStatus,
    Candidate,
    check_matchable,
    check_same_amount,
    fitting,
)
from service.ledger.depositor_names import PrintedName, printed
from service.ledger.errors import BankNotificationClosed, BankNotificationMatched, DepositAmountDiffers
from service.ledger.likeness import Likeness


def _candidate(
    deposit_id: int, status: str = "pending", user: str = "1", name: str = "주식회사가나다라마"
) -> Candidate:
    return Candidate(
        deposit_id=deposit_id,
        telegram_id=user,
        depositor_name=name,
        amount=1,
        status=status,
        created_at="2026-01-19T12:00:00Z",
        likeness=Likeness.SAME_NAME,
    )


WHOLE = printed("주식회사 가나다라마", field_width=14)
CUT = printed("주식회사가나다", field_width=14)
SHORT = printed("주식회사", field_width=14)


@pytest.mark.parametrize(
    ("line", "meant", "status", "confirmed"),
    [
        (WHOLE, [], "unmatched", None),
        (WHOLE, [_candidate(1)], "matched", 1),
        (WHOLE, [_candidate(1, "expired")], "unmatched", None),
        (WHOLE, [_candidate(1, "confirmed")], "unmatched", None),
        (WHOLE, [_candidate(1, "reversed")], "unmatched", None),
        (WHOLE, [_candidate(1, "cancelled")], "unmatched", None),
        # Another user's, in any state, is never guessed against.
        (WHOLE, [_candidate(1), _candidate(2, user="2")], "ambiguous", None),
        (WHOLE, [_candidate(1), _candidate(2, "expired", "2")], "ambiguous", None),
        (WHOLE, [_candidate(1), _candidate(2, "confirmed", "2")], "ambiguous", None),
        (WHOLE, [_candidate(1), _candidate(2, "reversed", "2")], "ambiguous", None),
        (WHOLE, [_candidate(1), _candidate(2, "cancelled", "2")], "ambiguous", None),
        (WHOLE, [_candidate(1), _candidate(2, user="2", name="주식회사 가나다라마바")], "ambiguous", None),
        (SHORT, [_candidate(1), _candidate(2, user="2")], "ambiguous", None),
        (SHORT, [_candidate(1, name="주식회사"), _candidate(2, user="2")], "ambiguous", None),
        # Of one user's own the oldest that waits is meant.
        (WHOLE, [_candidate(2), _candidate(1), _candidate(3)], "matched", 1),
        (WHOLE, [_candidate(2), _candidate(1, "cancelled")], "matched", 2),
        (WHOLE, [_candidate(2), _candidate(1, "expired")], "matched", 2),
        (WHOLE, [_candidate(1), _candidate(2, "confirmed")], "ambiguous", None),
        (WHOLE, [_candidate(1), _candidate(2, "reversed")], "ambiguous", None),
        (WHOLE, [_candidate(1, "confirmed"), _candidate(2, "confirmed")], "ambiguous", None),
        # A name that fills the bank's field may have been cut there; a shorter one was not.
        (CUT, [_candidate(1)], "matched", 1),
        (CUT, [_candidate(1, name="주식회사가나다"), _candidate(2, user="2")], "ambiguous", None),
        (CUT, [_candidate(2, name="주식회사가나다"), _candidate(1)], "matched", 1),
        (SHORT, [_candidate(1)], "unmatched", None),
        (SHORT, [_candidate(1), _candidate(2, name="주식회사")], "matched", 2),
    ],
)
def test_a_line_confirms_what_it_can_mean_of_one_user_alone(
    line: PrintedName, meant: list[Candidate], status: str, confirmed: int | None
) -> None:
    """Nothing is guessed, and what has expired or was confirmed by hand is left to people."""
    found, deposit = fitting(line, meant, others_open=False)
    assert found == BankNotificationStatus(status)
    assert (deposit.deposit_id if deposit else None) == confirmed


def test_a_line_beside_another_open_one_confirms_nothing_by_itself() -> None:
    """Which of two lines is the deposit's, only a person says; without a deposit there is nothing to ask."""
    for line in (WHOLE, CUT):
        assert fitting(line, [_candidate(1)], others_open=True) == (BankNotificationStatus.AMBIGUOUS, None)
    assert fitting(SHORT, [_candidate(1)], others_open=True) == (BankNotificationStatus.UNMATCHED, None)
    assert fitting(WHOLE, [], others_open=True) == (BankNotificationStatus.UNMATCHED, None)


def on_record(**changed: object) -> BankNotification:
    """A notification of 500 won on record."""
    empty = dict.fromkeys(BankNotification.__struct_fields__)
    told = {"id": 3, "status": BankNotificationStatus.UNMATCHED, "candidates": [], "amount": 500}
    return BankNotification(**{**empty, **told, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", [499, 500, 501])
def test_a_line_is_matched_with_its_own_amount_alone(amount: int) -> None:
    """One won less or more is another transfer; the refusal tells both amounts."""
    if amount == 500:
        check_same_amount(on_record(), 7, amount)
        return
    with pytest.raises(DepositAmountDiffers) as refused:
        check_same_amount(on_record(), 7, amount)
    assert refused.value.members == {"amount": amount, "received": 500}


@pytest.mark.parametrize("status", BankNotificationStatus)
@pytest.mark.parametrize("deposit_id", [None, 9])
def test_a_line_is_matched_once(status: BankNotificationStatus, deposit_id: int | None) -> None:
    """Whatever matched it; the refusal names the deposit. One that is closed is matched with none."""
    found = on_record(status=status, matched_deposit_id=deposit_id)
    if status in {BankNotificationStatus.DISMISSED, BankNotificationStatus.CANCELLED}:
        with pytest.raises(BankNotificationClosed) as closed:
            check_matchable(found)
        assert closed.value.members == {"current_status": status}
        return
    if status is not BankNotificationStatus.MATCHED:
        check_matchable(found)
        return
    with pytest.raises(BankNotificationMatched) as refused:
        check_matchable(found)
    assert refused.value.members == {"current_status": "matched", "deposit_id": deposit_id or 0}
