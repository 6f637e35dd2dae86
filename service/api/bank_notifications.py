"""Bank notifications: receive, list, get, match, dismiss, reopen."""

from typing import Annotated, Any

import msgspec
from litestar import Response, Router, get, post
from litestar.params import JSONBody, QueryParameter
from msgspec import UNSET

from service.api.auth import needs
from service.api.params import (
    LIMIT_DEFAULT,
    AmountQuery,
    IdempotencyKey,
    IdPath,
    Since,
    TelegramIdQuery,
    Until,
    Zone,
    before_id,
    instant,
    page_reached,
    period,
)
from service.api.problems import invalid
from service.api.request import ApiRequest, was_answered, write
from service.ledger.access import Scope
from service.ledger.bank_lines import CONTROL_PADDING, DERIVED, trimmed
from service.ledger.bank_messages import BankMessagePost, BankReport
from service.ledger.bank_notifications import (
    BankNotification,
    BankNotificationChanged,
    BankNotificationDismiss,
    BankNotificationFilter,
    BankNotificationMatch,
    BankNotificationPage,
    BankNotificationReopen,
    BankNotificationWritten,
)
from service.ledger.errors import BankNotificationNotFound, ErrorCode
from service.ledger.fields import BANK_NOTIFICATION_STATUS_PATTERN, QUEUE_CURSOR_PATTERN, SWITCH_PATTERN, given
from service.ledger.policy import Policy
from service.repository import bank_messages as messages_door
from service.repository import bank_notifications as door
from service.repository import bank_settling
from service.storage import bank_notification_lists, bank_notifications
from service.storage.sqlite import Connection

