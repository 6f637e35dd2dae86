"""A local Cloudflare D1 made by the real wrangler, and a bot's database in it.

What `wrangler d1 export NAME --local --output FILE` (4.86.0) writes, as seen:

- The first line is `PRAGMA defer_foreign_keys=TRUE;`. There is no BEGIN and no COMMIT. The last line has no newline.
- Then for each table, in the order of sqlite_master's rowid (a rebuilt table comes after those that were not, so a
  referenced table may follow the referring one): its CREATE TABLE as stored, over several lines, then one line
  `INSERT INTO "users" VALUES(1,'123456','testuser','2026-01-19 12:00:00');` for each row, no column names, in storage
  order. A table whose stored name is quoted is written `CREATE TABLE IF NOT EXISTS "name" ...`. Tables named `_cf_...`
  and `sqlite_...` are left out.
- Then `DELETE FROM sqlite_sequence;` and one `INSERT INTO "sqlite_sequence" VALUES('users',1);` for each row.
- Then indexes, triggers and views, as stored, each with `;`. `IF NOT EXISTS` is not kept by SQLite, so it is not there.
- Text is in single quotes, a quote is doubled, UTF-8 (emoji too) stands as it is. Text with a newline is written
  `replace('line one\\nline two','\\n',char(10))`, one with a carriage return `replace('...','\\r',char(13))`, one with
  both `replace(replace('...','\\r',char(13)),'\\n',char(10))`; so a row is always one line. A text that holds a real
  newline AND a backslash followed by n comes back with two newlines: the export itself is wrong about it.
- NULL is `NULL`, a blob `X'00ff'`. Numbers are JavaScript's: integers above 2^53 are rounded.
"""

import fcntl
import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.migrations import guide
from tests.some import some

REPOSITORY = Path(__file__).resolve().parents[2]
MIGRATIONS = REPOSITORY / "migrations"
WRANGLER = Path(__file__).parent / "wrangler"
DATABASE = "telegram-conversations"
COMMAND_TIMEOUT_S = 120

# Not resolved: a virtual environment's python is a link, and node and npm stand beside the link.
ENVIRONMENT_BIN = Path(sys.executable).parent


def installed_node_modules() -> Path:
    """The folder node_modules of the pinned wrangler; installed by `npm ci` once for each lock file.

    The only thing here that uses the network. Install scripts are not run: wrangler works without them.
    """
    lock = (WRANGLER / "package-lock.json").read_bytes()
    cache = REPOSITORY / ".cache" / "wrangler"
    folder = cache / hashlib.sha256(lock).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)  # two workers of pytest may ask at the same time
        if not folder.is_dir():
            _install(cache, folder)
    return folder / "node_modules"


def _install(cache: Path, folder: Path) -> None:
    # Installed beside and then renamed, so that an interrupted install is never taken for a whole one.
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(WRANGLER / name, fresh)
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=fresh,
            env={**os.environ, "PATH": f"{ENVIRONMENT_BIN}{os.pathsep}{os.environ['PATH']}"},
            check=True,
            capture_output=True,
            text=True,
        )
        fresh.rename(folder)


