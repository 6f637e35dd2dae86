"""passbook migrate: the schema, up and down; the guide's procedure with the decisions left to a person."""

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from service.cli import progress
from service.cli.common import (
    MAKE_ONE,
    Group,
    config_of,
    database_option,
    load_migrations,
    require_database,
)
from service.cli.output import Output
from service.config import Config
from service.ledger.timestamps import system_clock
from service.storage import (
    adoption,
    copies,
    guard,
    lock,
    migration_check,
    migration_plan,
    migrator,
    private_files,
    remains,
    sqlite,
)
from service.storage.adoption import Adoption
from service.storage.exporter import new_file
from service.storage.import_source import open_source
from service.storage.migration_check import Before, CheckLine
from service.storage.migration_plan import Plan, Review
from service.storage.migrator import MigrationError

_LINE_EVERY_S = 5
_MIB = 2**20
_CACHE_MIB = 128


@click.group(cls=Group)
def migrate() -> None:
    """Bring the database to this program's schema, or back."""


@migrate.command("plan")
@database_option
@click.option(
    "--to", type=click.IntRange(min=0), metavar="N", help="Plan only up to migration N, as `migrate up --to N`."
)
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
def migrate_plan(database: str | None, to: int | None, as_json: bool) -> None:
    """Show what `migrate up` would do. Reads only.

    Exit code 0: it would start, or nothing is pending. 1: it would refuse, and the output says why.
    """
    config = config_of(database=database)
    with _reading(config) as connection, progress.shown() as show:
        plan = migration_plan.plan(connection, config.database_path, load_migrations(), to=to, on_progress=show)
    if as_json:
        click.echo(msgspec.json.encode(plan))
    else:
        _say_plan(plan)
    if plan.blockers:
        sys.exit(1)


@migrate.command("up")
@database_option
@click.option("--to", type=click.IntRange(min=0), metavar="N", help="Stop after migration N.")
@click.option("--no-backup", is_flag=True, help="Make no copy of the database first.")
def migrate_up(database: str | None, to: int | None, no_backup: bool) -> None:
    """Apply the pending migrations, each completely or not at all, and go through the guide's checklist.

    A checked copy of the database is made before. Exit code 1: it did not start, or a line of the checklist fails.
    """
    config = config_of(database=database)
    path, migrations = config.database_path, load_migrations()
    before, copy = None, None
    remains.require_file(path)
    sqlite.make_folder(path.parent)
    with lock.exclusive(path, purpose="migrate"):
        if remains.is_missing(path):
            remains.require_none(path, config.audit_key_path)
        else:
            guard.require_log(path)
            sqlite.undo_interrupted(path)
            with _reading(config) as connection, _Show() as show:
                plan = migration_plan.plan(
                    connection, path, migrations, to=to, copy=not no_backup, on_progress=show.progress
                )
                if plan.blockers:
                    raise MigrationError("\n".join(plan.blockers))
                if not plan.pending and not migrator.has_steps_left(connection):
                    click.echo("Nothing was pending. What is there is checked by: passbook migrate verify")
                    return
                if plan.version >= 0:
                    before = migration_check.count_before(connection, migrations)
                    if not no_backup:
                        copy = _copy(connection, path, "migrate", show)
        adopted = copy if before is not None and plan.adopted else None
        with _writing(config) as connection, _going_back(path, before, copy, database), _Show() as show:
            count = migrator.up(connection, migrations, show.say, to=to, progress=show.progress)
            show.say(f"{count} applied.")
            _finish(connection, before, copy)
        if adopted is not None:
            like = shlex.join(["passbook", "export", "BACK.sql", "--like", str(adopted), "--database", str(path)])
            click.echo(f"To go back to the bot's own tables, with what is written from now on: {like}")
        for line in _way_back(path, before, copy, database):
            click.echo(line)
    click.echo("Next: passbook serve")


@migrate.command("adapt")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("target", metavar="SQL", type=click.Path(path_type=Path))
def migrate_adapt(file: Path, target: Path) -> None:
    """Write SQL that turns the bot's tables in FILE into those of migration 000.

    FILE is an export of the D1 or its SQLite file. `wrangler d1 execute --file SQL` takes what is written; then the
    migrations run on the D1. Exit code 1: it cannot be done, and the output says why. (`migrate up` does it by itself.)
    """
    adopting = _adoption_of(file, target.with_name(f"{target.name}.source"))
    if adopting is None:
        click.echo("Nothing to adapt: the tables are those of migration 000.")
        return
    with new_file(target) as partial, private_files.create(partial) as out:
        out.write(("\n\n".join(adopting.statements) + "\n").encode())
    for said in adopting.differences:
        click.echo(f"  {said}")
    click.echo(f"Next: wrangler d1 execute NAME --remote --file {target}, then the files of migrations/")


