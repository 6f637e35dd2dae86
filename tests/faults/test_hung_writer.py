"""A writing process that hangs, dies or cannot be started: who waits is answered, and nothing is lost or doubled."""

import asyncio
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.faults.disks import freezable_disk, frozen
from tests.faults.journal import Journal, Load, check
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, START_TIMEOUT_S, Client, LiveService, passbook
from tests.waiting import until

IMPATIENT = {"PASSBOOK_WRITE_STALL_S": "1", "PASSBOOK_WRITE_TIMEOUT_S": "3", "PASSBOOK_WRITE_RESTART_S": "0"}
DEBIT = {"telegram_id": "1", "amount": 1, "reason": "hung"}
END_S = 30
"""How long a test waits for what should take a few seconds, on a machine that does something else too."""


def _ready(client: Client) -> tuple[int, str]:
    """The status of /readyz, and what it says of writes."""
    answer = client.get("/readyz")
    return answer.status_code, answer.json().get("writes", "")


def _code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


def _metric(client: Client, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.M)
    assert found, name
    return float(found[1])


def _state(pid: int) -> str:
    """The process's state as the kernel names it; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def _end(service: LiveService) -> int:
    """The exit code of a service that was told to end."""
    assert service.process is not None
    try:
        return service.process.wait(END_S)
    finally:
        service.stop(code=None)


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def _waiting(service: LiveService) -> Iterator[Callable[[str], "Future[httpx.Response]"]]:
    """A way to ask for a debit by its key and not to wait for the answer."""
    with ThreadPoolExecutor(16) as pool:
        yield lambda key: pool.submit(service.client().write, "/v1/debits", DEBIT, key=key)


@contextmanager
def _stopped_at(
    service: LiveService, ask: Callable[[str], "Future[httpx.Response]"], key: str
) -> Iterator["Future[httpx.Response]"]:
    """The writing process is stopped while it carries out the debit of `key`, which another one's lock held up."""
    client, pid = service.client(), service.writer_pid
    with contextlib.closing(sqlite3.connect(service.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = ask(key)
        until(lambda: _metric(client, "passbook_writer_batch_age_seconds") > 0.3, "it is not begun")
        with _stopped(pid):
            other.execute("ROLLBACK")
            yield begun


def test_a_stopped_writing_process_is_seen_and_those_who_wait_are_answered(own_service: LiveService) -> None:
    """SIGSTOP: readyz, metrics and callers tell within the limits; after SIGCONT each key has its one answer."""
    own_service.environment = {**IMPATIENT, "PASSBOOK_WRITE_STALL_S": "4", "PASSBOOK_WRITE_TIMEOUT_S": "8"}
    own_service.start()
    client = own_service.client()
    client.credit("1", 1000)
    with _waiting(own_service) as ask:
        with _stopped_at(own_service, ask, "begun") as begun:
            assert _metric(client, "passbook_writer_queue_depth") == 1
            queued = ask("queued")
            until(lambda: _ready(client) == (503, "stalled"), "/readyz does not tell")
            told = client.get("/readyz")
            assert told.json()["reads"] == "ok"
            assert re.search(r"No writes are taken: the writing process has not answered for \d+ s", told.text)
            assert _metric(client, "passbook_writer_batch_age_seconds") >= 4
            assert _metric(client, 'passbook_writer_state{state="stalled"}') == 1
            assert _metric(client, "passbook_writer_queue_depth") == 2
            before = time.monotonic()
            refused = client.write("/v1/debits", DEBIT, key="refused")
            assert time.monotonic() - before < 6  # at once, and not after the eight seconds that a write may wait
            assert _code(refused) == (503, "writes_stalled")
            assert int(refused.headers["Retry-After"]) >= 1
            assert client.get("/livez").status_code == 200
            assert client.get("/v1/users/1/balance").json()["balance"] == 1000
            assert _code(begun.result(END_S)) == (503, "outcome_unknown")
            assert _code(queued.result(END_S)) == (503, "writes_stalled")
            assert "nothing was begun" in queued.result().json()["detail"]
        until(lambda: _ready(client) == (200, "ok"), "/readyz does not recover")
    answers = {key: client.write("/v1/debits", DEBIT, key=key) for key in ("begun", "queued", "refused")}
    assert {answer.status_code for answer in answers.values()} == {201}
    assert [key for key, answer in answers.items() if "Idempotency-Replayed" in answer.headers] == ["begun"]
    assert client.get("/v1/users/1/balance").json()["balance"] == 997
    assert _metric(client, "passbook_writer_batch_age_seconds") == 0
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


def test_a_stopped_writing_process_is_seen_while_nobody_writes(own_service: LiveService) -> None:
    """An idle one is asked now and then whether it is there, and replaced when it has died."""
    own_service.environment = IMPATIENT
    own_service.start()
    client = own_service.client()
    pid = own_service.writer_pid
    with _stopped(pid):
        until(lambda: _ready(client) == (503, "stalled"), "/readyz does not tell")
    until(lambda: _ready(client) == (200, "ok"), "/readyz does not recover")
    assert own_service.writer_pid == pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: _state(pid) in {"", "Z"} and own_service.writer_pid != pid, "nobody starts another")
    assert own_service.stop() == 0


def test_a_service_that_stood_still_itself_does_not_blame_its_writing_process(own_service: LiveService) -> None:
    """Stopped for longer than every limit, with an answer on its way: it is given, and nobody is killed."""
    own_service.environment = {**IMPATIENT, "PASSBOOK_WRITE_TIMEOUT_S": "2", "PASSBOOK_WRITE_RESTART_S": "3"}
    own_service.start()
    assert own_service.process is not None
    client = own_service.client()
    client.credit("1", 1000)
    pid = own_service.writer_pid
    with _waiting(own_service) as ask:
        with _stopped(pid):
            begun = ask("begun")
            until(lambda: client.get("/readyz").json().get("queue_depth") == 1, "the batch is not counted")
            own_service.process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        own_service.process.send_signal(signal.SIGCONT)
        assert begun.result(END_S).status_code == 201
    assert own_service.writer_pid == pid
    assert own_service.stop() == 0


def test_stops_under_load_lose_and_double_nothing(own_service: LiveService, tmp_path: Path) -> None:
    """Whoever waited too long is told so, and all of it is true."""
    own_service.environment = {**IMPATIENT, "PASSBOOK_WRITE_TIMEOUT_S": "1"}
    own_service.start()
    pid = own_service.writer_pid

    async def run(journal: Journal) -> None:
        load = Load(journal, url=own_service.url, api_key=own_service.admin_key, seed=3, clients=16, name="stopped")
        clients = asyncio.create_task(load.run(count=40))
        for _ in range(2):
            await journal.after(100).wait()
            with _stopped(pid):
                await journal.after(32).wait()  # none of them is answered but by the watch
        await clients

    with Journal.opened(tmp_path / "journal") as journal:
        asyncio.run(run(journal))
        until(lambda: _ready(own_service.client()) == (200, "ok"), "/readyz does not recover")
        found = check(own_service.database, journal, own_service, actor="first-admin", api_key=own_service.admin_key)
        assert found.broken == []
        assert found.unknown > 0
    assert own_service.stop() == 0, own_service.said


def test_a_writing_process_that_stays_away_is_replaced(own_service: LiveService) -> None:
    """After its last limit it is killed: what it had is rolled back, the next writes are carried out by another."""
    own_service.environment = {**IMPATIENT, "PASSBOOK_WRITE_RESTART_S": "2"}
    own_service.start()
    client = own_service.client()
    client.credit("1", 1000)
    pid = own_service.writer_pid
    with _waiting(own_service) as ask, _stopped_at(own_service, ask, "begun") as begun:
        assert _code(begun.result(END_S)) == (503, "outcome_unknown")
        until(lambda: _ready(client) == (200, "ok"), "no other process writes")
    assert own_service.writer_pid != pid
    again = client.write("/v1/debits", DEBIT, key="begun")
    assert (again.status_code, "Idempotency-Replayed" in again.headers) == (201, False)
    assert client.get("/v1/users/1/balance").json()["balance"] == 999
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


@pytest.mark.parametrize("twice", [False, True], ids=["within the grace", "asked twice"])
def test_a_stopped_writing_process_does_not_keep_the_service_from_ending(own_service: LiveService, twice: bool) -> None:
    """SIGTERM: it ends within its grace, asked twice at once; the process is killed, and the exit code says so."""
    own_service.environment = {**IMPATIENT, "PASSBOOK_SHUTDOWN_GRACE_S": "600" if twice else "2"}
    own_service.environment["PASSBOOK_WRITE_TIMEOUT_S"] = "900"
    own_service.start()
    client = own_service.client()
    client.credit("1", 1000)
    pid = own_service.writer_pid
    assert own_service.process is not None
    with _waiting(own_service) as ask, _stopped_at(own_service, ask, "begun") as begun:
        until(lambda: _ready(client) == (503, "stalled"), "/readyz does not tell")
        own_service.process.send_signal(signal.SIGTERM)
        if twice:
            until(lambda: _is_closed(own_service), "it does not stop")
            own_service.process.send_signal(signal.SIGTERM)
        assert _end(own_service) == 3, own_service.said
        if twice:
            with contextlib.suppress(httpx.HTTPError):  # cut off, or told
                assert _code(begun.result(END_S)) == (503, "outcome_unknown")
        else:
            assert _code(begun.result(END_S)) == (503, "outcome_unknown")
    assert re.search(r"^The writing process did not answer for \d+ s and was killed\.$", own_service.said, re.M)
    assert "Traceback" not in own_service.said
    assert _state(pid) in {"", "Z"}
    own_service.start()
    assert own_service.client().write("/v1/debits", DEBIT, key="begun").status_code == 201
    assert own_service.client().get("/v1/users/1/balance").json()["balance"] == 999
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


def _is_closed(service: LiveService) -> bool:
    try:
        httpx.get(f"{service.url}/livez", timeout=5)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        pass  # it was accepted, and cut off when the service stopped
    return False


def test_a_disk_that_does_not_answer_is_seen_and_does_not_keep_the_service_from_ending(tmp_path: Path) -> None:
    """A frozen file system: reads and probes go on, writers are told, SIGTERM ends the service though the writing
    process cannot even be killed; the next start names it, and after the thaw each key has its one answer."""
    with freezable_disk(tmp_path / "disk") as disk:
        service = LiveService(disk / "passbook.db", {**IMPATIENT, "PASSBOOK_SHUTDOWN_GRACE_S": "2"}).start()
        try:
            client = service.client()
            client.credit("1", 1000)
            pid = service.writer_pid
            with _waiting(service) as ask, frozen(disk):
                # The first read after a commit is the one that SQLite would write to its index for.
                assert client.get("/v1/users/1/balance", timeout=END_S).json()["balance"] == 1000
                begun = ask("begun")
                until(lambda: _ready(client) == (503, "stalled"), "/readyz does not tell")
                assert client.get("/readyz").json()["reads"] == "ok"
                assert client.get("/livez").status_code == 200
                assert client.get("/v1/deposits").status_code == 200
                assert client.get("/v1/users/1/balance").status_code == 200
                assert client.get("/v1/audit-logs").status_code == 200
                assert _code(client.write("/v1/debits", DEBIT, key="refused")) == (503, "writes_stalled")
                assert _code(begun.result(END_S)) == (503, "outcome_unknown")
                assert service.process is not None
                service.process.send_signal(signal.SIGTERM)
                assert service.process.wait(END_S) == 3
                assert _state(pid) == "D"
                refused = passbook("serve", "--port", "0", "--database", str(service.database))
                assert refused.returncode == 1
                assert "is in use by process" in refused.stderr
            until(lambda: _state(pid) in {"", "Z"}, "the killed process has not ended")
            service.stop(code=3)
            assert "has not ended: its disk does not answer." in service.said
            service.start()
            answers = [service.client().write("/v1/debits", DEBIT, key=key) for key in ("begun", "refused")]
            assert [answer.status_code for answer in answers] == [201, 201]
            assert service.client().get("/v1/users/1/balance").json()["balance"] == 998
            assert service.stop() == 0
            assert broken_invariants(service.database) == []
        finally:
            if service.process is not None:
                service.kill()


def test_a_checkpoint_that_does_not_get_on_disk_is_refused_in_time(tmp_path: Path) -> None:
    """On a frozen file system those who ask are answered after a limit, and the others meanwhile; then it is signed."""
    with freezable_disk(tmp_path / "disk") as disk:
        service = LiveService(disk / "passbook.db").start()
        try:
            client = service.client()
            client.credit("1", 1000)
            with frozen(disk), ThreadPoolExecutor(3) as pool:
                asked = [pool.submit(service.client().get, "/v1/audit-logs/checkpoint") for _ in range(3)]
                assert client.get("/v1/users/1/balance").status_code == 200
                assert {_code(one.result(END_S)) for one in asked} == {(503, "not_ready")}
            signed = client.get("/v1/audit-logs/checkpoint")
            assert signed.status_code == 200
            assert service.stop() == 0
        finally:
            if service.process is not None:
                service.kill()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux's")
def test_a_writing_process_that_cannot_be_started_is_started_when_it_can(own_service: LiveService) -> None:
    """Without descriptors: first those that were kept for it, then 503 with nothing begun, and readyz that recovers."""
    own_service.start()
    assert own_service.process is not None
    service = own_service.process.pid
    client = own_service.client()
    client.credit("1", 1000)
    unlimited = resource.prlimit(service, resource.RLIMIT_NOFILE)

    def kill_writer() -> None:
        pid = own_service.writer_pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: _state(pid) in {"", "Z"}, "it does not die")

    used = max(int(number) for number in os.listdir(f"/proc/{service}/fd"))
    resource.prlimit(service, resource.RLIMIT_NOFILE, (used + 1, unlimited[1]))
    for number in range(2):
        kill_writer()
        assert client.write("/v1/debits", DEBIT, key=f"kept-{number}").status_code == 201
    kill_writer()
    resource.prlimit(service, resource.RLIMIT_NOFILE, (3, unlimited[1]))
    refused = client.write("/v1/debits", DEBIT, key="refused")
    assert _code(refused) == (503, "writes_stalled")
    assert "nothing was begun" in refused.json()["detail"]
    assert int(refused.headers["Retry-After"]) >= 1
    for _ in range(20):  # while it is tried again and again
        assert _ready(client) == (503, "not_started")
        time.sleep(0.1)
    assert "Too many open files" in client.get("/readyz").json()["detail"]
    resource.prlimit(service, resource.RLIMIT_NOFILE, unlimited)
    until(lambda: _ready(client) == (200, "ok"), "/readyz does not recover")
    done = client.write("/v1/debits", DEBIT, key="refused")
    assert (done.status_code, "Idempotency-Replayed" in done.headers) == (201, False)
    assert client.get("/v1/users/1/balance").json()["balance"] == 997
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


