"""The ledger as its documents tell of it, in plain Python: what a request answers, moves, and leaves on record.

Nothing of the service is imported; its constants are stated again. `Model.post` takes a request as it goes over HTTP
and returns what the answer must say. Where an answer must name a thing whose id only the service can choose, the
expected value is that thing: it learns its id from the first answer that tells it, and every later one must agree.
"""

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

BALANCE_MAX = 9_007_199_254_740_991
AMOUNT_MAX = 1_000_000_000_000
MATCH_WINDOW = timedelta(hours=24)
AHEAD_MAX = timedelta(minutes=5)
DEPOSIT_EXPIRY = timedelta(hours=24)
HOLD_EXPIRY = timedelta(hours=1)
NEARBY_MAX = 100
CUT_NAME_MIN = 2
CANDIDATES_MAX = 10
TOLD_MAX = 100
KOREA_AHEAD = timedelta(hours=9)
SWEEPER = "system:expiry"


@dataclass(eq=False)
class Thing:
    """What the service gives an id; None until an answer has told it."""

    id: int | None = field(default=None, kw_only=True)


@dataclass(eq=False)
class User:
    """A user and the account: its balance in won, how often it moved, and its transactions, oldest first."""

    telegram_id: str
    username: str | None = None
    balance: int = 0
    version: int = 0
    transactions: "list[Transaction]" = field(default_factory=list)
    learned: set[str] = field(default_factory=set)
    """The printed names that people taught to be the user's, as they are compared."""


@dataclass(eq=False)
class Transaction(Thing):
    """A line of the passbook. `line`: the bank's, if matched.

    `folded`: the depositor's name as it is compared; `printed`: the shortest that the bank prints for it.
    """

    user: User
    type: str
    direction: str
    amount: int
    created_at: datetime
    status: str = "pending"
    depositor_name: str | None = None
    folded: str | None = None
    printed: str | None = None
    cancelled_at: datetime | None = None
    description: str | None = None
    reference: str | None = None
    confirmed_at: datetime | None = None
    balance_before: int | None = None
    balance_after: int | None = None
    version: int | None = None
    reverses: "Transaction | None" = None
    reversed_by: "Transaction | None" = None
    line: "Line | None" = None
    freed: bool = False
    """Whether it had a line that its reversal freed."""

    @property
    def chain_length(self) -> int:
        """How many reversals follow it, each of the one before."""
        return 1 + self.reversed_by.chain_length if self.reversed_by else 0

    @property
    def shown_status(self) -> str:
        """The status as the API shows it."""
        return "reversed" if self.reversed_by else self.status


@dataclass(eq=False)
class Line(Thing):
    """What the bank said arrived. `full`: the name fills the bank's field, so that it may have been cut.

    derived: its id is made of what it says; told: what was said of it since, member by member. freed: a deposit that it
    was matched with was taken back. taught: the names that it taught of that deposit's user.
    """

    bank_transaction_id: str
    depositor_name: str
    folded: str
    full: bool
    amount: int
    occurred_at: datetime
    bank_name: str | None
    created_at: datetime
    status: str = "unmatched"
    deposit: Transaction | None = None
    method: str | None = None
    matched_by: str | None = None
    matched_at: datetime | None = None
    derived: bool = False
    told: list[dict[str, Any]] = field(default_factory=list)
    freed: bool = False
    taught: "list[tuple[Thing, str]]" = field(default_factory=list)

    def said(self, member: str) -> list[Any]:
        """All that was said of it under this name, the first first."""
        every = [getattr(self, member), *(added.get(member) for added in self.told)]
        return [one for one in every if one is not None]

    def may_repeat(self, other: "Line") -> bool:
        """Whether both may tell of one transfer, and nobody can say so: one of them has no id of the bank's."""
        return (
            (self.derived or other.derived)
            and (self.amount, self.folded) == (other.amount, other.folded)
            and _minute(self.occurred_at) == _minute(other.occurred_at)
        )

    def prints(self, name: str) -> bool:
        """Whether it prints this name, whole or cut by the bank's field."""
        return self.folded == name or (self.full and name.startswith(self.folded))


@dataclass(eq=False)
class Purchase(Thing):
    """A domain name taken up: held while pending."""

    user: User
    domain: str
    ascii_name: str
    price: int
    status: str
    payment: Transaction
    created_at: datetime
    registered_at: datetime | None

    @property
    def last(self) -> Transaction:
        """Where the price is: what ended the chain of reversals that the payment begins."""
        last = self.payment
        while last.reversed_by is not None:
            last = last.reversed_by
        return last

    @property
    def payment_reversed(self) -> bool:
        """Whether the user has the price back."""
        return self.last.direction == "credit"


@dataclass(eq=False)
class Logged(Thing):
    """A row of the audit log. `resource` is a thing, a user, an id, or None.

    user: whose account it is about, where there is such a user; telegram_id: who was named. actor, request_id: who
    acted, and by which request; `of_request` is false for what no request did. details: the members, all of them.
    """

    action: str
    resource_type: str
    resource: "Thing | User | int | None"
    user: "User | None"
    telegram_id: str | None
    actor: str
    request_id: str | None
    created_at: datetime
    details: Mapping[str, Any]
    of_request: bool = True


@dataclass(frozen=True)
class CandidateIds:
    """The ids of candidates, by likeness: the likeliest first, of each the oldest first, CANDIDATES_MAX in all."""

    alike: list[list[Transaction]]


@dataclass(frozen=True)
class Candidates:
    """The candidates of a line, by likeness; of each the oldest first, CANDIDATES_MAX in all."""

    alike: list[list[dict[str, Any]]]

    def listed(self) -> list[dict[str, Any]]:
        """Those that are shown."""
        ordered = [sorted(group, key=lambda one: one["deposit_id"].id or 0) for group in self.alike]
        return [one for group in ordered for one in group][:CANDIDATES_MAX]


@dataclass(frozen=True)
class Request:
    """A write as it goes over HTTP; `caller` is the name of its API key."""

    caller: str
    key: str
    path: str
    body: Mapping[str, Any]
    request_id: str


