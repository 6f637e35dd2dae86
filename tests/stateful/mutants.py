"""The service, broken on purpose: each a fault that the database lets through, and that the machine must find.

A mutant says what the machine must find. It takes the place of a real function through `Breaker.replace`, which fails
when the two have other parameters: a mutant of an earlier service would only crash, and be found for that.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from service.ledger.audit_logs import Details
from service.ledger.balance_changes import BalanceChangesPost
from service.ledger.bank_lines import BankFacts
from service.ledger.bank_notifications import BankNotificationStatus, Candidate, fitting
from service.ledger.depositor_names import AnnouncedName, PrintedName
from service.ledger.deposits import check_confirmable
from service.ledger.domain_purchases import DomainPurchase, DomainPurchaseStatus, Name, check_money_may_move
from service.ledger.errors import InsufficientFunds
from service.ledger.idempotency import Answer, Request
from service.ledger.timestamps import around
from service.ledger.transactions import Transaction, balance_after_debit
from service.ledger.users import Account, Balance
from service.repository import (
    balance_changes,
    bank_notifications,
    debits,
    deposits,
    domain_purchases,
    transactions,
    unit_of_work,
)
from service.repository.session import Session
from service.repository.unit_of_work import UnitOfWork
from service.storage import balance_changes as references_taken
from service.storage import bank_lines, bank_notification_events, idempotency, learned_names, users
from service.storage import bank_notifications as lines
from service.storage import domain_purchases as names
from service.storage.bank_notifications import Meant
from service.storage.sqlite import Connection
from tests.stateful.served import CALLERS


@dataclass(frozen=True)
class Mutant:
    """A fault, and a pattern for what the machine says of it."""

    put_in: Callable[["Breaker"], None]
    found_as: str


@dataclass(frozen=True)
class Breaker:
    """Puts functions in the place of real ones for a test; `reached` grows with each call of one."""

    patch: pytest.MonkeyPatch
    reached: list[str]

    def replace(self, owner: Any, name: str, broken: Callable[..., Any]) -> None:
        """Fails when `broken` does not take what the real function takes, by the same names and in the same order."""
        real = getattr(owner, name)
        assert _parameters(broken) == _parameters(real), f"{name} takes {_parameters(real)} by now"

        def noted(*args: Any, **named: Any) -> Any:
            self.reached.append(name)
            return broken(*args, **named)

        self.patch.setattr(owner, name, noted)


def _parameters(function: Callable[..., Any]) -> list[tuple[str, str, bool]]:
    """Name, kind and whether it can be left out, of each."""
    return [
        (one.name, one.kind.description, one.default is not one.empty)
        for one in inspect.signature(function).parameters.values()
    ]


MUTANTS: dict[str, Mutant] = {}
"""Each of them by its name, which says what it breaks."""


def _found_as(words: str) -> Callable[[Callable[[Breaker], None]], None]:
    """Lists the mutant; `words` is a pattern for the whole of what the machine says."""

    def listed(put_in: Callable[[Breaker], None]) -> None:
        MUTANTS[put_in.__name__.strip("_")] = Mutant(put_in, words)

    return listed


@_found_as(r"\Athe status is not 201\n(?s:.*) answered 409 b'.*insufficient_funds")
def _the_last_won_cannot_be_debited(breaker: Breaker) -> None:
    def broken(account: Account, amount: int) -> int:
        if account.balance == amount:
            raise InsufficientFunds("", balance=account.balance, required=amount, shortfall=0)
        return balance_after_debit(account, amount)

    breaker.replace(debits, "balance_after_debit", broken)


@_found_as(r"\d missing: deposit_cancelled\n")
def _a_cancellation_is_not_audited(breaker: Breaker) -> None:
    _audit(breaker, "deposit_cancelled", times=0)


@_found_as(r"\d too many: balance_debited\n")
def _a_debit_is_audited_twice(breaker: Breaker) -> None:
    _audit(breaker, "balance_debited", times=2)


@_found_as(r"\d missing: domain_expired\n")
def _an_expired_name_is_not_audited(breaker: Breaker) -> None:
    _audit(breaker, "domain_expired", times=0)


def _audit(breaker: Breaker, audited: str, *, times: int) -> None:
    audit, made_up = UnitOfWork.audit, itertools.count(10**9)  # no two answers tell of one row

    def broken(
        self: UnitOfWork,
        action: str,
        resource_type: str,
        resource_id: int | None,
        account: Account | None,
        details: Details,
    ) -> int:
        given = (self, action, resource_type, resource_id, account, details)
        return [next(made_up), *(audit(*given) for _ in range(times if action == audited else 1))][-1]

    breaker.replace(UnitOfWork, "audit", broken)


@_found_as(r"\Athe first answer was Answer\(status=20[01]")
def _a_replay_is_carried_out_again(breaker: Breaker) -> None:
    find, store = idempotency.find, Session.store_answer

    def stored_answer(self: Session, *, actor: str, idempotency_key: str) -> None:
        return None

    def store_answer(self: Session, request: Request, answer: Answer, *, actor: str) -> None:
        if find(self.reading, actor=actor, idempotency_key=request.idempotency_key) is None:
            store(self, request, answer, actor=actor)

    breaker.replace(Session, "stored_answer", stored_answer)
    breaker.replace(Session, "store_answer", store_answer)


@_found_as(r"the first answer was Answer\(status=4|not 'idempotency_key_reused'|\A0 answers are stored, not 1")
def _a_refused_attempt_may_succeed_later(breaker: Breaker) -> None:
    store = Session.store_answer

    def broken(self: Session, request: Request, answer: Answer, *, actor: str) -> None:
        if answer.status < 400:
            store(self, request, answer, actor=actor)

    breaker.replace(Session, "store_answer", broken)


@_found_as(r"it is no replay\n(?s:.*)not 'idempotency_key_reused'")
def _a_key_answers_any_request(breaker: Breaker) -> None:
    def broken(request: Request, *, operation: str, body: str, status: int) -> None:
        return

    breaker.replace(unit_of_work, "check_same_request", broken)


Fits = tuple[BankNotificationStatus, Candidate | None]


@_found_as(r"answer\.(?:status is '(?:un)?matched', not 'ambiguous'|deposit_id)")
def _the_first_of_two_deposits_is_guessed(breaker: Breaker) -> None:
    def broken(
        line: PrintedName,
        meant: Sequence[Candidate],
        *,
        others_open: bool,
        in_time: Collection[int] = (),
        learned_of: Sequence[str] = (),
    ) -> Fits:
        pending = [one for one in meant if one.likeness == "same_name" and one.status == "pending"]
        if pending:
            return BankNotificationStatus.MATCHED, pending[0]
        return fitting(line, meant, others_open=others_open, in_time=in_time, learned_of=learned_of)

    breaker.replace(bank_notifications, "fitting", broken)


def _printed_as(breaker: Breaker, broken_name: Callable[[PrintedName], PrintedName]) -> None:
    def broken(
        line: PrintedName,
        meant: Sequence[Candidate],
        *,
        others_open: bool,
        in_time: Collection[int] = (),
        learned_of: Sequence[str] = (),
    ) -> Fits:
        return fitting(broken_name(line), meant, others_open=others_open, in_time=in_time, learned_of=learned_of)

    breaker.replace(bank_notifications, "fitting", broken)


@_found_as(r"answer\.status is 'unmatched', not '(?:matched|ambiguous)'")
def _a_cut_name_confirms_nothing(breaker: Breaker) -> None:
    _printed_as(breaker, lambda line: PrintedName(line.name, fills_field=False))


@_found_as(r"answer\.status is '(?:matched|ambiguous)', not 'unmatched'")
def _any_beginning_is_taken_for_a_cut_name(breaker: Breaker) -> None:
    _printed_as(breaker, lambda line: PrintedName(line.name, fills_field=True))


@_found_as(r"answer\.status is 'unmatched', not '(?:matched|ambiguous)'")
def _money_that_came_in_time_waits_once_the_deposit_has_expired(breaker: Breaker) -> None:
    def broken(
        line: PrintedName,
        meant: Sequence[Candidate],
        *,
        others_open: bool,
        in_time: Collection[int] = (),
        learned_of: Sequence[str] = (),
    ) -> Fits:
        return fitting(line, meant, others_open=others_open, learned_of=learned_of)

    breaker.replace(bank_notifications, "fitting", broken)


@_found_as(r"\Athe status is not 409")
def _money_of_the_future_is_taken(breaker: Breaker) -> None:
    def broken(occurred_at: str, now: datetime) -> None:
        return

    breaker.replace(bank_notifications, "check_not_ahead", broken)


def _meant_but(breaker: Breaker, left_out: Callable[[Candidate], bool]) -> None:
    meant = lines.meant

    def broken(
        tx: Connection, line: PrintedName, *, amount: int, since: str, until: str, occurred_at: str, open_since: str
    ) -> Meant:
        window = {"since": since, "until": until, "occurred_at": occurred_at, "open_since": open_since}
        found = meant(tx, line, amount=amount, **window)
        return Meant([one for one in found.deposits if not left_out(one)], found.names)

    breaker.replace(lines, "meant", broken)


@_found_as(r"\Aanswer\.(?:status is '\w+', not '(?:ambiguous|pending|matched)'|collision is None)")
def _a_longer_name_is_no_rival(breaker: Breaker) -> None:
    _meant_but(breaker, lambda one: one.likeness == "truncated_name")


@_found_as(r"\Aanswer\.(?:status is '\w+', not '(?:ambiguous|pending)'|collision is None)")
def _a_rivals_cancellation_frees_the_line(breaker: Breaker) -> None:
    _meant_but(breaker, lambda one: one.status == "cancelled")


@_found_as(r"\Aanswer\.(?:status|balance_before|telegram_id)")
def _a_learned_name_of_two_users_credits_one(breaker: Breaker) -> None:
    users_of = learned_names.users_of

    def broken(tx: Connection, line: PrintedName) -> list[str]:
        return users_of(tx, line)[:1]

    breaker.replace(learned_names, "users_of", broken)


@_found_as(r"\Aanswer\.(?:status|collision)")
def _what_was_taught_is_forgotten_at_once(breaker: Breaker) -> None:
    def broken(tx: Connection, line: PrintedName) -> list[str]:
        return []

    breaker.replace(learned_names, "users_of", broken)


@_found_as(r"\Aanswer\.(?:status|matched_deposit_id|collision)")
def _a_learned_name_counts_where_it_is_printed_whole_alone(breaker: Breaker) -> None:
    users_of = learned_names.users_of

    def broken(tx: Connection, line: PrintedName) -> list[str]:
        return users_of(tx, PrintedName(line.name, fills_field=False))

    breaker.replace(learned_names, "users_of", broken)


@_found_as(r"answer\.status is '(?:un)?matched', not 'ambiguous'|answer\.status is 'confirmed', not 'pending'")
def _a_line_with_an_id_credits_what_one_without_may_have_credited(breaker: Breaker) -> None:
    def broken(tx: Connection, facts: BankFacts, *, besides: int = 0) -> bool:
        return False

    breaker.replace(bank_lines, "may_be_repeated", broken)


@_found_as(r"answer\.(?:status is 'confirmed', not 'pending'|collision is None)")
def _a_freed_line_confirms_by_itself(breaker: Breaker) -> None:
    def broken(tx: Connection, notification_id: int) -> bool:
        return False

    breaker.replace(bank_notification_events, "was_freed", broken)


@_found_as(r"freed_bank_notification_id is None, not \d")
def _a_reversal_frees_no_line(breaker: Breaker) -> None:
    def broken(work: UnitOfWork, deposit_id: int, account: Account) -> int | None:
        return None

    breaker.replace(transactions, "free_line", broken)


@_found_as(r"answer\.status is 'ambiguous', not '(?:un)?matched'")
def _ones_own_deposits_are_rivals(breaker: Breaker) -> None:
    meant = lines.meant

    def broken(
        tx: Connection, line: PrintedName, *, amount: int, since: str, until: str, occurred_at: str, open_since: str
    ) -> Meant:
        window = {"since": since, "until": until, "occurred_at": occurred_at, "open_since": open_since}
        found = meant(tx, line, amount=amount, **window)
        sql = "SELECT COUNT(*) FROM deposit_transactions WHERE status = 'pending' AND amount = ? AND match_name = ?"
        if not found.deposits or tx.execute(sql, (amount, line.name)).fetchone()[0] < 2:
            return found
        rival = msgspec.structs.replace(found.deposits[0], telegram_id="another")
        return Meant([*found.deposits, rival], found.names)

    breaker.replace(lines, "meant", broken)


@_found_as(r"\Aanswer\.(?:status is 'pending', not 'confirmed'|collision is None, not \{.*)\n(?s:.*)/v1/deposits")
def _the_window_leaves_its_first_instant_out(breaker: Breaker) -> None:
    def broken(text: str, seconds: int) -> tuple[str, str]:
        since, until = around(text, seconds)
        return f"{since}.000" if "." not in since else since, until

    breaker.replace(deposits, "around", broken)


@_found_as(r"\Aanswer\.collision is None, not ")
def _no_collision_is_seen(breaker: Breaker) -> None:
    def broken(
        tx: Connection,
        *,
        amount: int,
        name: AnnouncedName,
        since: str,
        until: str,
        field_width: int,
        telegram_id: str,
    ) -> list[int]:
        return []

    breaker.replace(lines, "rivals", broken)


@_found_as(r"answer\.code is .*, not 'deposit_expired'|not 'urn:passbook:problem:deposit_expired'")
def _late_money_needs_no_word(breaker: Breaker) -> None:
    def broken(deposit_id: int, status: str, *, late: bool) -> None:
        check_confirmable(deposit_id, status, late=late or status == "expired")

    breaker.replace(deposits, "check_confirmable", broken)


@_found_as(r"\A\(\d+, \d+\) expired, not ")
def _a_hold_expires_a_day_late(breaker: Breaker) -> None:
    find_due = names.find_due

    def broken(tx: Connection, purchase_id: int, *, created_before: str) -> Any:
        day_before = (datetime.fromisoformat(created_before) - timedelta(days=1)).isoformat(" ", "milliseconds")
        return find_due(tx, purchase_id, created_before=day_before)

    breaker.replace(names, "find_due", broken)


@_found_as(r"answer\.(?:ascii_name|domain) is '[^']*', not '|not 'domain_taken'")
def _a_name_has_as_many_owners_as_spellings(breaker: Breaker) -> None:
    def broken(text: str) -> Name:
        return Name(text, text)

    breaker.replace(domain_purchases, "parse_name", broken)


@_found_as(r"\Abalance\.held is 0, not [1-9]")
def _what_is_held_is_not_told(breaker: Breaker) -> None:
    find_balance = users.find_balance

    def broken(tx: Connection, telegram_id: str) -> Balance | None:
        found = find_balance(tx, telegram_id)
        return found and msgspec.structs.replace(found, held=0)

    breaker.replace(users, "find_balance", broken)


@_found_as(r"not 'urn:passbook:problem:payment_registered'")
def _a_registered_names_price_goes_back_unasked(breaker: Breaker) -> None:
    def broken(purchase: DomainPurchase, transaction: Transaction, *, goodwill: bool) -> None:
        check_money_may_move(purchase, transaction, goodwill=True)

    breaker.replace(transactions, "check_money_may_move", broken)


@_found_as(r"status is 'expired', not 'released'")
def _a_released_name_is_told_as_expired(breaker: Breaker) -> None:
    settle = names.settle

    def broken(tx: Connection, purchase: DomainPurchase, status: DomainPurchaseStatus, *, now: str) -> None:
        released = status == DomainPurchaseStatus.RELEASED
        settle(tx, purchase, DomainPurchaseStatus.EXPIRED if released else status, now=now)

    breaker.replace(names, "settle", broken)


@_found_as(r"\Abalance\.held is [1-9]\d*, not ")
def _what_went_back_is_held_all_the_same(breaker: Breaker) -> None:
    find_balance = users.find_balance

    def broken(tx: Connection, telegram_id: str) -> Balance | None:
        found = find_balance(tx, telegram_id)
        held = "SELECT SUM(price) FROM user_domains JOIN users AS u ON u.id = user_id WHERE status = 'pending'"
        (price,) = tx.execute(f"{held} AND telegram_id = ?", (telegram_id,)).fetchone()
        return found and msgspec.structs.replace(found, held=price or 0)

    breaker.replace(users, "find_balance", broken)


@_found_as(r"\Athe status is not 4\d\d\n(?s:.*)answer\.index is missing(?s:.*)/v1/balance-changes")
def _a_batch_applies_what_it_can(breaker: Breaker) -> None:
    post = balance_changes.POST

    def broken(work: UnitOfWork, command: BalanceChangesPost, _target: int) -> Answer:
        breaker.reached.append("POST")
        return post.run(work, msgspec.structs.replace(command, atomic=False), _target)

    assert _parameters(broken) == _parameters(post.run)
    breaker.patch.setattr(balance_changes, "POST", dataclasses.replace(post, run=broken))


@_found_as(r"code is 'reference_used', not |\Athe status is not 200\n(?s:.*)\"code\":\"reference_used\"")
def _a_reference_is_everybodys(breaker: Breaker) -> None:
    find = references_taken.find_transactions

    def broken(tx: Connection, *, actor: str, references: Iterable[str]) -> Mapping[str, int]:
        asked, found = list(references), dict[str, int]()
        for caller in CALLERS:
            found |= find(tx, actor=caller, references=asked)
        return found

    breaker.replace(references_taken, "find_transactions", broken)
