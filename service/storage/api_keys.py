"""Table api_keys."""

from functools import cache

from msgspec import Struct

from service.ledger.access import ApiKey, Scope
from service.storage.sqlite import Connection

_SELECT = "SELECT id, prefix, name, scopes, created_at, revoked_at FROM api_keys"


def insert(tx: Connection, *, prefix: str, name: str, key_hash: bytes, scopes: frozenset[Scope], now: str) -> int:
    """Writes a live key; returns its id."""
    key_id = tx.execute(
        "INSERT INTO api_keys (prefix, name, key_hash, scopes, created_at) VALUES (?, ?, ?, ?, ?)",
        (prefix, name, key_hash, " ".join(sorted(scopes)), now),
    ).lastrowid
    assert key_id is not None
    return key_id


def find_by_hash(tx: Connection, key_hash: bytes) -> ApiKey | None:
    """The key with this hash, live or revoked, or None."""
    row = tx.execute(f"{_SELECT} WHERE key_hash = ?", (key_hash,)).fetchone()
    return _api_key(row) if row else None


def find_by_prefix(tx: Connection, prefix: str) -> ApiKey | None:
    """The key with this public prefix, live or revoked, or None."""
    row = tx.execute(f"{_SELECT} WHERE prefix = ?", (prefix,)).fetchone()
    return _api_key(row) if row else None


class Standing(Struct, frozen=True):
    """What a key may do now."""

    prefix: str
    revoked: bool
    scopes: frozenset[Scope]


def find_standing(tx: Connection, key_id: int) -> Standing | None:
    """What the key may do now, or None where there is no such key."""
    row = tx.execute("SELECT prefix, revoked_at IS NOT NULL, scopes FROM api_keys WHERE id = ?", (key_id,)).fetchone()
    return Standing(row[0], bool(row[1]), _scopes(row[2])) if row else None


def list_all(tx: Connection) -> list[ApiKey]:
    """Every key ever made, in the order they were made."""
    return [_api_key(row) for row in tx.execute(f"{_SELECT} ORDER BY id").fetchall()]


def update_scopes(tx: Connection, *, key_id: int, scopes: frozenset[Scope]) -> None:
    """Sets what the key may do."""
    tx.execute("UPDATE api_keys SET scopes = ? WHERE id = ?", (" ".join(sorted(scopes)), key_id))


def revoke(tx: Connection, *, key_id: int, now: str) -> bool:
    """Marks the key as revoked; False when it was already."""
    return (
        tx.execute("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key_id)).rowcount
        == 1
    )


def _api_key(row: tuple[int, str, str, str, str, str | None]) -> ApiKey:
    key_id, prefix, name, scopes, created_at, revoked_at = row
    return ApiKey(
        id=key_id,
        prefix=prefix,
        name=name,
        scopes=_scopes(scopes),
        created_at=created_at,
        revoked_at=revoked_at,
    )


@cache
def _scopes(text: str) -> frozenset[Scope]:
    """Every request asks for those of its key; there are as many texts as ways to make a key."""
    return frozenset(Scope(scope) for scope in text.split())
