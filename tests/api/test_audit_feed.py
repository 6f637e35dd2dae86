"""The long reads of the audit log by themselves, on a real database: what an export holds, and what it gives back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.api import audit_feed
from service.api.audit_feed import EXPORTS_MAX, AuditFeed, Encode
from service.ledger.audit_lines import ndjson
from service.ledger.audit_logs import AuditLogFilter, Order
from service.ledger.errors import Overloaded
from service.storage import sqlite
from service.storage.audit_logs import find_newest_id
from tests.repository.house import House, make_database, opened, writing
from tests.waiting import WAIT_S, until_async

ROWS = 1500


@asynccontextmanager
async def feed_of(path: Path) -> AsyncIterator[tuple[House, AuditFeed]]:
    """A feed beside a writer that runs."""
    async with opened(path) as house, sqlite.Readers(path, count=1, busy_timeout_ms=0).opened() as readers:
        with writing(path) as lookups:
            yield house, AuditFeed(readers, house.writer, partial(find_newest_id, lookups))


def run(path: Path, story: Callable[[House, AuditFeed], Awaitable[None]]) -> None:
    """`story` on a log of ROWS rows."""

    async def told() -> None:
        async with feed_of(path) as (house, feed):
            await story(house, feed)

    make_database(path)
    with writing(path) as connection, sqlite.transaction(connection):
        connection.executemany("INSERT INTO audit_logs (action) VALUES (?)", [("seen",)] * ROWS)
    asyncio.run(told())


async def export(feed: AuditFeed, *, encode: Encode = ndjson, who: str = "ops") -> Any:
    """An export that has begun."""
    return await feed.export(
        AuditLogFilter(),
        order=Order.OLDEST,
        after=None,
        limit=None,
        who=who,
        encode=encode,
        header=b"",
        media_type="application/x-ndjson",
        headers={},
    )


def test_an_export_is_the_log_as_it_was_when_it_was_asked_for(tmp_path: Path) -> None:
    """A row that is written between two of its reads is not in it."""

    async def story(house: House, feed: AuditFeed) -> None:
        begun = await export(feed)
        await house.announce()
        lines = begun._parts.first + b"".join([chunk async for chunk in begun._parts.chunks])
        assert lines.count(b"\n") == ROWS, "the export has rows from after it was asked for"
        begun._parts.ended()

    run(tmp_path / "p.db", story)


def test_a_commit_wakes_the_one_who_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower need not wait for the next look, which comes in an hour here."""
    monkeypatch.setattr(audit_feed, "_LOOK_EVERY_S", 3600.0)

    async def never() -> Any:
        await asyncio.Event().wait()

    async def story(house: House, feed: AuditFeed) -> None:
        after = ROWS
        for _ in range(3):
            follow = feed.follow(AuditLogFilter(), after=after, limit=10, wait_s=7200, receive=never)
            waits = asyncio.create_task(follow)
            await until_async(lambda: bool(house.writer._committed._waiters), "the follower waits for a commit")
            await house.announce()
            done, _ = await asyncio.wait({waits}, timeout=WAIT_S)
            assert done, "the commit did not wake the follower"
            rows, after = waits.result() or ([], after)
            assert rows[-1].action == "deposit_announced"

    run(tmp_path / "p.db", story)


def test_an_export_that_fails_at_its_first_rows_gives_its_place_back(tmp_path: Path) -> None:
    """However often it fails, the next one of the same key may begin; those that have begun are bounded."""

    def fails(_rows: object) -> bytes:
        raise RuntimeError("these rows cannot be written")

    async def story(_: House, feed: AuditFeed) -> None:
        for _attempt in range(EXPORTS_MAX + 1):
            with pytest.raises(RuntimeError, match="cannot be written"):
                await export(feed, encode=fails)
        begun = [await export(feed) for _ in range(EXPORTS_MAX)]
        with pytest.raises(Overloaded, match=f"{EXPORTS_MAX} exports of the audit log of this API key"):
            await export(feed)
        (await export(feed, who="another"))._parts.ended()
        begun[0]._parts.ended()
        (await export(feed))._parts.ended()

    run(tmp_path / "p.db", story)


def test_a_follower_gives_its_place_back_however_its_wait_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one place for all: rows, the time, a client that leaves, one that is cut off, an error, and the stop."""
    monkeypatch.setattr(audit_feed, "FOLLOWERS_MAX", 1)
    monkeypatch.setattr(audit_feed, "ALL_FOLLOWERS_MAX", 1)

    async def never() -> Any:
        await asyncio.Event().wait()

    async def leaves() -> Any:
        return {"type": "http.disconnect"}

    async def story(house: House, feed: AuditFeed) -> None:
        async def follow(after: int, *, wait_s: float = 7200, receive: Any = never) -> Any:
            return await feed.follow(AuditLogFilter(), after=after, limit=1, wait_s=wait_s, receive=receive)

        rows, _ = await follow(0)
        assert len(rows) == 1
        assert await follow(ROWS, wait_s=0) == ([], ROWS)
        assert await follow(ROWS + 1) is None
        assert await follow(ROWS, receive=leaves) == ([], ROWS)
        assert await follow(ROWS, wait_s=0) == ([], ROWS)
        cut_off = asyncio.create_task(follow(ROWS))
        await until_async(lambda: bool(house.writer._committed._waiters), "the follower waits for a commit")
        with pytest.raises(Overloaded, match="1 requests with follow of this API key are under way"):
            await follow(0)
        cut_off.cancel()
        await asyncio.wait({cut_off}, timeout=WAIT_S)
        with monkeypatch.context() as broken:
            broken.setattr(audit_feed, "_next_rows", None)
            with pytest.raises(TypeError):
                await follow(0)
        feed.stop()
        assert await follow(ROWS) == ([], ROWS)
        rows, _ = await follow(0)
        assert len(rows) == 1

    run(tmp_path / "p.db", story)


def test_an_export_is_read_no_further_and_gives_its_place_back_when_its_client_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends behind the first part: nothing is read or sent after the part under way."""
    monkeypatch.setattr(audit_feed, "_CHUNK_ROWS", 10)
    monkeypatch.setattr(audit_feed, "EXPORTS_MAX", 1)
    encoded, sent = list[int](), list[bytes]()

    def encode(rows: list[Any]) -> bytes:
        encoded.append(len(rows))
        return ndjson(rows)

    async def send(event: Any) -> None:
        sent.append(event.get("body", b""))

    async def never() -> Any:
        await asyncio.Event().wait()

    async def story(_: House, feed: AuditFeed) -> None:
        begun = await export(feed, encode=encode)
        connection = {"abort": lambda: None, "lost": lambda: len(sent) > 1}
        scope: Any = {"type": "http", "extensions": {audit_feed.CONNECTION: connection}}
        await begun.to_asgi_response(None, None)(scope, never, send)
        assert len(sent) == 2, "it was sent on after its client had left"  # the head and the first part
        assert len(encoded) == 2, "it was read on after its client had left"
        (await export(feed))._parts.ended()

    run(tmp_path / "p.db", story)
