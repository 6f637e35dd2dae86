"""Accept, on every route that says what it produces. The list comes from the application, not from this file."""

import pytest
from litestar.routes import HTTPRoute

from service.api.auth import check_handlers, needs, opened
from service.app import create_app
from service.config import Config
from service.ledger.access import Scope
from tests.live import Client, LiveService
from tests.some import some

QUERIES = {"/v1/audit-logs/consistency": "?from=1"}


def _produced() -> dict[str, tuple[str, ...]]:
    """The media types of every path that is read and says what it produces."""
    return {
        route.path_format: handler.opt.get("produces", ("application/json",))
        for route in create_app(Config()).routes
        if isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items()
        if method == "GET" and handler.opt.get("produces", "") is not None
    }


PRODUCED = _produced()


@pytest.fixture(scope="module")
def client(service: LiveService) -> Client:
    """A caller who may read everything; what the paths name with 1 is there."""
    client = service.client()
    client.credit("1", 1000)
    line = {"bank_transaction_id": "1", "depositor_name": "홍길동", "amount": 1, "occurred_at": "2026-01-01T00:00:00Z"}
    assert client.write("/v1/bank-notifications", line).status_code == 201
    assert client.write("/v1/bank-notifications", {"raw_message": "?"}).status_code == 202
    bought = client.write("/v1/domain-purchases", {"telegram_id": "1", "domain": "head.kr", "price": 1})
    assert bought.json()["id"] == 1
    return client


def _target(path: str) -> str:
    filled = "/".join("1" if step.startswith("{") else step for step in path.split("/"))
    return filled + QUERIES.get(path, "")


@pytest.mark.parametrize("path", sorted(PRODUCED))
def test_a_path_answers_what_it_says_it_produces_and_nothing_else(client: Client, path: str) -> None:
    """Each of its media types by name, with a quality and by wildcard; any other is 406 that names those in words.

    Elements of the list that are empty, or that name no media range, count as if they were not there.
    """
    produced, target = PRODUCED[path], _target(path)
    for media_type in some(produced):
        kind = media_type.partition("/")[0]
        others = "".join(f", {other};q=0.5" for other in produced if other != media_type)
        for accept in (media_type, f"image/png, {media_type};q=0.9{others}", f"{media_type.upper()}, */*;q=0.1"):
            answer = client.get(target, headers={"Accept": accept})
            assert answer.status_code == 200, (accept, answer.text)
            assert answer.headers["Content-Type"].partition(";")[0] == media_type, accept
        assert client.get(target, headers={"Accept": f"{kind}/*"}).headers["Content-Type"].startswith(f"{kind}/")
    without_a_range = (
        "",
        ",",
        ", ,,",
        ";q=1",
        ",;q=0.5,",
        ";",
        f",{produced[0]}",
        f"{produced[0]},,",
        f";q=0, {produced[0]}",
    )
    for accept in ("*/*", f"*/*;q=0.1, image/png, {produced[0]}", *without_a_range):
        answer = client.get(target, headers={"Accept": accept})
        assert answer.status_code == 200, (accept, answer.text)
        assert answer.headers["Content-Type"].partition(";")[0] == produced[0], accept
    refused_types = {
        "image/png",
        ",image/png,",
        "image/*",
        f"{produced[0]};q=0",
        f"*/*, {', '.join(p + ';q=0' for p in produced)}",
    }
    if "application/json" not in produced:
        refused_types.add("application/json")
    if "text/plain" not in produced:
        refused_types.add("text/plain")
    for accept in refused_types - ({f"{produced[0]};q=0"} if len(produced) > 1 else set()):
        answer = client.get(target, headers={"Accept": accept})
        assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable"), accept
        listed = " or ".join(produced)
        assert answer.json()["detail"] == f"This path answers {listed}, which Accept does not admit."
        assert answer.json()["errors"] == [{"pointer": "header/Accept", "message": f"must admit {listed}"}]


def test_no_path_names_its_media_types_by_a_text() -> None:
    """A str is a sequence of letters: the application does not start with one."""
    app = create_app(Config())
    check_handlers(app)
    for made in (needs(Scope.AUDIT_READ), opened(produces=("text/plain",))):
        assert isinstance(made["produces"], tuple)
    handler = next(route for route in app.routes if route.path == "/metrics").route_handlers[0]  # type: ignore[attr-defined]
    handler.opt["produces"] = "text/plain"
    with pytest.raises(TypeError, match="/metrics: produces is 'text/plain', which is no tuple of media types"):
        check_handlers(app)
