"""The command line: passbook serve | migrate | keys | import | integrity | openapi."""

import contextlib
import getpass
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from service import __version__, resources, server
from service.app import create_app, prepare_to_stop
from service.config import Config, ConfigError
from service.ledger.access import RANDOM_BYTES, ROLES, Scope
from service.ledger.audit_logs import SERVICE_ACTOR
from service.ledger.integrity import IntegrityReport, IntegrityStatus
from service.ledger.timestamps import spoken, stored, system_clock
from service.repository import api_keys as key_door
from service.storage import api_keys, lock, migrator, sqlite
from service.storage.importer import ImportFailed, import_database
from service.storage.integrity import Proof
from service.storage.migrator import MigrationError

_KNOWN_ERRORS = (
    ConfigError,
    MigrationError,
    ImportFailed,
    lock.DatabaseInUse,
    sqlite.EngineError,
    server.ListenError,
)
_BROKEN, _CANNOT_BE_CHECKED = 1, 2
_FIRST_KEY_NAME = "first-admin"
_CLI_ACTOR = "cli:"

database_option = click.option(
    "--database", metavar="FILE", help="The database. Default: $PASSBOOK_DATABASE, or data/passbook.db."
)


class _Command(click.Command):
    """A command that turns what a user can mend into one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except _KNOWN_ERRORS as error:
            raise click.ClickException(str(error)) from error
        except sqlite.DatabaseError as error:
            raise click.ClickException(f"The database answered: {error}.") from error
        except OSError as error:
            raise click.ClickException(f"{error.filename or 'The system'}: {error.strerror or error}.") from error


class _Group(click.Group):
    """A group whose commands are of that kind."""

    command_class = _Command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="passbook")
def main() -> None:
    """Passbook (통장): a ledger of prepaid balances and an audit log, over HTTP.

    Every setting is an environment variable too: PASSBOOK_DATABASE, PASSBOOK_PORT and so on; see the README.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


@main.command()
@database_option
@click.option("--host", help="Address to listen on. Default: 127.0.0.1.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one. Default: 8000.")
def serve(database: str | None, host: str | None, port: int | None) -> None:
    """Serve the API. Makes the database when there is none; prints an admin key, once, when there is no key."""
    config = _config(database=database, host=host, port=port)
    with contextlib.closing(server.listen(config)) as listener:
        # Only now: a start that fails at the port must not use up the one time that the first key is shown.
        first_key = _prepare(config)
        app = create_app(config)
        bound_host, bound_port = listener.getsockname()[:2]
        url = f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"
        server.run(
            app,
            config,
            listener,
            on_ready=lambda: _say_ready(url, config, first_key),
            on_stop=lambda: prepare_to_stop(app),
        )
    click.echo("Stopped.")


def _prepare(config: Config) -> str | None:
    """Makes and migrates a database that is not there, and its first key; the key, or None when there were keys."""
    path = config.database_path
    sqlite.make_folder(path.parent)
    with lock.exclusive(path):
        _require_ours(config)
        connection = sqlite.connect_writer(path, busy_timeout_ms=config.busy_timeout_ms, checkpoints=True)
        with contextlib.closing(connection):
            migrations = _migrations()
            if migrator.version_of(connection, migrations) == -1:
                migrator.up(connection, migrations, lambda line: click.echo(f"  {line}"))
                sqlite.sync(path.parent)
                click.echo(f"Made the database {path}.")
            migrator.require_latest(connection, migrations)
            if api_keys.list_all(connection):
                return None
            return key_door.create(
                connection,
                name=_FIRST_KEY_NAME,
                scopes=ROLES["admin"],
                actor=_actor(),
                now=_now(),
                random_bytes=os.urandom(RANDOM_BYTES),
            )


def _say_ready(url: str, config: Config, first_key: str | None) -> None:
    click.echo(f"Passbook {__version__} serves {config.database_path} at {url} (docs: {url}/docs). Stop: Ctrl+C.")
    if first_key is not None:
        click.echo(
            f"\nFirst admin key, shown only now: {first_key}\n\nTry it:\n"
            f"  curl -sS {url}/v1/deposits -H 'Authorization: Bearer {first_key}' \\\n"
            "    -H 'Content-Type: application/json' -H 'Idempotency-Key: first-deposit' \\\n"
            '    -d \'{"telegram_id": "123456", "amount": 5000, "depositor_name": "홍길동"}\'\n\n'
            "Make narrower keys with: passbook keys create --name telegram-bot --role bot"
        )
    sys.stdout.flush()


