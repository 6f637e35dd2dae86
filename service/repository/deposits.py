"""Deposits: announce, confirm, cancel."""

import sys
from dataclasses import dataclass
from typing import Any

import msgspec

from service.ledger.audit_logs import BANK_NOTIFICATION, DEPOSIT_TRANSACTION, Details
from service.ledger.bank_notifications import (
    BankNotification,
    BankNotificationStatus,
    Candidate,
    MatchMethod,
    facts_on_record,
    fitting,
)
from service.ledger.depositor_names import AnnouncedName, announced, printed
from service.ledger.deposits import (
    Collision,
    Deposit,
    DepositAnnounce,
    DepositAnnounced,
    DepositCancel,
    DepositConfirm,
    DepositWritten,
    check_cancellable,
    check_confirmable,
    collision_of,
    nearby_amounts,
)
from service.ledger.errors import BalanceLimitExceeded, DepositNotFound, DepositNotPending
from service.ledger.expiry import expires_at
from service.ledger.fields import given
from service.ledger.idempotency import Answer
from service.ledger.likeness import Likeness
from service.ledger.timestamps import around, bound, spoken
from service.ledger.transactions import TransactionStatus, balance_after_credit
from service.ledger.users import Account
from service.repository.unit_of_work import Operation, UnitOfWork, created, ok
from service.repository.users import find_or_open
from service.storage import (
    bank_lines,
    bank_messages,
    bank_notification_events,
    bank_notifications,
    deposits,
    learned_names,
    reviews,
    users,
)


def _announce(work: UnitOfWork, command: DepositAnnounce, _target: int) -> Answer:
    name = announced(command.depositor_name, field_width=work.policy.bank_name_width)
    waiting, collision, in_review = _looked_for(work, command, name)
    account = find_or_open(work, command.telegram_id)
    deposit_id, audit_log_id = put_on_record(
        work, account, amount=command.amount, depositor_name=command.depositor_name, name=name
    )
    created_at = spoken(work.now)
    answer = DepositAnnounced(
        id=deposit_id,
        telegram_id=account.telegram_id,
        amount=command.amount,
        depositor_name=command.depositor_name,
        status=TransactionStatus.PENDING,
        created_at=created_at,
        confirmed_at=None,
        matched_bank_notification_id=None,
        expires_at=expires_at(created_at, work.policy.deposit_expiry_s),
        in_review=in_review,
        balance_before=account.balance,
        balance_after=account.balance,
        version=account.version,
        audit_log_id=audit_log_id,
        collision=collision,
    )
    if waiting is not None and has_room(account, command.amount):
        answer = _confirm_at_once(work, answer, account, waiting)
    return created(answer, f"/v1/deposits/{deposit_id}")


def _looked_for(
    work: UnitOfWork, command: DepositAnnounce, name: AnnouncedName
) -> tuple[int | None, Collision | None, bool]:
    """The one notification that waits for such a deposit, and what a transfer of this name and amount collides with;
    and whether a notification waits that could mean it.

    Neither is guessed: with another deposit that the money could be for, or two notifications, people settle it.
    """
    amount = command.amount
    since, until = around(work.now, work.policy.match_window_s)
    tx = work.session.looking_for(amount=amount, name=name)
    who: Any = {"since": since, "until": until, "telegram_id": command.telegram_id}
    if bank_notifications.is_quiet(tx, amount=amount, name=name, **who):
        return None, None, False
    names = [name, *(AnnouncedName(one, one) for one in learned_names.of_user(work.tx, command.telegram_id))]
    lines = _lines_of(work, names, amount=amount, since=since, until=until)
    in_review = bool(lines) or reviews.waits(work.tx, amount=amount, names=names, since=since, until=until)
    if len(lines) == 1 and _means_it_alone(work, lines[0], command):
        return lines[0].id, None, in_review
    width = work.policy.bank_name_width
    rivals = {
        rival
        for one in names
        for rival in bank_notifications.rivals(work.tx, amount=amount, name=one, field_width=width, **who)
    }
    if not rivals and not lines:
        return None, None, in_review
    suggested = next(
        (
            other
            for other in nearby_amounts(amount)
            if bank_notifications.is_quiet(work.tx, amount=other, name=name, **who)
        ),
        None,
    )
    collision = collision_of(amount, deposits=len(rivals), notifications=len(lines), suggested_amount=suggested)
    return None, collision, in_review


