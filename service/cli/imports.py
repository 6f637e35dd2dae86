"""passbook import: the bot's database becomes Passbook's."""

import shlex
from pathlib import Path

import click

from service.cli.common import Command, config_of, database_option, load_migrations
from service.storage.importer import import_database


@click.command("import", cls=Command)
@database_option
@click.argument("file", type=click.Path(path_type=Path))
def import_(database: str | None, file: Path) -> None:
    """Make a new database from FILE: what `wrangler d1 export` wrote, or an SQLite file of the bot."""
    config = config_of(database=database)
    report = import_database(file, config.database_path, load_migrations(), click.echo)
    click.echo(
        f"Took over {sum(report.tables.values()):,} rows into {config.database_path}.\n"
        f"  negative balances rejected: {report.balances_rejected:,}\n"
        f"  long depositor names cut: {report.names_truncated:,}\n"
        f"  accounts without a user removed: {report.accounts_removed:,}\n"
        f"  balances that needed an opening entry: {report.opening_entries:,}\n"
        f"  values mended: {report.values_mended:,}\n"
        f"  times spelled anew: {report.times_respelled:,}\n"
        f"  left aside: {', '.join(report.left_aside) or 'nothing'}"
    )
    if report.unreachable_users:
        more = ", …" if report.unreachable_users > len(report.unreachable_examples) else ""
        examples = ", ".join(report.unreachable_examples)
        click.echo(f"  unreachable users: {report.unreachable_users:,} (no telegram_id of digits: {examples}{more})")
    if report.unknown_types:
        click.echo(f"  unknown transaction types, counted as credits: {', '.join(report.unknown_types)}")
    logged = report.balances_rejected + report.names_truncated + report.accounts_removed + report.opening_entries
    if logged + report.values_mended:
        click.echo("Each of these, but for times spelled anew, is in the audit log with the old value.")
    database_hint = "" if database is None else f" --database {shlex.quote(database)}"
    click.echo(f"Every balance equals its transactions. Next: passbook serve{database_hint}")
