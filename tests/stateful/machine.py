"""A Hypothesis state machine: requests in any order, each answered by the service and by the model, and compared."""

import itertools
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.stateful.model import (
    BALANCE_MAX,
    CANDIDATES_MAX,
    DEPOSIT_EXPIRY,
    HOLD_EXPIRY,
    MATCH_WINDOW,
    CandidateIds,
    Line,
    Logged,
    Model,
    Request,
    Thing,
    Transaction,
    User,
    differences,
    purchase_view,
    transaction_view,
)
from tests.stateful.served import CALLERS, Answer, Served, user_agent_of

NAMES = {
    "홍길동": "홍길동",
    "홍 길동": "홍길동",
    unicodedata.normalize("NFD", "홍길동"): "홍길동",
    "홍길동전자": "홍길동전자",
    "홍길": "홍길",
    "홍": "홍",
    "Hong Gil-Dong": "honggil-dong",
    "HONG GIL-DONG": "honggil-dong",
    "주식회사가나다": "주식회사가나다",
    "주식회사가나다라": "주식회사가나다라",
}
"""Depositors' names, and each as it is compared: NFC, in small letters, without spaces."""
CUT = {"주식회사가나다라": "주식회사가나다"}
"""Those that the bank cuts, and to what, which fills its field."""
AMOUNTS = (1000, 1001, 1002, 5000)
POOR = 4000
ROOM = 600
"""How far the rich user is from the limit."""
UNKNOWN_ID = 999_999_999
VERBS = {
    *("deposits/confirm", "deposits/cancel", "bank-notifications/match", "transactions/reverse"),
    *("domain-purchases/complete", "domain-purchases/release"),
}
_AUDIT_COLUMNS = (
    *("id", "user_id", "telegram_id", "action", "outcome", "resource_type", "resource_id", "details", "ip_address"),
    *("user_agent", "created_at", "actor", "request_id", "key_prefix"),
)
_SEOUL = timezone(timedelta(hours=9))

T = TypeVar("T")
_examples = itertools.count(1)

names = st.sampled_from([*["홍길동"] * 3, *sorted(NAMES)])
amounts = st.sampled_from(AMOUNTS)
places = st.integers(0, 40)
"""Which of several, counted from the newest."""
seldom = st.sampled_from([False] * 3 + [True])
mostly = st.sampled_from([True] * 3 + [False])
users = st.sampled_from([0, 0, 1, 2, 3, 4, 4, 4])
"""The first has a little money, the last one nearly all that there may be; the others are not there at first."""
callers = st.sampled_from([CALLERS[0]] * 3 + [CALLERS[1]])
notes = st.sampled_from([None, "전화로 확인"])
offsets = st.sampled_from(
    [
        *(timedelta(0), timedelta(minutes=-5), timedelta(minutes=5), timedelta(milliseconds=500)),
        *(MATCH_WINDOW, -MATCH_WINDOW, MATCH_WINDOW + timedelta(seconds=1), -MATCH_WINDOW - timedelta(seconds=1)),
    ]
)
lengths = st.sampled_from(
    [
        *(timedelta(seconds=1), timedelta(minutes=30), timedelta(hours=1), timedelta(hours=1, seconds=1)),
        *(timedelta(hours=12), timedelta(hours=24), timedelta(hours=24, milliseconds=1), timedelta(hours=25)),
    ]
)


def _acts(known: Mapping[str, object]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=4)


