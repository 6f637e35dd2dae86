"""passbook integrity: the proof that the ledger adds up, for a timer and for people."""

import sys

import click
import msgspec
from rich.text import Text

from service.cli import progress
from service.cli.common import (
    CannotBeChecked,
    Command,
    checking,
    config_of,
    database_option,
    jobs_option,
    load_migrations,
    reading,
    workers,
)
from service.cli.output import Output
from service.config import Config
from service.ledger.integrity import EXAMPLES_MAX, IntegrityReport, IntegrityStatus
from service.ledger.timestamps import system_clock
from service.storage.integrity import Proof

_BROKEN = 1
EXAMPLES_LIMIT = 10_000
"""So that a report stays small beside the ledger."""


@click.command(cls=Command)
@database_option
@jobs_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as GET /v1/integrity answers it.")
@click.option("--quick", is_flag=True, help="Leave out the check of the file's pages and the hashes of the audit log.")
@click.option(
    "--examples",
    type=click.IntRange(1, EXAMPLES_LIMIT),
    default=EXAMPLES_MAX,
    show_default=True,
    help="How many of the rows that fail a check are named.",
)
def integrity(database: str | None, jobs: int | None, as_json: bool, quick: bool, examples: int) -> None:
    """Prove that it adds up. Exit code 0: sound, 1: broken, 2: it cannot be checked.

    It only reads, and the service may run meanwhile. The first rows that fail a check are named.
    """
    with checking():
        report = _prove(config_of(database=database), jobs, quick=quick, examples_max=examples)
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        _say_report(report)
    if report.status == IntegrityStatus.UNFINISHED:
        raise CannotBeChecked(f"The ledger cannot be checked. {report.reason}")
    if report.status == IntegrityStatus.BROKEN:
        sys.exit(_BROKEN)


def _prove(config: Config, jobs: int | None, *, quick: bool, examples_max: int) -> IntegrityReport:
    """The finished proof; with a progress bar where there is a terminal."""
    with reading(config) as connection, workers(config, connection, 1 if quick else jobs) as others:
        proof = Proof(load_migrations(), system_clock, quick=quick, workers=others, examples_max=examples_max)
        with progress.bar() as bar:
            task = bar.add_task("")

            def show() -> None:
                checked, total = proof.progress
                bar.update(task, description=proof.step, completed=checked, total=total)

            proof.run(connection, show)
        return proof.report()


def _say_report(report: IntegrityReport) -> None:
    console = Output(highlight=False, soft_wrap=True)
    for check in report.checks:
        word, style = ("BROKEN", "bold red") if check.failed else ("ok", "green")
        failed = f", {check.failed:,} failed" if check.failed else ""
        console.print(Text(f"{word:7}", style) + Text(f"{check.name:28}{check.checked:>14,} checked{failed}"))
        for example in check.examples:
            named = (
                ("user", example.telegram_id),
                ("transaction", example.transaction_id),
                (example.table, example.row_id),
            )
            where = ", ".join(f"{kind} {name}" for kind, name in named if kind is not None and name is not None)
            console.print(Text(f"         {where}: {example.said}" if where else f"         {example.said}"))
        if check.failed > len(check.examples):
            console.print(Text(f"         … and {check.failed - len(check.examples):,} more"))
    seconds = (report.duration_ms or 0) / 1000
    if report.status != IntegrityStatus.UNFINISHED:
        word = "It adds up" if report.status == IntegrityStatus.SOUND else "It does not add up"
        ended = f" It ended early: {report.reason}" if report.reason else ""
        console.print(Text(f"{word}: {report.checked:,} rows in {seconds:.1f} s.{ended}"))
