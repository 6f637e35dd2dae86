"""passbook users erase: what goes, what stays, and that all that was right is right afterwards."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service import resources
from service.cli import main
from service.ledger.audit_chain import read_receipt
from service.repository import erasures as door
from service.storage import audit_chain, erasures, migrator, sqlite
from service.storage.progress import quiet
from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService, passbook
from tests.repository.house import make_database, opened
from tests.rows import all_rows
from tests.some import some
from tests.storage.broken import NOW, by_hand
from tests.storage.broken import named_by_integrity as named
from tests.storage.test_importer import make_bots_file, take_over
from tests.test_cli_audit_prune import archived_rows, prune, unsound

USER = "86753099"
SECRETS = ("갑을병정무기", "secret_username", "비밀스러운이유", "비밀메시지", "비밀메모", USER)
"""Everything personal that is told of the user."""
NAME, USERNAME, REASON, MESSAGE, NOTE, _ = SECRETS


class Told:
    """What was asked for, and answered: (path, body, key) and the answer of each write."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.asked: list[tuple[str, Any, str, Any]] = []

    def write(self, path: str, body: Any, status: int) -> Any:
        key = f"key-{len(self.asked)}"
        answer = self.client.write(path, body, key=key)
        assert answer.status_code == status, answer.text
        self.asked.append((path, body, key, answer))
        return answer.json()


def live_through(client: Client) -> Told:
    """One of everything about the user, and some about others; nothing is left open."""
    told = Told(client)
    now = datetime.now(UTC).isoformat()
    told.write("/v1/users", {"telegram_id": USER, "username": USERNAME}, 201)
    announced = told.write("/v1/deposits", {"telegram_id": USER, "amount": 5000, "depositor_name": NAME}, 201)
    told.write(f"/v1/deposits/{announced['id']}/confirm", {"note": NOTE}, 200)
    told.write(f"/v1/deposits/{announced['id']}/confirm", {"note": NOTE}, 409)
    line = {"depositor_name": NAME, "amount": 7000, "occurred_at": now, "raw_message": MESSAGE}
    early = told.write("/v1/bank-notifications", {"bank_transaction_id": "B-1", **line}, 201)
    assert early["status"] == "unmatched"
    told.write("/v1/deposits", {"telegram_id": USER, "amount": 7000, "depositor_name": NAME}, 201)
    told.write("/v1/bank-notifications", {"bank_transaction_id": "B-1", **line}, 200)
    told.write("/v1/bank-notifications", {"bank_transaction_id": "B-1", **line, "amount": 8000}, 409)
    waiting = told.write("/v1/deposits", {"telegram_id": USER, "amount": 900, "depositor_name": NAME}, 201)
    told.write(f"/v1/deposits/{waiting['id']}/cancel", {"note": NOTE}, 200)
    told.write("/v1/debits", {"telegram_id": USER, "amount": 10**9, "reason": REASON}, 409)
    told.write("/v1/debits", {"telegram_id": USER, "amount": 1000, "reason": REASON, "reference": "order-1"}, 201)
    changes = [
        {"telegram_id": USER, "amount": 10, "reason": REASON, "reference": "r1"},
        {"telegram_id": "555", "amount": 20, "reason": "bonus", "reference": "r2"},
    ]
    told.write("/v1/balance-changes", {"changes": changes}, 200)
    for name, hold, verb in (("a", False, ""), ("b", True, "complete"), ("c", True, "release")):
        bought = told.write(
            "/v1/domain-purchases", {"telegram_id": USER, "domain": f"{name}.kr", "price": 1000, "hold": hold}, 201
        )
        if verb:
            told.write(f"/v1/domain-purchases/{bought['id']}/{verb}", {"note": NOTE}, 200)
    taken = told.write("/v1/debits", {"telegram_id": USER, "amount": 10, "reason": REASON}, 201)
    told.write(f"/v1/transactions/{taken['id']}/reverse", {"note": NOTE}, 201)
    balance = client.get(f"/v1/users/{USER}/balance").json()["balance"]
    told.write("/v1/debits", {"telegram_id": USER, "amount": balance, "reason": REASON}, 201)
    told.write("/v1/audit-logs", {"action": "seen", "telegram_id": USER, "details": {"name": NAME}}, 201)
    told.write("/v1/deposits", {"telegram_id": "555", "amount": 1234, "depositor_name": "다른사람"}, 201)
    return told


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with such a database, and an admin's key; not to be changed."""
    folder = tmp_path_factory.mktemp("lived")
    service = LiveService(folder / "p.db").start()
    live_through(service.client())
    key = service.admin_key
    assert service.stop() == 0, service.said
    return folder, key


