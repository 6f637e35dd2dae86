"""passbook import: the bot's database becomes Passbook's."""

import shlex
from pathlib import Path

import click

from service.cli import progress
from service.cli.common import Command, config_of, database_option, load_migrations
from service.ledger.transactions import Direction
from service.storage import import_words, lock, remains
from service.storage.import_findings import EXAMPLES_MAX, Findings
from service.storage.importer import KNOWN_STATUSES, ImportReport, import_database


def _statuses(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """--status WORD=STATUS as a mapping."""
    statuses: dict[str, str] = {}
    for pair in given:
        word, _, meant = pair.rpartition("=")
        if not word or meant not in KNOWN_STATUSES:
            raise click.BadParameter(f"{pair!r} is not WORD=STATUS with one of {', '.join(KNOWN_STATUSES)}.")
        if word in KNOWN_STATUSES:
            raise click.BadParameter(f"{word} is a status of Passbook's and keeps its meaning.")
        if statuses.setdefault(word, meant) != meant:
            raise click.BadParameter(f"{word} is given two meanings.")
    return statuses


def _types(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, Direction]:
    """--type NAME=DIRECTION as a mapping."""
    types: dict[str, Direction] = {}
    for pair in given:
        word, _, meant = pair.rpartition("=")
        if not word or meant not in set(Direction):
            raise click.BadParameter(f"{pair!r} is not NAME=debit or NAME=credit.")
        known = import_words.direction_of(word, {})
        if known is not None:
            raise click.BadParameter(f"{word} is a {known} and stays one.")
        if types.setdefault(word, Direction(meant)) != meant:
            raise click.BadParameter(f"{word} is given two directions.")
    return types


@click.command("import", cls=Command)
@database_option
@click.option(
    "--status",
    "statuses",
    metavar="WORD=STATUS",
    multiple=True,
    callback=_statuses,
    help="What the bot's word for a transaction's status means, such as completed=confirmed. May be repeated.",
)
@click.option(
    "--type",
    "types",
    metavar="NAME=DIRECTION",
    multiple=True,
    callback=_types,
    help="Which way money of this type moved, debit or credit, such as hosting=debit. May be repeated.",
)
@click.option(
    "--report",
    "report_path",
    metavar="NDJSON",
    type=click.Path(path_type=Path),
    help="List all that was refused, mended, archived or left in this new file, a JSON object a line.",
)
@click.argument("file", type=click.Path(path_type=Path))
def import_(
    database: str | None, statuses: dict[str, str], types: dict[str, Direction], report_path: Path | None, file: Path
) -> None:
    """Make a new database from the bot's data in FILE.

    FILE is what `wrangler d1 export` wrote (with the schema, or with --no-schema), an sqlite3 .dump, or an SQLite file.
    """
    config = config_of(database=database)
    if remains.is_missing(config.database_path) and lock.holder(config.database_path) is None:
        remains.require_none(config.database_path, config.audit_key_path, anew=remains.IMPORT_ANEW)
    with progress.shown() as show:
        report = import_database(
            file,
            config.database_path,
            load_migrations(),
            click.echo,
            statuses=statuses,
            types=types,
            findings=Findings(report_path),
            progress=show,
        )
    click.echo(f"Took over {sum(report.tables.values()):,} rows into {config.database_path}.")
    _say(report)
    if report_path is not None:
        click.echo(f"All of it, row by row, is in {report_path}.")
    database_hint = "" if database is None else f" --database {shlex.quote(database)}"
    click.echo(f"Every balance equals its transactions. Next: passbook serve{database_hint}")


def _say(report: ImportReport) -> None:
    click.echo(
        f"  negative balances rejected: {report.balances_rejected:,}\n"
        f"  long depositor names cut: {report.names_truncated:,}\n"
        f"  accounts without a user removed: {report.accounts_removed:,}\n"
        f"  balances that needed an opening entry: {report.opening_entries:,}"
    )
    for said in report.openings:
        click.echo(f"    {said}")
    if report.opening_entries > EXAMPLES_MAX:
        click.echo(f"    … and {report.opening_entries - EXAMPLES_MAX:,} more")
    click.echo(
        f"  values mended: {report.values_mended:,}\n"
        f"  times spelled anew: {report.times_respelled:,}\n"
        f"  numbers of another type: {report.numbers_retyped:,}\n"
        f"  unknown columns, kept in import_archive: {', '.join(report.archived) or 'none'}\n"
        f"  left aside: {', '.join(report.left_aside) or 'nothing'}"
    )
    for word, count in report.statuses_mapped.items():
        click.echo(f"  status {word!r} mapped: {count:,} transactions")
    for word, count in report.unknown_statuses.items():
        click.echo(
            f"  unknown status {word!r}: {count:,} transactions, kept as they are and counted as no money (where they"
            " were, the balance needed an opening entry; else say what it means: import anew with --status"
            f" {shlex.quote(word)}=MEANING)"
        )
    if report.unreachable_users:
        more = ", …" if report.unreachable_users > len(report.unreachable_examples) else ""
        examples = ", ".join(report.unreachable_examples)
        click.echo(f"  unreachable users: {report.unreachable_users:,} (no telegram_id of digits: {examples}{more})")
    if report.padded_users:
        more = ", …" if report.padded_users > len(report.padded_examples) else ""
        examples = ", ".join(report.padded_examples)
        click.echo(
            f"  users whose telegram_id begins with 0: {report.padded_users:,} ({examples}{more}); they stay reachable,"
            " and no new user gets such an id"
        )
    for word, counted in report.types_told.items():
        click.echo(f"  type {word!r} counted as {counted}")
    if report.unknown_types:
        types = ", ".join(report.unknown_types)
        click.echo(
            f"  unknown transaction types, counted as credits: {types}; where one is money that left, import anew with"
            " --type NAME=debit"
        )
    if report.domains_registered:
        click.echo(f"  domain names without a status, taken as registered: {report.domains_registered:,}")
    if report.by_order:
        click.echo(
            f"  taken in the baseline's order of columns, as the export names none: {', '.join(report.by_order)}"
        )
    for doubt in report.doubts:
        click.echo(f"  Warning: {doubt}")
    logged = report.balances_rejected + report.names_truncated + report.accounts_removed + report.opening_entries
    if logged + report.values_mended:
        click.echo("Each of these, but for times and types, is in the audit log with the old value.")
