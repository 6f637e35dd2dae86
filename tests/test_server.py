"""The server as a process: how many connections it takes, what it does when there are no more descriptors."""

import asyncio
import contextlib
import os
import re
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service import server
from service.connections import Bounds, Connections
from service.measures import Measures
from tests.live import LiveService
from tests.some import some
from tests.waiting import until

LIMITED = 320
"""Descriptors: so many that 148 are left for connections."""
TIMEOUT_S = 20


def connect(service: LiveService) -> socket.socket:
    """A connection."""
    target = urlsplit(service.url)
    return socket.create_connection((str(target.hostname), int(target.port or 0)), TIMEOUT_S)


def metric(service: LiveService, name: str) -> float:
    """A figure of /metrics, over a connection of its own."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", service.client("").get("/metrics").text, re.M)
    assert found, name
    return float(found[1])


def limited(service: LiveService, soft: int, hard: int) -> LiveService:
    """The service, not started, with that limit of open files."""
    service.under = ("sh", "-c", f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"', "sh")
    return service


def is_open(connection: socket.socket) -> bool:
    """Whether the service has not ended it."""
    readable, _, _ = select.select([connection], [], [], 0)
    return not readable


def test_the_limit_of_open_files_is_raised_to_the_hard_one(own_service: LiveService) -> None:
    """A shell's 1,024 would be too few for 4,096 connections."""
    limited(own_service, 256, 8192).start()
    assert own_service.process is not None
    found = re.search(r"^Max open files +(\d+) ", Path(f"/proc/{own_service.process.pid}/limits").read_text(), re.M)
    assert found is not None
    assert found[1] == "8192"
    assert metric(own_service, "passbook_connections_limit") == 4096


