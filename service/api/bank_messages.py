"""Messages of banks that are no deposit: list, get, settle. They come in by POST /v1/bank-notifications."""

from typing import Annotated, Any

from litestar import Response, Router, get, post
from litestar.params import JSONBody, QueryParameter

from service.api.auth import needs
from service.api.params import LIMIT_DEFAULT, Cursor, IdempotencyKey, IdPath, Limit, before_id, page
from service.api.request import ApiRequest, write
from service.ledger.access import Scope
from service.ledger.bank_messages import BankMessage, BankMessagePage, BankMessageSettle, BankMessageWritten
from service.ledger.errors import BankMessageNotFound, ErrorCode
from service.ledger.fields import BANK_MESSAGE_STATUS_PATTERN
from service.repository import bank_messages as door
from service.storage import bank_messages

StatusQuery = Annotated[
    str | None, QueryParameter(pattern=BANK_MESSAGE_STATUS_PATTERN, description="Only those in this state.")
]


@get(
    "/",
    operation_id="listBankMessages",
    summary="Messages of banks that are no deposit, newest first",
    opt=needs(Scope.DEPOSITS_CONFIRM),
)
async def list_messages(
    request: ApiRequest, status: StatusQuery = None, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
) -> Response[BankMessagePage]:
    """All of them, or those in one state: a person has to look at `unreadable` and at `waiting`."""
    found = await request.read(bank_messages.list_newest, status=status, before_id=before_id(cursor), limit=limit + 1)
    return page(request, BankMessagePage, found, limit)


@get(
    "/{bank_message_id:str}",
    operation_id="getBankMessage",
    summary="A message of a bank",
    opt=needs(Scope.DEPOSITS_CONFIRM, refusals=[ErrorCode.BANK_MESSAGE_NOT_FOUND]),
)
async def get_message(bank_message_id: IdPath, request: ApiRequest) -> BankMessage:
    """The message as it came, what was read of it, and what a person has to do."""
    found = await request.read(bank_messages.find, int(bank_message_id))
    if found is None:
        raise BankMessageNotFound(f"There is no bank message {bank_message_id}.")
    return found


@post(
    "/{bank_message_id:str}/settle",
    operation_id="settleBankMessage",
    summary="Say what a message was",
    status_code=200,
    opt=needs(
        Scope.DEPOSITS_CONFIRM,
        refusals=[
            ErrorCode.BANK_MESSAGE_NOT_FOUND,
            ErrorCode.BANK_MESSAGE_SETTLED,
            ErrorCode.BANK_NOTIFICATION_NOT_FOUND,
            ErrorCode.BANK_MESSAGE_UNFIT,
        ],
    ),
)
async def settle(
    bank_message_id: IdPath, data: JSONBody[BankMessageSettle], request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[BankMessageWritten]:
    """Of one that waits for a person; it moves no money. The notification that a cancellation names is cancelled."""
    return await write(request, door.SETTLE, data, idempotency_key, int(bank_message_id))


ROUTER = Router("/v1/bank-messages", route_handlers=[list_messages, get_message, settle], tags=["bank"])
BODIES: list[Any] = [BankMessage, BankMessageSettle, BankMessageWritten, BankMessagePage]