@pytest.fixture
def database(lived: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy."""
    return Path(shutil.copytree(lived[0], tmp_path / "copy")) / "p.db"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[LiveService]:
    """A service with a new database."""
    service = LiveService(tmp_path / "live" / "p.db").start()
    try:
        yield service
    finally:
        if service.process is not None:
            service.kill()


def erase(database: Path, *more: str, user: str = USER) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(main, ["users", "erase", user, "--database", str(database), *(more or ["--yes"])])


def rows(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def left_in(database: Path) -> list[str]:
    """The secrets in any row of any table."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        text = "\n".join(connection.iterdump())
        blobs = b"".join(row[0] for row in connection.execute("SELECT body FROM idempotency_answers"))
    return [secret for secret in SECRETS if secret in text or secret.encode() in blobs]


def left_in_files(database: Path) -> list[str]:
    """The secrets anywhere in the bytes of the database and its log."""
    held = b"".join(path.read_bytes() for path in (database, *sqlite.side_files(database)) if path.exists())
    return [secret for secret in SECRETS if secret.encode() in held]


def test_beside_a_running_service_the_person_is_gone_and_the_ledger_is_whole(running: LiveService) -> None:
    """Old names answer 404, the pseudonym explains its balance, retries of old keys are not carried out."""
    database, client = running.database, running.client()
    told = live_through(client)
    before = client.get(f"/v1/users/{USER}/balance/explain").json()
    log = client.get("/v1/audit-logs", params={"limit": 1000}).json()["items"]
    assert left_in(database) == list(SECRETS)

    ran = passbook("users", "erase", USER, "--database", str(database), "--yes")
    assert ran.returncode == 0, ran.stderr
    ((user_id,),) = rows(database, "SELECT user_id FROM user_erasures WHERE finished_at IS NOT NULL")
    name = f"erased-{user_id}"
    assert name in ran.stdout
    assert left_in(database) == []
    assert rows(database, f"SELECT username, telegram_id FROM users WHERE id = {user_id}") == [(None, name)]

    for path in ("", "/balance", "/balance/explain", "/transactions"):
        assert client.get(f"/v1/users/{USER}{path}").status_code == 404
        assert client.get(f"/v1/users/{name}{path}").status_code == 200
    again = client.get(f"/v1/users/{name}/balance/explain").json()
    assert (again["proved"], again["balance"], again["count"]) == (True, 0, before["count"])
    for was, item in some(zip(before["items"], again["items"], strict=True)):
        assert {**was, "description": None, "depositor_name": None, "bank_notification": None} == {
            **item,
            "description": None,
            "depositor_name": None,
            "bank_notification": None,
        }
        assert item["depositor_name"] is None
        assert item["description"] == (was["description"] if was["domain"] else None)
        if was["bank_notification"]:
            assert item["bank_notification"] == {**was["bank_notification"], "depositor_name": None}

    now = {row["id"]: row for row in client.get("/v1/audit-logs", params={"limit": 1000}).json()["items"]}
    newest = max(now)
    assert now[newest]["action"] == "user_erased"
    assert now[newest]["telegram_id"] == name
    for was in some(log):
        if was["telegram_id"] == USER:
            assert now[was["id"]]["telegram_id"] is None
            assert now[was["id"]]["details"].keys() == was["details"].keys()
            kept = {k: v for k, v in now[was["id"]]["details"].items() if v is not None and not isinstance(v, list)}
            assert kept == {member: was["details"][member] for member in kept}
        elif was["resource_type"] != "bank_notification":
            assert now[was["id"]] == was

    about_others = 0
    balances = rows(database, "SELECT user_id, balance, version FROM user_deposits ORDER BY 1")
    for path, body, key, answer in some(told.asked):
        retried = client.write(path, body, key=key)
        if retried.status_code == answer.status_code and retried.content == answer.content:
            about_others += 1
            continue
        assert (retried.status_code, retried.json()["code"]) == (409, "answer_erased")
        assert str(answer.status_code) in retried.json()["detail"]
        other = client.write("/v1/debits", {"telegram_id": "555", "amount": 1, "reason": "x"}, key=key)
        assert other.json()["code"] in {"idempotency_key_reused", "answer_erased"}
    assert about_others == 1
    assert rows(database, "SELECT user_id, balance, version FROM user_deposits ORDER BY 1") == balances
    resent = {key: value for key, value in told.asked[6][1].items() if key != "raw_message"}
    assert client.write("/v1/bank-notifications", resent).status_code == 200

    anew = client.write("/v1/users", {"telegram_id": USER})
    assert (anew.status_code, anew.json()["balance_after"]) == (201, 0)
    assert client.write("/v1/debits", {"telegram_id": name, "amount": 1, "reason": "x"}).status_code == 400
    reversible = before["items"][0]["transaction_id"]
    assert client.write(f"/v1/transactions/{reversible}/reverse", {}).json()["telegram_id"] == name
    assert running.stop() == 0, running.said

    assert named(database) == {}
    assert broken_invariants(database) == []
    assert passbook("audit", "verify", "--database", str(database)).returncode == 0
    with contextlib.closing(sqlite.connect_reader(database, busy_timeout_ms=0)) as connection:
        receipts = [answer.headers.get("Passbook-Receipt") for *_, answer in told.asked]
        assert any(receipts)
        for audit_log_id, leaf in some(map(read_receipt, filter(None, receipts))):
            assert audit_chain.find_leaf(connection, audit_log_id) == leaf
    copy = database.with_name("copy.db")
    assert passbook("backup", "--database", str(database), "--to", str(copy)).returncode == 0
    down = passbook("migrate", "down", "--to", "013", "--database", str(copy), "--yes")
    assert (down.returncode, "rollback 018 stopped: rows were archived or erased" in down.stderr) == (1, True)


def test_the_bytes_are_gone_too(database: Path) -> None:
    """From the file and its log; after VACUUM also what earlier writes left in unused parts of pages."""
    assert left_in_files(database) == list(SECRETS)
    ran = erase(database)
    assert ran.exit_code == 0, ran.output
    assert left_in_files(database) == []
    assert "--vacuum" in ran.output


def test_the_bytes_are_gone_while_the_service_runs(running: LiveService) -> None:
    """From the log beside the file too, and from whole pages that fall free: a row was longer than a page."""
    client = running.client()
    live_through(client)
    event = {"action": "seen", "telegram_id": USER, "details": {"name": NAME * 400}}
    assert client.write("/v1/audit-logs", event).status_code == 201
    assert left_in_files(running.database) == list(SECRETS)
    ran = passbook("users", "erase", USER, "--database", str(running.database), "--yes")
    assert ran.returncode == 0, ran.stderr
    assert left_in_files(running.database) == [], "the file or its log still has them"


def test_vacuum_rewrites_what_splits_of_pages_left_behind(database: Path, tmp_path: Path) -> None:
    """With the service stopped only; an unused page is full of the name."""
    with contextlib.closing(sqlite3.connect(database)) as hand:
        hand.execute("PRAGMA secure_delete = OFF")
        hand.execute("CREATE TABLE x (y)")
        hand.executemany("INSERT INTO x VALUES (?)", [(NAME * 9,)] * 500)
        hand.execute("DROP TABLE x")
        hand.commit()
    assert erase(database).exit_code == 0
    assert left_in_files(database) == [NAME]
    service = LiveService(database, admin_key="x").start()
    try:
        refused = passbook("users", "erase", "--vacuum", "--database", str(database))
        assert (refused.returncode, "in use" in refused.stderr) == (1, True)
    finally:
        assert service.stop() == 0
    assert passbook("users", "erase", "--vacuum", "--database", str(database)).returncode == 0
    assert left_in_files(database) == []
    assert named(database) == {}


def test_what_is_open_is_settled_first_unless_forced(database: Path) -> None:
    """A balance, a pending deposit and a held name are named; forced, they stay as they are."""
    refused = erase(database, user="555")
    assert refused.exit_code == 1
    assert "a balance of 20 won, 1 pending deposits" in refused.output
    assert rows(database, "SELECT COUNT(*) FROM user_erasures") == [(0,)]
    assert erase(database, "--yes", "--force", user="555").exit_code == 0
    kept = rows(
        database,
        "SELECT d.balance, t.status, t.depositor_name, t.match_name FROM users AS u"
        " JOIN user_deposits AS d ON d.user_id = u.id JOIN deposit_transactions AS t ON t.user_id = u.id"
        " WHERE u.telegram_id GLOB 'erased-*' AND t.status = 'pending'",
    )
    assert kept == [(20, "pending", None, "")]
    assert named(database) == {}


def test_each_thing_that_is_open_keeps_a_user_from_erasure(tmp_path: Path) -> None:
    """A balance alone, a pending deposit alone, a held name alone; nothing open asks for nothing."""
    path = make_database(tmp_path / "open.db")

    async def live() -> None:
        async with opened(path) as house:
            await house.confirm(await house.announce(500, "601"))
            await house.announce(500, "602")
            await house.hold("a.kr", 500, "603")

    asyncio.run(live())
    said = {"601": "has a balance of 500 won.", "602": "has 1 pending deposits.", "603": "has 1 held domain names."}
    for user, told in said.items():
        refused = erase(path, "--yes", user=user)
        assert (refused.exit_code, told in refused.output) == (1, True), (user, refused.output)
    assert rows(path, "SELECT COUNT(*) FROM user_erasures") == [(0,)]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE audit_leaves SET public_details = zeroblob(32) WHERE audit_log_id = 4", "is not what was sealed"),
        (f"INSERT INTO audit_logs (action, telegram_id) VALUES ('x', '{USER}')", "was never sealed"),
    ],
)
def test_what_cannot_be_erased_soundly_stops_it(database: Path, sql: str, said: str) -> None:
    """The row is named, the user keeps its name, and the erasure can be asked for again."""
    whole = shutil.copy(database, database.with_name("whole.db"))
    by_hand(database, sql)
    stopped = erase(database)
    assert (stopped.exit_code, said in stopped.output) == (1, True), stopped.output
    assert rows(database, f"SELECT COUNT(*) FROM users WHERE telegram_id = '{USER}'") == [(1,)]
    assert erase(Path(whole)).exit_code == 0


