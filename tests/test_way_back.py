"""There and back on real input: a running Passbook is written out, runs on a real D1, and is taken over again."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.ledger.timestamps import stored, system_clock
from tests.faults.disks import small_disk
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, PASSBOOK, Client, LiveService, passbook
from tests.migrations.d1 import LocalD1, results, succeeded
from tests.printed import stands
from tests.some import some
from tests.storage.test_exporter import AWKWARD, assert_came_back
from tests.storage.test_importer import ACCOUNT, SCHEMA, USER, make_bots_file, moved, only, read

OF_LONG_LOGS = ["audit_nodes"]
"""Tables that are empty until the log has more rows than are made here; they are computed from it."""


def filled(live: LiveService) -> Path:
    """The database of `live`, with the bot's rows and work of each kind done over HTTP; the service runs on."""
    noted = "ALTER TABLE users ADD COLUMN note TEXT; UPDATE users SET note = 'a regular' WHERE id = 1;"
    bots = make_bots_file(live.database.parent / "bots.sqlite", extra=noted)
    assert passbook("import", str(bots), "--database", str(live.database)).returncode == 0
    live.start()
    client = live.client(live.make_key("--role", "admin"))
    for number, text in enumerate(AWKWARD):
        if "\0" not in text and text.strip() and text.isprintable():
            _done(client, "/v1/debits", {"telegram_id": "123456", "amount": number + 1, "reason": text})
    deposit = {"telegram_id": "777", "amount": 5000, "depositor_name": "홍길동🧡"}
    deposit_id = _done(client, "/v1/deposits", deposit)["id"]
    _done(client, f"/v1/deposits/{deposit_id}/confirm", {})
    _done(client, f"/v1/transactions/{deposit_id}/reverse", {"note": "the bank took it back"})
    _done(client, "/v1/domain-purchases", {"telegram_id": "123456", "domain": "통장.kr", "price": 1500})
    changes = [{"telegram_id": "123456", "amount": -700, "reason": "fee", "reference": "way-back-1"}]
    assert _done(client, "/v1/balance-changes", {"atomic": True, "changes": changes})["applied"] == 1
    _add_newer_kinds(live, client)
    return live.database


