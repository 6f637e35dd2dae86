"""The edge that every request passes before its handler: who asks, may they, and is the request well put.

In this order: X-Request-ID, API key (401), scope (403), what the key has under way (429), query parameters and headers
(400), Accept (406). A handler says which scope it needs with `opt=needs(...)` or that it is open with `opt=OPEN`; one
that says nothing is denied.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import unquote_plus

from litestar import Litestar
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, HTTPScope, Receive, Send
from litestar.types import Scope as AsgiScope

from service.api import client_address, request_ids
from service.api.problems import EdgeError, Violation, invalid, unsupported
from service.api.request import BODY_BYTES, DECODED_BYTES, SHARE, Passbook
from service.ledger.access import Caller, Scope, hash_of, is_well_formed
from service.ledger.errors import ErrorCode, NotReady, OutcomeUnknown, Unavailable
from service.storage import api_keys

_JSON = ("application/json",)
OPEN: dict[str, Any] = {"open": True, "refusals": (), "produces": _JSON}
"""For handlers that need no key."""
PAGE: dict[str, Any] = {**OPEN, "produces": None}
"""For what a browser shows: open, and sent whatever Accept says."""
_MEDIA_TYPE = "media_type"
_PARAMETERS = "media_type_parameters"
_SINGLE = {
    b"authorization": "Authorization",
    b"content-encoding": "Content-Encoding",
    b"content-length": "Content-Length",
    b"content-type": "Content-Type",
    b"host": "Host",
    b"idempotency-key": "Idempotency-Key",
    b"transfer-encoding": "Transfer-Encoding",
    b"x-request-id": "X-Request-ID",
}
"""The headers that mean something here, and may be given once."""
_QUERY_FIELDS_MAX = 32
_NAME_CHARACTERS_MAX = 100
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_QUALITY = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def needs(scope: Scope, *, refusals: Sequence[ErrorCode] = (), produces: tuple[str, ...] = _JSON) -> dict[str, Any]:
    """For a handler that needs `scope`. `refusals` are the codes that its operation may answer, for the contract.

    `produces` are the media types that it can answer, the one for */* first; `media_type` tells which is asked for.
    """
    return {"scope": scope, "refusals": tuple(refusals), "produces": produces}


def opened(*, produces: tuple[str, ...]) -> dict[str, Any]:
    """For a handler that needs no key and answers one of `produces`."""
    return {**OPEN, "produces": produces}


def check_handlers(app: Litestar) -> None:
    """Raises TypeError where a handler names its media types otherwise than as a tuple: a str is a list of letters."""
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            produced = handler.opt.get("produces", _JSON)
            if produced is not None and not (isinstance(produced, tuple) and all("/" in one for one in produced)):
                raise TypeError(f"{route.path}: produces is {produced!r}, which is no tuple of media types.")


def media_type(scope: AsgiScope) -> str:
    """The media type that the answer is to have, of those that the handler produces."""
    return str(scope["state"].get(_MEDIA_TYPE) or scope["route_handler"].opt.get("produces", _JSON)[0])


def media_type_parameters(scope: AsgiScope) -> frozenset[str]:
    """What Accept says of that media type beyond its name, such as `bom=true`, in lower case."""
    found: frozenset[str] = scope["state"].get(_PARAMETERS, frozenset())
    return found


def guarded(app: ASGIApp) -> ASGIApp:
    """`app` behind the edge. A middleware, since Litestar copies the handler for every guard with every request."""

    async def middleware(scope: AsgiScope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        asked = cast("HTTPScope", scope)  # there are no websockets
        try:
            _check(asked, scope["route_handler"])
            await app(scope, receive, send)
        except asyncio.CancelledError as cancelled:  # the grace of a stop is over
            raise _cut_off(asked["method"]) from cancelled
        finally:
            share = state.get(SHARE)
            if share is not None:
                scope["litestar_app"].state["passbook"].limits.end(
                    share, state.get(BODY_BYTES, 0), state.get(DECODED_BYTES, 0)
                )

    return middleware


def _cut_off(method: str) -> Unavailable:
    detail = "The service is stopping, and this request took longer than it waits."
    return NotReady(detail) if method in {"GET", "HEAD"} else OutcomeUnknown(detail)


def _check(scope: HTTPScope, handler: BaseRouteHandler) -> None:
    """Lets the request pass with its caller and request id set, or raises EdgeError."""
    given: dict[bytes, bytes] = {}
    accept = b""
    for name, value in scope["headers"]:
        if name in _SINGLE:
            if name in given:
                raise invalid(f"header/{_SINGLE[name]}", "is given more than once")
            given[name] = value
        elif name == b"accept":
            accept = accept + b"," + value if accept else value
    _check_framing(given, scope)
    request_id = given.get(b"x-request-id")
    if request_id and request_ids.of(scope) != request_id.decode("latin-1"):
        raise invalid("header/X-Request-ID", request_ids.REMEDY)
    if handler.opt.get("open") is not True:
        passbook = scope["litestar_app"].state["passbook"]
        caller = scope["auth"] = _authorized(passbook, scope, given.get(b"authorization"), handler)
        scope["state"][SHARE] = passbook.limits.begin(caller.key_id, caller.actor)
    if scope["query_string"]:
        known = scope["litestar_app"].state["query_parameters"]
        _check_query(scope["query_string"], known[scope["path_template"], scope["method"]])
    produced = handler.opt.get("produces", _JSON)
    if accept and accept != b"*/*" and (accept != b"application/json" or produced != _JSON) and produced is not None:
        scope["state"][_MEDIA_TYPE], scope["state"][_PARAMETERS] = _accepted(accept, produced)


