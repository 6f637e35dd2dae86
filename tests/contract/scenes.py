"""Things in any state, made through the API of a service whose clock is the test's; and its write routes.

The routes come from the application, so that a new one without a request here fails the tests that walk them.
"""

import itertools
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from litestar.routes import HTTPRoute

from service.app import create_app
from service.config import Config
from service.ledger.errors import ErrorCode
from tests.stateful.served import CALLERS, Answer, Served

DAY = timedelta(days=1)
MILLISECOND = timedelta(milliseconds=1)
BALANCE_MAX = 9_007_199_254_740_991
AMOUNT_MAX = 1_000_000_000_000
UNKNOWN_ID = 999_999_999
NAME = "홍길동"


def routes(method: str) -> dict[str, tuple[ErrorCode, ...]]:
    """Path template -> the refusals that it declares, of every route of that method that needs a key."""
    found = {
        route.path_format: tuple(handler.opt["refusals"])
        for route in create_app(Config()).routes
        if isinstance(route, HTTPRoute)
        for name, (handler, _) in route.route_handler_map.items()
        if name == method and handler.opt.get("open") is not True
    }
    return dict(sorted(found.items()))


class Scene:
    """A service, and short ways to have what a test needs. All names are new each time, so that no two tests meet."""

    def __init__(self, service: Served) -> None:
        self.service = service
        self.tick = timedelta(0)
        """How long passes before each write."""
        self._numbers = itertools.count(1)

    def number(self) -> int:
        """Another one each time."""
        return next(self._numbers)

    # How it is asked.

    def post(self, path: str, body: Any, *, key: str | None = None, caller: str = CALLERS[0]) -> Answer:
        """A write under a new Idempotency-Key, unless one is given."""
        request_id = f"scene-{self.number()}"
        self.service.clock.now += self.tick
        return self.service.post(caller, key or f"key-{request_id}", path, json.dumps(body), request_id)

    def made(self, path: str, body: Any) -> Any:
        """The answer to a write that is not refused."""
        answer = self.post(path, body)
        assert answer.status < 300, (path, body, answer)
        return answer.json()

    def state(self) -> dict[str, list[Any]]:
        """Every row of every table."""
        names = self.service.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return {name: self.service.rows(f'SELECT * FROM "{name}" ORDER BY 1, 2') for (name,) in names}

    # What there may be.

    def user(self, balance: int = 0) -> str:
        """A new user, who has that many won."""
        telegram_id = str(700_000 + self.number())
        self.made("/v1/users", {"telegram_id": telegram_id})
        while balance > 0:
            part = min(balance, AMOUNT_MAX)
            self.change(telegram_id, part)
            balance -= part
        return telegram_id

    def full_user(self) -> str:
        """A new user whose balance is the greatest that there may be."""
        telegram_id = str(700_000 + self.number())
        self.service.begin({telegram_id: BALANCE_MAX})
        return telegram_id

    def user_id(self, telegram_id: str) -> int:
        """users.id."""
        return int(self.service.rows("SELECT id FROM users WHERE telegram_id = ?", telegram_id)[0][0])

    def change(self, telegram_id: str, amount: int, reference: str | None = None) -> int:
        """A balance change; the id of its transaction."""
        change = {
            "telegram_id": telegram_id,
            "amount": amount,
            "reason": "scene",
            "reference": reference or f"scene-{self.number()}",
        }
        return int(self.made("/v1/balance-changes", {"changes": [change]})["results"][0]["transaction_id"])

    def balance(self, telegram_id: str) -> int:
        """In won."""
        return int(self.service.get(f"/v1/users/{telegram_id}/balance").json()["balance"])

    def deposit(self, telegram_id: str | None = None, amount: int = 1000, name: str | None = None) -> int:
        """A pending deposit of a name that nobody else has; its id."""
        body = {
            "telegram_id": telegram_id or self.user(),
            "amount": amount,
            "depositor_name": name or f"홍{self.number()}",
        }
        made = self.made("/v1/deposits", body)
        assert made["status"] == "pending", made
        return int(made["id"])

    def confirmed(self, telegram_id: str | None = None, amount: int = 1000) -> int:
        """A confirmed deposit, confirmed later than announced; its id."""
        deposit_id = self.deposit(telegram_id, amount)
        self.service.clock.now += MILLISECOND
        self.made(f"/v1/deposits/{deposit_id}/confirm", {})
        return deposit_id

    def cancelled(self, telegram_id: str | None = None, amount: int = 1000) -> int:
        """A cancelled deposit; its id."""
        deposit_id = self.deposit(telegram_id, amount)
        self.made(f"/v1/deposits/{deposit_id}/cancel", {})
        return deposit_id

    def expired(self, telegram_id: str | None = None, amount: int = 1000) -> int:
        """An expired deposit; its id. Everything else that waits expires with it."""
        deposit_id = self.deposit(telegram_id, amount)
        self.all_expires()
        return deposit_id

    def all_expires(self) -> None:
        """A day goes by."""
        self.service.clock.now += DAY + MILLISECOND
        self.service.sweep()

    def line(self, amount: int = 1000, name: str | None = None) -> int:
        """What the bank says arrived, for no deposit; its id."""
        made = self.made("/v1/bank-notifications", self.line_body(amount, name))
        assert made["status"] == "unmatched", made
        return int(made["id"])

    def line_body(self, amount: int = 1000, name: str | None = None) -> dict[str, Any]:
        """Of a bank transaction that nobody knows."""
        return {
            "bank_transaction_id": f"KB-{self.number()}",
            "depositor_name": name or f"김{self.number()}",
            "amount": amount,
            "occurred_at": self.service.clock.now.replace(tzinfo=None).isoformat() + "Z",
        }

    def message(self, amount: int = 1000, name: str = "홍길동", kind: str = "입금취소") -> Any:
        """A message of a bank that is no deposit; the answer to it."""
        minute = self.service.clock.now.astimezone(ZoneInfo("Asia/Seoul"))
        text = f"하나,{minute:%m/%d,%H:%M}\n427******27104\n{kind}{amount:,}원\n{name}\n잔액{self.number()}원"
        return self.made("/v1/bank-notifications", {"raw_message": text})

    def taken_back(self) -> int:
        """The id of a notification that the bank took back."""
        body = self.line_body()
        line_id = int(self.made("/v1/bank-notifications", body)["id"])
        assert self.message(body["amount"], body["depositor_name"])["bank_notification_id"] == line_id
        return line_id

    def purchase(self, telegram_id: str, *, hold: bool = True, price: int = 1000, domain: str | None = None) -> Any:
        """A purchase; the answer to it."""
        body = {"telegram_id": telegram_id, "domain": domain or self.domain(), "price": price, "hold": hold}
        return self.made("/v1/domain-purchases", body)

    def domain(self) -> str:
        """A name that nobody has."""
        return f"한글{self.number()}.kr"

    def held(self) -> int:
        """A held purchase; its id."""
        return int(self.purchase(self.user(1000))["id"])

    def dismissed(self) -> int:
        """A line of which a person said that it is no top-up."""
        line_id = self.line()
        self.made(f"/v1/bank-notifications/{line_id}/dismiss", {"note": "n"})
        return line_id

    def matchable(self, amount: int = 1000) -> tuple[int, int]:
        """A line that waits and a pending deposit of the amount."""
        return self.line(amount), self.deposit(amount=amount)


