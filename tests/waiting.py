"""How a test waits for what a thread, a task or a process does: by this module alone, and never without a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

WAIT_S = 60
"""How long a test waits for what should take a few seconds, on a machine that does something else too."""
EVERY_S = 0.01

T = TypeVar("T")


def until(true: Callable[[], T], what: str, *, within_s: float = WAIT_S, every_s: float = EVERY_S) -> T:
    """Asks until the answer is true, and returns it. Fails with `what` when the time is up."""
    deadline = time.monotonic() + within_s
    while not (found := true()):
        assert time.monotonic() < deadline, f"waited {within_s} s in vain: {what}"
        time.sleep(every_s)
    return found


async def until_async(true: Callable[[], T], what: str, *, within_s: float = WAIT_S, every_s: float = EVERY_S) -> T:
    """The same for a task: others run meanwhile."""
    return await until_awaited(_awaited(true), what, within_s=within_s, every_s=every_s)


async def until_awaited(
    true: Callable[[], Awaitable[T]], what: str, *, within_s: float = WAIT_S, every_s: float = EVERY_S
) -> T:
    """The same where the question itself has to be awaited."""
    deadline = time.monotonic() + within_s
    while not (found := await true()):
        assert time.monotonic() < deadline, f"waited {within_s} s in vain: {what}"
        await asyncio.sleep(every_s)
    return found


def _awaited(true: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    async def ask() -> T:
        return true()

    return ask
