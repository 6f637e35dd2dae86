"""What an import took over stays as it was: an edit by hand of any column that never changes is told."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.storage import import_digests, sqlite
from tests.storage.test_importer import make_bots_file, take_over

_MORE = "ALTER TABLE users ADD COLUMN phone TEXT; UPDATE users SET phone = '010-1234';"
OF_A_ROW = "A row that was taken over, or what is archived of it, is not as the import left it."
OF_A_TEXT = "A name, a text or an archived value that was taken over is not as the import left it."


@pytest.fixture(scope="module")
def taken_over(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bot's database as Passbook's; not to be changed."""
    folder = tmp_path_factory.mktemp("bot")
    take_over(make_bots_file(folder / "bots.sqlite", extra=_MORE), folder / "p.db")
    return folder / "p.db"


@pytest.fixture(scope="module")
def hand(taken_over: Path) -> Iterator[sqlite.Connection]:
    """Somebody who has taken the rules away, in a copy."""
    copy = Path(shutil.copy(taken_over, taken_over.with_name("edited.db")))
    with contextlib.closing(sqlite.connect_writer(copy, busy_timeout_ms=0, checkpoints=True)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        yield connection


def _said_after(hand: sqlite.Connection, sql: str) -> list[str]:
    """What is said after this statement, which is taken back."""
    hand.execute("BEGIN")
    try:
        assert hand.execute(sql).rowcount == 1, f"no row for: {sql}"
        return import_digests.differences(hand)
    finally:
        hand.execute("ROLLBACK")


def _columns() -> Iterator[tuple[str, str, str]]:
    """Table, column, and what is to be said of an edit; ids apart, for they are how rows are found."""
    for table, (kept, erasable) in import_digests._KEPT.items():
        for names, said in ((kept, OF_A_ROW), (erasable, OF_A_TEXT)):
            for name in re.split(r",\s*(?![^(]*\))", names or ""):
                if re.fullmatch(r"\w+", name) and name != "id":
                    yield table, name, said


def test_what_was_taken_over_and_not_touched_is_as_it_was(taken_over: Path) -> None:
    """Nothing to say."""
    with contextlib.closing(sqlite.connect_reader(taken_over, busy_timeout_ms=0)) as connection:
        assert import_digests.differences(connection) == []


@pytest.mark.parametrize(("table", "column", "said"), list(_columns()))
def test_an_edit_by_hand_of_what_was_taken_over_is_told(
    hand: sqlite.Connection, table: str, column: str, said: str
) -> None:
    """Of one row, whatever its value was."""
    other = f"iif(typeof({column}) IN ('integer', 'real'), {column} + 1, coalesce({column}, '') || '7')"
    last = f"SELECT MAX(id) FROM {table} WHERE id < 1000"
    assert said in _said_after(hand, f"UPDATE {table} SET {column} = {other} WHERE id = ({last})")


@pytest.mark.parametrize("table", ["users", "deposit_transactions", "bank_notifications", "user_domains"])
def test_a_row_of_the_bots_that_is_gone_is_told(hand: sqlite.Connection, table: str) -> None:
    """Also the last one."""
    assert OF_A_ROW in _said_after(hand, f"DELETE FROM {table} WHERE id = (SELECT MAX(id) FROM {table})")
