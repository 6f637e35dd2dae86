"""Probes and the docs page."""

import re

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


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_docs_page_refers_to_no_other_host(service: LiveService, path: str) -> None:
    """The page works without internet: each script and style sheet comes from here, and is there."""
    client = service.client("")
    page = client.get(path, headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    outside_the_document = page.text.partition("spec: ")[0] + page.text.rpartition("dom_id")[2]
    assert not re.search(r"(https?:)?//[a-z]", outside_the_document)
    assets = re.findall(r"(?:src|href)=['\"](/[^'\"]+)", page.text)
    assert len(assets) == 3
    for asset in assets:
        answer = client.get(asset, headers={"Accept": "text/css,*/*;q=0.1"})
        assert answer.status_code == 200
        assert len(answer.content) > 10_000
        assert re.match(r"text/(javascript|css)", answer.headers["Content-Type"])
        assert not re.search(rb"@import|url\(['\"]?https?:", answer.content[:10_000])


@pytest.mark.parametrize("name", ["x", "docs.py", "..%2Fdocs.py", "LICENSE-swagger-ui", "%00", "."])
def test_no_other_file_is_served(service: LiveService, name: str) -> None:
    """Only the three files of the page."""
    assert service.client("").get(f"/docs/assets/{name}").status_code == 404


def test_the_contract_is_served_as_it_is_checked_in(service: LiveService) -> None:
    """openapi.json needs no key and holds the routes."""
    document = service.client("").get("/openapi.json")
    assert document.headers["Content-Type"].startswith("application/json")
    assert document.json()["openapi"].startswith("3.1")
    assert "/v1/deposits" in document.json()["paths"]
