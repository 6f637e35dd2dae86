"""Debits."""

from typing import Any

from litestar import Response, Router, post
from litestar.params import JSONBody

from service.api.auth import needs
from service.api.params import IdempotencyKey
from service.api.request import ApiRequest, write
from service.ledger.access import Scope
from service.ledger.debits import DebitPost, DebitWritten
from service.ledger.errors import ErrorCode
from service.repository import debits as door


@post(
    "/",
    operation_id="postDebit",
    summary="Take money from a balance",
    opt=needs(Scope.BALANCE_CHANGE, refusals=[ErrorCode.USER_NOT_FOUND, ErrorCode.INSUFFICIENT_FUNDS]),
)
async def post_debit(
    data: JSONBody[DebitPost], request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[DebitWritten]:
    """Takes the whole amount at once, or nothing. A refused attempt is audited and stays refused under its key."""
    return await write(request, door.POST, data, idempotency_key)


ROUTER = Router("/v1/debits", route_handlers=[post_debit], tags=["debits"])
BODIES: list[Any] = [DebitPost, DebitWritten]
