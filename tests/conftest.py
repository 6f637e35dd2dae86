"""Fixtures that more than one folder of tests uses."""

from pathlib import Path

import pytest

from tests.migrations.d1 import LocalD1, installed_node_modules


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The pinned wrangler, installed once for each lock file."""
    return installed_node_modules()


@pytest.fixture(scope="session")
def local_d1(tmp_path_factory: pytest.TempPathFactory, node_modules: Path) -> LocalD1:
    """An empty local D1; a test that writes takes a `copy_to` of it or makes its own with `LocalD1.create`."""
    return LocalD1.create(tmp_path_factory.mktemp("d1"), node_modules)
