"""The ids that AUTOINCREMENT gives out: a table whose last one is too high takes no row any more, as on a full disk."""

from collections.abc import Collection
from dataclasses import dataclass

from service.ledger.fields import BALANCE_MAX
from service.storage import sqlite
from service.storage.sqlite import Connection

_LAST = (
    "max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{table}'), 0),"
    " coalesce((SELECT max(id) FROM {table}), 0))"
)
_NEXT_IDS = f"SELECT {_LAST.format(table='users')} + 1, {_LAST.format(table='deposit_transactions')} + 1"
_LAST_AUDIT_LOG_ID = f"SELECT {_LAST.format(table='audit_logs')}"


@dataclass(slots=True)
class NextIds:
    """The ids that the next rows of users and deposit_transactions get."""

    user: int
    transaction: int


def next_ids(tx: Connection) -> NextIds:
    """The ids that AUTOINCREMENT would give."""
    return NextIds(*tx.execute(_NEXT_IDS).fetchone())


def last_audit_log_id(tx: Connection) -> int:
    """The highest id that audit_logs has given out; 0 when there is none."""
    last: int = tx.execute(_LAST_AUDIT_LOG_ID).fetchone()[0]
    return last


def used_up(connection: Connection) -> list[str]:
    """A sentence with the remedy for each table of the ledger's that gives out no more ids up to 2^53 - 1."""
    if not sqlite.has_table(connection, "sqlite_sequence"):
        return []
    rows = connection.execute("SELECT name, seq FROM sqlite_sequence WHERE seq >= ? ORDER BY name", (BALANCE_MAX,))
    return [_said(connection, name, last) for name, last in rows.fetchall()]


def set_back(connection: Connection, ours: Collection[str]) -> list[str]:
    """A sentence for each table of `ours` whose next id could be one that a row has or had: sqlite_sequence only goes
    up."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%' ORDER BY name")
    said = []
    for (name,) in tables.fetchall():
        if name not in ours:
            continue
        quoted = name.replace('"', '""')
        highest = connection.execute(f'SELECT MAX(rowid) FROM "{quoted}"').fetchone()[0]
        rows = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (name,)).fetchall()
        kept = rows[0][0] if len(rows) == 1 else None
        if highest is not None and (not isinstance(kept, int) or kept < highest):
            said.append(f"sqlite_sequence says {kept} of {name}, whose highest id is {highest}.")
    return said


def _said(connection: Connection, table: str, last: object) -> str:
    quoted = table.replace('"', '""')
    held = connection.execute(f'SELECT MAX(rowid) FROM "{quoted}"').fetchone()[0]
    said = f"{table} can take no more rows: sqlite_sequence says that {last} was the last id that it gave out"
    if isinstance(held, int) and held >= BALANCE_MAX:
        return (
            f"{said}, and there is such a row. Give it a lower id in the file that it came from, or put a backup back."
        )
    return (
        f"{said}, and the highest id there is {held or 0}. Nobody but a hand sets it so; with the service stopped:"
        f" UPDATE sqlite_sequence SET seq = {held or 0} WHERE name = '{table}'."
    )
