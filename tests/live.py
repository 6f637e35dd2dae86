"""A real Passbook: the command line's `serve` as a process of its own, on a free port of the loopback interface."""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests import forks, looks
from tests.waiting import until

PASSBOOK = (sys.executable, "-m", "service.cli")
CHECKOUT = Path(__file__).parents[1]
START_TIMEOUT_S = 30
END_TIMEOUT_S = 90
"""How long a service may take to end: more than all the time that it gives to those who wait."""
_COMMAND_TIMEOUT_S = 120
_SERVES = re.compile(r"serves .* at (http://\S+) \(docs")


def passbook(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`passbook …` as a person would type it; a failure is an answer, which the test must look at.

    A `serve` is expected to be refused. One that serves would never end: it is killed, and fails the test.
    """
    command, whole = [*PASSBOOK, *arguments], {**forks.environment(), **(env or {})}
    if arguments[0] == "serve":
        return looks.ended(_refused_serve(command, whole))
    with forks.popen(command, whole) as process:
        try:
            output, errors = process.communicate(timeout=_COMMAND_TIMEOUT_S)
        except BaseException:
            process.kill()
            raise
    return looks.ended(subprocess.CompletedProcess(command, process.returncode, output, errors))


def _refused_serve(command: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    with forks.popen(command, env, session=True) as process, ThreadPoolExecutor(1) as pool:
        assert process.stdout is not None
        assert process.stderr is not None
        late = threading.Timer(_COMMAND_TIMEOUT_S, os.killpg, (process.pid, signal.SIGKILL))
        late.start()
        errors = pool.submit(process.stderr.read)
        lines = []
        try:
            for line in process.stdout:
                lines.append(line)
                if _SERVES.search(line):
                    os.killpg(process.pid, signal.SIGKILL)
                    raise AssertionError(f"this start was to be refused, and it serves: {' '.join(command)}")
            code = process.wait()
        finally:
            late.cancel()
        return subprocess.CompletedProcess(command, code, "".join(lines), errors.result())


@dataclass
class LiveService:
    """A running service, its first admin key, and keys made for it. `stop` or `kill` ends it; it can start again."""

    database: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    admin_key: str = ""
    said: str = ""
    arguments: tuple[str, ...] = ()
    """More of `passbook serve`."""
    under: tuple[str, ...] = ()
    """A program with its arguments that becomes the service, such as `strace -D`."""
    process: "subprocess.Popen[str] | None" = None
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _clients: "list[Client]" = field(default_factory=list)
    _rest: list[str] = field(default_factory=list)
    _drain: threading.Thread | None = None

    def start(self) -> "LiveService":
        """Starts the process and waits for the line that says it serves."""
        self.process = forks.popen(
            [*self.under, *self.command()],
            {**forks.environment(), **self.environment},
            stderr=subprocess.STDOUT,
            session=True,
        )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            served = _SERVES.search(line)
            if served:
                self.url = served[1]
                break
        else:
            raise AssertionError("passbook serve ended: " + "".join(lines))
        if not self.admin_key:
            while not line.startswith("Make narrower keys"):
                line = next(self.process.stdout)
                lines.append(line)
            self.admin_key = re.search(r"First admin key, shown only now: (\S+)", "".join(lines))[1]  # type: ignore[index]
        self.said = "".join(lines)
        # A service whose pipe is full would wait for a reader of its log.
        self._rest = []
        self._drain = threading.Thread(target=self._rest.extend, args=(self.process.stdout,), daemon=True)
        self._drain.start()
        return self

    def command(self) -> list[str]:
        """What is started."""
        return [*PASSBOOK, "serve", "--database", str(self.database), "--port", "0", *self.arguments]

    @property
    def writer_pid(self) -> int:
        """The process that has the writing connection; waits for the next one where the last has just ended."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")

        def found() -> int | None:
            for pid in children.read_text().split():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    if b"connection_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return int(pid)
            return None

        return int(until(found, "a process has the writing connection", within_s=START_TIMEOUT_S) or 0)

    def signal_all(self, number: signal.Signals) -> None:
        """The signal to each of its processes, as a terminal or a service manager sends it."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def stop(self, *, code: int | None = 0) -> int:
        """SIGTERM to the process that was started; the exit code, which must be `code` unless that is None."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        ended = self._end()
        assert code in {None, ended}, f"passbook serve ended with {ended}: {self.said}"
        return ended

    def kill(self) -> int:
        """SIGKILL to each of its processes, as a power cut would; the exit code."""
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            self.signal_all(signal.SIGKILL)
        return self._end()

    def kill_alone(self) -> int:
        """SIGKILL to the process that speaks HTTP; the exit code, when the one that writes has ended too."""
        assert self.process is not None
        self.process.kill()
        return self._end()

    def _end(self) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        assert self._drain is not None
        try:
            code = self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.signal_all(signal.SIGKILL)
            self.process.wait(START_TIMEOUT_S)
            raise AssertionError(f"passbook serve did not end in {END_TIMEOUT_S} s: {''.join(self._rest)}") from None
        # Its pipe is open for as long as the process that writes lives.
        self._drain.join(START_TIMEOUT_S)
        assert not self._drain.is_alive(), "passbook serve ended, and a process that it started did not"
        self.said += "".join(self._rest)
        self.process.stdout.close()
        self.process = None
        while self._clients:
            self._clients.pop().close()
        return code

    def make_key(self, *arguments: str) -> str:
        """A new key by the command line, beside the running service: make_key("--role", "bot")."""
        name = f"test-{next(self._numbers)}"
        if "--name" not in arguments:
            arguments = ("--name", name, *arguments)
        made = passbook("keys", "create", "--database", str(self.database), *arguments)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    def client(self, key: str | None = None) -> "Client":
        """An HTTP client with the admin key, or another (\"\" for none); closed when the service ends."""
        self._clients.append(Client(self.url, self.admin_key if key is None else key))
        return self._clients[-1]


class Client(httpx.Client):
    """httpx with a key; `write` is a POST with a new Idempotency-Key unless one is given."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        super().__init__(base_url=url, headers=headers, timeout=30)

    def write(self, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> httpx.Response:
        """POST `body` as JSON; bytes are sent as they are, None as no body at all."""
        sent = {"Idempotency-Key": key or str(uuid.uuid4()), "Content-Type": "application/json", **headers}
        if body is None or isinstance(body, bytes):
            return self.post(path, content=body, headers=sent)
        return self.post(path, json=body, headers=sent)

    def credit(self, telegram_id: str, amount: int) -> dict[str, Any]:
        """Announces and confirms a deposit; the answer of the confirmation."""
        announced = self.write(
            "/v1/deposits", {"telegram_id": telegram_id, "amount": amount, "depositor_name": "홍길동"}
        )
        assert announced.status_code == 201, announced.text
        confirmed = self.write(f"/v1/deposits/{announced.json()['id']}/confirm", {})
        assert confirmed.status_code == 200, confirmed.text
        answer: dict[str, Any] = confirmed.json()
        return answer
