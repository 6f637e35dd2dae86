"""Bank notifications: what the bank says arrived, each matched with the one deposit that announced it.

unmatched | ambiguous -> matched | dismissed | cancelled. What is dismissed is opened again by a person, and what is
matched when its deposit is reversed. The bank alone cancels, for good.

A notification confirms a deposit by itself only when its printed name can mean one user alone (depositor_names.py): the
same amount, announced within the policy's window, still pending, and nothing else that the money could be for. What was
freed by a reversal never does so again. Everything else is listed for people to settle.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from service.ledger.bank_lines import BankFacts, spelled, trimmed
from service.ledger.depositor_names import Meaning, PrintedName, could_be_meant, match_name
from service.ledger.deposits import Deposit, check_cancellable
from service.ledger.errors import (
    BankAmountUncreditable,
    BankNotificationClosed,
    BankNotificationMatched,
    BankNotificationOpen,
    DepositAmountDiffers,
    DepositOfOtherUser,
    OccurredAhead,
)
from service.ledger.fields import (
    AMOUNT_MAX,
    BALANCE_MAX,
    BANK_ACCOUNT_PATTERN,
    BANK_TRANSACTION_ID_PATTERN,
    INSTANT_PATTERN,
    MESSAGE_PATTERN,
    PRINTED_NAME_PATTERN,
    TEXT_PATTERN,
    Amount,
    Instant,
    Note,
    OptionalNote,
    ResourceId,
    TelegramId,
    given,
)
from service.ledger.likeness import Likeness
from service.ledger.timestamps import parsed

AHEAD_MAX_S = 300
"""How far the bank's clock may be ahead of ours."""
NAMELESS = "(no name)"
"""The depositor_name of a deposit that is made for a notification without a name."""
CANDIDATES_MAX = 10
"""Most candidates that are listed for one notification."""
DEPOSITS_READ_MAX = 500
"""Most deposits of one amount that are read to find candidates; beyond them only likely names are looked for."""
NAMES_ASKED_MAX = 100
"""Of more names that a line could mean, it is not asked whether other lines print them: a person looks."""


class BankNotificationStatus(StrEnum):
    """unmatched: no deposit fits, or none that may be confirmed by itself; ambiguous: several do, or several
    notifications fit one; dismissed: a person says that the money is no top-up; cancelled: the bank took it back."""

    UNMATCHED = "unmatched"
    AMBIGUOUS = "ambiguous"
    MATCHED = "matched"
    DISMISSED = "dismissed"
    CANCELLED = "cancelled"


class MatchMethod(StrEnum):
    """automatic: exactly one deposit fitted; manual: a person said so."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"


BankTransactionId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=BANK_TRANSACTION_ID_PATTERN,
        description=(
            "The bank's own id of the transfer; it credits once, whatever the Idempotency-Key. Without it, one is"
            " derived from what the line says; derived ids begin with derived: and no others do."
        ),
        extra_json_schema={"not": {"pattern": "^derived:"}},
    ),
]
PrintedDepositorName = Annotated[
    str,
    Meta(
        max_length=50,
        pattern=PRINTED_NAME_PATTERN,
        description="The name as the bank printed it; padding is trimmed. Empty, null or left out: it printed none.",
    ),
]
BankAccount = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=40,
        pattern=BANK_ACCOUNT_PATTERN,
        description="The account that the money came to, as the bank prints it, mostly masked.",
    ),
]
BankBalance = Annotated[
    int,
    Meta(
        ge=-BALANCE_MAX,
        le=BALANCE_MAX,
        description="The account's balance after it, in won; may be negative.",
    ),
]
OccurredAt = Annotated[
    str,
    Meta(
        max_length=40,
        pattern=INSTANT_PATTERN,
        description="When the bank says that the money came, RFC 3339.",
        extra_json_schema={"format": "date-time"},
    ),
]
BankName = Annotated[str, Meta(min_length=1, max_length=50, pattern=TEXT_PATTERN, description="The bank, for people.")]
RawMessage = Annotated[
    str,
    Meta(min_length=1, max_length=2000, pattern=MESSAGE_PATTERN, description="The bank's message as it came."),
]


class BankNotificationPost(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Says what the bank said. Two posts without an id that say the same of one minute are one line, whose balance and
    account, where both say them, do not differ."""

    bank_transaction_id: BankTransactionId | UnsetType | None = UNSET
    depositor_name: PrintedDepositorName | UnsetType | None = UNSET
    amount: Amount
    occurred_at: OccurredAt
    bank_name: BankName | UnsetType | None = UNSET
    raw_message: RawMessage | UnsetType | None = UNSET
    account: BankAccount | UnsetType | None = UNSET
    balance_after: BankBalance | UnsetType | None = UNSET


