"""The command line: a file per command or group of commands."""

import click

from service import __version__, logs
from service.cli import (
    audit,
    backups,
    check,
    contract,
    erase,
    errors,
    exports,
    imports,
    integrity,
    keys,
    migrate,
    serve,
    settings,
)
from service.cli.common import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="passbook")
def main() -> None:
    """Passbook (통장): a ledger of prepaid balances and an audit log, over HTTP.

    Every setting is an environment variable too: PASSBOOK_DATABASE, PASSBOOK_PORT and so on; see docs/operating.md.
    """
    logs.set_up(format_="text", level="info", context=dict)


for _command in (
    serve.serve,
    check.check,
    settings.config,
    imports.import_,
    exports.export,
    migrate.migrate,
    keys.keys,
    erase.users,
    audit.audit,
    integrity.integrity,
    backups.backup,
    backups.restore,
    contract.openapi,
    errors.errors,
):
    main.add_command(_command)
