"""Matching at the edge of its window, and what a line is never guessed for."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from service.ledger.bank_notifications import BankNotificationPost
from service.ledger.deposits import DepositAnnounce, DepositConfirm
from service.ledger.policy import Policy
from service.repository import bank_notifications, deposits
from service.repository import erasures as erasing
from service.storage import erasures
from tests.ledger_check import broken_invariants
from tests.printed import stands
from tests.repository.house import DAY, HOUR, USER, House, make_database, opened, writing


@pytest.mark.parametrize(("notified_first", "later"), [(True, False), (False, False), (False, True)])
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
                if later:
                    house.time.goes_by(DAY)
                await notify(house, occurred_at)
            assert house.statuses("bank_notifications") == {1: "matched"}
            assert house.balance() == 1000

    path = make_database(tmp_path / "passbook.db")
    asyncio.run(run())
    assert broken_invariants(path) == []


@pytest.mark.parametrize(
    ("came", "status"),
    [
        (HOUR, "matched"),
        (timedelta(), "matched"),
        (DAY, "matched"),
        (DAY + timedelta(milliseconds=1), "unmatched"),
        (-HOUR, "matched"),
    ],
)
def test_money_that_came_before_the_deposit_expired_confirms_it(tmp_path: Path, came: timedelta, status: str) -> None:
    """Told of two days later; money that came after the expiry waits for a person, and so does what was cancelled."""

    async def run() -> None:
        async with opened(path, policy=Policy(match_window_s=2 * 86_400)) as house:
            announced = house.time.now
            await house.announce(1000)
            house.time.goes_by(2 * DAY)
            await house.sweeper.sweep(house.time.now)
            assert house.statuses("deposit_transactions") == {1: "expired"}
            command = BankNotificationPost(
                bank_transaction_id="KB-1",
                depositor_name="홍길동",
                amount=1000,
                occurred_at=(announced + came).isoformat(),
            )
            told = await house.do(bank_notifications.RECEIVE, command)
            assert told["status"] == status
            assert house.balance() == (1000 if status == "matched" else 0)

    path = make_database(tmp_path / "passbook.db")
    asyncio.run(run())
    assert broken_invariants(path) == []


@pytest.mark.parametrize(
    ("ahead", "refused"),
    [(timedelta(minutes=5), False), (timedelta(minutes=5, milliseconds=1), True), (9 * HOUR, True)],
)
def test_money_of_the_future_is_refused(tmp_path: Path, ahead: timedelta, refused: bool) -> None:
    """Five minutes are for clocks that differ. A time of Korea written with Z is nine hours ahead: it is told so."""

    async def run() -> None:
        async with opened(path) as house:
            command = BankNotificationPost(
                bank_transaction_id="KB-1",
                depositor_name="홍길동",
                amount=1000,
                occurred_at=(house.time.now + ahead).isoformat(),
            )
            told = await house.do(bank_notifications.RECEIVE, command)
            assert told.get("code") == ("occurred_ahead" if refused else None)
            assert house.statuses("bank_notifications") == ({} if refused else {1: "unmatched"})
            if refused:
                assert told["ahead_s"] == ahead // timedelta(seconds=1)
                assert stands("+09:00", told["detail"])

    path = make_database(tmp_path / "passbook.db")
    asyncio.run(run())


async def line(house: House, bank_id: str, name: str = "홍길동") -> str:
    """A line of 1,000 won that came just now; its status."""
    command = BankNotificationPost(
        bank_transaction_id=bank_id,
        depositor_name=name,
        amount=1000,
        occurred_at=f"{house.time.now:%Y-%m-%dT%H:%M:%SZ}",
    )
    return str((await house.do(bank_notifications.RECEIVE, command))["status"])


async def late_money(house: House) -> None:
    """An expired deposit is confirmed by hand; then its line is told of, beside a deposit announced meanwhile."""
    first = await house.announce()
    house.time.goes_by(timedelta(hours=30))
    await house.sweeper.sweep(house.time.now)
    await house.announce()
    await house.do(deposits.CONFIRM, DepositConfirm(late=True), first)
    assert await line(house, "1") == "ambiguous"


async def confirmed_after_days(house: House) -> None:
    """A deposit confirmed by hand a day after its announcement; then the line, then another announcement."""
    first = await house.announce()
    house.time.goes_by(timedelta(hours=25))
    await house.confirm(first)
    assert await line(house, "1") == "unmatched"
    await house.announce()


async def a_third_line(house: House) -> None:
    """Two lines that no announcement told apart; a third one for the same deposit."""
    await house.confirm(await house.announce(user="2"))  # so that there is a balance to look at
    house.time.goes_by(timedelta(days=3))
    assert [await line(house, "1"), await line(house, "2")] == ["unmatched", "unmatched"]
    await house.announce()
    assert await line(house, "3") == "ambiguous"


async def a_cut_name(house: House) -> None:
    """A line listed with a longer name that is then confirmed by hand; a deposit of the shorter name comes after."""
    announced = await house.do(
        deposits.ANNOUNCE, DepositAnnounce(telegram_id="1", amount=1000, depositor_name="홍길동상사")
    )
    assert await line(house, "1") == "unmatched"
    await house.confirm(announced["id"])
    await house.announce(user="2")


def erase(house: House, user: str = USER) -> None:
    """Erases a user as the command line does."""
    with writing(house.path) as connection:
        standing = erasures.find_standing(connection, user)
        assert standing is not None
        erasing.erase(
            connection, standing, telegram_id=user, actor="test", now="2026-01-19 12:00:00", progress=lambda *_: None
        )


async def erased_before_its_line(house: House) -> None:
    """A deposit confirmed by hand, whose user is erased and comes back; then its line, beside another announcement."""
    await house.confirm(await house.announce())
    erase(house)
    await house.announce()
    assert await line(house, "1") == "ambiguous"


async def erased_after_its_line(house: House) -> None:
    """The line was listed with that deposit, which has no name any more."""
    await house.confirm(await house.announce())
    assert await line(house, "1") == "unmatched"
    erase(house)
    await house.announce()


async def erased_late(house: House) -> None:
    """A deposit confirmed by hand days after its announcement, whose user is erased."""
    first = await house.announce()
    house.time.goes_by(timedelta(days=2))
    await house.do(deposits.CONFIRM, DepositConfirm(late=True), first)
    erase(house)
    await house.announce(user="2")
    assert await line(house, "1") == "ambiguous"


ERASED = [erased_before_its_line, erased_after_its_line, erased_late]


@pytest.mark.parametrize("story", [late_money, confirmed_after_days, a_third_line, a_cut_name, *ERASED])
def test_one_transfer_is_credited_once(tmp_path: Path, story: Callable[[House], Awaitable[None]]) -> None:
    """Where a line could be for something else too, or another line for the deposit, nothing is confirmed by itself."""

    async def run() -> None:
        async with opened(path) as house:
            await story(house)
            assert len(house.logged("deposit_confirmed")) == 1
            assert "matched" not in house.statuses("bank_notifications").values()

    path = make_database(tmp_path / "passbook.db")
    asyncio.run(run())
    assert broken_invariants(path) == []
