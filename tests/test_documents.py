"""Documents are true: what they say to type works as it stands, and prints what they say."""

import contextlib
import re
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests import documents
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT
from tests.migrations.d1 import LocalD1, installed_node_modules, succeeded
from tests.storage.test_importer import make_bots_file
from tests.storage.test_migrator import BOT_ROWS

REMOTE = {"telegram-again --remote": "telegram-conversations --local --persist-to again", "--remote": "--local"}
"""There is no account: the D1 is a local one, and a second one is another folder."""


def _takeover(folder: Path) -> documents.Setting:
    d1 = LocalD1.create(folder, installed_node_modules())
    (folder / "rows.sql").write_text((folder / "migrations" / "000_baseline.sql").read_text("utf-8") + BOT_ROWS, "utf-8")
    succeeded(d1.execute_file(folder / "rows.sql"))
    make_bots_file(folder / "bot.sqlite")
    return documents.Setting(environment=d1.environment, replaced=REMOTE)


def _nothing(folder: Path) -> documents.Setting:
    return documents.Setting()


PAGES: Mapping[str, Callable[[Path], documents.Setting]] = {
    "README.md": _nothing,
    "docs/audit-log.md": _nothing,
    "docs/cookbook.md": _nothing,
    "docs/operating.md": _nothing,
    "docs/takeover.md": _takeover,
}
"""The pages that are run, and what each finds there."""
