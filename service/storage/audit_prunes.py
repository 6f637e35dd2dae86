"""Tables audit_prunes and audit_pruned_steps: the oldest rows of the audit log, archived in a file and then removed.

The archive is a sealed export (service/ledger/audit_export.py) of the rows since the prune before, and beside it lies
the signed checkpoint of the tree up to its last row. It is written under another name, synced, read back and verified
leaf by leaf against the database. Only then it gets its name and is put on record, and its rows are removed, a few
thousand at a time. A prune that was killed goes on from there when it is started again. Leaves and nodes stay: proofs
and checkpoints hold as before.
"""

import os
import time
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from service.ledger import notes
from service.ledger.audit_chain import (
    ProofError,
    Verifier,
    check_consistency,
    consistency_proof,
)
from service.ledger.audit_export import ExportError, read_header, read_row
from service.ledger.audit_retention import BITS, bits_of, steps
from service.ledger.notes import Checkpoint
from service.storage import audit_chain, audit_exports, private_files, sqlite
from service.storage.audit_exports import RowGone
from service.storage.checkpoints import Signer
from service.storage.progress import Progress
from service.storage.sqlite import Connection, transaction

CHECKPOINT_SUFFIX = ".checkpoint"
"""What comes after the archive's name for the signed checkpoint beside it."""
_ROWS_AT_ONCE = 4096
_REMOVED_AT_ONCE = 5000
_COLUMNS = (
    "through_id, first_index, size, root, created_at_min, created_at_max, archive, archive_sha256, actor, pruned_at"
)


class PruneFailed(Exception):
    """Nothing was removed, or nothing more. The text is one sentence that says why."""


class Prefix(Struct, frozen=True, kw_only=True):
    """The rows that a prune is about: leaves first_index to before size, the last of them audit_logs.id through_id.

    created_at_min, created_at_max: stored text; null when none of the rows has a time.
    """

    first_index: int
    size: int
    through_id: int
    created_at_min: str | None
    created_at_max: str | None

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.size - self.first_index


class Archived(Struct, frozen=True, kw_only=True):
    """What a verified archive holds. root: of the tree at the size of `prefix`; sha256: of the file's bytes."""

    prefix: Prefix
    root: bytes
    sha256: bytes


class Prune(Struct, frozen=True, kw_only=True):
    """A row of audit_prunes. `archive` is the name of a file without its folder."""

    through_id: int
    first_index: int
    size: int
    root: bytes
    created_at_min: str | None
    created_at_max: str | None
    archive: str
    archive_sha256: bytes
    actor: str
    pruned_at: str


def find_last(tx: Connection) -> Prune | None:
    """The last prune, or None."""
    return _one(tx, f"SELECT {_COLUMNS} FROM audit_prunes ORDER BY through_id DESC LIMIT 1")


def list_all(tx: Connection) -> list[Prune]:
    """Every prune, in their order."""
    rows = tx.execute(f"SELECT {_COLUMNS} FROM audit_prunes ORDER BY through_id").fetchall()
    return [Prune(**dict(zip(Prune.__struct_fields__, row, strict=True))) for row in rows]


def find_of_row(tx: Connection, audit_log_id: int) -> Prune | None:
    """The prune whose archive has that row, which there was, or None."""
    if audit_chain.find_index(tx, audit_log_id) is None:
        return None
    return _one(
        tx,
        f"SELECT {_COLUMNS} FROM audit_prunes WHERE through_id >= ? ORDER BY through_id LIMIT 1",
        audit_log_id,
    )


def find_of_next(tx: Connection, audit_log_id: int) -> Prune | None:
    """The last prune, where the row that came next after `audit_log_id` was archived and is gone; or None."""
    last = find_last(tx)
    if last is None or audit_log_id >= last.through_id:
        return None
    row = tx.execute(
        "SELECT EXISTS (SELECT 1 FROM audit_logs WHERE id = l.audit_log_id) FROM audit_leaves AS l"
        " WHERE l.audit_log_id > ? ORDER BY l.audit_log_id LIMIT 1",
        (audit_log_id,),
    ).fetchone()
    return None if row is None or row[0] else last


def _one(tx: Connection, sql: str, *parameters: int) -> Prune | None:
    row = tx.execute(sql, parameters).fetchone()
    return Prune(**dict(zip(Prune.__struct_fields__, row, strict=True))) if row else None


def insert(tx: Connection, prune: Prune) -> None:
    """Puts a prune on record; from then on its rows may be removed."""
    places = ", ".join("?" * len(Prune.__struct_fields__))
    tx.execute(f"INSERT INTO audit_prunes ({_COLUMNS}) VALUES ({places})", msgspec.structs.astuple(prune))


