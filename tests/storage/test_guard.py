"""The guard of the writing connection: what happens to the files between a batch's begin and its answer is seen too."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service import resources
from service.ledger.errors import OutcomeUnknown, WritesStopped
from service.ledger.policy import Policy
from service.repository.writer import BatchFailed, run_batch
from service.storage import guard, lock, migrator, sqlite
from service.storage.guard import Files, FilesSwapped
from service.storage.sqlite import Connection

MIGRATIONS = migrator.load(resources.folder("migrations"))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Path, Connection]]:
    """A database and its guarded connection, with some commits in the log."""
    path = tmp_path / "p.db"
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        migrator.up(connection, MIGRATIONS, lambda _: None)
    with lock.exclusive(path) as held:
        assert held.database is not None
        files = Files(path, descriptor=held.database)
        wanted = migrator.schema_after(MIGRATIONS)
        connection = guard.connect_writer(files, wanted, busy_timeout_ms=0, lock_file=None)
        for number in range(10):
            _commit(connection, number)
        guard.check_files(connection, committed=True)
        yield path, connection
        connection.close()


def _commit(connection: Connection, number: int) -> None:
    connection.execute("INSERT INTO users (telegram_id) VALUES (?)", (f"{number}",))


def _log(path: Path) -> Path:
    return path.with_name("p.db-wal")


def _cut_to_nothing(path: Path) -> None:
    os.truncate(_log(path), 0)


def _cut_somewhere(path: Path) -> None:
    os.truncate(_log(path), _log(path).stat().st_size - 10_000)


@pytest.mark.parametrize("cut", [_cut_to_nothing, _cut_somewhere])
def test_a_log_that_is_cut_and_grown_again_within_one_commit_is_seen(
    opened: tuple[Path, Connection], cut: Callable[[Path], None]
) -> None:
    """The next frame goes where it would have gone, with a hole before it; the hole never reaches the database."""
    path, connection = opened
    connection.execute("BEGIN IMMEDIATE")
    _commit(connection, 100)
    cut(path)
    connection.execute("COMMIT")
    with pytest.raises(FilesSwapped, match=r"was cut off|was written over"):
        guard.check_files(connection, committed=True)
    before = path.read_bytes()
    connection.close()
    assert path.read_bytes() == before


def test_a_commit_into_a_file_that_lost_its_name_is_answered_to_nobody(
    opened: tuple[Path, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """outcome_unknown, since a retry is what finds out; the next batch is not begun, and says that nothing was done."""
    path, connection = opened
    end_of_tree = guard.check_schema

    def removed_meanwhile(tx: Connection) -> None:
        end_of_tree(tx)
        path.unlink()

    monkeypatch.setattr(guard, "check_schema", removed_meanwhile)
    policy = Policy(match_window_s=86_400, deposit_expiry_s=86_400, hold_expiry_s=3600)

    def batch() -> None:
        run_batch(connection, [], now="2026-11-28 00:00:00.000", policy=policy, render_refusal=lambda *_: (409, b""))

    with pytest.raises(BatchFailed) as failed:
        batch()
    assert isinstance(failed.value.reason, OutcomeUnknown)
    assert failed.value.stop is not None
    assert "The database p.db is gone" in failed.value.stop
    monkeypatch.undo()
    with pytest.raises(BatchFailed) as refused:
        batch()
    assert isinstance(refused.value.reason, WritesStopped)
    assert "Nothing was changed" in refused.value.reason.detail


def test_no_process_opens_what_is_in_the_place_of_the_database(opened: tuple[Path, Connection]) -> None:
    """Where the writing process is started anew, nothing is made under a name that is gone."""
    path, connection = opened
    files = connection.guard._files  # type: ignore[attr-defined]
    path.rename(path.with_name("moved.db"))
    with pytest.raises(FilesSwapped):
        guard.connect_writer(files, {}, busy_timeout_ms=0, lock_file=None)
    assert not path.exists()


def test_what_the_log_holds_is_saved_from_a_reader_or_said(opened: tuple[Path, Connection]) -> None:
    """A reader of an old snapshot keeps the log from being emptied: the sentence does not claim that it was."""
    path, connection = opened
    with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM users").fetchone()
        _commit(connection, 100)
        _log(path).unlink()
        with pytest.raises(FilesSwapped, match="could not be brought into the database file"):
            guard.check_files(connection, committed=True)
    with pytest.raises(FilesSwapped, match="All that was answered is in the database file now"):
        guard.check_files(connection, committed=True)


_OVERWRITTEN = {
    "a text": (0, b"no database at all, only text, again and again " * 100),
    "zeros": (0, bytes(4096)),
    "a database that is in no WAL mode": (18, b"\x01\x01"),
    "another version for writing alone": (18, b"\x01\x02"),
    "another version for reading alone": (18, b"\x02\x01"),
    "another size of pages": (16, b"\x20\x00"),
}
"""What another program wrote over the database: where, and which bytes."""


@pytest.mark.parametrize("checkpointed", [False, True], ids=["between commits", "while a checkpoint wrote"])
@pytest.mark.parametrize("what", _OVERWRITTEN)
def test_a_database_that_is_none_any_more_takes_no_write(
    opened: tuple[Path, Connection], what: str, checkpointed: bool
) -> None:
    """A checkpoint changes the header too; what can be no header of this database is seen even then."""
    _, connection = opened
    start, written = _OVERWRITTEN[what]
    _commit(connection, 100)
    if checkpointed:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    os.pwrite(connection.guard._files.descriptor, written, start)  # type: ignore[attr-defined]
    with pytest.raises(FilesSwapped, match=r"p\.db was written over by another program"):
        guard.check_files(connection, committed=True)


@pytest.mark.parametrize("at", [0, 24, 28, 40, 92, 96])
def test_a_header_that_changes_without_a_checkpoint_is_seen(opened: tuple[Path, Connection], at: int) -> None:
    """Any part of it: whose it is, how often it was written, how large it is, which version wrote it."""
    _, connection = opened
    descriptor = connection.guard._files.descriptor  # type: ignore[attr-defined]
    _commit(connection, 100)
    was = os.pread(descriptor, 4, at)
    os.pwrite(descriptor, bytes(byte ^ 0xFF for byte in was), at)
    with pytest.raises(FilesSwapped, match=r"p\.db was written over by another program"):
        guard.check_files(connection, committed=True)


def test_what_a_checkpoint_writes_is_no_swap(opened: tuple[Path, Connection]) -> None:
    """Though the header changes, with the size of the database. Else nothing would be proved above."""
    _, connection = opened
    for first in range(1000, 4000, 1000):
        before = os.pread(connection.guard._files.descriptor, 100, 0)  # type: ignore[attr-defined]
        connection.execute("BEGIN IMMEDIATE")
        for number in range(first, first + 1000):
            _commit(connection, number)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        assert os.pread(connection.guard._files.descriptor, 100, 0) != before  # type: ignore[attr-defined]
        guard.check_files(connection, committed=True)
