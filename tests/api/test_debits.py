"""Debits over real HTTP."""

from tests.live import LiveService


def test_a_debit_takes_the_amount_and_says_so(service: LiveService) -> None:
    """201 with the balance before and after, readable as a transaction, one audit row."""
    client = service.client()
    client.credit("3001", 1000)
    answer = client.write("/v1/debits", {"telegram_id": "3001", "amount": 400, "reason": "domain", "reference": "r-1"})
    assert answer.status_code == 201
    debit = answer.json()
    assert (debit["balance_before"], debit["balance_after"], debit["version"]) == (1000, 600, 2)
    assert (debit["direction"], debit["status"], debit["reference"]) == ("debit", "confirmed", "r-1")
    line = client.get(answer.headers["Location"]).json()
    assert (line["id"], line["amount"], line["description"]) == (debit["id"], 400, "domain")
    assert line["reference"] == "r-1"
    row = client.get(f"/v1/audit-logs/{debit['audit_log_id']}").json()
    assert (row["action"], row["resource_id"], row["details"]["balance_after"]) == ("balance_debited", debit["id"], 600)


def test_debit_beyond_balance_changes_nothing_and_stays_refused(service: LiveService) -> None:
    """409 with the facts; under its key it stays refused though the balance would cover it later."""
    client = service.client()
    client.credit("3002", 100)
    body = {"telegram_id": "3002", "amount": 101, "reason": "domain"}
    refused = client.write("/v1/debits", body, key="debit-3002")
    assert refused.status_code == 409
    problem = refused.json()
    assert problem["code"] == "insufficient_funds"
    assert (problem["balance"], problem["required"], problem["shortfall"]) == (100, 101, 1)
    client.credit("3002", 100)
    again = client.write("/v1/debits", body, key="debit-3002")
    assert (again.status_code, again.content) == (409, refused.content)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert client.get("/v1/users/3002/balance").json()["balance"] == 200
    rows = client.get("/v1/audit-logs?telegram_id=3002&action=debit_failed").json()["items"]
    assert len(rows) == 1


def test_the_last_won_can_be_spent(service: LiveService) -> None:
    """Down to 0 and no further."""
    client = service.client()
    client.credit("3003", 7)
    body = {"telegram_id": "3003", "amount": 7, "reason": "all of it"}
    assert client.write("/v1/debits", body).json()["balance_after"] == 0
    assert client.write("/v1/debits", {**body, "amount": 1}).json()["shortfall"] == 1


def test_a_debit_for_an_unknown_user_is_404_and_makes_no_user(service: LiveService) -> None:
    """The attempt is on record with the id that was asked for."""
    client = service.client()
    refused = client.write("/v1/debits", {"telegram_id": "3999", "amount": 1, "reason": "x"})
    assert (refused.status_code, refused.json()["code"]) == (404, "user_not_found")
    assert client.get("/v1/users/3999").status_code == 404
    rows = client.get("/v1/audit-logs?telegram_id=3999").json()["items"]
    assert [(row["action"], row["details"]["code"]) for row in rows] == [("debit_failed", "user_not_found")]


def test_a_key_used_for_another_body_names_what_differs(service: LiveService) -> None:
    """409 idempotency_key_reused, and the first answer stays."""
    client = service.client()
    client.credit("3004", 100)
    body = {"telegram_id": "3004", "amount": 10, "reason": "a"}
    first = client.write("/v1/debits", body, key="debit-3004")
    other = client.write("/v1/debits", {**body, "amount": 11, "reason": "b"}, key="debit-3004")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert other.json()["differing_fields"] == ["amount", "reason"]
    elsewhere = client.write("/v1/users", {"telegram_id": "3004"}, key="debit-3004")
    assert elsewhere.json()["differing_fields"] == ["path"]
    assert client.write("/v1/debits", body, key="debit-3004").content == first.content
    assert client.get("/v1/users/3004/balance").json()["balance"] == 90
