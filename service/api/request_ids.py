"""X-Request-ID: taken from the caller or made, on every answer, and in the audit row of what the request changed."""

import os
import re

from litestar.types import Message, Scope

from service.ledger.fields import REMEDIES, REQUEST_ID_PATTERN

REMEDY = f"must be {REMEDIES[REQUEST_ID_PATTERN]}"
_WELL_FORMED = re.compile(REQUEST_ID_PATTERN)
_KEY = "request_id"


def of(scope: Scope) -> str:
    """The id of the request: the caller's when it is well formed, else a new one; the same at every call."""
    state = scope["state"]
    request_id = state.get(_KEY)
    if request_id is None:
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        request_id = state[_KEY] = given if _WELL_FORMED.search(given) else os.urandom(16).hex()
    return str(request_id)


async def add_header(message: Message, scope: Scope) -> None:
    """Puts X-Request-ID on every answer, also on those that no handler made."""
    if message["type"] == "http.response.start":
        message["headers"] = [*message.get("headers", []), (b"x-request-id", of(scope).encode())]
