"""The fault suite: `python -m tests.faults.suite --minutes 10` injects every fault of the plan and writes a report.

Two rows run at the same time, each in a process of its own. A row does its smallest number of rounds, and then more of
them until its share of the time is up. The seed is printed; PASSBOOK_FAULTS_SEED, or --seed, makes the same choices
again. The exit code is 1 when a row found a fault, or when an oracle did not notice the lie that it was shown.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.row import Row, Run
from tests.faults.rows import abuse, backups, by_tests, callers, io_errors, kills, power_loss, syscalls
from tests.live import CHECKOUT

ROWS: tuple[Row, ...] = (
    *kills.ROWS,
    syscalls.ROW,
    power_loss.ROW,
    *io_errors.ROWS,
    *callers.ROWS,
    backups.ROW,
    abuse.ROW,
    *by_tests.ROWS,
)
AT_ONCE = 2
LONG_TIMES = 6
"""A run of so many times ten minutes has the smallest numbers of rounds so many times."""
REPORT = CHECKOUT / "tests" / "faults" / "REPORT.md"
README = CHECKOUT / "README.md"
QUOTED = re.compile(r"(<!-- faults -->\n).*?(\n<!-- /faults -->)", re.DOTALL)


@dataclass
class Result:
    """What one row found, as it crosses to the process that writes the report."""

    name: str
    seconds: float = 0
    figures: dict[str, int | float | str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    caught: dict[str, bool] = field(default_factory=dict)
    skipped: str = ""
    commit: str = ""
    """What was run."""


def run_row(name: str, seed: int, seconds: float, times: int, keep: str) -> Result:
    """One row in a folder of its own, which is kept below `keep` when something is wrong."""
    row = next(row for row in ROWS if row.name == name)
    folder = Path(tempfile.mkdtemp(prefix=f"passbook-faults-{name}-"))
    run = Run(folder, seed, seconds, row.at_least * times)
    began = time.monotonic()
    try:
        row.inject(run)
        run.broken += [f"no lie was told: {lie}" for lie in row.mutants if lie not in run.caught and not run.skipped]
    except BaseException as error:
        last = traceback.format_exc().strip().splitlines()
        run.broken.append(f"the row broke off: {type(error).__name__}: {error}"[:500] + f" ({last[-3].strip()})")
        (folder / "traceback").write_text(traceback.format_exc())
    seconds_taken = time.monotonic() - began
    result = Result(name, seconds_taken, run.figures, run.broken, run.caught, run.skipped, _commit())
    if result.broken:
        shutil.copytree(folder, Path(keep) / name, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        (Path(keep) / name / "broken").write_text("\n".join(result.broken))
    shutil.rmtree(folder, ignore_errors=True)
    return result


def run_all(rows: Sequence[Row], *, seed: int, minutes: float, keep: Path) -> list[Result]:
    """All rows, the longest first, two at a time; each is told when it ends."""
    times = max(1, round(minutes / 10)) if minutes < 10 * LONG_TIMES else LONG_TIMES
    whole = sum(row.share for row in rows)
    budget = AT_ONCE * 60 * minutes * 0.8  # what is left is for rounds that take longer than their share
    done: list[Result] = []
    ordered = sorted(rows, key=lambda row: -row.share)
    with ProcessPoolExecutor(AT_ONCE, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        asked = [pool.submit(run_row, row.name, seed, budget * row.share / whole, times, str(keep)) for row in ordered]
        for future in as_completed(asked):
            result = future.result()
            done.append(result)
            print(
                f"[{len(done):2}/{len(rows)}] {result.name:14} {result.seconds:6.1f} s  {_in_short(result)}", flush=True
            )
    places = {row.name: place for place, row in enumerate(ROWS)}
    return sorted(done, key=lambda result: places[result.name])


def _in_short(result: Result) -> str:
    if result.skipped:
        return f"skipped: {result.skipped}"
    if result.broken:
        return f"{len(result.broken)} FAULTS, the first: {result.broken[0][:160]}"
    return f"nothing broken, {len(result.caught)} mutants found"


# The report.


def summary(results: Sequence[Result], *, date: str, commit: str, seed: int, minutes: float) -> str:
    """The paragraph that the README quotes: every figure in it is of this run."""

    def total(*names: str) -> int:
        return sum(int(float(result.figures.get(name, 0))) for result in results for name in names)

    lies = [caught for result in results for caught in result.caught.values()]
    missed = f"{lies.count(False):,} NOT found" if False in lies else "all found"
    points = total("points of the writing process", "points of both processes", "points of the HTTP process")
    parts = (
        f"{total('kills'):,} kills under load",
        f"{points:,} kills at a system call",
        f"{total('kill points (statements)', 'kill points (system calls)'):,} of migrations",
        f"{total('images'):,} images of a disk after a power loss",
        f"{total('errors injected'):,} errors of the disk",
        f"{total('rounds'):,} races",
        f"{total('resets within a request', 'resets after a request'):,} connections reset",
    )
    outcome = (
        f"{total('answered writes', 'answers on record'):,} answered writes, {total('lost'):,} lost,"
        f" {total('doubled'):,} doubled, {total('unknown'):,} unknown that were settled by a retry"
    )
    return (
        f"The last run ({date}, commit {commit}, seed {seed}, {minutes:.0f} minutes): {', '.join(parts)}; {outcome}."
        f" {len(lies):,} lies were told to the oracles, {missed}."
    )


def report(results: Sequence[Result], text: str, *, date: str, commit: str, seed: int, minutes: float) -> str:
    """The whole report, in Markdown."""
    by_name = {row.name: row for row in ROWS}
    lines = [
        "# What the faults did",
        "",
        "Written by `make faults`; the plan and the oracle are explained at the head of `journal.py` and `row.py`.",
        "",
        f"- date: {date}",
        f"- commit: {commit}",
        f"- seed: {seed} (`python -m tests.faults.suite --seed {seed}` makes the same choices)",
        f"- minutes: {minutes:.1f}",
        "",
        text,
        "",
        "| row | fault | injected with | commit | seconds | broken | mutants found |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        row = by_name[result.name]
        broken = f"skipped: {result.skipped}" if result.skipped else str(len(result.broken))
        found = f"{sum(result.caught.values())} of {len(result.caught)}"
        cells = (row.name, row.fault, row.injected_with, result.commit, f"{result.seconds:.0f}", broken, found)
        lines.append(f"| {' | '.join(cells)} |")
    for result in results:
        lines += ["", f"## {result.name}", ""]
        lines += [f"- {name}: {_spelled(value)}" for name, value in result.figures.items()]
        lines += [f"- mutant, {'found' if caught else 'NOT FOUND'}: {name}" for name, caught in result.caught.items()]
        lines += [f"- **broken**: {fault}" for fault in result.broken[:20]]
    return "\n".join(lines) + "\n"


def _spelled(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def quote(text: str) -> None:
    """Puts the paragraph into the README, between its two marks."""
    page = README.read_text("utf-8")
    folded, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) > 125:
            folded.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    quoted = "\n".join([*folded, line])
    README.write_text(QUOTED.sub(lambda found: f"{found[1]}{quoted}{found[2]}", page), "utf-8")


def _commit() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.suite", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("PASSBOOK_FAULTS_SEED") or 0))
    parser.add_argument("--only", action="append", choices=[row.name for row in ROWS], help="a row; may be repeated")
    parser.add_argument(
        "--report", type=Path, help=f"where to write it; of all rows it is {REPORT.relative_to(CHECKOUT)}"
    )
    parser.add_argument("--keep", type=Path, default=CHECKOUT / "build" / "faults", help="what broken rows leave")
    parser.add_argument("--onto", type=Path, help="results.json of an earlier run, whose other rows the report repeats")
    chosen = parser.parse_args()
    seed = chosen.seed or random.SystemRandom().randrange(1, 2**31)
    rows = [row for row in ROWS if not chosen.only or row.name in chosen.only]
    earlier = [Result(**kept) for kept in json.loads(chosen.onto.read_text())] if chosen.onto else []
    print(f"{len(rows)} rows, {chosen.minutes:g} minutes, PASSBOOK_FAULTS_SEED={seed}", flush=True)
    shutil.rmtree(chosen.keep, ignore_errors=True)
    chosen.keep.mkdir(parents=True)
    began = time.monotonic()
    results = run_all(rows, seed=seed, minutes=chosen.minutes, keep=chosen.keep)
    minutes = (time.monotonic() - began) / 60
    if earlier:
        fresh = {result.name: result for result in results}
        results = [fresh.get(result.name, result) for result in earlier]
        minutes = sum(result.seconds for result in results) / 60 / AT_ONCE
    date, commit = datetime.now(UTC).date().isoformat(), _commit()
    text = summary(results, date=date, commit=commit, seed=seed, minutes=minutes)
    (chosen.keep / "results.json").write_text(json.dumps([asdict(result) for result in results], indent=1))
    target = chosen.report or (None if chosen.only and not earlier else REPORT)
    if target is not None:
        target.write_text(report(results, text, date=date, commit=commit, seed=seed, minutes=minutes), "utf-8")
        if target == REPORT:
            quote(text)
    print(text)
    broken = [result for result in results if result.broken]
    for result in broken:
        print(f"\n{result.name}: {len(result.broken)} faults")
        for fault in result.broken[:10]:
            print(f"  {fault[:400]}")
    if broken:
        names = " ".join(f"--only {result.name}" for result in broken)
        print(
            f"\nWhat to do next: look at {chosen.keep}/<row>, which has the files of each; to run them again:\n"
            f"  PASSBOOK_FAULTS_SEED={seed} {sys.executable} -m tests.faults.suite {names}"
        )
    else:
        print(f"\nNothing is broken. The figures are in {target or chosen.keep / 'results.json'}.")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
