"""Why a balance is what it is."""

from datetime import datetime
from typing import Any

from litestar import Response, Router, get

from service.api.auth import needs
from service.api.params import LIMIT_DEFAULT, At, ExplanationCursor, Limit, TelegramIdPath, link_to, moment
from service.api.request import ApiRequest
from service.ledger.access import Scope
from service.ledger.errors import ErrorCode, UserNotFound
from service.ledger.explanations import BalanceExplanation, Place, explain, place_of, whole_milliseconds
from service.ledger.timestamps import stored
from service.ledger.users import Account
from service.storage import explanations, users
from service.storage.sqlite import Connection


@get(
    "/{telegram_id:str}/balance/explain",
    operation_id="explainBalance",
    summary="Why a balance is what it is, or was",
    opt=needs(Scope.BALANCE_READ, refusals=[ErrorCode.USER_NOT_FOUND]),
)
async def explain_balance(
    telegram_id: TelegramIdPath,
    request: ApiRequest,
    at: At = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: ExplanationCursor = None,
) -> Response[BalanceExplanation]:
    """The balance at a moment and every transaction that made it, newest first: what moved, who moved it, the bank's
    line and the row of the audit log. The sums are over all pages; these explain one moment, whatever is written since.
    """
    start = place_of(cursor) if cursor is not None else moment("query/at", at)
    passbook = request.passbook
    found = await passbook.readers.read(_explain, telegram_id, start, now=passbook.clock(), limit=limit)
    if found is None:
        raise UserNotFound(f"There is no user {telegram_id}.")
    return Response(found, headers=link_to(request, found.next_cursor, limit, without="at"))


def _explain(
    tx: Connection, telegram_id: str, start: Place | datetime | None, *, now: datetime, limit: int
) -> BalanceExplanation | None:
    account = users.find_account(tx, telegram_id)
    if account is None:
        return None
    place = start if isinstance(start, Place) else _first_place(tx, account, start, now)
    user_id, until = account.user_id, place.history_until
    history = explanations.sum_history(tx, user_id, until=until)
    causes = explanations.list_versions(tx, user_id, version_max=place.version_max, limit=limit + 1)
    if history.count and len(causes) <= limit:
        rest = limit + 1 - len(causes)
        causes += explanations.list_history(tx, user_id, until=until, before_id=place.before_id, limit=rest)
    version = place.version or 0
    return explain(
        account,
        place,
        history=history,
        chain=explanations.sum_versions(tx, user_id, version=version, opening=history.total),
        recorded=None if history.apart else _recorded(tx, account, version),
        latest_version=explanations.find_latest_version(tx, user_id),
        causes=causes,
        limit=limit,
    )


def _first_place(tx: Connection, account: Account, at: datetime | None, now: datetime) -> Place:
    """The first page's: what is asked for, or, when that is nothing or still to come, the account as it stands."""
    if at is None or at >= now:
        return Place(at=whole_milliseconds(now), version=account.version)
    at = whole_milliseconds(at)
    return Place(at=at, version=explanations.find_version_at(tx, account.user_id, stored(at)))


def _recorded(tx: Connection, account: Account, version: int) -> int | None:
    if version == account.version:
        return account.balance
    return explanations.find_recorded_balance(tx, account.user_id, version)


ROUTER = Router("/v1/users", route_handlers=[explain_balance], tags=["users"])
BODIES: list[Any] = [BalanceExplanation]
