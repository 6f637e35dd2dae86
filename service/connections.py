"""All connections of the HTTP server together: how many there may be, and what they may hold of memory and of time.

Each connection keeps its own state, and this module decides what depends on all of them together. One walk a second
checks the bounds of all connections, so no request needs a timer.
"""

import asyncio
import heapq
import logging
import resource
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from service.measures import Measures

READ_BYTES_MAX = 64 * 1024
"""The most that is read from one socket at once."""
HELD_BYTES_MAX = 16 * 2**20
"""What may be read and not yet acted on: unfinished heads, bodies that nobody has asked for, requests behind others."""
UNSENT_BYTES_MAX = 32 * 2**20
"""Answers that their clients have not taken."""
_DESCRIPTORS_WANTED = 65_536
_DESCRIPTORS_RESERVED = 160
"""For the database, the process that writes, exports, telemetry, and connections that are being turned away."""
_DESCRIPTORS_OF_A_READER = 6
_TURNS_AT_ONCE = 32
_EVICTED_AT_ONCE = 32
_log = logging.getLogger(__name__)


class Cut(StrEnum):
    """Why the service ended a connection."""

    IDLE = "idle"
    """It had no request under way, and its place was needed."""
    TURNED_AWAY = "turned_away"
    """All places were taken by requests under way."""
    REQUEST_TIMEOUT = "request_timeout"
    STALLED = "stalled"
    """Its client took nothing of its answer for too long."""
    HELD = "held"
    """It held what was read and not acted on, and there was too much of that."""
    UNSENT = "unsent"
    """It held an answer that was not taken, and there was too much of that."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection may take; times in seconds."""

    connections: int = 4096
    request_timeout_s: float = 60
    answer_timeout_s: float = 60
    keep_alive_s: float = 75
    linger_s: float = 2


class Connection(Protocol):
    """What is asked of one connection."""

    def look(self, now: float) -> None:
        """Ends it where it is beyond its times."""
        ...

    def idle_since(self, now: float) -> float | None:
        """Since when nothing is under way over it; None while something is."""
        ...

    def taken_at(self) -> float:
        """When its client last took something of its answer."""
        ...

    def cut(self, why: Cut) -> None:
        """Ends it."""
        ...

    def go_on(self) -> None:
        """Takes its next request, which it has already."""
        ...


class Connections:
    """The open connections. Lifetime: the server's; used on the event loop alone."""

    def __init__(self, bounds: Bounds, measures: Measures) -> None:
        self.bounds = bounds
        self.buffer = memoryview(bytearray(READ_BYTES_MAX))
        """Where what comes is read into: one at a time, and copied at once."""
        self._measures = measures
        self._open: dict[Connection, None] = {}
        self._held: dict[Connection, int] = {}
        self._unsent: dict[Connection, int] = {}
        self._turns: deque[Connection] = deque()
        self._turning = False
        self._cuts: dict[Cut, int] = {}
        measures.connections_max = bounds.connections

    def add(self, connection: Connection) -> None:
        """A connection that was taken."""
        self._open[connection] = None
        self._measures.connections = len(self._open)

    def remove(self, connection: Connection) -> None:
        """A connection that has ended. Doing it twice is harmless."""
        if self._open.pop(connection, 0) is None:
            self._measures.connections = len(self._open)
        self.hold(connection, 0)
        self.unsent(connection, 0)

    def cut(self, why: Cut) -> None:
        """Counts a connection that the service ends."""
        self._measures.connections_cut.add(why)
        self._cuts[why] = self._cuts.get(why, 0) + 1

    def make_room(self, now: float, *, opening: int = 0, least: int = 0) -> bool:
        """Whether there is a place for one more beside those and the `opening`.

        The longest idle ones are ended where all places are taken, or where at least `least` are needed.
        """
        missing = max(least, len(self._open) + opening + 1 - self.bounds.connections)
        if missing > 0:
            idle = [(since, n, one) for n, one in enumerate(self._open) if (since := one.idle_since(now)) is not None]
            count = max(missing, min(_EVICTED_AT_ONCE, self.bounds.connections // 64))
            for _, _, connection in heapq.nsmallest(count, idle):
                connection.cut(Cut.IDLE)
                self.remove(connection)
        return len(self._open) + opening < self.bounds.connections

    def hold(self, connection: Connection, size: int) -> None:
        """Tells how much `connection` holds that was read and not acted on. Who has held the longest gives way."""
        before = self._held.get(connection, 0)
        if size:
            self._held[connection] = size
        elif before:
            del self._held[connection]
        self._measures.held_bytes += size - before
        while self._measures.held_bytes > HELD_BYTES_MAX:
            oldest = next(iter(self._held))
            oldest.cut(Cut.HELD)
            if oldest in self._held:
                self.hold(oldest, 0)

    def unsent(self, connection: Connection, size: int) -> None:
        """Tells how much waits to be taken by the client. Whose client has taken nothing for the longest is ended."""
        before = self._unsent.pop(connection, 0)
        if size:
            self._unsent[connection] = size
        self._measures.unsent_bytes += size - before
        while self._measures.unsent_bytes > UNSENT_BYTES_MAX and len(self._unsent) > 1:
            slowest = min(self._unsent, key=lambda one: one.taken_at())
            slowest.cut(Cut.UNSENT)
            if slowest in self._unsent:
                self.unsent(slowest, 0)

    def take_turn(self, connection: Connection) -> None:
        """Lets `connection` go on with a request that it has already, when others had their turn."""
        self._turns.append(connection)
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._give_turns)

    def _give_turns(self) -> None:
        for _ in range(min(_TURNS_AT_ONCE, len(self._turns))):
            self._turns.popleft().go_on()
        self._turning = bool(self._turns)
        if self._turning:
            asyncio.get_running_loop().call_soon(self._give_turns)

    async def watch(self) -> None:
        """Looks at every connection again and again, until it is cancelled."""
        loop = asyncio.get_running_loop()
        every_s = min(1.0, self.bounds.request_timeout_s / 4, self.bounds.answer_timeout_s / 4)
        try:
            while True:
                await asyncio.sleep(every_s)
                self._look_at_all(loop.time())
                self._tell()
        finally:
            self._tell()

    def _look_at_all(self, now: float) -> None:
        for connection in list(self._open):
            try:
                connection.look(now)
            except Exception:
                _log.exception("a connection cannot be looked at, and is ended")
                connection.cut(Cut.STALLED)

    def _tell(self) -> None:
        if self._cuts:
            cuts, self._cuts = self._cuts, {}
            _log.warning("connections are cut off: %s", ", ".join(_told(why, n) for why, n in cuts.items()))


def _told(why: Cut, count: int) -> str:
    return f"{count} {_REASONS[why]}"


_REASONS = {
    Cut.IDLE: "were idle while others needed their place",
    Cut.TURNED_AWAY: "came while all places were taken",
    Cut.REQUEST_TIMEOUT: "did not send their request in time",
    Cut.STALLED: "took nothing of their answer for too long",
    Cut.HELD: "held what was not acted on when there was too much of it",
    Cut.UNSENT: "took nothing of their answer when too much was waiting",
}


def descriptors() -> int:
    """How many descriptors this process may have, after that was raised as far as the hard limit lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a system may have a lower bound of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _DESCRIPTORS_WANTED if soft == resource.RLIM_INFINITY else soft


def places(wanted: int, *, readers: int) -> int:
    """How many connections there may be: `wanted`, or what the descriptors leave."""
    kept = _DESCRIPTORS_RESERVED + _DESCRIPTORS_OF_A_READER * readers
    return max(8, min(wanted, descriptors() - kept))
