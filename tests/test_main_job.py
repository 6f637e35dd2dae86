"""The main job on real input: the bot's D1, exported by the real wrangler, is taken over and served."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ledger_check import broken_invariants
from tests.live import LiveService, passbook
from tests.migrations.d1 import BotDatabase, LocalD1, build_bot_database
from tests.storage.test_importer import read


@pytest.fixture(scope="module")
def taken_over(
    tmp_path_factory: pytest.TempPathFactory, node_modules: Path
) -> Iterator[tuple[BotDatabase, LiveService]]:
    """The bot's database with a few thousand rows, imported, and a service on it."""
    folder = tmp_path_factory.mktemp("main-job")
    bot = build_bot_database(LocalD1.create(folder / "d1", node_modules), users=400, seed=20260119)
    database = folder / "data" / "passbook.db"
    imported = passbook("import", str(bot.export), "--database", str(database))
    assert imported.returncode == 0, imported.stderr
    assert "✅ Migration 001 completed successfully" in imported.stdout
    assert f"Took over {sum(bot.row_counts.values()):,} rows" in imported.stdout
    assert "negative balances rejected: 1\n" in imported.stdout
    assert "long depositor names cut: 1\n" in imported.stdout
    shutil.copyfile(database, folder / "as-imported.db")
    live = LiveService(database).start()
    yield bot, live
    live.kill()


def test_every_row_and_balance_came_over(taken_over: tuple[BotDatabase, LiveService]) -> None:
    """Balances as the bot had them but for the negative one; every other row, name and text is there to the letter."""
    bot, live = taken_over
    database = live.database.parent.parent / "as-imported.db"
    balances = dict(read(database, "SELECT user_id, balance FROM user_deposits"))
    wanted = {**bot.balances, bot.negative_account[1]: 0, bot.user_id_without_account: 0}
    assert balances == wanted
    assert dict(read(database, "SELECT id, username FROM users")) == bot.usernames
    texts = read(database, "SELECT id, raw_message FROM bank_notifications WHERE instr(raw_message, char(10)) > 0")
    assert dict(texts) == bot.texts_with_newline
    for table in ("users", "bank_notifications", "user_domains"):
        assert read(database, f"SELECT COUNT(*) FROM {table}") == [(bot.row_counts[table],)]
    assert broken_invariants(database) == []


def test_what_001_rejected_or_cut_is_in_the_audit_log_whole(taken_over: tuple[BotDatabase, LiveService]) -> None:
    """Ops find the negative balance and the full name over HTTP."""
    bot, live = taken_over
    ops = live.client(live.make_key("--role", "ops"))
    rejected = ops.get("/v1/audit-logs", params={"action": "migration_balance_rejected"}).json()["items"]
    assert [(row["resource_id"], row["details"]["balance"]) for row in rejected] == [
        (bot.negative_account[0], bot.negative_account[2])
    ]
    cut = ops.get("/v1/audit-logs", params={"action": "migration_depositor_name_truncated"}).json()["items"]
    transaction_id, name = bot.long_name
    assert [(row["resource_id"], row["details"]["depositor_name"]) for row in cut] == [(transaction_id, name)]
    transaction = ops.get(f"/v1/transactions/{transaction_id}").json()
    assert transaction["depositor_name"] == name[:50]
    assert transaction["confirmed_at"].endswith("Z")


def test_bot_service_and_ops_do_their_work(taken_over: tuple[BotDatabase, LiveService]) -> None:
    """The bot announces, the service confirms and debits, a debit too large is refused, ops reads the trail."""
    _, live = taken_over
    bot = live.client(live.make_key("--name", "telegram-bot", "--role", "bot"))
    service = live.client(live.make_key("--name", "bank-watcher", "--role", "service"))
    ops = live.client(live.make_key("--role", "ops"))
    start = bot.get("/v1/users/123456/balance").json()["balance"]
    assert start == 10000

    announced = bot.write("/v1/deposits", {"telegram_id": "123456", "amount": 5000, "depositor_name": "홍길동"})
    deposit_id = announced.json()["id"]
    refused = bot.write(f"/v1/deposits/{deposit_id}/confirm", {})
    assert (refused.status_code, refused.json()["required_scope"]) == (403, "deposits:confirm")
    confirmed = service.write(f"/v1/deposits/{deposit_id}/confirm", {"note": "국민은행"})
    assert (confirmed.json()["balance_before"], confirmed.json()["balance_after"]) == (10000, 15000)
    debited = service.write(
        "/v1/debits", {"telegram_id": "123456", "amount": 11000, "reason": "한글.kr", "reference": "order-1"}
    )
    assert (debited.status_code, debited.json()["balance_after"]) == (201, 4000)
    too_large = service.write("/v1/debits", {"telegram_id": "123456", "amount": 4001, "reason": "too much"})
    assert too_large.status_code == 409
    assert {k: too_large.json()[k] for k in ("code", "balance", "required", "shortfall")} == {
        "code": "insufficient_funds",
        "balance": 4000,
        "required": 4001,
        "shortfall": 1,
    }
    trail = ops.get("/v1/audit-logs", params={"telegram_id": "123456", "limit": 4}).json()["items"]
    assert [(row["action"], row["actor"]) for row in trail] == [
        ("debit_failed", "bank-watcher"),
        ("balance_debited", "bank-watcher"),
        ("deposit_confirmed", "bank-watcher"),
        ("deposit_announced", "telegram-bot"),
    ]
    assert trail[1]["id"] == debited.json()["audit_log_id"]
    assert trail[2]["details"]["balance_after"] == 15000
    passbook_lines = ops.get("/v1/users/123456/transactions").json()["items"]
    assert [line["type"] for line in passbook_lines] == ["debit", "deposit", "opening_credit", "deposit"]
    assert broken_invariants(live.database) == []
