"""Rows that were sealed by an earlier rule are verified, erased, archived and rolled back as they were sealed."""

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from service import resources
from service.ledger.sealing_rules import LATEST
from service.ledger.timestamps import stored, system_clock
from service.storage import migrator, sqlite
from tests.audit import verifiers
from tests.live import CHECKOUT, LiveService, passbook
from tests.printed import stands
from tests.storage.broken import by_hand, named_by_integrity

RULE_1 = CHECKOUT / "tests" / "audit" / "rule_1"
MIGRATIONS = migrator.load(resources.folder("migrations"))
BEFORE_RULES = 13
ADMIN = "pbk_GLeG0M0d"
"""The prefix of the admin's key in these files; the key itself is not kept."""


def rows(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def of_rule_1(database: Path, name: str) -> Path:
    """The database of tests/audit/rule_1 as it stood, at the migration of then."""
    with contextlib.closing(sqlite.connect_writer(database, busy_timeout_ms=0, checkpoints=True)) as connection:
        migrator.up(connection, MIGRATIONS, lambda _: None, to=BEFORE_RULES)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    by_hand(
        database,
        "PRAGMA foreign_keys = OFF; DELETE FROM audit_tree; DELETE FROM schema_migrations; DELETE FROM sqlite_sequence;"
        + (RULE_1 / name).read_text("utf-8")
        + "DELETE FROM sqlite_sequence WHERE rowid NOT IN (SELECT MAX(rowid) FROM sqlite_sequence GROUP BY name);"
        # These three rows were put in by hand then, without what the service writes.
        + "UPDATE bank_notifications SET created_at = '2026-01-19 12:00:00.000',"
        " matched_by = iif(matched_by IS NULL, NULL, 'test');"
        "UPDATE bank_notifications SET depositor_name = NULL, match_name = '' WHERE bank_transaction_id = 'b5';",
    )
    return database


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole ledger at migration 013; not to be changed."""
    return of_rule_1(tmp_path_factory.mktemp("rule_1") / "p.db", "whole.sql")


@pytest.fixture
def database(before: Path, tmp_path: Path) -> Path:
    """A copy, migrated, with rows that this program sealed above those of then."""
    path = Path(shutil.copy(before, tmp_path / "p.db"))
    assert passbook("migrate", "up", "--no-backup", "--database", str(path)).returncode == 0
    assert rows(path, "SELECT DISTINCT rule FROM audit_leaves") == [(1,)]
    written_by_now(path)
    assert rows(path, "SELECT rule FROM audit_leaves ORDER BY leaf_index DESC LIMIT 1") == [(LATEST,)]
    return path


def written_by_now(path: Path) -> None:
    made = passbook("keys", "create", "--name", "now", "--role", "admin", "--database", str(path))
    assert made.returncode == 0, made.stderr
    service = LiveService(path, admin_key=made.stdout.strip()).start()
    try:
        client = service.client()
        client.credit("100", 500)
        event = {"action": "basket_filled", "resource_type": "basket", "telegram_id": "100"}
        posted = client.write("/v1/audit-logs", {**event, "details": {"amount": 1, "note": "x"}})
        assert posted.status_code == 201, posted.text
    finally:
        assert service.stop() == 0


def assert_sound(path: Path) -> None:
    assert named_by_integrity(path) == {}
    verified = passbook("audit", "verify", "--database", str(path))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    whole = passbook("integrity", "--database", str(path))
    assert whole.returncode == 0, whole.stdout + whole.stderr


def test_rows_of_every_rule_are_verified_together(database: Path) -> None:
    """Those of before have the leaves that they had."""
    assert_sound(database)
    leaves = [json.loads(line)["leaf"] for line in (RULE_1 / "log.ndjson").read_text("utf-8").splitlines()[1:]]
    assert [row[0].hex() for row in rows(database, "SELECT hash FROM audit_leaves ORDER BY leaf_index")][
        : len(leaves)
    ] == leaves


def test_rows_of_every_rule_are_erased_by_their_own(database: Path) -> None:
    """Of a row of rule 1 is left what was sealed with it, also where a later rule would leave more or less."""
    erased = passbook("users", "erase", "100", "--force", "--yes", "--database", str(database))
    assert erased.returncode == 0, erased.stdout + erased.stderr
    assert_sound(database)
    left = rows(
        database,
        "SELECT l.rule, a.details FROM audit_logs AS a JOIN audit_leaves AS l ON l.audit_log_id = a.id"
        " WHERE a.action = 'basket_filled' ORDER BY a.id",
    )
    assert left == [
        (1, '{"amount":null,"note":null,"scopes_before":null}'),
        (LATEST, '{"amount":null,"note":null}'),
    ]
    assert {rule for (rule,) in rows(database, "SELECT rule FROM audit_leaves WHERE salt IS NULL")} == {1, LATEST}


def test_rows_of_every_rule_are_archived_in_one_file(database: Path, tmp_path: Path, verify: Any) -> None:
    """And both outside verifiers read it; the leaves that are left without a row keep no rule."""
    archive = tmp_path / "archive.ndjson"
    pruned = passbook(
        *("audit", "prune", "--before", stored(system_clock()).replace(" ", "T") + "Z", "--archive", str(archive)),
        *("--yes", "--database", str(database)),
    )
    assert pruned.returncode == 0, pruned.stdout + pruned.stderr
    rules = {json.loads(line).get("rule", 1) for line in archive.read_text("utf-8").splitlines()[1:]}
    assert rules == {1, LATEST}
    assert rows(database, "SELECT COUNT(*) FROM audit_logs WHERE action <> 'audit_log_pruned'") == [(0,)]
    assert rows(database, "SELECT DISTINCT rule FROM audit_leaves WHERE salt IS NULL") == [(None,)]
    assert_sound(database)
    code, said = verify(archive)
    assert code == 0, said


def test_an_export_of_every_rule_is_verified_outside(database: Path, verify: Any) -> None:
    """By both verifiers; a row under another rule's number is named."""
    written = passbook("audit", "export", "--sealed", "--database", str(database))
    assert written.returncode == 0
    code, said = verify("-", given=written.stdout.encode())
    assert code == 0, said
    lines = written.stdout.splitlines(keepends=True)
    latest = f'"rule":{LATEST}'
    assert stands(latest, lines[-1])
    for given in (
        [*lines[:-1], lines[-1].replace(latest, '"rule":1')],
        [*lines[:-1], lines[-1].replace(latest, f'"rule":{LATEST - 1}')],
        [*lines[:-1], lines[-1].replace(f",{latest}", "")],
        [*lines[:5], lines[5].replace("}\n", ',"rule":2}\n'), *lines[6:]],
    ):
        code, said = verify("-", given="".join(given).encode())
        assert code != 0, said


@pytest.mark.parametrize("name", ["log.ndjson", "archive.ndjson"])
def test_what_was_written_before_there_were_rules_is_verified(name: str, verify: Any) -> None:
    """Exports and archives of then, byte for byte, with the checkpoint of then."""
    key = (RULE_1 / "log.verifier-key").read_text("utf-8").strip()
    code, said = verify(RULE_1 / name, "--key", key, "--checkpoint", RULE_1 / "archive.ndjson.checkpoint")
    assert code == 0, said
    assert "checkpoint" in said


def test_a_log_that_was_pruned_before_there_were_rules_is_sound(tmp_path: Path) -> None:
    """What the leaves of archived rows cannot prove any more goes with the migration: their rule."""
    path = of_rule_1(tmp_path / "p.db", "pruned.sql")
    assert passbook("migrate", "up", "--no-backup", "--database", str(path)).returncode == 0
    assert rows(path, "SELECT rule, COUNT(*) FROM audit_leaves GROUP BY rule ORDER BY rule")[0] == (None, 11)
    written_by_now(path)
    assert_sound(path)
    by_hand(path, "UPDATE audit_leaves SET rule = 2 WHERE leaf_index = 3")
    verified = passbook("audit", "verify", "--database", str(path))
    assert (verified.returncode, "its leaf has a salt, a digest or a rule" in verified.stdout) == (1, True)


def test_a_rule_that_is_changed_by_hand_is_found(database: Path) -> None:
    """The number is in the bytes that are hashed."""
    for change, row in (
        ("UPDATE audit_leaves SET rule = 2 WHERE audit_log_id = 7", "row 7"),
        ("UPDATE audit_leaves SET rule = 2", "row 1"),
        ("UPDATE audit_leaves SET rule = 1", "row 43"),
    ):
        copy = Path(shutil.copy(database, database.with_name("copy.db")))
        by_hand(copy, change)
        verified = passbook("audit", "verify", "--database", str(copy))
        assert (verified.returncode, f"❌ {row}: its leaf is not that of its values" in verified.stdout) == (1, True)


def test_the_rollback_keeps_the_tree_while_all_is_of_the_first_rule(before: Path, tmp_path: Path) -> None:
    """The program of before goes on with it."""
    path = Path(shutil.copy(before, tmp_path / "p.db"))
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        was = connection.execute("SELECT * FROM audit_leaves").fetchall()
        schema = migrator.schema_of(connection)
        migrator.up(connection, MIGRATIONS, lambda _: None)
        migrator.down(connection, MIGRATIONS, lambda _: None, to=BEFORE_RULES)
        assert connection.execute("SELECT * FROM audit_leaves").fetchall() == was
        assert migrator.schema_of(connection) == schema


def test_the_rollback_forgets_a_tree_that_the_program_of_before_could_not_verify(tmp_path: Path) -> None:
    """It then seals all rows anew; where rows are archived or erased that cannot be, and nothing is changed."""
    path = tmp_path / "p.db"
    LiveService(path).start().stop()
    with contextlib.closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        assert connection.execute("SELECT MIN(rule) FROM audit_leaves").fetchone() == (LATEST,)
        migrator.down(connection, MIGRATIONS, lambda _: None, to=BEFORE_RULES)
        assert connection.execute("SELECT COUNT(*) FROM audit_leaves").fetchone() == (0,)
        migrator.up(connection, MIGRATIONS, lambda _: None)
        assert connection.execute("SELECT COUNT(*) = (SELECT COUNT(*) FROM audit_logs) FROM audit_leaves").fetchone()
    assert_sound(path)


def test_the_rollback_stops_where_rows_are_erased_and_others_sealed_since(database: Path) -> None:
    """What is left of an erased row is proved by its leaf alone."""
    with (
        contextlib.closing(sqlite.connect_writer(database, busy_timeout_ms=0, checkpoints=True)) as connection,
        pytest.raises(migrator.MigrationError, match="rollback 018 stopped: rows were archived or erased"),
    ):
        migrator.down(connection, MIGRATIONS, lambda _: None, to=BEFORE_RULES)
    assert rows(database, "SELECT COUNT(*) FROM audit_leaves WHERE rule IS NULL") == [(0,)]
    assert passbook("migrate", "up", "--no-backup", "--database", str(database)).returncode == 0
    assert_sound(database)


@pytest.fixture(params=["verify.py", "verify.mjs"])
def verify(request: pytest.FixtureRequest) -> verifiers.Verifier:
    """Each of the two programs in turn."""
    return verifiers.verifier(request.param)
