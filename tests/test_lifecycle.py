"""How a service begins and ends: it drains, it cuts off the slow, and it does not start on what it cannot trust."""

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.cli.common import config_of, opened
from service.storage import sqlite as engine
from tests.ledger_check import broken_invariants
from tests.live import START_TIMEOUT_S, LiveService
from tests.waiting import until

DEPOSIT = {"telegram_id": "1", "amount": 100, "depositor_name": "홍길동"}


def _address(service: LiveService) -> tuple[str, int]:
    host, port = re.fullmatch(r"http://([^:]+):(\d+)", service.url).groups()  # type: ignore[union-attr]
    return host, int(port)


def _signal(service: LiveService) -> None:
    assert service.process is not None
    service.process.send_signal(signal.SIGTERM)


def _ended(service: LiveService) -> int:
    assert service.process is not None
    code = service.process.wait(START_TIMEOUT_S)
    service.stop(code=code)
    return code


def _is_open(service: LiveService) -> bool:
    try:
        socket.create_connection(_address(service), 10).close()
    except ConnectionError:
        return False
    return True


def test_readyz_says_503_before_the_port_closes(own_service: LiveService) -> None:
    """During the delay everything is answered but readyz, also over new connections; a second signal ends the delay."""
    own_service.environment = {"PASSBOOK_SHUTDOWN_DELAY_S": "600"}
    own_service.start()
    client = own_service.client()
    assert client.get("/readyz").status_code == 200
    _signal(own_service)
    until(lambda: client.get("/readyz").status_code != 200, "/readyz says that it stops")
    stopping = client.get("/readyz")
    assert (stopping.status_code, stopping.json()["code"]) == (503, "not_ready")
    assert stopping.json()["detail"] == "The service is stopping."
    assert own_service.client().write("/v1/deposits", DEPOSIT).status_code == 201
    assert own_service.client().get("/livez").status_code == 200
    _signal(own_service)
    assert _ended(own_service) == 0, own_service.said
    assert broken_invariants(own_service.database) == []


def test_the_delay_ends_by_itself(own_service: LiveService) -> None:
    """Nobody need signal twice."""
    own_service.environment = {"PASSBOOK_SHUTDOWN_DELAY_S": "1"}
    own_service.start()
    assert own_service.stop() == 0, own_service.said


