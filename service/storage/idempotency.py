"""Table idempotency_answers: what was answered, kept for ever."""

from service.ledger.idempotency import Answer, Request
from service.storage.sqlite import Connection


def find(tx: Connection, *, actor: str, idempotency_key: str) -> tuple[str, str, Answer] | None:
    """The operation and body that the key was used for and the answer it got, or None for a new key."""
    row = tx.execute(
        "SELECT operation, request, status, body, location, audit_log_id FROM idempotency_answers"
        " WHERE actor = ? AND idempotency_key = ?",
        (actor, idempotency_key),
    ).fetchone()
    if row is None:
        return None
    operation, body, *answered = row
    status, answer, location, audit_log_id = answered
    return (
        operation,
        body,
        Answer(status=status, body=answer, location=location, replayed=True, audit_log_id=audit_log_id),
    )


def insert(tx: Connection, request: Request, answer: Answer, *, actor: str, now: str) -> None:
    """Stores the answer."""
    tx.execute(
        "INSERT INTO idempotency_answers (actor, idempotency_key, operation, request, status, body, location,"
        " created_at, audit_log_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            actor,
            request.idempotency_key,
            request.operation,
            request.body,
            answer.status,
            answer.body,
            answer.location,
            now,
            answer.audit_log_id,
        ),
    )
