"""The fault suite in its shortest form: each row runs, finds no fault, and finds the lies that it is told."""

import re
from pathlib import Path

import pytest

from tests.faults.row import Row, Run
from tests.faults.rows import by_tests
from tests.faults.rows.io_errors import hurts_a_commit
from tests.faults.suite import QUOTED, README, REPORT, ROWS, Result, report, summary
from tests.printed import stands

SEED = 20261128
BRIEFLY = {
    "last-won": 3,
    "one-order": 12,
    "same-key": 1,
    "disconnects": 2,
    "locked": 2,
    "abuse": 1,
    "backup": 1,
    "disk-full": 1,
    "kill": 1,
    "stop": 1,
    "syscalls": 4,
    "power-loss": 30,
    "io-errors": 2,
}
"""How many rounds of each row run with every test run; what is a file of the ordinary tests runs there."""
FAULTS = (
    "kill -9 at random",
    "kill at each system call",
    "power loss",
    "fsync EIO",
    "disk full",
    "write lock",
    "the last won",
    "two announcements",
    "same key",
    "client disconnects",
    "SIGTERM",
    "migration killed",
    "backup while writing",
    "clock",
    "tampering",
    "amounts",
    "every route",
    "stateful",
)
"""The plan: every fault that a row must inject."""


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in BRIEFLY], ids=lambda row: row.name)
def test_a_row_finds_no_fault_and_every_lie(row: Row, tmp_path: Path) -> None:
    """A few rounds of each; the oracles are as loud as in a long run."""
    run = Run(tmp_path, SEED, 0, BRIEFLY[row.name])
    row.inject(run)
    if run.skipped:
        pytest.skip(run.skipped)
    assert run.broken == []
    assert set(row.mutants) <= run.caught.keys()
    assert run.figures, "a row that counted nothing has injected nothing"


def test_every_fault_of_the_plan_has_a_row() -> None:
    """And every row is in the brief run, or is a file of the ordinary tests."""
    titles = [row.fault for row in ROWS]
    assert [fault for fault in FAULTS if not any(fault in title for title in titles)] == []
    assert {row.name for row in ROWS} == BRIEFLY.keys() | {row.name for row in by_tests.ROWS}


def test_the_report_of_a_broken_run_says_so() -> None:
    """A fault, and an oracle that missed its lie, are in the report and in the summary."""
    broken = Result(
        "kill", 1.0, {"kills": 3, "lost": 1}, ["kill 2: l-1 (debit): answered 201 and not stored"], {"x": False}
    )
    text = summary([broken], date="2026-01-01", commit="abc", seed=1, minutes=1)
    page = report([broken], text, date="2026-01-01", commit="abc", seed=1, minutes=1)
    assert stands("1 lies were told to the oracles, 1 NOT found", text)
    assert stands("1 lost", text)
    assert "**broken**: kill 2: l-1 (debit): answered 201 and not stored" in page
    assert "mutant, NOT FOUND: x" in page


def test_the_readme_quotes_the_report() -> None:
    """The figures in the README are those of the last run."""
    quoted = QUOTED.search(README.read_text("utf-8"))
    assert quoted is not None
    text = " ".join(quoted[0].split("\n", 1)[1].rsplit("\n", 1)[0].split())
    page = REPORT.read_text("utf-8")
    assert text in page
    assert "**broken**" not in page
    assert "NOT FOUND" not in page
    assert re.search(r" 0 lost, 0 doubled", text)


@pytest.mark.parametrize(
    ("trace", "commit"),
    [
        ("pwrite64(9)\nfdatasync(9) = -1 EIO (INJECTED)\n", True),
        ("pwrite64(9)\nfdatasync(9) = 0\nfdatasync(9) = -1 EIO (INJECTED)\n", False),
        ("pwrite64(9)\nfdatasync(9) = 0\nfdatasync(9) = -1 EIO (INJECTED)\npwrite64(9) = 0\n", False),
        ("fdatasync(9 <unfinished ...>\n<... fdatasync resumed>) = -1 EIO (INJECTED)\n", False),
        ("pwrite64(9 <unfinished ...>\n<... pwrite64 resumed>) = -1 EIO (INJECTED)\n", True),
        ("fdatasync(9) = 0\npwrite64(9) = -1 EIO (INJECTED)\n", True),
        ("pwrite64(9)\nfdatasync(9) = 0\n", False),
    ],
)
def test_a_sync_is_a_commit_s_if_something_was_written_before_it(trace: str, commit: bool) -> None:
    """A checkpoint syncs what is synced already; the writer may go on after its failure."""
    assert hurts_a_commit(trace) is commit