def test_it_is_asked_for_by_typing_the_id(database: Path) -> None:
    """Another text, an unknown user or a user erased before changes nothing."""
    arguments = ["users", "erase", USER, "--database", str(database)]
    refused = CliRunner().invoke(main, arguments, input="yes\n")
    assert (refused.exit_code, "nothing was erased" in refused.output) == (1, True)
    assert erase(database, user="404").exit_code == 1
    assert CliRunner().invoke(main, ["users", "erase", "--database", str(database)]).exit_code == 2
    assert left_in(database) == list(SECRETS)
    assert CliRunner().invoke(main, arguments, input=f"{USER}\n").exit_code == 0
    (name,) = rows(database, "SELECT telegram_id FROM users WHERE telegram_id GLOB 'erased-*'")[0]
    assert erase(database, user=name).exit_code == 1


def test_archives_of_before_are_named_and_those_of_after_hold_nothing(database: Path, tmp_path: Path) -> None:
    """Rows that were archived first are in their archive; an archive of erased rows carries their commitments."""
    first, second = tmp_path / "first", tmp_path / "second"
    moments = dict(rows(database, "SELECT id, replace(created_at, ' ', 'T') || 'Z' FROM audit_logs"))
    assert prune(database, moments[6], first).exit_code == 0
    ran = erase(database)
    assert ran.exit_code == 0, ran.output
    assert "archives of audit rows (first)" in ran.output
    assert left_in(database) == []
    assert prune(database, moments[max(moments)], second).exit_code == 0
    assert USER in first.read_text()
    assert not [secret for secret in SECRETS if secret in second.read_text()]
    assert any(row[-4] is None and row[-2] is not None for row in archived_rows(second))
    assert named(database) == {}
    assert broken_invariants(database, archives=[first, second]) == []
    assert (unsound(first, database), unsound(second, database)) == ("", "")
    assert passbook("audit", "verify", "--database", str(database)).returncode == 0


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_logs SET telegram_id = NULL WHERE id = {other}",
        "UPDATE audit_logs SET details = 'null' WHERE id = {erased}",
        "UPDATE audit_leaves SET salt = NULL WHERE audit_log_id = {other}",
        "UPDATE audit_leaves SET public_details = NULL WHERE audit_log_id = {erased}",
        "UPDATE audit_erasures SET commitment = zeroblob(32)",
        "DELETE FROM audit_erasures",
        "DELETE FROM user_erasures",
        "INSERT OR REPLACE INTO user_erasures SELECT user_id, begun_at, actor, NULL FROM user_erasures",
        "INSERT OR REPLACE INTO audit_pruned_steps VALUES ('moved', 0, 1, 1), ('moved', 0, 1, 2)",
        "UPDATE user_erasures SET finished_at = NULL",
        "INSERT INTO audit_erasures SELECT {other}, zeroblob(32), user_id FROM user_erasures",
        "INSERT INTO audit_erasures SELECT {erased}, zeroblob(32), user_id FROM user_erasures",
        "UPDATE users SET telegram_id = 'erased-' || id WHERE telegram_id = '555'",
        "UPDATE users SET telegram_id = '1' WHERE telegram_id GLOB 'erased-*'",
        "UPDATE deposit_transactions SET depositor_name = NULL WHERE depositor_name IS NOT NULL",
        "UPDATE deposit_transactions SET depositor_name = 'x' WHERE status = 'confirmed'",
        "UPDATE bank_notifications SET raw_message = 'x'",
        "UPDATE idempotency_answers SET request = '', body = x'', location = NULL",
        "UPDATE import_archive SET column_values = '{{}}'",
        "DELETE FROM audit_logs",
        "INSERT INTO audit_prunes VALUES (3, 0, 2, zeroblob(32), NULL, NULL, 'a', zeroblob(32), 'x', 'y')",
        "INSERT INTO audit_prunes VALUES (2, 1, 2, zeroblob(32), NULL, NULL, 'a', zeroblob(32), 'x', 'y')",
    ],
)
def test_the_database_itself_lets_nothing_else_go(database: Path, sql: str) -> None:
    """Once an erasure is done, and outside one, all is as fixed as before."""
    assert erase(database).exit_code == 0
    by_hand(
        database,
        "INSERT INTO import_archive (source_table, row_id, column_values, imported_at) VALUES ('users', 9, '[]', 'x')",
    )
    other, erased = (
        rows(database, f"SELECT MIN(audit_log_id) FROM audit_leaves WHERE salt IS {null} NULL")[0][0]
        for null in ("NOT", "")
    )
    with contextlib.closing(sqlite.connect_writer(database, busy_timeout_ms=0, checkpoints=True)) as connection:
        before = all_rows(connection)
        with pytest.raises(sqlite.IntegrityError):
            connection.execute(sql.format(other=other, erased=erased))
        assert all_rows(connection) == before


