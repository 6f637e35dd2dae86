"""Work is counted, not timed: statements for each operation, waits for the disk for each commit, system calls.

A regression of speed is most often more work, and more work can be counted on any machine, however busy it is.
"""

import http.client
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.storage import sqlite
from tests.benchmarks.storage import Ledger
from tests.live import LiveService, passbook
from tests.repository.house import make_database
from tests.waiting import until

STATEMENTS_MAX = {"announce": 8.2, "debit": 9.2, "changes": 8.2}
"""For each operation, or change of a batch, with the triggers that fire and its leaf; a node for 256 leaves is more.
Rows are written fifty to a statement."""
COMMIT_STATEMENTS_MAX = 12
"""What a commit needs once, whatever it carries: BEGIN, COMMIT, the ends of the chain over the audit log, the next ids,
the stored answers and accounts of all its operations."""
LONE = 10
AT_ONCE = 64
REQUESTS_OF_A_COMMIT_MIN = 12
WRITES_OF_A_COMMIT_MAX = 60
"""Two for each page: its header in the log, and the page."""
CHECKPOINT_PAGES = 1000
WAKES_OF_A_READ_MAX = 1
MARK = b'"HTTP/1.1 404'
"""How an answer begins that nothing which is counted has."""
A_MESSAGE = AN_ANSWER = 1
"""Writes to a socket."""
SLOW_SYNC_US = 300_000
CALLS = "fsync,fdatasync,pwrite64,write"


class Counting:
    """A ledger in this process, and the statements of its connection so far, once more for each trigger that fired."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=False)
        self.statements: list[str] = []
        self.connection.set_trace_callback(self.statements.append)
        self.ledger = Ledger(self.connection)

    def of_batch(self, kind: str, size: int) -> int:
        """Statements of one batch of `size` operations."""
        before = len(self.statements)
        self.ledger.run([getattr(self.ledger, kind)() for _ in range(size)])
        return len(self.statements) - before


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    """A ledger whose users are there and have money."""
    made = Counting(make_database(tmp_path / "counted.db"))
    with closing(made.connection):
        made.ledger.run([made.ledger.funds()])
        yield made


@pytest.mark.parametrize("kind", ["announce", "debit"])
def test_an_operation_costs_a_few_statements_and_the_commit_a_few_for_all(counting: Counting, kind: str) -> None:
    """A batch of n operations runs a + b n statements; what is shared, a, does not grow with n."""
    few, many = counting.of_batch(kind, 50), counting.of_batch(kind, 250)
    each = (many - few) / 200
    assert each <= STATEMENTS_MAX[kind], (few, many)
    assert few - 50 * each <= COMMIT_STATEMENTS_MAX, (few, many)


def test_a_change_of_a_batch_costs_no_more_than_an_operation_of_its_own(counting: Counting) -> None:
    """A thousand balance changes are one operation and one stored answer."""
    assert counting.of_batch("changes", 1) / 1000 <= STATEMENTS_MAX["changes"]


@pytest.fixture(scope="module")
def strace() -> None:
    """strace, and the right to trace; where a container denies it the test is skipped by name."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (on Debian: apt-get install strace)")
    tried = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip("this system does not let strace trace a process")


@dataclass
class Traced:
    """A service whose writes and waits strace puts on record from its start on, those of its children too."""

    service: LiveService
    log: Path

    def since(self, mark: int) -> str:
        """What was put on record from there on: all that answered requests did."""
        self.mark()
        return self.log.read_bytes()[mark:].decode("utf-8", "replace")

    def mark(self) -> int:
        """Where the record ends. An answer may be here before its line is; so it ends with that of one more request."""
        before = self.log.read_bytes().count(MARK)
        with self.service.client() as client:
            assert client.get("/a-mark").status_code == 404
        until(lambda: self.log.read_bytes().count(MARK) > before, "strace puts the answer on record", every_s=0.001)
        return self.log.read_bytes().rindex(MARK)

    def syncs(self, mark: int) -> tuple[int, int]:
        """How often the write-ahead log was waited for since, and how often the database itself: checkpoints."""
        files = re.findall(r" f(?:data)?sync\(\d+<([^>]*)>", self.since(mark))
        name = str(self.service.database)
        return files.count(f"{name}-wal"), files.count(name)

    def writes(self, mark: int) -> int:
        """Writes to the database and its log since."""
        return len(re.findall(rf" pwrite64\(\d+<{re.escape(str(self.service.database))}", self.since(mark)))

    def wakes(self, mark: int) -> int:
        """How often a thread woke another one's event loop since."""
        return len(re.findall(r" write\(\d+<anon_inode:\[eventfd\]>", self.since(mark)))

    def sent(self, mark: int) -> int:
        """Writes to sockets since, but for the marks: answers, and messages to the process that writes."""
        return len(re.findall(rf" write\(\d+<socket:\[\d+\]>, (?!{MARK.decode()})", self.since(mark)))

    def commits(self) -> float:
        """Database transactions of the writer so far, by /metrics."""
        with self.service.client() as client:
            text = client.get("/metrics").text
        return sum(float(n) for n in re.findall(r"^passbook_writer_commits_total\{[^}]*\} (\S+)$", text, re.MULTILINE))


