"""Why a balance is what it is, over real HTTP: the causes are all there, they sum, and each leads to its audit row."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService, passbook
from tests.some import some
from tests.storage.test_importer import make_bots_file
from tests.waiting import until


def explain(client: Client, telegram_id: str, **query: Any) -> dict[str, Any]:
    """GET the explanation; 200."""
    answer = client.get(f"/v1/users/{telegram_id}/balance/explain", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def walk(client: Client, telegram_id: str, **query: Any) -> Iterator[dict[str, Any]]:
    """Every page, following Link alone."""
    answer = client.get(f"/v1/users/{telegram_id}/balance/explain", params=query)
    while True:
        assert answer.status_code == 200, answer.text
        yield answer.json()
        if "Link" not in answer.headers:
            assert answer.json()["next_cursor"] is None
            return
        answer = client.get(answer.headers["Link"].partition(">")[0].lstrip("<"))


def totals(page: dict[str, Any]) -> dict[str, Any]:
    """What must be the same on every page."""
    return {name: value for name, value in page.items() if name not in {"items", "next_cursor"}}


def moment() -> str:
    """Now, in a millisecond of its own."""
    time.sleep(0.002)
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    time.sleep(0.002)
    return now


@contextmanager
def by_hand(service: LiveService, *, without: str = "") -> Iterator[sqlite3.Connection]:
    """The database of the stopped service, with the triggers on the table `without` away; then it serves again."""
    assert service.stop() == 0
    with closing(sqlite3.connect(service.database)) as connection:
        named = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?"
        triggers = connection.execute(named, (without,)).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for _, sql in triggers:
            connection.execute(sql)
        connection.commit()
    service.start()


def act(client: Client, telegram_id: str) -> dict[str, Any]:
    """Every kind of movement once, for one user; what each answered."""
    deposit = client.credit(telegram_id, 50_000)
    debit = {"telegram_id": telegram_id, "amount": 1_000, "reason": "수수료", "reference": f"order-{telegram_id}"}
    changes = [
        {"telegram_id": telegram_id, "amount": 700, "reason": "bonus", "reference": f"bonus-{telegram_id}"},
        {"telegram_id": telegram_id, "amount": -200, "reason": "fee", "reference": f"fee-{telegram_id}"},
    ]
    name = {"telegram_id": telegram_id, "price": 3_000}
    done = {
        "deposit": deposit,
        "debit": client.write("/v1/debits", debit).json(),
        "changes": client.write("/v1/balance-changes", {"changes": changes}).json()["results"],
        "held": client.write("/v1/domain-purchases", {**name, "domain": f"held{telegram_id}.kr", "hold": True}).json(),
        "kept": client.write("/v1/domain-purchases", {**name, "domain": f"한글{telegram_id}.kr", "hold": True}).json(),
    }
    done["released"] = client.write(f"/v1/domain-purchases/{done['held']['id']}/release").json()
    done["completed"] = client.write(f"/v1/domain-purchases/{done['kept']['id']}/complete").json()
    again = {**name, "domain": f"held{telegram_id}.kr"}
    done["again"] = client.write("/v1/domain-purchases", again).json()
    done["reversal"] = client.write(f"/v1/transactions/{done['debit']['id']}/reverse", {"note": "wrong"}).json()
    return done


def test_every_cause_is_named_and_they_sum_to_the_balance(service: LiveService) -> None:
    """Deposit, debit, changes, purchases held, released, kept and bought again, reversal: nine lines, one chain."""
    client = service.client(service.make_key("--name", "teller", "--role", "admin"))
    client.write("/v1/deposits", {"telegram_id": "7001", "amount": 9, "depositor_name": "pending"})
    done = act(client, "7001")
    found = explain(client, "7001")
    balance = client.get("/v1/users/7001/balance").json()
    assert (found["balance"], found["version"]) == (balance["balance"], balance["version"]) == (44_500, 9)
    assert (found["credits"], found["debits"], found["count"]) == (54_700, 10_200, 9)
    assert (found["difference"], found["proved"], found["doubts"]) == (0, True, [])
    items = found["items"]
    assert [item["version"] for item in items] == list(range(9, 0, -1))
    assert sum(item["effect"] for item in items) == 44_500
    for newer, older in some(pairwise(items)):
        assert newer["balance_before"] == older["balance_after"]
    assert [(item["type"], item["effect"], item["audit_log_id"]) for item in reversed(items)] == [
        ("deposit", 50_000, done["deposit"]["audit_log_id"]),
        ("debit", -1_000, done["debit"]["audit_log_id"]),
        ("balance_change", 700, done["changes"][0]["audit_log_id"]),
        ("balance_change", -200, done["changes"][1]["audit_log_id"]),
        ("domain_purchase", -3_000, done["held"]["audit_log_id"]),
        ("domain_purchase", -3_000, done["kept"]["audit_log_id"]),
        ("domain_refund", 3_000, done["released"]["audit_log_id"]),
        ("domain_purchase", -3_000, done["again"]["audit_log_id"]),
        ("reversal", 1_000, done["reversal"]["audit_log_id"]),
    ]
    by_type = {item["version"]: item for item in items}
    assert (by_type[1]["depositor_name"], by_type[1]["bank_notification"]) == ("홍길동", None)
    assert (by_type[2]["description"], by_type[2]["reference"]) == ("수수료", "order-7001")
    assert by_type[2]["reversed_by_id"] == by_type[9]["transaction_id"]
    assert (by_type[9]["reverses_id"], by_type[9]["description"]) == (by_type[2]["transaction_id"], "wrong")
    for version, domain, purchase in (
        (5, "held", "held"),
        (6, "한글", "kept"),
        (7, "held", "held"),
        (8, "held", "again"),
    ):
        assert by_type[version]["domain"] == f"{domain}7001.kr"
        assert by_type[version]["domain_purchase_id"] == done[purchase]["id"]
    assert {by_type[version]["domain"] for version in (1, 2, 3, 4, 9)} == {None}


def test_every_cause_leads_to_the_row_of_the_log_that_was_written_with_it(service: LiveService) -> None:
    """The row names the same user, actor, request and balances."""
    client = service.client(service.make_key("--name", "teller-2", "--role", "admin"))
    act(client, "7002")
    items = explain(client, "7002")["items"]
    for item in some(items):
        row = client.get(f"/v1/audit-logs/{item['audit_log_id']}").json()
        assert (row["telegram_id"], row["actor"], row["request_id"]) == ("7002", "teller-2", item["request_id"])
        assert item["actor"] == "teller-2"
        for name in ("balance_before", "balance_after", "version"):
            assert row["details"][name] == item[name]


def test_a_past_moment_has_the_balance_that_was_answered_then(service: LiveService) -> None:
    """After each of many movements: the balance of that moment, proved, also with an offset and a finer fraction."""
    client = service.client()
    client.write("/v1/users", {"telegram_id": "7003"})
    answered = [(moment(), 0, 0)]
    for step in range(6):
        if step % 3 < 2:
            client.credit("7003", 1_000 + step)
        else:
            client.write("/v1/debits", {"telegram_id": "7003", "amount": 300, "reason": "fee"})
        now = client.get("/v1/users/7003/balance").json()
        answered.append((moment(), now["balance"], now["version"]))
    for at, balance, version in answered:
        found = explain(client, "7003", at=at)
        assert (found["at"], found["balance"], found["version"]) == (at, balance, version)
        assert (found["count"], found["difference"], found["proved"]) == (version, 0, True)
        assert [item["version"] for item in found["items"]] == list(range(version, 0, -1))
        elsewhere = datetime.fromisoformat(at).isoformat(timespec="microseconds").replace("+00:00", "")[:-3]
        assert totals(explain(client, "7003", at=f"{elsewhere}999Z")) == totals(found)
        assert totals(explain(client, "7003", at=f"{elsewhere}-00:00")) == totals(found)


def test_the_moment_of_a_cause_includes_it(service: LiveService) -> None:
    """confirmed_at, given back as `at`, explains the balance with that transaction."""
    client = service.client()
    for amount in (1, 2, 3):
        client.credit("7004", amount)
        moment()
    for item in some(explain(client, "7004")["items"]):
        assert explain(client, "7004", at=item["confirmed_at"])["balance"] == item["balance_after"]


def test_a_moment_still_to_come_is_explained_as_known_now(service: LiveService) -> None:
    """The answer says which moment that is."""
    client = service.client()
    client.credit("7005", 5)
    before = moment()
    found = explain(client, "7005", at="9999-12-31T23:59:59.999999999Z")
    assert (found["balance"], found["proved"]) == (5, True)
    assert before <= found["at"] <= moment()


@pytest.mark.parametrize("limit", [1, 4, 1000])
def test_pages_reach_every_cause_once_and_stay_at_their_moment(service: LiveService, limit: int) -> None:
    """New transactions between the pages change neither the totals nor the causes of the explanation begun before."""
    client = service.client()
    telegram_id = f"71{limit}"
    for amount in range(1, 10):
        client.credit(telegram_id, amount)
    seen, pages = [], []
    for page in walk(client, telegram_id, limit=limit):
        seen += [item["version"] for item in page["items"]]
        pages.append(totals(page))
        client.credit(telegram_id, 1_000)
    assert seen == list(range(9, 0, -1))
    assert pages == [pages[0]] * len(pages)
    assert (pages[0]["balance"], pages[0]["count"], pages[0]["proved"]) == (45, 9, True)


def test_pages_of_a_past_moment_stay_there(service: LiveService) -> None:
    """The cursor alone has the moment."""
    client = service.client()
    for amount in range(1, 6):
        client.credit("7006", amount)
    past = moment()
    client.credit("7006", 6)
    pages = list(walk(client, "7006", at=past, limit=2))
    assert [item["version"] for page in pages for item in page["items"]] == [5, 4, 3, 2, 1]
    assert [totals(page) for page in pages] == [totals(pages[0])] * 3
    assert pages[0]["at"] == past
    cursor = pages[0]["next_cursor"]
    assert explain(client, "7006", cursor=cursor, limit=2) == pages[1]


def test_a_matched_deposit_shows_the_banks_line(service: LiveService) -> None:
    """The bank's id, name, amount and time, and who matched it how; null for the deposit that no notification has."""
    client, watcher = service.client(), service.client(service.make_key("--name", "watcher", "--role", "service"))
    plain = client.credit("7007", 10)
    client.write("/v1/deposits", {"telegram_id": "7007", "amount": 5_431, "depositor_name": "김영희"})
    occurred_at = f"{moment()[:19]}Z"
    line = {"bank_transaction_id": "KB-1", "bank_name": "국민은행", "depositor_name": "김 영희", "amount": 5_431}
    received = watcher.write("/v1/bank-notifications", {**line, "occurred_at": occurred_at})
    assert received.status_code == 201, received.text
    newest, oldest = explain(client, "7007")["items"]
    assert (oldest["transaction_id"], oldest["bank_notification"]) == (plain["id"], None)
    assert newest["actor"] == "watcher"
    assert newest["bank_notification"] == {
        **line,
        "id": received.json()["id"],
        "occurred_at": occurred_at,
        "match_method": "automatic",
        "matched_by": "watcher",
    }


