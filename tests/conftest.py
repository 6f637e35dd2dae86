"""Fixtures that more than one folder of tests uses."""

from collections.abc import Generator, Iterator
from pathlib import Path

import coverage
import pytest
from hypothesis import settings

from tests import bounds, looks, order, outside
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
    "test_way_back.py",
)
"""Files that take the longest, which begin first: workers then end at about the same time."""
LONGEST_S = 900
"""The time of each of their tests."""


STDERR = pytest.StashKey[int]()
PASSED = pytest.StashKey[bool]()
TIMED_OUT = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Before workers start and output is captured."""
    order.choose()
    config.stash[STDERR] = bounds.begin()
    looks.watch_httpx()
    looks.watch_subprocess()
    if "not outside" in config.getoption("markexpr"):
        outside.forbid()


def pytest_sessionfinish() -> None:
    """A worker that `make coverage` measures is killed if it takes long to end: what it ran is written before."""
    measured = coverage.Coverage.current()
    if measured is not None:
        measured.save()


def pytest_report_header() -> str:
    """How to repeat this run's order."""
    return order.repeat()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The same behind the failures, where whoever reads them looks."""
    terminalreporter.write_line(order.repeat())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of LONGEST before all others; each file's tests stay together, in an order of this run.

    A test that starts a process is marked `outside`.

    First of all, for pytest then brings together those that share a costly fixture.
    """
    folder = Path(__file__).parent
    turns = {folder / name: turn for turn, name in enumerate(LONGEST)}
    items[:] = order.ordered(items, order.choose())
    items.sort(key=lambda item: turns.get(item.path, len(turns)))
    for item in items:
        if outside.is_outside(item):
            item.add_marker(pytest.mark.outside)
        if item.path in turns and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(max(LONGEST_S, float(item.config.getini("timeout")))))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test ends in its time or is ended, and then what it started is too."""
    marker = item.get_closest_marker("timeout")
    within_s = float(marker.args[0] if marker else item.config.getini("timeout"))
    with bounds.bounded(within_s, item.config.stash[STDERR], item.nodeid):
        done = yield
    if item.stash.get(TIMED_OUT, False):
        bounds.kill_started(phase="call")
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remembers whether the test itself passed, and whether its time was up."""
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
        item.stash[TIMED_OUT] = call.excinfo is not None and "Timeout (>" in str(call.excinfo.value)
    return report


@pytest.fixture(autouse=True)
def every_failure_is_looked_at(request: pytest.FixtureRequest) -> Iterator[None]:
    """A refusal or an exit code that the test throws away fails it: it believes that it has done what it has not."""
    yield
    unseen = looks.unseen()
    assert not (unseen and request.node.stash.get(PASSED, False)), "nobody looked at:\n" + "\n".join(unseen)


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
    if live.process is not None and coverage.Coverage.current() is not None:
        live.stop(code=None)  # one that is killed does not tell what it ran
    elif live.process is not None:
        live.kill()
