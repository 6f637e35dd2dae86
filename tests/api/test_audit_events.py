"""POST /v1/audit-logs: what callers want on record, beside what the ledger itself writes."""

import ast
import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.ledger import audit_logs, reserved_names
from service.ledger.reserved_names import is_action_reserved, is_resource_reserved
from service.storage import importer
from tests.live import CHECKOUT, Client, LiveService, passbook
from tests.some import some
from tests.storage.broken import by_hand


@pytest.fixture(scope="module")
def bot(service: LiveService) -> Client:
    """The bot; user 1 is there."""
    service.client().credit("1", 5000)
    return service.client(service.make_key("--name", "bot-1", "--role", "bot"))


def test_an_event_is_a_row_with_who_and_where(service: LiveService, bot: Client) -> None:
    """201 with the row, where it can be read again, and the same bytes for the same key."""
    body = {"action": "menu_opened", "telegram_id": "1", "resource_type": "menu", "resource_id": 3}
    details = {"language": "한국어", "nested": {"list": [1, 2.5, None, True]}, "empty": {}}
    answer = bot.write("/v1/audit-logs", {**body, "details": details}, key="event-1")
    assert answer.status_code == 201, answer.text
    row = answer.json()
    assert {name: row[name] for name in body} == body
    assert (row["details"], row["outcome"], row["actor"]) == (details, "success", "bot-1")
    assert (row["ip_address"], row["key_prefix"][:4]) == ("127.0.0.1", "pbk_")
    assert service.client().get(answer.headers["Location"]).json() == row
    again = bot.write("/v1/audit-logs", {**body, "details": details}, key="event-1")
    assert (again.content, again.headers["Idempotency-Replayed"]) == (answer.content, "true")
    other = bot.write("/v1/audit-logs", body, key="event-1")
    assert (other.status_code, other.json()["differing_fields"]) == (409, ["details"])


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"action": "login"}, ("login", "success")),
        ({"action": "login", "outcome": "success"}, ("login", "success")),
        ({"action": "login", "outcome": None}, ("login", "success")),
        ({"action": "login", "outcome": "failure"}, ("login_failed", "failure")),
        ({"action": "login_failed"}, ("login_failed", "failure")),
        ({"action": "login_failed", "outcome": "failure"}, ("login_failed", "failure")),
    ],
)
def test_a_failure_is_an_action_that_ends_with_failed(bot: Client, sent: dict[str, Any], kept: tuple[str, str]) -> None:
    """Whichever way it was told, so that the guide's query for suspicious activity counts it."""
    row = bot.write("/v1/audit-logs", sent).json()
    assert (row["action"], row["outcome"]) == kept


