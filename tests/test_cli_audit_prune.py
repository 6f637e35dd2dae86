"""passbook audit prune: beside a running service, killed anywhere, and what is right afterwards as it was before."""

import base64
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from service.ledger import notes
from service.ledger.audit_chain import check_consistency, root_of_inclusion
from service.ledger.audit_export import read_header, read_row
from service.storage import audit_prunes, sqlite
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, LiveService, passbook
from tests.printed import stands
from tests.storage.broken import by_hand, make_sound
from tests.storage.broken import named_by_integrity as named

CUT = 12
"""The audit row that is the oldest one left after `prune`."""
STRIDE = 1 if os.environ.get("FAULTS") == "full" else 4
"""Of the points to be killed at, every such one is tried."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound database, and its key; not to be changed."""
    folder = tmp_path_factory.mktemp("sound")
    make_sound(folder / "p.db")
    return folder


@pytest.fixture
def database(made: Path, tmp_path: Path) -> Path:
    """A copy."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy" / "p.db"


def rows(database: Path, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql, parameters).fetchall()


def time_of(database: Path, audit_log_id: int) -> str:
    """When a row was written, as an argument."""
    ((text,),) = rows(database, "SELECT created_at FROM audit_logs WHERE id = ?", audit_log_id)
    return str(text).replace(" ", "T") + "Z"


def prune(database: Path, before: str, archive: Path, *more: str) -> Result:
    """The command, in this process."""
    options = ["--database", str(database), "--before", before, "--archive", str(archive), *(more or ["--yes"])]
    return CliRunner().invoke(main, ["audit", "prune", *options])


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        ("2020-01-01T00:00:00.370Z", "2020-01-01T00:00:00.370Z"),
        ("2020-01-01T00:00:00.4Z", "2020-01-01T00:00:00.400Z"),
        ("2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00Z"),
        ("2020-01-01T09:00:00.1234+09:00", "2020-01-01T00:00:00.1234Z"),
        ("2020-01-01", "2020-01-01T00:00:00Z"),
    ],
)
def test_a_bound_is_printed_as_rows_show_their_times(database: Path, before: str, shown: str) -> None:
    """A fraction that ends with 0 keeps it, so that what is printed has one form."""
    done = prune(database, before, database.with_name("none"), "--dry-run")
    assert done.output == f"No row is older than {shown}; nothing to archive.\n"


def archived_rows(archive: Path) -> list[Any]:
    first, *lines = archive.read_bytes().splitlines(keepends=True)
    read_header(first)
    return [read_row(line) for line in lines]


def unsound(archive: Path, database: Path) -> str:
    """What docs/audit-log/verify.py, which shares no code with Passbook, says against an archive and its checkpoint."""
    key = notes.read_signing_key(database.with_name(f"{database.name}.audit-key").read_text().strip()).verifier
    checkpoint = archive.with_name(archive.name + audit_prunes.CHECKPOINT_SUFFIX)
    verifier = CHECKOUT / "docs" / "audit-log" / "verify.py"
    ran = subprocess.run(
        [sys.executable, verifier, archive, "--key", key.text(), "--checkpoint", checkpoint],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def test_beside_a_running_service_all_that_was_right_stays_right(database: Path, tmp_path: Path) -> None:
    """Explanations, proofs, checkpoints, lists, backups, and a second prune that goes on from the first."""
    first, second = tmp_path / "first.ndjson", tmp_path / "second.ndjson"
    with contextlib.closing(sqlite.connect_writer(database, busy_timeout_ms=0, checkpoints=True)):
        service = LiveService(database, admin_key="x").start()
    try:
        client = service.client(service.make_key("--role", "admin"))
        before = {user: client.get(f"/v1/users/{user}/balance/explain").json() for user in ("100", "200", "300")}
        kept = client.get("/v1/audit-logs/checkpoint").text
        whole = client.get("/v1/audit-logs", params={"limit": 1000}).json()["items"]
        ran = passbook(
            *("audit", "prune", "--database", str(database), "--before", time_of(database, CUT)),
            *("--archive", str(first), "--yes"),
        )
        assert ran.returncode == 0, ran.stderr
        assert stands(f"{CUT - 1} rows up to {CUT - 1}", ran.stdout)

        log = client.get("/v1/audit-logs", params={"limit": 1000}).json()["items"]
        assert log[1:] == [row for row in whole if row["id"] >= CUT]
        assert log[0]["action"] == "audit_log_pruned"
        assert log[0]["details"]["sha256"] == sha256(first.read_bytes()).hexdigest()
        gone = client.get("/v1/audit-logs/3")
        assert (gone.status_code, gone.json()["code"]) == (404, "audit_log_not_found")
        assert "first.ndjson" in gone.json()["detail"]
        assert "first.ndjson" not in client.get("/v1/audit-logs/999999").json()["detail"]
        for after in (0, 1, CUT - 2):
            refused = client.get("/v1/audit-logs", params={"follow": after})
            problem = refused.json()
            assert (refused.status_code, problem["code"]) == (410, "audit_rows_archived")
            assert (problem["archive"], problem["through_id"]) == ("first.ndjson", CUT - 1)
        followed = client.get("/v1/audit-logs", params={"follow": problem["through_id"], "limit": 3}).json()
        assert [row["id"] for row in followed["items"]] == [CUT, CUT + 1, CUT + 2]

        verifier = notes.read_signing_key(database.with_name("p.db.audit-key").read_text().strip()).verifier
        proof = notes.read_proof(client.get("/v1/audit-logs/3/proof").text)
        now = notes.open_checkpoint(proof.checkpoint, [verifier])
        leaf = archived_rows(first)[2][-1]
        assert root_of_inclusion(leaf, proof.index, now.size, proof.path) == now.root
        old = notes.open_checkpoint(kept, [verifier])
        at_end = notes.open_checkpoint(first.with_name("first.ndjson.checkpoint").read_text(), [verifier])
        assert at_end.size == CUT - 1
        for earlier, later in ((old, now), (at_end, old)):
            asked = client.get("/v1/audit-logs/consistency", params={"from": earlier.size, "to": later.size}).json()
            hashes = [base64.b64decode(text) for text in asked["proof"]]
            check_consistency(earlier.size, earlier.root, later.size, later.root, hashes)

        for user, explained in before.items():
            again = client.get(f"/v1/users/{user}/balance/explain").json()
            assert again["proved"]
            hidden = {"audit_log_id": None, "actor": None, "request_id": None}
            assert again["items"] == [
                {**told, **hidden} if told["audit_log_id"] < CUT else told for told in explained["items"]
            ]
        client.credit("100", 5)
        assert prune(database, time_of(database, CUT + 5), second).exit_code == 0
        assert prune(database, "2020-01-01", tmp_path / "none").output.startswith("No row is older")
    finally:
        assert service.stop() == 0, service.said
    assert named(database) == {}
    assert [row[1] for row in archived_rows(second)] == list(range(CUT, CUT + 5))
    assert broken_invariants(database, archives=[first, second]) == []
    assert not [said for said in map(unsound, (first, second), (database, database)) if said]
    assert passbook("audit", "verify", "--database", str(database)).returncode == 0
    copy = tmp_path / "copy.db"
    assert passbook("backup", "--database", str(database), "--to", str(copy)).returncode == 0
    assert passbook("export", "--database", str(database), str(tmp_path / "back.sql")).returncode == 0
    assert passbook("import", str(tmp_path / "back.sql"), "--database", str(tmp_path / "again.db")).returncode == 0
    down = passbook("migrate", "down", "--to", "013", "--database", str(copy), "--yes")
    assert down.returncode == 1
    assert "rollback 018 stopped: rows were archived or erased" in down.stderr


def test_nothing_is_written_to_see_what_would_go(database: Path, tmp_path: Path) -> None:
    """--dry-run counts; a row without a time goes with those after it, one as young as the moment stops the rest."""
    said = prune(database, time_of(database, CUT), tmp_path / "a", "--dry-run").output
    assert stands(f"{CUT - 1} rows up to {CUT - 1} are older", said)
    by_hand(database, "UPDATE audit_logs SET created_at = NULL WHERE id IN (1, 2, 3, 5, 11)")
    assert stands("10 rows up to 10", prune(database, time_of(database, CUT), tmp_path / "a", "--dry-run").output)
    by_hand(
        database,
        f"UPDATE audit_logs SET created_at = (SELECT created_at FROM audit_logs WHERE id = {CUT}) WHERE id = 9",
    )
    assert stands("8 rows up to 8", prune(database, time_of(database, CUT), tmp_path / "a", "--dry-run").output)
    by_hand(database, "UPDATE audit_logs SET created_at = '2999-01-01 00:00:00' WHERE id = 5")
    assert stands("4 rows up to 4", prune(database, time_of(database, CUT), tmp_path / "a", "--dry-run").output)
    assert list(tmp_path.iterdir()) == [database.parent]
    refused = prune(database, "2999-01-01", tmp_path / "a")
    assert (refused.exit_code, "is in the future" in refused.output) == (2, True)
    asked = CliRunner().invoke(
        main,
        [*("audit", "prune", "--database", str(database), "--before", time_of(database, CUT)), "--archive", "a"],
        input="n\n",
    )
    assert asked.exit_code == 1
    assert rows(database, "SELECT COUNT(*) FROM audit_prunes") == [(0,)]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM audit_logs WHERE id = 4", "not those that were sealed"),
        ("UPDATE audit_logs SET details = '{}' WHERE id = 4", "row 4: its leaf is not that of its values"),
        ("UPDATE audit_leaves SET hash = zeroblob(32) WHERE audit_log_id = 4", "its tree is not that of its leaves"),
        ("INSERT INTO audit_logs (id, action, created_at) VALUES (0, 'x', '2026-01-01')", "not those that were sealed"),
    ],
)
def test_what_a_hand_changed_is_not_archived_away(database: Path, tmp_path: Path, sql: str, said: str) -> None:
    """The prune stops, names the row, and removes nothing."""
    by_hand(database, sql)
    count = rows(database, "SELECT COUNT(*) FROM audit_logs")
    refused = prune(database, time_of(database, CUT), tmp_path / "a")
    assert (refused.exit_code, said in refused.output) == (1, True), refused.output
    assert rows(database, "SELECT COUNT(*) FROM audit_logs") == count
    assert not (tmp_path / "a").exists()


def test_an_archive_that_is_not_whole_lets_nothing_go(database: Path, tmp_path: Path) -> None:
    """Found at its place: cut, changed, of other rows, with younger rows, or something else altogether."""
    archive, moment = tmp_path / "a", time_of(database, CUT)
    shutil.copytree(database.parent, tmp_path / "other")
    assert prune(tmp_path / "other" / "p.db", moment, archive).exit_code == 0
    whole = archive.read_bytes()
    count = rows(database, "SELECT COUNT(*) FROM audit_logs")
    for spoilt in (b"", whole[:-1], whole.replace(b"5000", b"5001"), whole.replace(b"10000", b"90000", 1), b"{}\n"):
        archive.write_bytes(spoilt)
        refused = prune(database, moment, archive)
        assert refused.exit_code == 1, refused.output
        assert rows(database, "SELECT COUNT(*) FROM audit_logs") == count
    archive.write_bytes(whole)
    younger = prune(database, time_of(database, CUT - 2), archive)
    assert "younger rows than may go" in younger.output
    assert prune(database, moment, archive).exit_code == 0
    assert named(database) == {}


def test_an_archive_of_another_history_is_refused_for_its_leaves(database: Path, tmp_path: Path) -> None:
    """Whole and sound in itself, of as many rows, and not those of this database: it lets none of them go."""
    archive, moment = tmp_path / "a", time_of(database, CUT)
    make_sound(tmp_path / "other.db")
    assert prune(tmp_path / "other.db", time_of(tmp_path / "other.db", CUT), archive).exit_code == 0
    count = rows(database, "SELECT COUNT(*) FROM audit_logs")
    refused = prune(database, moment, archive)
    said = "has another row than the database among its leaves 0 to"
    assert (refused.exit_code, said in refused.output) == (1, True), refused.output
    assert rows(database, "SELECT COUNT(*) FROM audit_logs") == count


def test_nothing_beside_or_at_the_archives_place_is_written_over(database: Path, tmp_path: Path) -> None:
    """Another checkpoint there stops the prune, and a file that comes while it runs does; no row is removed."""
    archive = tmp_path / "a"
    taken = archive.with_name(archive.name + audit_prunes.CHECKPOINT_SUFFIX)
    count = rows(database, "SELECT COUNT(*) FROM audit_logs")
    for text in ("of somebody else\n", ""):
        taken.write_text(text)
        refused = prune(database, time_of(database, CUT), archive)
        assert (refused.exit_code, "nothing is written over it" in refused.output) == (1, True), refused.output
        assert (taken.read_text(), archive.exists()) == (text, False)
    assert rows(database, "SELECT COUNT(*) FROM audit_logs") == count
    taken.unlink()
    archive.write_text("it came meanwhile")
    partial = tmp_path / "partial"
    partial.write_text("rows")
    with pytest.raises(audit_prunes.PruneFailed, match="nothing is written over it"):
        audit_prunes.publish(partial, archive, "note")
    assert archive.read_text() == "it came meanwhile"


def test_rows_that_a_hand_removes_or_puts_back_are_named(database: Path, tmp_path: Path) -> None:
    """The recorded prefix is missing and nothing else; a movement whose row was archived is told from one without."""
    assert prune(database, time_of(database, CUT), tmp_path / "a").exit_code == 0
    assert named(database) == {}
    last = rows(database, "SELECT MAX(id) FROM audit_logs")[0][0]
    for sql, wanted in (
        (f"DELETE FROM audit_logs WHERE id = {CUT}", ["audit_rows"]),
        (f"DELETE FROM audit_logs WHERE id = {last - 1}", ["audit_rows"]),
        ("INSERT INTO audit_logs (id, action) VALUES (3, 'x')", ["audit_rows"]),
        ("UPDATE audit_pruned_steps SET bits = bits - (bits & -bits) WHERE step = 'moved'", ["audit_of_movements"]),
        (
            "INSERT INTO audit_pruned_steps (step, block, nth, bits)"
            " SELECT step, block, 2, bits FROM audit_pruned_steps WHERE step = 'moved'",
            ["audit_of_movements"],
        ),
        ("UPDATE api_keys SET scopes = 'audit:read' WHERE id = 1", ["audit_of_api_keys"]),
        ("UPDATE api_keys SET name = 'somebody else' WHERE id = 1", ["audit_of_api_keys"]),
    ):
        spoilt = Path(shutil.copy(database, tmp_path / "spoilt.db"))
        by_hand(spoilt, sql)
        assert set(wanted) <= set(named(spoilt)), (sql, named(spoilt))


def test_a_step_that_two_archived_rows_tell_stays_wrong(database: Path, tmp_path: Path) -> None:
    """Archiving makes no broken ledger sound."""
    with contextlib.closing(sqlite.connect_writer(database, busy_timeout_ms=0, checkpoints=True)) as connection:
        audit_prunes._remember(connection, [("moved", 1), ("moved", 1), ("moved", 33), ("moved", 1)])
        found = connection.execute("SELECT block, nth, bits FROM audit_pruned_steps ORDER BY 1, 2").fetchall()
        assert found == [(0, 1, 2), (0, 2, 2), (0, 3, 2), (1, 1, 2)]
        audit_prunes._remember(connection, [("moved", 33)])
        told = audit_prunes.sql_of_told("moved", "33")
        assert connection.execute(f"SELECT {told}").fetchone() == (2,)
    assert "audit_of_movements" in named(database)


class _Counting:
    """Kills this process at the Nth step: a statement, or something done to a file."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


