"""The audit log as a Merkle tree: which bytes of a row are hashed, and how a hash is proved to be in the tree.

All hashes are SHA-256; || joins bytes; integers are big-endian. `rule` is one byte, the number of the rule that the row
was sealed by. The rule says what is personal (service/ledger/sealing_rules.py). A leaf whose rule is changed is another
leaf.

A column is hashed as it is stored, by SQLite's storage class:

    field(NULL)    = 00
    field(INTEGER) = 01 || 8 bytes, two's complement
    field(REAL)    = 02 || 8 bytes, IEEE 754
    field(TEXT)    = 03 || 4 bytes, length of the UTF-8 || the UTF-8
    field(BLOB)    = 04 || 4 bytes, length || the bytes
    digest(HASH)   = 05 || 32 bytes

The personal values of a row are hashed separately, with its salt, 16 random bytes for each row:

    commitment = SHA-256(02 || salt || field(telegram_id) || field(details))

When they are erased, telegram_id becomes null, the details hold null in place of each personal value, and the salt is
deleted. The commitment is kept in its place. So the leaf and all later ones stay as they were, and nobody can try out
names.

    leaf = SHA-256(00 || rule || previous leaf; 32 bytes 00 before the first || commitment ||
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

import re
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice, repeat
from operator import lt
from struct import Struct as Layout
from typing import Any, NamedTuple

import msgspec

from service.ledger.sealing_rules import RULES, is_of_ledger

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
Value = int | float | str | bytes | None
Row = Sequence[Any]
"""The values of COLUMNS."""
Sealed = Sequence[Any]
"""A row with what it was sealed with: leaf_index, the values of COLUMNS, salt, public_details, commitment, rule, leaf.

commitment is None while there is a salt, and the salt is None once the personal values are erased.
"""
NodeHash = Callable[[int, int], bytes]
"""(level, position) -> the hash of that whole subtree."""
NodeSink = Callable[[int, int, bytes], object]
"""Called with (level, position, hash) of a whole subtree."""
NODE_LEVELS = 8
"""Subtrees are kept at each such level: 8, 16, 24, …"""
_BLOCK = 1 << NODE_LEVELS

_RECEIPT = re.compile(r"(?:passbook-receipt: *)?id=([1-9][0-9]{0,18}), *leaf=:([A-Za-z0-9+/]{43}=):", re.ASCII | re.I)
_NULL = b"\x00"
_INTEGER = Layout(">cq").pack
_REAL = Layout(">cd").pack
_SIZED = Layout(">cI").pack
_TEXT_SIZES = tuple(_SIZED(b"\x03", length) for length in range(1024))
_RESOURCE_TYPE, _ACTOR = (COLUMNS[7:].index(name) for name in ("resource_type", "actor"))
_LEAVES = {rule: bytes([0, rule]) for rule in RULES}
_NAMES_MAX = 4096
_DIGEST = type(sha256()).digest
_NOTHING: frozenset[str] = frozenset()
_SCALARS = frozenset((str, int, float, bool, type(None)))


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


def public_details(details: Value, *, rule: int, resource_type: Value, actor: Value) -> str | None:
    """`details` with null in place of each value that is personal by `rule`; None when they hold nothing personal.

    Anything but a JSON object is personal as a whole. So is every value of details that the ledger itself did not
    write: what a caller or the bot calls a status or a user_id is theirs to know.
    """
    if details is None:
        return None
    try:
        members = msgspec.json.decode(details) if isinstance(details, str) else None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        members = None
    if not isinstance(members, dict):
        return "null"
    names = RULES[rule].public_members if is_of_ledger(resource_type, actor, rule=rule) else _NOTHING
    hidden = [
        name
        for name, value in members.items()
        if value is not None and (name not in names or not (type(value) in _SCALARS or _is_plain(value)))
    ]
    return msgspec.json.encode({**members, **dict.fromkeys(hidden)}).decode() if hidden else None


def _is_plain(value: object) -> bool:
    return not isinstance(value, dict | list) or (
        isinstance(value, list) and not any(isinstance(v, dict | list) for v in value)
    )


def commitment(salt: bytes, telegram_id: Value, details: Value) -> bytes:
    """What stands in the leaf for the row's personal values."""
    return sha256(b"\x02" + salt + field(telegram_id) + field(details)).digest()


def leaf_hash(previous: bytes, committed: bytes, public: bytes | None, row: Row, *, rule: int) -> bytes:
    """The leaf of `row`. previous: the leaf before it or NO_LEAF. committed: its commitment. public: public_details.

    Raises ValueError when a column of text holds a number.
    """
    fields = map(field, row[:5])
    what = field(row[6]) if public is None else b"\x05" + public
    return sha256(b"".join((_LEAVES[rule], previous, committed, *fields, what, _NAMES[tuple(row[7:])]))).digest()


