"""The arithmetic of the benchmarks, and that docs/performance.md says what a run found. Nothing is timed here."""

import io
import math
import re
import xml.etree.ElementTree as ET

import msgspec
import pytest
from rich.console import Console

from tests.benchmarks import report
from tests.benchmarks.figures import (
    Goal,
    Line,
    Load,
    Plot,
    Report,
    Row,
    Spread,
    interleaved,
    p50_ms,
    p99_ms,
    per_s,
    percentile,
    ratio,
    spread,
)
from tests.live import CHECKOUT
from tests.some import some


def load(requests: int, **more: float) -> Load:
    """So many in one second."""
    return msgspec.structs.replace(Load(requests=requests, duration_us=1e6), **more)


def example() -> Report:
    """A report with a ratio whose goal is met, a time whose goal is not, and a plot."""
    return Report(
        made_at="2026-01-19 12:00 UTC",
        seconds=301,
        settings={"durability": "`synchronous=FULL`", "SQLite": "pysqlite3 3.53.4"},
        rows=[
            Row(name="P/F", what="writes", value=Spread(0.61, 0.58, 0.64), goal=Goal(True, 0.6), figures="P 6,100/s"),
            Row(name="L", what="alone", value=Spread(0.7, 0.7, 0.7), unit="ms", goal=Goal(False, 0.5)),
            Row(name="V", what="verify", value=Spread(123456.7, 120000, 130000), unit="rows/s"),
        ],
        plots=[Plot(name="throughput", title="T", x_label="x", y_label="y", lines=[Line("P", [1, 64], [300, 6000])])],
        checks={"invariants": "all hold"},
    )


