"""Other processes that check whether ranges of the audit log are sound. A worker says only yes or no: the process that
asked finds out what is wrong with a range.

A request is one line, `start stop`, for the leaves from `start` to before `stop`. The answer is one line of JSON: a
`Sound`, or null. A worker ends when its input ends, so it never outlives its parent. It ignores the signals of the
terminal.
"""

import contextlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from service.ledger.audit_chain import NO_LEAF, Stretch, Verifier
from service.storage import audit_chain, sqlite
from service.storage.sqlite import Connection

_START = "import sys; sys.path = sys.argv[3:]; from service.storage import audit_workers; audit_workers.serve()"
_AHEAD = 3
"""How many ranges each worker has before it at most."""
_ROWS_WORTH_A_WORKER = 200_000
# What a search by time goes by; a subtree whose range lies hides its rows. Of rows that were archived it is not known,
# but it covers those that are left.
_RANGES = """
SELECT n.first_id FROM audit_nodes AS n
WHERE n.level = 8 AND n.position >= ? AND n.position < ? AND (
  n.first_id IS NOT (SELECT audit_log_id FROM audit_leaves WHERE leaf_index = n.position * 256)
  OR n.last_id IS NOT (SELECT audit_log_id FROM audit_leaves WHERE leaf_index = n.position * 256 + 255)
  OR n.first_id > (SELECT COALESCE(MAX(through_id), 0) FROM audit_prunes) AND (
    n.created_at_min IS NOT (SELECT MIN(created_at) FROM audit_logs WHERE id BETWEEN n.first_id AND n.last_id)
    OR n.created_at_max IS NOT (SELECT MAX(created_at) FROM audit_logs WHERE id BETWEEN n.first_id AND n.last_id))
  OR n.first_id <= (SELECT MAX(through_id) FROM audit_prunes) AND EXISTS (
    SELECT 1 FROM audit_logs AS a WHERE a.id BETWEEN n.first_id AND n.last_id AND typeof(a.created_at) = 'text'
      AND (+a.created_at BETWEEN n.created_at_min AND n.created_at_max) IS NOT TRUE))
ORDER BY n.position LIMIT 1"""

Ranges = Callable[[int], Iterable[tuple[int, int]]]
"""The ranges (start, stop) that follow on a number of leaves, in their order."""


class WorkersFailed(Exception):
    """A worker ended before its work. The text is one sentence that says what to do."""


class Sound(Struct, frozen=True):
    """A range whose rows are as they were sealed. before, last: id and leaf of the row before it and of its last one;
    parts: its leaves, for Frontier.extend_by.
    """

    before: tuple[int, bytes]
    last: tuple[int, bytes]
    parts: list[tuple[int, bytes]]


class Workers:
    """So many processes, each with a read-only connection of its own. Lifetime: inside `started`."""

    def __init__(self, processes: list["subprocess.Popen[bytes]"]) -> None:
        self.processes = processes
        self._turns: deque[subprocess.Popen[bytes]] = deque(processes)
        self._asked: deque[tuple[tuple[int, int], subprocess.Popen[bytes]]] = deque()
        self._ranges: Iterator[tuple[int, int]] = iter(())

    def sound(self, start: int, stop: int, ranges: Ranges) -> Sound | None:
        """Whether the leaves from `start` to before `stop` are sound; None when that is not certain.

        `ranges` says what will be asked for next: it is worked on meanwhile. Raises WorkersFailed.
        """
        if not self._asked or self._asked[0][0] != (start, stop):
            while self._asked:
                self._answer()
            self._ranges = iter(ranges(start))
        while len(self._asked) < _AHEAD * len(self.processes) and (following := next(self._ranges, None)):
            self._ask(*following)
        return self._answer()

    def _ask(self, start: int, stop: int) -> None:
        process = self._turns[0]
        self._turns.rotate(-1)
        assert process.stdin is not None
        try:
            process.stdin.write(b"%d %d\n" % (start, stop))
            process.stdin.flush()
        except BrokenPipeError as error:
            raise _failed(process) from error
        self._asked.append(((start, stop), process))

    def _answer(self) -> Sound | None:
        _, process = self._asked.popleft()
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.endswith(b"\n"):
            raise _failed(process)
        return msgspec.json.decode(line, type=Sound | None)


def _failed(process: "subprocess.Popen[bytes]") -> WorkersFailed:
    code = process.wait()
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return WorkersFailed(
        f"A process that proved a part of the audit log {how}, so that nothing is known. Run the command again, with"
        " --jobs 1 where memory is short."
    )


def jobs_for(rows: int) -> int:
    """How many processes are worth their start for so many rows: one for each usable processor, 1 for a small log."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(usable, rows // _ROWS_WORTH_A_WORKER))


@contextlib.contextmanager
def started(database: Path, jobs: int, *, busy_timeout_ms: int) -> Iterator[Workers | None]:
    """Starts `jobs` workers on the file `database` and ends them with the block. None for one job: the caller's own."""
    if jobs == 1:
        yield None
        return
    command = [sys.executable, "-c", _START, str(database.absolute()), str(busy_timeout_ms), *sys.path]
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(jobs):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
            stack.callback(_end, process)
            processes.append(process)
        yield Workers(processes)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()  # it only reads
    with contextlib.suppress(BrokenPipeError), process:  # closes its pipes
        pass
    process.wait()


def serve() -> None:
    """A worker's life. Arguments: the database, its busy timeout in milliseconds."""
    database, busy_timeout_ms = Path(sys.argv[1]), int(sys.argv[2])
    with contextlib.closing(sqlite.connect_reader(database, busy_timeout_ms=busy_timeout_ms)) as connection:
        for line in sys.stdin:
            start, stop = map(int, line.split())
            try:
                found = check_range(connection, start, stop)
            except sqlite.DatabaseError:  # whoever asked will meet it too
                found = None
            sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
            sys.stdout.flush()


def check_range(connection: Connection, start: int, stop: int) -> Sound | None:
    """Whether the leaves from `start` to before `stop` follow on the leaf before them, and the nodes above them tell
    the ids and times of their rows.
    """
    before = (0, NO_LEAF)
    if start:
        row = connection.execute(
            "SELECT audit_log_id, hash FROM audit_leaves WHERE leaf_index = ?", (start - 1,)
        ).fetchone()
        if row is None:
            return None
        before = (row[0], row[1])
    stretch = Stretch(start)
    verifier = Verifier(stretch, previous=before[1], last_id=before[0])
    fault = verifier.check(audit_chain.sealed_rows(connection, start, stop))
    if fault is not None or stretch.size < stop or first_wrong_range(connection, start, stop) is not None:
        return None
    return Sound(before, (verifier.last_id, verifier.previous), stretch.parts)


def first_wrong_range(connection: Connection, start: int, stop: int) -> int | None:
    """The first id of a node of 256 leaves, `start` to before `stop`, that tells other ids or times than its rows."""
    row = connection.execute(_RANGES, (start // 256, stop // 256)).fetchone()
    return row[0] if row else None
