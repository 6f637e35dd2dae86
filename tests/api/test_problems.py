"""The closed set of error codes, and what an error of the service tells."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from litestar import get, route

from service.api import problems, request_ids
from service.api.auth import OPEN
from service.api.problems import CATALOGUE, EdgeError, readable
from service.api.request import ApiRequest
from service.app import create_app
from service.config import Config
from service.ledger import errors
from service.ledger.errors import ErrorCode, Refusal, Unavailable
from service.ledger.fields import REMEDIES
from service.storage import sqlite
from tests.live import LiveService
from tests.printed import stands
from tests.some import some


def all_below(base: type[Exception]) -> Iterator[type[Exception]]:
    """Every class derived from `base`."""
    for derived in base.__subclasses__():
        yield derived
        yield from all_below(derived)


def test_the_catalogue_has_every_code_once_and_complete() -> None:
    """Each code has one status, a title and a remedy; two codes never share a title."""
    assert list(CATALOGUE) == sorted(CATALOGUE, key=list(ErrorCode).index)
    assert set(CATALOGUE) == set(ErrorCode)
    assert len({kind.title for kind in CATALOGUE.values()}) == len(CATALOGUE)
    for code, kind in some(CATALOGUE.items()):
        assert kind.status in {400, 401, 403, 404, 405, 406, 408, 409, 410, 413, 415, 429, 431, 500, 503}, code
        assert kind.title
        assert kind.remedy.endswith("."), code


def test_every_refusal_has_a_code_of_the_4xx_and_no_other_has_it() -> None:
    """A new refusal without a line in the catalogue fails here, not in production as a 500."""
    refusals = list(all_below(Refusal))
    assert len(refusals) >= 8
    codes = [refusal.code for refusal in refusals]  # type: ignore[attr-defined]
    assert len(codes) == len(set(codes))
    assert {CATALOGUE[code].status for code in codes} <= {404, 409, 410}


def _status_of(unavailable: type) -> int:
    return 429 if unavailable is errors.RateLimited else 503


def test_every_unavailability_has_its_status_and_a_wait() -> None:
    """503, or 429 where it is the caller's own doing; Retry-After is a positive number of seconds."""
    classes = list(all_below(Unavailable))
    assert len(classes) >= 6
    for unavailable in some(classes):
        assert CATALOGUE[unavailable.code].status == _status_of(unavailable)  # type: ignore[attr-defined]
        assert unavailable.retry_after_s > 0  # type: ignore[attr-defined]


def test_every_member_of_a_refusal_fits_the_problem_document() -> None:
    """The typed members that refusals carry are declared, so that rendering one cannot fail."""
    refusal = errors.InsufficientFunds("short", balance=1, required=2, shortfall=1)
    answer = problems.render_refusal(refusal, "r-1")
    assert answer.status == 409
    assert json.loads(answer.body) == {
        "type": "urn:passbook:problem:insufficient_funds",
        "title": "The balance is too small",
        "status": 409,
        "detail": "short",
        "code": "insufficient_funds",
        "request_id": "r-1",
        "balance": 1,
        "required": 2,
        "shortfall": 1,
    }


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Expected `int` >= 1", "must be at least 1"),
        ("Expected `int` <= 10", "must be at most 10"),
        ("Expected `str` of length >= 1", "must have a length of at least 1"),
        ("Expected `array` of length <= 1000", "must have a length of at most 1000"),
        ("Expected `int`, got `float`", "must be a whole number, not a number with a fraction"),
        ("Expected `str | null`, got `int`", "must be text or null, not a whole number"),
        ("Number out of range", "is too large a number"),
    ],
)
def test_messages_of_the_parser_are_put_in_words(said: str, read: str) -> None:
    """No names of Python types and no regular expressions reach a caller."""
    assert readable(said) == read


def test_every_pattern_is_told_by_what_it_asks_for() -> None:
    """As the parser spells it in its message; one that has no words is not shown either."""
    for pattern, remedy in some([*REMEDIES.items(), (r"^\d{77}$", "text of another form")]):
        with pytest.raises(msgspec.ValidationError) as refused:
            msgspec.json.decode(b'"\\u0001"', type=Annotated[str, msgspec.Meta(pattern=pattern)])
        assert readable(str(refused.value)) == f"must be {remedy}", "a pattern is told for what it asks for"


class _Secret(Exception):
    pass


def _ask(service: LiveService, error: Exception, path: str = "/v1/broken") -> httpx.Response:
    """The answer of an application with a handler that raises `error`."""

    @get("/v1/broken", opt=OPEN, include_in_schema=False)
    async def broken() -> dict[str, Any]:
        raise error

    async def ask() -> httpx.Response:
        app = create_app(Config(database=str(service.database)), extra_routes=[broken])
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get(path, headers={"X-Request-ID": "seen-500"})

    return asyncio.run(ask())


