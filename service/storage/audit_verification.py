"""The proof that nobody changed the audit log: every leaf, node and root computed anew from the rows.

It reads a chunk at a time, beside whoever writes: the log only grows, and what it had at the beginning is checked.
Where the oldest rows were archived and are gone it takes their leaves as they are: they lead to a root that is on
record and signed. With workers, whole ranges of rows are computed in other processes: what these cannot call sound is
computed once more here, so that nothing but the time differs.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from service.ledger.audit_chain import NO_LEAF, Frontier, Verifier
from service.ledger.notes import Checkpoint
from service.storage import audit_chain, audit_prunes, audit_workers
from service.storage.audit_chain import Tree, TreeBroken
from service.storage.audit_prunes import Prune
from service.storage.audit_workers import Workers
from service.storage.sqlite import Connection

_ROWS_AT_ONCE = 16_384
_RANGES_ABOVE = """
SELECT n.first_id FROM audit_nodes AS n
WHERE n.level > 8 AND NOT EXISTS (
  SELECT COUNT(*) FROM audit_nodes AS b WHERE b.level = n.level - 8 AND b.position BETWEEN n.position * 256
    AND n.position * 256 + 255
  HAVING COUNT(*) = 256 AND MIN(b.first_id) = n.first_id AND MAX(b.last_id) = n.last_id
    AND MIN(b.created_at_min) IS n.created_at_min AND MAX(b.created_at_max) IS n.created_at_max)
ORDER BY n.level, n.position LIMIT 1"""
_BEYOND = """
SELECT n.first_id FROM audit_tree AS t JOIN audit_nodes AS n ON n.position >= t.size >> n.level
ORDER BY n.level, n.position LIMIT 1"""
# A prune and the row that tells of it are one commit; the row lies above what the last prune archived.
_UNTOLD_PRUNE = """
SELECT p.through_id, p.archive FROM audit_prunes AS p
WHERE p.through_id = (SELECT MAX(through_id) FROM audit_prunes) AND NOT EXISTS (
  SELECT 1 FROM audit_logs AS a JOIN audit_leaves AS l ON l.audit_log_id = a.id
  WHERE a.action = 'audit_log_pruned' AND a.resource_type = 'audit_log' AND a.resource_id = p.through_id
    AND a.id > p.through_id AND instr(a.details, lower(hex(p.archive_sha256)))
    AND instr(a.details, lower(hex(p.root))))"""
_AS_MANY_AS_LEAVES = """
SELECT (SELECT COUNT(*) FROM audit_logs) = (SELECT COUNT(*) FROM audit_leaves)
  - (SELECT COUNT(*) FROM audit_leaves WHERE audit_log_id < (SELECT COALESCE(MIN(id), 9223372036854775807)
                                                             FROM audit_logs))"""
_UNSEALED = """
SELECT a.id FROM audit_logs AS a
WHERE a.id > ? AND NOT EXISTS (SELECT 1 FROM audit_leaves WHERE audit_log_id = a.id) ORDER BY a.id LIMIT 1"""
# An erasure and the row that tells of it, and of how many rows lost their values, are one commit.
_UNTOLD_ERASURE = f"""
WITH erased(user_id, rows) AS (SELECT user_id, COUNT(*) FROM audit_erasures GROUP BY user_id),
  done(user_id, finished_at, rows) AS (
    SELECT e.user_id, e.finished_at, COALESCE(n.rows, 0) FROM user_erasures AS e LEFT JOIN erased AS n USING (user_id)
    WHERE e.finished_at IS NOT NULL
    UNION ALL SELECT n.user_id, NULL, n.rows FROM erased AS n
    WHERE NOT EXISTS (SELECT 1 FROM user_erasures WHERE user_id = n.user_id))
SELECT d.user_id, (SELECT MAX(id) FROM audit_logs WHERE resource_type = 'user' AND resource_id = d.user_id
                   AND +action = 'user_erased')
FROM done AS d
WHERE {audit_prunes.sql_of_told("user_erased", "d.user_id")} <> 1 AND NOT EXISTS (
  SELECT 1 FROM audit_logs AS a JOIN audit_leaves AS l ON l.audit_log_id = a.id
  WHERE a.resource_type = 'user' AND a.resource_id = d.user_id AND +a.action = 'user_erased'
    AND a.user_id = d.user_id AND a.actor IS NOT NULL AND a.created_at = d.finished_at
    AND iif(json_valid(a.details), json_extract(a.details, '$.audit_logs'), NULL) = d.rows)
