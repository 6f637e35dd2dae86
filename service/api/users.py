"""Users, their balance and their passbook."""

from typing import Any

from litestar import Response, Router, get, post
from litestar.params import JSONBody

from service.api.auth import needs
from service.api.new_users import check_none_is_padded
from service.api.params import LIMIT_DEFAULT, Cursor, IdempotencyKey, Limit, TelegramIdPath, before_id, page
from service.api.request import ApiRequest, write
from service.ledger.access import Scope
from service.ledger.errors import ErrorCode, UserNotFound
from service.ledger.transactions import Transaction, TransactionPage
from service.ledger.users import Balance, User, UserCreate, UserWritten
from service.repository import users as door
from service.storage import transactions, users
from service.storage.sqlite import Connection

_READ = needs(Scope.BALANCE_READ, refusals=[ErrorCode.USER_NOT_FOUND])


def _not_found(telegram_id: str) -> UserNotFound:
    return UserNotFound(f"There is no user {telegram_id}.")


@post("/", operation_id="createUser", summary="Make a user, or get the one that is there", opt=needs(Scope.USERS_WRITE))
async def create(
    data: JSONBody[UserCreate], request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[UserWritten]:
    """201 for a new user, 200 for one that was there. A user name that differs is taken over and audited."""
    check_none_is_padded(request, idempotency_key, [("#/telegram_id", data.telegram_id)])
    return await write(request, door.CREATE, data, idempotency_key)


@get("/{telegram_id:str}", operation_id="getUser", summary="A user", opt=_READ)
async def get_user(telegram_id: TelegramIdPath, request: ApiRequest) -> User:
    """The user on record."""
    found = users.find(request.passbook.lookups, telegram_id)
    if found is None:
        raise _not_found(telegram_id)
    return found


@get("/{telegram_id:str}/balance", operation_id="getBalance", summary="잔액: a user's balance", opt=_READ)
async def get_balance(telegram_id: TelegramIdPath, request: ApiRequest) -> Balance:
    """The balance in won as of the last commit."""
    found = users.find_balance(request.passbook.lookups, telegram_id)
    if found is None:
        raise _not_found(telegram_id)
    return found


@get(
    "/{telegram_id:str}/transactions",
    operation_id="listUserTransactions",
    summary="통장: a user's transactions, newest first",
    opt=_READ,
)
async def list_transactions(
    telegram_id: TelegramIdPath, request: ApiRequest, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
) -> Response[TransactionPage]:
    """Everything that moved or may move the balance, with the balance before and after."""
    found = await request.read(_transactions_of, telegram_id, before_id(cursor), limit + 1)
    if found is None:
        raise _not_found(telegram_id)
    return page(request, TransactionPage, found, limit)


def _transactions_of(tx: Connection, telegram_id: str, before: int, limit: int) -> list[Transaction] | None:
    account = users.find_account(tx, telegram_id)
    return transactions.list_of_user(tx, account.user_id, before_id=before, limit=limit) if account else None


ROUTER = Router("/v1/users", route_handlers=[create, get_user, get_balance, list_transactions], tags=["users"])
BODIES: list[Any] = [UserCreate, UserWritten, User, Balance, TransactionPage]
