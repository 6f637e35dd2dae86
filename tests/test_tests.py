"""What holds for every test: it ends, it looks at what it is told, it needs no other test, it waits in one way."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import order, outside, vacuous
from tests.live import CHECKOUT
from tests.some import some

TESTS = CHECKOUT / "tests"
WAITS = {"sleep", "wait"}
ENDS_BY_ITSELF = {
    "waiting.py": "it is the one place",
    "faults/flood.py": "a flood lasts as long as it was told to",
    "faults/rows/power_loss.py": "the clients end after a count of requests",
    "faults/rows/syscalls.py": "the clients end after a count of requests",
    "faults/test_log_size.py": "it writes until its own deadline",
    "faults/test_memory.py": "it measures until a flood of fixed length ends",
    "api/test_audit_exports.py": "it reads slowly until its own deadline",
    "api/test_rate_limits.py": "it measures until the requests are answered",
    "stateful/served.py": "whoever started the thread has the deadline",
    "test_connections.py": "each turn of the event loop takes a step",
    "test_http_protocol.py": "it ends with the connection, and the exchange has a deadline",
    "faults/disks.py": "it ends when the disk is full",
}
"""Loops with a pause that end by themselves, and why."""

BADLY_BEHAVED = """
import asyncio, subprocess, sys, time
import httpx, pytest
from tests import bounds
from tests.faults import wire
from tests.live import passbook

bounds.GRACE_S = 2
STARTED = [sys.executable, "-c", "import time; time.sleep(600)", "started-by-a-test"]

def answered(status):
    transport = httpx.MockTransport(lambda request: httpx.Response(status, text="because"))
    with httpx.Client(transport=transport, base_url="http://passbook") as client:
        return client.post("/v1/debits")

def test_throws_a_refusal_away():
    answered(409)

def test_throws_a_failure_away():
    answered(500)

def test_looks_at_a_refusal():
    assert answered(409).status_code == 409

def test_reads_a_refusal():
    assert answered(409).text == "because"

def test_throws_a_success_away():
    answered(201)

def test_throws_an_exit_code_away():
    passbook("no-such-command")

def test_looks_at_an_exit_code():
    assert passbook("no-such-command").returncode == 2

ENDS_WITH_3 = [sys.executable, "-c", "import sys; sys.exit(3)"]

def test_runs_what_fails_and_does_not_look():
    subprocess.run(ENDS_WITH_3, check=False)

def test_waits_for_what_fails_and_does_not_look():
    subprocess.Popen(ENDS_WITH_3).wait()

def test_asks_only_whether_it_has_ended():
    process = subprocess.Popen(ENDS_WITH_3)
    process.wait()
    assert process.poll() is not None

def test_looks_at_the_exit_codes_of_processes():
    assert subprocess.run(ENDS_WITH_3, check=False).returncode != 0
    assert subprocess.Popen(ENDS_WITH_3).wait() == 3
    assert subprocess.run(ENDS_WITH_3, check=False, stderr=subprocess.PIPE).stderr == b""
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(ENDS_WITH_3, check=True)

def test_kills_what_it_started():
    process = subprocess.Popen(STARTED)
    process.kill()
    process.wait()

