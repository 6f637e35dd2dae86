"""The stand-in for an event loop that waits for a disk. The loop is held here by the very questions that are asked."""

import asyncio
import json
import socket
from collections.abc import Callable

import pytest

from service.ledger.errors import ErrorCode
from service.lifeguard import Lifeguard
from tests.waiting import until_async

SILENT_S = 0.1


def _asked(address: tuple[str, int], target: str, method: str = "GET", *, wait_s: float = 30) -> tuple[int, str]:
    """Status and body over a new connection. A refusal says when to come back. Raises TimeoutError."""
    with socket.create_connection(address, wait_s) as connection:
        connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.decode().partition("\r\n\r\n")
    status = int(head.split()[1])
    assert ("retry-after: 5" in head.split("\r\n")) is (status == 503), f"when to come back is not told: {head}"
    return status, body


def _while_held(is_held: Callable[[], bool] | None, asks: Callable[[tuple[str, int]], None]) -> list[ErrorCode]:
    """Asks from within the loop's thread, so that the loop does not turn meanwhile; the refusals that were counted."""
    counted: list[ErrorCode] = []

    async def run(listener: socket.socket) -> None:
        async with Lifeguard(listener, counted.append, is_held=is_held, silent_s=SILENT_S).running():
            await asyncio.sleep(0)
            asks(listener.getsockname())
            assert counted == [], "only the loop may count, and it has not turned"

    with socket.create_server(("127.0.0.1", 0)) as listener:
        asyncio.run(run(listener))
    return counted


def test_probes_are_answered_while_the_loop_waits_for_a_disk() -> None:
    """/livez says that it lives; whatever else is asked for is 503, with what does not work."""

    def asks(address: tuple[str, int]) -> None:
        assert _asked(address, "/livez") == (200, '{"status":"ok"}')
        assert _asked(address, "/livez", "HEAD") == (200, "")
        for target, method in (("/readyz", "GET"), ("/v1/users", "POST"), ("/livez", "POST"), ("", "\x00")):
            status, body = _asked(address, target, method)
            problem = json.loads(body)
            assert (status, problem["code"], problem["reads"]) == (503, "not_ready", "stalled")

    # What was well is no refusal.
    assert _while_held(lambda: True, asks) == [ErrorCode.NOT_READY] * 4


def test_who_says_nothing_does_not_keep_the_next_one_waiting() -> None:
    """A connection without a request is closed, and the next one answered."""

    def asks(address: tuple[str, int]) -> None:
        silent = [socket.create_connection(address, 30) for _ in range(3)]
        assert _asked(address, "/livez")[0] == 200
        for connection in silent:
            assert connection.recv(1) == b""
            connection.close()

    _while_held(lambda: True, asks)


@pytest.mark.long
def test_a_loop_that_is_only_busy_is_not_stood_in_for() -> None:
    """Its thread does not wait for a disk: whoever restarts what does not answer is right to do so."""

    def asks(address: tuple[str, int]) -> None:
        with pytest.raises(TimeoutError):
            _asked(address, "/livez", wait_s=2)

    _while_held(None, asks)


@pytest.mark.long
def test_a_loop_that_turns_again_has_the_port_for_itself() -> None:
    """The stand-in ends with the wait: every connection that comes then is left to the service; refusals count."""

    async def run(listener: socket.socket) -> None:
        counted: list[ErrorCode] = []
        address = listener.getsockname()
        lifeguard = Lifeguard(listener, counted.append, is_held=lambda: True, silent_s=1)
        async with lifeguard.running():
            await asyncio.sleep(0)
            assert _asked(address, "/readyz")[0] == 503
            before = lifeguard.beat
            await until_async(lambda: lifeguard.beat != before, "the loop beats", every_s=0)
            assert counted == [ErrorCode.NOT_READY]
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(_asked, address, "/livez", wait_s=1)

    for _ in range(3):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            asyncio.run(run(listener))