def _lines_of(
    work: UnitOfWork, names: list[AnnouncedName], *, amount: int, since: str, until: str
) -> list[BankNotification]:
    """The notifications that wait and print one of the user's names, each once."""
    key: Any = {"amount": amount, "since": since, "until": until, "field_width": work.policy.bank_name_width}
    found = {line.id: line for name in names for line in bank_notifications.list_open(work.tx, name=name, **key)}
    return [found[line_id] for line_id in sorted(found)]


def _means_it_alone(work: UnitOfWork, line: BankNotification, command: DepositAnnounce) -> bool:
    """Whether a line that waits confirms what is announced now, as it would had it come after. One that was ambiguous,
    or freed from a deposit, or whose money another line may have told of, is with people."""
    if line.status is not BankNotificationStatus.UNMATCHED or line.depositor_name is None:
        return False
    if bank_notification_events.was_freed(work.tx, line.id):
        return False
    facts = facts_on_record(line)
    if bank_lines.may_be_repeated(work.tx, facts, besides=line.id) or bank_messages.may_be_taken_back(work.tx, facts):
        return False
    name = printed(line.depositor_name, field_width=work.policy.bank_name_width)
    occurred_at = bound(facts.occurred_at)
    since, until = around(occurred_at, work.policy.match_window_s)
    open_since = around(occurred_at, work.policy.deposit_expiry_s)[0]
    meant = bank_notifications.meant(
        work.tx, name, amount=line.amount, since=since, until=until, occurred_at=occurred_at, open_since=open_since
    )
    in_time = bank_notifications.in_time(work.tx, meant.deposits, open_since=open_since)
    new = Candidate(
        deposit_id=sys.maxsize,
        telegram_id=command.telegram_id,
        depositor_name=command.depositor_name,
        amount=command.amount,
        status=TransactionStatus.PENDING,
        created_at=spoken(work.now),
        likeness=Likeness.SAME_NAME,
    )
    erased = bank_notifications.has_erased_rival(work.tx, amount=line.amount, since=since, until=until)
    learned_of = learned_names.users_of(work.tx, name)
    return fitting(name, [*meant.deposits, new], others_open=erased, in_time=in_time, learned_of=learned_of)[1] is new


def _confirm_at_once(
    work: UnitOfWork, announced: DepositAnnounced, account: Account, notification_id: int
) -> DepositAnnounced:
    """Credits a deposit whose notification was there first."""
    deposit = deposits.find(work.tx, announced.id)
    assert deposit is not None  # written in this unit of work
    written = credit(work, deposit, account, note=None, found=Match(notification_id, MatchMethod.AUTOMATIC))
    work.audit(
        "bank_notification_matched",
        BANK_NOTIFICATION,
        notification_id,
        account,
        {"matched_deposit_id": deposit.id, "method": MatchMethod.AUTOMATIC, "amount": deposit.amount},
    )
    return DepositAnnounced(**msgspec.structs.asdict(written), collision=None)


def _confirm(work: UnitOfWork, command: DepositConfirm, deposit_id: int) -> Answer:
    deposit, account = _find(work, deposit_id)
    check_creditable(work, deposit, late=command.late is True)
    balance_after_credit(account, deposit.amount)
    # After this point the posting must succeed.
    return ok(credit(work, deposit, account, note=given(command.note), found=None))


def check_creditable(work: UnitOfWork, deposit: Deposit, *, late: bool) -> None:
    """Returns when the deposit may be confirmed and money comes in by it. Raises DepositExpired, DepositNotPending."""
    check_confirmable(deposit.id, deposit.status, late=late)
    # Of those that were taken over, an import cancels what waits for no money; what had expired stays as it was.
    if deposit.status == TransactionStatus.EXPIRED and not deposits.pays_in(work.tx, deposit.id):
        raise DepositNotPending(
            f"Deposit {deposit.id} was taken over as one by which no money can come in.", current_status=deposit.status
        )


@dataclass(frozen=True, slots=True)
class Match:
    """The notification that a deposit's money came with, and how it was found."""

    notification_id: int
    method: MatchMethod


def credit(
    work: UnitOfWork, deposit: Deposit, account: Account, *, note: str | None, found: Match | None
) -> DepositWritten:
    """Confirms a deposit, and settles the notification that was found for it. The caller has checked that it may."""
    balance_after = balance_after_credit(account, deposit.amount)
    deposits.confirm(work.tx, deposit, account, balance_after=balance_after, now=work.now)
    if found is not None:
        settle(work, found, deposit.id)
    audit_log_id = work.audit(
        "deposit_confirmed",
        DEPOSIT_TRANSACTION,
        deposit.id,
        account,
        {
            "amount": deposit.amount,
            "depositor_name": deposit.depositor_name,
            "matched_bank_notification_id": found.notification_id if found else None,
            "balance_before": account.balance,
            "balance_after": balance_after,
            "version": account.version + 1,
            "late": deposit.status == TransactionStatus.EXPIRED,
            "note": note,
        },
    )
    return _written(
        deposit,
        TransactionStatus.CONFIRMED,
        account,
        confirmed_at=spoken(work.now),
        notification_id=found.notification_id if found else deposit.matched_bank_notification_id,
        balance_after=balance_after,
        version=account.version + 1,
        audit_log_id=audit_log_id,
    )


