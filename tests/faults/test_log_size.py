"""The write-ahead log grows behind a reader of another program, and is short again soon after that one is gone."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage.sqlite import LOG_BYTES_MAX
from tests.ledger_check import broken_invariants
from tests.live import LiveService

_MIB = 2**20
WITHIN_S = 60


def _log(service: LiveService) -> int:
    return service.database.with_name("passbook.db-wal").stat().st_size


@contextlib.contextmanager
def _outside_reader(database: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM users").fetchone()
        yield
        reader.execute("COMMIT")


def _grow(database: Path, mib: int) -> None:
    """So many MiB of commits, into a table of the bot's, by a program that leaves the log to the service."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as other:
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("CREATE TABLE IF NOT EXISTS pictures (id INTEGER PRIMARY KEY, picture BLOB)")
        for _ in range(mib):
            other.execute("INSERT OR REPLACE INTO pictures VALUES (1, zeroblob(1048576))")


@pytest.mark.parametrize("writes_follow", [False, True])
def test_the_log_does_not_keep_its_peak(own_service: LiveService, *, writes_follow: bool) -> None:
    """Without a restart, and though no write ever follows; while writes go on, too."""
    own_service.start()
    client = own_service.client()
    client.credit("1", 100)
    with _outside_reader(own_service.database):
        _grow(own_service.database, 100)
        client.credit("1", 100)
        assert _log(own_service) > 100 * _MIB
        assert client.get("/readyz").status_code == 200
    deadline = time.monotonic() + WITHIN_S
    while _log(own_service) > LOG_BYTES_MAX and time.monotonic() < deadline:
        if writes_follow:
            client.credit("1", 100)
        else:
            time.sleep(0.05)
    assert _log(own_service) <= LOG_BYTES_MAX
    assert client.credit("1", 100)["balance_after"] >= 300
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []
