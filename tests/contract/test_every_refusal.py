"""Every refusal that a write declares: what it answers, that nothing moved, and its row of the audit log, whole."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest

from service.api.problems import CATALOGUE
from service.api.problems import MEDIA_TYPE as PROBLEM
from service.ledger.errors import ErrorCode
from service.storage import sqlite
from tests.contract.scenes import BALANCE_MAX, UNKNOWN_ID, Scene, routes
from tests.stateful.served import CALLERS, user_agent_of

CONFIRM, CANCEL = "/v1/deposits/{deposit_id}/confirm", "/v1/deposits/{deposit_id}/cancel"
MATCH = "/v1/bank-notifications/{bank_notification_id}/match"
DISMISS = "/v1/bank-notifications/{bank_notification_id}/dismiss"
REOPEN = "/v1/bank-notifications/{bank_notification_id}/reopen"
SETTLE = "/v1/bank-messages/{bank_message_id}/settle"
REVERSE = "/v1/transactions/{transaction_id}/reverse"
PURCHASE = "/v1/domain-purchases"
COMPLETE = "/v1/domain-purchases/{domain_purchase_id}/complete"
RELEASE = "/v1/domain-purchases/{domain_purchase_id}/release"
CHANGES, DEBITS, RECEIVE = "/v1/balance-changes", "/v1/debits", "/v1/bank-notifications"
OPERATIONS = {
    CHANGES: ("balance_change", "deposit_transaction"),
    DEBITS: ("debit", "deposit_transaction"),
    RECEIVE: ("bank_notification_receive", "bank_notification"),
    MATCH: ("bank_notification_match", "bank_notification"),
    DISMISS: ("bank_notification_dismiss", "bank_notification"),
    REOPEN: ("bank_notification_reopen", "bank_notification"),
    SETTLE: ("bank_message_settle", "bank_message"),
    CONFIRM: ("deposit_confirm", "deposit_transaction"),
    CANCEL: ("deposit_cancel", "deposit_transaction"),
    PURCHASE: ("domain_purchase", "user_domains"),
    COMPLETE: ("domain_complete", "user_domains"),
    RELEASE: ("domain_release", "user_domains"),
    REVERSE: ("transaction_reverse", "deposit_transaction"),
}
"""Path template -> the name of the operation in the audit log, and what kind of thing it is about."""


@dataclass
class Refused:
    """A request that is refused: about whom and what, and with which members beside the code."""

    path: str
    body: dict[str, Any]
    telegram_id: str | None = None
    resource_id: int | None = None
    members: dict[str, Any] = field(default_factory=dict)


def _verb(template: str, identifier: int, body: dict[str, Any] | None = None, **about: Any) -> Refused:
    path = "/".join(str(identifier) if part.startswith("{") else part for part in template.split("/"))
    return Refused(path, body or {}, resource_id=identifier, **about)


def _debit(scene: Scene, telegram_id: str, **members: Any) -> Refused:
    body = {"telegram_id": telegram_id, "amount": 1501, "reason": "값", "reference": f"o-{scene.number()}"}
    return Refused(DEBITS, body, telegram_id, members=members)


def _short(balance: int, required: int) -> dict[str, Any]:
    return {"balance": balance, "required": required, "shortfall": required - balance}


def _too_much(amount: int) -> dict[str, Any]:
    return {"balance": BALANCE_MAX, "amount": amount, "limit": BALANCE_MAX}


def _change(
    scene: Scene, telegram_id: str, amount: int, members: dict[str, Any] | None = None, reference: str | None = None
) -> Refused:
    reference = reference or f"c-{scene.number()}"
    change = {"telegram_id": telegram_id, "amount": amount, "reason": "보너스", "reference": reference}
    return Refused(CHANGES, {"changes": [change]}, telegram_id, members=members or {})


def _used_reference(scene: Scene) -> Refused:
    reference, telegram_id = f"used-{scene.number()}", scene.user(10)
    transaction_id = scene.change(telegram_id, 5, reference)
    return _change(scene, scene.user(7), 3, {"transaction_id": transaction_id}, reference)


def _reused_bank_transaction(scene: Scene) -> Refused:
    body = scene.line_body()
    line_id = int(scene.made(RECEIVE, body)["id"])
    members = {"bank_notification_id": line_id, "differing_fields": ["depositor_name", "amount"]}
    return Refused(RECEIVE, {**body, "amount": 1001, "depositor_name": "x"}, None, line_id, members)


def _line_of_the_future(scene: Scene) -> Refused:
    """A time of Korea, written as one of UTC."""
    occurred_at = (scene.service.clock.now + timedelta(hours=9)).replace(tzinfo=None).isoformat() + "Z"
    return Refused(RECEIVE, {**scene.line_body(), "occurred_at": occurred_at}, None, None, {"ahead_s": 9 * 3600})


def _matched_line(scene: Scene) -> Refused:
    line_id, deposit_id = scene.matchable()
    scene.made(f"/v1/bank-notifications/{line_id}/match", {"deposit_id": deposit_id})
    members = {"current_status": "matched", "deposit_id": deposit_id}
    return _verb(MATCH, line_id, {"deposit_id": scene.deposit(), "note": "또"}, members=members)


def _closed_line(scene: Scene) -> Refused:
    members = {"current_status": "cancelled"}
    return _verb(MATCH, scene.taken_back(), {"deposit_id": scene.deposit(), "note": "또"}, members=members)


def _act_on_matched(scene: Scene, template: str, **body: Any) -> Refused:
    line_id, deposit_id = scene.matchable()
    scene.made(f"/v1/bank-notifications/{line_id}/match", {"deposit_id": deposit_id})
    return _verb(template, line_id, body, members={"current_status": "matched", "deposit_id": deposit_id})


def _credit_to_nobody(scene: Scene) -> Refused:
    telegram_id = str(900_000_000 + scene.number())
    return _verb(MATCH, scene.line(), {"telegram_id": telegram_id}, telegram_id=telegram_id)


def _bots_line_of_nothing(scene: Scene) -> Refused:
    """The bot took any amount."""
    with closing(sqlite.driver.connect(scene.service.path)) as connection, connection:
        made = connection.execute("INSERT INTO bank_notifications (amount) VALUES (0)").lastrowid
    telegram_id = scene.user()
    return _verb(MATCH, made, {"telegram_id": telegram_id}, telegram_id=telegram_id, members={"received": 0})


def _cancel_of_another(scene: Scene) -> Refused:
    telegram_id = scene.user()
    body = {"telegram_id": telegram_id, "cancel_deposit_id": scene.deposit()}
    return _verb(MATCH, scene.line(), body, telegram_id=telegram_id)


def _settled_message(scene: Scene) -> Refused:
    """Money that went waits for nobody."""
    message = scene.message(kind="출금")
    return _verb(SETTLE, message["id"], {"note": "n"}, members={"current_status": "kept"})


def _message_of_nothing(scene: Scene) -> Refused:
    waits = scene.message(name=f"박{scene.number()}")
    assert waits["status"] == "waiting"
    return _verb(SETTLE, waits["id"], {"note": "n", "bank_notification_id": UNKNOWN_ID})


def _message_of_another(scene: Scene) -> Refused:
    waits, line_id = scene.message(1001, f"박{scene.number()}"), scene.line()
    body, members = {"note": "n", "bank_notification_id": line_id}, {"bank_notification_id": line_id}
    return _verb(SETTLE, waits["id"], body, members=members)


def _matched_deposit(scene: Scene) -> Refused:
    telegram_id = scene.user()
    line_id, deposit_id = scene.line(), scene.deposit(telegram_id)
    scene.made(f"/v1/bank-notifications/{line_id}/match", {"deposit_id": deposit_id})
    body, members = {"deposit_id": deposit_id}, {"bank_notification_id": line_id}
    return _verb(MATCH, scene.line(), body, telegram_id=telegram_id, members=members)


def _other_amount(scene: Scene) -> Refused:
    telegram_id = scene.user()
    body = {"deposit_id": scene.deposit(telegram_id, 1000)}
    return _verb(MATCH, scene.line(2000), body, telegram_id=telegram_id, members={"amount": 1000, "received": 2000})


def _matched_with(scene: Scene, make: Callable[..., int], status: str) -> Refused:
    telegram_id = scene.user()
    deposit_id = make(telegram_id)
    body, members = {"deposit_id": deposit_id, "note": "n"}, {"current_status": status}
    return _verb(MATCH, scene.line(), body, telegram_id=telegram_id, members=members)


def _match_too_much(scene: Scene) -> Refused:
    telegram_id = scene.full_user()
    body = {"deposit_id": scene.deposit(telegram_id)}
    return _verb(MATCH, scene.line(), body, telegram_id=telegram_id, members=_too_much(1000))


def _deposit_in(scene: Scene, template: str, make: Callable[..., int], status: str, **body: Any) -> Refused:
    telegram_id = scene.user()
    members = {"current_status": status}
    return _verb(template, make(telegram_id), body, telegram_id=telegram_id, members=members)


def _confirm_too_much(scene: Scene) -> Refused:
    telegram_id = scene.full_user()
    return _verb(CONFIRM, scene.deposit(telegram_id), telegram_id=telegram_id, members=_too_much(1000))


def _buy(telegram_id: str, domain: str, **members: Any) -> Refused:
    body = {"telegram_id": telegram_id, "domain": domain, "price": 1501, "hold": True}
    return Refused(PURCHASE, body, telegram_id, members=members)


def _taken_domain(scene: Scene) -> Refused:
    domain = scene.domain()
    scene.purchase(scene.user(1000), domain=domain)
    return _buy(scene.user(2000), domain, current_status="pending")


def _settled(scene: Scene, template: str) -> Refused:
    telegram_id = scene.user(1000)
    purchase_id = int(scene.purchase(telegram_id)["id"])
    scene.made(f"/v1/domain-purchases/{purchase_id}/complete", {})
    about: dict[str, Any] = {"telegram_id": telegram_id, "members": {"current_status": "registered"}}
    return _verb(template, purchase_id, {"note": "n"}, **about)


def _paid_back_before(scene: Scene) -> Refused:
    telegram_id = scene.user(1000)
    purchase = scene.purchase(telegram_id)
    scene.service.reverse_as_before(purchase["transaction_id"])
    (back,) = scene.service.rows(
        "SELECT id FROM deposit_transactions WHERE reverses_id = ?", purchase["transaction_id"]
    )
    return _verb(COMPLETE, purchase["id"], telegram_id=telegram_id, members={"reversed_by_id": back[0]})


def _release_too_much(scene: Scene) -> Refused:
    telegram_id = scene.full_user()
    purchase_id = int(scene.purchase(telegram_id)["id"])
    scene.change(telegram_id, 1000)
    return _verb(RELEASE, purchase_id, telegram_id=telegram_id, members=_too_much(1000))


def _reversed(scene: Scene) -> Refused:
    telegram_id = scene.user()
    transaction_id = scene.confirmed(telegram_id)
    by = scene.made(f"/v1/transactions/{transaction_id}/reverse", {})["id"]
    members = {"current_status": "reversed", "reversed_by_id": by}
    return _verb(REVERSE, transaction_id, {"note": "n"}, telegram_id=telegram_id, members=members)


def _payment(scene: Scene, *, hold: bool) -> Refused:
    telegram_id = scene.user(1000)
    purchase = scene.purchase(telegram_id, hold=hold)
    members = {"domain_purchase_id": purchase["id"], "domain": purchase["domain"]}
    body = {"goodwill": hold}
    return _verb(REVERSE, purchase["transaction_id"], body, telegram_id=telegram_id, members=members)


def _refund(scene: Scene) -> Refused:
    telegram_id = scene.user(1000)
    purchase = scene.purchase(telegram_id)
    scene.made(f"/v1/domain-purchases/{purchase['id']}/release", {})
    (refund,) = scene.service.rows(
        "SELECT id FROM deposit_transactions WHERE reverses_id = ?", purchase["transaction_id"]
    )
    members = {"domain_purchase_id": purchase["id"], "domain": purchase["domain"], "current_status": "released"}
    return _verb(REVERSE, refund[0], telegram_id=telegram_id, members=members)


def _reverse_too_much(scene: Scene) -> Refused:
    telegram_id = scene.full_user()
    taken = scene.change(telegram_id, -1000)
    scene.change(telegram_id, 1000)
    return _verb(REVERSE, taken, telegram_id=telegram_id, members=_too_much(1000))


def _reverse_what_is_spent(scene: Scene) -> Refused:
    telegram_id = scene.user()
    transaction_id = scene.confirmed(telegram_id, 1000)
    scene.change(telegram_id, -400)
    return _verb(REVERSE, transaction_id, telegram_id=telegram_id, members=_short(600, 1000))


Code = ErrorCode
CASES: dict[tuple[str, ErrorCode], Callable[[Scene], Refused]] = {
    (CHANGES, Code.REFERENCE_USED): _used_reference,
    (CHANGES, Code.USER_NOT_FOUND): lambda s: _change(s, "9900000001", -5),
    (CHANGES, Code.BALANCE_LIMIT_EXCEEDED): lambda s: _change(s, s.full_user(), 5, _too_much(5)),
    (CHANGES, Code.INSUFFICIENT_FUNDS): lambda s: _change(s, s.user(1000), -1501, _short(1000, 1501)),
    (DEBITS, Code.USER_NOT_FOUND): lambda s: _debit(s, "9900000002"),
    (DEBITS, Code.INSUFFICIENT_FUNDS): lambda s: _debit(s, s.user(1000), **_short(1000, 1501)),
    (RECEIVE, Code.BANK_TRANSACTION_REUSED): _reused_bank_transaction,
    (RECEIVE, Code.OCCURRED_AHEAD): _line_of_the_future,
    (MATCH, Code.BANK_NOTIFICATION_NOT_FOUND): lambda s: _verb(MATCH, UNKNOWN_ID, {"deposit_id": s.deposit()}),
    (MATCH, Code.BANK_NOTIFICATION_MATCHED): _matched_line,
    (MATCH, Code.BANK_NOTIFICATION_CLOSED): _closed_line,
    (MATCH, Code.USER_NOT_FOUND): _credit_to_nobody,
    (MATCH, Code.DEPOSIT_OF_OTHER_USER): _cancel_of_another,
    (MATCH, Code.BANK_AMOUNT_UNCREDITABLE): _bots_line_of_nothing,
    (DISMISS, Code.BANK_NOTIFICATION_NOT_FOUND): lambda _: _verb(DISMISS, UNKNOWN_ID, {"note": "n"}),
    (DISMISS, Code.BANK_NOTIFICATION_MATCHED): lambda s: _act_on_matched(s, DISMISS, note="n"),
    (DISMISS, Code.BANK_NOTIFICATION_CLOSED): lambda s: _verb(
        DISMISS, s.dismissed(), {"note": "n"}, members={"current_status": "dismissed"}
    ),
    (REOPEN, Code.BANK_NOTIFICATION_NOT_FOUND): lambda _: _verb(REOPEN, UNKNOWN_ID, {}),
    (REOPEN, Code.BANK_NOTIFICATION_MATCHED): lambda s: _act_on_matched(s, REOPEN),
    (REOPEN, Code.BANK_NOTIFICATION_CLOSED): lambda s: _verb(
        REOPEN, s.taken_back(), {}, members={"current_status": "cancelled"}
    ),
    (REOPEN, Code.BANK_NOTIFICATION_OPEN): lambda s: _verb(
        REOPEN, s.line(), {}, members={"current_status": "unmatched"}
    ),
    (SETTLE, Code.BANK_MESSAGE_NOT_FOUND): lambda _: _verb(SETTLE, UNKNOWN_ID, {"note": "n"}),
    (SETTLE, Code.BANK_MESSAGE_SETTLED): _settled_message,
    (SETTLE, Code.BANK_NOTIFICATION_NOT_FOUND): _message_of_nothing,
    (SETTLE, Code.BANK_MESSAGE_UNFIT): _message_of_another,
    (MATCH, Code.DEPOSIT_NOT_FOUND): lambda s: _verb(MATCH, s.line(), {"deposit_id": UNKNOWN_ID, "late": True}),
    (MATCH, Code.DEPOSIT_MATCHED): _matched_deposit,
    (MATCH, Code.DEPOSIT_AMOUNT_DIFFERS): _other_amount,
    (MATCH, Code.DEPOSIT_EXPIRED): lambda s: _matched_with(s, s.expired, "expired"),
    (MATCH, Code.DEPOSIT_NOT_PENDING): lambda s: _matched_with(s, s.cancelled, "cancelled"),
    (MATCH, Code.BALANCE_LIMIT_EXCEEDED): _match_too_much,
    (CONFIRM, Code.DEPOSIT_NOT_FOUND): lambda _: _verb(CONFIRM, UNKNOWN_ID, {"late": True, "note": "n"}),
    (CONFIRM, Code.DEPOSIT_EXPIRED): lambda s: _deposit_in(s, CONFIRM, s.expired, "expired", note="n"),
    (CONFIRM, Code.DEPOSIT_NOT_PENDING): lambda s: _deposit_in(s, CONFIRM, s.confirmed, "confirmed", late=True),
    (CONFIRM, Code.BALANCE_LIMIT_EXCEEDED): _confirm_too_much,
    (CANCEL, Code.DEPOSIT_NOT_FOUND): lambda _: _verb(CANCEL, UNKNOWN_ID, {"note": "n"}),
    (CANCEL, Code.DEPOSIT_NOT_PENDING): lambda s: _deposit_in(s, CANCEL, s.expired, "expired", note="n"),
    (PURCHASE, Code.USER_NOT_FOUND): lambda s: _buy("9900000003", s.domain()),
    (PURCHASE, Code.DOMAIN_TAKEN): _taken_domain,
    (PURCHASE, Code.INSUFFICIENT_FUNDS): lambda s: _buy(s.user(1000), s.domain(), **_short(1000, 1501)),
    (COMPLETE, Code.DOMAIN_PURCHASE_NOT_FOUND): lambda _: _verb(COMPLETE, UNKNOWN_ID, {"note": "n"}),
    (COMPLETE, Code.DOMAIN_PURCHASE_NOT_PENDING): lambda s: _settled(s, COMPLETE),
    (COMPLETE, Code.PAYMENT_REVERSED): _paid_back_before,
    (RELEASE, Code.DOMAIN_PURCHASE_NOT_FOUND): lambda _: _verb(RELEASE, UNKNOWN_ID),
    (RELEASE, Code.DOMAIN_PURCHASE_NOT_PENDING): lambda s: _settled(s, RELEASE),
    (RELEASE, Code.BALANCE_LIMIT_EXCEEDED): _release_too_much,
    (REVERSE, Code.TRANSACTION_NOT_FOUND): lambda _: _verb(REVERSE, UNKNOWN_ID, {"goodwill": True, "note": "n"}),
    (REVERSE, Code.TRANSACTION_REVERSED): _reversed,
    (REVERSE, Code.TRANSACTION_NOT_CONFIRMED): lambda s: _deposit_in(s, REVERSE, s.deposit, "pending"),
    (REVERSE, Code.PAYMENT_HELD): lambda s: _payment(s, hold=True),
    (REVERSE, Code.PAYMENT_REGISTERED): lambda s: _payment(s, hold=False),
    (REVERSE, Code.REFUND_FINAL): _refund,
    (REVERSE, Code.BALANCE_LIMIT_EXCEEDED): _reverse_too_much,
    (REVERSE, Code.INSUFFICIENT_FUNDS): _reverse_what_is_spent,
}
COLUMNS = (
    *("id", "user_id", "telegram_id", "action", "outcome", "resource_type", "resource_id", "details", "ip_address"),
    *("user_agent", "created_at", "actor", "request_id", "key_prefix"),
)
ON_RECORD = {"audit_logs", "audit_leaves", "audit_nodes", "audit_tree", "idempotency_answers", "sqlite_sequence"}
"""The tables that a refusal is written to."""


def test_every_refusal_of_every_write_is_provoked_here() -> None:
    """The declared refusals of the routes are the cases, so that a new one needs its case."""
    declared = {(template, code) for template, codes in routes("POST").items() for code in codes}
    assert declared == CASES.keys()
    assert {template for template, _ in CASES} == OPERATIONS.keys()


def _rows(scene: Scene, after: int) -> list[dict[str, Any]]:
    found = scene.service.rows(f"SELECT {', '.join(COLUMNS)} FROM audit_logs WHERE id > ? ORDER BY id", after)
    return [dict(zip(COLUMNS, row, strict=True)) for row in found]


def _digest(scene: Scene, key: str) -> str:
    ((operation, request, status, location, body),) = scene.service.rows(
        "SELECT operation, request, status, location, body FROM idempotency_answers WHERE idempotency_key = ?", key
    )
    return sha256(f"{key}\n{operation}\n{request}\n{status}\n{location or ''}\n".encode() + body).hexdigest()


def _newest(scene: Scene) -> int:
    return int(scene.service.rows("SELECT MAX(id) FROM audit_logs")[0][0])


def _user_id(scene: Scene, telegram_id: str | None) -> int | None:
    found = scene.service.rows("SELECT id FROM users WHERE telegram_id = ?", telegram_id)
    return int(found[0][0]) if found else None


@pytest.mark.parametrize(("template", "code"), CASES, ids=str)
def test_a_refusal_moves_nothing_and_its_audit_row_is_whole(scene: Scene, template: str, code: ErrorCode) -> None:
    """Every column of the row is what it must be, the user's id too where there is such a user."""
    refused = CASES[template, code](scene)
    before, newest = scene.state(), _newest(scene)
    request_id = f"refused-{scene.number()}"
    body = json.dumps(refused.body)
    answer = scene.service.post(CALLERS[0], f"{request_id}-key", refused.path, body, request_id)
    problem = answer.json()
    members = {**refused.members, **({"index": 0} if template == CHANGES else {})}
    assert (answer.status, problem["code"]) == (CATALOGUE[code].status, code), answer
    assert answer.headers["content-type"] == PROBLEM
    assert {name: problem.get(name) for name in members} == members
    (row,) = _rows(scene, newest)
    asked = {name: value for name, value in refused.body.items() if isinstance(value, str | int)}
    details = {**asked, "code": code, **members, "answer_sha256": _digest(scene, f"{request_id}-key")}
    operation, resource_type = OPERATIONS[template]
    assert {**row, "details": json.loads(row["details"])} == {
        "id": newest + 1,
        "user_id": _user_id(scene, refused.telegram_id),
        "telegram_id": refused.telegram_id,
        "action": f"{operation}_failed",
        "outcome": "failure",
        "resource_type": resource_type,
        "resource_id": refused.resource_id,
        "details": details,
        "ip_address": "127.0.0.1",
        "user_agent": user_agent_of(request_id),
        "created_at": scene.service.clock.now.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds"),
        "actor": CALLERS[0],
        "request_id": request_id,
        "key_prefix": scene.service.key_prefix_of(CALLERS[0]),
    }
    after = scene.state()
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= ON_RECORD, f"the refusal {code} of {template} changed {changed - ON_RECORD}"
    again = scene.service.post(CALLERS[0], f"{request_id}-key", refused.path, body, f"{request_id}-again")
    assert (again.status, again.body, again.headers["idempotency-replayed"]) == (answer.status, answer.body, "true")
    assert again.headers["content-type"] == PROBLEM
    assert _newest(scene) == newest + 1, "a refusal that is asked for again is on record twice"


