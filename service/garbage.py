"""How often Python looks for garbage in a process of the service."""

import gc

_YOUNG_OBJECTS = 10_000
"""So many come into being between two collections, instead of 700: a request alone makes some hundreds, and hardly any
of them is in a cycle."""


def look_seldom() -> None:
    """For when all is loaded. What is there now stays: to walk all of it stops requests for tens of milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
