"""Single transactions of any type, and their reversal."""

from typing import Any

from litestar import Response, Router, get, post
from litestar.params import JSONBody

from service.api.auth import needs
from service.api.params import IdempotencyKey, IdPath
from service.api.request import ApiRequest, write
from service.ledger.access import Scope
from service.ledger.errors import ErrorCode, TransactionNotFound
from service.ledger.transactions import ReversalWritten, Transaction, TransactionReverse
from service.repository import transactions as door
from service.storage import transactions


@get(
    "/{transaction_id:str}",
    operation_id="getTransaction",
    summary="A transaction",
    opt=needs(Scope.BALANCE_READ, refusals=[ErrorCode.TRANSACTION_NOT_FOUND]),
)
async def get_transaction(transaction_id: IdPath, request: ApiRequest) -> Transaction:
    """A deposit, a debit or an opening entry, with the balance before and after it."""
    found = transactions.find(request.passbook.lookups, int(transaction_id))
    if found is None:
        raise TransactionNotFound(f"There is no transaction {transaction_id}.")
    return found


@post(
    "/{transaction_id:str}/reverse",
    operation_id="reverseTransaction",
    summary="Take a transaction back",
    opt=needs(
        Scope.TRANSACTIONS_REVERSE,
        refusals=[
            ErrorCode.TRANSACTION_NOT_FOUND,
            ErrorCode.TRANSACTION_REVERSED,
            ErrorCode.TRANSACTION_NOT_CONFIRMED,
            ErrorCode.PAYMENT_HELD,
            ErrorCode.PAYMENT_REGISTERED,
            ErrorCode.REFUND_FINAL,
            ErrorCode.BALANCE_LIMIT_EXCEEDED,
            ErrorCode.INSUFFICIENT_FUNDS,
        ],
    ),
)
async def reverse(
    transaction_id: IdPath, data: JSONBody[TransactionReverse], request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[ReversalWritten]:
    """Moves the whole amount the other way as a transaction of its own; both name each other. Once.

    The payment of a held domain name is not reversed: release the purchase. The payment of a registered name is
    reversed with "goodwill": true. The name stays registered, and its purchase says `payment_reversed`.
    """
    return await write(request, door.REVERSE, data, idempotency_key, int(transaction_id))


ROUTER = Router("/v1/transactions", route_handlers=[get_transaction, reverse], tags=["transactions"])
BODIES: list[Any] = [Transaction, TransactionReverse, ReversalWritten]
