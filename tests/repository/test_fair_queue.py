"""The queue of writes by itself: whose turn it is, and who still has room."""

from dataclasses import dataclass

import pytest

from service.repository.fair_queue import FairQueue


@dataclass(eq=False)
class Write:
    """A write that waits; `name` tells it from the others."""

    lane: str
    name: str
    weight: int = 1
    size: int = 1


def queue(*writes: Write, count_max: int = 1000, bytes_max: int = 1000) -> FairQueue[Write]:
    """A queue in which `writes` wait."""
    made: FairQueue[Write] = FairQueue(count_max=count_max, bytes_max=bytes_max)
    for write in writes:
        made.append(write)
    return made


def names(batch: list[Write]) -> list[str]:
    return [write.name for write in batch]


def test_callers_take_turns_and_each_keeps_its_order() -> None:
    """A flood of one caller waits behind itself: another's write is second, whenever it comes."""
    waiting = queue(*(Write("flood", f"f{n}") for n in range(5)), Write("bot", "b0"), Write("bot", "b1"))
    assert names(waiting.take(count_max=4, weight_max=100)) == ["f0", "b0", "f1", "b1"]
    waiting.append(Write("ops", "o0"))
    assert names(waiting.take(count_max=9, weight_max=100)) == ["o0", "f2", "f3", "f4"]
    assert len(waiting) == 0
    assert waiting.take(count_max=1, weight_max=1) == []


def test_the_turn_goes_on_from_batch_to_batch() -> None:
    """With one write a batch, two callers still alternate."""
    waiting = queue(*(Write("a", f"a{n}") for n in range(3)), *(Write("b", f"b{n}") for n in range(3)))
    taken = [names(waiting.take(count_max=1, weight_max=1))[0] for _ in range(6)]
    assert taken == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_a_heavy_write_has_a_batch_of_its_own_and_comes_next() -> None:
    """What does not fit any more begins the next batch: light writes are answered before it, and it waits for one."""
    waiting = queue(Write("bot", "light"), Write("flood", "heavy", weight=1000), Write("bot", "later"))
    assert names(waiting.take(count_max=256, weight_max=256)) == ["light"]
    waiting.append(Write("ops", "newest"))
    assert names(waiting.take(count_max=256, weight_max=256)) == ["heavy"]
    assert names(waiting.take(count_max=256, weight_max=256)) == ["newest", "later"]


def test_who_comes_while_a_heavy_write_is_carried_out_is_next() -> None:
    """A flood of heavy writes has been given more: a light one waits for the commit under way, and for no other."""
    waiting = queue(*(Write("flood", f"h{n}", weight=1000) for n in range(5)))
    assert names(waiting.take(count_max=256, weight_max=256)) == ["h0"]
    for number in range(3):
        waiting.append(Write("bot", f"b{number}"))
        assert names(waiting.take(count_max=256, weight_max=256)) == [f"b{number}"]
        assert names(waiting.take(count_max=256, weight_max=256)) == [f"h{number + 1}"]


def test_who_sends_one_heavy_write_after_the_other_has_no_more_turns_than_the_rest() -> None:
    """A lane that was empty for a moment is remembered: by weight, both callers get the same."""
    waiting = queue(*(Write("light", f"l{n}") for n in range(30)), Write("heavy", "h", weight=10))
    taken: list[str] = []
    while len(waiting):
        (write,) = waiting.take(count_max=1, weight_max=1)
        taken.append(write.lane)
        if write.lane == "heavy" and taken.count("heavy") < 4:
            waiting.append(Write("heavy", "h", weight=10))
    between = "".join(lane[0] for lane in taken).strip("l").split("h")[1:-1]
    assert {len(lights) for lights in between} <= {9, 10}, taken
    assert len(between) == 3, taken


def test_one_caller_gets_half_and_there_is_room_for_the_next() -> None:
    """However many flood, whoever comes new finds a place."""
    waiting = queue(count_max=12)
    taken = dict.fromkeys(("a", "b", "c"), 0)
    for lane in taken:
        while waiting.has_room(lane, 1):
            waiting.append(Write(lane, lane))
            taken[lane] += 1
    assert taken == {"a": 6, "b": 3, "c": 2}
    assert waiting.has_room("d", 1)


def test_bytes_are_shared_out_like_places() -> None:
    """A caller's bodies fill half of the bytes; one body of any size fits into an empty queue."""
    waiting = queue(bytes_max=100)
    assert waiting.has_room("a", 1000)
    waiting.append(Write("a", "a", size=50))
    assert not waiting.has_room("a", 1)
    assert waiting.has_room("b", 50)
    assert not waiting.has_room("b", 51)
    waiting.append(Write("b", "b", size=25))
    assert waiting.bytes == 75
    waiting.take(count_max=1, weight_max=1)
    assert waiting.bytes == 25
    assert waiting.has_room("a", 75)


def test_what_is_taken_out_is_neither_counted_nor_carried_out() -> None:
    """A write whose caller gave up leaves its place, and cannot be taken out twice."""
    gone, stays = Write("a", "gone", size=10), Write("a", "stays", size=20)
    waiting = queue(gone, stays)
    waiting.remove(gone)
    assert (len(waiting), waiting.bytes, [write.name for write in waiting]) == (1, 20, ["stays"])
    with pytest.raises(ValueError, match="not in"):
        waiting.remove(gone)
    waiting.remove(stays)
    assert (len(waiting), waiting.bytes) == (0, 0)
    with pytest.raises(ValueError, match="not in"):
        waiting.remove(stays)


def test_a_lane_that_was_emptied_has_no_turn_left() -> None:
    """Whoever gave up all that waited is passed by, and has one turn when it comes again."""
    gone = Write("a", "gone")
    waiting = queue(gone, Write("b", "b1"), Write("b", "b2"))
    waiting.remove(gone)
    assert [write.name for write in waiting.take(count_max=1, weight_max=10)] == ["b1"]
    waiting.append(Write("a", "again"))
    assert [write.name for write in waiting.take(count_max=10, weight_max=10)] == ["again", "b2"]
    assert waiting.take(count_max=10, weight_max=10) == []
