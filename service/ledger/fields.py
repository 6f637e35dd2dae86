"""The bounded types that commands, views and parameters share.

Every pattern ends in `$(?!\\n)`: Python's `$` also matches before a trailing newline, ECMA 262's does not.
"""

from typing import Annotated, TypeVar

from msgspec import Meta, UnsetType

T = TypeVar("T")

AMOUNT_MAX = 1_000_000_000_000
"""Won; the largest single movement."""
BALANCE_MAX = 2**53 - 1
"""Won; the largest whole number that every JSON reader holds exactly (RFC 8259 §6)."""

_END = r"$(?!\n)"
# Control characters: ASCII's and Latin-1's, line and paragraph separators, those that turn the writing direction
# (a name could show as another one in the audit log), and the two non-characters of the first plane.
_CONTROL = r"\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\ufffe\uffff"
# Spaces, fillers, joiners and selectors: allowed within a text, but nothing that can be seen.
BLANK = (
    r"\u0020\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u202f\u205f-\u206f"
    r"\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
)
_NOT_CONTROL = f"[^{_CONTROL}]"
_VISIBLE = f"[^{_CONTROL}{BLANK}]"

TELEGRAM_ID_PATTERN = r"^[0-9]{1,20}" + _END
KNOWN_USER_PATTERN = r"^([0-9]{1,20}|erased-[1-9][0-9]{0,14})" + _END
ID_PATTERN = r"^[1-9][0-9]{0,14}" + _END
TEXT_PATTERN = f"^{_NOT_CONTROL}*{_VISIBLE}{_NOT_CONTROL}*" + _END
# A message may have several lines.
MESSAGE_PATTERN = f"^[\\t\\n\\r{BLANK}]*{_VISIBLE}([\\t\\n\\r]|{_NOT_CONTROL})*" + _END
BANK_TRANSACTION_ID_PATTERN = f"^{_VISIBLE}({_NOT_CONTROL}{{0,98}}{_VISIBLE})?" + _END
# A field of fixed width: the name, if any, between NULs, tabs and blanks.
_PADDING = f"[\\u0000\\t{BLANK}]*"
PRINTED_NAME_PATTERN = f"^{_PADDING}({_VISIBLE}({_NOT_CONTROL}{{0,48}}{_VISIBLE})?)?{_PADDING}" + _END
BANK_ACCOUNT_PATTERN = "^[0-9*-]{1,40}" + _END
DOMAIN_PATTERN = f"^{_VISIBLE}+[.\u3002\uff0e\uff61]{_VISIBLE}+" + _END
DEPOSIT_STATUS_PATTERN = r"^(pending|confirmed|cancelled|rejected|expired|reversed)" + _END
BANK_MESSAGE_STATUS_PATTERN = r"^(unreadable|waiting|kept|settled)" + _END
BANK_NOTIFICATION_STATUS_PATTERN = r"^(unmatched|ambiguous|matched|dismissed|cancelled)" + _END
QUEUE_CURSOR_PATTERN = r"^o?[1-9][0-9]{0,14}" + _END
HEADER_TOKEN_PATTERN = r"^(\x22[\x21-\x7e]{1,255}\x22|(?!\x22\x22$)[\x21-\x7e]{1,255})" + _END
REQUEST_ID_PATTERN = r"^[\x21-\x7e]{1,128}" + _END
ACTION_PATTERN = r"^\*?[a-z0-9_]{1,64}\*?" + _END
WORD_PATTERN = r"^[a-z0-9_]{1,64}" + _END
EVENT_ACTION_PATTERN = r"^[a-z][a-z0-9_]{0,56}" + _END
# [0-9], not \d: Python's \d has every script's digits, ECMA 262's has ASCII's.
_TIME_OF_DAY = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_DAY = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_OF_DAY = rf"[Tt]{_TIME_OF_DAY}:[0-5][0-9](\.[0-9]{{1,9}})?([Zz]|[+-]{_TIME_OF_DAY})"
INSTANT_PATTERN = f"^{_DAY}{_OF_DAY}{_END}"
DAY_PATTERN = f"^{_DAY}{_END}"
INSTANT_OR_DAY_PATTERN = f"^{_DAY}({_OF_DAY})?{_END}"
ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+-]{0,39}(/[A-Za-z0-9_+-]{1,40}){0,2}" + _END
SWITCH_PATTERN = r"^(true|false)" + _END
ORDER_PATTERN = r"^(newest|oldest)" + _END
OUTCOME_PATTERN = r"^(success|failure)" + _END
AUDIT_CURSOR_PATTERN = r"^[no][1-9][0-9]{0,14}" + _END
FOLLOW_PATTERN = r"^(0|[1-9][0-9]{0,14})" + _END
EXPLANATION_CURSOR_PATTERN = r"^[0-9]{1,14}-(h|0|[1-9][0-9]{0,14})-[vt][1-9][0-9]{0,14}(-[A-Za-z0-9_-]{1,400})?" + _END
DURATION_PATTERN = r"^P([0-9]{1,3}D)?(T([0-9]{1,4}H)?([0-9]{1,5}M)?([0-9]{1,7}S)?)?" + _END

