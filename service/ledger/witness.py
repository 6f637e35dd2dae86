"""What a witness of the log decides: whether a checkpoint only adds to the last one that it accepted.

A witness is somebody else than the log, who keeps what the log signed. It is what finds that a whole log was made anew
or cut at its end: those that made it cannot reach what the witness keeps.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from service.ledger.audit_chain import ProofError, check_consistency
from service.ledger.notes import Checkpoint, NoteError, hashes_of_base64


class LogMisbehaved(Exception):
    """The log signed two checkpoints that cannot both be true: it was cut or made anew. The text says which."""


class Consistency(Struct, frozen=True, kw_only=True):
    """The answer of GET /v1/audit-logs/consistency. proof: base64 of 32 bytes each."""

    from_size: int = msgspec.field(name="from")
    to_size: int = msgspec.field(name="to")
    proof: list[str]


class Accepted(Struct, frozen=True, kw_only=True):
    """One line of a witness's history. accepted_at: RFC 3339; checkpoint: the signed note as it came."""

    accepted_at: str
    size: int
    checkpoint: str


def judge(latest: Checkpoint, offered: Checkpoint, proof: Sequence[bytes]) -> bool:
    """Whether `offered` is newer than `latest`; False when it is the same. proof: from the one size to the other.

    Raises LogMisbehaved when the log shrank, or is not the one that it was.
    """
    if offered.origin != latest.origin:
        raise LogMisbehaved(f"the checkpoint is of {offered.origin}, not of {latest.origin}")
    try:
        check_consistency(latest.size, latest.root, offered.size, offered.root, proof)
    except ProofError as error:
        raise LogMisbehaved(str(error)) from error
    return offered.size > latest.size


def read_consistency(body: bytes, *, from_size: int, to_size: int) -> list[bytes]:
    """The proof in an answer of the service. Raises NoteError when it is no such answer, or one to another question."""
    try:
        answer = msgspec.json.decode(body, type=Consistency)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise NoteError(f"the proof of consistency cannot be read: {error}") from error
    if (answer.from_size, answer.to_size) != (from_size, to_size):
        raise NoteError(f"the proof is from {answer.from_size} to {answer.to_size}, not from {from_size} to {to_size}")
    return hashes_of_base64(answer.proof)


def history_line(entry: Accepted) -> bytes:
    """`entry` as the history file holds it."""
    return msgspec.json.encode(entry) + b"\n"


def last_entry(history: bytes) -> tuple[Accepted | None, int]:
    """The last whole line of a history file, and how many of its bytes are whole lines: a line that was being written
    when its machine stopped was not accepted. Raises NoteError when the last whole line is no entry.
    """
    end = history.rfind(b"\n") + 1
    if end == 0:
        return None, 0
    line = history[history.rfind(b"\n", 0, end - 1) + 1 : end]
    try:
        return msgspec.json.decode(line, type=Accepted), end
    except (msgspec.DecodeError, UnicodeError) as error:
        raise NoteError(f"its last line cannot be read: {error}") from error
