"""An Idempotency-Key names one request: one caller, method, path with its ids, and body. Asked of every write."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.app import create_app
from service.config import Config
from tests.contract.scenes import REQUESTS, UNKNOWN_ID, WITH_ID, Scene, routes, with_unknown_id
from tests.stateful.served import CALLERS, Answer


def _is_reused(answer: Answer, differing: list[str], what: str) -> None:
    problem = answer.json()
    found = (answer.status, problem.get("code"), problem.get("differing_fields"))
    assert found == (409, "idempotency_key_reused", differing), f"{what}: the key of another request got {answer}"
    assert "idempotency-replayed" not in answer.headers, what


def _is_replay(answer: Answer, first: Answer, what: str) -> None:
    assert (answer.status, answer.body) == (first.status, first.body), f"{what}: {answer}, first {first}"
    assert answer.headers.get("location") == first.headers.get("location"), what
    assert answer.headers.get("idempotency-replayed") == "true", what


def _carried_out(scene: Scene, template: str, key: str) -> tuple[str, dict[str, Any], Answer]:
    path, body = REQUESTS[template](scene)
    answer = scene.post(path, body, key=key)
    assert answer.status in {200, 201}, (template, answer)
    assert "idempotency-replayed" not in answer.headers
    return path, body, answer


def test_every_write_has_a_request_here() -> None:
    """A new route of POST needs one in REQUESTS. What is deleted has tests of its own, and no other method writes."""
    assert REQUESTS.keys() == routes("POST").keys()
    assert routes("DELETE").keys() == {"/v1/learned-names/{learned_name_id}"}
    assert not any(routes(method) for method in ("PUT", "PATCH"))
    assert len(WITH_ID) >= 6


@pytest.mark.parametrize("template", WITH_ID)
def test_a_key_answers_for_the_id_in_its_path_alone(scene: Scene, template: str) -> None:
    """The same key and body for another id is refused, and nothing is done to it; what was first answered stays."""
    key = f"id-{template}"
    path, body, first = _carried_out(scene, template, key)
    other_path, other_body = REQUESTS[template](scene)
    before = scene.state()
    _is_reused(scene.post(other_path, body, key=key), ["path"], other_path)
    _is_reused(scene.post(with_unknown_id(path), body, key=key), ["path"], "an id that is nobody's")
    assert scene.state() == before, f"{template}: a refused request changed something"
    _is_replay(scene.post(path, body, key=key), first, path)
    done = scene.post(other_path, other_body)
    assert done.status == first.status, f"{template}: the other one was touched: {done}"
    assert done.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("template", WITH_ID)
def test_a_refusal_answers_for_the_id_in_its_path_alone(scene: Scene, template: str) -> None:
    """What was not there under one id is no answer for another one."""
    key = f"refused-{template}"
    path, body = REQUESTS[template](scene)
    first = scene.post(with_unknown_id(path), body, key=key)
    assert (first.status, first.json()["code"].endswith("_not_found")) == (404, True)
    before = scene.state()
    _is_reused(scene.post(path, body, key=key), ["path"], path)
    assert scene.state() == before
    _is_replay(scene.post(with_unknown_id(path), body, key=key), first, "the refusal")


@pytest.mark.parametrize("template", REQUESTS)
def test_a_key_answers_for_its_operation_alone(scene: Scene, template: str) -> None:
    """No other write is answered under the key, or done, also with the same id and the same body."""
    key = f"operation-{template}"
    path, body, first = _carried_out(scene, template, key)
    others = {other: REQUESTS[other](scene) for other in REQUESTS if other != template}
    before = scene.state()
    for other, (other_path, other_body) in others.items():
        _is_reused(scene.post(other_path, other_body, key=key), ["path"], f"{template}, then {other}")
    identifier = next((part for part in path.split("/") if part.isdigit()), None)
    if identifier is not None and body == {}:
        for other in WITH_ID:
            if other != template and not other.endswith(("/match", "/settle", "/dismiss")):
                same_id = "/".join(identifier if part.startswith("{") else part for part in other.split("/"))
                _is_reused(scene.post(same_id, body, key=key), ["path"], f"{path}, then {same_id}")
    assert scene.state() == before, f"{template}: a refused request changed something"
    _is_replay(scene.post(path, body, key=key), first, path)


def _schemas() -> dict[str, dict[str, Any]]:
    """Path template -> the properties of its body."""
    document = create_app(Config()).openapi_schema.to_schema()
    found = {}
    for template in REQUESTS:
        content = document["paths"][template]["post"]["requestBody"]["content"]["application/json"]["schema"]
        schema = document["components"]["schemas"][content["$ref"].rpartition("/")[2]]
        found[template] = schema["properties"]
    return found


_OTHERWISE: dict[str, Callable[[Any], Any]] = {
    "account": lambda _: "427***104",
    "action": lambda was: f"{was}x",
    "amount": lambda was: was + 1,
    "atomic": lambda was: not was,
    "balance_after": lambda _: -5,
    "bank_name": lambda _: "KB",
    "bank_notification_id": lambda _: 1,
    "bank_transaction_id": lambda was: f"{was}x",
    "cancel_deposit_id": lambda _: 1,
    "changes": lambda was: [{**was[0], "amount": was[0]["amount"] + 1}],
    "deposit_id": lambda was: was + 1,
    "depositor_name": lambda was: f"{was}x",
    "details": lambda _: {"a": 2},
    "domain": lambda was: f"x{was}",
    "goodwill": lambda was: not was,
    "hold": lambda was: not was,
    "late": lambda was: not was,
    "note": lambda _: "전화로 확인",
    "occurred_at": lambda was: was.replace("2026", "2025"),
    "outcome": lambda _: "failure",
    "price": lambda was: was + 1,
    "raw_message": lambda _: "입금",
    "reason": lambda was: f"{was}x",
    "reference": lambda _: "other",
    "remember": lambda was: not was,
    "resource_id": lambda _: 7,
    "resource_type": lambda _: "shop",
    "telegram_id": lambda was: f"{was or 9}1",
    "username": lambda _: "hong",
}
_TOLD_AS = {("/v1/audit-logs", "outcome"): "action"}
"""The outcome of a caller's event is written at the end of its action."""


