"""Expiry: pending deposits and held domain purchases that have waited too long, a bounded batch at a time."""

from datetime import timedelta
from functools import lru_cache

from msgspec import Struct

from service.ledger.audit_logs import SERVICE_ACTOR
from service.ledger.timestamps import parsed, spoken, stored

ACTOR = f"{SERVICE_ACTOR}expiry"
"""Who acts in the audit rows of what expires."""
BATCH_MAX = 100
"""Most rows in one unit of work, so that a request never waits behind more than these."""


class Due(Struct, frozen=True):
    """A row that may have expired, and its place in the order of age: without a readable time first, then oldest."""

    created_at: str | float | None
    id: int


FIRST = Due(None, 0)
"""The place before all others."""


class Expire(Struct, frozen=True, kw_only=True):
    """Closes those rows of `ids`, at most BATCH_MAX, that are still open and older than `created_before`.

    `created_before` is a stored instant. A row without one was the bot's, which kept none, and counts as older.
    """

    ids: list[int]
    created_before: str

    def __post_init__(self) -> None:
        if len(self.ids) > BATCH_MAX:
            raise ValueError(f"{len(self.ids)} rows are more than {BATCH_MAX}")


class Expired(Struct, frozen=True, kw_only=True):
    """Answer to Expire: the ids that expired, and those whose money could not go back (the balance would grow too
    large). What is in neither was settled meanwhile."""

    expired: list[int]
    refused: list[int]


@lru_cache(maxsize=64)  # all announcements of a batch ask for the same one
def expires_at(created_at: str | None, expiry_s: int) -> str | None:
    """When what was made at `created_at` and is open for `expiry_s` may expire: the next sweep after it closes it.

    Both are spoken instants. None without a readable time: that counts as older than all others, and is closed by the
    next sweep.
    """
    if created_at is None or not created_at.endswith("Z"):
        return None
    try:
        return spoken(stored(parsed(created_at) + timedelta(seconds=expiry_s)))
    except (ValueError, OverflowError):
        return None
