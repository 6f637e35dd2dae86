"""What all connections together may be and hold: who gives way, and who comes next."""

import asyncio

from service.connections import HELD_BYTES_MAX, UNSENT_BYTES_MAX, Bounds, Connection, Connections, Cut
from service.measures import Measures
from tests.some import some

PLACES = 64


class Fake(Connection):
    """A connection that is idle since `since`, unless that is None, and remembers what happened to it."""

    def __init__(self, since: float | None = None, taken_at: float = 0.0) -> None:
        self.since = since
        self.taken = taken_at
        self.cuts: list[Cut] = []
        self.turns = 0

    def look(self, now: float) -> None:
        """Nothing."""

    def idle_since(self, now: float) -> float | None:  # noqa: ARG002
        """As it was made."""
        return self.since

    def taken_at(self) -> float:
        """As it was made."""
        return self.taken

    def cut(self, why: Cut) -> None:
        """Put on record."""
        self.cuts.append(why)

    def go_on(self) -> None:
        """Put on record."""
        self.turns += 1


def made() -> tuple[Connections, Measures]:
    """All connections, none yet."""
    measures = Measures([])
    return Connections(Bounds(connections=PLACES), measures), measures


def test_who_has_held_the_longest_gives_way() -> None:
    """Not who comes; and it is counted down when what was held is acted on."""
    connections, measures = made()
    first, second, third = Fake(), Fake(), Fake()
    connections.hold(first, HELD_BYTES_MAX // 2)
    connections.hold(second, HELD_BYTES_MAX // 2)
    connections.hold(first, HELD_BYTES_MAX // 2)  # told again, it keeps its place
    assert (first.cuts, measures.held_bytes) == ([], HELD_BYTES_MAX)
    connections.hold(third, 1)
    assert (first.cuts, second.cuts, third.cuts) == ([Cut.HELD], [], [])
    assert measures.held_bytes == HELD_BYTES_MAX // 2 + 1
    connections.hold(second, 0)
    connections.remove(third)
    assert measures.held_bytes == 0


def test_whose_client_has_taken_nothing_the_longest_is_ended() -> None:
    """A slow client that takes something is not; and one answer alone is never too large."""
    connections, measures = made()
    slow, stalled, new = Fake(taken_at=9), Fake(taken_at=2), Fake(taken_at=10)
    connections.unsent(slow, 2 * UNSENT_BYTES_MAX)
    assert slow.cuts == []
    connections.unsent(slow, UNSENT_BYTES_MAX // 2)
    connections.unsent(stalled, UNSENT_BYTES_MAX // 2)
    connections.unsent(new, 1)
    assert (slow.cuts, stalled.cuts, new.cuts) == ([], [Cut.UNSENT], [])
    assert measures.unsent_bytes == UNSENT_BYTES_MAX // 2 + 1


def test_the_longest_idle_make_room_and_those_at_work_do_not() -> None:
    """Where nobody is idle there is no place."""
    connections, measures = made()
    idle = [Fake(since=float(n)) for n in range(10)]
    for one in [*(Fake() for _ in range(PLACES - 10)), *reversed(idle)]:
        connections.add(one)
    assert measures.connections == PLACES
    assert connections.make_room(100)
    assert [bool(one.cuts) for one in idle] == [True] + [False] * 9
    assert connections.make_room(100, opening=5)
    assert [bool(one.cuts) for one in idle] == [True] * 6 + [False] * 4
    for one in some(Fake() for _ in range(10)):
        assert connections.make_room(100)
        connections.add(one)
    assert not connections.make_room(100)
    assert measures.connections == PLACES


def test_those_who_sent_ahead_take_turns_in_small_groups() -> None:
    """Others come in between, and nobody is left out."""
    connections, _ = made()
    ahead = [Fake() for _ in range(100)]

    async def run() -> list[int]:
        for one in ahead:
            connections.take_turn(one)
        steps = []
        while sum(one.turns for one in ahead) < len(ahead):
            await asyncio.sleep(0)
            steps.append(sum(one.turns for one in ahead))
        return steps

    assert asyncio.run(run()) == [32, 64, 96, 100]
    assert {one.turns for one in ahead} == {1}
