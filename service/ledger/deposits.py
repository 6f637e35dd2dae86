"""Deposits: announced by the user, confirmed when the money is there.

pending -> confirmed | cancelled | expired; an expired one is confirmed only as late money, explicitly.
"""

from msgspec import UNSET, Struct, UnsetType

from service.ledger.errors import DepositExpired, DepositNotPending
from service.ledger.fields import Amount, DepositorName, Instant, OptionalNote, TelegramId
from service.ledger.transactions import TransactionStatus


class DepositAnnounce(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Says that a bank transfer is on its way."""

    telegram_id: TelegramId
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

    depositor_name and created_at are null only in rows that the bot wrote without them.
    """

    id: int
    telegram_id: str
    amount: int
    depositor_name: str | None
    status: str
    created_at: Instant | None
    confirmed_at: Instant | None


class DepositWritten(Deposit, frozen=True, kw_only=True):
    """Answer to every change of a deposit: the deposit, and the user's balance (won) before and after the change."""

    balance_before: int
    balance_after: int
    version: int
    audit_log_id: int


class DepositPage(Struct, frozen=True, kw_only=True):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Deposit]
    next_cursor: str | None


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
