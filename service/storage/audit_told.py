"""What the audit log told of API keys and of an import, also where the rows that told it are archived.

The row of each prune carries it on, so that what stands can still be compared with it.
"""

from typing import Any

import msgspec

from service.ledger.audit_logs import SERVICE_ACTOR
from service.storage.sqlite import Connection

IMPORTED = "import_finished"
IMPORTER = f"{SERVICE_ACTOR}import"
IMPORT_ARCHIVE = "import_archive"
_LAST_PRUNE = (
    "SELECT details FROM audit_logs WHERE action = 'audit_log_pruned' AND resource_type = 'audit_log'"
    " AND actor IS NOT NULL ORDER BY id DESC LIMIT 1"
)
_KEYS = (
    "SELECT resource_id, action, details, created_at FROM audit_logs WHERE resource_type = 'api_key'"
    " AND resource_id > 0 AND actor IS NOT NULL ORDER BY id"
)
_IMPORT = (
    f"SELECT details FROM audit_logs WHERE action = '{IMPORTED}' AND resource_type = '{IMPORT_ARCHIVE}' AND actor = ?"
)


def carried(connection: Connection) -> dict[str, Any]:
    """What the row of a prune that begins now carries on."""
    return {"api_keys": {str(key): told for key, told in keys(connection).items()}, "import": import_told(connection)}


def kept(connection: Connection) -> dict[str, Any]:
    """The digests that the last prune told (storage/kept_digests.py); empty where it told none."""
    found: dict[str, Any] = _members(_one(connection, _LAST_PRUNE)).get("kept") or {}
    return found


def keys(connection: Connection) -> dict[int, dict[str, Any]]:
    """api_keys.id -> what was told of the key last: name, prefix, scopes, key_sha256, created_at, revoked_at."""
    before = _members(_one(connection, _LAST_PRUNE)).get("api_keys") or {}
    found: dict[int, dict[str, Any]] = {int(key): dict(told) for key, told in before.items()}
    for key_id, action, details, created_at in connection.execute(_KEYS).fetchall():
        told = found.setdefault(key_id, {})
        members = {name: value for name, value in _members(details).items() if name in _OF_A_KEY}
        if action == "api_key_created":
            told.update(members, created_at=created_at)
        elif action == "api_key_scopes_changed":
            told.update(members)
        elif action == "api_key_revoked":
            told.update(revoked_at=created_at)
    return found


_OF_A_KEY = {"name", "prefix", "scopes", "key_sha256"}


def import_told(connection: Connection) -> dict[str, Any] | None:
    """The details of the row that an import left; None where none is on record."""
    row = connection.execute(_IMPORT, (IMPORTER,)).fetchone()
    if row:
        return _members(row[0])
    told: dict[str, Any] | None = _members(_one(connection, _LAST_PRUNE)).get("import")
    return told


def _one(connection: Connection, sql: str) -> Any:
    row = connection.execute(sql).fetchone()
    return row[0] if row else None


def _members(details: Any) -> dict[str, Any]:
    try:
        members = msgspec.json.decode(details) if isinstance(details, str) else None
    except msgspec.DecodeError:
        members = None
    return members if isinstance(members, dict) else {}
