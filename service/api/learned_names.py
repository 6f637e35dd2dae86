"""Learned names: list, remove."""

from typing import Any

from litestar import Response, Router, delete, get

from service.api.auth import needs
from service.api.params import LIMIT_DEFAULT, Cursor, IdempotencyKey, IdPath, Limit, TelegramIdQuery, before_id, page
from service.api.request import ApiRequest, write
from service.ledger.access import Scope
from service.ledger.errors import ErrorCode
from service.ledger.learned_names import LearnedName, LearnedNameForget, LearnedNameForgotten, LearnedNamePage
from service.repository import learned_names as door
from service.storage import learned_names


@get(
    "/",
    operation_id="listLearnedNames",
    summary="Learned names, newest first",
    opt=needs(Scope.DEPOSITS_CONFIRM),
)
async def list_learned(
    request: ApiRequest, telegram_id: TelegramIdQuery = None, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
) -> Response[LearnedNamePage]:
    """The printed names that people taught with "remember", of all users or of one."""
    found = await request.read(
        learned_names.list_newest, telegram_id=telegram_id, before_id=before_id(cursor), limit=limit + 1
    )
    return page(request, LearnedNamePage, found, limit)


@delete(
    "/{learned_name_id:str}",
    operation_id="forgetLearnedName",
    summary="Take a learned name away",
    status_code=200,
    opt=needs(Scope.DEPOSITS_CONFIRM, refusals=[ErrorCode.LEARNED_NAME_NOT_FOUND]),
)
async def forget(
    learned_name_id: IdPath, request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[LearnedNameForgotten]:
    """It means the user no longer; what it confirmed stays."""
    return await write(request, door.FORGET, LearnedNameForget(), idempotency_key, int(learned_name_id))


ROUTER = Router("/v1/learned-names", route_handlers=[list_learned, forget], tags=["bank"])
BODIES: list[Any] = [LearnedName, LearnedNamePage, LearnedNameForgotten]
