"""Every end of a wait for the audit log's next row, and every bound of who may wait, is needed.

Each is taken out of the running program in turn, and one of the askers below must then wait in vain, or get what it
must not have.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.api import audit_feed
from service.api.audit_feed import AuditFeed
from service.ledger.audit_logs import AuditLogFilter
from service.ledger.errors import AuditRowsArchived, Overloaded
from service.storage import sqlite
from service.storage.audit_logs import find_newest_id
from tests.removed_checks import checks_of
from tests.repository.house import make_database, writing
from tests.storage.test_audit_verification import append, prune
from tests.storage.test_each_check_of_the_log import needless

ROWS, PRUNED, MOST, ALL_MOST = 20, 4, 2, 3
NEWEST = ROWS + 1
"""The row that tells of the prune."""
WITHIN_S, IN_VAIN_S = 20, 1
"""How long an asker has the first time, with every check in place, and afterwards, when it may wait in vain."""
FOLLOWING = ("AuditFeed._follow", "AuditFeed._more", "_next_rows", "_Slots.take")
Asker = Callable[[AuditFeed], Awaitable[bool]]


class Commits:
    """Tells of commits when the test says so; of a writer nothing else is asked."""

    async def next_commit(self) -> None:
        """Never comes."""
        await asyncio.Event().wait()


async def stays(receive_after_s: float = 3600) -> dict[str, Any]:
    """A client that does not go away."""
    await asyncio.sleep(receive_after_s)
    return {"type": "http.disconnect"}


async def leaves() -> dict[str, Any]:
    """A client that has gone."""
    return {"type": "http.disconnect"}


async def answer(feed: AuditFeed, after: int, *, wait_s: float = 60, receive: Any = stays, who: str = "me") -> Any:
    """What a follower gets."""
    return await feed.follow(AuditLogFilter(), after=after, limit=5, wait_s=wait_s, receive=receive, who=who)


async def rows_that_are_there(feed: AuditFeed) -> bool:
    found = await answer(feed, PRUNED)
    return found is not None and [row.id for row in found[0]] == [5, 6, 7, 8, 9]


async def nothing_for_a_while(feed: AuditFeed) -> bool:
    return bool(await answer(feed, NEWEST, wait_s=0.1) == ([], NEWEST))


async def nobody_asks_any_more(feed: AuditFeed) -> bool:
    return bool(await answer(feed, NEWEST, receive=leaves) == ([], NEWEST))


async def the_service_stops(feed: AuditFeed) -> bool:
    asked = asyncio.create_task(answer(feed, NEWEST))
    await asyncio.sleep(0.1)
    feed.stop()
    return bool(await asked == ([], NEWEST))


async def beyond_the_newest(feed: AuditFeed) -> bool:
    return await answer(feed, NEWEST + 1, wait_s=0) is None


async def archived_rows(feed: AuditFeed) -> bool:
    try:
        await answer(feed, 1)
    except AuditRowsArchived as error:
        return f"up to {PRUNED} were archived" in str(error)
    return False


def more_than(most: int, name: Callable[[int], str]) -> Asker:
    """Whether the next one after `most` is refused, each of which is called by its number."""

    async def ask(feed: AuditFeed) -> bool:
        waiting = [asyncio.create_task(answer(feed, NEWEST, who=name(number))) for number in range(most)]
        await asyncio.sleep(0.05)
        try:
            await answer(feed, NEWEST, wait_s=0, who=name(most))
        except Overloaded:
            return True
        finally:
            for task in waiting:
                task.cancel()
        return False

    return ask


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A log of twenty rows, the oldest four archived and removed."""
    path = make_database(tmp_path / "p.db")
    with writing(path) as connection:
        append(connection, ROWS)
    prune(path, PRUNED)
    return path


@contextmanager
def asked_of(database: Path) -> Iterator[Callable[[Asker], Callable[[], bool]]]:
    """Makes an attempt of an asker: a feed of its own, on a loop of its own, for a bounded time."""

    async def run(asker: Asker, within_s: float) -> bool:
        with sqlite.connect_reader(database, busy_timeout_ms=0) as looking:
            async with sqlite.Readers(database, count=1, busy_timeout_ms=0).opened() as readers:
                feed = AuditFeed(readers, Commits(), lambda: find_newest_id(looking))  # type: ignore[arg-type]
                return await asyncio.wait_for(asker(feed), within_s)

    def attempt(asker: Asker) -> Callable[[], bool]:
        bounds = iter([WITHIN_S])
        return lambda: asyncio.run(run(asker, next(bounds, IN_VAIN_S)))

    yield attempt


@pytest.mark.long
def test_each_end_and_each_bound_of_following_is_needed(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, the time, the client's leaving, the service's stop, a place beyond the end, an archive, and two bounds."""
    monkeypatch.setattr(audit_feed, "FOLLOWERS_MAX", MOST)
    monkeypatch.setattr(audit_feed, "ALL_FOLLOWERS_MAX", ALL_MOST)
    checks = [
        *checks_of(audit_feed, *FOLLOWING, refusal="None"),
        *checks_of(audit_feed, "AuditFeed._follow", refusal="(rows, after)"),
        *checks_of(audit_feed, "AuditFeed._more", refusal=""),
    ]
    with asked_of(database) as asked:
        attempts = {
            asker.__name__: asked(asker)
            for asker in (
                *(rows_that_are_there, nothing_for_a_while, nobody_asks_any_more, the_service_stops),
                *(beyond_the_newest, archived_rows),
            )
        }
        attempts["one too many of one"] = asked(more_than(MOST, lambda _: "me"))
        attempts["one too many of all"] = asked(more_than(ALL_MOST, str))
        assert needless(checks, attempts, {}) == set()
    assert {check.function for check in checks} == {*FOLLOWING}
    assert len(checks) >= 8