@pytest.fixture
def stopped(own_service: LiveService) -> LiveService:
    """A database that no process holds."""
    own_service.start().stop()
    return own_service


def test_an_unexpected_error_shows_nothing_and_logs_the_request_id(
    stopped: LiveService, caplog: pytest.LogCaptureFixture
) -> None:
    """The cause is in the log under the request id; the caller gets the id alone."""
    with caplog.at_level(logging.ERROR):
        answer = _ask(stopped, _Secret("password=hunter2 /srv/passbook.db SELECT"))
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"] == "seen-500"
    problem = answer.json()
    assert (problem["code"], problem["request_id"]) == ("internal_error", "seen-500")
    for secret in ("hunter2", "_Secret", "passbook.db", "SELECT", "Traceback", "broken"):
        assert secret not in answer.text
    assert stands("seen-500", caplog.text)
    assert stands("hunter2", caplog.text)


@pytest.mark.parametrize("unavailable", list(all_below(Unavailable)), ids=lambda kind: kind.__name__)
def test_an_unavailability_says_when_to_come_back(stopped: LiveService, unavailable: type[Unavailable]) -> None:
    """The status, Retry-After, and the same shape as every problem."""
    answer = _ask(stopped, unavailable("not now"))
    assert (answer.status_code, answer.json()["code"]) == (_status_of(unavailable), unavailable.code)
    assert answer.headers["Retry-After"] == str(unavailable.retry_after_s)


def _error_of_sqlite(code: int) -> Exception:
    error: Any = sqlite.driver.OperationalError("as the driver says it")
    error.sqlite_errorcode = code
    return error  # type: ignore[no-any-return]


SQLITE_ERRORS = {
    "BUSY": (5, (503, "database_busy", "1")),
    "BUSY_RECOVERY": (261, (503, "database_busy", "1")),
    "LOCKED": (6, (503, "database_busy", "1")),
    "READONLY_RECOVERY": (264, (503, "database_busy", "1")),
    "INTERRUPT": (9, (503, "overloaded", "1")),
    "IOERR": (10, (503, "not_ready", "5")),
    "CORRUPT": (11, (503, "not_ready", "5")),
    "ERROR": (1, (500, "internal_error", None)),
}
"""SQLite's result code of an error that a read met; the status, code and Retry-After that its caller is told."""


@pytest.mark.parametrize("name", SQLITE_ERRORS)
def test_what_a_read_met_in_the_database_is_told_as_what_it_is(stopped: LiveService, name: str) -> None:
    """What passes by itself, or is of the file, is 503 with a wait; what is of the service is 500; none shows more."""
    code, told = SQLITE_ERRORS[name]
    answer = _ask(stopped, _error_of_sqlite(code))
    assert (answer.status_code, answer.json()["code"], answer.headers.get("Retry-After")) == told
    assert "driver" not in answer.text


@pytest.mark.parametrize("stops", ["stopped", ""])
def test_a_file_that_cannot_be_read_is_told_to_each_method_as_what_it_is(stopped: LiveService, stops: str) -> None:
    """Once writes have stopped, whatever writes is told that; who reads, that nothing is read."""

    @route(
        "/v1/broken",
        http_method=["GET", "POST", "PUT", "PATCH", "DELETE"],
        status_code=200,
        opt=OPEN,
        include_in_schema=False,
    )
    async def broken(request: ApiRequest) -> None:
        request.passbook.writer._stopped_because = stops or None
        raise _error_of_sqlite(11)

    async def ask() -> dict[str, tuple[int, str]]:
        app = create_app(Config(database=str(stopped.database)), extra_routes=[broken])
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            answers = {method: await client.request(method, "/v1/broken") for method in _METHODS}
            return {method: (answer.status_code, answer.json()["code"]) for method, answer in answers.items()}

    of_writes = "writes_stopped" if stops else "not_ready"
    assert asyncio.run(ask()) == {m: (503, "not_ready" if m == "GET" else of_writes) for m in _METHODS}


_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def test_an_edge_error_carries_its_members() -> None:
    """What is wrong stands in `errors`, and only there is a list."""
    error: EdgeError = problems.invalid("#/amount", "must be at least 1")
    assert error.members["errors"] == [problems.Violation("#/amount", "must be at least 1")]
    assert error.detail == "#/amount: must be at least 1"


def test_request_ids_of_the_service_are_made_in_the_order_of_time() -> None:
    """32 hexadecimal digits that begin with the milliseconds: an index on them grows at one end."""
    made = []
    for _ in range(20):
        made.append(request_ids.new())
        time.sleep(0.002)
    assert made == sorted(made)
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in some(made))
    assert abs(int(made[-1][:12], 16) / 1000 - time.time()) < 5
    assert len({request_ids.new() for _ in range(10_000)}) == 10_000
