"""passbook openapi: the API contract."""

import click
import msgspec

from service.app import create_app
from service.cli.common import Command
from service.config import Config


@click.command("openapi", cls=Command)
def openapi() -> None:
    """Print the API contract, as openapi/openapi.json holds it."""
    document = create_app(Config()).openapi_schema.to_schema()
    click.echo(msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2))