@dataclass(frozen=True)
class Expected:
    """What the answer must be: its status and members that it has. A replay has the bytes of the first answer."""

    status: int
    members: dict[str, Any]
    replay: bool = False


class Refused(Exception):
    """The request is refused: by what code, and with what facts."""

    def __init__(self, code: str, **members: Any) -> None:
        super().__init__(code)
        self.code = code
        self.members = members

    def told(self) -> dict[str, Any]:
        """What the audit log says of it, beside what was asked for."""
        return {"code": self.code, **self.members}

    def expected(self) -> Expected:
        """The problem document: what is not there is 404, what the ledger holds otherwise 409."""
        status = 404 if self.code.endswith("_not_found") else 409
        return Expected(status, {"status": status, "code": self.code, **self.members})


@dataclass
class Model:
    """All that the ledger holds of one example. `folded`, `cut` and `domains` say what the spellings in use mean.

    `folded`: depositor's name -> that name as it is compared; `cut`: those of the names that the bank cuts -> to what;
    `domains`: spelling -> (readable name, ASCII name).
    """

    folded: Mapping[str, str]
    cut: Mapping[str, str]
    domains: Mapping[str, tuple[str, str]]
    now: datetime
    users: dict[str, User] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    purchases: list[Purchase] = field(default_factory=list)
    logged: list[Logged] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    """Whose transactions the last change was about."""
    _order: list[Transaction] = field(default_factory=list)
    _answered: dict[tuple[str, str], tuple[str, Mapping[str, Any], int]] = field(default_factory=dict)
    _references: dict[tuple[str, str], Transaction] = field(default_factory=dict)
    _request: Request | None = None
    _about: tuple[Thing | int | None, str | None] = (None, None)

    # What there is.

    @property
    def transactions(self) -> list[Transaction]:
        """Every transaction, oldest first."""
        return self._order

    @property
    def deposits(self) -> list[Transaction]:
        """Every deposit, oldest first."""
        return [transaction for transaction in self._order if transaction.type == "deposit"]

    def held(self, user: User) -> int:
        """The price of what the user holds and has paid for."""
        return sum(
            p.price for p in self.purchases if p.user is user and p.status == "pending" and not p.payment_reversed
        )

    def seed(self, telegram_id: str, balance: int) -> None:
        """A user who had `balance` won before the example, by one opening entry."""
        user = self.users[telegram_id] = User(telegram_id)
        self._move(user, "opening_credit", "credit", balance, description="seed")

    # What is asked for.

    def post(self, request: Request) -> Expected:
        """What the service must answer to `request` now; what it does is done here too."""
        self.touched.clear()
        earlier = self._answered.get((request.caller, request.key))
        if earlier is not None:
            return self._again(request, *earlier)
        operation, resource_type, run = self._route(request.path)
        self._request, self._about = request, (None, None)
        try:
            expected = run(request.body)
        except Refused as refused:
            expected = refused.expected()
            asked = {name: value for name, value in request.body.items() if isinstance(value, str | int)}
            self._log(f"{operation}_failed", resource_type, *self._about, {**asked, **refused.told()})
        self._answered[request.caller, request.key] = (request.path, request.body, expected.status)
        self._request = None
        return expected

    def sweep(self) -> tuple[int, int]:
        """Lets everything expire that has waited longer than it may: how many deposits, how many purchases."""
        self.touched.clear()
        deposits = [d for d in self.deposits if d.status == "pending" and d.created_at < self.now - DEPOSIT_EXPIRY]
        for deposit in deposits:
            deposit.status = "expired"
            self.touched.add(deposit.user.telegram_id)
            self._log(
                "deposit_expired",
                "deposit_transaction",
                deposit,
                deposit.user.telegram_id,
                {
                    "amount": deposit.amount,
                    "depositor_name": deposit.depositor_name,
                    "announced_at": deposit.created_at,
                },
            )
        purchases = 0
        for purchase in self.purchases:
            if purchase.status == "pending" and purchase.created_at < self.now - HOLD_EXPIRY:
                try:
                    self._give_back(purchase, "expired", note=None)
                except Refused:
                    continue  # it would exceed the limit, and stays held
                purchases += 1
        return len(deposits), purchases

    def _again(self, request: Request, path: str, body: Mapping[str, Any], status: int) -> Expected:
        if path != request.path:
            return Refused("idempotency_key_reused", differing_fields=["path"]).expected()
        differing = sorted(name for name in {*body, *request.body} if body.get(name) != request.body.get(name))
        if differing:
            return Refused("idempotency_key_reused", differing_fields=differing).expected()
        return Expected(status, {}, replay=True)

    def _route(self, path: str) -> tuple[str, str, Callable[[Mapping[str, Any]], Expected]]:
        """The operation's name in the audit log, what kind of thing it is about, and what it does."""
        _, _, noun, *rest = path.split("/")
        if not rest:
            return {
                "users": ("user_create", "user", self._create_user),
                "deposits": ("deposit_announce", "deposit_transaction", self._announce),
                "bank-notifications": ("bank_notification_receive", "bank_notification", self._receive),
                "debits": ("debit", "deposit_transaction", self._debit),
                "balance-changes": ("balance_change", "deposit_transaction", self._change_balances),
                "domain-purchases": ("domain_purchase", "user_domains", self._buy),
            }[noun]
        target, verb = int(rest[0]), rest[1]
        operation, resource_type, run = {
            ("deposits", "confirm"): ("deposit_confirm", "deposit_transaction", self._confirm),
            ("deposits", "cancel"): ("deposit_cancel", "deposit_transaction", self._cancel),
            ("bank-notifications", "match"): ("bank_notification_match", "bank_notification", self._match),
            ("domain-purchases", "complete"): ("domain_complete", "user_domains", self._complete),
            ("domain-purchases", "release"): ("domain_release", "user_domains", self._release),
            ("transactions", "reverse"): ("transaction_reverse", "deposit_transaction", self._reverse),
        }[noun, verb]
        return operation, resource_type, lambda body: run(target, body)

    # Users.

    def _create_user(self, body: Mapping[str, Any]) -> Expected:
        user, username = self.users.get(body["telegram_id"]), body.get("username")
        log, status = None, 200
        if user is None:
            user, status = self._open(body["telegram_id"], username), 201
            log = self.logged[-1]
        elif username is not None and username != user.username:
            renamed = {"username_before": user.username, "username_after": username}
            user.username = username
            log = self._log("user_renamed", "user", user, user.telegram_id, renamed)
        return Expected(
            status,
            {
                "telegram_id": user.telegram_id,
                "username": user.username,
                "audit_log_id": log,
                **_unmoved(user),
            },
        )

    def _open(self, telegram_id: str, username: str | None = None) -> User:
        user = self.users[telegram_id] = User(telegram_id, username)
        self._log("user_created", "user", user, telegram_id, {"username": username})
        return user

    # Deposits.

    def _announce(self, body: Mapping[str, Any]) -> Expected:
        name, amount = body["depositor_name"], body["amount"]
        folded = self.folded[name]
        user = self.users.get(body["telegram_id"]) or self._open(body["telegram_id"])
        printed = self.cut.get(name, folded)
        deposit = Transaction(
            user, "deposit", "credit", amount, self.now, depositor_name=name, folded=folded, printed=printed
        )
        rivals = [
            other
            for other in self._open_deposits(amount, self.now)
            if _may_be_printed_alike(deposit, other) and (other.user is not user or other.status == "confirmed")
        ]
        lines = self._open_lines(deposit, self.now)
        fits = (
            len(lines) == 1
            and lines[0].status == "unmatched"
            and not lines[0].freed
            and not any(lines[0].may_repeat(other) for other in self.lines if other is not lines[0])
            and self._judge(lines[0], deposit)[1] is deposit
        )
        collision = None
        if not fits and (rivals or lines):
            quiet = (other for other in _nearby(amount) if self._is_quiet(other, deposit))
            collision = {"suggested_amount": next(quiet, None)}
        self._keep(deposit)
        told = {"amount": amount, "depositor_name": name}
        log = self._log("deposit_announced", "deposit_transaction", deposit, user.telegram_id, told)
        balances = _unmoved(user)
        if fits and user.balance + amount <= BALANCE_MAX:
            balances = self._settle(lines[0], deposit, "automatic", note=None)
            log = self.logged[-1]
            told = {"matched_deposit_id": deposit, "method": "automatic", "amount": amount}
            self._log("bank_notification_matched", "bank_notification", lines[0], user.telegram_id, told)
        return Expected(201, {**self.deposit_view(deposit), **balances, "audit_log_id": log, "collision": collision})

    def _confirm(self, deposit_id: int, body: Mapping[str, Any]) -> Expected:
        deposit = self._find_deposit(deposit_id)
        _check_confirmable(deposit, late=body.get("late", False))
        _check_room(deposit.user, deposit.amount)
        balances = self._credit(deposit, line=None, note=body.get("note"))
        return Expected(200, {**self.deposit_view(deposit), **balances, "audit_log_id": self.logged[-1]})

    def _cancel(self, deposit_id: int, body: Mapping[str, Any]) -> Expected:
        deposit = self._find_deposit(deposit_id)
        if deposit.status != "pending":
            raise Refused("deposit_not_pending", current_status=deposit.shown_status)
        deposit.status, deposit.cancelled_at = "cancelled", self.now
        self.touched.add(deposit.user.telegram_id)
        told = {"amount": deposit.amount, "depositor_name": deposit.depositor_name, "note": body.get("note")}
        log = self._log("deposit_cancelled", "deposit_transaction", deposit, deposit.user.telegram_id, told)
        return Expected(200, {**self.deposit_view(deposit), **_unmoved(deposit.user), "audit_log_id": log})

    def _find_deposit(self, deposit_id: int) -> Transaction:
        self._about = (deposit_id, None)
        deposit = next((d for d in self.deposits if d.id == deposit_id), None)
        if deposit is None:
            raise Refused("deposit_not_found")
        self._about = (deposit_id, deposit.user.telegram_id)
        return deposit

    def _credit(self, deposit: Transaction, *, line: Line | None, note: str | None) -> dict[str, Any]:
        """Confirms the deposit; the members of the answer that tell of the balance."""
        user, late = deposit.user, deposit.status == "expired"
        deposit.status, deposit.confirmed_at = "confirmed", self.now
        balances = self._continue(user, deposit)
        told = {
            "amount": deposit.amount,
            "depositor_name": deposit.depositor_name,
            "matched_bank_notification_id": line,
            **balances,
            "late": late,
            "note": note,
        }
        self._log("deposit_confirmed", "deposit_transaction", deposit, user.telegram_id, told)
        return balances

    # What the bank says.

    def _receive(self, body: Mapping[str, Any]) -> Expected:
        occurred_at = datetime.fromisoformat(body["occurred_at"]).astimezone(UTC)
        name, amount, bank_name = body["depositor_name"], body["amount"], body.get("bank_name")
        bank_id, folded = body.get("bank_transaction_id"), self.folded[name]
        full = folded in self.cut.values()
        new = Line(bank_id or "", name, folded, full, amount, occurred_at, bank_name, self.now, derived=bank_id is None)
        if bank_id is None:
            new.bank_transaction_id = _derived_id(new)
            same = [known for known in self.lines if new.may_repeat(known)]
        else:
            same = [known for known in self.lines if known.bank_transaction_id == bank_id]
        if same:
            return self._told_again(same[0], new, may_be_other=bank_id is not None)
        if occurred_at - self.now > AHEAD_MAX:
            raise Refused("occurred_ahead", ahead_s=(occurred_at - self.now) // timedelta(seconds=1))
        line = new
        alike = self._may_be_for(line)
        ambiguous, fits = self._judge(line)
        if any(map(line.may_repeat, self.lines)):
            ambiguous, fits = True, None
        self.lines.append(line)
        if fits is not None and fits.user.balance + amount > BALANCE_MAX:
            fits = None
        if ambiguous:
            line.status = "ambiguous"
        telegram_id = fits.user.telegram_id if fits else None
        told = {
            "bank_transaction_id": line.bank_transaction_id,
            "depositor_name": name,
            "amount": amount,
            "occurred_at": body["occurred_at"],
            "bank_name": bank_name,
            "account": None,
            "bank_balance_after": None,
            "raw_message_sha256": None,
            "status": "matched" if fits else line.status,
            "matched_deposit_id": fits,
            "candidate_deposit_ids": CandidateIds([*alike.values()]),
        }
        log = self._log("bank_notification_received", "bank_notification", line, telegram_id, told)
        balances = self._settle(line, fits, "automatic", note=None) if fits else _account(line)
        return Expected(201, {**self.line_view(line), "telegram_id": telegram_id, **balances, "audit_log_id": log})

    def _told_again(self, line: Line, new: Line, *, may_be_other: bool) -> Expected:
        """What stands of a line that is on record; what it did not say yet is kept beside it."""
        self._about = (line, None)
        exact = [at for at in line.said("occurred_at") if at != _minute(at)]
        differs = {
            "depositor_name": new.folded != line.folded,
            "amount": new.amount != line.amount,
            "occurred_at": _minute(new.occurred_at) != _minute(line.occurred_at)
            or (bool(exact) and new.occurred_at != _minute(new.occurred_at) and new.occurred_at not in exact),
            "bank_name": bool(new.bank_name and line.said("bank_name")) and new.bank_name not in line.said("bank_name"),
        }
        differing = [member for member, differs_in_it in differs.items() if differs_in_it]
        if may_be_other and differing:
            raise Refused("bank_transaction_reused", bank_notification_id=line, differing_fields=differing)
        spellings = [unicodedata.normalize("NFC", one) for one in line.said("depositor_name")]
        added = {
            "occurred_at": None if exact or new.occurred_at == _minute(new.occurred_at) else new.occurred_at,
            "bank_name": None if new.bank_name in line.said("bank_name") else new.bank_name,
            "depositor_name": None
            if unicodedata.normalize("NFC", new.depositor_name) in spellings
            else new.depositor_name,
        }
        log = None
        if any(value is not None for value in added.values()) and len(line.told) < TOLD_MAX:
            line.told.append(added)
            nothing = {"account": None, "bank_balance_after": None, "raw_message_sha256": None}
            telegram_id = line.deposit.user.telegram_id if line.deposit else None
            told = {"event_id": Thing(), **added, **nothing}
            log = self._log("bank_notification_told", "bank_notification", line, telegram_id, told)
        return Expected(200, {**self.line_view(line), **_account(line), "audit_log_id": log, "repeat": True})

    def _match(self, notification_id: int, body: Mapping[str, Any]) -> Expected:
        self._about = (notification_id, None)
        line = next((known for known in self.lines if known.id == notification_id), None)
        if line is None:
            raise Refused("bank_notification_not_found")
        if line.status == "matched":
            raise Refused("bank_notification_matched", current_status="matched", deposit_id=line.deposit)
        deposit = next((d for d in self.deposits if d.id == body["deposit_id"]), None)
        if deposit is None:
            raise Refused("deposit_not_found")
        user = deposit.user
        self._about = (notification_id, user.telegram_id)
        if deposit.line is not None:
            raise Refused("deposit_matched", bank_notification_id=deposit.line)
        if deposit.amount != line.amount:
            raise Refused("deposit_amount_differs", amount=deposit.amount, received=line.amount)
        credits_now = deposit.shown_status != "confirmed" and (
            deposit.chain_length == 0 or deposit.chain_length % 2 == 1
        )
        if credits_now:
            _check_confirmable(deposit, late=body.get("late", False))
            _check_room(user, deposit.amount)
        told = {
            "matched_deposit_id": deposit,
            "method": "manual",
            "amount": line.amount,
            "depositor_name": line.depositor_name,
            "announced_name": deposit.depositor_name,
            "credited": credits_now,
            "note": body.get("note"),
        }
        log = self._log("bank_notification_matched", "bank_notification", line, user.telegram_id, told)
        note = body.get("note")
        balances = self._settle(line, deposit, "manual", note=note) if credits_now else _unmoved(user)
        if not credits_now:
            self._link(line, deposit, "manual")
        learned = self._learn(line, user) if body.get("remember") else None
        members = {**self.line_view(line), "telegram_id": user.telegram_id, **balances, "audit_log_id": log}
        return Expected(200, {**members, "learned_name_id": learned})

    def _learn(self, line: Line, user: User) -> Thing | None:
        """The printed name is the user's from now on, unless it is already."""
        if line.folded in user.learned:
            return None
        user.learned.add(line.folded)
        learned = Thing()
        line.taught.append((learned, line.folded))
        told = {"id": learned, "depositor_name": line.depositor_name, "bank_notification_id": line}
        self._log("user_name_learned", "user", user, user.telegram_id, told)
        return learned

    def _settle(self, line: Line, deposit: Transaction, method: str, *, note: str | None) -> dict[str, Any]:
        balances = self._credit(deposit, line=line, note=note)
        self._link(line, deposit, method)
        return balances

    def _link(self, line: Line, deposit: Transaction, method: str) -> None:
        assert self._request is not None
        line.status, line.deposit, line.method = "matched", deposit, method
        line.matched_by, line.matched_at = self._request.caller, self.now
        deposit.line = line

    def _open_deposits(self, amount: int, at: datetime) -> list[Transaction]:
        """The deposits that wait for money which came then, or whose money may have come then."""
        return [
            deposit
            for deposit in self.deposits
            if deposit.amount == amount
            and (
                (deposit.status in {"pending", "expired"} and abs(deposit.created_at - at) <= MATCH_WINDOW)
                or (
                    deposit.status == "confirmed"
                    and deposit.line is None
                    and not (deposit.freed and deposit.chain_length % 2 == 1)
                    and _may_have_come(deposit, at)
                )
            )
        ]

    def _may_be_for(self, line: Line) -> dict[str, list[Transaction]]:
        """How it is like the line -> the deposits that are listed with it: the likeliest first."""
        alike: dict[str, list[Transaction]] = {name: [] for name in _LIKENESSES}
        for deposit in self._open_deposits(line.amount, line.occurred_at):
            folded = deposit.folded or ""
            if folded == line.folded:
                alike["same_name"].append(deposit)
            elif any(name.startswith(line.folded) for name in deposit.user.learned):
                alike["learned_name"].append(deposit)
            elif folded.startswith(line.folded):
                alike["longer"].append(deposit)
            elif len(folded) >= CUT_NAME_MIN and line.folded.startswith(folded):
                alike["shorter"].append(deposit)
            elif deposit.status in {"pending", "expired"}:
                alike["same_amount"].append(deposit)
        return alike

    def _judge(self, line: Line, new: Transaction | None = None) -> tuple[bool, Transaction | None]:
        """Whether several could be meant by a line, and the one that it confirms; `new` is announced just now."""
        at = line.occurred_at
        meant = [deposit for deposit in self._open_deposits(line.amount, at) if _may_be_named(line.folded, deposit)]
        left = [
            deposit
            for deposit in self.deposits
            if deposit.amount == line.amount
            and deposit.cancelled_at is not None
            and deposit.cancelled_at >= at
            and abs(deposit.created_at - at) <= MATCH_WINDOW
            and _may_be_named(line.folded, deposit)
        ]
        if new is not None:
            meant.append(new)
        learned_of = [user for user in self.users.values() if any(map(line.prints, user.learned))]
        named = [deposit for deposit in meant if line.prints(deposit.folded or "") or learned_of == [deposit.user]]
        waiting = [
            deposit
            for deposit in named
            if deposit.status == "pending"
            or (deposit.status == "expired" and at - deposit.created_at <= DEPOSIT_EXPIRY)
        ]
        paid = [deposit for deposit in meant if deposit.status == "confirmed"]
        others = new is None and any(self._open_lines(deposit, at) for deposit in [*meant, *left])
        several_users = len({deposit.user.telegram_id for deposit in [*meant, *left]}) > 1
        if several_users or len(paid) + bool(waiting) > 1 or (named and others):
            return True, None
        return False, waiting[0] if waiting else None

    def _open_lines(self, deposit: Transaction, at: datetime) -> list[Line]:
        """The lines that wait and name the deposit, whole or cut by the bank's field."""
        return [
            line
            for line in self.lines
            if line.status != "matched"
            and line.amount == deposit.amount
            and any(map(line.prints, _names_of(deposit)))
            and abs(line.occurred_at - at) <= MATCH_WINDOW
        ]

    def _is_quiet(self, amount: int, announced: Transaction) -> bool:
        """Whether nothing at all is known of this amount and such a name."""
        return not any(
            line.status != "matched"
            and line.amount == amount
            and any(name.startswith(line.folded) for name in _names_of(announced))
            and abs(line.occurred_at - self.now) <= MATCH_WINDOW
            for line in self.lines
        ) and not any(
            deposit.amount == amount
            and _may_be_printed_alike(deposit, announced)
            and (
                abs(deposit.created_at - self.now) <= MATCH_WINDOW
                or (deposit.status == "confirmed" and _may_have_come(deposit, self.now))
            )
            for deposit in self.deposits
        )

    # Money that services move.

    def _debit(self, body: Mapping[str, Any]) -> Expected:
        user = self._find_user(body["telegram_id"])
        amount = body["amount"]
        _check_funds(user, amount)
        reference = body.get("reference")
        debit = self._move(user, "debit", "debit", amount, description=body["reason"], reference=reference)
        told = {"amount": amount, "reason": body["reason"], "reference": reference, **_moved(debit)}
        log = self._log("balance_debited", "deposit_transaction", debit, user.telegram_id, told)
        written = {"id": debit, "amount": amount, "direction": "debit", "status": "confirmed", "reference": reference}
        return Expected(201, {**written, "telegram_id": user.telegram_id, **_moved(debit), "audit_log_id": log})

    def _change_balances(self, body: Mapping[str, Any]) -> Expected:
        changes, atomic = body["changes"], body.get("atomic", True)
        refusals = self._plan(changes)
        if atomic:
            for place, (change, refusal) in enumerate(zip(changes, refusals, strict=True)):
                if refusal is not None:
                    self._about = (None, change["telegram_id"])
                    raise Refused(refusal.code, **refusal.members, index=place)
        results = [
            self._apply(change) if refusal is None else self._refuse(change, refusal)
            for change, refusal in zip(changes, refusals, strict=True)
        ]
        refused = sum(refusal is not None for refusal in refusals)
        return Expected(200, {"applied": len(changes) - refused, "refused": refused, "results": results})

    def _plan(self, changes: list[Mapping[str, Any]]) -> list[Refused | None]:
        """Why each change cannot be applied after those before it; None when it can."""
        balances = {telegram_id: user.balance for telegram_id, user in self.users.items()}
        seen: set[str] = set()
        refusals: list[Refused | None] = []
        for change in changes:
            telegram_id, amount, reference = change["telegram_id"], change["amount"], change["reference"]
            balance = balances.get(telegram_id)
            refusal = None
            if self._used(reference):
                refusal = Refused("reference_used", transaction_id=self._used(reference))
            elif reference in seen:
                refusal = Refused("reference_used")
            elif balance is None and amount < 0:
                refusal = Refused("user_not_found")
            elif (balance or 0) + amount > BALANCE_MAX:
                refusal = Refused("balance_limit_exceeded", balance=balance or 0, amount=amount, limit=BALANCE_MAX)
            elif (balance or 0) + amount < 0:
                refusal = _no_funds(balance or 0, -amount)
            else:
                balances[telegram_id] = (balance or 0) + amount
                seen.add(reference)
            refusals.append(refusal)
        return refusals

    def _used(self, reference: str) -> Transaction | None:
        assert self._request is not None
        return self._references.get((self._request.caller, reference))

    def _apply(self, change: Mapping[str, Any]) -> dict[str, Any]:
        assert self._request is not None
        telegram_id, amount, reference = change["telegram_id"], change["amount"], change["reference"]
        user = self.users.get(telegram_id) or self._open(telegram_id)
        direction = "credit" if amount > 0 else "debit"
        moved = self._move(
            user, "balance_change", direction, abs(amount), description=change["reason"], reference=reference
        )
        self._references[self._request.caller, reference] = moved
        why = {"amount": abs(amount), "reason": change["reason"], "reference": reference, **_moved(moved)}
        log = self._log(f"balance_{direction}ed", "deposit_transaction", moved, telegram_id, why)
        told = {"status": "applied", "reference": reference, "transaction_id": moved, "audit_log_id": log}
        return {**told, **_moved(moved)}

    def _refuse(self, change: Mapping[str, Any], refusal: Refused) -> dict[str, Any]:
        asked = {name: change[name] for name in ("amount", "reason", "reference")}
        told = {**asked, **refusal.told()}
        log = self._log("balance_change_failed", "deposit_transaction", None, change["telegram_id"], told)
        return {"status": "refused", "reference": change["reference"], "code": refusal.code, "audit_log_id": log}

    def _reverse(self, transaction_id: int, body: Mapping[str, Any]) -> Expected:
        self._about = (transaction_id, None)
        taken_back = next((t for t in self._order if t.id == transaction_id), None)
        if taken_back is None:
            raise Refused("transaction_not_found")
        user, amount = taken_back.user, taken_back.amount
        self._about = (transaction_id, user.telegram_id)
        if taken_back.reversed_by is not None:
            raise Refused("transaction_reversed", current_status="reversed", reversed_by_id=taken_back.reversed_by)
        if taken_back.status != "confirmed":
            raise Refused("transaction_not_confirmed", current_status=taken_back.status)
        for purchase in self.purchases:
            if purchase.last is taken_back:
                self._check_money_may_move(purchase, goodwill=body.get("goodwill", False))
        direction = "debit" if taken_back.direction == "credit" else "credit"
        (_check_room if direction == "credit" else _check_funds)(user, amount)
        reversal = self._move(user, "reversal", direction, amount, description=body.get("note"), reverses=taken_back)
        told = _told_of(reversal, note=body.get("note"), goodwill=body.get("goodwill", False))
        log = self._log("transaction_reversed", "deposit_transaction", reversal, user.telegram_id, told)
        freed = self._free(taken_back) if direction == "debit" else None
        written = {"id": reversal, "type": "reversal", "direction": direction, "amount": amount, "audit_log_id": log}
        written["freed_bank_notification_id"] = freed
        return Expected(201, {**written, "reverses_id": taken_back, "status": "confirmed", **_moved(reversal)})

    def _free(self, taken_back: Transaction) -> Line | None:
        """The line whose money went with the deposit that a chain of reversals began with: it is for people again."""
        deposit = taken_back
        while deposit.reverses is not None:
            deposit = deposit.reverses
        line, user = deposit.line, deposit.user
        if line is None:
            return None
        for learned, folded in line.taught:
            user.learned.discard(folded)
            told = {"id": learned, "depositor_name": line.depositor_name, "bank_notification_id": line}
            self._log("user_name_forgotten", "user", user, user.telegram_id, told)
        told = {
            "event_id": Thing(),
            "deposit_id": deposit,
            "amount": line.amount,
            "status": "unmatched",
            "forgotten_learned_name_ids": [learned for learned, _ in line.taught],
        }
        line.status, line.deposit, line.method, line.matched_by, line.matched_at = "unmatched", None, None, None, None
        line.freed, line.taught, deposit.line, deposit.freed = True, [], None, True
        self._log("bank_notification_freed", "bank_notification", line, user.telegram_id, told)
        return line

    def reverse_as_before(self, taken_back: Transaction, caller: str) -> Transaction:
        """Gives back what a held name stands on, which only an earlier Passbook did, and had room for."""
        self.touched.clear()
        user, amount = taken_back.user, taken_back.amount
        reversal = self._move(user, "reversal", "credit", amount, reverses=taken_back)
        row = self._log(
            "transaction_reversed",
            "deposit_transaction",
            reversal,
            user.telegram_id,
            _told_of(reversal, note=None, goodwill=False),
        )
        row.actor = caller
        return reversal

    def _check_money_may_move(self, purchase: Purchase, *, goodwill: bool) -> None:
        """A held name keeps its payment, one that was given up its refund; of a registered name it takes goodwill."""
        members = {"domain_purchase_id": purchase, "domain": purchase.domain}
        if purchase.status == "pending" and not purchase.payment_reversed:
            raise Refused("payment_held", **members)
        if purchase.status == "registered" and not purchase.payment_reversed and not goodwill:
            raise Refused("payment_registered", **members)
        if purchase.status in {"released", "expired"} and purchase.payment_reversed:
            raise Refused("refund_final", **members, current_status=purchase.status)

    # Domain names.

    def _buy(self, body: Mapping[str, Any]) -> Expected:
        domain, ascii_name = self.domains[body["domain"]]
        user, price = self._find_user(body["telegram_id"]), body["price"]
        live = next(
            (p for p in self.purchases if p.ascii_name == ascii_name and p.status in {"pending", "registered"}), None
        )
        if live is not None:
            raise Refused("domain_taken", current_status=live.status)
        _check_funds(user, price)
        payment = self._move(user, "domain_purchase", "debit", price, description=domain)
        status = "pending" if body.get("hold", False) else "registered"
        registered_at = self.now if status == "registered" else None
        purchase = Purchase(user, domain, ascii_name, price, status, payment, self.now, registered_at)
        self.purchases.append(purchase)
        action = "domain_held" if status == "pending" else "domain_registered"
        told = {"domain": domain, "price": price, **_moved(payment), "transaction_id": payment}
        log = self._log(action, "user_domains", purchase, user.telegram_id, told)
        return Expected(201, {**purchase_view(purchase), **_moved(payment), "audit_log_id": log})

    def _complete(self, purchase_id: int, body: Mapping[str, Any]) -> Expected:
        purchase = self._find_held(purchase_id)
        if purchase.payment_reversed:
            raise Refused("payment_reversed", reversed_by_id=purchase.last)
        purchase.status, purchase.registered_at = "registered", self.now
        paid = {"balance_before": purchase.last.balance_before, "balance_after": purchase.last.balance_after}
        told = {"domain": purchase.domain, "price": purchase.price, **paid, "note": body.get("note")}
        log = self._log("domain_registered", "user_domains", purchase, purchase.user.telegram_id, told)
        return Expected(200, {**purchase_view(purchase), **_unmoved(purchase.user), "audit_log_id": log})

    def _release(self, purchase_id: int, body: Mapping[str, Any]) -> Expected:
        purchase = self._find_held(purchase_id)
        balances = self._give_back(purchase, "released", note=body.get("note"))
        return Expected(200, {**purchase_view(purchase), **balances, "audit_log_id": self.logged[-1]})

    def _find_held(self, purchase_id: int) -> Purchase:
        self._about = (purchase_id, None)
        purchase = next((p for p in self.purchases if p.id == purchase_id), None)
        if purchase is None:
            raise Refused("domain_purchase_not_found")
        self._about = (purchase_id, purchase.user.telegram_id)
        if purchase.status != "pending":
            raise Refused("domain_purchase_not_pending", current_status=purchase.status)
        return purchase

    def _give_back(self, purchase: Purchase, status: str, *, note: str | None) -> dict[str, Any]:
        """Settles a held purchase and pays its price back, unless the payment was taken back before."""
        user, payment = purchase.user, purchase.last
        balances, refund = _unmoved(user), None
        if not purchase.payment_reversed:
            _check_room(user, payment.amount)
            refund = self._move(
                user, "domain_refund", "credit", payment.amount, description=purchase.domain, reverses=payment
            )
            balances = _moved(refund)
        purchase.status = status
        told = {
            "domain": purchase.domain,
            "price": purchase.price,
            **balances,
            "transaction_id": refund,
            "note": note,
        }
        self._log(f"domain_{status}", "user_domains", purchase, user.telegram_id, told)
        return balances

    # What they have in common.

    def _find_user(self, telegram_id: str) -> User:
        self._about = (None, telegram_id)
        user = self.users.get(telegram_id)
        if user is None:
            raise Refused("user_not_found")
        return user

    def _move(self, user: User, kind: str, direction: str, amount: int, **said: Any) -> Transaction:
        """A transaction that moves the balance at once."""
        moved = Transaction(user, kind, direction, amount, self.now, "confirmed", confirmed_at=self.now, **said)
        if moved.reverses is not None:
            moved.reverses.reversed_by = moved
        self._keep(moved)
        self._continue(user, moved)
        return moved

    def _keep(self, transaction: Transaction) -> None:
        transaction.user.transactions.append(transaction)
        self._order.append(transaction)
        self.touched.add(transaction.user.telegram_id)

    def _continue(self, user: User, moved: Transaction) -> dict[str, Any]:
        """Moves the balance by what is confirmed."""
        moved.balance_before = user.balance
        user.balance += moved.amount if moved.direction == "credit" else -moved.amount
        user.version += 1
        moved.balance_after, moved.version = user.balance, user.version
        self.touched.add(user.telegram_id)
        return _moved(moved)

    def _log(
        self,
        action: str,
        resource_type: str,
        resource: Thing | User | int | None,
        telegram_id: str | None,
        details: Mapping[str, Any],
    ) -> Logged:
        request = self._request
        row = Logged(
            action,
            resource_type,
            resource,
            self.users.get(telegram_id) if telegram_id is not None else None,
            telegram_id,
            request.caller if request else SWEEPER,
            request.request_id if request else None,
            self.now,
            details,
            of_request=request is not None,
        )
        self.logged.append(row)
        return row

    def deposit_view(self, deposit: Transaction) -> dict[str, Any]:
        """A deposit as the API must show it now: with when it expires, and whether a line that waits could mean it."""
        could_mean = (
            line.status in {"unmatched", "ambiguous"}
            and line.amount == deposit.amount
            and abs(deposit.created_at - line.occurred_at) <= MATCH_WINDOW
            and bool(line.folded)
            and any(name.startswith(line.folded) for name in _names_of(deposit))
            for line in self.lines
        )
        return {
            **deposit_view(deposit),
            "expires_at": deposit.created_at + DEPOSIT_EXPIRY if deposit.status == "pending" else None,
            "in_review": deposit.status in {"pending", "expired"} and any(could_mean),
        }

    def line_view(self, line: Line) -> dict[str, Any]:
        """A bank notification as the API must show it now, with the deposits that it may be for."""
        alike = self._may_be_for(line) if line.status != "matched" else {}
        many = sum(map(len, alike.values()))
        return {
            "id": line,
            "bank_transaction_id": line.bank_transaction_id,
            "depositor_name": line.depositor_name,
            "amount": line.amount,
            "occurred_at": line.occurred_at,
            "bank_name": line.bank_name,
            "status": line.status,
            "matched_deposit_id": line.deposit,
            "match_method": line.method,
            "matched_by": line.matched_by,
            "matched_at": line.matched_at,
            "created_at": line.created_at,
            "candidates": Candidates(
                [
                    [_candidate(deposit, _TOLD_AS.get(how, how)) for deposit in deposits]
                    for how, deposits in alike.items()
                ]
            ),
            "more_candidates": max(many - CANDIDATES_MAX, 0),
            "more_candidates_counted": True,
        }


def deposit_view(deposit: Transaction) -> dict[str, Any]:
    """A deposit as the API must show it."""
    return {
        "id": deposit,
        "telegram_id": deposit.user.telegram_id,
        "amount": deposit.amount,
        "depositor_name": deposit.depositor_name,
        "status": deposit.shown_status,
        "created_at": deposit.created_at,
        "confirmed_at": deposit.confirmed_at,
        "matched_bank_notification_id": deposit.line,
    }


def purchase_view(purchase: Purchase) -> dict[str, Any]:
    """A domain purchase as the API must show it."""
    return {
        "id": purchase,
        "telegram_id": purchase.user.telegram_id,
        "domain": purchase.domain,
        "ascii_name": purchase.ascii_name,
        "price": purchase.price,
        "status": purchase.status,
        "transaction_id": purchase.payment,
        "created_at": purchase.created_at,
        "expires_at": purchase.created_at + HOLD_EXPIRY if purchase.status == "pending" else None,
        "registered_at": purchase.registered_at,
        "payment_reversed": purchase.payment_reversed,
    }


def transaction_view(transaction: Transaction) -> dict[str, Any]:
    """A transaction as the API must show it."""
    return {
        "id": transaction,
        "telegram_id": transaction.user.telegram_id,
        "type": transaction.type,
        "direction": transaction.direction,
        "amount": transaction.amount,
        "status": transaction.shown_status,
        "depositor_name": transaction.depositor_name,
        "description": transaction.description,
        "reference": transaction.reference,
        "created_at": transaction.created_at,
        "confirmed_at": transaction.confirmed_at,
        "balance_before": transaction.balance_before,
        "balance_after": transaction.balance_after,
        "version": transaction.version,
        "reverses_id": transaction.reverses,
        "reversed_by_id": transaction.reversed_by,
    }


def differences(expected: Any, found: Any, where: str = "answer") -> Iterator[str]:
    """Every place where `found`, a value of JSON, is not what is `expected`. An object may have more members."""
    if isinstance(expected, Thing):
        if expected.id is None and isinstance(found, int):
            expected.id = found
        expected = expected.id
    if isinstance(expected, datetime) and isinstance(found, str) and found.endswith("Z"):
        found = datetime.fromisoformat(found)
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            if name in found:
                yield from differences(value, found[name], f"{where}.{name}")
            else:
                yield f"{where}.{name} is missing, not {value!r}"
    elif isinstance(expected, Candidates) and isinstance(found, list):
        yield from differences(expected.listed(), found, where)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for place, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(one, other, f"{where}[{place}]")
    elif expected != found or type(expected) is not type(found):
        yield f"{where} is {found!r}, not {expected!r}"


_LIKENESSES = ("same_name", "learned_name", "longer", "shorter", "same_amount")
_TOLD_AS = {"longer": "truncated_name", "shorter": "truncated_name"}


def _candidate(deposit: Transaction, likeness: str) -> dict[str, Any]:
    return {
        "deposit_id": deposit,
        "telegram_id": deposit.user.telegram_id,
        "depositor_name": deposit.depositor_name,
        "amount": deposit.amount,
        "status": deposit.shown_status,
        "created_at": deposit.created_at,
        "likeness": likeness,
    }


def _may_have_come(deposit: Transaction, at: datetime) -> bool:
    """Whether the money of a confirmed deposit may have come then: around its announcement, or, when it was confirmed
    on another day, at any time up to then."""
    if abs(deposit.created_at - at) <= MATCH_WINDOW:
        return True
    confirmed_at = deposit.confirmed_at
    assert confirmed_at is not None
    return (
        confirmed_at.date() != deposit.created_at.date()
        and deposit.created_at <= at + MATCH_WINDOW
        and confirmed_at >= at - MATCH_WINDOW
    )


def _minute(at: datetime) -> datetime:
    """Of what banks print: its minute."""
    return at.replace(second=0, microsecond=0)


def _derived_id(line: Line) -> str:
    """The recipe of docs/bank-lines.md, for a line that says neither account nor balance."""
    minute = f"{(line.occurred_at + KOREA_AHEAD).replace(tzinfo=None).isoformat()[:16]}+09:00"
    text = "\n".join((minute, str(line.amount), line.folded, "", ""))
    return f"derived:{sha256(text.encode()).hexdigest()}"


def _begins(printed: str, deposit: Transaction) -> bool:
    return (deposit.folded or "").startswith(printed)


def _names_of(deposit: Transaction) -> list[str]:
    """The name that was announced, and those that people taught to be the user's."""
    return [deposit.folded or "", *sorted(deposit.user.learned)]


def _may_be_named(printed: str, deposit: Transaction) -> bool:
    return any(name.startswith(printed) for name in _names_of(deposit))


def _may_be_printed_alike(one: Transaction, other: Transaction) -> bool:
    """Whether a bank may print for one of them what could mean the other, by any name of its user."""
    prints = [(one.printed or "", one.folded or ""), *((name, name) for name in one.user.learned)]
    others = [(other.printed or "", other.folded or ""), *((name, name) for name in other.user.learned)]
    return any(
        name.startswith(other_print) or other_name.startswith(own_print)
        for own_print, name in prints
        for other_print, other_name in others
    )


def _nearby(amount: int) -> Iterator[int]:
    for distance in range(1, NEARBY_MAX + 1):
        yield amount + distance if amount + distance <= AMOUNT_MAX else amount - distance


def _check_confirmable(deposit: Transaction, *, late: bool) -> None:
    if deposit.status == "expired" and not late:
        raise Refused("deposit_expired", current_status="expired")
    if deposit.status not in {"pending", "expired"}:
        raise Refused("deposit_not_pending", current_status=deposit.shown_status)


def _check_room(user: User, amount: int) -> None:
    if user.balance + amount > BALANCE_MAX:
        raise Refused("balance_limit_exceeded", balance=user.balance, amount=amount, limit=BALANCE_MAX)


def _check_funds(user: User, amount: int) -> None:
    if user.balance < amount:
        raise _no_funds(user.balance, amount)


def _no_funds(balance: int, required: int) -> Refused:
    return Refused("insufficient_funds", balance=balance, required=required, shortfall=required - balance)


def _moved(moved: Transaction) -> dict[str, Any]:
    return {
        "balance_before": moved.balance_before,
        "balance_after": moved.balance_after,
        "version": moved.version,
    }


def _told_of(reversal: Transaction, *, note: str | None, goodwill: bool) -> dict[str, Any]:
    """What the audit log says of a reversal."""
    return {
        "reverses_id": reversal.reverses,
        "amount": reversal.amount,
        "direction": reversal.direction,
        **_moved(reversal),
        "note": note,
        **({"goodwill": True} if goodwill else {}),
    }


def _unmoved(user: User) -> dict[str, Any]:
    return {"balance_before": user.balance, "balance_after": user.balance, "version": user.version}


def _account(line: Line) -> dict[str, Any]:
    """Whose balance a notification is about: nobody's until it is matched."""
    if line.deposit is None:
        return {"telegram_id": None, "balance_before": None, "balance_after": None, "version": None}
    return {"telegram_id": line.deposit.user.telegram_id, **_unmoved(line.deposit.user)}