def test_what_the_service_did_by_itself_is_told_as_its_own(own_service: LiveService) -> None:
    """The refund of a hold that expired: by system:expiry, by no request, with the purchase and its audit row."""
    own_service.environment = {"PASSBOOK_HOLD_EXPIRY_S": "1", "PASSBOOK_EXPIRY_INTERVAL_S": "1"}
    client = own_service.start().client()
    client.credit("7013", 900)
    hold = {"telegram_id": "7013", "domain": "expires.kr", "price": 900, "hold": True}
    held = client.write("/v1/domain-purchases", hold).json()
    until(lambda: explain(client, "7013")["version"] == 3, "the hold expires", every_s=0.1)
    found = explain(client, "7013")
    refund = found["items"][0]
    assert (refund["type"], refund["effect"], refund["domain"]) == ("domain_refund", 900, "expires.kr")
    assert (refund["domain_purchase_id"], refund["reverses_id"]) == (held["id"], held["transaction_id"])
    assert (refund["actor"], refund["request_id"], found["proved"]) == ("system:expiry", None, True)
    assert client.get(f"/v1/audit-logs/{refund['audit_log_id']}").json()["action"] == "domain_expired"


HISTORY = """
INSERT INTO deposit_transactions (user_id, type, amount, depositor_name, status, confirmed_at, created_at) VALUES
  (1, 'deposit', 400, 'early', 'confirmed', '2025-12-01 09:00:00', '2025-12-01 09:00:00'),
  (1, 'purchase', 150, NULL, 'confirmed', '2025-12-02 09:00:00.500', '2025-12-02 09:00:00');
"""


