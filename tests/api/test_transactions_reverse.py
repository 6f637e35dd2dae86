"""Reversals over real HTTP: a transaction is taken back once, whole, by another one."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.live import Client, LiveService
from tests.some import some


def balance(client: Client, telegram_id: str) -> int:
    """The user's balance in won."""
    found: int = client.get(f"/v1/users/{telegram_id}/balance").json()["balance"]
    return found


def test_a_reversed_deposit_is_taken_back_and_both_name_each_other(service: LiveService) -> None:
    """The balance goes back, the rows point at each other, the deposit shows as reversed in every view."""
    client = service.client()
    deposit_id = client.credit("3001", 5000)["id"]
    answer = client.write(f"/v1/transactions/{deposit_id}/reverse", {"note": "sent by mistake"})
    assert answer.status_code == 201
    reversal = answer.json()
    assert (reversal["direction"], reversal["amount"], reversal["balance_after"]) == ("debit", 5000, 0)
    assert answer.headers["Location"] == f"/v1/transactions/{reversal['id']}"
    original = client.get(f"/v1/transactions/{deposit_id}").json()
    assert (original["status"], original["reversed_by_id"]) == ("reversed", reversal["id"])
    taken = client.get(f"/v1/transactions/{reversal['id']}").json()
    assert (taken["type"], taken["reverses_id"], taken["description"]) == ("reversal", deposit_id, "sent by mistake")
    assert client.get(f"/v1/deposits/{deposit_id}").json()["status"] == "reversed"
    for status, wanted in (("reversed", [deposit_id]), ("confirmed", []), ("pending", [])):
        listed = client.get("/v1/deposits", params={"telegram_id": "3001", "status": status}).json()["items"]
        assert [item["id"] for item in listed] == wanted, status
    logged = client.get("/v1/audit-logs", params={"action": "transaction_reversed", "telegram_id": "3001"}).json()
    assert [(row["resource_id"], row["details"]["reverses_id"]) for row in logged["items"]] == [
        (reversal["id"], deposit_id)
    ]


def test_a_reversed_debit_gives_the_money_back(service: LiveService) -> None:
    """Also when the balance is 0 by then."""
    client = service.client()
    client.credit("3002", 300)
    debit = client.write("/v1/debits", {"telegram_id": "3002", "amount": 300, "reason": "domain"}).json()
    assert client.write(f"/v1/transactions/{debit['id']}/reverse").json()["balance_after"] == 300
    assert balance(client, "3002") == 300


def test_a_deposit_that_was_spent_cannot_be_reversed(service: LiveService) -> None:
    """The balance would go negative: 409 with the shortfall, audited, and nothing moved."""
    client = service.client()
    deposit_id = client.credit("3003", 100)["id"]
    client.write("/v1/debits", {"telegram_id": "3003", "amount": 60, "reason": "domain"})
    refused = client.write(f"/v1/transactions/{deposit_id}/reverse")
    assert refused.status_code == 409
    assert (refused.json()["code"], refused.json()["shortfall"]) == ("insufficient_funds", 60)
    assert balance(client, "3003") == 40
    logged = client.get("/v1/audit-logs", params={"telegram_id": "3003", "action": "*_failed"}).json()["items"]
    assert [(row["action"], row["resource_id"]) for row in logged] == [("transaction_reverse_failed", deposit_id)]


@pytest.mark.parametrize("state", ["pending", "cancelled"])
def test_what_moved_no_money_cannot_be_reversed(service: LiveService, state: str) -> None:
    """A deposit that was never confirmed has nothing to take back."""
    client = service.client()
    body = {"telegram_id": "3004", "amount": 10, "depositor_name": "김철수"}
    deposit_id = client.write("/v1/deposits", body).json()["id"]
    if state == "cancelled":
        client.write(f"/v1/deposits/{deposit_id}/cancel")
    refused = client.write(f"/v1/transactions/{deposit_id}/reverse")
    assert (refused.status_code, refused.json()["code"]) == (409, "transaction_not_confirmed")
    assert refused.json()["current_status"] == state


def test_twenty_reversals_at_once_take_back_once(service: LiveService) -> None:
    """Under twenty keys at the same time: one 201, the others are told by which transaction it was reversed."""
    client = service.client()
    deposit_id = client.credit("3005", 1000)["id"]
    client.credit("3005", 100_000)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: client.write(f"/v1/transactions/{deposit_id}/reverse"), range(20)))
    done = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert len(done) == 1
    for answer in some(answers):
        if answer.status_code != 201:
            assert (answer.json()["code"], answer.json()["reversed_by_id"]) == ("transaction_reversed", done[0])
    assert balance(client, "3005") == 100_000


def test_unknown_transaction_is_404(service: LiveService) -> None:
    """An id that no transaction has."""
    refused = service.client().write("/v1/transactions/999999999/reverse")
    assert (refused.status_code, refused.json()["code"]) == (404, "transaction_not_found")
