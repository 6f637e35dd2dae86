"""Every row of a database, for comparing before and after."""

import sqlite3
from typing import Any


def all_rows(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Table name -> its rows in the order of rowid, without SQLite's and the migrator's own tables."""
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_cf_%'"
        " AND name <> 'schema_migrations' ORDER BY name"
    ).fetchall()
    return {name: connection.execute(f'SELECT * FROM "{name}" ORDER BY rowid').fetchall() for (name,) in names}