class BankNotificationMatch(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Says which deposit the money is for, or which user's it is: deposit_id or telegram_id, and not both.

    `late` is needed, and only then, for a deposit that has expired. With telegram_id a deposit of what the bank
    received is made for the user, who must be there, and confirmed; cancel_deposit_id names a pending deposit of the
    user that it takes the place of. remember: the printed name counts as one of the user's names from now on.
    """

    deposit_id: ResourceId | UnsetType = UNSET
    telegram_id: TelegramId | UnsetType = UNSET
    cancel_deposit_id: ResourceId | UnsetType = UNSET
    late: bool | UnsetType = UNSET
    remember: bool | UnsetType = UNSET
    note: OptionalNote = UNSET


class BankNotificationDismiss(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Says that the money is no top-up. `note` says what it is."""

    note: Note


class BankNotificationReopen(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Says that a dismissal was wrong."""

    note: OptionalNote = UNSET


class BankNotificationChanged(Struct, frozen=True, kw_only=True):
    """Answer to a dismissal or its undoing: the id of the event that is on record, and the status from now on."""

    id: int
    status: BankNotificationStatus
    event_id: int
    audit_log_id: int


class Candidate(Struct, frozen=True, kw_only=True):
    """A deposit that the money may be for; amount in won. depositor_name is as the user announced it.

    status: pending; expired (match it with "late": true); confirmed without a notification (matching it moves nothing
    and only records that this is its money), or reversed after that. created_at is null where the bot recorded none.
    """

    deposit_id: int
    telegram_id: str
    depositor_name: str
    amount: int
    status: str
    created_at: Instant | None
    likeness: Likeness


class Candidates(Struct, frozen=True):
    """Those that are listed, how many are not, and whether these were all counted."""

    listed: list[Candidate]
    more: int
    counted: bool


class BankNotification(Struct, frozen=True, kw_only=True):
    """A row of bank_notifications as the API shows it; `amount` in won. created_at is when it came to Passbook.

    bank_transaction_id is null in rows that the bot wrote, in which other members may be null too; bank_name, account,
    bank_balance_after (the bank account's, in won) and raw_message when the caller gave none; depositor_name, which is
    empty where the bank printed none, and raw_message once they were erased; matched_deposit_id
    until it is matched; match_method, matched_by (the name of the API key) and matched_at until then, and in rows that
    the bot matched. `candidates` has ten at most, the likeliest first and then the oldest, and none once it is matched.
    more_candidates: how many are not listed; more_candidates_counted: false when there may be more than that.
    to_do: what a person has to do about a line that the bank took back after it was credited; null where nothing is.
    balance_gap: no earlier line of the account has the balance that this one began with: one is missing.
    """

    id: int
    bank_transaction_id: str | None
    depositor_name: str | None
    amount: int
    occurred_at: Instant | None
    bank_name: str | None
    raw_message: str | None
    status: BankNotificationStatus
    matched_deposit_id: int | None
    match_method: MatchMethod | None
    matched_by: str | None
    matched_at: Instant | None
    created_at: Instant | None
    candidates: list[Candidate]
    more_candidates: int
    more_candidates_counted: bool
    account: str | None
    bank_balance_after: int | None
    balance_gap: bool
    to_do: str | None


class BankNotificationWritten(BankNotification, frozen=True, kw_only=True):
    """Answer to every change of a notification: it, and the user's balance (won) before and after the change.

    The user and the user's balances are null until it is matched; audit_log_id is null when the line was on record
    already and nothing was added; learned_name_id unless the printed name was learned now. repeat: the line was on
    record already, and nothing was credited.
    """

    telegram_id: str | None
    balance_before: int | None
    balance_after: int | None
    version: int | None
    audit_log_id: int | None
    learned_name_id: int | None
    repeat: bool


class BankNotificationFilter(Struct, frozen=True, kw_only=True):
    """All given conditions hold together. Of when the money came, `since` is inclusive and `until` exclusive: both are
    stored UTC text. open: whether a person has to settle it.

    telegram_id: what is matched with a deposit of the user, and what waits and could mean one whose money may still
    come.
    """

    status: str | None = None
    open: bool | None = None
    telegram_id: str | None = None
    amount: int | None = None
    since: str | None = None
    until: str | None = None


class BankNotificationPage(Struct, frozen=True, kw_only=True):
    """Newest first, or of the queue oldest first. `next_cursor` is null on the last page; a page before it may be
    short, or empty."""

    items: list[BankNotification]
    next_cursor: str | None


def facts_of(command: BankNotificationPost) -> BankFacts:
    """What a caller says of a transfer, as it is kept."""
    own = given(command.bank_transaction_id)
    return BankFacts(
        bank_transaction_id=None if own is None else spelled(own),
        depositor_name=trimmed(given(command.depositor_name) or ""),
        amount=command.amount,
        occurred_at=command.occurred_at,
        bank_name=given(command.bank_name),
        raw_message=given(command.raw_message),
        account=given(command.account),
        balance_after=given(command.balance_after),
    )


def facts_on_record(line: BankNotification) -> BankFacts:
    """What a line on record says of its transfer."""
    return BankFacts(
        bank_transaction_id=line.bank_transaction_id,
        depositor_name=line.depositor_name or "",
        amount=line.amount,
        occurred_at=line.occurred_at or line.created_at or "",
        account=line.account,
        balance_after=line.bank_balance_after,
    )


def reverse_deposit(deposit_id: int) -> str:
    """What a person has to do about a deposit whose money the bank took back."""
    return f"The bank took this money back: reverse deposit {deposit_id}."


def fitting(
    line: PrintedName,
    meant: Sequence[Candidate],
    *,
    others_open: bool,
    in_time: Collection[int] = (),
    learned_of: Sequence[str] = (),
) -> tuple[BankNotificationStatus, Candidate | None]:
    """What a notification becomes that could mean these deposits, in any order, and the one that it confirms by itself.

    Two users are never guessed between, nor two notifications for one deposit (`others_open`: another one for it is not
    matched yet, or the money may have been for a deposit whose name was erased). Of one user's own the oldest pending
    one is meant, unless another was confirmed without a notification: the money may be that one's. One that has expired
    counts as pending where it is among `in_time`: the money came while it was open. Late money, and a name that is
    neither whole nor cut by the bank's field, are left to a person.

    learned_of: the users of whom the printed name was learned. It is the name of one of them alone, or of none.
    """
    named = [
        one
        for one in sorted(meant, key=lambda candidate: candidate.deposit_id)
        if one.status != "cancelled"
        and (
            could_be_meant(line, match_name(one.depositor_name)) in {Meaning.WHOLE, Meaning.CUT}
            or tuple(learned_of) == (one.telegram_id,)
        )
    ]
    pending = [one for one in named if one.status == "pending" or one.deposit_id in in_time]
    settled = [one for one in meant if one.status not in {"pending", "expired", "cancelled"}]
    several_users = len({one.telegram_id for one in meant}) > 1
    if several_users or len(settled) + bool(pending) > 1 or (named and others_open):
        return BankNotificationStatus.AMBIGUOUS, None
    if pending:
        return BankNotificationStatus.MATCHED, pending[0]
    return BankNotificationStatus.UNMATCHED, None


def check_not_ahead(occurred_at: str, now: datetime) -> None:
    """Returns when the money came at most AHEAD_MAX_S after `now`: clocks differ. Raises OccurredAhead."""
    ahead = parsed(occurred_at) - now
    if ahead > timedelta(seconds=AHEAD_MAX_S):
        raise OccurredAhead(
            f"occurred_at is {ahead // timedelta(seconds=1)} s ahead of the clock here; {AHEAD_MAX_S} s are allowed. A"
            " time of Korea (KST) is written with +09:00: with Z it is nine hours ahead.",
            ahead_s=ahead // timedelta(seconds=1),
        )


def check_matchable(notification: BankNotification) -> None:
    """Returns when `notification` is open. Raises BankNotificationMatched, BankNotificationClosed."""
    if notification.status in {BankNotificationStatus.DISMISSED, BankNotificationStatus.CANCELLED}:
        raise BankNotificationClosed(
            f"Bank notification {notification.id} is {notification.status}.", current_status=notification.status
        )
    if notification.status is BankNotificationStatus.MATCHED:
        raise BankNotificationMatched(
            f"Bank notification {notification.id} is matched with deposit {notification.matched_deposit_id}.",
            current_status=notification.status,
            deposit_id=notification.matched_deposit_id or 0,
        )


def check_dismissed(notification: BankNotification) -> None:
    """Returns when `notification` is dismissed. Raises BankNotificationMatched, BankNotificationClosed,
    BankNotificationOpen."""
    if notification.status is BankNotificationStatus.DISMISSED:
        return
    check_matchable(notification)
    raise BankNotificationOpen(
        f"Bank notification {notification.id} is {notification.status}: nobody dismissed it.",
        current_status=notification.status,
    )


def check_creditable_amount(notification: BankNotification) -> None:
    """Returns when the money can be a deposit. Raises BankAmountUncreditable: the bot took any number."""
    if not 1 <= notification.amount <= AMOUNT_MAX:
        raise BankAmountUncreditable(
            f"The bank notification is of {notification.amount} won; a deposit is of 1 to {AMOUNT_MAX}.",
            received=notification.amount,
        )


def check_cancellable_for(telegram_id: str, deposit: Deposit) -> None:
    """Returns when the pending `deposit` is the user's. Raises DepositOfOtherUser, DepositNotPending."""
    if deposit.telegram_id != telegram_id:
        raise DepositOfOtherUser(f"Deposit {deposit.id} is not of user {telegram_id}.")
    check_cancellable(deposit.id, deposit.status)


def check_same_amount(notification: BankNotification, deposit_id: int, amount: int) -> None:
    """Returns when the deposit of `amount` won is what the bank received. Raises DepositAmountDiffers."""
    if notification.amount != amount:
        raise DepositAmountDiffers(
            f"The bank received {notification.amount} won; deposit {deposit_id} is of {amount} won.",
            amount=amount,
            received=notification.amount,
        )
