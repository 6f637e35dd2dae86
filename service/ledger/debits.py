"""Debits: a service takes money from a balance, at once and whole, or not at all."""

from msgspec import UNSET, Struct

from service.ledger.fields import Amount, Instant, OptionalReference, Reason, TelegramId
from service.ledger.transactions import Direction


class DebitPost(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Takes `amount` won from the user's balance."""

    telegram_id: TelegramId
    amount: Amount
    reason: Reason
    reference: OptionalReference = UNSET


class DebitWritten(Struct, frozen=True, kw_only=True):
    """Answer to a debit: the transaction, and the user's balance (won) before and after it.

    `reference` is null when the caller gave none.
    """

    id: int
    telegram_id: str
    type: str
    direction: Direction
    amount: int
    reason: str
    reference: str | None
    status: str
    created_at: Instant
    confirmed_at: Instant
    balance_before: int
    balance_after: int
    version: int
    audit_log_id: int
