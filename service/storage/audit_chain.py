"""Tables audit_leaves, audit_nodes and audit_tree: the Merkle tree over audit_logs, kept with what it covers.

Rows are sealed at the end of the transaction that wrote them, as they are stored then. So what was rolled back leaves
no trace, and no writer can forget to seal. A row without a leaf was not written by Passbook.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from msgspec import Struct

from service.ledger.audit_chain import (
    COLUMNS,
    NODE_LEVELS,
    SALT_BYTES,
    Frontier,
    NodeHash,
    root_at,
    seal,
    subtree_root,
)
from service.ledger.sealing_rules import FIRST_RULE, LATEST
from service.storage import sqlite
from service.storage.inserts import insert_rows
from service.storage.sqlite import Connection

_ROWS_AT_ONCE = 4096
# A limit that is bound would have SQLite prepare the statement anew for each commit.
_ROWS = f"SELECT {', '.join(COLUMNS)} FROM audit_logs WHERE id > ? ORDER BY id LIMIT {_ROWS_AT_ONCE}"
_SEALED_ROWS = (
    f"SELECT l.leaf_index, {', '.join(f'a.{column}' for column in COLUMNS)}, l.salt, l.public_details, e.commitment,"
    " l.rule, l.hash FROM audit_leaves AS l LEFT JOIN audit_logs AS a ON a.id = l.audit_log_id"
    " LEFT JOIN audit_erasures AS e ON e.audit_log_id = l.audit_log_id AND l.salt IS NULL"
    " WHERE l.leaf_index >= ? AND l.leaf_index < ? ORDER BY l.leaf_index"
)

Sealed = Callable[[int], None]
"""Hears how many rows are sealed so far."""


class Tree(Struct, frozen=True, kw_only=True):
    """Where the tree ends. last_id: audit_logs.id of the last leaf, 0 while there is none."""

    size: int
    last_id: int
    last_hash: bytes
    frontier: bytes

    def root(self) -> bytes:
        """The hash of the whole tree."""
        return Frontier(self.size, self.frontier).root()


class TreeBroken(Exception):
    """What the tree's tables hold cannot be. The text says what."""


class Sealing:
    """Seals what is written to audit_logs from its making on. Lifetime: one open writing transaction.

    Raises TreeBroken.
    """

    def __init__(self, tx: Connection) -> None:
        self._tx = tx
        row = tx.execute(
            "SELECT size, last_id, last_hash, frontier, (SELECT MAX(id) FROM audit_logs) FROM audit_tree"
        ).fetchone()
        if row is None:
            raise TreeBroken("audit_tree has no row")
        self._size, self._last_id, self._last_hash, frontier, highest = row
        try:
            self._frontier = Frontier(self._size, frontier)
        except ValueError as error:
            raise TreeBroken(f"audit_tree: {error}") from error
        # What stands above the last leaf and is not sealed was written by somebody else, and shall be found.
        self._after = self._last_id if self._size == 0 else max(self._last_id, highest or 0)

    def seal(self, on_sealed: Sealed | None = None, *, rule: int = LATEST) -> dict[int, bytes]:
        """Makes leaves of the new rows by `rule`; the leaves of the last few thousand by audit_logs.id."""
        leaves: dict[int, bytes] = {}
        while rows := self._tx.execute(_ROWS, (self._after,)).fetchall():
            leaves = self._append(rows, rule)
            self._after = rows[-1][0]
            if on_sealed is not None:
                on_sealed(self._frontier.size)
            if len(rows) < _ROWS_AT_ONCE:
                break
        if self._frontier.size > self._size:
            self._tx.execute(
                "UPDATE audit_tree SET size = ?, last_id = ?, last_hash = ?, frontier = ? WHERE id = 1",
                (self._frontier.size, self._last_id, self._last_hash, self._frontier.stored()),
            )
            self._size = self._frontier.size
        return leaves

    def _append(self, rows: list[tuple[Any, ...]], rule: int) -> dict[int, bytes]:
        random = os.urandom(SALT_BYTES * len(rows))
        salts = [random[start : start + SALT_BYTES] for start in range(0, len(random), SALT_BYTES)]
        sealed = seal(self._last_hash, rows, salts, rule=rule)
        leaves = [
            (leaf_index, row[0], leaf, salt, public)
            for leaf_index, row, salt, (leaf, public) in zip(
                count(self._frontier.size), rows, salts, sealed, strict=False
            )
        ]
        self._last_id, self._last_hash = rows[-1][0], sealed[-1][0]
        # Before migration 014 there is no column for the rule; a leaf without one is of the first.
        if rule == FIRST_RULE:
            insert_rows(self._tx, _INSERT, leaves)
        else:
            insert_rows(self._tx, _INSERT_BY_RULE, [(*leaf, rule) for leaf in leaves])
        self._frontier.extend([leaf[2] for leaf in leaves], self._insert_node)
        return {leaf[1]: leaf[2] for leaf in leaves}

    def _insert_node(self, level: int, position: int, node: bytes) -> None:
        self._tx.execute(_NODE_OF_LEAVES if level == NODE_LEVELS else _NODE_OF_NODES, _node(level, position, node))


_INSERT = "INSERT INTO audit_leaves (leaf_index, audit_log_id, hash, salt, public_details)"
_INSERT_BY_RULE = "INSERT INTO audit_leaves (leaf_index, audit_log_id, hash, salt, public_details, rule)"


