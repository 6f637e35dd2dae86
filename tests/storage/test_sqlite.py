"""What a writing connection is set to, and what becomes of one that cannot be set."""

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
