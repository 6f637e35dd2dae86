"""What a user with very many transactions costs the others, over real HTTP: next to nothing; and the answers hold."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.api.test_explanations import explain, totals, walk
from tests.live import LiveService
from tests.processor import spent_s

ROWS = 60_000
MANY_ROWS = 110_000
"""More than one request sums: each is looked at twice, once for the history and once by its version."""
AT_ONCE = 64
OTHERS_WAIT_SHARE = 4
"""Of the time that the 64 take together, the others wait for a quarter at most; without turns for nearly all of it."""

_FILL = """
WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < ?)
INSERT INTO deposit_transactions (user_id, type, direction, amount, status, created_at, confirmed_at, balance_before,
  balance_after, version)
SELECT ?, 'balance_change', 'credit', 1, 'confirmed', '2026-01-19 12:00:00.000', '2026-01-19 12:00:00.000', v - 1, v, v
FROM n
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service with a user of 60,000 transactions, one of 110,000, and one of a few."""
    live = LiveService(tmp_path_factory.mktemp("at-length") / "passbook.db").start()
    client = live.client()
    for telegram_id in ("1", "2"):
        assert client.write("/v1/users", {"telegram_id": telegram_id}).status_code == 201
    client.credit("3", 77)
    assert live.stop() == 0
    _fill(live.database, {1: ROWS, 2: MANY_ROWS})
    yield live.start()
    assert live.stop() == 0, live.said


def _fill(database: Path, rows: dict[int, int]) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for user_id, count in rows.items():
            connection.execute(_FILL, (count, user_id))
        connection.commit()


def test_64_explanations_at_once_keep_nobody_else_waiting(filled: LiveService) -> None:
    """One key asks 64 times at once for 60,000 causes: another key's balance, lists and explanation, and /readyz, are
    answered soon all the while, and each of the 64 answers is right.
    """
    flooder = filled.make_key("--role", "ops")
    waited: list[tuple[float, str]] = []
    done = threading.Event()

    def flood(_: int) -> dict[str, object]:
        return explain(filled.client(flooder), "1", limit=1)

    def watch(path: str) -> None:
        client = filled.client()
        while not done.is_set():
            began = time.monotonic()
            assert client.get(path).status_code == 200
            waited.append((time.monotonic() - began, path))

    paths = (
        "/readyz",
        "/v1/users/3/balance",
        "/v1/users/3/transactions",
        "/v1/users/3/balance/explain",
        "/v1/deposits",
    )
    with ThreadPoolExecutor(AT_ONCE + len(paths)) as pool:
        watching = [pool.submit(watch, path) for path in paths]
        began = time.monotonic()
        try:
            found = list(pool.map(flood, range(AT_ONCE)))
        finally:
            all_s = time.monotonic() - began
            done.set()
        for each in watching:
            each.result()
    assert {(f["balance"], f["count"], f["proved"]) for f in found} == {(ROWS, ROWS, True)}
    assert {path for _, path in waited} == set(paths)
    print(f"64 explanations took {all_s:.1f} s; the others waited for {max(waited)[0]:.1f} s at most")
    assert max(waited)[0] < all_s / OTHERS_WAIT_SHARE, sorted(waited)[-10:]


def test_more_than_one_request_reads_comes_with_a_cursor(filled: LiveService) -> None:
    """The first answer says how far it is and lists nothing; the next ones are whole, and every cause comes once."""
    client = filled.client()
    first = explain(client, "2", limit=1000)
    assert (first["doubts"], first["proved"], first["items"]) == (["not_summed_yet"], False, [])
    assert first["balance"] == MANY_ROWS
    assert 0 < first["count"] < MANY_ROWS
    pages = []
    for page in walk(client, "2", limit=1000, cursor=first["next_cursor"]):
        pages.append(page)
        if len(pages) == 3:
            break
    whole = [totals(page) for page in pages]
    assert whole == [whole[0]] * 3
    assert (whole[0]["proved"], whole[0]["count"], whole[0]["credits"]) == (True, MANY_ROWS, MANY_ROWS)
    versions = [item["version"] for page in pages for item in page["items"]]
    assert versions == list(range(MANY_ROWS, MANY_ROWS - 3000, -1))


def test_a_past_moment_below_very_many_versions_is_found(filled: LiveService) -> None:
    """Before the first of them: nothing counts; at their time all of them do."""
    client = filled.client()
    before = explain(client, "1", at="2026-01-19T11:59:59.999Z")
    assert (before["balance"], before["count"], before["items"]) == (0, 0, [])
    at = explain(client, "1", at="2026-01-19T12:00:00.000Z", limit=1)
    assert (at["balance"], at["version"], at["proved"]) == (ROWS, ROWS, True)


def test_a_page_after_the_first_reads_no_more_than_itself(filled: LiveService) -> None:
    """What the first one has summed is in the cursor; after a restart it is summed again, with the same result."""
    client = filled.client()
    assert filled.process is not None
    pid = filled.process.pid
    began = spent_s(pid)
    page = explain(client, "1", limit=1)
    first_s, began = spent_s(pid) - began, spent_s(pid)
    for _ in range(10):
        page = explain(client, "1", limit=1, cursor=page["next_cursor"])
        assert (page["count"], page["proved"]) == (ROWS, True)
    next_s = (spent_s(pid) - began) / 10
    assert next_s < first_s / 4, f"the first page took {first_s:.3f} s of the processor, each next one {next_s:.3f} s"
    filled.stop()
    filled.start()
    again = explain(filled.client(), "1", limit=1, cursor=page["next_cursor"])
    assert totals(again) == totals(page)
    assert again["items"][0]["version"] == page["items"][0]["version"] - 1
