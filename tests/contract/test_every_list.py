"""Every list of the contract: its pages, its filters and its items are those that the rows of the database give.

The lists and their filters come from the application's contract; what they must answer is made in Python from the whole
tables, by code that shares nothing with the service.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest

from service.api import audit_feed, audit_logs
from service.app import create_app
from service.config import Config
from tests.contract.scenes import MILLISECOND, Scene
from tests.ledger_check import broken_invariants
from tests.some import some
from tests.stateful.served import CALLERS, served

Row = dict[str, Any]
Holds = Callable[[Row], bool]
HOLD = timedelta(hours=1)
QUEUE = "open=true"
OF_USER = {"/v1/users/{telegram_id}/transactions", "/v1/users/{telegram_id}/balance/explain"}
"""Lists of the user in the path."""
ORDERS = ("newest", "oldest")
PAGING = {"limit", "cursor", "order", "follow", "wait", "tz", "bom"}
"""What says how a list is told, not what is on it."""
MOMENT = {("/v1/users/{telegram_id}/balance/explain", "at")}
"""Not a filter: what is explained. test_every_window asks for it."""


def _spoken(text: str | None) -> str | None:
    return text and text.replace(" ", "T") + "Z"


def _lists() -> dict[str, tuple[set[str], int]]:
    """Path template of each list with pages -> the names of its filters, and the most items of a page."""
    document = create_app(Config()).openapi_schema.to_schema()
    found = {}
    for path, item in document["paths"].items():
        parameters = {one["name"]: one["schema"] for one in item.get("get", {}).get("parameters", [])}
        if "limit" in parameters:
            bounds = [parameters["limit"], *parameters["limit"].get("oneOf", [])]
            filters = parameters.keys() - PAGING - {"telegram_id"} if path in OF_USER else parameters.keys() - PAGING
            found[path] = (
                {name for name in filters if (path, name) not in MOMENT},
                next(one["maximum"] for one in bounds if "maximum" in one),
            )
    return found


LISTS = _lists()


@dataclass
class World:
    """A ledger with something of everything, its tables as they are, and who and what the filters are asked for."""

    scene: Scene
    users: tuple[str, str, str]
    """Two who have everything, and one who has nothing."""
    moment: datetime
    """When an event was put on record, between others a millisecond before and after."""

    seen: dict[str, list[Row]] = field(default_factory=dict)

    def view(self, path: str) -> list[Row]:
        """Every item of a list, made once."""
        if path not in self.seen:
            self.seen[path] = VIEWS[path](self)
        return self.seen[path]

    def rows(self, table: str) -> list[Row]:
        """Rows by the names of their columns, newest first."""
        columns = [name for (name,) in self.scene.service.rows(f"SELECT name FROM pragma_table_info('{table}')")]
        return [
            dict(zip(columns, row, strict=True))
            for row in self.scene.service.rows(f'SELECT * FROM "{table}" ORDER BY id DESC')
        ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Shared by the file's tests, which only read. A search of the log never stops early for its time."""
    path = tmp_path_factory.mktemp("lists") / "passbook.db"
    with served(path) as service, pytest.MonkeyPatch.context() as patch:
        for module in (audit_logs, audit_feed):
            patch.setattr(module, "PAGE_BUDGET_S", 60)
        yield _fill(Scene(service))
    assert broken_invariants(path) == []


