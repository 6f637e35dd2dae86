"""openapi/openapi.json is what reviewers see of a change to the contract."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from service.api.problems import CATALOGUE
from service.ledger.errors import ErrorCode
from tests.live import CHECKOUT, passbook
from tests.some import some

NOT_OF_A_ROUTE = {ErrorCode.ROUTE_NOT_FOUND, ErrorCode.METHOD_NOT_ALLOWED, ErrorCode.MALFORMED_HTTP}
NOT_OF_A_ROUTE |= {ErrorCode.HEADERS_TOO_LARGE, ErrorCode.REQUEST_TIMEOUT}
"""Given where no route was found or asked for; the page of error codes has them, no operation does."""
METHODS = {"get", "head", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The file as it is checked in."""
    text = (CHECKOUT / "openapi" / "openapi.json").read_text(encoding="utf-8")
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(path, method, operation) of each."""
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            yield path, method, item[method]


def nodes(value: Any) -> Iterator[Any]:
    """`value` and everything in it."""
    yield value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(member)


def test_the_file_is_what_the_program_prints() -> None:
    """Byte for byte. A change of the contract is a change of this file, seen in review."""
    printed = passbook("openapi")
    assert printed.returncode == 0, printed.stderr
    same = printed.stdout == (CHECKOUT / "openapi" / "openapi.json").read_text(encoding="utf-8")
    assert same, "openapi/openapi.json is not what the program does. Run: make openapi, and review the difference."


def test_every_operation_has_a_name_and_a_summary(document: dict[str, Any]) -> None:
    """Generated clients take their method names from operationId."""
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names)) > 10
    for path, _, operation in some(operations(document)):
        assert re.fullmatch(r"[a-z][A-Za-z]+", operation["operationId"]), path
        assert operation["summary"], path
        assert operation["tags"], path


def test_no_body_takes_unknown_members(document: dict[str, Any]) -> None:
    """additionalProperties is false in every object that a request may carry."""
    schemas = document["components"]["schemas"]
    asked = [
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for _, _, operation in operations(document)
        if "requestBody" in operation
    ]
    for name in some(asked):
        assert schemas[name]["additionalProperties"] is False, name


def test_everything_that_comes_in_is_bounded(document: dict[str, Any]) -> None:
    """Text has a greatest length or a pattern without * and +, numbers have both ends; no bound is a float."""
    schemas = document["components"]["schemas"]
    bodies = [schema for schema in schemas.values() if schema.get("additionalProperties") is False]
    parameters = [p["schema"] for _, _, operation in operations(document) for p in operation.get("parameters", [])]
    for node in some(nodes([bodies, parameters])):
        if isinstance(node, dict) and node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node or not re.search(r"[*+](?!\?\))", node["pattern"].replace("\\*", "")), node
        if isinstance(node, dict) and node.get("type") == "integer":
            assert {"minimum", "maximum"} <= node.keys(), node
    assert not [node for node in nodes(document) if isinstance(node, float)]


def test_every_error_code_is_documented(document: dict[str, Any]) -> None:
    """Each code stands in the description of a response of its status, or is one of those that no operation gives."""
    found: dict[str, set[str]] = {}
    for _, _, operation in operations(document):
        for status, response in operation["responses"].items():
            for code in re.findall(r"`([a-z_]+)`:", response["description"]):
                found.setdefault(code, set()).add(status)
    assert found == {code: {str(CATALOGUE[code].status)} for code in ErrorCode if code not in NOT_OF_A_ROUTE}
    enum = document["components"]["schemas"]["ErrorCode"]["enum"]
    assert sorted(enum) == sorted(ErrorCode)


def _codes(operation: dict[str, Any]) -> set[str]:
    return {
        code
        for response in operation["responses"].values()
        for code in re.findall(r"`([a-z_]+)`:", response["description"])
    }


def test_every_write_documents_what_every_write_may_answer(document: dict[str, Any]) -> None:
    """Of any method: it needs an Idempotency-Key, and what a key or a full disk refuses is listed; a read has none."""
    key = {ErrorCode.IDEMPOTENCY_KEY_REQUIRED, ErrorCode.IDEMPOTENCY_KEY_REUSED, ErrorCode.ANSWER_ERASED}
    disk = {ErrorCode.STORAGE_FULL, ErrorCode.WRITES_STALLED, ErrorCode.WRITES_STOPPED, ErrorCode.OUTCOME_UNKNOWN}
    of_writes = {str(code) for code in key | disk}
    for path, method, operation in some(operations(document)):
        is_write = method not in {"get", "head"}
        named = [parameter["name"] for parameter in operation.get("parameters", [])]
        assert ("Idempotency-Key" in named) is is_write, (method, path)
        assert _codes(operation) & of_writes == (of_writes if is_write else set()), (method, path)
        headers = {name for status, one in operation["responses"].items() if status < "500" for name in one["headers"]}
        assert ({"Idempotency-Replayed", "Passbook-Receipt"} <= headers) is is_write, (method, path)
    assert {method for _, method, _ in operations(document)} >= {"get", "post", "delete"}


def test_every_link_leads_to_an_operation_and_its_parameters(document: dict[str, Any]) -> None:
    """A link that names what is not there would make clients and the fuzzer skip it in silence."""
    by_name = {operation["operationId"]: operation for _, _, operation in operations(document)}
    links = [
        link for node in nodes(document["paths"]) if isinstance(node, dict) for link in node.get("links", {}).values()
    ]
    assert len(links) > 20
    for link in some(links):
        needed = {p["name"] for p in by_name[link["operationId"]]["parameters"] if p["in"] == "path"}
        assert needed == link["parameters"].keys()


def test_only_probes_are_open(document: dict[str, Any]) -> None:
    """The document asks for a key wherever the guard does."""
    opened = {path for path, _, operation in operations(document) if operation["security"] == []}
    assert opened == {"/livez", "/readyz", "/metrics"}
