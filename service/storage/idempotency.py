"""Table idempotency_answers: what was answered, kept for ever."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from service.ledger.idempotency import Answer, Request
from service.storage.inserts import insert_rows
from service.storage.sqlite import Connection, as_json

_COLUMNS = "operation, request, status, body, location, audit_log_id"
Row = tuple[str, str, str, str, int, bytes, str | None, str, int | None]
"""An answer to be stored: actor, idempotency_key, operation, request, status, body, location, created_at,
audit_log_id."""


class StoredAnswer(Struct, frozen=True):
    """What a key was used for, and the answer it got, as it is given again. `request` is empty once it was erased."""

    operation: str
    request: str
    answer: Answer


def find(tx: Connection, *, actor: str, idempotency_key: str) -> StoredAnswer | None:
    """The answer that the key got, or None for a new key."""
    found = tx.execute(
        f"SELECT {_COLUMNS} FROM idempotency_answers WHERE actor = ? AND idempotency_key = ?", (actor, idempotency_key)
    ).fetchone()
    return _stored(*found) if found else None


def find_many(tx: Connection, *, actor: str, idempotency_keys: Iterable[str]) -> dict[str, StoredAnswer]:
    """The answers that the keys of one caller got, by key; new keys are left out."""
    rows = tx.execute(
        f"SELECT idempotency_key, {_COLUMNS} FROM idempotency_answers"
        " WHERE actor = ? AND idempotency_key IN (SELECT value FROM json_each(?))",
        (actor, as_json(idempotency_keys)),
    )
    return {row[0]: _stored(*row[1:]) for row in rows.fetchall()}


def row(request: Request, answer: Answer, *, actor: str, now: str) -> Row:
    """The row that stores the answer."""
    return (
        actor,
        request.idempotency_key,
        request.operation,
        request.body,
        answer.status,
        answer.body,
        answer.location,
        now,
        answer.audit_log_id,
    )


def insert_many(tx: Connection, rows: Sequence[Row]) -> None:
    """Stores the answers."""
    insert_rows(
        tx,
        "INSERT INTO idempotency_answers (actor, idempotency_key, operation, request, status, body, location,"
        " created_at, audit_log_id)",
        rows,
    )


def replay(answer: Answer) -> Answer:
    """`answer` as it is given again."""
    return msgspec.structs.replace(answer, replayed=True)


def _stored(
    operation: str, request: str, status: int, body: bytes, location: str | None, audit_log_id: int | None
) -> StoredAnswer:
    answer = Answer(status=status, body=body, location=location, replayed=True, audit_log_id=audit_log_id)
    return StoredAnswer(operation, request, answer)
