"""The edge that every request passes before its handler: who asks, may they, and is the request well put.

In this order: X-Request-ID, API key (401), scope (403), query parameters and headers (400), Accept (406). A handler
says which scope it needs with `opt=needs(...)` or that it is open with `opt=OPEN`; one that says nothing is denied.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qsl

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute

from service.api import request_ids
from service.api.problems import EdgeError, invalid
from service.api.request import Passbook
from service.ledger.access import Caller, Scope, hash_of, is_well_formed
from service.ledger.errors import ErrorCode
from service.storage import api_keys

OPEN: dict[str, Any] = {"open": True, "refusals": ()}
"""For handlers that need no key."""

_ONCE = {b"authorization", b"idempotency-key", b"content-type", b"content-length", b"x-request-id", b"host"}
_QUERY_FIELDS_MAX = 32


def needs(scope: Scope, *, refusals: Sequence[ErrorCode] = ()) -> dict[str, Any]:
    """For a handler that needs `scope`. `refusals` are the codes that its operation may answer, for the contract."""
    return {"scope": scope, "refusals": tuple(refusals)}


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Lets the request pass with its caller and request id set, or raises EdgeError."""
    scope = connection.scope
    headers: list[tuple[bytes, bytes]] = scope["headers"]  # type: ignore[assignment]
    authorization = accept = None
    request_id = ""
    seen = set()
    for name, value in headers:
        if name in _ONCE:
            if name in seen:
                raise invalid(f"header/{name.decode()}", "is given more than once")
            seen.add(name)
            if name == b"authorization":
                authorization = value
            elif name == b"x-request-id":
                request_id = value.decode("latin-1")
        elif name == b"accept":
            accept = value if accept is None else accept + b"," + value
    if request_ids.of(scope) != request_id and request_id:
        raise invalid("header/X-Request-ID", request_ids.REMEDY)
    if handler.opt.get("open") is not True:
        scope["auth"] = _authorized(scope["litestar_app"].state["passbook"], authorization, handler)
    query = scope["query_string"]
    if query:
        known = scope["litestar_app"].state["query_parameters"]
        _check_query(query, known[scope["path_template"], str(connection.scope.get("method"))])
    if accept is not None and accept not in {b"*/*", b"application/json"}:
        _check_accept(accept, handler.opt.get("produces", "application/json"))


def _authorized(passbook: Passbook, authorization: bytes | None, handler: BaseRouteHandler) -> Caller:
    if authorization is None:
        raise EdgeError(ErrorCode.API_KEY_REQUIRED, "This path needs Authorization: Bearer <key>.")
    scheme, _, credentials = authorization.decode("latin-1").partition(" ")
    key = credentials.strip()
    if scheme.lower() != "bearer" or not key:
        raise EdgeError(ErrorCode.API_KEY_REQUIRED, "Authorization must be of the form: Bearer <key>.")
    if not is_well_formed(key):
        raise EdgeError(ErrorCode.API_KEY_UNKNOWN, "This is no Passbook key: its form or its checksum is wrong.")
    found = api_keys.find_by_hash(passbook.keys, hash_of(key))
    if found is None:
        raise EdgeError(ErrorCode.API_KEY_UNKNOWN, "There is no such API key.")
    if found.revoked_at is not None:
        raise EdgeError(ErrorCode.API_KEY_REVOKED, f"The API key {found.prefix} was revoked.")
    needed = handler.opt.get("scope")
    if needed not in found.scopes:
        named = needed or "a scope that no key has"
        raise EdgeError(
            ErrorCode.SCOPE_MISSING, f"The API key {found.prefix} lacks the scope {named}.", required_scope=str(named)
        )
    return Caller(key_id=found.id, actor=found.name, scopes=found.scopes)


def query_parameters(app: Litestar) -> dict[tuple[str, str], frozenset[str]]:
    """The query parameters that each (path template, method) of the application declares."""
    return {
        (route.path_format, method): frozenset(parameter.field_alias for parameter in model.expected_query_params)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method, (_, model) in route.route_handler_map.items()
    }


def _check_query(query: bytes, allowed: Iterable[str]) -> None:
    try:
        fields = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_QUERY_FIELDS_MAX
        )
    except ValueError as error:
        raise invalid("query/", f"the query string cannot be read: {error}") from error
    seen = set()
    for name, _ in fields:
        if name in seen:
            raise invalid(f"query/{name}", "is given more than once")
        if name not in allowed:
            remedy = f"this path knows {', '.join(sorted(allowed))}" if allowed else "this path takes none"
            raise invalid(f"query/{name[:100]}", f"is no parameter here; {remedy}")
        seen.add(name)


def _check_accept(accept: bytes, produced: str) -> None:
    """Returns when `accept` (RFC 9110 §12.5.1) admits the media type that the handler produces. Raises EdgeError."""
    kind = produced.partition("/")[0]
    best: tuple[int, float] = (-1, 0.0)
    for entry in accept.decode("latin-1").lower().split(","):
        media_range, *parameters = (part.strip() for part in entry.split(";"))
        specificity = {"*/*": 0, f"{kind}/*": 1, produced: 2}.get(media_range, -1)
        if specificity > best[0]:
            best = (specificity, _quality(parameters))
    if best[1] <= 0:
        raise EdgeError(ErrorCode.NOT_ACCEPTABLE, f"This path answers {produced}, which Accept does not admit.")


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