def _add_newer_kinds(live: LiveService, client: Client) -> None:
    """Bank lines and names in each status, an event, a person who was erased, and rows that were archived."""

    def deposited(telegram_id: str, amount: int, name: str) -> int:
        body = {"telegram_id": telegram_id, "amount": amount, "depositor_name": name}
        return int(_done(client, "/v1/deposits", body)["id"])

    def received(number: int, amount: int, name: str) -> dict[str, Any]:
        now = stored(system_clock())[:19].replace(" ", "T") + "Z"
        body = {"bank_transaction_id": f"way-back-{number}", "amount": amount, "depositor_name": name}
        return _done(client, "/v1/bank-notifications", {**body, "occurred_at": now})

    deposited("778", 6001, "자동")
    assert received(1, 6001, "자동")["status"] == "matched"
    by_hand, line = deposited("778", 6002, "수동"), received(2, 6002, "아무개")
    _done(client, f"/v1/bank-notifications/{line['id']}/match", {"deposit_id": by_hand, "remember": True})
    assert received(3, 6003, "모름")["status"] == "unmatched"
    for telegram_id in ("778", "780"):
        deposited(telegram_id, 6004, "둘")
    assert received(4, 6004, "둘")["status"] == "ambiguous"
    dismissed = f"/v1/bank-notifications/{received(5, 6007, '이자')['id']}/dismiss"
    assert _done(client, dismissed, {"note": "interest"})["status"] == "dismissed"
    _done(client, "/v1/bank-notifications", {"raw_message": "안녕하세요"})
    _done(client, f"/v1/deposits/{deposited('778', 6005, '취소')}/cancel", {"note": "no money"})
    for name, verb in (("kept", ""), ("taken", "complete"), ("given-up", "release")):
        body = {"telegram_id": "123456", "domain": f"{name}.kr", "price": 10, "hold": True}
        bought = _done(client, "/v1/domain-purchases", body)["id"]
        if verb:
            _done(client, f"/v1/domain-purchases/{bought}/{verb}", {})
    _done(client, "/v1/audit-logs", {"action": "basket_filled", "resource_type": "basket", "details": {"items": 3}})
    deposited("779", 6006, "지울이름")
    _ran("users", "erase", "779", "--force", "--yes", "--database", str(live.database))
    ((before,),) = read(live.database, "SELECT created_at FROM audit_logs WHERE action = 'transaction_reversed'")
    _ran(
        *("audit", "prune", "--before", before.replace(" ", "T") + "Z", "--yes", "--database", str(live.database)),
        *("--archive", str(live.database.with_name("archive.ndjson"))),
    )
    tables = read(live.database, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    empty = [table for (table,) in some(tables) if not read(live.database, f"SELECT 1 FROM {table} LIMIT 1")]
    assert empty == [*OF_LONG_LOGS], "no row of these tables makes the trip: do over HTTP above what writes one"


def _ran(*arguments: str) -> None:
    done = passbook(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def _done(client: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer of a write that was carried out."""
    answer = client.write(path, body)
    assert answer.is_success, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_the_bot_runs_on_d1_again_and_can_be_taken_over_again(
    tmp_path: Path, node_modules: Path, own_service: LiveService
) -> None:
    """Export beside the service, `d1 execute --file`, `d1 export` with and without schema, import: it is all there."""
    database = filled(own_service)
    written = passbook("export", str(tmp_path / "back.sql"), "--database", str(database))
    assert written.returncode == 0, written.stderr
    assert own_service.stop() == 0
    d1 = LocalD1.create(tmp_path / "d1", node_modules)
    succeeded(d1.execute_file(tmp_path / "back.sql"))
    counted = succeeded(d1.execute_command("SELECT COUNT(*) AS n FROM deposit_transactions"))
    assert results(counted)[0] == [{"n": read(database, "SELECT COUNT(*) FROM deposit_transactions")[0][0]}]
    refused = d1.execute_command("INSERT INTO user_deposits (user_id, balance) VALUES (999999, -1000)")
    assert "CHECK constraint failed" in refused.stdout + refused.stderr
    succeeded(d1.export(tmp_path / "again.sql"))
    data = d1._wrangler(
        "export", "telegram-conversations", "--local", "--no-schema", "--output", str(tmp_path / "data.sql")
    )
    succeeded(data)
    for source in ("again.sql", "data.sql"):
        target = tmp_path / f"{source}.db"
        taken = passbook("import", str(tmp_path / source), "--database", str(target))
        assert taken.returncode == 0, taken.stderr
        assert stands("balances that needed an opening entry: 0", taken.stdout)
        assert_came_back(database, target)


def test_export_says_what_it_wrote_and_never_writes_over(tmp_path: Path) -> None:
    """A second one is refused in a sentence and the first one stays."""
    where = ("--database", str(tmp_path / "p.db"))
    assert passbook("import", str(make_bots_file(tmp_path / "bots.sqlite")), *where).returncode == 0
    said = passbook("export", str(tmp_path / "back.sql"), *where)
    assert "  user_deposits: 4 rows\n  deposit_transactions: 9 rows\n" in said.stdout
    assert "wrangler d1 execute NAME --remote --file" in said.stdout
    before = (tmp_path / "back.sql").read_bytes()
    again = passbook("export", str(tmp_path / "back.sql"), *where)
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    assert (tmp_path / "back.sql").read_bytes() == before
    nowhere = passbook("export", str(tmp_path / "x.sql"), "--database", str(tmp_path / "none.db"))
    assert (nowhere.returncode, "There is no database" in nowhere.stderr) == (1, True)


def test_import_maps_statuses_and_writes_its_report(tmp_path: Path) -> None:
    """As a person types it: unknown words are named with the option that maps them; then they are mapped."""
    text = SCHEMA + USER + ACCOUNT + moved(1, "3000", status="done") + moved(2, "2000", status="don''t know")
    (tmp_path / "d1.sql").write_text(text, "utf-8")
    first = passbook("import", str(tmp_path / "d1.sql"), "--database", str(tmp_path / "p.db"))
    assert "unknown status 'done': 1 transactions" in first.stdout
    assert stands("user 111: balance 5000, history 0; transaction 3, a credit of 5000", first.stdout)
    second = passbook(
        "import", str(tmp_path / "d1.sql"), "--database", str(tmp_path / "q.db"), "--report",
        str(tmp_path / "list.ndjson"), "--status", "done=confirmed", "--status", "don't know=confirmed",
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert "status 'done' mapped: 1 transactions" in second.stdout
    assert stands("balances that needed an opening entry: 0", second.stdout)
    rows = [json.loads(line) for line in (tmp_path / "list.ndjson").read_text("utf-8").splitlines()]
    assert [row["kind"] for row in rows] == ["status_mapped", "status_mapped"]
    assert broken_invariants(tmp_path / "q.db") == []


@pytest.mark.parametrize("given", ["done", "=confirmed", "done=paid", "pending=confirmed"])
def test_status_option_that_means_nothing_is_refused(tmp_path: Path, given: str) -> None:
    """Exit code 2, as for every misuse; nothing is read."""
    refused = passbook("import", "none.sql", "--database", str(tmp_path / "p.db"), "--status", given)
    assert (refused.returncode, "--status" in refused.stderr) == (2, True)
    assert only(tmp_path)


@pytest.mark.parametrize("size", ["100k", "700k", "1500k"])
def test_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, size: str) -> None:
    """While the source is read, while rows are copied, while migrations run; and for the export."""
    rows = "".join(moved(number, "1") for number in range(1, 4001))
    (tmp_path / "d1.sql").write_text(SCHEMA + USER + ACCOUNT.replace("5000", "4000") + rows, "utf-8")
    with small_disk(tmp_path / "disk", size) as disk:
        refused = passbook("import", str(tmp_path / "d1.sql"), "--database", str(disk / "p.db"))
        assert refused.returncode == 1
        assert "There is no space left on the disk of" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert only(disk, "p.db.lock")
    assert passbook("import", str(tmp_path / "d1.sql"), "--database", str(tmp_path / "p.db")).returncode == 0
    with small_disk(tmp_path / "other", "100k") as disk:
        refused = passbook("export", str(disk / "back.sql"), "--database", str(tmp_path / "p.db"))
        assert (refused.returncode, "No space left" in refused.stderr) == (1, True)
        assert only(disk)


def test_rows_go_through_in_bounded_memory(tmp_path: Path) -> None:
    """Ten times the rows, hardly more memory: 200,000 transactions, there and back."""
    peaks = []
    for count in (20_000, 200_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        with (folder / "d1.sql").open("w", encoding="utf-8") as file:
            file.write(SCHEMA + USER + ACCOUNT.replace("5000", str(count)))
            file.writelines(moved(number, "1") for number in range(1, count + 1))
        for command in (("import", "d1.sql"), ("export", "back.sql")):
            child = subprocess.Popen(
                [*PASSBOOK, *command, "--database", "p.db"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                stdout=subprocess.DEVNULL,
            )
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            assert child.returncode == 0
            peaks.append(usage.ru_maxrss // 1024)
    small_import, small_export, large_import, large_export = peaks
    assert large_import < small_import + 120, peaks
    assert large_export < small_export + 30, peaks
