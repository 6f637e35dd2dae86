"""A command that a server forked is the command that a shell starts."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import bounds, forks
from tests.live import CHECKOUT, PASSBOOK, LiveService, passbook
from tests.printed import stands

COMMANDS = (
    ("--version",),
    ("no-such-command",),
    ("config",),
    ("migrate", "up", "--database", "p.db"),
    ("audit", "verify", "--database", "nowhere.db"),
)


def _started(arguments: tuple[str, ...], env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [*PASSBOOK, *arguments]
    return subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_forked_command_says_and_does_what_a_started_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Exit code, output, errors, and the files that it makes in the folder where it runs; its settings are its own."""
    ran = {}
    for how in ("forked", "started"):
        folder = tmp_path / f"of-{how}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        own = {"PASSBOOK_PORT": "1234", "PASSBOOK_DATABASE": "other.db"}
        done = passbook(*arguments, env=own) if how == "forked" else _started(arguments, {**forks.environment(), **own})
        files = {path.name: path.stat().st_mode for path in folder.iterdir()}
        ran[how] = (done.returncode, *(text.replace(str(folder), "") for text in (done.stdout, done.stderr)), files)
    assert ran["forked"] == ran["started"]
    if arguments == ("config",):
        assert stands("1234", str(ran["forked"]))


def test_a_forked_service_has_nothing_of_the_process_that_it_comes_from(own_service: LiveService) -> None:
    """No descriptors, no session and no folder of another; it knows how it was called, and a signal ends it alone."""
    with open("/dev/full", "w"):
        process = own_service.start().process
    assert process is not None
    assert forks.environment_of(process.pid) is not None, "it was not forked"
    assert os.getsid(process.pid) == process.pid
    assert Path(f"/proc/{process.pid}/cwd").resolve() == Path.cwd()
    kept = {os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir() if int(path.name) > 2}
    folder = str(own_service.database.parent)
    assert [one for one in kept if not one.startswith((folder, "socket:", "anon_inode:", "pipe:", "/dev/"))] == []
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    process.kill()
    assert process.wait(60) == process.poll() == -signal.SIGKILL
    assert forks.environment_of(process.pid) is None
    assert passbook("--version").returncode == 0
    own_service.kill()


@pytest.mark.parametrize(
    ("name", "value", "is_forked"),
    [
        ("PASSBOOK_PORT", "1", True),
        ("PYTHONHASHSEED", "1", False),
        ("LD_PRELOAD", "", False),
        ("TZ", "Asia/Seoul", False),
        ("OTEL_TRACES_SAMPLER", "always_off", False),
    ],
)
def test_what_is_read_at_a_start_is_given_to_a_start(name: str, value: str, *, is_forked: bool) -> None:
    """A variable that an interpreter or a library reads makes a process of its own; so does another program."""
    for command, forked in (([*PASSBOOK, "--version"], is_forked), ([sys.executable, "-V"], False)):
        with forks.popen(command, {**forks.environment(), name: value}) as process:
            assert (forks.environment_of(process.pid) is not None) == forked
            process.communicate(timeout=60)
        assert process.returncode == 0


def test_outside_of_a_test_nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks and the suite of faults time and kill programs as they are."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    with forks.popen([*PASSBOOK, "--version"], forks.environment()) as process:
        assert forks.environment_of(process.pid) is None
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_forked_service_is_killed_with_the_test_that_started_it(own_service: LiveService) -> None:
    """When its time is up; what the test's fixtures started goes on, and the server too."""
    process = own_service.start().process
    assert process is not None
    bounds.kill_started(phase="setup")
    assert process.poll() is None
    killed = bounds.kill_started(phase="call")
    assert killed
    assert process.wait(60) == -signal.SIGKILL
    assert passbook("--version").returncode == 0
    own_service.kill_alone()


def test_without_its_server_a_service_counts_as_killed_and_the_next_one_has_another(own_service: LiveService) -> None:
    """Where all that this process started was killed."""
    process = own_service.start().process
    assert process is not None
    bounds.kill_started()
    assert process.wait(60) == -signal.SIGKILL
    assert passbook("--version").returncode == 0
    own_service.kill_alone()


def test_where_a_module_cannot_be_loaded_each_command_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the commands that need it fail, and say why, and the others do their work."""
    (tmp_path / "tests").symlink_to(CHECKOUT / "tests")
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("raise ImportError('no such thing')")
    monkeypatch.setattr(forks, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(forks, "_servers", [])
    for _ in range(2):
        with forks.popen([*PASSBOOK, "--version"], forks.environment()) as process:
            assert forks.environment_of(process.pid) is None
            said, _ = process.communicate(timeout=60)
        assert (process.returncode, "passbook" in said) == (0, True)