@pytest.mark.parametrize("template", REQUESTS)
def test_a_key_answers_for_its_body_alone(scene: Scene, template: str) -> None:
    """With any one member of the body changed, left out or added, it is another request, and the member is named."""
    properties = _schemas()[template]
    key = f"body-{template}"
    path, body, first = _carried_out(scene, template, key)
    before = scene.state()
    for name in properties:
        other = {**body, name: _OTHERWISE[name](body.get(name))}
        told = [_TOLD_AS.get((template, name), name)]
        if template.endswith("/match") and name in {"telegram_id", "cancel_deposit_id"}:
            other = {**other, "telegram_id": "9"}
            del other["deposit_id"]
            told = sorted({name, "deposit_id", "telegram_id"})
        _is_reused(scene.post(path, other, key=key), told, f"{template} with another {name}")
    assert scene.state() == before, f"{template}: a refused request changed something"
    _is_replay(scene.post(path, body, key=key), first, path)


@pytest.mark.parametrize("template", REQUESTS)
def test_a_key_answers_its_caller_alone(scene: Scene, template: str) -> None:
    """Another caller's request of the same key, path and body is one of its own; the caller's next API key is not."""
    key = f"caller-{template}"
    path, body, first = _carried_out(scene, template, key)
    others = scene.post(path, body, key=key, caller=CALLERS[1])
    assert "idempotency-replayed" not in others.headers, f"{template}: another caller was answered with {others}"
    assert others.json().get("code") != "idempotency_key_reused", template
    assert others.json().get("audit_log_id", -1) != first.json().get("audit_log_id"), template
    stored = "SELECT actor, status FROM idempotency_answers WHERE idempotency_key = ? ORDER BY id"
    assert scene.service.rows(stored, key) == [(CALLERS[0], first.status), (CALLERS[1], others.status)]
    _is_replay(scene.post(path, body, key=key), first, path)
    _is_replay(scene.post(path, body, key=key, caller=CALLERS[1]), others, path)


