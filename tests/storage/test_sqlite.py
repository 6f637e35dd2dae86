"""What a writing connection is set to, and what becomes of one that cannot be set."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.storage import sqlite


@pytest.mark.parametrize("setting", ["journal_mode", "synchronous", "foreign_keys", "recursive_triggers"])
def test_a_setting_that_does_not_take_is_an_error(tmp_path: Path, setting: str) -> None:
    """SQLite says nothing of a pragma that it refuses or does not know: each that the ledger rests on is read back."""

    class Deaf(sqlite.Connection):
        def execute(self, sql: str, *arguments: Any) -> Any:
            deaf = sql.startswith(f"PRAGMA {setting} =")
            weak = "PRAGMA synchronous = NORMAL" if setting == "synchronous" else "SELECT 1"
            return super().execute(weak if deaf else sql, *arguments)

    with pytest.raises(sqlite.EngineError, match=f"{setting} is .* was set"):
        sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True, factory=Deaf)


def test_a_writing_connection_is_set_as_the_ledger_needs_it(tmp_path: Path) -> None:
    """A commit waits for the disk, links and rules hold, and what is deleted leaves no copy of itself."""
    connection = sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=1234, checkpoints=False)
    names = (
        *("busy_timeout", "journal_mode", "synchronous", "foreign_keys", "recursive_triggers", "trusted_schema"),
        *("temp_store", "secure_delete", "wal_autocheckpoint", "journal_size_limit"),
    )
    found = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}
    connection.close()
    assert found == {
        "busy_timeout": 1234,
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "trusted_schema": 0,
        "temp_store": 2,
        "secure_delete": 2,
        "wal_autocheckpoint": 0,
        "journal_size_limit": sqlite.LOG_BYTES_MAX,
    }


def _log_bytes(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


def test_a_log_that_grew_is_cut_and_nobody_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer does it between two writes. A reader in the way may take long; and the next write waits as before."""
    path, waits, empty = tmp_path / "p.db", list[int](), sqlite.empty_log

    def emptied(connection: sqlite.Connection) -> bool:
        waits.append(connection.execute("PRAGMA busy_timeout").fetchone()[0])
        return empty(connection)

    monkeypatch.setattr(sqlite, "LOG_BYTES_MAX", 100_000)
    monkeypatch.setattr(sqlite, "empty_log", emptied)
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=1234, checkpoints=False)) as connection:
        connection.execute("CREATE TABLE t (x)")
        sqlite.shorten_log(connection)
        assert waits == [], "a short log is cut"
        connection.execute("INSERT INTO t VALUES (zeroblob(500000))")
        assert _log_bytes(path) > 100_000
        sqlite.shorten_log(connection)
        assert waits == [0], "a long log is not cut, or somebody is waited for"
        assert _log_bytes(path) == 0
        assert connection.execute("PRAGMA busy_timeout").fetchone()[0] == 1234, "the next write waits for no lock"


def test_what_a_killed_process_left_half_done_is_undone(tmp_path: Path) -> None:
    """The rollback journal goes, and what it keeps is back: no reader may do that, so it is done before."""
    path, killed = tmp_path / "p.db", tmp_path / "killed.db"
    with contextlib.closing(sqlite.driver.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x)")
        connection.executemany("INSERT INTO t VALUES (?, zeroblob(4000))", [(n,) for n in range(200)])
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("UPDATE t SET x = 'half done'")
        for name in ("", "-journal"):
            shutil.copy(f"{path}{name}", f"{killed}{name}")
        connection.execute("ROLLBACK")
    assert killed.with_name("killed.db-journal").stat().st_size > 0
    sqlite.undo_interrupted(killed)
    assert not killed.with_name("killed.db-journal").exists(), "the journal is still there"
    with contextlib.closing(sqlite.connect_reader(killed, busy_timeout_ms=0)) as reader:
        assert reader.execute("SELECT COUNT(*) FROM t WHERE x = zeroblob(4000)").fetchone() == (200,)


@pytest.mark.parametrize(
    ("version", "has_it"), [((3, 6, 23), False), ((3, 7, 0), True), ((3, 51, 2), True), ((3, 51, 3), False)]
)
def test_only_an_engine_without_the_bug_checkpoints_beside_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], has_it: bool
) -> None:
    """Two connections that write and checkpoint at once can lose commits in the versions between."""
    with contextlib.closing(
        sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=False)
    ) as connection:
        monkeypatch.setattr(sqlite, "version_tuple", lambda: version)
        assert sqlite.has_wal_reset_bug() is has_it
        sqlite.checkpoint_if_safe(connection)
        pages = connection.execute("PRAGMA wal_autocheckpoint").fetchone()[0]
        assert (pages == 0) is has_it, f"it checkpoints every {pages} pages"
