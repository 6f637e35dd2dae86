"""`python -m tests.mutants.suite` puts every fault of the list into a copy of the checkout, one at a time, and runs the
tests that should notice it. It writes REPORT.md; the exit code is 1 unless every fault was noticed.

First the named tests run without any fault: a test that fails then proves nothing. Two copies work at the same time.
What became of a fault is one of:

    noticed             a named test failed, and its text matches the reason of the fault
    survived            every named test passed
    wrong reason        tests failed, but none for the reason: a mere error of the service (a 500) is no find either
    timed out           the run took longer than its limit, and the reason does not say so
    does not apply      the text that it replaces is not in the file once
    fails without it    a named test fails before the fault is put in
"""

import argparse
import json
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.live import CHECKOUT
from tests.mutants.copies import Copy, Ran
from tests.mutants.listed import DoesNotApply, Fault, read

AT_ONCE = 2
REPORT = Path(__file__).with_name("REPORT.md")
KEEP = CHECKOUT / "build" / "mutants"
_OUTCOMES = KEEP / "outcomes.json"
_BASELINE_LIMIT_S = 1200
_SERVER_ERROR = re.compile(r"\bassert 50\d\b|internal_error|Internal Server Error")
_NAMED_ERROR = re.compile(r"50\d|internal")


@dataclass
class Outcome:
    """What became of a fault, and the test that noticed it, if one did. said: what the tests printed."""

    layer: str
    name: str
    outcome: str
    noticed_by: str = ""
    seconds: float = 0
    said: str = ""
    commit: str = ""
    digest: str = ""
    """Of the fault as it was when it was put in."""

    @property
    def noticed(self) -> bool:
        """Whether it is as it should be."""
        return self.outcome == "noticed"


def judge(fault: Fault, ran: Ran) -> tuple[str, str]:
    """The outcome of a run with `fault` in, and the test that noticed it."""
    for test, text in ran.failures.items():
        if re.search(fault.reason, text, re.MULTILINE) and not _is_a_mere_error(fault, text):
            return "noticed", test
    if ran.timed_out:
        return "timed out", ""
    return ("wrong reason", "") if ran.failures else ("survived", "")


def _is_a_mere_error(fault: Fault, text: str) -> bool:
    return _SERVER_ERROR.search(text) is not None and _NAMED_ERROR.search(fault.reason) is None


def try_out(fault: Fault, copy: Copy, failing: Mapping[str, str]) -> Outcome:
    """Puts `fault` into `copy`, runs its tests, takes it out again. failing: tests that fail without any fault."""
    result = Outcome(fault.layer, fault.name, "", digest=fault.digest)
    without = [test for test in failing if any(_covers(named, test) for named in fault.tests)]
    if without:
        result.outcome, result.said = "fails without it", "\n".join(f"{test}\n{failing[test]}" for test in without)
        return result
    whole = copy.text(fault.file)
    try:
        changed = fault.put_into(whole)
    except DoesNotApply as error:
        result.outcome, result.said = "does not apply", str(error)
        return result
    copy.edit(fault.file, changed)
    try:
        ran = copy.run(fault.tests, fault.limit_s)
    finally:
        copy.edit(fault.file, whole)
    result.outcome, result.noticed_by = judge(fault, ran)
    result.seconds, result.said = ran.seconds, ran.said
    return result


def _covers(named: str, test: str) -> bool:
    """Whether the name `named` in a list means `test`, among others perhaps."""
    return test == named or test.startswith((f"{named}::", f"{named}["))


def failing_without_faults(faults: Sequence[Fault], copies: Sequence[Copy], limit_s: float) -> dict[str, str]:
    """Runs every named test once, in the copies at the same time; the failures by test."""
    files: dict[str, list[str]] = {}
    for test in dict.fromkeys(test for fault in faults for test in fault.tests):
        files.setdefault(test.partition("::")[0], []).append(test)
    for file, tests in files.items():
        if file in tests:
            files[file] = [file]
    ordered = sorted(files, key=lambda file: (-len(files[file]), file))
    shares = [[test for file in ordered[place :: len(copies)] for test in files[file]] for place in range(len(copies))]
    pairs = [(copy, share) for copy, share in zip(copies, shares, strict=True) if share]
    with ThreadPoolExecutor(len(copies)) as pool:
        asked = [pool.submit(_failing_of, copy, share, limit_s) for copy, share in pairs]
        return {test: text for one in asked for test, text in one.result().items()}


def _failing_of(copy: Copy, tests: Sequence[str], limit_s: float) -> dict[str, str]:
    """The failures of `tests` by test. One that does not exist keeps pytest from running any: it goes on without."""
    left, failing = list(tests), dict[str, str]()
    while left:
        ran = copy.run(left, limit_s)
        if "the whole run" not in ran.failures:
            return failing | dict(ran.failures)
        gone = {test for test in left if re.search(rf"^ERROR: not found: .*{re.escape(test)}$", ran.said, re.MULTILINE)}
        failing |= dict.fromkeys(gone or left, ran.said[-2000:])
        left = [test for test in left if gone and test not in gone]
    return failing


