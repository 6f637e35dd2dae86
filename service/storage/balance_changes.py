"""Table balance_change_references."""

from collections.abc import Iterable, Sequence

from service.storage.inserts import insert_rows
from service.storage.sqlite import Connection, as_json

Row = tuple[str, str, int]
"""A reference to be taken: actor, reference, transaction_id."""


def find_transactions(tx: Connection, *, actor: str, references: Iterable[str]) -> dict[str, int]:
    """The ids of the transactions that the caller posted, by reference; what names none is left out."""
    rows = tx.execute(
        "SELECT reference, transaction_id FROM balance_change_references"
        " WHERE actor = ? AND reference IN (SELECT value FROM json_each(?))",
        (actor, as_json(references)),
    )
    return dict(rows.fetchall())


def insert_many(tx: Connection, rows: Sequence[Row]) -> None:
    """Takes the references for their transactions."""
    insert_rows(tx, "INSERT INTO balance_change_references (actor, reference, transaction_id)", rows)
