"""API keys, scopes and roles.

A key is ``pbk_<8 id characters>_<32 secret characters><6 checksum characters>``, all in base 62. The checksum is the
CRC-32 of everything before it. So a mistyped key is told from an unknown one without asking the database, and leaked
keys can be searched for. The part before the second underscore is the public prefix.
"""

import hashlib
import string
import zlib
from enum import StrEnum

from msgspec import Struct

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_LENGTH = 8
_SECRET_LENGTH = 32
_CHECKSUM_LENGTH = 6
RANDOM_BYTES = 256
"""How many random bytes `make_key` needs."""


class Scope(StrEnum):
    """What a key may do, as resource:action."""

    USERS_WRITE = "users:write"
    BALANCE_READ = "balance:read"
    BALANCE_CHANGE = "balance:change"
    DEPOSITS_ANNOUNCE = "deposits:announce"
    DEPOSITS_CONFIRM = "deposits:confirm"
    TRANSACTIONS_REVERSE = "transactions:reverse"
    BANK_NOTIFY = "bank:notify"
    DOMAINS_PURCHASE = "domains:purchase"
    AUDIT_READ = "audit:read"
    AUDIT_WRITE = "audit:write"


ROLES: dict[str, frozenset[Scope]] = {
    "bot": frozenset(
        {
            Scope.USERS_WRITE,
            Scope.DEPOSITS_ANNOUNCE,
            Scope.BALANCE_READ,
            Scope.DOMAINS_PURCHASE,
            Scope.AUDIT_WRITE,
        }
    ),
    "service": frozenset(
        {
            Scope.USERS_WRITE,
            Scope.BALANCE_READ,
            Scope.BALANCE_CHANGE,
            Scope.BANK_NOTIFY,
            Scope.DEPOSITS_CONFIRM,
            Scope.AUDIT_WRITE,
        }
    ),
    "ops": frozenset({Scope.BALANCE_READ, Scope.DEPOSITS_CONFIRM, Scope.TRANSACTIONS_REVERSE, Scope.AUDIT_READ}),
    "admin": frozenset(Scope),
}
"""Named sets of scopes. The bot's cannot confirm deposits: a leaked bot key must not make money."""


class ApiKey(Struct, frozen=True, kw_only=True):
    """A key on record. `revoked_at` is null while it is live."""

    id: int
    prefix: str
    name: str
    scopes: frozenset[Scope]
    created_at: str
    revoked_at: str | None


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks, as far as the key says."""

    key_id: int
    key_prefix: str
    actor: str
    scopes: frozenset[Scope]


def make_key(random_bytes: bytes) -> str:
    """A new key from RANDOM_BYTES random bytes. Bytes of 248 and more are passed over, so that no digit is favoured.

    Raises ValueError in the practically impossible case that too few bytes are left.
    """
    digits = [_ALPHABET[byte % 62] for byte in random_bytes if byte < 248]
    if len(digits) < _ID_LENGTH + _SECRET_LENGTH:
        raise ValueError("too few random bytes")
    drawn = "".join(digits)
    body = f"pbk_{drawn[:_ID_LENGTH]}_{drawn[_ID_LENGTH : _ID_LENGTH + _SECRET_LENGTH]}"
    return body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Whether `key` has the shape of a key and its checksum is right."""
    body, checksum = key[:-_CHECKSUM_LENGTH], key[-_CHECKSUM_LENGTH:]
    return key.startswith("pbk_") and key.isascii() and _checksum(body) == checksum


def prefix_of(key: str) -> str:
    """The public start of a well-formed `key`."""
    return key[: 4 + _ID_LENGTH]


def hash_of(key: str) -> bytes:
    """SHA-256 of the whole key: what the database keeps."""
    return hashlib.sha256(key.encode()).digest()


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = _ALPHABET[digit] + digits
    return digits
