"""The audit log, for ops with curl: pages, whole files, the next row as it comes, and events of callers."""

from typing import Any

from litestar import Response, Router, get, post
from litestar.params import JSONBody

from service.api import head
from service.api.audit_feed import PAGE_BUDGET_S
from service.api.auth import media_type, media_type_parameters, needs
from service.api.params import (
    LIMIT_DEFAULT,
    ActionQuery,
    ActorQuery,
    AuditCursor,
    ByteOrderMark,
    Follow,
    IdempotencyKey,
    IdPath,
    On,
    OptionalLimit,
    OrderQuery,
    OutcomeQuery,
    RequestIdQuery,
    ResourceIdQuery,
    ResourceTypeQuery,
    Since,
    TelegramIdQuery,
    Threshold,
    Until,
    Wait,
    Window,
    Zone,
    link_to,
)
from service.api.problems import EdgeError, Violation, invalid
from service.api.request import ApiRequest, was_answered, write
from service.ledger import audit_lines
from service.ledger.access import Scope
from service.ledger.audit_logs import (
    AuditLog,
    AuditLogFeed,
    AuditLogFilter,
    AuditLogPage,
    AuditLogPost,
    Invalid,
    Order,
    SuspiciousActivityList,
    check_is_callers,
    filter_asked_for,
    posted,
)
from service.ledger.errors import AuditLogNotFound, ErrorCode
from service.ledger.timestamps import duration, stored
from service.repository import audit_logs as door
from service.storage import audit_logs, audit_prunes, audit_search
from service.storage.sqlite import Connection

_JSON, _CSV, _NDJSON = "application/json", "text/csv", "application/x-ndjson"
_SUSPICIOUS_MAX = 1000


@get(
    "/",
    operation_id="listAuditLogs",
    summary="The audit log: pages, a whole file, or the next rows",
    opt=needs(
        Scope.AUDIT_READ,
        refusals=[ErrorCode.OVERLOADED, ErrorCode.AUDIT_ROWS_ARCHIVED],
        produces=(_JSON, _CSV, _NDJSON),
    ),
)
async def list_audit_logs(
    request: ApiRequest,
    telegram_id: TelegramIdQuery = None,
    action: ActionQuery = None,
    resource_type: ResourceTypeQuery = None,
    resource_id: ResourceIdQuery = None,
    actor: ActorQuery = None,
    request_id: RequestIdQuery = None,
    outcome: OutcomeQuery = None,
    since: Since = None,
    until: Until = None,
    on: On = None,
    tz: Zone = "UTC",
    order: OrderQuery = "newest",
    limit: OptionalLimit = None,
    cursor: AuditCursor = None,
    bom: ByteOrderMark = None,
    follow: Follow = None,
    wait: Wait = 25,
) -> Response[AuditLogPage | AuditLogFeed]:
    """All conditions hold together.

    As JSON a page; a search that finds little in much, or rows with large details, may make a short one, and
    `next_cursor` says that there is more. As `text/csv` or `application/x-ndjson` everything that matches, sent while
    it is read; one that is cut off lacks the end of its chunked body. With `bom=true`, or `Accept: text/csv; bom=true`,
    CSV begins with the byte-order mark by which Excel knows UTF-8.

    With `follow` the rows with a higher id, oldest first: at once when there are some, else as soon as one is
    committed, or none after `wait` seconds. `next_follow` is what to follow next. Where the next row was archived and
    removed the answer is 410, which names the archive and where to go on.
    """
    try:
        wanted = filter_asked_for(
            telegram_id=telegram_id,
            action=action,
            resource_type=resource_type,
            resource_id=resource_id,
            actor=actor,
            request_id=request_id,
            outcome=outcome,
            on=on,
            tz=tz,
            since=since,
            until=until,
        )
    except Invalid as error:
        raise invalid(f"query/{error.name}", error.message) from error
    if bom == "true" and (follow is not None or media_type(request.scope) != _CSV):
        raise invalid("query/bom", f"goes with Accept: {_CSV}")
    if follow is not None:
        return await _followed(request, wanted, after=int(follow), limit=limit or LIMIT_DEFAULT, wait_s=wait)
    after = _after(cursor, order)
    if media_type(request.scope) != _JSON:
        marked = bom == "true" or (bom is None and "bom=true" in media_type_parameters(request.scope))
        return await _exported(request, wanted, Order(order), after, limit, marked=marked)
    limit = limit or LIMIT_DEFAULT
    items, reached = await request.passbook.audit_feed.readers.read_for(
        request.auth.key_id,
        audit_search.find_page,
        wanted,
        order=Order(order),
        after=after,
        limit=limit,
        budget_s=PAGE_BUDGET_S,
    )
    next_cursor = f"{order[0]}{reached}" if reached is not None else None
    headers = {**link_to(request, next_cursor, limit), **_VARY}
    return Response(AuditLogPage(items=items, next_cursor=next_cursor), headers=headers)


