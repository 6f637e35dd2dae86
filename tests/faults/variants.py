"""A copy of the service with one thing changed: a mutant for an oracle to find, or a rare moment made frequent."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.live import CHECKOUT

PARTS = ("service", "migrations", "schema", "openapi")


@dataclass(frozen=True)
class Change:
    """In `file`, what the regular expression `old` matches becomes `new`. With no `old`, `new` is added at the end."""

    file: str
    old: str
    new: str


OFTEN_CHECKPOINTED = Change("service/storage/sqlite.py", r"_LOG_PAGES = \d+", "_LOG_PAGES = 60")
"""The log is written back every few commits, so that a short run has many checkpoints."""
UNSYNCED = (
    Change("service/storage/sqlite.py", r"synchronous = FULL", "synchronous = NORMAL"),
    Change("service/storage/sqlite.py", r'\("synchronous", 2\)', '("synchronous", 1)'),
)
"""COMMIT returns before the log is on disk."""
FORGETFUL = Change(
    "service/storage/idempotency.py",
    "",
    "\n\ndef _never(*_: object, **__: object) -> None:\n    return None\n\n\nfind = _never\n",
)
"""No stored answer is ever found again."""


def variant(folder: Path, changes: Sequence[Change]) -> dict[str, str]:
    """Makes the copy in `folder`; the environment in which `python -m service.cli` is this copy."""
    for part in PARTS:
        shutil.copytree(CHECKOUT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for change in changes:
        path = folder / change.file
        text = path.read_text("utf-8")
        changed, count = re.subn(change.old, change.new, text) if change.old else (text + change.new, 1)
        if count == 0:
            raise AssertionError(f"{change.file} has no {change.old!r} any more: the variant changes nothing")
        path.write_text(changed, "utf-8")
    # The folder that one is in must not come before the copy.
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