def verified(database: Path) -> list[str]:
    """What `audit verify` finds, and that `integrity` finds it too."""
    verified = passbook("audit", "verify", "--json", "--database", str(database))
    found = [fault["said"] for fault in json.loads(verified.stdout)["faults"]]
    assert verified.returncode == bool(found), verified.stdout
    assert passbook("integrity", "--database", str(database)).returncode == bool(found)
    return found


def test_an_erasure_that_no_sealed_row_tells_of_is_found(database: Path) -> None:
    """Somebody does by hand what an erasure does, with all triggers in place, and every hash is right."""
    with contextlib.closing(sqlite.connect_writer(database, busy_timeout_ms=0, checkpoints=True)) as hand:
        ((user_id, telegram_id),) = hand.execute(
            "SELECT id, telegram_id FROM users WHERE telegram_id = ?", (USER,)
        ).fetchall()
        with sqlite.transaction(hand) as tx:
            erasures.begin(tx, user_id=user_id, actor="cli:root", now=NOW)
            ids, _ = erasures.find_audit_logs(tx, user_id=user_id, telegram_id=telegram_id, after=0, progress=quiet)
            assert ids
            erasures.erase_audit_logs(tx, ids, user_id=user_id)
        begun = passbook("audit", "verify", "--database", str(database))
        assert begun.returncode == 0
        assert f"The erasure of user {user_id} was begun and no row tells of it yet" in begun.stdout
        with sqlite.transaction(hand) as tx:
            erasures.finish(tx, set(), user_id=user_id, telegram_id=telegram_id, pseudonym=f"erased-{user_id}", now=NOW)
    assert verified(database) == [f"no row tells of the erasure of user {user_id}"]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE user_erasures SET finished_at = '2020-01-01 00:00:00.000'",
        "INSERT INTO audit_erasures SELECT 1000000, zeroblob(32), user_id FROM user_erasures",
        "UPDATE user_erasures SET user_id = (SELECT id FROM users WHERE telegram_id NOT GLOB 'erased-*' LIMIT 1)",
        "DELETE FROM user_erasures",
    ],
)
def test_an_erasure_that_its_row_tells_otherwise_is_found(database: Path, sql: str) -> None:
    """Time, user and the number of rows are compared with what was sealed."""
    assert erase(database).exit_code == 0
    assert verified(database) == []
    by_hand(database, sql)
    assert [said for said in verified(database) if "erasure" in said]


