"""The counters behind the limits, with a clock that the test sets."""

import asyncio
from typing import Any

import pytest

from service.api.limits import ADDRESSES_MAX, DECODED_BYTES_MAX, Limits
from service.ledger.errors import Overloaded, RateLimited


class Clock:
    """Seconds, as the test says."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(clock: Clock | None = None, **given: Any) -> Limits:
    """Limits of nothing but what is given."""
    nothing = {"key_requests_max": 0, "key_writes_per_s": 0, "refused_keys_per_s": 0, "bodies_bytes_max": 100}
    return Limits(**{**nothing, **given}, clock=clock or Clock())


def test_requests_under_way_are_counted_by_key() -> None:
    """The third of one key is refused, another key's is not, and what is answered makes room."""
    limits = make(key_requests_max=2)
    first, _ = limits.begin(1, "bot"), limits.begin(1, "bot")
    with pytest.raises(RateLimited, match="2 requests of this API key are under way") as refused:
        limits.begin(1, "bot")
    assert refused.value.retry_after_s == 1
    limits.begin(2, "ops")
    limits.end(first, 0, 0)
    limits.begin(1, "bot")


def test_writes_come_back_at_the_rate() -> None:
    """A second's worth at once, then one for each part of a second; Retry-After is never less than needed."""
    clock = Clock()
    limits = make(clock, key_writes_per_s=4)
    share = limits.begin(1, "bot")
    for _ in range(4):
        limits.take_write(share)
    with pytest.raises(RateLimited) as refused:
        limits.take_write(share)
    clock.now += refused.value.retry_after_s
    for _ in range(4):
        limits.take_write(share)
    clock.now += 0.25
    limits.take_write(share)
    with pytest.raises(RateLimited):
        limits.take_write(share)
    clock.now += 3600
    for _ in range(4):
        limits.take_write(share)
    with pytest.raises(RateLimited):
        limits.take_write(share)


@pytest.mark.parametrize("rate", [1, 2, 4, 64])
def test_the_next_write_is_taken_when_its_part_of_a_second_is_over(rate: int) -> None:
    """A millisecond before, the last token is not there; with it one write is taken, and the next has to wait again.
    Retry-After is the least whole second after which it is."""
    clock = Clock()
    limits = make(clock, key_writes_per_s=rate)
    share = limits.begin(1, "bot")
    for _ in range(rate):
        limits.take_write(share)
    for _ in range(3):
        clock.now += 1 / rate - 0.001
        with pytest.raises(RateLimited) as refused:
            limits.take_write(share)
        assert refused.value.retry_after_s == 1
        clock.now += 0.001
        limits.take_write(share)
    with pytest.raises(RateLimited):
        limits.take_write(share)


@pytest.mark.parametrize("rate", [1, 2, 4, 64])
def test_the_next_refused_key_is_counted_when_its_part_of_a_second_is_over(rate: int) -> None:
    """The same for a client without a valid key: what is too much is not counted, and does not prolong the wait."""
    clock = Clock()
    limits = make(clock, refused_keys_per_s=rate)
    for _ in range(rate):
        limits.count_refused_key("192.0.2.1")
    for _ in range(3):
        clock.now += 1 / rate - 0.001
        for _ in range(2):
            with pytest.raises(RateLimited) as refused:
                limits.count_refused_key("192.0.2.1")
            assert refused.value.retry_after_s == 1
        clock.now += 0.001
        limits.count_refused_key("192.0.2.1")
    with pytest.raises(RateLimited):
        limits.count_refused_key("192.0.2.1")


def test_a_limited_key_is_named_in_the_log_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Not a millisecond earlier, and at the minute again."""
    clock = Clock()
    limits = make(clock, key_requests_max=1)
    limits.begin(1, "bot")
    for passed, lines in ((0, 1), (30, 1), (29.999, 1), (0.001, 2), (59.999, 2), (0.001, 3)):
        clock.now += passed
        with pytest.raises(RateLimited):
            limits.begin(1, "bot")
        assert len(caplog.records) == lines, clock.now


def test_bodies_fill_their_memory_to_the_last_byte() -> None:
    """A key's half and all of it: exactly that much is taken, a byte more is refused."""
    limits = make(bodies_bytes_max=100)
    one, other = limits.begin(1, "bot"), limits.begin(2, "ops")
    limits.take_body(one, 50)
    with pytest.raises(RateLimited):
        limits.take_body(one, 1)
    limits.take_body(other, 49)
    third = limits.begin(3, "more")
    with pytest.raises(Overloaded):
        limits.take_body(third, 2)
    limits.take_body(third, 1)
    assert limits.bodies_bytes == 100


def test_a_slow_rate_tells_how_long_it_takes() -> None:
    """One a second: after one the next is a whole second away, also when half of it has passed."""
    clock = Clock()
    limits = make(clock, key_writes_per_s=1)
    share = limits.begin(1, "bot")
    limits.take_write(share)
    clock.now += 0.5
    with pytest.raises(RateLimited) as refused:
        limits.take_write(share)
    assert refused.value.retry_after_s == 1


def test_zero_is_no_limit() -> None:
    """Of requests, writes and refused keys."""
    limits = make()
    shares = [limits.begin(1, "bot") for _ in range(5000)]
    for share in shares:
        limits.take_write(share)
        limits.count_refused_key("192.0.2.1")
    assert set(limits.limited.points.values()) == {0}


