"""API keys: made, changed and revoked from the command line, while the service runs or not."""

from hashlib import sha256

from service.ledger.access import ApiKey, Scope, hash_of, make_key, prefix_of
from service.ledger.audit_logs import API_KEY, Details
from service.repository.unit_of_work import audited
from service.storage import api_keys
from service.storage.sqlite import Connection


class ApiKeyNotFound(Exception):
    """No key has this prefix."""


class ApiKeyRevoked(Exception):
    """The key may do nothing any more."""


def create(
    connection: Connection, *, name: str, scopes: frozenset[Scope], actor: str, now: str, random_bytes: bytes
) -> str:
    """Makes a live key, audited as `api_key_created`; returns the key, which is not kept anywhere."""
    key = make_key(random_bytes)
    prefix = prefix_of(key)
    with audited(connection, actor=actor, now=now) as work:
        key_hash = hash_of(key)
        key_id = api_keys.insert(work.tx, prefix=prefix, name=name, key_hash=key_hash, scopes=scopes, now=now)
        # Not the hash itself: nobody who reads the log shall have what the key is looked up by.
        told = {**_details(name, prefix, scopes), "key_sha256": sha256(key_hash).hexdigest()}
        work.audit("api_key_created", API_KEY, key_id, None, told)
    return key


def revoke(connection: Connection, *, prefix: str, actor: str, now: str) -> tuple[ApiKey, bool]:
    """Revokes the key with this public prefix, audited as `api_key_revoked`; the key, and whether it was live.

    The service asks for the key with every request, so that this bites on the next one. Raises ApiKeyNotFound.
    """
    with audited(connection, actor=actor, now=now) as work:
        key = api_keys.find_by_prefix(work.tx, prefix)
        if key is None:
            raise ApiKeyNotFound(prefix)
        was_live = api_keys.revoke(work.tx, key_id=key.id, now=now)
        if was_live:
            work.audit("api_key_revoked", API_KEY, key.id, None, _details(key.name, prefix, key.scopes))
    return key, was_live


def change_scopes(
    connection: Connection, *, prefix: str, scopes: frozenset[Scope], actor: str, now: str
) -> tuple[ApiKey, bool]:
    """Sets what the key with this public prefix may do, audited as `api_key_scopes_changed` with what it could before.

    The key as it was, and whether that changed anything; where it did not, no row is written. It bites on the next
    request, and on those whose write has not begun. Raises ApiKeyNotFound, ApiKeyRevoked.
    """
    with audited(connection, actor=actor, now=now) as work:
        key = api_keys.find_by_prefix(work.tx, prefix)
        if key is None:
            raise ApiKeyNotFound(prefix)
        if key.revoked_at is not None:
            raise ApiKeyRevoked(prefix)
        changes = scopes != key.scopes
        if changes:
            api_keys.update_scopes(work.tx, key_id=key.id, scopes=scopes)
            details = {**_details(key.name, prefix, scopes), "scopes_before": _in_order(key.scopes)}
            work.audit("api_key_scopes_changed", API_KEY, key.id, None, details)
    return key, changes


def _in_order(scopes: frozenset[Scope]) -> list[str]:
    return [scope.value for scope in sorted(scopes)]


def _details(name: str, prefix: str, scopes: frozenset[Scope]) -> Details:
    return {"name": name, "prefix": prefix, "scopes": _in_order(scopes)}
