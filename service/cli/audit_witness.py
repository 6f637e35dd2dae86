"""passbook audit witness: keeps what the log signed, elsewhere, and finds that it was cut or made anew."""

import contextlib
import fcntl
import os
import shlex
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import click
from msgspec import Struct

from service.cli.common import Command
from service.ledger.notes import (
    NOTE_BYTES_MAX,
    Checkpoint,
    NoteError,
    SigningKey,
    VerifierKey,
    base64_hashes,
    cosign,
    open_checkpoint,
    read_signing_key,
    read_verifier_key,
)
from service.ledger.timestamps import spoken, stored, system_clock
from service.ledger.witness import Accepted, LogMisbehaved, history_line, judge, last_entry, read_consistency
from service.storage import private_files, sqlite

_MISBEHAVED, _CANNOT_BE_CHECKED = 1, 2
_TIMEOUT_S = 30
# No redirects: the API key is for the service alone.
_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
)
_API_KEY = "PASSBOOK_API_KEY"
_KEY, _HISTORY, _LATEST, _REFUSED = "verifier-key", "accepted.ndjson", "latest.checkpoint", "refused.ndjson"


class _CannotBeChecked(click.ClickException):
    """Nothing is known of the log; no exit code of one that misbehaved."""

    exit_code = _CANNOT_BE_CHECKED


class _Source(Struct, frozen=True):
    """Where a log's word comes from: its newest checkpoint, and the proof from one size to another.

    Both raise OSError, HTTPException or NoteError.
    """

    checkpoint: Callable[[], bytes]
    consistency: Callable[[int, int], bytes]


class _Witness(Struct, kw_only=True):
    """A folder and what is in it. key: the log's, pinned. whole: bytes of the history that are whole lines."""

    folder: Path
    key: VerifierKey
    latest: Checkpoint | None
    whole: int
    cosigner: SigningKey | None
    trust_first: bool


@click.command(cls=Command)
@click.option(
    "--state",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="The witness's own folder. Whoever can write to the log must not be able to write there.",
)
@click.option("--url", metavar="URL", help=f"The service. An API key with audit:read is taken from ${_API_KEY}.")
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="FILE", help="A checkpoint, instead of --url.")
@click.option(
    "--consistency",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --checkpoint: what GET /v1/audit-logs/consistency answered, from the last accepted size on.",
)
@click.option("--key", metavar="VKEY", help="The log's verifier key; from then on it is kept in FOLDER.")
@click.option("--trust-first", is_flag=True, help="Accept the first checkpoint, which nothing can be compared with.")
@click.option(
    "--cosign-key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A signing key of the witness (cosignature/v1), with which it signs what it accepts.",
)
@click.option("--interval", type=click.IntRange(min=1), metavar="SECONDS", help="Ask again and again; with --url.")
def witness(
    folder: Path,
    url: str | None,
    checkpoint: Path | None,
    consistency: Path | None,
    key: str | None,
    trust_first: bool,
    cosign_key: Path | None,
    interval: int | None,
) -> None:
    """Check that the log only grew since the last time, and keep its checkpoint.

    It protects only as far as its folder is protected: run it on another machine than the service, as another user.
    Exit code 0: the log only grew. 1: it was cut or made anew. 2: it cannot be told.
    """
    if (url is None) == (checkpoint is None):
        raise click.UsageError("Give either --url or --checkpoint.")
    if consistency and url:
        raise click.UsageError("--consistency goes with --checkpoint.")
    if interval and not url:
        raise click.UsageError("--interval goes with --url.")
    try:
        source = _service(url) if url else _files(checkpoint, consistency)
        with _locked(folder):
            state = _opened(folder, key, cosign_key, trust_first=trust_first)
            while not _round(state, source, again=interval is not None):
                time.sleep(interval or 0)
    except LogMisbehaved as error:
        _say_misbehaved(folder, error)
        sys.exit(_MISBEHAVED)
    except (NoteError, OSError, HTTPException) as error:
        raise _CannotBeChecked(_sentence(error)) from error
    except KeyboardInterrupt as error:  # its usual exit code is that of a log that misbehaved
        raise _CannotBeChecked("It was stopped.") from error


def _round(state: _Witness, source: _Source, *, again: bool) -> bool:
    """Asks once; whether that was all. With `again`, a log that does not answer is asked again later."""
    try:
        click.echo(f"{_now()}  {_accept(state, source)}")
    except (NoteError, OSError, HTTPException) as error:
        if not again:
            raise
        click.echo(f"{_now()}  It cannot be told now. {_sentence(error)}", err=True)
    return not again


