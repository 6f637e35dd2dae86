"""The audit log, written from outside: what the bot or a service wants on record."""

import msgspec

from service.ledger.audit_logs import AUDIT_LOG, AuditEvent
from service.ledger.idempotency import Answer
from service.repository.unit_of_work import Operation, UnitOfWork, created
from service.storage import audit_logs, users


def _post(work: UnitOfWork, event: AuditEvent, _target: int) -> Answer:
    account = users.find_account(work.tx, event.telegram_id) if event.telegram_id is not None else None
    audit_log_id = work.record(msgspec.structs.replace(event, user_id=account.user_id if account else None))
    row = audit_logs.find(work.tx, audit_log_id)
    assert row is not None  # written in this unit of work
    return created(row, f"/v1/audit-logs/{audit_log_id}")


POST = Operation("audit_event", AUDIT_LOG, _post)
"""Writes the row of an event. Never refused; a telegram_id that no user has is kept as text."""