REMEDIES = {
    TELEGRAM_ID_PATTERN: "1 to 20 digits, as a string",
    KNOWN_USER_PATTERN: "1 to 20 digits, or the name of a user who was erased, such as erased-17",
    ID_PATTERN: "a whole number from 1 to 999999999999999, without leading zeros",
    TEXT_PATTERN: "text with at least one visible character and no control or direction-changing characters",
    MESSAGE_PATTERN: "text with at least one visible character; of the control characters only tabs and line ends",
    BANK_TRANSACTION_ID_PATTERN: "1 to 100 characters without control characters, and no blanks around them",
    PRINTED_NAME_PATTERN: "a name of at most 50 characters, padded with NULs, tabs or blanks; or no name",
    BANK_ACCOUNT_PATTERN: "1 to 40 digits, * and -, as the bank prints an account",
    DOMAIN_PATTERN: "a domain name of at least two labels, such as 한글.kr",
    DEPOSIT_STATUS_PATTERN: "one of pending, confirmed, cancelled, rejected, expired, reversed",
    BANK_MESSAGE_STATUS_PATTERN: "one of unreadable, waiting, kept, settled",
    BANK_NOTIFICATION_STATUS_PATTERN: "one of unmatched, ambiguous, matched, dismissed, cancelled",
    QUEUE_CURSOR_PATTERN: "next_cursor of the page before, as it is",
    HEADER_TOKEN_PATTERN: "1 to 255 visible ASCII characters without spaces, such as a UUID",
    REQUEST_ID_PATTERN: "1 to 128 visible ASCII characters without spaces",
    ACTION_PATTERN: "lower-case letters, digits and _, optionally with * at one end or both",
    WORD_PATTERN: "1 to 64 lower-case letters, digits and _",
    EVENT_ACTION_PATTERN: "1 to 57 lower-case letters, digits and _, beginning with a letter",
    INSTANT_PATTERN: "an RFC 3339 instant such as 2026-01-19T12:00:00Z (write + as %2B in a URL)",
    DAY_PATTERN: "a day such as 2026-11-22",
    INSTANT_OR_DAY_PATTERN: "an RFC 3339 instant such as 2026-01-19T12:00:00Z (write + as %2B in a URL), or a day",
    ZONE_PATTERN: "the name of an IANA time zone such as Asia/Seoul",
    ORDER_PATTERN: "newest or oldest",
    OUTCOME_PATTERN: "success or failure",
    SWITCH_PATTERN: "true or false",
    AUDIT_CURSOR_PATTERN: "next_cursor of the page before, as it is",
    FOLLOW_PATTERN: "a whole number from 0 to 999999999999999, without leading zeros",
    EXPLANATION_CURSOR_PATTERN: "next_cursor of the page before, as it is",
    DURATION_PATTERN: "an ISO 8601 duration such as PT1H or P1D",
}
"""What a pattern asks for, in words, for the message of a validation error."""

TelegramId = Annotated[
    str,
    Meta(min_length=1, max_length=20, pattern=TELEGRAM_ID_PATTERN, description="Telegram's user id, digits as text."),
]
NewTelegramId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=20,
        pattern=TELEGRAM_ID_PATTERN,
        description="Telegram's user id, digits as text. A new user's begins with no 0; one that was taken over may.",
        extra_json_schema={"not": {"pattern": "^0"}},
    ),
]
"""Of a request that makes the user on first use; who is new, `api/new_users.py` asks."""
Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX, description="Won (KRW), a whole number.")]
ResourceId = Annotated[int, Meta(ge=1, le=999_999_999_999_999, description="The id that the answer to the write gave.")]
DepositorName = Annotated[
    str,
    Meta(
        min_length=1, max_length=50, pattern=TEXT_PATTERN, description="The name on the bank transfer, as it is shown."
    ),
]
Username = Annotated[str, Meta(min_length=1, max_length=64, pattern=TEXT_PATTERN, description="Telegram's user name.")]
DomainName = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=253,
        pattern=DOMAIN_PATTERN,
        description="A domain name; UTS 46 and IDNA 2008 make one form of it.",
    ),
]
Reason = Annotated[
    str, Meta(min_length=1, max_length=200, pattern=TEXT_PATTERN, description="Why the balance moves, for people.")
]
Reference = Annotated[
    str,
    Meta(min_length=1, max_length=100, pattern=TEXT_PATTERN, description="The caller's own name for the transaction."),
]
Note = Annotated[
    str, Meta(min_length=1, max_length=500, pattern=TEXT_PATTERN, description="A remark for the audit log.")
]

Instant = Annotated[str, Meta(description="UTC, RFC 3339 with Z.", extra_json_schema={"format": "date-time"})]

OptionalUsername = Username | UnsetType | None
OptionalReference = Reference | UnsetType | None
OptionalNote = Note | UnsetType | None


def is_padded(telegram_id: str) -> bool:
    """Whether it begins with 0, which no id of Telegram's does."""
    return telegram_id[0] == "0"


def given(value: T | UnsetType | None) -> T | None:
    """`value`, or None when the field was left out or null."""
    return None if isinstance(value, UnsetType) else value
