"""Everything that can be refused, by name.

A refusal carries facts, never an HTTP status; `api/problems.py` holds the one table from code to status.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """The closed set of `code` in a problem document. A code never changes its meaning or its HTTP status."""

    MALFORMED_HTTP = "malformed_http"
    MALFORMED_JSON = "malformed_json"
    INVALID_REQUEST = "invalid_request"
    IDEMPOTENCY_KEY_REQUIRED = "idempotency_key_required"
    API_KEY_REQUIRED = "api_key_required"
    API_KEY_UNKNOWN = "api_key_unknown"
    API_KEY_REVOKED = "api_key_revoked"
    SCOPE_MISSING = "scope_missing"
    ROUTE_NOT_FOUND = "route_not_found"
    USER_NOT_FOUND = "user_not_found"
    DEPOSIT_NOT_FOUND = "deposit_not_found"
    TRANSACTION_NOT_FOUND = "transaction_not_found"
    AUDIT_LOG_NOT_FOUND = "audit_log_not_found"
    DOMAIN_PURCHASE_NOT_FOUND = "domain_purchase_not_found"
    BANK_NOTIFICATION_NOT_FOUND = "bank_notification_not_found"
    BANK_NOTIFICATION_CLOSED = "bank_notification_closed"
    BANK_MESSAGE_NOT_FOUND = "bank_message_not_found"
    BANK_MESSAGE_SETTLED = "bank_message_settled"
    BANK_MESSAGE_UNFIT = "bank_message_unfit"
    LEARNED_NAME_NOT_FOUND = "learned_name_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    REQUEST_TIMEOUT = "request_timeout"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    BALANCE_LIMIT_EXCEEDED = "balance_limit_exceeded"
    DEPOSIT_NOT_PENDING = "deposit_not_pending"
    DEPOSIT_EXPIRED = "deposit_expired"
    DEPOSIT_MATCHED = "deposit_matched"
    DEPOSIT_AMOUNT_DIFFERS = "deposit_amount_differs"
    BANK_TRANSACTION_REUSED = "bank_transaction_reused"
    OCCURRED_AHEAD = "occurred_ahead"
    BANK_NOTIFICATION_MATCHED = "bank_notification_matched"
    BANK_NOTIFICATION_OPEN = "bank_notification_open"
    BANK_AMOUNT_UNCREDITABLE = "bank_amount_uncreditable"
    DEPOSIT_OF_OTHER_USER = "deposit_of_other_user"
    TRANSACTION_NOT_CONFIRMED = "transaction_not_confirmed"
    TRANSACTION_REVERSED = "transaction_reversed"
    PAYMENT_HELD = "payment_held"
    PAYMENT_REGISTERED = "payment_registered"
    REFUND_FINAL = "refund_final"
    REFERENCE_USED = "reference_used"
    DOMAIN_TAKEN = "domain_taken"
    DOMAIN_PURCHASE_NOT_PENDING = "domain_purchase_not_pending"
    PAYMENT_REVERSED = "payment_reversed"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    ANSWER_ERASED = "answer_erased"
    AUDIT_ROWS_ARCHIVED = "audit_rows_archived"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RATE_LIMITED = "rate_limited"
    HEADERS_TOO_LARGE = "headers_too_large"
    INTERNAL_ERROR = "internal_error"
    AUDIT_LOG_CONTRADICTED = "audit_log_contradicted"
    OVERLOADED = "overloaded"
    DATABASE_BUSY = "database_busy"
    STORAGE_FULL = "storage_full"
    WRITES_STALLED = "writes_stalled"
    WRITES_STOPPED = "writes_stopped"
    OUTCOME_UNKNOWN = "outcome_unknown"
    NOT_READY = "not_ready"


class Refusal(Exception):
    """A request that was understood and is refused for what the ledger holds.

    `detail` is one sentence for people. `members` are the typed facts beside it in the problem document, such as
    balance, required and shortfall in won. Raised before the first write of an operation, never after.
    """

    code: ErrorCode

    def __init__(self, detail: str, **members: str | int | list[str]) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members


class UserNotFound(Refusal):
    code = ErrorCode.USER_NOT_FOUND


class DepositNotFound(Refusal):
    code = ErrorCode.DEPOSIT_NOT_FOUND


class TransactionNotFound(Refusal):
    code = ErrorCode.TRANSACTION_NOT_FOUND


class AuditLogNotFound(Refusal):
    code = ErrorCode.AUDIT_LOG_NOT_FOUND


class AuditRowsArchived(Refusal):
    code = ErrorCode.AUDIT_ROWS_ARCHIVED


class InsufficientFunds(Refusal):
    code = ErrorCode.INSUFFICIENT_FUNDS


class BalanceLimitExceeded(Refusal):
    code = ErrorCode.BALANCE_LIMIT_EXCEEDED


class DepositNotPending(Refusal):
    code = ErrorCode.DEPOSIT_NOT_PENDING


class DepositExpired(Refusal):
    code = ErrorCode.DEPOSIT_EXPIRED


class DepositMatched(Refusal):
    code = ErrorCode.DEPOSIT_MATCHED


class DepositAmountDiffers(Refusal):
    code = ErrorCode.DEPOSIT_AMOUNT_DIFFERS


class BankNotificationNotFound(Refusal):
    code = ErrorCode.BANK_NOTIFICATION_NOT_FOUND


class BankNotificationClosed(Refusal):
    code = ErrorCode.BANK_NOTIFICATION_CLOSED


class BankMessageNotFound(Refusal):
    code = ErrorCode.BANK_MESSAGE_NOT_FOUND


class BankMessageSettled(Refusal):
    code = ErrorCode.BANK_MESSAGE_SETTLED


class BankMessageUnfit(Refusal):
    code = ErrorCode.BANK_MESSAGE_UNFIT


class LearnedNameNotFound(Refusal):
    code = ErrorCode.LEARNED_NAME_NOT_FOUND


class BankTransactionReused(Refusal):
    code = ErrorCode.BANK_TRANSACTION_REUSED


class OccurredAhead(Refusal):
    code = ErrorCode.OCCURRED_AHEAD


class BankNotificationMatched(Refusal):
    code = ErrorCode.BANK_NOTIFICATION_MATCHED


class BankNotificationOpen(Refusal):
    code = ErrorCode.BANK_NOTIFICATION_OPEN


class BankAmountUncreditable(Refusal):
    code = ErrorCode.BANK_AMOUNT_UNCREDITABLE


class DepositOfOtherUser(Refusal):
    code = ErrorCode.DEPOSIT_OF_OTHER_USER


class TransactionNotConfirmed(Refusal):
    code = ErrorCode.TRANSACTION_NOT_CONFIRMED


class TransactionReversed(Refusal):
    code = ErrorCode.TRANSACTION_REVERSED


class PaymentHeld(Refusal):
    code = ErrorCode.PAYMENT_HELD


class PaymentRegistered(Refusal):
    code = ErrorCode.PAYMENT_REGISTERED


class RefundFinal(Refusal):
    code = ErrorCode.REFUND_FINAL


class DomainPurchaseNotFound(Refusal):
    code = ErrorCode.DOMAIN_PURCHASE_NOT_FOUND


class ReferenceUsed(Refusal):
    code = ErrorCode.REFERENCE_USED


class DomainTaken(Refusal):
    code = ErrorCode.DOMAIN_TAKEN


class DomainPurchaseNotPending(Refusal):
    code = ErrorCode.DOMAIN_PURCHASE_NOT_PENDING


class PaymentReversed(Refusal):
    code = ErrorCode.PAYMENT_REVERSED


class IdempotencyKeyReused(Refusal):
    code = ErrorCode.IDEMPOTENCY_KEY_REUSED


class AnswerErased(Exception):
    """The key's request was answered before, and the answer went with its user's personal data. Nothing was done now.

    No Refusal: the key keeps its place, and nothing of this is put on record.
    """

    code = ErrorCode.ANSWER_ERASED

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members: dict[str, str] = {}


class KeyRefused(Exception):
    """The API key may not do this any more. Nothing was done, and nothing of this is put on record or stored."""

    def __init__(self, code: ErrorCode, detail: str, **members: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.members = members


class Unavailable(Exception):
    """The service cannot carry out a request now, whatever the request says. Never stored as an answer."""

    code: ErrorCode
    retry_after_s = 1

    def __init__(self, detail: str, **members: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members


class RateLimited(Unavailable):
    """The caller has or sends more than one may. Nothing was done; in `retry_after_s` seconds it may be tried again."""

    code = ErrorCode.RATE_LIMITED

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """The queue of writes is full, too many long reads are under way, or bodies fill the memory. Nothing was done."""

    code = ErrorCode.OVERLOADED


class DatabaseBusy(Unavailable):
    """Another process held the database for longer than the busy timeout. Nothing was done."""

    code = ErrorCode.DATABASE_BUSY


class StorageFull(Unavailable):
    """The disk is full. Nothing was done."""

    code = ErrorCode.STORAGE_FULL
    retry_after_s = 10


class WritesStalled(Unavailable):
    """The writing process does not answer, or cannot be started. Nothing was begun."""

    code = ErrorCode.WRITES_STALLED
    retry_after_s = 5


class WritesStopped(Unavailable):
    """The writer met a storage error that it cannot judge and takes no more writes until a restart."""

    code = ErrorCode.WRITES_STOPPED
    retry_after_s = 30


class OutcomeUnknown(Unavailable):
    """COMMIT failed in a way that does not say whether the change is on disk, or the service stopped before it could
    tell; the same key gives the truth later.
    """

    code = ErrorCode.OUTCOME_UNKNOWN
    retry_after_s = 30


class NotReady(Unavailable):
    """The service is stopping, or does not read or write. `reads` and `writes` among its members say which."""

    code = ErrorCode.NOT_READY
    retry_after_s = 5
