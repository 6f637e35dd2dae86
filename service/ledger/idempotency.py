"""One request, one effect, one answer.

The pair (caller's name, Idempotency-Key) names a request for ever. Its answer is stored with its effect; asked again
with the same operation and the same body it is given again, byte for byte; asked with another it is refused. Where it
was erased with its user's personal data, its key still keeps the request from being carried out again.
"""

from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from service.ledger.errors import AnswerErased, IdempotencyKeyReused


class Request(Struct, frozen=True, kw_only=True):
    """A write as it was asked for: `operation` is "METHOD /path", `body` the parsed command as canonical JSON."""

    idempotency_key: str
    operation: str
    body: str


class Answer(Struct, frozen=True, kw_only=True):
    """What the caller gets: HTTP status, exact body, and the path of the resource that was made, if one was.

    audit_log_id: the last row of the audit log that the request wrote; leaf: its hash in the audit chain, known once
    the row is sealed. Both are null in answers from before there was a chain.
    """

    status: int
    body: bytes
    location: str | None = None
    replayed: bool = False
    audit_log_id: int | None = None
    leaf: bytes | None = None


def digest(
    *, idempotency_key: str, operation: str, request: str, status: int, location: str | None, body: bytes
) -> str:
    """SHA-256 in hex of all that is stored of a request and its answer: five lines of UTF-8, then the answer's body.

    None of the lines can hold a line feed. The audit row of the request tells the digest as a personal value, since
    with the answer's other values at hand a name could be tried out against it.
    """
    head = f"{idempotency_key}\n{operation}\n{request}\n{status}\n{location or ''}\n"
    return sha256(head.encode() + body).hexdigest()


def check_same_request(request: Request, *, operation: str, body: str, status: int) -> None:
    """Returns when the stored `operation` and `body` are those of `request`, which was answered with HTTP `status`.

    Raises IdempotencyKeyReused, which names the members of the body that differ, or "path" for another operation.
    Raises AnswerErased if the stored body was erased, since it cannot be compared.
    """
    if request.operation == operation and not body:
        outcome = "carried out" if status < 400 else "refused"
        raise AnswerErased(
            f"The request of this Idempotency-Key was {outcome} before ({status}); its answer was erased together with"
            " its user's personal data. Nothing was done now."
        )
    if request.operation == operation and request.body == body:
        return
    if request.operation != operation:
        differing = ["path"]
    else:
        before: dict[str, Any] = msgspec.json.decode(body)
        now: dict[str, Any] = msgspec.json.decode(request.body)
        missing = object()
        differing = sorted(k for k in before.keys() | now.keys() if before.get(k, missing) != now.get(k, missing))
    raise IdempotencyKeyReused(
        f"This Idempotency-Key was used for another request; {', '.join(differing)} differ. Use a new key.",
        differing_fields=differing,
    )
