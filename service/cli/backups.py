"""passbook backup and restore: whole copies of the database, made beside the service and put back."""

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from service.cli import progress
from service.cli.common import Command, config_of, database_option, load_migrations, require_database
from service.ledger.timestamps import system_clock
from service.storage import backups, copies, sqlite
from service.storage.backups import BackupReport
from service.storage.progress import Progress

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

no_proof_option = click.option(
    "--no-proof", is_flag=True, help="Let SQLite check the file, but do not prove that it adds up."
)


@click.command(cls=Command)
@database_option
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A name that is not taken, or a folder. Default: passbook-<UTC>.db in backups/ beside the database.",
)
@no_proof_option
def backup(database: str | None, to: Path | None, no_proof: bool) -> None:
    """Copy the database. The service may run meanwhile. The copy appears complete and proved, or not at all."""
    config = config_of(database=database)
    path = config.database_path
    require_database(path)
    target = to or path.resolve().parent / copies.FOLDER
    if to is None:
        sqlite.make_folder(target)
    if target.is_dir():
        target /= f"{copies.PREFIX}{backups.stamp(system_clock)}.db"
    sqlite.yield_to_others()
    reader = sqlite.connect_reader(path, busy_timeout_ms=config.busy_timeout_ms)
    with contextlib.closing(reader) as source, _shown("Stopped; nothing was made.") as show:
        made = backups.back_up(source, target, load_migrations(), system_clock, show, prove=not no_proof)
    click.echo(f"Backed up {path} to {target}")
    _say(made)
    command = shlex.join(["passbook", "restore", str(target), "--database", str(path)])
    click.echo(f"To restore it, with the service stopped: {command} --replace")


@click.command(cls=Command)
@database_option
@click.option("--replace", is_flag=True, help="Keep the database that is there under another name.")
@no_proof_option
@click.argument("file", type=click.Path(path_type=Path))
def restore(database: str | None, replace: bool, no_proof: bool, file: Path) -> None:
    """Make FILE the database: a backup, or the copy from before a migration. Stop the service first.

    FILE is checked before anything is touched, and stays as it is. If it has an earlier schema, or the bot's own,
    `migrate up` is the next step. An existing database is replaced only with --replace, and is then kept beside the new
    one.
    """
    path = config_of(database=database).database_path
    with _shown("Stopped; the database is as it was.") as show:
        done = backups.restore(file, path, load_migrations(), system_clock, show, prove=not no_proof, replace=replace)
    click.echo(f"Restored {file} to {path}")
    _say(done.database)
    if done.kept:
        click.echo(f"What was there is kept: {', '.join(map(str, done.kept))}")
    hint = "" if database is None else f" --database {shlex.quote(database)}"
    click.echo(f"Next: passbook {'migrate up' if done.database.pending else 'serve'}{hint}")


def _say(report: BackupReport) -> None:
    if report.proved:
        proof = "It adds up."
    elif report.pending:
        proof = f"Not proved: it is {report.pending} of this program's migrations behind."
    else:
        proof = "Not proved."
    click.echo(
        f"  size: {report.size_bytes:,} bytes\n"
        f"  users: {report.users:,}\n"
        f"  transactions: {report.transactions:,}\n"
        f"  audit rows: {report.audit_rows:,}, the last is {report.audit_head or 'none'}\n"
        f"{proof}"
    )


@contextlib.contextmanager
def _shown(stopped: str) -> Iterator[Progress]:
    """A progress bar on a terminal, else a line for each step; SIGINT and SIGTERM end the block with `stopped`."""
    terminal = sys.stderr.isatty()
    asked: list[int] = []
    # Noted, not raised: within a long statement an exception of a handler would be lost in SQLite.
    earlier = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in _SIGNALS}
    step = ""
    try:
        with progress.bar() as bar:
            task = bar.add_task("")

            def show(name: str, done: int, total: int) -> None:
                nonlocal step
                if asked and step != backups.LAST_STEP:
                    raise KeyboardInterrupt
                bar.update(task, description=name, completed=done, total=total)
                if name != step and not terminal:
                    click.echo(f"{name} …", err=True)
                step = name

            yield show
    except KeyboardInterrupt as error:
        raise click.ClickException(stopped) from error
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