def test_addresses_are_counted_apart_and_ipv6_by_network() -> None:
    """A host has a /64: another address of it is no other client; another network, or IPv4 address, is."""
    limits = make(refused_keys_per_s=1)
    for first, other, same in (
        ("192.0.2.1", "192.0.2.2", "192.0.2.1"),
        ("2001:db8::1", "2001:db8:0:1::1", "2001:db8::ffff:1"),
        (None, "unix", None),
    ):
        limits.count_refused_key(first)
        limits.count_refused_key(other)
        with pytest.raises(RateLimited, match="without a valid API key"):
            limits.count_refused_key(same)
    assert limits.limited.points["refused_keys",] == 3


def test_addresses_that_are_remembered_are_bounded() -> None:
    """Those not heard of for longest give way; one that goes on is remembered."""
    limits = make(refused_keys_per_s=1)
    limits.count_refused_key("192.0.2.1")
    for number in range(3 * ADDRESSES_MAX):
        limits.count_refused_key(f"198.18.{number // 256}.{number % 256}")
        if number % 1000 == 0:
            with pytest.raises(RateLimited):
                limits.count_refused_key("192.0.2.1")
    assert len(limits._addresses) == ADDRESSES_MAX


def test_keys_that_are_remembered_are_bounded_by_those_in_use() -> None:
    """What nobody uses gives way; what is under way stays counted."""
    limits = make(key_requests_max=1)
    kept = limits.begin(0, "bot")
    for key_id in range(1, 5000):
        limits.end(limits.begin(key_id, "other"), 0, 0)
    assert len(limits._shares) < 2000
    with pytest.raises(RateLimited):
        limits.begin(0, "bot")
    limits.end(kept, 0, 0)
    limits.begin(0, "bot")


def test_one_key_has_half_of_the_bodies_and_all_keys_the_whole() -> None:
    """429 for the key that has half, 503 when all is taken; what is answered is let go."""
    limits = make()
    one, other, third = limits.begin(1, "a"), limits.begin(2, "b"), limits.begin(3, "c")
    limits.take_body(one, 50)
    with pytest.raises(RateLimited, match="take 50 bytes, of the 50 that one key may have"):
        limits.take_body(one, 1)
    limits.take_body(other, 50)
    with pytest.raises(Overloaded):
        limits.take_body(third, 1)
    limits.end(one, 50, 0)
    limits.take_body(third, 50)
    assert limits.bodies_bytes == 100


def test_large_bodies_are_decoded_in_turn_between_keys() -> None:
    """One key's hundred wait behind each other, another's one does not wait behind them; no turn is lost."""

    async def run() -> None:
        limits = make()
        half = DECODED_BYTES_MAX // 2
        order: list[str] = []

        async def decode(actor: str, key_id: int) -> None:
            share = limits.begin(key_id, actor)
            decoded = 0
            try:
                await limits.decode_in_turn(share, half)
                decoded = half
                order.append(actor)
                await asyncio.sleep(0)
            finally:
                limits.take_body(share, 0)
                share.body_bytes += half
                limits.bodies_bytes += half
                limits.end(share, half, decoded)

        tasks = [asyncio.create_task(decode("a", 1)) for _ in range(100)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(decode("b", 2)))
        for task in tasks[3:60:2]:
            task.cancel()
        await asyncio.wait(tasks)
        assert "b" in order[:5]
        assert len(order) == 101 - len(tasks[3:60:2])
        assert (limits._decoded_bytes, list(limits._turns), limits.bodies_bytes) == (0, [], 0)

    asyncio.run(run())


def test_bodies_are_decoded_together_up_to_the_last_byte() -> None:
    """Two that are exactly as large as all that may be decoded are decoded at once; with a byte more, one waits."""

    async def run(more: int) -> bool:
        limits = make(bodies_bytes_max=2 * DECODED_BYTES_MAX)
        one, other = limits.begin(1, "bot"), limits.begin(2, "ops")
        await limits.decode_in_turn(one, 100)
        second = asyncio.create_task(limits.decode_in_turn(other, DECODED_BYTES_MAX - 100 + more))
        for _ in range(3):
            await asyncio.sleep(0)
        done = second.done()
        second.cancel()
        await asyncio.wait([second])
        return done

    assert [asyncio.run(run(more)) for more in (-1, 0, 1)] == [True, True, False]


def test_a_body_larger_than_all_is_decoded_alone() -> None:
    """It waits until nothing else is decoded, and then others wait for it."""

    async def run() -> None:
        limits = make()
        share = limits.begin(1, "a")
        await limits.decode_in_turn(share, 10)
        large = asyncio.create_task(limits.decode_in_turn(share, 2 * DECODED_BYTES_MAX))
        small = asyncio.create_task(limits.decode_in_turn(limits.begin(2, "b"), 10))
        await asyncio.sleep(0)
        assert not large.done()
        assert not small.done()
        share.body_bytes = limits.bodies_bytes = 10
        limits.end(share, 10, 10)
        await large
        await asyncio.sleep(0)
        assert not small.done()
        small.cancel()

    asyncio.run(run())


def test_a_body_whose_turn_came_as_its_client_left_counts_no_more() -> None:
    """Given room and cancelled in the same moment, it gives the room back: a body that needs all of it is decoded."""

    async def run() -> None:
        limits = make()
        share, other = limits.begin(1, "a"), limits.begin(2, "b")
        await limits.decode_in_turn(share, DECODED_BYTES_MAX)
        leaves = asyncio.create_task(limits.decode_in_turn(other, DECODED_BYTES_MAX))
        await asyncio.sleep(0)
        limits.let_go(share, 0, DECODED_BYTES_MAX)  # its turn has come
        leaves.cancel()
        await asyncio.wait([leaves])
        assert leaves.cancelled()
        whole = asyncio.create_task(limits.decode_in_turn(other, DECODED_BYTES_MAX))
        await asyncio.sleep(0)
        assert whole.done(), "it waits for the room of a body that is gone"

    asyncio.run(run())
