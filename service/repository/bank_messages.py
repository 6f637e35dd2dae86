"""Messages of banks: read when they come; a deposit becomes a notification, and the rest is kept for people."""

from hashlib import sha256

import msgspec

from service.ledger.audit_logs import BANK_MESSAGE, BANK_NOTIFICATION
from service.ledger.bank_formats import MessageKind, ReadMessage, read
from service.ledger.bank_lines import BankFacts
from service.ledger.bank_messages import (
    SAME_TEXT_DAYS,
    BankMessage,
    BankMessageKind,
    BankMessagePost,
    BankMessageSettle,
    BankMessageStatus,
    BankMessageWritten,
    CancelledLine,
    check_can_be_settled,
    check_fits,
    taken_back,
)
from service.ledger.errors import BankMessageNotFound, BankNotificationNotFound
from service.ledger.fields import given
from service.ledger.idempotency import Answer
from service.ledger.timestamps import around, parsed, spoken, stored
from service.ledger.users import Account
from service.repository import bank_notifications
from service.repository.unit_of_work import Operation, UnitOfWork, ok
from service.storage import bank_messages, bank_notification_events

_DAY_S = 86_400


def _receive(work: UnitOfWork, command: BankMessagePost, _target: int) -> Answer:
    said = read(command.raw_message, received_at=parsed(spoken(work.now)))
    if said is not None and said.kind is MessageKind.DEPOSIT:
        return bank_notifications.receive(work, _facts(said, command))
    digest = sha256(command.raw_message.encode()).digest()
    since = around(work.now, SAME_TEXT_DAYS * _DAY_S)[0]
    known = bank_messages.find_same_text(work.tx, digest, since=since)
    if known is not None:
        return _accepted(_written(work, known, None, repeat=True))
    kind = BankMessageKind(said.kind) if said else BankMessageKind.UNREADABLE
    cancels = said is not None and kind is BankMessageKind.DEPOSIT_CANCELLED
    line = taken_back(bank_messages.lines_meant(work.tx, said)) if said is not None and cancels else None
    status = BankMessageStatus.KEPT
    if said is None:
        status = BankMessageStatus.UNREADABLE
    elif cancels and line is None:
        status = BankMessageStatus.WAITING
    # After this point the posting must succeed.
    message_id = bank_messages.insert(
        work.tx,
        raw_message=command.raw_message,
        digest=digest,
        kind=kind,
        status=status,
        read=said,
        notification_id=line.id if line else None,
        actor=work.context.actor,
        now=work.now,
    )
    account = _cancel(work, line, message_id) if line else None
    audit_log_id = work.audit(
        "bank_message_received",
        BANK_MESSAGE,
        message_id,
        account,
        {
            "kind": kind,
            "status": status,
            "amount": said.amount if said else None,
            "depositor_name": said.depositor_name if said else None,
            "occurred_at": _spoken(said) if said else None,
            "bank_name": said.bank_name if said else None,
            "account": said.account if said else None,
            "bank_balance_after": said.balance_after if said else None,
            "bank_notification_id": line.id if line else None,
            "raw_message_sha256": digest.hex(),
        },
    )
    return _accepted(_written(work, message_id, audit_log_id))


def _settle(work: UnitOfWork, command: BankMessageSettle, message_id: int) -> Answer:
    work.concerning(resource_id=message_id)
    message = _found(work, message_id)
    check_can_be_settled(message)
    named = given(command.bank_notification_id)
    line = bank_messages.find_line(work.tx, named) if named is not None else None
    if named is not None and line is None:
        raise BankNotificationNotFound(f"There is no bank notification {named}.")
    if line is not None:
        check_fits(message, line)
    cancels = line is not None and message.kind is BankMessageKind.DEPOSIT_CANCELLED
    # After this point the change must succeed.
    bank_messages.settle(
        work.tx, message_id, note=command.note, notification_id=named, actor=work.context.actor, now=work.now
    )
    account = bank_notifications.account_of(work, line.deposit_id) if line else None
    if line is not None and cancels:
        account = _cancel(work, line, message_id)
    audit_log_id = work.audit(
        "bank_message_settled",
        BANK_MESSAGE,
        message_id,
        account,
        {"kind": message.kind, "bank_notification_id": named, "note": command.note},
    )
    return ok(_written(work, message_id, audit_log_id))


def _cancel(work: UnitOfWork, line: CancelledLine, message_id: int) -> Account | None:
    """Takes a notification back; the account that its money went to, if it did."""
    account = bank_notifications.account_of(work, line.deposit_id)
    bank_notification_events.cancel(
        work.tx, line.id, is_matched=line.deposit_id is not None, actor=work.context.actor, now=work.now
    )
    work.audit(
        "bank_notification_cancelled",
        BANK_NOTIFICATION,
        line.id,
        account,
        {"bank_message_id": message_id, "matched_deposit_id": line.deposit_id},
    )
    return account


def _facts(said: ReadMessage, command: BankMessagePost) -> BankFacts:
    """A deposit that was read, as a notification says it."""
    return BankFacts(
        bank_transaction_id=given(command.bank_transaction_id),
        depositor_name=said.depositor_name,
        amount=said.amount,
        occurred_at=_spoken(said),
        bank_name=said.bank_name,
        account=said.account,
        balance_after=said.balance_after,
        raw_message=command.raw_message,
    )


def _spoken(said: ReadMessage) -> str:
    return spoken(stored(said.occurred_at))


def _found(work: UnitOfWork, message_id: int) -> BankMessage:
    found = bank_messages.find(work.tx, message_id)
    if found is None:
        raise BankMessageNotFound(f"There is no bank message {message_id}.")
    return found


def _written(
    work: UnitOfWork, message_id: int, audit_log_id: int | None, *, repeat: bool = False
) -> BankMessageWritten:
    message = msgspec.structs.asdict(_found(work, message_id))
    return BankMessageWritten(**message, repeat=repeat, audit_log_id=audit_log_id)


def _accepted(view: BankMessageWritten) -> Answer:
    """202 with `view`: the message is kept, and no money moved."""
    return Answer(status=202, body=msgspec.json.encode(view))


RECEIVE = Operation("bank_notification_receive", BANK_NOTIFICATION, _receive)
"""Reads a message: a deposit becomes a notification, the rest is kept, once for each text, and a cancellation takes
back what it means. Refused, in this order, as BankTransactionReused, OccurredAhead."""
SETTLE = Operation("bank_message_settle", BANK_MESSAGE, _settle)
"""Says what a message was that waits. Refused, in this order, as BankMessageNotFound, BankMessageSettled,
BankNotificationNotFound, BankMessageUnfit."""
