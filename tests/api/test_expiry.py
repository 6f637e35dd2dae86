"""Expiry as a user of the running service sees it."""

from datetime import UTC, datetime
from typing import Any

from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService
from tests.printed import stands
from tests.waiting import until

SOON = {
    "PASSBOOK_DEPOSIT_EXPIRY_S": "1",
    "PASSBOOK_HOLD_EXPIRY_S": "1",
    "PASSBOOK_EXPIRY_INTERVAL_S": "1",
}


def _announce(client: Client, telegram_id: str, amount: int) -> str:
    """The path of a pending deposit."""
    body = {"telegram_id": telegram_id, "amount": amount, "depositor_name": "홍길동"}
    return str(client.write("/v1/deposits", body).headers["Location"])


def _hold(client: Client, telegram_id: str, domain: str, price: int) -> str:
    """The path of a held purchase, paid for with new money."""
    client.credit(telegram_id, price)
    body = {"telegram_id": telegram_id, "domain": domain, "price": price, "hold": True}
    held = client.write("/v1/domain-purchases", body)
    assert held.status_code == 201, held.text
    return str(held.headers["Location"])


def _expired(client: Client, path: str) -> dict[str, Any]:
    """What is at `path`, as soon as it has expired."""

    def expired() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(path).json()
        return found if found["status"] == "expired" else None

    return until(expired, f"{path} expires") or {}


def _audited(client: Client, action: str, resource_id: int) -> list[dict[str, Any]]:
    parameters: dict[str, str | int] = {"action": action, "resource_id": resource_id}
    items: list[dict[str, Any]] = client.get("/v1/audit-logs", params=parameters).json()["items"]
    return items


def test_deposits_and_held_names_expire_by_themselves(own_service: LiveService) -> None:
    """Both expire, audited as system:expiry; the name is free, the money back; late money needs "late": true."""
    own_service.environment = SOON
    own_service.start()
    client = own_service.client()
    deposit_path, purchase_path = _announce(client, "7001", 500), _hold(client, "7002", "곧.kr", 11_000)
    deposit, purchase = _expired(client, deposit_path), _expired(client, purchase_path)

    (row,) = _audited(client, "deposit_expired", deposit["id"])
    assert (row["actor"], row["telegram_id"], row["request_id"], row["ip_address"]) == (
        "system:expiry",
        "7001",
        None,
        None,
    )
    assert row["details"] == {"amount": 500, "depositor_name": "홍길동", "announced_at": deposit["created_at"]}
    (row,) = _audited(client, "domain_expired", purchase["id"])
    assert (row["actor"], row["telegram_id"]) == ("system:expiry", "7002")
    balance = client.get("/v1/users/7002/balance").json()
    assert (balance["balance"], balance["held"]) == (11_000, 0)
    refund = client.get("/v1/users/7002/transactions", params={"limit": 1}).json()["items"][0]
    assert (refund["type"], refund["reverses_id"]) == ("domain_refund", purchase["transaction_id"])
    body = {"telegram_id": "7002", "domain": "곧.kr", "price": 11_000}
    assert client.write("/v1/domain-purchases", body).json()["status"] == "registered"

    for verb in ("complete", "release"):
        refused = client.write(f"{purchase_path}/{verb}")
        assert (refused.status_code, refused.json()["current_status"]) == (409, "expired")
    refused = client.write(f"{deposit_path}/confirm", {})
    assert (refused.status_code, refused.json()["code"]) == (409, "deposit_expired")
    late = client.write(f"{deposit_path}/confirm", {"late": True})
    assert (late.status_code, late.json()["balance_after"]) == (200, 500)
    assert own_service.stop() == 0
    assert "expired 1 deposit" in own_service.said
    assert stands("1 held domain purchase", own_service.said)
    assert "Traceback" not in own_service.said
    assert broken_invariants(own_service.database) == []


def test_a_held_name_and_a_deposit_expire_each_in_its_own_time(own_service: LiveService) -> None:
    """By the two settings: where deposits wait a second and names an hour, the deposit alone expires."""
    own_service.environment = {**SOON, "PASSBOOK_HOLD_EXPIRY_S": "3600"}
    own_service.start()
    client = own_service.client()
    purchase_path, deposit_path = _hold(client, "7012", "나중.kr", 1000), _announce(client, "7011", 500)
    _expired(client, deposit_path)
    _expired(client, _announce(client, "7011", 501))  # a sweep after the purchase would have been due
    assert client.get(purchase_path).json()["status"] == "pending", "the name expired in the time of a deposit"


def test_what_was_due_before_a_kill_expires_after_the_restart(own_service: LiveService) -> None:
    """Nothing is kept in memory: a process that is killed before it ever swept leaves the work to the next one."""
    own_service.environment = {**SOON, "PASSBOOK_EXPIRY_INTERVAL_S": "86400"}
    own_service.start()
    client = own_service.client()
    paths = [_announce(client, "7101", 1), _hold(client, "7102", "restart.kr", 900)]
    assert [client.get(path).json()["status"] for path in paths] == ["pending", "pending"]
    own_service.kill()
    own_service.environment = SOON
    own_service.start()
    client = own_service.client()
    for path in paths:
        _expired(client, path)
    assert client.get("/v1/users/7102/balance").json()["balance"] == 900
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


def test_sigterm_does_not_wait_for_the_next_sweep(own_service: LiveService) -> None:
    """With a day to the next sweep, and with sweeps under way every second, the service ends at once with 0."""
    for interval_s in ("86400", "1"):
        own_service.environment = {**SOON, "PASSBOOK_EXPIRY_INTERVAL_S": interval_s}
        own_service.start()
        path = _announce(own_service.client(), "7201", 1)
        if interval_s == "1":
            _expired(own_service.client(), path)
        assert own_service.stop() == 0
        assert "Traceback" not in own_service.said


def test_late_money_is_settled_by_hand_and_says_so(own_service: LiveService) -> None:
    """Money that came after a deposit had expired credits nothing by itself, lists it, and with "late": true does;
    until then it keeps others of that name and amount from being confirmed by themselves."""
    own_service.environment = SOON
    own_service.start()
    client = own_service.client()
    deposit = _expired(client, _announce(client, "7301", 700))
    line = {"bank_transaction_id": "late-1", "depositor_name": "홍 길동", "amount": 700}
    line["occurred_at"] = datetime.now(UTC).isoformat()
    received = client.write("/v1/bank-notifications", line).json()
    assert received["status"] == "unmatched"
    assert [(c["deposit_id"], c["status"]) for c in received["candidates"]] == [(deposit["id"], "expired")]
    body = {"telegram_id": "7302", "amount": 700, "depositor_name": "홍길동"}
    assert client.write("/v1/deposits", body).json()["status"] == "pending"
    by_itself = client.write(f"/v1/deposits/{deposit['id']}/confirm", {}).json()
    assert (by_itself["code"], by_itself["current_status"]) == ("deposit_expired", "expired")
    path = f"/v1/bank-notifications/{received['id']}/match"
    refused = client.write(path, {"deposit_id": deposit["id"]}).json()
    assert (refused["code"], refused["current_status"]) == ("deposit_expired", "expired")
    settled = client.write(path, {"deposit_id": deposit["id"], "late": True})
    assert (settled.status_code, settled.json()["balance_after"]) == (200, 700)
    (row,) = _audited(client, "deposit_confirmed", deposit["id"])
    assert (row["details"]["late"], row["details"]["matched_bank_notification_id"]) == (True, received["id"])
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []
