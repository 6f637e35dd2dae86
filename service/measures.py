"""What a running service counts, in plain Python, and the two spellings of it: OpenTelemetry's and Prometheus's.

A record costs less than a microsecond; an instrument of the OpenTelemetry SDK costs ten. Everything is changed and read
on the event loop, so nothing is locked, and attributes are tuples of a few known values. Names, units and attributes
follow the OpenTelemetry semantic conventions where there is one. The OpenTelemetry specification says how a Prometheus
name is made of them: dots become underscores, the unit and _total are appended.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

Value = int | float
Labels = tuple[str, ...]

CONTENT_TYPE = "text/plain; version=0.0.4"
"""The media type of `to_prometheus`; in UTF-8."""
DURATION_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""In seconds: those of the semantic conventions and two below, where most answers are."""
COMMIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""In seconds."""
BATCH_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
"""In operations."""
_UNITS = {"s": "_seconds", "By": "_bytes"}


class Kind(StrEnum):
    """How a metric's values are to be understood."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric by its OpenTelemetry name, with its unit (UCUM) and the attributes that its points have.

    prometheus: its name there, where one is in use that is older than the specification.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: Labels = ()
    prometheus: str = ""

    @property
    def prometheus_name(self) -> str:
        """Its name in the text for Prometheus; a histogram's samples append _bucket, _sum and _count."""
        total = "_total" if self.kind is Kind.COUNTER else ""
        return self.prometheus or _spelt(self.name) + _UNITS.get(self.unit, "") + total


@dataclass(slots=True)
class Distribution:
    """Values counted by bound: `counts[i]` of them were at most bounds[i], and the last count is of those above all."""

    bounds: tuple[float, ...]
    counts: list[int]
    sum: float = 0.0


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its points, each under the values of the metric's attributes, in their order."""

    metric: Metric
    points: dict[Labels, Value | Distribution]


@dataclass(slots=True)
class Counter:
    """A number for each combination of attributes, which only grows."""

    metric: Metric
    points: dict[Labels, Value | Distribution] = field(default_factory=dict)

    def add(self, *labels: str, n: int = 1) -> None:
        """Counts `n` more."""
        self.points[labels] = self.points.get(labels, 0) + n  # type: ignore[operator]


@dataclass(slots=True)
class Histogram:
    """A distribution for each combination of attributes."""

    metric: Metric
    bounds: tuple[float, ...]
    points: dict[Labels, Distribution] = field(default_factory=dict)

    def record(self, value: float, *labels: str) -> None:
        """Counts one value."""
        point = self.points.get(labels)
        if point is None:
            point = self.points[labels] = Distribution(self.bounds, [0] * (len(self.bounds) + 1))
        point.counts[bisect_left(self.bounds, value)] += 1
        point.sum += value


def _counter(name: str, unit: str, description: str, *attributes: str) -> Counter:
    return Counter(Metric(name, Kind.COUNTER, unit, description, attributes))


class Measures:
    """What is counted as it happens. Lifetime: the application's; used on the event loop alone.

    codes: those of problem documents. Counters begin at 0 for every value that an attribute may have: one that
    appeared with its first count would hide that count from Prometheus's increase().
    """

    def __init__(self, codes: Iterable[str]) -> None:
        self.started_at_ns = time.time_ns()
        self.active_requests = 0
        self.connections = 0
        self.connections_max = 0
        self.held_bytes = 0
        self.unsent_bytes = 0
        self.requests = Histogram(
            Metric(
                "http.server.request.duration",
                Kind.HISTOGRAM,
                "s",
                "Time from the head of a request to the end of its answer.",
                ("http.request.method", "http.route", "http.response.status_code"),
            ),
            DURATION_BOUNDS,
        )
        self.refusals = _counter(
            "passbook.refusals", "{refusal}", "Answers that are problem documents, by their code.", "code"
        )
        self.writes = _counter(
            "passbook.writes",
            "{write}",
            "Answers to writes: new, refused by the ledger, replayed, or reused: the key was another request's.",
            "outcome",
        )
        self.connections_cut = _counter(
            "passbook.connections.cut", "{connection}", "Connections that the service ended, by the reason.", "reason"
        )
        self.commits = _counter(
            "passbook.writer.commits", "{commit}", "Database transactions of the writer.", "outcome"
        )
        self.commit_duration = Histogram(
            Metric("passbook.writer.commit.duration", Kind.HISTOGRAM, "s", "Time that COMMIT took, with its fsync."),
            COMMIT_BOUNDS,
        )
        self.batch_size = Histogram(
            Metric("passbook.writer.batch.size", Kind.HISTOGRAM, "{operation}", "Operations in one commit."),
            BATCH_BOUNDS,
        )

        for counter, values in (
            (self.refusals, codes),
            (self.writes, ("new", "refused", "replayed", "reused")),
            (self.commits, ("committed", "failed")),
        ):
            for value in values:
                counter.add(str(value), n=0)

    def families(self) -> Iterator[Family]:
        """Everything that was counted until now."""
        for counter in (self.refusals, self.writes, self.connections_cut, self.commits):
            yield Family(counter.metric, counter.points)
        for histogram in (self.requests, self.commit_duration, self.batch_size):
            yield Family(histogram.metric, {**histogram.points})
        yield gauge(
            "http.server.active_requests", "{request}", "Requests that are being answered.", self.active_requests
        )
        open_, max_ = self.connections, self.connections_max
        yield gauge("passbook.connections.open", "{connection}", "Connections that are open.", open_)
        yield gauge("passbook.connections.limit", "{connection}", "Connections that may be open.", max_)
        yield gauge("passbook.connections.held", "By", "What was read and not acted on yet.", self.held_bytes)
        yield gauge("passbook.connections.unsent", "By", "Large answers that wait for clients.", self.unsent_bytes)


def gauge(name: str, unit: str, description: str, value: Value, **labels: str) -> Family:
    """A family of one point, as it is now."""
    return Family(Metric(name, Kind.GAUGE, unit, description, tuple(labels)), {tuple(labels.values()): value})


def to_prometheus(families: Iterable[Family]) -> str:
    """The text exposition format 0.0.4. An attribute without a value is left out."""
    lines = []
    for family in families:
        metric = family.metric
        name = metric.prometheus_name
        lines += [f"# HELP {name} {_escaped(metric.description)}", f"# TYPE {name} {metric.kind}"]
        for labels, value in family.points.items():
            pairs = [f'{_spelt(k)}="{_escaped(v)}"' for k, v in zip(metric.attributes, labels, strict=True) if v]
            if isinstance(value, Distribution):
                lines += _histogram_lines(name, pairs, value)
            else:
                lines.append(f"{name}{_braced(pairs)} {value}")
    return "\n".join(lines) + "\n"


def _histogram_lines(name: str, pairs: list[str], found: Distribution) -> Iterator[str]:
    count = 0
    for bound, here in zip((*found.bounds, "+Inf"), found.counts, strict=True):
        count += here
        le = f'le="{bound}"'
        yield f"{name}_bucket{_braced([*pairs, le])} {count}"
    yield f"{name}_sum{_braced(pairs)} {found.sum}"
    yield f"{name}_count{_braced(pairs)} {count}"


def _braced(pairs: list[str]) -> str:
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _spelt(name: str) -> str:
    return name.replace(".", "_")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