def answered_by_hand():
    async def one(reader, writer):
        writer.write(b"HTTP/1.1 503 Service Unavailable\\r\\nContent-Length: 7\\r\\n\\r\\nbecause")
        writer.close()
    async def exchange():
        async with await asyncio.start_server(one, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            (answer,) = await wire.at_once(url, [(wire.Request("/v1/debits", "{}", "key"), "")])
            return answer
    return asyncio.run(exchange())

def test_throws_an_answer_by_hand_away():
    answered_by_hand()

def test_looks_at_an_answer_by_hand():
    assert answered_by_hand().status == 503

@pytest.mark.timeout(1)
def test_loops_for_ever():
    while True:
        time.sleep(0.01)

@pytest.mark.timeout(1)
def test_waits_for_ever_for_what_it_started():
    process = subprocess.Popen(STARTED)
    try:
        process.wait()
    finally:
        process.wait()  # as a pool of threads does: only the end of the process ends it
"""
STUBBORN = """
import time, pytest
from tests import bounds

bounds.GRACE_S = 1

@pytest.mark.timeout(1)
def test_that_nothing_ends():
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass
"""


def _pytest(folder: Path, text: str, *more: str) -> "subprocess.CompletedProcess[str]":
    """A run of a file of tests under the rules of this one."""
    path = folder / "test_behaviour.py"
    path.write_text(text, "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-v", "-c",
               str(CHECKOUT / "pyproject.toml"), "--rootdir", str(folder), str(path), *more]  # fmt: skip
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=200, check=False)


def test_a_test_that_hangs_or_does_not_look_fails(tmp_path: Path) -> None:
    """Each with what it did; what it started is ended, and the tests beside it pass."""
    done = _pytest(tmp_path, BADLY_BEHAVED)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.findall(f"{order.SETTING}=(.*) repeats it", done.stdout) == [order.choose()] * 2, "at both ends"
    assert set(re.findall(r"^(?:FAILED|ERROR) \S+::test_(\w+)", done.stdout, re.M)) == {
        "throws_a_refusal_away",
        "throws_a_failure_away",
        "throws_an_exit_code_away",
        "runs_what_fails_and_does_not_look",
        "waits_for_what_fails_and_does_not_look",
        "asks_only_whether_it_has_ended",
        "throws_an_answer_by_hand_away",
        "loops_for_ever",
        "waits_for_ever_for_what_it_started",
    }, done.stdout
    assert "POST http://passbook/v1/debits was answered 409: because" in done.stdout
    assert "POST http://passbook/v1/debits was answered 500: because" in done.stdout
    assert "-m service.cli no-such-command ended with 2: " in done.stdout
    assert done.stdout.count("-c import sys; sys.exit(3) ended with 3") >= 3
    assert "over a connection by hand: HTTP/1.1 503 Service Unavailable: because" in done.stdout
    assert "Failed: Timeout (>1.0s) from pytest-timeout" in done.stdout
    assert "time.sleep(0.01)" in done.stdout, "where it hung is not shown"
    assert re.search(r"test_waits_for_ever_for_what_it_started hangs after its time: .*started-by-a-test", done.stderr)
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"started-by-a-test" in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""


def test_a_test_that_cannot_be_failed_ends_its_process(tmp_path: Path) -> None:
    """It takes no exception: its stacks are printed and pytest ends, for a worker to be replaced."""
    done = _pytest(tmp_path, STUBBORN)
    assert done.returncode == 1
    assert re.search(r"test_that_nothing_ends hangs though its processes were killed\. It stands here:", done.stderr)
    assert re.search(r'File ".*test_behaviour\.py", line \d+ in test_that_nothing_ends', done.stderr)


STARTS_A_PROCESS = """
import subprocess, sys

def test_starts_one_unseen():
    getattr(subprocess, "r" + "un")([sys.executable, "-c", ""], check=True)
"""


@pytest.mark.parametrize(
    ("module", "name", "leads"),
    [
        ("tests.live", "passbook", True),
        ("tests.live", "LiveService", True),
        ("tests.live", "CHECKOUT", False),
        ("tests.conftest", "service", True),
        ("tests.conftest", "local_d1", True),
        ("tests.conftest", "every_failure_is_looked_at", False),
        ("tests.test_tests", "_pytest", True),
        ("tests.test_tests", "test_a_test_that_cannot_be_failed_ends_its_process", True),
        ("tests.test_tests", "_items", False),
        ("tests.storage.test_connection_process", "test_what_is_raised_there_is_raised_here", True),
    ],
)
def test_what_starts_a_process_is_told_by_its_text(module: str, name: str, leads: bool) -> None:
    """Through whatever functions, classes and modules of tests/: `make check` leaves such a test out."""
    assert outside.leads_outside(module, name) is leads


def test_a_process_that_the_text_does_not_tell_fails_its_test_in_make_check(tmp_path: Path) -> None:
    """The failure says what to do; `make test` runs the same test as it is."""
    assert _pytest(tmp_path, STARTS_A_PROCESS).returncode == 0
    failed = _pytest(tmp_path, STARTS_A_PROCESS, "-m", "not outside and not long")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "make check runs no test that starts a process (subprocess.Popen" in failed.stdout
    assert "mark it pytest.mark.long" in failed.stdout


def _items(*names: str) -> list[Any]:
    return [SimpleNamespace(path=name.partition("::")[0], nodeid=name) for name in names]


def test_an_order_is_repeated_by_its_number_and_keeps_files_together() -> None:
    """Whatever else is selected, two tests stand in the same order under the same number."""
    items = _items(*(f"{file}::test_{n}" for file in ("b", "a") for n in range(30)))
    names = [item.nodeid for item in order.ordered(items, "7")]
    assert names == [item.nodeid for item in order.ordered(items, "7")]
    assert sorted(names) == sorted(item.nodeid for item in items)
    assert [name[0] for name in names] == ["b"] * 30 + ["a"] * 30
    some = items[::3]
    chosen = {item.nodeid for item in some}
    assert [item.nodeid for item in order.ordered(some, "7")] == [name for name in names if name in chosen]
    assert names != [item.nodeid for item in order.ordered(items, "8")] != [item.nodeid for item in items]
    assert order.ordered(items, "written") == items
    assert order.ordered(items, "reversed") == items[29::-1] + items[:29:-1]


def _ci(folder: Path, **settings: str) -> list[str]:
    """The lines that `.ci/run` prints, with a make that says its order and fails."""
    scripts = {"dpkg-query": "echo ok installed", "make": 'echo "made $TESTS_ORDER"; exit 3', "git": 'echo "$COMMIT"'}
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        (folder / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != order.SETTING}
    environment |= settings | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run([CHECKOUT / ".ci/run"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    return done.stdout.splitlines()


def test_the_whole_check_of_each_commit_has_another_order_and_prints_how_to_repeat_it(tmp_path: Path) -> None:
    """Before and after what may fail. A commit keeps its order, and so does an order that is given."""
    repeat = "The order of the tests: TESTS_ORDER={0} .ci/run repeats it."

    def of(commit: str) -> str:
        first, made, last = _ci(tmp_path, COMMIT=commit)
        assert first == last == repeat.format(int(made.removeprefix("made ")))
        return made

    commits = [f"{n:040x}"[::-1] for n in range(1, 6)]
    orders = [of(commit) for commit in commits]
    assert len(set(orders)) == len(commits)
    assert of(commits[0]) == orders[0]
    assert _ci(tmp_path, COMMIT="0", TESTS_ORDER="7") == [repeat.format(7), "made 7", repeat.format(7)]


def _waiting_loops(tree: ast.AST) -> list[int]:
    """The lines of loops that pause or do nothing until something else has happened."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.While):
            called = {ast.unparse(one.func).rpartition(".")[2] for one in ast.walk(node) if isinstance(one, ast.Call)}
            if called & WAITS or all(isinstance(one, ast.Pass) for one in node.body):
                found.append(node.lineno)
    return found


def test_what_waits_has_a_deadline() -> None:
    """Whoever waits says so to tests/waiting.py, which fails in time and says what did not come."""
    names = {str(path.relative_to(TESTS)): path for path in TESTS.rglob("*.py")}
    loops = {
        name: lines
        for name, path in names.items()
        if not name.startswith("benchmarks/") and (lines := _waiting_loops(ast.parse(path.read_text("utf-8"))))
    }
    assert loops["waiting.py"]
    unbounded = {name: lines for name, lines in loops.items() if name not in ENDS_BY_ITSELF}
    assert unbounded == {}, "use tests.waiting.until"
    assert ENDS_BY_ITSELF.keys() - loops.keys() == set(), "no such loop is there any more: take it off the list"


MAY_BE_NOTHING = """
def test(rows, *more):
    for row in rows:
        assert row
    for number, row in enumerate(rows):
        with pytest.raises(ValueError):
            row()
    assert all(row for row in rows if row)
    assert all(map(bool, more))
    for one in [row for row in (1, 2) if row > 2]:
        assert one
    for one in ():
        assert one
    for one in KNOWN:
        for part in one.parts:
            assert part
    KNOWN = rows
    for one in zip(rows, MADE):
        assert one
    two, three = rows, 3
    for one in two:
        assert one
"""
IS_SOMETHING = """
MADE = {"a": 1}
def test(rows):
    for row in some(rows):
        assert row
    for row in rows:
        row.go()
    for name, value in MADE.items():
        assert value
    for number in range(len(rows)):
        assert number
    tried = [name.upper() for name in ("a", *rows)]
    for pair in zip(rows, sorted(tried), strict=True):
        assert pair
    assert all(row for row in some(rows))
    return all(rows)

@given(st.lists())
def test_whatever_is_drawn(rows):
    assert all(rows)
"""


def _gone_over(text: str) -> list[str]:
    return [ast.unparse(one) for one in vacuous.over_nothing(ast.parse(text))]


def test_a_loop_over_what_may_be_nothing_is_found() -> None:
    """One over what is written down, over `some(…)`, without an assertion, or under Hypothesis is none."""
    assert _gone_over(IS_SOMETHING) == []
    assert _gone_over(MAY_BE_NOTHING) == [
        "rows",
        "enumerate(rows)",
        "rows",
        "map(bool, more)",
        "[row for row in (1, 2) if row > 2]",
        "()",
        "KNOWN",
        "one.parts",
        "zip(rows, MADE)",
        "two",
    ]


def test_loops_of_assertions_go_over_something() -> None:
    """Where a fault leaves nothing to go over, the test fails."""
    files = {str(path.relative_to(TESTS)): path.read_text("utf-8") for path in TESTS.rglob("*.py")}
    assert len(files) > 200
    found = {name: over for name, text in files.items() if (over := _gone_over(text))}
    assert found == {}, "go over tests.some.some(…) of it"
    assert list(some(iter("ab"))) == ["a", "b"]
    with pytest.raises(AssertionError, match="there was nothing to check"):
        list(some(iter("")))