@pytest.mark.parametrize("code", [code for template, code in CASES if template == CHANGES])
def test_a_refused_change_beside_others_has_an_audit_row_of_its_own(scene: Scene, code: ErrorCode) -> None:
    """With "atomic": false: the refused one between two that are applied, each with its user's id."""
    refused = CASES[CHANGES, code](scene)
    first, last = scene.user(10), scene.user()
    newest = _newest(scene)
    (change,) = refused.body["changes"]
    around = [{**change, "telegram_id": one, "amount": 5, "reference": f"{scene.number()}"} for one in (first, last)]
    request_id = f"beside-{scene.number()}"
    body = json.dumps({"changes": [around[0], change, around[1]], "atomic": False})
    answer = scene.service.post(CALLERS[0], request_id, CHANGES, body, request_id)
    results = answer.json()["results"]
    assert [result["status"] for result in results] == ["applied", "refused", "applied"]
    rows = _rows(scene, newest)
    assert [row["id"] for row in rows] == [result["audit_log_id"] for result in results]
    assert [row["user_id"] for row in rows] == [_user_id(scene, one) for one in (first, change["telegram_id"], last)]
    row = rows[1]
    assert (results[1]["code"], row["action"], row["outcome"]) == (code, "balance_change_failed", "failure")
    assert (row["telegram_id"], row["resource_type"]) == (change["telegram_id"], "deposit_transaction")
    assert row["resource_id"] is None
    asked = {name: change[name] for name in ("amount", "reason", "reference")}
    assert json.loads(row["details"]) == {**asked, "code": code, **refused.members}


def test_whoever_is_named_and_there_is_known_by_id_in_every_row(scene: Scene) -> None:
    """After all of the above: no audit row names a user without the id, and none names the id of another one."""
    wrong = scene.service.rows(
        "SELECT a.id, a.action, a.user_id, u.id FROM audit_logs AS a JOIN users AS u ON u.telegram_id = a.telegram_id"
        " WHERE a.user_id IS NOT u.id"
    )
    assert wrong == []
    assert scene.service.rows("SELECT COUNT(*) FROM audit_logs WHERE user_id IS NOT NULL AND telegram_id IS NULL") == [
        (0,)
    ]
