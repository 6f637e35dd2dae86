"""X-Request-ID: taken from the caller or made, on every answer, and in the audit row of what the request changed."""

import random
import re
import time

from litestar.types import Message, Scope

from service.ledger.fields import REMEDIES, REQUEST_ID_PATTERN

REMEDY = f"must be {REMEDIES[REQUEST_ID_PATTERN]}"
_WELL_FORMED = re.compile(REQUEST_ID_PATTERN)
_KEY = "request_id"


def new() -> str:
    """32 hexadecimal digits: the milliseconds since 1970 in 12, then chance, so that an index on them grows at its end.

    Unlikely to be met twice, and no secret: os.urandom would cost a system call, and the GIL, with every request.
    """
    return f"{time.time_ns() // 1_000_000:012x}{random.getrandbits(80):020x}"


def of(scope: Scope) -> str:
    """The id of the request: the caller's when it is well formed, else a new one; the same at every call."""
    state = scope["state"]
    request_id = state.get(_KEY)
    if request_id is None:
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        request_id = state[_KEY] = given if _WELL_FORMED.search(given) else new()
    return str(request_id)


async def add_header(message: Message, scope: Scope) -> None:
    """Puts X-Request-ID on every answer, also on those that no handler made."""
    if message["type"] == "http.response.start":
        message["headers"] = [*message.get("headers", []), (b"x-request-id", of(scope).encode())]
