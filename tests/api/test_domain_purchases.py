"""Domain purchases over real HTTP."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.live import Client, LiveService
from tests.some import some
from tests.storage.broken import by_hand


def buy(client: Client, telegram_id: str, domain: str, price: int = 11000, **more: Any) -> Any:
    """POST /v1/domain-purchases."""
    return client.write("/v1/domain-purchases", {"telegram_id": telegram_id, "domain": domain, "price": price, **more})


def test_a_purchase_takes_the_price_and_registers_the_name_at_once(service: LiveService) -> None:
    """The guide's audit row with its details; the name in one form, whichever way it was written."""
    client = service.client()
    client.credit("4001", 20_000)
    answer = buy(client, "4001", "한글.KR")
    assert answer.status_code == 201
    purchase = answer.json()
    assert (purchase["domain"], purchase["ascii_name"], purchase["status"]) == (
        "한글.kr",
        "xn--bj0bj06e.kr",
        "registered",
    )
    assert (purchase["balance_before"], purchase["balance_after"]) == (20_000, 9_000)
    assert client.get(answer.headers["Location"]).json()["registered_at"] is not None
    row = client.get(f"/v1/audit-logs/{purchase['audit_log_id']}").json()
    assert (row["action"], row["resource_type"], row["resource_id"]) == (
        "domain_registered",
        "user_domains",
        purchase["id"],
    )
    assert {k: row["details"][k] for k in ("domain", "price", "balance_before", "balance_after")} == {
        "domain": "한글.kr",
        "price": 11000,
        "balance_before": 20_000,
        "balance_after": 9_000,
    }
    line = client.get(f"/v1/transactions/{purchase['transaction_id']}").json()
    assert (line["type"], line["direction"], line["description"]) == ("domain_purchase", "debit", "한글.kr")


def test_a_held_name_counts_as_held_until_completed(service: LiveService) -> None:
    """hold: the price is taken, `held` shows it; complete registers and moves nothing."""
    client = service.client()
    client.credit("4002", 11_000)
    held = buy(client, "4002", "held.example.kr", hold=True).json()
    assert held["status"] == "pending"
    balance = client.get("/v1/users/4002/balance").json()
    assert (balance["balance"], balance["held"]) == (0, 11_000)
    completed = client.write(f"/v1/domain-purchases/{held['id']}/complete")
    assert (completed.status_code, completed.json()["status"]) == (200, "registered")
    assert completed.json()["balance_after"] == 0
    assert client.get("/v1/users/4002/balance").json()["held"] == 0
    for verb in ("complete", "release"):
        refused = client.write(f"/v1/domain-purchases/{held['id']}/{verb}")
        assert (refused.status_code, refused.json()["code"], refused.json()["current_status"]) == (
            409,
            "domain_purchase_not_pending",
            "registered",
        )


def test_a_released_name_is_free_again_and_the_money_is_back(service: LiveService) -> None:
    """release pays back by a transaction that names the payment; another user may buy the name."""
    client = service.client()
    client.credit("4003", 11_000)
    client.credit("4004", 11_000)
    held = buy(client, "4003", "again.kr", hold=True).json()
    released = client.write(f"/v1/domain-purchases/{held['id']}/release", {"note": "registrar refused"}).json()
    assert (released["status"], released["balance_after"]) == ("released", 11_000)
    refund = client.get("/v1/users/4003/transactions", params={"limit": 1}).json()["items"][0]
    assert (refund["type"], refund["reverses_id"]) == ("domain_refund", held["transaction_id"])
    assert buy(client, "4004", "AGAIN.kr").status_code == 201


def test_too_small_a_balance_is_refused_and_the_name_stays_free(service: LiveService) -> None:
    """409 with the shortfall, audited as domain_purchase_failed."""
    client = service.client()
    client.credit("4006", 10_999)
    refused = buy(client, "4006", "dear.kr")
    assert (refused.status_code, refused.json()["code"], refused.json()["shortfall"]) == (409, "insufficient_funds", 1)
    logged = client.get("/v1/audit-logs", params={"telegram_id": "4006", "action": "*_failed"}).json()["items"]
    assert [(row["action"], row["details"]["domain"]) for row in logged] == [("domain_purchase_failed", "dear.kr")]
    client.credit("4006", 1)
    assert buy(client, "4006", "dear.kr").status_code == 201


