"""Figures of the whole ledger and of its files, for metrics."""

import os
from pathlib import Path

from msgspec import Struct

from service.storage.sqlite import Connection


class LedgerFigures(Struct, frozen=True, kw_only=True):
    """balance: the sum of all balances in won, as a float so that no sum overflows."""

    balance: float
    users: int


class FileFigures(Struct, frozen=True, kw_only=True):
    """Sizes in bytes. `free`: what the file system still takes from this user."""

    database: int
    wal: int
    free: int


def of_ledger(tx: Connection) -> LedgerFigures:
    """Reads every account: about a tenth of a second for a million of them."""
    balance, users = tx.execute("SELECT TOTAL(balance), COUNT(*) FROM user_deposits").fetchone()
    return LedgerFigures(balance=balance, users=users)


def of_files(path: Path) -> FileFigures:
    """The database `path` and what is beside it. A file that is not there has the size 0. Raises OSError."""
    system = os.statvfs(path.parent)
    return FileFigures(
        database=_size(path), wal=_size(path.with_name(f"{path.name}-wal")), free=system.f_bavail * system.f_frsize
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