def test_requests_under_way_are_answered_and_new_ones_refused(own_service: LiveService) -> None:
    """A write that waits for its commit at SIGTERM is answered after the port has closed; the exit code is 0."""
    own_service.environment = {"PASSBOOK_BUSY_TIMEOUT_MS": "60000", "PASSBOOK_SHUTDOWN_GRACE_S": "60"}
    own_service.start()
    client, probe = own_service.client(), own_service.client()
    with (
        contextlib.closing(sqlite3.connect(own_service.database, isolation_level=None)) as other,
        ThreadPoolExecutor(32) as pool,
    ):
        other.execute("BEGIN IMMEDIATE")
        waiting = []

        def queues() -> bool:  # one batch is at BEGIN, the next one waits behind it
            waiting.append(pool.submit(client.write, "/v1/deposits", DEPOSIT))
            return bool(probe.get("/readyz").json()["queue_depth"] >= 1)

        until(queues, "a write waits")
        _signal(own_service)
        until(lambda: not _is_open(own_service), "the port is closed")
        assert not any(one.done() for one in waiting)
        other.execute("ROLLBACK")
        answers = [one.result(START_TIMEOUT_S) for one in waiting]
    assert {answer.status_code for answer in answers} == {201}
    assert _ended(own_service) == 0, own_service.said
    assert broken_invariants(own_service.database) == []


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service that waits a second for a request."""
    environment = {"PASSBOOK_REQUEST_TIMEOUT_S": "1"}
    service = LiveService(tmp_path_factory.mktemp("impatient") / "passbook.db", environment).start()
    yield service
    assert service.stop() == 0, service.said


def _send_slowly(service: LiveService, beginning: bytes, byte: bytes) -> tuple[int, dict[str, Any]]:
    """Sends `beginning`, then `byte` again and again, until the service ends the connection; status and problem."""
    received = b""
    with socket.create_connection(_address(service), 10) as connection:
        connection.sendall(beginning)
        connection.settimeout(0.1)
        while True:
            try:
                chunk = connection.recv(65536)
            except TimeoutError:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(byte)
                continue
            except ConnectionResetError:
                break
            if not chunk:
                break
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return (int(head.split()[1]), json.JSONDecoder().raw_decode(body.decode())[0]) if received else (0, {})


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"GET /li",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nX-Slow: ",
    ],
)
def test_a_client_that_dribbles_its_head_is_cut_off(impatient: LiveService, beginning: bytes) -> None:
    """Though it never stops sending: 408 and the end of the connection."""
    status, problem = _send_slowly(impatient, beginning, b"x")
    if beginning.count(b"GET ") == 1:
        assert (status, problem["code"]) == (408, "request_timeout")
    else:  # the answer to the first request comes first
        assert status == 200


def test_a_client_that_dribbles_its_body_is_cut_off(impatient: LiveService) -> None:
    """Nothing of the request is carried out; it counts among the refusals."""
    head = (
        f"POST /v1/deposits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {impatient.admin_key}\r\n"
        "Content-Type: application/json\r\nIdempotency-Key: slow\r\nContent-Length: 1000\r\n\r\n{"
    )
    client = impatient.client()
    before = client.get("/v1/audit-logs").json()["items"]
    status, problem = _send_slowly(impatient, head.encode(), b" ")
    assert (status, problem["code"]) == (408, "request_timeout")
    assert client.get("/v1/audit-logs").json()["items"] == before
    assert re.search(r'^passbook_refusals_total\{code="request_timeout"\} [1-9]', client.get("/metrics").text, re.M)


def test_a_connection_without_a_request_is_closed(impatient: LiveService) -> None:
    """Without an answer: there was no question."""
    assert _send_slowly(impatient, b"", b"") == (0, {})


def test_whoever_waits_for_the_service_is_not_cut_off(impatient: LiveService) -> None:
    """An answer may take longer than a request may, and a connection may rest between two requests."""
    client, resting = impatient.client(), impatient.client()
    assert resting.get("/livez").status_code == 200
    with (
        contextlib.closing(sqlite3.connect(impatient.database, isolation_level=None)) as other,
        ThreadPoolExecutor(32) as pool,
    ):
        other.execute("BEGIN IMMEDIATE")
        waiting = pool.submit(client.write, "/v1/deposits", DEPOSIT)
        _send_slowly(impatient, b"", b"")  # a second goes by
        _send_slowly(impatient, b"", b"")
        assert not waiting.done()
        other.execute("ROLLBACK")
        assert waiting.result(START_TIMEOUT_S).status_code == 201
    assert resting.get("/livez").status_code == 200


def test_an_sqlite_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is made."""
    monkeypatch.setattr(engine, "SQLITE_VERSION", "3.39.5")
    with pytest.raises(engine.EngineError, match=r"SQLite 3\.39\.5 is too old"):
        engine.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "affected"),
    [("3.40.1", True), ("3.51.2", True), ("3.51.3", False), ("3.53.4", False), ("3.6.23", False)],
)
def test_an_sqlite_with_the_wal_reset_bug_is_told(
    monkeypatch: pytest.MonkeyPatch, version: str, affected: bool
) -> None:
    """readyz and check say so; the guard is that one connection alone writes and checkpoints."""
    monkeypatch.setattr(engine, "SQLITE_VERSION", version)
    assert engine.has_wal_reset_bug() is affected


def test_only_the_service_checkpoints(own_service: LiveService) -> None:
    """The guard against the WAL-reset bug: the command line beside it has automatic checkpoints off."""
    own_service.start()
    with contextlib.closing(
        engine.connect_writer(own_service.database, busy_timeout_ms=0, checkpoints=False)
    ) as beside:
        assert beside.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    with opened(config_of(database=str(own_service.database))) as of_a_command:
        assert of_a_command.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,), "a command would checkpoint"
    assert "wal_reset_bug" in own_service.client().get("/readyz").json()["sqlite"]


def _locks_of(pid: int, files: Iterable[Path]) -> dict[str, str]:
    """Name of a file -> the kind of lock that a descriptor of this process holds on it."""
    identities = {(found.st_dev, found.st_ino): file.name for file in files for found in [file.stat()]}
    held = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found = link.stat()
            name = identities.get((found.st_dev, found.st_ino))
            lock = re.search(
                r"^lock:\s+\d+: (FLOCK|OFDLCK)\b", Path(f"/proc/{pid}/fdinfo/{link.name}").read_text(), re.M
            )
            if name and lock:
                held[name] = lock[1]
    return held


def test_the_writing_process_holds_both_locks(own_service: LiveService) -> None:
    """That of the lock file and that of the database itself: what outlives its service keeps others out, under any
    name. So does the process that takes the place of one that was killed.
    """
    own_service.start()
    files = (own_service.database, own_service.database.with_name("passbook.db.lock"))
    for _ in range(2):
        writer = own_service.writer_pid
        held = _locks_of(writer, files)
        assert held == {"passbook.db": "OFDLCK", "passbook.db.lock": "FLOCK"}, "a lock is not handed on"
        os.kill(writer, signal.SIGKILL)
        until(lambda gone=writer: not Path(f"/proc/{gone}/exe").exists(), "the writing process has ended")
        own_service.client().write("/v1/deposits", DEPOSIT).raise_for_status()
