"""A copy of the checkout that a fault is put into, and test runs in it that end in bounded time.

The copy has a virtual environment of its own, which borrows the packages of the one that runs this: so its code is what
its tests, the processes that they start and the `passbook` on their path run, whatever their environment.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_MARK = "MUTANTS_COPY"
"""The environment variable by which the processes of a copy are known."""
# Plugins that no test of a fault needs, and that take longer to load than most of these tests.
_WITHOUT = tuple(option for name in ("schemathesis", "faker", "anyio") for option in ("-p", f"no:{name}"))
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_RAISED = re.compile(r"^[ |+]*(E .*)$", re.MULTILINE)
_WHERE = "import os, service; print(os.path.dirname(os.path.dirname(service.__file__)))"


@dataclass(frozen=True)
class Ran:
    """What a run of tests came to. failures: the text of each failed test by its name."""

    failures: Mapping[str, str]
    passed: int
    seconds: float
    said: str
    timed_out: bool = False


class Copy:
    """A copy of `checkout` in `folder`, with all that git would list of it. Not for use by two threads at once."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.root = folder / "passbook"
        self._folder = folder
        self._runs = self._edits = 0
        for name in _files(checkout):
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, target, follow_symlinks=False)
        cache = checkout / ".cache"  # what tests have downloaded
        (self.root / ".cache").mkdir(parents=True, exist_ok=True)
        for kept in cache.iterdir() if cache.is_dir() else ():
            (self.root / ".cache" / kept.name).symlink_to(kept.resolve())
        self._make_environment()
        for command in (["git", "init", "-q"], ["git", "add", "-A"]):
            subprocess.run(command, cwd=self.root, check=True)
        self._check_whose_code_runs()

    def text(self, file: str) -> str:
        """The contents of `file`; nothing where there is none."""
        path = self.root / file
        return path.read_text("utf-8") if path.is_file() else ""

    def edit(self, file: str, text: str) -> None:
        """Replaces the contents of `file`, so that no compiled form of the old contents is used."""
        path = self.root / file
        path.write_text(text, "utf-8")
        # Python tells a stale compiled file by the second and the size of its source: edits come faster than that.
        self._edits += 1
        os.utime(path, (self._edits * 10, self._edits * 10))
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()

    def run(self, tests: Sequence[str], limit_s: float) -> Ran:
        """Runs `tests` with pytest; after `limit_s`, and at the end, every process that it started is killed."""
        self._runs += 1
        scratch = self._folder / f"scratch-{self._runs}"
        scratch.mkdir()
        report, said = scratch / "report.xml", scratch / "said"
        command = [
            *(self._python, "-m", "pytest", "-q", "--tb=short", "--color=no", "-p", "no:cacheprovider"),
            *("-o", "junit_family=xunit1", *_WITHOUT),
            *(f"--junitxml={report}", f"--basetemp={scratch / 'pytest'}", *tests),
        ]
        began = time.monotonic()
        with said.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=self._environment(scratch),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
            timed_out = False
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                timed_out = True
            finally:
                self._end_all(process)
        seconds = time.monotonic() - began
        text = said.read_text("utf-8", "replace")
        if timed_out:
            shutil.rmtree(scratch, ignore_errors=True)
            return Ran({"the whole run": f"timed out after {limit_s:g} s"}, 0, seconds, text, timed_out=True)
        found = _read(report) if report.exists() else None
        shutil.rmtree(scratch, ignore_errors=True)
        if found is None:
            return Ran({"the whole run": f"pytest ended with {process.returncode}"}, 0, seconds, text)
        failures, passed = found
        if process.returncode not in (0, 5) and not failures:
            failures = {"the whole run": text[-4000:]}
        return Ran(failures, passed, seconds, text)

    @property
    def _python(self) -> str:
        return str(self.root / ".venv" / "bin" / "python")

    def _environment(self, scratch: Path) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PASSBOOK_", "PYTEST_"))}
        path = f"{self.root / '.venv' / 'bin'}{os.pathsep}{kept.get('PATH', '')}"
        own = {_MARK: str(self.root), "TMPDIR": str(scratch), "PATH": path, "PYTHONPATH": str(self.root)}
        return {**kept, **own, "PYTHONHASHSEED": "0"}

    def _make_environment(self) -> None:
        folder = self.root / ".venv"
        venv.create(folder, symlinks=True, with_pip=False)
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        borrowed = sysconfig.get_path("purelib")
        (packages / "passbook.pth").write_text(f"{self.root}\nimport site; site.addsitedir({borrowed!r})\n")
        for script in (Path(sys.prefix) / "bin").iterdir():
            own = folder / "bin" / script.name
            if not own.exists() and script.name != "passbook":
                own.symlink_to(script)
        command = folder / "bin" / "passbook"
        command.write_text(f'#!/bin/sh\nexec "{self._python}" -m service.cli "$@"\n')
        command.chmod(0o755)
        for mark in (Path(sys.prefix)).glob(".[a-z]*"):  # what make has installed
            (folder / mark.name).touch()

    def _check_whose_code_runs(self) -> None:
        """Raises RuntimeError when a process without any environment would run other code than the copy's."""
        found = subprocess.run(
            [self._python, "-c", _WHERE], cwd="/", env={}, capture_output=True, text=True, check=False
        )
        if found.stdout.strip() != str(self.root):
            raise RuntimeError(f"the copy at {self.root} would run {found.stdout.strip() or found.stderr}")

    def _end_all(self, process: "subprocess.Popen[bytes]") -> None:
        """Kills what the run started, also what made a session of its own."""
        mark, name = f"{_MARK}={self.root}".encode(), str(self.root).encode()
        for _ in range(10):
            found = []
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    environment, command = ((folder / part).read_bytes() for part in ("environ", "cmdline"))
                except OSError:
                    continue
                if mark in environment.split(b"\0") or command.startswith(name):
                    found.append(int(folder.name))
            for pid in {*found, process.pid} if process.poll() is None else found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait()
            if not found:
                return


def _files(checkout: Path) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=checkout, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if name and (checkout / name).is_file()]


def _read(report: Path) -> tuple[dict[str, str], int]:
    """The failures in pytest's XML by test, and how many tests passed.

    Of a failure what was raised is kept, and no line of source: a message in an assertion that was never reached would
    pass for the reason.
    """
    failures, passed = {}, 0
    for case in ET.parse(report).iter("testcase"):
        bad = [found for kind in ("failure", "error") for found in case.findall(kind)]
        if bad:
            lines = [
                line
                for one in bad
                for line in (one.get("message", ""), *_RAISED.findall(_ANSI.sub("", one.text or "")))
            ]
            name = f"{case.get('file') or case.get('classname', '')}::{case.get('name', '')}"
            failures[name] = "\n".join([*filter(None, [failures.get(name, "")]), *lines])
        elif case.find("skipped") is None:
            passed += 1
    return failures, passed