# In each, the newest deposit, line or purchase is meant.
DEPOSIT_ACTS: "dict[str, Callable[[LedgerMachine], None]]" = {
    "another of this name": lambda m: m.announce(3, m.model.deposits[-1].amount, m.model.deposits[-1].depositor_name),
    "asked again": lambda m: m.ask_again(0, refused=False, turned=True),
    "cancelled": lambda m: m.cancel(0, pending=False, note=None),
    "confirmed": lambda m: m.confirm(0, late=False, note=None),
    "confirmed late": lambda m: m.confirm(0, late=True, note=None),
    "expired": lambda m: m._wait(timedelta(hours=24, milliseconds=1), sweep=True),
    "heard of": lambda m: m.hear_of_a_deposit(0, 0, timedelta(0), kst=True),
    "heard of as it is printed": lambda m: m.hear_of_the_printed_name(m.model.deposits[-1]),
    "matched": lambda m: m.match_what_waits(0, 0, late=True) if m.waiting_lines() else None,
    "nearly expired": lambda m: m._wait(timedelta(hours=24), sweep=True),
    "reversed": lambda m: m.reverse(0, unmoved=False, note=None),
}
LINE_ACTS: "dict[str, Callable[[LedgerMachine, int], None]]" = {
    "announced": lambda m, user: m.announce_what_was_heard_of(user, 0, 0) if m.waiting_lines() else None,
    "announced to be less": lambda m, user: m.announce(user, 1000, m.model.lines[-1].depositor_name),
    "heard again": lambda m, _: m.hear_again(0, kst=True, other={}),
    "heard without its id": lambda m, _: m.hear_without_id(m.model.lines[-1]),
    "heard with an id": lambda m, _: m.hear_of_the_same(m.model.lines[-1]),
    "heard otherwise": lambda m, _: m.hear_again(0, kst=False, other={"amount": 7}),
    "matched": lambda m, _: m.match(0, 0, unknown=False, late=True) if m.model.deposits else None,
    "matched twice": lambda m, _: m.match_twice() if m.model.deposits else None,
    "matched by amount": lambda m, _: m.match_what_waits(0, 1, late=False) if m.waits_for_people() else None,
    "waited for to the edge": lambda m, _: m._wait_until(m.model.lines[-1].occurred_at + MATCH_WINDOW),
}
PURCHASE_ACTS: "dict[str, Callable[[LedgerMachine], None]]" = {
    "asked again": lambda m: m.ask_again(0, refused=False, turned=False),
    "bought by another": lambda m: m.buy(0, m.spelling_of(m.model.purchases[-1].domain), 1000, hold=False),
    "completed": lambda m: m.settle_purchase(0, held=False, verb="complete"),
    "expired": lambda m: m._wait(timedelta(hours=1, seconds=1), sweep=True),
    "released": lambda m: m.settle_purchase(0, held=False, verb="release"),
    "reversed": lambda m: m.reverse(0, unmoved=False, note=None),
}
PRICE_ACTS: "dict[str, Callable[[LedgerMachine], None]]" = {
    **{act: PURCHASE_ACTS[act] for act in ("completed", "expired", "released")},
    "its money moved back": lambda m: m.reverse_the_last(0, None),
    "its money moved back as goodwill": lambda m: m.reverse_the_last(0, True),
    "its money moved back as before": lambda m: m.reverse_as_before(),
}


class Mismatch(AssertionError):
    """The service and the model disagree."""


