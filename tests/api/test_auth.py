"""The edge of every request: what becomes of one that is cut off."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.config import Config
from service.ledger.access import RANDOM_BYTES, ROLES
from service.repository import api_keys
from service.repository.writer import Writer
from service.storage.sqlite import Readers
from tests.repository.house import make_database, writing

BODY = {"telegram_id": "1", "amount": 5, "reason": "x"}


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/users/1/transactions", "not_ready"),
        ("HEAD", "/v1/users/1/transactions", "not_ready"),
        ("GET", "/v1/audit-logs?follow=0", "not_ready"),
        ("POST", "/v1/debits", "outcome_unknown"),
    ],
)
@pytest.mark.long
def test_a_request_that_a_stop_cuts_off_says_what_may_have_come_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, code: str
) -> None:
    """When the grace is over the server cancels it: nothing came of a read, and of a write nobody knows."""
    database = make_database(tmp_path / "p.db")
    with writing(database) as connection:
        key = api_keys.create(
            connection,
            name="test",
            scopes=ROLES["admin"],
            actor="test",
            now="2026-01-19 12:00:00.000",
            random_bytes=bytes(RANDOM_BYTES),
        )
    began = asyncio.Event()

    async def never(*_: Any, **__: Any) -> Any:
        began.set()
        await asyncio.Event().wait()

    async def ask() -> httpx.Response:
        app = create_app(Config(database=str(database)))
        async with app.lifespan(), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            monkeypatch.setattr(Readers, "read_for", never)
            monkeypatch.setattr(Writer, "submit", never)
            headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "cut-off"}
            sent = {"json": BODY} if method == "POST" else {}
            asked = asyncio.create_task(client.request(method, path, headers=headers, **sent))  # type: ignore[arg-type]
            await asyncio.wait_for(began.wait(), 60)
            asked.cancel()  # as uvicorn does
            try:
                answer = await asked
                assert app.state["passbook"].measures.refusals.points[code,] == 1
                return answer
            finally:
                monkeypatch.undo()

    answer = asyncio.run(ask())
    assert answer.status_code == 503
    if method == "HEAD":
        assert answer.content == b""
        return
    told = answer.json()
    assert told["code"] == code
    assert told["detail"] == "The service is stopping, and this request took longer than it waits."
