"""Messages of a bank over real HTTP: a deposit in one is a line as ever, and nothing else moves money or is lost."""

import itertools
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from tests.api.test_bank_notifications import announce, balance, deposit, logged
from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService

KOREA = timezone(timedelta(hours=9))
amounts = itertools.count(3_330_000, 10)


@pytest.fixture
def client(service: LiveService) -> Client:
    return service.client()


def hana(kind: str, amount: int, name: str, *, balance_after: int | None = None, minutes_ago: int = 1) -> str:
    """A message of Hana of just now."""
    moment = datetime.now(KOREA) - timedelta(minutes=minutes_ago)
    lines = ["[Web발신]", f"하나,{moment:%m/%d,%H:%M}", "427******27104", f"{kind}{amount:,}원", name]
    return "\n".join([*lines, *([f"잔액{balance_after:,}원"] if balance_after is not None else [])])


def post(client: Client, raw_message: str, **more: Any) -> httpx.Response:
    return client.write("/v1/bank-notifications", {"raw_message": raw_message, **more})


def settle(client: Client, message_id: int, **more: Any) -> httpx.Response:
    return client.write(f"/v1/bank-messages/{message_id}/settle", {"note": "looked at", **more})


def message(client: Client, message_id: int) -> Any:
    answer = client.get(f"/v1/bank-messages/{message_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def line_of(client: Client, line_id: int) -> Any:
    return client.get(f"/v1/bank-notifications/{line_id}").json()


def test_a_deposit_that_is_read_confirms_as_any_line_does(client: Client, service: LiveService) -> None:
    """201 with the line; the message is kept on it, and sent again it is the same line, and credits nothing."""
    amount = next(amounts)
    announce(client, "8801", "홍길동", amount)
    text = hana("입금", amount, "홍길동\u3000", balance_after=amount + 5)
    answer = post(client, text)
    assert answer.status_code == 201, answer.text
    line = answer.json()
    assert (line["status"], line["amount"], line["depositor_name"]) == ("matched", amount, "홍길동")
    assert (line["bank_name"], line["account"], line["bank_balance_after"]) == (
        "하나은행",
        "427******27104",
        amount + 5,
    )
    assert line["raw_message"] == text
    assert balance(client, "8801") == amount
    again = post(client, text.replace("\n", "\r\n"))
    assert (again.status_code, again.json()["id"], again.json()["repeat"]) == (200, line["id"], True)
    assert balance(client, "8801") == amount
    assert broken_invariants(service.database) == []


def test_a_deposit_keeps_the_id_that_the_watcher_gave(client: Client) -> None:
    """Beside raw_message only bank_transaction_id may stand."""
    amount = next(amounts)
    line = post(client, hana("입금", amount, "김철수"), bank_transaction_id=f"메시지 {amount}").json()
    assert (line["bank_transaction_id"], line["status"]) == (f"메시지 {amount}", "unmatched")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "#/amount"),
        ({"amount": 5}, "#/occurred_at"),
        ({"occurred_at": "2026-01-19T12:00:00Z"}, "#/amount"),
        ({"raw_message": "x", "bank_name": "하나"}, "#/amount"),
        ({"raw_message": "x", "amount": 5}, "#/occurred_at"),
        ({"raw_message": None}, "#/amount"),
        ({"raw_message": 5}, "#/raw_message"),
        ({"raw_message": " "}, "#/raw_message"),
        ({"raw_message": "x" * 2001}, "#/raw_message"),
        ({"bank_transaction_id": "b"}, "#/amount"),
        ({"raw_message": "x", "bank_transaction_id": "derived:x"}, "#/bank_transaction_id"),
    ],
)
def test_what_is_neither_a_line_nor_a_message_is_refused_by_the_member(
    client: Client, body: dict[str, Any], named: str
) -> None:
    """The member that is missing or wrong is named, and that a message may stand alone."""
    answer = client.write("/v1/bank-notifications", body)
    assert answer.status_code == 400, answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == named
    if named in {"#/amount", "#/occurred_at"}:
        assert error["message"] == "is required, unless raw_message stands alone"


