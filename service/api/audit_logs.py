"""The audit log, for ops with curl."""

from typing import Any

from litestar import Response, Router, get

from service.api.auth import needs
from service.api.params import (
    LIMIT_DEFAULT,
    ActionQuery,
    Cursor,
    IdPath,
    Limit,
    ResourceIdQuery,
    ResourceTypeQuery,
    Since,
    TelegramIdQuery,
    Threshold,
    Until,
    Window,
    before_id,
    instant,
    page,
)
from service.api.problems import invalid
from service.api.request import ApiRequest
from service.ledger.access import Scope
from service.ledger.audit_logs import AuditLog, AuditLogFilter, AuditLogPage, SuspiciousActivityList
from service.ledger.errors import AuditLogNotFound, ErrorCode
from service.ledger.fields import DURATION_PATTERN, REMEDIES
from service.ledger.timestamps import duration, stored
from service.storage import audit_logs, audit_prunes
from service.storage.sqlite import Connection

_SUSPICIOUS_MAX = 1000


@get("/", operation_id="listAuditLogs", summary="The audit log, newest first", opt=needs(Scope.AUDIT_READ))
async def list_audit_logs(
    request: ApiRequest,
    telegram_id: TelegramIdQuery = None,
    action: ActionQuery = None,
    resource_type: ResourceTypeQuery = None,
    resource_id: ResourceIdQuery = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
) -> Response[AuditLogPage]:
    """All conditions hold together."""
    wanted = AuditLogFilter(
        telegram_id=telegram_id,
        action=action,
        resource_type=resource_type,
        resource_id=int(resource_id) if resource_id else None,
        since=instant("query/since", since),
        until=instant("query/until", until),
    )
    found = await request.passbook.readers.read(
        audit_logs.list_newest, wanted, before_id=before_id(cursor), limit=limit + 1
    )
    return page(request, AuditLogPage, found, limit)


@get(
    "/suspicious",
    operation_id="listSuspiciousActivity",
    summary="Users with many refused attempts",
    opt=needs(Scope.AUDIT_READ),
)
async def list_suspicious(
    request: ApiRequest, window: Window = "PT1H", threshold: Threshold = 5
) -> SuspiciousActivityList:
    """Who had more than `threshold` refused attempts at one action within the last `window`."""
    passbook = request.passbook
    try:
        since = stored(passbook.clock() - duration(window))
    except (ValueError, OverflowError) as error:
        raise invalid("query/window", f"must be {REMEDIES[DURATION_PATTERN]}") from error
    return SuspiciousActivityList(
        items=await passbook.readers.read(
            audit_logs.list_suspicious, since=since, threshold=threshold, limit=_SUSPICIOUS_MAX
        )
    )


@get(
    "/{audit_log_id:str}",
    operation_id="getAuditLog",
    summary="A row of the audit log",
    opt=needs(Scope.AUDIT_READ, refusals=[ErrorCode.AUDIT_LOG_NOT_FOUND]),
)
async def get_audit_log(audit_log_id: IdPath, request: ApiRequest) -> AuditLog:
    """The row as it was written."""
    return await request.passbook.readers.read(_find, int(audit_log_id))


def _find(tx: Connection, audit_log_id: int) -> AuditLog:
    found = audit_logs.find(tx, audit_log_id)
    if found is not None:
        return found
    prune = audit_prunes.find_of_row(tx, audit_log_id)
    if prune is not None:
        raise AuditLogNotFound(
            f"Audit log row {audit_log_id} was archived and removed; it is in {prune.archive}. Its proof is still here."
        )
    raise AuditLogNotFound(f"There is no audit log row {audit_log_id}.")


ROUTER = Router("/v1/audit-logs", route_handlers=[list_audit_logs, list_suspicious, get_audit_log], tags=["audit-logs"])
BODIES: list[Any] = [AuditLog, AuditLogPage, SuspiciousActivityList]
