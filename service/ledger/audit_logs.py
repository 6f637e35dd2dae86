"""The audit log: one row for every change, for every refused attempt, and for what callers want on record.

A failure is an action that ends with `_failed`, in the guide's query for suspicious activity as everywhere here; the
column `outcome` says the same, and rows from before it need no other rule.
"""

import re
from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, TypeVar
from zoneinfo import ZoneInfo

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from service.ledger import reserved_names
from service.ledger.fields import (
    BALANCE_MAX,
    EVENT_ACTION_PATTERN,
    REMEDIES,
    WORD_PATTERN,
    ZONE_PATTERN,
    Instant,
    TelegramId,
)
from service.ledger.sealing_rules import LATEST, RULES
from service.ledger.timestamps import bound, day_began, day_ended, zone

DEPOSIT_TRANSACTION = "deposit_transaction"
"""The guide's resource_type for a row of deposit_transactions."""
BANK_NOTIFICATION = "bank_notification"
BANK_MESSAGE = "bank_message"
USER = "user"
API_KEY = "api_key"
USER_DOMAINS = "user_domains"
USER_DEPOSITS = "user_deposits"
AUDIT_LOG = "audit_log"
LEDGER_RESOURCE_TYPES = RULES[LATEST].ledger_resource_types
"""What the ledger's own rows are about, those of migrations and imports too. No caller's event may name one."""
FAILED = "_failed"
ANSWER_DIGEST = "answer_sha256"
"""The member of details that tells the digest of the stored answer: on the last row of each request's."""
_DIGEST_MEMBER = re.compile(rf'(?:,|(?<=^{{))"{ANSWER_DIGEST}":(?:"[0-9a-f]{{64}}"|null)}}$')
DETAILS_BYTES_MAX = 8192
_DETAILS_DEPTH_MAX = 16
_NUMBERS_UP_TO = f"must hold whole numbers up to {BALANCE_MAX}; write larger ones as text"
_DAY_CHARACTERS = 10
SERVICE_ACTOR = "system:"
"""How the actor of the service's own work begins; no API key may have such a name."""

JsonObject = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
T = TypeVar("T")
Details = Mapping[str, str | int | bool | list[str] | list[int] | None]


class Invalid(Exception):
    """What is asked for cannot be. `name` is that of the member or the parameter, `message` what is wrong with it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name} {message}")
        self.name = name
        self.message = message


class Outcome(StrEnum):
    """failure: the attempt was refused or did not succeed, and nothing was changed by it."""

    SUCCESS = "success"
    FAILURE = "failure"


class Order(StrEnum):
    """The order of a list: that in which things happened, by id, or its reverse."""

    NEWEST = "newest"
    OLDEST = "oldest"


class AuditEvent(Struct, frozen=True, kw_only=True):
    """What an operation puts on record; who, when and by which request come from its context.

    user_id is null when no user that is there is concerned; telegram_id when no user was named or found; resource_id
    when no resource was named, or made. One that was asked for and is not there is named all the same.
    """

    action: str
    resource_type: str | None
    resource_id: int | None
    user_id: int | None
    telegram_id: str | None
    details: Mapping[str, Any] | None


class AuditLogPost(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An event that a caller puts on record. The request tells who sends it, when, and from where.

    Neither `action` nor `resource_type` may be one that the ledger itself writes. With the outcome failure, the row's
    action gets `_failed` at its end, unless it ends so already. Without an outcome, the end of the action says it. A
    `telegram_id` that no user has is kept as it is.
    """

    action: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=57,
            pattern=EVENT_ACTION_PATTERN,
            description=(
                "What happened, such as login_failed. It may not begin with a word of the ledger's, in no form of it: "
                + reserved_names.words(reserved_names.ACTIONS_BEGIN)
                + "."
            ),
        ),
    ]
    telegram_id: TelegramId | UnsetType | None = UNSET
    resource_type: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=64,
                pattern=WORD_PATTERN,
                description=(
                    "A kind of the caller's; not, in the singular or the plural, "
                    + reserved_names.words(reserved_names.RESOURCES)
                    + "."
                ),
            ),
        ]
        | UnsetType
        | None
    ) = UNSET
    resource_id: (
        Annotated[int, Meta(ge=1, le=999_999_999_999_999, description="Which one of that kind.")] | UnsetType | None
    ) = UNSET
    details: (
        Annotated[
            dict[str, Any],
            Meta(description="At most 8 KiB and 16 levels; whole numbers up to 2^53 - 1, larger ones as text."),
        ]
        | UnsetType
        | None
    ) = UNSET
    outcome: Outcome | UnsetType | None = UNSET