def test_a_figure_is_the_median_with_the_extremes() -> None:
    """Of an even number of rounds too."""
    assert spread([3, 1, 2]) == Spread(2, 1, 3)
    assert spread([4, 1, 2, 3]) == Spread(2.5, 1, 4)


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that halves its speed between rounds does not change them; ratios of medians would."""
    fast, slow = [load(1000), load(500), load(10)], [load(2000), load(1000), load(20)]
    assert ratio(fast, slow) == Spread(0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="zip"):
        ratio(fast, slow[:2])


def test_bad_answers_are_no_throughput() -> None:
    """A server that refuses fast is not fast."""
    assert per_s([load(1000, not_2xx=900)]) == 100
    assert p50_ms([load(1, p50_us=1500.0), load(1, p50_us=2500.0)]) == 2
    assert p99_ms([load(1, p99_us=4000.0)]) == 4


@pytest.mark.parametrize(("part", "expected"), [(0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1, 100)])
def test_percentiles_are_values_that_were_measured(part: float, expected: int) -> None:
    """Nearest rank, of 1 to 100 in any order."""
    assert percentile([float(n) for n in range(100, 0, -1)], part) == expected


def test_rounds_alternate_and_turn_round() -> None:
    """None is always the first or always follows the same one."""
    order: list[tuple[str, int]] = []
    found = interleaved({name: lambda n, name=name: order.append((name, n)) for name in "abc"}, 2)  # type: ignore[misc]
    assert order == [("a", 0), ("b", 0), ("c", 0), ("c", 1), ("b", 1), ("a", 1)]
    assert {name: len(values) for name, values in found.items()} == {"a": 2, "b": 2, "c": 2}


def test_goals_go_by_the_median() -> None:
    """In both directions."""
    assert Goal(True, 0.6).met_by(Spread(0.6, 0.1, 0.9))
    assert not Goal(True, 0.6).met_by(Spread(0.59, 0.5, 0.9))
    assert Goal(False, 1.5).met_by(Spread(1.5, 1, 9))
    assert not Goal(False, 1.5).met_by(Spread(1.6, 1, 9))


def test_the_table_says_value_extremes_goal_and_settings() -> None:
    """In Markdown and on the terminal alike."""
    text = report.markdown(example())
    assert "| writes (P/F) | 0.61 (0.58–0.64) | ≥ 0.60 ✅ | P 6,100/s |" in text
    assert "| alone (L) | 0.70 ms | ≤ 0.50 ms ❌ |  |" in text
    assert "| verify (V) | 123,457 rows/s (120,000–130,000) | – |  |" in text
    assert "| durability | `synchronous=FULL` |" in text
    assert text.endswith("- invariants: all hold")
    screen = io.StringIO()
    report.show(example(), Console(file=screen, width=200))
    for said in ("0.61 (0.58–0.64)", "≥ 0.60 ✅", "`synchronous=FULL`", "invariants: all hold", "301 s"):
        assert said in screen.getvalue()


def test_a_section_replaces_what_stood_between_the_marks() -> None:
    """And nothing else; without one pair of marks nothing is written."""
    document = f"# A\n\n{report.BEGIN}\nold\n{report.END}\n\n# B\n"
    made = report.spliced(document, "new")
    assert made == f"# A\n\n{report.BEGIN}\n\nnew\n\n{report.END}\n\n# B\n"
    assert report.spliced(made, "new") == made
    for bad in ("# A", report.BEGIN, f"{report.END}{report.BEGIN}", document + document):
        with pytest.raises(report.MarksMissing):
            report.spliced(bad, "new")


def test_a_report_survives_its_file() -> None:
    """build/bench.json is read back as it was."""
    assert msgspec.json.decode(msgspec.json.encode(example()), type=Report) == example()


def test_the_docs_say_what_the_kept_reports_say() -> None:
    """The figures of docs/performance.md were written by `make bench-docs` from docs/performance/*.json, by no hand."""
    document = report.DOCS.read_text("utf-8")
    assert report.kept(), "docs/performance has no report"
    assert report.spliced(document, report.section_of(report.kept())) == document


def test_kept_reports_tell_their_settings_and_a_sound_end() -> None:
    """A figure is reported with its settings or not at all."""
    for one in some(report.kept()):
        assert "synchronous=FULL" in one.settings["durability"]
        assert {"run", "SQLite", "Python", "server", "machine", "load", "N", "PostgreSQL"} <= one.settings.keys()
        assert one.checks["invariants"] == "all hold"
        assert one.checks["SIGKILL under load"].endswith("none is missing")
        for row in some(one.rows):
            assert row.value.least <= row.value.median <= row.value.most
            assert all(math.isfinite(value) for value in (row.value.least, row.value.most)), row.name


def test_plots_are_drawn() -> None:
    """Each is an SVG whose texts name its lines."""
    for plot in some(report.kept()[-1].plots):
        drawn = (report.PICTURES / f"{plot.name}.svg").read_text("utf-8")
        assert ET.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
        for said in (plot.title, *(line.name for line in plot.lines)):
            assert said in drawn


def test_every_row_is_explained() -> None:
    """What a name of the table means stands above it."""
    document = report.DOCS.read_text("utf-8").partition(report.BEGIN)[0]
    for one in some(report.kept()):
        for row in some(one.rows):
            for part in some(re.split(r"/|, | ", row.name)[:2]):
                assert re.search(rf"(?m)^\|[^|]*\b{re.escape(part)}\b", document) or part in document, row.name


def test_every_command_of_the_docs_is_there() -> None:
    """`make …` and `python -m tests.benchmarks…` of docs/performance.md exist."""
    document = report.DOCS.read_text("utf-8")
    makefile = (CHECKOUT / "Makefile").read_text("utf-8")
    for target in some(re.findall(r"(?:`|\$ )make ([a-z-]+)", document)):
        assert re.search(rf"(?m)^{target}:", makefile), target
    for module in some(re.findall(r"tests\.benchmarks\.([a-z_]+)|tests/benchmarks/([a-z_]+)\.py", document)):
        assert (CHECKOUT / "tests" / "benchmarks" / f"{''.join(module)}.py").exists(), module
