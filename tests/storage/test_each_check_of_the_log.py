"""Every check of the proof of the audit log finds something that no other one does.

The changes below, made by a hand that has dropped the triggers, are found. Then each check is taken out of the running
program in turn, and one of the changes must be taken for sound.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from service.ledger.audit_logs import AuditEvent
from service.ledger.notes import Checkpoint
from service.storage import audit_chain, audit_logs, audit_verification, audit_workers, sequences, sqlite
from service.storage.audit_verification import ChainCheck
from service.storage.audit_workers import Sound
from service.storage.sqlite import Connection
from tests.removed_checks import Check, checks_of, removed
from tests.repository.house import make_database
from tests.some import some
from tests.storage.test_audit_verification import append, prune, row_of

ROWS = 300
PRUNED = 270
CHUNKS_MAX = 1000
LARGE = 65_536
Change = Callable[[Connection], None]


@dataclass(frozen=True)
class Tampered:
    """A change to a log, and what the log is compared with afterwards. log: which of the three."""

    change: Change
    log: str = "whole"
    checkpoints: Sequence[Checkpoint] = ()
    receipts: Mapping[int, bytes] = field(default_factory=dict)
    worker: "Callable[[Connection, int, int], Sound | None] | None" = None


def by_hand(*statements: str) -> Change:
    """SQL, a statement after the other."""

    def change(tx: Connection) -> None:
        for statement in statements:
            tx.execute(statement)

    return change


def told(action: str, resource_type: str, resource_id: int, details: dict[str, object], now: str) -> Change:
    """A row as the ledger writes and seals it."""

    def change(tx: Connection) -> None:
        with audit_chain.sealing(tx):
            about: dict[str, Any] = {"resource_type": resource_type, "resource_id": resource_id}
            event = AuditEvent(action=action, user_id=None, telegram_id=None, details=details, **about)
            row = audit_logs.row(
                sequences.last_audit_log_id(tx) + 1,
                event,
                actor="cli:test",
                key_prefix=None,
                request_id=None,
                ip_address=None,
                user_agent=None,
                now=now,
            )
            audit_logs.insert_many(tx, [row])

    return change


def untold_prune(tx: Connection) -> None:
    """A prune on record whose rows are all there, and that no row tells of."""
    record_prune(tx, audit_chain.root_of(tx, 10))


def prune_of_another_root(tx: Connection) -> None:
    """A prune and the row that tells of it, both with a root that the leaves do not have."""
    record_prune(tx, bytes(32))
    details: dict[str, object] = {"through_id": 10, "rows": 10, "archive": "a", "sha256": "00" * 32, "root": "00" * 32}
    told("audit_log_pruned", "audit_log", 10, details, "now")(tx)


def record_prune(tx: Connection, root: bytes) -> None:
    tx.execute(
        "INSERT INTO audit_prunes VALUES (10, 0, 10, ?, NULL, NULL, 'a', zeroblob(32), 'cli:test', 'now')", (root,)
    )


def first_word(connection: Connection, start: int, stop: int) -> Sound | None:
    """An honest worker's."""
    return audit_workers.check_range(connection, start, stop)


def word_of_another_log(connection: Connection, start: int, stop: int) -> Sound | None:
    """That the rows are sound, behind a row that is not the one before them."""
    for sql in ("UPDATE audit_logs SET actor = 'bot' WHERE id = 150",):
        connection.execute(sql)
    found = audit_workers.check_range(connection, start, stop)
    connection.execute("UPDATE audit_logs SET actor = 'admin' WHERE id = 150")
    return found and Sound((found.before[0], b"x" * 32), found.last, found.parts)


USER = by_hand("INSERT INTO users (id, telegram_id) VALUES (99, '99')")


def erased_user(tx: Connection) -> None:
    USER(tx)
    tx.execute("INSERT INTO user_erasures VALUES (99, 'x', 'cli:test', 'y')")


