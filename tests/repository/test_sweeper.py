"""The task that lets things expire: in batches, whatever the clock does, and through whatever goes wrong."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.ledger.errors import DatabaseBusy
from service.ledger.expiry import BATCH_MAX
from service.ledger.policy import Policy
from service.ledger.timestamps import SteadyClock
from service.repository.sweeper import Sweeper, system_elapsed
from tests.ledger_check import broken_invariants
from tests.repository.house import DAY, HOUR, MINUTE, House, make_database, opened, writing
from tests.waiting import until_async

MANY = 2000
DEADLINE_S = 30


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A database with the whole schema; sound when the test is over."""
    made = make_database(tmp_path / "passbook.db")
    yield made
    assert broken_invariants(made) == []


def _expired_in_each_commit(house: House) -> list[int]:
    """How many deposits each transaction of the writer let expire, for those that did.

    The trace repeats a statement for each trigger that it fires; every row has its own, with its id.
    """
    commits: list[set[str]] = [set()]
    for statement in house.statements:
        if statement.startswith("UPDATE deposit_transactions SET status = 'expired'"):
            commits[-1].add(statement)
        elif statement == "COMMIT":
            commits.append(set())
    return [len(expired) for expired in commits if expired]


@pytest.mark.long
def test_two_thousand_rows_expire_in_batches_and_requests_wait_for_one(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Twenty commits of a hundred rows; a request in between is answered within the next commits, not after them all.

    Commits are counted from a request to its answer: the one that ran, its own, and one that may have begun since.
    """
    caplog.set_level("INFO")

    async def run() -> None:
        async with opened(path) as house:
            await asyncio.gather(*(house.announce(1, f"{10_000 + n % 50}") for n in range(MANY)))
            house.time.goes_by(2 * DAY)
            house.statements.clear()
            sweep = asyncio.create_task(house.sweeper.sweep(house.time.now))
            waited = []
            while not sweep.done():
                before = house.statements.count("COMMIT")
                await house.announce()
                waited.append(house.statements.count("COMMIT") - before)
            assert (await sweep).deposits == MANY
            batches = _expired_in_each_commit(house)
            print(f"{len(waited)} requests were answered beside {len(batches)} batches")
            assert batches == [BATCH_MAX] * (MANY // BATCH_MAX)
            assert len(waited) >= len(batches) // 3
            assert max(waited) <= 3
            assert [r.message for r in caplog.records if r.levelname == "INFO"] == [f"expired {MANY} deposits"]

    asyncio.run(run())


def test_a_sweep_says_in_one_line_what_expired(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And nothing when nothing did."""
    caplog.set_level("INFO")

    async def run() -> None:
        async with opened(path) as house:
            for _ in range(3):
                await house.announce()
            await house.hold("one.kr")
            await house.sweeper.sweep(house.time.now)
            house.time.goes_by(2 * DAY)
            await house.sweeper.sweep(house.time.now)
            await house.sweeper.sweep(house.time.now)
            said = [record.message for record in caplog.records if record.levelname == "INFO"]
            assert said == ["expired 3 deposits and 1 held domain purchase"]

    asyncio.run(run())


def test_rows_that_break_hold_up_no_other(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Names of the bot's that are no UTF-8 cannot be read: a whole batch of such rows, first in line, is passed by.

    Every other row expires, in the same batch and after it; the log names each broken row, once.
    """
    broken = BATCH_MAX + 20

    async def run() -> None:
        with writing(path) as connection:
            connection.execute("INSERT INTO users (telegram_id) VALUES ('1')")
            for _ in range(broken):
                connection.execute(
                    "INSERT INTO deposit_transactions (user_id, type, amount, depositor_name, created_at)"
                    " VALUES (1, 'deposit', 5, CAST(x'ff' AS TEXT), NULL)"
                )
        async with opened(path) as house, asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(house.announce() for _ in range(150)))
            house.time.goes_by(2 * DAY)
            assert (await house.sweeper.sweep(house.time.now)).deposits == 150
            assert (await house.sweeper.sweep(house.time.now)).deposits == 0
            assert [i for i, s in house.statuses().items() if s == "pending"] == [*range(1, broken + 1)]
            said = [record.message for record in caplog.records if record.levelname == "ERROR"]
            assert len(said) == broken
            assert said[0].startswith("deposit 1 is due and cannot expire: OperationalError")

    asyncio.run(run())


def _steady(house: House) -> SteadyClock:
    return SteadyClock(house.time.wall, house.time.elapsed, window_s=DAY.total_seconds())


def test_a_clock_that_jumps_ahead_lets_nothing_expire_early(path: Path) -> None:
    """Ten days ahead, for a minute or for good: the deposit and the held name stay until their real time is over."""

    async def run() -> None:
        async with opened(path) as house:
            clock = _steady(house)
            await house.announce()
            await house.hold("held.kr")
            house.time.goes_by(MINUTE)
            house.time.jumps(10 * DAY)
            for _ in range(58):
                house.time.goes_by(MINUTE)
                swept = await house.sweeper.sweep(clock())
                assert (swept.deposits, swept.purchases) == (0, 0)
            house.time.goes_by(2 * MINUTE)
            assert (await house.sweeper.sweep(clock())).purchases == 1
            house.time.goes_by(DAY - 2 * HOUR)
            assert (await house.sweeper.sweep(clock())).deposits == 0
            house.time.goes_by(2 * HOUR)
            assert (await house.sweeper.sweep(clock())).deposits == 1

    asyncio.run(run())


def test_what_was_written_at_a_wrong_time_expires_too(path: Path) -> None:
    """Announced while the clock was ten days ahead and stays so: not early, and within three days without a restart."""

    async def run() -> None:
        async with opened(path) as house:
            clock = _steady(house)
            house.time.jumps(10 * DAY)
            await house.announce()
            hours = 0
            while not (await house.sweeper.sweep(clock())).deposits:
                house.time.goes_by(HOUR)
                hours += 1
            assert 24 < hours <= 3 * 24

    asyncio.run(run())


def test_a_clock_that_jumps_back_lets_nothing_expire_until_it_is_right(path: Path) -> None:
    """A day behind: what is due waits. Right again: it expires, but not what was announced in between."""

    async def run() -> None:
        async with opened(path) as house:
            clock = _steady(house)
            due = await house.announce()
            house.time.goes_by(DAY - MINUTE)
            house.time.jumps(-DAY)
            house.time.goes_by(HOUR)
            assert (await house.sweeper.sweep(clock())).deposits == 0
            young = await house.announce()
            house.time.goes_by(HOUR)
            assert (await house.sweeper.sweep(clock())).deposits == 0
            house.time.jumps(DAY)
            house.time.goes_by(MINUTE)
            await house.sweeper.sweep(clock())
            assert house.statuses()[young] == "pending", "it would be an hour old, not a day"
            for _ in range(48):
                house.time.goes_by(HOUR)
                await house.sweeper.sweep(clock())
            assert house.statuses() == {due: "expired", young: "expired"}

    asyncio.run(run())


def _runner(house: House, clock: Callable[[], datetime]) -> Sweeper:
    return Sweeper(house.readers, house.writer, clock=clock, policy=Policy(), interval_s=0.01)


def test_a_held_database_delays_and_the_next_sweep_does_it(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another process has the write lock: DatabaseBusy, one line in the log; when it lets go, the deposit expires."""

    async def run() -> None:
        async with opened(path) as house:
            await house.announce()
            house.time.goes_by(2 * DAY)
            with writing(path) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(DatabaseBusy):
                    await house.sweeper.sweep(house.time.now)
                async with _runner(house, house.time.wall).running():
                    told = "waits for the next sweep: Another process holds"
                    await until_async(lambda: told in caplog.text, "the log says what it waits for")
                    assert list(house.statuses().values()) == ["pending"]
                    other.execute("ROLLBACK")
                    await until_async(lambda: list(house.statuses().values()) == ["expired"], "the deposit expires")

    asyncio.run(run())


def test_an_unexpected_error_is_logged_and_the_task_lives(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A clock that raises is a bug of some kind: the next sweep works."""

    async def run() -> None:
        async with opened(path) as house:
            await house.announce()
            house.time.goes_by(2 * DAY)
            broken = True

            def clock() -> datetime:
                if broken:
                    raise RuntimeError("a bug")
                return house.time.now

            async with _runner(house, clock).running():
                await until_async(lambda: "a sweep failed" in caplog.text, "the log tells of the failure")
                broken = False
                await until_async(lambda: list(house.statuses().values()) == ["expired"], "the deposit expires")

    asyncio.run(run())


@pytest.mark.long
def test_a_stop_finishes_the_batch_and_begins_no_other(path: Path) -> None:
    """Ended within a sweep: whole batches are done, the rest is left for the next process, nothing is half."""

    async def run() -> None:
        async with opened(path) as house:
            await asyncio.gather(*(house.announce(1) for _ in range(MANY)))
            house.time.goes_by(2 * DAY)
            async with asyncio.timeout(DEADLINE_S):
                async with _runner(house, house.time.wall).running():
                    await until_async(lambda: bool(_expired_in_each_commit(house)), "the sweep has begun")
            done = len(house.logged("deposit_expired"))
            print(f"{done} of {MANY} had expired")
            assert done % BATCH_MAX == 0
            assert 0 < done < MANY
            assert list(house.statuses().values()).count("expired") == done
            assert (await house.sweeper.sweep(house.time.now)).deposits == MANY - done

    asyncio.run(run())


def test_a_stop_waits_for_no_interval(path: Path) -> None:
    """Ended before its first sweep, an hour away: at once, and nothing has expired."""

    async def run() -> None:
        async with opened(path, interval_s=3600) as house:
            await house.announce()
            house.time.goes_by(2 * DAY)
            async with asyncio.timeout(DEADLINE_S):
                async with house.sweeper.running():
                    await asyncio.sleep(0)
            assert list(house.statuses().values()) == ["pending"]

    asyncio.run(run())


def test_the_systems_elapsed_time_runs_forwards() -> None:
    """Never back, and about as fast as the wall clock."""
    began, wall = system_elapsed(), datetime.now(UTC)
    time.sleep(0.05)
    gone = system_elapsed() - began
    assert gone >= 0.05
    assert abs(timedelta(seconds=gone) - (datetime.now(UTC) - wall)) < timedelta(seconds=5)
