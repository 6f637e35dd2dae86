"""passbook export: the way back to D1."""

import contextlib
from pathlib import Path
from typing import IO

import click
import msgspec

from service.cli import progress
from service.cli.common import Command, config_of, database_option, load_migrations, require_database
from service.storage import export_like, private_files
from service.storage.export_like import Misfit, Words
from service.storage.exporter import ExportFailed, export_database
from service.storage.import_values import logged


def _pairs(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """OURS=WORD as a mapping."""
    words: dict[str, str] = {}
    for pair in given:
        ours, _, word = pair.partition("=")
        if not ours or not word:
            raise click.BadParameter(f"{pair!r} is not OURS=WORD.")
        if words.setdefault(ours, word) != word:
            raise click.BadParameter(f"{ours} is given two words.")
    return words


def _statuses(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """As `_pairs`; what never counted cannot become money."""
    words = _pairs(context, option, given)
    for ours, word in words.items():
        if word == "confirmed" and ours != "confirmed":
            raise click.BadParameter(f"{ours} never counted, and confirmed would be money.")
    return words


@click.command(cls=Command)
@database_option
@click.option(
    "--schema",
    type=click.Choice(["001", "none"]),
    default="001",
    show_default=True,
    help="The tables as migration 001 leaves them (with --like: as ORIGINAL has them), or none: rows alone.",
)
@click.option(
    "--like",
    metavar="ORIGINAL",
    type=click.Path(path_type=Path),
    help="Fit the rows to the tables of ORIGINAL, the bot's export or SQLite file from before.",
)
@click.option(
    "--type",
    "types",
    metavar="OURS=WORD",
    multiple=True,
    callback=_pairs,
    help="With --like: the bot's word for a type of ours; balance_change:debit=WORD is for its debits only.",
)
@click.option(
    "--status", "statuses", metavar="OURS=WORD", multiple=True, callback=_statuses, help="As --type, for a status."
)
@click.option("--cut-names", is_flag=True, help="With --like: cut depositor names to what its CHECK takes.")
@click.option(
    "--report",
    "report_path",
    metavar="NDJSON",
    type=click.Path(path_type=Path),
    help="With --like: list the rows that do not fit in this new file, a JSON object a line.",
)
@click.argument("file", type=click.Path(path_type=Path))
def export(
    database: str | None,
    schema: str,
    like: Path | None,
    types: dict[str, str],
    statuses: dict[str, str],
    cut_names: bool,
    report_path: Path | None,
    file: Path,
) -> None:
    """Write the bot's tables and the audit log to FILE, as SQL that `wrangler d1 execute --file` takes.

    The service may run meanwhile. FILE shows the database at one instant, and appears complete or not at all. With
    --like, a row that does not fit means exit code 1 and no FILE.
    """
    config = config_of(database=database)
    require_database(config.database_path)
    if like is None and (types or statuses or cut_names or report_path):
        raise click.UsageError("--type, --status, --cut-names and --report go with --like.")
    try:
        with progress.shown() as show, _Listing(report_path) as listing:
            if like is None:
                plain = export_database(
                    config.database_path,
                    file,
                    load_migrations(),
                    with_schema=schema != "none",
                    busy_timeout_ms=config.busy_timeout_ms,
                    progress=show,
                )
                tables, size = plain.tables, plain.size
            else:
                fitted = export_like.export_database(
                    config.database_path,
                    file,
                    load_migrations(),
                    like=like,
                    words=Words(types=types, statuses=statuses, cut_names=cut_names),
                    with_schema=schema != "none",
                    busy_timeout_ms=config.busy_timeout_ms,
                    progress=show,
                    on_misfit=listing.add,
                )
                tables, size = fitted.tables, fitted.size
                for words, count in fitted.mapped.items():
                    click.echo(f"  {words}: {count:,} transactions")
                for said in fitted.left_out:
                    click.echo(f"  left out: {said}")
    except ExportFailed as error:
        raise click.ClickException(str(error)) from error
    for table, rows in tables.items():
        click.echo(f"  {table}: {rows:,} rows")
    click.echo(f"Wrote {sum(tables.values()):,} rows, {size:,} bytes, to {file}.")
    click.echo(f"Next, with an empty D1: wrangler d1 execute NAME --remote --file {file}")


class _Listing(contextlib.ExitStack):
    """Lists rows in `path` where one is given; the file is made when there is a row. Lifetime: the block."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path
        self._file: IO[bytes] | None = None

    def add(self, misfit: Misfit) -> None:
        """One row more."""
        if self._path is None:
            return
        if self._file is None:
            self._file = self.enter_context(private_files.create(self._path))
        told = {"table": misfit.table, "row": logged(misfit.row), "why": misfit.why}
        self._file.write(msgspec.json.encode(told) + b"\n")
