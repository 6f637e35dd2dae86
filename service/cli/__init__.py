"""The command line: a file per command or group of commands."""

import logging
import sys

import click

from service import __version__
from service.cli import audit, backups, contract, erase, exports, imports, integrity, keys, migrate, serve
from service.cli.common import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="passbook")
def main() -> None:
    """Passbook (통장): a ledger of prepaid balances and an audit log, over HTTP.

    Every setting is an environment variable too: PASSBOOK_DATABASE, PASSBOOK_PORT and so on; see the README.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


for _command in (
    serve.serve,
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
):
    main.add_command(_command)
