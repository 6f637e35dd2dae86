"""How long the writer waits for its owner, and others for it: just short of each length, and exactly that long.

The time of the event loop stands still while the watch looks, so that a length is met exactly.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.ledger.errors import OutcomeUnknown, Overloaded
from service.repository import writer as writing
from service.repository.writer import Condition, Patience, Writer, WriteState
from tests.repository.house import make_database, opened

NOW = 4096.0
SHORT_S = 1 / 1024
"""About a millisecond; a sum with it is exact."""
PATIENCE = Patience(stall_s=8, timeout_s=16, restart_s=32)


@contextmanager
def standing_still(at: float) -> Iterator[None]:
    """For the block, which waits for nothing, the event loop's time is this."""
    loop = cast("Any", asyncio.get_running_loop())
    loop.time = lambda: at
    try:
        yield
    finally:
        del loop.time


class Owner:
    """Is asked for nothing but its end."""

    kills = 0

    def kill(self) -> bool:
        self.kills += 1
        return True


def looked(path: Path, change: dict[str, Any], *, at: float, patience: Patience = PATIENCE) -> tuple[Writer, Owner]:
    """A writer in that state, whose watch has looked once at that moment."""
    owner = Owner()

    async def run() -> Writer:
        async with opened(path) as house:
            writer, whole = house.writer, dict(vars(house.writer))
            with standing_still(at):
                vars(writer).update(change, _owner=owner, _patience=patience)
                writer._look()
            kept = Writer.__new__(Writer)
            vars(kept).update(vars(writer))
            vars(writer).clear()
            vars(writer).update(whole)
            return kept

    return asyncio.run(run()), owner


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with the whole schema."""
    return make_database(tmp_path / "passbook.db")


@pytest.mark.parametrize("short", [SHORT_S, 0])
def test_a_call_is_stalled_and_its_owner_killed_at_the_very_moment(path: Path, short: float) -> None:
    """Just short of stall_s new writes are taken; just short of restart_s the owner lives; with 0 it always does."""
    writer, _ = looked(path, {"_call_began": NOW - PATIENCE.stall_s + short}, at=NOW)
    assert (writer._refuses is None, writer._stalled) == (bool(short), not short)
    _, owner = looked(path, {"_call_began": NOW - PATIENCE.restart_s + short}, at=NOW)
    assert owner.kills == (0 if short else 1)
    never = Patience(stall_s=8, timeout_s=16, restart_s=0)
    for age in (0, 8, 32, 1000):
        _, owner = looked(path, {"_call_began": NOW - age}, at=NOW, patience=never)
        assert owner.kills == 0, f"it was killed after {age} s, with 0 for never"


@pytest.mark.parametrize("short", [SHORT_S, 0])
def test_who_waits_is_answered_at_the_very_moment(path: Path, short: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the batch, whose outcome is unknown then, and in the queue, where nothing was begun."""

    async def run() -> None:
        async with opened(path) as house:
            loop, writer = asyncio.get_running_loop(), house.writer
            began, waits = (SimpleNamespace(answered=loop.create_future()) for _ in range(2))
            queued_ns = 10**12
            waits.lane, waits.size, waits.weight = "one", 0, 1
            waits.times = SimpleNamespace(queued_ns=queued_ns)
            with standing_still(NOW):
                writer._patience, writer._batch = PATIENCE, [cast("Any", began)]
                writer._call_began = NOW - PATIENCE.timeout_s + short
                writer._queue.append(cast("Any", waits))
                monkeypatch.setattr(
                    writing, "now_ns", lambda: queued_ns + int(PATIENCE.timeout_s * 1e9) - (1 if short else 0)
                )
                writer._look()
                monkeypatch.undo()
                writer._call_began, writer._batch, writer._stalled, writer._refuses = None, [], False, None
            assert (began.answered.done(), waits.answered.done()) == (not short, not short)
            if short:
                writer._queue.remove(cast("Any", waits))
            else:
                assert isinstance(began.answered.exception(), OutcomeUnknown)
                assert not isinstance(waits.answered.exception(), Overloaded)  # the owner is stalled
                assert "nothing was begun" in str(waits.answered.exception())

    asyncio.run(run())


@pytest.mark.parametrize("short", [SHORT_S, 0])
def test_the_end_and_the_next_start_come_at_the_very_moment(path: Path, short: float) -> None:
    """What is to be finished by a moment is given up at it; an owner that did not start is tried again at its moment,
    and an idle one is asked after a whole pause."""
    writer, _ = looked(path, {"_finish_by": NOW + short}, at=NOW)
    assert writer._accepting == bool(short)
    not_there = {"_trouble": Condition(WriteState.NOT_STARTED, "why"), "_idle_since": 0.0}
    writer, _ = looked(path, {**not_there, "_start_not_before": NOW + short}, at=NOW)
    assert (writer._refuses is None, writer._check_due) == (not short, not short)
    writer, _ = looked(path, {"_idle_since": NOW - writing._IDLE_CHECK_S + short, "_check_due": False}, at=NOW)
    assert writer._check_due == (not short)
