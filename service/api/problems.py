"""Errors as application/problem+json (RFC 9457): the one table from code to status, and the documents made by it."""

import re
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from service.ledger.errors import ErrorCode, Refusal
from service.ledger.fields import REMEDIES
from service.ledger.idempotency import Answer

MEDIA_TYPE = "application/problem+json"


class Kind(Struct, frozen=True):
    """What a code is: its one HTTP status, its title, and what the caller does about it.

    `members` are those of Problem that say more; `retry`: the same request, with the same key, can succeed later.
    """

    status: int
    title: str
    remedy: str
    members: tuple[str, ...] = ()
    retry: bool = False


CATALOGUE: dict[ErrorCode, Kind] = {
    ErrorCode.MALFORMED_HTTP: Kind(400, "The bytes are no HTTP request", "Let an HTTP/1.1 library write it."),
    ErrorCode.MALFORMED_JSON: Kind(
        400, "The body is not JSON", "Send one JSON object in UTF-8, each member once.", ("errors",)
    ),
    ErrorCode.INVALID_REQUEST: Kind(400, "A field is not valid", "Correct what `errors` names.", ("errors",)),
    ErrorCode.IDEMPOTENCY_KEY_REQUIRED: Kind(
        400, "Idempotency-Key is missing", "Send a new key, such as a UUID, with every new request.", ("errors",)
    ),
    ErrorCode.API_KEY_REQUIRED: Kind(401, "An API key is needed", "Send Authorization: Bearer <key>.", ("errors",)),
    ErrorCode.API_KEY_UNKNOWN: Kind(401, "The API key is not known", "Check the key for typing errors.", ("errors",)),
    ErrorCode.API_KEY_REVOKED: Kind(401, "The API key was revoked", "Ask ops for a new key.", ("errors",)),
    ErrorCode.SCOPE_MISSING: Kind(
        403, "The API key may not do this", "Use a key with `required_scope`.", ("required_scope",)
    ),
    ErrorCode.ROUTE_NOT_FOUND: Kind(404, "There is nothing at this path", "See /docs for the paths."),
    ErrorCode.USER_NOT_FOUND: Kind(
        404, "There is no such user", "Make the user with POST /v1/users first.", ("index",)
    ),
    ErrorCode.DEPOSIT_NOT_FOUND: Kind(404, "There is no such deposit", "Check the id; other transactions are none."),
    ErrorCode.TRANSACTION_NOT_FOUND: Kind(404, "There is no such transaction", "Check the id."),
    ErrorCode.AUDIT_LOG_NOT_FOUND: Kind(404, "There is no such audit log row", "Check the id."),
    ErrorCode.DOMAIN_PURCHASE_NOT_FOUND: Kind(404, "There is no such domain purchase", "Check the id."),
    ErrorCode.BANK_NOTIFICATION_NOT_FOUND: Kind(404, "There is no such bank notification", "Check the id."),
    ErrorCode.BANK_NOTIFICATION_CLOSED: Kind(
        409,
        "The notification is closed",
        "Look at `current_status`: what the bank took back credits nobody.",
        ("current_status",),
    ),
    ErrorCode.BANK_MESSAGE_NOT_FOUND: Kind(404, "There is no such message of a bank", "Check the id."),
    ErrorCode.BANK_MESSAGE_SETTLED: Kind(
        409, "The message waits for nobody", "Look at `current_status`: it is kept, or settled.", ("current_status",)
    ),
    ErrorCode.BANK_MESSAGE_UNFIT: Kind(
        409,
        "The message is not of this notification",
        "Name the notification that it belongs to, or leave bank_notification_id out.",
        ("bank_notification_id",),
    ),
    ErrorCode.LEARNED_NAME_NOT_FOUND: Kind(404, "There is no such learned name", "Check the id; it may be removed."),
    ErrorCode.METHOD_NOT_ALLOWED: Kind(405, "The path has no such method", "Use a method that Allow lists."),
    ErrorCode.NOT_ACCEPTABLE: Kind(406, "No acceptable media type", "Accept what `errors` names.", ("errors",)),
    ErrorCode.REQUEST_TIMEOUT: Kind(
        408, "The request came too slowly", "Send it again, head and body at once.", retry=True
    ),
    ErrorCode.INSUFFICIENT_FUNDS: Kind(
        409, "The balance is too small", "Top up `shortfall` won first.", ("balance", "required", "shortfall", "index")
    ),
    ErrorCode.BALANCE_LIMIT_EXCEEDED: Kind(
        409, "The balance would grow too large", "Stay within `limit` won.", ("balance", "amount", "limit", "index")
    ),
    ErrorCode.DEPOSIT_NOT_PENDING: Kind(
        409, "The deposit is settled already", "Look at `current_status`.", ("current_status",)
    ),
    ErrorCode.DEPOSIT_EXPIRED: Kind(
        409, "The deposit has expired", 'Confirm late money with "late": true.', ("current_status",)
    ),
    ErrorCode.DEPOSIT_MATCHED: Kind(
        409, "The deposit has its bank notification", "Look at `bank_notification_id`.", ("bank_notification_id",)
    ),
    ErrorCode.DEPOSIT_AMOUNT_DIFFERS: Kind(
        409,
        "The bank received another amount",
        "Announce a deposit of `received` won and match that.",
        ("amount", "received"),
    ),
    ErrorCode.BANK_TRANSACTION_REUSED: Kind(
        409,
        "The bank transaction is on record otherwise",
        "See `bank_notification_id`; `differing_fields` differ.",
        ("bank_notification_id", "differing_fields"),
    ),
    ErrorCode.OCCURRED_AHEAD: Kind(
        409,
        "The money came in the future",
        "Write a time of Korea (KST) with +09:00, not with Z. Else set the watcher's clock.",
        ("ahead_s",),
    ),
    ErrorCode.BANK_NOTIFICATION_MATCHED: Kind(
        409, "The notification is matched already", "Look at `deposit_id`.", ("current_status", "deposit_id")
    ),
    ErrorCode.BANK_NOTIFICATION_OPEN: Kind(
        409, "The notification is not dismissed", "Settle it: it is open.", ("current_status",)
    ),
    ErrorCode.BANK_AMOUNT_UNCREDITABLE: Kind(
        409, "No deposit can be of this amount", "Dismiss the notification.", ("received",)
    ),
    ErrorCode.DEPOSIT_OF_OTHER_USER: Kind(
        409, "The deposit is another user's", "Name a pending deposit of the user, or none."
    ),
    ErrorCode.TRANSACTION_NOT_CONFIRMED: Kind(
        409, "The transaction moved no money", "Look at `current_status`.", ("current_status",)
    ),
    ErrorCode.TRANSACTION_REVERSED: Kind(
        409, "The transaction was reversed before", "Look at `reversed_by_id`.", ("current_status", "reversed_by_id")
    ),
    ErrorCode.PAYMENT_HELD: Kind(
        409,
        "A held name stands on the payment",
        "Release the purchase `domain_purchase_id`: that pays back.",
        ("domain_purchase_id", "domain"),
    ),
    ErrorCode.PAYMENT_REGISTERED: Kind(
        409,
        "A name was registered for the payment",
        'To give it back all the same, say "goodwill": true; the name stays registered.',
        ("domain_purchase_id", "domain"),
    ),
    ErrorCode.REFUND_FINAL: Kind(
        409,
        "The refund of a purchase stays",
        "To take the money again, debit it with a reason of its own.",
        ("domain_purchase_id", "domain", "current_status"),
    ),
    ErrorCode.REFERENCE_USED: Kind(
        409, "The reference names another change", "Look at `transaction_id`.", ("transaction_id", "index")
    ),
    ErrorCode.DOMAIN_TAKEN: Kind(
        409, "The name has a live purchase", "Choose another name; see `current_status`.", ("current_status",)
    ),
    ErrorCode.DOMAIN_PURCHASE_NOT_PENDING: Kind(
        409, "The purchase is settled already", "Look at `current_status`.", ("current_status",)
    ),
    ErrorCode.PAYMENT_REVERSED: Kind(
        409,
        "The payment was reversed",
        "Release the purchase; or reverse `reversed_by_id`, then complete it with a new key.",
        ("reversed_by_id",),
    ),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: Kind(
        409,
        "The Idempotency-Key names another request",
        "Use a new key; `differing_fields` says what differs.",
        ("differing_fields",),
    ),
    ErrorCode.ANSWER_ERASED: Kind(
        409, "The answer was erased", "Do not send it again with a new key: `detail` says whether it was carried out."
    ),
    ErrorCode.AUDIT_ROWS_ARCHIVED: Kind(
        410,
        "The next rows were archived",
        "Read them in `archive`; follow `through_id` for what came after.",
        ("archive", "through_id"),
    ),
    ErrorCode.BODY_TOO_LARGE: Kind(413, "The body is too large", "Send less.", ("errors",)),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: Kind(
        415, "The body's media type is not JSON", "Send application/json.", ("errors",)
    ),
    ErrorCode.RATE_LIMITED: Kind(
        429, "This caller asks for too much at once", "Retry after Retry-After with the same key.", retry=True
    ),
    ErrorCode.HEADERS_TOO_LARGE: Kind(431, "The headers are too large", "Send fewer and shorter headers."),
    ErrorCode.INTERNAL_ERROR: Kind(
        500, "An error of the service", "Report request_id; retry with the same key.", retry=True
    ),
    ErrorCode.AUDIT_LOG_CONTRADICTED: Kind(
        500, "The audit log is not what was signed", "Stop; find what changed with passbook audit verify."
    ),
    ErrorCode.OVERLOADED: Kind(
        503, "Too much is waiting already", "Retry after Retry-After with the same key.", retry=True
    ),
    ErrorCode.DATABASE_BUSY: Kind(503, "The database is held elsewhere", "Retry with the same key.", retry=True),
    ErrorCode.STORAGE_FULL: Kind(503, "The disk is full", "Free space; retry with the same key.", retry=True),
    ErrorCode.WRITES_STALLED: Kind(
        503, "The writing process does not answer", "Nothing was begun; retry with the same key.", retry=True
    ),
    ErrorCode.WRITES_STOPPED: Kind(
        503, "No writes are taken", "Restart the service; retry with the same key.", retry=True
    ),
    ErrorCode.OUTCOME_UNKNOWN: Kind(
        503, "The outcome is not known", "Retry with the same key until it answers.", retry=True
    ),
    ErrorCode.NOT_READY: Kind(
        503,
        "The service is not ready",
        "`reads` and `writes` say what does not work, `detail` why.",
        ("reads", "writes"),
        retry=True,
    ),
}