def seal(
    previous: bytes, rows: Sequence[Row], salts: Sequence[bytes], *, rule: int
) -> list[tuple[bytes, bytes | None]]:
    """The leaf of each row and the SHA-256 of its public_details, or None; column by column. previous: as leaf_hash.

    Raises ValueError when a column of text holds a number.
    """
    ids, user_ids, resource_ids, created_at, request_ids, telegram_ids, details, *names = zip(*rows, strict=True)
    redacted = [
        public_details(text, rule=rule, resource_type=resource_type, actor=actor)
        for text, resource_type, actor in zip(details, names[_RESOURCE_TYPE], names[_ACTOR], strict=True)
    ]
    public = [None if text is None else sha256(text.encode()).digest() for text in redacted]
    shown = list(map(b"".join, zip(*_texts(details), strict=False)))
    columns = _fields(ids, user_ids, resource_ids, created_at, request_ids, public, shown, names)
    start, leaf, leaves = _LEAVES[rule], previous, []
    for rest in map(b"".join, zip(_commitments(salts, telegram_ids, shown), *columns, strict=False)):
        leaf = sha256(start + leaf + rest).digest()
        leaves.append(leaf)
    return list(zip(leaves, public, strict=True))


class _Names(dict[tuple[Value, ...], bytes]):
    """The fields of the last columns, action to outcome: they repeat from row to row. Raises ValueError for numbers."""

    def __missing__(self, values: tuple[Value, ...]) -> bytes:
        # 1 and 1.0 would be one key.
        if any(isinstance(value, int | float) for value in values):
            raise ValueError("a column of text holds a number")
        if len(self) >= _NAMES_MAX:
            self.clear()
        found = self[values] = b"".join(map(field, values))
        return found


_NAMES = _Names()


def receipt(audit_log_id: int, leaf: bytes) -> str:
    """What whoever caused a row keeps of it: a dictionary of RFC 8941, `id=1042, leaf=:…:`, the leaf in base64."""
    return f"id={audit_log_id}, leaf=:{b64encode(leaf).decode()}:"


def read_receipt(text: str) -> tuple[int, bytes]:
    """audit_logs.id and leaf of a receipt; the header's name may stand before it. Raises ValueError."""
    found = _RECEIPT.fullmatch(text.strip())
    leaf = b64decode(found[2], validate=True) if found else b""
    if found is None or len(leaf) != len(NO_LEAF):
        raise ValueError("a receipt is of the form: id=1042, leaf=:<44 characters of base64>:")
    return int(found[1]), leaf


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

    def append(self, root: bytes, level: int = 0) -> list[tuple[int, int, bytes]]:
        """Adds the next leaf, or at a `level` that `size` is a multiple of the next whole subtree.

        Returns the subtrees above it that it completes: (level, position, hash), the lowest first.
        """
        completed = []
        position, self.size = self.size >> level, self.size + (1 << level)
        while position & 1:
            root = node_hash(self.roots.pop(), root)
            position, level = position >> 1, level + 1
            completed.append((level, position, root))
        self.roots.append(root)
        return completed

    def extend(self, leaves: Sequence[bytes], on_node: NodeSink) -> None:
        """Adds the next leaves; on_node is told of the subtrees that they complete at each of NODE_LEVELS."""
        self.extend_by(whole_blocks(self.size, leaves), on_node)

    def extend_by(self, subtrees: Iterable[tuple[int, bytes]], on_node: NodeSink) -> None:
        """Adds whole subtrees (level, hash) as `whole_blocks` makes them of the next leaves."""
        for level, root in subtrees:
            if level:
                on_node(level, self.size >> level, root)
            for node in self.append(root, level):
                if node[0] % NODE_LEVELS == 0:
                    on_node(*node)

    def root(self) -> bytes:
        """The hash of the whole tree."""
        return joined(self.roots)

    def stored(self) -> bytes:
        """The roots, to be given to the constructor again."""
        return b"".join(self.roots)


