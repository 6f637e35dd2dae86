"""Many clients at the same money, the same deposit, the same key: over real HTTP, all at once."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.faults.one_order import LIES, RACES, Outcome, Track, lied_about, orders_that_explain, unexplained
from tests.faults.wire import Answer, Connection, Request, at_once
from tests.ledger_check import broken_invariants
from tests.live import LiveService

CLIENTS = 50
ROUNDS = 4
RACE_ROUNDS = 12
"""Of each race between lines and announcements; `make faults` has a thousand, and tells the same lies."""


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


def _line(bank_id: str, name: str, amount: int, key: str) -> Request:
    body = {"bank_transaction_id": bank_id, "depositor_name": name, "amount": amount, "occurred_at": _now()}
    return Request("/v1/bank-notifications", json.dumps(body), key)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="minutes").replace("+00:00", ":00Z")


def test_a_bank_transaction_under_many_keys_credits_once(service: LiveService) -> None:
    """50 times the same bank line under 50 keys and two callers: one 201, the others 200 with the same notification."""
    body = {"telegram_id": "2610", "amount": 800, "depositor_name": "한 줄"}
    client = service.client()
    for _ in range(2):  # a second deposit that the line must not confirm as well
        client.write("/v1/deposits", {**body, "amount": 801})
    deposit = client.write("/v1/deposits", body).json()["id"]
    other = service.make_key("--role", "service")
    moment = json.loads(_line("race-1", "한줄", 800, "").body)["occurred_at"]
    line = json.dumps({"bank_transaction_id": "race-1", "depositor_name": "한줄", "amount": 800, "occurred_at": moment})
    asked = [
        (Request("/v1/bank-notifications", line, f"line-{n}"), other if n % 2 else service.admin_key)
        for n in range(CLIENTS)
    ]
    answers = _all(service, asked)
    assert Counter(answer.status for answer in answers) == {201: 1, 200: CLIENTS - 1}
    assert {(a.json()["id"], a.json()["matched_deposit_id"], a.json()["balance_after"]) for a in answers} == {
        (answers[0].json()["id"], deposit, 800)
    }
    assert _balance(service, "2610") == (800, 1)
    assert len(_logged(service, "2610", "bank_notification_received")) == 1


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_bank_line_and_its_announcement_at_once_credit_once(service: LiveService, number: int) -> None:
    """Whichever is first, exactly one line and one deposit find each other; the rest wait, and nothing is guessed."""
    user, name = f"270{number}", f"동시 {number}번"
    announce = {"telegram_id": user, "amount": 900, "depositor_name": name}
    asked = [
        (Request("/v1/deposits", json.dumps(announce), f"announce-{number}"), service.admin_key),
        (_line(f"at-once-{number}", name, 900, f"line-at-once-{number}"), service.admin_key),
    ]
    answers = _all(service, asked[::-1] if number % 2 else asked)
    assert {answer.status for answer in answers} == {201}
    assert _balance(service, user) == (900, 1)
    assert len(_logged(service, user, "deposit_confirmed")) == 1


@pytest.mark.parametrize("number", range(ROUNDS))
def test_of_many_bank_lines_and_confirmations_one_credits_the_deposit(service: LiveService, number: int) -> None:
    """25 lines of one transfer each against 25 confirmations by hand: the deposit is credited once, by one of them."""
    user, name = f"280{number}", f"누가 {number}번"
    body = {"telegram_id": user, "amount": 950, "depositor_name": name}
    deposit = service.client().write("/v1/deposits", body).json()["id"]
    asked = [
        (
            _line(f"many-{number}-{n}", name, 950, f"many-line-{number}-{n}")
            if n % 2
            else Request(f"/v1/deposits/{deposit}/confirm", "{}", f"many-confirm-{number}-{n}"),
            service.admin_key,
        )
        for n in range(CLIENTS)
    ]
    answers = _all(service, asked[::-1] if number % 2 else asked)
    lines = [
        a.json()
        for (request, _), a in zip(asked[::-1] if number % 2 else asked, answers, strict=True)
        if "notifications" in request.path
    ]
    confirmed = Counter(answer.status for answer in answers)[200]
    assert confirmed + sum(line["status"] == "matched" for line in lines) == 1
    assert {line["matched_deposit_id"] for line in lines} <= {deposit, None}
    assert _balance(service, user) == (950, 1)


def test_a_transaction_is_reversed_once_under_many_keys(service: LiveService) -> None:
    """50 reversals under 50 keys: one 201, the others 409 that name the reversal; the money went back once."""
    credit = service.client().credit("2900", 600)
    path = f"/v1/transactions/{credit['id']}/reverse"
    answers = _all(service, [(Request(path, "{}", f"reverse-{n}"), service.admin_key) for n in range(CLIENTS)])
    assert Counter(answer.status for answer in answers) == {201: 1, 409: CLIENTS - 1}
    won = next(answer.json()["id"] for answer in answers if answer.status == 201)
    refusals = [answer.json() for answer in answers if answer.status == 409]
    assert {(r["code"], r["reversed_by_id"]) for r in refusals} == {("transaction_reversed", won)}
    assert _balance(service, "2900") == (0, 2)


def test_a_notification_matched_by_many_at_once_credits_one_deposit(service: LiveService) -> None:
    """50 times /match between two deposits: one 200, the others 409 that name the deposit that has the money."""
    client = service.client()
    made = [
        client.write("/v1/deposits", {"telegram_id": f"295{n}", "amount": 50, "depositor_name": "둘"}).json()["id"]
        for n in range(2)
    ]
    line = client.write("/v1/bank-notifications", json.loads(_line("both-1", "둘", 50, "").body)).json()
    assert line["status"] == "ambiguous"
    path = f"/v1/bank-notifications/{line['id']}/match"
    asked = [
        (Request(path, json.dumps({"deposit_id": made[n % 2]}), f"both-{n}"), service.admin_key) for n in range(CLIENTS)
    ]
    answers = _all(service, asked)
    assert Counter(answer.status for answer in answers) == {200: 1, 409: CLIENTS - 1}
    won = next(answer.json()["matched_deposit_id"] for answer in answers if answer.status == 200)
    refusals = [answer.json() for answer in answers if answer.status == 409]
    assert {(r["code"], r["deposit_id"]) for r in refusals} == {("bank_notification_matched", won)}
    assert sorted(_balance(service, f"295{n}") for n in range(2)) == [(0, 0), (50, 1)]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Outcome]]:
    """Rounds of each race on a service of their own, on which no name is learned before the last races teach one."""
    live = LiveService(tmp_path_factory.mktemp("races") / "passbook.db").start()
    track = Track(live, random.Random(1), first_user=3_000_000)
    yield [track.run(race) for race in RACES for _ in range(RACE_ROUNDS)]
    assert live.stop() == 0, live.said
    assert broken_invariants(live.database) == []


def test_one_order_explains_two_lines_and_two_announcements_at_once(outcomes: list[Outcome]) -> None:
    """Of one user and of two, of a whole name, a cut one and a learned one: in one order of the four requests the model
    gives the same answers, and ends with the same lines, deposits and balances. Every status is met."""
    assert [unexplained(outcome) for outcome in outcomes if not orders_that_explain(outcome)] == []
    ends = {answer["status"] for outcome in outcomes for _, answer in outcome.answers}
    assert ends == {"pending", "confirmed", "unmatched", "ambiguous", "matched"}


@pytest.mark.parametrize("lie", LIES)
def test_no_order_explains_a_lie(outcomes: list[Outcome], lie: str) -> None:
    """The oracle is loud about each outcome that is told otherwise than it came."""
    told = [told for told in (lied_about(outcome, lie) for outcome in outcomes) if told is not None]
    assert told, "the lie changed nothing"
    assert [one for one in told if orders_that_explain(one)] == []