def test_who_is_turned_away_keeps_no_descriptor_from_others(own_service: LiveService) -> None:
    """A low limit, a thousand idle connections, and the writing process killed: the next caller writes in seconds.

    Those that are turned away are open for a moment longer. Where no descriptor is left, that moment is over.
    """
    own_service.under = ("sh", "-c", 'ulimit -n 120 && exec "$@"', "sh")
    own_service.start().client().credit("1", 1000)
    url = httpx.URL(own_service.url)
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(socket.create_connection((url.host, url.port or 0), END_S))
        os.kill(own_service.writer_pid, signal.SIGKILL)
        client = own_service.client()
        client.timeout = httpx.Timeout(END_S / 2)

        def writes() -> bool:
            with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):  # it is turned away itself
                return client.write("/v1/debits", DEBIT, key="late").status_code == 201
            return False

        until(writes, "a write is taken", within_s=END_S)
    assert own_service.stop() == 0


_STOPS_AT_ITS_START = """\
import os, signal, sys
if "service.storage.connection_process" in sys.orig_argv and os.path.exists(os.environ["STOPS"]):
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def stopping_start(own_service: LiveService, tmp_path: Path) -> Path:
    """While this file is there, a writing process of `own_service` stops before it has done anything."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_STOPS_AT_ITS_START)
    stops = tmp_path / "stops"
    own_service.environment = {
        **IMPATIENT, "PASSBOOK_WRITE_RESTART_S": "2", "PYTHONPATH": f"{folder}:{CHECKOUT}", "STOPS": str(stops)
    }  # fmt: skip
    own_service.start()
    own_service.client().credit("1", 1000)
    stops.touch()
    return stops


