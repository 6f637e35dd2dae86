"""Every way of changing the audit log behind Passbook's back, done by hand with sqlite3, is found and named."""

import contextlib
import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from service import resources
from service.ledger.audit_chain import COLUMNS, SALT_BYTES, Frontier, commitment, leaf_hash, public_details
from service.ledger.audit_logs import AuditEvent
from service.ledger.notes import Checkpoint
from service.ledger.sealing_rules import LATEST
from service.repository import audit_prunes as pruning
from service.storage import audit_chain, audit_logs, audit_prunes, audit_workers, migrator, sequences, sqlite
from service.storage.audit_prunes import Archived, Prefix
from service.storage.audit_verification import ChainCheck

MIGRATIONS = migrator.load(resources.folder("migrations"))
ROWS = 700
"""Two whole blocks of 256 and some."""
MIDDLE = 300


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of ROWS rows, sealed a few at a time as commits do."""
    path = tmp_path_factory.mktemp("log") / "passbook.db"
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        migrator.up(connection, MIGRATIONS, lambda _: None)
        append(connection, ROWS)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def path(sealed: Path, tmp_path: Path) -> Path:
    """A copy of it that may be spoilt."""
    return Path(shutil.copy(sealed, tmp_path / "passbook.db"))


def append(connection: sqlite.Connection, rows: int, *, name: str = "홍길동") -> None:
    """Rows as the service writes them, in commits of 1, 2, 3, … rows."""
    numbers = iter(range(rows))
    for size in itertools.count(1):
        batch = list(itertools.islice(numbers, size))
        if not batch:
            return
        with sqlite.transaction(connection) as tx, audit_chain.sealing(tx):
            last = sequences.last_audit_log_id(tx)
            audit_logs.insert_many(tx, [row_of(last + place, number, name) for place, number in enumerate(batch, 1)])


def row_of(audit_log_id: int, number: int, name: str) -> audit_logs.Row:
    event = AuditEvent(
        action="deposit_announced",
        resource_type="deposit_transaction",
        resource_id=number,
        user_id=number % 7 or None,
        telegram_id=str(number % 7) if number % 7 else None,
        details={"amount": 1000 + number, "depositor_name": name},
    )
    return audit_logs.row(
        audit_log_id,
        event,
        actor="bot",
        request_id=f"r{number}",
        ip_address=None,
        user_agent="test",
        key_prefix=None,
        now=f"2026-01-01 00:{number // 60 % 60:02}:{number % 60:02}",
    )


class Asked:
    """A worker's word without its process: range after range as `Workers.sound` is asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sure = 0

    def sound(self, start: int, stop: int, ranges: audit_workers.Ranges) -> audit_workers.Sound | None:
        assert next(iter(ranges(start))) == (start, stop)
        with contextlib.closing(sqlite.connect_reader(self.path, busy_timeout_ms=0)) as connection:
            found = audit_workers.check_range(connection, start, stop)
        self.sure += found is not None
        return found


def check(
    path: Path, *checkpoints: Checkpoint, receipts: dict[int, bytes] | None = None
) -> list[tuple[int | None, str]]:
    """What is found: (audit_logs.id, what is wrong). With workers it is word for word the same."""
    found = [
        run(path, rows_at_once, workers, *checkpoints, receipts=receipts)
        for rows_at_once in (16_384, 100)
        for workers in (None, Asked(path))
    ]
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert bool(found[0]) == bool(found[2])
    return found[0]


def run(
    path: Path, rows_at_once: int, workers: Any, *checkpoints: Checkpoint, receipts: dict[int, bytes] | None = None
) -> list[tuple[int | None, str]]:
    with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as connection:
        check = ChainCheck(
            connection, checkpoints=checkpoints, receipts=receipts, workers=workers, rows_at_once=rows_at_once
        )
        for _ in check.chunks():
            pass
        return [(fault.audit_log_id, fault.said) for fault in check.faults]


