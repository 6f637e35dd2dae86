"""What is left of a database that is gone: with it beside the place of the database, no new one is made unasked."""

from datetime import datetime
from pathlib import Path

from service.storage import checkpoints, copies, sqlite

_NAMED_MAX = 4


class LedgerMissing(Exception):
    """There is no database where there was one. The text says what is left of it, and what to do."""


def is_missing(database: Path) -> bool:
    """Whether there is no file, or one without a byte."""
    return not database.exists() or (database.is_file() and database.stat().st_size == 0)


def require_file(database: Path) -> None:
    """Raises LedgerMissing for a folder, a device or a pipe."""
    if database.exists() and not database.is_file():
        raise LedgerMissing(f"{database} is no regular file, so it can be no database; name another one.")


def of(database: Path, key_file: Path) -> list[Path]:
    """The files of an earlier database whose own file is missing: its log, its key and last checkpoint, its copies."""
    real = database.resolve()
    files = [*sqlite.side_files(real), key_file, checkpoints.last_file_of(key_file)]
    return [path for path in files if path.exists()] + _copies(real)


BEGIN_NEW = "to begin a new ledger on purpose: passbook serve --new"
IMPORT_ANEW = "to begin anew with this import, move them away first"


def require_none(database: Path, key_file: Path, *, anew: str = BEGIN_NEW) -> None:
    """Raises LedgerMissing when there are such files; `anew` says what to do where a new ledger is meant."""
    if found := of(database, key_file):
        named = ", ".join(str(path) for path in found[:_NAMED_MAX])
        more = f" and {len(found) - _NAMED_MAX} more" if len(found) > _NAMED_MAX else ""
        raise LedgerMissing(
            f"The database {database} is {'empty' if database.exists() else 'not there'}, but something is left of an"
            f" earlier one ({named}{more}): put it back, or restore a backup with passbook restore FILE --database"
            f" {database}; {anew}"
        )


def set_aside(database: Path, key_file: Path, *, now: datetime) -> list[Path]:
    """Gives the log, the key and its checkpoint other names, so that a new ledger has its own; the new names.

    Copies stay as they are. Raises OSError.
    """
    real = database.resolve()
    moved = []
    for path in (*sqlite.side_files(real), checkpoints.last_file_of(key_file), key_file):
        if path.exists():
            moved.append(path.rename(copies.free_name(path, f"before-new-{now:%Y%m%d_%H%M%S}")))
            sqlite.sync(path.absolute().parent)
    return moved


def _copies(database: Path) -> list[Path]:
    """Copies that must be of this database. Those whose name tells of none may be of another one in that folder."""
    if not database.parent.is_dir():
        return []
    beside = copies.beside(database)
    own = [path for path in beside if path.name.startswith((f"{database.stem}.", f"{database.stem}-"))]
    others = [path for path in database.parent.iterdir() if path != database and copies.is_database(path)]
    return beside if not {*others} - {*beside} else own
