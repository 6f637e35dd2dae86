"""Bank notifications: received once for each bank transaction, matched with one deposit by rule or by hand."""

from hashlib import sha256
from typing import Any

import msgspec

from service.ledger.audit_logs import BANK_NOTIFICATION
from service.ledger.bank_lines import BankFacts, KnownLine, addition, check_same_transfer, derived_id
from service.ledger.bank_notifications import (
    NAMES_ASKED_MAX,
    BankNotification,
    BankNotificationMatch,
    BankNotificationPost,
    BankNotificationStatus,
    BankNotificationWritten,
    Candidates,
    MatchMethod,
    check_matchable,
    check_not_ahead,
    check_same_amount,
    facts_of,
    fitting,
)
from service.ledger.depositor_names import AnnouncedName, printed
from service.ledger.deposits import DepositWritten
from service.ledger.errors import BankNotificationNotFound, DepositMatched, DepositNotFound
from service.ledger.fields import given
from service.ledger.idempotency import Answer
from service.ledger.timestamps import around, bound, parsed, spoken
from service.ledger.transactions import TransactionStatus, balance_after_credit
from service.ledger.users import Account
from service.repository.deposits import Match, check_creditable, credit, has_room, settle
from service.repository.learned_names import learn
from service.repository.unit_of_work import Operation, UnitOfWork, created, ok
from service.storage import bank_lines, bank_messages, bank_notifications, deposits, learned_names, users


def _receive(work: UnitOfWork, command: BankNotificationPost, _target: int) -> Answer:
    return receive(work, facts_of(command))


def receive(work: UnitOfWork, facts: BankFacts) -> Answer:
    """Puts a line on record and confirms the deposit that it fits alone; 200 where it is on record already.

    Raises BankTransactionReused, OccurredAhead.
    """
    line_id = facts.bank_transaction_id or derived_id(facts)
    known = bank_lines.find(work.tx, line_id)
    if known is not None and facts.bank_transaction_id is not None:
        work.concerning(resource_id=known.id)
        check_same_transfer(facts, known)
    if known is None and facts.bank_transaction_id is None:
        known = bank_lines.find_same(work.tx, facts)
    if known is not None:
        return _told_again(work, known, facts)
    check_not_ahead(facts.occurred_at, parsed(spoken(work.now)))
    occurred_at, width = bound(facts.occurred_at), work.policy.bank_name_width
    name = printed(facts.depositor_name, field_width=width)
    since, until = around(occurred_at, work.policy.match_window_s)
    key: Any = {"amount": facts.amount, "since": since, "until": until}
    found = bank_notifications.candidates(work.tx, facts.depositor_name, field_width=width, **key)
    open_since = around(occurred_at, work.policy.deposit_expiry_s)[0]
    meant = bank_notifications.meant(work.tx, name, occurred_at=occurred_at, open_since=open_since, **key)
    in_time = bank_notifications.in_time(work.tx, meant.deposits, open_since=open_since)
    others = len(meant.names) > NAMES_ASKED_MAX or any(
        bank_notifications.list_open(work.tx, name=AnnouncedName(one, one), field_width=width, **key)
        for one in meant.names
    )
    erased = bank_notifications.has_erased_rival(work.tx, **key)
    learned_of = learned_names.users_of(work.tx, name)
    status, fits = fitting(name, meant.deposits, others_open=others or erased, in_time=in_time, learned_of=learned_of)
    if bank_messages.may_be_taken_back(work.tx, facts) or bank_lines.may_be_repeated(work.tx, facts):
        status, fits = BankNotificationStatus.AMBIGUOUS, None
    deposit = deposits.find(work.tx, fits.deposit_id) if fits else None
    account = users.find_account(work.tx, deposit.telegram_id) if deposit else None
    if deposit is not None and account is not None and not has_room(account, deposit.amount):
        status, deposit, account = BankNotificationStatus.UNMATCHED, None, None
    # After this point the posting must succeed.
    notification_id = bank_notifications.insert(
        work.tx,
        facts,
        bank_transaction_id=line_id,
        occurred_at=occurred_at,
        name=name.name,
        status=BankNotificationStatus.UNMATCHED if deposit else status,
        now=work.now,
    )
    audit_log_id = work.audit(
        "bank_notification_received",
        BANK_NOTIFICATION,
        notification_id,
        account,
        {
            "bank_transaction_id": line_id,
            "depositor_name": facts.depositor_name,
            "amount": facts.amount,
            "occurred_at": facts.occurred_at,
            "bank_name": facts.bank_name,
            "account": facts.account,
            "bank_balance_after": facts.balance_after,
            "raw_message_sha256": _digest_of(facts.raw_message),
            "status": status,
            "matched_deposit_id": deposit.id if deposit else None,
            "candidate_deposit_ids": [candidate.deposit_id for candidate in found.listed],
        },
    )
    credited = None
    if deposit is not None and account is not None:
        credited = credit(work, deposit, account, note=None, found=Match(notification_id, MatchMethod.AUTOMATIC))
    answer = written(work, notification_id, account, credited, audit_log_id, found)
    return created(answer, f"/v1/bank-notifications/{notification_id}")