@contextmanager
def _starting(service: LiveService) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A start of `service` whose writing process has stopped: the start, and that process."""
    environment = {**os.environ, **service.environment}
    with subprocess.Popen(
        service.command(), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as start:
        service.process = start
        pid = service.writer_pid
        until(lambda: _state(pid) == "T", "the writing process does not stop")
        yield start, pid
        service.process = None


def test_a_writing_process_that_hangs_while_it_starts_is_replaced(
    own_service: LiveService, stopping_start: Path
) -> None:
    """Like one that hangs in a commit: /readyz tells of it, it is killed, and another one is started."""
    client, pid = own_service.client(), own_service.writer_pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: _ready(client) == (503, "stalled"), "/readyz does not tell")
    hung = own_service.writer_pid
    assert (_state(hung), hung == pid) == ("T", False)
    until(lambda: _ready(client) == (503, "not_started"), "it is not killed")
    assert _code(client.write("/v1/debits", DEBIT, key="refused")) == (503, "writes_stalled")
    stopping_start.unlink()
    until(lambda: _ready(client) == (200, "ok"), "no other process writes")
    assert client.write("/v1/debits", DEBIT, key="refused").json()["balance_after"] == 999
    assert own_service.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=lambda number: number.name)
def test_a_start_that_hangs_is_ended_by_a_signal(
    own_service: LiveService, stopping_start: Path, number: signal.Signals
) -> None:
    """It ends in order, its writing process is gone, and the next start is taken."""
    assert own_service.stop() == 0
    with _starting(own_service) as (start, pid):
        start.send_signal(number)
        said, _ = start.communicate(timeout=END_S)
        assert (start.returncode, said) == (0, "Stopped.\n")
    assert _state(pid) in {"", "Z"}
    stopping_start.unlink()
    own_service.start()
    assert own_service.client().get("/v1/users/1/balance").json()["balance"] == 1000
    assert own_service.stop() == 0


def test_a_start_that_hangs_ends_by_itself_with_a_sentence(own_service: LiveService, stopping_start: Path) -> None:
    """After the time of PASSBOOK_WRITE_RESTART_S, and before it a line in the log that says what is waited for."""
    assert own_service.stop() == 0
    with _starting(own_service) as (start, pid):
        said, _ = start.communicate(timeout=END_S)
        told, error = said.splitlines()
        assert json.loads(told)["message"] == "the writing process has not opened the database for 1 s"
        assert error == (
            "Error: The writing process did not open the database within 2 s and was killed."
            " Does the disk of the database answer?"
        )
        assert start.returncode == 1
    assert _state(pid) in {"", "Z"}
    stopping_start.unlink()
    own_service.start()
    assert own_service.stop() == 0


def test_a_service_that_was_killed_under_load_starts_again_at_once(own_service: LiveService, tmp_path: Path) -> None:
    """However much had queued: the writing process ends with it, and the next start need not wait for the queue."""
    own_service.start()
    client = own_service.client()
    users = [f"91{n:03d}" for n in range(10)]
    for user in users:
        client.credit(user, 100_000)
    changes = [{"telegram_id": users[n % 10], "amount": -1, "reason": "load"} for n in range(1000)]

    def ask(number: int) -> None:
        with contextlib.suppress(httpx.HTTPError, RuntimeError):  # the service is gone, and its clients are closed
            body = {"changes": [{**c, "reference": f"{number}-{i}"} for i, c in enumerate(changes)]}
            status = own_service.client().write("/v1/balance-changes", body).status_code
            assert status in {200, 429, 503}, "cut off, carried out, refused, or not known"

    with ThreadPoolExecutor(100) as pool:
        asked = [pool.submit(ask, number) for number in range(100)]
        until(lambda: _metric(client, "passbook_writer_queue_depth") >= 32, "nothing queues")
        pid = own_service.writer_pid
        assert own_service.process is not None
        own_service.process.kill()
        own_service.process.wait(START_TIMEOUT_S)
        began = time.monotonic()
        own_service.kill_alone()
        own_service.start()
        ready_s = time.monotonic() - began
        assert own_service.client().get("/readyz").status_code == 200
        for one in asked:
            one.result(END_S)
    assert _state(pid) in {"", "Z"}
    assert ready_s < START_TIMEOUT_S, ready_s
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="only strace can hold a read of another process up")
def test_probes_are_answered_while_a_read_holds_the_event_loop(own_service: LiveService, tmp_path: Path) -> None:
    """A disk that does not answer reads: /livez is 200 and /readyz 503 over new connections, and then all goes on."""
    own_service.start()
    assert own_service.process is not None
    pid = own_service.process.pid
    client = own_service.client()
    client.credit("1", 1000)
    log = tmp_path / "strace"
    # The thread of the event loop alone; what was committed since its last read is read from the log.
    strace = ["strace", "-qq", "-p", str(pid), "-o", str(log), "-e", "trace=pread64"]
    tracer = subprocess.Popen([*strace, "-e", "inject=pread64:delay_enter=8000000:when=1"], stderr=subprocess.DEVNULL)
    try:
        until(lambda: f"TracerPid:\t{tracer.pid}" in _status(pid), "strace does not come")
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(own_service.client().write, "/v1/debits", DEBIT, key="held")
            until(lambda: _state(pid) == "t", "no read is held up")
            alive = httpx.get(f"{own_service.url}/livez", timeout=7)
            assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
            ready = httpx.get(f"{own_service.url}/readyz", timeout=2)
            assert (ready.status_code, ready.json()["reads"]) == (503, "stalled")
            assert not held.done()
            assert held.result(END_S).status_code == 201
        until(lambda: _ready(own_service.client()) == (200, "ok"), "/readyz does not recover")
        assert own_service.client().get("/v1/users/1/balance").json()["balance"] == 999
    finally:
        tracer.terminate()
        tracer.wait(END_S)
    assert own_service.stop() == 0, own_service.said


def _status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


_LEFT_BEHIND = """
import os, sys, time
from pathlib import Path
from service.storage import lock

