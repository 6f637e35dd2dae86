"""passbook audit: the audit log on the terminal."""

import click

from service.cli import audit_prune, audit_verify
from service.cli.common import Group


@click.group(cls=Group)
def audit() -> None:
    """Prove the audit log, and archive its oldest rows."""


audit.add_command(audit_verify.verify)
audit.add_command(audit_prune.prune)
