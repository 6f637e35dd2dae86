"""The proof: sound for everything that the service does, and every break named by its row."""

import asyncio
import contextlib
import json
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from litestar import Litestar

from service import resources
from service.app import create_app
from service.cli import main
from service.config import Config
from service.ledger.integrity import DESCRIPTIONS, EXAMPLES_MAX, IntegrityReport, IntegrityStatus
from service.ledger.timestamps import system_clock
from service.storage import integrity, migrator, sqlite
from service.storage.integrity import PASSES, Proof
from tests.contents import contents
from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService, passbook
from tests.some import some
from tests.storage.broken import MUTANTS, by_hand, expected, make_sound, rows_and_leaves_apart
from tests.storage.test_importer import make_bots_file, take_over

MIGRATIONS = migrator.load(resources.folder("migrations"))
DEADLINE_S = 120


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int], str]:
    """A sound database, ids in it by name, and an admin's key; not to be changed."""
    database = tmp_path_factory.mktemp("sound") / "passbook.db"
    return database, *make_sound(database)


@pytest.fixture
def sound(made: tuple[Path, dict[str, int], str], tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copy(made[0], tmp_path / "passbook.db"))


def prove(database: Path, *, quick: bool = False) -> IntegrityReport:
    """A whole run."""
    connection = sqlite.connect_reader(database, busy_timeout_ms=5000)
    try:
        proof = Proof(MIGRATIONS, system_clock, quick=quick)
        proof.run(connection)
        return proof.report()
    finally:
        connection.close()


def by_command(database: Path, *arguments: str) -> tuple[int, Any]:
    """Exit code and report of the command line."""
    ran = CliRunner().invoke(main, ["integrity", "--json", "--database", str(database), *arguments])
    return ran.exit_code, json.loads(ran.stdout) if ran.stdout else ran.stderr


