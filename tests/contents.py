"""Everything that a database holds, as one value to compare before and after."""

import sqlite3
from pathlib import Path


def contents(database: Path) -> list[str]:
    """Schema and rows of every table as SQL statements; equal when nothing was changed."""
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()
