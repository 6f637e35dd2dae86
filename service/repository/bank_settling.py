"""Bank notifications settled by people: dismissed, opened again, credited to a user, and freed by a reversal."""

import msgspec

from service.ledger.audit_logs import BANK_NOTIFICATION, Details
from service.ledger.bank_notifications import (
    NAMELESS,
    BankNotification,
    BankNotificationChanged,
    BankNotificationDismiss,
    BankNotificationMatch,
    BankNotificationReopen,
    MatchMethod,
    check_cancellable_for,
    check_creditable_amount,
    check_dismissed,
    check_matchable,
)
from service.ledger.depositor_names import announced
from service.ledger.deposits import Deposit
from service.ledger.errors import DepositNotFound, UserNotFound
from service.ledger.fields import given
from service.ledger.idempotency import Answer
from service.ledger.transactions import balance_after_credit
from service.ledger.users import Account
from service.repository.bank_notifications import found_line, written
from service.repository.deposits import Match, credit, put_on_record, withdraw
from service.repository.learned_names import forget_taught_by, learn
from service.repository.unit_of_work import Operation, UnitOfWork, ok
from service.storage import bank_notification_events, bank_notifications, deposits


def _dismiss(work: UnitOfWork, command: BankNotificationDismiss, notification_id: int) -> Answer:
    work.concerning(resource_id=notification_id)
    notification = found_line(work, notification_id)
    check_matchable(notification)
    # After this point the change must succeed.
    event_id = bank_notification_events.dismiss(
        work.tx, notification_id, note=command.note, actor=work.context.actor, now=work.now
    )
    return _closed(work, notification, event_id, "dismissed", command.note)


def _reopen(work: UnitOfWork, command: BankNotificationReopen, notification_id: int) -> Answer:
    work.concerning(resource_id=notification_id)
    notification = found_line(work, notification_id)
    check_dismissed(notification)
    # After this point the change must succeed.
    note = given(command.note)
    event_id = bank_notification_events.reopen(
        work.tx, notification_id, note=note, actor=work.context.actor, now=work.now
    )
    return _closed(work, notification, event_id, "reopened", note)


def _closed(work: UnitOfWork, before: BankNotification, event_id: int, kind: str, note: str | None) -> Answer:
    now = bank_notifications.find(work.tx, before.id)
    assert now is not None  # it was found in this unit of work
    details: Details = {"event_id": event_id, "amount": before.amount, "status": now.status, "note": note}
    audit_log_id = work.audit(f"bank_notification_{kind}", BANK_NOTIFICATION, before.id, None, details)
    return ok(BankNotificationChanged(id=before.id, status=now.status, event_id=event_id, audit_log_id=audit_log_id))


def _credit_user(work: UnitOfWork, command: BankNotificationMatch, notification_id: int) -> Answer:
    work.concerning(resource_id=notification_id)
    notification = found_line(work, notification_id)
    check_matchable(notification)
    telegram_id = command.telegram_id
    assert isinstance(telegram_id, str)  # the edge asks for one of the two
    work.concerning(resource_id=notification_id, telegram_id=telegram_id)
    account = work.session.account(telegram_id)
    if account is None:
        raise UserNotFound(f"There is no user {telegram_id}.")
    work.concerning_account(account)
    replaced = _replaced(work, command, account)
    check_creditable_amount(notification)
    balance_after_credit(account, notification.amount)
    # After this point the posting must succeed.
    note = given(command.note)
    if replaced is not None:
        withdraw(work, replaced, account, note=note)
    deposit = _announced(work, notification, account)
    audit_log_id = work.audit(
        "bank_notification_matched",
        BANK_NOTIFICATION,
        notification_id,
        account,
        {
            "matched_deposit_id": deposit.id,
            "method": MatchMethod.MANUAL,
            "amount": notification.amount,
            "depositor_name": notification.depositor_name,
            "announced_name": deposit.depositor_name,
            "credited": True,
            "cancelled_deposit_id": replaced.id if replaced else None,
            "note": note,
        },
    )
    credited = credit(work, deposit, account, note=note, found=Match(notification_id, MatchMethod.MANUAL))
    learned = learn(work, notification, account) if command.remember is True else None
    answer = written(work, notification_id, account, credited, audit_log_id)
    return ok(msgspec.structs.replace(answer, learned_name_id=learned))


def _replaced(work: UnitOfWork, command: BankNotificationMatch, account: Account) -> Deposit | None:
    """The pending deposit of the user that the new one takes the place of, or None where none is named."""
    asked = command.cancel_deposit_id
    if not isinstance(asked, int):
        return None
    deposit = deposits.find(work.tx, asked)
    if deposit is None:
        raise DepositNotFound(f"There is no deposit {asked}.")
    check_cancellable_for(account.telegram_id, deposit)
    return deposit


def _announced(work: UnitOfWork, notification: BankNotification, account: Account) -> Deposit:
    """A pending deposit of what the bank received, under the name that the bank printed."""
    name = notification.depositor_name or NAMELESS
    folded = announced(name, field_width=work.policy.bank_name_width)
    deposit_id, _ = put_on_record(work, account, amount=notification.amount, depositor_name=name, name=folded)
    deposit = deposits.find(work.tx, deposit_id)
    assert deposit is not None  # written in this unit of work
    return deposit


def free_line(work: UnitOfWork, deposit_id: int, account: Account) -> int | None:
    """Frees the notification that Passbook matched with a deposit whose money was just taken back; its id, or None.

    The names that it taught of the user are forgotten: they may be as wrong as the match was.
    """
    notification_id = bank_notifications.find_of_deposit(work.tx, deposit_id)
    if notification_id is None:
        return None
    forgotten = forget_taught_by(work, notification_id, account)
    event_id = bank_notification_events.free(
        work.tx, notification_id, deposit_id=deposit_id, actor=work.context.actor, now=work.now
    )
    freed = bank_notifications.find(work.tx, notification_id)
    assert freed is not None  # it was found in this unit of work
    work.audit(
        "bank_notification_freed",
        BANK_NOTIFICATION,
        notification_id,
        account,
        {
            "event_id": event_id,
            "deposit_id": deposit_id,
            "amount": freed.amount,
            "status": freed.status,
            "forgotten_learned_name_ids": forgotten,
        },
    )
    return notification_id


DISMISS = Operation("bank_notification_dismiss", BANK_NOTIFICATION, _dismiss)
"""Closes a notification whose money is no top-up. Refused, in this order, as BankNotificationNotFound,
BankNotificationMatched, BankNotificationClosed."""
REOPEN = Operation("bank_notification_reopen", BANK_NOTIFICATION, _reopen)
"""Undoes a dismissal. Refused, in this order, as BankNotificationNotFound, BankNotificationClosed,
BankNotificationMatched, BankNotificationOpen."""
CREDIT = Operation("bank_notification_match", BANK_NOTIFICATION, _credit_user)
"""Makes and confirms a deposit of what the bank received for a user who is there. Refused, in this order, as
BankNotificationNotFound, BankNotificationMatched, BankNotificationClosed, UserNotFound,
DepositNotFound, DepositOfOtherUser, DepositNotPending, BankAmountUncreditable, BalanceLimitExceeded."""
