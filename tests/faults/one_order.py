"""Two lines of the bank and two announcements of one amount, at once: one order of the four explains what came.

The oracle is the model of `tests/stateful`, which shares nothing with the service. It is asked the four requests in
each order. An order explains the outcome when the model gives every answer that the service gave, the ids in the audit
log grow in this order, and afterwards lines, deposits and balances are what the model has.
"""

import asyncio
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.faults.wire import Request, at_once
from tests.live import Client, LiveService
from tests.stateful.model import Model, User, deposit_view, differences
from tests.stateful.model import Request as Asked

SPACING = 1_000
"""Won between the amounts of two rounds: one warns of amounts up to 100 won beside its own."""
ALIKE_FIRST = 0.5
"""How often both announcements are sent before both lines, or after them; else any order is as likely as another."""
CALLER = "races"
TAUGHT = "김사업"
"""A printed name that was learned of one user, who announces another."""
LONG, CUT = "주식회사가나다라", "주식회사가나다"
"""A name, and what a bank's field of 14 columns has room for."""
LINE, DEPOSIT = "/v1/bank-notifications", "/v1/deposits"
_ID = re.compile(r"/\d+$")


@dataclass(frozen=True)
class Race:
    """Who announces which name, and what the bank prints: the four that meet. User 0 is the one who was taught."""

    announced: tuple[tuple[int, str], tuple[int, str]]
    printed: tuple[str, str]
    ids: tuple[bool, bool] = (True, True)
    """Which of the two lines has an id of the bank's."""


RACES = {
    "one user, one name": Race(((1, "홍길동"), (1, "홍 길동")), ("홍길동", "홍길동")),
    "two users, one name": Race(((1, "홍길동"), (2, "홍길동")), ("홍길동", "홍길동")),
    "one user, a cut name": Race(((1, LONG), (1, LONG)), (CUT, CUT)),
    "two users, one's name cut to the other's": Race(((1, LONG), (2, CUT)), (CUT, CUT)),
    "one user, lines without ids": Race(((1, "홍길동"), (1, "홍길동")), ("홍길동", "홍길동"), (False, False)),
    "one user, one line without its id": Race(((1, "홍길동"), (1, "홍길동")), ("홍길동", "홍길동"), (True, False)),
    "two users, one taught the other's name": Race(((0, "홍길동"), (1, TAUGHT)), (TAUGHT, TAUGHT)),
    "one user, taught a name": Race(((0, "홍길동"), (0, "홍길동")), (TAUGHT, "홍길동")),
}
TEACHING = {name: any(user == 0 for user, _ in race.announced) for name, race in RACES.items()}
"""Whether a name has to be learned before. While none is, the service looks less far: the others come first."""


@dataclass(frozen=True)
class Outcome:
    """One round: what was asked, what came, and what was there before and afterwards, by path."""

    race: str
    asked: Sequence[Asked]
    answers: Sequence[tuple[int, dict[str, Any]]]
    before: Mapping[str, dict[str, Any]]
    after: Mapping[str, dict[str, Any]]
    taught: str
    """The telegram id of the user of whom a name was learned."""


def orders_that_explain(outcome: Outcome) -> list[tuple[int, ...]]:
    """The orders of the requests, by their places, in which the model answers and leaves all as the service did."""
    return [order for order in _orders(outcome) if next(_wrong(outcome, order), None) is None]


def unexplained(outcome: Outcome) -> str:
    """What is wrong with an outcome that no order explains: what the order of its audit log says."""
    logged = sorted(_orders(outcome)[0], key=lambda place: outcome.answers[place][1].get("audit_log_id") or 0)
    first = next(_wrong(outcome, tuple(logged)), "nothing")
    return f"no order of the four requests explains what came ({outcome.race}); in that of the audit log: {first}"


def _orders(outcome: Outcome) -> list[tuple[int, ...]]:
    return list(itertools.permutations(range(len(outcome.asked))))


