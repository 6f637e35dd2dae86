"""Pages of lists whose conditions no single index serves: a bounded number of rows is read, then a cursor goes on."""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from service.storage.sqlite import Connection

READ_MAX = 10_000
"""Most entries of an index, or rows, that one page reads."""
CHUNK = 500
"""How many ids are looked at in one statement."""
T = TypeVar("T")
Values = dict[str, str | int | None]


class Page(Struct, Generic[T], frozen=True):
    """A page, and the id after which the next one begins; None where this is the last one."""

    items: list[T]
    reached: int | None


class Walk(Struct, frozen=True):
    """What one walk along an index met: the ids that count, in its order, and how far it came; None at its end."""

    ids: list[int]
    reached: int | None


def first_served(sources: Iterable[Callable[[], list[int] | None]]) -> list[int] | None:
    """The ids of the first source that has no more than READ_MAX; None where each has, or none is given."""
    for source in sources:
        ids = source()
        if ids is not None:
            return ids
    return None


def few(tx: Connection, sql: str, values: Values) -> list[int] | None:
    """The ids that the statement finds, which ends with LIMIT :read; None where there are more than READ_MAX."""
    rows = tx.execute(sql, {**values, "read": READ_MAX + 1}).fetchall()
    return [row[0] for row in rows] if len(rows) <= READ_MAX else None


def walk(tx: Connection, *, end: str, rows: str, values: Values, endless: int) -> Walk:
    """One walk along an index. `end` finds the id at which it stops at the latest, which `rows` has as :end; where the
    index has no more than that, it is `endless`. It ends with the page, of :limit ids."""
    stop = tx.execute(end, values).fetchone()
    last = stop[0] if stop else None
    ids = [row[0] for row in tx.execute(rows, {**values, "end": endless if last is None else last}).fetchall()]
    return Walk(ids, ids[-1] if len(ids) == values["limit"] else last)


def page_of(
    ids: Iterable[int], counted: Callable[[list[int]], Iterable[int]], *, after: int, oldest_first: bool, limit: int
) -> tuple[list[int], int | None]:
    """The first `limit` of `ids` behind `after` that count, and the last of them where there are more.

    counted: of a few ids those that count.
    """
    behind = sorted({one for one in ids if (one > after if oldest_first else one < after)}, reverse=not oldest_first)
    found: list[int] = []
    for begin in range(0, len(behind), CHUNK):
        found += sorted(counted(behind[begin : begin + CHUNK]), reverse=not oldest_first)
        if len(found) > limit:
            return found[:limit], found[limit - 1]
    return found, None


def merged(walks: Sequence[Walk], *, oldest_first: bool, limit: int) -> tuple[list[int], int | None]:
    """One page of several walks in the same order. Behind the place that the shortest came to nothing is known yet."""
    ends = [walk.reached for walk in walks if walk.reached is not None]
    end = (min(ends) if oldest_first else max(ends)) if ends else None
    ids = sorted({one for walk in walks for one in walk.ids}, reverse=not oldest_first)
    if end is not None:
        ids = [one for one in ids if (one <= end if oldest_first else one >= end)]
    if len(ids) > limit:
        return ids[:limit], ids[limit - 1]
    return ids, end
