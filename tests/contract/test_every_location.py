"""What a write answers is what stands at the address that it names."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.live import CHECKOUT, LiveService
from tests.some import some

NOW = datetime.now(UTC).isoformat()
USER = {"telegram_id": "4711"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/users": {"telegram_id": "4712", "username": "minsu"},
    "/v1/deposits": {**USER, "amount": 500, "depositor_name": "홍길동"},
    "/v1/debits": {**USER, "amount": 3, "reason": "a coffee", "reference": "order-1"},
    "/v1/bank-notifications": {
        "bank_transaction_id": "B-1",
        "bank_name": "신한",
        "depositor_name": "김철수",
        "amount": 77,
        "occurred_at": NOW,
        "raw_message": "입금 77원",
    },
    "/v1/domain-purchases": {**USER, "domain": "통장.kr", "price": 40},
    "/v1/transactions/{transaction_id}/reverse": {"note": "a mistake"},
    "/v1/audit-logs": {"action": "login", "details": {"from": "the app"}, **USER},
}
"""A body with every member that may be given, of each write that makes something."""
CALLED_OTHERWISE = {"reason": "description", "note": "description"}


def test_every_write_that_names_an_address_has_a_case() -> None:
    """By the contract: a 201 with Location."""
    contract = json.loads((CHECKOUT / "openapi" / "openapi.json").read_text("utf-8"))
    making = {
        path
        for path, item in contract["paths"].items()
        if "Location" in item.get("post", {}).get("responses", {}).get("201", {}).get("headers", {})
    }
    assert making == set(BODIES)


@pytest.mark.parametrize("path", BODIES)
def test_what_was_answered_stands_at_its_location(service: LiveService, path: str) -> None:
    """Each member that both have is the same, and what the body gave is among them, under its name or another."""
    client = service.client()
    credited = client.credit("4711", 1000)
    target = path.replace("{transaction_id}", str(credited["id"]))
    answer = client.write(target, BODIES[path])
    assert answer.status_code == 201, answer.text
    written = answer.json()
    found = client.get(answer.headers["Location"]).raise_for_status().json()
    shared = (written.keys() & found.keys()) - {"audit_log_id"}
    assert {name: found[name] for name in shared} == {name: written[name] for name in shared}
    for name, value in some(BODIES[path].items()):
        if name not in {"note", "occurred_at"}:
            assert found.get(CALLED_OTHERWISE.get(name, name), found.get(name)) == value, name