def _accept(state: _Witness, source: _Source) -> str:
    """Keeps the newest checkpoint where it only adds to the latest. Returns what was done.

    Raises LogMisbehaved, and what `source` raises.
    """
    note = source.checkpoint()
    offered, latest = open_checkpoint(note, [state.key]), state.latest
    if latest is None and not state.trust_first:
        raise NoteError(
            f"nothing was accepted here yet, so this checkpoint of {offered.size:,} rows with the root"
            f" {base64_hashes([offered.root])[0]} can be compared with nothing: look whether it is of the log that you"
            " know, then accept it with --trust-first"
        )
    if latest is not None:
        proof = []
        if offered.size > latest.size > 0:
            answer = source.consistency(latest.size, offered.size)
            proof = read_consistency(answer, from_size=latest.size, to_size=offered.size)
        try:
            if not judge(latest, offered, proof):
                return f"Unchanged: {offered.size:,} rows."
        except LogMisbehaved:
            _append(state.folder / _REFUSED, _entry(offered, note))
            raise
    _keep(state, offered, note)
    before = f", {latest.size:,} before" if latest else ""
    key = shlex.quote(state.key.text())
    return (
        f"Accepted: {offered.size:,} rows{before}.\n"
        f"  Compare an export with it: verify.py EXPORT --key {key} --checkpoint {state.folder / _LATEST}"
    )


def _keep(state: _Witness, offered: Checkpoint, note: bytes) -> None:
    """After this the checkpoint is accepted: first in the history, then as the latest."""
    state.whole = _append(state.folder / _HISTORY, _entry(offered, note), at=state.whole)
    state.latest = offered
    signed = note.decode()
    if state.cosigner:
        signed += cosign(signed, state.cosigner, now_s=int(time.time()))
    private_files.write(state.folder / _LATEST, signed.encode())


def _entry(offered: Checkpoint, note: bytes) -> bytes:
    return history_line(Accepted(accepted_at=_now(), size=offered.size, checkpoint=note.decode()))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder for the block; makes it where it is missing. Raises NoteError when another witness holds it."""
    sqlite.make_folder(folder)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NoteError(f"another witness works in {folder}") from None
        yield
    finally:
        os.close(descriptor)


def _opened(folder: Path, key: str | None, cosign_key: Path | None, *, trust_first: bool) -> _Witness:
    """What `folder` holds, with the key pinned. Raises NoteError, OSError."""
    path = folder / _KEY
    if not path.exists():
        if key is None:
            raise NoteError("no key is kept here yet: give the log's verifier key with --key")
        private_files.write(path, f"{read_verifier_key(key).text()}\n".encode())
    pinned = read_verifier_key(path.read_text("utf-8").strip())
    if key is not None and read_verifier_key(key) != pinned:
        raise NoteError(f"the key that is kept in {path} is {pinned.text()}, not the one that was given")
    history = folder / _HISTORY
    entry, whole = last_entry(history.read_bytes() if history.exists() else b"")
    return _Witness(
        folder=folder,
        key=pinned,
        latest=open_checkpoint(entry.checkpoint, [pinned]) if entry else None,
        whole=whole,
        cosigner=read_signing_key(cosign_key.read_text("utf-8").strip()) if cosign_key else None,
        trust_first=trust_first,
    )


def _append(path: Path, line: bytes, *, at: int | None = None) -> int:
    """Adds a line, at `at` or at the end, and waits until it is on disk. Returns where the next one goes."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "r+b") as file:
        end = file.seek(0, os.SEEK_END) if at is None else file.seek(at)
        file.truncate()
        file.write(line)
        file.flush()
        os.fsync(descriptor)
    sqlite.sync(path.parent)
    return end + len(line)


def _files(checkpoint: Path | None, consistency: Path | None) -> _Source:
    def proof(from_size: int, to_size: int) -> bytes:
        if consistency is None:
            raise NoteError(
                "the proof is missing that the log only grew: give with --consistency what"
                f" GET /v1/audit-logs/consistency?from={from_size}&to={to_size} answers"
            )
        return consistency.read_bytes()

    assert checkpoint is not None
    return _Source(checkpoint.read_bytes, proof)


def _service(url: str) -> _Source:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise click.UsageError("--url begins with http:// or https://.")
    opener = urllib.request.OpenerDirector()
    for handler in _HANDLERS:
        opener.add_handler(handler())
    api_key = os.environ.get(_API_KEY)
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def get(path: str) -> bytes:
        request = urllib.request.Request(url.rstrip("/") + path, headers=headers)
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as answer:
                body: bytes = answer.read(NOTE_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(1000).decode("utf-8", "replace")
            raise NoteError(f"GET {path} was answered with {error.code}: {said}") from error
        if len(body) > NOTE_BYTES_MAX:
            raise NoteError(f"the answer to GET {path} has more than {NOTE_BYTES_MAX} bytes")
        return body

    return _Source(
        lambda: get("/v1/audit-logs/checkpoint"),
        lambda from_size, to_size: get(f"/v1/audit-logs/consistency?from={from_size}&to={to_size}"),
    )


def _say_misbehaved(folder: Path, error: LogMisbehaved) -> None:
    click.echo(
        f"{_now()}  The log is not what it was: {error}.\n"
        f"  Both checkpoints are signed by the log's key and together they prove it: keep {folder / _HISTORY}\n"
        f"  and {folder / _REFUSED}. Stop the writes, keep the database and its backups as they are, and look for\n"
        f"  the first row that differs: verify.py on exports of both, with --checkpoint {folder / _LATEST}.\n"
        "  It may be a restored older backup; then say so to all who hold receipts before a new log is begun.",
        err=True,
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError):
        return f"The service does not answer: {error.reason}."
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}."
    text = str(error) or type(error).__name__
    return f"{text[0].upper()}{text[1:]}."


def _now() -> str:
    return spoken(stored(system_clock()))