class Violation(Struct, frozen=True):
    """One thing that is wrong. `pointer`: "#/amount" in the body, "query/limit", "path/…" or "header/…" elsewhere."""

    pointer: str
    message: str


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document. The members after `errors` are there where they help."""

    type: str
    title: str
    status: int
    detail: str
    code: ErrorCode
    request_id: str
    errors: Annotated[list[Violation], Meta(description="What is wrong, field by field.")] | UnsetType = UNSET
    balance: Annotated[int, Meta(description="The balance, in won.")] | UnsetType = UNSET
    required: Annotated[int, Meta(description="What was asked for, in won.")] | UnsetType = UNSET
    shortfall: Annotated[int, Meta(description="What the balance lacks, in won.")] | UnsetType = UNSET
    amount: Annotated[int, Meta(description="The amount of the movement or of the deposit, in won.")] | UnsetType = (
        UNSET
    )
    limit: Annotated[int, Meta(description="The largest balance there can be, in won.")] | UnsetType = UNSET
    current_status: Annotated[str, Meta(description="The status as it is.")] | UnsetType = UNSET
    reversed_by_id: Annotated[int, Meta(description="The transaction that took it back.")] | UnsetType = UNSET
    transaction_id: Annotated[int, Meta(description="The transaction that is there.")] | UnsetType = UNSET
    domain_purchase_id: Annotated[int, Meta(description="The domain purchase that it belongs to.")] | UnsetType = UNSET
    domain: Annotated[str, Meta(description="The name of that purchase.")] | UnsetType = UNSET
    deposit_id: Annotated[int, Meta(description="The deposit that is matched.")] | UnsetType = UNSET
    bank_notification_id: Annotated[int, Meta(description="The bank notification that is there.")] | UnsetType = UNSET
    received: Annotated[int, Meta(description="What the bank received, in won.")] | UnsetType = UNSET
    ahead_s: Annotated[int, Meta(description="How far it is ahead, in seconds.")] | UnsetType = UNSET
    index: Annotated[int, Meta(description="Which change of a batch, from 0.")] | UnsetType = UNSET
    archive: Annotated[str, Meta(description="The file that has the archived rows.")] | UnsetType = UNSET
    through_id: Annotated[int, Meta(description="The newest row that was archived.")] | UnsetType = UNSET
    differing_fields: Annotated[list[str], Meta(description="The fields that are not as they were.")] | UnsetType = (
        UNSET
    )
    required_scope: Annotated[str, Meta(description="The scope that the key lacks.")] | UnsetType = UNSET
    reads: Annotated[str, Meta(description="`ok`, or why nothing is read.")] | UnsetType = UNSET
    writes: Annotated[str, Meta(description="`ok`, or why no writes are taken.")] | UnsetType = UNSET


class EdgeError(Exception):
    """A request that the edge refuses before any operation sees it."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        errors: list[Violation] | None = None,
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.members = {**members, **({"errors": errors} if errors else {})}


