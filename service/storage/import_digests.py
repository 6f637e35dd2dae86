"""What an import took over, put on record once: digests by which a later edit of the bot's rows is found.

The bot's rows have no audit rows. The import writes one, `import_finished`, with the last id of each table, and with
SHA-256 over those columns of the rows up to it that never change afterwards. The digests of what can be erased are
compared until the first user is erased.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec

from service.ledger.sealing_rules import LATEST, RULES
from service.storage import audit_chain, audit_prunes
from service.storage.audit_told import IMPORT_ARCHIVE, IMPORTED, IMPORTER, import_told
from service.storage.sqlite import Connection, transaction

_ROWS_AT_ONCE = 10_000
_TABLES = ("users", "user_deposits", "deposit_transactions", "bank_notifications", "user_domains", "import_archive")
_KEPT = {
    "users": ("id, created_at", None),
    "user_deposits": ("id, user_id, created_at", None),
    "deposit_transactions": (
        "id, user_id, type, direction, amount, created_at, reference, reverses_id,"
        # What the bot had confirmed stays so; what it had not may be settled since.
        " iif(version IS NULL AND status = 'confirmed', confirmed_at, NULL), version IS NULL AND status = 'confirmed'",
        "id, depositor_name, description, match_name",
    ),
    "bank_notifications": (
        "id, bank_name, amount, balance_after, transaction_time, created_at, bank_transaction_id,"
        " iif(match_method IS NULL, matched_transaction_id, NULL)",
        "id, depositor_name, raw_message, match_name",
    ),
    "user_domains": (
        "id, user_id, domain, status, price, registered_at, expires_at, created_at, ascii_name, transaction_id",
        None,
    ),
    "import_archive": ("id, source_table, row_id, imported_at", "id, column_values"),
}
"""Table -> the columns that never change, and those that only an erasure changes."""


def record(connection: Connection, *, now: str) -> None:
    """Writes and seals the row that tells what was taken over. At the end of an import, outside of a transaction."""
    last_ids = [connection.execute(f"SELECT COALESCE(MAX(id), 0) FROM {table}").fetchone()[0] for table in _TABLES]
    kept, erasable = digests(connection, last_ids)
    rows = connection.execute("SELECT COUNT(*) FROM import_archive").fetchone()[0]
    details = {
        "last_ids": last_ids,
        "import_archive_rows": rows,
        "taken_over_sha256": kept,
        "erasable_sha256": erasable,
        "telegram_ids_sha256": _telegram_ids(connection, last_ids[0]),
    }
    assert details.keys() - {"erasable_sha256", "telegram_ids_sha256"} <= RULES[LATEST].public_members
    with transaction(connection) as tx, audit_chain.sealing(tx):
        tx.execute(
            "INSERT INTO audit_logs (action, resource_type, details, actor, created_at, outcome)"
            " VALUES (?, ?, ?, ?, ?, 'success')",
            (IMPORTED, IMPORT_ARCHIVE, msgspec.json.encode(details).decode(), IMPORTER, now),
        )


def digests(connection: Connection, last_ids: list[int]) -> tuple[str, str]:
    """SHA-256 in hex over the rows up to these ids: of the columns that never change, and of those that may be erased.

    A row is hashed as a line of JSON: the table, and the values.
    """
    kept, erasable = sha256(), sha256()
    for table, last in zip(_TABLES, last_ids, strict=True):
        columns, personal = _KEPT[table]
        for names, digest in ((columns, kept), (personal, erasable)):
            for rows in blocks(connection, table, names, last) if names else ():
                for row in rows:
                    digest.update(msgspec.json.encode([table, *map(_hashable, row)]) + b"\n")
    return kept.hexdigest(), erasable.hexdigest()


def _telegram_ids(connection: Connection, last: int) -> str:
    """SHA-256 in hex over whose account is whose. In imports by earlier versions no digest covers it."""
    digest = sha256()
    for rows in blocks(connection, "users", "id, telegram_id", last):
        for row in rows:
            digest.update(msgspec.json.encode([*map(_hashable, row)]) + b"\n")
    return digest.hexdigest()


def blocks(connection: Connection, table: str, columns: str, last: int) -> Iterator[list[tuple[Any, ...]]]:
    """The rows up to `last` in the order of the first of `columns`, a whole number, some thousand at a time."""
    key = columns.partition(",")[0]
    low = -(2**63)
    while rows := connection.execute(
        f"SELECT {columns} FROM {table} WHERE {key} >= ? AND {key} <= ? ORDER BY {key} LIMIT {_ROWS_AT_ONCE}",
        (low, last),
    ).fetchall():
        yield rows
        low = rows[-1][0] + 1


def _hashable(value: Any) -> Any:
    return {"blob": value.hex()} if isinstance(value, bytes) else value


def count(connection: Connection) -> int:
    """How many rows an import on record took over."""
    told = import_told(connection)
    return sum(
        connection.execute(f"SELECT COUNT(*) FROM {table} WHERE id <= ?", (last,)).fetchone()[0]
        for table, last in zip(_TABLES, told["last_ids"] if told else (), strict=told is not None)
    )


def differences(connection: Connection) -> list[str]:
    """What is not as it was taken over, a sentence each; nothing where no import is on record."""
    told = import_told(connection)
    if told is None:
        return []
    said = []
    kept, erasable = digests(connection, told["last_ids"])
    if kept != told["taken_over_sha256"]:
        said.append("A row that was taken over, or what is archived of it, is not as the import left it.")
    erased = connection.execute("SELECT EXISTS (SELECT 1 FROM user_erasures)").fetchone()[0]
    if not erased and erasable != told["erasable_sha256"]:
        said.append("A name, a text or an archived value that was taken over is not as the import left it.")
    of_users = told.get("telegram_ids_sha256")
    if not erased and of_users is not None and _telegram_ids(connection, told["last_ids"][0]) != of_users:
        said.append("A telegram id that was taken over is not as the import left it.")
    said += [
        f"{table}, row {row_id}: it came after the import, and no audit row tells of it."
        for table, row_id in _untold(connection, told["last_ids"])
    ]
    return said


_UNTOLD = {
    "users": "(SELECT COUNT(*) FROM audit_logs AS a WHERE a.resource_type = 'user' AND a.resource_id = x.id"
    f" AND +a.action = 'user_created') + {audit_prunes.sql_of_told('user_created', 'x.id')} = 0",
    "deposit_transactions": "x.version IS NULL AND x.match_name IS NULL",
    "bank_notifications": "x.bank_transaction_id IS NULL",
    "user_domains": "x.ascii_name IS NULL",
    "import_archive": "1",
}


def _untold(connection: Connection, last_ids: list[int]) -> Iterator[tuple[str, int]]:
    """What only the bot's rows look like, above the last of them."""
    for table, last in zip(_TABLES, last_ids, strict=True):
        condition = _UNTOLD.get(table)
        if condition is None:
            continue
        sql = f"SELECT x.id FROM {table} AS x WHERE x.id > ? AND {condition} ORDER BY x.id LIMIT 5"
        for (row_id,) in connection.execute(sql, (last,)).fetchall():
            yield table, row_id
