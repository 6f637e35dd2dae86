"""The request as handlers see it, and the one way from a handler to the write door."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import msgspec
from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.types import Empty, HTTPReceiveMessage
from msgspec import Struct

from service.api import client_address, observation, request_ids, strict_json
from service.api.audit_feed import AuditFeed
from service.api.checkpoints import Checkpoints
from service.api.client_address import Networks
from service.api.figures import Figures
from service.api.limits import LARGE_BYTES, Limits, Share
from service.api.problems import MEDIA_TYPE, EdgeError, unsupported
from service.api.proofs import Proofs
from service.api.pulse import Pulse
from service.ledger.access import Caller
from service.ledger.audit_chain import receipt
from service.ledger.errors import ErrorCode
from service.ledger.idempotency import Request as WriteRequest
from service.ledger.policy import Policy
from service.ledger.timestamps import Clock
from service.measures import Measures
from service.repository.session import Context
from service.repository.unit_of_work import Operation
from service.repository.write_times import WriteTimes, now_ns
from service.repository.writer import Writer
from service.storage import idempotency
from service.storage.sqlite import Connection, EngineInfo, Readers

SHARE = "share"
"""In the state of a request with a key: what its key has in use (limits.Share)."""
BODY_BYTES = "body_bytes"
"""There too: how much of that is this request's body."""
DECODED_BYTES = "decoded_bytes"
"""There too: how much of a large body is decoded."""
_USER_AGENT_CHARACTERS_MAX = 512
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Passbook:
    """What the running application holds. Lifetime: from the application's start to its end."""

    writer: Writer
    readers: Readers
    lookups: Connection
    """Read-only, used from the event loop alone: one row by its key takes microseconds, a hop to a reader many more."""
    clock: Clock
    engine: EngineInfo
    schema_version: int
    policy: Policy
    proofs: Proofs
    checkpoints: Checkpoints
    trusted_proxies: Networks
    audit_feed: AuditFeed
    measures: Measures
    figures: Figures
    database: Path
    pulse: Pulse
    limits: Limits
    cursor_key: bytes
    """Seals what a cursor says was read; made anew with every start."""
    writes_in: Callable[[], int | None]
    """The number of the process that owns the writing connection; None where that is this one, or is gone."""


