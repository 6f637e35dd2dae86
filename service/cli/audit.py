"""passbook audit: the log at a terminal, read from the database file, also while the service runs."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import click
from rich.console import Console

from service.cli import audit_prune, audit_verify, audit_witness, progress
from service.cli.audit_view import AuditView, visible
from service.cli.common import Group, config_of, database_option, leave, nobody_reads, reading
from service.ledger import audit_lines
from service.ledger.audit_logs import AuditLog, AuditLogFilter, Invalid, Order, Outcome, filter_asked_for
from service.ledger.fields import (
    ACTION_PATTERN,
    DAY_PATTERN,
    ID_PATTERN,
    INSTANT_OR_DAY_PATTERN,
    REMEDIES,
    TELEGRAM_ID_PATTERN,
    WORD_PATTERN,
)
from service.ledger.timestamps import zone
from service.storage import audit_chain, audit_exports, audit_prunes, audit_search, private_files, sqlite
from service.storage.audit_exports import RowGone
from service.storage.audit_logs import find_newest_id
from service.storage.exporter import ExportFailed, new_file
from service.storage.progress import Progress

_CHUNK_ROWS = 1000
_LOOK_EVERY_MS = 500
_BUDGET_S = 1.0
_INTERRUPTED = 130
_ENCODERS: dict[str, tuple[bytes, Callable[[list[AuditLog]], bytes]]] = {
    "ndjson": (b"", audit_lines.ndjson),
    "csv": (audit_lines.CSV_HEADER, audit_lines.csv_lines),
    "excel": (audit_lines.CSV_HEADER_BOM, audit_lines.csv_lines),
}
Wanted = tuple[AuditLogFilter, ZoneInfo]


def _of(pattern: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    def check(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
        if value is not None and not re.search(pattern, value):
            raise click.BadParameter(f"must be {REMEDIES[pattern]}")
        return value

    return check


_FILTERS = (
    click.option("--telegram-id", callback=_of(TELEGRAM_ID_PATTERN), help="Only rows about this user."),
    click.option("--action", callback=_of(ACTION_PATTERN), help="Only this action; * at an end stands for anything."),
    click.option("--resource-type", callback=_of(WORD_PATTERN), help="Only this type, such as deposit_transaction."),
    click.option("--resource-id", callback=_of(ID_PATTERN), help="Only the resource with this id."),
    click.option("--actor", help="Only this actor: the name of an API key, cli:<user>, system:expiry."),
    click.option("--request-id", help="Only the request with this id."),
    click.option("--outcome", type=click.Choice([outcome.value for outcome in Outcome])),
    click.option("--since", callback=_of(INSTANT_OR_DAY_PATTERN), help="The beginning: an instant or a day, included."),
    click.option("--until", callback=_of(INSTANT_OR_DAY_PATTERN), help="The end: an instant or a day, not included."),
    click.option("--on", callback=_of(DAY_PATTERN), help="Only this day, such as 2026-11-22."),
    click.option("--tz", default="UTC", show_default=True, help="Time zone of days, and of the times on a terminal."),
)
_ASKED = (
    *("telegram_id", "action", "resource_type", "resource_id", "actor", "request_id", "outcome"),
    *("since", "until", "on", "tz"),
)
"""The arguments that these options make."""


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """Gives the command the options of a filter, as the one argument `wanted`."""

    def run(*args: Any, **given: Any) -> None:
        asked = {name: given.pop(name) for name in _ASKED}
        try:
            wanted = filter_asked_for(**asked)
        except Invalid as error:
            raise click.UsageError(f"--{error.name} {error.message}.") from error
        command(*args, wanted=(wanted, zone(asked["tz"])), **given)

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    for option in reversed(_FILTERS):
        run = option(run)
    return run


@click.group(cls=Group)
def audit() -> None:
    """Read, prove, and archive the audit log; also while the service runs."""


@audit.command("tail")
@database_option
@click.option("-f", "--follow", is_flag=True, help="Print each new row when it comes, until Ctrl+C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0, 1_000_000), default=10, show_default=True, help="Rows to begin with."
)
@_filters
def audit_tail(database: str | None, follow: bool, lines: int, wanted: Wanted) -> None:
    """Print the last rows, oldest first."""
    with reading(config_of(database=database)) as connection, _printing(wanted) as show:
        newest = find_newest_id(connection)
        last = [row for rows, _ in _pages(connection, wanted[0], Order.NEWEST, lines, newest) for row in rows]
        show(last[::-1])
        while follow:
            rows, newest, _ = audit_search.find_after(
                connection, wanted[0], after=newest, limit=_CHUNK_ROWS, budget_s=_BUDGET_S
            )
            show(rows)
            while not rows and find_newest_id(connection) <= newest:
                _pause()


@audit.command("search")
@database_option
@click.option("--order", type=click.Choice([order.value for order in Order]), default="newest", show_default=True)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The most rows.")
@_filters
def audit_search_(database: str | None, order: str, limit: int, wanted: Wanted) -> None:
    """Print the rows for which all conditions hold."""
    with reading(config_of(database=database)) as connection, _printing(wanted) as show:
        for rows, _ in _pages(connection, wanted[0], Order(order), limit, find_newest_id(connection)):
            show(rows)


@audit.command("export")
@database_option
@click.option("--format", "kind", type=click.Choice(["csv", "ndjson"]), help="Default: ndjson.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A new file. Default: standard output.")
@click.option("--order", type=click.Choice([order.value for order in Order]), default="oldest", show_default=True)
@click.option("--limit", type=click.IntRange(1), help="The most rows. Default: all.")
@click.option("--excel", is_flag=True, help="CSV with a byte-order mark, by which Excel knows UTF-8.")
@click.option("--sealed", is_flag=True, help="Every row with its leaf and salt, for docs/audit-log/verify.py.")
@_filters
def audit_export(
    database: str | None,
    kind: str | None,
    output: Path | None,
    order: str,
    limit: int | None,
    excel: bool,
    sealed: bool,
    wanted: Wanted,
) -> None:
    """Write the rows for which all conditions hold as NDJSON or CSV, as GET /v1/audit-logs answers them.

    A file appears complete or not at all. With --sealed it is the whole log in the form that auditors check.
    """
    if excel and kind == "ndjson":
        raise click.UsageError("--excel is CSV; leave out --format.")
    kind = "excel" if excel else kind or "ndjson"
    if sealed and (wanted[0] != AuditLogFilter() or (kind, order, limit) != ("ndjson", "oldest", None)):
        raise click.UsageError("--sealed is the whole log in its own format; leave out the other options.")
    # What goes to standard output shows by itself how far it is.
    shown = progress.shown() if output else contextlib.nullcontext(lambda *_: None)
    with reading(config_of(database=database)) as connection, shown as show:
        lines = _sealed(connection, show) if sealed else _exported(connection, wanted[0], kind, order, limit, show)
        if output is None:
            with _ending_quietly():
                for _, data in lines:
                    _write(data)
            return
        count = 0
        try:
            with new_file(output) as unfinished, private_files.create(unfinished) as file:
                for rows, data in lines:
                    file.write(data)
                    count += rows
        except (ExportFailed, RowGone) as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"Wrote {count:,} rows, {output.stat().st_size:,} bytes, to {output}.")


def _exported(
    connection: sqlite.Connection, wanted: AuditLogFilter, kind: str, order: str, limit: int | None, show: Progress
) -> Iterator[tuple[int, bytes]]:
    """(number of rows, their lines), the header first."""
    header, encode = _ENCODERS[kind]
    yield 0, header
    for rows, done in _pages(connection, wanted, Order(order), limit, find_newest_id(connection)):
        show("reading the audit log", *done)
        yield len(rows), encode(rows)


def _sealed(connection: sqlite.Connection, show: Progress) -> Iterator[tuple[int, bytes]]:
    """The same of the sealed export, from the first row that was not archived on."""
    last = audit_prunes.find_last(connection)
    first = last.size if last else 0
    size = audit_chain.tree(connection).size
    for number, line in enumerate(audit_exports.lines(connection, first, size, show, step="reading the audit log")):
        yield min(number, 1), line


def _pages(
    connection: sqlite.Connection, wanted: AuditLogFilter, order: Order, limit: int | None, newest: int
) -> Iterator[tuple[list[AuditLog], tuple[int, int]]]:
    """All rows up to the id `newest`, page by page; with how much of the log is done, and of how much."""
    after, left = None, sys.maxsize if limit is None else limit
    while left > 0:
        rows, after = audit_search.find_page(
            connection,
            wanted,
            order=order,
            after=after,
            limit=min(left, _CHUNK_ROWS),
            budget_s=_BUDGET_S,
            up_to=newest,
        )
        left -= len(rows)
        done = newest if after is None else newest - after if order == Order.NEWEST else after
        yield rows, (done, newest)
        if after is None:
            return


def _pause() -> None:
    """Waits a little. Raises BrokenPipeError when nobody reads standard output any more."""
    if nobody_reads(wait_ms=_LOOK_EVERY_MS):
        raise BrokenPipeError


@contextlib.contextmanager
def _printing(wanted: Wanted) -> Iterator[Callable[[list[AuditLog]], None]]:
    """A function that prints rows: aligned on a terminal, else as NDJSON."""
    with _ending_quietly():
        if sys.stdout.isatty():
            yield AuditView(Console(highlight=False, soft_wrap=True, markup=False, emoji=False), wanted[1]).show
        else:
            yield lambda rows: _write(audit_lines.ndjson(rows))


@contextlib.contextmanager
def _ending_quietly() -> Iterator[None]:
    """A reader that has seen enough, or Ctrl+C, ends the block and the program without a word."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        leave(0)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _write(data: bytes) -> None:
    """To standard output at once; what a terminal could take for a command is written as \\uXXXX there."""
    left = memoryview(visible(data.decode(), kept="\n\r").encode() if sys.stdout.isatty() else data)
    stream: BinaryIO = sys.stdout.buffer
    while left:  # with PYTHONUNBUFFERED it is a raw file, which may take a part only
        left = left[stream.write(left) :]
    stream.flush()


for _command in (audit_verify.verify, audit_witness.witness, audit_prune.prune):
    audit.add_command(_command)
