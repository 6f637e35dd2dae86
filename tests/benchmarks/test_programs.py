"""Every program of the benchmarks that needs nothing but Passbook runs at its smallest: `make test` finds what rots."""

import sys

import pytest

from tests.benchmarks.processes import output_of


@pytest.mark.parametrize(
    ("program", "arguments", "printed"),
    [
        ("audit_pages", ["1000"], "two of many rows that never meet"),
        ("import_export", ["1000"], "export:"),
        ("integrity", ["1000"], "audit verify:"),
        ("matching", ["200", "100"], "a name that goes on behind one user's:"),
        ("migrate", ["100", "1000"], "migrate down"),
        ("telemetry", ["1", "64"], "traces all"),
    ],
)
def test_a_program_measures_the_smallest_ledger_and_prints_its_last_figure(
    program: str, arguments: list[str], printed: str
) -> None:
    """A benchmark that the service has outgrown ends with its error."""
    assert printed in output_of([sys.executable, "-m", f"tests.benchmarks.{program}", *arguments])
