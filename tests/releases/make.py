"""Writes `tests/releases/VERSION.sql`: a small database that this version made, with rows in every table.

    python -m tests.releases.make

A release runs it once (RELEASING.md). The file is never written again, for a later version would write another one.
"""

import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from service import __version__
from tests.live import LiveService
from tests.test_way_back import OF_LONG_LOGS, filled

HERE = Path(__file__).parent
EVENTS = 260
"""More rows of the audit log than one node of its tree covers."""


def statements(database: Path) -> Iterator[str]:
    """The whole file as SQL: its marks, its tables with their rows, then its indexes and triggers."""
    with closing(sqlite3.connect(database)) as connection:
        for pragma in ("application_id", "user_version"):
            yield f"PRAGMA {pragma} = {connection.execute(f'PRAGMA {pragma}').fetchone()[0]};"
        yield from connection.iterdump()


def restored(sql: Path, database: Path) -> Path:
    """The database that the file tells of."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(sql.read_text("utf-8"))
    return database


def made(folder: Path) -> Path:
    """A database with work of each kind; what is written over HTTP is written by a service that has ended."""
    live = LiveService(folder / "passbook.db")
    try:
        filled(live)
        client = live.client()
        for number in range(EVENTS):
            event = {"action": "page_seen", "resource_type": "page", "details": {"number": number}}
            answer = client.write("/v1/audit-logs", event)
            assert answer.is_success, answer.text
    finally:
        live.stop()
    with closing(sqlite3.connect(live.database)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        empty = [name for name in tables if not connection.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()]
    assert empty == [], f"tables without a row ({OF_LONG_LOGS} need {EVENTS} events)"
    return live.database


def main() -> None:
    """Writes the file of this version, unless there is one."""
    path = HERE / f"{__version__}.sql"
    if path.exists():
        sys.exit(f"{path.name} is there: a release is written once. Raise the version in service/__init__.py first.")
    with tempfile.TemporaryDirectory() as folder:
        path.write_text("\n".join(statements(made(Path(folder)))) + "\n", "utf-8")
    print(f"{path.relative_to(HERE.parents[1])}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
