"""The list of faults fits the code of today, and the suite tells a fault that was noticed from one that was not."""

import subprocess
from pathlib import Path

import pytest

from tests.live import CHECKOUT
from tests.mutants.listed import Fault, mistakes, read
from tests.mutants.suite import REPORT, Outcome, report, run_all

_WHOLE = "def total(values):\n    return sum(values)\n"
_TESTS = """
import subprocess
import sys

from service.sums import total

def test_sum():
    assert total([1, 2]) == 3, "a sum is wrong"

def test_nothing():
    assert True

def test_child():
    child = "from service.sums import total; print(total([2, 3]))"
    for environment in ({}, None):
        asked = [sys.executable, "-c", child]
        assert subprocess.check_output(asked, env=environment, cwd="/", text=True) == "5\\n", "the child's sum is wrong"

def test_status():
    assert (500 if total([1]) == 2 else 200) == 200

def test_fails():
    assert total([1]) == 0
"""
_HANGS = """import subprocess, sys, time

def total(values):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True).wait()
"""


def _fault(name: str, new: str, test: str, reason: str, *, old: str = "sum(values)", limit_s: float = 60) -> Fault:
    tests = (f"tests/test_sums.py::{test}",)
    return Fault(
        layer="made up",
        name=name,
        file="service/sums.py",
        old=old,
        new=new,
        tests=tests,
        reason=reason,
        limit_s=limit_s,
    )


_FAULTS = [
    _fault("too much", "sum(values) + 1", "test_sum", "a sum is wrong"),
    _fault("too much, seen by a child", "sum(values) + 2", "test_child", "the child's sum is wrong"),
    _fault("nobody looks", "sum(values) + 3", "test_nothing", "a sum is wrong"),
    _fault("an error", "sum(values) / 0", "test_sum", "a sum is wrong"),
    _fault("a mere 500", "sum(values) + 1", "test_status", "assert"),
    _fault("hangs", _HANGS, "test_sum", "a sum is wrong", old=_WHOLE, limit_s=3),
    _fault("hangs, as it says", _HANGS, "test_sum", "timed out", old=_WHOLE, limit_s=3),
    _fault("of another time", "", "test_sum", "a sum is wrong", old="product(values)"),
    _fault("fails anyway", "0", "test_fails", "assert"),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What became of each fault of _FAULTS in a checkout of one small file."""
    checkout = tmp_path_factory.mktemp("checkout")
    for file, text in {"service/__init__.py": "", "service/sums.py": _WHOLE, "tests/test_sums.py": _TESTS}.items():
        (checkout / file).parent.mkdir(exist_ok=True)
        (checkout / file).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    folder = tmp_path_factory.mktemp("copies")
    found = run_all(_FAULTS, checkout=checkout, folder=folder, tell=lambda _: None)
    assert (checkout / "service/sums.py").read_text() == _WHOLE
    assert [one.name for one in found] == [fault.name for fault in _FAULTS]
    return {one.name: one for one in found}


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("too much", "noticed"),
        ("too much, seen by a child", "noticed"),
        ("nobody looks", "survived"),
        ("an error", "wrong reason"),
        ("a mere 500", "wrong reason"),
        ("hangs", "timed out"),
        ("hangs, as it says", "noticed"),
        ("of another time", "does not apply"),
        ("fails anyway", "fails without it"),
    ],
)
def test_an_outcome_says_what_became_of_the_fault(outcomes: dict[str, Outcome], name: str, outcome: str) -> None:
    """Only a failure of a named test for the named reason is noticing; processes that a hanging test left are ended."""
    assert outcomes[name].outcome == outcome, outcomes[name].said


def test_what_a_hanging_fault_started_is_ended(outcomes: dict[str, Outcome]) -> None:
    """The child of a test that hung, in a session of its own, does not outlive the run."""
    assert outcomes["hangs"].seconds < 60
    left = [
        folder.name
        for folder in Path("/proc").glob("[0-9]*")
        if b"time.sleep(600)" in _command(folder) and str(CHECKOUT).encode() not in _command(folder)
        if b"/copies" in _command(folder)
    ]
    assert left == []


def _command(folder: Path) -> bytes:
    try:
        return (folder / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_report_counts_what_was_noticed() -> None:
    """A fault that survived is a line of the page, and is not counted as noticed."""
    page = report(
        [Outcome("ledger", "a", "noticed", "tests/test_a.py::test_b", 2.4), Outcome("api", "b", "survived")],
        date="2026-11-23",
        commit="1234567",
        minutes=3.2,
    )
    assert "- faults: 2\n- noticed: 1\n" in page
    assert page.endswith("| ledger | a | noticed | `test_a.py::test_b` | 2 |\n| api | b | survived |  | 0 |\n")


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        (
            {"old": "nowhere"},
            "is in service/sums.py 0 times, not once. Where the code has changed, write the same fault",
        ),
        ({"old": "s"}, "times, not once"),
        ({"file": "service/none.py"}, "is in service/none.py 0 times"),
        ({"new": "sum(values)"}, "'a' changes nothing"),
        ({"tests": ("tests/test_sums.py::test_gone",)}, "names tests/test_sums.py::test_gone, which does not exist"),
        ({"tests": ("tests/gone.py",)}, "names tests/gone.py, which does not exist"),
        ({"tests": ()}, "names no test"),
        ({"reason": ".*"}, "matches anything"),
        ({"reason": "("}, "is no regular expression"),
    ],
)
def test_a_mistake_in_the_list_is_told(tmp_path: Path, change: dict[str, object], mistake: str) -> None:
    """An entry that does not apply, or that could never be noticed, is told with what to do."""
    (tmp_path / "service").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "service/sums.py").write_text(_WHOLE)
    (tmp_path / "tests/test_sums.py").write_text(_TESTS)
    entry = {"layer": "x", "name": "a", "file": "service/sums.py", "old": "sum(values)", "new": "0", "reason": "wrong"}
    sound = {**entry, "tests": ("tests/test_sums.py::test_sum", "tests/test_sums.py")}
    assert mistakes([Fault(**sound)], tmp_path) == []  # type: ignore[arg-type]
    found = mistakes([Fault(**{**sound, **change})], tmp_path)  # type: ignore[arg-type]
    assert len(found) == 1, found
    assert mistake in found[0]


def test_every_fault_of_the_list_still_applies() -> None:
    """The old text of each fault is in its file once, and its tests exist, so that none is lost without a word."""
    faults = read()
    assert len(faults) >= 104
    assert mistakes(faults, CHECKOUT) == []


def test_the_report_says_that_every_fault_of_the_list_was_noticed() -> None:
    """REPORT.md is of this list. If not: `make mutants`, or `python -m tests.mutants.suite --again`."""
    rows = [line.split(" | ")[:3] for line in REPORT.read_text("utf-8").splitlines() if line.startswith("| ")]
    told = {(layer.removeprefix("| "), name.replace("\\|", "|")): outcome for layer, name, outcome in rows[1:]}
    assert told == {(fault.layer, fault.name): "noticed" for fault in read()}
