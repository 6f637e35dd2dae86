"""The stored names that matching compares, and the rule that folded them: migration 016, its way back, later rules.

SQL has no NFKC, so that names are folded here, in the transaction of the migration, as the audit log is sealed. A row
is folded anew only where it holds what the earlier rule makes of its name. What somebody else wrote there stays, and
`passbook integrity` names it.

Which tables have such names is read from the schema: every one with a column match_name, which is folded from the
column beside it. A user's learned names differ in it. Where a rule makes two of them one, one stays.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator

from service.ledger.audit_logs import SERVICE_ACTOR
from service.ledger.depositor_names import FOLDING_RULE, OTHER_THAN_PLAIN, match_name
from service.storage import sqlite
from service.storage.sqlite import Connection

MIGRATION = 16
"""The number of the migration that made the table."""
FOLDER = f"{SERVICE_ACTOR}folding"
"""Who forgets a learned name that has become another one of its user's."""
_RULE = "name_folding"
_LEARNED = "learned_names"
_NAMES = ("depositor_name", "printed_name")
_ROWS_AT_ONCE = 50_000
_MAY_FOLD_OTHERWISE = f"match_name <> '' AND {{name}} GLOB '{OTHER_THAN_PLAIN}'"
_FORGOTTEN = (
    "INSERT INTO audit_logs (user_id, telegram_id, action, outcome, resource_type, resource_id, details, created_at,"
    " actor) SELECT u.id, u.telegram_id, 'user_name_forgotten', 'success', 'user', u.id, json_object('id', l.id,"
    " 'depositor_name', l.printed_name, 'bank_notification_id', l.bank_notification_id),"
    f" strftime('%Y-%m-%d %H:%M:%f', 'now'), '{FOLDER}'"
    f" FROM {_LEARNED} AS l JOIN users AS u ON u.id = l.user_id WHERE l.id = ?"
)


def rule_of(connection: Connection) -> int:
    """The rule by which the stored names were folded."""
    if not sqlite.has_table(connection, _RULE):
        return 1
    return int(connection.execute(f"SELECT COALESCE(MAX(rule), 1) FROM {_RULE}").fetchone()[0])


def is_behind(connection: Connection) -> bool:
    """Whether there is the table and its rule an earlier one: a program that cannot fold, such as wrangler, made it."""
    return rule_of(connection) < FOLDING_RULE and sqlite.has_table(connection, _RULE)


def count_other_than_plain(connection: Connection) -> int:
    """How many stored names the rules may fold differently."""
    counts = [
        f"(SELECT COUNT(*) FROM {table} WHERE {_MAY_FOLD_OTHERWISE.format(name=name)})"
        for table, name in tables(connection).items()
    ]
    return int(connection.execute(f"SELECT {' + '.join(counts)}").fetchone()[0])


def fold(tx: Connection, *, rule: int, on_progress: Callable[[int, int], None]) -> int:
    """Folds the stored names by `rule`, within an open transaction; returns how many changed. `on_progress`: rows
    looked at, and of how many."""
    earlier, names = rule_of(tx), tables(tx)
    total = sum(tx.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in names)
    changed = looked_at = 0
    with _triggers_lifted(tx, names):
        for table, name in names.items():
            ones_own = []
            for low, high, count in _stretches(tx, table):
                changes = _changes(tx, table, name, (low, high), (earlier, rule))
                if table == _LEARNED:
                    ones_own += changes
                else:
                    tx.executemany(f"UPDATE {table} SET match_name = ? WHERE id = ?", changes)
                changed += len(changes)
                looked_at += count
                on_progress(looked_at, total)
            if ones_own:
                _fold_learned(tx, ones_own)
        tx.execute(f"UPDATE {_RULE} SET rule = ?", (rule,))
    return changed


def tables(connection: Connection) -> dict[str, str]:
    """Each table with folded names, and the column that they are folded from."""
    found = connection.execute(
        "SELECT t.name, c.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS m ON m.name = 'match_name'"
        f" JOIN pragma_table_info(t.name) AS c ON c.name IN {_NAMES} WHERE t.type = 'table' ORDER BY t.name"
    ).fetchall()
    return dict(found)


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


def _changes(
    tx: Connection, table: str, name: str, ids: tuple[int, int], rules: tuple[int, int]
) -> list[tuple[str, int]]:
    """(as it is folded now, id) of the rows above the first id and up to the last one that are folded by the earlier of
    the two rules, where the later one folds them otherwise."""
    rows = tx.execute(
        f"SELECT id, {name}, match_name FROM {table} WHERE id > ? AND id <= ?"
        f" AND {_MAY_FOLD_OTHERWISE.format(name=name)}",
        ids,
    ).fetchall()
    earlier, rule = rules
    return [
        (folded, row_id)
        for row_id, written, stored in rows
        if isinstance(written, str)
        and stored == match_name(written, rule=earlier)
        and (folded := match_name(written, rule=rule)) != stored
    ]


def _fold_learned(tx: Connection, changes: list[tuple[str, int]]) -> None:
    """Folds learned names, the oldest first; one that its user has already is forgotten, and the audit log says so."""
    # None may stand in the way of another while both change.
    tx.executemany(f"UPDATE {_LEARNED} SET match_name = char(0) || id WHERE id = ?", [(one,) for _, one in changes])
    for folded, learned_id in changes:
        known = tx.execute(
            f"SELECT 1 FROM {_LEARNED} WHERE match_name = ?"
            f" AND user_id = (SELECT user_id FROM {_LEARNED} WHERE id = ?)",
            (folded, learned_id),
        ).fetchone()
        if known is None:
            tx.execute(f"UPDATE {_LEARNED} SET match_name = ? WHERE id = ?", (folded, learned_id))
        else:
            tx.execute(_FORGOTTEN, (learned_id,))
            tx.execute(f"DELETE FROM {_LEARNED} WHERE id = ?", (learned_id,))


@contextlib.contextmanager
def _triggers_lifted(tx: Connection, names: Iterable[str]) -> Iterator[None]:
    """Without the triggers of these tables within the block; afterwards they are as they were, to the letter."""
    triggers = tx.execute(
        f"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN {(*names, _RULE)} ORDER BY rowid"
    ).fetchall()
    for name, _ in triggers:
        tx.execute(f"DROP TRIGGER {name}")
    yield
    for _, text in triggers:
        tx.execute(text)
