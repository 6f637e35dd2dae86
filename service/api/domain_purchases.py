"""Domain purchases: make, list, get, complete, release."""

from typing import Any

from litestar import Response, Router, get, post
from litestar.params import JSONBody

from service.api.auth import needs
from service.api.params import LIMIT_DEFAULT, Cursor, IdempotencyKey, IdPath, Limit, TelegramIdQuery, before_id, page
from service.api.problems import invalid
from service.api.request import ApiRequest, was_answered, write
from service.ledger.access import Scope
from service.ledger.domain_purchases import (
    DomainPurchase,
    DomainPurchaseComplete,
    DomainPurchaseMake,
    DomainPurchasePage,
    DomainPurchaseRelease,
    DomainPurchaseWritten,
    as_it_stands,
    check_is_registrable,
    parse_name,
)
from service.ledger.errors import DomainPurchaseNotFound, ErrorCode
from service.repository import domain_purchases as door
from service.storage import domain_purchases

_HELD = [ErrorCode.DOMAIN_PURCHASE_NOT_FOUND, ErrorCode.DOMAIN_PURCHASE_NOT_PENDING]


@post(
    "/",
    operation_id="makeDomainPurchase",
    summary="Buy a domain name, or hold it",
    opt=needs(
        Scope.DOMAINS_PURCHASE,
        refusals=[ErrorCode.USER_NOT_FOUND, ErrorCode.DOMAIN_TAKEN, ErrorCode.INSUFFICIENT_FUNDS],
    ),
)
async def make(
    data: JSONBody[DomainPurchaseMake], request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[DomainPurchaseWritten]:
    """Takes the price. The name is registered at once, or with "hold": true pending until completed or released."""
    try:
        name = parse_name(data.domain)
    except ValueError as error:
        raise invalid("#/domain", f"is no domain name: {error}") from error
    try:
        check_is_registrable(name)
    except ValueError as error:
        if not was_answered(request, idempotency_key):
            raise invalid("#/domain", f"is no domain name: {error}") from error
    return await write(request, door.MAKE, data, idempotency_key)


@get(
    "/",
    operation_id="listDomainPurchases",
    summary="Domain purchases, newest first",
    opt=needs(Scope.DOMAINS_PURCHASE),
)
async def list_purchases(
    request: ApiRequest, telegram_id: TelegramIdQuery = None, limit: Limit = LIMIT_DEFAULT, cursor: Cursor = None
) -> Response[DomainPurchasePage]:
    """All purchases, or those of one user; also those that the bot recorded."""
    found = await request.read(
        domain_purchases.list_newest, telegram_id=telegram_id, before_id=before_id(cursor), limit=limit + 1
    )
    expiry_s = request.passbook.policy.hold_expiry_s
    return page(request, DomainPurchasePage, [as_it_stands(one, expiry_s=expiry_s) for one in found], limit)


@get(
    "/{domain_purchase_id:str}",
    operation_id="getDomainPurchase",
    summary="A domain purchase",
    opt=needs(Scope.DOMAINS_PURCHASE, refusals=[ErrorCode.DOMAIN_PURCHASE_NOT_FOUND]),
)
async def get_purchase(domain_purchase_id: IdPath, request: ApiRequest) -> DomainPurchase:
    """The purchase as it stands."""
    found = domain_purchases.find(request.passbook.lookups, int(domain_purchase_id))
    if found is None:
        raise DomainPurchaseNotFound(f"There is no domain purchase {domain_purchase_id}.")
    return as_it_stands(found, expiry_s=request.passbook.policy.hold_expiry_s)


@post(
    "/{domain_purchase_id:str}/complete",
    operation_id="completeDomainPurchase",
    summary="Register a held name",
    status_code=200,
    opt=needs(Scope.DOMAINS_PURCHASE, refusals=[*_HELD, ErrorCode.PAYMENT_REVERSED]),
)
async def complete(
    domain_purchase_id: IdPath,
    data: JSONBody[DomainPurchaseComplete],
    request: ApiRequest,
    idempotency_key: IdempotencyKey,
) -> Response[DomainPurchaseWritten]:
    """The money was taken when the name was held; nothing moves now."""
    return await write(request, door.COMPLETE, data, idempotency_key, int(domain_purchase_id))


@post(
    "/{domain_purchase_id:str}/release",
    operation_id="releaseDomainPurchase",
    summary="Give a held name up",
    status_code=200,
    opt=needs(Scope.DOMAINS_PURCHASE, refusals=[*_HELD, ErrorCode.BALANCE_LIMIT_EXCEEDED]),
)
async def release(
    domain_purchase_id: IdPath,
    data: JSONBody[DomainPurchaseRelease],
    request: ApiRequest,
    idempotency_key: IdempotencyKey,
) -> Response[DomainPurchaseWritten]:
    """Gives the money back and frees the name."""
    return await write(request, door.RELEASE, data, idempotency_key, int(domain_purchase_id))


ROUTER = Router(
    "/v1/domain-purchases", route_handlers=[make, list_purchases, get_purchase, complete, release], tags=["domains"]
)
BODIES: list[Any] = [
    DomainPurchaseMake,
    DomainPurchaseComplete,
    DomainPurchaseRelease,
    DomainPurchase,
    DomainPurchaseWritten,
    DomainPurchasePage,
]
