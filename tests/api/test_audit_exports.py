"""The audit log whole: as CSV and as NDJSON, read while it is sent."""

import contextlib
import csv
import http.client
import io
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.api.audit_feed import EXPORTS_MAX
from tests.api.test_audit_logs import every
from tests.live import Client, LiveService
from tests.printed import stands
from tests.repository.house import writing
from tests.some import some
from tests.waiting import until

ROWS = 2500
PATIENCE_S = 4
SLOW_BYTES, SLOW_S = 16_384, 0.25
"""Of an answer of megabytes, so much is taken so often."""
LARGE_ROWS, LARGE_DETAILS = 60_000, 2000
"""A log of 120 MB: more than sockets hold, and than a process may keep."""


def add_rows(database: Path, rows: list[tuple[Any, ...]]) -> None:
    """Rows as the bot, a migration or a hand might have left them: (action, telegram_id, details, user_agent, at)."""
    with writing(database) as connection:
        connection.executemany(
            "INSERT INTO audit_logs (action, telegram_id, details, user_agent, created_at) VALUES (?, ?, ?, ?, ?)", rows
        )


ODD = [
    ("=HYPERLINK(1)", "+1", '{"text": "=1+1, \\"quoted\\""}', "@SUM(1)\r\nInjected: yes", "2026-01-01 00:00:00"),
    ("-1", "\t1", '{\n  "pretty":\r\n true }', "＝1", None),
    ("plain", None, "no JSON\nat all", None, "2026-01-01T00:00:00+09:00"),
    ("한글", "5", None, 'a "name", with a comma', "2026-01-01 00:00:00.5"),
]


@pytest.fixture(scope="module")
def ops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A reader of a log of more than one chunk, with odd rows in it."""
    live = LiveService(tmp_path_factory.mktemp("exports") / "passbook.db").start()
    live.client().credit("7", 5000)
    many = [("login" if n % 3 else "login_failed", str(n % 10), None, None, "2026-01-02 00:00:00") for n in range(ROWS)]
    add_rows(live.database, [*ODD, *many])
    yield live.client(live.make_key("--role", "ops"))
    assert live.stop() == 0, live.said


def export(ops: Client, accept: str, **query: Any) -> Any:
    """The answer, read to its end."""
    return ops.get("/v1/audit-logs", params=query, headers={"Accept": accept}).raise_for_status()


@pytest.mark.parametrize(
    "query", [{}, {"action": "*_failed"}, {"order": "oldest", "telegram_id": "7"}, {"outcome": "success"}]
)
def test_ndjson_is_the_rows_that_pages_show(ops: Client, query: dict[str, str]) -> None:
    """Every row that matches, one JSON object a line, in the order asked for."""
    answer = export(ops, "application/x-ndjson", **query)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert re.fullmatch(
        r'attachment; filename="audit-logs-\d{8}T\d{6}Z\.ndjson"', answer.headers["Content-Disposition"]
    )
    lines = answer.content.split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == every(ops, limit=1000, **query)


def test_csv_is_the_same_rows_and_no_formula(ops: Client) -> None:
    """RFC 4180 with a header: nulls are empty, details are JSON, nothing begins as a spreadsheet's formula does."""
    answer = export(ops, "text/csv", order="oldest")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].endswith('.csv"')
    text = answer.content.decode()
    assert text.count("\r\n") == text.count("\n") == text.count("\r") == len(every(ops, limit=1000)) + 1
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    for found, row in some(zip(rows, every(ops, limit=1000, order="oldest"), strict=True)):
        assert list(found) == list(row)
        for name, value in some(row.items()):
            if name == "details":
                assert (json.loads(found[name]) if found[name] else None) == value
            else:
                assert not found[name].startswith(tuple("=+-@＝＋－＠\t\r"))
                expected = "" if value is None else str(value).replace("\r", "\\r").replace("\n", "\\n")
                assert found[name] in {expected, f"'{expected}"}
    assert "'=HYPERLINK(1)" in text
    assert "'@SUM(1)\\r\\nInjected: yes" in text


@pytest.mark.parametrize(
    ("accept", "query", "marked"),
    [
        ("text/csv", {}, False),
        ("text/csv", {"bom": "false"}, False),
        ("text/csv", {"bom": "true"}, True),
        ("text/csv; header=present; bom=true", {}, True),
        ("text/csv;BOM=TRUE;q=0.9, application/json;q=0.5", {}, True),
        ("text/csv;bom=true", {"bom": "false"}, False),
        ("text/*;bom=true, text/csv", {}, False),
        ("application/x-ndjson; bom=true", {}, False),
        ("application/x-ndjson; bom=true, text/csv;q=0.1", {}, False),
    ],
)
def test_a_byte_order_mark_is_there_when_csv_is_asked_for_with_it(
    ops: Client, accept: str, query: dict[str, str], marked: bool
) -> None:
    """Excel knows UTF-8 by it; before it and behind it the file is the same."""
    plain = export(ops, accept.partition(";")[0].replace("*", "csv"), limit=5).content
    answer = ops.get("/v1/audit-logs", params={"limit": 5, **query}, headers={"Accept": accept})
    assert (answer.status_code, answer.content) == (200, b"\xef\xbb\xbf" * marked + plain)
    assert answer.content.count(b"\xef\xbb\xbf") == marked


