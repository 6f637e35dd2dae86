"""The bounded types that commands, views and parameters share.

Every pattern ends in `$(?!\\n)`: Python's `$` also matches before a trailing newline, ECMA 262's does not.
"""

from typing import Annotated

from msgspec import Meta, UnsetType

AMOUNT_MAX = 1_000_000_000_000
"""Won; the largest single movement."""
BALANCE_MAX = 2**53 - 1
"""Won; the largest whole number that every JSON reader holds exactly (RFC 8259 §6)."""

_END = r"$(?!\n)"
_NOT_CONTROL = r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029]"
_VISIBLE = r"[^\u0000-\u0020\u007f-\u00a0\u2028\u2029\u3000]"

TELEGRAM_ID_PATTERN = r"^[0-9]{1,20}" + _END
ID_PATTERN = r"^[1-9][0-9]{0,14}" + _END
TEXT_PATTERN = f"^{_NOT_CONTROL}*{_VISIBLE}{_NOT_CONTROL}*" + _END
HEADER_TOKEN_PATTERN = r"^[\x21-\x7e]{1,255}" + _END
REQUEST_ID_PATTERN = r"^[\x21-\x7e]{1,128}" + _END
ACTION_PATTERN = r"^\*?[a-z0-9_]{1,64}\*?" + _END
WORD_PATTERN = r"^[a-z0-9_]{1,64}" + _END
INSTANT_PATTERN = r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)" + _END
DURATION_PATTERN = r"^P(\d{1,3}D)?(T(\d{1,4}H)?(\d{1,5}M)?(\d{1,7}S)?)?" + _END

REMEDIES = {
    TELEGRAM_ID_PATTERN: "1 to 20 digits, as a string",
    ID_PATTERN: "a whole number from 1, without leading zeros",
    TEXT_PATTERN: "text with at least one visible character and no control characters",
    HEADER_TOKEN_PATTERN: "1 to 255 visible ASCII characters without spaces",
    REQUEST_ID_PATTERN: "1 to 128 visible ASCII characters without spaces",
    ACTION_PATTERN: "lower-case letters, digits and _, optionally with * at one end or both",
    WORD_PATTERN: "1 to 64 lower-case letters, digits and _",
    INSTANT_PATTERN: "an RFC 3339 instant such as 2026-01-19T12:00:00Z (write + as %2B in a URL)",
    DURATION_PATTERN: "an ISO 8601 duration such as PT1H or P1D",
}
"""What a pattern asks for, in words, for the message of a validation error."""

TelegramId = Annotated[
    str,
    Meta(min_length=1, max_length=20, pattern=TELEGRAM_ID_PATTERN, description="Telegram's user id, digits as text."),
]
Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX, description="Won (KRW), a whole number.")]
DepositorName = Annotated[
    str,
    Meta(
        min_length=1, max_length=50, pattern=TEXT_PATTERN, description="The name on the bank transfer, as it is shown."
    ),
]
Username = Annotated[str, Meta(min_length=1, max_length=64, pattern=TEXT_PATTERN, description="Telegram's user name.")]
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


def given(value: str | UnsetType | None) -> str | None:
    """`value`, or None when the field was left out or null."""
    return None if isinstance(value, UnsetType) else value