def _fill(scene: Scene) -> World:
    scene.tick = 7 * MILLISECOND  # no two instants of a row are the same
    one, other = scene.user(50_000), scene.user(40_000)
    scene.made("/v1/users", {"telegram_id": one, "username": "hong"})
    for user in (one, other):
        scene.expired(user, 1100)
        scene.purchase(user, price=90)
        scene.all_expires()
        scene.deposit(user, 1200)
        scene.cancelled(user, 1300)
        scene.confirmed(user, 1400)
        scene.made(f"/v1/transactions/{scene.confirmed(user, 1500)}/reverse", {"note": "잘못"})
        scene.made("/v1/debits", {"telegram_id": user, "amount": 70, "reason": "한글.kr", "reference": f"o{user}"})
        scene.purchase(user, hold=False, price=110)
        held = scene.purchase(user, price=120)
        scene.made(f"/v1/domain-purchases/{held['id']}/release", {})
        scene.purchase(user, price=130)
        line = {**scene.line_body(1600), "bank_name": "KB국민", "raw_message": "입금 1,600원"}
        deposit = scene.deposit(user, 1600, line["depositor_name"])
        assert scene.made("/v1/bank-notifications", line)["matched_deposit_id"] == deposit
        for _ in range(4):
            by_hand, taught = scene.line(1700), {"deposit_id": scene.deposit(user, 1700), "remember": True}
            assert scene.made(f"/v1/bank-notifications/{by_hand}/match", taught)["learned_name_id"]
        scene.line(1800)
        scene.taken_back()
        credited = scene.line_body(1650)
        scene.deposit(user, 1650, credited["depositor_name"])
        assert scene.made("/v1/bank-notifications", credited)["matched_deposit_id"]
        assert scene.message(1650, credited["depositor_name"])["to_do"]
        scene.message(1660, "없음")
        scene.message(1670, kind="출금")
        scene.message(1670, kind="출금취소")
        unreadable = scene.made("/v1/bank-notifications", {"raw_message": f"안녕하세요 {user}"})
        scene.made("/v1/bank-notifications", {"raw_message": f"모름 {user}"})
        scene.made(f"/v1/bank-messages/{unreadable['id']}/settle", {"note": "광고"})
        name = f"이{scene.number()}"
        scene.deposit(one, 1900, name)
        scene.deposit(other, 1900, name)
        ambiguous = {**scene.line_body(1900, name), "bank_name": "NH"}
        assert scene.made("/v1/bank-notifications", ambiguous)["status"] == "ambiguous"
        assert scene.post("/v1/debits", {"telegram_id": user, "amount": 10**9, "reason": "x"}).status == 409
    return World(scene, (one, other, scene.user()), _put_events(scene, one, other))


def _put_events(scene: Scene, one: str, other: str) -> datetime:
    """Events of which each differs from the first in one thing alone; two of them a millisecond apart from it."""
    clock = scene.service.clock
    clock.now = datetime(2026, 3, 8, 14, 59, 59, 999_000, tzinfo=UTC)  # Seoul's 8 March ends in a millisecond
    same = {"action": "shop_opened", "telegram_id": one, "resource_type": "shop", "resource_id": 7, "details": {"a": 1}}
    differing = (
        {"action": "shop_closed"},
        {"outcome": "failure"},
        {"telegram_id": other},
        {"telegram_id": None},
        {"resource_type": "stall"},
        {"resource_type": None},
        {"resource_id": 8},
        {"resource_id": None},
        {"details": None},
    )
    moment = clock.now + MILLISECOND

    def put(body: dict[str, Any], caller: str = CALLERS[0], request_id: str = "asked-1") -> None:
        body = {name: value for name, value in body.items() if value is not None}
        answer = scene.service.post(caller, f"event-{scene.number()}", "/v1/audit-logs", json.dumps(body), request_id)
        assert answer.status == 201, answer

    for at in (moment - MILLISECOND, moment, moment + MILLISECOND):
        clock.now = at
        put(same)
    for difference in differing:
        put({**same, **difference})
    put(same, caller=CALLERS[1])
    put(same, request_id="asked-2")
    clock.now += timedelta(days=1)
    put(same)
    return moment


# What each list must show, made of the tables.


def _users(world: World) -> dict[int, str]:
    return {row["id"]: row["telegram_id"] for row in world.rows("users")}


def _transactions(world: World) -> list[Row]:
    users, rows = _users(world), world.rows("deposit_transactions")
    reversals = {row["reverses_id"]: row["id"] for row in rows if row["reverses_id"] is not None}
    return [
        {
            "id": row["id"],
            "telegram_id": users[row["user_id"]],
            "type": row["type"],
            "direction": row["direction"],
            "amount": row["amount"],
            "status": "reversed" if row["id"] in reversals else row["status"],
            "depositor_name": row["depositor_name"],
            "description": row["description"],
            "reference": row["reference"],
            "created_at": _spoken(row["created_at"]),
            "confirmed_at": _spoken(row["confirmed_at"]),
            "balance_before": row["balance_before"],
            "balance_after": row["balance_after"],
            "version": row["version"],
            "reverses_id": row["reverses_id"],
            "reversed_by_id": reversals.get(row["id"]),
        }
        for row in rows
    ]


