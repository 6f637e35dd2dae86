"""One caller against the others, on a real service: who floods waits behind itself, and its key can be revoked."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.faults.wire import Request
from tests.ledger_check import broken_invariants
from tests.live import LiveService, passbook
from tests.waiting import until

BATCHES = 40
CHANGES = 500
"""More than share a commit."""
FLOODERS = 40


def batch(run: str, number: int) -> Request:
    """A large batch of balance changes, whose references nobody else has."""
    changes = [
        {"telegram_id": str(600_000 + n % 200), "amount": 1, "reason": "flood", "reference": f"{run}-{number}-{n}"}
        for n in range(CHANGES)
    ]
    return Request("/v1/balance-changes", json.dumps({"changes": changes}), f"{run}-{number}")


@dataclass
class Caller:
    """One connection with one API key, whose writes are timed."""

    service: LiveService
    api_key: str
    seconds: list[float] = field(default_factory=list)

    def write(self, request: Request) -> int:
        """The status of the answer."""
        with closing(http.client.HTTPConnection(urlsplit(self.service.url).netloc, timeout=120)) as connection:
            headers = {
                "Authorization": f"Bearer {self.api_key}",
                "Idempotency-Key": request.key,
                "Content-Type": "application/json",
            }
            began = time.perf_counter()
            connection.request(request.method, request.path, request.body.encode(), headers)
            answer = connection.getresponse()
            answer.read()
            self.seconds.append(time.perf_counter() - began)
            return answer.status


def announce(number: int, telegram_id: str = "5001") -> Request:
    """A light write."""
    body = {"telegram_id": telegram_id, "amount": 1 + number, "depositor_name": "홍길동"}
    return Request("/v1/deposits", json.dumps(body), f"light-{number}")


@contextmanager
def flooded(service: LiveService, flooder: Caller, statuses: list[int], run: str) -> Iterator[threading.Event]:
    """For the block the flooder's batches wait, BATCHES of them, and more until the event is set or one is refused."""
    numbers, enough = itertools.count(), threading.Event()

    def flood() -> None:
        while (number := next(numbers)) < BATCHES or not enough.is_set():
            statuses.append(flooder.write(batch(run, number)))
            if statuses[-1] != 200:
                return

    with ThreadPoolExecutor(FLOODERS) as pool:
        asked = [pool.submit(flood) for _ in range(FLOODERS)]
        try:
            with service.client() as client:
                until(lambda: client.get("/readyz").json()["queue_depth"] >= BATCHES // 4, "the flood queues")
            yield enough
        finally:
            enough.set()
        for one in asked:
            one.result()


def test_a_flood_waits_behind_itself(service: LiveService) -> None:
    """Beside queued batches from one key, another's write waits for a few of them and not for all."""
    bot = Caller(service, service.make_key("--role", "bot"))
    flooder = Caller(service, service.make_key("--role", "service"))
    statuses: list[int] = []
    with flooded(service, flooder, statuses, "flood"):
        for number in range(5):
            assert bot.write(announce(number)) == 201
    assert set(statuses) == {200}
    # A flooder's batch waits for all the others' before it: so would the bot's write in a queue without turns.
    flooder.seconds.sort()
    print(f"the bot waited {max(bot.seconds):.2f} s, half of the batches {flooder.seconds[len(statuses) // 2]:.2f} s")
    assert max(bot.seconds) < flooder.seconds[len(statuses) // 2] / 2


def test_the_key_that_floods_is_revoked_at_once(service: LiveService) -> None:
    """`keys revoke` gets its turn while the flood goes on, which only its refusal ends; what waits is refused too."""
    key = service.make_key("--role", "service")
    flooder = Caller(service, key)
    statuses: list[int] = []
    with flooded(service, flooder, statuses, "revoked") as enough:
        said = passbook("keys", "revoke", key[:12], "--database", str(service.database))
        assert said.returncode == 0, said.stderr
        until(lambda: 401 in statuses, "the revoked key is refused")
        assert not enough.is_set()
    assert set(statuses) == {200, 401}
    assert broken_invariants(service.database) == []


def test_a_key_that_is_revoked_while_its_body_is_on_the_way_writes_nothing(service: LiveService) -> None:
    """Head sent, key revoked, body sent: 401, and neither the ledger nor the audit log has anything of it."""
    key = service.make_key("--role", "bot")
    sent = announce(1, "5002").encoded(key)
    head, _, body = sent.partition(b"\r\n\r\n")
    address = urlsplit(service.url)
    with closing(http.client.HTTPConnection(address.netloc, timeout=60)) as connection:
        connection.connect()
        connection.sock.sendall(head + b"\r\n\r\n" + body[:5])
        with service.client() as client:  # its answer comes after the head has been read
            assert client.get("/readyz").status_code == 200
        assert passbook("keys", "revoke", key[:12], "--database", str(service.database)).returncode == 0
        connection.sock.sendall(body[5:])
        answer = http.client.HTTPResponse(connection.sock, method="POST")
        answer.begin()
        said = json.loads(answer.read())
    assert (answer.status, said["code"]) == (401, "api_key_revoked")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    with service.client() as client:
        assert client.get("/v1/users/5002/balance").status_code == 404
        assert client.get("/v1/audit-logs", params={"telegram_id": "5002"}).json()["items"] == []
