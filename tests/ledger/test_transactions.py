"""What a movement makes of a balance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ledger.errors import BalanceLimitExceeded, InsufficientFunds
from service.ledger.fields import AMOUNT_MAX, BALANCE_MAX
from service.ledger.transactions import balance_after_credit, balance_after_debit
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