def _match(scene: Scene) -> tuple[str, dict[str, Any]]:
    line_id, deposit_id = scene.matchable()
    return f"/v1/bank-notifications/{line_id}/match", {"deposit_id": deposit_id}


def _changes(scene: Scene) -> dict[str, Any]:
    change = {"telegram_id": scene.user(), "amount": 5, "reason": "x", "reference": f"r-{scene.number()}"}
    return {"changes": [change]}


REQUESTS: dict[str, Callable[[Scene], tuple[str, dict[str, Any]]]] = {
    "/v1/audit-logs": lambda _: ("/v1/audit-logs", {"action": "shop_opened", "details": {"a": 1}}),
    "/v1/balance-changes": lambda s: ("/v1/balance-changes", _changes(s)),
    "/v1/bank-notifications": lambda s: ("/v1/bank-notifications", s.line_body()),
    "/v1/bank-notifications/{bank_notification_id}/match": _match,
    "/v1/bank-notifications/{bank_notification_id}/dismiss": lambda s: (
        f"/v1/bank-notifications/{s.line()}/dismiss",
        {"note": "n"},
    ),
    "/v1/bank-notifications/{bank_notification_id}/reopen": lambda s: (
        f"/v1/bank-notifications/{s.dismissed()}/reopen",
        {},
    ),
    "/v1/bank-messages/{bank_message_id}/settle": lambda s: (
        f"/v1/bank-messages/{s.message(name=f'박{s.number()}')['id']}/settle",
        {"note": "n"},
    ),
    "/v1/debits": lambda s: ("/v1/debits", {"telegram_id": s.user(1000), "amount": 10, "reason": "x"}),
    "/v1/deposits": lambda s: (
        "/v1/deposits",
        {"telegram_id": s.user(), "amount": 1000, "depositor_name": f"박{s.number()}"},
    ),
    "/v1/deposits/{deposit_id}/cancel": lambda s: (f"/v1/deposits/{s.deposit()}/cancel", {}),
    "/v1/deposits/{deposit_id}/confirm": lambda s: (f"/v1/deposits/{s.deposit()}/confirm", {}),
    "/v1/domain-purchases": lambda s: (
        "/v1/domain-purchases",
        {"telegram_id": s.user(1000), "domain": s.domain(), "price": 1000},
    ),
    "/v1/domain-purchases/{domain_purchase_id}/complete": lambda s: (f"/v1/domain-purchases/{s.held()}/complete", {}),
    "/v1/domain-purchases/{domain_purchase_id}/release": lambda s: (f"/v1/domain-purchases/{s.held()}/release", {}),
    "/v1/transactions/{transaction_id}/reverse": lambda s: (f"/v1/transactions/{s.confirmed()}/reverse", {}),
    "/v1/users": lambda s: ("/v1/users", {"telegram_id": str(800_000 + s.number())}),
}
"""Path template of each write -> what makes a request to it that is carried out, about things of its own."""


WITH_ID = [template for template in REQUESTS if "{" in template]
"""The templates of the writes with an id in their path."""


def with_unknown_id(path: str) -> str:
    """The same path with an id that is nobody's in place of its own."""
    return "/".join(str(UNKNOWN_ID) if part.isdigit() else part for part in path.split("/"))
