"""How much one caller may have at once, so that none takes what the others need.

Of one API key: requests under way, writes a second, bytes of bodies in memory. Of one client address: requests a second
without a valid key. A valid key is never slowed for what others do from its address, such as a proxy's: what it may is
counted by itself. Large bodies are decoded a few at a time, keys in turn: decoded, and on its way to the writer and
back, a body takes some twenty times its bytes.

All is counted on the event loop alone; a counter costs a part of a microsecond.
"""

import asyncio
import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from service.ledger.errors import Overloaded, RateLimited
from service.measures import Counter, Kind, Metric

KINDS = ("requests", "writes", "body_bytes", "refused_keys")
"""What the limits are of, as the metric names them."""
ADDRESSES_MAX = 4096
"""Client addresses that are remembered; the one that was not heard of for longest gives way."""
LARGE_BYTES = 16 * 1024
"""Smaller bodies are decoded at once."""
DECODED_BYTES_MAX = 4 * 2**20
"""The most of large bodies that is decoded and not answered; one that is larger is decoded alone."""
_BURST_S = 1.0
"""What comes at once may be as much as comes in so many seconds."""
_ROUNDING_S = 1e-6
_IDLE_KEYS_MAX = 1024
_NETWORK_BITS = 64
_LOG_EVERY_S = 60.0
_log = logging.getLogger(__name__)


class Share:
    """What one API key has in use. Lifetime: from its first request until it has nothing in use and others come."""

    __slots__ = ("actor", "body_bytes", "logged_at", "under_way", "waiting", "writes_until")

    def __init__(self, actor: str) -> None:
        self.actor = actor
        self.under_way = 0
        self.body_bytes = 0
        self.waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        """Large bodies that are not decoded yet."""
        self.writes_until = 0.0
        """When the writes until now were sent, had they come at the rate; at most a second ahead of the clock."""
        self.logged_at = -math.inf