class Stretch:
    """Leaves from the `size`th on that are to be added to a Frontier later: `parts` is for its `extend_by`."""

    __slots__ = ("parts", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.parts: list[tuple[int, bytes]] = []

    def extend(self, leaves: Sequence[bytes], _: NodeSink) -> None:
        """Adds the next leaves."""
        self.parts += whole_blocks(self.size, leaves)
        self.size += len(leaves)


def whole_blocks(size: int, leaves: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """`leaves`, after `size` others, as subtrees (level, hash): of level 8 where 256 make up one, else of 0."""
    start = 0
    while start < len(leaves):
        if (size + start) % _BLOCK == 0 and len(leaves) - start >= _BLOCK:
            yield NODE_LEVELS, subtree_root(leaves[start : start + _BLOCK])
            start += _BLOCK
        else:
            yield 0, leaves[start]
            start += 1


def subtree_root(hashes: Sequence[bytes]) -> bytes:
    """The root over `hashes` of one level, a power of two of them."""
    while len(hashes) > 1:
        each = iter(hashes)
        hashes = _sha256_of(map(b"".join, zip(repeat(b"\x01"), each, each)))
    return hashes[0]


def _sha256_of(messages: Iterable[bytes]) -> list[bytes]:
    return list(map(_DIGEST, map(sha256, messages)))


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
    root = leaf
    for on_left, sibling in _climbed(index, size - 1, path, "path"):
        root = node_hash(sibling, root) if on_left else node_hash(root, sibling)
    return root


def _climbed(index: int, last: int, path: Sequence[bytes], name: str) -> Iterator[tuple[bool, bytes]]:
    """Each sibling on the way up from subtree `index` of those up to `last`, and whether it stands on the left.

    Raises ProofError, in which `name` is the path's, when the way is longer or shorter.
    """
    for sibling in path:
        if last == 0:
            raise ProofError(f"the {name} is too long")
        on_left = bool(index & 1) or index == last
        yield on_left, sibling
        while on_left and not index & 1 and index:
            index, last = index >> 1, last >> 1
        index, last = index >> 1, last >> 1
    if last:
        raise ProofError(f"the {name} is too short")


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
    for on_left, sibling in _climbed(index, last, hashes[1:], "proof"):
        if on_left:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    return old, new


class Fault(NamedTuple):
    """The first row that is not as it was sealed. audit_log_id: None when the row is gone."""

    leaf_index: int
    audit_log_id: int | None
    said: str


class Verifier:
    """Recomputes the commitments, leaves and nodes of rows as they come, and stops at the first that is not sound.

    It begins at an empty tree, or within one. Within one, `frontier` is that of the leaves before the first row, or a
    stretch after them. `previous` is the last of these leaves, and `last_id` the id of its row, if it is known. A
    comparison of the frontier's root with a signed checkpoint of that size proves what it says.
    """

    def __init__(
        self,
        frontier: Frontier | Stretch | None = None,
        *,
        previous: bytes = NO_LEAF,
        last_id: int = 0,
        on_node: NodeSink = lambda *_: None,
    ) -> None:
        self.frontier = Frontier() if frontier is None else frontier
        self.previous = previous
        self.last_id = last_id
        self._on_node = on_node

    def check(self, rows: Iterable[Sealed]) -> Fault | None:
        """Takes the next rows, any number of them; quickest in multiples of 256. None when all of them are sound.

        After a fault, `frontier` has the rows before it and nothing more can be checked.
        """
        coming = iter(rows)
        while block := list(islice(coming, _BLOCK - self.frontier.size % _BLOCK)):
            fault = None if self._is_sound(block) else self._first_fault(block)
            self._add(block[: fault.leaf_index - self.frontier.size] if fault else block)
            if fault:
                return fault
        return None

    def _add(self, block: Sequence[Sealed]) -> None:
        if block:
            self.previous, self.last_id = block[-1][-1], block[-1][1]
            self.frontier.extend([row[-1] for row in block], self._on_node)

    def _first_fault(self, block: Sequence[Sealed]) -> Fault | None:
        previous, last_id = self.previous, self.last_id
        for position, row in enumerate(block, self.frontier.size):
            said = _fault_of(row, position, previous, last_id)
            if said:
                return Fault(position, row[1], said)
            previous, last_id = row[-1], row[1]
        return None

    def _is_sound(self, block: Sequence[Sealed]) -> bool:
        """Whether `_first_fault` finds nothing, column by column; False also where a column holds what is unusual."""
        try:
            return self._is_usual_and_sound(*zip(*block, strict=True))
        except (TypeError, ValueError, KeyError, struct.error):
            return False

    def _is_usual_and_sound(
        self,
        indexes: Sequence[int],
        ids: Sequence[int],
        user_ids: Sequence[Value],
        resource_ids: Sequence[Value],
        created_at: Sequence[Value],
        request_ids: Sequence[Value],
        telegram_ids: Sequence[Value],
        details: Sequence[Value],
        *rest: Sequence[Any],
    ) -> bool:
        *names, salts, public, kept, rules, stored = rest
        if None in salts:
            erased = [row for row in zip(salts, telegram_ids, details, public, kept, strict=True) if row[0] is None]
            if any(_erasure_fault(*row[1:]) for row in erased):
                return False
        given = [salt for salt in salts if salt is not None] if None in salts else salts
        digests = [digest for digest in public if digest is not None]
        if {*map(len, given)} - {SALT_BYTES} or {*map(len, digests)} - {32}:
            return False
        shown = list(map(b"".join, zip(*_texts(details), strict=False)))
        commitments = _commitments(salts if given is salts else [salt or b"" for salt in salts], telegram_ids, shown)
        if given is not salts:
            commitments = [made if salt else was for made, salt, was in zip(commitments, salts, kept, strict=True)]
        messages = zip(
            map(_LEAVES.__getitem__, rules),
            (self.previous, *stored),
            commitments,
            *_fields(ids, user_ids, resource_ids, created_at, request_ids, public, shown, names),
            strict=False,
        )
        return (
            indexes == tuple(range(self.frontier.size, self.frontier.size + len(indexes)))
            and all(map(lt, (self.last_id, *ids), ids))
            and _sha256_of(map(b"".join, messages)) == [*stored]
        )


def _fault_of(sealed: Sealed, position: int, previous: bytes, last_id: int) -> str | None:
    """What is wrong with a row at `position`, after a row of the leaf `previous` and the id `last_id`."""
    index, *row, salt, public, kept, rule, stored = sealed
    audit_log_id, telegram_id, details = row[0], row[COLUMNS.index("telegram_id")], row[COLUMNS.index("details")]
    if index != position:
        return f"leaf {index} stands where leaf {position} should"
    if audit_log_id is None:
        return "the row is gone"
    if not isinstance(audit_log_id, int):
        return "its id is not an integer"
    if audit_log_id <= last_id:
        return f"its id does not come after {last_id}, that of the row before it"
    if public is not None and not _is_bytes(public, 32):
        return "its public_details is not 32 bytes"
    if salt is None:
        said = _erasure_fault(telegram_id, details, public, kept)
        if said:
            return said
        committed = kept
    elif not _is_bytes(salt, SALT_BYTES):
        return f"its salt is not {SALT_BYTES} bytes"
    else:
        committed = commitment(salt, telegram_id, details)
    if rule not in RULES:
        return f"it is sealed by rule {rule}, which is not known here"
    try:
        leaf = leaf_hash(previous, committed, public, row, rule=rule)
    except ValueError as error:
        return str(error)
    return (
        None
        if leaf == stored
        else "its leaf is not that of its values after the row before it: one of them was changed"
    )


def _erasure_fault(telegram_id: Value, details: Value, public: Value, kept: Value) -> str | None:
    """What is wrong with a row whose salt is gone."""
    if not _is_bytes(kept, 32):
        return "its salt is gone and no commitment is kept in its stead"
    if telegram_id is not None:
        return "its personal values are erased, yet it has a telegram_id"
    if public is not None and (not isinstance(details, str) or sha256(details.encode()).digest() != public):
        return "what is left of its details after the erasure was changed"
    return None


def _commitments(salts: Sequence[bytes], telegram_ids: Sequence[Value], shown: Sequence[bytes]) -> list[bytes]:
    return _sha256_of(map(b"".join, zip(repeat(b"\x02"), salts, *_texts(telegram_ids), shown, strict=False)))


def _fields(
    ids: Sequence[int],
    user_ids: Sequence[Value],
    resource_ids: Sequence[Value],
    created_at: Sequence[Value],
    request_ids: Sequence[Value],
    public: Sequence[bytes | None],
    shown: Sequence[bytes],
    names: Sequence[Sequence[Value]],
) -> tuple[Iterable[bytes], ...]:
    """The columns of a leaf after its commitment, as they are hashed. shown: the fields of the details."""
    return (
        map(_INTEGER, repeat(b"\x01"), ids),
        _integers(user_ids),
        _integers(resource_ids),
        *_texts(created_at),
        *_texts(request_ids),
        [b"\x05" + digest if digest else field for digest, field in zip(public, shown, strict=True)],
        map(_NAMES.__getitem__, zip(*names, strict=True)),
    )


def _is_bytes(value: object, length: int) -> bool:
    # Lengths are not in the bytes that are hashed: one that differs would move what follows.
    return isinstance(value, bytes) and len(value) == length


def _integers(column: Sequence[Value]) -> list[bytes]:
    try:
        return list(map(_INTEGER, repeat(b"\x01"), column))
    except struct.error:  # not all of them are integers
        return [field(value) for value in column]


def _texts(column: Sequence[Value]) -> tuple[Iterable[bytes], Iterable[bytes]]:
    """The fields of a column, each in two parts."""
    try:
        texts = list(map(str.encode, column))  # type: ignore[arg-type]
        return list(map(_TEXT_SIZES.__getitem__, map(len, texts))), texts
    except (TypeError, IndexError):  # not all of them are text, or one of them is long
        return repeat(b""), [field(value) for value in column]
