"""Fixtures that more than one folder of tests uses."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.ledger_check import broken_invariants
from tests.live import LiveService
from tests.migrations.d1 import LocalD1, installed_node_modules

# Hypothesis would fail an example that takes longer than 200 ms: how busy the machine is says nothing of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

LONGEST = (
    "faults/test_migration_kill.py",
    "test_container.py",
    "test_cli_audit_prune.py",
    "contract/test_schemathesis.py",
    "migrations/test_ours.py",
    "test_documents.py",
    "migrations/test_guide.py",
    "faults/test_backups.py",
    "test_main_job.py",
    "stateful/test_ledger_machine.py",
)
"""Files that take the longest, which begin first: workers then end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of LONGEST before all others; each file's tests stay together and in order."""
    folder = Path(__file__).parent
    turns = {folder / name: turn for turn, name in enumerate(LONGEST)}
    items.sort(key=lambda item: turns.get(item.path, len(turns)))


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The pinned wrangler, installed once for each lock file."""
    return installed_node_modules()


@pytest.fixture(scope="session")
def local_d1(tmp_path_factory: pytest.TempPathFactory, node_modules: Path) -> LocalD1:
    """An empty local D1; a test that writes takes a `copy_to` of it or makes its own with `LocalD1.create`."""
    return LocalD1.create(tmp_path_factory.mktemp("d1"), node_modules)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A running service with a database of its own, shared by the tests of a module; use telegram ids of your own."""
    live = LiveService(tmp_path_factory.mktemp("service") / "passbook.db").start()
    yield live
    if live.process is not None:
        assert live.stop() == 0, live.said
    assert broken_invariants(live.database) == []


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[LiveService]:
    """A service of this test alone, not started yet; it is ended after the test if it runs."""
    live = LiveService(tmp_path / "passbook.db")
    yield live
    if live.process is not None:
        live.kill()
