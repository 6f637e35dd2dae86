"""Answers and exit codes that tell of a failure, until the test has looked at them.

A test that throws a refusal away goes on with less than it believes: its request changed nothing. Each such answer is
kept here from its arrival until something reads its status or body. What is left at the end of a test fails it.
"""

import subprocess
import threading
from typing import Any

import httpx

FAILURE_MIN = 400
"""The first HTTP status that tells of a failure."""
LOOKS = {
    *("status", "status_code", "is_success", "is_error", "is_client_error", "is_server_error", "raise_for_status"),
    *("body", "content", "text", "json", "iter_lines"),
    *("returncode", "stderr", "check_returncode"),
}
"""Reading one of these is a look."""

_lock = threading.Lock()
_unseen: dict[int, tuple[object, str]] = {}


class Watched:
    """Base of what came back. A look at it takes it off the list."""

    def __getattribute__(self, name: str) -> Any:
        if name in LOOKS:
            with _lock:
                _unseen.pop(id(self), None)
        return super().__getattribute__(name)


class Response(Watched, httpx.Response):
    """An answer of httpx."""


class Ended(Watched, subprocess.CompletedProcess[str]):
    """A command that has ended."""


def keep(answer: Watched, what: str) -> None:
    """Lists a failure that nobody has looked at yet; `what` is the line that a failing test shows."""
    with _lock:
        _unseen[id(answer)] = (answer, what)


def unseen() -> list[str]:
    """What nobody looked at since the last call."""
    with _lock:
        left = [what for _, what in _unseen.values()]
        _unseen.clear()
    return left


def response(answer: httpx.Response) -> httpx.Response:
    """The same answer, kept if its status tells of a failure."""
    if answer.status_code >= FAILURE_MIN:
        body = answer.text if answer.is_closed else "…"
        answer.__class__ = Response
        keep(answer, f"{answer.request.method} {answer.request.url} was answered {answer.status_code}: {body[:300]}")  # type: ignore[arg-type]
    return answer


def ended(done: "subprocess.CompletedProcess[str]") -> "subprocess.CompletedProcess[str]":
    """The same end of a command, kept if its exit code tells of a failure."""
    if done.returncode != 0:
        said = f"{' '.join(map(str, done.args))} ended with {done.returncode}: {done.stderr[-300:]}"
        done.__class__ = Ended
        keep(done, said)  # type: ignore[arg-type]
    return done


def watch_httpx() -> None:
    """From now on every client of httpx keeps the failures that it receives."""
    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def watched(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        return response(send(client, request, **options))

    async def watched_async(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        return response(await send_async(client, request, **options))

    httpx.Client.send = watched  # type: ignore[method-assign]
    httpx.AsyncClient.send = watched_async  # type: ignore[method-assign]
