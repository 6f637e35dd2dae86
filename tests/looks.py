"""Answers and exit codes that tell of a failure, until the test has looked at them.

A test that throws a refusal away goes on with less than it believes: its request changed nothing. Each such answer is
kept here from its arrival until something reads its status or body; an exit code, until something compares or shows it.
What is left at the end of a test fails it.
"""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx

FAILURE_MIN = 400
"""The first HTTP status that tells of a failure."""
LOOKS = {
    *("status", "status_code", "is_success", "is_error", "is_client_error", "is_server_error", "raise_for_status"),
    *("body", "content", "text", "json", "iter_lines"),
}
"""Reading one of these is a look."""
COMPARISONS = ("__eq__", "__ne__", "__lt__", "__gt__", "__hash__", "__bool__", "__neg__", "__repr__", "__format__")
"""What is done to an exit code when somebody looks at it; that it is there is not asked by any of these."""
SENT = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
"""The ends that a test brings about itself, by a signal."""

_lock = threading.Lock()
_unseen: dict[int, tuple[object, str]] = {}


class Watched:
    """Base of what came back. A look at it takes it off the list."""

    def __getattribute__(self, name: str) -> Any:
        if name in LOOKS:
            _look(self)
        return super().__getattribute__(name)


class Response(Watched, httpx.Response):
    """An answer of httpx."""


class Code(int):
    """An exit code but 0. Looking at it takes it off the list; waiting for it does not."""


class Ended(subprocess.CompletedProcess[Any]):
    """A command that has ended. Who reads what it says about its failure looks too."""

    def __getattribute__(self, name: str) -> Any:
        if name == "stderr":
            _look(super().__getattribute__("returncode"))
        return super().__getattribute__(name)


def _look(at: object) -> None:
    with _lock:
        _unseen.pop(id(at), None)


def keep(answer: object, what: str) -> None:
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
        keep(answer, f"{answer.request.method} {answer.request.url} was answered {answer.status_code}: {body[:300]}")
    return answer


def ended(done: "subprocess.CompletedProcess[Any]") -> "subprocess.CompletedProcess[Any]":
    """The same end of a command; if its exit code is kept, it is with what the command said."""
    if isinstance(done.returncode, Code):
        keep(done.returncode, f"{_ended_with(done)}: {str(done.stderr)[-300:]}")
        done.__class__ = Ended
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


def watch_subprocess() -> None:
    """From now on the exit codes of the processes that tests start are kept too."""
    for name in COMPARISONS:
        setattr(Code, name, _looking(getattr(int, name)))
    subprocess.Popen.returncode = property(_code, _ends)  # type: ignore[assignment, misc]
    run = subprocess.run

    def watched(*arguments: Any, **options: Any) -> "subprocess.CompletedProcess[Any]":
        return ended(run(*arguments, **options))

    subprocess.run = watched  # type: ignore[assignment]


def _looking(of_int: Any) -> Any:
    def look(code: Code, *others: Any) -> Any:
        _look(code)
        return of_int(code, *others)

    return look


def _code(process: "subprocess.Popen[Any]") -> int | None:
    return process.__dict__["returncode"]  # type: ignore[no-any-return]


def _ends(process: "subprocess.Popen[Any]", code: int | None) -> None:
    """Takes the place of the attribute: it is None until the process has ended."""
    mine = process.__dict__
    if code is None:
        mine["is_of_a_test"] = _is_called_by_a_test()
    elif code and code not in SENT and mine["is_of_a_test"]:
        code = Code(code)
        mine["returncode"] = code
        keep(code, _ended_with(process))
    mine["returncode"] = code


def _ended_with(process: "subprocess.Popen[Any] | subprocess.CompletedProcess[Any]") -> str:
    command = process.args if isinstance(process.args, str | bytes | Path) else " ".join(map(str, process.args))
    return f"{command!s} ended with {int(process.returncode)}"


def _is_called_by_a_test() -> bool:
    """The service starts processes too, and ends them in its own way."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"] in {__name__, "subprocess"}:
        frame = frame.f_back
    return str(frame.f_globals["__name__"]).startswith("test")