def _deposits(world: World) -> list[Row]:
    lines = {row["matched_transaction_id"]: row["id"] for row in world.rows("bank_notifications")}
    members = ("id", "telegram_id", "amount", "depositor_name", "status", "created_at", "confirmed_at")
    waiting = [row for row in world.rows("bank_notifications") if _is_open(row)]
    return [
        {
            **{name: row[name] for name in members},
            "matched_bank_notification_id": lines.get(row["id"]),
            "expires_at": _later(row["created_at"], timedelta(days=1)) if row["status"] == "pending" else None,
            "in_review": any(_could_be_of(row, line) for line in waiting),
        }
        for row in _transactions(world)
        if row["type"] == "deposit"
    ]


def _is_open(line: Row) -> bool:
    return line["status"] != "matched" and line["closed_as"] is None


def _could_be_of(deposit: Row, line: Row) -> bool:
    """Whether the line that waits may be the money of the deposit. No printed name here is another one's beginning."""
    same = deposit["amount"] == line["amount"] and deposit["depositor_name"] == line["depositor_name"]
    return same and _may_be_paid_by(deposit, line)


def _later(at: str | None, duration: timedelta) -> str:
    then = datetime.fromisoformat(str(at)) + duration
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _purchases(world: World) -> list[Row]:
    users, moved = _users(world), {row["id"]: row for row in _transactions(world)}
    return [
        {
            "id": row["id"],
            "telegram_id": users[row["user_id"]],
            "domain": row["domain"],
            "ascii_name": row["ascii_name"],
            "price": row["price"],
            "status": row["status"],
            "transaction_id": row["transaction_id"],
            "created_at": _spoken(row["created_at"]),
            "registered_at": _spoken(row["registered_at"]),
            "payment_reversed": moved[row["transaction_id"]]["reversed_by_id"] is not None,
            "expires_at": _later(_spoken(row["created_at"]), HOLD) if row["status"] == "pending" else None,
        }
        for row in world.rows("user_domains")
    ]


def _bank_lines(world: World) -> list[Row]:
    deposits = _deposits(world)
    events = world.rows("bank_notification_events")
    cancelled = {row["bank_notification_id"] for row in events if row["kind"] == "cancelled"}
    return [
        {
            "id": row["id"],
            "bank_transaction_id": row["bank_transaction_id"],
            "depositor_name": row["depositor_name"],
            "amount": row["amount"],
            "occurred_at": _spoken(row["transaction_time"]),
            "bank_name": row["bank_name"],
            "raw_message": row["raw_message"],
            "status": row["closed_as"] or row["status"],
            "matched_deposit_id": row["matched_transaction_id"],
            "match_method": row["match_method"],
            "matched_by": row["matched_by"],
            "matched_at": _spoken(row["matched_at"]),
            "created_at": _spoken(row["created_at"]),
            "candidates": [
                {
                    **{name: one[name] for name in ("telegram_id", "depositor_name", "amount", "status", "created_at")},
                    "deposit_id": one["id"],
                    "likeness": likeness,
                }
                for likeness in ("same_name", "same_amount")
                for one in reversed(deposits)
                if one["amount"] == row["amount"]
                and (one["depositor_name"] == row["depositor_name"]) == (likeness == "same_name")
                and (likeness == "same_name" or _may_be_paid_by(one, row))
                and row["status"] != "matched"
                and row["closed_as"] is None
            ],
            "more_candidates": 0,
            "more_candidates_counted": True,
            "account": row["account"],
            "bank_balance_after": row["balance_after"],
            "balance_gap": False,
            "to_do": _reverse(row["matched_transaction_id"]) if row["id"] in cancelled else None,
        }
        for row in world.rows("bank_notifications")
    ]


def _bank_messages(world: World) -> list[Row]:
    lines = {row["id"]: row["matched_transaction_id"] for row in world.rows("bank_notifications")}
    same = ("kind", "status", "raw_message", "bank_name", "account", "depositor_name", "amount")
    to_do = {
        "unreadable": "Read it. Post a deposit in it as a notification with its amount; then settle it.",
        "waiting": "Find the notification that the bank took back, and settle this with its bank_notification_id.",
    }
    return [
        {
            "id": row["id"],
            **{name: row[name] for name in same},
            "bank_balance_after": row["balance_after"],
            "occurred_at": _spoken(row["transaction_time"]),
            "bank_notification_id": row["bank_notification_id"],
            "note": row["note"],
            "settled_by": row["settled_by"],
            "settled_at": _spoken(row["settled_at"]),
            "received_by": row["received_by"],
            "created_at": _spoken(row["created_at"]),
            "to_do": _reverse(lines.get(row["bank_notification_id"])) or to_do.get(row["status"]),
        }
        for row in world.rows("bank_messages")
    ]


