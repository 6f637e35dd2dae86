"""Every window of time of the writes, a millisecond before its edge, on it, and a millisecond behind it.

The instants have an odd millisecond, so that no spelling of one is shorter than another's and hides an edge.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.ledger.bank_notifications import BankNotificationPost
from service.ledger.deposits import DepositAnnounce, DepositConfirm
from service.ledger.expiry import Expire
from service.ledger.policy import Policy
from service.ledger.timestamps import stored
from service.repository import bank_notifications, deposits, expiry
from service.storage import audit_prunes
from tests.ledger_check import broken_invariants
from tests.repository.house import House, make_database, opened

MILLISECOND = timedelta(milliseconds=1)
WINDOW = timedelta(hours=20)
"""Not a whole day, so that both edges lie on other days than their middle, and not at its beginning."""
POLICY = Policy(match_window_s=72_000, deposit_expiry_s=200_000, hold_expiry_s=5_000)
ODD = timedelta(milliseconds=123)
EDGE = [-1, 0, 1]
"""Milliseconds beyond the edge."""

Story = Callable[[House], Awaitable[None]]


def tell(tmp_path: Path, story: Story) -> None:
    """Runs the story on a database of its own, which is sound afterwards."""

    async def run() -> None:
        async with opened(path, policy=POLICY) as house:
            house.time.goes_by(ODD)
            await story(house)

    path = make_database(tmp_path / "passbook.db")
    asyncio.run(run())
    assert broken_invariants(path) == []


async def line(house: House, amount: int, at: datetime) -> dict[str, Any]:
    """What the bank says came at that moment; the answer. Of the future it is told by a clock that is set back then."""
    command = BankNotificationPost(
        bank_transaction_id=f"KB-{amount}-{at:%d%H%M%S%f}",
        depositor_name="홍길동",
        amount=amount,
        occurred_at=at.isoformat(),
    )
    ahead = max(at - house.time.now, timedelta())
    house.time.jumps(ahead)
    told = await house.do(bank_notifications.RECEIVE, command)
    house.time.jumps(-ahead)
    return told


async def announce(house: House, amount: int, user: str = "3001") -> dict[str, Any]:
    """The answer to an announcement of that name and amount."""
    command = DepositAnnounce(telegram_id=user, amount=amount, depositor_name="홍길동")
    return await house.do(deposits.ANNOUNCE, command)


@pytest.mark.parametrize("beyond", EDGE)
@pytest.mark.parametrize("side", [-1, 1])
def test_a_line_fits_an_announcement_up_to_the_edge_of_the_window(tmp_path: Path, side: int, beyond: int) -> None:
    """Told of after it or before it; the money came one window before it or after it. Both edges belong to the window.
    Beyond them the line has no candidate, and the announcement warns of nothing."""
    away = side * (WINDOW + beyond * MILLISECOND)
    fits = beyond <= 0

    async def told_after(house: House) -> None:
        deposit = await announce(house, 1000)
        told = await line(house, 1000, house.time.now + away)
        assert told["status"] == ("matched" if fits else "unmatched")
        assert (told["matched_deposit_id"], told["candidates"]) == (deposit["id"] if fits else None, [])

    async def told_before(house: House) -> None:
        told = await line(house, 2000, house.time.now + away)
        deposit = await announce(house, 2000)
        assert deposit["status"] == ("confirmed" if fits else "pending")
        assert deposit["matched_bank_notification_id"] == (told["id"] if fits else None)
        assert deposit["collision"] is None

    async def story(house: House) -> None:
        await told_after(house)
        await told_before(house)

    tell(tmp_path, story)


@pytest.mark.parametrize("beyond", EDGE)
@pytest.mark.parametrize("side", [-1, 1])
def test_an_announcement_warns_of_what_is_in_its_window(tmp_path: Path, side: int, beyond: int) -> None:
    """Of another deposit of the name and amount, before it or, where the clock was set back, after it; of two lines;
    and the amount that it suggests is free of both."""
    away = side * (WINDOW + beyond * MILLISECOND)
    warns = beyond <= 0

    async def story(house: House) -> None:
        middle = house.time.now
        for other in (1000, 1001, 3001):
            house.time.jumps(middle + away - house.time.now)
            await announce(house, other)
        for nth in (0, 1):
            await line(house, 2000, middle + away - side * nth * MILLISECOND)
        house.time.jumps(middle - house.time.now)
        of_a_deposit = (await announce(house, 1000, "2"))["collision"]
        assert (of_a_deposit is not None) == warns
        if of_a_deposit is not None:
            assert of_a_deposit["suggested_amount"] == 1002
        of_two_lines = await announce(house, 2000, "2")
        # The second line is a millisecond nearer: just beyond the edge it is the only one, and is taken.
        assert (of_two_lines["collision"] is not None) == warns
        assert (of_two_lines["status"] == "confirmed") == (beyond == 1)
        await announce(house, 3000, "1")
        near = (await announce(house, 3000, "2"))["collision"]
        assert near is not None
        assert near["suggested_amount"] == (3002 if warns else 3001)

    tell(tmp_path, story)


@pytest.mark.parametrize("beyond", EDGE)
def test_a_deposit_confirmed_days_later_is_a_rival_for_one_window_more(tmp_path: Path, beyond: int) -> None:
    """Its money may have come up to a window before its confirmation: a line of then is not matched by itself, and an
    announcement warns. Announced after the line's own window, it is no rival."""
    until_edge = WINDOW + beyond * MILLISECOND

    async def story(house: House) -> None:
        for amount in (1000, 2000):
            first = await announce(house, amount)
            house.time.goes_by(timedelta(days=3))
            await house.do(deposits.CONFIRM, DepositConfirm(), first["id"])
            house.time.goes_by(until_edge)
            warned = await announce(house, amount, "2")
            assert (warned["collision"] is not None) == (beyond <= 0)
        told = await line(house, 2000, house.time.now)
        assert told["status"] == ("ambiguous" if beyond <= 0 else "matched")

    tell(tmp_path, story)


