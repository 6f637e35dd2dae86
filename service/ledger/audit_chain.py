"""The audit log as a Merkle tree: which bytes of a row are hashed, and how a hash is proved to be in the tree.

Format 1. SHA-256 throughout; || joins bytes; integers are big-endian.

A column is hashed as it is stored, by SQLite's storage class:

    field(NULL)    = 00
    field(INTEGER) = 01 || 8 bytes, two's complement
    field(REAL)    = 02 || 8 bytes, IEEE 754
    field(TEXT)    = 03 || 4 bytes, length of the UTF-8 || the UTF-8
    field(BLOB)    = 04 || 4 bytes, length || the bytes
    digest(HASH)   = 05 || 32 bytes

The personal values of a row are hashed by themselves, with 16 random bytes of the row's own, its salt:

    commitment = SHA-256(02 || salt || field(telegram_id) || field(details))

Once they are erased, telegram_id is null, the details hold null in place of each personal value, the salt is gone, and
the commitment is kept in its stead: the leaf and all that follows stay as they were, and nobody can try out names.

    leaf = SHA-256(00 || 01, the format || previous leaf; 32 bytes 00 before the first || commitment ||
                   field(id) || field(user_id) || field(resource_id) || field(created_at) || field(request_id) ||
                   what || field(action) || field(resource_type) || field(ip_address) || field(user_agent) ||
                   field(actor) || field(key_prefix) || field(outcome))

    what = field(details)         where the details hold nothing personal
         = digest(public_details) where they do: SHA-256 of the details (their UTF-8) without the personal values

So what is left of an erased row is still proved. A leaf covers every row before it: whoever knows the leaf of a row
knows what all earlier rows were. Over the leaves stands the Merkle tree of RFC 6962, section 2.1:

    node = SHA-256(01 || left || right)

Its proofs of inclusion and of consistency are those of section 2.1.1 and 2.1.2. A whole subtree is named by its level
and position: the leaves are at level 0, counted from 0 on the left.
"""

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from struct import Struct as Layout
from typing import Any

import msgspec

FORMAT = 1
COLUMNS = (
    "id",
    "user_id",
    "resource_id",
    "created_at",
    "request_id",
    "telegram_id",
    "details",
    "action",
    "resource_type",
    "ip_address",
    "user_agent",
    "actor",
    "key_prefix",
    "outcome",
)
"""The columns of audit_logs as `leaf_hash` takes them."""
SALT_BYTES = 16
NO_LEAF = bytes(32)
"""The previous leaf of the first one."""
EMPTY_ROOT = sha256(b"").digest()
PUBLIC_MEMBERS = frozenset(
    {
        "amount",
        "announced_at",
        "atomic",
        "balance",
        "balance_after",
        "balance_before",
        "bank_transaction_id",
        "candidate_deposit_ids",
        "code",
        "created_at",
        "credited",
        "current_status",
        "deposit_id",
        "direction",
        "domain",
        "history",
        "hold",
        "id",
        "late",
        "matched_bank_notification_id",
        "matched_deposit_id",
        "method",
        "name",
        "occurred_at",
        "prefix",
        "price",
        "reference",
        "required",
        "resource_id",
        "resource_type",
        "reverses_id",
        "scopes",
        "shortfall",
        "status",
        "threshold",
        "transaction_id",
        "type",
        "user_id",
        "version",
    }
)
"""The members of details that say nothing of a person; every other value is personal."""

Value = int | float | str | bytes | None
Row = Sequence[Any]
"""The values of COLUMNS."""
NodeHash = Callable[[int, int], bytes]
"""(level, position) -> the hash of that whole subtree."""

_NULL = b"\x00"
_INTEGER = Layout(">cq").pack
_REAL = Layout(">cd").pack
_SIZED = Layout(">cI").pack
_LEAF = b"\x00" + bytes([FORMAT])


class ProofError(ValueError):
    """A proof does not prove what it is for. The text says why."""


def field(value: Value) -> bytes:
    """`value` as it is hashed. Raises UnicodeEncodeError, struct.error for what SQLite cannot store."""
    if value is None:
        return _NULL
    if isinstance(value, str):
        text = value.encode()
        return _SIZED(b"\x03", len(text)) + text
    if isinstance(value, int):
        return _INTEGER(b"\x01", value)
    if isinstance(value, float):
        return _REAL(b"\x02", value)
    return _SIZED(b"\x04", len(value)) + value


def public_details(details: Value) -> str | None:
    """`details` with null in place of each personal value; None when they hold nothing personal.

    Anything but a JSON object is personal as a whole.
    """
    if details is None:
        return None
    try:
        members = msgspec.json.decode(details) if isinstance(details, str) else None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        members = None
    if not isinstance(members, dict):
        return "null"
    public = {name: value if name in PUBLIC_MEMBERS and _is_plain(value) else None for name, value in members.items()}
    return None if public == members else msgspec.json.encode(public).decode()


def _is_plain(value: object) -> bool:
    return not isinstance(value, dict) and not (
        isinstance(value, list) and any(isinstance(v, dict | list) for v in value)
    )


def commitment(salt: bytes, telegram_id: Value, details: Value) -> bytes:
    """What stands in the leaf for the row's personal values."""
    return sha256(b"\x02" + salt + field(telegram_id) + field(details)).digest()


