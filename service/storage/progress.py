"""How long work says how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the step's name, how much of it is done and how much there is; often, also when nothing is done
yet, so it must be quick.

What it raises ends the work, which then leaves behind what it would after any other error.
"""


def quiet(_step: str, _done: int, _total: int) -> None:
    """Tells nobody."""
