"""passbook migrate: the schema, up and down."""

import contextlib
from pathlib import Path

import click

from service.cli.common import (
    Group,
    config_of,
    database_option,
    load_migrations,
    opened,
)
from service.ledger.timestamps import system_clock
from service.storage import migrator, sqlite


@click.group(cls=Group)
def migrate() -> None:
    """Bring the database to this program's schema, or back."""


@migrate.command("up")
@database_option
@click.option("--to", type=click.IntRange(min=0), metavar="N", help="Stop after migration N.")
def migrate_up(database: str | None, to: int | None) -> None:
    """Apply the migrations that are pending, each whole or not at all."""
    with opened(config_of(database=database), alone=True) as connection:
        count = migrator.up(connection, load_migrations(), click.echo, to=to)
        click.echo(f"{count} applied." if count else "Nothing was pending.")
        click.echo("Next: passbook serve")


@migrate.command("down")
@database_option
@click.option("--to", type=click.IntRange(min=0), metavar="N", required=True, help="The migration to go back to.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def migrate_down(database: str | None, to: int, yes: bool) -> None:
    """Roll back every migration above N, the latest first. A copy of the database is made before."""
    config = config_of(database=database)
    with opened(config, alone=True) as connection:
        migrations = load_migrations()
        version = migrator.version_of(connection, migrations)
        if version <= to:
            click.echo(f"Nothing to do: the database is at migration {version:03d}.")
            return
        names = ", ".join(migration.name for migration in reversed(migrations[to + 1 : version + 1]))
        if not yes:
            click.confirm(f"Roll back {names}? What these tables and columns hold is lost", abort=True)
        copy = _copy_aside(connection, config.database_path)
        click.echo(f"A copy from before is at {copy}.")
        count = migrator.down(connection, migrations, click.echo, to=to)
        click.echo(
            f"{count} rolled back. To undo: move the database and its -wal and -shm away, then put {copy} in its place."
        )


@migrate.command("status")
@database_option
def migrate_status(database: str | None) -> None:
    """List the migrations and when each was applied."""
    config = config_of(database=database)
    if not config.database_path.is_file():
        raise click.ClickException(f"There is no database {config.database_path}. Make one with: passbook migrate up")
    connection = sqlite.connect_reader(config.database_path, busy_timeout_ms=config.busy_timeout_ms)
    with contextlib.closing(connection):
        rows = migrator.status(connection, load_migrations())
    for row in rows:
        remark = "  (its file was changed since)" if row.checksum_differs else ""
        click.echo(f"{row.migration.name:28} {row.applied_at or 'pending'}{remark}")
    if any(row.applied_at is None for row in rows):
        click.echo("Next: passbook migrate up")


def _copy_aside(connection: sqlite.Connection, path: Path) -> Path:
    """A complete copy of the database beside it, synced; its path."""
    copy = path.with_name(f"{path.name}.before-rollback-{system_clock():%Y%m%d_%H%M%S}")
    connection.execute("VACUUM INTO ?", (str(copy),))
    sqlite.sync(copy)
    sqlite.sync(copy.parent)
    return copy
