"""What the tests of the contract share."""

from collections.abc import Iterator

import pytest

from tests.contract.scenes import Scene
from tests.ledger_check import broken_invariants
from tests.stateful.served import served


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A service that all tests of the file share; sound afterwards, whatever they asked of it."""
    path = tmp_path_factory.mktemp("scene") / "passbook.db"
    with served(path) as service:
        shared = Scene(service)
        yield shared
        shared.all_expires()  # so does a hold whose payment an earlier version gave back: it stands on nothing
    assert broken_invariants(path) == []