def test_what_an_import_kept_of_the_user_goes(tmp_path: Path) -> None:
    """The bot's own columns, rows without a version, rejected balances: all is still right."""
    database = tmp_path / "p.db"
    more = (
        "ALTER TABLE users ADD COLUMN phone TEXT; UPDATE users SET phone = '010-1234';"
        "ALTER TABLE deposit_transactions ADD COLUMN memo TEXT; UPDATE deposit_transactions SET memo = '010-1234';"
    )
    take_over(make_bots_file(tmp_path / "bots.sqlite", extra=more), database)
    assert rows(database, "SELECT COUNT(*) FROM import_archive") != [(0,)]
    for (telegram_id,) in some(rows(database, "SELECT telegram_id FROM users")):
        ran = erase(database, "--yes", "--force", user=telegram_id)
        assert ran.exit_code == 0, ran.output
    assert rows(database, "SELECT DISTINCT column_values FROM import_archive") == [("{}",)]
    assert rows(database, "SELECT COUNT(*) FROM audit_logs WHERE telegram_id NOT GLOB 'erased-*'") == [(0,)]
    assert rows(database, "SELECT COUNT(*) FROM deposit_transactions WHERE depositor_name IS NOT NULL") == [(0,)]
    assert named(database) == {}


class _Killing:
    """A connection that kills its process instead of running its Nth statement."""

    def __init__(self, connection: sqlite.Connection, at: int) -> None:
        self._connection, self._left = connection, at

    def _step(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def execute(self, *arguments: Any) -> Any:
        self._step()
        return self._connection.execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        self._step()
        return self._connection.executemany(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _erase_killed(database: Path, at: int) -> None:
    connect = sqlite.connect_writer

    def connect_killing(*arguments: Any, **options: Any) -> Any:
        return _Killing(connect(*arguments, **options), at)

    sqlite.connect_writer = connect_killing
    os._exit(0 if erase(database).exit_code == 0 else 99)


def test_killed_anywhere_and_started_again_it_ends_the_same(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a sample of its statements: at every point the ledger is sound, and in the end all is gone."""
    monkeypatch.setattr(door, "_ROWS_AT_ONCE", 4)
    number = 0
    while True:
        copy = Path(shutil.copytree(database.parent, tmp_path / f"at-{number}")) / "p.db"
        child = os.fork()
        if child == 0:
            _erase_killed(copy, number)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, number
        assert named(copy) == {}, number
        assert passbook("audit", "verify", "--database", str(copy)).returncode == 0 if number % 5 == 0 else True
        again = erase(copy)
        assert again.exit_code == 0 or "There is no user" in again.output
        assert left_in(copy) == []
        assert named(copy) == {}, number
        assert rows(copy, "SELECT COUNT(*) FROM audit_logs WHERE action = 'user_erased'") == [(1,)]
        shutil.rmtree(copy.parent)
        if not os.WIFSIGNALED(status):
            break
        number += 11
    assert number > 60


def test_migrations_go_down_and_up_again_while_nothing_was_erased(tmp_path: Path) -> None:
    """Where 013 has no records its rollback runs, and what it takes away comes back."""
    with contextlib.closing(
        sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True)
    ) as connection:
        migrations = migrator.load(resources.folder("migrations"))
        migrator.up(connection, migrations, lambda _: None)
        first = migrator.schema_of(connection)
        migrator.down(connection, migrations, lambda _: None, to=12)
        assert "audit_prunes" not in migrator.schema_of(connection)
        migrator.up(connection, migrations, lambda _: None)
        assert migrator.schema_of(connection) == first