@pytest.mark.parametrize(
    ("accept", "query"),
    [
        ("application/json", "bom=true"),
        ("application/x-ndjson", "bom=true"),
        ("application/json", "bom=true&follow=0"),
        ("text/csv", "bom=yes"),
        ("text/csv", "bom=1"),
        ("text/csv", "bom="),
    ],
)
def test_a_byte_order_mark_that_cannot_be_is_refused(ops: Client, accept: str, query: str) -> None:
    """It goes with CSV alone, and the answer names the parameter."""
    answer = ops.get(f"/v1/audit-logs?{query}", headers={"Accept": accept})
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == ["query/bom"]


def test_a_limit_and_a_cursor_hold_for_files_too(ops: Client) -> None:
    """At most so many rows, behind the cursor; a page and a file give the same."""
    page = ops.get("/v1/audit-logs", params={"limit": 10}).json()
    lines = export(ops, "application/x-ndjson", limit=10, cursor=page["next_cursor"]).text.splitlines()
    assert [json.loads(line) for line in lines] == every(ops, limit=1000)[10:20]
    assert len(export(ops, "text/csv", limit=1000).text.splitlines()) == 1001
    assert export(ops, "text/csv", action="nothing").text.count("\n") == 1
    assert export(ops, "application/x-ndjson", action="nothing").text == ""


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/*", "text/csv; charset=utf-8"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("TEXT/CSV; header=present", "text/csv; charset=utf-8"),
        ("text/csv, application/json", "application/json"),
        ("text/csv, application/json;q=0.9", "text/csv; charset=utf-8"),
        ("application/x-ndjson, */*;q=0.1", "application/x-ndjson"),
        ("application/json;q=0, */*", "text/csv; charset=utf-8"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("text/html", None),
        ("text/csv;q=0", None),
        ("application/ndjson", None),
    ],
)
def test_the_best_liked_type_is_answered(ops: Client, accept: str | None, answered: str | None) -> None:
    """By quality, JSON first among equals; 406 names what there is."""
    headers = {} if accept is None else {"Accept": accept}
    request = ops.build_request("GET", "/v1/audit-logs?limit=1", headers=headers)
    if accept is None:
        del request.headers["Accept"]
    answer = ops.send(request)
    if answered is None:
        assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
        assert "application/json or text/csv or application/x-ndjson" in answer.json()["detail"]
    else:
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, answered)
        assert answer.headers["Vary"] == "Accept"


def test_other_paths_answer_json_alone(ops: Client) -> None:
    """What only one path can do is refused elsewhere; follow is answered as JSON."""
    for path in ("/v1/audit-logs/1", "/v1/deposits", "/v1/audit-logs?follow=0"):
        answer = ops.get(path, headers={"Accept": "text/csv"})
        assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable"), path


