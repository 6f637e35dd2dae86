"""The greatest and the least amounts that an import takes, through every read and every write over real HTTP."""

import csv
import io
import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.ledger_check import broken_invariants
from tests.live import Client, LiveService, passbook
from tests.some import some
from tests.storage.test_importer import make_bots_file

MOST = 2**53 - 1
AMOUNTS = (0, 1, -1, MOST - 1, MOST, -MOST)
BALANCES = (0, MOST)
LINES = dict(enumerate(AMOUNTS, start=100))
"""Bank notifications: id -> won."""
STATUSES = ("pending", "confirmed", "expired")
TYPES = ("deposit", "withdrawal")
REFUSALS = {
    *("insufficient_funds", "balance_limit_exceeded", "transaction_not_confirmed", "transaction_reversed"),
    *("deposit_expired", "deposit_not_pending", "deposit_amount_differs", "deposit_matched"),
    *("bank_notification_matched", "deposit_not_found"),
}
"""What a write of this file may be refused as."""
_numbers = itertools.count()


def _rows() -> Iterator[tuple[int, str, int, str]]:
    """A user's balance with one transaction: type, amount, status. Those whose sums no import takes are left out."""
    for balance, kind, amount, status in itertools.product(BALANCES, TYPES, AMOUNTS, STATUSES):
        goes_out = status == "confirmed" and (amount < 0 or kind == "withdrawal")
        if goes_out * abs(amount) + balance <= MOST:
            yield balance, kind, amount, status


def _bots_sql() -> str:
    sql = []
    for user, (balance, kind, amount, status) in enumerate(_rows(), start=100):
        sql += [
            f"INSERT INTO users (id, telegram_id) VALUES ({user}, '9{user}');",
            f"INSERT INTO user_deposits (user_id, balance) VALUES ({user}, {balance});",
            "INSERT INTO deposit_transactions (id, user_id, type, amount, status, depositor_name) VALUES"
            f" ({user}, {user}, '{kind}', {amount}, '{status}', '홍길동');",
        ]
    for number, amount in LINES.items():
        sql += [
            "INSERT INTO bank_notifications (id, depositor_name, amount, balance_after) VALUES"
            f" ({number}, '홍길동', {amount}, {amount});",
            "INSERT INTO user_domains (id, user_id, domain, status, price) VALUES"
            f" ({number}, {number}, 'a{number}.kr', 'pending', {amount});",
        ]
    return "".join(sql)


