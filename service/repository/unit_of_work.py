"""One request's share of a database transaction, in the order that the invariants ask for.

API key still good? -> stored answer for the Idempotency-Key? -> checks -> change -> transaction row -> audit row ->
stored answer. Whatever raises, the share is taken back and leaves nothing; its neighbours in the same commit do not
notice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from service.ledger.audit_logs import AuditEvent, Details
from service.ledger.errors import ErrorCode, KeyRefused, Refusal
from service.ledger.idempotency import Answer, Request, check_same_request
from service.ledger.policy import Policy
from service.ledger.users import Account
from service.repository.session import Context, Session
from service.storage import audit_chain
from service.storage.sqlite import Connection, transaction

RenderRefusal = Callable[[Refusal, str], Answer]
"""Makes the answer of a refusal for a request id; given by the composition root, since only the API knows HTTP."""


class UnitOfWork:
    """What an operation works with: the session of its database transaction, who asks, and the audit log.

    Lifetime: one operation. What `concerning` was told names the user and the resource when the operation is refused.
    """

    __slots__ = ("audit_log_id", "context", "now", "policy", "resource_id", "session", "telegram_id", "user_id")

    def __init__(self, session: Session, context: Context) -> None:
        self.session = session
        self.context = context
        self.now = session.now
        self.policy = session.policy
        self.audit_log_id: int | None = None
        """The last row of the audit log that was written."""
        self.resource_id: int | None = None
        self.user_id: int | None = None
        self.telegram_id: str | None = None

    @property
    def tx(self) -> Connection:
        """The open transaction, for what an operation reads and writes by itself: see Session.tx."""
        return self.session.tx

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
        self.audit_log_id = self.session.record(event, self.context)
        return self.audit_log_id


@contextmanager
def audited(connection: Connection, *, actor: str, now: str) -> Iterator[UnitOfWork]:
    """A unit of work of the command line in a transaction of its own, sealed and committed at the end of the block."""
    context = Context(actor=actor, request_id=None, ip_address=None, user_agent=None)
    with transaction(connection) as tx, audit_chain.sealing(tx):
        session = Session(tx, now=now, policy=Policy())
        yield UnitOfWork(session, context)
        session.flush()


def _weighs_one(_command: Any) -> int:
    return 1


@dataclass(frozen=True, slots=True)
class Operation:
    """A use case as the writer runs it.

    `run(work, command, target)` does all its checks before its first write, and returns the answer; `target` is the id
    of the resource in the path, 0 where there is none. A Refusal that it raises is audited as `<name>_failed` on
    `resource_type`. `weigh(command)` is about how many rows of the ledger it takes: what a commit may carry is bounded.
    """

    name: str
    resource_type: str
    run: Callable[[UnitOfWork, Any, int], Answer]
    weigh: Callable[[Any], int] = _weighs_one


def perform(
    session: Session,
    operation: Operation,
    command: Struct,
    target: int,
    *,
    request: Request | None,
    context: Context,
    render_refusal: RenderRefusal,
) -> Answer:
    """Carries out `operation` once for ever under its Idempotency-Key, as the operation that the session has begun.

    Returns the answer to send after COMMIT. Raises KeyRefused, IdempotencyKeyReused or AnswerErased, which leave no
    trace: the key keeps the answer it has. Without a `request` it is the service's own work, which has no key and whose
    answer nobody asks for.
    """
    _check_key(session, context)
    if request is not None:
        stored = session.stored_answer(actor=context.actor, idempotency_key=request.idempotency_key)
        if stored is not None:
            check_same_request(request, operation=stored.operation, body=stored.request, status=stored.answer.status)
            return stored.answer
    work = UnitOfWork(session, context)
    try:
        answer = operation.run(work, command, target)
    except Refusal as refusal:
        session.undo_operation()
        work.record(_refused(operation, command, refusal, work))
        answer = render_refusal(refusal, context.request_id or "")
    answer = msgspec.structs.replace(answer, audit_log_id=work.audit_log_id)
    if request is not None:
        session.store_answer(request, answer, actor=context.actor)
    return answer


def _check_key(session: Session, context: Context) -> None:
    """Looks at the API key once more: it may have been revoked after the edge let the request pass. Raises KeyRefused.

    What is read within the transaction holds until its commit, since nobody else can write meanwhile.
    """
    if context.key_id is None:
        return
    standing = session.standing(context.key_id)
    if standing is None:
        raise KeyRefused(ErrorCode.API_KEY_UNKNOWN, "There is no such API key.")
    if standing.revoked:
        raise KeyRefused(ErrorCode.API_KEY_REVOKED, f"The API key {standing.prefix} was revoked.")
    if context.scope is not None and context.scope not in standing.scopes:
        raise KeyRefused(
            ErrorCode.SCOPE_MISSING,
            f"The API key {standing.prefix} lacks the scope {context.scope}.",
            required_scope=context.scope,
        )


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