def count_left(tx: Connection, prune: Prune) -> int:
    """How many rows of a recorded prune are still there."""
    return int(tx.execute("SELECT COUNT(*) FROM audit_logs WHERE id <= ?", (prune.through_id,)).fetchone()[0])


def find_prefix(tx: Connection, *, before: str) -> Prefix | None:
    """The longest run of rows from the oldest on that are all older than the stored `before`; None when there is none.

    A row without a time is as old as the next one that has one. Raises PruneFailed for a row without a leaf.
    """
    last = find_last(tx)
    first_index, after = (last.size, last.through_id) if last else (0, 0)
    stop = tx.execute(
        "SELECT id FROM audit_logs WHERE id > ? AND created_at >= ? ORDER BY id LIMIT 1", (after, before)
    ).fetchone()
    bounds = {"after": after, "stop": stop[0] if stop else 2**63 - 1, "before": before}
    found = tx.execute(
        "SELECT id FROM audit_logs WHERE id > :after AND id < :stop AND created_at < :before ORDER BY id DESC LIMIT 1",
        bounds,
    ).fetchone()
    return _prefix(tx, first_index, found[0]) if found else None


def _prefix(tx: Connection, first_index: int, through_id: int) -> Prefix:
    index = audit_chain.find_index(tx, through_id)
    rows, first, last = tx.execute(
        "SELECT COUNT(*), MIN(created_at), MAX(created_at) FROM audit_logs WHERE id <= ?",
        (through_id,),
    ).fetchone()
    if index is None or rows != index + 1 - first_index:
        raise PruneFailed(
            f"The rows up to {through_id} are not those that were sealed; `passbook integrity` names them."
        )
    return Prefix(
        first_index=first_index, size=index + 1, through_id=through_id, created_at_min=first, created_at_max=last
    )


def write_archive(connection: Connection, prefix: Prefix, archive: Path, progress: Progress) -> Path:
    """Writes the rows of `prefix` under another name beside `archive`; the file's path, which is on disk then.

    Raises OSError, and PruneFailed for a row that is gone.
    """
    partial = drop_partial(archive)
    with private_files.create(partial) as file:
        try:
            file.writelines(
                audit_exports.lines(connection, prefix.first_index, prefix.size, progress, step="archiving")
            )
        except RowGone as error:
            raise PruneFailed(str(error)) from error
        file.flush()
        os.fsync(file.fileno())
    return partial


def drop_partial(archive: Path) -> Path:
    """Where the archive is written; what an earlier run left there is gone."""
    partial = private_files.partial_of(archive)
    partial.unlink(missing_ok=True)
    return partial


def verify_archive(connection: Connection, file: Path, progress: Progress) -> Archived:
    """What `file` holds: the rows that come next, each with the leaf that the database has, up to its root there.

    Raises PruneFailed, OSError.
    """
    last = find_last(connection)
    first_index, after = (last.size, last.through_id) if last else (0, 0)
    previous, frontier, _ = audit_exports.begin(connection, first_index)
    digest = sha256()
    with file.open("rb") as lines:
        try:
            line = lines.readline()
            digest.update(line)
            header = read_header(line)
            if (header.first_index, header.previous_leaf, header.frontier.roots) != (
                first_index,
                previous,
                frontier.roots,
            ):
                raise PruneFailed(f"{file} does not begin with the row that comes next.")
            verifier = Verifier(frontier, previous=previous, last_id=after)
            while rows := [_read(line, digest) for line in islice(lines, _ROWS_AT_ONCE)]:
                _verify(connection, verifier, rows, file)
                progress("verifying", lines.tell(), file.stat().st_size)
        except ExportError as error:
            raise PruneFailed(f"{file} is no archive that can be relied on: {error}.") from error
    size = frontier.size
    if size == first_index or frontier.root() != audit_chain.root_of(connection, size):
        raise PruneFailed(f"{file} does not lead to the root that the database has at {size:,} rows.")
    prefix = _prefix(connection, first_index, verifier.last_id)
    return Archived(prefix=prefix, root=frontier.root(), sha256=digest.digest())


def _read(line: bytes, digest: Any) -> Any:
    digest.update(line)
    return read_row(line)


def _verify(connection: Connection, verifier: Verifier, rows: list[Any], file: Path) -> None:
    start = verifier.frontier.size
    fault = verifier.check(rows)
    if fault is not None:
        raise PruneFailed(f"{file}, row {fault.audit_log_id}: {fault.said}.")
    leaves = connection.execute(
        "SELECT audit_log_id, hash FROM audit_leaves WHERE leaf_index >= ? AND leaf_index < ? ORDER BY leaf_index",
        (start, start + len(rows)),
    ).fetchall()
    if leaves != [(row[1], row[-1]) for row in rows]:
        raise PruneFailed(f"{file} has another row than the database among its leaves {start} to {start + len(rows)}.")


