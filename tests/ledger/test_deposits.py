"""A deposit's lifecycle."""

import pytest

from service.ledger.deposits import check_cancellable, check_confirmable
from service.ledger.errors import DepositExpired, DepositNotPending, Refusal
from service.ledger.transactions import TransactionStatus

STATES = list(TransactionStatus)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_only_pending_and_explicitly_late_deposits_are_confirmed(state: TransactionStatus, late: bool) -> None:
    """Every state with and without `late`; the refusal names the state."""
    if state is TransactionStatus.PENDING or (state is TransactionStatus.EXPIRED and late):
        check_confirmable(7, state, late=late)
        return
    expected = DepositExpired if state is TransactionStatus.EXPIRED else DepositNotPending
    with pytest.raises(Refusal) as refused:
        check_confirmable(7, state, late=late)
    assert type(refused.value) is expected
    assert refused.value.members == {"current_status": state}


@pytest.mark.parametrize("state", [*STATES, "a word of the bot"])
def test_only_pending_deposits_are_cancelled(state: str) -> None:
    """An expired one is over already."""
    if state == TransactionStatus.PENDING:
        check_cancellable(7, state)
        return
    with pytest.raises(DepositNotPending) as refused:
        check_cancellable(7, state)
    assert refused.value.members == {"current_status": state}
