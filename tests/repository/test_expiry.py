"""What expires, with what trace, and who wins when something else happens to it at the same time."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from service.ledger.audit_logs import USER
from service.ledger.domain_purchases import DomainPurchaseComplete, DomainPurchaseRelease
from service.ledger.expiry import BATCH_MAX, Expire
from service.ledger.fields import BALANCE_MAX
from service.ledger.timestamps import stored
from service.ledger.transactions import TransactionReverse
from service.repository import domain_purchases, expiry, transactions
from service.repository.unit_of_work import Operation
from tests import earlier
from tests.ledger_check import broken_invariants
from tests.repository.house import DAY, HOUR, MINUTE, House, make_database, opened, writing


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A database with the whole schema; sound when the test is over."""
    made = make_database(tmp_path / "passbook.db")
    yield made
    assert broken_invariants(made) == []


def _expire(house: House, *ids: int) -> Expire:
    """Asks for what is older than now."""
    return Expire(ids=list(ids), created_before=stored(house.time.now))


def test_a_pending_deposit_expires_after_its_time_and_not_before(path: Path) -> None:
    """A minute before, nothing; after, the row, its audit row by system:expiry, and no money moved."""

    async def run() -> None:
        async with opened(path) as house:
            deposit = await house.announce(700)
            announced_at = house.time.now
            house.time.goes_by(DAY - MINUTE)
            assert (await house.sweeper.sweep(house.time.now)).deposits == 0
            assert house.statuses() == {deposit: "pending"}
            house.time.goes_by(2 * MINUTE)
            assert (await house.sweeper.sweep(house.time.now)).deposits == 1
            assert house.statuses() == {deposit: "expired"}
            assert house.balance() == 0
            assert house.rows(
                "SELECT resource_type, resource_id, telegram_id, actor, request_id, created_at, details ->> '$.amount',"
                " details ->> '$.depositor_name', details ->> '$.announced_at' FROM audit_logs"
                " WHERE action = 'deposit_expired'"
            ) == [
                (
                    "deposit_transaction",
                    deposit,
                    "3001",
                    "system:expiry",
                    None,
                    stored(house.time.now),
                    700,
                    "홍길동",
                    f"{announced_at:%Y-%m-%dT%H:%M:%S}.000Z",
                )
            ]
            assert (await house.sweeper.sweep(house.time.now)).deposits == 0
            assert house.logged("deposit_expired") == [deposit]

    asyncio.run(run())


def test_a_held_purchase_expires_and_the_money_and_the_name_are_back(path: Path) -> None:
    """After an hour: the price back by a refund that names the payment, one audit row, and the name can be held."""

    async def run() -> None:
        async with opened(path) as house:
            purchase = await house.hold("held.kr", 1500)
            assert house.balance() == 0
            house.time.goes_by(HOUR - MINUTE)
            assert (await house.sweeper.sweep(house.time.now)).purchases == 0
            house.time.goes_by(2 * MINUTE)
            assert (await house.sweeper.sweep(house.time.now)).purchases == 1
            assert house.balance() == 1500
            assert house.statuses("user_domains") == {purchase: "expired"}
            payment, refund = house.rows(
                "SELECT id, reverses_id, amount FROM deposit_transactions WHERE type GLOB 'domain_*' ORDER BY id"
            )
            assert refund[1:] == (payment[0], 1500)
            assert house.rows(
                "SELECT resource_id, actor, details ->> '$.transaction_id', details ->> '$.balance_before',"
                " details ->> '$.balance_after' FROM audit_logs WHERE action = 'domain_expired'"
            ) == [(purchase, "system:expiry", refund[0], 0, 1500)]
            assert await house.hold("held.kr") != purchase

    asyncio.run(run())


def test_only_what_is_open_expires(path: Path) -> None:
    """Confirmed, cancelled, registered, released; debits; the bot's own pending domains: none of them is touched."""

    async def run() -> None:
        with writing(path) as connection:
            connection.execute("INSERT INTO users (telegram_id) VALUES ('1')")
            connection.execute("INSERT INTO user_domains (user_id, domain, status) VALUES (1, 'bots.kr', 'pending')")
            connection.execute(
                "INSERT INTO deposit_transactions (user_id, type, amount) VALUES (1, 'bonus', 5)"
            )  # the bot's, and no deposit
        async with opened(path) as house:
            await house.confirm(await house.announce())
            done = await house.hold("done.kr")
            await house.do(domain_purchases.COMPLETE, DomainPurchaseComplete(), done)
            gone = await house.hold("gone.kr")
            await house.do(domain_purchases.RELEASE, DomainPurchaseRelease(), gone)
            before = (house.statuses(), house.statuses("user_domains"))
            house.time.goes_by(365 * DAY)
            swept = await house.sweeper.sweep(house.time.now)
            assert (swept.deposits, swept.purchases) == (0, 0)
            assert (house.statuses(), house.statuses("user_domains")) == before

    asyncio.run(run())


