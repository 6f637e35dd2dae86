"""Deposits: announce, list, get, confirm, cancel."""

from typing import Annotated, Any

from litestar import Response, Router, get, post
from litestar.params import JSONBody, QueryParameter

from service.api.auth import needs
from service.api.new_users import check_none_is_padded
from service.api.params import (
    LIMIT_DEFAULT,
    AmountQuery,
    Cursor,
    IdempotencyKey,
    IdPath,
    Limit,
    Since,
    TelegramIdQuery,
    Until,
    Zone,
    before_id,
    page_reached,
    period,
)
from service.api.request import ApiRequest, write
from service.ledger.access import Scope
from service.ledger.deposits import (
    Deposit,
    DepositAnnounce,
    DepositAnnounced,
    DepositCancel,
    DepositConfirm,
    DepositFilter,
    DepositPage,
    DepositWritten,
    as_it_stands,
)
from service.ledger.errors import DepositNotFound, ErrorCode
from service.ledger.fields import DEPOSIT_STATUS_PATTERN
from service.ledger.policy import Policy
from service.repository import deposits as door
from service.storage import deposits, lists, reviews
from service.storage.sqlite import Connection

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
    amount: AmountQuery = None,
    since: Since = None,
    until: Until = None,
    tz: Zone = "UTC",
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
) -> Response[DepositPage]:
    """All conditions hold together; since and until are of created_at.

    A search that finds little in much may make a short page, and `next_cursor` says that there is more.
    """
    since, until = period(tz, since, until)
    wanted = DepositFilter(status=status, telegram_id=telegram_id, amount=amount, since=since, until=until)
    found = await request.read(_listed, wanted, request.passbook.policy, before_id=before_id(cursor), limit=limit)
    next_cursor = str(found.reached) if found.reached is not None else None
    return page_reached(request, DepositPage, found.items, next_cursor, limit)


def _listed(
    tx: Connection, wanted: DepositFilter, policy: Policy, *, before_id: int, limit: int
) -> lists.Page[Deposit]:
    found = deposits.list_newest(tx, wanted, before_id=before_id, limit=limit)
    return lists.Page(_as_they_stand(tx, found.items, policy), found.reached)


def _as_they_stand(tx: Connection, found: list[Deposit], policy: Policy) -> list[Deposit]:
    in_review = reviews.in_review(tx, found, window_s=policy.match_window_s)
    return [as_it_stands(one, expiry_s=policy.deposit_expiry_s, in_review=one.id in in_review) for one in found]


@get(
    "/{deposit_id:str}",
    operation_id="getDeposit",
    summary="A deposit",
    opt=needs(Scope.BALANCE_READ, refusals=[ErrorCode.DEPOSIT_NOT_FOUND]),
)
async def get_deposit(deposit_id: IdPath, request: ApiRequest) -> Deposit:
    """The deposit as it stands."""
    tx = request.passbook.lookups
    found = deposits.find(tx, int(deposit_id))
    if found is None:
        raise DepositNotFound(f"There is no deposit {deposit_id}.")
    return _as_they_stand(tx, [found], request.passbook.policy)[0]


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