@contextlib.contextmanager
def by_hand(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody with sqlite3, who first takes every trigger away and puts it back in the end."""
    with contextlib.closing(sqlite3.connect(path)) as hand:
        triggers = hand.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            hand.execute(f"DROP TRIGGER {name}")
        yield hand
        for _, sql in triggers:
            hand.execute(sql)
        hand.commit()


def checkpoint(path: Path, size: int) -> Checkpoint:
    with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as connection:
        return Checkpoint("test", size, audit_chain.root_of(connection, size))


def receipt(path: Path, audit_log_id: int) -> dict[int, bytes]:
    with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as connection:
        leaf = audit_chain.find_leaf(connection, audit_log_id)
    assert leaf is not None
    return {audit_log_id: leaf}


def seal_anew(hand: sqlite3.Connection, start: int) -> None:
    """All that a knowing hand can compute: leaves, nodes and tree again from leaf `start` on."""
    leaves = hand.execute(
        "SELECT audit_log_id, hash, salt FROM audit_leaves WHERE leaf_index < ? ORDER BY leaf_index", (start,)
    ).fetchall()
    last = leaves[-1][0] if leaves else 0
    salts = dict(hand.execute("SELECT audit_log_id, salt FROM audit_leaves").fetchall())
    frontier = Frontier()
    previous = bytes(32)
    hand.execute("DELETE FROM audit_leaves WHERE leaf_index >= ?", (start,))
    hand.execute("DELETE FROM audit_nodes")
    nodes = []
    for _, leaf, _ in leaves:
        nodes += frontier.append(leaf)
        previous = leaf
    for row in hand.execute(
        f"SELECT {', '.join(COLUMNS)} FROM audit_logs WHERE id > ? ORDER BY id", (last,)
    ).fetchall():
        salt = salts.get(row[0], bytes(16))
        redacted = public_details(row[6], rule=LATEST, resource_type=row[8], actor=row[11])
        public = redacted and sha256(redacted.encode()).digest()
        previous = leaf_hash(previous, commitment(salt, row[5], row[6]), public or None, row, rule=LATEST)
        hand.execute(
            "INSERT INTO audit_leaves VALUES (?, ?, ?, ?, ?, ?)",
            (frontier.size, row[0], previous, salt, public or None, LATEST),
        )
        nodes += frontier.append(previous)
        last = row[0]
    for level, position, node in nodes:
        if level == 8:
            hand.execute(
                "INSERT INTO audit_nodes SELECT 8, ?, ?, MIN(audit_log_id), MAX(audit_log_id),"
                " (SELECT MIN(created_at) FROM audit_logs WHERE id BETWEEN MIN(audit_log_id) AND MAX(audit_log_id)),"
                " (SELECT MAX(created_at) FROM audit_logs WHERE id BETWEEN MIN(audit_log_id) AND MAX(audit_log_id))"
                " FROM audit_leaves WHERE leaf_index BETWEEN ? AND ?",
                (position, node, position * 256, position * 256 + 255),
            )
    hand.execute(
        "UPDATE audit_tree SET size = ?, last_id = ?, last_hash = ?, frontier = ?",
        (frontier.size, last, previous, frontier.stored()),
    )


def test_a_log_as_it_was_sealed_is_sound(path: Path) -> None:
    """Alone, against checkpoints of any size, and with every receipt."""
    receipts: dict[int, bytes] = {}
    for audit_log_id in range(1, ROWS + 1):
        receipts |= receipt(path, audit_log_id)
    sizes = (0, 1, 2, 255, 256, 257, 511, 512, MIDDLE, ROWS - 1, ROWS)
    assert check(path, *(checkpoint(path, size) for size in sizes), receipts=receipts) == []


def test_workers_are_believed(path: Path) -> None:
    """Where nothing is wrong no range is computed twice."""
    asked = Asked(path)
    assert run(path, 100, asked, checkpoint(path, MIDDLE + 7)) == []
    assert asked.sure == 4 + 4  # up to the checkpoint, and from there


EDIT = f"UPDATE audit_logs SET details = replace(details, '{1000 + MIDDLE - 1}', '9') WHERE id = {MIDDLE}"


@pytest.mark.parametrize(
    ("statements", "named", "said"),
    [
        ([EDIT], MIDDLE, "one of them was changed"),
        ([f"UPDATE audit_logs SET actor = 'admin' WHERE id = {ROWS}"], ROWS, "one of them was changed"),
        ([f"UPDATE audit_logs SET user_id = NULL WHERE id = {MIDDLE}"], MIDDLE, "one of them was changed"),
        ([f"UPDATE audit_logs SET outcome = 'failure' WHERE id = {MIDDLE}"], MIDDLE, "one of them was changed"),
        ([f"UPDATE audit_logs SET created_at = '2020-01-01' WHERE id = {MIDDLE}"], MIDDLE, "one of them was changed"),
        ([f"UPDATE audit_logs SET details = CAST(details AS BLOB) WHERE id = {MIDDLE}"], MIDDLE, "was changed"),
        ([f"UPDATE audit_logs SET resource_id = 1.5 WHERE id = {MIDDLE}"], MIDDLE, "was changed"),
        ([f"DELETE FROM audit_logs WHERE id = {MIDDLE}"], MIDDLE, "gone"),
        ([f"DELETE FROM audit_logs WHERE id = {ROWS}"], ROWS, "gone"),
        (
            [f"DELETE FROM audit_logs WHERE id = {MIDDLE}", f"DELETE FROM audit_leaves WHERE audit_log_id = {MIDDLE}"],
            MIDDLE + 1,
            f"leaf {MIDDLE} stands where leaf {MIDDLE - 1} should",
        ),
        (
            [
                f"UPDATE audit_logs SET id = -1 WHERE id = {MIDDLE}",
                f"UPDATE audit_logs SET id = {MIDDLE} WHERE id = {MIDDLE + 1}",
                f"UPDATE audit_logs SET id = {MIDDLE + 1} WHERE id = -1",
            ],
            MIDDLE,
            "one of them was changed",
        ),
        (["INSERT INTO audit_logs (action) VALUES ('deposit_confirmed')"], ROWS + 1, "never sealed"),
        (["INSERT INTO audit_logs (id, action) VALUES (-5, 'deposit_confirmed')"], -5, "never sealed"),
        ([f"UPDATE audit_leaves SET salt = zeroblob(16) WHERE audit_log_id = {MIDDLE}"], MIDDLE, "was changed"),
        ([f"UPDATE audit_leaves SET rule = 1 WHERE audit_log_id = {MIDDLE}"], MIDDLE, "was changed"),
        ([f"UPDATE audit_leaves SET rule = 9 WHERE audit_log_id = {MIDDLE}"], MIDDLE, "sealed by rule 9, which is not"),
        ([f"UPDATE audit_leaves SET rule = NULL WHERE audit_log_id = {MIDDLE}"], MIDDLE, "sealed by rule None"),
        ([f"UPDATE audit_leaves SET hash = zeroblob(32) WHERE audit_log_id = {MIDDLE}"], MIDDLE, "was changed"),
        (["UPDATE audit_nodes SET hash = zeroblob(32) WHERE position = 1"], 257, "is not as it was made"),
        (["DELETE FROM audit_nodes WHERE position = 0"], 1, "gone"),
        (["UPDATE audit_nodes SET created_at_max = '2025'"], 1, "ids and times"),
        (["UPDATE audit_nodes SET last_id = 2 WHERE position = 1"], 257, "ids and times"),
        ([f"UPDATE audit_tree SET last_hash = zeroblob(32), size = {ROWS}"], ROWS, "does not end with"),
        ([f"UPDATE audit_tree SET size = {ROWS - 1}"], ROWS, "does not end with"),
        (["UPDATE audit_tree SET frontier = zeroblob(length(frontier))"], None, "roots"),
        ([f"DELETE FROM audit_leaves WHERE audit_log_id = {ROWS}"], None, f"leaf {ROWS - 1} is gone"),
    ],
)
def test_a_change_by_hand_is_found_without_any_help(
    path: Path, statements: list[str], named: int | None, said: str
) -> None:
    """No checkpoint is needed: the leaf tells, and the first row that is wrong is named."""
    with by_hand(path) as hand:
        for statement in statements:
            hand.execute(statement)
    found = check(path)
    assert found, "nothing was found"
    assert found[0][0] == named
    assert said in found[0][1]


def test_an_edit_with_its_own_leaf_recomputed_breaks_the_next_row(path: Path) -> None:
    """The leaf after it was made with the old one."""
    with by_hand(path) as hand:
        hand.execute(EDIT)
        seal_anew_one(hand, MIDDLE)
    assert check(path)[0][0] == MIDDLE + 1


def seal_anew_one(hand: sqlite3.Connection, audit_log_id: int) -> None:
    row = hand.execute(f"SELECT {', '.join(COLUMNS)} FROM audit_logs WHERE id = ?", (audit_log_id,)).fetchone()
    (previous,) = hand.execute("SELECT hash FROM audit_leaves WHERE audit_log_id = ?", (audit_log_id - 1,)).fetchone()
    salt, public = hand.execute(
        "SELECT salt, public_details FROM audit_leaves WHERE audit_log_id = ?", (audit_log_id,)
    ).fetchone()
    redacted = public_details(row[6], rule=LATEST, resource_type=row[8], actor=row[11])
    public = redacted and sha256(redacted.encode()).digest()
    leaf = leaf_hash(previous, commitment(salt, row[5], row[6]), public or None, row, rule=LATEST)
    hand.execute(
        "UPDATE audit_leaves SET hash = ?, public_details = ? WHERE audit_log_id = ?", (leaf, public, audit_log_id)
    )


def rewrite(hand: sqlite3.Connection) -> None:
    hand.execute(EDIT)
    seal_anew(hand, MIDDLE - 1)


def truncate(hand: sqlite3.Connection) -> None:
    hand.execute(f"DELETE FROM audit_logs WHERE id > {MIDDLE}")
    seal_anew(hand, MIDDLE - 1)


def regrow(hand: sqlite3.Connection) -> None:
    truncate(hand)
    for number in range(MIDDLE, ROWS):
        hand.execute(
            "INSERT INTO audit_logs (id, action, created_at) VALUES (?, 'x', '2026-01-01 00:00:00')", (number + 1,)
        )
    seal_anew(hand, MIDDLE)


@pytest.mark.parametrize("tamper", [rewrite, truncate, regrow])
def test_a_whole_rewrite_is_found_by_what_was_kept_elsewhere(
    path: Path, tamper: Callable[[sqlite3.Connection], None]
) -> None:
    """The tree alone cannot tell: it is a sound tree of another log. A checkpoint tells, and so does one receipt."""
    before, after = checkpoint(path, MIDDLE - 1), checkpoint(path, ROWS)
    kept = receipt(path, ROWS)
    with by_hand(path) as hand:
        tamper(hand)
    assert check(path) == []
    assert check(path, before) == []
    assert check(path, before, after) != []
    assert check(path, receipts=kept)[0][0] == ROWS


def test_an_older_backup_is_found(path: Path, tmp_path: Path) -> None:
    """Sound in itself; against the last checkpoint it was cut off, and grown again it is another log."""
    older = Path(shutil.copy(path, tmp_path / "older.db"))
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        append(connection, 20)
    last = checkpoint(path, ROWS + 20)
    assert check(path, last) == []
    assert check(older) == []
    assert "cut off" in check(older, last)[0][1]
    with contextlib.closing(sqlite.connect_writer(older, busy_timeout_ms=0, checkpoints=True)) as connection:
        append(connection, 30, name="임꺽정")
    assert "are not those that test signed" in check(older, last)[0][1]


def test_every_leaf_has_a_salt_of_its_own(path: Path) -> None:
    """Also those of one commit: who knows the salt of one row cannot guess what another, which was erased, said."""
    with contextlib.closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as connection:
        leaves, salts, lengths = connection.execute(
            "SELECT COUNT(*), COUNT(DISTINCT salt), COUNT(DISTINCT length(salt)) FROM audit_leaves"
        ).fetchone()
        assert connection.execute("SELECT length(salt) FROM audit_leaves LIMIT 1").fetchone() == (SALT_BYTES,)
    assert (leaves, lengths) == (ROWS, 1)
    assert salts == leaves, f"{leaves} rows share {salts} salts"


def test_a_row_written_behind_the_services_back_is_never_sealed(path: Path) -> None:
    """What the service writes after it is sealed; the row itself stays without a leaf."""
    with contextlib.closing(sqlite3.connect(path)) as hand:
        hand.execute("INSERT INTO audit_logs (action) VALUES ('deposit_confirmed')")
        hand.commit()
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        append(connection, 300)
    assert check(path) == [(ROWS + 1, "it was never sealed: something else than Passbook wrote it")]


def prune(path: Path, rows: int, *, remove: bool = True) -> None:
    """The first `rows` rows on record as archived, and removed."""
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        times = ("2026-01-01 00:00:00", "2026-01-01 00:59:59")
        prefix = Prefix(first_index=0, size=rows, through_id=rows, created_at_min=times[0], created_at_max=times[1])
        archived = Archived(prefix=prefix, root=audit_chain.root_of(connection, rows), sha256=bytes(32))
        recorded = pruning.record(
            connection, archived, archive="archive.ndjson", actor="cli:test", now="2026-02-01 00:00:00"
        )
        if remove:
            audit_prunes.remove(connection, recorded, lambda *_: None)


FORGED = "INSERT INTO audit_logs (id, action, created_at) VALUES ({}, 'deposit_confirmed', '2026-01-01 00:00:00')"


@pytest.mark.parametrize(
    ("statements", "named", "said"),
    [
        ([FORGED.format(5)], 5, "its salt is gone"),
        ([FORGED.format(MIDDLE)], MIDDLE, "its salt is gone"),
        (
            [FORGED.format(ROWS + 2), f"UPDATE audit_leaves SET audit_log_id = {ROWS + 2} WHERE leaf_index = 4"],
            6,
            f"does not come after {ROWS + 2}",
        ),
        (
            ["UPDATE audit_leaves SET audit_log_id = -3 WHERE leaf_index = 4", FORGED.format(-3)],
            -3,
            "does not come after",
        ),
        (["UPDATE audit_nodes SET created_at_max = '2026-01-01 00:00:00' WHERE position = 1"], 257, "ids and times"),
        (["UPDATE audit_nodes SET created_at_min = '2027' WHERE position = 1"], 257, "ids and times"),
        (["UPDATE audit_nodes SET created_at_min = NULL WHERE position = 1"], 257, "ids and times"),
    ],
)
def test_what_is_put_among_archived_rows_is_found(
    path: Path, statements: list[str], named: int | None, said: str
) -> None:
    """The leaves of archived rows stay, and lend themselves to nobody."""
    prune(path, MIDDLE)
    assert check(path) == []
    with by_hand(path) as hand:
        for statement in statements:
            hand.execute(statement)
    found = check(path)
    assert found, "nothing was found"
    assert found[0][0] == named
    assert said in found[0][1]


def test_archived_rows_that_are_not_removed_yet_are_verified(path: Path) -> None:
    """A prune that was killed, or that somebody put on record, hides no edit."""
    prune(path, MIDDLE, remove=False)
    assert check(path) == []
    with by_hand(path) as hand:
        hand.execute("UPDATE audit_logs SET actor = 'admin' WHERE id = 100")
    assert check(path)[0] == (
        100,
        "its leaf is not that of its values after the row before it: one of them was changed",
    )


def test_a_row_missing_between_archived_ones_that_are_there_is_found(path: Path) -> None:
    """Rows are removed from the oldest on."""
    prune(path, MIDDLE, remove=False)
    with by_hand(path) as hand:
        hand.execute("DELETE FROM audit_logs WHERE id <= 50")
    kept = (1, "it is archived, and its leaf has a salt, a digest or a rule")
    assert check(path) == [kept]
    with by_hand(path) as hand:
        hand.execute("UPDATE audit_leaves SET salt = NULL, public_details = NULL, rule = NULL WHERE audit_log_id <= 50")
    assert check(path) == []
    with by_hand(path) as hand:
        hand.execute("DELETE FROM audit_logs WHERE id = 100")
    assert check(path)[0] == (100, "the row is gone")


def test_a_node_beyond_the_leaves_is_found(path: Path) -> None:
    """It would hide the newest rows from a search by time."""
    with by_hand(path) as hand:
        hand.execute(f"INSERT INTO audit_nodes VALUES (8, 2, zeroblob(32), 513, {ROWS}, '2020-01-01', '2020-01-01')")
    assert check(path)[0][0] == 513


def test_a_prune_that_nobody_is_on_record_for_is_found(path: Path) -> None:
    """Rows that somebody lets go by hand, with all that the triggers ask for."""
    root = checkpoint(path, MIDDLE).root
    with contextlib.closing(sqlite3.connect(path)) as hand:
        hand.execute(
            "INSERT INTO audit_prunes VALUES (?, 0, ?, ?, NULL, NULL, 'a', zeroblob(32), 'cli', 'now')",
            (MIDDLE, MIDDLE, root),
        )
        hand.execute(
            "UPDATE audit_leaves SET salt = NULL, public_details = NULL, rule = NULL WHERE audit_log_id <= ?", (MIDDLE,)
        )
        hand.execute("DELETE FROM audit_logs WHERE id <= ?", (MIDDLE,))
        hand.commit()
    assert check(path) == [(MIDDLE, "no row tells that the rows up to it were archived in a")]
