"""The audit log, written from outside: what the bot or a service wants on record."""

import msgspec

from service.ledger.audit_logs import AUDIT_LOG, AuditEvent
from service.ledger.idempotency import Answer
from service.repository.unit_of_work import Operation, UnitOfWork, created


def _post(work: UnitOfWork, event: AuditEvent, _target: int) -> Answer:
    account = work.session.account(event.telegram_id) if event.telegram_id is not None else None
    audit_log_id = work.record(msgspec.structs.replace(event, user_id=account.user_id if account else None))
    return created(work.session.last_recorded(), f"/v1/audit-logs/{audit_log_id}")


POST = Operation("audit_event", AUDIT_LOG, _post)
"""Writes the row of an event. Never refused; a telegram_id that no user has is kept as text."""
