"""HEAD on every path that has GET. The list comes from the application, not from this file."""

import time

import pytest
from litestar.routes import HTTPRoute

from service.app import create_app
from service.config import Config
from tests.api import wire
from tests.contract.test_media_types import QUERIES
from tests.live import Client, LiveService

PATHS = sorted(
    route.path_format
    for route in create_app(Config()).routes
    if isinstance(route, HTTPRoute) and "GET" in route.route_handler_map
)
OPEN = {"/", "/docs", "/docs/assets/{name}", "/openapi.json", "/livez", "/readyz", "/metrics"}
OF_NO_KNOWN_LENGTH = {"/v1/integrity"}
"""A proof may be waited for; HEAD does not begin one."""
OF_THE_MOMENT = {"/metrics", "/v1/users/{telegram_id}/balance/explain", "/v1/audit-logs/checkpoint"}
"""The length of the body may be another in the next millisecond."""


@pytest.fixture(scope="module")
def client(service: LiveService) -> Client:
    """A caller who may read everything; what the paths name with 1 is there."""
    client = service.client()
    client.credit("1", 1000)
    line = {"bank_transaction_id": "1", "depositor_name": "홍길동", "amount": 1, "occurred_at": "2026-01-01T00:00:00Z"}
    assert client.write("/v1/bank-notifications", line).status_code == 201
    assert client.write("/v1/bank-notifications", {"raw_message": "x"}).json()["id"] == 1
    assert client.write("/v1/domain-purchases", {"telegram_id": "1", "domain": "head.kr", "price": 1}).json()["id"] == 1
    return client


def _target(path: str) -> str:
    filled = path.replace("{name}", "docs.js")
    filled = "/".join("1" if step.startswith("{") else step for step in filled.split("/"))
    return filled + QUERIES.get(path, "")


@pytest.mark.parametrize("path", PATHS)
def test_head_has_the_headers_of_get_and_no_body(service: LiveService, client: Client, path: str) -> None:
    """Status and headers, with Content-Length where it is known; what follows on the connection is understood."""
    target = _target(path)
    got = wire.request(service, "GET", target)
    head = wire.request(service, "HEAD", target)
    assert (head.status, head.body) == (got.status, b"") == (200, b"")
    varying = {"date", "x-request-id"} | ({"content-length"} if path in OF_NO_KNOWN_LENGTH | OF_THE_MOMENT else set())
    assert {k: v for k, v in head.headers.items() if k not in varying} == {
        k: v for k, v in got.headers.items() if k not in varying
    }
    assert ("content-length" in head.headers) == (path not in OF_NO_KNOWN_LENGTH)
    assert client.head(target).status_code == client.get(target).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_allow_lists_head_beside_get(service: LiveService, path: str) -> None:
    """In the answer to OPTIONS and in that to a method that the path has not."""
    options = wire.request(service, "OPTIONS", _target(path))
    refused = wire.request(service, "PATCH", _target(path))
    assert (options.status, refused.status) == (204, 405)
    for answer in (options, refused):
        allowed = answer.headers["allow"].split(", ")
        assert allowed == sorted(allowed)
        assert {"GET", "HEAD", "OPTIONS"} <= set(allowed)


@pytest.mark.parametrize("path", [path for path in PATHS if path not in OPEN])
def test_head_is_refused_like_get(service: LiveService, client: Client, path: str) -> None:
    """The same status without a key, for a parameter that is none and a media type that is none; never a body."""
    for headers, query in (([], "?nonsense=1"), (["Accept: image/png"], QUERIES.get(path, ""))):
        target = _target(path).partition("?")[0] + query
        got = wire.request(service, "GET", target, headers=headers)
        head = wire.request(service, "HEAD", target, headers=headers)
        assert (head.status, head.body) == (got.status, b"")
        assert head.status in {400, 406}
        assert int(head.headers["content-length"]) > 100
    assert wire.request(service, "HEAD", _target(path), without=("Authorization",)).status == 401
    poor = service.make_key("--scope", "users:write", "--name", f"poor {path}")
    assert service.client(poor).head(_target(path)).status_code == 403
    assert client.head(_target(path)).status_code == 200


@pytest.mark.parametrize(
    ("query", "accept"),
    [
        ("?follow=999&wait=60", "application/json"),
        ("?follow=0&wait=60", "application/json"),
        ("", "text/csv"),
        ("", "application/x-ndjson"),
    ],
)
def test_head_of_what_is_waited_for_or_streamed_answers_at_once(
    service: LiveService, client: Client, query: str, accept: str
) -> None:
    """Neither a row is waited for nor the log is read: the head alone, of the media type that was asked for."""
    began = time.monotonic()
    for _ in range(6):  # more than there may be exports at once
        answer = client.head(f"/v1/audit-logs{query}", headers={"Accept": accept})
        assert (answer.status_code, answer.headers["Content-Type"].partition(";")[0]) == (200, accept)
        assert "Content-Length" not in answer.headers
    assert time.monotonic() - began < 20
    wrong = client.head("/v1/audit-logs?follow=0&order=newest")
    assert wrong.status_code == 400


def test_head_is_counted_as_head_on_its_route(service: LiveService, client: Client) -> None:
    """Metrics tell HEAD from GET and name the route."""
    client.head("/v1/users/1/balance")
    text = client.get("/metrics").text
    assert (
        'http_request_method="HEAD",http_route="/v1/users/{telegram_id}/balance",http_response_status_code="200"'
        in text
    )


def test_a_path_without_get_has_no_head(service: LiveService) -> None:
    """405, and Allow does not list it."""
    answer = wire.request(service, "HEAD", "/v1/debits")
    assert (answer.status, answer.headers["allow"], answer.body) == (405, "OPTIONS, POST", b"")