@pytest.fixture
def taken_over(own_service: LiveService, tmp_path: Path) -> LiveService:
    """A service on the bot's database. User 123456 has 10,000 won: 5,000 and 250 from rows, 4,750 from the opening."""
    bots = make_bots_file(tmp_path / "bots.sqlite", extra=HISTORY)
    made = passbook("import", str(bots), "--database", str(own_service.database))
    assert made.returncode == 0, made.stderr
    return own_service.start()


def test_a_balance_taken_over_says_what_the_bot_did_not_record(taken_over: LiveService) -> None:
    """Three rows of the bot's and the opening entry, without versions; then Passbook's, all on one chain."""
    client = taken_over.client()
    found = explain(client, "123456")
    assert (found["balance"], found["version"], found["count"], found["proved"]) == (10_000, 0, 4, True)
    opening, *rows = found["items"]
    assert (opening["source"], opening["type"], opening["effect"]) == ("takeover", "opening_credit", 4_750)
    logged = client.get(f"/v1/audit-logs/{opening['audit_log_id']}").json()
    assert (logged["action"], logged["resource_id"]) == ("opening_adjustment", opening["transaction_id"])
    assert [(row["source"], row["effect"]) for row in rows] == [("bot", -150), ("bot", 400), ("bot", 5_000)]
    for row in some(found["items"]):
        assert [row[name] for name in ("version", "balance_before", "balance_after", "actor", "request_id")] == [
            None
        ] * 5
    line = rows[-1]["bank_notification"]
    assert (line["depositor_name"], line["amount"], line["bank_transaction_id"]) == ("홍길동", 5_000, None)
    client.credit("123456", 1)
    found = explain(client, "123456")
    assert (found["balance"], found["credits"], found["debits"]) == (10_001, 10_151, 150)
    assert (found["version"], found["count"], found["proved"]) == (1, 5, True)
    for limit in range(
        1, 7
    ):  # the end of a page before, at and behind the line between Passbook's causes and the bot's
        pages = list(walk(client, "123456", limit=limit))
        assert [item for page in pages for item in page["items"]] == found["items"], (
            f"pages of {limit} are not the whole"
        )
    assert [item["source"] for item in found["items"]] == ["passbook", "takeover", "bot", "bot", "bot"]
    assert broken_invariants(taken_over.database) == []