@pytest.mark.parametrize("beyond", EDGE)
def test_what_waits_expires_a_millisecond_after_its_time(tmp_path: Path, beyond: int) -> None:
    """A sweep at the very instant lets nothing expire; the operation itself, asked with the same bound, neither."""
    due = beyond > 0

    async def story(house: House) -> None:
        deposit = (await announce(house, 1000))["id"]
        house.time.goes_by(timedelta(seconds=POLICY.deposit_expiry_s) + beyond * MILLISECOND)
        swept = await house.sweeper.sweep(house.time.now)
        assert (swept.deposits, house.statuses()[deposit]) == ((1, "expired") if due else (0, "pending"))
        purchase = await house.hold("held.kr", 500)
        house.time.goes_by(timedelta(seconds=POLICY.hold_expiry_s) + beyond * MILLISECOND)
        swept = await house.sweeper.sweep(house.time.now)
        domain = house.statuses("user_domains")[purchase]
        assert (swept.purchases, domain) == ((1, "expired") if due else (0, "pending"))

    async def asked_directly(house: House) -> None:
        deposit = (await announce(house, 1000))["id"]
        purchase = await house.hold("asked.kr", 500)
        bound = stored(house.time.now + beyond * MILLISECOND)
        for operation, number in ((expiry.DEPOSITS, deposit), (expiry.PURCHASES, purchase)):
            told = await house.do(operation, Expire(ids=[number], created_before=bound))
            assert told["expired"] == ([number] if due else [])

    for number, one in enumerate((story, asked_directly)):
        folder = tmp_path / str(number)
        folder.mkdir()
        tell(folder, one)


@pytest.mark.parametrize("beyond", EDGE)
def test_a_prune_takes_what_is_older_than_its_moment(tmp_path: Path, beyond: int) -> None:
    """A row of that very millisecond stays, and all behind it; one a millisecond older goes."""

    async def story(house: House) -> None:
        first = house.time.now
        for seconds in (0, 1, 0.5, 2):  # what is behind a row that stays, stays, whatever its time
            house.time.jumps(first + timedelta(seconds=seconds) - house.time.now)
            await announce(house, 1000)
        before = stored(first + timedelta(seconds=1) + beyond * MILLISECOND)
        prefix = await house.readers.read(audit_prunes.find_prefix, before=before)
        assert prefix is not None
        told = house.rows(f"SELECT DISTINCT created_at FROM audit_logs WHERE id <= {prefix.through_id} ORDER BY 1")
        goes = [0, 0.5, 1] if beyond > 0 else [0]
        assert [text for (text,) in told] == [stored(first + timedelta(seconds=seconds)) for seconds in goes]
        assert house.rows(f"SELECT MIN(id) FROM audit_logs WHERE created_at >= '{before}'") == [
            (prefix.through_id + 1,)
        ]

    tell(tmp_path, story)
