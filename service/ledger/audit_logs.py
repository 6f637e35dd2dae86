"""The audit log: one row for every change and for every refused attempt."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from service.ledger.fields import Instant

DEPOSIT_TRANSACTION = "deposit_transaction"
"""The guide's resource_type for a row of deposit_transactions."""
BANK_NOTIFICATION = "bank_notification"
USER = "user"
API_KEY = "api_key"
USER_DOMAINS = "user_domains"
AUDIT_LOG = "audit_log"
SERVICE_ACTOR = "system:"
"""How the actor of the service's own work begins; no API key may have such a name."""

JsonObject = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
Details = Mapping[str, str | int | bool | list[str] | list[int] | None]


class AuditEvent(Struct, frozen=True, kw_only=True):
    """What an operation puts on record; who, when and by which request come from its context.

    user_id is null when no user that is there is concerned; telegram_id when no user was named or found; resource_id
    when no resource was named, or made. One that was asked for and is not there is named all the same.
    """

    action: str
    resource_type: str
    resource_id: int | None
    user_id: int | None
    telegram_id: str | None
    details: Details


class AuditLog(Struct, frozen=True, kw_only=True):
    """One row of audit_logs as the API shows it.

    `details` is the JSON object on record, {"text": …} where an old row holds other text, null where it holds none.
    actor is null in rows from before Passbook; request_id, ip_address and user_agent where there was no request.
    """

    id: int
    created_at: Instant | None
    action: str
    telegram_id: str | None
    resource_type: str | None
    resource_id: int | None
    details: JsonObject | None
    actor: str | None
    request_id: str | None
    ip_address: str | None
    user_agent: str | None


class AuditLogPage(Struct, frozen=True, kw_only=True):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[AuditLog]
    next_cursor: str | None


class AuditLogFilter(Struct, frozen=True, kw_only=True):
    """All given conditions hold together. since is inclusive, until exclusive; both are stored UTC text.

    `action` may start or end with `*`, which stands for any characters.
    """

    telegram_id: str | None = None
    action: str | None = None
    resource_type: str | None = None
    resource_id: int | None = None
    since: str | None = None
    until: str | None = None


class SuspiciousActivity(Struct, frozen=True, kw_only=True):
    """One user's refused attempts at one action within the window. telegram_id is null where none was known."""

    telegram_id: str | None
    action: str
    attempts: int


class SuspiciousActivityList(Struct, frozen=True, kw_only=True):
    """Most attempts first; at most 1,000."""

    items: list[SuspiciousActivity]


def readable_details(text: str | None) -> Raw | None:
    """`text` as a JSON object: itself when it is one, {"text": …} when an old row holds anything else."""
    if text is None:
        return None
    try:
        if isinstance(msgspec.json.decode(text), dict):
            return Raw(text.encode())
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        pass
    return Raw(msgspec.json.encode({"text": text}))
