"""The wall clock is set ahead, back and beyond 2038 under the running service, by libfaketime.

Only the wall clock: the one that nobody can set keeps its pace, as on a real machine.
"""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService, passbook
from tests.waiting import until

EXPIRY_S = 3
INTERVAL_S = 1
LATE_S = 2 * EXPIRY_S + 2 * INTERVAL_S + 5
"""A clock that jumped is believed after two windows at most; the rest is for a busy machine."""


def _library() -> str:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    assert found, "install faketime (on Debian: apt-get install faketime)"
    return str(found[0])


class Clock:
    """The service's wall clock. `set("-2d")` moves it against the real one."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set("+0")

    def set(self, offset: str) -> None:
        self.file.write_text(offset + "\n")

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PASSBOOK_DEPOSIT_EXPIRY_S": str(EXPIRY_S),
            "PASSBOOK_HOLD_EXPIRY_S": str(EXPIRY_S),
            "PASSBOOK_EXPIRY_INTERVAL_S": str(INTERVAL_S),
        }


@pytest.fixture
def clock(own_service: LiveService, tmp_path: Path) -> Clock:
    """The wall clock of `own_service`, which runs."""
    clock = Clock(tmp_path / "clock")
    own_service.environment = clock.environment()
    own_service.start()
    return clock


def _announce(client: Client, telegram_id: str, amount: int) -> dict[str, Any]:
    body = {"telegram_id": telegram_id, "amount": amount, "depositor_name": "홍길동"}
    made = client.write("/v1/deposits", body)
    assert made.status_code == 201, made.text
    announced: dict[str, Any] = made.json()
    return announced


def _offset(answered: dict[str, Any]) -> timedelta:
    """How far ahead of the real clock the service's was when it wrote what it answered."""
    return datetime.fromisoformat(answered["created_at"]) - datetime.now(UTC)


def _seconds_until_expired(client: Client, deposit_id: int, since: float) -> float:
    deposit = f"/v1/deposits/{deposit_id}"
    until(lambda: client.get(deposit).json()["status"] == "expired", "the deposit expires", within_s=LATE_S)
    return time.monotonic() - since


@pytest.mark.parametrize("jump", ["+2d", "+12y"])
def test_a_jump_ahead_lets_nothing_expire_early_nor_wait_for_ever(
    own_service: LiveService, clock: Clock, jump: str
) -> None:
    """What was announced before the jump and what after it both expire, after their time and not long after it."""
    client = own_service.client()
    began = time.monotonic()
    before = _announce(client, "8001", 1000)
    clock.set(jump)
    after = _announce(client, "8002", 2000)
    assert abs(_offset(before)) < timedelta(minutes=1)
    assert _offset(after) > timedelta(days=1), "the service's clock did not jump"
    assert _seconds_until_expired(client, before["id"], began) >= EXPIRY_S
    assert _seconds_until_expired(client, after["id"], began) >= EXPIRY_S

    late = client.write(f"/v1/deposits/{before['id']}/confirm", {"late": True})
    assert late.status_code == 200, late.text
    assert broken_invariants(own_service.database) == []


def test_a_jump_back_makes_what_is_from_the_future_wait(own_service: LiveService, clock: Clock) -> None:
    """While the clock is behind, only what was announced by it expires; the rest does once the clock is right again."""
    client = own_service.client()
    began = time.monotonic()
    before = _announce(client, "8001", 1000)
    clock.set("-2d")
    after = _announce(client, "8002", 2000)
    assert _offset(after) < timedelta(days=-1), "the service's clock did not jump"
    assert _seconds_until_expired(client, after["id"], began) >= EXPIRY_S
    assert client.get(f"/v1/deposits/{before['id']}").json()["status"] == "pending"
    clock.set("+0")
    _seconds_until_expired(client, before["id"], time.monotonic())
    assert broken_invariants(own_service.database) == []


def test_order_and_money_do_not_go_by_the_clock(own_service: LiveService, clock: Clock) -> None:
    """Ahead to 2038 and later, back before the start, and on: versions and ids go on, sums stay right."""
    client = own_service.client()
    stamps = []
    for offset in ("+0", "+12y", "-2d", "+5000d", "-400d", "+0"):
        clock.set(offset)
        stamps.append(client.credit("8003", 100)["confirmed_at"])
    assert stamps != sorted(stamps)
    balance = client.get("/v1/users/8003/balance").json()
    assert (balance["balance"], balance["version"]) == (600, 6)
    listed = client.get("/v1/users/8003/transactions").json()["items"]
    assert [item["version"] for item in listed] == [6, 5, 4, 3, 2, 1]
    log = client.get("/v1/audit-logs", params={"telegram_id": "8003"}).json()["items"]
    assert [row["id"] for row in log] == sorted((row["id"] for row in log), reverse=True)
    assert client.get("/v1/integrity").json()["status"] == "sound"
    assert own_service.stop() == 0
    checked = passbook("integrity", "--database", str(own_service.database))
    assert checked.returncode == 0, checked.stdout + checked.stderr
