"""The two programs that auditors are given, as processes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.live import CHECKOUT

FOLDER = CHECKOUT / "docs" / "audit-log"
TIMEOUT_S = 60

# node comes with the development requirements and stands beside the interpreter.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
_COMMANDS = {"verify.py": [sys.executable, "-I"], "verify.mjs": ["node"]}

Verifier = Callable[..., tuple[int, str]]
"""Takes arguments and, as `given`, standard input; returns the exit code and what was said."""


def verifier(name: str) -> Verifier:
    """verify.py or verify.mjs."""

    def run(*arguments: str | Path, given: bytes = b"") -> tuple[int, str]:
        done = subprocess.run(
            [*_COMMANDS[name], str(FOLDER / name), *map(str, arguments)],
            input=given,
            env={"PATH": PATH},
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        said = done.stdout.decode()
        assert "Traceback" not in done.stderr.decode(), done.stderr
        return done.returncode, said

    return run
