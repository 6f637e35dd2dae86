"""passbook keys: API keys made, listed, changed and revoked."""

import os
import sys
from collections.abc import Callable

import click
import msgspec
from rich.table import Table

from service.cli.common import (
    CLI_ACTOR,
    Group,
    actor,
    config_of,
    database_option,
    now,
    opened,
    reading,
)
from service.cli.output import Output
from service.ledger.access import RANDOM_BYTES, ROLES, Scope
from service.ledger.audit_logs import SERVICE_ACTOR
from service.ledger.timestamps import spoken
from service.repository import api_keys as key_door
from service.storage import api_keys


@click.group(cls=Group)
def keys() -> None:
    """Make, list, change and revoke API keys; also while the service runs."""


def _scopes_options(command: Callable[..., None]) -> Callable[..., None]:
    """--role, or --scope once or more."""
    scope = click.option(
        "--scope", "scopes", multiple=True, type=click.Choice([scope.value for scope in Scope]), help="A single scope."
    )
    return click.option("--role", type=click.Choice(sorted(ROLES)), help="A named set of scopes.")(scope(command))


def _wanted(role: str | None, scopes: tuple[str, ...]) -> frozenset[Scope]:
    if bool(role) == bool(scopes):
        raise click.UsageError("Give either --role or one or more --scope.")
    return ROLES[role] if role else frozenset(Scope(scope) for scope in scopes)


@keys.command("create")
@database_option
@click.option("--name", required=True, help="The name of its user: the actor in the audit log.")
@_scopes_options
def keys_create(database: str | None, name: str, role: str | None, scopes: tuple[str, ...]) -> None:
    """Make a key and print it: on standard output, alone, and only this once."""
    wanted = _wanted(role, scopes)
    if not name.strip() or len(name) > 64 or not name.isprintable():
        raise click.UsageError("--name takes 1 to 64 printable characters.")
    for taken, by in ((CLI_ACTOR, "the command line"), (SERVICE_ACTOR, "the service's own work")):
        if name.strip().casefold().startswith(taken):
            raise click.UsageError(f"--name cannot begin with {taken}: the audit log names {by} so.")
    with opened(config_of(database=database)) as connection:
        key = key_door.create(
            connection,
            name=name,
            scopes=wanted,
            actor=actor(),
            now=now(),
            random_bytes=os.urandom(RANDOM_BYTES),
        )
    click.echo(key)
    click.echo(f"Made a key for {name} with {', '.join(sorted(wanted))}. It is not shown again.", err=True)


@keys.command("list")
@database_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def keys_list(database: str | None, as_json: bool) -> None:
    """List every key ever made, without its secret."""
    with reading(config_of(database=database)) as connection:
        found = api_keys.list_all(connection)
    if as_json:
        for key in found:
            click.echo(msgspec.json.encode({**msgspec.structs.asdict(key), "scopes": sorted(key.scopes)}))
        return
    table = Table("prefix", "name", "scopes", "created", "revoked", box=None, pad_edge=False)
    for key in found:
        revoked = spoken(key.revoked_at) if key.revoked_at else "-"
        table.add_row(key.prefix, key.name, " ".join(sorted(key.scopes)), spoken(key.created_at), revoked)
    Output(width=None if sys.stdout.isatty() else 200).print(table)


@keys.command("revoke")
@database_option
@click.argument("prefix")
def keys_revoke(database: str | None, prefix: str) -> None:
    """Revoke the key with this PREFIX (see: passbook keys list). The next request with it is refused."""
    with opened(config_of(database=database)) as connection:
        try:
            key, was_live = key_door.revoke(connection, prefix=prefix, actor=actor(), now=now())
        except key_door.ApiKeyNotFound as error:
            raise click.ClickException(f"There is no key {prefix}. See: passbook keys list") from error
    click.echo(f"Revoked {prefix} ({key.name})." if was_live else f"{prefix} ({key.name}) was revoked before.")


@keys.command("scopes")
@database_option
@click.argument("prefix")
@_scopes_options
def keys_scopes(database: str | None, prefix: str, role: str | None, scopes: tuple[str, ...]) -> None:
    """Set what the key with this PREFIX may do (see: passbook keys list): these scopes, and no others.

    They apply from the next request on.
    """
    wanted = _wanted(role, scopes)
    with opened(config_of(database=database)) as connection:
        try:
            key, changed = key_door.change_scopes(connection, prefix=prefix, scopes=wanted, actor=actor(), now=now())
        except key_door.ApiKeyNotFound as error:
            raise click.ClickException(f"There is no key {prefix}. See: passbook keys list") from error
        except key_door.ApiKeyRevoked as error:
            raise click.ClickException(f"{prefix} was revoked and may do nothing; make a new key.") from error
    may = ", ".join(sorted(wanted))
    if not changed:
        click.echo(f"{prefix} ({key.name}) has exactly these scopes already: {may}.")
        return
    click.echo(f"{prefix} ({key.name}) may now do {may}; before {', '.join(sorted(key.scopes))}.")
