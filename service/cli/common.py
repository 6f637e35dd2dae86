"""What the commands share: settings, the database, who acts, and errors as one sentence."""

import contextlib
import getpass
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from service import resources
from service.config import Config, ConfigError
from service.ledger.timestamps import stored, system_clock
from service.storage import audit_chain, audit_workers, backups, guard, lock, migrator, sqlite
from service.storage.audit_prunes import PruneFailed
from service.storage.audit_workers import Workers, WorkersFailed
from service.storage.checkpoints import Contradiction, KeyUnusable
from service.storage.copies import CopyFailed
from service.storage.erasures import EraseFailed
from service.storage.importer import ImportFailed
from service.storage.migrator import MigrationError
from service.storage.remains import LedgerMissing
from service.telemetry import TelemetryError


class NoDatabase(Exception):
    """There is no file where the database should be."""


KNOWN_ERRORS = (
    NoDatabase,
    LedgerMissing,
    ConfigError,
    TelemetryError,
    MigrationError,
    CopyFailed,
    ImportFailed,
    PruneFailed,
    WorkersFailed,
    EraseFailed,
    lock.DatabaseInUse,
    sqlite.EngineError,
    KeyUnusable,
    Contradiction,
)
CLI_ACTOR = "cli:"
MAKE_ONE = " Make one with: passbook migrate up"
_SHELL_SIGNAL = 128
"""What a shell adds to the number of the signal that ended a program."""

database_option = click.option(
    "--database", metavar="FILE", help="The database. Default: $PASSBOOK_DATABASE, or data/passbook.db."
)
jobs_option = click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(1, 64),
    help="Processes that compute the audit log's hashes. Default: the processors that may be used; 1 for a small log.",
)


_NO_THREAD = "can't start new thread"
"""CPython's only mark of it (_thread.start_new_thread)."""


class CannotBeChecked(click.ClickException):
    """A proof could not be carried out: nothing is known, which is no exit code of something broken."""

    exit_code = 2


class Command(click.Command):
    """A command that turns what a user can mend into one sentence and exit code 1.

    Where nobody reads its output any more, as in `| head`, it ends without a word, as one that SIGPIPE ends.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KNOWN_ERRORS as error:
            raise click.ClickException(str(error)) from error
        except sqlite.DatabaseError as error:
            raise click.ClickException(f"The database answered: {error}.{_remedy(error)}") from error
        except OSError as error:
            if isinstance(error, BrokenPipeError) and nobody_reads(wait_ms=0):
                leave(_SHELL_SIGNAL + signal.SIGPIPE)
            said = f"{error.filename or 'The system'}: {error.strerror or error}.{_remedy(error)}"
            raise click.ClickException(said) from error
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and str(error) != _NO_THREAD:
                raise
            said = "The system gives no more memory or threads. Raise ulimit -v and -u, or the container's limits."
            raise click.ClickException(said) from error
        return result


def _remedy(error: Exception) -> str:
    """What helps against a full disk, or a used-up quota; nothing for another error."""
    return " Free some space, and run it again." if sqlite.is_out_of_space(error) else ""


class Group(click.Group):
    """A group whose commands are of that kind."""

    command_class = Command


def nobody_reads(*, wait_ms: int) -> bool:
    """Whether standard output is a pipe whose reader is gone, or goes within that time."""
    waiting = select.poll()
    waiting.register(sys.stdout.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in waiting.poll(wait_ms))


def leave(code: int) -> NoReturn:
    """Ends the program though its output could not be written: Python flushes once more then, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def config_of(**overrides: str | int | None) -> Config:
    """The settings of the environment, then `overrides`. Raises ConfigError."""
    return Config.from_env(os.environ, **overrides)


def load_migrations() -> list[migrator.Migration]:
    """The migrations that this program has."""
    return migrator.load(resources.folder("migrations"))


def require_ours(config: Config) -> None:
    """Raises MigrationError or EngineError for a file of something else, before a writing connection touches it."""
    path = config.database_path
    if path.is_file() and path.stat().st_size > 0:
        sqlite.undo_interrupted(path)
        with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=config.busy_timeout_ms)) as connection:
            migrator.version_of(connection, load_migrations())


@contextlib.contextmanager
def checking() -> Iterator[None]:
    """What keeps a proof within the block from being carried out becomes CannotBeChecked."""
    try:
        yield
    except BrokenPipeError:  # not of the proof: nobody reads what it says
        raise
    except (*KNOWN_ERRORS, sqlite.DatabaseError, OSError, UnicodeError) as error:
        raise CannotBeChecked(str(error)) from error
    except KeyboardInterrupt as error:  # its usual exit code is that of what is broken
        raise CannotBeChecked("It was stopped.") from error


def require_database(path: Path, *, remedy: str = "") -> None:
    """Raises NoDatabase, and FilesSwapped for a second name: what a service wrote under the other is not seen here.

    For before any connection to it. A restore that is under way, or was killed, has given it one that does no harm.
    """
    if not path.is_file():
        raise NoDatabase(f"There is no database {path}.{remedy}")
    guard.require_one_name(path, aside=len(backups.second_names(path.resolve())))


@contextlib.contextmanager
def reading(config: Config) -> Iterator[sqlite.Connection]:
    """A read-only connection for the block, to a database of the latest schema. Raises NoDatabase, MigrationError."""
    path = config.database_path
    require_database(path)
    with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=config.busy_timeout_ms)) as connection:
        migrator.require_latest(connection, load_migrations())
        yield connection


@contextlib.contextmanager
def workers(config: Config, connection: sqlite.Connection, jobs: int | None) -> Iterator[Workers | None]:
    """The processes of `jobs_option` for the block, for the log that `connection` reads."""
    number = audit_workers.jobs_for(audit_chain.size_of(connection)) if jobs is None else jobs
    with audit_workers.started(config.database_path, number, busy_timeout_ms=config.busy_timeout_ms) as others:
        yield others


@contextlib.contextmanager
def opened(config: Config) -> Iterator[sqlite.Connection]:
    """A writing connection for the block, beside a service that may run.

    Raises NoDatabase, MigrationError, and SchemaChanged: what the schema guards is not written without it.
    """
    path, migrations = config.database_path, load_migrations()
    require_database(path, remedy=MAKE_ONE)
    connection = sqlite.connect_writer(path, busy_timeout_ms=config.busy_timeout_ms, checkpoints=False)
    with contextlib.closing(connection):
        migrator.require_latest(connection, migrations)
        migrator.require_schema(connection, migrations)
        yield connection


def actor() -> str:
    """Who runs the command, as the audit log names it."""
    try:
        return f"{CLI_ACTOR}{getpass.getuser()}"
    except (KeyError, OSError):  # a container may run as a user without a name
        return f"{CLI_ACTOR}{os.getuid()}"


def now() -> str:
    """The present instant as rows hold it."""
    return stored(system_clock())