@main.group(cls=_Group)
def migrate() -> None:
    """Bring the database to this program's schema, or back."""


@migrate.command("up")
@database_option
@click.option("--to", type=click.IntRange(min=0), metavar="N", help="Stop after migration N.")
def migrate_up(database: str | None, to: int | None) -> None:
    """Apply the migrations that are pending, each whole or not at all."""
    with _opened(_config(database=database), alone=True) as connection:
        count = migrator.up(connection, _migrations(), click.echo, to=to)
        click.echo(f"{count} applied." if count else "Nothing was pending.")
        click.echo("Next: passbook serve")


@migrate.command("down")
@database_option
@click.option("--to", type=click.IntRange(min=0), metavar="N", required=True, help="The migration to go back to.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def migrate_down(database: str | None, to: int, yes: bool) -> None:
    """Roll back every migration above N, the latest first. A copy of the database is made before."""
    config = _config(database=database)
    with _opened(config, alone=True) as connection:
        migrations = _migrations()
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
    config = _config(database=database)
    if not config.database_path.is_file():
        raise click.ClickException(f"There is no database {config.database_path}. Make one with: passbook migrate up")
    connection = sqlite.connect_reader(config.database_path, busy_timeout_ms=config.busy_timeout_ms)
    with contextlib.closing(connection):
        rows = migrator.status(connection, _migrations())
    for row in rows:
        remark = "  (its file was changed since)" if row.checksum_differs else ""
        click.echo(f"{row.migration.name:28} {row.applied_at or 'pending'}{remark}")
    if any(row.applied_at is None for row in rows):
        click.echo("Next: passbook migrate up")


@main.group(cls=_Group)
def keys() -> None:
    """Make, list and revoke API keys; also while the service runs."""


@keys.command("create")
@database_option
@click.option("--name", required=True, help="Who acts with the key; stands in the audit log as actor.")
@click.option("--role", type=click.Choice(sorted(ROLES)), help="A named set of scopes.")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice([scope.value for scope in Scope]), help="A single scope."
)
def keys_create(database: str | None, name: str, role: str | None, scopes: tuple[str, ...]) -> None:
    """Make a key and print it: on standard output, alone, and only this once."""
    if bool(role) == bool(scopes):
        raise click.UsageError("Give either --role or one or more --scope.")
    if not name.strip() or len(name) > 64 or not name.isprintable():
        raise click.UsageError("--name takes 1 to 64 printable characters.")
    for taken, by in ((_CLI_ACTOR, "the command line"), (SERVICE_ACTOR, "the service's own work")):
        if name.strip().casefold().startswith(taken):
            raise click.UsageError(f"--name cannot begin with {taken}: the audit log names {by} so.")
    wanted = ROLES[role] if role else frozenset(Scope(scope) for scope in scopes)
    with _opened(_config(database=database), alone=False) as connection:
        key = key_door.create(
            connection,
            name=name,
            scopes=wanted,
            actor=_actor(),
            now=_now(),
            random_bytes=os.urandom(RANDOM_BYTES),
        )
    click.echo(key)
    click.echo(f"Made a key for {name} with {', '.join(sorted(wanted))}. It is not shown again.", err=True)


@keys.command("list")
@database_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def keys_list(database: str | None, as_json: bool) -> None:
    """List every key ever made, without its secret."""
    with _opened(_config(database=database), alone=False) as connection:
        found = api_keys.list_all(connection)
    if as_json:
        for key in found:
            click.echo(msgspec.json.encode({**msgspec.structs.asdict(key), "scopes": sorted(key.scopes)}))
        return
    table = Table("prefix", "name", "scopes", "created", "revoked", box=None, pad_edge=False)
    for key in found:
        revoked = spoken(key.revoked_at) if key.revoked_at else "-"
        table.add_row(key.prefix, key.name, " ".join(sorted(key.scopes)), spoken(key.created_at), revoked)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@keys.command("revoke")
@database_option
@click.argument("prefix")
def keys_revoke(database: str | None, prefix: str) -> None:
    """Revoke the key with this PREFIX (see: passbook keys list). The next request with it is refused."""
    with _opened(_config(database=database), alone=False) as connection:
        try:
            key, was_live = key_door.revoke(connection, prefix=prefix, actor=_actor(), now=_now())
        except key_door.ApiKeyNotFound as error:
            raise click.ClickException(f"There is no key {prefix}. See: passbook keys list") from error
    click.echo(f"Revoked {prefix} ({key.name})." if was_live else f"{prefix} ({key.name}) was revoked before.")