def leaf_hash(previous: bytes, committed: bytes, public: bytes | None, row: Row) -> bytes:
    """The leaf of `row`. previous: the leaf before it or NO_LEAF. committed: its commitment. public: public_details.

    Raises ValueError when a column of text holds a number.
    """
    audit_log_id, user_id, resource_id, created_at, request_id, _, details, *names = row
    return sha256(
        b"".join(
            (
                _LEAF,
                previous,
                committed,
                field(audit_log_id),
                field(user_id),
                field(resource_id),
                field(created_at),
                field(request_id),
                field(details) if public is None else b"\x05" + public,
                _names(tuple(names)),
            )
        )
    ).digest()


@lru_cache(maxsize=4096)
def _names(values: tuple[Value, ...]) -> bytes:
    # They repeat from row to row. Numbers are not taken, since 1 and 1.0 would be one key of the cache.
    if any(isinstance(value, int | float) for value in values):
        raise ValueError("a column of text holds a number")
    return b"".join(map(field, values))


def receipt(audit_log_id: int, leaf: bytes) -> str:
    """What whoever caused a row keeps of it: a dictionary of RFC 8941, `id=1042, leaf=:…:`, the leaf in base64."""
    return f"id={audit_log_id}, leaf=:{b64encode(leaf).decode()}:"


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the subtree above two others."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The roots of the whole subtrees that a tree of `size` leaves is made of, the largest first: all that is needed to
    append. Shape as stored: 32 bytes each, one for every 1 in the binary form of `size`.
    """

    __slots__ = ("roots", "size")

    def __init__(self, size: int = 0, stored: bytes = b"") -> None:
        if len(stored) != 32 * size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} such roots, not {len(stored) / 32:g}")
        self.size = size
        self.roots = [stored[start : start + 32] for start in range(0, len(stored), 32)]

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Adds the next leaf. Returns the subtrees that it completes: (level, position, hash), the lowest first."""
        completed = []
        position, level, root = self.size, 0, leaf
        while position & 1:
            root = node_hash(self.roots.pop(), root)
            position, level = position >> 1, level + 1
            completed.append((level, position, root))
        self.roots.append(root)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """The hash of the whole tree."""
        return joined(self.roots)

    def stored(self) -> bytes:
        """The roots, to be given to the constructor again."""
        return b"".join(self.roots)


def joined(roots: Sequence[bytes]) -> bytes:
    """The hash of the tree that whole subtrees make, from the largest to the smallest."""
    if not roots:
        return EMPTY_ROOT
    *rest, root = roots
    for left in reversed(rest):
        root = node_hash(left, root)
    return root


def subtrees(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The whole subtrees (level, position) that the leaves from `start` to before `end` make up, from the left."""
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        yield level, start >> level
        start += 1 << level


def root_at(size: int, node: NodeHash) -> bytes:
    """The hash of the tree as it was at `size` leaves."""
    return _range_hash(0, size, node)


def inclusion_proof(index: int, size: int, node: NodeHash) -> list[bytes]:
    """The hashes from the sibling of leaf `index` up, in the tree of `size` leaves; index < size."""
    path, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_hash(middle, end, node))
            end = middle
        else:
            path.append(_range_hash(start, middle, node))
            start = middle
    return path[::-1]


def consistency_proof(earlier: int, size: int, node: NodeHash) -> list[bytes]:
    """What proves that the tree of `size` leaves only adds to that of `earlier` ones; 0 < earlier <= size."""
    proof, start, end = [], 0, size
    while earlier < end:
        middle = start + _split(end - start)
        if earlier <= middle:
            proof.append(_range_hash(middle, end, node))
            end = middle
        else:
            proof.append(_range_hash(start, middle, node))
            start = middle
    if start:  # else the earlier tree is a whole subtree of this one and its root is known
        proof.append(_range_hash(start, end, node))
    return proof[::-1]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _range_hash(start: int, end: int, node: NodeHash) -> bytes:
    return joined([node(level, position) for level, position in subtrees(start, end)])


def root_of_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that `path` leads to from `leaf` at `index` of `size`. Raises ProofError when it is no such path."""
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} is not in a tree of {size}")
    last, root = size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ProofError("the path is too long")
        if index & 1 or index == last:
            root = node_hash(sibling, root)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        index, last = index >> 1, last >> 1
    if last:
        raise ProofError("the path is too short")
    return root


def check_consistency(earlier: int, earlier_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Raises ProofError unless `proof` shows that the tree of `size` leaves only adds to that of `earlier` ones."""
    if earlier > size:
        raise ProofError(f"the tree shrank from {earlier} leaves to {size}")
    if earlier in {0, size}:
        old, new = (EMPTY_ROOT if earlier == 0 else root), root
        if proof:
            raise ProofError("the proof is too long")
    else:
        old, new = _roots_of_consistency(earlier, earlier_root, size, proof)
    if old != earlier_root:
        raise ProofError(f"the first {earlier} leaves are not those that they were")
    if new != root:
        raise ProofError(f"the proof leads to another tree of {size} leaves")


def _roots_of_consistency(earlier: int, earlier_root: bytes, size: int, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    index, last = earlier - 1, size - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    hashes = list(proof) if index else [earlier_root, *proof]
    if not hashes:
        raise ProofError("the proof is too short")
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise ProofError("the proof is too long")
        if index & 1 or index == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        index, last = index >> 1, last >> 1
    if last:
        raise ProofError("the proof is too short")
    return old, new
