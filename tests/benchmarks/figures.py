"""What a run of the benchmarks found: the shape of build/bench.json, and the arithmetic on the rounds."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

from msgspec import Struct

T = TypeVar("T")


class Load(Struct, frozen=True, kw_only=True):
    """One round: `requests` answered in `duration_us`, times of one request in µs.

    not_2xx: answers that were no success; broken: connections that failed, and answers that took too long.
    """

    requests: int
    duration_us: float
    p50_us: float = 0.0
    p99_us: float = 0.0
    not_2xx: int = 0
    broken: int = 0

    @property
    def per_s(self) -> float:
        """Answers a second, the bad ones left out."""
        return (self.requests - self.not_2xx) / self.duration_us * 1e6


class Spread(Struct, frozen=True):
    """The middle of the rounds, and the least and the most of them."""

    median: float
    least: float
    most: float


class Goal(Struct, frozen=True):
    """A bound that the median keeps: `at_least`, or else at most, `bound`."""

    at_least: bool
    bound: float

    def met_by(self, value: Spread) -> bool:
        """Whether the median keeps the bound."""
        return value.median >= self.bound if self.at_least else value.median <= self.bound


class Row(Struct, frozen=True, kw_only=True):
    """A line of the table. unit: empty for a ratio. figures: what the value was made of, and at which scale."""

    name: str
    what: str
    value: Spread
    unit: str = ""
    goal: Goal | None = None
    figures: str = ""


class Line(Struct, frozen=True):
    """One line of a plot: `y[n]` at `x[n]`."""

    name: str
    x: list[float]
    y: list[float]


class Plot(Struct, frozen=True, kw_only=True):
    """A picture of docs/performance/: `<name>.svg`."""

    name: str
    title: str
    x_label: str
    y_label: str
    lines: list[Line]


class Report(Struct, frozen=True, kw_only=True):
    """One run: the settings it was made with, rows, plots, and what was found true (or not) at its end."""

    made_at: str
    seconds: float
    settings: dict[str, str]
    rows: list[Row]
    plots: list[Plot]
    checks: dict[str, str]


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most of at least one value."""
    return Spread(median(values), min(values), max(values))


def ratio(above: Sequence[Load], below: Sequence[Load]) -> Spread:
    """Answers a second of `above` to those of `below`, round by round: the two of a round ran one after the other."""
    return spread([one.per_s / other.per_s for one, other in zip(above, below, strict=True)])


def per_s(loads: Sequence[Load]) -> float:
    """The median of answers a second."""
    return median(load.per_s for load in loads)


def p50_ms(loads: Sequence[Load]) -> float:
    """The median of the rounds' medians."""
    return median(load.p50_us for load in loads) / 1000


def p99_ms(loads: Sequence[Load]) -> float:
    """The median of the rounds' 99th percentiles."""
    return median(load.p99_us for load in loads) / 1000


def percentile(values: Sequence[float], part: float) -> float:
    """The least of `values` that `part` (0–1) of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-part * len(ordered) // 1) - 1)]


def interleaved(
    runs: dict[str, Callable[[int], T]], rounds: int, show: Callable[[str], None] = lambda _: None
) -> dict[str, list[T]]:
    """Each of `runs` in each round, called with the round's number: a machine whose speed drifts treats all alike.

    Every other round goes backwards, so that none always follows the same one. `show` is told what comes next.
    """
    found: dict[str, list[T]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs) if number % 2 == 0 else reversed(list(runs)):
            show(f"{name}, round {number + 1} of {rounds}")
            found[name].append(runs[name](number))
    return found