@pytest.fixture(scope="module")
def taken_over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service on what the bot left; sound afterwards, by every oracle, whatever was asked of it."""
    folder = tmp_path_factory.mktemp("taken-over")
    bots = make_bots_file(folder / "bots.sqlite", extra=_bots_sql())
    made = passbook("import", str(bots), "--database", str(folder / "passbook.db"))
    assert made.returncode == 0, made.stderr
    live = LiveService(folder / "passbook.db").start()
    yield live
    assert live.stop() == 0, live.said
    assert broken_invariants(live.database) == []
    proof = passbook("integrity", "--database", str(live.database))
    assert proof.returncode == 0, proof.stdout


def rows(service: LiveService, sql: str) -> list[Any]:
    """What SQLite itself says."""
    with closing(sqlite3.connect(f"{service.database.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def read(client: Client, path: str) -> Any:
    """The JSON of a read that is answered."""
    answer = client.get(path)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


def pages(client: Client, path: str) -> Iterator[Any]:
    """The items of all pages of a list."""
    cursor = ""
    while True:
        page = read(client, f"{path}{'&' if '?' in path else '?'}limit=100{cursor}")
        yield from page["items"]
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={page['next_cursor']}"


def balances(service: LiveService) -> dict[str, int]:
    """Telegram id -> won, from the transactions alone."""
    found = rows(
        service,
        "SELECT u.telegram_id, t.amount * iif(t.direction = 'credit', 1, -1) FROM users AS u"
        " LEFT JOIN deposit_transactions AS t ON t.user_id = u.id AND t.status = 'confirmed'",
    )
    summed = dict.fromkeys((telegram_id for telegram_id, _ in found), 0)
    for telegram_id, amount in found:
        summed[telegram_id] += amount or 0
    return summed


def test_every_read_tells_every_amount_exactly(taken_over: LiveService) -> None:
    """Balances, transactions, deposits, purchases, bank lines, explanations, audit rows in three forms, the proof."""
    client = taken_over.client()
    stored = {row[0]: row for row in rows(taken_over, "SELECT id, amount, direction, type FROM deposit_transactions")}
    summed, told = balances(taken_over), set()
    for telegram_id, balance in some(summed.items()):
        assert read(client, f"/v1/users/{telegram_id}/balance")["balance"] == balance >= 0
        explained = read(client, f"/v1/users/{telegram_id}/balance/explain?limit=100")
        assert (explained["balance"], explained["difference"], explained["proved"]) == (balance, 0, True), explained
        assert explained["credits"] - explained["debits"] == balance == sum(c["effect"] for c in explained["items"])
        for moment in ("2020-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"):
            read(client, f"/v1/users/{telegram_id}/balance/explain?at={moment}")
        lines = list(pages(client, f"/v1/users/{telegram_id}/transactions"))
        assert [(one["id"], one["amount"], one["direction"], one["type"]) for one in lines] == [
            stored[one["id"]] for one in lines
        ]
        told |= {one["id"] for one in lines}
    assert told == set(stored)
    for number, amount, _, kind in some(stored.values()):
        assert read(client, f"/v1/transactions/{number}")["amount"] == amount
        if kind == "deposit":
            assert read(client, f"/v1/deposits/{number}")["amount"] == amount
    for path, table, column in (
        ("/v1/deposits", "deposit_transactions WHERE type = 'deposit'", "amount"),
        ("/v1/bank-notifications", "bank_notifications", "amount"),
        ("/v1/domain-purchases", "user_domains", "price"),
    ):
        found = {one["id"]: one[column] for one in pages(client, path)}
        assert found == dict(rows(taken_over, f"SELECT id, {column} FROM {table}"))
        assert {MOST, MOST - 1, 1} <= {abs(amount or 0) for amount in found.values()}
    assert read(client, "/v1/integrity?max_age=PT0S")["status"] == "sound"
    metrics = client.get("/metrics")
    assert metrics.status_code == 200, metrics.text


def test_every_form_of_the_log_tells_every_amount_exactly(taken_over: LiveService) -> None:
    """The details of opening entries and of amounts made positive, as pages, NDJSON and CSV, digit for digit."""
    client = taken_over.client()
    stored = {
        row[0]: json.loads(row[1])
        for row in rows(taken_over, "SELECT id, details FROM audit_logs WHERE actor IS NULL AND details IS NOT NULL")
    }
    assert any(details.get("amount") == MOST for details in stored.values())
    assert any(details.get("amount") == -MOST for details in stored.values())
    listed = {one["id"]: one["details"] for one in pages(client, "/v1/audit-logs") if one["details"] is not None}
    assert {number: listed[number] for number in stored} == stored
    lines = client.get("/v1/audit-logs", headers={"Accept": "application/x-ndjson"})
    assert lines.status_code == 200, lines.text
    by_line = {one["id"]: one["details"] for one in map(json.loads, lines.text.splitlines()) if "id" in one}
    assert {number: by_line[number] for number in stored} == stored
    table = client.get("/v1/audit-logs", headers={"Accept": "text/csv"})
    assert table.status_code == 200, table.text
    by_row = {int(one["id"]): one["details"] for one in csv.DictReader(io.StringIO(table.text)) if one["id"].isdigit()}
    assert {number: json.loads(by_row[number]) for number in stored} == stored


def changed(service: LiveService, client: Client, path: str, body: Any, **expected: int) -> str:
    """Asks for a write. It is carried out, and each user's balance moves by what `expected` says (user -> won), or
    refused for a named reason, and nothing moves. Returns the reason, or nothing."""
    before = balances(service)
    answer = client.write(path, body, key=f"amounts-{next(_numbers)}")
    assert answer.status_code in {200, 201, 409}, (path, body, answer.text)
    refused = answer.json()["code"] if answer.status_code == 409 else ""
    assert refused in {"", *REFUSALS}, (path, answer.text)
    moves = {} if refused else {telegram_id.lstrip("u"): won for telegram_id, won in expected.items()}
    after = balances(service)
    assert {user: after[user] - before[user] for user in after if after[user] != before[user]} == {
        user: won for user, won in moves.items() if won
    }, (path, body, answer.text)
    told = {user: read(client, f"/v1/users/{user}/balance")["balance"] for user in moves}
    assert told == {user: after[user] for user in moves}
    assert all(0 <= balance <= MOST for balance in some(after.values()))
    return str(refused)


def test_every_write_on_an_extreme_amount_is_exact_or_refused(taken_over: LiveService) -> None:
    """Confirmed, matched, reversed, taken out, paid in, one by one and together: never an error, never another sum."""
    client, refusals = taken_over.client(), set()
    for number, telegram_id, amount, direction, kind in rows(
        taken_over,
        "SELECT t.id, u.telegram_id, t.amount, t.direction, t.type FROM deposit_transactions AS t"
        " JOIN users AS u ON u.id = t.user_id WHERE u.id >= 100 ORDER BY t.id",
    ):
        if kind == "deposit":
            status = read(client, f"/v1/deposits/{number}")["status"]
            paid_in = {f"u{telegram_id}": amount if status != "confirmed" else 0}
            path, body = f"/v1/deposits/{number}/confirm", {"late": status == "expired"}
            if number % 2:
                line = next(key for key, won in LINES.items() if abs(won) == amount)
                path, body = f"/v1/bank-notifications/{line}/match", {**body, "deposit_id": number}
            refusals.add(changed(taken_over, client, path, body, **paid_in))
        effect = {f"u{telegram_id}": -amount if direction == "credit" else amount}
        refusals.add(changed(taken_over, client, f"/v1/transactions/{number}/reverse", {}, **effect))
    assert refusals == {
        "",
        "balance_limit_exceeded",
        "insufficient_funds",
        "transaction_not_confirmed",
        "deposit_not_pending",
        "bank_notification_matched",
    }
    for telegram_id in list(balances(taken_over))[4::9]:
        for amount in (1, 10**12):
            body = {"telegram_id": telegram_id, "amount": amount, "reason": "x"}
            changed(taken_over, client, "/v1/debits", body, **{f"u{telegram_id}": -amount})
            for sign in (1, -1):
                change = {**body, "amount": sign * amount, "reference": f"r{next(_numbers)}"}
                batch = {"changes": [change, {**change, "amount": -sign, "reference": f"r{next(_numbers)}"}]}
                changed(taken_over, client, "/v1/balance-changes", batch, **{f"u{telegram_id}": sign * amount - sign})
