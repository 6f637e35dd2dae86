"""Serves Passbook and, beside it, two handlers that store nothing behind the same edge and key check.

POST /empty takes an announcement; GET /empty/{telegram_id} answers like a balance. Usage: python -m
tests.benchmarks.serve DATABASE   (prints "ready URL")
"""

import sys
from typing import Any

from litestar import Litestar, Response, get, post
from litestar.params import JSONBody

from service import server
from service.api.auth import needs
from service.api.params import IdempotencyKey, TelegramIdPath
from service.api.request import ApiRequest
from service.app import create_app
from service.config import Config
from service.ledger.access import Scope
from service.ledger.deposits import DepositAnnounce, DepositAnnounced
from service.ledger.users import Balance
from service.repository.unit_of_work import created


@post("/empty", operation_id="empty", opt=needs(Scope.DEPOSITS_ANNOUNCE))
async def empty(
    data: JSONBody[DepositAnnounce], request: ApiRequest, idempotency_key: IdempotencyKey
) -> Response[DepositAnnounced]:
    """Everything that an announcement does but the ledger: check the key, decode, encode an answer."""
    answer: Any = created(
        DepositAnnounced(
            id=len(idempotency_key),
            telegram_id=data.telegram_id,
            amount=data.amount,
            depositor_name=data.depositor_name,
            status="pending",
            created_at="2026-01-19T12:00:00.000Z",
            confirmed_at=None,
            matched_bank_notification_id=None,
            balance_before=0,
            balance_after=0,
            version=0,
            audit_log_id=1,
            collision=None,
        ),
        "/v1/deposits/1",
    )
    return Response(
        answer.body, status_code=answer.status, media_type="application/json", headers={"Location": answer.location}
    )


@get("/empty/{telegram_id:str}", operation_id="emptyGet", opt=needs(Scope.BALANCE_READ))
async def empty_get(telegram_id: TelegramIdPath, request: ApiRequest) -> Balance:
    """Everything that a balance does but the read."""
    return Balance(telegram_id=telegram_id, balance=0, held=0, version=0)


def make_app(config: Config) -> Litestar:
    """The application with the two handlers."""
    return create_app(config, extra_routes=[empty, empty_get])


def main() -> None:
    config = Config(database=sys.argv[1], port=0)
    listener = server.listen(config)
    host, port = listener.getsockname()
    server.run(
        make_app(config),
        config,
        listener,
        on_ready=lambda: print(f"ready http://{host}:{port}", flush=True),
        on_stopping=lambda: None,
        on_stop=lambda: None,
    )


if __name__ == "__main__":
    main()
