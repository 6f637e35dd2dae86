"""The passbook's lines: what moved, or is to move, a user's balance."""

from enum import StrEnum

from msgspec import UNSET, Struct, UnsetType

from service.ledger.errors import (
    BalanceLimitExceeded,
    InsufficientFunds,
    TransactionNotConfirmed,
    TransactionReversed,
)
from service.ledger.fields import BALANCE_MAX, Instant, OptionalNote
from service.ledger.users import Account


class Direction(StrEnum):
    """credit raises the balance, debit lowers it; amounts themselves are never negative."""

    CREDIT = "credit"
    DEBIT = "debit"


class TransactionStatus(StrEnum):
    """The states of a transaction. Rows taken over from the bot may hold other words.

    `rejected` is the bot's: a person looked at the deposit and refused it, so that it never counted.
    """

    PENDING = "pending"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    REVERSED = "reversed"


class TransactionReverse(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Takes a confirmed transaction back, whole.

    `goodwill` is needed, and only then, to give back what a registered domain name was paid with.
    """

    note: OptionalNote = UNSET
    goodwill: bool | UnsetType = UNSET


class Transaction(Struct, frozen=True, kw_only=True):
    """One row of deposit_transactions as the API shows it; amounts and balances in won.

    These are null: depositor_name, if it is not a deposit. reference, if the caller gave none. confirmed_at, until it
    is confirmed. reverses_id, if it is not a reversal. reversed_by_id, until it is reversed. balance_before,
    balance_after and version, until it is confirmed, and in rows that were confirmed before Passbook kept the account.
    depositor_name and description also once the user's personal data was erased.
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
    reverses_id: int | None
    reversed_by_id: int | None


class ReversalWritten(Struct, frozen=True, kw_only=True):
    """Answer to TransactionReverse: the reversal, and the user's balance (won) before and after it.

    freed_bank_notification_id: the bank notification whose money it was, which is open again; null where there is none.
    """

    id: int
    telegram_id: str
    type: str
    direction: Direction
    amount: int
    status: str
    created_at: Instant
    confirmed_at: Instant
    reverses_id: int
    balance_before: int
    balance_after: int
    version: int
    audit_log_id: int
    freed_bank_notification_id: int | None


class TransactionPage(Struct, frozen=True, kw_only=True):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Transaction]
    next_cursor: str | None


def check_reversible(transaction: Transaction) -> None:
    """Returns when `transaction` may be taken back. Raises TransactionReversed, TransactionNotConfirmed."""
    if transaction.reversed_by_id is not None:
        raise TransactionReversed(
            f"Transaction {transaction.id} was reversed by transaction {transaction.reversed_by_id}.",
            current_status=transaction.status,
            reversed_by_id=transaction.reversed_by_id,
        )
    if transaction.status != TransactionStatus.CONFIRMED or transaction.amount == 0:
        raise TransactionNotConfirmed(
            f"Transaction {transaction.id} is {transaction.status}; only what moved money can be reversed.",
            current_status=transaction.status,
        )


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