@contextmanager
def traced(folder: Path, *options: str) -> Iterator[Traced]:
    """A service on a database that is there already, so that only what is asked of it is counted."""
    database, log = make_database(folder / "traced.db"), folder / "trace"
    made = passbook("keys", "create", "--name", "test", "--role", "admin", "--database", str(database))
    assert made.returncode == 0, made.stderr
    # -D: the service is the child that gets the signals, and strace looks on.
    under = ("strace", "-D", "-f", "-y", "-qq", "-o", str(log), "-e", f"trace={CALLS}", *options)
    service = LiveService(database, admin_key=made.stdout.strip(), under=under).start()
    try:
        with service.client() as client:  # the first commit of a log also waits for the log's own head
            client.credit("1000000", 1)
        yield Traced(service, log)
    finally:
        assert service.stop() == 0


def test_a_lone_write_waits_for_the_disk_once(tmp_path: Path, strace: None) -> None:
    """One fdatasync of the write-ahead log for each commit and no other; few writes; one packet; no thread between."""
    with traced(tmp_path) as watched, watched.service.client() as client:
        mark, began = watched.mark(), time.monotonic()
        for number in range(LONE):
            body = {"telegram_id": "1000000", "amount": 1 + number, "depositor_name": "홍길동"}
            assert client.write("/v1/deposits", body).status_code == 201
        (log, database), writes, wakes = watched.syncs(mark), watched.writes(mark), watched.wakes(mark)
        # On a slow machine the writer may be idle for a second, and is asked then whether it is there.
        asked = int(time.monotonic() - began) * A_MESSAGE
        assert 0 <= watched.sent(mark) - LONE * (A_MESSAGE + AN_ANSWER) <= asked
        assert LONE <= log <= LONE + 2 * database, (log, database)
        assert database <= 1
        assert writes <= LONE * WRITES_OF_A_COMMIT_MAX + database * CHECKPOINT_PAGES, writes
        assert wakes == 0, wakes


def test_reads_write_nothing_and_wait_for_nothing(tmp_path: Path, strace: None) -> None:
    """A balance, a passbook, a page of the audit log: no write, no sync."""
    with traced(tmp_path) as watched, watched.service.client() as client:
        mark = watched.mark()
        for path in ("/v1/users/1000000/balance", "/v1/users/1000000/transactions", "/v1/audit-logs"):
            for _ in range(LONE):
                assert client.get(path).status_code == 200
        assert watched.syncs(mark) == (0, 0)
        assert watched.writes(mark) == 0
        assert watched.sent(mark) == 3 * LONE * AN_ANSWER
        assert watched.wakes(mark) <= 3 * LONE * WAKES_OF_A_READ_MAX


def test_requests_that_come_together_wait_for_the_disk_together(tmp_path: Path, strace: None) -> None:
    """While the disk takes its time over one commit, all that come meanwhile gather for the next."""
    with traced(tmp_path, "-e", f"inject=fsync,fdatasync:delay_exit={SLOW_SYNC_US}") as watched:
        mark, commits = watched.mark(), watched.commits()
        with ExitStack() as stack:
            target = urlsplit(watched.service.url)
            asked = [
                stack.enter_context(closing(http.client.HTTPConnection(target.netloc, timeout=60)))
                for _ in range(AT_ONCE)
            ]
            for connection in asked:
                connection.connect()
            for number, connection in enumerate(asked):
                body = {"telegram_id": "1000000", "amount": 1 + number, "depositor_name": "홍길동"}
                headers = {
                    "Authorization": f"Bearer {watched.service.admin_key}",
                    "Content-Type": "application/json",
                    "Idempotency-Key": f"together-{number}",
                }
                connection.request("POST", "/v1/deposits", body=json.dumps(body), headers=headers)
            assert {connection.getresponse().status for connection in asked} == {201}
        log, database = watched.syncs(mark)
        made = watched.commits() - commits
        assert log - 2 * database <= made <= log
        assert made * REQUESTS_OF_A_COMMIT_MIN <= AT_ONCE, f"{made} commits for {AT_ONCE} requests"
