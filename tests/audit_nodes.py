"""Table audit_nodes as migration 012 describes it, with hashes of nothing: what a search by time reads."""

import sqlite3
from typing import Any


def fill_audit_nodes(connection: "sqlite3.Connection | Any", *, rows_max: int = 2**62) -> None:
    """A node for every 256 rows, 65,536 rows and so on of the first `rows_max` rows of audit_logs that are whole."""
    level = 8
    connection.execute(
        "INSERT INTO audit_nodes (level, position, hash, first_id, last_id, created_at_min, created_at_max)"
        " SELECT 8, place / 256, zeroblob(32), MIN(id), MAX(id), MIN(created_at), MAX(created_at)"
        " FROM (SELECT id, created_at, ROW_NUMBER() OVER (ORDER BY id) - 1 AS place FROM audit_logs)"
        " WHERE place < ? GROUP BY place / 256 HAVING COUNT(*) = 256",
        (rows_max,),
    )
    while connection.execute(
        "INSERT INTO audit_nodes (level, position, hash, first_id, last_id, created_at_min, created_at_max)"
        " SELECT level + 8, position / 256, zeroblob(32), MIN(first_id), MAX(last_id), MIN(created_at_min),"
        " MAX(created_at_max) FROM audit_nodes WHERE level = ? GROUP BY position / 256 HAVING COUNT(*) = 256",
        (level,),
    ).rowcount:
        level += 8
