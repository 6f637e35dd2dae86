"""`python -m tests.benchmarks.integrity [TRANSACTIONS] [FOLDER]`: what the proofs of the ledger and of the log take.

Builds a sound database of that many transactions (one million unless told), written as the service would have left
them: every user's movements lie far apart in the file, deposits are announced, notified by the bank and confirmed,
every tenth movement pays for a domain name; each movement has a stored answer. The
database is kept in FOLDER when one is given, and used again.
"""

import contextlib
import json
import multiprocessing
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from service import resources
from service.storage import migrator, sqlite
from tests.live import CHECKOUT, PASSBOOK, passbook

MOVEMENTS_OF_A_USER = 50
AT_ONCE_MAX = 10_000
"""So many are announced, then all of them are moved: created_at goes back by a quarter of an hour at most."""
INDEXED_FROM = 0.6
"""From this part of the rows on the indexes grow row by row, until about a sixth of each page is free, as in a ledger
that has been written to. One made of all rows at once is full to the brim, and splits a page with every write."""

_MADE = "strftime('%Y-%m-%d %H:%M:%f', '2026-01-01', (i / 10) || ' seconds')"
_AUDIT = (
    "INSERT INTO audit_logs (user_id, telegram_id, action, resource_type, resource_id, details, ip_address,"
    " user_agent, created_at, actor, request_id) SELECT"
)
_BY = f"'127.0.0.1', 'bench/1.0', {_MADE}, 'bench', printf('req-%020d', i)"
_STATEMENTS = (
    # i counts from 0 over all users in turn; v is the user's version. Odd ones bring 1,000, even ones take 400.
    "CREATE TEMP TABLE plan AS WITH RECURSIVE n(i) AS (SELECT :low UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :high)"
    " SELECT i, i + 1 AS id, i % :users + 1 AS user, CAST(1000000 + i % :users AS TEXT) AS telegram_id,"
    " i / :users + 1 AS v, 600 * (i / :users / 2) + 1000 * (i / :users % 2) AS before,"
    " iif(i / :users % 2, -400, 1000) AS moved FROM n",
    "INSERT INTO deposit_transactions (id, user_id, type, direction, amount, status, depositor_name, description,"
    " created_at, confirmed_at, balance_before, balance_after, version, match_name) SELECT id, user,"
    " iif(moved > 0, 'deposit', iif(v % 10, 'debit', 'domain_purchase')), iif(moved > 0, 'credit', 'debit'),"
    " abs(moved), 'confirmed', iif(moved > 0, '홍길동', NULL), iif(moved > 0, NULL,"
    " iif(v % 10, 'a reason of the usual length', 'name-' || id || '.kr')),"
    f" {_MADE}, {_MADE}, before, before + moved, v, iif(moved > 0, '홍길동', NULL) FROM plan",
    "INSERT INTO user_domains (id, user_id, domain, status, price, registered_at, created_at, ascii_name,"
    f" transaction_id) SELECT id, user, 'name-' || id || '.kr', 'registered', 400, {_MADE}, {_MADE},"
    " 'name-' || id || '.kr', id FROM plan WHERE v % 10 = 0",
    "INSERT INTO bank_notifications (id, bank_name, depositor_name, amount, transaction_time, matched_transaction_id,"
    " created_at, bank_transaction_id, match_name, status, match_method, matched_by, matched_at) SELECT id, '은행',"
    f" '홍길동', 1000, {_MADE}, id, {_MADE}, 'bank-' || id, '홍길동', 'matched', 'automatic', 'bench', {_MADE}"
    " FROM plan WHERE moved > 0",
    f"{_AUDIT} user, telegram_id, 'deposit_announced', 'deposit_transaction', id,"
    f" json_object('amount', moved, 'depositor_name', '홍길동'), {_BY} FROM plan WHERE moved > 0",
    f"{_AUDIT} user, telegram_id, iif(moved > 0, 'deposit_confirmed', 'balance_debited'), 'deposit_transaction', id,"
    " iif(moved > 0, json_object('amount', moved, 'depositor_name', '홍길동', 'matched_bank_notification_id', id,"
    " 'balance_before', before, 'balance_after', before + moved, 'version', v, 'late', json('false'), 'note', NULL),"
    " json_object('amount', -moved, 'reason', 'a reason of the usual length', 'reference', NULL,"
    f" 'balance_before', before, 'balance_after', before + moved, 'version', v)), {_BY} FROM plan WHERE v % 10",
    f"{_AUDIT} user, telegram_id, 'domain_registered', 'user_domains', id,"
    " json_object('domain', 'name-' || id || '.kr',"
    " 'price', 400, 'balance_before', before, 'balance_after', before + moved, 'version', v, 'transaction_id', id),"
    f" {_BY} FROM plan WHERE v % 10 = 0",
    f"{_AUDIT} user, telegram_id, 'bank_notification_received', 'bank_notification', id,"
    " json_object('bank_transaction_id', 'bank-' || id, 'depositor_name', '홍길동', 'amount', moved,"
    f" 'status', 'matched', 'matched_deposit_id', id), {_BY}"
    " FROM plan WHERE moved > 0",
    "INSERT INTO idempotency_answers (actor, idempotency_key, operation, request, status, body, location, created_at)"
    " SELECT 'bench', lower(hex(randomblob(16))), 'POST /v1/debits', json_object('telegram_id', telegram_id,"
    " 'amount', abs(moved), 'reason', 'a reason of the usual length'), 201, CAST(json_object('id', id, 'telegram_id',"
    " telegram_id, 'type', 'debit', 'direction', 'debit', 'amount', abs(moved), 'reason',"
    f" 'a reason of the usual length', 'reference', NULL, 'status', 'confirmed', 'created_at', {_MADE}, 'confirmed_at',"
    f" {_MADE}, 'balance_before', before, 'balance_after', before + moved, 'version', v, 'audit_log_id', id) AS BLOB),"
    " '/v1/transactions/' || id,"
    f" {_MADE} FROM plan",
    "DROP TABLE plan",
)


