"""Why a balance is what it is."""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from litestar import Response, Router, get

from service.api.auth import needs
from service.api.params import LIMIT_DEFAULT, At, ExplanationCursor, Limit, TelegramIdPath, link_to, moment
from service.api.request import ApiRequest
from service.ledger.access import Scope
from service.ledger.errors import ErrorCode, UserNotFound
from service.ledger.explanations import BalanceExplanation, Cause, Place, Summed, explain, place_of, whole_milliseconds
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

    For a user with very many transactions, the first answers may list none and say not_summed_yet: follow
    `next_cursor`.
    """
    key, now = request.passbook.cursor_key, request.passbook.clock()
    start: _Start = _Moment(moment("query/at", at)) if cursor is None else place_of(cursor, telegram_id, key)
    rows_left = _ROWS_MAX
    while True:
        rows_left -= _STEP_ROWS
        found = await request.read(_explain, telegram_id, start, now=now, limit=limit, key=key, goes_on=rows_left > 0)
        if not isinstance(found, _Start):
            break
        start = found
    if found is None:
        raise UserNotFound(f"There is no user {telegram_id}.")
    return Response(found, headers=link_to(request, found.next_cursor, limit, without="at"))


_STEP_ROWS = 8_000
"""The most rows that one read sums: it takes some hundredths of a second, then others have their turn."""
_ROWS_MAX = 200_000
"""The most rows that one request sums; then it answers how far it is."""


class _Moment(NamedTuple):
    """The moment that was asked for, None for now; its version is sought below `below`."""

    at: datetime | None
    below: int = 2**53


_Start = Place | _Moment


def _explain(
    tx: Connection, telegram_id: str, start: _Start, *, now: datetime, limit: int, key: bytes, goes_on: bool
) -> BalanceExplanation | _Start | None:
    """One step on the way, or the page at its end, or None without such a user.

    Where there is more to sum than one step does, it is where to go on; unless `goes_on` is false, then it is a page
    that says how far it came.
    """
    account = users.find_account(tx, telegram_id)
    if account is None:
        return None
    found = _first_place(tx, account, start, now) if isinstance(start, _Moment) else start
    if isinstance(found, _Moment):
        return found
    place = _summed_on(tx, account.user_id, found)
    if not place.is_summed and goes_on:
        return place
    version, history = place.version or 0, place.summed.history
    return explain(
        account,
        place,
        recorded=None if history.apart else _recorded(tx, account, version),
        latest_version=explanations.find_latest_version(tx, account.user_id),
        causes=_causes(tx, account.user_id, place, limit + 1) if place.is_summed else [],
        limit=limit,
        key=key,
    )


def _first_place(tx: Connection, account: Account, asked: _Moment, now: datetime) -> _Start:
    """The first page's: what is asked for, or, when that is nothing or still to come, the account as it stands."""
    if asked.at is None or asked.at >= now:
        return Place(at=whole_milliseconds(now), version=account.version)
    at = whole_milliseconds(asked.at)
    version, below = explanations.find_version_at(tx, account.user_id, stored(at), below=asked.below, limit=_STEP_ROWS)
    return Place(at=at, version=version) if below is None else _Moment(asked.at, below)


def _summed_on(tx: Connection, user_id: int, place: Place) -> Place:
    """`place` with some more of its causes summed; with all of them where they are few."""
    summed = place.summed
    if not summed.history_is_whole:
        part = explanations.sum_history(tx, user_id, until=place.history_until, after=summed.row, limit=_STEP_ROWS)
        if part is None:
            return msgspec.structs.replace(place, summed=Summed())
        summed = Summed(
            history=summed.history.plus(part.sums),
            row=part.row,
            history_end=part.end or summed.history_end,
            history_is_whole=part.row is None,
        )
    version = place.version or 0
    if summed.history_is_whole and summed.version < version:
        opening = summed.balance if summed.version else summed.history.total
        chain = explanations.sum_versions(
            tx, user_id, after=summed.version, version=version, opening=opening, limit=_STEP_ROWS
        )
        summed = msgspec.structs.replace(
            summed, chain=summed.chain.plus(chain.sums), version=chain.version, balance=chain.balance
        )
    return msgspec.structs.replace(place, summed=summed)


def _causes(tx: Connection, user_id: int, place: Place, limit: int) -> list[Cause]:
    causes = explanations.list_versions(tx, user_id, version_max=place.version_max, limit=limit)
    end = place.summed.history_end
    if end is not None and len(causes) < limit:
        rest, until = limit - len(causes), place.history_until
        causes += explanations.list_history(tx, user_id, end=end, until=until, before_id=place.before_id, limit=rest)
    return causes


def _recorded(tx: Connection, account: Account, version: int) -> int | None:
    if version == account.version:
        return account.balance
    return explanations.find_recorded_balance(tx, account.user_id, version)


ROUTER = Router("/v1/users", route_handlers=[explain_balance], tags=["users"])
BODIES: list[Any] = [BalanceExplanation]
