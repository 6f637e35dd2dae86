"""The copy before a migration: whole, as private as the database, or not there. (Backups: test_backups.)"""

import contextlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.storage import copies, sqlite
from service.storage.copies import CopyFailed
from service.storage.progress import Progress, quiet
from tests.contents import contents
from tests.storage.test_importer import make_bots_file, only

NOW = datetime(2026, 1, 19, 12, 0, 0, tzinfo=UTC)


def keep(path: Path, on_progress: Progress = quiet) -> Path:
    """A copy, read by a connection that may only read."""
    with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as source:
        return copies.keep(source, path, purpose="migrate", now=NOW, on_progress=on_progress)


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_copy_of_the_bots_database_has_its_rows_and_the_guides_name_and_is_private(tmp_path: Path, mode: int) -> None:
    """Before any migration of ours; a second one in the same second has a number; both are plain files.

    Whatever the mode of the bot's file, others cannot read the copy.
    """
    path = make_bots_file(tmp_path / "bot.db", extra="PRAGMA journal_mode = WAL;")
    path.chmod(mode)
    made = [keep(path), keep(path)]
    assert [copy.name for copy in made] == [f"bot.db.before-migrate-20260119_120000{end}" for end in ("", "-2")]
    for copy in made:
        assert contents(copy) == contents(path)
        assert copy.stat().st_mode & 0o777 == 0o600
        assert copy.read_bytes()[18:20] == b"\x01\x01", "not in WAL mode"


def test_what_a_killed_copy_left_is_taken_away_by_the_next(tmp_path: Path) -> None:
    """A file that nobody holds any more, with what SQLite kept beside it."""
    path = make_bots_file(tmp_path / "bot.db")
    for end in ("", "-journal"):
        (tmp_path / f".bot.db.0a1b2c3d.passbook-partial{end}").write_bytes(b"half")
    assert only(tmp_path, "bot.db", keep(path).name) is True


def test_a_row_that_another_program_writes_meanwhile_is_noticed(tmp_path: Path) -> None:
    """The copy would be from before it: one sentence, no file, nothing else touched."""
    path = make_bots_file(tmp_path / "bot.db", extra="PRAGMA journal_mode = WAL;")

    def write(_step: str, done: int, total: int) -> None:
        if done == total:
            with contextlib.closing(sqlite3.connect(path)) as other, other:
                other.execute("INSERT INTO users (telegram_id) VALUES ('77')")

    with pytest.raises(
        CopyFailed, match=r"is not sound \(its tables have other numbers of rows\); nothing was changed"
    ):
        keep(path, write)
    assert only(tmp_path, "bot.db", "bot.db-wal", "bot.db-shm")


def test_damaged_pages_make_no_copy(tmp_path: Path) -> None:
    """They are copied as they are, and SQLite's own check finds them."""
    path = make_bots_file(tmp_path / "bot.db")
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096)
    with pytest.raises(CopyFailed, match="is not sound"):
        keep(path)
    assert only(tmp_path, "bot.db")
