"""`python -m tests.benchmarks.migrate [USERS] [TRANSACTIONS] [FOLDER]`: the time, memory and disk of `migrate up`.

Builds the bot's database as it stood before 001 (one million users and five million transactions unless told), with
some rows of every kind that a migration treats differently, and runs `passbook migrate up` on it as a person would.
The guide promises less than a minute for a typical data set. What was built is deleted afterwards.
"""

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from service import resources
from service.storage import migrator
from tests.live import CHECKOUT, PASSBOOK

_MADE = "datetime('2026-01-01', (i % 1600000) || ' seconds')"
_STATEMENTS = (
    f"INSERT INTO users (id, telegram_id, username, created_at) SELECT i, 1000000 + i, 'user' || i, {_MADE} FROM n",
    # One balance in a thousand is negative, and one in fifty is not the sum of its transactions.
    "INSERT INTO user_deposits (user_id, balance, created_at) SELECT i, iif(i % 1000, :each * 1000 + iif(i % 50, 0, 7),"
    f" -500), {_MADE} FROM n",
)
_TRANSACTIONS = (
    # One name in a thousand is too long; every tenth deposit is still pending.
    "INSERT INTO deposit_transactions (user_id, type, amount, status, depositor_name, confirmed_at, created_at)"
    " SELECT i % :users + 1, 'deposit', 1000, iif(i % 10, 'confirmed', 'pending'),"
    f" iif(i % 1000, '홍길동', printf('%.60c', '가')), iif(i % 10, {_MADE}, NULL), {_MADE} FROM n",
    "INSERT INTO bank_notifications (bank_name, depositor_name, amount, matched_transaction_id, raw_message,"
    f" created_at) SELECT '은행', '홍길동', 1000, i, '[입금] 1,000원 홍길동', {_MADE} FROM n WHERE i % 10",
)


def build(database: Path, users: int, transactions: int) -> None:
    """The bot's database: 000 and its rows, in one transaction."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -262144")
    connection.execute("BEGIN")
    tables = list(migrator.statements(migrator.load(resources.folder("migrations"))[0].up))
    for statement in tables:
        if "CREATE TABLE" in statement:
            connection.execute(statement)
    given = {"users": users, "each": transactions // users}
    for count, statements in ((users, _STATEMENTS), (transactions, _TRANSACTIONS)):
        counted = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {count}) "
        for statement in statements:
            into, select = statement.split(" SELECT ", 1)
            used = {name: value for name, value in given.items() if f":{name}" in statement}
            connection.execute(f"{into} {counted} SELECT {select}", used)
    for statement in tables:
        if "CREATE TABLE" not in statement:
            connection.execute(statement)
    connection.execute("COMMIT")
    connection.close()


class _DiskUse(threading.Thread):
    """Asks every tenth of a second how much the files of a folder take; `most` is the greatest answer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._done = threading.Event()
        self.most: dict[str, int] = {}

    def run(self) -> None:
        while not self._done.wait(0.1):
            now = {}
            for path in self._folder.iterdir():
                try:
                    now[path.name] = path.stat().st_blocks * 512
                except FileNotFoundError:
                    continue
            if sum(now.values()) > sum(self.most.values()):
                self.most = now

    def stop(self) -> None:
        """Ends it."""
        self._done.set()
        self.join()


def measure(database: Path, *arguments: str) -> None:
    """One run; every line of it with the seconds since the start, then memory, processor time and disk."""
    before = database.stat().st_size
    disk = _DiskUse(database.parent)
    disk.start()
    began = time.monotonic()
    process = subprocess.Popen(
        [*PASSBOOK, "migrate", *arguments, "--database", str(database)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{time.monotonic() - began:8.1f} s  {line}", end="", flush=True)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    took = time.monotonic() - began
    disk.stop()
    mib = 2**20
    print(
        f"migrate {' '.join(arguments)}: exit code {process.returncode}, {took:.1f} s,"
        f" {usage.ru_maxrss / 1024:.0f} MiB of memory at most, {usage.ru_utime + usage.ru_stime:.1f} s of processor"
        f" time; the file {before / mib:,.0f} -> {database.stat().st_size / mib:,.0f} MiB; disk at most"
        f" {sum(disk.most.values()) / mib:,.0f} MiB ("
        + ", ".join(f"{name} {size / mib:,.0f}" for name, size in sorted(disk.most.items()))
        + ")"
    )


def main() -> None:
    """Builds, measures `up` and then `plan`, `verify` and `down`, deletes."""
    users, transactions = (int(text) for text in (sys.argv[1:3] + ["1000000", "5000000"][len(sys.argv[1:3]) :]))
    with tempfile.TemporaryDirectory(dir=sys.argv[3] if len(sys.argv) > 3 else None) as folder:
        database = Path(folder) / "bot.db"
        began = time.monotonic()
        # In a process of its own: a child's greatest memory begins with what its parent holds when it starts it.
        builder = multiprocessing.Process(target=build, args=(database, users, transactions))
        builder.start()
        builder.join()
        assert builder.exitcode == 0
        print(f"built {database.stat().st_size / 2**20:,.0f} MiB in {time.monotonic() - began:.0f} s", flush=True)
        for arguments in (("plan",), ("up",), ("verify",), ("down", "--to", "0", "--yes")):
            measure(database, *arguments)


if __name__ == "__main__":
    main()
