"""passbook export: the way back to D1."""

from pathlib import Path

import click

from service.cli import progress
from service.cli.common import Command, config_of, database_option, load_migrations, require_database
from service.storage.exporter import ExportFailed, export_database


@click.command(cls=Command)
@database_option
@click.option(
    "--schema",
    type=click.Choice(["001", "none"]),
    default="001",
    show_default=True,
    help="The tables as migration 001 leaves them, or none: rows alone, for tables that are there.",
)
@click.argument("file", type=click.Path(path_type=Path))
def export(database: str | None, schema: str, file: Path) -> None:
    """Write the bot's tables and the audit log to FILE, as SQL that `wrangler d1 execute --file` takes.

    Also while the service runs: FILE is the database as it was at one instant, whole or not there at all.
    """
    config = config_of(database=database)
    require_database(config.database_path)
    try:
        with progress.shown() as show:
            report = export_database(
                config.database_path,
                file,
                load_migrations(),
                with_schema=schema != "none",
                busy_timeout_ms=config.busy_timeout_ms,
                progress=show,
            )
    except ExportFailed as error:
        raise click.ClickException(str(error)) from error
    for table, rows in report.tables.items():
        click.echo(f"  {table}: {rows:,} rows")
    click.echo(f"Wrote {sum(report.tables.values()):,} rows, {report.size:,} bytes, to {file}.")
    click.echo(f"Next, with an empty D1: wrangler d1 execute NAME --remote --file {file}")