EDIT = by_hand("UPDATE audit_logs SET actor = 'admin' WHERE id = 150")
NOTHING = by_hand()
TAMPERED = {
    "no tree": Tampered(by_hand("DELETE FROM audit_tree")),
    "a row edited": Tampered(EDIT),
    "a row edited, of which another log's worker says that it is sound": Tampered(EDIT, worker=word_of_another_log),
    "a row gone": Tampered(by_hand("DELETE FROM audit_logs WHERE id = 150")),
    "a row gone that was not archived": Tampered(by_hand("DELETE FROM audit_logs WHERE id = 290"), log="pruned"),
    "leaves of archived rows gone": Tampered(by_hand("DELETE FROM audit_leaves WHERE leaf_index < 120"), log="pruned"),
    "the last leaf gone": Tampered(by_hand(f"DELETE FROM audit_leaves WHERE leaf_index = {ROWS - 1}")),
    "a node edited": Tampered(by_hand("UPDATE audit_nodes SET hash = zeroblob(32)")),
    "a node edited, its rows sound to a worker": Tampered(
        by_hand("UPDATE audit_nodes SET hash = zeroblob(32)"), worker=first_word
    ),
    "a node of archived rows edited": Tampered(by_hand("UPDATE audit_nodes SET hash = zeroblob(32)"), log="pruned"),
    "a node gone": Tampered(by_hand("DELETE FROM audit_nodes")),
    "a node that tells another id": Tampered(by_hand("UPDATE audit_nodes SET last_id = 2")),
    "another checkpoint": Tampered(NOTHING, checkpoints=[Checkpoint("test", 100, bytes(32))]),
    "a checkpoint of more rows": Tampered(NOTHING, checkpoints=[Checkpoint("test", ROWS + 5, bytes(32))]),
    "another last leaf": Tampered(by_hand("UPDATE audit_tree SET last_hash = zeroblob(32)")),
    "other roots": Tampered(by_hand("UPDATE audit_tree SET frontier = zeroblob(length(frontier))")),
    "another receipt": Tampered(NOTHING, receipts={5: bytes(32)}),
    "a row without a leaf": Tampered(by_hand("INSERT INTO audit_logs (action) VALUES ('deposit_confirmed')")),
    "a leaf too many": Tampered(
        by_hand(
            f"INSERT INTO audit_logs (id, action) VALUES ({ROWS + 1}, 'a')",
            f"INSERT INTO audit_leaves VALUES ({ROWS}, {ROWS + 1}, zeroblob(32), NULL, NULL, NULL)",
        )
    ),
    "a prune that no row tells of": Tampered(untold_prune),
    "an erasure that no row tells of": Tampered(erased_user),
    "a node beyond the leaves": Tampered(
        by_hand("INSERT INTO audit_nodes VALUES (8, 1, zeroblob(32), 257, 300, NULL, NULL)")
    ),
    "a prune of another actor than is told": Tampered(by_hand("UPDATE audit_prunes SET actor = 'x'"), log="pruned"),
    "a prune of another root": Tampered(prune_of_another_root),
    "an erasure that is not on record": Tampered(told("user_erased", "user", 99, {"audit_logs": 0}, "y")),
    "an answer emptied": Tampered(
        by_hand("INSERT INTO idempotency_answers VALUES (1, 'a', 'k', 'POST /', '', 201, x'', NULL, 'x', NULL)")
    ),
    "a salt for an archived row": Tampered(
        by_hand("UPDATE audit_leaves SET salt = zeroblob(16) WHERE leaf_index = 5"), log="pruned"
    ),
    "archived rows in another order": Tampered(
        by_hand(
            "UPDATE audit_leaves SET audit_log_id = -1 WHERE leaf_index = 5",
            "UPDATE audit_leaves SET audit_log_id = 6 WHERE leaf_index = 6",
            "UPDATE audit_leaves SET audit_log_id = 7 WHERE leaf_index = 5",
        ),
        log="pruned",
    ),
    "a node high above that tells another time": Tampered(
        by_hand("UPDATE audit_nodes SET created_at_max = '2020-01-01' WHERE level = 16"), log="large"
    ),
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Connection]]:
    """Three logs without triggers: whole, with the oldest rows archived, and large enough for a node of level 16."""
    folder = tmp_path_factory.mktemp("logs")
    with contextlib.ExitStack() as stack:
        found = {}
        for name in ("whole", "pruned", "large"):
            path = make_database(folder / f"{name}.db")
            with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
                if name == "large":
                    with sqlite.transaction(connection) as tx, audit_chain.sealing(tx):
                        audit_logs.insert_many(tx, [row_of(number, number, "a") for number in range(1, LARGE + 1)])
                else:
                    append(connection, ROWS)
            if name == "pruned":
                prune(path, PRUNED)
            connection = sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)
            found[name] = stack.enter_context(contextlib.closing(connection))
            triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
            for (trigger,) in triggers:
                connection.execute(f"DROP TRIGGER {trigger}")
            connection.execute("PRAGMA foreign_keys = OFF")
        yield found


class Worker:
    """A worker's word, by a function, without its process."""

    def __init__(self, connection: Connection, says: Callable[[Connection, int, int], Sound | None]) -> None:
        self._connection, self._says = connection, says

    def sound(self, start: int, stop: int, _ranges: audit_workers.Ranges) -> Sound | None:
        return self._says(self._connection, start, stop)


