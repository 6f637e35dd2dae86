"""Who else may touch a served database, and what happens when the disk or a lock says no."""

import asyncio
import json
import resource
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.faults.disks import fill, small_disk
from tests.faults.journal import Journal, Load, check
from tests.faults.wire import Connection, Request
from tests.ledger_check import broken_invariants
from tests.live import LiveService, passbook
from tests.some import some
from tests.waiting import until, until_async

CLIENTS = 32
BUSY = {"PASSBOOK_BUSY_TIMEOUT_MS": "100"}


def _announce(key: str, telegram_id: str = "5001") -> Request:
    body = {"telegram_id": telegram_id, "amount": 10, "depositor_name": key}
    return Request("/v1/deposits", json.dumps(body), key)


def _write(service: LiveService, key: str) -> int:
    request = _announce(key)
    return service.client().write(request.path, request.body.encode(), key=key).status_code


@contextmanager
def _write_lock(service: LiveService) -> Iterator[sqlite3.Connection]:
    """Another process, this one, holds the write lock for the block."""
    with closing(sqlite3.connect(service.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def test_nothing_that_rebuilds_runs_beside_a_service(service: LiveService, tmp_path: Path) -> None:
    """A second serve, a migration and an import are refused in one sentence that says what to do."""
    database = str(service.database)
    export = tmp_path / "export.sql"
    export.write_text("CREATE TABLE users (id INTEGER PRIMARY KEY);\n")
    pid = service.process.pid  # type: ignore[union-attr]
    for arguments in (
        ("serve", "--port", "0"),
        ("migrate", "up"),
        ("migrate", "down", "--to", "0", "--yes"),
        ("import", str(export)),
    ):
        refused = passbook(*arguments, "--database", database)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"Error: {database} is in use by process {pid} ")
        assert "Stop it first" in refused.stderr
        assert (refused.stdout, refused.stderr.count("\n")) == ("", 1)
    assert service.client().get("/readyz").status_code == 200
    assert _write(service, "after-refusals") == 201


def test_an_import_beside_a_service_that_has_lost_its_file_is_refused(own_service: LiveService, tmp_path: Path) -> None:
    """The lock counts, not the file: with the database moved away by hand, import still sees the service."""
    own_service.start()
    export = tmp_path / "export.sql"
    export.write_text("CREATE TABLE users (id INTEGER PRIMARY KEY);\n")
    own_service.database.rename(tmp_path / "moved.db")
    refused = passbook("import", str(export), "--database", str(own_service.database))
    assert refused.returncode == 1
    assert "is in use by process" in refused.stderr
    assert not own_service.database.exists()


def test_keys_are_made_and_revoked_beside_the_service(service: LiveService) -> None:
    """A new key works on the next request; a revoked one is 401 on the very next, on the same connection too."""
    key = service.make_key("--role", "bot", "--name", "short-lived")
    client = service.client(key)
    listed = passbook("keys", "list", "--json", "--database", str(service.database))
    prefix = next(k["prefix"] for k in map(json.loads, listed.stdout.splitlines()) if k["name"] == "short-lived")
    body = {"telegram_id": "5002", "amount": 10, "depositor_name": "홍길동"}
    assert client.write("/v1/deposits", body).status_code == 201
    revoked = passbook("keys", "revoke", prefix, "--database", str(service.database))
    assert revoked.returncode == 0, revoked.stderr
    refused = client.write("/v1/deposits", body)
    assert (refused.status_code, refused.json()["code"]) == (401, "api_key_revoked")
    assert client.get("/v1/deposits").status_code == 401
    logged = service.client().get("/v1/audit-logs", params={"action": "api_key_*", "limit": 2}).json()["items"]
    assert [row["action"] for row in logged] == ["api_key_revoked", "api_key_created"]
    again = passbook("keys", "revoke", prefix, "--database", str(service.database))
    assert (again.returncode, "was revoked before" in again.stdout) == (0, True)


def test_a_key_is_revoked_under_load(own_service: LiveService, tmp_path: Path) -> None:
    """With 32 clients at it the command line still gets its turn at the lock, and each client's next answer is 401."""
    own_service.start()
    key = own_service.make_key("--role", "admin", "--name", "loader")
    prefix = "_".join(key.split("_")[:2])

    async def run() -> "subprocess.CompletedProcess[str]":
        load = Load(journal, url=own_service.url, api_key=key, seed=1, clients=CLIENTS, name="load")
        under_way = journal.after(100)
        clients = asyncio.create_task(load.run())
        await under_way.wait()
        revoked = await asyncio.to_thread(passbook, "keys", "revoke", prefix, "--database", str(own_service.database))
        answered = journal.answered
        await clients
        # At most what each had under way, and the 401 that ended it.
        assert journal.answered - answered <= 2 * CLIENTS
        return revoked

    with Journal.opened(tmp_path / "journal") as journal:
        revoked = asyncio.run(run())
        assert revoked.returncode == 0, revoked.stderr
        ended = [a for e in journal.entries.values() for a in e.attempts if a.status == 401]
        assert len(ended) == CLIENTS
        other = own_service.make_key("--role", "admin", "--name", "loader")
        assert check(own_service.database, journal, own_service, actor="loader", api_key=other).broken == []


def test_a_lock_held_for_less_than_the_timeout_only_delays(service: LiveService) -> None:
    """While another process writes, requests wait and reads go on; when it is done they are answered."""

    async def run() -> list[int]:
        connections = [await Connection.open(service.url) for _ in range(3)]
        with _write_lock(service):
            asked = []
            for number, connection in enumerate(connections):
                asked.append(asyncio.create_task(connection.ask(_announce(f"delayed-{number}"), service.admin_key)))
                # The first is at BEGIN when the second waits for the next commit.
                await until_async(
                    lambda least=number: client.get("/readyz").json()["queue_depth"] >= least,  # type: ignore[misc]
                    "the write waits",
                    every_s=0,
                )
                await asyncio.sleep(0)
            assert client.get("/v1/deposits").status_code == 200
            assert not any(task.done() for task in asked)
        statuses = [(await task).status for task in asked]
        for connection in connections:
            await connection.close()
        return statuses

    client = service.client()
    assert asyncio.run(run()) == [201] * 3


def test_a_lock_held_for_longer_is_503_and_nothing_partial(own_service: LiveService) -> None:
    """Beyond the timeout: 503 database_busy with Retry-After, no row; afterwards the same key is carried out."""
    own_service.environment = BUSY
    own_service.start()
    client = own_service.client()
    request = _announce("busy")
    with _write_lock(own_service) as other:
        refused = client.write(request.path, request.body.encode(), key="busy")
        assert (refused.status_code, refused.json()["code"]) == (503, "database_busy")
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.get("/v1/deposits").json()["items"] == []
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["reads"], ready.json()["writes"]) == (503, "ok", "database_busy")
        assert other.execute("SELECT COUNT(*) FROM idempotency_answers").fetchone() == (0,)
    until(lambda: client.get("/readyz").status_code == 200, "it recovers by itself, though no write comes")
    done = client.write(request.path, request.body.encode(), key="busy")
    assert (done.status_code, done.headers.get("Idempotency-Replayed")) == (201, None)
    assert len(client.get("/v1/deposits").json()["items"]) == 1
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