def run_all(
    faults: Sequence[Fault],
    *,
    checkout: Path,
    folder: Path,
    at_once: int = AT_ONCE,
    tell: Callable[[str], object] = print,
    ended: Callable[[Outcome], object] = lambda _: None,
) -> list[Outcome]:
    """Every fault, in copies of `checkout` below `folder`; the outcomes in the order of `faults`.

    `ended` is told of each outcome when it is there.
    """
    copies = [Copy(checkout, folder / str(number)) for number in range(at_once)]
    began = time.monotonic()
    failing = failing_without_faults(faults, copies, _BASELINE_LIMIT_S)
    tell(f"without a fault: {len(failing)} named tests fail, after {time.monotonic() - began:.0f} s")
    for test, text in failing.items():
        tell(f"  {test}: {text.strip().rpartition(chr(10))[2][:200]}")
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)
    told, done = threading.Lock(), 0

    def one(fault: Fault) -> Outcome:
        nonlocal done
        copy = free.get()
        try:
            result = try_out(fault, copy, failing)
        finally:
            free.put(copy)
        with told:
            done += 1
            ended(result)
            by = f"  ({result.noticed_by})" if result.noticed_by else ""
            tell(
                f"[{done:3}/{len(faults)}] {result.seconds:5.1f} s  {result.outcome:14} {fault.layer}: {fault.name}{by}"
            )
        return result

    with ThreadPoolExecutor(at_once) as pool:
        asked = {pool.submit(one, fault): place for place, fault in enumerate(faults)}
        found = {asked[future]: future.result() for future in as_completed(asked)}
    return [found[place] for place in range(len(faults))]


def report(outcomes: Sequence[Outcome], *, date: str, commit: str, minutes: float) -> str:
    """The page that is committed: one line for each fault, in the order of the list."""
    noticed = sum(outcome.noticed for outcome in outcomes)
    of = Counter(outcome.commit for outcome in outcomes)
    parts = ", ".join(f"{count} of {one}" for one, count in of.most_common())
    lines = [
        "# What the tests noticed",
        "",
        "Written by `make mutants`. The heads of `suite.py` and `listed.py` explain the outcomes and the list.",
        "",
        f"- date: {date}",
        f"- commit: {commit}",
        f"- minutes: {minutes:.0f}",
        f"- faults: {len(outcomes)}",
        f"- noticed: {noticed}",
        *([f"- put together from runs that were not of one commit: {parts}"] if len(of) > 1 else []),
        "",
        "| layer | fault | outcome | noticed by | seconds |",
        "|---|---|---|---|---|",
    ]
    for one in outcomes:
        by = f"`{one.noticed_by.removeprefix('tests/')}`" if one.noticed_by else ""
        cells = (one.layer, one.name, one.outcome, by, f"{one.seconds:.0f}")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _commit() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def _chosen(faults: Sequence[Fault], only: Sequence[str], layers: Sequence[str]) -> list[Fault]:
    if not only and not layers:
        return list(faults)
    return [fault for fault in faults if fault.layer in layers or any(part in fault.name for part in only)]


def _earlier(faults: Sequence[Fault]) -> dict[str, Outcome]:
    """The outcomes of the runs before, by the name of the fault; none of an entry that was changed since."""
    digests = {fault.name: fault.digest for fault in faults}
    kept = json.loads(_OUTCOMES.read_text("utf-8")) if _OUTCOMES.exists() else []
    return {one["name"]: Outcome(**one) for one in kept if digests.get(one["name"]) == one["digest"]}


def _keep(outcomes: Mapping[str, Outcome]) -> None:
    KEEP.mkdir(parents=True, exist_ok=True)
    _OUTCOMES.write_text(json.dumps([asdict(one) for one in outcomes.values()], indent=1), "utf-8")
    for one in outcomes.values():
        if not one.noticed:
            (KEEP / (re.sub(r"\W+", "-", one.name) + ".txt")).write_text(one.said, "utf-8")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants.suite", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], help="faults whose name holds this; may be repeated")
    parser.add_argument("--layer", action="append", default=[], help="faults of this list; may be repeated")
    parser.add_argument("--again", action="store_true", help="only those that no run before has noticed")
    chosen = parser.parse_args()
    everything = read()
    partly = bool(chosen.only or chosen.layer or chosen.again)
    found = _earlier(everything) if partly else {}
    faults = _chosen(everything, chosen.only, chosen.layer)
    if chosen.again:
        faults = [fault for fault in faults if fault.name not in found or not found[fault.name].noticed]
    if not faults:
        parser.error("there is no such fault")
    print(f"{len(faults)} of {len(everything)} faults, {AT_ONCE} at a time", flush=True)
    began, commit = time.monotonic(), _commit()

    def ended(outcome: Outcome) -> None:
        outcome.commit = commit
        found[outcome.name] = outcome
        _keep(found)  # what is interrupted goes on with --again

    folder = Path(tempfile.mkdtemp(prefix="passbook-mutants-"))
    try:
        outcomes = run_all(
            faults, checkout=CHECKOUT, folder=folder, tell=lambda line: print(line, flush=True), ended=ended
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    minutes = (time.monotonic() - began) / 60
    every = [found[fault.name] for fault in everything if fault.name in found]
    if len(every) == len(everything):
        whole = sum(one.seconds for one in every) / 60 / AT_ONCE if partly else minutes
        page = report(every, date=datetime.now(UTC).date().isoformat(), commit=commit, minutes=whole)
        REPORT.write_text(page, "utf-8")
    bad = [outcome for outcome in outcomes if not outcome.noticed]
    print(f"\n{len(faults)} faults, {len(faults) - len(bad)} noticed, in {minutes:.1f} minutes.")
    for outcome in bad:
        print(f"  {outcome.outcome}: {outcome.layer}: {outcome.name}")
    if bad:
        print(
            f"\nWhat to do next: {KEEP.relative_to(CHECKOUT)} has what the tests of each printed. A fault that\n"
            "survived needs a test of its kind; one with a wrong reason, a test that looks closer. To run them again:\n"
            "  python -m tests.mutants.suite --again"
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
