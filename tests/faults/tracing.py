"""strace: what a process asks of the system, put on record or made to fail at a chosen call."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.live import START_TIMEOUT_S
from tests.waiting import until

SYNCS = "fsync,fdatasync"
"""Which of them SQLite calls differs from one build to the next."""


def why_not() -> str:
    """Why strace cannot be used here; empty when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed (on Debian: apt-get install strace)"
    tried = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "this system does not let strace trace a process"


@contextmanager
def attached(
    pid: int, record: Path, *, calls: str, inject: Sequence[str] = (), paths: Sequence[Path] = ()
) -> Iterator[None]:
    """Traces a running process and its threads for the block; the `record` of its `calls` grows meanwhile.

    `inject` is what strace calls so, such as "fsync:error=EIO:when=3"; with `paths` only calls on these files count.
    """
    arguments = ["strace", "-f", "-y", "-o", str(record), "-e", f"trace={calls}", "-p", str(pid)]
    for text in inject:
        arguments += ["-e", f"inject={text}"]
    for path in paths:
        arguments += ["-P", str(path)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            _wait_until_attached(tracer)
            yield
        finally:
            _end(tracer)


def _end(tracer: "subprocess.Popen[str]") -> None:
    """Lets strace detach; one that waits for a thread of a killed process, which never comes, is killed."""
    tracer.terminate()
    try:
        tracer.communicate(timeout=1)
    except subprocess.TimeoutExpired:
        tracer.kill()
        tracer.communicate()


def _wait_until_attached(tracer: "subprocess.Popen[str]") -> None:
    assert tracer.stderr is not None
    for line in tracer.stderr:
        if "attached" in line:
            return
        if "No such process" in line:
            raise ProcessLookupError(line)
    raise AssertionError("strace ended before it was attached")


def recording(record: Path, calls: str) -> tuple[str, ...]:
    """A program that becomes the one named after it, all of whose bytes strace puts on record beside it."""
    return ("strace", "-D", "-f", "--seccomp-bpf", "-y", "-xx", "-qq", "-s", "4000000", "-o", str(record),
            "-e", f"trace={calls}", "-e", "signal=none")  # fmt: skip


def whole(record: Path) -> str:
    """The record of a `recording` whose program has ended; strace, which looks on, may end a little later."""
    until(lambda: not _is_open(record), "strace ends after the program has ended", within_s=START_TIMEOUT_S)
    return record.read_text("utf-8")


def _is_open(path: Path) -> bool:
    """Whether any process has `path` open."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(descriptor) == str(path):
                return True
    return False