def test_a_full_disk_is_503_and_recovers_without_a_restart(tmp_path: Path) -> None:
    """No space: writes are 503 storage_full, reads go on, nothing partial; with space again the same keys succeed."""
    with small_disk(tmp_path / "disk") as disk:
        service = LiveService(disk / "passbook.db").start()
        try:
            client = service.client()
            assert _write(service, "before") == 201
            fill(disk / "filler")
            refused = []
            for number in range(300):
                request = _announce(f"full-{number}")
                answer = client.write(request.path, request.body.encode(), key=request.key)
                if answer.status_code != 201:
                    refused.append((request, answer))
                if len(refused) == 5:
                    break
            assert [(a.status_code, a.json()["code"]) for _, a in refused] == [(503, "storage_full")] * 5
            assert int(refused[0][1].headers["Retry-After"]) >= 1
            assert client.get("/v1/deposits", params={"limit": 1}).status_code == 200
            for _ in range(20):  # also while it is tried whether there is room again
                ready = client.get("/readyz")
                assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
                assert (ready.json()["reads"], ready.json()["writes"]) == ("ok", "storage_full")
                assert "disk of the database is full" in ready.json()["detail"]
                time.sleep(0.1)
            assert client.get("/livez").status_code == 200
            unsigned = client.get("/v1/audit-logs/checkpoint")
            assert (unsigned.status_code, unsigned.json()["code"]) == (503, "not_ready")
            assert "No space left on device" in unsigned.json()["detail"]
            changes = service.database.with_name("passbook.db-wal").stat().st_mtime_ns
            (disk / "filler").unlink()
            until(lambda: client.get("/readyz").status_code == 200, "it finds that there is room again")
            # A commit found that there is room, and it was none of a caller's.
            assert service.database.with_name("passbook.db-wal").stat().st_mtime_ns > changes
            for request, _ in some(refused):
                done = client.write(request.path, request.body.encode(), key=request.key)
                assert (done.status_code, done.headers.get("Idempotency-Replayed")) == (201, None)
            assert service.stop() == 0
            assert broken_invariants(service.database) == []
        finally:
            if service.process is not None:
                service.kill()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux's")
def test_an_io_error_stops_writes_until_a_restart_and_every_key_has_one_answer(
    own_service: LiveService, tmp_path: Path
) -> None:
    """Writes to the file fail (EFBIG): 503, /readyz says so, reads and revocations go on, and a restart is sound."""
    own_service.start()
    pid = own_service.writer_pid
    with Journal.opened(tmp_path / "journal") as journal:
        client = own_service.client()
        load = Load(journal, url=own_service.url, api_key=own_service.admin_key, seed=2, clients=4, name="before")
        asyncio.run(load.run(count=10))
        size = own_service.database.with_name("passbook.db-wal").stat().st_size
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 10_000, unlimited[1]))
        load = Load(journal, url=own_service.url, api_key=own_service.admin_key, seed=2, clients=8, name="during")
        asyncio.run(load.run(count=4))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        request = _announce("stopped")
        stopped = client.write(request.path, request.body.encode(), key="stopped")
        assert (stopped.status_code, stopped.json()["code"]) == (503, "writes_stopped")
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
        assert (ready.json()["reads"], ready.json()["writes"]) == ("ok", "stopped")
        assert client.get("/livez").status_code == 200
        assert client.get("/v1/deposits").status_code == 200
        told = {a.status for e in journal.entries.values() for a in e.attempts if a.status and a.status >= 500}
        assert told == {503}
        assert own_service.make_key("--role", "bot")
        assert own_service.stop() == 0
        own_service.start()
        found = check(own_service.database, journal, own_service, actor="first-admin", api_key=own_service.admin_key)
        assert found.broken == []
        assert found.unknown > 0


def test_a_database_is_locked_under_every_name(service: LiveService, tmp_path: Path) -> None:
    """A symbolic link to the database leads to the same lock."""
    link = tmp_path / "link.db"
    link.symlink_to(service.database)
    refused = passbook("serve", "--port", "0", "--database", str(link))
    assert (refused.returncode, "is in use by process" in refused.stderr) == (1, True)