@dataclass(frozen=True)
class LocalD1:
    """A working folder like the bot's: package.json, wrangler.jsonc, node_modules, migrations/, and a local D1."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, node_modules: Path) -> "LocalD1":
        """Fill an empty or missing folder. The database itself is made by the first command."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "wrangler.jsonc"):
            shutil.copy(WRANGLER / name, folder)
        (folder / "node_modules").symlink_to(node_modules)
        shutil.copytree(MIGRATIONS, folder / "migrations")
        return cls(folder)

    def copy_to(self, folder: Path) -> "LocalD1":
        """The same folder with the same data in another place; cheaper than to run wrangler again."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return LocalD1(folder)

    @property
    def environment(self) -> Mapping[str, str]:
        """wrangler asks nobody, tells nobody and writes nowhere but into the folder."""
        path = (str(self.folder / "node_modules" / ".bin"), str(ENVIRONMENT_BIN), os.environ["PATH"])
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDFLARE_", "CF_"))}
        return kept | {
            "PATH": os.pathsep.join(path),
            "HOME": str(self.folder / ".home"),
            "XDG_CONFIG_HOME": str(self.folder / ".home" / ".config"),
            "WRANGLER_SEND_METRICS": "false",
            "CI": "1",
            "NO_COLOR": "1",
            # A start of wrangler costs seconds, some of which go into compiling it.
            "NODE_COMPILE_CACHE": str((self.folder / "node_modules").resolve().parent / "compile_cache"),
            # wrangler looks for a newer version of itself at each start: this port answers no.
            "npm_config_registry": "http://127.0.0.1:9/",
            "npm_config_update_notifier": "false",
        }

    def run_shell(self, command_text: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a person would type it in the folder; a failure is an answer, not an exception."""
        return subprocess.run(
            ["bash", "-c", command_text],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def _wrangler(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "node_modules" / ".bin" / "wrangler"), "d1", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def execute_command(self, sql: str) -> subprocess.CompletedProcess[str]:
        """`wrangler d1 execute --local --json --command SQL`."""
        return self._wrangler("execute", DATABASE, "--local", "--json", f"--command={sql}")

    def execute_file(self, path: Path) -> subprocess.CompletedProcess[str]:
        """`wrangler d1 execute --local --json --file PATH`; all of the file or, after an error, nothing of it."""
        return self._wrangler("execute", DATABASE, "--local", "--json", "--file", str(path))

    def export(self, path: Path) -> subprocess.CompletedProcess[str]:
        """`wrangler d1 export --local --output PATH`."""
        return self._wrangler("export", DATABASE, "--local", "--output", str(path))

    @property
    def database_file(self) -> Path:
        """The SQLite file in which wrangler keeps the local D1; to be read while no wrangler runs."""
        folder = self.folder / ".wrangler" / "state" / "v3" / "d1" / "miniflare-D1DatabaseObject"
        (file,) = (path for path in folder.glob("*.sqlite") if path.name != "metadata.sqlite")
        return file

    def read(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query, read out of the file: exact integers, and no two seconds for a start of wrangler."""
        connection = sqlite3.connect(self.database_file, isolation_level=None)
        try:
            connection.execute("PRAGMA query_only = ON")
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()


def results(process: subprocess.CompletedProcess[str]) -> list[list[dict[str, Any]]]:
    """The rows of each statement out of what `wrangler d1 execute` printed, with or without --json."""
    assert process.returncode == 0, process.stdout + process.stderr
    answers: list[dict[str, Any]] = json.loads(process.stdout[process.stdout.index("[\n") :])
    assert all(answer["success"] for answer in some(answers))
    return [answer["results"] for answer in answers]


def succeeded(process: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The same process, or an AssertionError with all that it printed."""
    assert process.returncode == 0, process.stdout + process.stderr
    return process


@dataclass(frozen=True)
class BotDatabase:
    """What `build_bot_database` put in. Money in won; ids as the database gave them."""

    export: Path
    row_counts: Mapping[str, int]
    transaction_counts: Mapping[tuple[str, str], int]
    """Number of deposit_transactions by (type, status)."""
    balances: Mapping[int, int]
    """user_deposits.balance by user_id, the negative one included."""
    history_sums: Mapping[int, int]
    """Confirmed deposits minus confirmed withdrawals by user_id, for every user."""
    mismatched_user_ids: frozenset[int]
    """Users with an account whose balance is not the sum of the history."""
    negative_account: tuple[int, int, int]
    """(id, user_id, balance) of the one account below zero."""
    long_name: tuple[int, str]
    """(transaction id, depositor_name) of the one name of 60 characters."""
    user_id_without_account: int
    texts_with_newline: Mapping[int, str]
    """raw_message by bank_notifications.id where it has a line feed; some have a carriage return as well."""
    usernames: Mapping[int, str | None]
    """users.username by id: Korean, emoji, quotes, NULL."""


SURNAMES = "김이박최정강조윤장임한오서신권황안송류홍"
GIVEN_NAMES = ("민준", "서연", "도윤", "서윤", "시우", "지우", "하준", "하은", "길동", "수아", "은별", "빛나", "솔")
BANKS = ("국민은행", "신한은행", "우리은행", "하나은행", "카카오뱅크", "토스뱅크", None)
FIRST_MOMENT = datetime(2025, 6, 1)
ROWS_PER_INSERT = 100
TABLES = ("users", "user_deposits", "deposit_transactions", "bank_notifications", "user_domains")


def sql_literal(value: str | int | None) -> str:
    """The value as SQL text; a newline stands in the literal as it is."""
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def insert_statements(table: str, columns: str, rows: list[tuple[str | int | None, ...]]) -> list[str]:
    """Statements well below D1's limit of 100 kB each."""
    statements = []
    for start in range(0, len(rows), ROWS_PER_INSERT):
        values = ",\n".join(
            "(" + ", ".join(sql_literal(value) for value in row) + ")" for row in rows[start : start + ROWS_PER_INSERT]
        )
        statements.append(f"INSERT INTO {table} ({columns}) VALUES\n{values};\n")
    return statements


def build_bot_database(d1: LocalD1, *, users: int, seed: int) -> BotDatabase:
    """Make the bot's database in an empty LocalD1 and export it with the real wrangler.

    000 by `npm run db:init:local`, the guide's three populate commands, then one file with `users` users (at least 10)
    and about ten rows for each, the same for the same seed but for created_at of the guide's own rows. The guide's user
    1 has 10,000 won and a history of 5,000. The export is `backup.sql` in the folder.
    """
    assert users >= 10
    succeeded(d1.run_shell("npm run db:init:local"))
    for command in guide.commands("Step 2: Populate Test Data"):
        succeeded(d1.run_shell(command))

    chance = random.Random(seed)
    user_ids = range(2, users + 2)
    negative_user_id, long_name_user_id, lonely_user_id = user_ids[0], user_ids[1], user_ids[2]
    special_usernames = (
        "O'Brien",
        'say "hi"',
        "🐙문어🧡",
        "back\\slash\\n",
        None,
        "김철수",
        "👨‍👩‍👧가족",
        "semi;colon",
    )
    moment = FIRST_MOMENT
    minutes = 0

    def now() -> str:
        nonlocal minutes
        minutes += chance.randint(1, 9)
        return (moment + timedelta(minutes=minutes)).strftime("%Y-%m-%d %H:%M:%S")

    usernames: dict[int, str | None] = {1: "testuser"}
    user_rows: list[tuple[str | int | None, ...]] = []
    account_rows: list[tuple[str | int | None, ...]] = []
    transaction_rows: list[tuple[str | int | None, ...]] = []
    notification_rows: list[tuple[str | int | None, ...]] = []
    domain_rows: list[tuple[str | int | None, ...]] = []
    history_sums = {1: 5000} | dict.fromkeys(user_ids, 0)
    balances = {1: 10000}
    texts_with_newline: dict[int, str] = {}
    long_name = "가나다라마바사아자차" * 5 + "😀" * 10
    long_name_id = 0
    negative_account = (0, 0, 0)

    def add_transaction(user_id: int, kind: str, amount: int, status: str, name: str | None) -> int:
        created_at = now()
        transaction_id = len(transaction_rows) + 2
        description = chance.choice((None, "충전", 'it\'s "quoted"', "첫 줄\n둘째 줄", "100%; -- no comment"))
        confirmed_at = created_at if status == "confirmed" else None
        transaction_rows.append(
            (transaction_id, user_id, kind, amount, status, name, description, confirmed_at, created_at)
        )
        if status == "confirmed":
            history_sums[user_id] += amount if kind == "deposit" else -amount
        return transaction_id

    def add_notification(name: str | None, amount: int, transaction_id: int | None) -> None:
        notification_id = len(notification_rows) + 1
        bank, created_at = chance.choice(BANKS), now()
        text: str | None = f"[Web발신]\n[{bank}] 입금 {amount:,}원\n{name} 님 '확인'"
        if notification_id % 7 == 0 and text is not None:
            text = text.replace("\n", "\r\n")
        elif notification_id % 11 == 0:
            text = None
        if text is not None:
            texts_with_newline[notification_id] = text
        after = chance.choice((None, chance.randint(0, 90_000_000)))
        notification_rows.append(
            (notification_id, bank, name, amount, after, created_at, text, transaction_id, created_at)
        )

    for user_id in user_ids:
        usernames[user_id] = (
            special_usernames[user_id - 2]
            if user_id - 2 < len(special_usernames)
            else chance.choice((None, f"user{user_id}", f"user_{user_id}🚀", f"{chance.choice(SURNAMES)}{user_id}"))
        )
        user_rows.append((user_id, str(10_000_000 + user_id * 37), usernames[user_id], now()))
        name = chance.choice(SURNAMES) + chance.choice(GIVEN_NAMES)
        for _ in range(chance.randint(2, 6)):
            status = chance.choices(("confirmed", "pending", "cancelled"), (6, 2, 2))[0]
            amount = chance.randint(1, 200) * 1000
            transaction_id = add_transaction(user_id, "deposit", amount, status, chance.choice((name, name, None)))
            if status == "confirmed" and chance.random() < 0.8:
                add_notification(name, amount, transaction_id)
        if user_id == long_name_user_id:
            long_name_id = add_transaction(user_id, "deposit", 1000, "confirmed", long_name)
        while history_sums[user_id] >= 20_000 and chance.random() < 0.6:
            price = chance.randint(5, 20) * 1000
            add_transaction(user_id, "withdrawal", price, "confirmed", None)
            bought_at = now()
            status = chance.choice(("active", "active", "expired", "pending"))
            domain = f"shop-{user_id}-{len(domain_rows)}.{chance.choice(('com', 'kr', '한국'))}"
            domain_rows.append(
                (len(domain_rows) + 1, user_id, domain, status, chance.choice((price, price, None)), bought_at, None,
                 bought_at)
            )  # fmt: skip
        if chance.random() < 0.2:
            add_notification(chance.choice((name, None, "미상")), chance.randint(1, 90) * 1000, None)
        if user_id == lonely_user_id:
            continue
        balance = history_sums[user_id]
        if user_id == negative_user_id:
            balance = -3000
            negative_account = (len(account_rows) + 2, user_id, balance)
        elif chance.random() < 0.05:
            balance += 500
        balances[user_id] = balance
        account_rows.append((len(account_rows) + 2, user_id, balance, now()))

    script = d1.folder / "bot_rows.sql"
    script.write_text(
        "".join(
            insert_statements("users", "id, telegram_id, username, created_at", user_rows)
            + insert_statements("user_deposits", "id, user_id, balance, created_at", account_rows)
            + insert_statements(
                "deposit_transactions",
                "id, user_id, type, amount, status, depositor_name, description, confirmed_at, created_at",
                transaction_rows,
            )
            + insert_statements(
                "bank_notifications",
                "id, bank_name, depositor_name, amount, balance_after, transaction_time, raw_message,"
                " matched_transaction_id, created_at",
                notification_rows,
            )
            + insert_statements(
                "user_domains", "id, user_id, domain, status, price, registered_at, expires_at, created_at", domain_rows
            )
        ),
        encoding="utf-8",
    )
    succeeded(d1.execute_file(script))
    export = d1.folder / "backup.sql"
    succeeded(d1.export(export))

    transaction_counts: dict[tuple[str, str], int] = {("deposit", "confirmed"): 1}
    for row in transaction_rows:
        key = (str(row[2]), str(row[4]))
        transaction_counts[key] = transaction_counts.get(key, 0) + 1
    return BotDatabase(
        export=export,
        row_counts={
            "users": len(user_rows) + 1,
            "user_deposits": len(account_rows) + 1,
            "deposit_transactions": len(transaction_rows) + 1,
            "bank_notifications": len(notification_rows),
            "user_domains": len(domain_rows),
        },
        transaction_counts=transaction_counts,
        balances=balances,
        history_sums=history_sums,
        mismatched_user_ids=frozenset(
            user_id for user_id, balance in balances.items() if balance != history_sums[user_id]
        ),
        negative_account=negative_account,
        long_name=(long_name_id, long_name),
        user_id_without_account=lonely_user_id,
        texts_with_newline=texts_with_newline,
        usernames=usernames,
    )
