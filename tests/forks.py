"""Commands of Passbook as processes that need not load its modules first: a server that has loaded them forks.

Each is a process of its own, which a shell's differs from in nothing but the third of a second that it takes to load.
What an interpreter or a library reads when it starts cannot be handed on. So a command whose environment has another
value of such a variable is started by itself, and so is all that `make coverage` measures.
"""

import atexit
import inspect
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import coverage

from tests.fork_server import REQUEST_BYTES_MAX

HANDED_ON = ("PASSBOOK_", "PYTEST_CURRENT_TEST", "TESTS_")
"""How the variables begin that are read by the service when it runs, or by tests alone."""
_ANSWER_BYTES = 32
_CHECKOUT = Path(__file__).parents[1]

_lock = threading.Lock()
_running: "weakref.WeakValueDictionary[int, _Forked]" = weakref.WeakValueDictionary()


def environment() -> dict[str, str]:
    """What commands get of the environment of the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PASSBOOK_")}
    return {**kept, "PYTHONPATH": str(_CHECKOUT), "PYTHONUTF8": "1"}


def environment_of(pid: int) -> Mapping[str, str] | None:
    """That of a process that was forked; /proc tells its server's. None for all others."""
    found = _running.get(pid)
    return found.environment if found is not None and found.returncode is None else None


def popen(
    command: Sequence[str], env: Mapping[str, str], *, stderr: int = subprocess.PIPE, session: bool = False
) -> "subprocess.Popen[str]":
    """Starts `python -m service.cli …` with pipes of UTF-8: forked where that is the same as started.

    `stderr`: subprocess.PIPE, or STDOUT. `session`: whether it begins one.
    """
    with _lock:
        server = _server() if command[:3] == [sys.executable, "-m", "service.cli"] else None
        how = _Forked if server is not None and server.may_fork(env) else subprocess.Popen
        return how(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            encoding="utf-8",
            start_new_session=session,
        )


class _Server:
    """The server of this process."""

    def __init__(self) -> None:
        env = environment()
        self._fixed, self._owner = _fixed(env), os.getpid()
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env.pop("PYTEST_CURRENT_TEST", None)  # it is no test's alone
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=_CHECKOUT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
        self.has_loaded = bool(self.socket.recv(_ANSWER_BYTES)) or self._process.wait() == 0

    def is_ours(self) -> bool:
        """Whether this process started it, and nobody has killed it since."""
        return self._owner == os.getpid() and (self._process.poll() is None or not self.has_loaded)

    def may_fork(self, env: Mapping[str, str]) -> bool:
        """Whether a process with this environment would have started as the server did. None would where a module
        cannot be loaded; whoever needs it says so."""
        return self.has_loaded and _fixed(env) == self._fixed

    def end(self) -> None:
        """It ends when nobody asks any more."""
        self.socket.close()
        if self._owner == os.getpid():
            self._process.wait()


_servers: list[_Server] = []
_STARTS = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


def _server() -> _Server | None:
    """The server, started if there is none. None outside of tests, and where coverage is measured: it must be there
    from a program's start."""
    if "PYTEST_CURRENT_TEST" not in os.environ or coverage.Coverage.current() is not None:
        return None
    if not _servers or not _servers[-1].is_ours():
        _servers[:] = [_Server()]
        atexit.register(_servers[-1].end)
    return _servers[-1]


def _fixed(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith(HANDED_ON)}


class _Forked(subprocess.Popen[str]):
    """A child of the server, which tells how it ends."""

    environment: Mapping[str, str] = {}
    _told = -1

    def _execute_child(self, *given: Any) -> None:
        """Called by Popen with the descriptors that it has made, where it would fork and execute."""
        asked = _STARTS.bind(self, *given).arguments
        self.environment = asked["env"]
        self._told, tell = os.pipe()
        request = {
            "command": [*asked["args"]],
            "environment": {**asked["env"]},
            "folder": str(Path.cwd()),
            "umask": _umask(),
            "session": asked["start_new_session"],
        }
        server = _servers[-1].socket
        try:
            sent = json.dumps(request).encode()
            assert len(sent) <= REQUEST_BYTES_MAX
            descriptors = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
            socket.send_fds(server, [sent], [*descriptors, tell])
            self.pid = int(server.recv(_ANSWER_BYTES))
        finally:
            os.close(tell)
            self._close_pipe_fds(*(asked[name] for name in _PIPES))  # type: ignore[attr-defined]
        self._child_created = True
        _running[self.pid] = self

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """Called by Popen where it would wait for a child of its own. (0, 0) where the child has not ended yet."""
        if wait_flags & os.WNOHANG:
            told = select.poll()
            told.register(self._told, select.POLLIN)
            if not told.poll(0):
                return 0, 0
        status = os.read(self._told, _ANSWER_BYTES)
        os.close(self._told)
        return self.pid, int(status or signal.SIGKILL)  # nothing is told where the server was killed, with its children

    def _internal_poll(self, _deadstate: int | None = None) -> int | None:
        """Called by Popen.poll."""
        return super()._internal_poll(_deadstate, self._waitpid_by_server, os.WNOHANG)  # type: ignore[misc, no-any-return]

    def _waitpid_by_server(self, _pid: int, wait_flags: int) -> tuple[int, int]:
        return self._try_wait(wait_flags)


def _umask() -> int:
    """Without changing it, as `os.umask` would for the other threads."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("Umask:")[2].split()[0], 8)
