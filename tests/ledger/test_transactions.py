"""What a movement makes of a balance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.errors import (
    BalanceLimitExceeded,
    InsufficientFunds,
    Refusal,
    TransactionNotConfirmed,
    TransactionReversed,
)
from service.ledger.fields import AMOUNT_MAX, BALANCE_MAX
from service.ledger.transactions import (
    Direction,
    Transaction,
    TransactionStatus,
    balance_after_credit,
    balance_after_debit,
    check_reversible,
)
from service.ledger.users import Account

BALANCES = st.integers(0, BALANCE_MAX)
AMOUNTS = st.integers(1, AMOUNT_MAX)


def account(balance: int) -> Account:
    """Somebody with `balance` won."""
    return Account(1, "1", None, "2026-01-19 12:00:00", balance, 0)


@given(BALANCES, AMOUNTS)
def test_a_debit_never_leaves_less_than_nothing(balance: int, amount: int) -> None:
    """Either the exact difference, or a refusal whose facts add up."""
    try:
        assert balance_after_debit(account(balance), amount) == balance - amount >= 0
    except InsufficientFunds as refused:
        facts = refused.members
        assert (facts["balance"], facts["required"]) == (balance, amount)
        assert facts["shortfall"] == amount - balance > 0


@given(BALANCES, AMOUNTS)
def test_a_credit_never_passes_the_limit(balance: int, amount: int) -> None:
    """Either the exact sum, or a refusal."""
    try:
        assert balance_after_credit(account(balance), amount) == balance + amount <= BALANCE_MAX
    except BalanceLimitExceeded:
        assert balance + amount > BALANCE_MAX


def test_the_edges_themselves_are_allowed() -> None:
    """To 0 and to the limit; one won further is refused."""
    assert balance_after_debit(account(5), 5) == 0
    assert balance_after_credit(account(BALANCE_MAX - 5), 5) == BALANCE_MAX
    with pytest.raises(InsufficientFunds):
        balance_after_debit(account(5), 6)
    with pytest.raises(BalanceLimitExceeded):
        balance_after_credit(account(BALANCE_MAX - 5), 6)


@pytest.mark.parametrize("status", [*TransactionStatus, "a word of the bot"])
@pytest.mark.parametrize("amount", [0, 5])
@pytest.mark.parametrize("reversed_by", [None, 8])
def test_only_what_moved_money_and_was_not_taken_back_is_reversed(
    status: str, amount: int, reversed_by: int | None
) -> None:
    """A confirmed transaction of an amount, once; the refusal names the status, and what took it back."""
    empty = dict.fromkeys(Transaction.__struct_fields__)
    told = {"id": 7, "telegram_id": "1", "type": "deposit", "direction": Direction.CREDIT, "amount": amount}
    found = Transaction(**{**empty, **told, "status": status, "reversed_by_id": reversed_by})  # type: ignore[arg-type]
    if status == TransactionStatus.CONFIRMED and amount and reversed_by is None:
        check_reversible(found)
        return
    with pytest.raises(Refusal) as refused:
        check_reversible(found)
    members = {"current_status": status} | ({"reversed_by_id": reversed_by} if reversed_by else {})
    assert (type(refused.value), refused.value.members) == (
        TransactionReversed if reversed_by else TransactionNotConfirmed,
        members,
    )
