"""Is the process alive, and may it be sent requests?"""

from typing import Any

import msgspec
from litestar import HttpMethod, Response, Router, route
from msgspec import Struct

from service import __version__
from service.api.auth import OPEN
from service.api.request import ApiRequest
from service.ledger.errors import NotReady
from service.storage import sqlite
from service.storage.sqlite import EngineInfo

_GET_AND_HEAD = [HttpMethod.GET, HttpMethod.HEAD]


class Liveness(Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: str


class Readiness(Struct, frozen=True, kw_only=True):
    """The database answers and writes are taken. `queue_depth`: writes that wait for the next commit."""

    status: str
    version: str
    schema_version: int
    queue_depth: int
    sqlite: EngineInfo


def operation_id(name: str) -> Any:
    """The names of a handler for GET and HEAD: `name` and nameHead."""
    return lambda _handler, method, _path: name if method == HttpMethod.GET else f"{name}Head"


@route("/livez", http_method=_GET_AND_HEAD, operation_id=operation_id("livez"), summary="Is it alive?", opt=OPEN)
async def livez(request: ApiRequest) -> Response[Liveness]:
    """200 as long as the process answers at all."""
    return _answer(request, Liveness(status="ok"))


@route("/readyz", http_method=_GET_AND_HEAD, operation_id=operation_id("readyz"), summary="Is it ready?", opt=OPEN)
async def readyz(request: ApiRequest) -> Response[Readiness]:
    """200 when it reads and writes; 503 with the reason when it does not, or is about to stop."""
    passbook = request.passbook
    if request.app.state.get("stopping"):
        raise NotReady("The service is stopping.")
    if passbook.writer.stopped_because is not None:
        raise NotReady(f"No writes are taken: {passbook.writer.stopped_because}. Restart the service.")
    await passbook.readers.read(sqlite.ping)
    readiness = Readiness(
        status="ok",
        version=__version__,
        schema_version=passbook.schema_version,
        queue_depth=passbook.writer.queue_depth,
        sqlite=passbook.engine,
    )
    return _answer(request, readiness)


def _answer(request: ApiRequest, view: Struct) -> Response[Any]:
    """`view`, or for HEAD the headers that it would have (RFC 9110 §9.3.2)."""
    body = msgspec.json.encode(view)
    if request.method == HttpMethod.HEAD:
        return Response(b"", media_type="application/json", headers={"Content-Length": str(len(body))})
    return Response(body, media_type="application/json")


ROUTER = Router("/", route_handlers=[livez, readyz], tags=["health"])
BODIES: list[Any] = [Liveness, Readiness]
