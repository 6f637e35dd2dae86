"""Digests of what the oldest audit rows told when they were archived: they show a later edit of it.

For each table, the row of a prune has the last id, and a SHA-256 over the rows up to it. The hash covers those columns
that never change, not even in an erasure. So the amounts and the owners of movements, and the keys of stored answers,
can still be compared when their audit rows are in the archive. Prunes by earlier versions have no digests.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec

from service.ledger.audit_retention import BITS
from service.storage import audit_told, import_digests
from service.storage.sqlite import Connection

_KEPT = {
    "users": "id, created_at",
    "user_deposits": "id, user_id, created_at",
    "deposit_transactions": "id, user_id, type, direction, amount, created_at, reference, reverses_id",
    "bank_notifications": "id, bank_name, amount, balance_after, transaction_time, created_at, bank_transaction_id",
    "user_domains": "id, user_id, domain, price, created_at, ascii_name, transaction_id",
    "import_archive": "id, source_table, row_id, imported_at",
    "idempotency_answers": "id, actor, idempotency_key, operation, status, created_at, audit_log_id",
    "balance_change_references": "transaction_id, actor, reference",
}
"""Table -> its columns that never change; the first is what its rows are counted by."""
_TABLE_OF_STEP = (
    ("moved", "deposit_transactions"),
    ("deposit_", "deposit_transactions"),
    ("domain_", "user_domains"),
    ("bank_notification_", "bank_notifications"),
    ("user_", "users"),
)
_ENCODER = msgspec.json.Encoder()


def members(connection: Connection) -> dict[str, Any]:
    """What the row of a prune tells: table -> [the last id, SHA-256 in hex of its rows up to it].

    No transaction is needed for what never changes.
    """
    found = {}
    for table, columns in _KEPT.items():
        key = columns.partition(",")[0]
        (last,) = connection.execute(f"SELECT COALESCE(MAX({key}), 0) FROM {table}").fetchone()
        found[table] = [last, _digest(connection, table, last)]
    return {"kept": found}


def differences(connection: Connection) -> Iterator[str]:
    """What is not as the last prune found it, a sentence each; nothing where no prune tells."""
    told = audit_told.kept(connection)
    for table, (last, digest) in told.items():
        if _digest(connection, table, last) != digest:
            yield f"{table}, up to row {last}: it is not as it was when the oldest audit rows were archived."
    for beginning, table in _TABLE_OF_STEP if told else ():
        last = told[table][0]
        for step, block, bits in connection.execute(
            "SELECT step, block, bits FROM audit_pruned_steps WHERE block >= ?", (last // BITS,)
        ).fetchall():
            number = block * BITS + bits.bit_length() - 1
            if step.startswith(beginning) and number > last:
                yield f"An archived row told {step} of {number}, which came after it was archived."


def _digest(connection: Connection, table: str, last: int) -> str:
    digest = sha256()
    for rows in import_digests.blocks(connection, table, _KEPT[table], last):
        digest.update(_ENCODER.encode_lines(rows))
    return digest.hexdigest()
