"""The bounded parameters that resources share, and the cursor of a list."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol, TypeVar
from urllib.parse import urlencode

from litestar import Response
from litestar.params import HeaderParameter, PathParameter, QueryParameter

from service.api.problems import invalid
from service.api.request import ApiRequest
from service.ledger import audit_logs
from service.ledger.fields import (
    ACTION_PATTERN,
    AMOUNT_MAX,
    AUDIT_CURSOR_PATTERN,
    DAY_PATTERN,
    DURATION_PATTERN,
    EXPLANATION_CURSOR_PATTERN,
    FOLLOW_PATTERN,
    HEADER_TOKEN_PATTERN,
    ID_PATTERN,
    INSTANT_OR_DAY_PATTERN,
    INSTANT_PATTERN,
    KNOWN_USER_PATTERN,
    ORDER_PATTERN,
    OUTCOME_PATTERN,
    REQUEST_ID_PATTERN,
    SWITCH_PATTERN,
    TEXT_PATTERN,
    WORD_PATTERN,
    ZONE_PATTERN,
)
from service.ledger.timestamps import bound, parsed

IdempotencyKey = Annotated[
    str,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=257,
        pattern=HEADER_TOKEN_PATTERN,
        description=(
            "Names this request for ever; a retry with the same key and body gets the same answer. Keys that begin with"
            " the time, such as a UUIDv7 or ULID, are the quickest in a large ledger."
        ),
    ),
]
TelegramIdPath = Annotated[
    str,
    PathParameter(
        pattern=KNOWN_USER_PATTERN,
        description="Telegram's user id, 1 to 20 digits; erased-… for a user whose personal data was erased.",
    ),
]
IdPath = Annotated[str, PathParameter(pattern=ID_PATTERN, description="The id that the answer to the write gave.")]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="The most items on a page.")]
OptionalLimit = Annotated[
    int | None, QueryParameter(ge=1, le=1000, description="The most items. Default: 50 on a page, all in a stream.")
]
Cursor = Annotated[
    str | None, QueryParameter(pattern=ID_PATTERN, description="next_cursor of the page before; none for the first.")
]
TelegramIdQuery = Annotated[
    str | None, QueryParameter(pattern=KNOWN_USER_PATTERN, description="Only rows about this user.")
]
AmountQuery = Annotated[
    int | None, QueryParameter(ge=1, le=AMOUNT_MAX, description="Only what is of this amount, in won.")
]
ActionQuery = Annotated[
    str | None,
    QueryParameter(
        pattern=ACTION_PATTERN, description="Only this action; * at an end stands for anything, as in *_failed."
    ),
]
ResourceTypeQuery = Annotated[
    str | None, QueryParameter(pattern=WORD_PATTERN, description="Only this kind, such as deposit_transaction.")
]
ResourceIdQuery = Annotated[
    str | None, QueryParameter(pattern=ID_PATTERN, description="Only the resource with this id.")
]
ActorQuery = Annotated[
    str | None,
    QueryParameter(max_length=128, pattern=TEXT_PATTERN, description="Only this actor: the name of an API key."),
]
RequestIdQuery = Annotated[
    str | None, QueryParameter(pattern=REQUEST_ID_PATTERN, description="Only the request with this id.")
]
OutcomeQuery = Annotated[
    str | None, QueryParameter(pattern=OUTCOME_PATTERN, description="Only success, or only failure.")
]
Since = Annotated[
    str | None,
    QueryParameter(
        max_length=40,
        pattern=INSTANT_OR_DAY_PATTERN,
        description="Rows from then on: RFC 3339 instant, or a day in tz.",
    ),
]
Until = Annotated[
    str | None,
    QueryParameter(
        max_length=40,
        pattern=INSTANT_OR_DAY_PATTERN,
        description="Rows before it: RFC 3339 instant, or a day in tz, which is not included.",
    ),
]
On = Annotated[
    str | None, QueryParameter(pattern=DAY_PATTERN, description="Only this whole day in tz; not with since or until.")
]
Zone = Annotated[
    str,
    QueryParameter(
        max_length=123,
        pattern=ZONE_PATTERN,
        description="IANA time zone in which days begin and end, such as Asia/Seoul.",
    ),
]
OrderQuery = Annotated[str, QueryParameter(pattern=ORDER_PATTERN, description="newest first, or oldest first.")]
AuditCursor = Annotated[
    str | None,
    QueryParameter(
        pattern=AUDIT_CURSOR_PATTERN, description="next_cursor of the page before, of the same order; none at first."
    ),
]
ByteOrderMark = Annotated[
    str | None,
    QueryParameter(pattern=SWITCH_PATTERN, description="With text/csv: true for a byte-order mark, which Excel needs."),
]
Follow = Annotated[
    str | None,
    QueryParameter(
        pattern=FOLLOW_PATTERN,
        description="Waits for rows with a higher id, oldest first, as JSON: 0 at first, then next_follow.",
    ),
]
Wait = Annotated[
    int, QueryParameter(ge=1, le=60, description="How many seconds follow waits before it answers with no items.")
]
At = Annotated[
    str | None,
    QueryParameter(
        max_length=40,
        pattern=INSTANT_PATTERN,
        description="RFC 3339 instant to explain. Default, and for a later instant: now. A cursor has its own.",
        schema_extra={"format": "date-time"},
    ),
]
ExplanationCursor = Annotated[
    str | None,
    QueryParameter(
        max_length=450,
        pattern=EXPLANATION_CURSOR_PATTERN,
        description="next_cursor of the page before, of the same moment and version; none for the first.",
    ),
]
Window = Annotated[
    str,
    QueryParameter(
        min_length=3, max_length=30, pattern=DURATION_PATTERN, description="How far back to look: ISO 8601, PT1H."
    ),
]
MaxAge = Annotated[
    str,
    QueryParameter(
        min_length=3,
        max_length=30,
        pattern=DURATION_PATTERN,
        description="How old the answer may be: ISO 8601, PT1H; PT0S asks for a new one.",
    ),
]
Threshold = Annotated[int, QueryParameter(ge=0, le=1_000_000, description="The list has those with more attempts.")]

_FIRST_PAGE = 2**53
LIMIT_DEFAULT = 50
T = TypeVar("T")


class Identified(Protocol):
    """An item of a list that is ordered by its id."""

    @property
    def id(self) -> int:
        """The id."""


def before_id(cursor: str | None) -> int:
    """The id below which the page starts."""
    return int(cursor) if cursor is not None else _FIRST_PAGE


def instant(pointer: str, text: str | None) -> str | None:
    """The stored spelling of an instant in the request. Raises EdgeError when the calendar has no such instant."""
    return _read_instant(pointer, text, bound)


def moment(pointer: str, text: str | None) -> datetime | None:
    """An instant in the request, in UTC. Raises EdgeError when the calendar has no such instant."""
    return _read_instant(pointer, text, parsed)


def _read_instant(pointer: str, text: str | None, read: Callable[[str], T]) -> T | None:
    if text is None:
        return None
    try:
        return read(text)
    except ValueError as error:
        said = "is no instant of the years 1 to 9999; write one such as 2026-01-19T12:00:00Z"
        raise invalid(pointer, said) from error


def page(request: ApiRequest, page_type: type[Any], found: Sequence[Identified], limit: int) -> Response[Any]:
    """A page of the first `limit` of `found`, which holds one more when there is a next page; with its Link header."""
    items = list(found[:limit])
    next_cursor = str(items[-1].id) if len(found) > limit else None
    return Response(page_type(items=items, next_cursor=next_cursor), headers=link_to(request, next_cursor, limit))


def period(tz: str, since: str | None, until: str | None) -> tuple[str | None, str | None]:
    """The stored instants from which and before which rows are wanted, of instants or days in `tz`.

    Raises EdgeError.
    """
    try:
        return audit_logs.period(None, tz, since, until)
    except audit_logs.Invalid as error:
        raise invalid(f"query/{error.name}", error.message) from error


def page_reached(
    request: ApiRequest, page_type: type[Any], items: Sequence[Any], next_cursor: str | None, limit: int
) -> Response[Any]:
    """A page that may be short though there is a next one; with its Link header."""
    return Response(page_type(items=items, next_cursor=next_cursor), headers=link_to(request, next_cursor, limit))


def link_to(request: ApiRequest, next_cursor: str | None, limit: int, *, without: str = "") -> dict[str, str]:
    """The Link header of a page that has a next one: the same query without the parameter `without`; else nothing."""
    if next_cursor is None:
        return {}
    query = {**request.query_params.dict(), "cursor": [next_cursor], "limit": [str(limit)]}
    query.pop(without, None)
    return {"Link": f'<{request.scope["path"]}?{urlencode(query, doseq=True)}>; rel="next"'}
