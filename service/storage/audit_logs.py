"""Table audit_logs: written once, read by many filters (audit_search.py), never changed."""

from collections.abc import Sequence
from typing import Any

import msgspec

from service.ledger.audit_logs import (
    LEDGER_RESOURCE_TYPES,
    AuditEvent,
    AuditLog,
    Outcome,
    SuspiciousActivity,
    outcome_of,
    readable_details,
    with_answer_digest,
)
from service.ledger.timestamps import spoken
from service.storage.inserts import insert_rows
from service.storage.sqlite import Connection

COLUMNS = (
    "id, created_at, action, outcome, telegram_id, resource_type, resource_id, details, actor, key_prefix, request_id,"
    " ip_address, user_agent"
)
"""What `audit_log` takes, in this order."""
_encoder = msgspec.json.Encoder()


Row = tuple[int | str | None, ...]
"""A row to be written: id, user_id, telegram_id, action, outcome, resource_type, resource_id, details, ip_address,
user_agent, created_at, actor, key_prefix, request_id."""


def row(
    audit_log_id: int,
    event: AuditEvent,
    *,
    actor: str,
    key_prefix: str | None,
    request_id: str | None,
    ip_address: str | None,
    user_agent: str | None,
    now: str,
) -> Row:
    """The row that puts the event on record."""
    return (
        audit_log_id,
        event.user_id,
        event.telegram_id,
        event.action,
        outcome_of(event.action).value,
        event.resource_type,
        event.resource_id,
        None if event.details is None else _encoder.encode(event.details).decode(),
        ip_address,
        user_agent,
        now,
        actor,
        key_prefix,
        request_id,
    )


def shown(new: Row) -> AuditLog:
    """A row that is to be written, as the API will show it."""
    audit_log_id, _, telegram_id, action, outcome, resource_type, resource_id, details, ip_address, user_agent = new[
        :10
    ]
    created_at, actor, key_prefix, request_id = new[10:]
    about = (telegram_id, resource_type, resource_id, details)
    return audit_log(
        (audit_log_id, created_at, action, outcome, *about, actor, key_prefix, request_id, ip_address, user_agent)
    )


def telling_answer(new: Row, digest: str) -> Row:
    """A row to be written, which also tells the digest of the stored answer; a caller's event stays the caller's."""
    if new[5] not in LEDGER_RESOURCE_TYPES:
        return new
    details = new[7]
    assert not isinstance(details, int)
    return (*new[:7], with_answer_digest(details, digest), *new[8:])


def insert_many(tx: Connection, rows: Sequence[Row]) -> None:
    """Writes the rows."""
    insert_rows(
        tx,
        "INSERT INTO audit_logs (id, user_id, telegram_id, action, outcome, resource_type, resource_id, details,"
        " ip_address, user_agent, created_at, actor, key_prefix, request_id)",
        rows,
    )


def find(tx: Connection, audit_log_id: int) -> AuditLog | None:
    """One row, or None."""
    row = tx.execute(f"SELECT {COLUMNS} FROM audit_logs WHERE id = ?", (audit_log_id,)).fetchone()
    return audit_log(row) if row else None


def find_newest_id(tx: Connection) -> int:
    """The id of the newest row; 0 when there is none."""
    newest: int = tx.execute("SELECT COALESCE(MAX(id), 0) FROM audit_logs").fetchone()[0]
    return newest


def list_suspicious(tx: Connection, *, since: str, threshold: int, limit: int) -> list[SuspiciousActivity]:
    """The guide's third query: users with more than `threshold` failed attempts at one action after `since`."""
    rows = tx.execute(
        "SELECT telegram_id, action, COUNT(*) AS attempts, MIN(created_at), MAX(created_at)"
        " FROM audit_logs INDEXED BY idx_audit_logs_failed WHERE action GLOB '*_failed' AND created_at > ?"
        " GROUP BY telegram_id, action HAVING COUNT(*) > ? ORDER BY attempts DESC, telegram_id, action LIMIT ?",
        (since, threshold, limit),
    ).fetchall()
    return [
        SuspiciousActivity(
            telegram_id=row[0], action=row[1], attempts=row[2], first_at=spoken(row[3]), last_at=spoken(row[4])
        )
        for row in rows
    ]


def audit_log(row: tuple[Any, ...]) -> AuditLog:
    """The row of COLUMNS as the API shows it."""
    (
        audit_log_id,
        created_at,
        action,
        outcome,
        telegram_id,
        resource_type,
        resource_id,
        details,
        actor,
        key_prefix,
        request_id,
        ip_address,
        user_agent,
    ) = row
    return AuditLog(
        id=audit_log_id,
        created_at=created_at and spoken(created_at),
        action=action,
        outcome=Outcome(outcome) if outcome else outcome_of(action),
        telegram_id=telegram_id,
        resource_type=resource_type,
        resource_id=resource_id,
        details=readable_details(details, resource_type),
        actor=actor,
        key_prefix=key_prefix,
        request_id=request_id,
        ip_address=ip_address,
        user_agent=user_agent,
    )
