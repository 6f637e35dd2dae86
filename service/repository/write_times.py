"""When a write was where: taken by the writer as it goes, read by whoever watches it.

Instants are nanoseconds of `time.perf_counter_ns`; 0 is one that did not come.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

now_ns = perf_counter_ns


@dataclass(slots=True)
class BatchTimes:
    """One database transaction of `size` operations. `trace` is whatever the watcher wants to find here again."""

    size: int
    commit_began_ns: int = 0
    committed_ns: int = 0
    trace: Any = None

    @property
    def commit_s(self) -> float:
        """How long COMMIT took, in seconds."""
        return max(0, self.committed_ns - self.commit_began_ns) / 1e9


@dataclass(slots=True)
class WriteTimes:
    """One operation: queued, begun, ended, and the batch that it was in. `trace` is carried for the watcher."""

    operation: str
    queued_ns: int
    began_ns: int = 0
    ended_ns: int = 0
    batch: BatchTimes | None = None
    trace: Any = None


Watch = Callable[[BatchTimes, list[WriteTimes]], None]
"""Called on the event loop after each batch, before its requests are answered."""