ORDER BY d.user_id LIMIT 1"""
# What a leaf was made with goes with its row: nothing could tell that it is as it was.
_KEPT = """
SELECT audit_log_id FROM audit_leaves
WHERE leaf_index >= ? AND leaf_index < ? AND (salt IS NOT NULL OR public_details IS NOT NULL OR rule IS NOT NULL)
ORDER BY leaf_index LIMIT 1"""
# The records of prunes go on from one to the next, each up to a leaf, and say what the rows that tell of them say.
_WRONG_PRUNE = """
SELECT p.through_id FROM audit_prunes AS p
WHERE p.first_index IS NOT COALESCE((SELECT MAX(size) FROM audit_prunes WHERE through_id < p.through_id), 0)
  OR p.through_id IS NOT (SELECT audit_log_id FROM audit_leaves WHERE leaf_index = p.size - 1)
  OR EXISTS (
    SELECT 1 FROM audit_logs AS a WHERE a.action = 'audit_log_pruned' AND a.resource_type = 'audit_log'
      AND a.resource_id = p.through_id AND a.actor IS NOT NULL AND json_valid(a.details) AND (
        a.actor IS NOT p.actor OR a.created_at IS NOT p.pruned_at
        OR json_extract(a.details, '$.archive') IS NOT p.archive
        OR json_extract(a.details, '$.rows') IS NOT p.size - p.first_index
        OR json_extract(a.details, '$.sha256') IS NOT lower(hex(p.archive_sha256))
        OR json_extract(a.details, '$.root') IS NOT lower(hex(p.root))
        OR json_type(a.details, '$.created_at_min') IS NOT NULL AND (
          json_extract(a.details, '$.created_at_min') IS NOT p.created_at_min
          OR json_extract(a.details, '$.created_at_max') IS NOT p.created_at_max)))
ORDER BY p.through_id LIMIT 1"""
# What an erasure took is counted by the row that tells of it, and nothing else is empty.
_UNTOLD_USER = """
SELECT a.resource_id, a.id FROM audit_logs AS a
WHERE a.action = 'user_erased' AND a.resource_type = 'user' AND a.actor IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM user_erasures WHERE user_id = a.resource_id AND finished_at = a.created_at
    AND (json_type(a.details, '$.begun_at') IS NULL
      OR begun_at = json_extract(a.details, '$.begun_at') AND actor = json_extract(a.details, '$.begun_by')))
