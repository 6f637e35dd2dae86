"""A sound database with one of everything in it, and the ways that a hand can break it."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from service import resources
from service.ledger.access import RANDOM_BYTES, ROLES
from service.ledger.timestamps import stored, system_clock
from service.repository import api_keys
from service.storage import audit_chain, migrator, sqlite
from service.storage.integrity import Proof
from tests.live import Client, LiveService, passbook

NOW = "2026-01-19 12:00:00.000"


def make_sound(database: Path) -> tuple[dict[str, int], str]:
    """The service's own work of every kind, a row as the bot left it, and an admin's key; ids by name, and the key."""
    service = LiveService(database).start()
    try:
        _use(service)
    finally:
        assert service.stop() == 0, service.said
    connection = sqlite.connect_writer(database, busy_timeout_ms=5000, checkpoints=True)
    with contextlib.closing(connection):
        now = stored(system_clock())
        key = api_keys.create(
            connection,
            name="proof",
            scopes=ROLES["admin"],
            actor="test",
            now=now,
            random_bytes=os.urandom(RANDOM_BYTES),
        )
    with (
        contextlib.closing(sqlite.connect_writer(database, busy_timeout_ms=0, checkpoints=True)) as hand,
        sqlite.transaction(hand) as tx,
        audit_chain.sealing(tx),
    ):
        _receive(tx)
    by_hand(
        database,
        "INSERT INTO users (id, telegram_id) VALUES (900, '900');"
        "INSERT INTO user_deposits (user_id, balance) VALUES (900, 500);"
        "INSERT INTO deposit_transactions (user_id, type, amount, status) VALUES (900, 'deposit', 500, 'confirmed');",
    )
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # one file, to be copied
        return {name: connection.execute(sql).fetchone()[0] for name, sql in _NAMES.items()}, key


def _use(service: LiveService) -> None:
    client = service.client()
    client.credit("100", 10_000)
    assert client.write("/v1/debits", {"telegram_id": "100", "amount": 3000, "reason": "x"}).status_code == 201
    change = {"telegram_id": "100", "amount": 40, "reason": "bonus", "reference": "r"}
    assert client.write("/v1/balance-changes", {"changes": [change]}).status_code == 200
    refused = client.write("/v1/debits", {"telegram_id": "100", "amount": 10**9, "reason": "too much"})
    assert refused.status_code == 409, refused.text
    client.credit("200", 50_000)
    for name, hold, verb in (("a", False, ""), ("b", True, "complete"), ("c", True, "release"), ("d", True, "")):
        bought = client.write(
            "/v1/domain-purchases", {"telegram_id": "200", "domain": f"{name}.kr", "price": 1000, "hold": hold}
        )
        if verb:
            done = client.write(f"/v1/domain-purchases/{bought.json()['id']}/{verb}")
            assert done.status_code == 200, done.text
    taken_back = client.credit("300", 700)["id"]
    assert client.write(f"/v1/transactions/{taken_back}/reverse", {}).status_code == 201
    assert client.write("/v1/users", {"telegram_id": "400", "username": "kim"}).status_code == 201
    assert client.write("/v1/users", {"telegram_id": "400", "username": "lee"}).status_code == 200
    _learn(client)
    revoked = service.make_key("--role", "bot", "--name", "gone").rpartition("_")[0]
    assert passbook("keys", "revoke", revoked, "--database", str(service.database)).returncode == 0


def _learn(client: Client) -> None:
    """Two names that a bank prints are learned of user 500, and one is forgotten."""
    for number, printed in enumerate(("김철수", "박영희")):
        amount = 900 + number
        deposit = client.write("/v1/deposits", {"telegram_id": "500", "amount": amount, "depositor_name": "이몽룡"})
        now = stored(system_clock()).replace(" ", "T") + "Z"
        body = {"bank_transaction_id": f"taught-{number}", "amount": amount, "depositor_name": printed}
        line = client.write("/v1/bank-notifications", {**body, "occurred_at": now})
        matched = client.write(
            f"/v1/bank-notifications/{line.json()['id']}/match", {"deposit_id": deposit.json()["id"], "remember": True}
        )
        assert matched.status_code == 200, matched.text
    newest = client.get("/v1/learned-names").json()["items"][0]["id"]
    gone = client.request("DELETE", f"/v1/learned-names/{newest}", headers={"Idempotency-Key": "forget"})
    assert gone.status_code == 200, gone.text
    assert client.write("/v1/bank-notifications", {"raw_message": "?"}).status_code == 202


def _audit(hand: sqlite.Connection, action: str, kind: str, row_id: int, details: Mapping[str, object]) -> None:
    hand.execute(
        "INSERT INTO audit_logs (user_id, telegram_id, action, resource_type, resource_id, details, actor, created_at)"
        " SELECT id, telegram_id, ?, ?, ?, ?, 'test', ? FROM users WHERE telegram_id = '400'",
        (action, kind, row_id, json.dumps(details), NOW),
    )


def _receive(hand: sqlite.Connection) -> None:
    """Deposits of user 400 with the name that they are matched by, and bank notifications, through the triggers."""
    (user_id,) = hand.execute("SELECT id FROM users WHERE telegram_id = '400'").fetchone()
    ids = []
    for name in ("pending", "cancelled", "expired", "auto", "late"):
        row = hand.execute(
            "INSERT INTO deposit_transactions (user_id, type, amount, depositor_name, match_name, created_at)"
            " VALUES (?, 'deposit', 600, ?, ?, ?)",
            (user_id, name, name, NOW),
        )
        ids.append(row.lastrowid or 0)
        _audit(hand, "deposit_announced", "deposit_transaction", ids[-1], {"amount": 600, "depositor_name": name})
    _, cancelled, expired, automatic, late = ids
    for step, stepped in (("cancelled", [cancelled]), ("expired", [expired, late])):
        for deposit in stepped:
            hand.execute("UPDATE deposit_transactions SET status = ? WHERE id = ?", (step, deposit))
            _audit(hand, f"deposit_{step}", "deposit_transaction", deposit, {})
    for version, (deposit, method, received, name) in enumerate(
        ((automatic, "automatic", "matched", "au"), (late, "manual", "unmatched", "x")), 1
    ):
        before, after = 600 * (version - 1), 600 * version
        hand.execute(
            "UPDATE deposit_transactions SET status = 'confirmed', confirmed_at = ?, balance_before = ?,"
            " balance_after = ?, version = ? WHERE id = ?",
            (NOW, before, after, version, deposit),
        )
        row = hand.execute(
            "INSERT INTO bank_notifications (depositor_name, amount, matched_transaction_id, bank_transaction_id,"
            " match_name, status, match_method, matched_by, matched_at, created_at)"
            " VALUES (?, 600, ?, ?, ?, 'matched', ?, 'test', ?, ?)",
            (name, deposit, f"bank-{deposit}", name, method, NOW, NOW),
        )
        notification = row.lastrowid or 0
        _audit(
            hand,
            "deposit_confirmed",
            "deposit_transaction",
            deposit,
            {"amount": 600, "balance_before": before, "balance_after": after, "version": version,
             "matched_bank_notification_id": notification},
        )  # fmt: skip
        told = {"amount": 600, "depositor_name": name, "bank_transaction_id": f"bank-{deposit}", "status": received}
        _audit(hand, "bank_notification_received", "bank_notification", notification, told)
        if received != "matched":
            _audit(hand, "bank_notification_matched", "bank_notification", notification, {})
    row = hand.execute(
        "INSERT INTO bank_notifications (depositor_name, amount, bank_transaction_id, match_name, created_at)"
        " VALUES ('y', 5, 'b5', 'y', ?)",
        (NOW,),
    )
    told = {"amount": 5, "depositor_name": "y", "bank_transaction_id": "b5", "status": "unmatched"}
    _audit(hand, "bank_notification_received", "bank_notification", row.lastrowid or 0, told)


def _movement(telegram_id: str, version: int) -> str:
    return (
        "SELECT t.id FROM deposit_transactions AS t JOIN users AS u ON u.id = t.user_id"
        f" WHERE u.telegram_id = '{telegram_id}' AND t.version = {version}"
    )


def _of_deposit(name: str) -> str:
    return f"SELECT id FROM deposit_transactions WHERE match_name = '{name}'"


def _account(telegram_id: str) -> str:
    return f"SELECT id FROM user_deposits WHERE user_id = (SELECT id FROM users WHERE telegram_id = '{telegram_id}')"


def _told(action: str, resource: str) -> str:
    return f"SELECT id FROM audit_logs WHERE action = '{action}' AND resource_id = ({resource})"


_NAMES = {
    "account_100": _account("100"),
    "account_200": _account("200"),
    "account_900": _account("900"),
    "credit": _movement("100", 1),
    "debit": _movement("100", 2),
    "change": _movement("100", 3),
    "told_debit": _told("balance_debited", _movement("100", 2)),
    "taken_back": _movement("300", 1),
    "reversal": _movement("300", 2),
    "user_400": "SELECT id FROM users WHERE telegram_id = '400'",
    **{f"purchase_{name}": f"SELECT id FROM user_domains WHERE ascii_name = '{name}.kr'" for name in "abcd"},
    **{f"payment_{name}": f"SELECT transaction_id FROM user_domains WHERE ascii_name = '{name}.kr'" for name in "abcd"},
    "told_a": _told("domain_registered", "SELECT id FROM user_domains WHERE ascii_name = 'a.kr'"),
    "refund": "SELECT id FROM deposit_transactions WHERE type = 'domain_refund'",
    **{name: _of_deposit(name) for name in ("pending", "cancelled", "expired", "auto", "late")},
    "bank_auto": f"SELECT id FROM bank_notifications WHERE matched_transaction_id = ({_of_deposit('auto')})",
    "bank_late": f"SELECT id FROM bank_notifications WHERE matched_transaction_id = ({_of_deposit('late')})",
    "bank_waiting": "SELECT id FROM bank_notifications WHERE bank_transaction_id = 'b5'",
    "key_gone": "SELECT id FROM api_keys WHERE name = 'gone'",
    "key_live": "SELECT id FROM api_keys WHERE name = 'proof'",
    "bots": "SELECT id FROM deposit_transactions WHERE user_id = 900",
    "answer_debit": "SELECT id FROM idempotency_answers WHERE operation = 'POST /v1/debits' ORDER BY id LIMIT 1",
    "answer_a": "SELECT id FROM idempotency_answers WHERE operation = 'POST /v1/domain-purchases' ORDER BY id LIMIT 1",
    "told_next": "SELECT MAX(id) + 1 FROM audit_logs",
    "reference": "SELECT rowid FROM balance_change_references",
}


def by_hand(database: Path, sql: str) -> None:
    """What someone does who knows sqlite3: takes the triggers away, edits, and puts them back."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as hand:
        triggers = hand.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            hand.execute(f"DROP TRIGGER {name}")
        hand.executescript(sql)
        for _, again in triggers:
            hand.execute(again)


