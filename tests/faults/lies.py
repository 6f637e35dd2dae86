"""Lies told to the oracle about a database that is sound: each must be found, or the oracle proves nothing."""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.faults.journal import Entry, Findings, check_at_rest
from tests.faults.row import Run

_TRIGGERS = "SELECT name FROM sqlite_master WHERE type = 'trigger'"

LIES: dict[str, tuple[str, Callable[[Findings], bool]]] = {
    "an answered write is deleted": (
        "DELETE FROM deposit_transactions WHERE id = (SELECT MAX(id) FROM deposit_transactions)",
        lambda found: any(
            "its transactions are []" in fault or "its deposit is None" in fault for fault in found.broken
        ),
    ),
    "a stored answer is deleted": (
        "DELETE FROM idempotency_answers WHERE rowid = (SELECT MAX(rowid) FROM idempotency_answers)",
        lambda found: len(found.lost) > 0,
    ),
    "an effect is doubled": (
        "INSERT INTO deposit_transactions (user_id, type, amount, status, depositor_name, reference)"
        " SELECT user_id, type, amount, 'pending', depositor_name, reference FROM deposit_transactions"
        " WHERE COALESCE(reference, depositor_name) IS NOT NULL ORDER BY id DESC LIMIT 1",
        lambda found: len(found.doubled) > 0,
    ),
    "a balance is one won too high": (
        "UPDATE user_deposits SET balance = balance + 1 WHERE user_id = (SELECT MIN(user_id) FROM user_deposits)",
        lambda found: any("balance" in fault for fault in found.broken),
    ),
    "an audit row is rewritten": (
        "UPDATE audit_logs SET details = '{}' WHERE id = (SELECT MAX(id) FROM audit_logs)",
        lambda found: any("audit log, row" in fault for fault in found.broken),
    ),
}


def tell(run: Run, database: Path, entries: Mapping[str, Entry], *, actor: str) -> None:
    """Each lie, put into a copy of `database`, which nobody serves."""
    for name, (sql, caught) in LIES.items():
        copy = run.folder / "lied-to" / "passbook.db"
        shutil.rmtree(copy.parent, ignore_errors=True)
        copy.parent.mkdir()
        with contextlib.closing(sqlite3.connect(database)) as source, contextlib.closing(sqlite3.connect(copy)) as to:
            source.backup(to)
            to.execute("PRAGMA foreign_keys = OFF")
            for (trigger,) in to.execute(_TRIGGERS).fetchall():
                to.execute(f'DROP TRIGGER "{trigger}"')
            to.execute(sql)
            to.commit()
        run.mutant(name, caught(check_at_rest(copy, entries, actor=actor)))
