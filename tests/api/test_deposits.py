"""Deposits over real HTTP."""

import pytest

from tests.live import LiveService


def test_announce_confirm_and_replay_credit_exactly_once(service: LiveService) -> None:
    """Announced, confirmed, and confirmed again under the same key: one credit, the same bytes, marked as replayed."""
    client = service.client()
    announced = client.write("/v1/deposits", {"telegram_id": "1001", "amount": 5000, "depositor_name": "홍길동"})
    assert announced.status_code == 201
    deposit = announced.json()
    assert announced.headers["Location"] == f"/v1/deposits/{deposit['id']}"
    assert (deposit["status"], deposit["balance_before"], deposit["balance_after"]) == ("pending", 0, 0)
    path = f"/v1/deposits/{deposit['id']}/confirm"
    first = client.write(path, {"note": "seen on the statement"}, key="confirm-1001")
    again = client.write(path, {"note": "seen on the statement"}, key="confirm-1001")
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    answer = first.json()
    assert (answer["balance_before"], answer["balance_after"], answer["version"]) == (0, 5000, 1)
    assert client.get("/v1/users/1001/balance").json() == {
        "telegram_id": "1001",
        "balance": 5000,
        "held": 0,
        "version": 1,
    }


def test_confirm_of_a_confirmed_deposit_is_refused_and_audited(service: LiveService) -> None:
    """Another key for a deposit that is confirmed: 409 with the state, an audit row, and the balance as it was."""
    client = service.client()
    deposit_id = client.credit("1002", 700)["id"]
    refused = client.write(f"/v1/deposits/{deposit_id}/confirm", {})
    assert refused.status_code == 409
    problem = refused.json()
    assert (problem["code"], problem["current_status"]) == ("deposit_not_pending", "confirmed")
    assert client.get("/v1/users/1002/balance").json()["balance"] == 700
    logged = client.get("/v1/audit-logs", params={"telegram_id": "1002", "action": "*_failed"}).json()["items"]
    assert [(row["action"], row["resource_id"]) for row in logged] == [("deposit_confirm_failed", deposit_id)]
    assert logged[0]["details"]["code"] == "deposit_not_pending"


def test_cancel_closes_a_pending_deposit_for_good(service: LiveService) -> None:
    """A cancelled deposit can be neither confirmed nor cancelled again."""
    client = service.client()
    body = {"telegram_id": "1003", "amount": 10, "depositor_name": "김철수"}
    deposit_id = client.write("/v1/deposits", body).json()["id"]
    cancelled = client.write(f"/v1/deposits/{deposit_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    for verb in ("confirm", "cancel"):
        refused = client.write(f"/v1/deposits/{deposit_id}/{verb}", {})
        assert (refused.status_code, refused.json()["current_status"]) == (409, "cancelled")
    assert client.get("/v1/users/1003/balance").json()["balance"] == 0


def test_list_pages_without_gap_or_repeat(service: LiveService) -> None:
    """Pages of two by cursor and by Link give every deposit of the user once, newest first."""
    client = service.client()
    made = [
        client.write("/v1/deposits", {"telegram_id": "1004", "amount": n, "depositor_name": "이영희"}).json()["id"]
        for n in range(1, 6)
    ]
    seen, path = [], "/v1/deposits?telegram_id=1004&limit=2&status=pending"
    while path:
        answer = client.get(path)
        seen += [item["id"] for item in answer.json()["items"]]
        link = answer.headers.get("Link", "")
        assert bool(link) == (answer.json()["next_cursor"] is not None)
        path = link.partition(">")[0].lstrip("<")
    assert seen == made[::-1]


@pytest.mark.parametrize("verb", ["confirm", "cancel"])
def test_unknown_deposit_is_404_and_audited(service: LiveService, verb: str) -> None:
    """An id that no deposit has: 404, and the attempt is on record with the id."""
    client = service.client()
    refused = client.write(f"/v1/deposits/999999999/{verb}", {})
    assert (refused.status_code, refused.json()["code"]) == (404, "deposit_not_found")
    logged = client.get("/v1/audit-logs", params={"action": f"deposit_{verb}_failed", "limit": 1}).json()["items"]
    assert logged[0]["resource_id"] == 999999999


def test_a_debit_is_no_deposit(service: LiveService) -> None:
    """A transaction of another type cannot be reached as a deposit."""
    client = service.client()
    client.credit("1005", 100)
    debit = client.write("/v1/debits", {"telegram_id": "1005", "amount": 40, "reason": "domain"}).json()
    assert client.get(f"/v1/deposits/{debit['id']}").status_code == 404
    assert client.write(f"/v1/deposits/{debit['id']}/cancel", {}).status_code == 404