def named_by_integrity(database: Path) -> dict[str, list[str]]:
    """Check -> what it says of the first rows that fail it, by the proof that `passbook integrity` is."""
    with contextlib.closing(sqlite.connect_reader(database, busy_timeout_ms=5000)) as connection:
        proof = Proof(migrator.load(resources.folder("migrations")), system_clock, quick=True)
        proof.run(connection)
    report = proof.report()
    assert report.reason is None, report.reason
    return {check.name: [example.said for example in check.examples] for check in report.checks if check.failed}


def rows_and_leaves_apart(database: Path) -> list[tuple[object, ...]]:
    """The rows of the audit log without a leaf, and then the leaves without a row, as a report names them."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return [
            *connection.execute(
                "SELECT telegram_id, NULL, 'audit_logs', id FROM audit_logs"
                " WHERE id NOT IN (SELECT audit_log_id FROM audit_leaves) ORDER BY id"
            ),
            *connection.execute(
                "SELECT NULL, NULL, 'audit_logs', audit_log_id FROM audit_leaves"
                " WHERE audit_log_id NOT IN (SELECT id FROM audit_logs) ORDER BY leaf_index"
            ),
        ]


Place = tuple[str | None, str | None, str | None, str | None]
"""telegram_id, transaction, table, row; the ids by their names."""


@dataclass(frozen=True)
class Mutant:
    """`sql` with {names} of ids; what each check must then name, and whether tests/ledger_check.py sees it too."""

    sql: str
    named: Mapping[str, list[Place]]
    shared: bool = False


def _transaction(telegram_id: str | None, name: str) -> Place:
    return telegram_id, name, "deposit_transactions", name


_FORGED = (
    "INSERT INTO audit_logs (telegram_id, action, resource_type, resource_id, actor)"
    " VALUES ('100', '{action}', '{kind}', {resource}, 'forger')"
)


def _forged(action: str, kind: str, resource: str) -> str:
    return _FORGED.replace("{action}", action).replace("{kind}", kind).replace("{resource}", resource)


_DEBIT = [_transaction("100", "debit")]
_TOLD_TWICE = (
    "INSERT INTO audit_logs (user_id, telegram_id, action, resource_type, resource_id, details, actor, created_at)"
    " SELECT user_id, telegram_id, action, resource_type, resource_id, details, actor, created_at"
    " FROM audit_logs WHERE id = "
)
MUTANTS = {
    "balance raised": Mutant(
        "UPDATE user_deposits SET balance = balance + 1 WHERE id = {account_900}",
        {"balances": [("900", None, "user_deposits", "account_900")]},
        shared=True,
    ),
    "balance raised after movements": Mutant(
        "UPDATE user_deposits SET balance = balance + 1 WHERE id = {account_100}",
        {check: [("100", None, "user_deposits", "account_100")] for check in ("balances", "versions")},
        shared=True,
    ),
    "balance negative": Mutant(
        "PRAGMA ignore_check_constraints = ON; UPDATE user_deposits SET balance = -5 WHERE id = {account_900}",
        {"balances": [("900", None, "user_deposits", "account_900")]},
        shared=True,
    ),
    "balance and its history negative": Mutant(
        "PRAGMA ignore_check_constraints = ON; UPDATE user_deposits SET balance = -500 WHERE id = {account_900};"
        "UPDATE deposit_transactions SET direction = 'debit' WHERE id = {bots}",
        {"balances": [("900", None, "user_deposits", "account_900")]},
        shared=True,
    ),
    "account taken away": Mutant(
        "DELETE FROM user_deposits WHERE id = {account_900}", {"balances": [("900", None, "users", "900")]}
    ),
    "user taken away": Mutant(
        "DELETE FROM users WHERE id = 900",
        {
            "balances": [(None, None, "user_deposits", "account_900")],
            "foreign_keys": [_transaction(None, "bots")],
        },
        shared=True,
    ),
    "amount beyond everything": Mutant(
        "UPDATE deposit_transactions SET amount = 9223372036854775807 WHERE id = {bots}",
        {"balances": [("900", None, "user_deposits", "account_900")]},
    ),
    "amount edited": Mutant(
        "UPDATE deposit_transactions SET amount = amount + 1 WHERE id = {debit}",
        {
            "balances": [("100", None, "user_deposits", "account_100")],
            "versions": _DEBIT,
            "audit_of_movements": _DEBIT,
        },
        shared=True,
    ),
    **{
        f"amount that is {name}": Mutant(
            f"UPDATE deposit_transactions SET amount = {value} WHERE id = {{change}}",
            {
                "balances": [("100", None, "user_deposits", "account_100")],
                "versions": [_transaction("100", "change")],
                "audit_of_movements": [_transaction("100", "change")],
            },
        )
        for name, value in (("text", "'x'"), ("bytes", "X'78'"))
    },
    "direction turned": Mutant(
        "UPDATE deposit_transactions SET direction = 'credit' WHERE id = {debit}",
        {"balances": [("100", None, "user_deposits", "account_100")], "versions": _DEBIT},
        shared=True,
    ),
    "balances of a row moved": Mutant(
        "UPDATE deposit_transactions SET balance_before = balance_before + 1, balance_after = balance_after + 1"
        " WHERE id = {debit}",
        {"versions": [*_DEBIT, _transaction("100", "change")], "audit_of_movements": _DEBIT},
        shared=True,
    ),
    "transaction taken away": Mutant(
        "DELETE FROM deposit_transactions WHERE id = {debit}",
        {
            "balances": [("100", None, "user_deposits", "account_100")],
            "versions": [_transaction("100", "change")],
            "audit_of_movements": [("100", "debit", "audit_logs", "told_debit")],
        },
        shared=True,
    ),
    "version that is text": Mutant(
        "UPDATE deposit_transactions SET version = 'x' WHERE id = {change}",
        {
            "versions": [
                ("100", None, "user_deposits", "account_100"),
                _transaction("100", "change"),
            ],
            "audit_of_movements": [_transaction("100", "change")],
        },
    ),
    "history slipped in before version 1": Mutant(
        "INSERT INTO deposit_transactions (id, user_id, type, amount, status) SELECT 5000, user_id, 'deposit', 1,"
        " 'confirmed' FROM user_deposits WHERE id = {account_100}",
        {check: [("100", None, "user_deposits", "account_100")] for check in ("balances", "versions")},
        shared=True,
    ),
    "account ahead of its transactions": Mutant(
        "UPDATE user_deposits SET version = version + 1 WHERE id = {account_100}",
        {"versions": [("100", None, "user_deposits", "account_100")]},
        shared=True,
    ),
    "audit row taken away": Mutant(
        "DELETE FROM audit_logs WHERE id = {told_debit}", {"audit_of_movements": _DEBIT}, shared=True
    ),
    "audit row doubled": Mutant(_TOLD_TWICE + "{told_debit}", {"audit_of_movements": _DEBIT}, shared=True),
    **{
        f"audit row says another {name}": Mutant(
            f"UPDATE audit_logs SET details = json_set(details, '$.{name}', 77) WHERE id = {{told_debit}}",
            {"audit_of_movements": _DEBIT},
        )
        for name in ("amount", "balance_before", "balance_after", "version")
    },
    "audit row of another user": Mutant(
        "UPDATE audit_logs SET user_id = {user_400} WHERE id = {told_debit}", {"audit_of_movements": _DEBIT}
    ),
    "audit row without JSON": Mutant(
        "UPDATE audit_logs SET details = 'gone' WHERE id = {told_debit}", {"audit_of_movements": _DEBIT}
    ),
    "audit row of a movement that never was": Mutant(
        _forged("balance_debited", "deposit_transaction", "999999"),
        {"audit_of_movements": [("100", "999999", "audit_logs", "told_next")]},
        shared=True,
    ),
    "audit row of a movement that was not yet": Mutant(
        _forged("deposit_confirmed", "deposit_transaction", "{pending}"),
        {"audit_of_movements": [_transaction("400", "pending")]},
        shared=True,
    ),
    "audit row of a domain taken away": Mutant(
        "DELETE FROM audit_logs WHERE id = {told_a}",
        {
            "audit_of_movements": [_transaction("200", "payment_a")],
            "audit_of_domain_purchases": [("200", "payment_a", "user_domains", "purchase_a")],
        },
        shared=True,
    ),
    "audit row of a domain doubled": Mutant(
        _TOLD_TWICE + "{told_a}",
        {
            "audit_of_movements": [_transaction("200", "payment_a")],
            "audit_of_domain_purchases": [("200", "payment_a", "user_domains", "purchase_a")],
        },
        shared=True,
    ),
    "audit row of a domain says another price": Mutant(
        "UPDATE audit_logs SET details = json_set(details, '$.price', 1) WHERE id = {told_a}",
        {"audit_of_movements": [("200", "payment_a", "audit_logs", "told_a")]},
    ),
    "audit row of a domain that never was": Mutant(
        _forged("domain_expired", "user_domains", "999999"),
        {"audit_of_domain_purchases": [("100", None, "audit_logs", "told_next")]},
    ),
    **{
        f"audit row {action} taken away": Mutant(
            f"DELETE FROM audit_logs WHERE action = 'deposit_{action}' AND resource_id = {{{name}}}",
            {"audit_of_deposits": [_transaction("400", name)]},
        )
        for action, name in (("announced", "pending"), ("cancelled", "cancelled"), ("expired", "expired"))
    },
    **{
        f"audit row {action} of a pending deposit": Mutant(
            _forged(f"deposit_{action}", "deposit_transaction", "{pending}"),
            {"audit_of_deposits": [_transaction("400", "pending")]},
        )
        for action in ("announced", "cancelled", "expired")
    },
    "audit row of a deposit that never was": Mutant(
        _forged("deposit_announced", "deposit_transaction", "999999"),
        {"audit_of_deposits": [("100", "999999", "audit_logs", "told_next")]},
    ),
    **{
        f"pending deposit with another {column}": Mutant(
            f"UPDATE deposit_transactions SET {column} = {value} WHERE id = {{pending}}",
            {"audit_of_deposits": [(telegram_id, "pending", "deposit_transactions", "pending")]},
        )
        for column, value, telegram_id in (
            ("amount", "600000", "400"),
            ("depositor_name", "'z'", "400"),
            ("user_id", "900", "900"),
        )
    },
    "deposit cancelled in silence": Mutant(
        "UPDATE deposit_transactions SET status = 'cancelled' WHERE id = {pending}",
        {"audit_of_deposits": [_transaction("400", "pending")]},
    ),
    "key made in silence": Mutant(
        "DELETE FROM audit_logs WHERE action = 'api_key_created' AND resource_id = {key_live}",
        {"audit_of_api_keys": [(None, None, "api_keys", "key_live")]},
    ),
    "key live again": Mutant(
        "UPDATE api_keys SET revoked_at = NULL WHERE id = {key_gone}",
        {"audit_of_api_keys": [(None, None, "api_keys", "key_gone")]},
    ),
    "audit row of a key that never was": Mutant(
        _forged("api_key_created", "api_key", "999999"),
        {"audit_of_api_keys": [("100", None, "audit_logs", "told_next")]},
    ),
    "audit row of a user that never was": Mutant(
        _forged("user_created", "user", "999999"), {"audit_of_users": [("100", None, "audit_logs", "told_next")]}
    ),
    "user made twice": Mutant(
        _TOLD_TWICE + "(SELECT id FROM audit_logs WHERE action = 'user_created' AND telegram_id = '400')",
        {"audit_of_users": [("400", None, "users", "user_400")]},
    ),
    "bank notification that nobody heard of": Mutant(
        "DELETE FROM audit_logs WHERE action = 'bank_notification_received' AND resource_id = {bank_waiting}",
        {"audit_of_bank_notifications": [(None, None, "bank_notifications", "bank_waiting")]},
    ),
    **{
        f"waiting bank notification with another {column}": Mutant(
            f"UPDATE bank_notifications SET {column} = {value} WHERE id = {{bank_waiting}}",
            {"audit_of_bank_notifications": [(None, None, "bank_notifications", "bank_waiting")]},
        )
        for column, value in (("amount", "5000000"), ("depositor_name", "'z'"), ("bank_transaction_id", "'b6'"))
    },
    "match that nobody heard of": Mutant(
        "DELETE FROM audit_logs WHERE action = 'bank_notification_matched' AND resource_id = {bank_late}",
        {"audit_of_bank_notifications": [(None, "late", "bank_notifications", "bank_late")]},
    ),
    "audit row of a bank notification that never was": Mutant(
        _forged("bank_notification_received", "bank_notification", "999999"),
        {"audit_of_bank_notifications": [("100", None, "audit_logs", "told_next")]},
    ),
    "bank notification of another amount": Mutant(
        "UPDATE bank_notifications SET amount = 601 WHERE id = {bank_auto}",
        {
            "audit_of_bank_notifications": [(None, "auto", "bank_notifications", "bank_auto")],
            "bank_notifications": [("400", "auto", "bank_notifications", "bank_auto")],
        },
    ),
    "bank notification matched by itself with a name that it cannot mean": Mutant(
        "UPDATE bank_notifications SET depositor_name = 'autos', match_name = 'autos' WHERE id = {bank_auto}",
        {
            "audit_of_bank_notifications": [(None, "auto", "bank_notifications", "bank_auto")],
            "bank_notifications": [("400", "auto", "bank_notifications", "bank_auto")],
        },
    ),
    "matched without a deposit": Mutant(
        "UPDATE bank_notifications SET status = 'matched' WHERE id = {bank_waiting}",
        {"bank_notifications": [(None, None, "bank_notifications", "bank_waiting")]},
    ),
    "matched with a pending deposit": Mutant(
        "UPDATE bank_notifications SET matched_transaction_id = {pending} WHERE id = {bank_auto}",
        {"bank_notifications": [_transaction("400", "auto"), ("400", "pending", "bank_notifications", "bank_auto")]},
    ),
    "deposit matched twice": Mutant(
        "UPDATE bank_notifications SET matched_transaction_id = {auto} WHERE id = {bank_late}",
        {
            "bank_notifications": [
                _transaction("400", "late"),
                ("400", "auto", "bank_notifications", "bank_auto"),
                ("400", "auto", "bank_notifications", "bank_late"),
            ]
        },
    ),
    "audit row names another bank notification": Mutant(
        "UPDATE audit_logs SET details = json_set(details, '$.matched_bank_notification_id', {bank_late})"
        " WHERE action = 'deposit_confirmed' AND resource_id = {auto}",
        {"bank_notifications": [_transaction("400", "auto")]},
    ),
    "reversal of another user's": Mutant(
        "UPDATE deposit_transactions SET reverses_id = {credit} WHERE id = {reversal}",
        {"reversals": [_transaction("300", "reversal")]},
        shared=True,
    ),
    "reversal of nothing": Mutant(
        "UPDATE deposit_transactions SET reverses_id = 999999 WHERE id = {reversal}",
        {"reversals": [_transaction("300", "reversal")]},
        shared=True,
    ),
    "purchase of another price": Mutant(
        "UPDATE user_domains SET price = 1 WHERE id = {purchase_a}",
        {"domain_purchases": [("200", "payment_a", "user_domains", "purchase_a")]},
        shared=True,
    ),
    "purchase that another paid for": Mutant(
        "UPDATE user_domains SET user_id = {user_400} WHERE id = {purchase_b}",
        {"domain_purchases": [_transaction("200", "payment_b"), ("400", "payment_b", "user_domains", "purchase_b")]},
        shared=True,
    ),
    "purchase that nobody paid for": Mutant(
        "UPDATE user_domains SET transaction_id = 999999 WHERE id = {purchase_b}",
        {
            "audit_of_movements": [("200", "payment_b", "audit_logs", "told_b")],
            "domain_purchases": [
                _transaction("200", "payment_b"),
                ("200", "999999", "user_domains", "purchase_b"),
            ],
        },
        shared=True,
    ),
    "purchase given up for nothing": Mutant(
        "UPDATE user_domains SET status = 'released' WHERE id = {purchase_d}",
        {
            "audit_of_domain_purchases": [("200", "payment_d", "user_domains", "purchase_d")],
            "domain_purchases": [("200", "payment_d", "user_domains", "purchase_d")],
        },
        shared=True,
    ),
    "purchase live again": Mutant(
        "UPDATE user_domains SET status = 'registered' WHERE id = {purchase_c}",
        {
            "audit_of_domain_purchases": [("200", "payment_c", "user_domains", "purchase_c")],
            "domain_purchases": [
                _transaction("200", "refund"),
                ("200", "payment_c", "user_domains", "purchase_c"),
            ],
        },
        shared=True,
    ),
    "purchase paid with what is no payment": Mutant(
        "UPDATE deposit_transactions SET type = 'debit' WHERE id = {payment_a}",
        {
            "audit_of_movements": [_transaction("200", "payment_a"), ("200", "payment_a", "audit_logs", "told_a")],
            "domain_purchases": [("200", "payment_a", "user_domains", "purchase_a")],
        },
        shared=True,
    ),
    "two purchases with one payment": Mutant(
        "UPDATE user_domains SET transaction_id = {payment_a} WHERE id = {purchase_b}",
        {
            "audit_of_movements": [("200", "payment_b", "audit_logs", "told_b")],
            "domain_purchases": [
                _transaction("200", "payment_b"),
                ("200", "payment_a", "user_domains", "purchase_a"),
                ("200", "payment_a", "user_domains", "purchase_b"),
            ],
        },
        shared=True,
    ),
    "refund of nothing": Mutant(
        "UPDATE deposit_transactions SET reverses_id = NULL WHERE id = {refund}",
        {
            "audit_of_movements": [("200", "refund", "audit_logs", "told_c")],
            "domain_purchases": [
                _transaction("200", "refund"),
                ("200", "payment_c", "user_domains", "purchase_c"),
            ],
        },
        shared=True,
    ),
    "held name whose payment is a credit": Mutant(
        "UPDATE deposit_transactions SET direction = 'credit' WHERE id = {payment_d}",
        {
            "balances": [("200", None, "user_deposits", "account_200")],
            "versions": [_transaction("200", "payment_d")],
            "domain_purchases": [("200", "payment_d", "user_domains", "purchase_d")],
        },
        shared=True,
    ),
    "reference of nothing": Mutant(
        "UPDATE balance_change_references SET transaction_id = 999999",
        {"foreign_keys": [(None, "999999", "balance_change_references", "reference")]},
        shared=True,
    ),
    "index taken away": Mutant("DROP INDEX idx_domains_live", {"schema": [(None, None, None, None)]}),
}
_NAMES["told_c"] = _told("domain_released", _NAMES["purchase_c"])
_NAMES["told_b"] = _told("domain_held", _NAMES["purchase_b"])


def _purchase(telegram_id: str, payment: str, name: str) -> Mapping[str, list[Place]]:
    return {"audit_of_domain_purchases": [(telegram_id, payment, "user_domains", name)]}


_AGAINST_THE_LOG: Mapping[str, Mapping[str, list[Place]]] = {
    "direction turned": {"audit_of_movements": _DEBIT},
    "audit row taken away": {"stored_answers": [(None, None, "idempotency_answers", "answer_debit")]},
    "audit row of a domain taken away": {"stored_answers": [(None, None, "idempotency_answers", "answer_a")]},
    "audit row of a domain says another price": _purchase("200", "payment_a", "purchase_a"),
    "reversal of another user's": {"audit_of_movements": [_transaction("300", "reversal")]},
    "reversal of nothing": {"audit_of_movements": [_transaction("300", "reversal")]},
    "purchase of another price": _purchase("200", "payment_a", "purchase_a"),
    "purchase that another paid for": _purchase("400", "payment_b", "purchase_b"),
    "purchase that nobody paid for": _purchase("200", "999999", "purchase_b"),
    "two purchases with one payment": _purchase("200", "payment_a", "purchase_b"),
    "reference of nothing": {"references": [_transaction("100", "change")]},
}
"""What is named besides, since it is not what the audit log tells."""
for _name, _also in _AGAINST_THE_LOG.items():
    MUTANTS[_name] = replace(MUTANTS[_name], named={**MUTANTS[_name].named, **_also})


def expected(mutant: Mutant, ids: Mapping[str, int]) -> dict[str, list[tuple[object, ...]]]:
    """What each check must name, with the ids themselves."""

    def number(name: str | None) -> int | None:
        return None if name is None else int(name) if name.isdecimal() else ids[name]

    return {
        check: [(telegram_id, number(transaction), table, number(row)) for telegram_id, transaction, table, row in rows]
        for check, rows in mutant.named.items()
    }
