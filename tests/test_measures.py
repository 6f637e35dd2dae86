"""What is counted, and how it is spelled for Prometheus, to the letter."""

import itertools

import pytest

from service import measures
from service.measures import Counter, Distribution, Family, Histogram, Kind, Measures, Metric, gauge, to_prometheus
from tests.some import some


def test_a_value_is_counted_in_the_first_bucket_that_holds_it() -> None:
    """One on a bound is in its bucket, as `le` says; one above all is in the last; the sum is of all."""
    histogram = Histogram(Metric("x", Kind.HISTOGRAM, "s", "X."), (1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.record(value)
    assert histogram.points == {(): Distribution((1.0, 2.0), [2, 2, 1], 7.5)}


def test_a_counter_grows_by_what_is_added() -> None:
    """Each combination of attributes by itself."""
    counter = Counter(Metric("x", Kind.COUNTER, "", "X.", ("a",)))
    for labels, n in (("one", 1), ("two", 5), ("two", 2)):
        counter.add(labels, n=n)
    assert counter.points == {("one",): 1, ("two",): 7}


def test_the_text_is_that_of_the_exposition_format() -> None:
    """Buckets add up to +Inf, the count and the sum follow; texts are escaped, and an empty attribute is left out."""
    histogram = Histogram(Metric("a.time", Kind.HISTOGRAM, "s", "How long.", ("who.is",)), (0.5, 1.0))
    for value in (0.25, 0.75, 2.0):
        histogram.record(value, "me")
    counter = Counter(Metric("a.count", Kind.COUNTER, "{thing}", 'A "b"\\\nc.', ("one", "two")))
    counter.add('x"\\\n', "", n=3)
    families = [
        Family(histogram.metric, {**histogram.points}),
        Family(counter.metric, counter.points),
        gauge("a.size", "By", "Bytes.", 7),
        gauge("a.info", "", "Always 1.", 1, version="2"),
        Family(Metric("b", Kind.GAUGE, "s", "B.", prometheus="older_name"), {(): 1.5}),
    ]
    assert to_prometheus(families) == (
        "# HELP a_time_seconds How long.\n# TYPE a_time_seconds histogram\n"
        'a_time_seconds_bucket{who_is="me",le="0.5"} 1\na_time_seconds_bucket{who_is="me",le="1.0"} 2\n'
        'a_time_seconds_bucket{who_is="me",le="+Inf"} 3\na_time_seconds_sum{who_is="me"} 3.0\n'
        'a_time_seconds_count{who_is="me"} 3\n'
        '# HELP a_count_total A \\"b\\"\\\\\\nc.\n# TYPE a_count_total counter\n'
        'a_count_total{one="x\\"\\\\\\n"} 3\n'
        "# HELP a_size_bytes Bytes.\n# TYPE a_size_bytes gauge\na_size_bytes 7\n"
        '# HELP a_info Always 1.\n# TYPE a_info gauge\na_info{version="2"} 1\n'
        "# HELP older_name B.\n# TYPE older_name gauge\nolder_name 1.5\n"
    )


def test_each_measure_is_told_under_its_own_name() -> None:
    """What is open, what may be, what is held and what waits are four numbers; nothing that grows is missing at 0."""
    found = Measures(["one", "two"])
    found.active_requests, found.connections, found.connections_max = 1, 2, 3
    found.held_bytes, found.unsent_bytes = 4, 5
    lines = to_prometheus(found.families()).splitlines()
    for line in (
        "http_server_active_requests 1",
        "passbook_connections_open 2",
        "passbook_connections_limit 3",
        "passbook_connections_held_bytes 4",
        "passbook_connections_unsent_bytes 5",
        'passbook_refusals_total{code="one"} 0',
        'passbook_refusals_total{code="two"} 0',
        *(f'passbook_writes_total{{outcome="{one}"}} 0' for one in ("new", "refused", "replayed", "reused")),
        *(f'passbook_writer_commits_total{{outcome="{one}"}} 0' for one in ("committed", "failed")),
    ):
        assert line in lines, line


@pytest.mark.parametrize(
    ("bounds", "least", "most"),
    [
        (measures.DURATION_BOUNDS, 0.001, 10.0),
        (measures.COMMIT_BOUNDS, 0.0005, 2.5),
        (measures.BATCH_BOUNDS, 1.0, 1024.0),
    ],
)
def test_bounds_rise_from_the_least_to_the_most(bounds: tuple[float, ...], least: float, most: float) -> None:
    """In seconds, and in operations; each is at most three times the one before it."""
    assert (bounds[0], bounds[-1]) == (least, most)
    assert all(1 < later / earlier <= 3 for earlier, later in some(itertools.pairwise(bounds)))
