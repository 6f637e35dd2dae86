"""The audit log as it grows: each row once, as soon as it is there."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.test_audit_logs import every
from tests.live import Client, LiveService
from tests.some import some
from tests.waiting import until


@pytest.fixture(scope="module")
def ops(service: LiveService) -> Client:
    """A reader of a log with some rows."""
    service.client().credit("1", 5000)
    return service.client(service.make_key("--role", "ops"))


def follow(client: Client, after: int, **query: Any) -> dict[str, Any]:
    """One answer."""
    answer = client.get("/v1/audit-logs", params={"follow": after, **query})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def newest(client: Client) -> int:
    """The id of the newest row."""
    return int(client.get("/v1/audit-logs?limit=1").json()["items"][0]["id"])


def under_way(client: Client) -> int:
    """How many requests the service has begun and not answered yet; this question is one of them."""
    return int(re.findall(r"^http_server_active_requests (\d+)$", client.get("/metrics").text, re.MULTILINE)[0])


def test_rows_that_are_there_come_at_once_oldest_first(ops: Client) -> None:
    """From the beginning, page by page, to the end; with nothing new it waits and answers with no items."""
    seen, after = [], 0
    while len(seen) < len(every(ops, limit=1000)):
        page = follow(ops, after, limit=2)
        assert page["next_follow"] == page["items"][-1]["id"]
        seen += page["items"]
        after = page["next_follow"]
    assert seen == every(ops, limit=1000)[::-1]
    began = time.monotonic()
    assert follow(ops, after, wait=1) == {"items": [], "next_follow": after}
    assert 0.9 < time.monotonic() - began < 30  # the second that it asked for, on a busy machine


def test_a_write_ends_the_waiting_whoever_writes(service: LiveService, ops: Client) -> None:
    """The command line writes in a process of its own: its row is seen by the look of every second."""
    after, client = newest(ops), service.client()
    with ThreadPoolExecutor() as pool:
        for number in range(5):
            waiting = pool.submit(follow, ops, after, wait=25)
            until(lambda: under_way(client) > 1, "it waits")
            assert client.write("/v1/users", {"telegram_id": f"77{number}"}).status_code == 201
            found = waiting.result()
            assert [row["action"] for row in found["items"]] == ["user_created"]
            after = found["next_follow"]
        waiting = pool.submit(follow, ops, after, wait=25)
        until(lambda: under_way(client) > 1, "it waits")
        service.make_key("--role", "ops")
        began = time.monotonic()
        assert [row["action"] for row in waiting.result()["items"]] == ["api_key_created"]
        assert time.monotonic() - began < 15  # by the look of every second, not by the end of its time


def test_filters_hold_and_what_does_not_match_is_passed_by(service: LiveService, ops: Client) -> None:
    """next_follow is how far it looked, so that the next request does not look again."""
    after = newest(ops)
    client = service.client()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(follow, ops, after, wait=20, action="*_failed", telegram_id="404")
        for number in range(20):
            client.write("/v1/users", {"telegram_id": f"88{number}"})
        refused = client.write("/v1/debits", {"telegram_id": "404", "amount": 1, "reason": "nobody"})
        assert refused.status_code == 404, refused.text
        found = waiting.result()
    assert [(row["action"], row["telegram_id"]) for row in found["items"]] == [("debit_failed", "404")]
    assert follow(ops, after, wait=1, action="nothing") == {"items": [], "next_follow": newest(ops)}


def test_no_row_is_left_out_and_none_comes_twice(service: LiveService, ops: Client) -> None:
    """Followers of different speed while several callers write."""
    after = newest(ops)
    done = threading.Event()

    def read(limit: int) -> list[int]:
        client, seen, position = service.client(), [], after
        while not (done.is_set() and position >= newest(client)):
            page = follow(client, position, limit=limit, wait=1)
            seen += [row["id"] for row in page["items"]]
            position = page["next_follow"]
        return seen

    def write(number: int) -> None:
        client = service.client()
        for step in range(40):
            client.write("/v1/users", {"telegram_id": f"9{number}{step:03d}"})

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(read, limit) for limit in (1, 7, 1000)]
        list(pool.map(write, range(4)))
        done.set()
        expected = sorted(row["id"] for row in every(ops, limit=1000) if row["id"] > after)
        assert len(expected) == 160
        assert [reader.result() for reader in readers] == [expected] * 3


def test_those_who_wait_hold_nobody_up(service: LiveService, ops: Client) -> None:
    """Fifty wait for one row while another caller writes and reads: it is answered first."""
    after, client = newest(ops), service.client()
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(follow, service.client(), after, wait=25, telegram_id="6699") for _ in range(50)]
        until(lambda: under_way(client) > 50, "all of them wait")
        for number in range(20):
            assert client.write("/v1/users", {"telegram_id": f"66{number}"}).status_code == 201
            assert client.get("/v1/users/1/balance").status_code == 200
        assert not any(found.done() for found in waiting), "the others were answered no sooner than those who wait"
        assert client.write("/v1/users", {"telegram_id": "6699"}).status_code == 201
        assert {found.result()["items"][0]["action"] for found in some(waiting)} == {"user_created"}


def test_a_service_that_stops_answers_those_who_wait(own_service: LiveService) -> None:
    """At once, with no items and the place to go on from."""
    own_service.start()
    client = own_service.client()
    client.credit("1", 5)
    after, other = newest(client), own_service.client()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(follow, client, after, wait=60)
        until(lambda: under_way(other) > 1, "it waits")
        began = time.monotonic()
        own_service.process.send_signal(15)  # type: ignore[union-attr]
        assert waiting.result() == {"items": [], "next_follow": after}
        assert time.monotonic() - began < 30  # not by the end of the minute
    assert own_service.stop() == 0