def _adoption_of(file: Path, scratch: Path) -> Adoption | None:
    """What makes the tables of `file` those of 000, on a D1. Raises MigrationError with what is in its way."""
    migrations = load_migrations()
    try:
        with progress.shown() as show:
            source = open_source(file, scratch, migrations, click.echo, show)
        with contextlib.closing(source.connection) as connection:
            adopting = migrator.adoption_of(connection, migrations)
            if adopting is None:
                return None
            if wrong := [*adopting.blockers, *adoption.in_the_way_of_d1(connection)]:
                raise MigrationError("\n".join(wrong))
            return adopting
    finally:
        for leftover in sqlite.files_of(scratch):
            leftover.unlink(missing_ok=True)


@migrate.command("down")
@database_option
@click.option(
    "--to", type=click.IntRange(min=0), metavar="N", help="The migration to go back to. Default: the one before."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def migrate_down(database: str | None, to: int | None, yes: bool) -> None:
    """Roll back every migration above N, the latest first, and check what is left.

    A checked copy of the database is made before. Exit code 1: it did not start, or a line of the checklist fails.
    """
    config = config_of(database=database)
    path, migrations = config.database_path, load_migrations()
    if not path.is_file():
        raise click.ClickException(f"There is no database {path}.")
    with lock.exclusive(path, purpose="migrate"):
        guard.require_log(path)
        sqlite.undo_interrupted(path)
        with _reading(config) as connection, _Show() as show:
            before = migration_check.count_before(connection, migrations)
            target = max(0, before.version - 1) if to is None else to
            if before.version <= target:
                click.echo(f"Nothing to do: the database is at migration {before.version:03d}.")
                return
            if lost := migration_plan.directions_lost(connection, before.version, target):
                raise MigrationError("\n".join(lost))
            names = ", ".join(migration.name for migration in reversed(migrations[target + 1 : before.version + 1]))
            if not yes:
                click.confirm(f"Roll back {names}? What these tables and columns hold is lost", abort=True)
            copy = _copy(connection, path, "rollback", show)
        with _writing(config) as connection, _going_back(path, None, copy, database), _Show() as show:
            count = migrator.down(connection, migrations, show.say, to=target, progress=show.progress)
            show.say(f"{count} rolled back.")
            _finish(connection, before, copy)
        for line in _way_back(path, None, copy, database):
            click.echo(line)


@migrate.command("verify")
@database_option
@click.option("--json", "as_json", is_flag=True, help="Print the checklist as a JSON array.")
def migrate_verify(database: str | None, as_json: bool) -> None:
    """Go through the guide's verification checklist. It only reads, and the service may run meanwhile.

    Exit code 0: no line fails, 1: one does. ⬜ marks what cannot be seen from here.
    """
    config = config_of(database=database)
    migrations = load_migrations()
    with _reading(config) as connection:
        backup = next(iter(copies.beside(config.database_path)), None)
        version = migrator.version_of(connection, migrations)
        lines = []
        for line in migration_check.checklist(connection, migrations, before=None, backup=backup):
            lines.append(line)
            if not as_json:
                _say_line(line)
    if as_json:
        click.echo(msgspec.json.encode(lines))
    elif version < len(migrations) - 1:
        click.echo(
            f"The database is at migration {version:03d} of {len(migrations) - 1:03d}. See: passbook migrate plan"
        )
    if any(line.passed is False for line in lines):
        sys.exit(1)


@migrate.command("status")
@database_option
def migrate_status(database: str | None) -> None:
    """List the migrations and when each was applied."""
    with _reading(config_of(database=database)) as connection:
        rows = migrator.status(connection, load_migrations())
    for row in rows:
        remark = "  (its file was changed since)" if row.checksum_differs else ""
        click.echo(f"{row.migration.name:28} {row.applied_at or 'pending'}{remark}")
    if any(row.applied_at is None for row in rows):
        click.echo("Next: passbook migrate up")


class _Show:
    """What goes on: a bar where there is a terminal, else a line now and then. Lifetime: a `with` block."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:26}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        console = Output(highlight=False, soft_wrap=True, markup=False)
        self._terminal = sys.stdout.isatty()
        self._bar = Progress(*columns, console=console, transient=True, disable=not self._terminal)
        self._task = self._bar.add_task("", total=None, visible=False)
        self._name, self._began, self._said = "", 0.0, 0.0

    def __enter__(self) -> "_Show":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._terminal:
            self._bar.console.print(line)
        else:
            click.echo(line)

    def progress(self, name: str, done: int, total: int) -> None:
        """How far a step is."""
        now = time.monotonic()
        if name != self._name:
            self._name, self._began, self._said = name, now, now
            self._bar.reset(self._task, description=name, total=total, visible=True)
        self._bar.update(self._task, completed=done)
        if done == total and now - self._began >= 1:
            self.say(f"  {name} took {now - self._began:.1f} s")
        elif not self._terminal and now - self._said >= _LINE_EVERY_S:
            self._said = now
            click.echo(f"  {name}: {done:,} of {total:,}, {now - self._began:.0f} s")


@contextlib.contextmanager
def _reading(config: Config) -> Iterator[sqlite.Connection]:
    path = config.database_path
    require_database(path, remedy=MAKE_ONE)
    with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=config.busy_timeout_ms)) as connection:
        yield connection


@contextlib.contextmanager
def _writing(config: Config) -> Iterator[sqlite.Connection]:
    """The database for work that nobody else may do beside; the caller holds the lock."""
    connection = sqlite.connect_writer(config.database_path, busy_timeout_ms=config.busy_timeout_ms, checkpoints=True)
    with contextlib.closing(connection):
        sqlite.use_memory(connection, mib=_CACHE_MIB)
        yield connection
    sqlite.sync(config.database_path.parent)


def _copy(connection: sqlite.Connection, path: Path, purpose: str, show: _Show) -> Path:
    copy = copies.keep(connection, path, purpose=purpose, now=system_clock(), on_progress=show.progress)
    show.say(f"A copy from before is at {copy}.")
    return copy


@contextlib.contextmanager
def _going_back(path: Path, before: Before | None, copy: Path | None, database: str | None) -> Iterator[None]:
    """Adds to an error how to go back."""
    try:
        yield
    except (MigrationError, sqlite.DatabaseError) as error:
        said = error if isinstance(error, MigrationError) else f"The database answered: {error}."
        raise MigrationError("\n".join([str(said), *_way_back(path, before, copy, database)])) from error


def _way_back(path: Path, before: Before | None, copy: Path | None, database: str | None) -> list[str]:
    lines = []
    if before is not None:
        where = "" if database is None else f" --database {shlex.quote(database)}"
        lines.append(f"To go back: passbook migrate down --to {before.version}{where}")
    if copy is not None:
        command = shlex.join(["passbook", "restore", str(copy), "--database", str(path), "--replace"])
        lines.append(f"Or as it was, without what is written from now on: {command}")
    return lines


def _finish(connection: sqlite.Connection, before: Before | None, copy: Path | None) -> None:
    """The checklist. Raises MigrationError when a line fails."""
    failed = False
    for line in migration_check.checklist(connection, load_migrations(), before=before, backup=copy):
        _say_line(line)
        failed |= line.passed is False
    if failed:
        raise MigrationError("The checklist has lines that fail.")


def _say_line(line: CheckLine) -> None:
    mark = {True: "✅", False: "❌", None: "⬜"}[line.passed]
    click.echo(f"{mark} {line.check}: {line.said}")


def _say_plan(plan: Plan) -> None:
    stands = "is empty" if plan.version < 0 else f"is at migration {plan.version:03d}"
    click.echo(f"{plan.database} {stands}; pending: {', '.join(plan.pending) or 'nothing'}.")
    for table, count in plan.tables.items():
        click.echo(f"  {table:22}{count:>14,} rows")
    _say_review("negative balances, rejected by 001 and kept in audit_logs", plan.negative_balances)
    _say_review("names above 50 characters, cut by 001 and kept whole in audit_logs", plan.long_names)
    for notice in plan.notices:
        click.echo(f"Note: {notice}")
    if plan.pending:
        click.echo(
            f"It takes about {plan.seconds:,.0f} s by measured rates, and nothing may use the database meanwhile."
        )
        click.echo(
            f"Disk: {plan.needed_bytes / _MIB:,.0f} MiB may be needed, with a copy of the file's"
            f" {plan.file_bytes / _MIB:,.0f} MiB; {plan.free_bytes / _MIB:,.0f} MiB are free."
        )
        newest = f"the newest of {plan.backups} is {plan.backup}" if plan.backup else "none lies beside the database"
        click.echo(f"Backups: {newest}; `migrate up` makes one first.")
    for blocker in plan.blockers:
        click.echo(f"❌ {blocker}")
    if plan.pending and not plan.blockers:
        click.echo("Next: passbook migrate up")


def _say_review(what: str, review: Review) -> None:
    if review.count:
        click.echo(f"  {what}: {review.count:,}")
        for row in review.examples:
            click.echo("    " + ", ".join(f"{column} {value}" for column, value in row.items()))
        if review.count > len(review.examples):
            click.echo(f"    … and {review.count - len(review.examples):,} more")
