"""The passbook's lines: what moved, or is to move, a user's balance."""

from enum import StrEnum

from msgspec import Struct

from service.ledger.errors import BalanceLimitExceeded, InsufficientFunds
from service.ledger.fields import BALANCE_MAX, Instant
from service.ledger.users import Account


class Direction(StrEnum):
    """credit raises the balance, debit lowers it; amounts themselves are never negative."""

    CREDIT = "credit"
    DEBIT = "debit"


class TransactionStatus(StrEnum):
    """The states that Passbook gives a transaction. Rows taken over from the bot may hold other words."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REVERSED = "reversed"


class Transaction(Struct, frozen=True, kw_only=True):
    """One row of deposit_transactions as the API shows it; amounts and balances in won.

    depositor_name is null for what is not a deposit, reference when the caller gave none, confirmed_at until the
    transaction is confirmed; balance_before, balance_after and version until then and in rows confirmed before
    Passbook kept the account.
    """

    id: int
    telegram_id: str
    type: str
    direction: Direction
    amount: int
    status: str
    depositor_name: str | None
    description: str | None
    reference: str | None
    created_at: Instant | None
    confirmed_at: Instant | None
    balance_before: int | None
    balance_after: int | None
    version: int | None


class TransactionPage(Struct, frozen=True, kw_only=True):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Transaction]
    next_cursor: str | None


def balance_after_credit(account: Account, amount: int) -> int:
    """The balance in won after `amount` comes in. Raises BalanceLimitExceeded."""
    if account.balance + amount > BALANCE_MAX:
        raise BalanceLimitExceeded(
            f"The balance would exceed {BALANCE_MAX} won.", balance=account.balance, amount=amount, limit=BALANCE_MAX
        )
    return account.balance + amount


def balance_after_debit(account: Account, amount: int) -> int:
    """The balance in won after `amount` goes out. Raises InsufficientFunds."""
    if account.balance < amount:
        raise InsufficientFunds(
            f"The balance of {account.balance} won does not cover {amount} won.",
            balance=account.balance,
            required=amount,
            shortfall=amount - account.balance,
        )
    return account.balance - amount