def sign_checkpoint(connection: Connection, signer: Signer, archived: Archived) -> str:
    """The signed note of the tree as it was at the archive's last row: part of what was signed last, or its
    continuation. The signer's last checkpoint stays. Raises Contradiction, PruneFailed.
    """
    signer.check(connection)
    size, last = archived.prefix.size, signer.last
    if last is not None:
        first, second = sorted([(size, archived.root), (last.size, last.root)])
        proof = consistency_proof(first[0], second[0], audit_chain.nodes(connection))
        try:
            check_consistency(*first, *second, proof)
        except ProofError as error:
            raise PruneFailed(f"The rows are not those that were signed: {error}.") from error
    return notes.sign(Checkpoint(signer.key.verifier.name, size, archived.root).text(), signer.key)


def publish(partial: Path, archive: Path, note: str) -> None:
    """Gives the checkpoint and then the archive their names, which are not taken. Raises PruneFailed, OSError."""
    write_checkpoint(archive, note)
    try:
        archive.hardlink_to(partial)
        partial.unlink()
    except FileExistsError as error:
        raise PruneFailed(f"{archive} is there already; nothing is written over it.") from error
    except OSError:  # a file system without links
        partial.rename(archive)
    sqlite.sync(archive.absolute().parent)


def write_checkpoint(archive: Path, note: str) -> None:
    """Puts `note` beside the archive. Raises PruneFailed when another one is there."""
    path = archive.with_name(archive.name + CHECKPOINT_SUFFIX)
    if path.exists():
        if path.read_text("utf-8") != note:
            raise PruneFailed(f"{path} is there already; nothing is written over it.")
        return
    private_files.write(path, note.encode())


def digest_of(file: Path) -> bytes:
    """SHA-256 of a file's bytes. Raises OSError."""
    digest = sha256()
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            digest.update(piece)
    return digest.digest()


def remove(connection: Connection, prune: Prune, progress: Progress) -> None:
    """Removes what is left of the rows of a recorded prune; a service beside it has its turn after every few thousand.

    Each transaction keeps what its rows told of the ledger, and drops what their leaves were made with.
    """
    sqlite.overwrite_what_goes(connection)
    sqlite.checkpoint_if_safe(connection)
    total = left = count_left(connection, prune)
    while left > 0:
        progress("removing", total - left, total)
        began = time.monotonic()
        with transaction(connection) as tx:
            removed = _remove_some(tx, prune.through_id)
        left -= removed
        if removed == 0:
            break
        # Who waits for the lock looks for it now and then: without a pause it would seldom find it free.
        time.sleep(min(time.monotonic() - began, 1.0))
    progress("removing", total, total)


def _remove_some(tx: Connection, through_id: int) -> int:
    rows = tx.execute(
        "SELECT id, action, resource_type, resource_id, actor, details FROM audit_logs WHERE id <= ? ORDER BY id"
        " LIMIT ?",
        (through_id, _REMOVED_AT_ONCE),
    ).fetchall()
    if not rows:
        return 0
    _remember(tx, [told for row in rows for told in steps(*row[1:])])
    bounds = (rows[0][0], rows[-1][0])
    tx.execute(
        "UPDATE audit_leaves SET salt = NULL, public_details = NULL, rule = NULL WHERE audit_log_id BETWEEN ? AND ?",
        bounds,
    )
    tx.execute("DELETE FROM audit_logs WHERE id BETWEEN ? AND ?", bounds)
    return len(rows)


def _remember(tx: Connection, told: list[tuple[str, int]]) -> None:
    known = {}
    for step in {step for step, _ in told}:
        blocks = [number // BITS for other, number in told if other == step]
        for block, nth, bits in tx.execute(
            "SELECT block, nth, bits FROM audit_pruned_steps WHERE step = ? AND block BETWEEN ? AND ?",
            (step, min(blocks), max(blocks)),
        ).fetchall():
            known[step, block, nth] = bits
    found = bits_of(told, known)
    tx.executemany(
        "UPDATE audit_pruned_steps SET bits = ? WHERE step = ? AND block = ? AND nth = ?",
        [(bits, *key) for key, bits in found.items() if key in known],
    )
    tx.executemany(
        "INSERT INTO audit_pruned_steps (step, block, nth, bits) VALUES (?, ?, ?, ?)",
        [(*key, bits) for key, bits in found.items() if key not in known],
    )


def sql_of_told(step: str, number: str) -> str:
    """SQL of how many archived rows told `step` of the id that the SQL expression `number` gives."""
    return (
        f"(SELECT COALESCE(SUM(bits >> ({number} % {BITS}) & 1), 0) FROM audit_pruned_steps"
        f" WHERE step = '{step}' AND block = {number} / {BITS})"
    )