class LedgerMachine(RuleBasedStateMachine):
    """One example: users, names, bank ids and domains of its own, ten days after the last one.

    `reached` counts the codes of refusals, of all examples.
    """

    def __init__(self, service: Served, reached: Counter[str]) -> None:
        super().__init__()
        number = next(_examples)
        self.service = service
        self.reached = reached
        self.prefix = f"example-{number}"
        self.users = [f"{number}{place}" for place in range(5)]
        self.domains = _domains(number)
        service.forget_all_names()
        seeds = {self.users[0]: POOR, self.users[-1]: BALANCE_MAX - ROOM}
        self.newest_before = service.begin(seeds)
        self.model = Model(NAMES, CUT, self.domains, service.clock.now)
        for telegram_id, balance in seeds.items():
            self.model.seed(telegram_id, balance)
        self.sent: list[tuple[Request, Answer]] = []
        self.numbers = itertools.count(1)
        self.wrong = False
        self._compare_what_moved()

    # Requests.

    @rule(caller=callers, user=users, username=st.sampled_from([None, "hong", "gildong"]))
    def create_user(self, caller: str, user: int, username: str | None) -> None:
        self._post(caller, "/v1/users", telegram_id=self.users[user], username=username)

    @rule(user=users, amount=amounts, name=names)
    def announce(self, user: int, amount: int, name: str) -> None:
        self._post(CALLERS[0], "/v1/deposits", telegram_id=self.users[user], amount=amount, depositor_name=name)

    @precondition(lambda self: self.model.deposits)
    @rule(place=places, late=seldom, note=notes)
    def confirm(self, place: int, late: bool, note: str | None) -> None:
        path = f"/v1/deposits/{_pick(self.model.deposits, place).id}/confirm"
        self._post(CALLERS[0], path, late=late or None, note=note)

    @precondition(lambda self: any(deposit.status == "expired" for deposit in self.model.deposits))
    @rule(place=places, late=st.booleans())
    def confirm_what_has_expired(self, place: int, late: bool) -> None:
        deposit = _pick([deposit for deposit in self.model.deposits if deposit.status == "expired"], place)
        self._post(CALLERS[0], f"/v1/deposits/{deposit.id}/confirm", late=late or None)

    @precondition(lambda self: self.model.deposits)
    @rule(place=places, pending=mostly, note=notes)
    def cancel(self, place: int, pending: bool, note: str | None) -> None:
        waiting = [deposit for deposit in self.model.deposits if deposit.status == "pending"]
        deposit = _pick(waiting if pending and waiting else self.model.deposits, place)
        self._post(CALLERS[0], f"/v1/deposits/{deposit.id}/cancel", note=note)

    @rule(
        name=names,
        amount=amounts,
        offset=offsets,
        kst=st.booleans(),
        bank_name=st.sampled_from([None, "KB"]),
        id_told=mostly,
    )
    def hear_from_the_bank(
        self, name: str, amount: int, offset: timedelta, kst: bool, bank_name: str | None, id_told: bool
    ) -> None:
        self._notify(name, amount, self.model.now + offset, kst, bank_name, id_told=id_told)

    @precondition(lambda self: self.model.deposits)
    @rule(place=places, spelling=places, offset=offsets, kst=st.booleans())
    def hear_of_a_deposit(self, place: int, spelling: int, offset: timedelta, kst: bool) -> None:
        deposit = _pick(self.model.deposits, place)
        name = _pick([name for name, folded in NAMES.items() if folded in {deposit.folded, deposit.printed}], spelling)
        self._notify(name, deposit.amount, deposit.created_at + offset, kst, None)

    @precondition(lambda self: self.waiting_lines())
    @rule(user=users, place=places, spelling=places)
    def announce_what_was_heard_of(self, user: int, place: int, spelling: int) -> None:
        line = _pick(self.waiting_lines(), place)
        named = [n for n, folded in NAMES.items() if line.folded in {folded, CUT.get(n)}]
        self.announce(user, line.amount, _pick(named, spelling))

    @precondition(lambda self: self.model.lines)
    @rule(place=places, kst=st.booleans(), other=st.sampled_from([{}, {}, {"amount": 7}, {"bank_name": "NH"}]))
    def hear_again(self, place: int, kst: bool, other: Mapping[str, Any]) -> None:
        line = _pick(self.model.lines, place)
        body = {"depositor_name": line.depositor_name, "amount": line.amount, "bank_name": line.bank_name, **other}
        when = _spelled(line.occurred_at, kst)
        self._post(
            CALLERS[1],
            "/v1/bank-notifications",
            bank_transaction_id=None if line.derived else line.bank_transaction_id,
            occurred_at=when,
            **body,
        )

    @precondition(lambda self: self.model.lines and self.model.deposits)
    @rule(place=places, which=places, unknown=seldom, late=seldom)
    def match(self, place: int, which: int, unknown: bool, late: bool) -> None:
        """Any line with any deposit, or with what is no deposit."""
        line, deposit = _pick(self.model.lines, place), _pick(self.model.deposits, which)
        path = f"/v1/bank-notifications/{line.id}/match"
        self._post(CALLERS[0], path, deposit_id=UNKNOWN_ID if unknown else deposit.id, late=late or None)

    def match_twice(self) -> None:
        """The newest line with the newest deposit; what the first time settles, the second time refuses."""
        for _ in range(2):
            self.match(0, 0, unknown=False, late=True)

    @precondition(lambda self: self.waits_for_people())
    @rule(place=places, which=places, late=st.booleans(), remember=st.booleans())
    def match_what_waits(self, place: int, which: int, late: bool, remember: bool = False) -> None:
        """With a deposit of the amount where there is one: open, expired, confirmed by hand, or matched before."""
        line = _pick([line for line in self.model.lines if line.status != "matched"], place)
        alike = [deposit for deposit in self.model.deposits if deposit.amount == line.amount]
        deposit = _pick(alike or self.model.deposits, which)
        path = f"/v1/bank-notifications/{line.id}/match"
        self._post(CALLERS[0], path, deposit_id=deposit.id, late=late or None, remember=remember or None)

    @rule(user=users, other=users, name=names, amount=amounts, twice=seldom, cut=mostly)
    def teach(self, user: int, other: int, name: str, amount: int, twice: bool, cut: bool) -> None:
        """People say whose a printed name is; then it is printed again, cut or not, for who waits for that much."""
        for who in (user, other) if twice else (user,):
            self._notify(name, 7, self.model.now, False, None)
            self.announce(who, 7, "홍길동전자")
            line = self.model.lines[-1]
            if line.status != "matched":
                deposit = _pick(self.model.deposits, 0)
                path = f"/v1/bank-notifications/{line.id}/match"
                self._post(CALLERS[0], path, deposit_id=deposit.id, remember=True)
        self.announce(user, amount, "홍길동전자")
        self._notify(CUT.get(name, name) if cut else name, amount, self.model.now, False, None)

    @rule(user=users, amount=st.sampled_from([*AMOUNTS, -1, 0, 1]), reference=st.sampled_from([None, "order"]))
    def debit(self, user: int, amount: int, reference: str | None) -> None:
        """-1, 0 and 1 stand for all that is there, one won less and one more."""
        there = self.model.users.get(self.users[user])
        if amount in {-1, 0, 1}:
            amount = min(max(amount + (there.balance if there else 1), 1), 1_000_000_000_000)
        self._post(
            CALLERS[0], "/v1/debits", telegram_id=self.users[user], amount=amount, reason="값", reference=reference
        )

    @rule(
        caller=callers,
        changes=st.lists(
            st.tuples(users, st.sampled_from([700, 3000, -700, -3000, -4000]), st.integers(1, 12)),
            min_size=1,
            max_size=4,
        ),
        atomic=st.sampled_from([None, True, False, False]),
    )
    def change_balances(self, caller: str, changes: list[tuple[int, int, int]], atomic: bool | None) -> None:
        told = [
            {
                "telegram_id": self.users[user],
                "amount": amount,
                "reason": "bonus",
                "reference": f"{self.prefix}-{reference}",
            }
            for user, amount, reference in changes
        ]
        self._post(caller, "/v1/balance-changes", changes=told, atomic=atomic)

    @rule(user=users, place=places, price=st.sampled_from([1000, 1500, 9000]), hold=mostly)
    def buy(self, user: int, place: int, price: int, hold: bool) -> None:
        domain = _pick(list(self.domains), place)
        self._post(
            CALLERS[0],
            "/v1/domain-purchases",
            telegram_id=self.users[user],
            domain=domain,
            price=price,
            hold=hold or None,
        )

    @precondition(lambda self: self.model.purchases)
    @rule(place=places, held=mostly, verb=st.sampled_from(["complete", "release"]))
    def settle_purchase(self, place: int, held: bool, verb: str) -> None:
        all_of_them = self.model.purchases
        waiting = [purchase for purchase in all_of_them if purchase.status == "pending"]
        purchase = _pick(waiting if held and waiting else all_of_them, place)
        self._post(CALLERS[0], f"/v1/domain-purchases/{purchase.id}/{verb}")

    @rule(place=places, unmoved=seldom, note=notes)
    def reverse(self, place: int, unmoved: bool, note: str | None) -> None:
        known = self.model.transactions
        waiting = [transaction for transaction in known if transaction.status != "confirmed"]
        transaction = _pick(waiting if unmoved and waiting else known, place)
        self._post(CALLERS[0], f"/v1/transactions/{transaction.id}/reverse", note=note)

    def reverse_as_before(self) -> None:
        """The payment of a held purchase is taken back, as a Passbook did that did not ask."""
        purchase = self.model.purchases[-1]
        held = purchase.status == "pending" and not purchase.payment_reversed
        if held and purchase.user.balance + purchase.price <= BALANCE_MAX and purchase.last.id is not None:
            self.service.reverse_as_before(purchase.last.id)
            self.model.reverse_as_before(purchase.last, CALLERS[0])
            self._compare_what_moved()

    @precondition(lambda self: self.model.purchases)
    @rule(place=places, goodwill=st.sampled_from([None, True, False]))
    def reverse_the_last(self, place: int, goodwill: bool | None) -> None:
        """What ended the chain of reversals that the payment of a purchase begins."""
        last = _pick(self.model.purchases, place).last
        self._post(CALLERS[0], f"/v1/transactions/{last.id}/reverse", goodwill=goodwill)

    @rule(what=st.sampled_from(sorted(VERBS)), place=places)
    def ask_for_what_is_not_there(self, what: str, place: int) -> None:
        """An id that is nobody's; a transaction that is no deposit is not there as a deposit."""
        others = [known.id for known in self.model.transactions if known.type != "deposit" and known.id]
        missing = _pick([UNKNOWN_ID, *(others if what.startswith("deposits") else [])], place)
        body = {"deposit_id": missing} if what.endswith("match") else {}
        noun, verb = what.split("/")
        self._post(CALLERS[0], f"/v1/{noun}/{missing if noun == 'deposits' else UNKNOWN_ID}/{verb}", **body)

    # Several in a row about one thing: what a random walk over all rules would seldom come by.

    @rule(user=users, amount=amounts, name=names, acts=_acts(DEPOSIT_ACTS))
    def story_of_a_deposit(self, user: int, amount: int, name: str, acts: list[str]) -> None:
        self.announce(user, amount, name)
        for act in acts:
            DEPOSIT_ACTS[act](self)

    @rule(user=users, amount=amounts, name=names, offset=offsets, acts=_acts(LINE_ACTS))
    def story_of_a_line(self, user: int, amount: int, name: str, offset: timedelta, acts: list[str]) -> None:
        self._notify(name, amount, self.model.now + offset, kst=False, bank_name="KB")
        for act in acts if self.model.lines else []:  # it may be refused as one of the future
            LINE_ACTS[act](self, user)

    @rule(user=users, place=places, price=st.sampled_from([1000, 1500]), hold=mostly, acts=_acts(PURCHASE_ACTS))
    def story_of_a_purchase(self, user: int, place: int, price: int, hold: bool, acts: list[str]) -> None:
        self.buy(user, place, price, hold)
        for act in acts:
            if self.model.purchases:
                PURCHASE_ACTS[act](self)

    @rule(user=users, place=places, earlier=st.booleans(), acts=_acts(PRICE_ACTS))
    def story_of_a_price(self, user: int, place: int, earlier: bool, acts: list[str]) -> None:
        self.buy(0 if user < len(self.users) - 1 else user, place, 1000, hold=True)
        for act in [*(["its money moved back as before"] * earlier), *acts]:
            if self.model.purchases:
                PRICE_ACTS[act](self)

    # Requests that were made before.

    @precondition(lambda self: self.sent)
    @rule(place=places, refused=st.booleans(), turned=st.booleans())
    def ask_again(self, place: int, refused: bool, turned: bool) -> None:
        """The same request: its members may stand in another order."""
        sent = [(request, answer) for request, answer in self.sent if refused == (answer.status >= 400)]
        before, first = _pick(sent or self.sent, place)
        self._send(Request(before.caller, before.key, before.path, before.body, self._next()), turned=turned)
        assert first.status < 500

    @precondition(lambda self: self.sent)
    @rule(place=places, caller=callers, other=st.sampled_from(["body", "body", "id", "path"]), which=places)
    def ask_otherwise_under_the_same_key(self, place: int, caller: str, other: str, which: int) -> None:
        """Another body, id or path under a key that is used up; one that another caller used is new to this one."""
        before, _ = _pick(self.sent, place)
        path, body = before.path, before.body
        if other == "path":
            path, body = "/v1/users", {"telegram_id": self.users[1]}
        elif other == "id" and before.path.count("/") > 2:
            path = self._with_another_id(before.path, which)
        else:
            body = _otherwise(before)
        self._send(Request(caller, before.key, path, body, self._next()))

    def _with_another_id(self, path: str, which: int) -> str:
        """The same act upon another thing of the kind; upon what is not there, where there is no other."""
        _, _, noun, target, verb = path.split("/")
        of_kind: Mapping[str, Sequence[Thing]] = {
            "bank-notifications": self.model.lines,
            "deposits": self.model.deposits,
            "domain-purchases": self.model.purchases,
            "transactions": self.model.transactions,
        }
        others = [one.id for one in of_kind[noun] if one.id is not None and str(one.id) != target]
        return f"/v1/{noun}/{_pick(others or [UNKNOWN_ID], which)}/{verb}"

    # Time.

    @rule(length=lengths, sweep=mostly)
    def time_passes(self, length: timedelta, sweep: bool) -> None:
        self._wait(length, sweep)

    @rule(place=places, past=st.booleans(), sweep=mostly)
    def time_passes_to_the_edge(self, place: int, past: bool, sweep: bool) -> None:
        """To the very instant at which something that waits is as old as it may be, or a millisecond further."""
        edges = {
            *(line.occurred_at + MATCH_WINDOW for line in self.model.lines if line.status == "unmatched"),
            *(known.created_at + DEPOSIT_EXPIRY for known in self.model.deposits if known.status == "pending"),
            *(known.created_at + HOLD_EXPIRY for known in self.model.purchases if known.status == "pending"),
        }
        left = sorted(edge - self.model.now for edge in edges if edge > self.model.now)
        if left:
            self._wait(_pick(left, place) + timedelta(milliseconds=past), sweep)

    # What must be so after each request.

    def _compare_balances(self) -> None:
        for telegram_id, user in self.model.users.items():
            held = self.model.held(user)
            told = {"telegram_id": telegram_id, "balance": user.balance, "held": held, "version": user.version}
            self._same(told, self.service.get(f"/v1/users/{telegram_id}/balance"), "balance")

    def _compare_what_moved(self) -> None:
        self._compare_balances()
        for telegram_id in self.model.touched:
            self._compare_transactions(telegram_id)

    def teardown(self) -> None:
        """Everything that waits expires; then all that is there is compared, and every row of the audit log."""
        if self.wrong or self.service.failed:
            return
        self._end_with_what_is_seldom_met()
        self._wait(timedelta(days=3), sweep=True)
        self._compare_balances()
        for telegram_id in set(self.users) - self.model.users.keys():
            self._same({"code": "user_not_found"}, self.service.get(f"/v1/users/{telegram_id}/balance"), "no user")
        for telegram_id in self.model.users:
            self._compare_transactions(telegram_id)
            self._compare_lists(telegram_id)
        for line in self.model.lines:
            self._same(self.model.line_view(line), self.service.get(f"/v1/bank-notifications/{line.id}"), "line")
        for things in (self.model.transactions, self.model.lines, self.model.purchases, self.model.logged):
            ids = [thing.id for thing in things if thing.id is not None]
            self._check([] if len(set(ids)) == len(ids) else [f"an id was given twice: {ids}"], "ids")
        self._compare_audit_logs()

    def _end_with_what_is_seldom_met(self) -> None:
        """Refusals that few walks come by: every example meets them, however many rules there are."""
        self._post(CALLERS[0], f"/v1/transactions/{UNKNOWN_ID}/reverse")
        change = {
            "telegram_id": self.users[0],
            "amount": 700,
            "reason": "bonus",
            "reference": f"{self.prefix}-of-each-caller",
        }
        self._post(CALLERS[0], "/v1/balance-changes", changes=[change, change], atomic=False)
        for caller in CALLERS:
            self._post(caller, "/v1/balance-changes", changes=[change])

    # How it is asked and compared.

    def waiting_lines(self) -> list[Line]:
        """Those that no deposit fitted."""
        return [line for line in self.model.lines if line.status == "unmatched"]

    def waits_for_people(self) -> bool:
        """Whether there is a line to match, and a deposit."""
        return bool(self.model.deposits) and any(line.status != "matched" for line in self.model.lines)

    def spelling_of(self, domain: str) -> int:
        """The place of the last spelling of a name."""
        spellings = list(self.domains)
        last = max(place for place, spelling in enumerate(spellings) if self.domains[spelling][0] == domain)
        return len(spellings) - 1 - last

    def _post(self, caller: str, path: str, **body: Any) -> None:
        given = {name: value for name, value in body.items() if value is not None}
        request_id = self._next()
        self._send(Request(caller, f"{request_id}-key", path, given, request_id))

    def _send(self, request: Request, *, turned: bool = False) -> None:
        expected = self.model.post(request)
        body = dict(reversed(request.body.items())) if turned else dict(request.body)
        answer = self.service.post(request.caller, request.key, request.path, json.dumps(body), request.request_id)
        what = f"{request} answered {answer.status} {answer.body!r}"
        replayed = answer.headers.get("idempotency-replayed")
        if expected.replay:
            first = next(a for r, a in self.sent if (r.caller, r.key) == (request.caller, request.key))
            location = answer.headers.get("location")
            same = (answer.status, answer.body, location) == (first.status, first.body, first.headers.get("location"))
            self._check([] if same and replayed == "true" else [f"the first answer was {first}"], what)
            self._compare_what_moved()
            return
        members = expected.members
        if expected.status >= 400:
            members = {**members, "request_id": request.request_id, "type": f"urn:passbook:problem:{members['code']}"}
            self.reached[members["code"]] += 1
        self.reached.update(result["code"] for result in members.get("results", []) if result["status"] == "refused")
        found = [] if answer.status == expected.status else [f"the status is not {expected.status}"]
        found += [] if replayed is None else ["it is no replay"]
        self._check([*found, *differences(members, answer.json())], what)
        if members.get("code") != "idempotency_key_reused":
            self.sent.append((request, answer))
        self._compare_what_moved()

    def hear_without_id(self, line: Line) -> None:
        """The newest line again, as a watcher tells of it that has no id, and another spelling."""
        name = next(name for name in NAMES if NAMES[name] == line.folded)
        self._notify(name, line.amount, line.occurred_at, kst=True, bank_name=None, id_told=False)

    def hear_of_the_same(self, line: Line) -> None:
        """The newest line again, under an id of its own."""
        self._notify(line.depositor_name, line.amount, line.occurred_at, kst=False, bank_name=None)

    def hear_of_the_printed_name(self, deposit: Transaction) -> None:
        """Cut to the bank's field where it is longer."""
        name = deposit.depositor_name or ""
        self._notify(CUT.get(name, name), deposit.amount, deposit.created_at, kst=False, bank_name=None)

    def _notify(
        self, name: str, amount: int, at: datetime, kst: bool, bank_name: str | None, *, id_told: bool = True
    ) -> None:
        self._post(
            CALLERS[1],
            "/v1/bank-notifications",
            bank_transaction_id=f"{self.prefix}-{len(self.model.lines)}" if id_told else None,
            depositor_name=name,
            amount=amount,
            occurred_at=_spelled(at, kst),
            bank_name=bank_name,
        )

    def _wait(self, length: timedelta, sweep: bool) -> None:
        self.service.clock.now += length
        self.model.now = self.service.clock.now
        self.model.touched.clear()
        if sweep:
            self._sweep()
            self._compare_what_moved()

    def _wait_until(self, instant: datetime) -> None:
        if instant > self.model.now:
            self._wait(instant - self.model.now, sweep=False)

    def _sweep(self) -> None:
        expected, found = self.model.sweep(), self.service.sweep()
        self._check([] if expected == found else [f"{found} expired, not {expected}"], "sweep")

    def _compare_transactions(self, telegram_id: str) -> None:
        user = self.model.users[telegram_id]
        expected = [transaction_view(transaction) for transaction in reversed(user.transactions)]
        answer = self.service.get(f"/v1/users/{telegram_id}/transactions?limit=1000")
        self._same({"items": expected, "next_cursor": None}, answer, f"transactions of {telegram_id}")

    def _compare_lists(self, telegram_id: str) -> None:
        deposits = [
            self.model.deposit_view(d) for d in reversed(self.model.deposits) if d.user.telegram_id == telegram_id
        ]
        purchases = [purchase_view(p) for p in reversed(self.model.purchases) if p.user.telegram_id == telegram_id]
        for noun, expected in (("deposits", deposits), ("domain-purchases", purchases)):
            answer = self.service.get(f"/v1/{noun}?telegram_id={telegram_id}&limit=1000")
            self._same({"items": expected}, answer, f"{noun} of {telegram_id}")

    def _compare_audit_logs(self) -> None:
        """One row for every change and every refusal, none for a replay; each whole, and in the order of the ledger."""
        columns = ", ".join(_AUDIT_COLUMNS)
        found = [
            dict(zip(_AUDIT_COLUMNS, row, strict=True))
            for row in self.service.rows(
                f"SELECT {columns} FROM audit_logs WHERE id > ? ORDER BY id", self.newest_before
            )
        ]
        user_ids = dict(self.service.rows("SELECT telegram_id, id FROM users"))
        digests = self._answer_digests()
        wrong = [] if len(found) == len(self.model.logged) else [f"{len(found)} rows, not {len(self.model.logged)}"]
        there, wanted = (
            Counter(action)
            for action in ((row["action"] for row in found), (logged.action for logged in self.model.logged))
        )
        wrong += [f"{count} too many: {action}" for action, count in (there - wanted).items()]
        wrong += [f"{count} missing: {action}" for action, count in (wanted - there).items()]
        for row, logged in zip(found, self.model.logged, strict=False):
            expected = self._expected_row(logged, user_ids)
            details = json.loads(row.pop("details"))
            told_digest = details.pop("answer_sha256", None)
            wrong += differences(expected, {**row, "details": details}, f"audit row {row['id']} ({row['action']})")
            wrong += [f"audit row {row['id']} tells {name} too" for name in details.keys() - logged.details.keys()]
            if told_digest != digests.get(row["id"]):
                wrong.append(f"audit row {row['id']} tells {told_digest} of its answer, not {digests.get(row['id'])}")
        for extra in (found[len(self.model.logged) :], self.model.logged[len(found) :]):
            wrong += [f"there alone: {row}" for row in extra]
        self._check(wrong, "audit log")

    def _expected_row(self, logged: Logged, user_ids: Mapping[str, int]) -> dict[str, Any]:
        resource = logged.resource
        if isinstance(resource, User):
            resource = user_ids[resource.telegram_id]
        same_name = logged.details.get("candidate_deposit_ids")
        details = dict(logged.details)
        if isinstance(same_name, CandidateIds):
            details["candidate_deposit_ids"] = _ids_in_order(same_name)
        return {
            "id": logged,
            "user_id": user_ids[logged.user.telegram_id] if logged.user else None,
            "telegram_id": logged.telegram_id,
            "action": logged.action,
            "outcome": "failure" if logged.action.endswith("_failed") else "success",
            "resource_type": logged.resource_type,
            "resource_id": resource,
            "details": details,
            "ip_address": "127.0.0.1" if logged.of_request else None,
            "user_agent": user_agent_of(logged.request_id) if logged.request_id else None,
            "created_at": logged.created_at.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds"),
            "actor": logged.actor,
            "request_id": logged.request_id,
            "key_prefix": self.service.key_prefix_of(logged.actor) if logged.of_request else None,
        }

    def _answer_digests(self) -> dict[int, str]:
        """The id of the last audit row of each request -> the digest of its answer, as docs/audit-log tells it."""
        newest = (
            "SELECT request_id, MAX(id) FROM audit_logs WHERE id > ? AND request_id IS NOT NULL GROUP BY request_id"
        )
        last_rows = dict(self.service.rows(newest, self.newest_before))
        digests = {}
        for request, _ in self.sent:
            stored = self.service.rows(
                "SELECT operation, request, status, location, body FROM idempotency_answers"
                " WHERE actor = ? AND idempotency_key = ?",
                request.caller,
                request.key,
            )
            if len(stored) != 1:
                self._check([f"{len(stored)} answers are stored, not 1"], f"stored answer of {request}")
            if request.request_id in last_rows:
                operation, asked, status, location, body = stored[0]
                head = f"{request.key}\n{operation}\n{asked}\n{status}\n{location or ''}\n"
                digests[last_rows[request.request_id]] = sha256(head.encode() + body).hexdigest()
        return digests

    def _same(self, expected: dict[str, Any], answer: Answer, what: str) -> None:
        self._check(list(differences(expected, answer.json(), what)), f"{answer.status} {answer.body!r}")

    def _check(self, wrong: Sequence[str], what: str) -> None:
        if wrong:
            self.wrong = True
            raise Mismatch("\n".join([*wrong, what]))

    def _next(self) -> str:
        return f"{self.prefix}-{next(self.numbers)}"


