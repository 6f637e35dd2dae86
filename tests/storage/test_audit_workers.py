"""The processes that share the proof of the audit log: what they find is what one finds, and none is missed."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import resources
from service.storage import audit_workers, migrator, sqlite
from service.storage.audit_verification import ChainCheck
from service.storage.audit_workers import Workers, WorkersFailed
from tests.live import CHECKOUT, PASSBOOK, passbook
from tests.some import some
from tests.storage.test_audit_verification import append, by_hand

ROWS = 3_000
AT_A_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests in the background ignores it, and so would this
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed log."""
    path = tmp_path_factory.mktemp("log") / "passbook.db"
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        migrator.up(connection, migrator.load(resources.folder("migrations")), lambda _: None)
        append(connection, ROWS)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@contextlib.contextmanager
def checking(path: Path, jobs: int) -> Iterator[tuple[ChainCheck, Workers | None]]:
    with (
        contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as connection,
        audit_workers.started(path, jobs, busy_timeout_ms=0) as workers,
    ):
        yield ChainCheck(connection, workers=workers, rows_at_once=100), workers


def found_by(path: Path, jobs: int) -> tuple[int, bytes, list[tuple[int | None, str]]]:
    """Rows, root and faults."""
    with checking(path, jobs) as (check, _):
        for _ in check.chunks():
            pass
        return check.checked, check.root, [(fault.audit_log_id, fault.said) for fault in check.faults]


@pytest.mark.parametrize("jobs", [2, 3])
def test_several_find_what_one_finds(path: Path, jobs: int, tmp_path: Path) -> None:
    """On a sound log and on a changed one: the same rows, root and words."""
    assert found_by(path, jobs) == found_by(path, 1)
    assert found_by(path, 1)[2] == []
    changed = tmp_path / "changed.db"
    changed.write_bytes(path.read_bytes())
    with by_hand(changed) as hand:
        hand.execute("UPDATE audit_logs SET actor = 'admin' WHERE id IN (1234, 2345)")
        hand.execute("UPDATE audit_nodes SET hash = zeroblob(32) WHERE position = 9")
    alone = found_by(changed, 1)
    assert (alone[0], alone[2][0][0]) == (1233, 1234)
    assert found_by(changed, jobs) == alone


WRONG_IN_A_RANGE = {
    "a row of another actor": "UPDATE audit_logs SET actor = 'admin' WHERE id = 700",
    "a row that is gone": "DELETE FROM audit_logs WHERE id = 700",
    "a leaf that is gone": "DELETE FROM audit_leaves WHERE audit_log_id = 1024",
    "the leaf before it is gone": "DELETE FROM audit_leaves WHERE audit_log_id = 512",
    "another leaf before it": "UPDATE audit_leaves SET hash = zeroblob(32) WHERE audit_log_id = 512",
    "a node that tells other times": "UPDATE audit_nodes SET created_at_max = '1999' WHERE level = 8 AND position = 3",
    "a node that tells other ids": "UPDATE audit_nodes SET first_id = first_id + 1 WHERE level = 8 AND position = 3",
}


@pytest.mark.parametrize("wrong", WRONG_IN_A_RANGE)
def test_a_worker_vouches_for_a_range_only_where_all_of_it_is_right(path: Path, wrong: str, tmp_path: Path) -> None:
    """Of what is wrong it says that it did not prove the range, which is then proved by the one that asked."""
    changed = tmp_path / "changed.db"
    changed.write_bytes(path.read_bytes())
    with by_hand(changed) as hand:
        hand.execute(WRONG_IN_A_RANGE[wrong])
    for file, vouched in ((path, True), (changed, False)):
        with contextlib.closing(sqlite.connect_reader(file, busy_timeout_ms=0)) as connection:
            assert (audit_workers.check_range(connection, 512, 1024) is not None) == vouched, file.name


def test_a_killed_worker_is_no_finding(path: Path) -> None:
    """Neither sound nor changed: an error that says what to do."""
    with checking(path, 2) as (check, workers):
        chunks = check.chunks()
        next(chunks)
        assert workers is not None
        victim = workers.processes[0]
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        with pytest.raises(WorkersFailed, match=r"ended by signal 9, so that nothing is known.* --jobs 1"):
            list(chunks)
        assert check.checked < ROWS


def test_workers_end_with_the_block(path: Path) -> None:
    """Also when it is left early."""
    with checking(path, 3) as (check, workers):
        assert workers is not None
        next(check.chunks())
    assert all(process.returncode is not None for process in some(workers.processes))


def test_a_worker_ends_with_its_input(path: Path) -> None:
    """So it outlives no killed parent."""
    with audit_workers.started(path, 2, busy_timeout_ms=0) as workers:
        assert workers is not None
        stdin = workers.processes[0].stdin
        assert stdin is not None
        stdin.close()
        assert workers.processes[0].wait(timeout=30) == 0


def test_a_small_log_is_not_worth_a_process() -> None:
    """A worker's start takes as long as some ten thousand rows; more than the processors are of no use."""
    usable = len(os.sched_getaffinity(0))
    assert audit_workers.jobs_for(0) == audit_workers.jobs_for(399_999) == 1
    assert audit_workers.jobs_for(10**9) == usable


@pytest.mark.parametrize(("command", "code"), [("audit verify", 0), ("integrity", 1)])
def test_the_commands_say_the_same_with_any_number_of_jobs(path: Path, command: str, code: int) -> None:
    """But for the time. (The log is sound; that it tells of deposits that are not there is found by the other.)"""
    answers = []
    for jobs in ("1", "2"):
        done = passbook(*command.split(), "--json", "--jobs", jobs, "--database", str(path))
        answer = json.loads(done.stdout)
        for name in ("seconds", "started_at", "finished_at", "duration_ms"):
            answer.pop(name, None)
        answers.append((done.returncode, done.stderr, answer))
    assert answers[0] == answers[1]
    assert answers[0][0] == code


def test_no_jobs_are_refused(path: Path) -> None:
    """By name, with what is possible."""
    refused = passbook("audit", "verify", "--jobs", "0", "--database", str(path))
    assert refused.returncode == 2
    assert "Invalid value for '--jobs': 0 is not in the range 1<=x<=64." in refused.stderr


def test_ctrl_c_ends_all_of_it(path: Path, tmp_path: Path) -> None:
    """Typed at a terminal: exit code 2, one sentence, and no process is left."""
    large = tmp_path / "large.db"
    large.write_bytes(path.read_bytes())
    with contextlib.closing(sqlite.connect_writer(large, busy_timeout_ms=0, checkpoints=True)) as connection:
        append(connection, 160_000)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL, *PASSBOOK, "audit", "verify", "--jobs", "2", "--database", str(large)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(follower)
    shown = b""
    while b"verifying" not in shown:
        shown += os.read(leader, 4096)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    for child in children:  # so that none is done before it is told
        os.kill(int(child), signal.SIGSTOP)
    os.write(leader, b"\x03")
    for child in children:
        os.kill(int(child), signal.SIGCONT)
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while piece := os.read(leader, 4096):
            shown += piece
    os.close(leader)
    assert process.wait(timeout=30) == 2
    assert b"It was stopped." in shown
    assert b"Traceback" not in shown
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
