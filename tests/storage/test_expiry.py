"""The lists of what is due: in the order of age, page by page, along an index."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service import resources
from service.ledger.expiry import FIRST, Due
from service.storage import deposits, domain_purchases, migrator, sqlite
from tests.some import some

NOW = "2026-01-19 12:00:00.000"
ListDue = Callable[..., list[Due]]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite.Connection]:
    """A migrated database with one user who has money."""
    connection = sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True)
    migrator.up(connection, migrator.load(resources.folder("migrations")), lambda _: None)
    connection.execute("INSERT INTO users (telegram_id) VALUES ('1')")
    yield connection
    connection.close()


def _add(database: sqlite.Connection, list_due: ListDue, created_at: str | None, status: str = "pending") -> int:
    if list_due is deposits.list_due:
        sql = (
            "INSERT INTO deposit_transactions (user_id, type, amount, status, created_at)"
            " VALUES (1, 'deposit', 1, ?, ?)"
        )
        return database.execute(sql, (status, created_at)).lastrowid or 0
    sql = (
        "INSERT INTO user_domains (user_id, domain, ascii_name, price, transaction_id, status, created_at)"
        " VALUES (1, 'a.kr', (SELECT 'a' || COUNT(*) || '.kr' FROM user_domains), 1, 1, ?, ?)"
    )
    return database.execute(sql, (status, created_at)).lastrowid or 0


@pytest.mark.parametrize("list_due", [deposits.list_due, domain_purchases.list_due])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_give_what_is_due_once_and_the_oldest_first(
    database: sqlite.Connection, list_due: ListDue, limit: int
) -> None:
    """Without a time first; equal times by id; texts with and without a fraction. Not what is as old as the bound,
    younger, or closed."""
    times = [
        "2026-01-19 11:59:59.999",
        None,
        "2026-01-19 11:00:00.5",
        "2026-01-19 11:00:00",
        "2026-01-19 11:00:00",
        None,
    ]
    ids = [_add(database, list_due, created_at) for created_at in times]
    for created_at in (NOW, "2026-01-19 12:00:00.001", "2026-01-19 12:00:01", "2026-02-01 00:00:00"):
        _add(database, list_due, created_at)
    for status in ("expired", "cancelled", "released"):
        _add(database, list_due, "2026-01-01 00:00:00", status)
    found: list[Due] = []
    while page := list_due(database, created_before=NOW, after=found[-1] if found else FIRST, limit=limit):
        assert len(page) <= limit
        found += page
    assert [row.id for row in found] == [ids[place] for place in (1, 5, 3, 4, 2, 0)]


@pytest.mark.parametrize(
    ("list_due", "index"),
    [(deposits.list_due, "idx_transactions_status"), (domain_purchases.list_due, "idx_domains_pending")],
)
def test_lists_walk_an_index_and_sort_nothing(database: sqlite.Connection, list_due: ListDue, index: str) -> None:
    """The plan of each statement that they send: a search by status and age in one index, no sort, no scan."""
    plans: list[str] = []

    class Explaining:
        def execute(self, sql: str, parameters: tuple[Any, ...]) -> Any:
            plans.append("; ".join(row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)))
            return database.execute(sql, parameters)

    list_due(Explaining(), created_before=NOW, after=FIRST, limit=100)
    assert len(plans) == 2
    assert f"USING INDEX {index} (status=? AND created_at=? AND rowid>?)" in plans[0]
    assert f"USING INDEX {index} (status=? AND created_at>? AND created_at<?)" in plans[1]
    assert all(plan.startswith("SEARCH") and "TEMP B-TREE" not in plan for plan in some(plans))
