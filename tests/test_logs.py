"""The log: a JSON object a line, or lines for people; no secrets, no forged lines."""

import io
import json
import logging
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from service import logs
from service.ledger.access import RANDOM_BYTES, make_key
from tests.live import LiveService, passbook
from tests.some import some

EVIL = "a\nb\r\x1b[31mc\x00\x85\u2028\u202ed\ud800 통장"
FORGED = '\n{"level": "info", "message": "all is well"}\n2026-01-01T00:00:00.000Z INFO service: all is well'


def _written(message: str, *arguments: object, as_json: bool, error: Exception | None = None, **fields: object) -> str:
    record = logging.LogRecord("service.x", logging.ERROR, __file__, 1, message, arguments, None)
    if error is not None:
        try:
            raise error
        except Exception as raised:
            record.exc_info = (type(raised), raised, raised.__traceback__)
    if fields:
        record.fields = fields
    return logs.Formatter(as_json=as_json, context=lambda: {"request_id": "r-1", "trace_id": "t-1"}).format(record)


def test_a_line_of_json_says_when_how_bad_who_and_for_which_request() -> None:
    """The members that collectors look for; fields stand beside them."""
    line = json.loads(_written("%d rows", 3, as_json=True, status=201))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "error",
        "logger": "service.x",
        "message": "3 rows",
        "status": 201,
        "request_id": "r-1",
        "trace_id": "t-1",
    }


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("text", [EVIL, FORGED, "".join(map(chr, range(0x2100)))])
def test_no_line_can_be_forged(as_json: bool, text: str) -> None:
    """Whatever a message, a field or an exception holds is one line, and nothing that a terminal would obey."""
    written = _written("%s", text, as_json=as_json, error=ValueError(text), field=text)
    lines = written.split("\n")
    assert all(line.isprintable() for line in some(lines))
    written.encode()
    if as_json:
        (line,) = lines
        parsed = json.loads(line)
        assert parsed["message"] == text
        assert parsed["field"] == text
        assert text in parsed["exception"]
    else:
        assert all(line.startswith("    ") for line in some(lines[1:]))
    assert ("통장" in written) == ("통장" in text)


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_is_written(as_json: bool) -> None:
    """Of an API key the public prefix is left, also in a traceback and in part; of other credentials nothing."""
    key = make_key(os.urandom(RANDOM_BYTES))
    prefix, _, secret = key.rpartition("_")
    said = f"Authorization: Bearer {key} and {key[:-3]} and bearer abc.def-ghi and Basic dXNlcjpwYXNz"
    written = _written("%s", said, as_json=as_json, error=ValueError(said), field=said)
    for told in (secret, secret[:-3], "abc.def-ghi", "dXNlcjpwYXNz"):
        assert told not in written
    assert prefix in written


def test_text_is_for_people_and_auto_tells_a_terminal_from_a_file() -> None:
    """Time, level, logger, message, then the ids."""
    line = _written("it %s", "rains", as_json=False)
    assert re.fullmatch(r'\S+Z ERROR service\.x: it rains request_id="r-1" trace_id="t-1"', line)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    kept = logging.root.handlers[:], logging.root.level
    try:
        for stream, as_json in ((io.StringIO(), True), (Terminal(), False)):
            logs.set_up(format_="auto", level="warning", context=dict, stream=stream)
            logging.getLogger("service.y").info("unheard")
            logging.getLogger("service.y").warning("heard")
            (line,) = stream.getvalue().splitlines()
            assert line.startswith("{") == as_json
    finally:
        logging.root.handlers[:], level = kept
        logging.root.setLevel(level)


def _lines(service: LiveService) -> list[dict[str, object]]:
    return [json.loads(line) for line in service.said.splitlines() if line.startswith("{")]


def test_the_access_log_names_the_route_and_no_user(own_service: LiveService) -> None:
    """One line a request, also of those that no route answers; the path, which may hold a Telegram id, is not in it."""
    own_service.environment = {"PASSBOOK_ACCESS_LOG": "true"}
    own_service.start()
    client = own_service.client()
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"X-Request-ID": "my-request-1", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    client.credit("73015550001234", 100)
    assert client.get("/v1/users/73015550001234", headers=headers).status_code == 200
    assert client.get("/v1/users/99999999?x=%0d%0aforged").status_code == 400
    assert client.get("/no/73015550001234/%1b[31m").status_code == 404
    assert own_service.stop() == 0
    lines = [line for line in _lines(own_service) if line["logger"] == "service.access"]
    assert [
        (line["method"], line.get("route"), line["status"], line.get("code"), line.get("outcome")) for line in lines
    ] == [
        ("POST", "/v1/deposits", 201, None, "new"),
        ("POST", "/v1/deposits/{deposit_id}/confirm", 200, None, "new"),
        ("GET", "/v1/users/{telegram_id}", 200, None, None),
        ("GET", "/v1/users/{telegram_id}", 400, "invalid_request", None),
        ("GET", None, 404, "route_not_found", None),
    ]
    assert (lines[2]["request_id"], lines[2]["trace_id"], lines[2]["api_key"]) == ("my-request-1", trace, "first-admin")
    text = json.dumps(lines)
    assert "7301555" not in text
    assert "forged" not in text
    assert own_service.admin_key not in text


def test_without_the_setting_requests_are_not_logged(own_service: LiveService) -> None:
    """The log of a quiet service is empty."""
    own_service.start().client().credit("1", 100)
    assert own_service.stop() == 0
    assert _lines(own_service) == []


def test_an_error_of_the_service_is_logged_with_its_request(own_service: LiveService, tmp_path: Path) -> None:
    """The request_id that the answer shows finds the line with the traceback."""
    own_service.start()
    client = own_service.client()
    with closing(sqlite3.connect(own_service.database, isolation_level=None)) as hand:
        hand.execute("UPDATE api_keys SET scopes = 'a:scope-that-nobody-knows'")
    answer = client.get("/v1/users/1/balance", headers={"X-Request-ID": "find-me"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert own_service.stop() == 0
    (line,) = [line for line in _lines(own_service) if line["level"] == "error"]
    assert line["request_id"] == "find-me"
    assert "Traceback" in str(line["exception"])


def test_wrong_settings_of_the_log_are_named(tmp_path: Path) -> None:
    """All of them at once, with what they take."""
    wrong = {"PASSBOOK_LOG_FORMAT": "xml", "PASSBOOK_LOG_LEVEL": "loud", "PASSBOOK_ACCESS_LOG": "perhaps"}
    refused = passbook("serve", "--database", str(tmp_path / "p.db"), env=wrong)
    assert refused.returncode == 1
    assert all(f"{name}={value!r}" in refused.stderr for name, value in wrong.items())
