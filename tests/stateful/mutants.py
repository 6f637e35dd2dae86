"""The service, broken on purpose: each a fault that the database lets through, and that the machine must find."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from service.ledger.bank_notifications import BankNotificationStatus, Candidate, fitting
from service.ledger.deposits import check_confirmable
from service.ledger.domain_purchases import Name
from service.ledger.errors import InsufficientFunds
from service.ledger.timestamps import around
from service.ledger.transactions import balance_after_debit
from service.ledger.users import Account
from service.repository import (
    balance_changes,
    bank_notifications,
    debits,
    deposits,
    domain_purchases,
    expiry,
    transactions,
)
from service.repository.session import Session
from service.repository.unit_of_work import Operation, UnitOfWork
from service.storage import balance_changes as references
from service.storage import bank_notifications as lines
from service.storage import domain_purchases as names
from service.storage import idempotency, users
from tests.stateful.served import CALLERS

Patch = pytest.MonkeyPatch


def _the_last_won_cannot_be_debited(patch: Patch) -> None:
    def broken(account: Account, amount: int) -> int:
        if account.balance == amount:
            raise InsufficientFunds("", balance=account.balance, required=amount, shortfall=0)
        return balance_after_debit(account, amount)

    patch.setattr(debits, "balance_after_debit", broken)


def _a_cancellation_is_not_audited(patch: Patch) -> None:
    _audit(patch, "deposit_cancelled", times=0)


def _a_debit_is_audited_twice(patch: Patch) -> None:
    _audit(patch, "balance_debited", times=2)


def _audit(patch: Patch, action: str, *, times: int) -> None:
    audit = UnitOfWork.audit

    def broken(work: UnitOfWork, *args: Any) -> int:
        return [0, *(audit(work, *args) for _ in range(times if args[0] == action else 1))][-1]

    patch.setattr(UnitOfWork, "audit", broken)


def _a_replay_is_carried_out_again(patch: Patch) -> None:
    find, store = idempotency.find, Session.store_answer

    def broken(session: Session, request: Any, answer: Any, *, actor: str) -> None:
        if find(session.reading, actor=actor, idempotency_key=request.idempotency_key) is None:
            store(session, request, answer, actor=actor)

    patch.setattr(Session, "stored_answer", lambda *_, **__: None)
    patch.setattr(Session, "store_answer", broken)


def _a_refused_attempt_may_succeed_later(patch: Patch) -> None:
    store = Session.store_answer

    def broken(session: Session, request: Any, answer: Any, *, actor: str) -> None:
        if answer.status < 400:
            store(session, request, answer, actor=actor)

    patch.setattr(Session, "store_answer", broken)


def _a_key_answers_any_request(patch: Patch) -> None:
    patch.setattr("service.repository.unit_of_work.check_same_request", lambda *_, **__: None)


def _the_first_of_two_deposits_is_guessed(patch: Patch) -> None:
    def broken(
        candidates: Sequence[Candidate], *, others_open: bool
    ) -> tuple[BankNotificationStatus, Candidate | None]:
        pending = [one for one in candidates if one.likeness == "same_name" and one.status == "pending"]
        if pending:
            return BankNotificationStatus.MATCHED, pending[0]
        return fitting(candidates, others_open=others_open)

    patch.setattr(bank_notifications, "fitting", broken)


def _the_window_leaves_its_first_instant_out(patch: Patch) -> None:
    def broken(text: str, seconds: int) -> tuple[str, str]:
        since, until = around(text, seconds)
        return f"{since}.000" if "." not in since else since, until

    patch.setattr(deposits, "around", broken)


def _no_collision_is_seen(patch: Patch) -> None:
    patch.setattr(lines, "same_name", lambda *_, **__: [])


def _late_money_needs_no_word(patch: Patch) -> None:
    def broken(deposit_id: int, status: str, *, late: bool) -> None:
        check_confirmable(deposit_id, status, late=late or status == "expired")

    patch.setattr(deposits, "check_confirmable", broken)


def _expiry_keeps_the_money(patch: Patch) -> None:
    def broken(work: UnitOfWork, purchase: Any, account: Account, status: Any, *, note: str | None) -> None:
        names.settle(work.tx, purchase, status, now=work.now)
        work.audit(f"domain_{status}", "user_domains", purchase.id, account, {})

    patch.setattr(expiry, "give_back", broken)


def _a_name_has_as_many_owners_as_spellings(patch: Patch) -> None:
    patch.setattr(domain_purchases, "parse_name", lambda text: Name(text, text))


def _what_is_held_is_not_told(patch: Patch) -> None:
    find_balance = users.find_balance

    def broken(*args: Any) -> Any:
        found = find_balance(*args)
        return found and msgspec.structs.replace(found, held=0)

    patch.setattr(users, "find_balance", broken)


def _what_a_held_name_stands_on_can_go_back(patch: Patch) -> None:
    patch.setattr(transactions, "check_money_may_move", lambda *_, **__: None)


def _a_name_is_registered_for_nothing(patch: Patch) -> None:
    patch.setattr(domain_purchases, "check_paid", lambda _, last: last)


def _what_went_back_is_held_all_the_same(patch: Patch) -> None:
    find_balance = users.find_balance

    def broken(tx: Any, telegram_id: str) -> Any:
        found = find_balance(tx, telegram_id)
        held = "SELECT SUM(price) FROM user_domains JOIN users AS u ON u.id = user_id WHERE status = 'pending'"
        (price,) = tx.execute(f"{held} AND telegram_id = ?", (telegram_id,)).fetchone()
        return found and msgspec.structs.replace(found, held=price or 0)

    patch.setattr(users, "find_balance", broken)


def _a_batch_applies_what_it_can(patch: Patch) -> None:
    post = balance_changes.POST

    def broken(work: UnitOfWork, command: Any, target: int) -> Any:
        return post.run(work, msgspec.structs.replace(command, atomic=False), target)

    patch.setattr(balance_changes, "POST", Operation(post.name, post.resource_type, broken))


def _a_reference_is_everybodys(patch: Patch) -> None:
    find = references.find_transactions

    def broken(tx: Any, *, actor: str, references: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for caller in CALLERS:
            found |= find(tx, actor=caller, references=references)
        return found

    patch.setattr(references, "find_transactions", broken)


MUTANTS: dict[str, Callable[[Patch], None]] = {
    mutant.__name__.strip("_"): mutant
    for mutant in (
        _the_last_won_cannot_be_debited,
        _a_cancellation_is_not_audited,
        _a_debit_is_audited_twice,
        _a_replay_is_carried_out_again,
        _a_refused_attempt_may_succeed_later,
        _a_key_answers_any_request,
        _the_first_of_two_deposits_is_guessed,
        _the_window_leaves_its_first_instant_out,
        _no_collision_is_seen,
        _late_money_needs_no_word,
        _expiry_keeps_the_money,
        _a_name_has_as_many_owners_as_spellings,
        _what_is_held_is_not_told,
        _what_a_held_name_stands_on_can_go_back,
        _a_name_is_registered_for_nothing,
        _what_went_back_is_held_all_the_same,
        _a_batch_applies_what_it_can,
        _a_reference_is_everybodys,
    )
}
"""What each of them breaks, by its name."""
