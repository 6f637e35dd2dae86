"""The writes that wait for a commit: fair between callers, bounded in number and in bytes.

Each caller, by its API key, has a lane. A lane pays by weight for what it gets. The next write is that of the lane
which has been given least, and a new lane begins where the others are. So a flood waits behind itself, and a light
write waits at most for the commit under way. (Start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996.)

A lane may hold only as much as is free beside it. So one caller gets half of the queue at most, two callers get a third
each, and there is always room for the next one.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

_REMEMBERED_MAX = 1024


class Waiting(Protocol):
    """What can wait here: whose it is, about how many rows of the ledger it takes, and its bytes."""

    lane: str
    weight: int
    size: int


W = TypeVar("W", bound=Waiting)


class FairQueue(Generic[W]):
    """Holds at most `count_max` writes and `bytes_max` bytes; one write of any size fits when it is empty."""

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self.count_max = count_max
        self.bytes_max = bytes_max
        self._lanes: dict[str, deque[W]] = {}
        self._turns: list[tuple[int, int, str]] = []
        """A heap: what each lane that waits has been given, by weight; equals in the order in which they came."""
        self._given: dict[str, int] = {}
        """What each lane had been given with its last write, as far as that is more than `_now`."""
        self._now = 0
        """What the lane whose turn was last had been given before."""
        self._order = itertools.count()
        self._sizes: dict[str, int] = {}
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[W]:
        return (write for lane in self._lanes.values() for write in lane)

    @property
    def bytes(self) -> int:
        """How many bytes wait."""
        return self._bytes

    def has_room(self, lane: str, size: int) -> bool:
        """Whether the caller may add a write of `size` bytes."""
        if lane not in self._lanes:
            return self._count < self.count_max and (not self._bytes or self._bytes + size <= self.bytes_max)
        return (
            len(self._lanes[lane]) < self.count_max - self._count
            and self._sizes[lane] + size <= self.bytes_max - self._bytes
        )

    def append(self, write: W) -> None:
        """Adds a write at the end of its lane."""
        lane = self._lanes.get(write.lane)
        if lane is None:
            lane = self._lanes[write.lane] = deque()
            self._wait(write.lane, max(self._now, self._given.get(write.lane, 0)))
        lane.append(write)
        self._sizes[write.lane] = self._sizes.get(write.lane, 0) + write.size
        self._count += 1
        self._bytes += write.size

    def take(self, *, count_max: int, weight_max: int) -> list[W]:
        """The next batch: the writes whose turn it is, as many as weigh `weight_max` together.

        A write that is heavier than what is left begins the next batch, so that lighter ones are answered before it.
        One that is heavier than `weight_max` makes a batch of its own.
        """
        batch: list[W] = []
        weight = 0
        while self._turns and len(batch) < count_max:
            given, _, name = self._turns[0]
            lane = self._lanes[name]
            if batch and weight + lane[0].weight > weight_max:
                break
            heapq.heappop(self._turns)
            write = lane.popleft()
            batch.append(write)
            weight += write.weight
            self._now = given
            self._give(name, given + write.weight)
            self._left(write, lane)
            if lane:
                self._wait(name, given + write.weight)
        return batch

    def remove(self, write: W) -> None:
        """Takes out a write that nobody is to carry out any more. Raises ValueError when it does not wait."""
        lane = self._lanes.get(write.lane, deque())
        lane.remove(write)
        self._left(write, lane)
        if not lane:
            self._turns = [turn for turn in self._turns if turn[2] != write.lane]
            heapq.heapify(self._turns)

    def _wait(self, name: str, given: int) -> None:
        heapq.heappush(self._turns, (given, next(self._order), name))

    def _give(self, name: str, given: int) -> None:
        self._given[name] = given
        if len(self._given) > _REMEMBERED_MAX:
            self._given = {lane: given for lane, given in self._given.items() if given > self._now}

    def _left(self, write: W, lane: deque[W]) -> None:
        self._sizes[write.lane] -= write.size
        self._count -= 1
        self._bytes -= write.size
        if not lane:
            del self._lanes[write.lane], self._sizes[write.lane]