def _told_again(work: UnitOfWork, known: KnownLine, facts: BankFacts) -> Answer:
    """What stands, of a line that is on record; what it did not say yet is kept beside it. Nothing is credited."""
    work.concerning(resource_id=known.id)
    notification = found_line(work, known.id)
    account = account_of(work, notification.matched_deposit_id)
    said, audit_log_id = addition(facts, known), None
    if said is not None:
        event_id = bank_lines.insert_told(work.tx, known.id, said, actor=work.context.actor, now=work.now)
        audit_log_id = work.audit(
            "bank_notification_told",
            BANK_NOTIFICATION,
            known.id,
            account,
            {
                "event_id": event_id,
                "occurred_at": said.transaction_time and spoken(said.transaction_time),
                "bank_name": said.bank_name,
                "depositor_name": said.depositor_name,
                "account": said.account,
                "bank_balance_after": said.balance_after,
                "raw_message_sha256": _digest_of(said.raw_message),
            },
        )
    return ok(msgspec.structs.replace(written(work, known.id, account, None, audit_log_id), repeat=True))


def _digest_of(raw_message: str | None) -> str | None:
    return None if raw_message is None else sha256(raw_message.encode()).hexdigest()


def _match(work: UnitOfWork, command: BankNotificationMatch, notification_id: int) -> Answer:
    work.concerning(resource_id=notification_id)
    notification = found_line(work, notification_id)
    check_matchable(notification)
    asked = command.deposit_id
    assert isinstance(asked, int)  # the edge asks for one of the two
    deposit = deposits.find(work.tx, asked)
    account = users.find_account(work.tx, deposit.telegram_id) if deposit else None
    if deposit is None or account is None:
        raise DepositNotFound(f"There is no deposit {asked}.")
    work.concerning_account(account)
    other = bank_notifications.find_of_deposit(work.tx, deposit.id)
    if other is not None:
        raise DepositMatched(
            f"Deposit {deposit.id} is matched with bank notification {other}.", bank_notification_id=other
        )
    check_same_amount(notification, deposit.id, deposit.amount)
    credits_now = deposit.status != TransactionStatus.CONFIRMED and not deposits.stands_again(work.tx, deposit.id)
    if credits_now:
        check_creditable(work, deposit, late=command.late is True)
        balance_after_credit(account, deposit.amount)
    # After this point the posting must succeed.
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
            "credited": credits_now,
            "note": given(command.note),
        },
    )
    found, credited = Match(notification_id, MatchMethod.MANUAL), None
    if credits_now:
        credited = credit(work, deposit, account, note=given(command.note), found=found)
    else:
        settle(work, found, deposit.id)
    learned = learn(work, notification, account) if command.remember is True else None
    answer = written(work, notification_id, account, credited, audit_log_id)
    return ok(msgspec.structs.replace(answer, learned_name_id=learned))


def found_line(work: UnitOfWork, notification_id: int) -> BankNotification:
    """The notification, without candidates. Raises BankNotificationNotFound."""
    found = bank_notifications.find(work.tx, notification_id)
    if found is None:
        raise BankNotificationNotFound(f"There is no bank notification {notification_id}.")
    return found


def _listed(work: UnitOfWork, notification_id: int, candidates: Candidates | None) -> BankNotification:
    """The notification with its candidates, which are looked for unless they are given."""
    found = found_line(work, notification_id)
    if candidates is not None:
        return bank_notifications.listing(found, candidates)
    return bank_notifications.with_candidates(
        work.tx, found, window_s=work.policy.match_window_s, field_width=work.policy.bank_name_width
    )


def account_of(work: UnitOfWork, deposit_id: int | None) -> Account | None:
    """The account that the money of a matched notification went to."""
    deposit = deposits.find(work.tx, deposit_id) if deposit_id else None
    return users.find_account(work.tx, deposit.telegram_id) if deposit else None


def written(
    work: UnitOfWork,
    notification_id: int,
    account: Account | None,
    credited: DepositWritten | None,
    audit_log_id: int | None,
    found: Candidates | None = None,
) -> BankNotificationWritten:
    """The answer; `account` is the user's before the change, `credited` what the change did to it.

    found: the candidates of a notification that is new, where nothing was credited.
    """
    notification = _listed(work, notification_id, None if credited else found)
    return BankNotificationWritten(
        **msgspec.structs.asdict(notification),
        telegram_id=account.telegram_id if account else None,
        balance_before=account.balance if account else None,
        balance_after=credited.balance_after if credited else account.balance if account else None,
        version=credited.version if credited else account.version if account else None,
        audit_log_id=audit_log_id,
        learned_name_id=None,
        repeat=False,
    )


RECEIVE = Operation("bank_notification_receive", BANK_NOTIFICATION, _receive)
"""Puts a bank transaction on record, once, and confirms the deposit that it fits alone. Refused, in this order, as
BankTransactionReused, OccurredAhead."""
MATCH = Operation("bank_notification_match", BANK_NOTIFICATION, _match)
"""Settles a notification by hand; credits the deposit unless it is confirmed already. Refused, in this order, as
BankNotificationNotFound, BankNotificationMatched, DepositNotFound, DepositMatched, DepositAmountDiffers,
DepositExpired, DepositNotPending, BalanceLimitExceeded."""