def test_a_row_of_the_bots_without_a_time_expires(path: Path) -> None:
    """created_at is null in some rows that the bot wrote: they are older than Passbook, and announced_at is null."""

    async def run() -> None:
        with writing(path) as connection:
            connection.execute("INSERT INTO users (telegram_id) VALUES ('1')")
            connection.execute(
                "INSERT INTO deposit_transactions (user_id, type, amount, created_at) VALUES (1, 'deposit', 5, NULL)"
            )
        async with opened(path) as house:
            assert (await house.sweeper.sweep(house.time.now)).deposits == 1
            assert house.rows(
                "SELECT details FROM audit_logs WHERE action = 'deposit_expired' AND telegram_id = '1'"
            ) == [('{"amount":5,"depositor_name":null,"announced_at":null}',)]

    asyncio.run(run())


def test_of_a_confirmation_and_an_expiry_in_one_commit_the_first_wins(path: Path) -> None:
    """Expiry first: the confirmation is refused as late. Confirmation first: the expiry does nothing."""

    async def run() -> None:
        async with opened(path) as house:
            one, other = await house.announce(10), await house.announce(20)
            house.time.goes_by(2 * DAY)
            expired, refused = await asyncio.gather(house.do(expiry.DEPOSITS, _expire(house, one)), house.confirm(one))
            assert expired == {"expired": [one], "refused": []}
            assert refused["code"] == "deposit_expired"
            confirmed, nothing = await asyncio.gather(
                house.confirm(other), house.do(expiry.DEPOSITS, _expire(house, other))
            )
            assert confirmed["status"] == "confirmed"
            assert nothing == {"expired": [], "refused": []}
            assert house.statuses() == {one: "expired", other: "confirmed"}
            assert house.logged("deposit_expired") == [one]
            assert house.balance() == 20

    asyncio.run(run())


def test_of_a_completion_and_an_expiry_in_one_commit_the_first_wins(path: Path) -> None:
    """The loser is refused, or does nothing; the money goes back only where the name was lost."""

    async def run() -> None:
        async with opened(path) as house:
            one, other = await house.hold("one.kr", 10), await house.hold("other.kr", 20)
            house.time.goes_by(2 * HOUR)
            expired, refused = await asyncio.gather(
                house.do(expiry.PURCHASES, _expire(house, one)),
                house.do(domain_purchases.COMPLETE, DomainPurchaseComplete(), one),
            )
            assert expired == {"expired": [one], "refused": []}
            assert (refused["code"], refused["current_status"]) == ("domain_purchase_not_pending", "expired")
            completed, nothing = await asyncio.gather(
                house.do(domain_purchases.COMPLETE, DomainPurchaseComplete(), other),
                house.do(expiry.PURCHASES, _expire(house, other)),
            )
            assert completed["status"] == "registered"
            assert nothing == {"expired": [], "refused": []}
            assert house.statuses("user_domains") == {one: "expired", other: "registered"}
            assert house.balance() == 10

    asyncio.run(run())


def test_a_sweep_among_many_confirmations_and_releases_settles_each_once(path: Path) -> None:
    """300 deposits and 60 held names, half of them asked for while all are due: each ends once, with one audit row."""

    async def run() -> None:
        async with opened(path) as house:
            deposits = await asyncio.gather(*(house.announce(1, f"{4000 + n}") for n in range(300)))
            held = [await house.hold(f"name-{n}.kr", 7, "9000") for n in range(60)]
            house.time.goes_by(2 * DAY)
            sweep = asyncio.create_task(house.sweeper.sweep(house.time.now))
            asked: list[asyncio.Task[dict[str, object]]] = []
            for place, deposit in enumerate(deposits[::-2]):
                asked.append(asyncio.create_task(house.confirm(deposit)))
                if place < 30:
                    release = house.do(domain_purchases.RELEASE, DomainPurchaseRelease(), held[-1 - 2 * place])
                    asked.append(asyncio.create_task(release))
                await asyncio.sleep(0.0005)
            swept = await sweep
            answers = await asyncio.gather(*asked)
            confirmed = [a["id"] for a in answers if a.get("status") == "confirmed"]
            released = [a["id"] for a in answers if a.get("status") == "released"]
            print(f"{len(confirmed)} confirmed, {swept.deposits} expired; {len(released)} released")
            assert sorted([*confirmed, *house.logged("deposit_expired")]) == sorted(deposits)
            assert sorted([*released, *house.logged("domain_expired")]) == sorted(held)
            assert (swept.deposits, swept.purchases) == (300 - len(confirmed), 60 - len(released))
            assert house.balance("9000") == 60 * 7

    asyncio.run(run())


