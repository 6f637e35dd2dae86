"""What `make coverage` says was never run was never run: each process of the service leaves what it ran."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coverage

from service.api import auth
from service.cli import keys
from service.repository import unit_of_work
from tests.live import CHECKOUT, LiveService, passbook
from tests.some import some

CONFIG = CHECKOUT / "pyproject.toml"
OF_PROCESSES = {"HTTP": auth._check_framing, "writing": unit_of_work._check_key, "command": keys._wanted}
"""A function that runs in one of the processes alone."""


def _ran(data: coverage.CoverageData, function: Callable[..., Any]) -> bool:
    """Whether a line of the function's body was run."""
    lines, first = inspect.getsourcelines(function)
    path = inspect.getsourcefile(function)
    assert path is not None
    return bool({*range(first + 1, first + len(lines))} & {*(data.lines(path) or ())})


def test_both_processes_and_commands_are_measured(own_service: LiveService, tmp_path: Path) -> None:
    """With branches: what the HTTP process ran, what the writing process ran, which ends by os._exit, and a command."""
    measuring = {"COVERAGE_PROCESS_START": str(CONFIG), "COVERAGE_FILE": str(tmp_path / "data")}
    own_service.environment = measuring
    own_service.start()
    own_service.client().credit("1", 100)
    assert own_service.stop() == 0
    database = ("--database", str(own_service.database))
    assert passbook("keys", "create", "--name", "x", "--role", "bot", *database, env=measuring).returncode == 0
    ran = []
    for file in some(tmp_path.glob("data.*")):
        data = coverage.CoverageData(str(file))
        data.read()
        assert data.has_arcs()
        ran.append([name for name, function in OF_PROCESSES.items() if _ran(data, function)])
    assert sorted(ran) == [["HTTP"], ["command"], ["writing"]]
