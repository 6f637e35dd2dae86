"""Single transactions of any type."""

from typing import Any

from litestar import Router, get

from service.api.auth import needs
from service.api.params import IdPath
from service.api.request import ApiRequest
from service.ledger.access import Scope
from service.ledger.errors import ErrorCode, TransactionNotFound
from service.ledger.transactions import Transaction
from service.storage import transactions


@get(
    "/{transaction_id:str}",
    operation_id="getTransaction",
    summary="A transaction",
    opt=needs(Scope.BALANCE_READ, refusals=[ErrorCode.TRANSACTION_NOT_FOUND]),
)
async def get_transaction(transaction_id: IdPath, request: ApiRequest) -> Transaction:
    """A deposit, a debit or an opening entry, with the balance before and after it."""
    found = await request.passbook.readers.read(transactions.find, int(transaction_id))
    if found is None:
        raise TransactionNotFound(f"There is no transaction {transaction_id}.")
    return found


ROUTER = Router("/v1/transactions", route_handlers=[get_transaction], tags=["transactions"])
BODIES: list[Any] = [Transaction]
