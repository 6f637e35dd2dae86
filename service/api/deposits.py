"""Deposits: announce, list, get, confirm, cancel."""

from typing import Annotated, Any

from litestar import Response, Router, get, post
from litestar.params import JSONBody, QueryParameter

from service.api.auth import needs
from service.api.new_users import check_none_is_padded
from service.api.params import LIMIT_DEFAULT, Cursor, IdempotencyKey, IdPath, Limit, TelegramIdQuery, before_id, page
from service.api.request import ApiRequest, write
from service.ledger.access import Scope
from service.ledger.deposits import (
    Deposit,
    DepositAnnounce,
    DepositAnnounced,
    DepositCancel,
    DepositConfirm,
    DepositPage,
    DepositWritten,
)
from service.ledger.errors import DepositNotFound, ErrorCode
from service.ledger.fields import DEPOSIT_STATUS_PATTERN
from service.repository import deposits as door
from service.storage import deposits

StatusQuery = Annotated[
    str | None, QueryParameter(pattern=DEPOSIT_STATUS_PATTERN, description="Only deposits in this state.")
]


@post(
    "/",
    operation_id="announceDeposit",
    summary="Announce a bank transfer",
    opt=needs(Scope.DEPOSITS_ANNOUNCE),
)
async def announce(
    data: JSONBody[DepositAnnounce], request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[DepositAnnounced]:
    """Puts a deposit on record: pending, or confirmed when the bank's notification came first.

    The user is made on first use. `collision` warns of a name and amount that another deposit has as well.
    """
    check_none_is_padded(request, idempotency_key, [("#/telegram_id", data.telegram_id)])
    return await write(request, door.ANNOUNCE, data, idempotency_key)


@get("/", operation_id="listDeposits", summary="Deposits, newest first", opt=needs(Scope.BALANCE_READ))
async def list_deposits(
    request: ApiRequest,
    status: StatusQuery = None,
    telegram_id: TelegramIdQuery = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
) -> Response[DepositPage]:
    """All deposits, or those in one state, or of one user."""
    found = await request.read(
        deposits.list_newest, status=status, telegram_id=telegram_id, before_id=before_id(cursor), limit=limit + 1
    )
    return page(request, DepositPage, found, limit)


@get(
    "/{deposit_id:str}",
    operation_id="getDeposit",
    summary="A deposit",
    opt=needs(Scope.BALANCE_READ, refusals=[ErrorCode.DEPOSIT_NOT_FOUND]),
)
async def get_deposit(deposit_id: IdPath, request: ApiRequest) -> Deposit:
    """The deposit as it stands."""
    found = deposits.find(request.passbook.lookups, int(deposit_id))
    if found is None:
        raise DepositNotFound(f"There is no deposit {deposit_id}.")
    return found


@post(
    "/{deposit_id:str}/confirm",
    operation_id="confirmDeposit",
    summary="Confirm that the money is there",
    status_code=200,
    opt=needs(
        Scope.DEPOSITS_CONFIRM,
        refusals=[
            ErrorCode.DEPOSIT_NOT_FOUND,
            ErrorCode.DEPOSIT_EXPIRED,
            ErrorCode.DEPOSIT_NOT_PENDING,
            ErrorCode.BALANCE_LIMIT_EXCEEDED,
        ],
    ),
)
async def confirm(
    deposit_id: IdPath, data: JSONBody[DepositConfirm], request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[DepositWritten]:
    """Credits the user. An expired deposit is confirmed only with "late": true."""
    return await write(request, door.CONFIRM, data, idempotency_key, int(deposit_id))


@post(
    "/{deposit_id:str}/cancel",
    operation_id="cancelDeposit",
    summary="Cancel a pending deposit",
    status_code=200,
    opt=needs(Scope.DEPOSITS_ANNOUNCE, refusals=[ErrorCode.DEPOSIT_NOT_FOUND, ErrorCode.DEPOSIT_NOT_PENDING]),
)
async def cancel(
    deposit_id: IdPath, data: JSONBody[DepositCancel], request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[DepositWritten]:
    """Closes the deposit without money."""
    return await write(request, door.CANCEL, data, idempotency_key, int(deposit_id))


ROUTER = Router(
    "/v1/deposits", route_handlers=[announce, list_deposits, get_deposit, confirm, cancel], tags=["deposits"]
)
BODIES: list[Any] = [
    DepositAnnounce,
    DepositConfirm,
    DepositCancel,
    Deposit,
    DepositAnnounced,
    DepositWritten,
    DepositPage,
]