def _wrong(outcome: Outcome, order: tuple[int, ...]) -> Iterator[str]:
    """All that differs from what the model says of this order, the first of it first."""
    model = Model(
        {name: name.replace(" ", "") for name in ("홍길동", "홍 길동", LONG, CUT, TAUGHT)}, {LONG: CUT}, {}, _EPOCH
    )
    for telegram_id, told in _balances(outcome.before):
        user = model.users[telegram_id] = User(telegram_id, balance=told["balance"], version=told["version"])
        user.learned = {TAUGHT} if telegram_id == outcome.taught else set()
    last_logged = 0
    for place in order:
        status, answer = outcome.answers[place]
        model.now = datetime.fromisoformat(answer.get("created_at") or _EPOCH.isoformat())
        expected = model.post(outcome.asked[place])
        if status != expected.status:
            yield f"{outcome.asked[place].path} was answered {status} {answer}, not {expected.status}"
        yield from differences(expected.members, answer, outcome.asked[place].path)
        logged = answer.get("audit_log_id")
        if logged is None:  # a line that is told again changes nothing
            continue
        if logged <= last_logged:
            yield f"audit row {logged} is before {last_logged}"
        last_logged = logged
    for line in model.lines:
        yield from differences(model.line_view(line), outcome.after.get(f"{LINE}/{line.id}"), "then the line")
    for deposit in model.deposits:
        yield from differences(deposit_view(deposit), outcome.after.get(f"{DEPOSIT}/{deposit.id}"), "then the deposit")
    for telegram_id, told in _balances(outcome.after):
        there = model.users[telegram_id]
        held = {"balance": there.balance, "version": there.version}
        yield from differences(held, told, f"then the account of {telegram_id}")


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _balances(told: Mapping[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [(path.split("/")[3], view) for path, view in told.items() if path.startswith("/v1/users/")]


# The rounds.


@dataclass
class Track:
    """Where races are run: a running service. Lifetime: of that service. Every round has an amount of its own."""

    live: LiveService
    chance: random.Random
    first_user: int
    """Telegram ids from here on are its own."""
    first_amount: int = 1_000_000
    rounds: int = 0
    _key: str = ""
    _client: Client | None = None
    _taught: str = ""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def run(self, race: str) -> Outcome:
        """One round: the four requests, in any order, on four connections at once.

        In every second round another write is under way when they come, so that they share the next commit.
        """
        client = self._client = self._client or self._begin()
        if TEACHING[race] and not self._taught:
            self._taught = self._teach(client)
        amount = self.first_amount + SPACING * self.rounds
        users = [self._taught, *(str(self.first_user + 2 * self.rounds + n) for n in (1, 2))]
        self.rounds += 1
        asked = self._asked(RACES[race], users, amount)
        self.chance.shuffle(asked)
        if self.chance.random() < ALIKE_FIRST:
            first = self.chance.choice((DEPOSIT, LINE))
            asked.sort(key=lambda one: one.path != first)
        before = _look(client, [f"/v1/users/{self._taught}/balance"] if self._taught else [])
        under_way = [self._request("/v1/users", {"telegram_id": str(self.first_user)})] * (self.rounds % 2)
        sent = [(Request(one.path, json.dumps(one.body), one.key), self._key) for one in [*under_way, *asked]]
        came = [(one.status, one.json()) for one in asyncio.run(at_once(self.live.url, sent))]
        answers = came[len(under_way) :]
        named = {f"/v1/users/{one.body['telegram_id']}/balance" for one in asked if one.path == DEPOSIT}
        made = {f"{one.path}/{told.get('id')}" for one, (_, told) in zip(asked, answers, strict=True)}
        after = _look(client, sorted(named | made))
        return Outcome(race, asked, answers, before, after, self._taught)

    def _asked(self, race: Race, users: Sequence[str], amount: int) -> list[Asked]:
        deposits = [
            {"telegram_id": users[user], "amount": amount, "depositor_name": name} for user, name in race.announced
        ]
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:00Z")
        lines = [
            {
                **({"bank_transaction_id": f"race-{self.first_user}-{amount}-{number}"} if race.ids[number] else {}),
                "depositor_name": name,
                "amount": amount,
                "occurred_at": when,
            }
            for number, name in enumerate(race.printed)
        ]
        bodies = [*((DEPOSIT, body) for body in deposits), *((LINE, body) for body in lines)]
        return [self._request(path, body) for path, body in bodies]

    def _request(self, path: str, body: dict[str, Any]) -> Asked:
        key = f"race-{self.first_user}-{next(self._numbers)}"
        return Asked(CALLER, key, path, body, key)

    def _begin(self) -> Client:
        self._key = self.live.make_key("--name", CALLER, "--role", "admin")
        return self.live.client(self._key)

    def _teach(self, client: Client) -> str:
        """People say once whose the printed name is."""
        user, amount = str(self.first_user), self.first_amount - SPACING
        line = self._asked(RACES["one user, taught a name"], [user], amount)[2].body
        there = client.write(LINE, line).json()
        deposit = client.credit(user, amount)
        match = {"deposit_id": deposit["id"], "remember": True}
        done = client.write(f"{LINE}/{there['id']}/match", match)
        assert done.status_code == 200, done.text
        return user


def _look(client: Client, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {path: client.get(path).json() for path in paths}


# Lies, for the oracle to find.


def _of(outcome: Outcome, path: str, holds: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Every copy of the answers and of what was there afterwards that is told under this path, where it holds."""
    told = [answer for one, (_, answer) in zip(outcome.asked, outcome.answers, strict=True) if one.path == path]
    later = [view for where, view in outcome.after.items() if _ID.sub("", where) == path]
    return [view for view in [*told, *later] if holds(view)]


def _another_deposit_has_the_money(outcome: Outcome) -> None:
    """A line and the user's deposits tell of each other crosswise."""
    ids = sorted({deposit["id"] for deposit in _of(outcome, DEPOSIT, lambda _: True)})
    for line in _of(outcome, LINE, lambda told: told["matched_deposit_id"] is not None):
        line["matched_deposit_id"] = ids[1 - ids.index(line["matched_deposit_id"])]


def _a_line_is_guessed(outcome: Outcome) -> None:
    for line in _of(outcome, LINE, lambda told: told["status"] == "ambiguous"):
        line["status"] = "unmatched"


def _a_line_credits_twice(outcome: Outcome) -> None:
    for path, view in outcome.after.items():
        if path.endswith("/balance") and view["balance"]:
            view["balance"] += SPACING


def _nobody_is_warned(outcome: Outcome) -> None:
    for deposit in _of(outcome, DEPOSIT, lambda told: told.get("collision") is not None):
        deposit["collision"] = None


def _a_line_waits_beside_its_deposit(outcome: Outcome) -> None:
    """As if neither had seen the other."""
    waits = {"status": "unmatched", "matched_deposit_id": None, "match_method": None, "matched_by": None}
    gone = {"matched_at": None, "telegram_id": None, "balance_before": None, "balance_after": None, "version": None}
    for line in _of(outcome, LINE, lambda told: told["status"] == "matched"):
        line.update({name: value for name, value in {**waits, **gone}.items() if name in line})
    for deposit in _of(outcome, DEPOSIT, lambda told: told["status"] == "confirmed"):
        deposit.update(status="pending", confirmed_at=None, matched_bank_notification_id=None)
    for path, view in outcome.after.items():
        if path.endswith("/balance") and path not in outcome.before:
            view.update(balance=0, version=0)


LIES: dict[str, Callable[[Outcome], None]] = {
    "another deposit of the two has the money": _another_deposit_has_the_money,
    "a line that may mean two users waits as if it meant nobody": _a_line_is_guessed,
    "a line credits too much": _a_line_credits_twice,
    "nobody is warned of a collision": _nobody_is_warned,
    "a line and its deposit do not find each other": _a_line_waits_beside_its_deposit,
}


def lied_about(outcome: Outcome, lie: str) -> Outcome | None:
    """The outcome as the lie tells it; None where it would tell the truth."""
    told = deepcopy(outcome)
    LIES[lie](told)
    return None if told == outcome else told