# By all rows from the first id to the last: a search by time must not pass over one that should not be there.
_NODE_OF_LEAVES = """
INSERT INTO audit_nodes (level, position, hash, first_id, last_id, created_at_min, created_at_max)
SELECT :level, :position, :hash, f.audit_log_id, l.audit_log_id,
       (SELECT MIN(created_at) FROM audit_logs WHERE id BETWEEN f.audit_log_id AND l.audit_log_id),
       (SELECT MAX(created_at) FROM audit_logs WHERE id BETWEEN f.audit_log_id AND l.audit_log_id)
FROM audit_leaves AS f, audit_leaves AS l
WHERE f.leaf_index = :first AND l.leaf_index = :last"""
_NODE_OF_NODES = """
INSERT INTO audit_nodes (level, position, hash, first_id, last_id, created_at_min, created_at_max)
SELECT :level, :position, :hash, MIN(first_id), MAX(last_id), MIN(created_at_min), MAX(created_at_max)
FROM audit_nodes WHERE level = :below AND position BETWEEN :first AND :last"""


def _node(level: int, position: int, node: bytes) -> dict[str, int | bytes]:
    first = position << NODE_LEVELS
    below = {"first": first, "last": first + (1 << NODE_LEVELS) - 1, "below": level - NODE_LEVELS}
    return {"level": level, "position": position, "hash": node, **below}


def rule_of_schema(connection: Connection) -> int:
    """The rule that rows are to be sealed by: the first one where the tables cannot name another yet."""
    columns = connection.execute("SELECT COUNT(*) FROM pragma_table_info('audit_leaves') WHERE name = 'rule'")
    return LATEST if columns.fetchone()[0] else FIRST_RULE


@contextmanager
def sealing(tx: Connection) -> Iterator[None]:
    """Seals at the end of the block what was written to audit_logs within it; inside an open transaction."""
    sealer = Sealing(tx)
    yield
    sealer.seal()


def is_there(connection: Connection) -> bool:
    """Whether the database has the tree's tables."""
    return sqlite.has_table(connection, "audit_tree")


def is_unsealed(connection: Connection) -> bool:
    """Whether there are rows and no leaf at all: a program that cannot hash, such as wrangler, made the tables."""
    if not is_there(connection):
        return False
    sql = "SELECT EXISTS (SELECT 1 FROM audit_tree WHERE size = 0) AND EXISTS (SELECT 1 FROM audit_logs)"
    return bool(connection.execute(sql).fetchone()[0])


def size_of(tx: Connection) -> int:
    """How many leaves the tree says that it has; 0 when it has no row."""
    return int(tx.execute("SELECT COALESCE(MAX(size), 0) FROM audit_tree").fetchone()[0])


def tree(tx: Connection) -> Tree:
    """Where the tree ends. Raises TreeBroken."""
    row = tx.execute("SELECT size, last_id, last_hash, frontier FROM audit_tree").fetchone()
    if row is None:
        raise TreeBroken("audit_tree has no row")
    return Tree(size=row[0], last_id=row[1], last_hash=row[2], frontier=row[3])


def find_leaf(tx: Connection, audit_log_id: int) -> bytes | None:
    """The hash of a row's leaf, or None."""
    row = tx.execute("SELECT hash FROM audit_leaves WHERE audit_log_id = ?", (audit_log_id,)).fetchone()
    return row[0] if row else None


def find_index(tx: Connection, audit_log_id: int) -> int | None:
    """The index of a row's leaf, or None."""
    row = tx.execute("SELECT leaf_index FROM audit_leaves WHERE audit_log_id = ?", (audit_log_id,)).fetchone()
    return row[0] if row else None


def sealed_rows(tx: Connection, start: int, end: int) -> Iterator[tuple[Any, ...]]:
    """Leaves `start` to before `end`, each as `ledger.audit_chain.Sealed`, with nulls where the row is gone."""
    return iter(tx.execute(_SEALED_ROWS, (start, end)))


def root_of(tx: Connection, size: int) -> bytes:
    """The root that the tree had at `size` leaves. Raises LookupError when a leaf or a node is missing."""
    return root_at(size, nodes(tx))


def find_root(tx: Connection, size: int) -> bytes | None:
    """The root that the tree had at `size` leaves; None when a leaf or a node is missing."""
    try:
        return root_of(tx, size)
    except LookupError:
        return None


def nodes(tx: Connection) -> NodeHash:
    """Looks up whole subtrees: one read for a stored level, one of at most 256 hashes for the levels between."""
    blocks: dict[tuple[int, int], list[bytes]] = {}

    def node(level: int, position: int) -> bytes:
        stored = level - level % NODE_LEVELS
        width = 1 << (level - stored)
        first = position * width
        block, start = first >> NODE_LEVELS, first % (1 << NODE_LEVELS)
        if (stored, block) not in blocks:
            blocks[stored, block] = _block(tx, stored, block)
        hashes = blocks[stored, block][start : start + width]
        if len(hashes) < width:
            raise LookupError(f"the tree of the audit log has no node {position} at level {level}")
        return subtree_root(hashes)

    return node


def _block(tx: Connection, level: int, block: int) -> list[bytes]:
    first, last = block << NODE_LEVELS, ((block + 1) << NODE_LEVELS) - 1
    if level == 0:
        sql = "SELECT hash FROM audit_leaves WHERE leaf_index BETWEEN ? AND ? ORDER BY leaf_index"
        found = tx.execute(sql, (first, last))
    else:
        sql = "SELECT hash FROM audit_nodes WHERE level = ? AND position BETWEEN ? AND ? ORDER BY position"
        found = tx.execute(sql, (level, first, last))
    return [row[0] for row in found.fetchall()]
