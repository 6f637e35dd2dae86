"""Learned names: taught when a bank notification is settled, and forgotten when somebody says so."""

import msgspec

from service.ledger.audit_logs import USER, Details
from service.ledger.bank_notifications import BankNotification
from service.ledger.depositor_names import match_name
from service.ledger.errors import LearnedNameNotFound
from service.ledger.idempotency import Answer
from service.ledger.learned_names import LearnedName, LearnedNameForget, LearnedNameForgotten, can_be_learned
from service.ledger.users import Account, pseudonym
from service.repository.unit_of_work import Operation, UnitOfWork, ok
from service.storage import learned_names, users


def learn(work: UnitOfWork, notification: BankNotification, account: Account) -> int | None:
    """Remembers the printed name of a notification that is matched for the user; its id, or None where there is nothing
    to learn: it is learned already, says too little, or the user was erased or has many."""
    known = learned_names.of_user(work.tx, account.telegram_id)
    is_erased = account.telegram_id == pseudonym(account.user_id)
    printed_name = notification.depositor_name
    if printed_name is None or is_erased or not can_be_learned(printed_name, known=len(known)):
        return None
    name = match_name(printed_name)
    if name in known:
        return None
    learned_name_id = learned_names.insert(
        work.tx,
        user_id=account.user_id,
        printed_name=printed_name,
        match_name=name,
        notification_id=notification.id,
        actor=work.context.actor,
        now=work.now,
    )
    told: Details = {"id": learned_name_id, "depositor_name": printed_name, "bank_notification_id": notification.id}
    work.audit("user_name_learned", USER, account.user_id, account, told)
    return learned_name_id


def forget_taught_by(work: UnitOfWork, notification_id: int, account: Account) -> list[int]:
    """Takes away what a bank notification taught of the user; the ids."""
    taught = learned_names.list_taught_by(work.tx, notification_id, telegram_id=account.telegram_id)
    for name in taught:
        _take_away(work, name, account)
    return [name.id for name in taught]


def _take_away(work: UnitOfWork, found: LearnedName, account: Account) -> int:
    learned_names.delete(work.tx, found.id)
    told: Details = {
        "id": found.id,
        "depositor_name": found.printed_name,
        "bank_notification_id": found.bank_notification_id,
    }
    return work.audit("user_name_forgotten", USER, account.user_id, account, told)


def _forget(work: UnitOfWork, _command: LearnedNameForget, learned_name_id: int) -> Answer:
    found = learned_names.find(work.tx, learned_name_id)
    account = users.find_account(work.tx, found.telegram_id) if found else None
    if found is None or account is None:
        raise LearnedNameNotFound(f"There is no learned name {learned_name_id}.")
    # After this point the change must succeed.
    audit_log_id = _take_away(work, found, account)
    return ok(LearnedNameForgotten(**msgspec.structs.asdict(found), audit_log_id=audit_log_id))


FORGET = Operation("user_name_forget", USER, _forget)
"""Takes a learned name away; what it confirmed stays. Refused as LearnedNameNotFound."""
