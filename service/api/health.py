"""Is the process alive, and may it be sent requests?"""

from typing import Any

from litestar import Router, get
from msgspec import Struct

from service import __version__
from service.api.auth import OPEN
from service.api.request import ApiRequest, Passbook
from service.ledger.errors import NotReady
from service.storage.sqlite import DatabaseError, EngineInfo, NotTrusted

_OK, _STALLED, _NOT_TRUSTED = "ok", "stalled", "not_trusted"
FAILED = "failed"
"""`reads` where a read failed."""
_WHY_NO_READS = {
    _STALLED: "A read of one page has not been answered in time: is the disk there?",
    FAILED: "A read of one page failed; the log of the service says why.",
}


class Liveness(Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: str


class Readiness(Struct, frozen=True, kw_only=True):
    """The database answers and writes are taken. `queue_depth`: writes that wait for their commit."""

    status: str
    reads: str
    writes: str
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
    """200 when it reads and writes; 503 with the reason when it does not, or is about to stop.

    It is for a load balancer. What restarts the service asks /livez: a restart frees no disk.
    """
    passbook = request.passbook
    if request.app.state.get("stopping"):
        raise NotReady("The service is stopping.")
    writes = passbook.writer.condition
    why = [f"No writes are taken: {writes.why}."] if writes.why else []
    reads, why_no_reads = await _reads(passbook)
    if reads != _OK and why_no_reads not in why:
        why.append(why_no_reads)
    if why:
        raise NotReady(" ".join(why), reads=reads, writes=writes.state.value)
    return Readiness(
        status=_OK,
        reads=reads,
        writes=writes.state.value,
        version=__version__,
        schema_version=passbook.schema_version,
        queue_depth=passbook.writer.queue_depth,
        sqlite=passbook.engine,
    )


async def _reads(passbook: Passbook) -> tuple[str, str]:
    """Whether a page can be read, of files and by a schema that are still those of the database; and why not."""
    try:
        await passbook.pulse.feel()
    except TimeoutError:
        return _STALLED, _WHY_NO_READS[_STALLED]
    except NotTrusted as error:
        return _NOT_TRUSTED, f"{error}."
    except DatabaseError:
        return FAILED, _WHY_NO_READS[FAILED]
    return _OK, ""


ROUTER = Router("/", route_handlers=[livez, readyz], tags=["health"])
BODIES: list[Any] = [Liveness, Readiness]
