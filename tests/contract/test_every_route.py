"""Every route with every kind of key that must not pass. The list comes from the application, not from this file."""

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import post
from litestar.routes import HTTPRoute

from service.app import create_app
from service.config import Config
from service.ledger.access import RANDOM_BYTES, ROLES, Scope, make_key
from service.ledger.timestamps import stored, system_clock
from service.repository import api_keys
from service.storage import sqlite
from tests.contents import contents
from tests.live import Client, LiveService, passbook
from tests.some import some

OPEN = {"/", "/docs", "/docs/assets/{name}", "/openapi.json", "/livez", "/readyz", "/metrics"}
CONTRACT = {
    "POST /v1/users": "users:write",
    "GET /v1/users/{telegram_id}": "balance:read",
    "GET /v1/users/{telegram_id}/balance": "balance:read",
    "GET /v1/users/{telegram_id}/balance/explain": "balance:read",
    "GET /v1/users/{telegram_id}/transactions": "balance:read",
    "POST /v1/deposits": "deposits:announce",
    "GET /v1/deposits": "balance:read",
    "GET /v1/deposits/{deposit_id}": "balance:read",
    "POST /v1/deposits/{deposit_id}/confirm": "deposits:confirm",
    "POST /v1/deposits/{deposit_id}/cancel": "deposits:announce",
    "GET /v1/transactions/{transaction_id}": "balance:read",
    "POST /v1/transactions/{transaction_id}/reverse": "transactions:reverse",
    "POST /v1/bank-notifications": "bank:notify",
    "GET /v1/bank-notifications": "deposits:confirm",
    "GET /v1/bank-notifications/{bank_notification_id}": "deposits:confirm",
    "POST /v1/bank-notifications/{bank_notification_id}/match": "deposits:confirm",
    "POST /v1/bank-notifications/{bank_notification_id}/dismiss": "deposits:confirm",
    "POST /v1/bank-notifications/{bank_notification_id}/reopen": "deposits:confirm",
    "GET /v1/bank-messages": "deposits:confirm",
    "GET /v1/bank-messages/{bank_message_id}": "deposits:confirm",
    "POST /v1/bank-messages/{bank_message_id}/settle": "deposits:confirm",
    "GET /v1/learned-names": "deposits:confirm",
    "DELETE /v1/learned-names/{learned_name_id}": "deposits:confirm",
    "POST /v1/debits": "balance:change",
    "POST /v1/balance-changes": "balance:change",
    "POST /v1/domain-purchases": "domains:purchase",
    "GET /v1/domain-purchases": "domains:purchase",
    "GET /v1/domain-purchases/{domain_purchase_id}": "domains:purchase",
    "POST /v1/domain-purchases/{domain_purchase_id}/complete": "domains:purchase",
    "POST /v1/domain-purchases/{domain_purchase_id}/release": "domains:purchase",
    "GET /v1/audit-logs": "audit:read",
    "POST /v1/audit-logs": "audit:write",
    "GET /v1/audit-logs/{audit_log_id}": "audit:read",
    "GET /v1/audit-logs/suspicious": "audit:read",
    "GET /v1/audit-logs/checkpoint": "audit:read",
    "GET /v1/audit-logs/{audit_log_id}/proof": "audit:read",
    "GET /v1/audit-logs/consistency": "audit:read",
    "GET /v1/integrity": "audit:read",
}
"""The scope of each route as the contract promises it. A route that is not here has no business to be there."""
ROLES_PROMISED = {
    "bot": "users:write deposits:announce balance:read domains:purchase audit:write",
    "service": "users:write balance:read balance:change bank:notify deposits:confirm audit:write",
    "ops": "balance:read deposits:confirm transactions:reverse audit:read",
}


@dataclass(frozen=True)
class Route:
    """One method of one path; `scope` is None for an open one, "" for one that declares nothing."""

    method: str
    path: str
    scope: str | None

    @property
    def target(self) -> str:
        return re.sub(r"\{[^}]+\}", "1", self.path)


def _routes() -> Iterator[Route]:
    for route in some(create_app(Config()).routes):
        assert isinstance(route, HTTPRoute), f"{route.path} is no HTTP route"
        for method, (handler, _) in route.route_handler_map.items():
            if method != "OPTIONS":
                opened = handler.opt.get("open") is True
                yield Route(method, route.path_format, None if opened else str(handler.opt.get("scope", "")))


# Sorted: the application has them in an order that differs from process to process.
ROUTES = sorted(_routes(), key=lambda route: (route.path, route.method))
GUARDED = [route for route in ROUTES if route.scope is not None]


@pytest.fixture(scope="module")
def callers(service: LiveService) -> dict[str, Client]:
    """A caller of each kind: "no <scope>" has all scopes but that one; a role's name has the role's; "" has no key."""
    scopes = {f"no {scope}": frozenset(Scope) - {scope} for scope in Scope} | ROLES | {"revoked": ROLES["admin"]}
    keys = _make_keys(service, scopes)
    keys["unknown"] = make_key(os.urandom(RANDOM_BYTES))
    keys["malformed"] = keys["admin"][:-1] + ("0" if keys["admin"][-1] != "0" else "1")
    keys[""] = ""
    prefix = keys["revoked"].rpartition("_")[0]
    assert passbook("keys", "revoke", prefix, "--database", str(service.database)).returncode == 0
    service.client().credit("1", 1000)
    return {name: service.client(key) for name, key in keys.items()}


