"""passbook users erase: the personal data of one user, out of the database."""

import contextlib

import click
import msgspec

from service.cli import progress
from service.cli.common import Command, Group, actor, config_of, database_option, now, opened
from service.config import Config
from service.ledger.users import pseudonym
from service.repository import erasures as door
from service.storage import erasures, lock, sqlite
from service.storage.erasures import Standing
from service.storage.sqlite import Connection

_NOT_ERASED = """\
Not erased, since it is not in this database: backups, copies, exports, replicas, logs of other programs{archives}.
Not erased, since the ledger needs it: amounts, times, statuses, references, Idempotency-Keys, the bank's ids of
transfers, domain names. Nor can it be told whose the bank notifications are that were never matched."""


@click.group(cls=Group)
def users() -> None:
    """Erase the personal data of a user."""


@users.command("erase", cls=Command)
@database_option
@click.option(
    "--force", is_flag=True, help="Erase a user with a balance, pending deposits or held names too; these stay."
)
@click.option("--vacuum", is_flag=True, help="Write the whole file anew afterwards; the service must be stopped.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("telegram_id", required=False)
def erase(database: str | None, force: bool, vacuum: bool, yes: bool, telegram_id: str | None) -> None:
    """Erase the personal data of the user TELEGRAM_ID. The service may run meanwhile.

    Names, free texts and the telegram id are removed, from the audit log as well. Its proofs stay, and so do the
    balance and the transactions. The user is called erased-<id> from then on. This cannot be undone. If the command was
    stopped or killed, the same command goes on. --vacuum alone only writes the file anew.
    """
    if telegram_id is None and not vacuum:
        raise click.UsageError("Name a user by TELEGRAM_ID.")
    config = config_of(database=database)
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock.exclusive(config.retention_path, purpose="users erase"))
        if vacuum:
            stack.enter_context(lock.exclusive(config.database_path, purpose="users erase"))
        connection = stack.enter_context(opened(config))
        sqlite.overwrite_what_goes(connection)
        said = [] if telegram_id is None else _erase(connection, telegram_id, force=force, yes=yes)
        # Before anything is said: who reads it may have gone away.
        said += _clean(connection, config, vacuum=vacuum)
    click.echo("\n".join(said))


def _erase(connection: Connection, telegram_id: str, *, force: bool, yes: bool) -> list[str]:
    """Erases the user. Returns the sentences to print."""
    standing = erasures.find_standing(connection, telegram_id)
    if standing is None or telegram_id == pseudonym(standing.user_id):
        raise click.ClickException(f"There is no user {telegram_id}.")
    _check(standing, telegram_id, force=force, yes=yes)
    with progress.shown() as show:
        erased = door.erase(connection, standing, telegram_id=telegram_id, actor=actor(), now=now(), progress=show)
    archives = erasures.list_archives(connection)
    named = f", and the archives of audit rows ({', '.join(archives)})" if archives else ""
    return [
        f"Erased; the user is now {pseudonym(standing.user_id)}. Rows that lost personal data:",
        *(f"  {name.replace('_', ' ')}: {count:,}" for name, count in msgspec.structs.asdict(erased).items()),
        _NOT_ERASED.format(archives=named),
    ]


def _check(standing: Standing, telegram_id: str, *, force: bool, yes: bool) -> None:
    still_open = [
        said
        for count, said in (
            (standing.balance, f"a balance of {standing.balance:,} won"),
            (standing.pending, f"{standing.pending:,} pending deposits"),
            (standing.held, f"{standing.held:,} held domain names"),
        )
        if count
    ]
    if still_open and not force:
        raise click.ClickException(
            f"User {telegram_id} has {', '.join(still_open)}. Erased, nobody could ask for them by the telegram id any"
            " more; settle them first, or say --force."
        )
    if not yes:
        typed = click.prompt(f"This cannot be undone. Type {telegram_id} to erase this user's personal data", err=True)
        if typed != telegram_id:
            raise click.ClickException("That is another text; nothing was erased.")


def _clean(connection: Connection, config: Config, *, vacuum: bool) -> list[str]:
    """Removes what was erased from the file's bytes, as far as possible now. Returns the sentences to print."""
    with contextlib.ExitStack() as stack:
        alone = vacuum
        if not vacuum:
            with contextlib.suppress(lock.DatabaseInUse):
                stack.enter_context(lock.exclusive(config.database_path, purpose="users erase"))
                alone = True
        if vacuum:
            sqlite.rewrite(connection)
        # Two connections that write and checkpoint at once are not safe in every version.
        emptied = (alone or not sqlite.has_wal_reset_bug()) and sqlite.empty_log(connection)
    said = [] if emptied else ["The log beside the database (-wal) has earlier pages until the service is restarted."]
    if vacuum:
        return [*said, "The file was written anew."]
    return [
        *said,
        "SQLite may have left older copies in unused parts of the file; to write it anew, with the service stopped:"
        " passbook users erase --vacuum",
    ]
