"""The causes of a balance are found by indexes: a user's own rows, and for each cause of a page its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import resources
from service.ledger.explanations import Sums
from service.storage import explanations, migrator, sqlite
from tests.some import some

MIGRATIONS = migrator.load(resources.folder("migrations"))
READS: dict[str, tuple[Any, dict[str, Any]]] = {
    "latest": (explanations.find_latest_version, {}),
    "version at": (explanations.find_version_at, {"moment": "2026-01-01 00:00:00.000", "below": 9, "limit": 2}),
    "recorded": (explanations.find_recorded_balance, {"version": 3}),
    "history": (explanations.sum_history, {"until": "2026-01-01 00:00:00.000", "after": None, "limit": 2}),
    "more history": (explanations.sum_history, {"until": None, "after": 1, "limit": 2}),
    "chain": (explanations.sum_versions, {"after": 1, "version": 3, "opening": 0, "limit": 2}),
    "versions": (explanations.list_versions, {"version_max": 9, "limit": 51}),
    "history page": (explanations.list_history, {"end": 1, "until": None, "before_id": 9, "limit": 51}),
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite.Connection]:
    """A fully migrated database without statistics."""
    connection = sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True)
    migrator.up(connection, MIGRATIONS, lambda _: None)
    connection.execute("INSERT INTO users (telegram_id) VALUES ('1')")
    connection.execute(
        "INSERT INTO deposit_transactions (user_id, type, amount, status) VALUES (1, 'deposit', 5, 'pending')"
    )
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
    assert said
    plan = [row[3] for statement in said for row in database.execute(f"EXPLAIN QUERY PLAN {statement}")]
    tables = ("deposit_transactions", "user_domains", "audit_logs", "bank_notifications", "t", "p", "a", "n")
    assert not [line for line in plan if line.startswith("SCAN") and line.split()[1] in tables], plan
    searched = [
        line
        for line in plan
        if line.startswith(("SEARCH deposit_transactions", "SEARCH t ", "SEARCH b ")) and "reverses" not in line
    ]
    assert searched
    by_row = [line for line in searched if "INTEGER PRIMARY KEY (rowid=?)" in line]
    assert {line.split()[1] for line in by_row} <= {"deposit_transactions", "t"}  # of ids that are known
    assert all("(user_id=?" in line for line in some(searched) if line not in by_row), plan
    assert any("(user_id=?" in line for line in searched), plan


def _history(connection: sqlite.Connection) -> None:
    """Rows of the bot's: some without a time, some at the same one, ids not in the order of time; one not confirmed."""
    connection.execute("DROP TRIGGER IF EXISTS deposit_transactions_shape")
    times = [
        None,
        None,
        "2025-01-02 00:00:00",
        "2025-01-01 00:00:00",
        "2025-01-02 00:00:00",
        None,
        "2025-03-01 00:00:00",
    ]
    for place, time in enumerate(times):
        connection.execute(
            "INSERT INTO deposit_transactions (user_id, type, amount, status, created_at, confirmed_at)"
            " VALUES (1, ?, ?, ?, ?, ?)",
            ("deposit" if place % 3 else "purchase", 10**place, "cancelled" if place == 4 else "confirmed", time, time),
        )


@pytest.mark.parametrize("until", [None, "2025-01-31 00:00:00"])
@pytest.mark.parametrize("limit", range(1, 10))
def test_the_history_in_steps_sums_to_the_whole(database: sqlite.Connection, limit: int, until: str | None) -> None:
    """Every row once, however few are looked at in a step; the last row of the history is known at the end."""
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f"DROP TRIGGER {name}")
    _history(database)
    whole = explanations.sum_history(database, 1, until=until, after=None, limit=100)
    assert whole is not None
    assert (whole.row, whole.sums.count + whole.sums.apart) == (None, 6)
    sums, row, end, steps = Sums(), None, None, 0
    while steps == 0 or row is not None:
        part = explanations.sum_history(database, 1, until=until, after=row, limit=limit)
        assert part is not None
        sums, row, end, steps = sums.plus(part.sums), part.row, part.end or end, steps + 1
        assert steps < 20
    assert (sums, end) == (whole.sums, whole.end)
    assert explanations.sum_history(database, 1, until=until, after=999, limit=limit) is None
    assert end is not None
    listed = explanations.list_history(database, 1, end=end, until=until, before_id=99, limit=99)
    assert [cause.transaction_id for cause in listed] == sorted((c.transaction_id for c in listed), reverse=True)
    assert len(listed) == sums.count


@pytest.mark.parametrize("limit", range(1, 8))
def test_the_versions_in_steps_sum_to_the_whole(database: sqlite.Connection, limit: int) -> None:
    """Also with a version missing and one that does not continue the one before: the same sums and the same doubts."""
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f"DROP TRIGGER {name}")
    for version, before, after in ((1, 0, 1), (2, 1, 2), (4, 3, 4), (5, 4, 5), (6, 7, 8), (7, 8, 9)):
        database.execute(
            "INSERT INTO deposit_transactions (user_id, type, amount, status, confirmed_at, balance_before,"
            " balance_after, version) VALUES (1, 'balance_change', 1, 'confirmed', ?, ?, ?, ?)",
            (f"2026-01-0{version} 00:00:00.000", before, after, version),
        )
    whole = explanations.sum_versions(database, 1, after=0, version=7, opening=0, limit=100)
    assert whole == explanations.ChainPart(Sums(count=6, credits=6, debits=0, apart=2), 7, 9)
    sums, version, balance, steps = Sums(), 0, 0, 0
    while version < 7:
        part = explanations.sum_versions(database, 1, after=version, version=7, opening=balance, limit=limit)
        assert part.sums.count <= limit
        sums, version, balance, steps = sums.plus(part.sums), part.version, part.balance, steps + 1
    assert (sums, balance, steps) == (whole.sums, 9, -(-6 // limit))
    for moment, wanted in (
        ("2026-01-03 00:00:00.000", 2),
        ("2026-01-09 00:00:00.000", 7),
        ("2025-01-01 00:00:00.000", None),
    ):
        sought, below = None, 2**53
        while sought is None and below is not None:
            sought, below = explanations.find_version_at(database, 1, moment, below=below, limit=limit)
        assert sought == wanted
