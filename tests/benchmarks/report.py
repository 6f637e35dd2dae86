"""The table of a run: on the terminal, and in docs/performance.md between its two marks.

`python -m tests.benchmarks.report build/bench.json [MORE.json …]` keeps the reports in docs/performance/ and writes the
section of the docs anew from all that are kept there; plots.py draws the plots, which are those of the last one.
"""

import shutil
import sys
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import Report, Row, Spread
from tests.live import CHECKOUT

DOCS = CHECKOUT / "docs" / "performance.md"
PICTURES = DOCS.with_name("performance")
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
_DIGITS = {"": 2, "ms": 2, "s": 2, "µs": 1, "rows/s": 0}


class MarksMissing(Exception):
    """The document has not exactly one pair of marks."""


def value_text(value: Spread, unit: str) -> str:
    """Median, and in brackets the least and the most: `0.61 (0.58–0.64)`, `0.31 ms (0.28–0.44)`."""
    digits = _DIGITS[unit]
    least, most = f"{value.least:,.{digits}f}", f"{value.most:,.{digits}f}"
    middle = f"{value.median:,.{digits}f}{f' {unit}' if unit else ''}"
    return middle if value.least == value.most else f"{middle} ({least}–{most})"


def goal_text(row: Row) -> str:
    """`≥ 0.60 ✅`, `≤ 0.50 ms ❌`; a dash where there is none."""
    if row.goal is None:
        return "–"
    bound = f"{row.goal.bound:,.{_DIGITS[row.unit]}f}{f' {row.unit}' if row.unit else ''}"
    return f"{'≥' if row.goal.at_least else '≤'} {bound} {'✅' if row.goal.met_by(row.value) else '❌'}"


def show(report: Report, console: Console) -> None:
    """The table on a terminal."""
    table = Table("what is measured", "", "median (least–most)", "goal", "made of", show_lines=False)
    for row in report.rows:
        table.add_row(row.what, row.name, value_text(row.value, row.unit), goal_text(row), row.figures)
    console.print(table)
    for title, said in (*report.settings.items(), *report.checks.items()):
        console.print(f"[bold]{title}[/]: {said}", highlight=False)
    console.print(f"{report.seconds:,.0f} s in all.", highlight=False)


def markdown(report: Report) -> str:
    """The same for the docs, where a row begins with words: its letters stand behind them."""
    lines = [
        f"Run of {report.made_at}, {report.seconds:,.0f} s.",
        "",
        "| what is measured | median (least–most) | goal | made of |",
        "|---|---|---|---|",
        *(
            f"| {row.what} ({row.name}) | {value_text(row.value, row.unit)} | {goal_text(row)} | {row.figures} |"
            for row in report.rows
        ),
        "",
        "| setting | |",
        "|---|---|",
        *(f"| {name} | {said} |" for name, said in report.settings.items()),
        "",
        "At the end:",
        "",
        *(f"- {name}: {said}" for name, said in report.checks.items()),
    ]
    return "\n".join(lines)


def spliced(document: str, section: str) -> str:
    """`document` with `section` between its marks. Raises MarksMissing."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise MarksMissing(f"{DOCS} needs one {BEGIN} and after it one {END}.")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


def section_of(reports: list[Report]) -> str:
    """The tables of all reports, and the plots of the last."""
    pictures = [f"![{plot.title}](performance/{plot.name}.svg)" for plot in reports[-1].plots]
    return "\n\n".join([*(markdown(report) for report in reports), *pictures])


def load(path: Path) -> Report:
    """A report as bench.py wrote it."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def kept() -> list[Report]:
    """The reports that the docs show: `make bench`, then `make bench-full`."""
    return [load(path) for path in sorted(PICTURES.glob("*.json"), key=lambda path: path.stem)]


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    for name in sys.argv[1:]:
        shutil.copy(name, PICTURES)
    reports = kept()
    DOCS.write_text(spliced(DOCS.read_text("utf-8"), section_of(reports)), "utf-8")
    print(f"{DOCS} has the figures of {', '.join(report.made_at for report in reports)}.")


if __name__ == "__main__":
    main()