class Limits:
    """The running application's. 0 is no limit. `clock` is steady, in seconds."""

    def __init__(
        self,
        *,
        key_requests_max: int,
        key_writes_per_s: int,
        refused_keys_per_s: int,
        bodies_bytes_max: int,
        clock: Callable[[], float],
    ) -> None:
        self._key_requests_max = key_requests_max or math.inf
        self._key_writes_per_s = key_writes_per_s
        self._write_s = 1 / key_writes_per_s if key_writes_per_s else 0.0
        self._refused_keys_per_s = refused_keys_per_s
        self.bodies_bytes_max = bodies_bytes_max
        self.bodies_bytes = 0
        """Of bodies whose requests are not answered yet."""
        self._key_bytes_max = bodies_bytes_max // 2
        self._decoded_bytes = 0
        self._turns: deque[Share] = deque()
        """Those with bodies that wait to be decoded, in the order of their next turns."""
        self._clock = clock
        self._shares: dict[int, Share] = {}
        self._addresses: OrderedDict[str | int, float] = OrderedDict()
        """By client, when its refused requests until now were sent, had they come at the rate."""
        self.limited = Counter(
            Metric(
                "passbook.limited",
                Kind.COUNTER,
                "{request}",
                "Requests that were refused because their caller, or all together, had too much, by what of.",
                ("limit",),
            )
        )
        for kind in KINDS:
            self.limited.add(kind, n=0)

    def begin(self, key_id: int, actor: str) -> Share:
        """Counts a request of the key as under way, until `end`. Raises RateLimited."""
        share = self._shares.get(key_id)
        if share is None:
            share = self._new_share(key_id, actor)
        if share.under_way >= self._key_requests_max:
            raise self._refusal(
                share,
                "requests",
                f"{share.under_way} requests of this API key are under way. Send this one when some are answered.",
                1,
            )
        share.under_way += 1
        return share

    def end(self, share: Share, body_bytes: int, decoded_bytes: int) -> None:
        """The request is answered, and its body of `body_bytes` is let go, `decoded_bytes` by `decode_in_turn`."""
        share.under_way -= 1
        if body_bytes:
            self.let_go(share, body_bytes, decoded_bytes)

    def let_go(self, share: Share, body_bytes: int, decoded_bytes: int) -> None:
        """A body is needed no more, though its request is not answered: a client may take its answer slowly."""
        share.body_bytes -= body_bytes
        self.bodies_bytes -= body_bytes
        if decoded_bytes:
            self._decoded_bytes -= decoded_bytes
            self._give_turns()

    async def decode_in_turn(self, share: Share, body_bytes: int) -> None:
        """Returns when a large body may be decoded: it counts as decoded then, until `end`."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not share.waiting:
            self._turns.append(share)
        share.waiting.append((body_bytes, waiting))
        self._give_turns()
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.cancelled():
                share.waiting.remove((body_bytes, waiting))
                if not share.waiting:
                    self._turns.remove(share)
            else:
                self._decoded_bytes -= body_bytes
            self._give_turns()
            raise

    def _give_turns(self) -> None:
        """Strictly in turn, so that a large body for which there is no room yet is not overtaken for ever."""
        while self._turns:
            share = self._turns[0]
            body_bytes, waiting = share.waiting[0]
            if self._decoded_bytes and self._decoded_bytes + body_bytes > DECODED_BYTES_MAX:
                return
            self._turns.popleft()
            if waiting.cancelled():  # its own task takes it out
                self._turns.append(share)
                return
            share.waiting.popleft()
            if share.waiting:
                self._turns.append(share)
            self._decoded_bytes += body_bytes
            waiting.set_result(None)

    def take_write(self, share: Share) -> None:
        """Counts a write of the key, before anything of it is begun. Raises RateLimited.

        A batch is one write: what it weighs is the queue's to judge, in which the key waits behind itself.
        """
        if self._write_s:
            now, until = self._clock(), share.writes_until
            if until <= now:
                share.writes_until = now + self._write_s
            elif until + self._write_s <= now + _BURST_S + _ROUNDING_S:
                share.writes_until = until + self._write_s
            else:
                raise self._refusal(
                    share,
                    "writes",
                    f"This API key may write {self._key_writes_per_s} times a second, and has. Nothing was done.",
                    math.ceil(until + self._write_s - now - _BURST_S),
                )

    def take_body(self, share: Share, body_bytes: int) -> None:
        """Counts so many bytes of a body as in memory, until `end`. Raises RateLimited, Overloaded."""
        if share.body_bytes + body_bytes > self._key_bytes_max:
            raise self._refusal(
                share,
                "body_bytes",
                f"The bodies of this API key's requests under way take {share.body_bytes} bytes, of the"
                f" {self._key_bytes_max} that one key may have. Send this one when some are answered.",
                1,
            )
        if self.bodies_bytes + body_bytes > self.bodies_bytes_max:
            self.limited.add("body_bytes")
            raise Overloaded(
                "The bodies of requests under way fill the memory that is set aside for them. Nothing was done."
            )
        share.body_bytes += body_bytes
        self.bodies_bytes += body_bytes

    def count_refused_key(self, address: str | None) -> None:
        """Counts a request without a valid key from the address. Raises RateLimited when there are too many."""
        if not self._refused_keys_per_s:
            return
        now, network, one_s = self._clock(), _network(address), 1 / self._refused_keys_per_s
        until = max(self._addresses.pop(network, now), now) + one_s
        if len(self._addresses) >= ADDRESSES_MAX:
            self._addresses.popitem(last=False)
        is_too_much = until > now + _BURST_S + _ROUNDING_S
        self._addresses[network] = until - one_s if is_too_much else until
        if is_too_much:
            self.limited.add("refused_keys")
            raise RateLimited(
                "Too many requests without a valid API key come from this address. One with a valid key is answered.",
                retry_after_s=math.ceil(until - now - _BURST_S),
            )

    def _new_share(self, key_id: int, actor: str) -> Share:
        if len(self._shares) >= _IDLE_KEYS_MAX:
            self._shares = {key: share for key, share in self._shares.items() if share.under_way}
        share = self._shares[key_id] = Share(actor)
        return share

    def _refusal(self, share: Share, kind: str, detail: str, retry_after_s: int) -> RateLimited:
        """Counted, and logged once a minute for each key: /metrics, which needs no key, names none."""
        self.limited.add(kind)
        now = self._clock()
        if now - share.logged_at >= _LOG_EVERY_S:
            share.logged_at = now
            _log.warning("requests of the API key %s are limited (%s): %s", share.actor, kind, detail)
        return RateLimited(detail, retry_after_s=retry_after_s)


def _network(address: str | None) -> str | int:
    """What counts as one client: an IPv4 address, or the network of 64 bits of an IPv6 one, which has a host in it."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return address or ""
    return int(parsed) >> (128 - _NETWORK_BITS) if isinstance(parsed, IPv6Address) else str(parsed)