def _without_notifications() -> tuple[str, ...]:
    """The statements for deposits that were confirmed by hand: three rows of the audit log for two transactions."""
    kept = (one for one in _STATEMENTS if "bank_notification" not in one.partition("SELECT")[0])
    kept = (one for one in kept if "'bank_notification_received'" not in one)
    return tuple(
        one.replace("'matched_bank_notification_id', id", "'matched_bank_notification_id', NULL") for one in kept
    )


def build(database: Path, transactions: int, *, notifications: bool = True) -> None:
    """Makes the database. The triggers are away meanwhile: one statement for many rows cannot go through them."""
    at_once = min(AT_ONCE_MAX, max(1, transactions // 10))
    statements = _STATEMENTS if notifications else _without_notifications()
    made = passbook("migrate", "up", "--database", str(database))
    assert made.returncode == 0, made.stderr
    users = max(1, transactions // MOVEMENTS_OF_A_USER)
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -2097152")
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql <> ''").fetchall()
    connection.execute("BEGIN")
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)"
        " INSERT INTO users (id, telegram_id) SELECT i + 1, CAST(1000000 + i AS TEXT) FROM n",
        (users,),
    )
    for low in range(0, transactions, at_once):
        if indexes and low >= INDEXED_FROM * transactions:
            for _, sql in indexes:
                connection.execute(sql)
            indexes.clear()
        given = {"low": low, "high": min(low + at_once, transactions), "users": users}
        for statement in statements:
            connection.execute(statement, {name: given[name] for name in given if f":{name}" in statement})
    connection.execute(
        "INSERT INTO user_deposits (user_id, balance, version) SELECT user_id, SUM(iif(direction = 'credit', amount,"
        " -amount)), MAX(version) FROM deposit_transactions GROUP BY user_id"
    )
    for _, sql in (*indexes, *triggers):
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    with contextlib.closing(sqlite.connect_writer(database, busy_timeout_ms=0, checkpoints=True)) as writer:
        began = time.monotonic()
        migrator.up(writer, migrator.load(resources.folder("migrations")), print)
        print(f"sealed in {time.monotonic() - began:.0f} s")


def measure(database: Path, *command: str) -> None:
    """One run of the command; prints seconds, rows per second and the greatest memory."""
    began = time.monotonic()
    read_end, write_end = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [*PASSBOOK, *command, "--json", "--database", str(database)],
        {**os.environ, "PYTHONPATH": str(CHECKOUT)},
        file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 1)],
    )
    os.close(write_end)
    with open(read_end, "rb") as output:
        answer = json.loads(output.read())
    _, status, usage = os.wait4(pid, 0)
    took = time.monotonic() - began
    assert os.waitstatus_to_exitcode(status) == 0, answer
    rows, processor = answer["checked"], usage.ru_utime + usage.ru_stime
    print(
        f"{' '.join(command)}: {took:.1f} s for {rows:,} rows: {rows / took:,.0f} rows per second, {processor:.1f} s of"
        f" processor time ({rows / processor:,.0f} rows per second of it), {usage.ru_maxrss / 1024:.0f} MiB at most"
    )


def main() -> None:
    """Builds what is not there, then measures with and without quick_check."""
    transactions = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as temporary:
        database = Path(sys.argv[2] if len(sys.argv) > 2 else temporary) / f"integrity-{transactions}.db"
        if not database.exists():
            began = time.monotonic()
            # In a process of its own: a child's greatest memory begins with what its parent holds when it starts it.
            builder = multiprocessing.Process(target=build, args=(database, transactions))
            builder.start()
            builder.join()
            assert builder.exitcode == 0
            print(f"built {database.stat().st_size / 2**20:,.0f} MiB in {time.monotonic() - began:.0f} s")
        for command in (("integrity", "--quick"), ("integrity",), ("audit", "verify")):
            measure(database, *command)


if __name__ == "__main__":
    main()
