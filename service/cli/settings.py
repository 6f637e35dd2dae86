"""passbook config: the settings, what each is now and what it means."""

import os

import click

from service.cli.common import Command, config_of
from service.config import settings


@click.command("config", cls=Command)
@click.option("--markdown", is_flag=True, help="Print the table of all settings for docs/operating.md instead.")
def config(markdown: bool) -> None:
    """Show every setting with its present value. Exit code 1: a variable is wrong, and every wrong one is named."""
    if markdown:
        click.echo("| variable | default | what |\n|---|---|---|")
        for setting in settings():
            click.echo(f"| `{setting.variable}` | `{setting.default}` | {setting.what} |")
        return
    now = config_of()
    for setting in settings():
        source = "environment" if setting.variable in os.environ else "default"
        click.echo(f"{setting.variable}={setting.spelt(now)}  ({source})\n    {setting.what}")