@main.command("import")
@database_option
@click.argument("file", type=click.Path(path_type=Path))
def import_(database: str | None, file: Path) -> None:
    """Make a new database from FILE: what `wrangler d1 export` wrote, or an SQLite file of the bot."""
    config = _config(database=database)
    report = import_database(file, config.database_path, _migrations(), click.echo)
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


class _CannotBeChecked(click.ClickException):
    """Nothing is known of the ledger; no exit code of a broken one."""

    exit_code = _CANNOT_BE_CHECKED


@main.command()
@database_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as GET /v1/integrity answers it.")
@click.option("--quick", is_flag=True, help="Leave out the check of the file's pages.")
def integrity(database: str | None, as_json: bool, quick: bool) -> None:
    """Prove that it adds up. Exit code 0: sound, 1: broken, 2: it cannot be checked.

    Reads only; also while the service runs. The first rows that fail a check are named.
    """
    try:
        report = _prove(_config(database=database), quick=quick)
    except (*_KNOWN_ERRORS, sqlite.DatabaseError, OSError) as error:
        raise _CannotBeChecked(str(error)) from error
    except KeyboardInterrupt as error:  # its usual exit code is that of a broken ledger
        raise _CannotBeChecked("It was stopped.") from error
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        _say_report(report)
    if report.status == IntegrityStatus.UNFINISHED:
        raise _CannotBeChecked(f"The ledger cannot be checked. {report.reason}")
    if report.status == IntegrityStatus.BROKEN:
        sys.exit(_BROKEN)


def _prove(config: Config, *, quick: bool) -> IntegrityReport:
    """The finished proof; with a progress bar where there is a terminal."""
    path = config.database_path
    if not path.is_file():
        raise _CannotBeChecked(f"There is no database {path}.")
    with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=config.busy_timeout_ms)) as connection:
        migrations = _migrations()
        migrator.require_latest(connection, migrations)
        proof = Proof(migrations, system_clock, quick=quick)
        columns = (TextColumn("{task.description:26}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("")

            def show() -> None:
                checked, total = proof.progress
                bar.update(task, description=proof.step, completed=checked, total=total)

            proof.run(connection, show)
        return proof.report()


def _say_report(report: IntegrityReport) -> None:
    console = Console(highlight=False, soft_wrap=True)
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


@main.command("openapi")
def openapi() -> None:
    """Print the API contract, as openapi/openapi.json holds it."""
    document = create_app(Config()).openapi_schema.to_schema()
    click.echo(msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2))


def _config(**overrides: str | int | None) -> Config:
    return Config.from_env(os.environ, **overrides)


def _migrations() -> list[migrator.Migration]:
    return migrator.load(resources.folder("migrations"))


def _require_ours(config: Config) -> None:
    """Raises MigrationError or EngineError for a file of something else, before a writing connection touches it."""
    path = config.database_path
    if path.is_file() and path.stat().st_size > 0:
        with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=config.busy_timeout_ms)) as connection:
            migrator.version_of(connection, _migrations())


@contextlib.contextmanager
def _opened(config: Config, *, alone: bool) -> Iterator[sqlite.Connection]:
    """A writing connection for the block; `alone` for work that no service may run beside."""
    path = config.database_path
    with contextlib.ExitStack() as stack:
        if alone:
            sqlite.make_folder(path.parent)
            stack.enter_context(lock.exclusive(path))
            _require_ours(config)
        elif not path.is_file():
            raise click.ClickException(f"There is no database {path}. Make one with: passbook migrate up")
        connection = sqlite.connect_writer(path, busy_timeout_ms=config.busy_timeout_ms, checkpoints=alone)
        stack.callback(connection.close)
        if not alone:
            migrator.require_latest(connection, _migrations())
        yield connection


def _copy_aside(connection: sqlite.Connection, path: Path) -> Path:
    """A complete copy of the database beside it, synced; its path."""
    copy = path.with_name(f"{path.name}.before-rollback-{system_clock():%Y%m%d_%H%M%S}")
    connection.execute("VACUUM INTO ?", (str(copy),))
    sqlite.sync(copy)
    sqlite.sync(copy.parent)
    return copy


def _actor() -> str:
    try:
        return f"{_CLI_ACTOR}{getpass.getuser()}"
    except (KeyError, OSError):  # a container may run as a user without a name
        return f"{_CLI_ACTOR}{os.getuid()}"


def _now() -> str:
    return stored(system_clock())


if __name__ == "__main__":
    main()
