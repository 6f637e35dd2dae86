"""The causes of a balance are found by indexes: a user's own rows, and for each cause of a page its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import resources
from service.storage import explanations, migrator, sqlite

MIGRATIONS = migrator.load(resources.folder("migrations"))
READS: dict[str, tuple[Any, dict[str, Any]]] = {
    "latest": (explanations.find_latest_version, {}),
    "version at": (explanations.find_version_at, {"moment": "2026-01-01 00:00:00.000"}),
    "recorded": (explanations.find_recorded_balance, {"version": 3}),
    "history": (explanations.sum_history, {"until": "2026-01-01 00:00:00.000"}),
    "chain": (explanations.sum_versions, {"version": 3, "opening": 0}),
    "versions": (explanations.list_versions, {"version_max": 9, "limit": 51}),
    "history page": (explanations.list_history, {"until": None, "before_id": 9, "limit": 51}),
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite.Connection]:
    """A fully migrated database without statistics."""
    connection = sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True)
    migrator.up(connection, MIGRATIONS, lambda _: None)
    yield connection
    connection.close()


@pytest.mark.parametrize("name", READS)
def test_no_read_scans_a_table(database: sqlite.Connection, name: str) -> None:
    """Every table is searched by an index, deposit_transactions by one that begins with the user, or by row."""
    said: list[str] = []
    database.set_trace_callback(said.append)
    read, arguments = READS[name]
    read(database, 1, **arguments)
    database.set_trace_callback(None)
    assert len(said) == 1
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {said[0]}")]
    tables = ("deposit_transactions", "user_domains", "audit_logs", "bank_notifications", "t", "p", "a", "n")
    assert not [line for line in plan if line.startswith("SCAN") and line.split()[1] in tables], plan
    searched = [line for line in plan if line.startswith("SEARCH deposit_transactions") and "reverses" not in line]
    assert searched
    assert all("(user_id=?" in line for line in searched), plan