def settle(work: UnitOfWork, found: Match, deposit_id: int) -> None:
    """Matches the notification with a confirmed deposit, by whose request this is."""
    bank_notifications.match(
        work.tx,
        notification_id=found.notification_id,
        deposit_id=deposit_id,
        method=found.method,
        actor=work.context.actor,
        now=work.now,
    )


def has_room(account: Account, amount: int) -> bool:
    """Whether the money fits the account. What the bank received is put on record even when it does not."""
    try:
        balance_after_credit(account, amount)
    except BalanceLimitExceeded:
        return False
    return True


def put_on_record(
    work: UnitOfWork, account: Account, *, amount: int, depositor_name: str, name: AnnouncedName
) -> tuple[int, int]:
    """Writes a pending deposit; its id, and that of its audit row."""
    deposit_id = work.session.announce(account, amount=amount, depositor_name=depositor_name, name=name)
    told: Details = {"amount": amount, "depositor_name": depositor_name}
    return deposit_id, work.audit("deposit_announced", DEPOSIT_TRANSACTION, deposit_id, account, told)


def withdraw(work: UnitOfWork, deposit: Deposit, account: Account, *, note: str | None) -> int:
    """Cancels a deposit; the id of its audit row. The caller has checked that it may."""
    deposits.cancel(work.tx, deposit)
    told: Details = {"amount": deposit.amount, "depositor_name": deposit.depositor_name, "note": note}
    return work.audit("deposit_cancelled", DEPOSIT_TRANSACTION, deposit.id, account, told)


def _cancel(work: UnitOfWork, command: DepositCancel, deposit_id: int) -> Answer:
    deposit, account = _find(work, deposit_id)
    check_cancellable(deposit_id, deposit.status)
    # After this point the change must succeed.
    audit_log_id = withdraw(work, deposit, account, note=given(command.note))
    return ok(
        _written(
            deposit,
            TransactionStatus.CANCELLED,
            account,
            confirmed_at=None,
            notification_id=deposit.matched_bank_notification_id,
            balance_after=account.balance,
            version=account.version,
            audit_log_id=audit_log_id,
        )
    )


def _find(work: UnitOfWork, deposit_id: int) -> tuple[Deposit, Account]:
    """The deposit and its user's account. Raises DepositNotFound."""
    work.concerning(resource_id=deposit_id)
    deposit = deposits.find(work.tx, deposit_id)
    account = users.find_account(work.tx, deposit.telegram_id) if deposit else None
    if deposit is None or account is None:
        raise DepositNotFound(f"There is no deposit {deposit_id}.")
    work.concerning_account(account)
    return deposit, account


def _written(
    deposit: Deposit,
    status: TransactionStatus,
    account: Account,
    *,
    confirmed_at: str | None,
    notification_id: int | None,
    balance_after: int,
    version: int,
    audit_log_id: int,
) -> DepositWritten:
    return DepositWritten(
        id=deposit.id,
        telegram_id=deposit.telegram_id,
        amount=deposit.amount,
        depositor_name=deposit.depositor_name,
        status=status,
        created_at=deposit.created_at,
        confirmed_at=confirmed_at,
        matched_bank_notification_id=notification_id,
        expires_at=None,
        in_review=False,
        balance_before=account.balance,
        balance_after=balance_after,
        version=version,
        audit_log_id=audit_log_id,
    )


ANNOUNCE = Operation("deposit_announce", DEPOSIT_TRANSACTION, _announce)
"""Puts a deposit on record: pending, or confirmed when its notification waits. Makes the user on first use; never
refused."""
CONFIRM = Operation("deposit_confirm", DEPOSIT_TRANSACTION, _confirm)
"""Credits the deposit. Refused, in this order, as DepositNotFound, DepositExpired, DepositNotPending,
BalanceLimitExceeded."""
CANCEL = Operation("deposit_cancel", DEPOSIT_TRANSACTION, _cancel)
"""Closes a pending deposit. Refused, in this order, as DepositNotFound, DepositNotPending."""