def _check_framing(given: dict[bytes, bytes], scope: AsgiScope) -> None:
    """What RFC 9112 asks of a request and the server does not check. Raises EdgeError."""
    if b"host" not in given and scope["http_version"] == "1.1":
        raise invalid("header/Host", "is required in HTTP/1.1")
    if any(
        coding.strip() not in {b"", b"identity"} for coding in given.get(b"content-encoding", b"").lower().split(b",")
    ):
        raise unsupported("header/Content-Encoding", "must be absent: send the body as it is")
    if b"transfer-encoding" in given and given[b"transfer-encoding"].lower() != b"chunked":
        raise invalid("header/Transfer-Encoding", "must be chunked, or absent")


def _authorized(passbook: Passbook, scope: HTTPScope, authorization: bytes | None, handler: BaseRouteHandler) -> Caller:
    """The caller of a live key that may do this. Raises EdgeError, and RateLimited where others have no such key.

    A key of the right form is looked up in any case: a valid one passes whatever comes from its address.
    """

    def refuse(code: ErrorCode, detail: str) -> EdgeError:
        passbook.limits.count_refused_key(client_address.of(scope, passbook.trusted_proxies))
        return EdgeError(code, detail, errors=[Violation("header/Authorization", detail)])

    if authorization is None:
        raise refuse(ErrorCode.API_KEY_REQUIRED, "This path needs Authorization: Bearer <key>.")
    scheme, _, credentials = authorization.decode("latin-1").partition(" ")
    key = credentials.strip()
    if scheme.lower() != "bearer" or not key:
        raise refuse(ErrorCode.API_KEY_REQUIRED, "Authorization must be of the form: Bearer <key>.")
    if not is_well_formed(key):
        raise refuse(ErrorCode.API_KEY_UNKNOWN, "This is no Passbook key: its form or its checksum is wrong.")
    found = api_keys.find_by_hash(passbook.lookups, hash_of(key))
    if found is None:
        raise refuse(ErrorCode.API_KEY_UNKNOWN, "There is no such API key.")
    if found.revoked_at is not None:
        raise refuse(ErrorCode.API_KEY_REVOKED, f"The API key {found.prefix} was revoked.")
    needed = handler.opt.get("scope")
    if needed not in found.scopes:
        named = needed or "a scope that no key has"
        raise EdgeError(
            ErrorCode.SCOPE_MISSING, f"The API key {found.prefix} lacks the scope {named}.", required_scope=str(named)
        )
    return Caller(key_id=found.id, key_prefix=found.prefix, actor=found.name, scopes=found.scopes)


