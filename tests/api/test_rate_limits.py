"""What one caller may have at once, over real HTTP: 429 with Retry-After, nothing begun, and nobody else slowed."""

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.ledger.access import RANDOM_BYTES, make_key
from tests.api import wire
from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService, passbook
from tests.waiting import until

MIB = 2**20
WRITES = 14
"""Each takes a fraction of a second on a busy machine too: of two a second some are refused."""
RESIDENT_MAX_MIB = 300


def limited(answer: httpx.Response | wire.Answer) -> bool:
    """Whether it is a whole 429, or else none at all."""
    status = answer.status_code if isinstance(answer, httpx.Response) else answer.status
    if status != 429:
        return False
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert int(headers["retry-after"]) >= 1
    assert headers["content-type"].startswith("application/problem+json")
    assert answer.json()["code"] == "rate_limited"
    return True


def metric(client: Client, name: str) -> float:
    """The value of one series."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


@contextlib.contextmanager
def following(service: LiveService, key: str, count: int) -> Iterator[None]:
    """So many requests of the key that are under way for long."""
    host, port = service.url.removeprefix("http://").split(":")
    newest = service.client().get("/v1/audit-logs?limit=1").json()["items"][0]["id"]
    head = f"GET /v1/audit-logs?follow={newest}&wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection((host, int(port)), 10))
            connection.sendall(head.encode())
        watch = service.client()
        until(lambda: metric(watch, "http_server_active_requests") >= count + 1, "all are under way")
        yield


def test_a_key_with_too_much_under_way_gets_429_and_no_other_does(own_service: LiveService) -> None:
    """Beyond PASSBOOK_KEY_REQUESTS_MAX: refused at once, whatever is asked; another key and the open paths are not."""
    own_service.environment = {"PASSBOOK_KEY_REQUESTS_MAX": "4"}
    client = own_service.start().client()
    client.credit("1", 100)
    key = own_service.make_key("--role", "admin", "--name", "flooder")
    flooder = own_service.client(key)
    with following(own_service, key, 4):
        for _ in range(10):
            assert limited(flooder.get("/v1/users/1/balance"))
            assert limited(flooder.write("/v1/debits", {"telegram_id": "1", "amount": 1, "reason": "x"}, key="again"))
            assert limited(flooder.get("/v1/no-parameter/../users/1?x=1"))
            assert client.get("/v1/users/1/balance").json()["balance"] == 100
            assert own_service.client("").get("/livez").status_code == 200
        assert flooder.get("/v1/no/such/path").status_code == 404
        assert metric(client, 'passbook_limited_total{limit="requests"}') == 30
        assert metric(client, 'passbook_refusals_total{code="rate_limited"}') == 30
    until(lambda: not limited(flooder.get("/v1/users/1/balance")), "the key may ask again")
    debited = flooder.write("/v1/debits", {"telegram_id": "1", "amount": 1, "reason": "x"}, key="again")
    assert (debited.status_code, "Idempotency-Replayed" in debited.headers) == (201, False)
    assert own_service.stop() == 0
    assert own_service.said.count("requests of the API key flooder are limited (requests)") == 1
    assert broken_invariants(own_service.database) == []


def test_writes_beyond_the_rate_are_refused_before_anything_is_begun(own_service: LiveService) -> None:
    """A 429 leaves no row and no stored answer: each request sent again after Retry-After is carried out once."""
    own_service.environment = {"PASSBOOK_KEY_WRITES_PER_S": "2"}
    client = own_service.start().client()
    client.credit("1", 1000)
    key = own_service.make_key("--role", "service")
    caller = own_service.client(key)
    refused = 0
    for number in range(1, WRITES + 1):
        body = {"telegram_id": "1", "amount": 1, "reason": "fee"}
        while limited(answer := caller.write("/v1/debits", body, key=f"debit-{number}")):
            refused += 1
            time.sleep(int(answer.headers["Retry-After"]))
        assert (answer.status_code, "Idempotency-Replayed" in answer.headers) == (201, False)
        assert caller.get("/v1/users/1/balance").json()["balance"] == 1000 - number  # reads are not counted
    assert refused >= 2
    rows = client.get("/v1/audit-logs", params={"action": "balance_debited", "limit": "1000"}).json()["items"]
    assert len(rows) == WRITES
    assert metric(client, 'passbook_limited_total{limit="writes"}') == refused
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


WRONG = {
    "none": {},
    "another scheme": {"Authorization": "Basic abc"},
    "no key": {"Authorization": "Bearer nonsense"},
    "an unknown key": {"Authorization": f"Bearer {make_key(os.urandom(RANDOM_BYTES))}"},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_flood_without_a_valid_key_is_slowed_and_a_valid_key_is_not(own_service: LiveService, wrong: str) -> None:
    """From one address: 401 up to the rate, then 429; a valid key from the same address is answered every time."""
    own_service.environment = {"PASSBOOK_REFUSED_KEYS_PER_S": "3"}
    client = own_service.start().client()
    client.credit("1", 7)
    flooder = own_service.client("")
    flooder.headers.update(WRONG[wrong])
    statuses: Counter[int] = Counter()
    began = time.monotonic()
    for _ in range(60):
        answer = flooder.get("/v1/users/1/balance")
        statuses[answer.status_code] += 1
        assert limited(answer) or answer.json()["code"] in {"api_key_required", "api_key_unknown"}
        assert client.get("/v1/users/1/balance").json()["balance"] == 7
    allowed = 3 + 3 * (time.monotonic() - began) + 1
    assert 3 <= statuses[401] <= allowed
    assert statuses[401] + statuses[429] == 60
    for path in ("/livez", "/readyz", "/docs", "/openapi.json"):
        assert flooder.get(path).status_code == 200
    assert metric(client, 'passbook_limited_total{limit="refused_keys"}') == statuses[429]


def test_behind_a_trusted_proxy_each_client_is_counted_by_itself(own_service: LiveService) -> None:
    """X-Forwarded-For of a named proxy tells clients apart; of anybody else it is what it is, a header."""
    environment = {"PASSBOOK_REFUSED_KEYS_PER_S": "2"}
    for trusted, apart in (("127.0.0.1", True), ("192.0.2.9", False)):
        own_service.environment = {**environment, "PASSBOOK_TRUSTED_PROXIES": trusted}
        own_service.start()
        with httpx.Client(base_url=own_service.url) as flooder:

            def ask(address: str, flooder: httpx.Client = flooder) -> int:
                return flooder.get("/v1/deposits", headers={"X-Forwarded-For": address}).status_code

            assert 429 in [ask("198.51.100.1") for _ in range(50)]
            assert ask("198.51.100.2") == (401 if apart else 429)
            assert 429 in [ask("2001:db8::1") for _ in range(50)]
            assert ask("2001:db8::2") == 429
            assert ask("2001:db8:1::1") == (401 if apart else 429)
        own_service.stop()


def test_a_revoked_key_is_slowed_like_an_unknown_one(own_service: LiveService) -> None:
    """What a service that nobody told goes on sending."""
    own_service.environment = {"PASSBOOK_REFUSED_KEYS_PER_S": "2"}
    own_service.start()
    key = own_service.make_key("--role", "bot")
    assert passbook("keys", "revoke", key.rpartition("_")[0], "--database", str(own_service.database)).returncode == 0
    caller = own_service.client(key)
    answers = [caller.get("/v1/deposits") for _ in range(20)]
    assert {answer.json()["code"] for answer in answers if not limited(answer)} == {"api_key_revoked"}
    assert any(limited(answer) for answer in answers)


def _head(key: str, headers: str) -> bytes:
    return (
        f"POST /v1/balance-changes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
        f"Idempotency-Key: {uuid.uuid4()}\r\nContent-Type: application/json\r\n{headers}\r\n\r\n"
    ).encode()


def test_a_slow_sender_of_large_bodies_takes_its_own_share_alone(own_service: LiveService) -> None:
    """Bytes are counted when they are announced, or as chunks come: beyond half of all the key gets 429 before its body
    is read; another key's bodies are taken all the while, and the half comes back when the connection ends.
    """
    own_service.environment = {"PASSBOOK_BODIES_BYTES_MAX": str(8 * MIB)}
    client = own_service.start().client()
    client.credit("1", 7)
    key = own_service.make_key("--role", "service")
    host, port = own_service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as slow:
        slow.sendall(_head(key, f"Content-Length: {4 * MIB}") + b"{")
        until(lambda: metric(client, "passbook_bodies_size_bytes") >= 4 * MIB, "the announced bytes count")
        assert limited(wire.send(own_service, _head(key, f"Content-Length: {MIB}")))
        chunk = b"%x\r\n%s\r\n" % (1000, b" " * 1000)
        assert limited(wire.send(own_service, _head(key, "Transfer-Encoding: chunked") + chunk))
        assert own_service.client(key).get("/v1/users/1/balance").status_code == 200
        assert client.write("/v1/debits", {"telegram_id": "1", "amount": 1, "reason": "fee"}).status_code == 201
        change = {"telegram_id": "1", "amount": 1, "reason": "gift", "reference": "gift"}
        padded = json.dumps({"changes": [change]}).encode().ljust(3 * MIB)
        assert client.write("/v1/balance-changes", padded).status_code == 200
        with socket.create_connection((host, int(port)), 10) as second:  # all is taken now
            second.sendall(_head(own_service.admin_key, f"Content-Length: {4 * MIB}") + b"{")
            until(lambda: metric(client, "passbook_bodies_size_bytes") >= 8 * MIB, "the second body counts")
            third = own_service.client(own_service.make_key("--role", "service"))
            refused = third.write("/v1/debits", {"telegram_id": "1", "amount": 1, "reason": "fee"})
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            assert int(refused.headers["Retry-After"]) >= 1
    until(lambda: metric(client, "passbook_bodies_size_bytes") == 0, "the bytes are free again")
    padded_again = json.dumps({"changes": [{**change, "reference": "again"}]}).encode().ljust(3 * MIB)
    assert own_service.client(key).write("/v1/balance-changes", padded_again).status_code == 200


def _resident_mib(pid: int) -> float:
    """Of the process and those that it has started."""
    pages, waiting = 0, [str(pid)]
    while waiting:
        process = waiting.pop()
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
            waiting += Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def test_hundreds_of_large_batches_at_once_take_bounded_memory(own_service: LiveService) -> None:
    """240 batches of 1,000 changes from eight keys at once: below 300 MiB, both processes; another caller's balance is
    answered, each batch is carried out once or refused with 429 or 503, and all of it adds up.
    """
    client = own_service.start().client()
    client.credit("1", 7)
    for number in range(2, 12):
        client.write("/v1/users", {"telegram_id": str(number)})
    keys = [own_service.make_key("--role", "service") for _ in range(8)]
    assert own_service.process is not None
    pid, peak_mib, waited_s, done = own_service.process.pid, [0.0], [0.0], threading.Event()

    def batch(number: int) -> int:
        changes: list[dict[str, Any]] = [
            {
                "telegram_id": str(2 + place % 10),
                "amount": 1,
                "reason": "a bonus for the loyal customer",
                "reference": f"{number}-{place}",
            }
            for place in range(1000)
        ]
        with httpx.Client(base_url=own_service.url, timeout=300) as one:
            headers = {"Authorization": f"Bearer {keys[number % 8]}", "Idempotency-Key": f"batch-{number}"}
            return one.post("/v1/balance-changes", json={"changes": changes}, headers=headers).status_code

    def watch() -> None:
        while not done.wait(0.05):
            peak_mib[0] = max(peak_mib[0], _resident_mib(pid))
            asked = time.monotonic()
            assert client.get("/v1/users/1/balance").json()["balance"] == 7
            waited_s[0] = max(waited_s[0], time.monotonic() - asked)

    with ThreadPoolExecutor(241) as pool:
        watching, began = pool.submit(watch), time.monotonic()
        try:
            statuses = Counter(pool.map(batch, range(240)))
        finally:
            all_s = time.monotonic() - began
            done.set()
        watching.result()
    print(statuses, peak_mib, waited_s, all_s)
    assert set(statuses) <= {200, 429, 503}
    assert statuses[200] >= 8
    assert peak_mib[0] < RESIDENT_MAX_MIB
    assert waited_s[0] < all_s / 3
    balances = [client.get(f"/v1/users/{number}/balance").json()["balance"] for number in range(2, 12)]
    assert sum(balances) == 1000 * statuses[200]
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


def test_answers_that_one_key_does_not_take_keep_no_other_body_waiting(own_service: LiveService) -> None:
    """Sixty batches whose answers nobody reads are more than is decoded at once; another key's batch is answered."""
    client = own_service.start().client()
    client.credit("1", 7)
    other = own_service.client(own_service.make_key("--role", "service"))
    host, port = own_service.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        for number in range(60):
            changes = [
                {
                    "telegram_id": "1",
                    "amount": 1,
                    "reason": "a bonus for the customer",
                    "reference": f"{number}-{place}",
                }
                for place in range(1000)
            ]
            body = json.dumps({"changes": changes, "atomic": False}).encode()
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.sendall(_head(own_service.admin_key, f"Content-Length: {len(body)}"))
            connection.sendall(body)
        balance = lambda: client.get("/v1/users/1/balance").json()["balance"]  # noqa: E731
        until(lambda: balance() >= 7 + 50_000, "fifty batches are carried out", every_s=0.1)
        padded = json.dumps({"changes": [{**changes[0], "reference": "other"}]}).encode().ljust(100_000)
        assert other.write("/v1/balance-changes", padded).status_code == 200
        until(lambda: balance() >= 7 + 60_000, "all batches are carried out", every_s=0.1)
