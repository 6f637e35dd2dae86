"""One request's share of a database transaction, in the order that the invariants ask for.

stored answer for the key? -> checks -> change -> transaction row -> audit row -> stored answer. Whatever raises, the
share is rolled back to its savepoint and leaves nothing; its neighbours in the same commit do not notice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from service.ledger.audit_logs import AuditEvent, Details
from service.ledger.errors import Refusal
from service.ledger.idempotency import Answer, Request, check_same_request
from service.ledger.policy import Policy
from service.ledger.users import Account
from service.storage import audit_logs, idempotency
from service.storage.sqlite import Connection

Command = TypeVar("Command", bound=Struct)
RenderRefusal = Callable[[Refusal, str], Answer]
"""Makes the answer of a refusal for a request id; given by the composition root, since only the API knows HTTP."""


class Context(Struct, frozen=True, kw_only=True):
    """Who asks, from where and by which request; from the key and the connection, never from the body.

    `key_prefix` is the public start of the key; null for the command line and for the service's own work.
    """

    actor: str
    request_id: str | None
    ip_address: str | None
    user_agent: str | None
    key_prefix: str | None = None


class UnitOfWork:
    """What an operation works with: the open transaction, the one instant it reads as now, the operator's policy, and
    the audit log.

    Lifetime: one operation. What `concerning` was told names the user and the resource when the operation is refused.
    """

    __slots__ = ("audit_log_id", "context", "now", "policy", "resource_id", "telegram_id", "tx", "user_id")

    def __init__(self, tx: Connection, *, now: str, context: Context, policy: Policy) -> None:
        self.tx = tx
        self.now = now
        self.context = context
        self.policy = policy
        self.audit_log_id: int | None = None
        """The last row of the audit log that was written."""
        self.resource_id: int | None = None
        self.user_id: int | None = None
        self.telegram_id: str | None = None

    def concerning(self, *, resource_id: int | None = None, telegram_id: str | None = None) -> None:
        """Remembers what a refusal would be about, before it is known to exist."""
        self.resource_id = resource_id
        self.telegram_id = telegram_id

    def concerning_account(self, account: Account) -> None:
        """Remembers whose account a refusal would be about."""
        self.user_id = account.user_id
        self.telegram_id = account.telegram_id

    def audit(
        self, action: str, resource_type: str, resource_id: int | None, account: Account | None, details: Details
    ) -> int:
        """Writes the audit row of a change; returns its id. `account` is None when no user is concerned."""
        return self.record(
            AuditEvent(
                action=action,
                resource_type=resource_type,
                resource_id=resource_id,
                user_id=account.user_id if account else None,
                telegram_id=account.telegram_id if account else None,
                details=details,
            )
        )

    def record(self, event: AuditEvent) -> int:
        """Writes the row of `event` under this context; returns its id."""
        context = self.context
        self.audit_log_id = audit_logs.insert(
            self.tx,
            event,
            actor=context.actor,
            request_id=context.request_id,
            ip_address=context.ip_address,
            user_agent=context.user_agent,
            key_prefix=context.key_prefix,
            now=self.now,
        )
        return self.audit_log_id


@dataclass(frozen=True, slots=True)
class Operation:
    """A use case as the writer runs it.

    `run(work, command, target)` does all its checks before its first write, and returns the answer; `target` is the id
    of the resource in the path, 0 where there is none. A Refusal that it raises is audited as `<name>_failed` on
    `resource_type`.
    """

    name: str
    resource_type: str
    run: Callable[[UnitOfWork, Any, int], Answer]


def perform(
    tx: Connection,
    operation: Operation,
    command: Struct,
    target: int,
    *,
    request: Request | None,
    context: Context,
    policy: Policy,
    now: str,
    render_refusal: RenderRefusal,
) -> Answer:
    """Carries out `operation` once for ever under its Idempotency-Key, inside the savepoint `operation`.

    Returns the answer to send after COMMIT. Raises IdempotencyKeyReused or AnswerErased, which leave no trace: the key
    keeps the answer it has. Without a `request` it is the service's own work, which has no key and whose answer nobody
    asks for.
    """
    if request is not None:
        stored = idempotency.find(tx, actor=context.actor, idempotency_key=request.idempotency_key)
        if stored is not None:
            stored_operation, stored_body, answer = stored
            check_same_request(request, operation=stored_operation, body=stored_body, status=answer.status)
            return answer
    work = UnitOfWork(tx, now=now, context=context, policy=policy)
    try:
        answer = operation.run(work, command, target)
    except Refusal as refusal:
        tx.execute("ROLLBACK TO operation")
        work.record(_refused(operation, command, refusal, work))
        answer = render_refusal(refusal, context.request_id or "")
    answer = msgspec.structs.replace(answer, audit_log_id=work.audit_log_id)
    if request is not None:
        idempotency.insert(tx, request, answer, actor=context.actor, now=now)
    return answer


def _refused(operation: Operation, command: Struct, refusal: Refusal, work: UnitOfWork) -> AuditEvent:
    # Of a batch, the refusal says which change it was; a thousand others would only hide it.
    asked = {k: v for k, v in msgspec.structs.asdict(command).items() if isinstance(v, str | int)}
    return AuditEvent(
        action=f"{operation.name}_failed",
        resource_type=operation.resource_type,
        resource_id=work.resource_id,
        user_id=work.user_id,
        telegram_id=work.telegram_id,
        details={**asked, "code": refusal.code, **refusal.members},
    )


def created(view: Struct, location: str) -> Answer:
    """201 with `view`, and where it can be read again."""
    return Answer(status=201, body=msgspec.json.encode(view), location=location)


def ok(view: Struct) -> Answer:
    """200 with `view`."""
    return Answer(status=200, body=msgspec.json.encode(view))
