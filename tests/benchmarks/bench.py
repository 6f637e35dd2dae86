"""`make bench`: durable deposits against an empty handler of the same application, in one run, as ratios.

F: POST /empty – key check, strict body, an answer; nothing is stored. P: POST /v1/deposits – the same, and a pending
deposit, its audit row and its stored answer, committed with synchronous=FULL before it is answered. Rounds alternate,
so that a machine whose speed drifts treats both alike. At the end the service is killed with SIGKILL in the midst of
load, and the database must hold every deposit that was answered and keep every invariant.
"""

import json
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from service.storage.sqlite import DRIVER_NAME, SQLITE_VERSION
from tests.ledger_check import broken_invariants
from tests.live import CHECKOUT, passbook

CONNECTIONS = (64, 1)
ROUNDS = int(os.environ.get("PASSBOOK_BENCH_ROUNDS", "4"))
SECONDS = int(os.environ.get("PASSBOOK_BENCH_SECONDS", "5"))
SCRIPT = Path(__file__).with_name("deposits.lua")


def load(url: str, key: str, run: str, *, connections: int, seconds: int) -> dict[str, Any]:
    """One run of wrk; its summary with requests per second added."""
    said = subprocess.run(
        ["wrk", f"-t{min(2, connections)}", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT), url],
        env={**os.environ, "API_KEY": key, "RUN": run},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    summary: dict[str, Any] = json.loads(said.splitlines()[-1])
    summary["per_s"] = summary["requests"] / summary["duration_us"] * 1e6
    return summary


def measure(url: str, key: str, console: Console) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """Rounds that alternate between the two handlers, for each number of connections."""
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for connections in CONNECTIONS:
        found[connections] = {"F": [], "P": []}
        for number in range(ROUNDS):
            for name, path in (("F", "/empty"), ("P", "/v1/deposits")):
                with console.status(f"{connections} connections, round {number + 1} of {ROUNDS}, {name}"):
                    run = f"{name}-{connections}-{number}"
                    summary = load(url + path, key, run, connections=connections, seconds=SECONDS)
                assert summary["not_2xx"] == 0, summary
                found[connections][name].append(summary)
    return found


def deposits_in(database: Path) -> int:
    """How many deposits the database holds."""
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    count: int = connection.execute("SELECT COUNT(*) FROM deposit_transactions").fetchone()[0]
    connection.close()
    return count


def main() -> None:
    console = Console(width=110)
    with tempfile.TemporaryDirectory(dir=CHECKOUT) as folder:
        database = Path(folder) / "bench.db"
        passbook("migrate", "up", "--database", str(database))
        key = passbook(
            "keys", "create", "--name", "bench", "--role", "admin", "--database", str(database)
        ).stdout.strip()
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.serve", str(database)],
            cwd=CHECKOUT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[1]
            load(url + "/v1/deposits", key, "warm-up", connections=8, seconds=1)
            found = measure(url, key, console)
            answered = deposits_in(database)
            dying = subprocess.Popen(
                ["wrk", "-t2", "-c64", "-d3s", "-s", str(SCRIPT), url + "/v1/deposits"],
                env={**os.environ, "API_KEY": key, "RUN": "dying"}, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            while deposits_in(database) < answered + 500:
                pass
            server.send_signal(signal.SIGKILL)
            dying.communicate()
        finally:
            server.kill()
            server.wait()
            server.stdout.close()
        broken = broken_invariants(database)
        acknowledged = sum(s["requests"] for rounds in found.values() for s in rounds["P"])
        kept = deposits_in(database)
    report(console, found, acknowledged, kept, broken)
    if broken or kept < acknowledged:
        sys.exit("The database does not hold what was answered.")


def report(
    console: Console,
    found: dict[int, dict[str, list[dict[str, Any]]]],
    acknowledged: int,
    kept: int,
    broken: list[str],
) -> None:
    """The table, ratios first, with the settings it was made with."""
    table = Table("connections", "P/F", "P per s", "F per s", "P p50 ms", "P p99 ms", "F p50 ms")
    for connections, rounds in found.items():
        ratios = [p["per_s"] / f["per_s"] for p, f in zip(rounds["P"], rounds["F"], strict=True)]
        middle = {name: statistics.median(s["per_s"] for s in rounds[name]) for name in rounds}
        table.add_row(
            str(connections),
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
            f"{middle['P']:,.0f}",
            f"{middle['F']:,.0f}",
            *(
                f"{statistics.median(s[p] for s in rounds[n]) / 1000:.2f}"
                for n, p in (("P", "p50_us"), ("P", "p99_us"), ("F", "p50_us"))
            ),
        )
    console.print(table)
    console.print(
        f"{ROUNDS} rounds of {SECONDS} s; synchronous=FULL, WAL; {DRIVER_NAME} {SQLITE_VERSION}; Python"
        f" {platform.python_version()}; uvicorn, uvloop, httptools; {os.cpu_count()} cores shared with wrk."
    )
    console.print(
        f"After SIGKILL under load: {acknowledged:,} deposits answered, {kept:,} in the database;"
        f" invariants: {'; '.join(broken) or 'all hold'}."
    )


if __name__ == "__main__":
    main()
