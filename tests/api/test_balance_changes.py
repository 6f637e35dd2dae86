"""Balance changes over real HTTP."""

from typing import Any

from tests.live import Client, LiveService


def change(telegram_id: str, amount: int, reference: str, reason: str = "settlement") -> dict[str, Any]:
    """One change."""
    return {"telegram_id": telegram_id, "amount": amount, "reason": reason, "reference": reference}


def post(client: Client, *changes: dict[str, Any], **more: Any) -> Any:
    """POST /v1/balance-changes."""
    return client.write("/v1/balance-changes", {"changes": list(changes), **more})


def balance(client: Client, telegram_id: str) -> int | None:
    """The user's balance in won; None when there is no such user."""
    found = client.get(f"/v1/users/{telegram_id}/balance")
    return found.json()["balance"] if found.status_code == 200 else None


def test_changes_are_applied_in_order_and_audited_one_by_one(service: LiveService) -> None:
    """A user is made by a credit; each result stands at the place of its change."""
    client = service.client()
    answer = post(client, change("5001", 1000, "a1"), change("5002", 5, "a2"), change("5001", -400, "a3"))
    assert answer.status_code == 200
    body = answer.json()
    assert (body["applied"], body["refused"]) == (3, 0)
    assert [(r["reference"], r["balance_before"], r["balance_after"], r["version"]) for r in body["results"]] == [
        ("a1", 0, 1000, 1),
        ("a2", 0, 5, 1),
        ("a3", 1000, 600, 2),
    ]
    for result, action in zip(
        body["results"], ("balance_credited", "balance_credited", "balance_debited"), strict=True
    ):
        row = client.get(f"/v1/audit-logs/{result['audit_log_id']}").json()
        assert (row["action"], row["resource_id"]) == (action, result["transaction_id"])


def test_an_atomic_batch_is_all_or_nothing(service: LiveService) -> None:
    """The third change lacks a won: 409 that says which one, and none of the others is there, nor its user."""
    client = service.client()
    refused = post(client, change("5003", 100, "b1"), change("5004", 50, "b2"), change("5003", -101, "b3"))
    assert refused.status_code == 409
    problem = refused.json()
    assert (problem["code"], problem["index"], problem["shortfall"]) == ("insufficient_funds", 2, 1)
    assert balance(client, "5003") is None
    assert balance(client, "5004") is None
    logged = client.get("/v1/audit-logs", params={"telegram_id": "5003"}).json()["items"]
    assert [row["action"] for row in logged] == ["balance_change_failed"]
    assert post(client, change("5003", 100, "b1")).json()["applied"] == 1


def test_a_batch_that_is_not_atomic_tells_of_each(service: LiveService) -> None:
    """What can be applied is; what cannot is refused by its code, audited, and does not count for what follows."""
    client = service.client()
    answer = post(
        client,
        change("5005", 100, "c1"),
        change("5005", -500, "c2"),
        change("5999", -1, "c3"),
        change("5005", -100, "c4"),
        change("5005", 7, "c1"),
        atomic=False,
    )
    results = answer.json()["results"]
    assert [r.get("code", r["status"]) for r in results] == [
        "applied",
        "insufficient_funds",
        "user_not_found",
        "applied",
        "reference_used",
    ]
    assert balance(client, "5005") == 0
    failed = [client.get(f"/v1/audit-logs/{r['audit_log_id']}").json() for r in results if r["status"] == "refused"]
    assert {row["action"] for row in failed} == {"balance_change_failed"}
    assert [row["details"]["reference"] for row in failed] == ["c2", "c3", "c1"]


def test_a_reference_counts_once_per_caller(service: LiveService) -> None:
    """Another Idempotency-Key does not help; another caller has references of its own."""
    client, other = service.client(), service.client(service.make_key("--role", "service"))
    first = post(client, change("5006", 10, "d1")).json()["results"][0]
    refused = post(client, change("5006", 10, "d1"))
    assert (refused.status_code, refused.json()["code"]) == (409, "reference_used")
    assert (refused.json()["transaction_id"], refused.json()["index"]) == (first["transaction_id"], 0)
    assert post(other, change("5006", 10, "d1")).status_code == 200
    assert balance(client, "5006") == 20


def test_a_reference_stands_once_in_a_request(service: LiveService) -> None:
    """The second change of two with one reference is refused; where the request is atomic, the first one too."""
    client = service.client()
    twice = (change("5021", 100, "twice-1"), change("5021", 100, "twice-1"))
    refused = post(client, *twice)
    told = refused.json()
    assert (refused.status_code, told.get("code"), told.get("index")) == (409, "reference_used", 1), refused.text
    assert told["detail"] == "Change 1: An earlier change of the same request has this reference."
    assert balance(client, "5021") is None
    answer = post(client, *twice, atomic=False).json()
    assert [result["status"] for result in answer["results"]] == ["applied", "refused"]
    assert answer["results"][1]["code"] == "reference_used"
    assert balance(client, "5021") == 100


def test_a_thousand_with_the_longest_texts_and_no_more(service: LiveService) -> None:
    """1,000 changes of the longest texts are one request; 1,001 and 0 are named; a change of 0 won is named."""
    client = service.client()
    many = [change("5007", 1, f"{n:04d}" + "😀" * 96, reason="😀" * 200) for n in range(1000)]
    answer = post(client, *many)
    assert answer.status_code == 200, answer.text[:300]
    assert answer.json()["results"][-1]["balance_after"] == 1000
    for changes, pointer in (
        ([*many, change("5007", 1, "x")], "#/changes"),
        ([], "#/changes"),
        ([change("5007", 1, "y"), change("5007", 0, "z")], "#/changes/1/amount"),
    ):
        refused = post(client, *changes)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, pointer)
    assert balance(client, "5007") == 1000


def test_a_replay_gives_the_same_bytes(service: LiveService) -> None:
    """One effect under one key, refusals of single changes included."""
    client = service.client()
    body = {"changes": [change("5008", 10, "e1"), change("5008", -99, "e2")], "atomic": False}
    first = client.write("/v1/balance-changes", body, key="batch-e")
    again = client.write("/v1/balance-changes", body, key="batch-e")
    assert first.content == again.content
    assert again.headers["Idempotency-Replayed"] == "true"
    assert balance(client, "5008") == 10