def _pick(things: Sequence[T], place: int) -> T:
    return things[-1 - place % len(things)]


def _ids_in_order(candidates: CandidateIds) -> list[int | None]:
    ordered = [sorted((one.id for one in group), key=lambda one: one or 0) for group in candidates.alike]
    return [one for group in ordered for one in group][:CANDIDATES_MAX]


def _spelled(instant: datetime, kst: bool) -> str:
    """The instant in RFC 3339, as Seoul's time or as UTC."""
    instant = instant.replace(microsecond=instant.microsecond // 1000 * 1000)
    return instant.astimezone(_SEOUL).isoformat() if kst else instant.replace(tzinfo=None).isoformat() + "Z"


def _otherwise(before: Request) -> dict[str, Any]:
    """The body of a request, with one member changed."""
    body = dict(before.body)
    if "deposit_id" in body:
        return {**body, "deposit_id": body["deposit_id"] + 1}  # one of this example, or nobody's
    for name in ("amount", "price"):
        if name in body:
            return {**body, name: body[name] % 1000 + 1}
    if "changes" in body:
        first = body["changes"][0]
        return {
            **body,
            "changes": [*body["changes"], {**first, "reference": f"{first['reference']}-more", "amount": 1}],
        }
    if before.path == "/v1/users":
        return {**body, "username": f"{body.get('username', '')}x"}
    return {**body, "note": f"{body.get('note', '')}."}


def _domains(number: int) -> dict[str, tuple[str, str]]:
    """Spellings of four names, each with the name as people read it and as the DNS knows it."""
    korean, german = f"한글{number}", f"straße{number}"
    korean_ascii = f"xn--{korean.encode('punycode').decode()}.kr"
    german_ascii = f"xn--{german.encode('punycode').decode()}.de"
    spellings = {
        (f"{korean}.kr", korean_ascii): (
            f"{korean}.kr",
            unicodedata.normalize("NFD", f"{korean}.kr"),
            f"{korean}。KR",
            korean_ascii,
            korean_ascii.upper(),
        ),
        (f"{german}.de", german_ascii): (f"{german}.de", f"STRAßE{number}.de", german_ascii),
        (f"strasse{number}.de", f"strasse{number}.de"): (f"strasse{number}.de", f"Strasse{number}.DE."),
        (f"shop{number}.com", f"shop{number}.com"): (f"shop{number}.com", f"ＳＨＯＰ{number}.com"),
    }
    return {spelling: name for name, many in spellings.items() for spelling in many}
