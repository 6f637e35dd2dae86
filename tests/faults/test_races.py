"""Many clients at the same money, the same deposit, the same key: over real HTTP, all at once."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from tests.faults.wire import Answer, Connection, Request, at_once
from tests.live import LiveService

CLIENTS = 50
ROUNDS = 4


def _all(service: LiveService, asked: Sequence[tuple[Request, str]]) -> list[Answer]:
    return asyncio.run(at_once(service.url, asked))


def _debit(telegram_id: str, amount: int, key: str, reason: str = "race") -> Request:
    body = {"telegram_id": telegram_id, "amount": amount, "reason": reason}
    return Request("/v1/debits", json.dumps(body), key)


def _logged(service: LiveService, telegram_id: str, action: str) -> list[dict[str, Any]]:
    parameters: dict[str, str | int] = {"telegram_id": telegram_id, "action": action, "limit": 1000}
    items: list[dict[str, Any]] = service.client().get("/v1/audit-logs", params=parameters).json()["items"]
    return items


def _balance(service: LiveService, telegram_id: str) -> tuple[int, int]:
    answer = service.client().get(f"/v1/users/{telegram_id}/balance").json()
    return answer["balance"], answer["version"]


@pytest.mark.parametrize("number", range(ROUNDS))
def test_only_one_of_many_takes_the_last_won(service: LiveService, number: int) -> None:
    """50 debits of the last won under 50 keys: one 201, 49 times 409 with the shortfall, and the balance is 0."""
    user = f"200{number}"
    service.client().credit(user, 1)
    asked = [(_debit(user, 1, f"last-{number}-{n}"), service.admin_key) for n in range(CLIENTS)]
    answers = _all(service, asked)
    assert Counter(answer.status for answer in answers) == {201: 1, 409: CLIENTS - 1}
    refusals = [answer.json() for answer in answers if answer.status == 409]
    assert {(r["code"], r["balance"], r["required"], r["shortfall"]) for r in refusals} == {
        ("insufficient_funds", 0, 1, 1)
    }
    assert _balance(service, user) == (0, 2)
    assert len(_logged(service, user, "balance_debited")) == 1
    assert len(_logged(service, user, "debit_failed")) == CLIENTS - 1
    assert [(a.status, a.body) for a in _all(service, asked)] == [(a.status, a.body) for a in answers]


def test_the_same_key_at_once_has_one_effect_and_one_answer(service: LiveService) -> None:
    """50 times the same request at once: the same bytes 50 times, one of them not marked as replayed, one debit."""
    service.client().credit("2100", 1000)
    answers = _all(service, [(_debit("2100", 10, "same-key"), service.admin_key)] * CLIENTS)
    assert {(answer.status, answer.headers["location"]) for answer in answers} == {
        (201, answers[0].headers["location"])
    }
    assert len({answer.body for answer in answers}) == 1
    assert Counter(answer.headers.get("idempotency-replayed") for answer in answers) == {None: 1, "true": CLIENTS - 1}
    assert _balance(service, "2100") == (990, 2)
    assert len(_logged(service, "2100", "balance_debited")) == 1


def test_the_same_refused_key_at_once_is_refused_and_audited_once(service: LiveService) -> None:
    """A refusal is an answer too: 50 at once give one audit row and the same bytes, later money or not."""
    service.client().credit("2101", 5)
    asked = [(_debit("2101", 10, "same-refused-key"), service.admin_key)] * CLIENTS
    answers = _all(service, asked)
    assert {answer.status for answer in answers} == {409}
    assert len({answer.body for answer in answers}) == 1
    assert len(_logged(service, "2101", "debit_failed")) == 1
    service.client().credit("2101", 100)
    assert {answer.body for answer in _all(service, asked)} == {answers[0].body}
    assert _balance(service, "2101") == (105, 2)


def test_a_deposit_is_confirmed_once_under_many_keys(service: LiveService) -> None:
    """50 confirmations under 50 keys: one 200, the others 409 confirmed, one credit."""
    body = {"telegram_id": "2200", "amount": 700, "depositor_name": "홍길동"}
    deposit = service.client().write("/v1/deposits", body).json()["id"]
    path = f"/v1/deposits/{deposit}/confirm"
    answers = _all(service, [(Request(path, "{}", f"confirm-{n}"), service.admin_key) for n in range(CLIENTS)])
    assert Counter(answer.status for answer in answers) == {200: 1, 409: CLIENTS - 1}
    refusals = [answer.json() for answer in answers if answer.status == 409]
    assert {(r["code"], r["current_status"]) for r in refusals} == {("deposit_not_pending", "confirmed")}
    assert _balance(service, "2200") == (700, 1)
    assert len(_logged(service, "2200", "deposit_confirmed")) == 1


@pytest.mark.parametrize("number", range(ROUNDS))
def test_of_confirm_and_cancel_one_wins_and_the_loser_is_told(service: LiveService, number: int) -> None:
    """25 confirmations against 25 cancellations: one 200; every loser learns what the deposit is; the money agrees."""
    user = f"230{number}"
    body = {"telegram_id": user, "amount": 9, "depositor_name": "홍길동"}
    deposit = service.client().write("/v1/deposits", body).json()["id"]
    asked = [
        (Request(f"/v1/deposits/{deposit}/{verb}", "{}", f"{verb}-{number}-{n}"), service.admin_key)
        for n in range(CLIENTS // 2)
        for verb in (("confirm", "cancel") if number % 2 else ("cancel", "confirm"))
    ]
    answers = _all(service, asked)
    assert Counter(answer.status for answer in answers) == {200: 1, 409: CLIENTS - 1}
    won = next(answer.json()["status"] for answer in answers if answer.status == 200)
    assert {answer.json()["current_status"] for answer in answers if answer.status == 409} == {won}
    assert _balance(service, user) == ((9, 1) if won == "confirmed" else (0, 0))
    done = {action: len(_logged(service, user, action)) for action in ("deposit_confirmed", "deposit_cancelled")}
    assert done == {
        "deposit_confirmed": int(won == "confirmed"),
        "deposit_cancelled": int(won == "cancelled"),
    }


def test_the_same_key_of_another_caller_is_another_request(service: LiveService) -> None:
    """Two callers with the same Idempotency-Key at once: two debits, and neither sees the other's answer."""
    service.client().credit("2400", 100)
    other = service.make_key("--role", "service")
    answers = _all(
        service,
        [(_debit("2400", 30, "shared-key"), service.admin_key), (_debit("2400", 30, "shared-key"), other)] * 10,
    )
    assert {answer.status for answer in answers} == {201}
    mine, theirs = ({answer.body for answer in answers[start::2]} for start in (0, 1))
    assert (len(mine), len(theirs), mine & theirs) == (1, 1, set())
    assert _balance(service, "2400") == (40, 3)


