"""Balance changes by services."""

from typing import Any

from litestar import Response, Router, post
from litestar.params import JSONBody

from service.api.auth import needs
from service.api.new_users import check_none_is_padded
from service.api.params import IdempotencyKey
from service.api.problems import invalid
from service.api.request import ApiRequest, write
from service.ledger.access import Scope
from service.ledger.balance_changes import BalanceChangesPost, BalanceChangesWritten, first_zero
from service.ledger.errors import ErrorCode
from service.repository import balance_changes as door

_BODY_BYTES_MAX = 4 * 1024 * 1024
"""Above a thousand changes with the longest texts, every character of them escaped."""


@post(
    "/",
    operation_id="postBalanceChanges",
    summary="Post up to 1,000 signed changes",
    status_code=200,
    request_max_body_size=_BODY_BYTES_MAX,
    opt=needs(
        Scope.BALANCE_CHANGE,
        refusals=[
            ErrorCode.REFERENCE_USED,
            ErrorCode.USER_NOT_FOUND,
            ErrorCode.BALANCE_LIMIT_EXCEEDED,
            ErrorCode.INSUFFICIENT_FUNDS,
        ],
    ),
)
async def post_changes(
    data: JSONBody[BalanceChangesPost], request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[BalanceChangesWritten]:
    """All or none; with "atomic": false each by itself, with a result for each, in order."""
    zero = first_zero(data.changes)
    if zero is not None:
        raise invalid(f"#/changes/{zero}/amount", "must not be 0")
    named = ((f"#/changes/{place}/telegram_id", change.telegram_id) for place, change in enumerate(data.changes))
    check_none_is_padded(request, idempotency_key, named)
    return await write(request, door.POST, data, idempotency_key)


ROUTER = Router("/v1/balance-changes", route_handlers=[post_changes], tags=["debits"])
BODIES: list[Any] = [BalanceChangesPost, BalanceChangesWritten]