def test_a_key_stays_with_its_callers_name(scene: Scene) -> None:
    """A new API key of the same name has the answers of the one before it."""
    answered = {template: _carried_out(scene, template, f"renewed-{template}") for template in REQUESTS}
    scene.service.use_another_key_of(CALLERS[0])
    for template, (path, body, first) in answered.items():
        _is_replay(scene.post(path, body, key=f"renewed-{template}"), first, template)


@pytest.mark.parametrize("template", REQUESTS)
def test_another_spelling_of_a_key_is_another_key(scene: Scene, template: str) -> None:
    """In capitals, longer or shorter by one; only the quotes of a structured header field are not part of it."""
    key = f"spelt-{template.replace('{', '').replace('}', '')}"
    path, body, first = _carried_out(scene, template, key)
    _is_replay(scene.post(path, body, key=f'"{key}"'), first, "in quotes")
    for other in (key.upper(), f"{key}x", key[:-1]):
        answer = scene.post(path, body, key=other)
        assert "idempotency-replayed" not in answer.headers, f"{template}: {other} was answered as {key}"
        assert answer.json().get("code") != "idempotency_key_reused", other


@pytest.mark.parametrize("template", REQUESTS)
def test_a_key_answers_for_post_without_a_query_alone(scene: Scene, template: str) -> None:
    """A query is refused, and other methods take no notice of the key; nothing is done by any of them."""
    key = f"method-{template}"
    path, body, first = _carried_out(scene, template, key)
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    before = scene.state()
    for query in ("?x=1", "?id=1", "?telegram_id=1"):
        asked = scene.service.ask("POST", path + query, json.dumps(body).encode(), headers=headers)
        assert (asked.status, asked.json()["code"]) == (400, "invalid_request"), (path, query)
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"):
        with_key = scene.service.ask(method, path, headers={"Idempotency-Key": key})
        without = scene.service.ask(method, path)
        assert "idempotency-replayed" not in with_key.headers, (method, path)
        assert (with_key.status, _without_request_id(with_key)) == (without.status, _without_request_id(without))
        assert with_key.body != first.body or method == "HEAD", (method, path)
    assert scene.state() == before
    _is_replay(scene.post(path, body, key=key), first, path)


def _without_request_id(answer: Answer) -> Any:
    document = json.loads(answer.body or b"null")
    return {**document, "request_id": None} if isinstance(document, dict) else document


def test_many_ids_at_once_under_one_key_are_one_request(scene: Scene) -> None:
    """Of deposits that are confirmed at the same moment with one key, one is; the others are told of the key."""
    deposits = [scene.deposit() for _ in range(12)]
    with ThreadPoolExecutor(len(deposits)) as pool:
        answers = list(pool.map(lambda one: _confirm_alone(scene, one), deposits))
    codes = sorted((status, document.get("code", "")) for status, document in answers)
    assert codes == [(200, ""), *[(409, "idempotency_key_reused")] * (len(deposits) - 1)]
    statuses = scene.service.rows(
        "SELECT status, COUNT(*) FROM deposit_transactions WHERE id >= ? AND type = 'deposit' GROUP BY status",
        deposits[0],
    )
    assert dict(statuses) == {"confirmed": 1, "pending": len(deposits) - 1}


def _confirm_alone(scene: Scene, deposit_id: int) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "at-once"}
    path = f"/v1/deposits/{deposit_id}/confirm"
    with scene.service.another_connection() as ask:
        answer = ask("POST", path, b"{}", headers=headers)
    return answer.status, answer.json()


def test_the_id_that_is_nobodys_is_nobodys(scene: Scene) -> None:
    """Else the tests above would prove nothing."""
    for table in ("deposit_transactions", "bank_notifications", "user_domains"):
        assert scene.service.rows(f"SELECT COUNT(*) FROM {table} WHERE id >= ?", UNKNOWN_ID) == [(0,)]
