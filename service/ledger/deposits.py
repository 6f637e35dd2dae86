"""Deposits: announced by the user, confirmed when the money is there.

pending -> confirmed | cancelled | expired; an expired one is confirmed only as late money, explicitly.
"""

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, Struct, UnsetType

from service.ledger.errors import DepositExpired, DepositNotPending
from service.ledger.expiry import expires_at
from service.ledger.fields import AMOUNT_MAX, Amount, DepositorName, Instant, NewTelegramId, OptionalNote
from service.ledger.transactions import TransactionStatus

NEARBY_MAX = 100
"""How many other amounts are tried for a proposal."""


class DepositAnnounce(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Says that a bank transfer is on its way."""

    telegram_id: NewTelegramId
    amount: Amount
    depositor_name: DepositorName


class DepositConfirm(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Says that the money is there. `late` is needed, and only then, for a deposit that has expired."""

    note: OptionalNote = UNSET
    late: bool | UnsetType = UNSET


class DepositCancel(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Says that the transfer will not come."""

    note: OptionalNote = UNSET


class Deposit(Struct, frozen=True, kw_only=True):
    """A deposit as the API shows it; `amount` in won. confirmed_at is null until it is confirmed.

    depositor_name and created_at are null only in rows that the bot wrote without them, depositor_name also once it was
    erased; matched_bank_notification_id until the bank's notification of the money is matched with it. expires_at is
    null unless it is pending: the first sweep after it closes it. in_review: it is pending or expired, and a
    notification that could mean it waits for a person.
    """

    id: int
    telegram_id: str
    amount: int
    depositor_name: str | None
    status: str
    created_at: Instant | None
    confirmed_at: Instant | None
    matched_bank_notification_id: int | None
    expires_at: Instant | None
    in_review: bool


class DepositFilter(Struct, frozen=True, kw_only=True):
    """All given conditions hold together. Of when it was announced, `since` is inclusive and `until` exclusive: both
    are stored UTC text."""

    status: str | None = None
    telegram_id: str | None = None
    amount: int | None = None
    since: str | None = None
    until: str | None = None


class DepositWritten(Deposit, frozen=True, kw_only=True):
    """Answer to every change of a deposit: the deposit, and the user's balance (won) before and after the change."""

    balance_before: int
    balance_after: int
    version: int
    audit_log_id: int


class Collision(Struct, frozen=True, kw_only=True):
    """Says that the bank's notification of a transfer of this name and amount could mean another user's deposit too.

    Of names of which one begins the other, or that the bank cuts to the same, a printed name may mean either.

    suggested_amount: won; with it the transfer would be unambiguous; null when no amount nearby is.
    """

    detail: str
    suggested_amount: int | None


class DepositAnnounced(DepositWritten, frozen=True, kw_only=True):
    """Answer to DepositAnnounce. It is confirmed at once when exactly one notification was waiting for it.

    collision is null when the transfer can be told from all others.
    """

    collision: Collision | None


class DepositPage(Struct, frozen=True, kw_only=True):
    """Newest first. `next_cursor` is null on the last page; a page before it may be short, or empty."""

    items: list[Deposit]
    next_cursor: str | None


def is_open(deposit: Deposit) -> bool:
    """Whether its money may still come, in time or late."""
    return deposit.status in {TransactionStatus.PENDING, TransactionStatus.EXPIRED}


def as_it_stands(deposit: Deposit, *, expiry_s: int, in_review: bool) -> Deposit:
    """The deposit with when it expires, and with whether its notification waits for a person."""
    pending = deposit.status == TransactionStatus.PENDING
    return msgspec.structs.replace(
        deposit, expires_at=expires_at(deposit.created_at, expiry_s) if pending else None, in_review=in_review
    )


def nearby_amounts(amount: int) -> Iterator[int]:
    """Amounts in won to propose instead of `amount`: a few won more, or less where there is no more."""
    for distance in range(1, NEARBY_MAX + 1):
        if amount + distance <= AMOUNT_MAX:
            yield amount + distance
        elif amount - distance >= 1:
            yield amount - distance


def collision_of(amount: int, *, deposits: int, notifications: int, suggested_amount: int | None) -> Collision:
    """What to say of a transfer of `amount` won that would fit `deposits` others, or that `notifications` tell of."""
    count, noun = (deposits, "other deposit") if deposits else (notifications, "bank line")
    others = f"{count} {noun}{'s' if count > 1 else ''}"
    remedy = f"announce {suggested_amount} won instead" if suggested_amount else "have it confirmed by hand"
    return Collision(
        detail=f"This name and {amount} won also fit {others}, so that the transfer could not be told apart; {remedy}.",
        suggested_amount=suggested_amount,
    )


def check_confirmable(deposit_id: int, status: str, *, late: bool) -> None:
    """Returns when a deposit in `status` may be confirmed. Raises DepositExpired, DepositNotPending."""
    if status == TransactionStatus.EXPIRED and not late:
        raise DepositExpired(
            f'Deposit {deposit_id} has expired. Send "late": true to confirm the late money.', current_status=status
        )
    if status not in {TransactionStatus.PENDING, TransactionStatus.EXPIRED}:
        raise DepositNotPending(f"Deposit {deposit_id} is {status}, not pending.", current_status=status)


def check_cancellable(deposit_id: int, status: str) -> None:
    """Returns when a deposit in `status` may be cancelled. Raises DepositNotPending."""
    if status != TransactionStatus.PENDING:
        raise DepositNotPending(f"Deposit {deposit_id} is {status}, not pending.", current_status=status)
