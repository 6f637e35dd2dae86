"""The sealed export of the audit log, line by line: from it the whole tree can be recomputed without the database."""

from collections.abc import Iterator

from service.ledger.audit_chain import NO_LEAF, Frontier, subtrees
from service.ledger.audit_export import header_line, row_line
from service.storage import audit_chain
from service.storage.progress import Progress
from service.storage.sqlite import Connection

_ROWS_AT_ONCE = 4096


class RowGone(Exception):
    """A row that was sealed is not there. The text names its leaf."""


def lines(connection: Connection, first_index: int, size: int, progress: Progress, *, step: str) -> Iterator[bytes]:
    """The header and the rows of the leaves first_index to before size. Raises RowGone.

    A few thousand rows are read at a time, each lot in a snapshot of its own: the log only grows.
    """
    previous, frontier, _ = begin(connection, first_index)
    yield header_line(first_index, previous, frontier.roots)
    for start in range(first_index, size, _ROWS_AT_ONCE):
        progress(step, start - first_index, size - first_index)
        for sealed in audit_chain.sealed_rows(connection, start, min(start + _ROWS_AT_ONCE, size)):
            if sealed[1] is None:
                raise RowGone(f"The row of leaf {sealed[0]} is gone; `passbook audit verify` names it.")
            yield row_line(sealed)


def begin(tx: Connection, first_index: int) -> tuple[bytes, Frontier, int]:
    """Where an export begins: the leaf before it, the frontier of all before it, the id of the row before it."""
    if first_index == 0:
        return NO_LEAF, Frontier(), 0
    node = audit_chain.nodes(tx)
    roots = b"".join(node(level, position) for level, position in subtrees(0, first_index))
    audit_log_id, leaf = tx.execute(
        "SELECT audit_log_id, hash FROM audit_leaves WHERE leaf_index = ?", (first_index - 1,)
    ).fetchone()
    return leaf, Frontier(first_index, roots), audit_log_id
