"""`python -m tests.benchmarks.import_export [ROWS] [FOLDER]`: what `passbook import` and `passbook export` take.

Writes an export of the bot's database as wrangler would, of that many rows (five million unless told): a tenth of them
users with their accounts, the rest deposits, withdrawals and bank notifications, every account the sum of its history.
Takes it over and writes the way back. Everything lies in FOLDER (a temporary one unless told) and is deleted.
Printed are seconds, the peak of resident memory, and the most that lay on disk at once.
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from service import resources
from service.storage import migrator
from tests.live import CHECKOUT, PASSBOOK

_WHEN = "2025-06-{:02d} {:02d}:{:02d}:{:02d}"


def write_export(path: Path, rows: int) -> None:
    """An export of about `rows` rows."""
    users = rows // 20
    movements = (rows - 2 * users) * 5 // 9
    notifications = rows - 2 * users - movements
    balances = [0] * users
    schema = migrator.load(resources.folder("migrations"))[0].up.split("CREATE INDEX")[0]
    with path.open("w", encoding="utf-8") as file:
        file.write("PRAGMA defer_foreign_keys=TRUE;\n" + schema)
        for number in range(1, users + 1):
            file.write(
                f"INSERT INTO \"users\" VALUES({number},'{10_000_000 + number}','user{number}','{_when(number)}');\n"
            )
        for number in range(1, movements + 1):
            user = number * 7919 % users
            out = balances[user] >= 10_000 and number % 5 == 0
            kind, amount, name = ("withdrawal", 3000, "NULL") if out else ("deposit", 5000, "'홍길동'")
            balances[user] += -amount if out else amount
            file.write(
                f"INSERT INTO \"deposit_transactions\" VALUES({number},{user + 1},'{kind}',{amount},'confirmed',{name},"
                f"'충전',{_when(number)!r},{_when(number)!r});\n"
            )
        for number in range(1, notifications + 1):
            file.write(
                f"INSERT INTO \"bank_notifications\" VALUES({number},'국민은행','홍길동',5000,NULL,{_when(number)!r},"
                f"replace('[Web발신]\\n입금 5,000원 홍길동','\\n',char(10)),NULL,{_when(number)!r});\n"
            )
        for number, balance in enumerate(balances, start=1):
            file.write(f"INSERT INTO \"user_deposits\" VALUES({number},{number},{balance},'{_when(number)}');\n")
        file.write("DELETE FROM sqlite_sequence;\n")


def _when(number: int) -> str:
    return _WHEN.format(number // 86_400 % 28 + 1, number // 3600 % 24, number // 60 % 60, number % 60)


def run(name: str, *arguments: str) -> None:
    """Runs a command of passbook and prints its seconds and its peak of resident memory."""
    began = time.monotonic()
    child = os.posix_spawn(
        sys.executable, [*PASSBOOK, *arguments], {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUTF8": "1"}
    )
    _, status, usage = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    print(f"{name}: {time.monotonic() - began:.0f} s, {usage.ru_maxrss / 1024:.0f} MiB", flush=True)


def peak_size(folder: Path, stop: threading.Event) -> None:
    """Prints the most that `folder` held until `stop`."""
    most = 0
    while not stop.wait(0.5):
        sizes = 0
        for path in folder.iterdir():
            try:
                sizes += path.stat().st_size
            except FileNotFoundError:
                continue
        most = max(most, sizes)
    print(f"most on disk: {most / 2**20:,.0f} MiB", flush=True)


def main() -> None:
    """Builds, takes over, writes back, deletes."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000
    parent = sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        write_export(folder / "d1.sql", rows)
        print(f"{rows:,} rows, {(folder / 'd1.sql').stat().st_size / 2**20:,.0f} MiB", flush=True)
        stop = threading.Event()
        watcher = threading.Thread(target=peak_size, args=(folder, stop))
        watcher.start()
        try:
            run("import", "import", str(folder / "d1.sql"), "--database", str(folder / "p.db"))
            run("export", "export", str(folder / "back.sql"), "--database", str(folder / "p.db"))
        finally:
            stop.set()
            watcher.join()


if __name__ == "__main__":
    main()
