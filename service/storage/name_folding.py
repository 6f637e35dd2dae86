"""The stored names that matching compares, and the rule that folded them: migration 016 and its way back.

SQL has no NFKC, so that names are folded here, in the transaction of the migration, as the audit log is sealed. A row
is folded anew only where it holds what the earlier rule makes of its name. What somebody else wrote there stays, and
`passbook integrity` names it.
"""

import contextlib
from collections.abc import Callable, Iterator

from service.ledger.depositor_names import FOLDING_RULE, OTHER_THAN_PLAIN, match_name
from service.storage import sqlite
from service.storage.sqlite import Connection

MIGRATION = 16
"""The number of the migration that made the table."""
_RULE = "name_folding"
_TABLES = ("deposit_transactions", "bank_notifications")
_ROWS_AT_ONCE = 50_000
_MAY_FOLD_OTHERWISE = f"match_name <> '' AND depositor_name GLOB '{OTHER_THAN_PLAIN}'"


def rule_of(connection: Connection) -> int:
    """The rule by which the stored names were folded."""
    if not sqlite.has_table(connection, _RULE):
        return 1
    return int(connection.execute(f"SELECT COALESCE(MAX(rule), 1) FROM {_RULE}").fetchone()[0])


def is_behind(connection: Connection) -> bool:
    """Whether there is the table and its rule an earlier one: a program that cannot fold, such as wrangler, made it."""
    return rule_of(connection) < FOLDING_RULE and sqlite.has_table(connection, _RULE)


def count_other_than_plain(connection: Connection) -> int:
    """How many names of deposits and notifications the rules may fold differently."""
    counts = (f"(SELECT COUNT(*) FROM {table} WHERE {_MAY_FOLD_OTHERWISE})" for table in _TABLES)
    return int(connection.execute(f"SELECT {' + '.join(counts)}").fetchone()[0])


def fold(tx: Connection, *, rule: int, on_progress: Callable[[int, int], None]) -> int:
    """Folds the stored names by `rule`, within an open transaction; returns how many changed. `on_progress`: rows
    looked at, and of how many."""
    earlier = rule_of(tx)
    total = sum(tx.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in _TABLES)
    changed = looked_at = 0
    with _triggers_lifted(tx):
        for table in _TABLES:
            for low, high, count in _stretches(tx, table):
                changed += _fold_rows(tx, table, low, high, earlier, rule)
                looked_at += count
                on_progress(looked_at, total)
        tx.execute(f"UPDATE {_RULE} SET rule = ?", (rule,))
    return changed


def _stretches(tx: Connection, table: str) -> Iterator[tuple[int, int, int]]:
    """(below the first id, the last id, how many rows) of one stretch after the other."""
    low = tx.execute(f"SELECT COALESCE(MIN(id) - 1, 0) FROM {table}").fetchone()[0]
    while True:
        some = f"SELECT id FROM {table} WHERE id > ? ORDER BY id LIMIT {_ROWS_AT_ONCE}"
        high, count = tx.execute(f"SELECT MAX(id), COUNT(*) FROM ({some})", (low,)).fetchone()
        if not count:
            return
        yield low, high, count
        low = high


def _fold_rows(tx: Connection, table: str, low: int, high: int, earlier: int, rule: int) -> int:
    rows = tx.execute(
        f"SELECT id, depositor_name, match_name FROM {table} WHERE id > ? AND id <= ? AND {_MAY_FOLD_OTHERWISE}",
        (low, high),
    ).fetchall()
    changes = []
    for row_id, name, stored in rows:
        if isinstance(name, str) and stored == match_name(name, rule=earlier):
            folded = match_name(name, rule=rule)
            if folded != stored:
                changes.append((folded, row_id))
    tx.executemany(f"UPDATE {table} SET match_name = ? WHERE id = ?", changes)
    return len(changes)


@contextlib.contextmanager
def _triggers_lifted(tx: Connection) -> Iterator[None]:
    """Without the triggers of these tables within the block; afterwards they are as they were, to the letter."""
    triggers = tx.execute(
        f"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN {(*_TABLES, _RULE)} ORDER BY rowid"
    ).fetchall()
    for name, _ in triggers:
        tx.execute(f"DROP TRIGGER {name}")
    yield
    for _, text in triggers:
        tx.execute(text)