class _Killing:
    def __init__(self, connection: sqlite.Connection, counting: _Counting) -> None:
        self._connection, self._counting = connection, counting

    def execute(self, *arguments: Any) -> Any:
        self._counting.step()
        return self._connection.execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        self._counting.step()
        return self._connection.executemany(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def killed_at(number: int, monkeypatch: pytest.MonkeyPatch, database: Path, before: str, archive: Path) -> bool:
    """Runs the command in a forked process that dies at step `number`; whether it did."""
    child = os.fork()
    if child == 0:
        counting, connect = _Counting(number), sqlite.connect_writer

        def connect_killing(*arguments: Any, **options: Any) -> Any:
            return _Killing(connect(*arguments, **options), counting)

        def counted(function: Any) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                counting.step()
                return function(*arguments, **options)

            return call

        sqlite.connect_writer = connect_killing
        os.fsync = counted(os.fsync)
        for name in ("rename", "hardlink_to", "unlink"):
            setattr(Path, name, counted(getattr(Path, name)))
        ran = prune(database, before, archive)
        os._exit(0 if ran.exit_code == 0 else 99)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def outcome(database: Path, archive: Path) -> Any:
    """What must be the same however it came about."""
    tables = {
        name: rows(database, f"SELECT * FROM {name} ORDER BY 1, 2")
        for name in ("audit_pruned_steps", "deposit_transactions", "users")
    }
    recorded = rows(database, "SELECT through_id, first_index, size, root, archive FROM audit_prunes")
    log = rows(database, "SELECT id, action FROM audit_logs ORDER BY id")
    salted = rows(database, "SELECT audit_log_id FROM audit_leaves WHERE salt IS NULL ORDER BY 1")
    files = sorted(path.name for path in archive.parent.iterdir())
    return tables, recorded, log, salted, archive.read_bytes(), files, named(database)


def test_a_prune_that_was_stopped_goes_on_with_its_own_archive_alone(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file, whatever it holds, is refused and nothing is removed; the right one lets it end."""
    moment, archive, other = time_of(database, CUT), tmp_path / "right.ndjson", tmp_path / "other.ndjson"
    before = rows(database, "SELECT COUNT(*) FROM audit_logs")[0][0]

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(audit_prunes, "remove", stopped)
        assert prune(database, moment, archive).exit_code != 0
    other.write_bytes(archive.read_bytes() + b"\n")
    for wrong in (other, tmp_path / "none.ndjson"):
        refused = prune(database, moment, wrong)
        assert (refused.exit_code, "let it end first" in refused.output) == (1, True), refused.output
        assert rows(database, "SELECT COUNT(*) FROM audit_logs")[0][0] == before + 1, "rows were removed"
    assert prune(database, moment, archive).exit_code == 0
    assert rows(database, "SELECT COUNT(*) FROM audit_logs")[0][0] == before + 1 - (CUT - 1)


def test_killed_at_any_step_and_started_again_it_ends_the_same(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before every statement, sync, rename and link. Nothing is removed that is not in a whole archive."""
    for name, value in (("_ROWS_AT_ONCE", 4), ("_REMOVED_AT_ONCE", 3)):
        monkeypatch.setattr(audit_prunes, name, value)
    moment, number, wanted = time_of(database, CUT), 0, None
    all_ids = {row[0] for row in rows(database, "SELECT id FROM audit_logs")}
    while True:
        folder = tmp_path / f"at-{number}"
        copy = Path(shutil.copytree(database.parent, folder / "db")) / "p.db"
        archive = folder / "out" / "archive"
        archive.parent.mkdir()
        was_killed = killed_at(number, monkeypatch, copy, moment, archive)
        there = {row[0] for row in rows(copy, "SELECT id FROM audit_logs")}
        in_archive = {row[1] for row in archived_rows(archive)} if archive.exists() else set()
        assert all_ids - there <= in_archive
        assert named(copy) == {}, number
        if was_killed:
            again = prune(copy, moment, archive)
            assert again.exit_code == 0, (number, again.output)
        found = outcome(copy, archive)
        wanted = wanted or found
        assert found == wanted, number
        shutil.rmtree(folder)
        if not was_killed:
            break
        number += STRIDE
    assert number > 40