def _reverse(deposit_id: int | None) -> str | None:
    return f"The bank took this money back: reverse deposit {deposit_id}." if deposit_id else None


def _learned_names(world: World) -> list[Row]:
    users = _users(world)
    return [
        {
            "id": row["id"],
            "telegram_id": users[row["user_id"]],
            "printed_name": row["printed_name"],
            "bank_notification_id": row["bank_notification_id"],
            "learned_by": row["learned_by"],
            "created_at": _spoken(row["created_at"]),
        }
        for row in world.rows("learned_names")
    ]


def _may_be_paid_by(deposit: Row, line: Row) -> bool:
    """Whether the deposit is open and was announced within a day of the line's money."""
    times = (datetime.fromisoformat(str(at)) for at in (deposit["created_at"], _spoken(line["transaction_time"])))
    announced, came = times
    return deposit["status"] in {"pending", "expired"} and abs(announced - came) <= timedelta(days=1)


def _log(world: World) -> list[Row]:
    def details(text: str) -> Any:
        found = json.loads(text)
        found.pop("answer_sha256", None)
        return found

    members = (
        *("id", "action", "outcome", "telegram_id", "resource_type", "resource_id", "actor", "key_prefix"),
        *("request_id", "ip_address", "user_agent"),
    )
    return [
        {
            **{name: row[name] for name in members},
            "created_at": _spoken(row["created_at"]),
            "details": row["details"] and details(row["details"]),
        }
        for row in world.rows("audit_logs")
    ]


def _causes(world: World) -> list[Row]:
    """Of what is confirmed, by version, the last first; without the members that are found by way of other rows."""
    lines = {row["matched_deposit_id"]: row for row in _bank_lines(world)}
    told = ("id", "bank_transaction_id", "bank_name", "depositor_name", "amount", "occurred_at")
    same = (
        *("telegram_id", "type", "direction", "amount", "balance_before", "balance_after", "version", "confirmed_at"),
        *("description", "reference", "depositor_name", "reverses_id", "reversed_by_id"),
    )
    found = []
    for row in _transactions(world):
        if row["version"] is not None:
            line = lines.get(row["id"])
            found.append(
                {
                    **{name: row[name] for name in same},
                    "transaction_id": row["id"],
                    "source": "passbook",
                    "effect": row["amount"] * (1 if row["direction"] == "credit" else -1),
                    "bank_notification": line and {name: line[name] for name in (*told, "match_method", "matched_by")},
                    **_acted(world, row),
                }
            )
    return sorted(found, key=lambda row: -row["version"])


def _acted(world: World, moved: Row) -> Row:
    """By which audit row, by whom and for which purchase the transaction moved."""
    for row in world.view("/v1/audit-logs"):
        details = row["details"] or {}
        purchase = row["resource_type"] == "user_domains" and details.get("transaction_id") == moved["id"]
        own = row["resource_type"] == "deposit_transaction" and row["resource_id"] == moved["id"]
        if purchase or (own and row["action"] in MOVES):
            return {
                "audit_log_id": row["id"],
                "actor": row["actor"],
                "request_id": row["request_id"],
                "domain_purchase_id": row["resource_id"] if purchase else None,
                "domain": details["domain"] if purchase else None,
            }
    raise AssertionError(f"no audit row moved {moved}")


MOVES = {"deposit_confirmed", "balance_debited", "balance_credited", "transaction_reversed"}
VIEWS: dict[str, Callable[[World], list[Row]]] = {
    "/v1/audit-logs": _log,
    "/v1/bank-messages": _bank_messages,
    "/v1/bank-notifications": _bank_lines,
    "/v1/deposits": _deposits,
    "/v1/domain-purchases": _purchases,
    "/v1/learned-names": _learned_names,
    "/v1/users/{telegram_id}/transactions": _transactions,
    "/v1/users/{telegram_id}/balance/explain": _causes,
}
"""Every item of a list, of all users, newest first."""