def query_parameters(app: Litestar) -> dict[tuple[str, str], dict[str, bool]]:
    """The query parameters that each (path template, method) of the application declares; True for whole numbers."""
    return {
        (route.path_format, method): {
            parameter.field_alias: handler.parsed_fn_signature.parameters[parameter.field_name].annotation
            in {int, int | None}
            for parameter in model.expected_query_params
        }
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method, (handler, model) in route.route_handler_map.items()
    }


def _check_query(query: bytes, allowed: Mapping[str, bool]) -> None:
    if query.count(b"&") >= _QUERY_FIELDS_MAX:
        raise invalid("query", f"has more than {_QUERY_FIELDS_MAX} parameters")
    seen = set()
    for field in query.decode("latin-1").split("&"):
        if not field:
            continue
        name, _, value = field.partition("=")
        name = unquote_plus(name)
        if name not in allowed:
            remedy = f"this path knows {', '.join(sorted(allowed))}" if allowed else "this path takes none"
            raise invalid(f"query/{name[:_NAME_CHARACTERS_MAX]}", f"is no parameter here; {remedy}")
        if name in seen:
            raise invalid(f"query/{name}", "is given more than once")
        if _BAD_PERCENT.search(value) or "\ufffd" in unquote_plus(value):
            raise invalid(f"query/{name}", "must be UTF-8 with % followed by two hexadecimal digits")
        if allowed[name] and not _WHOLE_NUMBER.fullmatch(unquote_plus(value)):  # Litestar takes 5.0 and 1e1 as well
            raise invalid(f"query/{name}", "must be a whole number in digits, without leading zeros")
        seen.add(name)


_Ranges = list[tuple[str, float, frozenset[str]]]


def _accepted(accept: bytes, produced: tuple[str, ...]) -> tuple[str, frozenset[str]]:
    """The one of `produced` that `accept` (RFC 9110 §12.5.1) likes best, the first of equals, and its parameters.

    An element of the list that names no media range says nothing (§5.6.1). Where none names one, it is as if Accept
    were not sent. Raises EdgeError.
    """
    ranges: _Ranges = []
    for entry in accept.decode("latin-1").lower().split(","):
        media_range, *rest = (part.strip() for part in entry.split(";"))
        if media_range:
            ranges.append((media_range, _quality(rest), frozenset(rest)))
    if not ranges:
        return produced[0], frozenset()
    best = max(produced, key=lambda media_type: _liking(media_type, ranges)[0])
    quality, parameters = _liking(best, ranges)
    if quality <= 0:
        listed = " or ".join(produced)
        detail = f"This path answers {listed}, which Accept does not admit."
        raise EdgeError(ErrorCode.NOT_ACCEPTABLE, detail, errors=[Violation("header/Accept", f"must admit {listed}")])
    return best, parameters


def _liking(media_type: str, ranges: _Ranges) -> tuple[float, frozenset[str]]:
    """The quality that the most specific range gives a media type, and its parameters; 0.0 where none admits it."""
    best: tuple[int, float, frozenset[str]] = (-1, 0.0, frozenset())
    for media_range, quality, parameters in ranges:
        specificity = {"*/*": 0, f"{media_type.partition('/')[0]}/*": 1, media_type: 2}.get(media_range, -1)
        if specificity > best[0]:
            best = (specificity, quality, parameters)
    return best[1:]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return float(value) if _QUALITY.fullmatch(value.strip()) else 0.0
    return 1.0
