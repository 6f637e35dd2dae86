"""What the benchmarks start: servers that say "ready URL", wrk; what memory and disk a server and its children take."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tests.benchmarks.figures import Load
from tests.live import CHECKOUT

PEERS = os.environ.get("BENCH_PEERS", str(CHECKOUT / ".venv-bench" / "bin" / "python"))
"""The Python that has what tests/benchmarks/requirements.lock names; `make bench` makes it."""
_LUA = Path(__file__).with_name("load.lua")


class Server:
    """A child process that prints "ready URL". Lifetime: from its making to `kill`."""

    def __init__(self, module: str, *arguments: str, python: str = sys.executable) -> None:
        self.process = subprocess.Popen(
            [python, "-m", module, *arguments],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not said.startswith("ready "):
            self.kill()
            raise SystemExit(f"{module} {' '.join(arguments)} did not start (it said {said!r}).")
        self.url = said.split()[1]

    def kill(self) -> None:
        """SIGKILL to it and to all below it, and waits for the end."""
        if self.process.poll() is None:
            for pid in tree(self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def serving(module: str, *arguments: str, python: str = sys.executable) -> Iterator[Server]:
    """The server for the block."""
    server = Server(module, *arguments, python=python)
    try:
        yield server
    finally:
        server.kill()


class Wrk:
    """Load on one server with one key: `users` users, who have the telegram ids from 1000000 on."""

    def __init__(self, url: str, key: str, *, users: int) -> None:
        self._url = url
        self._environment = {**os.environ, "API_KEY": key, "USERS": str(users)}

    def start(self, kind: str, run: str, *, connections: int, seconds: float) -> "subprocess.Popen[str]":
        """wrk under way, with requests of `kind` (see load.lua); `run` is never used twice on a database."""
        command = ["wrk", f"-t{min(2, connections)}", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s"]
        return subprocess.Popen(
            [*command, "-s", str(_LUA), self._url],
            env={**self._environment, "KIND": kind, "RUN": run},
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, kind: str, run: str, *, connections: int, seconds: float) -> Load:
        """One round."""
        process = self.start(kind, run, connections=connections, seconds=seconds)
        said, _ = process.communicate()
        return msgspec.json.decode(said.splitlines()[-1], type=Load)

    def sound(self, kind: str, run: str, *, connections: int, seconds: float) -> Load:
        """One round in which every answer must be a success."""
        load = self.run(kind, run, connections=connections, seconds=seconds)
        assert load.requests > 0, f"{kind} {run}: no answers"
        assert load.not_2xx == load.broken == 0, f"{kind} {run}: {load}"
        return load


def tree(pid: int) -> list[int]:
    """A process and all below it, parents first."""
    found = [pid]
    for one in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def rss_mib(pid: int) -> float:
    """Resident memory of a process and of all below it, in MiB; what they share counts once for each."""
    return _summed(pid, "status", "VmRSS:") / 1024


def disk_reads(pid: int) -> int:
    """Bytes that a process and those below it had the disk read since they began: what was not in the page cache."""
    return _summed(pid, "io", "\nread_bytes:")


def _summed(pid: int, file: str, label: str) -> int:
    """The number after `label` in that file of /proc, of a process and of all below it."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int(Path(f"/proc/{one}/{file}").read_text().partition(label)[2].split()[0])
    return total


def output_of(command: Sequence[str]) -> str:
    """What a command printed. Raises RuntimeError, with what it complained of, when it did not succeed."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}".strip())
    return done.stdout
