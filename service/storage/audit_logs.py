"""Table audit_logs: written once, read by many filters, never changed."""

import msgspec

from service.ledger.audit_logs import AuditEvent, AuditLog, AuditLogFilter, SuspiciousActivity, readable_details
from service.ledger.timestamps import spoken
from service.storage.sqlite import Connection

_SELECT = (
    "SELECT id, created_at, action, telegram_id, resource_type, resource_id, details, actor, request_id,"
    " ip_address, user_agent FROM audit_logs"
)
_encoder = msgspec.json.Encoder()


def insert(
    tx: Connection,
    event: AuditEvent,
    *,
    actor: str,
    request_id: str | None,
    ip_address: str | None,
    user_agent: str | None,
    now: str,
) -> int:
    """Writes one row; returns its id."""
    audit_log_id = tx.execute(
        "INSERT INTO audit_logs (user_id, telegram_id, action, resource_type, resource_id, details, ip_address,"
        " user_agent, created_at, actor, request_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            event.user_id,
            event.telegram_id,
            event.action,
            event.resource_type,
            event.resource_id,
            _encoder.encode(event.details).decode(),
            ip_address,
            user_agent,
            now,
            actor,
            request_id,
        ),
    ).lastrowid
    assert audit_log_id is not None
    return audit_log_id


def find(tx: Connection, audit_log_id: int) -> AuditLog | None:
    """One row, or None."""
    row = tx.execute(f"{_SELECT} WHERE id = ?", (audit_log_id,)).fetchone()
    return _audit_log(row) if row else None


def list_newest(tx: Connection, wanted: AuditLogFilter, *, before_id: int, limit: int) -> list[AuditLog]:
    """Up to `limit` rows that `wanted` holds for, with an id below `before_id`, newest first."""
    conditions = ["id < ?"]
    parameters: list[str | int] = [before_id]
    for column in ("telegram_id", "resource_type", "resource_id"):
        value = getattr(wanted, column)
        if value is not None:
            conditions.append(f"{column} = ?")
            parameters.append(value)
    if wanted.action is not None:
        # GLOB knows only * among the characters that an action filter may hold.
        conditions.append("action GLOB ?" if "*" in wanted.action else "action = ?")
        parameters.append(wanted.action)
    for value, operator in ((wanted.since, ">="), (wanted.until, "<")):
        if value is not None:
            conditions.append(f"created_at {operator} ?")
            parameters.append(value)
    rows = tx.execute(f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?", (*parameters, limit))
    return [_audit_log(row) for row in rows.fetchall()]


def list_suspicious(tx: Connection, *, since: str, threshold: int, limit: int) -> list[SuspiciousActivity]:
    """The guide's third query: users with more than `threshold` failed attempts at one action after `since`."""
    rows = tx.execute(
        "SELECT telegram_id, action, COUNT(*) AS attempts FROM audit_logs"
        " WHERE action GLOB '*_failed' AND created_at > ?"
        " GROUP BY telegram_id, action HAVING COUNT(*) > ? ORDER BY attempts DESC, telegram_id, action LIMIT ?",
        (since, threshold, limit),
    ).fetchall()
    return [SuspiciousActivity(telegram_id=row[0], action=row[1], attempts=row[2]) for row in rows]


def _audit_log(row: tuple[int, str, str, str, str, int, str, str, str, str, str]) -> AuditLog:
    (
        audit_log_id,
        created_at,
        action,
        telegram_id,
        resource_type,
        resource_id,
        details,
        actor,
        request_id,
        ip_address,
        user_agent,
    ) = row
    return AuditLog(
        id=audit_log_id,
        created_at=created_at and spoken(created_at),
        action=action,
        telegram_id=telegram_id,
        resource_type=resource_type,
        resource_id=resource_id,
        details=readable_details(details),
        actor=actor,
        request_id=request_id,
        ip_address=ip_address,
        user_agent=user_agent,
    )