def by_api(database: Path, key: str) -> Any:
    """The answer of a service that has just started."""

    async def ask() -> Any:
        app = create_app(Config(database=str(database)))
        async with app.lifespan(), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            answer = await client.get("/v1/integrity", headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == 200, answer.text
            return answer.json()

    return asyncio.run(ask())


def found(checks: list[dict[str, Any]]) -> dict[str, list[tuple[object, ...]]]:
    """Check -> the rows that it names."""
    columns = ("telegram_id", "transaction_id", "table", "row_id")
    return {
        check["name"]: [tuple(example[column] for column in columns) for example in check["examples"]]
        for check in checks
        if check["failed"]
    }


def test_everything_that_the_service_does_is_sound(made: tuple[Path, dict[str, int], str]) -> None:
    """One of each write, and rows of the bot's: every check saw some rows and none failed."""
    report = prove(made[0])
    assert (report.status, report.reason) == (IntegrityStatus.SOUND, None), found_in(report)
    assert [check.name for check in report.checks] == list(DESCRIPTIONS)
    assert all(check.checked > 0 for check in some(report.checks) if check.name != "taken_over"), report
    assert (report.checked, report.finished_at is not None) == (report.total, True)
    assert broken_invariants(made[0]) == []


def found_in(report: IntegrityReport) -> list[Any]:
    """The checks that failed."""
    return [check for check in report.checks if check.failed]


def log_of(database: Path) -> list[object]:
    """The rows of the audit log."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT * FROM audit_logs ORDER BY id").fetchall()


@pytest.mark.parametrize("name", MUTANTS)
def test_what_a_hand_broke_is_named(sound: Path, made: tuple[Path, dict[str, int], str], name: str) -> None:
    """Exactly the checks that it breaks name exactly its rows: by the command, with exit code 1, and by the API.

    Whatever it did to the audit log, the chain tells as well.
    """
    _, ids, key = made
    mutant, logged = MUTANTS[name], log_of(sound)
    by_hand(sound, re.sub(r"\{(\w+)\}", lambda at: str(ids[at[1]]), mutant.sql))
    code, report = by_command(sound)
    assert code == 1
    apart = rows_and_leaves_apart(sound)
    wanted = {**expected(mutant, ids), **({"audit_rows": apart} if apart else {})}
    named = found(report["checks"])
    assert ("audit_chain" in named) == (log_of(sound) != logged)
    named.pop("audit_chain", None)
    assert named == wanted, [c for c in report["checks"] if c["failed"]]
    assert report["status"] == "broken"
    assert all(example["said"] for example in some(one for check in report["checks"] for one in check["examples"]))
    if "schema" in wanted:  # no service starts on it
        refused = passbook("serve", "--port", "0", "--database", str(sound))
        assert (refused.returncode, "The schema is not what the migrations make" in refused.stderr) == (1, True)
        return
    answered = by_api(sound, key)
    assert answered["checks"] == report["checks"]
    assert answered["status"] == "broken"
    assert answered.keys() == report.keys()


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.shared])
def test_the_other_oracle_sees_it_too(sound: Path, made: tuple[Path, dict[str, int], str], name: str) -> None:
    """tests/ledger_check.py, which shares nothing with the service, finds what the two have in common."""
    by_hand(sound, re.sub(r"\{(\w+)\}", lambda at: str(made[1][at[1]]), MUTANTS[name].sql))
    assert broken_invariants(sound)


def test_a_guard_taken_away_for_good_is_named(sound: Path) -> None:
    """A trigger that is not there, one that is not as it was, and one that nobody knows."""
    with sqlite3.connect(sound) as hand:
        hand.execute("DROP TRIGGER users_refuse_delete")
        hand.execute("DROP TRIGGER audit_logs_refuse_delete")
        hand.execute("CREATE TRIGGER audit_logs_refuse_delete BEFORE DELETE ON audit_logs BEGIN SELECT 1; END")
        hand.execute("CREATE TRIGGER hidden AFTER INSERT ON users BEGIN SELECT 1; END")
    hand.close()
    (check,) = found_in(prove(sound))
    assert check.name == "schema"
    assert {example.said for example in check.examples} == {
        "The trigger users_refuse_delete is not there.",
        "The trigger audit_logs_refuse_delete is not as it was made.",
        "The trigger hidden on users is of no migration.",
    }


def test_a_damaged_page_is_found_unless_quick(sound: Path) -> None:
    """A page of an index that no other check reads."""
    with sqlite3.connect(sound) as reader:
        page = reader.execute("SELECT rootpage FROM sqlite_master WHERE name = 'idx_transactions_match'").fetchone()[0]
        size = reader.execute("PRAGMA page_size").fetchone()[0]
    reader.close()
    with sound.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    assert [check.name for check in found_in(prove(sound))] == ["file"]
    assert prove(sound, quick=True).status == IntegrityStatus.SOUND


def test_a_proof_that_is_not_carried_through_ends_with_2(sound: Path) -> None:
    """Each table in turn cannot be read: the exit code is what the report says, and never that of a sound ledger."""
    with contextlib.closing(sqlite3.connect(sound)) as reader:
        tables = reader.execute(
            "SELECT name, rootpage FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*' ORDER BY name"
        ).fetchall()
        (size,) = reader.execute("PRAGMA page_size").fetchone()
    whole = sound.read_bytes()
    seen = set()
    for table, page in some(tables):
        start = (page - 1) * size
        sound.write_bytes(whole[:start] + b"\xff" * size + whole[start + size :])
        ran = CliRunner().invoke(main, ["integrity", "--quick", "--json", "--database", str(sound)])
        status = json.loads(ran.stdout)["status"] if ran.stdout else "not begun"
        wanted = {"not begun": 2, "unfinished": 2, "broken": 1, "sound": 0}[status]
        assert ran.exit_code == wanted, f"without {table} the proof is {status} and ends with {ran.exit_code}"
        assert ("cannot be checked. " in ran.stderr) == (status == "unfinished")
        seen.add(status)
    assert "unfinished" in seen


@pytest.mark.parametrize("through", [0, 1])
def test_imported_databases_are_sound(tmp_path: Path, through: int) -> None:
    """What the bot left, with rows without versions and opening entries."""
    take_over(make_bots_file(tmp_path / "bots.sqlite", through=through), tmp_path / "p.db")
    report = prove(tmp_path / "p.db")
    assert report.status == IntegrityStatus.SOUND, found_in(report)


def test_examples_are_bounded_and_failures_are_counted(sound: Path) -> None:
    """However many rows are wrong, five are told."""
    by_hand(
        sound,
        "INSERT INTO audit_logs (action, resource_type, resource_id, actor) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL"
        " SELECT i + 1 FROM n WHERE i < 300) SELECT 'balance_debited', 'deposit_transaction', 900000 + i, 'x' FROM n",
    )
    checks = [(check.name, check.failed, len(check.examples)) for check in found_in(prove(sound))]
    assert checks == [
        ("audit_of_movements", 300, EXAMPLES_MAX),
        ("audit_rows", 300, EXAMPLES_MAX),
        ("audit_chain", 1, 1),
    ]


def test_chunks_of_any_size_find_the_same(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of one row misses nothing and counts nothing twice, whatever gaps the ids have."""
    by_hand(
        sound, "UPDATE deposit_transactions SET amount = amount + 1; UPDATE users SET id = 10000000000 WHERE id = 1"
    )
    whole = prove(sound)
    monkeypatch.setattr(integrity, "_CHUNK_FIRST", 1)
    monkeypatch.setattr(integrity, "_CHUNK_MAX", 1)
    in_pieces = prove(sound)
    seen = [[(check.name, check.checked, check.failed) for check in report.checks] for report in (in_pieces, whole)]
    assert seen[0] == seen[1]
    assert (in_pieces.checked, len(found_in(whole)) > 3) == (whole.checked, True)


OF_NO_TABLE = ("SCAN chain", "SCAN bits", "SCAN b")
"""A chain of reversals, and the numbers of the bits of a block."""


@pytest.mark.parametrize("each", PASSES, ids=lambda each: each.table)
def test_every_statement_is_answered_from_indexes(sound: Path, each: Any) -> None:
    """No table is read whole for a chunk, and nothing is sorted."""
    connection = sqlite.connect_reader(sound, busy_timeout_ms=5000)
    for sql in (each.counts, *(statement.sql for statement in each.statements)):
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", {"low": 1, "high": 2})]
        assert plan
        of_tables = [step for step in plan if step not in {"SCAN CONSTANT ROW", *OF_NO_TABLE}]
        assert not [step for step in of_tables if step.startswith("SCAN") or "TEMP B-TREE" in step], (sql, plan)
        # These have few keys for many rows.
        few = "idx_(audit_logs_(action|actor|resource_type|telegram_id)|transactions_(status|type))"
        assert not [step for step in plan if re.search(few, step)], sql
    connection.close()


def test_stop_ends_a_run_at_once(sound: Path) -> None:
    """It counts as unfinished and says why; what it saw stays in the report."""
    connection = sqlite.connect_reader(sound, busy_timeout_ms=5000)
    proof = Proof(MIGRATIONS, system_clock)
    proof.run(connection, proof.stop)
    connection.close()
    report = proof.report()
    assert (report.status, report.reason) == (IntegrityStatus.UNFINISHED, "It was stopped.")
    assert 0 < report.checked < report.total


def _keep_writing(client: Client, until: threading.Event, user: str, failures: list[str]) -> None:
    def posted(path: str, body: Any = None) -> Any:
        answer = client.write(path, body)
        if answer.status_code >= 300:
            failures.append(answer.text)
        return answer.json()

    number = 0
    while not until.is_set():
        number += 1
        deposit = client.credit(user, 5000)["id"]
        held = posted(
            "/v1/domain-purchases",
            {"telegram_id": user, "domain": f"n{number}-{user}.kr", "price": 100, "hold": True},
        )
        posted(f"/v1/domain-purchases/{held['id']}/{'release' if number % 2 else 'complete'}")
        posted("/v1/debits", {"telegram_id": user, "amount": 10, "reason": "x"})
        announced = posted("/v1/deposits", {"telegram_id": f"{user}{number}", "amount": 7, "depositor_name": "y"})
        posted(f"/v1/deposits/{announced['id']}/cancel", {})
        if number % 3 == 0:
            client.write(f"/v1/transactions/{deposit}/reverse", {})


def test_writes_beside_it_give_no_false_alarm(own_service: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load, in the smallest chunks, every run is sound: by its own connection, and by the service itself."""
    monkeypatch.setattr(integrity, "_CHUNK_FIRST", 4)
    monkeypatch.setattr(integrity, "_CHUNK_MAX", 8)
    own_service.start()
    failures: list[str] = []
    until = threading.Event()
    writers = [
        threading.Thread(target=_keep_writing, args=(own_service.client(), until, f"50{number}", failures))
        for number in range(4)
    ]
    for writer in writers:
        writer.start()
    try:
        client = own_service.client()
        seen = []
        for _ in range(12):
            report = prove(own_service.database, quick=True)
            assert report.status == IntegrityStatus.SOUND, found_in(report)
            answer = client.get("/v1/integrity?max_age=PT0S").json()
            assert answer["status"] == "sound", answer
            seen.append(report.checked)
    finally:
        until.set()
        for writer in writers:
            writer.join()
    assert seen[-1] > seen[0] + 100, "there was no load"
    assert not failures
    assert own_service.stop() == 0
    assert broken_invariants(own_service.database) == []


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (id INTEGER)")
    other.close()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_truncated, "malformed"),
        (_foreign, "passbook import"),
        (lambda path: path.write_bytes(b"no database at all, only text, again and again " * 50), "not a database"),
        (lambda path: path.write_bytes(b""), "Run: passbook migrate up"),
        (Path.unlink, "There is no database"),
    ],
    ids=["truncated", "foreign", "text", "empty", "missing"],
)
def test_what_cannot_be_checked_is_said_and_left_alone(sound: Path, spoil: Callable[[Path], Any], said: str) -> None:
    """One sentence, exit code 2, and the file, or that there is none, stays as it was."""
    spoil(sound)
    before = sound.read_bytes() if sound.exists() else None
    ran = CliRunner().invoke(main, ["integrity", "--database", str(sound)])
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert (sound.read_bytes() if sound.exists() else None) == before


TABLES_OF_THE_LOG = {"audit_logs", "audit_leaves"}


@pytest.mark.parametrize("name", ["users", "deposit_transactions", "idx_audit_logs_actor", *sorted(TABLES_OF_THE_LOG)])
def test_a_page_that_cannot_be_read_leaves_every_proof_without_a_verdict(sound: Path, name: str) -> None:
    """Exit code 2 of integrity, and of audit verify where the page is the log's; a backup that must prove ends with 1.

    None of them says that it is whole, and no backup is there.
    """
    with contextlib.closing(sqlite3.connect(sound)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
    with sound.open("r+b") as file:
        file.seek((root - 1) * page)
        file.write(b"\x99" * page)
    database, copy = ("--database", str(sound)), sound.with_name("copy.db")
    for arguments in (["integrity"], ["integrity", "--quick"]):
        ran = CliRunner().invoke(main, [*arguments, *database])
        assert (ran.exit_code, "It adds up" in ran.stdout) == (2, False), ran.output
        assert "cannot be checked. The database answered: " in ran.stderr
    if name in TABLES_OF_THE_LOG:
        ran = CliRunner().invoke(main, ["audit", "verify", *database])
        assert (ran.exit_code, "Nobody changed" in ran.stdout) == (2, False), ran.output
    ran = CliRunner().invoke(main, ["backup", *database, "--to", str(copy)])
    assert (ran.exit_code, copy.exists()) == (1, False), ran.output


def test_the_command_says_plainly_what_it_found(sound: Path, made: tuple[Path, dict[str, int], str]) -> None:
    """A line a check; a failure names user, transaction and row; nothing is written."""
    before = contents(sound)
    ran = CliRunner().invoke(main, ["integrity", "--database", str(sound)])
    assert ran.exit_code == 0, ran.output
    assert re.search(r"^ok +balances +6 checked$", ran.stdout, re.MULTILINE), ran.stdout
    assert "It adds up" in ran.stdout
    assert "\x1b" not in ran.output
    assert contents(sound) == before
    debit = made[1]["debit"]
    by_hand(sound, f"UPDATE deposit_transactions SET amount = amount + 1 WHERE id = {debit}")
    ran = CliRunner().invoke(main, ["integrity", "--quick", "--database", str(sound)])
    assert ran.exit_code == 1
    assert re.search(r"^BROKEN +versions +\d+ checked, 1 failed$", ran.stdout, re.MULTILINE), ran.stdout
    assert f"user 100, transaction {debit}, deposit_transactions {debit}: It moved 10000 by -3001" in ran.stdout
    assert "It does not add up" in ran.stdout
    assert " file " not in ran.stdout


def test_a_young_run_is_answered_from_memory(sound: Path, made: tuple[Path, dict[str, int], str]) -> None:
    """max_age: until the last run is older, it is the answer; PT0S asks anew. One run serves all who ask at once."""
    database, _, key = sound, *made[1:]
    now = [system_clock()]
    headers = {"Authorization": f"Bearer {key}"}

    async def ask() -> None:
        app = create_app(Config(database=str(database)), clock=lambda: now[0])
        async with app.lifespan(), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:

            async def get(query: str = "") -> Any:
                return (await client.get(f"/v1/integrity{query}", headers=headers)).json()

            first = await get()
            now[0] += timedelta(minutes=59)
            assert await get() == first
            assert await get("?max_age=P1D") == first
            now[0] += timedelta(minutes=2)
            second, third = await asyncio.gather(get(), get())
            assert second == third
            assert second["started_at"] > first["started_at"]
            now[0] += timedelta(seconds=1)
            assert (await get("?max_age=PT0S"))["started_at"] > second["started_at"]
            now[0] -= timedelta(days=1)
            back = await get("?max_age=PT0S")
            assert back["started_at"] < first["started_at"]  # a clock that was set back makes no run young for a day
            for bad in ("P", "PT", "1h", ""):
                refused = await client.get("/v1/integrity", params={"max_age": bad}, headers=headers)
                assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "query/max_age")

    asyncio.run(ask())


def test_a_long_run_is_told_as_running(
    sound: Path, made: tuple[Path, dict[str, int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked before it is done: running, how far it is, and the last finished one; stopping ends it at once."""
    go_on, began = threading.Event(), threading.Event()
    check_chunk = Proof._check_chunk

    def slowly(self: Proof, *arguments: Any) -> None:
        check_chunk(self, *arguments)
        began.set()
        go_on.wait()

    headers = {"Authorization": f"Bearer {made[2]}"}

    async def ask(app: Litestar, client: httpx.AsyncClient) -> None:
        async def get(query: str = "", *, wait_s: float = DEADLINE_S) -> Any:
            monkeypatch.setattr("service.api.integrity.WAIT_S", wait_s)
            answer = await client.get(f"/v1/integrity{query}", headers=headers)
            assert answer.status_code == 200
            return answer.json()

        finished = await get()
        assert finished["status"] == "sound"
        monkeypatch.setattr(Proof, "_check_chunk", slowly)
        await get("?max_age=PT0S", wait_s=0)
        assert await asyncio.to_thread(began.wait, DEADLINE_S)
        running = await get("?max_age=PT0S", wait_s=0)
        assert (running["status"], running["previous"]) == ("running", finished)
        assert (running["finished_at"], running["duration_ms"], running["reason"]) == (None, None, None)
        assert 0 < running["checked"] < running["total"]
        assert (await get("?max_age=PT0S", wait_s=0))["started_at"] == running["started_at"]
        assert (await get()) == finished, "the last one is young enough"
        go_on.set()
        assert (await get("?max_age=PT0S"))["status"] == "sound"
        began.clear()
        go_on.clear()
        waiting = asyncio.ensure_future(get("?max_age=PT0S"))
        assert await asyncio.to_thread(began.wait, DEADLINE_S)
        app.state["passbook"].proofs.stop()
        go_on.set()
        stopped = await waiting
        assert (stopped["status"], stopped["reason"]) == ("unfinished", "It was stopped.")
        assert (await get("?max_age=PT0S"))["reason"] == "The service is stopping."

    async def serve() -> None:
        app = create_app(Config(database=str(sound)))
        async with app.lifespan(), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            try:
                await ask(app, client)
            finally:
                go_on.set()  # the end of the service waits for the proof

    asyncio.run(serve())
