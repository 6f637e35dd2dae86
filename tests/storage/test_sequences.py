"""Ids that were given out once are given out to no other row."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage import sequences, sqlite

TABLES = ("users", "deposit_transactions", "audit_logs")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite.Connection]:
    """The three tables, empty and without their rules."""
    with contextlib.closing(sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=False)) as opened:
        for table in TABLES:
            opened.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY AUTOINCREMENT)")
        yield opened


def _last(connection: sqlite.Connection) -> list[int]:
    found = sequences.next_ids(connection)
    return [found.user - 1, found.transaction - 1, sequences.last_audit_log_id(connection)]


def test_the_id_of_a_row_that_is_gone_is_not_given_out_again(connection: sqlite.Connection) -> None:
    """Rows of the log go into archives, the bot deleted some of its own: the next id is behind all that there were."""
    assert _last(connection) == [0, 0, 0]
    for number, table in enumerate(TABLES, 1):
        connection.executemany(f"INSERT INTO {table} (id) VALUES (?)", [(1,), (10 * number,)])
        connection.execute(f"DELETE FROM {table} WHERE id > 1")
    assert _last(connection) == [10, 20, 30]
    for table in TABLES:
        connection.execute(f"DELETE FROM {table}")
    assert _last(connection) == [10, 20, 30]


def test_no_id_is_given_out_that_a_row_has(connection: sqlite.Connection) -> None:
    """Also where a hand has set sqlite_sequence back or emptied it."""
    for table in TABLES:
        connection.execute(f"INSERT INTO {table} (id) VALUES (7)")
    connection.execute("UPDATE sqlite_sequence SET seq = 3")
    assert _last(connection) == [7, 7, 7]
    connection.execute("DELETE FROM sqlite_sequence")
    assert _last(connection) == [7, 7, 7]
