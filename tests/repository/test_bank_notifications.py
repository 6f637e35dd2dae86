"""Matching at the edge of its window."""

import asyncio
from pathlib import Path

import pytest

from service.ledger.bank_notifications import BankNotificationPost
from service.repository import bank_notifications
from tests.ledger_check import broken_invariants
from tests.repository.house import DAY, House, make_database, opened


@pytest.mark.parametrize("notified_first", [True, False])
@pytest.mark.parametrize("later", [True, False])
def test_a_day_apart_is_still_matched(tmp_path: Path, notified_first: bool, later: bool) -> None:
    """The money came exactly one window before or after the announcement, and is told of before or after it."""

    async def notify(house: House, occurred_at: str) -> None:
        command = BankNotificationPost(
            bank_transaction_id="KB-1", depositor_name="홍길동", amount=1000, occurred_at=occurred_at
        )
        await house.do(bank_notifications.RECEIVE, command)

    async def run() -> None:
        async with opened(path) as house:
            occurred_at = f"{house.time.now + (DAY if later else -DAY):%Y-%m-%dT%H:%M:%SZ}"
            if notified_first:
                await notify(house, occurred_at)
                await house.announce(1000)
            else:
                await house.announce(1000)
                await notify(house, occurred_at)
            assert house.statuses("bank_notifications") == {1: "matched"}
            assert house.balance() == 1000

    path = make_database(tmp_path / "passbook.db")
    asyncio.run(run())
    assert broken_invariants(path) == []
