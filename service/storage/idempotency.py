"""Table idempotency_answers: what was answered, kept for ever."""

from service.ledger.idempotency import Answer, Request
from service.storage.sqlite import Connection


def find(tx: Connection, *, actor: str, idempotency_key: str) -> tuple[str, str, Answer] | None:
    """The operation and body that the key was used for and the answer it got, or None for a new key."""
    row = tx.execute(
        "SELECT operation, request, status, body, location FROM idempotency_answers"
        " WHERE actor = ? AND idempotency_key = ?",
        (actor, idempotency_key),
    ).fetchone()
    return (row[0], row[1], Answer(status=row[2], body=row[3], location=row[4], replayed=True)) if row else None


def insert(tx: Connection, request: Request, answer: Answer, *, actor: str, now: str) -> None:
    """Stores the answer."""
    tx.execute(
        "INSERT INTO idempotency_answers (actor, idempotency_key, operation, request, status, body, location,"
        " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            actor,
            request.idempotency_key,
            request.operation,
            request.body,
            answer.status,
            answer.body,
            answer.location,
            now,
        ),
    )
