"""X-Request-ID: taken from the caller or made, on every answer, and in the audit row of what the request changed."""

import random
import re

from litestar.types import Message, Scope

from service.ledger.fields import REMEDIES, REQUEST_ID_PATTERN

REMEDY = f"must be {REMEDIES[REQUEST_ID_PATTERN]}"
_WELL_FORMED = re.compile(REQUEST_ID_PATTERN)
_KEY = "request_id"


def _new() -> str:
    """Unlikely to be met twice, and no secret: os.urandom would cost a system call, and the GIL, with every request."""
    return f"{random.getrandbits(128):032x}"


def of(scope: Scope) -> str:
    """The id of the request: the caller's when it is well formed, else a new one; the same at every call."""
    state = scope["state"]
    request_id = state.get(_KEY)
    if request_id is None:
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        request_id = state[_KEY] = given if _WELL_FORMED.search(given) else _new()
    return str(request_id)


async def add_header(message: Message, scope: Scope) -> None:
    """Puts X-Request-ID on every answer, also on those that no handler made."""
    if message["type"] == "http.response.start":
        message["headers"] = [*message.get("headers", []), (b"x-request-id", of(scope).encode())]
