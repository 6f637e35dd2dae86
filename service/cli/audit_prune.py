"""passbook audit prune: the oldest rows of the audit log into an archive, and out of the database."""

import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from service.cli import progress
from service.cli.common import Command, actor, config_of, database_option, now, opened
from service.config import Config
from service.ledger.timestamps import bound, spoken, system_clock
from service.repository import audit_prunes as door
from service.storage import audit_prunes, lock
from service.storage.audit_prunes import Archived, Prefix, Prune, PruneFailed
from service.storage.checkpoints import Signer
from service.storage.progress import Progress
from service.storage.sqlite import Connection


class _Instant(click.ParamType[str]):
    """A day (UTC) or an instant of RFC 3339, not after now; as rows hold it."""

    name = "DATE"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            day = datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC).isoformat() if len(value) == 10 else value
            moment = bound(day)
        except ValueError:
            self.fail("is a day such as 2026-01-01, or an instant such as 2026-01-01T00:00:00Z", param, ctx)
        if moment > bound(system_clock().isoformat()):
            self.fail("is in the future", param, ctx)
        return moment


@click.command(cls=Command)
@database_option
@click.option("--before", required=True, type=_Instant(), help="Archive rows older than this day (UTC) or instant.")
@click.option(
    "--archive",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A new file, if possible on another disk than the database.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be archived; write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(database: str | None, before: str, archive: Path, dry_run: bool, yes: bool) -> None:
    """Archive the oldest rows of the audit log in FILE, then remove them. The service may run meanwhile.

    FILE is read back and verified row by row before anything is removed. FILE.checkpoint beside it is signed. The
    proofs of all rows stay in the database. If the command was stopped or killed, the same command goes on.
    """
    config = config_of(database=database)
    with lock.exclusive(config.retention_path, purpose="audit prune"), opened(config) as connection:
        unfinished = _unfinished(connection, archive)
        if unfinished is not None and dry_run:
            click.echo(f"{archive} is whole and on record; the rest of its rows would be removed.")
        elif unfinished is not None:
            _remove(connection, unfinished)
        else:
            _begin(connection, config, before, archive, dry_run=dry_run, yes=yes)


def _unfinished(connection: Connection, archive: Path) -> Prune | None:
    """The recorded prune whose rows are to be removed yet. Raises ClickException unless `archive` is its archive."""
    last = audit_prunes.find_last(connection)
    if last is None or audit_prunes.count_left(connection, last) == 0:
        return None
    if not archive.is_file() or audit_prunes.digest_of(archive) != last.archive_sha256:
        raise click.ClickException(
            f"The prune into {last.archive} was stopped before all its rows were removed; let it end first, with"
            f" --archive naming that file."
        )
    return last


def _begin(connection: Connection, config: Config, before: str, archive: Path, *, dry_run: bool, yes: bool) -> None:
    prefix = audit_prunes.find_prefix(connection, before=before)
    if prefix is None:
        click.echo(f"No row is older than {_shown(before)}; nothing to archive.")
        return
    _say_prefix(prefix, before)
    if dry_run:
        return
    if not yes:
        click.confirm(f"Archive them in {archive} and remove them from the database?", abort=True, err=True)
    with progress.shown() as show:
        archived = _archive(connection, config, prefix, archive, show)
    recorded = door.record(connection, archived, archive=archive.name, actor=actor(), now=now())
    click.echo(f"Archived {archived.prefix.rows:,} rows in {archive}, SHA-256 {archived.sha256.hex()}")
    click.echo(f"The signed checkpoint of its last row: {archive}{audit_prunes.CHECKPOINT_SUFFIX}")
    _remove(connection, recorded)


def _shown(before: str) -> str:
    """A bound as rows show their times: a fraction of a second has three digits or more."""
    seconds, point, fraction = before.partition(".")
    return spoken(f"{seconds}{point}{fraction.ljust(3, '0')}" if point else seconds)


def _say_prefix(prefix: Prefix, before: str) -> None:
    first, last = (spoken(text) if text else "?" for text in (prefix.created_at_min, prefix.created_at_max))
    click.echo(f"{prefix.rows:,} rows up to {prefix.through_id} are older than {_shown(before)}: {first} to {last}.")


def _archive(connection: Connection, config: Config, prefix: Prefix, archive: Path, show: Progress) -> Archived:
    """The verified archive; one that an earlier run made is taken if it is of rows that may go.

    Raises OSError, PruneFailed; what was not finished is gone then.
    """
    signer = Signer.open(config.audit_key_path, origin=config.audit_origin)
    signer.check(connection)
    if archive.exists():
        found = audit_prunes.verify_archive(connection, archive, show)
        if found.prefix.size > prefix.size:
            raise PruneFailed(f"{archive} is there already and has younger rows than may go.")
        audit_prunes.drop_partial(archive)
        audit_prunes.write_checkpoint(archive, audit_prunes.sign_checkpoint(connection, signer, found))
        return found
    try:
        partial = audit_prunes.write_archive(connection, prefix, archive, show)
        written = audit_prunes.verify_archive(connection, partial, show)
        if written.prefix != prefix:
            raise PruneFailed("The rows changed while they were archived; nothing was removed.")
        audit_prunes.publish(partial, archive, audit_prunes.sign_checkpoint(connection, signer, written))
    except BaseException:
        # It may be as large as the log, and the reason may be that the disk is full.
        with contextlib.suppress(OSError):
            audit_prunes.drop_partial(archive)
        raise
    return written


def _remove(connection: Connection, recorded: Prune) -> None:
    with progress.shown() as show:
        audit_prunes.remove(connection, recorded, show)
    click.echo(f"The rows up to {recorded.through_id} are no longer in the database; it goes on from there.")
    sys.stdout.flush()