class ApiRequest(Request[Caller, Any, State]):
    """A request whose caller is known and whose body is decoded strictly."""

    @property
    def passbook(self) -> Passbook:
        """The running application's parts."""
        return cast("Passbook", self.app.state["passbook"])

    async def read(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(connection, …)` in one read transaction, in the turn of the caller's key."""
        return await self.passbook.readers.read_for(self.auth.key_id, function, *args, **kwargs)

    async def body(self) -> bytes:
        """The body, never empty: Litestar asks for `json` only when there is a body, and none may stand for {}."""
        return await self._received() or b"{}"

    async def json(self) -> Any:
        """The body as the handler's type of `data`. Raises EdgeError."""
        if self._json is Empty:
            body = await self._received()
            if body:
                self._check_content_type()
            field = self.route_handler.parsed_data_field
            if len(body) > LARGE_BYTES:
                await self._decode_in_turn(len(body))
                self._body = b" "  # it is needed no more
            self._json = strict_json.decode(body, field.annotation if field else Any)
        return self._json

    async def _received(self) -> bytes:
        """The body as it came, read once. Litestar's own way to it is an asynchronous generator, which costs more."""
        if self._body is Empty:
            body_bytes_max = self.route_handler.resolve_request_max_body_size() or math.inf
            counted = self.content_length or 0
            if counted > body_bytes_max:
                raise RequestEntityTooLarge
            if counted:
                self._count_body(counted)
            chunks, size, more = [], 0, True
            while more:
                event = cast("HTTPReceiveMessage", await self.receive())
                if event["type"] == "http.disconnect":
                    # Nobody reads the answer, and it is no error of the service.
                    raise EdgeError(ErrorCode.MALFORMED_HTTP, "The connection ended before the body did.")
                chunks.append(event["body"])
                size += len(chunks[-1])
                more = event["more_body"]
                if size > body_bytes_max:
                    raise RequestEntityTooLarge
                if size > counted:  # it is sent in chunks, and nobody knew
                    self._count_body(size - counted)
                    counted = size
            self._body = b"".join(chunks)
        return self._body

    async def _decode_in_turn(self, body_bytes: int) -> None:
        state = self.scope["state"]
        share: Share | None = state.get(SHARE)
        if share is not None:
            await self.passbook.limits.decode_in_turn(share, body_bytes)
            state[DECODED_BYTES] = body_bytes

    def _count_body(self, body_bytes: int) -> None:
        """Before it is read. Raises RateLimited, Overloaded."""
        state = self.scope["state"]
        share: Share | None = state.get(SHARE)
        if share is not None:
            self.passbook.limits.take_body(share, body_bytes)
            state[BODY_BYTES] = state.get(BODY_BYTES, 0) + body_bytes

    def _check_content_type(self) -> None:
        media_type, parameters = self.content_type
        charset = parameters.get("charset", "utf-8").lower()
        if media_type != "application/json" or charset not in {"utf-8", "utf8"}:
            raise unsupported("header/Content-Type", "must be application/json in UTF-8")


async def write(
    request: ApiRequest, operation: Operation, command: Struct, idempotency_key: str, target: int = 0
) -> Response[Any]:
    """Hands the command to the writer and gives its answer, new or replayed."""
    scope = request.scope
    user_agent = request.headers.get("user-agent")
    request.passbook.limits.take_write(scope["state"][SHARE])
    seen = observation.of(scope)
    seen.write = WriteTimes(operation.name, now_ns(), trace=seen.trace)
    answer = await request.passbook.writer.submit(
        operation,
        command,
        target,
        request=WriteRequest(
            idempotency_key=_unquoted(idempotency_key),
            operation=f"{scope['method']} {scope['path']}",
            body=msgspec.json.encode(command).decode(),
        ),
        context=Context(
            actor=request.auth.actor,
            key_prefix=request.auth.key_prefix,
            key_id=request.auth.key_id,
            scope=scope["route_handler"].opt["scope"],
            request_id=request_ids.of(scope),
            ip_address=client_address.of(scope, request.passbook.trusted_proxies),
            user_agent=user_agent[:_USER_AGENT_CHARACTERS_MAX] if user_agent else None,
        ),
        times=seen.write,
    )
    seen.answered(answer)
    state = scope["state"]
    if DECODED_BYTES in state:
        # How long the client takes to take its answer is its own affair; others wait to be decoded.
        request.passbook.limits.let_go(state[SHARE], state.pop(BODY_BYTES), state.pop(DECODED_BYTES))
    headers = {}
    if answer.location:
        headers["Location"] = answer.location
    if answer.audit_log_id is not None and answer.leaf is not None:
        headers["Passbook-Receipt"] = receipt(answer.audit_log_id, answer.leaf)
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    return Response(
        answer.body,
        status_code=answer.status,
        media_type="application/json" if answer.status < 400 else MEDIA_TYPE,
        headers=headers,
    )


def was_answered(request: ApiRequest, idempotency_key: str) -> bool:
    """Whether the key has its answer already: then a rule of the edge that is newer than the answer does not count.

    One indexed read; for requests that would be refused.
    """
    key = _unquoted(idempotency_key)
    return idempotency.find(request.passbook.lookups, actor=request.auth.actor, idempotency_key=key) is not None


def _unquoted(idempotency_key: str) -> str:
    """The key without the quotes that a structured header field (RFC 8941 §3.3.3) has around it."""
    if len(idempotency_key) > 2 and idempotency_key[0] == idempotency_key[-1] == '"':
        return idempotency_key[1:-1]
    return idempotency_key