def test_one_name_goes_to_one_of_twenty_at_once(service: LiveService) -> None:
    """Twenty users buy one name at the same time, in different spellings: one has it, the others keep their money."""
    client = service.client()
    ids = [str(4100 + n) for n in range(20)]
    for telegram_id in ids:
        client.credit(telegram_id, 11_000)
    spellings = ["경쟁.kr", "경쟁.KR", "xn--hd5bo4y.kr".upper(), "경쟁.kr."]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: buy(client, ids[n], spellings[n % len(spellings)]), range(20)))
    names = {answer.json().get("ascii_name") for answer in answers if answer.status_code == 201}
    assert len(names) == sum(answer.status_code == 201 for answer in answers)
    refused = [answer for answer in answers if answer.status_code != 201]
    assert all(answer.json()["code"] == "domain_taken" for answer in some(refused))
    left = sum(client.get(f"/v1/users/{telegram_id}/balance").json()["balance"] for telegram_id in ids)
    assert left == 11_000 * len(refused)


@pytest.mark.parametrize(
    "domain",
    [
        "1.2.3.4",
        "a.1",
        "a.0x7f",
        "a.0X",
        "1.2.3.4.",
        "a.२",
        "a.１",
        "a.017",
        "nodot",
        "-x.kr",
        "a..kr",
        "a_b.kr",
        "a b.kr",
        "x" * 64 + ".kr",
        ".kr",
        "a.\u200b",
    ],
)
def test_what_is_no_domain_name_is_400_by_name(service: LiveService, domain: str) -> None:
    """The field is named and nothing is taken."""
    client = service.client()
    client.credit("4007", 11_000)
    refused = buy(client, "4007", domain)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "#/domain")
    assert client.get("/v1/domain-purchases", params={"telegram_id": "4007"}).json()["items"] == []


def test_names_with_numbers_elsewhere_are_names(service: LiveService) -> None:
    """Only the last label says that it is an address."""
    client = service.client()
    client.credit("4008", 3)
    for domain in ("1.2.3.kr", "0x7f.kr", "a.x0"):
        assert buy(client, "4008", domain, 1).status_code == 201, domain


def test_a_name_that_was_bought_before_it_was_none_keeps_its_answer(tmp_path: Path) -> None:
    """Asked again, the stored answer; the purchase can be settled; a new one is refused."""
    service = LiveService(tmp_path / "passbook.db").start()
    client = service.client()
    key = client.headers["Authorization"].removeprefix("Bearer ")
    client.credit("1", 100)
    body = {"telegram_id": "1", "domain": "a.kr", "price": 10, "hold": True}
    held = client.write("/v1/domain-purchases", body, key="before").json()
    assert service.stop() == 0
    by_hand(
        service.database,
        "UPDATE user_domains SET domain = '1.2.3.4', ascii_name = '1.2.3.4';"
        "UPDATE idempotency_answers SET request = replace(request, 'a.kr', '1.2.3.4');",
    )
    client = service.start().client(key)
    again = client.write("/v1/domain-purchases", {**body, "domain": "1.2.3.4"}, key="before")
    assert (again.status_code, again.json()["id"]) == (201, held["id"])
    assert client.write("/v1/domain-purchases", {**body, "domain": "1.2.3.4"}).status_code == 400
    assert client.write(f"/v1/domain-purchases/{held['id']}/complete").status_code == 200
    assert service.stop() == 0


def test_unknown_user_and_purchase_are_404(service: LiveService) -> None:
    """A purchase does not make its user."""
    client = service.client()
    assert buy(client, "4999", "nobody.kr").json()["code"] == "user_not_found"
    assert client.get("/v1/domain-purchases/999999").json()["code"] == "domain_purchase_not_found"
    for verb in ("complete", "release"):
        assert client.write(f"/v1/domain-purchases/999999/{verb}").status_code == 404