def _equal(name: str, *values: Any) -> Callable[[World], list[tuple[Any, Holds]]]:
    return lambda _: [(value, lambda row, value=value: row[name] == value) for value in values]


def _of_users(world: World) -> list[tuple[Any, Holds]]:
    nobody = "123454321"
    return [(user, lambda row, user=user: row["telegram_id"] == user) for user in (*world.users, nobody, "erased-1")]


def _instants(world: World, *, since: bool) -> list[tuple[Any, Holds]]:
    """The moment of a row exactly, a microsecond and a millisecond around it, in two spellings; and whole days."""
    zero = timedelta(0)
    edges = (zero, timedelta(microseconds=1), timedelta(microseconds=-1), MILLISECOND, -MILLISECOND)
    found = []
    for edge in edges:
        at = world.moment + edge
        seoul = at.astimezone(ZoneInfo("Asia/Seoul")).isoformat(timespec="microseconds")
        for spelled in (at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z", seoul):
            found.append((spelled, _from(at) if since else _before(at)))
    day = datetime(2026, 3, 9, tzinfo=UTC)
    return [*found, ("2026-03-09", _from(day) if since else _before(day))]


def _from(at: datetime, name: str = "created_at") -> Holds:
    return lambda row: datetime.fromisoformat(row[name]) >= at


def _before(at: datetime, name: str = "created_at") -> Holds:
    return lambda row: datetime.fromisoformat(row[name]) < at


def _around(world: World, path: str, name: str, holds: Callable[[datetime, str], Holds]) -> list[tuple[Any, Holds]]:
    """The instant of a row in the middle exactly, and a millisecond beside it; in Seoul's time; and far away."""
    rows = sorted(world.view(path), key=lambda row: row[name])
    at = datetime.fromisoformat(rows[len(rows) // 2][name])
    edges = [at + edge for edge in (timedelta(0), MILLISECOND, -MILLISECOND)]
    far = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]
    spelled = [one.astimezone(ZoneInfo("Asia/Seoul")).isoformat(timespec="milliseconds") for one in edges]
    found = [*zip(spelled, edges, strict=True), *((one.strftime("%Y-%m-%d").zfill(10), one) for one in far)]
    return [(text, holds(moment, name)) for text, moment in found]


def _lines_of_users(world: World) -> list[tuple[Any, Holds]]:
    """Those that are matched with a deposit of the user, and those that wait and could mean an open one."""
    deposits, lines = _deposits(world), {row["id"]: row for row in world.rows("bank_notifications")}
    owners = {row["id"]: row["telegram_id"] for row in deposits}

    def holds(user: str) -> Holds:
        own = [one for one in deposits if one["telegram_id"] == user]
        return lambda row: (
            owners.get(row["matched_deposit_id"]) == user
            or (_is_open(lines[row["id"]]) and any(_could_be_of(one, lines[row["id"]]) for one in own))
        )

    return [(user, holds(user)) for user in (*world.users, "123454321", "erased-1")]


def _days(_: World) -> list[tuple[Any, Holds]]:
    """In UTC, and with the zone beside it; Seoul's day begins at the moment of a row, and the one before ends there."""

    def of(day: str, zone: str) -> Holds:
        began = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
        return lambda row: began <= datetime.fromisoformat(row["created_at"]) < began + timedelta(days=1)

    return [
        ("2026-03-08", of("2026-03-08", "UTC")),
        *((f"{day}&tz=Asia/Seoul", of(day, "Asia/Seoul")) for day in ("2026-03-08", "2026-03-09", "2026-03-10")),
    ]


def _actions(_: World) -> list[tuple[Any, Holds]]:
    return [
        ("shop_opened", lambda row: row["action"] == "shop_opened"),
        ("shop_*", lambda row: row["action"].startswith("shop_")),
        ("*_failed", lambda row: row["action"].endswith("_failed")),
        ("*op*", lambda row: "op" in row["action"]),
        ("shop", lambda _: False),
    ]


STATUSES = ("pending", "confirmed", "cancelled", "expired", "reversed")
FILTERS: dict[tuple[str, str], Callable[[World], list[tuple[Any, Holds]]]] = {
    ("/v1/audit-logs", "telegram_id"): _of_users,
    ("/v1/audit-logs", "action"): _actions,
    ("/v1/audit-logs", "resource_type"): _equal("resource_type", "shop", "deposit_transaction", "nothing"),
    ("/v1/audit-logs", "resource_id"): _equal("resource_id", 7, 8, 999_999),
    ("/v1/audit-logs", "actor"): _equal("actor", *CALLERS, "nobody"),
    ("/v1/audit-logs", "request_id"): _equal("request_id", "asked-1", "asked-2", "asked"),
    ("/v1/audit-logs", "outcome"): _equal("outcome", "success", "failure"),
    ("/v1/audit-logs", "since"): lambda world: _instants(world, since=True),
    ("/v1/audit-logs", "until"): lambda world: _instants(world, since=False),
    ("/v1/audit-logs", "on"): _days,
    ("/v1/bank-messages", "status"): _equal("status", "unreadable", "waiting", "kept", "settled"),
    ("/v1/bank-notifications", "status"): _equal(
        "status", "unmatched", "ambiguous", "matched", "dismissed", "cancelled"
    ),
    ("/v1/bank-notifications", "open"): lambda _: [
        ("true", lambda row: row["status"] in {"unmatched", "ambiguous"}),
        ("false", lambda row: row["status"] not in {"unmatched", "ambiguous"}),
    ],
    ("/v1/bank-notifications", "telegram_id"): _lines_of_users,
    ("/v1/bank-notifications", "amount"): _equal("amount", 1900, 1700, 1600, 5),
    ("/v1/bank-notifications", "since"): lambda world: _around(world, "/v1/bank-notifications", "occurred_at", _from),
    ("/v1/bank-notifications", "until"): lambda world: _around(world, "/v1/bank-notifications", "occurred_at", _before),
    ("/v1/deposits", "status"): _equal("status", *STATUSES, "rejected"),
    ("/v1/deposits", "telegram_id"): _of_users,
    ("/v1/deposits", "amount"): _equal("amount", 1900, 1100, 1700, 5),
    ("/v1/deposits", "since"): lambda world: _around(world, "/v1/deposits", "created_at", _from),
    ("/v1/deposits", "until"): lambda world: _around(world, "/v1/deposits", "created_at", _before),
    ("/v1/domain-purchases", "telegram_id"): _of_users,
    ("/v1/learned-names", "telegram_id"): _of_users,
}


def test_every_list_and_every_filter_is_asked_for_here() -> None:
    """A new list, or a new filter of one, needs its rows and its values above."""
    assert VIEWS.keys() == LISTS.keys()
    assert FILTERS.keys() == {(path, name) for path, (names, _) in LISTS.items() for name in names}


# How a list is walked.


def _url(path: str, *asked: str, **paging: Any) -> str:
    joined = "&".join(part for part in (*asked, urlencode(paging)) if part)
    return f"{path}{'&' if '?' in path else '?'}{joined}"


def _walk(world: World, url: str, limit: int) -> list[list[Row]]:
    """The items of each page; every page says by its cursor and its Link header alike whether there is another."""
    pages, cursor = [], None
    while True:
        more = f"&cursor={cursor}" if cursor else ""
        answer = world.scene.service.get(f"{url}{more}")
        assert answer.status == 200, (url, answer)
        document = answer.json()
        pages.append(document["items"])
        link, cursor = answer.headers.get("link"), document["next_cursor"]
        assert (link is None) == (cursor is None), (url, link, cursor)
        if cursor is None:
            return pages
        assert f"cursor={cursor}" in link, (link, cursor)
        assert len(pages) < 1000, f"{url} never ends"
        assert pages[-1], f"{url} has an empty page before its last"
        assert f"limit={limit}" in link


def _sizes(path: str, count: int) -> list[int]:
    """Sizes of pages that `count` items fill exactly, and those with one item more and fewer than that."""
    parts = {1, 2, 3, count // 2, count // 3, (count + 1) // 2, *_whole(count)}
    exact = [limit for limit in range(2, count) if count % limit == 0]
    # Dozens of pages prove nothing more.
    return sorted({one for one in (*parts, *exact[:2]) if 1 <= one <= LISTS[path][1] and count / one <= 15})


def _whole(count: int) -> set[int]:
    return {count - 1, count, count + 1} - {-1, 0}


def _check_pages(world: World, url: str, wanted: list[Row], sizes: Iterable[int]) -> None:
    """The pages are the whole, item for item, without a gap and without one twice, in every order that there is."""
    for limit, order in some(itertools.product(sizes, ORDERS if "/audit-logs" in url else ("",))):
        asked = _url(url, limit=limit, **({"order": order} if order else {}))
        expected = wanted[::-1] if order == "oldest" or QUEUE in url else wanted
        pages = _walk(world, asked, limit)
        found = [item for page in pages for item in page]
        assert _named(found) == _named(expected), f"{asked}: its pages are not the whole"
        assert found == expected, asked
        filled = [len(page) for page in pages[:-1]]
        assert filled == [limit] * len(filled), f"{asked}: a page before the last is not full: {filled}"
        assert pages[-1] or not expected, f"{asked}: an empty page stands behind the last item"


def _named(items: list[Row]) -> list[int]:
    return [item["transaction_id"] if "effect" in item else item["id"] for item in items]


def _wanted(world: World, path: str, holds: Holds) -> list[Row]:
    return [row for row in world.view(path) if holds(row)]


@pytest.mark.parametrize("path", [path for path in LISTS if path not in OF_USER])
def test_a_list_is_the_rows_of_its_table_on_pages_of_any_size(world: World, path: str) -> None:
    """Every member of every item is the row's; next_cursor is null on the last page, and there alone."""
    wanted = _wanted(world, path, lambda _: True)
    assert len(wanted) >= 8
    _check_pages(world, path, wanted, _sizes(path, len(wanted)))


@pytest.mark.parametrize("path", sorted(OF_USER))
def test_a_list_of_a_user_is_that_users_rows(world: World, path: str) -> None:
    """Of two who have many and one who has none."""
    for user in some(world.users):
        wanted = _wanted(world, path, lambda row, user=user: row["telegram_id"] == user)
        if path.endswith("explain"):
            wanted = [{name: value for name, value in row.items() if name != "telegram_id"} for row in wanted]
        assert wanted or user == world.users[2]
        _check_pages(world, path.format(telegram_id=user), wanted, _sizes(path, len(wanted)))


@pytest.mark.parametrize(("path", "name"), FILTERS)
def test_a_filter_leaves_what_it_names_and_nothing_else(world: World, path: str, name: str) -> None:
    """Each value alone: rows that differ in it alone are left out; some values leave some rows, others none."""
    counts = set()
    everything = len(world.view(path))
    for value, holds in FILTERS[path, name](world):
        wanted = _wanted(world, path, holds)
        counts.add(len(wanted))
        sizes = {one for one in {7, *_whole(len(wanted))} if one <= LISTS[path][1]}
        _check_pages(world, f"{path}?{_asked(name, value)}", wanted, sizes)
    assert counts - {0, everything}, "no value tells rows apart"


def _asked(name: str, value: Any) -> str:
    text, _, more = str(value).partition("&")
    return urlencode({name: text}) + (f"&{more}" if more else "")


@pytest.mark.parametrize("path", [path for path in LISTS if len(LISTS[path][0]) > 1])
def test_two_filters_hold_together(world: World, path: str) -> None:
    """Every pair of filters with each two of their first values; pages of three as one."""
    names = sorted(LISTS[path][0])
    view = world.view(path)
    for one, other in some(itertools.combinations(names, 2)):
        if "on" in (one, other) and {one, other} & {"since", "until"}:
            continue  # refused: a day has both ends
        chosen = itertools.product(FILTERS[path, one](world)[:2], FILTERS[path, other](world)[:2])
        for (value, holds), (other_value, other_holds) in some(chosen):
            asked = f"{_asked(one, value)}&{_asked(other, other_value)}"
            wanted = [row for row in view if holds(row) and other_holds(row)]
            pages = _walk(world, _url(path, asked, limit=7), 7)
            expected = wanted[::-1] if QUEUE in asked else wanted
            assert [item["id"] for page in pages for item in page] == [row["id"] for row in expected], asked


SINGLE: dict[str, Callable[[World], list[Row]]] = {
    "/v1/audit-logs/{audit_log_id}": _log,
    "/v1/bank-messages/{bank_message_id}": _bank_messages,
    "/v1/bank-notifications/{bank_notification_id}": _bank_lines,
    "/v1/deposits/{deposit_id}": _deposits,
    "/v1/domain-purchases/{domain_purchase_id}": _purchases,
    "/v1/transactions/{transaction_id}": _transactions,
}


def test_every_read_of_one_thing_is_asked_for_here() -> None:
    """By the contract's paths that end with an id; users are looked at below."""
    document = create_app(Config()).openapi_schema.to_schema()
    by_id = {path for path, item in document["paths"].items() if "get" in item and path.endswith("_id}")}
    assert by_id == SINGLE.keys() | {"/v1/users/{telegram_id}"}


@pytest.mark.parametrize("template", SINGLE)
def test_one_thing_is_shown_as_its_row_is(world: World, template: str) -> None:
    """Every one of them, every member; and an id that is another kind's is not there."""
    shown = SINGLE[template](world)
    base = template.rpartition("/")[0]
    for row in some(shown):
        assert world.scene.service.get(f"{base}/{row['id']}").json() == row
    missing = {row["id"] for row in _transactions(world)} - {row["id"] for row in shown} | {999_999}
    if template in {"/v1/deposits/{deposit_id}", "/v1/transactions/{transaction_id}"}:
        assert {world.scene.service.get(f"{base}/{one}").status for one in missing} == {404}


def test_a_user_is_shown_as_the_account_is(world: World) -> None:
    """Who it is; the balance, what is held of it, and the version."""
    accounts = {row["user_id"]: row for row in world.rows("user_deposits")}
    purchases = _purchases(world)
    for row in some(world.rows("users")):
        held = sum(
            one["price"]
            for one in purchases
            if one["telegram_id"] == row["telegram_id"] and one["status"] == "pending" and not one["payment_reversed"]
        )
        account = accounts[row["id"]]
        shown = {
            "telegram_id": row["telegram_id"],
            "balance": account["balance"],
            "held": held,
            "version": account["version"],
        }
        assert world.scene.service.get(f"/v1/users/{row['telegram_id']}/balance").json() == shown
        assert world.scene.service.get(f"/v1/users/{row['telegram_id']}").json() == {
            "telegram_id": row["telegram_id"],
            "username": row["username"],
            "created_at": _spoken(row["created_at"]),
        }


@pytest.mark.parametrize("media_type", ["text/csv", "application/x-ndjson"])
def test_an_export_has_the_rows_of_the_list(world: World, media_type: str) -> None:
    """With every filter, in both orders, and with a limit."""
    view = world.view("/v1/audit-logs")
    cases: list[tuple[str, Holds]] = [("", lambda _: True)]
    for (path, name), values in FILTERS.items():
        if path == "/v1/audit-logs":
            cases += [(_asked(name, value), holds) for value, holds in values(world)]
    for asked, holds in some(cases):
        wanted = [row["id"] for row in view if holds(row)]
        for order in ORDERS:
            url = _url("/v1/audit-logs", asked, order=order)
            text = world.scene.service.ask("GET", url, headers={"Accept": media_type}).body.decode()
            found = _ids(text, media_type)
            assert found == (wanted if order == "newest" else wanted[::-1]), url
    limited = world.scene.service.ask("GET", "/v1/audit-logs?limit=5", headers={"Accept": media_type}).body.decode()
    assert _ids(limited, media_type) == [row["id"] for row in view[:5]]


def _ids(text: str, media_type: str) -> list[int]:
    if media_type == "application/x-ndjson":
        return [json.loads(line)["id"] for line in text.splitlines()]
    header, *lines = text.splitlines()
    assert header.lstrip("\ufeff").startswith("id,")
    return [int(line.partition(",")[0]) for line in lines]


def test_what_follows_has_the_rows_of_the_list(world: World) -> None:
    """Behind any id, with each filter: the oldest first, as many as there is room for, and where to go on."""
    view = world.view("/v1/audit-logs")[::-1]
    newest = view[-1]["id"]
    for after in (0, view[2]["id"], view[-2]["id"]):
        for (path, name), values in FILTERS.items():
            if path != "/v1/audit-logs":
                continue
            for value, holds in some(values(world)):
                wanted = [row for row in view if row["id"] > after and holds(row)]
                if not wanted:
                    continue  # it would wait
                for limit in {1, len(wanted), len(wanted) + 1}:
                    url = _url("/v1/audit-logs", _asked(name, value), follow=after, limit=min(limit, 1000), wait=1)
                    told = world.scene.service.get(url).json()
                    assert told["items"] == wanted[:limit], url
                    last = told["items"][-1]["id"]
                    assert told["next_follow"] == (last if len(told["items"]) == limit else newest), url
