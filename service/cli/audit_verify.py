"""passbook audit verify: the proof that nobody changed the audit log."""

import sys
import time
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from service.cli import progress
from service.cli.common import (
    CannotBeChecked,
    Command,
    checking,
    config_of,
    database_option,
    jobs_option,
    reading,
    workers,
)
from service.config import Config
from service.ledger import notes
from service.ledger.audit_chain import read_receipt
from service.ledger.notes import Checkpoint, NoteError, VerifierKey
from service.storage.audit_verification import ChainCheck, ChainFault
from service.storage.checkpoints import last_file_of

_TAMPERED = 1


class VerificationReport(Struct, frozen=True, kw_only=True):
    """sound: no fault was found in `rows` rows. root: of the tree over them, in base64. checkpoints: sizes compared.

    unfinished_erasures: ids of users whose erasure was begun; what it took is not yet put on record by a row.
    """

    sound: bool
    rows: int
    checked: int
    root: bytes
    seconds: float
    checkpoints: list[int]
    receipts: int
    unfinished_erasures: list[int]
    faults: list[ChainFault]


@click.command("verify", cls=Command)
@database_option
@click.option("--key", metavar="KEY", help="Public half of the log's key; by default that of its own.")
@click.option(
    "--checkpoint",
    "checkpoint_files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A checkpoint that was kept elsewhere, or a .tlog-proof file; more than one may be given.",
)
@click.option(
    "--receipts",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Passbook-Receipt headers that were kept, one a line.",
)
@jobs_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify(
    database: str | None,
    key: str | None,
    checkpoint_files: tuple[Path, ...],
    receipts: Path | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Prove that nobody changed the audit log. Exit code 0: sound, 1: changed, 2: it cannot be checked.

    It only reads a database or a backup, and the service may run meanwhile. Every row's leaf and the whole tree are
    computed again. Only something that was kept elsewhere proves that the log was not rewritten as a whole:
    --checkpoint, --receipts.
    """
    with checking():
        config = config_of(database=database)
        checkpoints = _checkpoints(config, key, checkpoint_files)
        report = _run(config, checkpoints, _receipts(receipts), jobs)
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        _say(report)
    if not report.sound:
        sys.exit(_TAMPERED)


def _checkpoints(config: Config, key: str | None, files: tuple[Path, ...]) -> list[Checkpoint]:
    """What the log is compared with: the files, and the last checkpoint that the service signed if it is there."""
    own = config.audit_key_path
    try:
        if key is not None:
            known: VerifierKey | None = notes.read_verifier_key(key)
        else:
            known = notes.read_signing_key(own.read_text("utf-8").strip()).verifier if own.exists() else None
    except NoteError as error:
        raise CannotBeChecked(f"{'--key' if key else own}: {error}.") from error
    last = last_file_of(own)
    wanted = [*files, last] if last.exists() and key is None else list(files)
    if wanted and known is None:
        raise CannotBeChecked("The log's key is not here; give its public half with --key.")
    return [_checkpoint(file, known) for file in wanted if known is not None]


def _checkpoint(file: Path, key: VerifierKey) -> Checkpoint:
    try:
        text = file.read_text("utf-8")
        note = notes.read_proof(text).checkpoint if text.startswith("c2sp.org/tlog-proof") else text
        return notes.open_checkpoint(note, [key])
    except NoteError as error:
        raise CannotBeChecked(f"{file} is no checkpoint of this log: {error}.") from error


def _receipts(file: Path | None) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for number, line in enumerate(file.read_text("utf-8").splitlines() if file else [], start=1):
        if line.strip():
            try:
                audit_log_id, leaf = read_receipt(line)
            except ValueError as error:
                raise CannotBeChecked(f"{file}, line {number}: {error}.") from error
            if found.setdefault(audit_log_id, leaf) != leaf:
                raise CannotBeChecked(f"{file}, line {number}: row {audit_log_id} has two different receipts.")
    return found


def _run(
    config: Config, checkpoints: list[Checkpoint], receipts: dict[int, bytes], jobs: int | None
) -> VerificationReport:
    with reading(config) as connection, workers(config, connection, jobs) as others:
        began = time.perf_counter()
        check = ChainCheck(connection, checkpoints=checkpoints, receipts=receipts, workers=others)
        with progress.shown() as show:
            for _ in check.chunks():
                show("verifying", check.checked, check.tree.size)
        return VerificationReport(
            sound=not check.faults,
            rows=check.tree.size,
            checked=check.checked,
            root=check.root,
            seconds=round(time.perf_counter() - began, 3),
            checkpoints=sorted(checkpoint.size for checkpoint in checkpoints),
            receipts=len(receipts),
            unfinished_erasures=check.unfinished_erasures(),
            faults=check.faults,
        )


def _say(report: VerificationReport) -> None:
    for fault in report.faults:
        click.echo(f"❌ {'audit log' if fault.audit_log_id is None else f'row {fault.audit_log_id}'}: {fault.said}")
    rate = f" ({report.checked / report.seconds:,.0f} rows a second)" if report.seconds >= 1 else ""
    compared = [f"the checkpoint of {size:,} rows" for size in report.checkpoints]
    if report.receipts:
        compared.append(f"{report.receipts:,} receipts")
    against = f" and compared with {', '.join(compared)}" if compared else ""
    click.echo(f"{report.checked:,} of {report.rows:,} rows computed anew in {report.seconds:.1f} s{rate}{against}.")
    for user_id in report.unfinished_erasures:
        click.echo(
            f"⬜ The erasure of user {user_id} was begun and no row tells of it yet: passbook users erase ends it."
        )
    if report.sound:
        click.echo("✅ Nobody changed the audit log.")
        if not compared:
            click.echo(
                "⬜ Only what was kept elsewhere shows whether the whole log was made anew: --checkpoint, --receipts."
            )
    elif report.faults[0].audit_log_id is not None:
        click.echo("What it should be is in an older backup, or in an export of the log.")
