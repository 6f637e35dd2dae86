"""What each request was, for metrics, spans and logs: the one wrapper around the application, also around its errors.

Handlers and error handlers put what only they know into the request's Observation.
"""

import logging
from contextvars import ContextVar
from time import perf_counter_ns
from typing import cast

import msgspec
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from msgspec import Struct

from service.api import request_ids
from service.ledger.errors import ErrorCode
from service.ledger.idempotency import Answer
from service.measures import Measures
from service.repository.write_times import BatchTimes, WriteTimes
from service.telemetry import RequestTrace, Tracing, trace_id_of

_KEY = "observation"
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"}
_OTHER = "_OTHER"
_current: ContextVar[Scope | None] = ContextVar("passbook_scope", default=None)
_access = logging.getLogger("service.access")


class Observation:
    """One request. Lifetime: from its head to the end of its answer.

    code: of the problem document that it was answered with. outcome: what the Idempotency-Key came to. Both are empty
    where there is none such. write: its times, if it wrote. It does not know its scope, which knows it: that would be a
    cycle, and keep every request in memory until the garbage collector comes.
    """

    __slots__ = ("code", "outcome", "status", "trace", "write")

    def __init__(self, trace: RequestTrace | None) -> None:
        self.trace = trace
        self.status = 500
        self.code = ""
        self.outcome = ""
        self.write: WriteTimes | None = None

    def answered(self, answer: Answer) -> None:
        """Remembers the answer to a write."""
        self.outcome = "replayed" if answer.replayed else "refused" if answer.status >= 400 else "new"
        if answer.status >= 400:
            self.code = msgspec.json.decode(answer.body, type=_Coded).code

    def refused(self, code: ErrorCode) -> None:
        """Remembers the code of a problem document."""
        self.code = code
        if code is ErrorCode.IDEMPOTENCY_KEY_REUSED:
            self.outcome = "reused"


class _Coded(Struct):
    code: str


def of(scope: Scope) -> Observation:
    """The observation of the request; one that nobody looks at where the application is called without `observed`."""
    found = scope["state"].get(_KEY)
    if found is None:
        found = scope["state"][_KEY] = Observation(None)
    return cast("Observation", found)


def log_context() -> dict[str, str]:
    """The ids that a line of the log has, which is written while a request is answered: request_id and trace_id."""
    scope = _current.get()
    if scope is None:
        return {}
    trace = of(scope).trace
    trace_id = trace.trace_id if trace else trace_id_of(scope["headers"])
    return {"request_id": request_ids.of(scope), **({"trace_id": trace_id} if trace_id else {})}


def observed(app: ASGIApp, measures: Measures, tracing: Tracing | None, *, access_log: bool) -> ASGIApp:
    """`app`, with every request measured; traced and logged where that is on."""

    async def wrapper(scope: Scope, receive: Receive, send: Send) -> None:
        began_ns = perf_counter_ns()
        method = scope["method"] if scope["method"] in _METHODS else _OTHER  # type: ignore[typeddict-item]
        observation = Observation(tracing.begin(method, scope["headers"]) if tracing else None)
        scope["state"][_KEY] = observation
        _current.set(scope)

        def watched(message: Message) -> object:
            if message["type"] == "http.response.start":
                observation.status = message["status"]
            return send(message)

        measures.active_requests += 1
        try:
            await app(scope, receive, watched)  # type: ignore[arg-type]
        finally:
            measures.active_requests -= 1
            duration_s = (perf_counter_ns() - began_ns) / 1e9
            route = scope.get("path_template", "")
            measures.requests.record(duration_s, method, route, str(observation.status))
            if observation.code:
                measures.refusals.add(observation.code)
            if observation.outcome:
                measures.writes.add(observation.outcome)
            if observation.trace:
                _end_trace(observation, observation.trace, method, route, _caller_of(scope))
            if access_log:
                _write_access_log(observation, method, route, _caller_of(scope), duration_s)

    return wrapper


def watch_batch(measures: Measures, tracing: Tracing | None, batch: BatchTimes, writes: list[WriteTimes]) -> None:
    """Measures a batch of the writer and makes the span of its commit."""
    if not batch.committed_ns:
        measures.commits.add("failed")
        return
    measures.commits.add("committed")
    measures.batch_size.record(batch.size)
    measures.commit_duration.record(batch.commit_s)
    if tracing:
        traced = [write.trace for write in writes if write.trace is not None]
        if traced:
            batch.trace = tracing.commit(
                traced, size=batch.size, began_ns=batch.commit_began_ns, ended_ns=batch.committed_ns
            )


def _caller_of(scope: Scope) -> str:
    """The name of the caller's API key; empty before it was checked, and where none is needed."""
    caller = scope.get("auth")
    return caller.actor if caller else ""


def _end_trace(observation: Observation, trace: RequestTrace, method: str, route: str, api_key: str) -> None:
    attributes: dict[str, str | int | float] = {"http.response.status_code": observation.status}
    for name, text in (
        ("http.route", route),
        ("error.type", observation.code),
        ("passbook.api_key.name", api_key),
        ("passbook.idempotency.outcome", observation.outcome),
    ):
        if text:
            attributes[name] = text
    write = observation.write
    if write is not None and write.began_ns and write.batch is not None:
        trace.unit_of_work(write.operation, began_ns=write.began_ns, ended_ns=write.ended_ns, commit=write.batch.trace)
        attributes["passbook.writer.queue_wait_s"] = (write.began_ns - write.queued_ns) / 1e9
        attributes["passbook.writer.batch_size"] = write.batch.size
        attributes["passbook.writer.commit_s"] = write.batch.commit_s
    trace.end(f"{method} {route}".strip(), attributes, failed=observation.status >= 500)


def _write_access_log(observation: Observation, method: str, route: str, api_key: str, duration_s: float) -> None:
    fields = {
        "method": method,
        "route": route,
        "status": observation.status,
        "duration_ms": round(duration_s * 1000, 3),
        "api_key": api_key,
        "code": observation.code,
        "outcome": observation.outcome,
    }
    _access.info(
        "%s %s %d", method, route or "-", observation.status, extra={"fields": {k: v for k, v in fields.items() if v}}
    )