def _make_keys(service: LiveService, scopes: dict[str, frozenset[Scope]]) -> dict[str, str]:
    """What `passbook keys create` does, without a process for each of many keys."""
    connection = sqlite.connect_writer(service.database, busy_timeout_ms=5000, checkpoints=False)
    now = stored(system_clock())
    with contextlib.closing(connection):
        return {
            name: api_keys.create(
                connection, name=name, scopes=held, actor="test", now=now, random_bytes=os.urandom(RANDOM_BYTES)
            )
            for name, held in scopes.items()
        }


def _ask(client: Client, route: Route) -> httpx.Response:
    """A request that would be answered in full, or refused for its body, if the key did not matter."""
    return client.write(route.target, b"[]") if route.method == "POST" else client.request(route.method, route.target)


def test_the_open_routes_are_those_of_the_contract() -> None:
    """The pages and probes that the contract lists are there and open, no other is, and none of them writes."""
    opened = [route for route in ROUTES if route.scope is None]
    assert {route.path for route in opened} == OPEN
    assert {route.method for route in opened} == {"GET"}


def test_every_guarded_route_has_the_scope_of_the_contract() -> None:
    """Every promised route is there, no other is, and each declares the scope that callers were promised."""
    assert {f"{route.method} {route.path}": route.scope for route in GUARDED} == CONTRACT


def test_roles_are_those_of_the_contract() -> None:
    """A role's scopes neither grow nor shrink unnoticed; admin has all."""
    promised = {role: frozenset(Scope(scope) for scope in scopes.split()) for role, scopes in ROLES_PROMISED.items()}
    assert promised | {"admin": frozenset(Scope)} == ROLES
    assert Scope.DEPOSITS_CONFIRM not in ROLES["bot"]


def _secret(caller: Client) -> str:
    """What nobody but the caller may know of its key; no answer has a space of three for those without one."""
    return caller.headers.get("Authorization", "").rpartition("_")[2] or "   "


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: f"{route.method} {route.path}")
def test_no_key_that_must_not_pass_passes(service: LiveService, callers: dict[str, Client], route: Route) -> None:
    """401 with a challenge without a live key, 403 with the scope's name without the scope; nothing is changed."""
    before = contents(service.database)
    for kind, code in (
        ("", "api_key_required"),
        ("malformed", "api_key_unknown"),
        ("unknown", "api_key_unknown"),
        ("revoked", "api_key_revoked"),
    ):
        answer = _ask(callers[kind], route)
        assert (answer.status_code, answer.json()["code"]) == (401, code), kind
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="passbook"')
        assert ('error="invalid_token"' in answer.headers["WWW-Authenticate"]) == (code != "api_key_required")
        assert _secret(callers[kind]) not in answer.text, f"the answer to a key that is {kind} shows it"
    lacking = _ask(callers[f"no {route.scope}"], route)
    assert lacking.status_code == 403
    assert _secret(callers[f"no {route.scope}"]) not in lacking.text
    problem = lacking.json()
    assert (problem["code"], problem["required_scope"]) == ("scope_missing", route.scope)
    assert contents(service.database) == before


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: f"{route.method} {route.path}")
def test_a_role_reaches_its_routes_and_no_other(callers: dict[str, Client], route: Route) -> None:
    """Of the four roles exactly those with the route's scope get beyond the guard, and the route answers them."""
    statuses = {role: _ask(callers[role], route).status_code for role in ROLES}
    assert not {role: status for role, status in statuses.items() if status >= 500}
    passed = {role for role, status in statuses.items() if status not in {401, 403}}
    assert passed == {role for role, scopes in ROLES.items() if route.scope in scopes}


def test_the_bot_cannot_confirm_its_own_deposit(callers: dict[str, Client]) -> None:
    """Whoever has the bot's key can announce money, and cannot make it."""
    bot = callers["bot"]
    deposit = bot.write("/v1/deposits", {"telegram_id": "2", "amount": 5, "depositor_name": "홍길동"}).json()
    refused = bot.write(f"/v1/deposits/{deposit['id']}/confirm", {})
    assert (refused.status_code, refused.json()["required_scope"]) == (403, "deposits:confirm")
    assert bot.get("/v1/users/2/balance").json()["balance"] == 0


def test_a_key_revoked_now_is_refused_with_the_next_request(service: LiveService) -> None:
    """Nothing remembers that a key was live."""
    key = service.make_key("--role", "ops")
    client = service.client(key)
    assert client.get("/v1/deposits").status_code == 200
    revoked = passbook("keys", "revoke", key.rpartition("_")[0], "--database", str(service.database))
    assert revoked.returncode == 0, revoked.stderr
    assert client.get("/v1/deposits").json()["code"] == "api_key_revoked"


def test_a_route_that_declares_no_scope_is_denied_to_everyone(own_service: LiveService, tmp_path: Path) -> None:
    """A handler whose author forgot `opt` answers 401 without a key and 403 to the admin; it never runs."""
    own_service.start().stop()
    ran = []

    @post("/v1/forgotten", include_in_schema=False)
    async def forgotten() -> dict[str, Any]:
        ran.append(True)
        return {}

    async def ask() -> list[httpx.Response]:
        app = create_app(Config(database=str(own_service.database)), extra_routes=[forgotten])
        async with app.lifespan(), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            admin = {"Authorization": f"Bearer {own_service.admin_key}"}
            return [await client.post("/v1/forgotten"), await client.post("/v1/forgotten", headers=admin)]

    without, with_all = asyncio.run(ask())
    assert (without.status_code, with_all.status_code) == (401, 403)
    assert with_all.json()["code"] == "scope_missing"
    assert not ran