def test_what_is_wrong_is_told_before_a_file_begins(ops: Client) -> None:
    """As a problem document, whatever was asked for."""
    answer = ops.get("/v1/audit-logs?cursor=o1", headers={"Accept": "text/csv"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")


@pytest.fixture(scope="module")
def much(tmp_path_factory: pytest.TempPathFactory) -> LiveService:
    """A log that no socket holds. Its service has ended."""
    live = LiveService(tmp_path_factory.mktemp("much") / "passbook.db").start()
    assert live.stop() == 0, live.said
    with writing(live.database) as connection:
        connection.execute(
            "INSERT INTO audit_logs (action, details) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
            " WHERE i < ?) SELECT 'large', json_object('text', printf('%0*d', ?, i)) FROM n",
            (LARGE_ROWS, LARGE_DETAILS),
        )
    return live


@pytest.fixture
def large(much: LiveService, own_service: LiveService) -> LiveService:
    """That log, and a service that waits for a client longer than any test does."""
    own_service.environment = {"PASSBOOK_ANSWER_TIMEOUT_S": "3600", "PASSBOOK_SHUTDOWN_GRACE_S": "3600"}
    return _with_log_of(much, own_service)


@pytest.fixture
def impatient(much: LiveService, own_service: LiveService) -> LiveService:
    """That log, and a service that waits some seconds for its clients."""
    own_service.environment = {"PASSBOOK_ANSWER_TIMEOUT_S": str(PATIENCE_S)}
    return _with_log_of(much, own_service)


def _with_log_of(much: LiveService, own_service: LiveService) -> LiveService:
    for path in much.database.parent.glob("passbook.db*"):
        shutil.copy(path, own_service.database.parent)
    own_service.admin_key = much.admin_key
    return own_service.start()


@contextmanager
def begun(service: LiveService) -> Iterator[http.client.HTTPResponse]:
    """An export of which nothing but the head was read, for the block."""
    with closing(http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)) as connection:
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        headers = {"Authorization": f"Bearer {service.admin_key}", "Accept": "application/x-ndjson"}
        connection.request("GET", "/v1/audit-logs", headers=headers)
        with connection.getresponse() as answer:
            assert answer.status == 200
            yield answer


def resident_mib(service: LiveService) -> float:
    """The memory of the service's process."""
    assert service.process is not None
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def test_a_slow_client_is_waited_for_and_not_written_ahead_of(large: LiveService) -> None:
    """Memory does not grow while nothing is read, nor while all is; and others are answered meanwhile."""
    client = large.client()
    before = resident_mib(large)
    with begun(large) as answer:
        time.sleep(1)
        assert client.get("/v1/audit-logs?limit=1").status_code == 200
        assert client.get("/v1/users/1").status_code == 404
        assert resident_mib(large) - before < 30
        length = 0
        while part := answer.read(2**20):
            length += len(part)
    assert length > LARGE_ROWS * LARGE_DETAILS
    assert resident_mib(large) - before < 30


def test_only_so_many_run_at_once_and_one_that_is_left_ends(large: LiveService) -> None:
    """One more of the same key is 503 with a wait, another key's is not; when a client has gone, its place is free."""
    client, other = large.client(), large.client(large.make_key("--role", "ops"))
    with ExitStack() as stack:
        for _ in range(EXPORTS_MAX):
            stack.enter_context(begun(large))
        refused = client.get("/v1/audit-logs", headers={"Accept": "text/csv"})
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["Retry-After"]) > 0
        assert client.get("/v1/audit-logs").status_code == 200
        assert other.get("/v1/audit-logs?limit=1", headers={"Accept": "text/csv"}).status_code == 200

    def has_place() -> bool:
        return client.get("/v1/audit-logs?limit=1", headers={"Accept": "text/csv"}).status_code == 200

    until(has_place, "a place becomes free", every_s=0.1)


def open_files(service: LiveService) -> int:
    """Descriptors of the service's process."""
    assert service.process is not None
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


def test_a_client_that_is_slow_is_not_one_that_takes_nothing(impatient: LiveService) -> None:
    """For thrice the time after which it would be cut off, it takes less than one piece of the export."""
    with begun(impatient) as answer:
        deadline = time.monotonic() + 3 * PATIENCE_S
        taken = 0
        while time.monotonic() < deadline:
            part = answer.read(SLOW_BYTES)
            assert len(part) == SLOW_BYTES
            taken += len(part)
            time.sleep(SLOW_S)
        while part := answer.read(2**20):
            taken += len(part)
    assert taken > LARGE_ROWS * LARGE_DETAILS
    assert impatient.stop() == 0
    assert "cut off" not in impatient.said


@pytest.mark.parametrize(
    ("target", "accept"),
    [
        pytest.param("/v1/audit-logs", "text/csv", id="an export"),
        pytest.param("/v1/audit-logs?limit=1000", "application/json", id="a page"),
        pytest.param("/docs/assets/swagger-ui-bundle.js", "*/*", id="files without a key"),
    ],
)
def test_a_client_that_takes_nothing_is_cut_off(impatient: LiveService, target: str, accept: str) -> None:
    """After its time and not before; its descriptor is free then, and the log and the metrics say so."""
    client = impatient.client()
    assert client.get("/livez").status_code == 200
    before = open_files(impatient)
    address = urlsplit(impatient.url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect((address.hostname, address.port))
        key = f"Authorization: Bearer {impatient.admin_key}\r\n" if target.startswith("/v1") else ""
        asked = f"GET {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n{key}\r\n"
        began = time.monotonic()
        connection.sendall(asked.encode() * 20)
        cut = 'passbook_connections_cut_total{reason="stalled"} 1'
        until(lambda: cut in client.get("/metrics").text, "the client is cut off", every_s=0.1)
        assert time.monotonic() - began >= PATIENCE_S
        until(lambda: open_files(impatient) <= before, "its descriptor is free")
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65_536):
                received += len(part)
    assert received < 30 * 2**20
    assert impatient.stop() == 0
    assert stands("1 took nothing of their answer for too long", impatient.said)
    assert "Traceback" not in impatient.said
    assert "uvicorn" not in impatient.said


def test_a_service_that_stops_cuts_off_and_the_client_can_tell(large: LiveService) -> None:
    """It does not wait for a slow client, whatever its grace; the chunked body lacks its end."""
    with begun(large) as answer:
        assert large.stop() == 0
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
    assert "cut off" in large.said
    assert "Traceback" not in large.said
    assert "uvicorn" not in large.said
