"""`passbook check` and `passbook config`: what a start would meet, without a start."""

import contextlib
import json
import os
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.live import LiveService, passbook
from tests.printed import stands


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _check(database: Path, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """The exit code, and of each subject the worst verdict with all that was said of it."""
    arguments = ("--port", _free_port(), *arguments) if "--port" not in arguments else arguments
    done = passbook("check", "--json", "--database", str(database), *arguments, env=env)
    answer = json.loads(done.stdout)
    assert (done.returncode == 0) == answer["would_start"]
    found: dict[str, Any] = {}
    for finding in answer["findings"]:
        before = found.get(finding["subject"], ("ok", ""))
        worst = max(before[0], finding["verdict"], key=["ok", "note", "refused"].index)
        found[finding["subject"]] = (worst, f"{before[1]} {finding['said']}")
    return done.returncode, found


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_a_first_start_would_succeed_and_nothing_is_made(tmp_path: Path) -> None:
    """It says that the database and the key would be made; the folder stays empty."""
    code, found = _check(tmp_path / "deep" / "p.db")
    assert code == 0
    assert found["database"][0] == found["audit key"][0] == "note"
    assert "would be made" in found["database"][1]
    assert list(tmp_path.iterdir()) == []
    said = passbook("check", "--database", str(tmp_path / "p.db"), "--port", _free_port())
    assert "A start would succeed." in said.stdout


def test_a_sound_database_is_said_and_left_as_it_is(own_service: LiveService, tmp_path: Path) -> None:
    """Schema, key, last checkpoint: all ok; no byte and no time of a file changes."""
    own_service.start()
    client = own_service.client()
    client.credit("1", 100)
    client.get("/v1/audit-logs/checkpoint").raise_for_status()
    assert own_service.stop() == 0
    before = _files(tmp_path)
    code, found = _check(own_service.database)
    assert (code, {subject: verdict for subject, (verdict, _) in found.items()}) == (0, dict.fromkeys(found, "ok"))
    assert "continues the last checkpoint" in found["audit key"][1]
    assert _files(tmp_path) == before


def test_an_audit_key_is_told_with_what_was_signed(own_service: LiveService) -> None:
    """Nothing yet; then so many rows, which a start refuses where the database is gone."""
    own_service.start()
    assert own_service.stop() == 0
    code, found = _check(own_service.database)
    assert (code, found["audit key"][0]) == (0, "note")
    assert "No checkpoint was signed with it yet." in found["audit key"][1]
    own_service.start()
    size = int(own_service.client().get("/v1/audit-logs/checkpoint").text.splitlines()[1])
    assert own_service.stop() == 0
    own_service.database.rename(own_service.database.with_name("elsewhere.db"))
    code, found = _check(own_service.database)
    assert (code, found["audit key"][0]) == (1, "refused")
    assert f"A checkpoint of {size} rows was signed, and there is no database." in found["audit key"][1]


def test_an_interrupted_transaction_is_told_and_left(own_service: LiveService) -> None:
    """A rollback journal beside the database is undone by a start; who only looks may not do that."""
    own_service.start()
    own_service.client().get("/v1/audit-logs/checkpoint").raise_for_status()
    assert own_service.stop() == 0
    journal = own_service.database.with_name(f"{own_service.database.name}-journal")
    journal.write_bytes(b"x" * 512)
    before = _files(own_service.database.parent)
    code, found = _check(own_service.database)
    assert (code, found["database"][0]) == (0, "note")
    assert "was interrupted within a transaction, which would be undone before all else." in found["database"][1]
    assert _files(own_service.database.parent) == before


def test_a_running_service_is_told_and_not_disturbed(own_service: LiveService) -> None:
    """The lock and the port are its; it goes on."""
    own_service.start()
    client = own_service.client()
    client.credit("1", 100)
    code, found = _check(own_service.database, "--port", own_service.url.rpartition(":")[2])
    assert (code, found["lock"][0], found["port"][0]) == (1, "refused", "refused")
    assert str(own_service.process.pid) in found["lock"][1]  # type: ignore[union-attr]
    assert found["database"][0] == "ok"
    assert client.credit("1", 100)["balance_after"] == 200
    assert own_service.stop() == 0


def test_a_killed_service_leaves_nothing_in_the_way(own_service: LiveService) -> None:
    """The write-ahead log is there, the lock file too; a start would succeed, and does."""
    own_service.start()
    own_service.client().credit("1", 100)
    own_service.kill()
    assert _check(own_service.database)[0] == 0
    own_service.start()
    assert own_service.client().get("/v1/users/1/balance").json()["balance"] == 100


def test_every_wrong_setting_is_named_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    """PASSBOOK_ and OTEL_ variables and flags alike."""
    environment = {"PASSBOOK_READERS": "0", "PASSBOOK_PROT": "1", "OTEL_TRACES_EXPORTER": "zipkin"}
    code, found = _check(tmp_path / "p.db", "--port", "70000", env=environment)
    assert (code, found["settings"][0]) == (1, "refused")
    for name in (
        "PASSBOOK_READERS='0'",
        "PASSBOOK_PROT is no setting",
        "OTEL_TRACES_EXPORTER='zipkin'",
        "PASSBOOK_PORT=70000",
    ):
        assert name in found["settings"][1]
    refused = passbook("serve", "--port", "70000", "--database", str(tmp_path / "p.db"))
    assert (refused.returncode, stands("PASSBOOK_PORT=70000", refused.stderr)) == (1, True)


def _old_schema(database: Path) -> None:
    passbook("migrate", "up", "--to", "1", "--database", str(database))


def _foreign(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
        connection.commit()


def _rubbish(database: Path) -> None:
    database.write_bytes(b"no database" * 500)


@pytest.mark.parametrize("make", [_old_schema, _foreign, _rubbish])
def test_a_database_that_serve_refuses_is_refused(tmp_path: Path, make: Any) -> None:
    """Check and serve agree, and say the same."""
    database = tmp_path / "p.db"
    make(database)
    code, found = _check(database)
    assert (code, found["database"][0]) == (1, "refused")
    refused = passbook("serve", "--port", "0", "--database", str(database))
    assert refused.returncode == 1
    assert found["database"][1].strip() in refused.stderr


def test_a_log_that_contradicts_its_checkpoint_is_refused(own_service: LiveService, tmp_path: Path) -> None:
    """An older copy put back: check and serve refuse it."""
    own_service.start()
    client = own_service.client()
    assert passbook("backup", "--to", str(tmp_path / "old.db"), "--database", str(own_service.database)).returncode == 0
    client.credit("1", 100)
    client.get("/v1/audit-logs/checkpoint").raise_for_status()
    assert own_service.stop() == 0
    os.replace(tmp_path / "old.db", own_service.database)
    code, found = _check(own_service.database)
    assert (code, found["audit key"][0]) == (1, "refused")
    assert "when its last checkpoint was signed" in found["audit key"][1]
    refused = passbook("serve", "--port", "0", "--database", str(own_service.database))
    assert (refused.returncode, "is not the one that was signed" in refused.stderr) == (1, True)


def test_a_key_that_others_may_read_is_noted(own_service: LiveService) -> None:
    """It starts all the same."""
    own_service.start().stop()
    key = own_service.database.with_name("passbook.db.audit-key")
    key.chmod(0o644)
    code, found = _check(own_service.database)
    assert (code, found["audit key"][0]) == (0, "note")
    assert stands("chmod 600", found["audit key"][1])


def test_config_shows_what_is_set() -> None:
    """Every variable with its value and where that comes from; a wrong one is exit code 1 by name."""
    shown = passbook("config", env={"PASSBOOK_READERS": "3", "PASSBOOK_ACCESS_LOG": "1"})
    assert "PASSBOOK_READERS=3  (environment)" in shown.stdout
    assert "PASSBOOK_ACCESS_LOG=true  (environment)" in shown.stdout
    assert "PASSBOOK_PORT=8000  (default)" in shown.stdout
    wrong = passbook("config", env={"PASSBOOK_READERS": "many"})
    assert (wrong.returncode, "PASSBOOK_READERS='many'" in wrong.stderr) == (1, True)


def test_a_table_that_is_out_of_ids_is_told_before_writes_fail(own_service: LiveService) -> None:
    """By check and by integrity, with the statement that puts it right; then writes go on."""
    own_service.start()
    own_service.client().credit("1", 100)
    assert own_service.stop() == 0
    with contextlib.closing(sqlite3.connect(own_service.database)) as hand, hand:
        hand.execute("UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'audit_logs'")
    code, found = _check(own_service.database)
    assert (code, found["database"][0]) == (0, "note")
    assert "Writes would be answered 503 storage_full: audit_logs can take no more rows" in found["database"][1]
    proved = passbook("integrity", "--database", str(own_service.database))
    assert proved.returncode == 1
    assert "audit_logs can take no more rows" in proved.stdout
    with contextlib.closing(sqlite3.connect(own_service.database)) as hand, hand:
        hand.execute(found["database"][1].partition("service stopped: ")[2].rstrip("."))
    assert _check(own_service.database)[1]["database"][0] == "ok"
    assert passbook("integrity", "--database", str(own_service.database)).returncode == 0
    own_service.start()
    own_service.client().credit("1", 100)
    assert own_service.stop() == 0


@pytest.mark.parametrize(("expiry_s", "warns"), [("86399", True), ("86400", False), ("86401", False)])
def test_an_expiry_shorter_than_the_match_window_is_warned_of(tmp_path: Path, expiry_s: str, warns: bool) -> None:
    """Money that comes between the two waits for a person; a start goes on."""
    env = {"PASSBOOK_DEPOSIT_EXPIRY_S": expiry_s, "PASSBOOK_MATCH_WINDOW_S": "86400"}
    code, found = _check(tmp_path / "p.db", env=env)
    verdict, said = found["settings"]
    assert (code, verdict) == (0, "note" if warns else "ok")
    assert ("Deposits expire after 86,399 s (PASSBOOK_DEPOSIT_EXPIRY_S)" in said) is warns