ORDER BY a.id LIMIT 1"""
_ERASED_COUNTS = tuple(
    (
        f"SELECT (SELECT COUNT(*) FROM {table} WHERE {empty}),"
        f" (SELECT COALESCE(SUM(json_extract(a.details, '$.{member}')), 0) FROM audit_logs AS a"
        " WHERE a.action = 'user_erased' AND a.resource_type = 'user' AND a.actor IS NOT NULL),"
        " EXISTS (SELECT 1 FROM audit_pruned_steps WHERE step = 'user_erased')",
        what,
    )
    for table, empty, member, what in (
        ("idempotency_answers", "request = '' AND body = x''", "stored_answers", "stored answers"),
        ("import_archive", "column_values = '{}'", "imported_rows", "rows of import_archive"),
    )
)
# Rows are removed from the oldest on.
_FIRST_LEFT = """
SELECT l.leaf_index FROM audit_logs AS a JOIN audit_leaves AS l ON l.audit_log_id = a.id
WHERE a.id <= ? ORDER BY a.id LIMIT 1"""


class ChainFault(Struct, frozen=True, kw_only=True):
    """Something that is not as it was sealed. audit_log_id: the first row that it is about; null where it is none."""

    audit_log_id: int | None
    said: str


class ChainCheck:
    """One run over the whole log; `faults` is empty when it is as it was sealed. Lifetime: one run.

    `checkpoints`, which were signed, must be of trees that this one continues. `receipts`: leaf by audit_logs.id.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        checkpoints: Sequence[Checkpoint] = (),
        receipts: Mapping[int, bytes] | None = None,
        workers: Workers | None = None,
        rows_at_once: int = _ROWS_AT_ONCE,
    ) -> None:
        self._rows_at_once = rows_at_once
        self._connection = connection
        self._workers = workers
        self._checkpoints = sorted(checkpoints, key=lambda checkpoint: checkpoint.size)
        self._receipts = receipts or {}
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._frontier = Frontier()
        self._verifier = Verifier(self._frontier, on_node=self._take_node)
        self.faults: list[ChainFault] = []
        try:
            self.tree = audit_chain.tree(connection)
        except TreeBroken as error:
            self.tree = Tree(size=0, last_id=0, last_hash=NO_LEAF, frontier=b"")
            self._add(None, str(error))
        self._ends = sorted({c.size for c in self._checkpoints if c.size <= self.tree.size} | {self.tree.size})

    @property
    def checked(self) -> int:
        """How many rows are checked; all of them: `tree.size`."""
        return self._frontier.size

    @property
    def root(self) -> bytes:
        """The root of the tree over the rows that are checked."""
        return self._frontier.root()

    def unfinished_erasures(self) -> list[int]:
        """Users whose erasure was begun: until it is finished no row tells of it."""
        rows = self._connection.execute("SELECT user_id FROM user_erasures WHERE finished_at IS NULL ORDER BY user_id")
        return [row[0] for row in rows.fetchall()]

    def chunks(self) -> Iterator[None]:
        """Carries it out; gives way after every chunk. Ends at the first row that is not sound, and looks at the rest
        without it.
        """
        if self.faults:  # there is no tree
            return
        for end in self._ends:
            while self.checked < end:
                if self._take_archived(end):
                    yield
                elif not self._check_rows(min(end, self.checked + self._rows_at_once)):
                    self._check_what_stands()
                    self._check_records()
                    return
                yield
            self._check_roots(end)
        self._check_end()
        self._check_what_stands()
        self._check_records()

    def _take_archived(self, end: int) -> bool:
        """Goes on by the leaves alone where the rows are archived and gone, by a chunk; whether there was any."""
        prune, start = audit_prunes.find_last(self._connection), self.checked
        stop = min(end, self._first_left(prune), start + self._rows_at_once) if prune else 0
        if prune is None or start >= stop:
            return False
        leaves = self._connection.execute(
            "SELECT audit_log_id, hash FROM audit_leaves WHERE leaf_index >= ? AND leaf_index < ? ORDER BY leaf_index",
            (start, stop),
        ).fetchall()
        if not leaves:
            return False
        for (kept,) in self._connection.execute(_KEPT, (start, stop)).fetchall():
            self._add(kept, "it is archived, and its leaf has a salt, a digest or a rule")
        last_id = self._verifier.last_id
        for audit_log_id, _ in leaves:
            if audit_log_id <= last_id:
                self._add(audit_log_id, f"its id does not come after {last_id}, that of the row before it")
                break
            last_id = audit_log_id
        self._frontier.extend([leaf for _, leaf in leaves], self._take_node)
        self._verifier.last_id, self._verifier.previous = leaves[-1]
        self._check_nodes()
        if self.checked == prune.size and (self.root, self._verifier.last_id) != (prune.root, prune.through_id):
            self._add(prune.through_id, f"the rows up to it are not those that are archived in {prune.archive}")
        return True

    def _first_left(self, prune: Prune) -> int:
        """The index of the first leaf whose row is not archived, or is archived and not removed yet."""
        row = self._connection.execute(_FIRST_LEFT, (prune.through_id,)).fetchone()
        return int(row[0]) if row else prune.size

    def _check_rows(self, end: int) -> bool:
        start = self.checked
        if self._is_sound_elsewhere(start, end):
            self._check_nodes()
            return not self.faults
        fault = self._verifier.check(audit_chain.sealed_rows(self._connection, start, end))
        if fault is not None and fault.audit_log_id is None and self._is_archived(fault.leaf_index):
            return True  # since it was begun
        if fault is not None:
            named = audit_log_id_of(self._connection, fault.leaf_index) if fault.audit_log_id is None else None
            self._add(fault.audit_log_id or named, fault.said)
        elif self.checked < end:
            self._add(None, f"leaf {self.checked} is gone")
        self._check_nodes()
        wrong = audit_workers.first_wrong_range(self._connection, start, self.checked)
        if wrong is not None:
            self._add(wrong, "the node above it does not tell the ids and times of its rows")
        return not self.faults

    def _is_sound_elsewhere(self, start: int, end: int) -> bool:
        """Whether a worker says so; then the rows are checked."""
        sound = self._workers.sound(start, end, self._ranges) if self._workers else None
        verifier = self._verifier
        if sound is None or sound.before != (verifier.last_id, verifier.previous):
            return False
        self._frontier.extend_by(sound.parts, self._take_node)
        verifier.last_id, verifier.previous = sound.last
        return True

    def _ranges(self, start: int) -> Iterator[tuple[int, int]]:
        """What `chunks` goes through from `start` on, if nothing is archived."""
        for end in self._ends:
            while start < end:
                stop = min(end, start + self._rows_at_once)
                yield start, stop
                start = stop

    def _is_archived(self, leaf_index: int) -> bool:
        prune = audit_prunes.find_last(self._connection)
        return prune is not None and leaf_index < self._first_left(prune)

    def _take_node(self, level: int, position: int, node: bytes) -> None:
        self._nodes[level, position] = node

    def _check_nodes(self) -> None:
        for (level, position), node in self._nodes.items():
            sql = "SELECT hash FROM audit_nodes WHERE level = ? AND position = ?"
            row = self._connection.execute(sql, (level, position)).fetchone()
            if row is None or row[0] != node:
                first = audit_log_id_of(self._connection, position << level)
                self._add(first, f"the node above it at level {level} is {'not as it was made' if row else 'gone'}")
        self._nodes.clear()

    def _check_roots(self, size: int) -> None:
        for checkpoint in self._checkpoints:
            if checkpoint.size == size and checkpoint.root != self.root:
                self._add(None, f"the first {size:,} rows are not those that {checkpoint.origin} signed")

    def _check_end(self) -> None:
        tree, verifier = self.tree, self._verifier
        if tree.size and (tree.last_hash, tree.last_id) != (verifier.previous, verifier.last_id):
            self._add(tree.last_id, "audit_tree does not end with the last leaf")
        if tree.frontier != self._frontier.stored():
            self._add(None, "audit_tree does not have the roots of its leaves")

    def _check_what_stands(self) -> None:
        """What needs no hashing: rows without a leaf, leaves beyond the tree, missing rows, receipts."""
        for checkpoint in self._checkpoints:
            if checkpoint.size > self.tree.size:
                said = f"there are {self.tree.size:,} rows; {checkpoint.origin} signed {checkpoint.size:,}"
                self._add(None, f"the log was cut off: {said}")
        for audit_log_id, leaf in self._receipts.items():
            found = audit_chain.find_leaf(self._connection, audit_log_id)
            if found != leaf:
                self._add(audit_log_id, f"its receipt tells of {'another row' if found else 'a row that is gone'}")
        # Counting is enough where each row up to the tree's end was found by its leaf.
        matches = not self.faults and self._connection.execute(_AS_MANY_AS_LEAVES).fetchone()[0]
        after = self.tree.last_id if matches else -(2**63)
        for (unsealed,) in self._connection.execute(_UNSEALED, (after,)).fetchall():
            self._add(unsealed, "it was never sealed: something else than Passbook wrote it")
        size, leaves, last = self._connection.execute(
            "SELECT size, (SELECT COUNT(*) FROM audit_leaves), (SELECT MAX(leaf_index) FROM audit_leaves)"
            " FROM audit_tree"
        ).fetchone()
        if leaves != size or (last is not None and last != size - 1):
            self._add(None, f"audit_tree counts {size:,} leaves, and there are {leaves:,}")
        for through_id, archive in self._connection.execute(_UNTOLD_PRUNE).fetchall():
            self._add(through_id, f"no row tells that the rows up to it were archived in {archive}")
        for user_id, audit_log_id in self._connection.execute(_UNTOLD_ERASURE).fetchall():
            told = "it tells another erasure than is on record of" if audit_log_id else "no row tells of the erasure of"
            self._add(audit_log_id, f"{told} user {user_id}")
        for (first,) in self._connection.execute(_BEYOND).fetchall():
            self._add(first, "there is a node above it that its leaves do not make up")
        for (first,) in self._connection.execute(_RANGES_ABOVE).fetchall():
            self._add(first, "a node high above it does not tell the ids and times of its rows")

    def _check_records(self) -> None:
        """Of prunes and erasures: they are what the rows tell that tell of them."""
        for (through_id,) in self._connection.execute(_WRONG_PRUNE).fetchall():
            self._add(through_id, "the record of the prune up to it is not what the leaves and its row tell")
        for prune in audit_prunes.list_all(self._connection):
            if audit_chain.find_root(self._connection, prune.size) != prune.root:
                self._add(prune.through_id, "the record of the prune up to it has another root than the leaves")
        for user_id, audit_log_id in self._connection.execute(_UNTOLD_USER).fetchall():
            self._add(audit_log_id, f"it tells the erasure of user {user_id}, and no such erasure is on record")
        for sql, what in _ERASED_COUNTS:
            empty, told, some_archived = self._connection.execute(sql).fetchone()
            if empty != told and not (some_archived and empty > told):
                self._add(None, f"{empty:,} {what} are empty, and the erasures on record emptied {told:,}")

    def _add(self, audit_log_id: int | None, said: str) -> None:
        self.faults.append(ChainFault(audit_log_id=audit_log_id, said=said))


def audit_log_id_of(connection: Connection, leaf_index: int) -> int | None:
    """The row of a leaf, or None."""
    row: Any = connection.execute(
        "SELECT audit_log_id FROM audit_leaves WHERE leaf_index = ?", (leaf_index,)
    ).fetchone()
    return row[0] if row else None