def test_posted_failures_are_suspicious_too(service: LiveService, bot: Client) -> None:
    """Six failed logins of one user, who need not be in the ledger."""
    for _ in range(6):
        bot.write("/v1/audit-logs", {"action": "sign_in", "outcome": "failure", "telegram_id": "31337"})
    items = service.client().get("/v1/audit-logs/suspicious?threshold=5").json()["items"]
    assert [(item["telegram_id"], item["action"], item["attempts"]) for item in items] == [
        ("31337", "sign_in_failed", 6)
    ]
    rows = service.client().get("/v1/audit-logs?telegram_id=31337").json()["items"]
    assert len(rows) == 6
    assert service.client().get("/v1/users/31337").status_code == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/action"),
        ({"action": "Login"}, "#/action"),
        ({"action": "5login"}, "#/action"),
        ({"action": "a" * 58}, "#/action"),
        ({"action": "deposit_confirmed"}, "#/action"),
        ({"action": "deposit_confirmed_failed"}, "#/action"),
        ({"action": "debit", "outcome": "failure"}, "#/action"),
        ({"action": "user_logged_in"}, "#/action"),
        ({"action": "migration_done"}, "#/action"),
        ({"action": "deposits"}, "#/action"),
        ({"action": "login", "resource_type": "users"}, "#/resource_type"),
        ({"action": "login", "details": {"a": 1e20}}, "#/details"),
        ({"action": "login", "resource_type": "deposit_transaction"}, "#/resource_type"),
        ({"action": "login", "resource_type": "user_domains", "resource_id": 1}, "#/resource_type"),
        ({"action": "login", "resource_id": 0}, "#/resource_id"),
        ({"action": "login", "telegram_id": 5}, "#/telegram_id"),
        ({"action": "login", "telegram_id": "x"}, "#/telegram_id"),
        ({"action": "login", "outcome": "maybe"}, "#/outcome"),
        ({"action": "login_failed", "outcome": "success"}, "#/outcome"),
        ({"action": "login", "details": []}, "#/details"),
        ({"action": "login", "details": "text"}, "#/details"),
        ({"action": "login", "details": {"a": "x" * 8192}}, "#/details"),
        ({"action": "login", "details": {"a": 2**53}}, "#/details"),
        ({"action": "login", "details": {"a": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}}, "#/details"),
        ({"action": "login", "actor": "ops"}, "#/actor"),
        ({"action": "login", "created_at": "2026-01-01T00:00:00Z"}, "#/created_at"),
    ],
    ids=str,
)
def test_what_cannot_be_taken_is_named_and_leaves_no_row(
    service: LiveService, bot: Client, body: dict[str, Any], pointer: str
) -> None:
    """400 with the member; the ledger's own names are not for callers."""
    before = service.client().get("/v1/audit-logs?limit=1").json()["items"]
    answer = bot.write("/v1/audit-logs", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert service.client().get("/v1/audit-logs?limit=1").json()["items"] == before


def test_details_up_to_the_limits_are_taken(bot: Client) -> None:
    """8,192 bytes and 16 levels."""
    value: Any = 1
    for _ in range(15):
        value = [value]
    for details in ({"a": "x" * (8192 - 8)}, {"a": value}, {}, {"a": 2**53 - 1, "b": -(2**53) + 1}):
        answer = bot.write("/v1/audit-logs", {"action": "login", "details": details})
        assert (answer.status_code, answer.json().get("details")) == (201, details)


def actions_of_the_program() -> Iterator[str]:
    """Every action that the service or a migration writes, found in their text; and every operation's refusal."""
    for path in (CHECKOUT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            if getattr(node.func, "attr", "") == "audit" and node.args:
                yield from (found.value for found in ast.walk(node.args[0]) if isinstance(found, ast.Constant))
            if getattr(node.func, "id", "") == "Operation":
                yield f"{ast.literal_eval(node.args[0])}_failed"
    for path in [*(CHECKOUT / "migrations").glob("*.sql"), CHECKOUT / "service" / "storage" / "importer.py"]:
        yield from re.findall(r"INSERT INTO audit_logs[^;]*?'([a-z_]+)'", path.read_text("utf-8"))


def test_every_action_of_the_program_is_reserved() -> None:
    """One that callers could post would be taken for a change of the ledger."""
    found = set(actions_of_the_program())
    assert len(found) > 30
    assert {"deposit_confirmed", "debit_failed", "migration_amount_made_positive", "import_value_mended"} <= found
    assert {action for action in found if not is_action_reserved(action)} == set()
    ledgers = {
        *importer._RESOURCE_TYPES.values(),
        audit_logs.API_KEY,
        audit_logs.BANK_NOTIFICATION,
        audit_logs.BANK_MESSAGE,
    }
    assert ledgers | {"import_archive"} == audit_logs.LEDGER_RESOURCE_TYPES


LOOK_ALIKES = (
    *("deposits", "deposit_s", "users_merged", "debits", "debits_failed", "domains", "balances", "balances_fixed"),
    *("transactions", "audits_done", "imports", "imported_rows", "migrations", "migrated", "openings", "credits_given"),
    *("api_keys", "apikey_created", "apikeys_created", "apis_keys", "bank_notifications", "banknotification_matched"),
    *("user2_created", "deposit2", "deposit__confirmed", "depositconfirmed", "userscreated", "balancedebited"),
    *("debited", "deposited_twice", "balancing", "auditing", "credited", "ledger_closed", "passbook_started"),
    *("balancechange", "balancechange_failed", "openingcredit", "passbookaudit", "auditlog_read", "domainpurchase"),
)
OTHERS = (
    "use",
    "used_up",
    "login",
    "menu_opened",
    "opened",
    "important",
    "domestic",
    "key_shown",
    "bank_chosen",
    "audio",
)


def test_what_looks_like_the_ledgers_own_is_reserved() -> None:
    """In the plural, in another form, with digits, without underscores; words that only begin alike are not."""
    assert [name for name in LOOK_ALIKES if not is_action_reserved(name)] == []
    assert [name for name in OTHERS if is_action_reserved(name)] == []
    alike = ("deposit_transactions", "users", "user_domain", "userdomains", "audit_logs", "apikeys", "transactions")
    assert [name for name in alike if not is_resource_reserved(name)] == []
    assert [name for name in ("menu", "order", "user_session", "domain_search") if is_resource_reserved(name)] == []
    for kind in some(audit_logs.LEDGER_RESOURCE_TYPES):
        assert is_resource_reserved(kind)


def test_the_page_and_the_contract_name_what_is_reserved() -> None:
    """Both are made from the lists that are asked."""
    page = " ".join((CHECKOUT / "docs" / "audit-log.md").read_text("utf-8").split())
    contract = (CHECKOUT / "openapi" / "openapi.json").read_text("utf-8")
    for names in (reserved_names.ACTIONS_BEGIN, reserved_names.RESOURCES):
        assert reserved_names.words(names) in page
        assert reserved_names.words(names) in contract


def test_an_event_that_was_taken_before_its_name_was_reserved_keeps_its_answer(tmp_path: Path) -> None:
    """Asked again, the same bytes; with another body the key is told to be used; a new one is refused, by the name."""
    service = LiveService(tmp_path / "passbook.db").start()
    bot = service.client(service.make_key("--name", "bot-2", "--role", "bot"))
    key = bot.headers["Authorization"].removeprefix("Bearer ")
    body = {"action": "login", "details": {"a": 1}}
    assert bot.write("/v1/audit-logs", body, key="before").status_code == 201
    assert service.stop() == 0
    by_hand(
        service.database,
        "UPDATE idempotency_answers SET request = replace(request, 'login', 'deposits'),"
        " body = CAST(replace(CAST(body AS TEXT), 'login', 'deposits') AS BLOB)",
    )
    bot = service.start().client(key)
    again = bot.write("/v1/audit-logs", {**body, "action": "deposits"}, key="before")
    assert (again.status_code, again.json()["action"]) == (201, "deposits")
    assert again.headers["Idempotency-Replayed"] == "true"
    other = bot.write("/v1/audit-logs", {"action": "deposits"}, key="before")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert bot.write("/v1/audit-logs", {"action": "deposits"}).status_code == 400
    assert service.stop() == 0


def test_events_do_not_upset_the_proof(service: LiveService) -> None:
    """The ledger adds up beside whatever callers have posted."""
    proved = passbook("integrity", "--database", str(service.database))
    assert proved.returncode == 0, proved.stdout + proved.stderr


def test_an_event_is_kept_as_its_caller_told_it(service: LiveService, bot: Client) -> None:
    """Its details get no digest of the answer, as rows of the ledger do, nor anything else; the row of a debit does."""
    digest = "ab" * 32
    told: list[dict[str, Any] | None] = [
        None,
        {},
        {"a": 1},
        {"answer_sha256": "mine"},
        {"answer_sha256": digest},
        {"a": 1, "answer_sha256": digest},
        {"answer_sha256": digest, "a": 1},
        {"answer_sha256": None},
    ]
    for details in told:
        for about in ({}, {"resource_type": "menu", "resource_id": 3}, {"telegram_id": "1"}):
            body = {"action": "menu_opened", **about, **({} if details is None else {"details": details})}
            answer = bot.write("/v1/audit-logs", body)
            assert answer.status_code == 201, answer.text
            ((kept,),) = rows_of(service, "SELECT details FROM audit_logs WHERE id = ?", answer.json()["id"])
            assert (kept and json.loads(kept)) == details, "the row has something else than the caller told"
            assert answer.json()["details"] == details, "the answer shows something else"
            assert service.client().get(answer.headers["Location"]).json() == answer.json()
    debit = service.client().write("/v1/debits", {"telegram_id": "1", "amount": 1, "reason": "x"})
    assert debit.status_code == 201, debit.text
    ((kept,),) = rows_of(service, "SELECT details FROM audit_logs WHERE id = ?", debit.json()["audit_log_id"])
    assert len(json.loads(kept)["answer_sha256"]) == len(digest)
    proved = passbook("integrity", "--quick", "--database", str(service.database))
    assert proved.returncode == 0, proved.stdout + proved.stderr


def rows_of(service: LiveService, sql: str, *values: object) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(service.database)) as connection:
        return connection.execute(sql, values).fetchall()