def test_what_nobody_can_read_waits_for_a_person(client: Client) -> None:
    """It is kept word for word, listed, told in the audit log, kept once for each text, and settled once."""
    text = f"[Web발신]\n(광고) {next(amounts)}원 입금 이벤트"
    answer = post(client, text)
    assert answer.status_code == 202, answer.text
    kept = answer.json()
    assert (kept["kind"], kept["status"], kept["raw_message"], kept["amount"]) == (
        "unreadable",
        "unreadable",
        text,
        None,
    )
    assert (kept["repeat"], kept["to_do"] is not None) == (False, True)
    again = post(client, text)
    assert again.status_code == 202
    assert again.json() == {**kept, "repeat": True, "audit_log_id": None}
    listed = client.get("/v1/bank-messages?status=unreadable&limit=100").json()["items"]
    shown = {name: value for name, value in kept.items() if name not in {"repeat", "audit_log_id"}}
    assert [item for item in listed if item["id"] == kept["id"]] == [shown]
    assert message(client, kept["id"]) == shown
    (row,) = [row for row in logged(client, action="bank_message_received") if row["resource_id"] == kept["id"]]
    assert (row["resource_type"], row["details"]["kind"]) == ("bank_message", "unreadable")
    settled = settle(client, kept["id"])
    assert settled.status_code == 200, settled.text
    assert (settled.json()["status"], settled.json()["note"], settled.json()["to_do"]) == ("settled", "looked at", None)
    twice = settle(client, kept["id"])
    assert (twice.status_code, twice.json()["code"]) == (409, "bank_message_settled")


@pytest.mark.parametrize("kind", ["출금", "출금취소"])
def test_money_that_went_is_kept_and_changes_nothing(client: Client, kind: str, service: LiveService) -> None:
    """An announced deposit of its name and amount stays pending."""
    amount = next(amounts)
    made = announce(client, "8802", "이출금", amount)
    answer = post(client, hana(kind, amount, "이출금", balance_after=-55_279_562))
    assert answer.status_code == 202, answer.text
    kept = answer.json()
    assert (kept["status"], kept["amount"], kept["bank_balance_after"]) == ("kept", amount, -55_279_562)
    assert kept["kind"] == ("withdrawal" if kind == "출금" else "withdrawal_cancelled")
    assert (kept["to_do"], kept["bank_notification_id"]) == (None, None)
    assert deposit(client, made["id"])["status"] == "pending"
    assert settle(client, kept["id"]).json()["code"] == "bank_message_settled"
    assert broken_invariants(service.database) == []


def test_a_cancellation_closes_the_open_line_that_it_means(client: Client, service: LiveService) -> None:
    """It never confirms anything again, also not a deposit that is announced afterwards."""
    amount = next(amounts)
    line = post(client, hana("입금", amount, "박취소", minutes_ago=3)).json()
    assert line["status"] == "unmatched"
    answer = post(client, hana("입금취소", amount, "박취소"))
    assert answer.status_code == 202, answer.text
    kept = answer.json()
    assert (kept["kind"], kept["status"], kept["to_do"]) == ("deposit_cancelled", "kept", None)
    assert kept["bank_notification_id"] == line["id"]
    made = announce(client, "8803", "박취소", amount)
    assert (made["status"], balance(client, "8803")) == ("pending", 0)
    assert line_of(client, line["id"])["status"] == "cancelled"
    matched = client.write(f"/v1/bank-notifications/{line['id']}/match", {"deposit_id": made["id"]})
    assert matched.status_code == 409, matched.text
    assert balance(client, "8803") == 0
    (row,) = [row for row in logged(client, action="bank_notification_cancelled") if row["resource_id"] == line["id"]]
    assert row["details"]["bank_message_id"] == kept["id"]
    assert broken_invariants(service.database) == []