with lock.exclusive(Path(sys.argv[1])):
    if os.fork() == 0:  # what was opened is inherited, and the lock with it
        os.close(1)
        time.sleep(600)
    os._exit(0)
"""


@pytest.mark.parametrize("ends", [True, False], ids=["ends soon", "does not end"])
def test_a_start_waits_a_little_for_what_a_killed_service_left_behind(own_service: LiveService, ends: bool) -> None:
    """The process that took the lock has ended, and one that inherited it has not: it says so, waits, and starts, or
    gives up after five seconds."""
    own_service.start()
    own_service.stop()
    command = [sys.executable, "-c", _LEFT_BEHIND, str(own_service.database)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, start_new_session=True) as left:
        assert left.stdout is not None
        left.stdout.read()
    try:
        with subprocess.Popen(
            own_service.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=CHECKOUT
        ) as start:
            assert start.stdout is not None
            assert "waiting for its end" in start.stdout.readline()
            if ends:
                os.killpg(left.pid, signal.SIGKILL)
                assert " serves " in start.stdout.readline()
                start.terminate()
                assert start.stdout.read() == "Stopped.\n"
            else:
                refusal = start.stdout.read()
                assert "is in use by process" in refusal
                assert "Traceback" not in refusal
        assert start.returncode == (0 if ends else 1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(left.pid, signal.SIGKILL)
