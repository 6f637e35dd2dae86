"""How long a page of the audit log takes in a log of any length: `python -m tests.benchmarks.audit_pages [ROWS …]`.

Makes a log of each size (10,000, 1,000,000 and 10,000,000 rows unless given), serves it, asks for pages by each filter
over HTTP, at the newest end and in the middle by turns, and reads it whole. Needs some 500 bytes of disk a row.
"""

import http.client
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from urllib.parse import urlencode, urlsplit

from service.ledger.access import RANDOM_BYTES, ROLES
from service.ledger.timestamps import stored, system_clock
from service.repository import api_keys
from service.storage import audit_chain, sqlite
from service.storage.sqlite import Connection
from tests.live import LiveService
from tests.repository.house import make_database, writing

SIZES = (10_000, 1_000_000, 10_000_000)
REQUESTS = 200
SPACING_S = 3
"""Seconds between two rows: ten millions are a year."""
FIRST_SECOND = 1_700_000_000

_INSERT = """
INSERT INTO audit_logs (id, user_id, telegram_id, action, resource_type, resource_id, details, ip_address, user_agent,
  created_at, actor, request_id, key_prefix, outcome)
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows),
rows(i, user, kind) AS (SELECT i, (i * 2654435761) % (:rows / 40 + 2), (i * 40503) % 200 FROM n)
SELECT i, user, CAST(100000 + iif(i % 49 = 0, 0, user) AS TEXT),
  CASE WHEN kind < 60 THEN 'deposit_announced' WHEN kind < 115 THEN 'deposit_confirmed'
    WHEN kind < 150 THEN 'balance_debited' WHEN kind < 165 THEN 'balance_credited'
    WHEN kind < 170 THEN 'deposit_expired'
    WHEN kind < 175 THEN 'deposit_cancelled' WHEN kind < 180 THEN 'bank_notification_received'
    WHEN kind < 182 THEN 'domain_held' WHEN kind < 184 THEN 'domain_registered' WHEN kind < 186 THEN 'user_created'
    WHEN kind < 188 THEN 'transaction_reversed' WHEN kind < 192 THEN 'login'
    WHEN kind < 196 THEN 'debit_failed' WHEN kind < 198 THEN 'deposit_confirm_failed' ELSE 'login_failed' END,
  iif(kind BETWEEN 180 AND 183, 'user_domains', 'deposit_transaction'), i / 2,
  '{"amount":5000,"reason":"domain renewal","reference":null,"balance_before":15000,"balance_after":10000,"version":3}',
  '203.0.113.7', 'python-httpx/0.28.1', strftime('%Y-%m-%d %H:%M:%S.000', :second + i * :spacing, 'unixepoch'),
  iif(i % 1000 = 0, 'night-watch', iif(i % 3 = 0, 'bank-watcher', 'telegram-bot')),
  printf('%012x%020x', (:second + i * :spacing) * 1000, i / 2), 'pbk_3fJ9a2Qx', iif(kind < 192, 'success', 'failure')
FROM rows
"""


def fill(connection: Connection, rows: int) -> None:
    """`rows` sealed rows with ids from 1, about rows / 40 users."""
    made = connection.execute(
        "SELECT type, name, sql FROM sqlite_master"
        " WHERE tbl_name = 'audit_logs' AND type <> 'table' AND sql IS NOT NULL"
    ).fetchall()
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -262144")
    with sqlite.transaction(connection) as tx:
        for kind, name, _ in made:
            tx.execute(f"DROP {kind} {name}")
        with audit_chain.sealing(tx):
            tx.execute(_INSERT, {"rows": rows, "second": FIRST_SECOND, "spacing": SPACING_S})
            for _, _, sql in made:
                tx.execute(sql)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def day(rows: int, at: float) -> str:
    """The day at that part of the log."""
    return time.strftime("%Y-%m-%d", time.gmtime(FIRST_SECOND + rows * at * SPACING_S))