StatusQuery = Annotated[
    str | None, QueryParameter(pattern=BANK_NOTIFICATION_STATUS_PATTERN, description="Only those in this state.")
]
Open = Annotated[
    str | None,
    QueryParameter(
        name="open",
        pattern=SWITCH_PATTERN,
        description="true: only those that a person has to settle, the oldest first; false: only the others.",
    ),
]
QueueCursor = Annotated[
    str | None,
    QueryParameter(
        pattern=QUEUE_CURSOR_PATTERN,
        description="next_cursor of the page before, of the same open; none for the first.",
    ),
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
    summary="Bank notifications, newest first, or the queue of those that wait",
    opt=needs(Scope.DEPOSITS_CONFIRM),
)
async def list_notifications(
    request: ApiRequest,
    status: StatusQuery = None,
    is_open: Open = None,
    telegram_id: TelegramIdQuery = None,
    amount: AmountQuery = None,
    since: Since = None,
    until: Until = None,
    tz: Zone = "UTC",
    limit: Limit = LIMIT_DEFAULT,
    cursor: QueueCursor = None,
) -> Response[BankNotificationPage]:
    """All conditions hold together; each notification has the deposits that its money may be for.

    since and until are of occurred_at, or of created_at where the bot kept no time. telegram_id: those that are matched
    with a deposit of the user, and those that wait and could mean one that is pending or expired.

    With `open=true` the queue of what a person has to settle, in the order in which it came to Passbook, the oldest
    first. Its cursor goes on behind the last one: what comes meanwhile stands at the end, and what is settled is left
    out. A search that finds little in much may make a short page, and `next_cursor` says that there is more.
    """
    queue = is_open == "true"
    if cursor is not None and queue != cursor.startswith("o"):
        raise invalid("query/cursor", f"is of a list {'without' if queue else 'with'} open=true")
    since, until = period(tz, since, until)
    wanted = BankNotificationFilter(
        status=status,
        open=None if is_open is None else queue,
        telegram_id=telegram_id,
        amount=amount,
        since=since,
        until=until,
    )
    policy = request.passbook.policy
    found = await request.read(
        bank_notification_lists.find_page,
        wanted,
        window_s=policy.match_window_s,
        field_width=policy.bank_name_width,
        after=int(cursor.removeprefix("o")) if cursor and queue else 0 if queue else before_id(cursor),
        limit=limit,
    )
    next_cursor = f"{'o' if queue else ''}{found.reached}" if found.reached is not None else None
    return page_reached(request, BankNotificationPage, found.items, next_cursor, limit)


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
    summary="Say which deposit, or which user, the money is for",
    status_code=200,
    opt=needs(
        Scope.DEPOSITS_CONFIRM,
        refusals=[
            ErrorCode.BANK_NOTIFICATION_NOT_FOUND,
            ErrorCode.BANK_NOTIFICATION_MATCHED,
            ErrorCode.BANK_NOTIFICATION_CLOSED,
            ErrorCode.USER_NOT_FOUND,
            ErrorCode.DEPOSIT_NOT_FOUND,
            ErrorCode.DEPOSIT_OF_OTHER_USER,
            ErrorCode.DEPOSIT_MATCHED,
            ErrorCode.DEPOSIT_AMOUNT_DIFFERS,
            ErrorCode.DEPOSIT_EXPIRED,
            ErrorCode.DEPOSIT_NOT_PENDING,
            ErrorCode.BANK_AMOUNT_UNCREDITABLE,
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
    """Credits the deposit, or only links it when it was confirmed before; recorded as manual, with who did it.

    With telegram_id it makes the deposit itself, of what the bank received. No user is made: a mistyped id has none.
    """
    if data.deposit_id is UNSET and data.telegram_id is UNSET:
        raise invalid("#/deposit_id", "is needed, or telegram_id is")
    if data.deposit_id is not UNSET and data.telegram_id is not UNSET:
        raise invalid("#/telegram_id", "is one of two; leave deposit_id out, or this")
    if data.telegram_id is UNSET:
        if data.cancel_deposit_id is not UNSET:
            raise invalid("#/cancel_deposit_id", "goes with telegram_id alone")
        return await write(request, door.MATCH, data, idempotency_key, int(bank_notification_id))
    if data.late is not UNSET:
        raise invalid("#/late", "goes with deposit_id alone")
    return await write(request, bank_settling.CREDIT, data, idempotency_key, int(bank_notification_id))


@post(
    "/{bank_notification_id:str}/dismiss",
    operation_id="dismissBankNotification",
    summary="Say that the money is no top-up",
    status_code=200,
    opt=needs(
        Scope.DEPOSITS_CONFIRM,
        refusals=[
            ErrorCode.BANK_NOTIFICATION_NOT_FOUND,
            ErrorCode.BANK_NOTIFICATION_CLOSED,
            ErrorCode.BANK_NOTIFICATION_MATCHED,
        ],
    ),
)
async def dismiss(
    bank_notification_id: IdPath,
    data: JSONBody[BankNotificationDismiss],
    request: ApiRequest,
    idempotency_key: IdempotencyKey,
) -> Response[BankNotificationChanged]:
    """Closes a notification that is open: it confirms nothing, and nothing waits for it. `reopen` undoes it."""
    return await write(request, bank_settling.DISMISS, data, idempotency_key, int(bank_notification_id))


@post(
    "/{bank_notification_id:str}/reopen",
    operation_id="reopenBankNotification",
    summary="Undo a dismissal",
    status_code=200,
    opt=needs(
        Scope.DEPOSITS_CONFIRM,
        refusals=[
            ErrorCode.BANK_NOTIFICATION_NOT_FOUND,
            ErrorCode.BANK_NOTIFICATION_CLOSED,
            ErrorCode.BANK_NOTIFICATION_MATCHED,
            ErrorCode.BANK_NOTIFICATION_OPEN,
        ],
    ),
)
async def reopen(
    bank_notification_id: IdPath,
    data: JSONBody[BankNotificationReopen],
    request: ApiRequest,
    idempotency_key: IdempotencyKey,
) -> Response[BankNotificationChanged]:
    """Opens a notification that was dismissed, as it was before."""
    return await write(request, bank_settling.REOPEN, data, idempotency_key, int(bank_notification_id))


ROUTER = Router(
    "/v1/bank-notifications",
    route_handlers=[receive, list_notifications, get_notification, match, dismiss, reopen],
    tags=["bank"],
)
BODIES: list[Any] = [
    BankReport,
    BankNotificationMatch,
    BankNotificationDismiss,
    BankNotificationReopen,
    BankNotification,
    BankNotificationChanged,
    BankNotificationWritten,
    BankNotificationPage,
]
