"""Every test ends: what ends one that hangs, and the processes that it started.

pytest-timeout fails a test in its time and prints where each thread stands. The test may hang again while it is wound
up, for it waits for a thread that waits for a process. So its processes are killed next; at last this process ends.
"""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import forks

STARTED_BY = "TESTS_STARTED_BY"
"""The environment's word for the process of pytest that started a process, directly or not."""
GRACE_S = 30
"""How long a test that was failed for its time may take to wind up, and again after its processes were killed."""


def begin() -> int:
    """Marks what this process will start. Returns a descriptor of its stderr as it is while nothing is captured."""
    os.environ[STARTED_BY] = str(os.getpid())
    return os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)


def kill_started(*, phase: str = "") -> list[str]:
    """SIGKILL to every process that this one started, and to what those started; their command lines.

    With a phase ("call" of a test), only to those that were started in it.
    """
    killed = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it has just ended, or is somebody else's
                if _was_started(entry, phase):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed.append(command)
    return killed


def _was_started(entry: Path, phase: str) -> bool:
    """By its environment, which a process hands on to those that it starts."""
    given = forks.environment_of(int(entry.name))
    environment = (
        [f"{name}={value}" for name, value in given.items()]
        if given is not None
        else (entry / "environ").read_bytes().decode(errors="replace").split("\0")
    )
    during = [one for one in environment if one.startswith("PYTEST_CURRENT_TEST=") and one.endswith(f"({phase})")]
    return f"{STARTED_BY}={os.getpid()}" in environment and (not phase or bool(during))


@contextmanager
def bounded(within_s: float, stderr: int, name: str) -> Iterator[None]:
    """The block ends in this time and twice the grace, or this process does after it has printed its stacks."""

    def kill() -> None:
        os.write(stderr, f"\n{name} hangs after its time: {kill_started()} were killed.\n".encode())

    def leave() -> None:
        os.write(stderr, f"\n{name} hangs though its processes were killed. It stands here:\n".encode())
        faulthandler.dump_traceback(stderr)
        os._exit(1)

    steps: list[tuple[float, Callable[[], None]]] = [(within_s + GRACE_S, kill), (within_s + 2 * GRACE_S, leave)]
    timers = [threading.Timer(after_s, step) for after_s, step in steps]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
