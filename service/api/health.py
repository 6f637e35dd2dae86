"""Is the process alive, and may it be sent requests?"""

from typing import Any

from litestar import HttpMethod, Router, route
from msgspec import Struct

from service.api.auth import OPEN
from service.api.request import ApiRequest
from service.ledger.errors import NotReady
from service.storage.sqlite import Connection, EngineInfo

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


def _operation_id(name: str) -> Any:
    return lambda _handler, method, _path: name if method == HttpMethod.GET else f"{name}Head"


@route("/livez", http_method=_GET_AND_HEAD, operation_id=_operation_id("livez"), summary="Is it alive?", opt=OPEN)
async def livez(request: ApiRequest) -> Liveness | None:
    """200 as long as the process answers at all."""
    return Liveness(status="ok") if request.method == HttpMethod.GET else None


@route("/readyz", http_method=_GET_AND_HEAD, operation_id=_operation_id("readyz"), summary="Is it ready?", opt=OPEN)
async def readyz(request: ApiRequest) -> Readiness | None:
    """200 when it reads and writes; 503 with the reason when it does not."""
    passbook = request.passbook
    if passbook.writer.stopped_because is not None:
        raise NotReady(f"No writes are taken: {passbook.writer.stopped_because}. Restart the service.")
    await passbook.readers.read(_ping)
    if request.method == HttpMethod.HEAD:
        return None
    return Readiness(
        status="ok",
        version=request.app.openapi_schema.info.version,
        schema_version=passbook.schema_version,
        queue_depth=passbook.writer.queue_depth,
        sqlite=passbook.engine,
    )


def _ping(tx: Connection) -> None:
    tx.execute("SELECT 1 FROM users LIMIT 1").fetchone()


ROUTER = Router("/", route_handlers=[livez, readyz], tags=["health"])
BODIES: list[Any] = [Liveness, Readiness]