class AuditLog(Struct, frozen=True, kw_only=True):
    """One row of audit_logs as the API shows it.

    `details` is the JSON object on record, or {"text": …} if an old row holds other text, or null if it holds none.
    actor is null in rows from before Passbook. request_id, ip_address and user_agent are null if there was no request.
    key_prefix, the public start of the API key, is null if no key acted, and in rows from before it was kept.
    """

    id: int
    created_at: Instant | None
    action: str
    outcome: Outcome
    telegram_id: str | None
    resource_type: str | None
    resource_id: int | None
    details: JsonObject | None
    actor: str | None
    key_prefix: str | None
    request_id: str | None
    ip_address: str | None
    user_agent: str | None


class AuditLogPage(Struct, frozen=True, kw_only=True):
    """`next_cursor` is null on the last page, and there alone.

    A search that finds little in much may answer a page that is short, or even empty, with a `next_cursor` that goes
    on from where it stopped looking.
    """

    items: list[AuditLog]
    next_cursor: str | None


class AuditLogFeed(Struct, frozen=True, kw_only=True):
    """The rows after the `follow` that was given, oldest first; none when the time was up.

    `next_follow` is the id up to which the log was looked through: the next `follow`. No row is left out between the
    two, and none comes twice.
    """

    items: list[AuditLog]
    next_follow: int


class AuditLogFilter(Struct, frozen=True, kw_only=True):
    """All given conditions hold together. since is inclusive, until exclusive; both are stored UTC text.

    `action` may start or end with `*`, which stands for any characters.
    """

    telegram_id: str | None = None
    action: str | None = None
    resource_type: str | None = None
    resource_id: int | None = None
    actor: str | None = None
    request_id: str | None = None
    outcome: Outcome | None = None
    since: str | None = None
    until: str | None = None


class SuspiciousActivity(Struct, frozen=True, kw_only=True):
    """One user's refused attempts at one action within the window, and when the first and the last were made.

    telegram_id is null where none was known.
    """

    telegram_id: str | None
    action: str
    attempts: int
    first_at: Instant
    last_at: Instant


class SuspiciousActivityList(Struct, frozen=True, kw_only=True):
    """Most attempts first; at most 1,000."""

    items: list[SuspiciousActivity]


def period(on: str | None, tz: str, since: str | None, until: str | None) -> tuple[str | None, str | None]:
    """The stored instants from which and before which rows are wanted: `on` is a whole day in the time zone `tz`, and
    `since` and `until` are RFC 3339 instants or days there. Raises Invalid.
    """
    try:
        at = zone(tz)
    except ValueError as error:
        raise Invalid("tz", f"must be {REMEDIES[ZONE_PATTERN]}") from error
    if on is None:
        return _instant_or_day("since", since, at), _instant_or_day("until", until, at)
    if since is not None or until is not None:
        raise Invalid("on", "is a whole day; leave out since and until")
    day = _day("on", on)
    return day_began(day, at), day_ended(day, at)


def filter_asked_for(
    *,
    on: str | None,
    tz: str,
    since: str | None,
    until: str | None,
    resource_id: str | None,
    outcome: str | None,
    **equal: str | None,
) -> AuditLogFilter:
    """The filter of what was asked for in words: as `period` takes it, and `equal` as AuditLogFilter does.

    Raises Invalid.
    """
    since, until = period(on, tz, since, until)
    return AuditLogFilter(
        resource_id=int(resource_id) if resource_id else None,
        outcome=Outcome(outcome) if outcome else None,
        since=since,
        until=until,
        **equal,
    )


