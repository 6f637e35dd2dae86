"""Probes and the contract."""

import pytest

from tests.live import LiveService


def test_livez_and_readyz_need_no_key(service: LiveService) -> None:
    """Alive says ok; ready says what it runs on."""
    client = service.client("")
    assert client.get("/livez").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    assert (ready["status"], ready["queue_depth"]) == ("ok", 0)
    assert (ready["sqlite"]["journal_mode"], ready["sqlite"]["synchronous"]) == ("wal", "FULL")
    assert ready["schema_version"] >= 5


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_head_has_the_headers_of_get_and_no_body(service: LiveService, path: str) -> None:
    """RFC 9110 §9.3.2."""
    client = service.client("")
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("Content-Type", "Content-Length"):
        assert head.headers[name] == got.headers[name]


def test_the_contract_is_served_as_it_is_checked_in(service: LiveService) -> None:
    """openapi.json needs no key and holds the routes."""
    document = service.client("").get("/openapi.json")
    assert document.headers["Content-Type"].startswith("application/json")
    assert document.json()["openapi"].startswith("3.1")
    assert "/v1/deposits" in document.json()["paths"]