def test_a_moment_of_the_bots_time_is_summed_and_not_called_proved(taken_over: LiveService) -> None:
    """Nobody recorded a balance then: the rows confirmed by then, and those without a time, on every page the same."""
    client = taken_over.client()
    moments = (
        ("2025-11-30T00:00:00Z", 5_000),
        ("2025-12-01T09:00:00Z", 5_400),
        ("2025-12-02T09:00:00.499Z", 5_400),
        ("2025-12-02T18:00:00.500+09:00", 5_250),
    )
    for at, balance in moments:
        pages = list(walk(client, "123456", at=at, limit=1))
        assert [totals(page) for page in pages] == [totals(pages[0])] * len(pages)
        assert (pages[0]["balance"], pages[0]["difference"]) == (balance, 0)
        assert (pages[0]["proved"], pages[0]["doubts"]) == (False, ["balance_not_recorded"])
        assert sum(item["effect"] for page in pages for item in page["items"]) == balance
        assert len(pages) == pages[0]["count"]


def test_between_the_takeover_and_the_first_transaction_the_first_one_is_the_witness(taken_over: LiveService) -> None:
    """The balance that version 1 found is what the history must sum to."""
    client = taken_over.client()
    at = moment()
    client.credit("123456", 77)
    found = explain(client, "123456", at=at)
    assert (found["balance"], found["version"], found["count"], found["proved"]) == (10_000, 0, 4, True)


TAMPERED = {
    "UPDATE deposit_transactions SET amount = 21 WHERE version = 2": ["sum_differs", "balances_broken"],
    "UPDATE deposit_transactions SET balance_after = 31 WHERE version = 2": ["balances_broken"],
    "UPDATE deposit_transactions SET balance_before = NULL WHERE version = 2": ["balances_broken"],
    "UPDATE deposit_transactions SET status = 'cancelled' WHERE version = 2": ["balances_broken"],
    "DELETE FROM deposit_transactions WHERE version = 2": ["sum_differs", "versions_incomplete", "balances_broken"],
    "DELETE FROM deposit_transactions WHERE version = 3": ["sum_differs", "versions_incomplete", "account_differs"],
    "UPDATE user_deposits SET balance = 61": ["sum_differs"],
    "UPDATE user_deposits SET balance = 30, version = 2": ["account_differs"],
    "UPDATE deposit_transactions SET amount = amount": [],
}


@pytest.mark.parametrize("statement", TAMPERED)
def test_what_a_hand_changed_is_not_proved(own_service: LiveService, statement: str) -> None:
    """Of 10 + 20 + 30 won one row or the account is changed behind the service's back: the doubt has a name."""
    client = own_service.start().client()
    for amount in (10, 20, 30):
        client.credit("7008", amount)
    assert explain(client, "7008")["proved"] is True
    with by_hand(own_service, without=statement.replace("DELETE FROM", "DELETE").split()[1]) as hand:
        hand.execute(statement)
    found = explain(own_service.client(), "7008")
    assert (found["doubts"], found["proved"]) == (TAMPERED[statement], not TAMPERED[statement])
    assert (found["difference"] != 0) == ("sum_differs" in found["doubts"])


