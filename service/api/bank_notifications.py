"""Bank notifications: receive, list, get, match."""

from typing import Annotated, Any

import msgspec
from litestar import Response, Router, get, post
from litestar.params import JSONBody, QueryParameter

from service.api.auth import needs
from service.api.params import LIMIT_DEFAULT, Cursor, IdempotencyKey, IdPath, before_id, instant, page
from service.api.problems import invalid
from service.api.request import ApiRequest, was_answered, write
from service.ledger.access import Scope
from service.ledger.bank_lines import CONTROL_PADDING, DERIVED, trimmed
from service.ledger.bank_messages import BankMessagePost, BankReport
from service.ledger.bank_notifications import (
    BankNotification,
    BankNotificationMatch,
    BankNotificationPage,
    BankNotificationWritten,
)
from service.ledger.errors import BankNotificationNotFound, ErrorCode
from service.ledger.fields import BANK_NOTIFICATION_STATUS_PATTERN, given
from service.ledger.policy import Policy
from service.repository import bank_messages as messages_door
from service.repository import bank_notifications as door
from service.storage import bank_notifications
from service.storage.sqlite import Connection

StatusQuery = Annotated[
    str | None, QueryParameter(pattern=BANK_NOTIFICATION_STATUS_PATTERN, description="Only those in this state.")
]

Limit = Annotated[int, QueryParameter(ge=1, le=100, description="The most items on a page; each has its candidates.")]


@post(
    "/",
    operation_id="postBankNotification",
    summary="Say what the bank received",
    opt=needs(Scope.BANK_NOTIFY, refusals=[ErrorCode.BANK_TRANSACTION_REUSED, ErrorCode.OCCURRED_AHEAD]),
)
async def receive(
    data: JSONBody[BankReport], request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[BankNotificationWritten]:
    """Confirms the pending deposit of this name and amount where no other user could be meant; else it waits.

    A name that fills the bank's field may have been cut: it confirms the one deposit whose name begins with it.

    201 for a new line, 200 with `repeat` for one that is on record: it credits once, whatever the Idempotency-Key.

    A raw_message alone is read. A deposit in it is a line as above. Anything else is kept as a bank message, 202:
    what nobody could read, money that went, and a cancellation, which takes back the line that it means.
    """
    told = data.told()
    own = given(told.bank_transaction_id)
    if own is not None and own.startswith(DERIVED) and not was_answered(request, idempotency_key):
        raise invalid("#/bank_transaction_id", f"must not begin with {DERIVED} leave it out, and it is derived")
    if isinstance(told, BankMessagePost):
        return await write(request, messages_door.RECEIVE, told, idempotency_key)
    instant("#/occurred_at", told.occurred_at)
    name = given(told.depositor_name)
    if name is not None and CONTROL_PADDING.intersection(name):
        told = msgspec.structs.replace(told, depositor_name=trimmed(name))
    return await write(request, door.RECEIVE, told, idempotency_key)


@get(
    "/",
    operation_id="listBankNotifications",
    summary="Bank notifications, newest first",
    opt=needs(Scope.DEPOSITS_CONFIRM),
)
async def list_notifications(
    request: ApiRequest, status: StatusQuery = None, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
) -> Response[BankNotificationPage]:
    """All of them, or those in one state, each with the deposits that its money may be for."""
    found = await request.read(
        bank_notifications.list_newest,
        status=status,
        window_s=request.passbook.policy.match_window_s,
        field_width=request.passbook.policy.bank_name_width,
        before_id=before_id(cursor),
        limit=limit + 1,
    )
    return page(request, BankNotificationPage, found, limit)


@get(
    "/{bank_notification_id:str}",
    operation_id="getBankNotification",
    summary="A bank notification",
    opt=needs(Scope.DEPOSITS_CONFIRM, refusals=[ErrorCode.BANK_NOTIFICATION_NOT_FOUND]),
)
async def get_notification(bank_notification_id: IdPath, request: ApiRequest) -> BankNotification:
    """The notification as it stands, with the deposits that its money may be for."""
    found = await request.read(_found, int(bank_notification_id), request.passbook.policy)
    if found is None:
        raise BankNotificationNotFound(f"There is no bank notification {bank_notification_id}.")
    return found


def _found(tx: Connection, notification_id: int, policy: Policy) -> BankNotification | None:
    found = bank_notifications.find(tx, notification_id)
    if found is None:
        return None
    return bank_notifications.with_candidates(
        tx, found, window_s=policy.match_window_s, field_width=policy.bank_name_width
    )


@post(
    "/{bank_notification_id:str}/match",
    operation_id="matchBankNotification",
    summary="Say which deposit the money is for",
    status_code=200,
    opt=needs(
        Scope.DEPOSITS_CONFIRM,
        refusals=[
            ErrorCode.BANK_NOTIFICATION_NOT_FOUND,
            ErrorCode.BANK_NOTIFICATION_MATCHED,
            ErrorCode.BANK_NOTIFICATION_CLOSED,
            ErrorCode.DEPOSIT_NOT_FOUND,
            ErrorCode.DEPOSIT_MATCHED,
            ErrorCode.DEPOSIT_AMOUNT_DIFFERS,
            ErrorCode.DEPOSIT_EXPIRED,
            ErrorCode.DEPOSIT_NOT_PENDING,
            ErrorCode.BALANCE_LIMIT_EXCEEDED,
        ],
    ),
)
async def match(
    bank_notification_id: IdPath,
    data: JSONBody[BankNotificationMatch],
    request: ApiRequest,
    idempotency_key: IdempotencyKey,
) -> Response[BankNotificationWritten]:
    """Credits the deposit, or only links it when it was confirmed before; recorded as manual, with who did it."""
    return await write(request, door.MATCH, data, idempotency_key, int(bank_notification_id))


ROUTER = Router(
    "/v1/bank-notifications", route_handlers=[receive, list_notifications, get_notification, match], tags=["bank"]
)
BODIES: list[Any] = [
    BankReport,
    BankNotificationMatch,
    BankNotification,
    BankNotificationWritten,
    BankNotificationPage,
]
