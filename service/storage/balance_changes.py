"""Table balance_change_references."""

from service.storage.sqlite import Connection


def find_transaction(tx: Connection, *, actor: str, reference: str) -> int | None:
    """The id of the transaction that the caller posted under this reference, or None."""
    row = tx.execute(
        "SELECT transaction_id FROM balance_change_references WHERE actor = ? AND reference = ?", (actor, reference)
    ).fetchone()
    return row[0] if row else None


def insert(tx: Connection, *, actor: str, reference: str, transaction_id: int) -> None:
    """Takes the reference for the transaction."""
    tx.execute(
        "INSERT INTO balance_change_references (actor, reference, transaction_id) VALUES (?, ?, ?)",
        (actor, reference, transaction_id),
    )
