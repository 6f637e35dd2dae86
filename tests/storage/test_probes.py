"""A question to the writing connection proves that it could write, and leaves the connection as it was."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage import probes, sqlite

WAITS_MS = 4321


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite.Connection]:
    """A writing connection to a database with a page."""
    with contextlib.closing(
        sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=WAITS_MS, checkpoints=False)
    ) as opened:
        opened.execute("CREATE TABLE t (x)")
        yield opened


def _is_as_it_was(connection: sqlite.Connection) -> bool:
    waits_ms = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    return not connection.in_transaction and waits_ms == WAITS_MS


def test_a_probe_writes_a_page_and_leaves_the_connection_as_it_was(connection: sqlite.Connection) -> None:
    """The log has one frame more, and the next write waits for a lock as long as before."""
    log = Path(sqlite.file_of(connection) + "-wal")
    before = log.stat().st_size
    probes.write_nothing(connection)
    assert log.stat().st_size > before
    assert _is_as_it_was(connection)


def test_a_probe_that_another_program_keeps_waiting_leaves_the_connection_as_it_was(
    connection: sqlite.Connection,
) -> None:
    """It gives up soon, and says that the database is busy."""
    path = Path(sqlite.file_of(connection))
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite.DatabaseError) as busy:
            probes.write_nothing(connection)
    assert sqlite.is_busy(busy.value)
    assert _is_as_it_was(connection)


def test_a_probe_fails_where_a_page_would_fit_and_no_more(connection: sqlite.Connection) -> None:
    """What a failed commit left of the log takes a page on a full disk too: there must be room beyond it."""
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (probes.ROOM_BYTES - 1, largest[1]))
    try:
        connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(OSError, match="File too large"):
            probes.write_nothing(connection)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, largest)
    assert _is_as_it_was(connection)
