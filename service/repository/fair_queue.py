"""The writes that wait for a commit: fair between callers, bounded in number and in bytes.

Each caller, by its API key, has a lane. A batch takes one write of each lane in turn, so that a flood waits
behind itself. A lane may hold as much as is free beside it and no more: one caller gets half of the queue at most, two
get a third each, and there is always room for the next one.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


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
        self._lanes: OrderedDict[str, deque[W]] = OrderedDict()
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
        lane = self._lanes.setdefault(write.lane, deque())
        lane.append(write)
        self._sizes[write.lane] = self._sizes.get(write.lane, 0) + write.size
        self._count += 1
        self._bytes += write.size

    def take(self, *, count_max: int, weight_max: int) -> list[W]:
        """The next batch: one write of each lane in turn, as many as weigh `weight_max` together.

        A write that is heavier than what is left begins the next batch, so that lighter ones are answered before it.
        One that is heavier than `weight_max` makes a batch of its own.
        """
        batch: list[W] = []
        weight = 0
        while self._lanes and len(batch) < count_max:
            name, lane = next(iter(self._lanes.items()))
            if batch and weight + lane[0].weight > weight_max:
                break
            write = self._pop(name)
            batch.append(write)
            weight += write.weight
            if name in self._lanes:
                self._lanes.move_to_end(name)
        return batch

    def remove(self, write: W) -> None:
        """Takes out a write that nobody is to carry out any more. Raises ValueError when it does not wait."""
        lane = self._lanes.get(write.lane, deque())
        lane.remove(write)
        self._left(write, lane)

    def _pop(self, name: str) -> W:
        lane = self._lanes[name]
        write = lane.popleft()
        self._left(write, lane)
        return write

    def _left(self, write: W, lane: deque[W]) -> None:
        self._sizes[write.lane] -= write.size
        self._count -= 1
        self._bytes -= write.size
        if not lane:
            del self._lanes[write.lane], self._sizes[write.lane]
