"""Whatever a handler, Litestar or the database raises, as its problem document."""

import logging
import re
from typing import Any

from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.routes import HTTPRoute
from litestar.types import ExceptionHandlersMap

from service.api import head, observation, request_ids
from service.api.health import FAILED
from service.api.problems import CATALOGUE, MEDIA_TYPE, EdgeError, Violation, encode, invalid, readable
from service.ledger.errors import (
    AnswerErased,
    DatabaseBusy,
    ErrorCode,
    KeyRefused,
    NotReady,
    Overloaded,
    Refusal,
    Unavailable,
)
from service.repository.writer import Writer
from service.storage import sqlite

_log = logging.getLogger(__name__)


def _respond(
    request: Request[Any, Any, Any],
    code: ErrorCode,
    detail: str,
    members: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response[bytes]:
    observation.of(request.scope).refused(code)
    return Response(
        encode(code, detail, request_ids.of(request.scope), members or {}),
        status_code=CATALOGUE[code].status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def _on_edge_error(request: Request[Any, Any, Any], error: EdgeError) -> Response[bytes]:
    headers = dict(error.headers)
    if CATALOGUE[error.code].status == 401:
        challenge = 'Bearer realm="passbook"'
        headers["WWW-Authenticate"] = (
            challenge if error.code is ErrorCode.API_KEY_REQUIRED else f'{challenge}, error="invalid_token"'
        )
    return _respond(request, error.code, error.detail, error.members, headers)


def _on_refusal(request: Request[Any, Any, Any], refusal: Refusal | AnswerErased) -> Response[bytes]:
    return _respond(request, refusal.code, refusal.detail, refusal.members)


def _on_key_refused(request: Request[Any, Any, Any], error: KeyRefused) -> Response[bytes]:
    """The same answer as at the edge, for a key that was revoked or lost its scope after the request had passed it."""
    members: dict[str, Any] = {**error.members}
    if error.code is not ErrorCode.SCOPE_MISSING:
        members["errors"] = [Violation("header/Authorization", error.detail)]
    return _on_edge_error(request, EdgeError(error.code, error.detail, **members))


def _on_unavailable(request: Request[Any, Any, Any], error: Unavailable) -> Response[bytes]:
    return _respond(request, error.code, error.detail, {**error.members}, {"Retry-After": str(error.retry_after_s)})


def _on_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What Litestar itself raises: routing, parameters, body size."""
    if isinstance(error, ValidationException):
        scope = request.scope
        names = request.app.state["parameter_names"].get((scope.get("path_template"), scope["method"]), {})
        return _on_edge_error(request, _from_validation(error, names))
    if error.detail == "Invalid host header":
        return _on_edge_error(request, invalid("header/Host", "must be a host name or address, with or without a port"))
    if error.status_code == 413:
        violation = Violation("#", "is larger than any valid request; send less")
        return _respond(request, ErrorCode.BODY_TOO_LARGE, "The body is too large.", {"errors": [violation]})
    by_status = {
        404: (ErrorCode.ROUTE_NOT_FOUND, f"There is nothing at {request.scope['path'][:200]}."),
        405: (ErrorCode.METHOD_NOT_ALLOWED, "The path does not have this method; Allow lists what it has."),
    }
    if error.status_code in by_status:
        code, detail = by_status[error.status_code]
        return _respond(request, code, detail, headers=_allow(error))
    if 400 <= error.status_code < 500:
        return _respond(request, ErrorCode.INVALID_REQUEST, error.detail)
    return _on_exception(request, error)


def _allow(error: HTTPException) -> dict[str, str]:
    methods = {name.lower(): value for name, value in (error.headers or {}).items()}.get("allow")
    return {"Allow": ", ".join(sorted(head.methods(set(methods.split(", ")))))} if methods else {}


def _on_database_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """What a read met; writes tell of theirs as Unavailable."""
    if sqlite.is_busy(error) or sqlite.is_unrecovered(error):
        return _on_unavailable(request, DatabaseBusy("Another process holds the database. Send the request again."))
    if sqlite.is_interrupted(error):
        return _on_unavailable(
            request, Overloaded("The read took too long and was broken off. Ask for less: a shorter time, fewer items.")
        )
    if sqlite.is_of_file(error):
        return _on_unreadable(request, error)
    return _on_exception(request, error)


def _on_unreadable(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The file cannot be read, or was changed under the service. A write is told what all writes are told then."""
    _log.error("request %s: the database could not be read: %s", request_ids.of(request.scope), error)
    writer: Writer = request.app.state["passbook"].writer
    if request.method not in {"GET", "HEAD"} and writer.stopped_because is not None:
        return _on_unavailable(request, writer.stopped(writer.stopped_because))
    why = f" No writes are taken: {writer.condition.why}." if writer.condition.why else ""
    said = f"The database could not be read, and nothing was done; the log of the service says why.{why}"
    return _on_unavailable(request, NotReady(said, reads=FAILED, writes=writer.condition.state.value))


def _on_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    _log.error("request %s failed", request_ids.of(request.scope), exc_info=error)
    detail = "The service failed; nothing of the cause is shown here. Report the request_id to its operators."
    return _respond(request, ErrorCode.INTERNAL_ERROR, detail)


def parameter_names(app: Litestar) -> dict[tuple[str, str], dict[str, str]]:
    """For each (path template, method): what a caller calls the parameters, by what the handler calls them."""
    return {
        (route.path_format, method): {
            parameter.field_name: parameter.field_alias
            for parameters in (model.expected_query_params, model.expected_header_params, model.expected_path_params)
            for parameter in parameters
        }
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method, (_, model) in route.route_handler_map.items()
    }


def _from_validation(error: ValidationException, names: dict[str, str]) -> EdgeError:
    """What is wrong with the parameters: Litestar lists it, but tells of one that is missing in the detail only."""
    extra = error.extra if isinstance(error.extra, list) else []
    violations = [_violation(item, names) for item in extra]
    missing = re.match(r"Missing required (\w+) parameter '([^']+)'", error.detail)
    if not violations and missing:
        violations = [Violation(f"{missing[1]}/{missing[2]}", "is required")]
    if violations == [_IDEMPOTENCY_KEY_MISSING]:
        detail = (
            "Every POST and DELETE needs an Idempotency-Key header: 1 to 255 visible ASCII characters, new for each new"
            " request."
        )
        return EdgeError(ErrorCode.IDEMPOTENCY_KEY_REQUIRED, detail, errors=violations)
    detail = "; ".join(f"{v.pointer}: {v.message}" for v in violations) or error.detail
    return EdgeError(ErrorCode.INVALID_REQUEST, detail, errors=violations)


_IDEMPOTENCY_KEY_MISSING = Violation("header/Idempotency-Key", "is required")


def _violation(item: dict[str, Any], names: dict[str, str]) -> Violation:
    name, message = str(item.get("key", "")), str(item.get("message", ""))
    source = item.get("source")
    source = str(getattr(source, "value", source))
    return Violation(f"{source}/{names.get(name, name)}", readable(message))


HANDLERS: ExceptionHandlersMap = {
    EdgeError: _on_edge_error,
    Refusal: _on_refusal,
    AnswerErased: _on_refusal,
    KeyRefused: _on_key_refused,
    Unavailable: _on_unavailable,
    HTTPException: _on_http_exception,
    sqlite.DatabaseError: _on_database_error,
    Exception: _on_exception,
}