def test_a_row_that_is_not_old_enough_stays_whoever_asks(path: Path) -> None:
    """The operation looks at the age again, not only at the state."""

    async def run() -> None:
        async with opened(path) as house:
            deposit, purchase = await house.announce(), await house.hold("young.kr")
            for age in (timedelta(0), timedelta(milliseconds=1), 365 * DAY):
                before = stored(house.time.now - age)
                command = Expire(ids=[deposit, 999], created_before=before)
                assert await house.do(expiry.DEPOSITS, command) == {"expired": [], "refused": []}
                command = Expire(ids=[purchase, 999], created_before=before)
                assert await house.do(expiry.PURCHASES, command) == {"expired": [], "refused": []}
            assert house.statuses()[deposit] == house.statuses("user_domains")[purchase] == "pending"

    asyncio.run(run())


def test_a_payment_that_was_reversed_is_not_paid_back_twice(path: Path) -> None:
    """An earlier Passbook took it back while the name was held: it expires, and no more money moves."""

    async def run() -> None:
        async with opened(path) as house:
            purchase = await house.hold("twice.kr", 900)
            ((payment,),) = house.rows("SELECT transaction_id FROM user_domains")
            unasked = Operation("earlier", USER, lambda work, _, target: earlier.reverse(work, target))
            await house.do(unasked, TransactionReverse(), payment)
            assert house.balance() == 900
            house.time.goes_by(2 * HOUR)
            assert (await house.sweeper.sweep(house.time.now)).purchases == 1
            assert (house.balance(), house.statuses("user_domains")) == (900, {purchase: "expired"})

    asyncio.run(run())


def test_a_refund_beyond_the_balance_limit_is_passed_by_whole(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of that purchase is written, its neighbours expire, and the log says it once until it can expire."""
    with writing(path) as connection:
        connection.execute("INSERT INTO users (telegram_id) VALUES ('1')")
        connection.execute(
            "INSERT INTO deposit_transactions (user_id, type, amount, status, balance_before, balance_after, version)"
            " VALUES (1, 'deposit', ?, 'confirmed', 0, ?, 1)",
            (BALANCE_MAX - 100, BALANCE_MAX - 100),
        )
        connection.execute(
            "INSERT INTO audit_logs (action, resource_type, resource_id)"
            " VALUES ('deposit_confirmed', 'deposit_transaction', 1)"
        )

    async def run() -> None:
        async with opened(path) as house:
            full = await house.hold("full.kr", 100, "1")
            others = [await house.hold(f"other-{n}.kr") for n in range(3)]
            top_up = await house.announce(100, "1")
            await house.confirm(top_up)
            assert house.balance("1") == BALANCE_MAX
            ((audited,),) = house.rows("SELECT COUNT(*) FROM audit_logs")
            house.time.goes_by(2 * HOUR)
            for expected in (3, 0):
                assert (await house.sweeper.sweep(house.time.now)).purchases == expected
                assert house.statuses("user_domains") == {full: "pending", **dict.fromkeys(others, "expired")}
                assert house.balance("1") == BALANCE_MAX
                assert house.rows("SELECT COUNT(*) FROM audit_logs") == [(audited + 3,)]
            said = [record.message for record in caplog.records if record.levelname == "ERROR"]
            reason = "its price would take the balance beyond the limit"
            assert said == [f"held domain purchase {full} is due and cannot expire: {reason}"]
            await house.do(transactions.REVERSE, TransactionReverse(), top_up)
            assert (await house.sweeper.sweep(house.time.now)).purchases == 1

    asyncio.run(run())


def test_a_unit_of_work_is_bounded() -> None:
    """More ids than BATCH_MAX are a mistake of the caller, not a long transaction."""
    Expire(ids=[1] * BATCH_MAX, created_before="")
    with pytest.raises(ValueError, match="101 rows"):
        Expire(ids=[1] * (BATCH_MAX + 1), created_before="")