def _instant_or_day(name: str, text: str | None, at: ZoneInfo) -> str | None:
    if text is None:
        return None
    if len(text) == _DAY_CHARACTERS:
        return day_began(_day(name, text), at)
    try:
        return bound(text)
    except ValueError as error:
        raise Invalid(name, "is no instant of the years 1 to 9999; write one such as 2026-01-19T12:00:00Z") from error


def _day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise Invalid(name, "is no day of the calendar; write one such as 2026-11-22") from error


def outcome_of(action: str) -> Outcome:
    """The outcome that the name of an action tells."""
    return Outcome.FAILURE if action.endswith(FAILED) else Outcome.SUCCESS


def check_is_callers(command: AuditLogPost) -> None:
    """Returns when the event is told in names of the caller's own. Raises Invalid.

    What was posted under a name that was reserved only later stays as it was answered.
    """
    if reserved_names.is_action_reserved(command.action):
        raise Invalid("action", "is reserved for the ledger; choose another name")
    if reserved_names.is_resource_reserved(_given(command.resource_type) or ""):
        raise Invalid("resource_type", "is reserved for the ledger; choose another name")
    _check_floats(_given(command.details))


def posted(command: AuditLogPost) -> AuditEvent:
    """The event of a post, without its user. Raises Invalid for the first member that cannot be taken."""
    action = command.action
    if command.outcome == Outcome.FAILURE and outcome_of(action) == Outcome.SUCCESS:
        action += FAILED
    if command.outcome == Outcome.SUCCESS and outcome_of(action) == Outcome.FAILURE:
        raise Invalid("outcome", f"cannot be success for an action that ends with {FAILED}")
    return AuditEvent(
        action=action,
        resource_type=_given(command.resource_type),
        resource_id=_given(command.resource_id),
        user_id=None,
        telegram_id=_given(command.telegram_id),
        details=_checked_details(_given(command.details)),
    )


def _given(value: T | UnsetType | None) -> T | None:
    return None if isinstance(value, UnsetType) else value


def _checked_details(details: dict[str, Any] | None) -> dict[str, Any] | None:
    _check_value(details, _DETAILS_DEPTH_MAX)
    if details is not None and len(msgspec.json.encode(details)) > DETAILS_BYTES_MAX:
        raise Invalid("details", f"must be at most {DETAILS_BYTES_MAX} bytes of JSON in UTF-8")
    return details


def _check_value(value: object, depth: int) -> None:
    if isinstance(value, int) and abs(value) > BALANCE_MAX:
        raise Invalid("details", _NUMBERS_UP_TO)
    if isinstance(value, dict | list):
        if depth == 0:
            raise Invalid("details", f"must be nested at most {_DETAILS_DEPTH_MAX} levels deep")
        for member in value.values() if isinstance(value, dict) else value:
            _check_value(member, depth - 1)


def _check_floats(value: object) -> None:
    """A whole number that was written as 1e20 is one all the same."""
    if isinstance(value, float) and abs(value) > BALANCE_MAX:
        raise Invalid("details", _NUMBERS_UP_TO)
    if isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            _check_floats(member)


def with_answer_digest(details: str | None, digest: str) -> str:
    """The JSON object `details` with the digest of the answer that is stored for the row's request, as last member."""
    if details is None or details == "{}":
        return f'{{"{ANSWER_DIGEST}":"{digest}"}}'
    return f'{details[:-1]},"{ANSWER_DIGEST}":"{digest}"}}'


def readable_details(text: str | None, resource_type: str | None) -> Raw | None:
    """`text` as a JSON object on one line: itself when it is one, {"text": …} when an old row holds anything else.

    The digest of the stored answer, which tells a reader nothing, is left out of a row of the ledger. What a caller
    told is shown whole, whatever its members are called.
    """
    if text is None:
        return None
    found = _DIGEST_MEMBER.search(text) if resource_type in LEDGER_RESOURCE_TYPES and ANSWER_DIGEST in text else None
    if found:
        text = text[: found.start()] + "}"
    try:
        if isinstance(msgspec.json.decode(text), dict):
            one_line = "\n" not in text and "\r" not in text
            return Raw(text.encode() if one_line else msgspec.json.format(text.encode(), indent=-1))
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        pass
    return Raw(msgspec.json.encode({"text": text}))