def test_a_key_with_another_body_is_refused_by_name_and_changes_nothing(service: LiveService) -> None:
    """Under one key, at once: bodies that differ get 409 with the members that differ; only the first one counts."""
    service.client().credit("2500", 1000)
    first = _all(service, [(_debit("2500", 1, "reused"), service.admin_key)])[0]
    assert first.status == 201
    changed = [_debit("2500", 2 + n, "reused", reason="other" if n % 2 else "race") for n in range(20)]
    answers = _all(service, [(request, service.admin_key) for request in changed])
    assert {(answer.status, answer.json()["code"]) for answer in answers} == {(409, "idempotency_key_reused")}
    assert [answer.json()["differing_fields"] for answer in answers] == [["amount"], ["amount", "reason"]] * 10
    path = Request("/v1/users", '{"telegram_id": "2500"}', "reused")
    assert _all(service, [(path, service.admin_key)])[0].json()["differing_fields"] == ["path"]
    again = _all(service, [(_debit("2500", 1, "reused"), service.admin_key)])[0]
    assert (again.status, again.body) == (201, first.body)
    assert _balance(service, "2500") == (999, 2)


def test_a_client_that_is_reset_after_sending_finds_one_stable_answer(service: LiveService) -> None:
    """RST in the moment after the request was sent: 0 or 1 debit, replays agree, and the service goes on."""
    service.client().credit("2600", 1000)
    requests = [_debit("2600", 1, f"reset-{n}") for n in range(CLIENTS)]

    async def send_and_die() -> None:
        connections = await asyncio.gather(*(Connection.open(service.url) for _ in requests))
        for connection, request in zip(connections, requests, strict=True):
            await connection.send(request.encoded(service.admin_key))
            connection.reset()

    asyncio.run(send_and_die())
    asked = [(request, service.admin_key) for request in requests]
    answers = _all(service, asked)
    assert {answer.status for answer in answers} == {201}
    assert [answer.body for answer in _all(service, asked)] == [answer.body for answer in answers]
    assert len({answer.body for answer in answers}) == CLIENTS
    assert _balance(service, "2600") == (1000 - CLIENTS, CLIENTS + 1)
    assert len(_logged(service, "2600", "balance_debited")) == CLIENTS


def test_a_client_that_is_reset_within_its_request_changes_nothing(own_service: LiveService) -> None:
    """RST after a part of the request: nothing is done, and nothing is logged as a fault of the service."""
    own_service.start()
    own_service.client().credit("2700", 10)
    request = _debit("2700", 1, "torn")
    whole = request.encoded(own_service.admin_key)

    async def tear() -> None:
        for length in [*range(1, len(whole), 7), len(whole) - 1]:
            connection = await Connection.open(own_service.url)
            await connection.send(whole[:length])
            connection.reset()
        for _ in range(2):  # what came before was read when a later connection is answered
            connection = await Connection.open(own_service.url)
            assert (await connection.ask(Request("/livez", "", "", method="GET"), "")).status == 200
            await connection.close()

    asyncio.run(tear())
    assert _balance(own_service, "2700") == (10, 1)
    assert _logged(own_service, "2700", "debit_failed") == []
    answer = _all(own_service, [(request, own_service.admin_key)])[0]
    assert (answer.status, answer.headers.get("idempotency-replayed")) == (201, None)
    assert own_service.stop() == 0
    assert "Traceback" not in own_service.said, own_service.said