@pytest.mark.parametrize("asked", [False, True], ids=["never asked anything", "idle between two requests"])
def test_idle_connections_lock_nobody_out(own_service: LiveService, asked: bool) -> None:
    """Five times as many as there may be: the oldest go, whoever comes is answered, and a killed writer comes back."""
    limited(own_service, LIMITED, LIMITED).start()
    assert "at most 136 connections" in own_service.said
    client = own_service.client()
    client.credit("7", 100)
    with ExitStack() as stack:
        idle = []
        for number in range(5 * 136):
            idle.append(stack.enter_context(contextlib.closing(connect(own_service))))
            if asked:
                idle[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                assert idle[-1].recv(1000).startswith(b"HTTP/1.1 200")
            if number % 136 == 0:
                answer = own_service.client().get("/v1/users/7/balance")
                assert (answer.status_code, answer.json().get("balance")) == (200, 100), answer.text
        os.kill(own_service.writer_pid, 9)
        debit = {"telegram_id": "7", "amount": 1, "reason": "a"}
        until(lambda: own_service.client().write("/v1/debits", debit).status_code == 201, "the writer comes back")
        assert metric(own_service, "passbook_connections_open") <= 136
        assert metric(own_service, 'passbook_connections_cut_total{reason="idle"}') > 4 * 100
        assert [is_open(one) for one in idle[-50:]] == [True] * 50
        assert not any(is_open(one) for one in idle[:200])
    assert own_service.stop() == 0
    assert "were idle while others needed their place" in own_service.said


def is_read(connection: socket.socket) -> bool:
    """Whether the service has taken all that was sent to it: the system keeps nothing for it any more."""
    mine, its = connection.getsockname()[1], connection.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if (local[-4:], remote[-4:]) == (f"{its:04X}", f"{mine:04X}"):
            return queues.endswith(":00000000")
    return False


@pytest.fixture
def crowded(own_service: LiveService) -> Iterator[tuple[LiveService, int]]:
    """A service with eight places, all taken by requests that wait for the audit log; the id they wait behind."""
    own_service.environment = {"PASSBOOK_CONNECTIONS_MAX": "8"}
    own_service.start()
    key = own_service.admin_key
    newest = own_service.client().get("/v1/audit-logs?limit=1").json()["items"][0]["id"]
    with ExitStack() as stack:
        for _ in range(8):
            one = stack.enter_context(contextlib.closing(connect(own_service)))
            one.sendall(
                f"GET /v1/audit-logs?follow={newest}&wait=60 HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {key}\r\n\r\n".encode()
            )
            until(partial(is_read, one), "the service has read the request")
        yield own_service, newest


def test_one_too_many_is_told_so(crowded: tuple[LiveService, int]) -> None:
    """503 with Retry-After, whatever and whenever it asks, and never a reset that takes that back."""
    service, _ = crowded
    for late in (False, True, False, True):
        with contextlib.closing(connect(service)) as one:
            if late:
                time.sleep(0.2)
            one.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while part := one.recv(1000):
                received += part
        assert received.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in received
        assert b'"code":"overloaded"' in received
    service.make_key("--role", "bot")  # a row of the audit log, which they waited for

    def has_place() -> bool:
        with contextlib.suppress(OSError), service.client() as client:
            return client.get("/livez").status_code == 200
        return False

    until(has_place, "a place is free", every_s=0.05)
    turned_away = metric(service, 'passbook_connections_cut_total{reason="turned_away"}')
    assert turned_away >= 4
    assert metric(service, 'passbook_refusals_total{code="overloaded"}') == turned_away, "a refusal is not counted"


def test_no_descriptors_are_a_pause_and_not_an_end(own_service: LiveService) -> None:
    """With the limit lowered under what is open, nothing is taken, at little cost; raised again, all is as before."""
    own_service.start()
    assert own_service.process is not None
    pid = own_service.process.pid
    client = own_service.client()
    assert client.get("/livez").status_code == 200
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, hard))
    with ExitStack() as stack:
        waiting = [stack.enter_context(contextlib.closing(connect(own_service))) for _ in range(50)]
        for one in waiting:
            one.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        began = _ticks(pid)
        time.sleep(2)
        assert _ticks(pid) - began < os.sysconf("SC_CLK_TCK") / 2
        assert all(is_open(one) for one in some(waiting))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        for one in some(waiting):
            assert one.recv(1000).startswith(b"HTTP/1.1 200")
    assert own_service.client().get("/livez").status_code == 200
    assert own_service.stop() == 0
    assert own_service.said.count("no connection can be taken") >= 1


def _ticks(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def test_the_limit_that_is_too_low_for_the_setting_is_told(own_service: LiveService) -> None:
    """At the start, in the log."""
    limited(own_service, LIMITED, LIMITED).start()
    assert metric(own_service, "passbook_connections_limit") == 136
    assert own_service.stop() == 0
    assert "at most 136 connections are taken: the limit of open files leaves no more" in own_service.said


def test_who_is_turned_away_gives_its_descriptor_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept open for a moment, so that its answer arrives; where no descriptor is left, that moment is over."""
    monkeypatch.setattr(server, "_ACCEPT_AGAIN_S", 0.05)

    async def turned_away() -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            first, second = (stack.enter_context(socket.socket()) for _ in range(2))
            nothing_free = Connections(Bounds(connections=0), Measures([]))
            accepting = server._Accepting(listener, nothing_free, pytest.fail, lambda _code: None)
            accepting.start()
            stack.callback(accepting.stop)
            for client in (first, second):
                client.setblocking(False)
                await loop.sock_connect(client, listener.getsockname())
                async with asyncio.timeout(TIMEOUT_S):
                    assert (await loop.sock_recv(client, 4096)).startswith(b"HTTP/1.1 503")
                if client is first:
                    stack.enter_context(no_descriptor_is_free())

    asyncio.run(turned_away())


@contextlib.contextmanager
def no_descriptor_is_free() -> Iterator[None]:
    """This process may have as many as it has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    fillers = []
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for filler in fillers:
            os.close(filler)