_VARY = {"Vary": "Accept"}


def _after(cursor: str | None, order: str) -> int | None:
    if cursor is None:
        return None
    if cursor[0] != order[0]:
        raise invalid("query/cursor", f"is of a list in another order than {order}; begin anew without it")
    return int(cursor[1:])


async def _followed(
    request: ApiRequest, wanted: AuditLogFilter, *, after: int, limit: int, wait_s: float
) -> Response[Any]:
    given = request.query_params.dict()
    for name in ("cursor", "order"):
        if name in given:
            raise invalid(f"query/{name}", "goes with pages; follow has an order of its own")
    if media_type(request.scope) != _JSON:
        violation = Violation("header/Accept", f"must admit {_JSON}")
        raise EdgeError(ErrorCode.NOT_ACCEPTABLE, f"With follow this path answers {_JSON}.", errors=[violation])
    if head.is_asked(request.scope):
        return head.HeadersOnly(media_type=_JSON, headers=_VARY)
    found = await request.passbook.audit_feed.follow(
        wanted, after=after, limit=limit, wait_s=wait_s, receive=request.receive, who=request.auth.key_id
    )
    if found is None:
        raise invalid("query/follow", "is beyond the newest row; give the next_follow of an answer, or 0")
    return Response(AuditLogFeed(items=found[0], next_follow=found[1]), headers=_VARY)


async def _exported(
    request: ApiRequest, wanted: AuditLogFilter, order: Order, after: int | None, limit: int | None, *, marked: bool
) -> Response[Any]:
    kind = media_type(request.scope)
    moment = request.passbook.clock().strftime("%Y%m%dT%H%M%SZ")
    name = f"audit-logs-{moment}.{'csv' if kind == _CSV else 'ndjson'}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', **_VARY}
    if head.is_asked(request.scope):
        return head.HeadersOnly(media_type=kind, headers=headers)
    return await request.passbook.audit_feed.export(
        wanted,
        order=order,
        after=after,
        limit=limit,
        who=request.auth.key_id,
        encode=audit_lines.csv_lines if kind == _CSV else audit_lines.ndjson,
        header=(audit_lines.CSV_HEADER_BOM if marked else audit_lines.CSV_HEADER) if kind == _CSV else b"",
        media_type=kind,
        headers=headers,
    )


@post(
    "/",
    operation_id="postAuditLog",
    summary="Put an event on record",
    opt=needs(Scope.AUDIT_WRITE),
)
async def post_audit_log(
    data: JSONBody[AuditLogPost], request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[AuditLog]:
    """What the bot or a service did or met, beside the rows of the ledger, whose names it may not take."""
    try:
        event = posted(data)
    except Invalid as error:
        raise invalid(f"#/{error.name}", error.message) from error
    try:
        check_is_callers(data)
    except Invalid as error:
        if not was_answered(request, idempotency_key):
            raise invalid(f"#/{error.name}", error.message) from error
    return await write(request, door.POST, event, idempotency_key)


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
    since = stored(passbook.clock() - duration(window))
    return SuspiciousActivityList(
        items=await passbook.audit_feed.readers.read_for(
            request.auth.key_id, audit_logs.list_suspicious, since=since, threshold=threshold, limit=_SUSPICIOUS_MAX
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
    return await request.read(_find, int(audit_log_id))


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


ROUTER = Router(
    "/v1/audit-logs",
    route_handlers=[list_audit_logs, post_audit_log, list_suspicious, get_audit_log],
    tags=["audit-logs"],
)
BODIES: list[Any] = [AuditLog, AuditLogPage, AuditLogFeed, AuditLogPost, SuspiciousActivityList]
