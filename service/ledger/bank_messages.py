"""Messages of a bank that are no deposit: what they are, and what is to be done about them.

Money that went changes nothing, and is kept. A cancellation takes the one notification back that it can mean, and waits
for a person where that is none or several. What nobody could read waits too. Nothing of it moves a balance.
"""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import UNSET, Struct, UnsetType

from service.ledger.bank_notifications import (
    BankAccount,
    BankBalance,
    BankName,
    BankNotificationPost,
    BankTransactionId,
    OccurredAt,
    PrintedDepositorName,
    RawMessage,
    reverse_deposit,
)
from service.ledger.errors import BankMessageSettled, BankMessageUnfit
from service.ledger.fields import Amount, Instant, Note, ResourceId

SAME_TEXT_DAYS = 7
"""A text that came so many days ago or less came again; later it is another message."""
CANCELLED_WITHIN_HOURS = 24
"""How long before its cancellation the money of a notification may have come."""


class BankMessageKind(StrEnum):
    """unreadable: nobody could read it. withdrawal: money went. The cancelled ones take an earlier message back."""

    UNREADABLE = "unreadable"
    WITHDRAWAL = "withdrawal"
    WITHDRAWAL_CANCELLED = "withdrawal_cancelled"
    DEPOSIT_CANCELLED = "deposit_cancelled"


class BankMessageStatus(StrEnum):
    """unreadable, waiting: a person has to look; kept: nothing is to be done; settled: a person said what it was."""

    UNREADABLE = "unreadable"
    WAITING = "waiting"
    KEPT = "kept"
    SETTLED = "settled"


class BankMessagePost(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Says what a bank wrote, as it came. bank_transaction_id is of a deposit; messages of other kinds need none."""

    raw_message: RawMessage
    bank_transaction_id: BankTransactionId | UnsetType | None = UNSET


class BankReport(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a watcher of a bank account has: a line that it read itself, or a message as it came.

    A line has amount and occurred_at, and what else the bank said. A message has raw_message, and beside it at most the
    bank_transaction_id of the deposit that it may tell of: Passbook reads the rest.
    """

    bank_transaction_id: BankTransactionId | UnsetType | None = UNSET
    depositor_name: PrintedDepositorName | UnsetType | None = UNSET
    amount: Amount | UnsetType = UNSET
    occurred_at: OccurredAt | UnsetType = UNSET
    bank_name: BankName | UnsetType | None = UNSET
    raw_message: RawMessage | UnsetType | None = UNSET
    account: BankAccount | UnsetType | None = UNSET
    balance_after: BankBalance | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if self._is_message():
            return
        for name in ("amount", "occurred_at"):
            if getattr(self, name) is UNSET:
                raise ValueError(f"Object missing required field `{name}`, unless raw_message stands alone")

    def _is_message(self) -> bool:
        others = {name: getattr(self, name) for name in self.__struct_fields__} | {"bank_transaction_id": UNSET}
        return isinstance(others.pop("raw_message"), str) and all(value is UNSET for value in others.values())

    def told(self) -> "BankNotificationPost | BankMessagePost":
        """The line, or the message."""
        said = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not UNSET}
        return BankMessagePost(**said) if self._is_message() else BankNotificationPost(**said)


class BankMessageSettle(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Says what a message was that waits for a person.

    bank_notification_id: the notification that it belongs to. One that a cancellation belongs to is cancelled.
    """

    note: Note
    bank_notification_id: ResourceId | UnsetType | None = UNSET


class BankMessage(Struct, frozen=True, kw_only=True):
    """A message as it came, and what was read; amounts in won. created_at is when it came to Passbook.

    What was read is null where the message did not say, and in one that nobody could read. depositor_name is empty
    where the bank printed none. bank_balance_after is the bank account's, and may be negative. raw_message,
    depositor_name and note are null once erased. bank_notification_id: the notification that it took back, or that a
    person named. note, settled_by (the name of the API key) and settled_at are null until it is settled.
    to_do: what a person has to do, null where nothing is.
    """

    id: int
    kind: BankMessageKind
    status: BankMessageStatus
    raw_message: str | None
    bank_name: str | None
    account: str | None
    depositor_name: str | None
    amount: int | None
    bank_balance_after: int | None
    occurred_at: Instant | None
    bank_notification_id: int | None
    note: str | None
    settled_by: str | None
    settled_at: Instant | None
    received_by: str
    created_at: Instant
    to_do: str | None


class BankMessageWritten(BankMessage, frozen=True, kw_only=True):
    """The message as it stands. repeat: the same text came within seven days before, and nothing changed.

    audit_log_id is null where nothing changed.
    """

    repeat: bool
    audit_log_id: int | None


class BankMessagePage(Struct, frozen=True, kw_only=True):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[BankMessage]
    next_cursor: str | None


class CancelledLine(Struct, frozen=True, kw_only=True):
    """A notification that a cancellation may mean. deposit_id: the deposit that it is matched with, if it is."""

    id: int
    amount: int
    deposit_id: int | None
    is_cancelled: bool
    is_erased: bool


def to_do(status: BankMessageStatus, kind: BankMessageKind, *, reverse: int | None) -> str | None:
    """What a person has to do about a message; `reverse`: the deposit whose money the bank took back."""
    if status is BankMessageStatus.UNREADABLE:
        return "Read it. Post a deposit in it as a notification with its amount; then settle it."
    if status is BankMessageStatus.WAITING:
        return "Find the notification that the bank took back, and settle this with its bank_notification_id."
    if kind is BankMessageKind.DEPOSIT_CANCELLED and reverse is not None:
        return reverse_deposit(reverse)
    return None


def taken_back(lines: Sequence[CancelledLine]) -> CancelledLine | None:
    """The notification that a cancellation means: the only one that it can mean."""
    return lines[0] if len(lines) == 1 else None


def check_can_be_settled(message: BankMessage) -> None:
    """Returns when the message waits for a person. Raises BankMessageSettled."""
    if message.status not in {BankMessageStatus.UNREADABLE, BankMessageStatus.WAITING}:
        raise BankMessageSettled(f"Bank message {message.id} is {message.status}.", current_status=message.status)


def check_fits(message: BankMessage, line: CancelledLine) -> None:
    """Returns when the message may be of that notification. Raises BankMessageUnfit.

    A cancellation takes back a notification of its amount, once. What belongs to an erased user would name that user.
    """
    if line.is_erased:
        raise BankMessageUnfit(
            f"The names of bank notification {line.id} were erased; this message would tell them again.",
            bank_notification_id=line.id,
        )
    if message.kind is not BankMessageKind.DEPOSIT_CANCELLED:
        return
    if line.amount != message.amount:
        raise BankMessageUnfit(
            f"Bank notification {line.id} is of {line.amount} won; {message.amount} won were taken back.",
            bank_notification_id=line.id,
        )
    if line.is_cancelled:
        raise BankMessageUnfit(f"The bank took bank notification {line.id} back already.", bank_notification_id=line.id)
