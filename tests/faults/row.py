"""One row of the plan of faults: what is injected, with what, and the figures that come of it.

A row is a function that gets a `Run`. It counts what it injected and what it found, until its time is up and its
smallest number of rounds is done. What must never be goes to `Run.broken`; each oracle is shown a lie as well
(`Run.mutant`), for an oracle that is never loud proves nothing.
"""

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.journal import Findings


@dataclass(frozen=True)
class Row:
    """`share` is the part of the whole run's time that the row may take; `at_least` the rounds that it does anyway."""

    name: str
    fault: str
    injected_with: str
    share: float
    at_least: int
    inject: "Callable[[Run], None]"
    mutants: tuple[str, ...] = ()
    """The lies that the row's oracles must find; each is told to `Run.mutant`."""


@dataclass
class Run:
    """One run of a row, and all that it found out."""

    folder: Path
    seed: int
    seconds: float
    at_least: int
    figures: dict[str, int | float | str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    caught: dict[str, bool] = field(default_factory=dict)
    skipped: str = ""
    """Why the row could not be run on this machine."""
    _began: float = field(default_factory=time.monotonic)

    def chance(self, what: object = "") -> random.Random:
        """Random numbers of the seed, the same ones for the same `what`."""
        return random.Random(f"{self.seed} {what}")

    def goes_on(self, done: int) -> bool:
        """Whether there is another round: until the time is up, and on a busy machine the smallest number is done.

        That one waits for no more than three times its time, so that a run has an end.
        """
        late = self.seconds > 0 and self.seconds_left() < -2 * self.seconds
        return self.seconds_left() > 0 or (done < self.at_least and not late)

    def seconds_left(self) -> float:
        """What is left of the row's time; negative when it is up."""
        return self.seconds - (time.monotonic() - self._began)

    def part(self, share: float, at_least: int) -> "Run":
        """A run within this one, with a share of its time and the same figures."""
        return Run(self.folder, self.seed, self.seconds * share, at_least, self.figures, self.broken, self.caught)

    def count(self, name: str, number: float = 1) -> None:
        """Adds to a figure."""
        self.figures[name] = round(float(self.figures.get(name, 0)) + number, 3)
        if float(self.figures[name]).is_integer():
            self.figures[name] = int(float(self.figures[name]))

    def found(self, findings: Findings, where: str) -> None:
        """What the oracle found after one injection; of a fault it is said `where`."""
        for name in ("lost", "doubled"):
            self.count(name, len(getattr(findings, name)))
        if findings.replays:
            self.count("unknown", findings.unknown)
        self.broken += [f"{where}: {fault}" for fault in findings.broken[:3]]

    def times(self, name: str, seconds: Iterable[float]) -> None:
        """The median and the 99th percentile, in milliseconds."""
        ordered = sorted(seconds)
        if ordered:
            for percent in (50, 99):
                place = min(len(ordered) - 1, len(ordered) * percent // 100)
                self.figures[f"{name} p{percent} ms"] = round(1000 * ordered[place])

    def must(self, holds: bool, otherwise: str) -> None:
        """Puts `otherwise` on record where something does not hold."""
        if not holds:
            self.broken.append(otherwise)

    def mutant(self, name: str, caught: bool) -> None:
        """Whether the oracle found the lie called `name`; one that it missed breaks the row."""
        self.caught[name] = self.caught.get(name, True) and caught
        self.must(caught, f"the oracle did not notice: {name}")
