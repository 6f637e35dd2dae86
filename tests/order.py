"""The order of the tests of a file: another one in each run, for a test that needs an earlier one proves less."""

import hashlib
import os
import random

import pytest

SETTING = "TESTS_ORDER"
"""A number repeats the order that a run printed; `written` and `reversed` are the other two."""


def choose() -> str:
    """The order of this run. The environment hands it to the workers, which must agree, and to nested runs."""
    return os.environ.setdefault(SETTING, str(random.SystemRandom().randrange(10**6)))


def repeat() -> str:
    """What a run prints, for another one to have its order."""
    return f"order of the tests in each file: {SETTING}={choose()} repeats it"


def ordered(items: list[pytest.Item], order: str) -> list[pytest.Item]:
    """The same tests: those of a file stay together, and their order does not depend on what else was selected."""
    files: dict[object, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    return [item for tests in files.values() for item in _of_one_file(tests, order)]


def _of_one_file(tests: list[pytest.Item], order: str) -> list[pytest.Item]:
    if order == "written":
        return tests
    if order == "reversed":
        return tests[::-1]
    return sorted(tests, key=lambda item: hashlib.sha256(f"{int(order)} {item.nodeid}".encode()).digest())
