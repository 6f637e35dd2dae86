"""The command line: a file per command or group of commands, each loaded when it is asked for."""

import os
from importlib import import_module

import click

from service import __version__, logs
from service.cli.common import Group

_UMASK = 0o077
"""Whatever a command makes is its owner's alone: all of it holds names of people or what they paid."""
_COMMANDS = {
    "audit": "audit.audit",
    "backup": "backups.backup",
    "check": "check.check",
    "config": "settings.config",
    "errors": "errors.errors",
    "export": "exports.export",
    "import": "imports.import_",
    "integrity": "integrity.integrity",
    "keys": "keys.keys",
    "migrate": "migrate.migrate",
    "openapi": "contract.openapi",
    "restore": "backups.restore",
    "serve": "serve.serve",
    "users": "erase.users",
}


class _Program(Group):
    """Only `serve` and a few others need the web framework, which takes longest to load."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[name].partition(".")
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), attribute)
        return command


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="passbook")
def main() -> None:
    """Passbook (통장): a ledger of prepaid balances and an audit log, over HTTP.

    Every setting is an environment variable too: PASSBOOK_DATABASE, PASSBOOK_PORT and so on; see docs/operating.md.
    """
    os.umask(_UMASK)
    logs.set_up(format_="text", level="info", context=dict)