def faults(connection: Connection, case: Tampered) -> list[str]:
    """What the proof says after the change, which is then undone. Raises AssertionError where it does not end."""
    connection.execute("BEGIN")
    try:
        case.change(connection)
        workers: Any = Worker(connection, case.worker) if case.worker else None
        check = ChainCheck(
            connection,
            checkpoints=case.checkpoints,
            receipts=case.receipts,
            workers=workers,
            rows_at_once=LARGE if case.log == "large" else 100,
        )
        assert len(list(itertools.islice(check.chunks(), CHUNKS_MAX))) < CHUNKS_MAX, "it never ends"
        return [fault.said for fault in check.faults]
    finally:
        connection.execute("ROLLBACK")


def is_refused(attempt: Callable[[], object]) -> bool:
    """Whether something is found; an error is an answer that nobody meant."""
    try:
        return bool(attempt())
    except Exception:
        return False


def needless(
    checks: Sequence[Check], attempts: Mapping[str, Callable[[], object]], known: Mapping[str, str]
) -> set[str]:
    """The checks without which all is found just the same, but those that are `known` to be so."""
    taken = [name for name, attempt in attempts.items() if not is_refused(attempt)]
    assert not taken, f"taken for sound: {', '.join(taken)}"
    assert {*known} - {*map(str, checks)} == set(), "no such check is there any more"
    found = set()
    for check in checks:
        if str(check) not in known:
            with removed(check):
                if all(map(is_refused, attempts.values())):
                    found.add(str(check))
    return found


REPEATED = {
    "ChainCheck.chunks: self._check_what_stands() (again)": "it says more of a log of which a row is not sound",
    "ChainCheck.chunks: self._check_records() (again)": "it says more of a log of which a row is not sound",
    **{
        f"ChainCheck._take_archived: {one}": "then there are no leaves to be read"
        for one in (
            "prune is None or start >= stop",
            "prune is None (of prune is None or start >= stop)",
            "start >= stop (of prune is None or start >= stop)",
        )
    },
    "ChainCheck._take_archived: self.checked == prune.size and (self.root, self._verifier.last_id) != (prune.root,"
    " prune.through_id)": "the record of the prune differs from the leaves too; which archive it is about is said",
    "ChainCheck._check_rows: fault is not None": "the row is not taken then, and its leaf is called gone",
    **{
        f"ChainCheck._check_what_stands: {one} (of leaves != size or (last is not None and last != size - 1))": "a leaf"
        " too many is behind the last one, or another one is missing"
        for one in ("leaves != size", "last is not None and last != size - 1")
    },
    "ChainCheck._take_archived: self._check_nodes()": "the rows that are left come next, and their nodes with these",
}
"""Checks that another one repeats, and what for they are there."""


def test_a_log_that_nobody_changed_is_sound(logs: dict[str, Connection]) -> None:
    """All three, also to a worker; else nothing would be proved below."""
    for name, connection in some(logs.items()):
        assert faults(connection, Tampered(NOTHING, name)) == []
    assert faults(logs["whole"], Tampered(NOTHING, worker=first_word)) == []


@pytest.mark.long
def test_each_check_of_the_proof_is_needed(logs: dict[str, Connection]) -> None:
    """Of rows, nodes, roots, checkpoints, receipts, prunes and erasures."""
    attempts = {name: partial(faults, logs[case.log], case) for name, case in TAMPERED.items()}
    names = [name for name in vars(ChainCheck) if callable(vars(ChainCheck)[name]) and name != "_add"]
    checks = checks_of(audit_verification, *(f"ChainCheck.{name}" for name in names))
    assert len(checks) > 30
    assert needless(checks, attempts, REPEATED) == set()


def test_each_check_of_a_worker_is_needed(logs: dict[str, Connection]) -> None:
    """What it calls sound is sound, whole, and behind a row that is there."""
    ranges = {
        "a row edited": (EDIT, 100, 200),
        "the row before gone": (by_hand("DELETE FROM audit_leaves WHERE leaf_index = 99"), 100, 200),
        "more rows than there are": (NOTHING, 200, ROWS + 1),
        "a node that tells another id": (by_hand("UPDATE audit_nodes SET last_id = 2"), 0, 256),
    }

    def is_unsure(change: Change, start: int, stop: int) -> bool:
        connection = logs["whole"]
        connection.execute("BEGIN")
        try:
            change(connection)
            return audit_workers.check_range(connection, start, stop) is None
        finally:
            connection.execute("ROLLBACK")

    assert not is_unsure(NOTHING, 0, 256)
    assert not is_unsure(NOTHING, 100, ROWS)
    checks = checks_of(audit_workers, "check_range", refusal="None")
    attempts = {name: partial(is_unsure, *case) for name, case in ranges.items()}
    repeated = (
        "check_range: fault is not None (of fault is not None or stretch.size < stop or"
        " first_wrong_range(connection, start, stop) is not None)"
    )
    assert needless(checks, attempts, {repeated: "the row and those behind it are not taken then"}) == set()
    assert len(checks) >= 5