def test_a_clock_that_went_back_loses_no_cause(own_service: LiveService) -> None:
    """Versions are the order: a moment is the highest version confirmed by then, with all that came before it."""
    client = own_service.start().client()
    client.write("/v1/users", {"telegram_id": "7009"})
    times = ["10:00:00.000", "10:00:05.000", "10:00:02.000", "10:00:03.000", "10:00:09.000"]
    with by_hand(own_service) as database:
        for version, at in enumerate(times, 1):
            database.execute(
                "INSERT INTO deposit_transactions (user_id, type, amount, status, confirmed_at, balance_before,"
                " balance_after, version) VALUES (1, 'balance_change', 1, 'confirmed', '2026-01-19 ' || ?, ?, ?, ?)",
                (at, version - 1, version, version),
            )
    client = own_service.client()
    for second, balance in ((-1, 0), (0, 1), (1, 1), (2, 3), (3, 4), (4, 4), (5, 4), (8, 4), (9, 5)):
        at = f"2026-01-19T10:00:0{second}Z" if second >= 0 else "2026-01-19T09:59:59Z"
        found = explain(client, "7009", at=at)
        assert (found["balance"], found["count"], found["proved"]) == (balance, balance, True), at
        assert [item["version"] for item in found["items"]] == list(range(balance, 0, -1))


def test_a_clock_behind_the_last_transaction_still_explains_the_balance_as_it_is(own_service: LiveService) -> None:
    """Without `at` the account decides, not the clock."""
    client = own_service.start().client()
    client.write("/v1/users", {"telegram_id": "7010"})
    with by_hand(own_service) as database:
        database.execute(
            "INSERT INTO deposit_transactions (user_id, type, amount, status, confirmed_at, balance_before,"
            " balance_after, version) VALUES (1, 'balance_change', 8, 'confirmed', '2999-01-01 00:00:00', 0, 8, 1)"
        )
    client = own_service.client()
    for query in ({}, {"at": "2998-01-01T00:00:00Z"}):
        found = explain(client, "7010", **query)
        assert (found["balance"], found["count"], found["proved"]) == (8, 1, True)


@pytest.mark.parametrize(
    "at", ["yesterday", "2026-02-30T00:00:00Z", "2026-01-19", "2026-01-19T12:00:00", "", "0001-01-01T00:00:00+01:00"]
)
def test_what_is_no_instant_is_400_by_name(service: LiveService, at: str) -> None:
    """Also a day that the calendar does not have, and a time without its zone."""
    refused = service.client().get("/v1/users/7001/balance/explain", params={"at": at})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "query/at")


@pytest.mark.parametrize("cursor", ["1", "1-1", "1-1-x1", "1-01-v1", "1-1-v0", "123456789012345-1-v1", "1-1-v1\n"])
def test_what_is_no_cursor_is_400_by_name(service: LiveService, cursor: str) -> None:
    """Only what an answer gave."""
    refused = service.client().get("/v1/users/7001/balance/explain", params={"cursor": cursor})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "query/cursor")


def test_a_cursor_of_a_version_that_is_not_there_proves_nothing(service: LiveService) -> None:
    """Made up, it gives no error of the service and no proof."""
    client = service.client()
    client.credit("7011", 5)
    found = explain(client, "7011", cursor="99999999999999-999999999999999-v999999999999999")
    assert found["proved"] is False
    assert {"versions_incomplete", "balance_not_recorded"} <= set(found["doubts"])


def test_an_unknown_user_is_404(service: LiveService) -> None:
    """With and without a moment."""
    for query in ({}, {"at": "2026-01-01T00:00:00Z"}):
        answer = service.client().get("/v1/users/7999/balance/explain", params=query)
        assert (answer.status_code, answer.json()["code"]) == (404, "user_not_found")


def test_a_user_without_transactions_has_nothing_to_explain(service: LiveService) -> None:
    """0 won, no causes, proved; before the user was made too."""
    client = service.client()
    client.write("/v1/users", {"telegram_id": "7012"})
    for query in ({}, {"at": "2020-01-01T00:00:00Z"}):
        found = explain(client, "7012", **query)
        assert (found["balance"], found["count"], found["items"], found["proved"]) == (0, 0, [], True)
