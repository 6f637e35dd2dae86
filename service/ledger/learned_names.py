"""Names that a person taught: a bank prints them, and they mean one user.

A learned name counts as one of its user's names, with each notification anew, as docs/learned-names.md tells. It
confirms nothing while it is another user's too. What says too little about a person is not learned.
"""

from msgspec import Struct

from service.ledger.fields import Instant
from service.ledger.likeness import says_who

LEARNED_NAMES_MAX = 50
"""Most names that are learned of one user."""


class LearnedName(Struct, frozen=True, kw_only=True):
    """A name that means the user. bank_notification_id: by which it was learned; learned_by: the API key's name."""

    id: int
    telegram_id: str
    printed_name: str
    bank_notification_id: int
    learned_by: str
    created_at: Instant


class LearnedNamePage(Struct, frozen=True, kw_only=True):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[LearnedName]
    next_cursor: str | None


class LearnedNameForget(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Takes a learned name away; there is nothing to say with it."""


class LearnedNameForgotten(LearnedName, frozen=True, kw_only=True):
    """The name that was taken away; what it confirmed stays."""

    audit_log_id: int


def can_be_learned(printed_name: str, *, known: int) -> bool:
    """Whether the printed name says who somebody is, and the user, of whom so many are known, may have one more."""
    return known < LEARNED_NAMES_MAX and says_who(printed_name)