def test_a_cancellation_of_credited_money_says_what_a_person_has_to_do(client: Client, service: LiveService) -> None:
    """The balance stays, and every answer that shows the line or the message says: reverse the deposit."""
    amount = next(amounts)
    made = announce(client, "8804", "최입금", amount)
    line = post(client, hana("입금", amount, "최입금", minutes_ago=3)).json()
    assert line["matched_deposit_id"] == made["id"]
    kept = post(client, hana("입금취소", amount, "최입금")).json()
    assert (kept["status"], kept["bank_notification_id"]) == ("kept", line["id"])
    to_do = f"The bank took this money back: reverse deposit {made['id']}."
    assert kept["to_do"] == to_do
    assert message(client, kept["id"])["to_do"] == to_do
    shown = line_of(client, line["id"])
    assert (shown["status"], shown["to_do"]) == ("matched", to_do)
    listed = client.get("/v1/bank-notifications?status=matched&limit=100").json()["items"]
    assert [item["to_do"] for item in listed if item["id"] == line["id"]] == [to_do]
    assert balance(client, "8804") == amount
    assert broken_invariants(service.database) == []


def test_a_cancellation_that_may_mean_several_or_none_waits(client: Client, service: LiveService) -> None:
    """A person names the line, which must be of its amount and not be taken back yet."""
    amount = next(amounts)
    first, second = (post(client, hana("입금", amount, "정둘", minutes_ago=ago)).json() for ago in (5, 3))
    kept = post(client, hana("입금취소", amount, "정둘")).json()
    assert (kept["status"], kept["bank_notification_id"]) == ("waiting", None)
    other = post(client, hana("입금", next(amounts), "정둘")).json()
    unfit = settle(client, kept["id"], bank_notification_id=other["id"])
    assert (unfit.status_code, unfit.json().get("code")) == (409, "bank_message_unfit")
    missing = settle(client, kept["id"], bank_notification_id=999_999_999)
    assert (missing.status_code, missing.json()["code"]) == (404, "bank_notification_not_found")
    settled = settle(client, kept["id"], bank_notification_id=second["id"])
    assert settled.status_code == 200, settled.text
    assert (settled.json()["status"], settled.json()["bank_notification_id"]) == ("settled", second["id"])
    assert line_of(client, second["id"])["status"] == "cancelled"
    assert line_of(client, first["id"])["status"] in {"unmatched", "ambiguous"}
    # The other one is the only one now, and a third cancellation finds none.
    assert post(client, hana("입금취소", amount, "정둘", minutes_ago=0)).json()["bank_notification_id"] == first["id"]
    assert post(client, hana("입금취소", amount, "정둘", balance_after=1)).json()["status"] == "waiting"
    assert broken_invariants(service.database) == []


def test_a_line_that_comes_after_its_cancellation_waits_for_a_person(client: Client) -> None:
    """Messages may overtake each other: money that the bank took back already credits nobody by itself."""
    amount = next(amounts)
    made = announce(client, "8805", "한늦음", amount)
    kept = post(client, hana("입금취소", amount, "한늦음", minutes_ago=1)).json()
    assert kept["status"] == "waiting"
    line = post(client, hana("입금", amount, "한늦음", minutes_ago=2)).json()
    assert (line["status"], balance(client, "8805")) == ("ambiguous", 0)
    assert settle(client, kept["id"], bank_notification_id=line["id"]).status_code == 200
    assert line_of(client, line["id"])["status"] == "cancelled"
    assert deposit(client, made["id"])["status"] == "pending"


def test_a_message_that_is_not_there_is_not_found(client: Client) -> None:
    for answer in (client.get("/v1/bank-messages/999999999"), settle(client, 999_999_999)):
        assert (answer.status_code, answer.json()["code"]) == (404, "bank_message_not_found")
