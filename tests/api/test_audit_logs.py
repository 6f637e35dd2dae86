"""The audit log as ops read it."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.api import problems
from service.ledger.debits import DebitPost
from service.ledger.policy import Policy
from service.ledger.timestamps import stored
from service.repository import debits
from service.repository.writer import run_batch
from tests.live import Client, LiveService
from tests.repository.house import make_database, writing
from tests.repository.test_session import work


@pytest.fixture(scope="module")
def bot_key(service: LiveService) -> str:
    """The key of the bot that made part of the log."""
    return service.make_key("--name", "bot-1", "--role", "bot")


@pytest.fixture(scope="module")
def ops(service: LiveService, bot_key: str) -> Iterator[Client]:
    """A reader of a log with 40 rows about two users, among them refused attempts, made by two callers."""
    admin, bot = service.client(), service.client(bot_key)
    for telegram_id in ("5001", "5002"):
        for number in range(4):
            admin.credit(telegram_id, 10 + number)
            announced = {"telegram_id": telegram_id, "amount": 1, "depositor_name": "김철수"}
            assert bot.write("/v1/deposits", announced).status_code == 201
            refused = admin.write("/v1/debits", {"telegram_id": telegram_id, "amount": 10**6, "reason": "too much"})
            assert refused.status_code == 409, refused.text
    assert admin.write("/v1/debits", {"telegram_id": "5001", "amount": 10**6, "reason": "-"}).status_code == 409
    return service.client(service.make_key("--role", "ops"))


def every(ops: Client, **conditions: Any) -> list[dict[str, Any]]:
    """All rows that the conditions select, page by page."""
    rows: list[dict[str, Any]] = []
    while True:
        page = ops.get("/v1/audit-logs", params=conditions).raise_for_status().json()
        rows += page["items"]
        if page["next_cursor"] is None:
            return rows
        conditions["cursor"] = page["next_cursor"]


FILTERS: dict[str, Any] = {
    "telegram_id": ("5001", lambda row: row["telegram_id"] == "5001"),
    "action": ("*_failed", lambda row: row["action"].endswith("_failed")),
    "resource_type": ("deposit_transaction", lambda row: row["resource_type"] == "deposit_transaction"),
    "resource_id": (2, lambda row: row["resource_id"] == 2),
    "actor": ("bot-1", lambda row: row["actor"] == "bot-1"),
    "outcome": ("failure", lambda row: row["action"].endswith("_failed")),
    "since": (None, None),
    "until": (None, None),
}


@pytest.mark.parametrize("limit", [3, 1000])
@pytest.mark.parametrize("names", [c for size in range(4) for c in itertools.combinations(FILTERS, size)], ids="+".join)
def test_filters_hold_together_on_every_page_size(ops: Client, names: tuple[str, ...], limit: int) -> None:
    """Any combination gives exactly the rows that a filter in Python picks from the whole log, in either order."""
    everything = every(ops, limit=1000)
    edge = everything[len(everything) // 2]["created_at"]
    expected, conditions = everything, {}
    for name in names:
        value, holds = FILTERS[name]
        if name == "since":
            value, holds = edge, lambda row: row["created_at"] >= edge
        elif name == "until":
            value, holds = edge, lambda row: row["created_at"] < edge
        conditions[name] = value
        expected = [row for row in expected if holds(row)]
    assert every(ops, limit=limit, **conditions) == expected
    if limit == 3:
        assert every(ops, limit=limit, order="oldest", **conditions) == expected[::-1]


def test_since_is_inclusive_and_until_is_exclusive_in_every_time_zone(ops: Client) -> None:
    """The same instant with another offset is the same bound; a bound between milliseconds is kept exactly."""
    row = every(ops, action="balance_debited", limit=1) or every(ops, limit=1)
    at = row[0]["created_at"]
    seoul = datetime.fromisoformat(at).astimezone(UTC) + timedelta(hours=9)
    elsewhere = seoul.replace(tzinfo=None).isoformat(timespec="milliseconds") + "+09:00"
    ids = [{row["id"] for row in every(ops, limit=1000, since=since)} for since in (at, elsewhere)]
    assert ids[0] == ids[1]
    assert row[0]["id"] in ids[0]
    assert row[0]["id"] not in {found["id"] for found in every(ops, limit=1000, until=at)}
    just_after = at.replace("Z", "1Z")
    assert row[0]["id"] not in {found["id"] for found in every(ops, limit=1000, since=just_after)}
    assert row[0]["id"] in {found["id"] for found in every(ops, limit=1000, until=just_after)}


@pytest.mark.parametrize(
    ("pattern", "holds"),
    [
        ("deposit_*", lambda action: action.startswith("deposit_")),
        ("*announce*", lambda action: "announce" in action),
        ("*_failed", lambda action: action.endswith("_failed")),
        ("debit_failed", lambda action: action == "debit_failed"),
        ("debit", lambda action: action == "debit"),
        ("debit_f*", lambda action: action.startswith("debit_f")),
    ],
)
def test_an_action_may_have_a_star_at_either_end(ops: Client, pattern: str, holds: Any) -> None:
    """_ is a letter like any other, not a wildcard."""
    picked = [row["id"] for row in every(ops, limit=1000) if holds(row["action"])]
    assert [row["id"] for row in every(ops, limit=1000, action=pattern)] == picked


def test_a_row_says_who_did_what_from_where_and_by_which_request(ops: Client, bot_key: str) -> None:
    """The actor is the key's name, and the prefix is the key's: two keys may have one name."""
    row = every(ops, action="deposit_announced", telegram_id="5001", limit=1000)[0]
    assert (row["actor"], row["ip_address"], row["resource_type"]) == ("bot-1", "127.0.0.1", "deposit_transaction")
    assert row["user_agent"].startswith("python-httpx/")
    assert len(row["request_id"]) == 32
    assert row["key_prefix"] == bot_key.rpartition("_")[0]
    assert row["outcome"] == "success"
    assert {found["outcome"] for found in every(ops, action="*_failed", limit=1000)} == {"failure"}
    assert every(ops, request_id=row["request_id"]) == [
        found for found in every(ops, limit=1000) if found["request_id"] == row["request_id"]
    ]
    assert row["details"] == {"amount": 1, "depositor_name": "김철수"}
    assert ops.get(f"/v1/audit-logs/{row['id']}").json() == row


def test_an_unknown_row_is_404(ops: Client) -> None:
    """As for every resource."""
    answer = ops.get("/v1/audit-logs/999999")
    assert (answer.status_code, answer.json()["code"]) == (404, "audit_log_not_found")


def test_a_page_keeps_its_conditions_in_the_next_link(ops: Client) -> None:
    """Following Link alone walks the filtered log."""
    path, seen = "/v1/audit-logs?action=*_failed&telegram_id=5001&limit=2", []
    while path:
        answer = ops.get(path)
        seen += answer.json()["items"]
        path = answer.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert seen == every(ops, action="*_failed", telegram_id="5001", limit=1000)
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("cursor=5", "query/cursor"),
        ("cursor=o5", "query/cursor"),
        ("cursor=n5&order=oldest", "query/cursor"),
        ("cursor=n05", "query/cursor"),
        ("cursor=n0", "query/cursor"),
        ("cursor=n-5", "query/cursor"),
        ("cursor=n", "query/cursor"),
        ("order=upwards", "query/order"),
        ("outcome=maybe", "query/outcome"),
        ("limit=0", "query/limit"),
        ("limit=1001", "query/limit"),
        ("limit=1e2", "query/limit"),
        ("wait=0&follow=0", "query/wait"),
        ("follow=-1", "query/follow"),
        ("follow=999999999", "query/follow"),
        ("follow=0&cursor=n5", "query/cursor"),
        ("follow=0&order=newest", "query/order"),
        ("on=2026-02-30", "query/on"),
        ("since=2026-02-30", "query/since"),
        ("on=2026-02-03&since=2026-02-03", "query/on"),
        ("on=2026-02-03&until=2026-02-03T00:00:00Z", "query/on"),
        ("on=2026-02-03&tz=Mars/Olympus", "query/tz"),
        ("tz=Asia", "query/tz"),
        ("tz=../../etc/passwd", "query/tz"),
        ("tz=posix/../UTC", "query/tz"),
        ("actor=", "query/actor"),
        ("request_id=%00", "query/request_id"),
        ("user=5", "query/user"),
    ],
)
def test_what_cannot_be_asked_is_named(ops: Client, query: str, pointer: str) -> None:
    """400 with the parameter; a cursor serves the order alone that it was given in."""
    answer = ops.get(f"/v1/audit-logs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_suspicious_lists_who_was_refused_more_often_than_the_threshold(ops: Client) -> None:
    """More than, not as often as; most first; only within the window."""

    def suspicious(**query: Any) -> list[tuple[str, str, int]]:
        items = ops.get("/v1/audit-logs/suspicious", params=query).raise_for_status().json()["items"]
        logged = [every(ops, telegram_id=item["telegram_id"], action=item["action"], limit=1000) for item in items]
        assert [(item["first_at"], item["last_at"]) for item in items] == [
            (attempts[-1]["created_at"], attempts[0]["created_at"]) for attempts in logged
        ]
        return [(item["telegram_id"], item["action"], item["attempts"]) for item in items]

    both = [("5001", "debit_failed", 5), ("5002", "debit_failed", 4)]
    assert suspicious(threshold=3) == both
    assert suspicious(threshold=4) == both[:1]
    assert suspicious(threshold=5) == suspicious() == []
    assert suspicious(threshold=3, window="P1D") == both
    assert suspicious(threshold=0, window="PT0S") == []


def test_refused_attempts_from_before_the_window_are_not_suspicious(tmp_path: Path) -> None:
    """Three attempts of two hours ago: none within an hour, three within three hours."""
    path = make_database(tmp_path / "passbook.db")
    before = stored(datetime.now(UTC) - timedelta(hours=2))
    with writing(path) as connection:
        batch = [work(debits.POST, DebitPost(telegram_id="9", amount=1, reason="r"), f"key-{n}") for n in range(3)]
        run_batch(connection, batch, now=before, policy=Policy(), render_refusal=problems.render_refusal)
    service = LiveService(path).start()
    try:
        found = {
            window: service.client().get("/v1/audit-logs/suspicious", params={"window": window, "threshold": 0}).json()
            for window in ("PT1H", "PT3H")
        }
    finally:
        service.stop()
    assert [item["attempts"] for item in found["PT1H"]["items"]] == [], "attempts from before the window are listed"
    assert [item["attempts"] for item in found["PT3H"]["items"]] == [3]
