"""What a loop of assertions goes over: over nothing it would pass, whatever was to be proved."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def some(things: Iterable[T]) -> Iterator[T]:
    """The same things, one after the other. A test that finds none fails here."""
    found = False
    for thing in things:
        found = True
        yield thing
    assert found, "there was nothing to check"
