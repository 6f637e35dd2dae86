"""Is the process alive, and may it be sent requests?"""

from typing import Any

from litestar import Router, get
from msgspec import Struct

from service import __version__
from service.api.auth import OPEN
from service.api.request import ApiRequest
from service.ledger.errors import NotReady
from service.storage import sqlite
from service.storage.sqlite import EngineInfo


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


@get("/livez", operation_id="livez", summary="Is it alive?", opt=OPEN)
async def livez() -> Liveness:
    """200 as long as the process answers at all."""
    return Liveness(status="ok")


@get("/readyz", operation_id="readyz", summary="Is it ready?", opt=OPEN)
async def readyz(request: ApiRequest) -> Readiness:
    """200 when it reads and writes; 503 with the reason when it does not, or is about to stop."""
    passbook = request.passbook
    if request.app.state.get("stopping"):
        raise NotReady("The service is stopping.")
    if passbook.writer.stopped_because is not None:
        raise NotReady(f"No writes are taken: {passbook.writer.stopped_because}. Restart the service.")
    await passbook.readers.read(sqlite.ping)
    return Readiness(
        status="ok",
        version=__version__,
        schema_version=passbook.schema_version,
        queue_depth=passbook.writer.queue_depth,
        sqlite=passbook.engine,
    )


ROUTER = Router("/", route_handlers=[livez, readyz], tags=["health"])
BODIES: list[Any] = [Liveness, Readiness]
