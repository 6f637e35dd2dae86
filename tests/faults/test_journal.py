"""The oracle itself: quiet about a sound database, loud about every lie that is put into the journal or the rows."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.journal import Entry, Findings, Journal, Load, check
from tests.live import LiveService
from tests.storage.broken import by_hand

ACTOR = "first-admin"
SEED = 20260119


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveService, Path]]:
    """A service after a little load, and the journal of it."""
    folder = tmp_path_factory.mktemp("journal")
    live = LiveService(folder / "passbook.db").start()
    with Journal.opened(folder / "journal") as journal:
        load = Load(journal, url=live.url, api_key=live.admin_key, seed=SEED, clients=8, name="load")
        asyncio.run(load.run(count=30))
    yield live, folder / "journal"
    assert live.stop() == 0


def _check(live: LiveService, journal: Journal) -> Findings:
    return check(live.database, journal, live, actor=ACTOR, api_key=live.admin_key)


def test_a_sound_database_and_its_journal_agree(loaded: tuple[LiveService, Path]) -> None:
    """No fault, nothing broken; the load did make changes and refusals, and the file holds what memory held."""
    live, path = loaded
    with Journal.opened(path) as journal:
        found = _check(live, journal)
        assert found.broken == []
        assert (found.done > 50, found.refused > 5, found.unknown) == (True, True, 0)
        assert {entry.kind for entry in journal.entries.values()} == {"announce", "confirm", "cancel", "debit"}


def _claim_what_never_happened(journal: Journal) -> str:
    entry = Entry("forged", "debit", "/v1/debits", "{}")
    journal.hears(entry, journal.sends(entry), 201, b'{"id": 1, "audit_log_id": 1}', replayed=False)
    return "answered 201 and not stored"


def _claim_a_refusal_of_what_was_done(journal: Journal) -> str:
    entry = next(e for e in journal.entries.values() if e.kind == "announce")
    journal.hears(entry, journal.sends(entry), 409, b"{}", replayed=True)
    return "2 different answers"


def _forget_what_was_asked(journal: Journal) -> str:
    key = next(e.key for e in journal.entries.values() if e.kind == "debit" and 201 in {s for s, _ in e.answers})
    del journal.entries[key]
    return "that nobody asked for"


def _claim_another_order(journal: Journal) -> str:
    first = next(e for e in journal.entries.values() if e.answers)
    first.attempts[0].sent_ns = first.attempts[0].received_ns = 2**62
    last = Entry(first.key, first.kind, first.path, first.body, first.attempts)
    journal.entries[first.key] = last
    return "is before it in the audit log"


@pytest.mark.parametrize(
    "lie",
    [
        _claim_what_never_happened,
        _claim_a_refusal_of_what_was_done,
        _forget_what_was_asked,
        _claim_another_order,
    ],
)
def test_a_journal_that_lies_is_found_out(
    loaded: tuple[LiveService, Path], tmp_path: Path, lie: Callable[[Journal], str]
) -> None:
    """Whatever the database and the journal disagree about is named."""
    live, path = loaded
    copy = tmp_path / "journal"
    copy.write_bytes(path.read_bytes())
    with Journal.opened(copy) as journal:
        wanted = lie(journal)
        assert wanted in "\n".join(_check(live, journal).broken)


_TAMPERED = [
    ("DELETE FROM audit_logs WHERE action = 'balance_debited'", "audited as"),
    ("DELETE FROM audit_logs WHERE action LIKE '%_failed'", "audited as"),
    ("DELETE FROM idempotency_answers WHERE status = 201", "and not stored"),
    (
        "INSERT INTO deposit_transactions (user_id, type, amount, status, depositor_name)"
        " SELECT user_id, type, amount, 'pending', depositor_name FROM deposit_transactions WHERE type = 'deposit'",
        "its transactions are",
    ),
]


@pytest.mark.parametrize(("tamper", "wanted"), _TAMPERED)
def test_a_database_that_lost_or_doubled_something_is_found_out(
    loaded: tuple[LiveService, Path], tmp_path: Path, tamper: str, wanted: str
) -> None:
    """Rows that go missing or come twice behind the service's back are named, with the key they belong to."""
    live, path = loaded
    copy = LiveService(tmp_path / "passbook.db", admin_key=live.admin_key)
    with closing(sqlite3.connect(live.database)) as source, closing(sqlite3.connect(copy.database)) as target:
        source.backup(target)
    by_hand(copy.database, tamper)
    (tmp_path / "journal").write_bytes(path.read_bytes())
    copy.start()
    try:
        with Journal.opened(tmp_path / "journal") as journal:
            assert wanted in "\n".join(_check(copy, journal).broken)
    finally:
        copy.kill()
