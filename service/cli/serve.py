"""passbook serve: the service, and its database when there is none."""

import contextlib
import os
import sys
import time
from pathlib import Path

import click

from service import __version__, logs, server
from service.api.observation import log_context
from service.app import create_app, hurry, prepare_to_stop, stop_being_ready, unfinished
from service.cli.common import (
    Command,
    actor,
    config_of,
    database_option,
    load_migrations,
    now,
    require_ours,
)
from service.config import Config
from service.ledger.access import RANDOM_BYTES, ROLES
from service.ledger.timestamps import system_clock
from service.repository import api_keys as key_door
from service.storage import (
    api_keys,
    backups,
    checkpoints,
    copies,
    guard,
    lock,
    migrator,
    private_files,
    remains,
    sqlite,
)
from service.storage.checkpoints import Signer
from service.telemetry import Telemetry

_FIRST_KEY_NAME = "first-admin"
_LEFT_BEHIND_S = 5.0
_LOOK_AGAIN_S = 0.02


@click.command(cls=Command)
@database_option
@click.option("--host", help="Address to listen on. Default: 127.0.0.1.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one. Default: 8000.")
@click.option("--new", is_flag=True, help="Begin a new ledger where one is missing, and put its log and key aside.")
def serve(database: str | None, host: str | None, port: int | None, new: bool) -> None:
    """Serve the API. If there never was a database, it is made. If there is no API key, an admin key is made and
    printed once."""
    config = config_of(database=database, host=host, port=port)
    telemetry = Telemetry(os.environ)
    logs.set_up(format_=config.log_format, level=config.log_level, context=log_context)
    with contextlib.closing(telemetry), contextlib.closing(server.listen(config)) as listener:
        # Only now: a start that fails at the port must not use up the one time that the first key is shown.
        first_key = _prepare(config, new=new)
        app = create_app(config, telemetry=telemetry)
        bound_host, bound_port = listener.getsockname()[:2]
        url = f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"
        server.run(
            app,
            config,
            listener,
            on_ready=lambda: _say_ready(url, config, first_key, app.state["passbook"].checkpoints.signer),
            on_stopping=lambda: stop_being_ready(app),
            on_stop=lambda: prepare_to_stop(app, grace_s=config.shutdown_grace_s),
            on_hurry=lambda: hurry(app),
        )
    left = unfinished(app)
    if left is not None:
        click.echo(left, err=True)
        sys.exit(server.FORCED_EXIT_CODE)
    click.echo("Stopped.")


def _prepare(config: Config, *, new: bool) -> str | None:
    """Makes a database where there never was one, and its first key; the key, or None when there were keys."""
    path = config.database_path
    remains.require_file(path)
    sqlite.make_folder(path.parent)
    _await_left_behind(path)
    with lock.exclusive(path, purpose="serve"):
        if remains.is_missing(path):
            _make(config, new=new)
        elif new:
            raise click.ClickException(f"{path} is there: --new begins a ledger only where there is none.")
        backups.drop_second_names(path.resolve())
        guard.require_one_name(path)
        guard.require_log(path)
        require_ours(config)
        for said in private_files.mend(_private(config)):
            click.echo(said)
        connection = sqlite.connect_writer(path, busy_timeout_ms=config.busy_timeout_ms, checkpoints=True)
        with contextlib.closing(connection):
            migrations = load_migrations()
            migrator.require_latest(connection, migrations)
            migrator.require_schema(connection, migrations)
            if api_keys.list_all(connection):
                return None
            return key_door.create(
                connection,
                name=_FIRST_KEY_NAME,
                scopes=ROLES["admin"],
                actor=actor(),
                now=now(),
                random_bytes=os.urandom(RANDOM_BYTES),
            )


def _await_left_behind(path: Path) -> None:
    """Gives the writing process of a service that was killed some seconds to end: it goes when its disk answers."""
    deadline = time.monotonic() + _LEFT_BEHIND_S
    told = False
    while lock.is_left_behind(path) and time.monotonic() < deadline:
        if not told:
            click.echo(f"The writing process of a killed service still has {path}; waiting for its end.", err=True)
            told = True
        time.sleep(_LOOK_AGAIN_S)


def _make(config: Config, *, new: bool) -> None:
    """A new database, under its name only when it is whole. Raises LedgerMissing where one is missing, unless `new`."""
    path = config.database_path
    if new:
        for moved in remains.set_aside(path, config.audit_key_path, now=system_clock()):
            click.echo(f"Put aside: {moved}")
    else:
        remains.require_none(path, config.audit_key_path)
    real = path.resolve()
    partial = private_files.partial_of(real)
    files = sqlite.files_of(partial)
    for left in files:  # by a killed run
        left.unlink(missing_ok=True)
    try:
        connection = sqlite.connect_writer(partial, busy_timeout_ms=config.busy_timeout_ms, checkpoints=True)
        with contextlib.closing(connection):
            migrator.up(connection, load_migrations(), lambda line: click.echo(f"  {line}"))
        sqlite.sync(partial)
        partial.rename(real)
    finally:
        for left in files:
            left.unlink(missing_ok=True)
    sqlite.sync(real.parent)
    click.echo(f"Made the database {path}.")


def _private(config: Config) -> list[Path]:
    """What nobody but the service's user is to read."""
    real, key = config.database_path.resolve(), config.audit_key_path
    lock_file = real.with_name(real.name + ".lock")
    return [*sqlite.files_of(real), lock_file, key, checkpoints.last_file_of(key), *copies.beside(real)]


def _say_ready(url: str, config: Config, first_key: str | None, signer: Signer) -> None:
    click.echo(f"Passbook {__version__} serves {config.database_path} at {url} (docs: {url}/docs). Stop: Ctrl+C.")
    if signer.made:
        click.echo(
            f"\nMade the key that signs the audit log: {config.audit_key_path}\nKeep it private, and give its"
            f" public half to those who check the log:\n  {signer.key.verifier.text()}"
        )
    if first_key is not None:
        click.echo(
            f"\nFirst admin key, shown only now: {first_key}\n\nTry it:\n"
            f"  curl -sS {url}/v1/deposits -H 'Authorization: Bearer {first_key}' \\\n"
            "    -H 'Content-Type: application/json' -H 'Idempotency-Key: first-deposit' \\\n"
            '    -d \'{"telegram_id": "123456", "amount": 5000, "depositor_name": "홍길동"}\'\n\n'
            "Make narrower keys with: passbook keys create --name telegram-bot --role bot"
        )
    sys.stdout.flush()