def invalid(pointer: str, message: str) -> EdgeError:
    """The error for one invalid field."""
    return EdgeError(ErrorCode.INVALID_REQUEST, f"{pointer}: {message}", errors=[Violation(pointer, message)])


def unsupported(pointer: str, message: str) -> EdgeError:
    """The error for a body whose headers say that it is something else than plain JSON."""
    return EdgeError(
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        f"{pointer}: {message}",
        errors=[Violation(pointer, message)],
        headers={"Accept-Post": "application/json"},
    )


def encode(code: ErrorCode, detail: str, request_id: str, members: dict[str, Any]) -> bytes:
    """The problem document. Its type is a name, not an address: stored answers must mean the same for ever."""
    kind = CATALOGUE[code]
    return msgspec.json.encode(
        Problem(
            type=f"urn:passbook:problem:{code}",
            title=kind.title,
            status=kind.status,
            detail=detail,
            code=code,
            request_id=request_id,
            **members,
        )
    )


def render_refusal(refusal: Refusal, request_id: str) -> Answer:
    """The answer to a refused operation, as it is stored."""
    return Answer(
        status=CATALOGUE[refusal.code].status,
        body=encode(refusal.code, refusal.detail, request_id, refusal.members),
    )


_KINDS = {
    "int": "a whole number",
    "float": "a number with a fraction",
    "str": "text",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
"""msgspec's names of JSON types, in words."""


def readable(message: str) -> str:
    """msgspec's message in words. A pattern is replaced by what it asks for."""
    if found := re.match(r"Expected `str` matching regex (['\"])(.*)\1$", message, re.DOTALL):
        pattern = found[2].replace("\\\\", "\\")
        return f"must be {REMEDIES.get(pattern, 'text of another form')}"
    if found := re.match(r"Expected `(.+)`, got `(.+)`$", message):
        expected, got = (" or ".join(_KINDS.get(kind, kind) for kind in kinds.split(" | ")) for kinds in found.groups())
        return f"must be {expected}, not {got}"
    if found := re.match(r"Expected `\w+` (of length )?(>=|<=) (-?\d+)$", message):
        bound = f"{'at least' if found[2] == '>=' else 'at most'} {found[3]}"
        return f"must have a length of {bound}" if found[1] else f"must be {bound}"
    if message.endswith("out of range"):
        return "is too large a number"
    return message
