"""What a refusal points at is what the caller wrote: every parameter and member of the contract, made wrong in turn."""

from typing import Any

import pytest

from service.app import create_app
from service.config import Config
from tests.live import Client, LiveService

DOCUMENT = create_app(Config()).openapi_schema.to_schema()
WRONG = ("!", "0", "-1", "9" * 16, "1.5", "x" * 300, "\x01")
"""No parameter takes all of them."""
CHANGE = {"telegram_id": "1", "amount": 1, "reason": "named", "reference": "named"}
BODIES: dict[str, dict[str, Any]] = {
    "createUser": {"telegram_id": "1"},
    "announceDeposit": {"telegram_id": "1", "amount": 1, "depositor_name": "홍길동"},
    "postBankNotification": {
        "bank_transaction_id": "named",
        "depositor_name": "홍길동",
        "amount": 1,
        "occurred_at": "2026-01-01T00:00:00Z",
    },
    "matchBankNotification": {"deposit_id": 1},
    "dismissBankNotification": {"note": "n"},
    "settleBankMessage": {"note": "n"},
    "postDebit": {"telegram_id": "1", "amount": 1, "reason": "named"},
    "postBalanceChanges": {"changes": [CHANGE]},
    "makeDomainPurchase": {"telegram_id": "1", "domain": "named.kr", "price": 1},
    "postAuditLog": {"action": "named"},
}
"""A good body for each operation that needs one; else an empty one is good."""


def _parameters() -> dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Every parameter of every operation: method, path, the parameter, and the operation."""
    return {
        f"{operation['operationId']} {parameter['in']}/{parameter['name']}": (
            method,
            path,
            parameter,
            operation,
        )
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        for parameter in operation.get("parameters", [])
    }


def _members() -> dict[str, tuple[str, str]]:
    """Every member of every body: the path and the member's name."""
    schemas = DOCUMENT["components"]["schemas"]
    found = {}
    for path, item in DOCUMENT["paths"].items():
        if "requestBody" in item.get("post", {}):
            reference = item["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            for name in schemas[reference.rpartition("/")[2]]["properties"]:
                found[f"{item['post']['operationId']} #/{name}"] = (path, name)
    return found


PARAMETERS, MEMBERS = _parameters(), _members()


@pytest.fixture(scope="module")
def client(service: LiveService) -> Client:
    """A caller with every scope."""
    return service.client()


def _filled(path: str, values: dict[str, str]) -> str:
    return "/".join(values.get(step.strip("{}"), "1") if step.startswith("{") else step for step in path.split("/"))


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_wrong_parameter_is_named_as_the_caller_wrote_it(client: Client, name: str) -> None:
    """By its name in the contract, not in the code; at least one of the wrong values is refused, none is a 500."""
    method, path, parameter, operation = PARAMETERS[name]
    pointer = f"{parameter['in']}/{parameter['name']}"
    refused = 0
    for value in WRONG:
        if parameter["in"] != "query" and value == "\x01":
            continue  # no client sends it
        place = {
            "path": {},
            "query": {},
            "header": {"Idempotency-Key": f"named-{name}".replace(" ", "-"), "Accept": "*/*"},
        }
        for other in operation["parameters"]:
            if other["in"] == "query" and other["required"]:
                place["query"][other["name"]] = "1"
        place[parameter["in"]][parameter["name"]] = value
        answer = client.request(
            method.upper(),
            _filled(path, place["path"]),
            params=place["query"],
            headers=place["header"],
            json=BODIES.get(operation["operationId"], {}) if method == "post" else None,
        )
        assert answer.status_code < 500, (value, answer.text)
        problem = answer.json()
        if answer.status_code == 400:
            assert [error["pointer"] for error in problem["errors"]] == [pointer], value
            assert pointer in problem["detail"]
            refused += 1
    assert refused


@pytest.mark.parametrize("name", [name for name, (*_, parameter, _) in PARAMETERS.items() if parameter["required"]])
def test_a_missing_parameter_is_named(client: Client, name: str) -> None:
    """Those of the query and the headers; a path without one is another path."""
    method, path, parameter, operation = PARAMETERS[name]
    if parameter["in"] == "path":
        return
    answer = client.request(
        method.upper(), _filled(path, {}), json=BODIES.get(operation["operationId"], {}) if method == "post" else None
    )
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"pointer": f"{parameter['in']}/{parameter['name']}", "message": "is required"}]


@pytest.mark.parametrize("name", MEMBERS)
def test_a_wrong_member_is_named(client: Client, name: str) -> None:
    """A JSON pointer to the member of the body."""
    path, member = MEMBERS[name]
    wrong: Any = {"no": "such"} if member != "details" else "no object"
    answer = client.write(_filled(path, {}), {member: wrong})
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["pointer"] == f"#/{member}"


def test_both_ends_of_a_consistency_proof_are_named(client: Client) -> None:
    """`from` and `to`, which are other words in Python."""
    for name in ("from", "to"):
        answer = client.get("/v1/audit-logs/consistency", params={"from": "1", "to": "1", name: "0"})
        assert answer.json()["errors"] == [{"pointer": f"query/{name}", "message": "must be at least 1"}]
