"""Many rows to a statement.

A statement whose triggers may refuse it keeps a copy of each page that it changes, to take its own changes back. One
statement for each row copies the same pages again and again: of what a row of the ledger costs, a quarter was that.
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

from service.storage.sqlite import Connection

_ROWS_OF_A_STATEMENT = (50, 10)
"""Each number is one more statement to keep prepared. SQLite's smallest limit of parameters is 999."""


def insert_rows(tx: Connection, insert: str, rows: Sequence[Sequence[Any]]) -> None:
    """Writes the rows in their order. `insert` is the statement as far as its VALUES; all rows are of one length.

    Raises what the first row raises that cannot be written; up to 50 rows before it are then not written either.
    """
    if not rows:
        return
    start = 0
    for count in _ROWS_OF_A_STATEMENT:
        statement = _statement(insert, len(rows[0]), count)
        while start + count <= len(rows):
            tx.execute(statement, list(chain.from_iterable(rows[start : start + count])))
            start += count
    if start < len(rows):
        tx.executemany(_statement(insert, len(rows[0]), 1), rows[start:])


def insert_row(tx: Connection, insert: str, row: Sequence[Any]) -> int:
    """Writes one row; returns its id. `insert` is as in insert_rows."""
    row_id = tx.execute(_statement(insert, len(row), 1), row).lastrowid
    assert row_id is not None
    return row_id


@cache
def _statement(insert: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{insert} VALUES {', '.join([row] * rows)}"