def filters(rows: int) -> dict[str, dict[str, str]]:
    """Name -> query."""
    middle = rows // 2
    return {
        "none": {},
        "oldest first": {"order": "oldest"},
        "telegram_id, 40 rows": {"telegram_id": "100001"},
        "telegram_id, 2 % of the log": {"telegram_id": "100000"},
        "action, 1 %": {"action": "domain_held"},
        "action, 30 %": {"action": "deposit_announced"},
        "action=*_failed": {"action": "*_failed"},
        "action=deposit_*": {"action": "deposit_*"},
        "outcome=failure": {"outcome": "failure"},
        "outcome=success": {"outcome": "success"},
        "resource_type": {"resource_type": "user_domains"},
        "resource_type and resource_id": {"resource_type": "deposit_transaction", "resource_id": str(middle)},
        "resource_id": {"resource_id": str(middle // 2)},
        "actor, 0.1 %": {"actor": "night-watch"},
        "request_id": {"request_id": f"{(FIRST_SECOND + 2 * (middle // 2) * SPACING_S) * 1000:012x}{middle // 2:020x}"},
        "on, a day in Seoul": {"on": day(rows, 0.5), "tz": "Asia/Seoul"},
        "since": {"since": day(rows, 0.4)},
        "until, oldest first": {"until": day(rows, 0.6), "order": "oldest"},
        "telegram_id 2 % and *_failed": {"telegram_id": "100000", "action": "*_failed"},
        "actor and a day": {"actor": "telegram-bot", "on": day(rows, 0.5)},
        "telegram_id 40 rows, action and a year": {
            "telegram_id": "100001",
            "action": "deposit_confirmed",
            "since": day(rows, 0.0),
        },
        "two of many rows that never meet": {"resource_type": "user_domains", "action": "deposit_announced"},
    }


def measure(ask: Callable[[dict[str, str]], float], query: dict[str, str], rows: int) -> tuple[float, float, float]:
    """Least, median and 99th percentile in ms, the first request left out."""
    chance = random.Random(1)
    ask(query)
    taken = []
    for number in range(REQUESTS):
        cursor = {"cursor": f"{query.get('order', 'newest')[0]}{chance.randrange(1, rows)}"} if number % 2 else {}
        taken.append(ask({**query, **cursor}) * 1000)
    taken.sort()
    return taken[0], median(taken), taken[int(len(taken) * 0.99) - 1]


def run(folder: Path, rows: int) -> None:
    """One size: prints its lines."""
    path = make_database(folder / f"{rows}.db")
    began = time.monotonic()
    with writing(path) as connection:
        fill(connection, rows)
        key = api_keys.create(
            connection,
            name="benchmark",
            scopes=ROLES["ops"],
            actor="benchmark",
            now=stored(system_clock()),
            random_bytes=os.urandom(RANDOM_BYTES),
        )
    size = path.stat().st_size / 2**20
    print(
        f"\n{rows:,} rows, {size:,.0f} MiB, made in {time.monotonic() - began:.0f} s; SQLite {sqlite.SQLITE_VERSION}\n"
    )
    print("| filter | min ms | median ms | p99 ms |\n|---|---|---|---|")
    service = LiveService(path, admin_key=key).start()
    assert service.process is not None
    try:
        with closing(http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=60)) as http_connection:

            def get(query: dict[str, str], accept: str) -> http.client.HTTPResponse:
                headers = {"Authorization": f"Bearer {key}", "Accept": accept}
                http_connection.request("GET", f"/v1/audit-logs?{urlencode(query)}", headers=headers)
                return http_connection.getresponse()

            def ask(query: dict[str, str]) -> float:
                sent = time.perf_counter()
                answer = get(query, "application/json")
                body = answer.read()
                assert answer.status == 200, body
                return time.perf_counter() - sent

            for name, query in filters(rows).items():
                print("| {} | {:.1f} | {:.1f} | {:.1f} |".format(name, *measure(ask, query, rows)), flush=True)
            memory = Path(f"/proc/{service.process.pid}/status")
            for accept in ("application/x-ndjson", "text/csv"):
                began, lines, count = time.monotonic(), 0, 0
                answer = get({}, accept)
                while chunk := answer.read(2**20):
                    lines += chunk.count(b"\n")
                    count += len(chunk)
                took = time.monotonic() - began
                peak = int(memory.read_text().partition("VmHWM:")[2].split()[0]) / 1024
                print(
                    f"\n{accept}: {lines:,} lines, {count / 2**20:,.0f} MiB in {took:.1f} s,"
                    f" {lines / took:,.0f} rows/s; the service's peak of memory {peak:.0f} MiB"
                )
    finally:
        service.stop()


def main() -> None:
    """All sizes, one after the other, in a temporary folder."""
    for rows in [int(size.replace(",", "").replace("_", "")) for size in sys.argv[1:]] or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder), rows)


if __name__ == "__main__":
    main()
