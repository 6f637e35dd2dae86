"""Does it add up?"""

from typing import Any

from litestar import Response, Router, get

from service.api import head
from service.api.auth import needs
from service.api.params import MaxAge
from service.api.request import ApiRequest
from service.ledger.access import Scope
from service.ledger.integrity import IntegrityReport
from service.ledger.timestamps import duration

WAIT_S = 10.0
"""How long a request waits for a proof to finish."""


@get("/", operation_id="getIntegrity", summary="The proof that it adds up", opt=needs(Scope.AUDIT_READ))
async def get_integrity(request: ApiRequest, max_age: MaxAge = "PT1H") -> Response[IntegrityReport]:
    """The last proof over the whole ledger, if it is not older than `max_age`; else a new one, one for all who ask.

    A new one is waited for some seconds. If it takes longer, status is running: what it has seen so far, with the last
    finished one as `previous`; ask again. A broken ledger is a true answer too: 200, status broken, and the first
    failures of each check name the user, the transaction and the row.
    """
    limit = duration(max_age)
    if head.is_asked(request.scope):
        return head.HeadersOnly(media_type="application/json")  # type: ignore[return-value]
    return Response(await request.passbook.proofs.report(limit, wait_s=WAIT_S))


ROUTER = Router("/v1/integrity", route_handlers=[get_integrity], tags=["integrity"])
BODIES: list[Any] = [IntegrityReport]
