"""passbook check: what a start would meet, without starting."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from service import server, telemetry
from service.cli.common import KNOWN_ERRORS, Command, config_of, database_option, load_migrations
from service.config import Config
from service.storage import checkpoints, figures, guard, lock, migrator, private_files, remains, sequences, sqlite
from service.storage.checkpoints import Signer

_MIB = 2**20
_FREE_MIN = 256 * _MIB


class Verdict(StrEnum):
    """ok; note: a start goes on, and somebody should know; refused: a start ends with this."""

    OK = "ok"
    NOTE = "note"
    REFUSED = "refused"


class Finding(Struct, frozen=True, kw_only=True):
    """What was found of one thing that a start needs, as a sentence."""

    subject: str
    verdict: Verdict
    said: str


@click.command(cls=Command)
@database_option
@click.option("--host", help="Address to listen on. Default: $PASSBOOK_HOST, or 127.0.0.1.")
@click.option("--port", type=int, help="Port to listen on. Default: $PASSBOOK_PORT, or 8000.")
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
def check(database: str | None, host: str | None, port: int | None, as_json: bool) -> None:
    """Say what `passbook serve` would do with these settings, and change nothing.

    Exit code 0: it would start. 1: it would not, and the output says why.
    """
    config, found = _settings(database=database, host=host, port=port)
    if config is not None:
        for subject, look in _SUBJECTS.items():
            try:
                found += [Finding(subject=subject, verdict=verdict, said=said) for verdict, said in look(config)]
            except (*KNOWN_ERRORS, sqlite.DatabaseError, OSError) as error:
                said = f"{error.filename}: {error.strerror}." if isinstance(error, OSError) else str(error)
                found.append(Finding(subject=subject, verdict=Verdict.REFUSED, said=said))
    would_start = all(finding.verdict is not Verdict.REFUSED for finding in found)
    if as_json:
        click.echo(msgspec.json.encode({"would_start": would_start, "findings": found}))
    else:
        for finding in found:
            click.echo(f"{finding.verdict:8} {finding.subject:11} {finding.said}")
        click.echo("A start would succeed." if would_start else "A start would be refused.")
    if not would_start:
        sys.exit(1)


Findings = Iterator[tuple[Verdict, str]]


def _settings(**given: str | int | None) -> tuple[Config | None, list[Finding]]:
    config, errors = None, []
    try:
        config = config_of(**given)
    except KNOWN_ERRORS as error:
        errors.append(str(error))
    try:
        sent = [name for name, on in zip(("traces", "metrics"), telemetry.wanted(os.environ), strict=True) if on]
    except telemetry.TelemetryError as error:
        errors.append(str(error))
    if errors:
        return config, [Finding(subject="settings", verdict=Verdict.REFUSED, said="; ".join(errors))]
    said = f"All are valid. {' and '.join(sent).capitalize() or 'Nothing'} would be sent over OTLP."
    found = [Finding(subject="settings", verdict=Verdict.OK, said=said)]
    if config is not None and config.deposit_expiry_s < config.match_window_s:
        said = (
            f"Deposits expire after {config.deposit_expiry_s:,} s (PASSBOOK_DEPOSIT_EXPIRY_S), and money is matched for"
            f" {config.match_window_s:,} s (PASSBOOK_MATCH_WINDOW_S): what comes between waits for a person."
        )
        found.append(Finding(subject="settings", verdict=Verdict.NOTE, said=said))
    return config, found


def _sqlite(_config: Config) -> Findings:
    version = f"SQLite {sqlite.SQLITE_VERSION} ({sqlite.DRIVER_NAME})"
    if sqlite.version_tuple() < sqlite.SQLITE_VERSION_MIN:
        yield Verdict.REFUSED, f"{version} is too old; 3.40 or newer is needed."
    elif sqlite.has_wal_reset_bug():
        yield (
            Verdict.NOTE,
            f"{version} has the WAL-reset bug; Passbook goes round it, a replica beside it must not run.",
        )
    else:
        yield Verdict.OK, f"{version}."


def _lock(config: Config) -> Findings:
    holder = lock.holder(config.database_path)
    if holder is not None:
        yield Verdict.REFUSED, f"{config.database} is in use by {holder}."
    else:
        yield Verdict.OK, f"No process holds {config.database}."


def _database(config: Config) -> Findings:
    path = config.database_path
    remains.require_file(path)
    if remains.is_missing(path):
        remains.require_none(path, config.audit_key_path)
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            yield Verdict.REFUSED, f"{path} is not there and cannot be made in {folder}."
        else:
            yield Verdict.NOTE, f"{path} is not there; it would be made, and an admin key printed."
        return
    if _is_interrupted(path):
        yield Verdict.NOTE, f"{path} was interrupted within a transaction, which would be undone before all else."
        return
    guard.require_one_name(path)
    if lock.holder(path) is None:
        guard.require_log(path)
    with _reading(config) as connection:
        version = migrator.require_latest(connection, load_migrations())
        migrator.require_schema(connection, load_migrations())
        full = sequences.used_up(connection)
    yield Verdict.OK, f"{path} is at migration {version:03d}, the latest."
    for said in full:
        yield Verdict.NOTE, f"Writes would be answered 503 storage_full: {said}"
    for file in (path, *sqlite.side_files(path)):
        if private_files.is_open_to_others(file):
            yield Verdict.NOTE, f"{file} can be read by others; a start would make it private."
    if not os.access(path, os.W_OK):
        yield Verdict.REFUSED, f"{path} cannot be written to."


def _audit_key(config: Config) -> Findings:
    file = config.audit_key_path
    if not file.exists():
        checkpoints.require_not_lost(file)
        yield Verdict.NOTE, f"{file} is not there; a key would be made, and its public half printed."
        return
    signer = Signer.open(file, origin=config.audit_origin)
    yield Verdict.OK, f"{file} signs as {signer.key.verifier.name}."
    if file.stat().st_mode & 0o077:
        yield Verdict.NOTE, f"{file} can be read by others than its owner. Make it private: chmod 600."
    if signer.last is None:
        yield Verdict.NOTE, "No checkpoint was signed with it yet."
    elif not config.database_path.exists():
        yield Verdict.REFUSED, f"A checkpoint of {signer.last.size:,} rows was signed, and there is no database."
    elif not _is_interrupted(config.database_path):
        with _reading(config) as connection:
            tree = signer.check(connection)
        yield Verdict.OK, f"The audit log of {tree.size:,} rows continues the last checkpoint, of {signer.last.size:,}."


def _disk(config: Config) -> Findings:
    folder = next(parent for parent in config.database_path.absolute().parents if parent.is_dir())
    free = figures.of_files(folder / config.database_path.name).free
    said = f"{free / _MIB:,.0f} MiB are free in {folder}."
    yield (Verdict.OK, said) if free >= _FREE_MIN else (Verdict.NOTE, f"{said} Writes stop with 503 when it is full.")


def _port(config: Config) -> Findings:
    with contextlib.closing(server.listen(config)):
        yield Verdict.OK, f"{config.host}:{config.port} can be listened on."


_SUBJECTS: dict[str, Callable[[Config], Findings]] = {
    "SQLite": _sqlite,
    "lock": _lock,
    "database": _database,
    "audit key": _audit_key,
    "disk": _disk,
    "port": _port,
}


def _is_interrupted(path: Path) -> bool:
    """Whether there is a rollback journal, which who only reads may not undo."""
    journal = path.with_name(f"{path.name}-journal")
    return journal.is_file() and journal.stat().st_size > 0


@contextlib.contextmanager
def _reading(config: Config) -> Iterator[sqlite.Connection]:
    """The database for reading; where it has no write-ahead log, no file is made beside it."""
    path = config.database_path
    unused = not any(file.exists() for file in sqlite.side_files(path))
    connection = sqlite.connect_reader(path, busy_timeout_ms=config.busy_timeout_ms, immutable=unused)
    with contextlib.closing(connection):
        yield connection
