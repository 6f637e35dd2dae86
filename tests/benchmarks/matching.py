"""`python -m tests.benchmarks.matching [DEPOSITS] [ALIKE] [FOLDER]`: how long a line of the bank takes to settle.

Builds a database of that many open deposits (one million unless told), of which ALIKE (10,000) have one amount, and
posts lines of that amount to a running service. Printed are, for each kind of printed name, the median and the longest
of the answers' times over HTTP, commit included. What was built lies in FOLDER (a temporary one unless told) and is
deleted.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.live import Client, LiveService
from tests.repository.house import make_database, writing

AMOUNT = 5_000
TIMES = 20
TAUGHT = "김사업"
_LATEST = timedelta(hours=20)
# Of ten deposits of the amount: four with a name of their own, two with one that thousands of users have, two with one
# that banks cut, one of names that begin alike, and one of a user who announces the same again and again.
_NAMES = (
    "CASE WHEN i % 10 < 4 THEN printf('가%06d', i) WHEN i % 10 < 6 THEN '홍길동'"
    " WHEN i % 10 < 8 THEN printf('주식회사가나다라%06d', i) WHEN i % 10 < 9 THEN printf('김%06d', i) ELSE '장보고' END"
)


def build(path: Path, deposits: int, alike: int, now: datetime) -> None:
    """Open deposits, announced within twenty hours up to `now`; no two of them at the same moment."""
    make_database(path)
    users, first = max(deposits // 10, 10), now - _LATEST
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {})"
    later = f"(i * {_LATEST.total_seconds() / deposits}) || ' seconds'"
    moment = f"strftime('%Y-%m-%d %H:%M:%f', '{first:%Y-%m-%d %H:%M:%S}', {later})"
    with writing(path) as connection:
        connection.execute("PRAGMA cache_size = -262144")
        connection.execute("BEGIN")
        connection.execute(
            f"INSERT INTO users (telegram_id, created_at) {numbers.format(users)} SELECT 10000000 + i, {moment} FROM n"
        )
        connection.execute(
            "INSERT INTO deposit_transactions (user_id, type, direction, amount, status, depositor_name, match_name,"
            f" created_at) {numbers.format(deposits)}"
            f" SELECT iif(i % 10 = 9 AND i <= {alike}, 1, i % {users} + 1), 'deposit', 'credit',"
            f" iif(i <= {alike}, {AMOUNT}, {AMOUNT} + i), 'pending',"
            f" iif(i <= {alike}, {_NAMES}, '홍길동'), iif(i <= {alike}, {_NAMES}, '홍길동'), {moment} FROM n"
        )
        connection.execute("COMMIT")


def kinds(alike: int) -> dict[str, Iterator[str]]:
    """What is printed, again and again, by how many it could mean."""
    ones = [number for number in range(1, alike + 1) if number % 10 < 4]
    return {
        "the name of one deposit": (f"가{number:06}" for number in ones),
        "the name of thousands of users": (name for name in ["홍길동"] * alike),
        "a name that banks cut, of thousands": (name for name in ["주식회사가나다"] * alike),
        "the beginning of a thousand names": (name for name in ["김"] * alike),
        "the name of one user's many deposits": (name for name in ["장보고"] * alike),
        "a name that was learned of that user": (name for name in [TAUGHT] * alike),
        "nobody's name": (f"성춘향{number}" for number in range(alike)),
        "a name with a bank's before it": (f"국민가{number:06}" for number in reversed(ones)),
        "a name that goes on behind one user's": (f"장보고 {number:04}" for number in range(alike)),
    }


class Lines:
    """Posts lines to a service, each a transfer of its own. Lifetime: of the client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.posted = 0

    def post(self, name: str, amount: int = AMOUNT) -> dict[str, Any]:
        """The answer to a line of now."""
        self.posted += 1
        body = {
            "bank_transaction_id": f"line-{self.posted}",
            "depositor_name": name,
            "amount": amount,
            "occurred_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:00Z"),
        }
        answer = self.client.write("/v1/bank-notifications", body)
        assert answer.status_code == 201, answer.text
        told: dict[str, Any] = json.loads(answer.content)
        return told

    def teach(self, telegram_id: str, name: str) -> None:
        """A person says that the printed name is that user's."""
        line = self.post(name, amount=7)
        deposit = self.client.credit(telegram_id, 7)
        match = {"deposit_id": deposit["id"], "remember": True}
        assert self.client.write(f"/v1/bank-notifications/{line['id']}/match", match).status_code == 200


def main() -> None:
    """Builds, posts, prints, deletes."""
    deposits = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    alike = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    parent = sys.argv[3] if len(sys.argv) > 3 else None
    with tempfile.TemporaryDirectory(dir=parent) as name:
        path = Path(name) / "passbook.db"
        build(path, deposits, alike, datetime.now(UTC))
        live = LiveService(path).start()
        try:
            lines = Lines(live.client())
            lines.teach("10000001", TAUGHT)
            print(f"{deposits:,} open deposits, {alike:,} of them of one amount", flush=True)
            for kind, names in kinds(alike).items():
                times, statuses = [], set()
                for _ in range(min(TIMES, alike // 10)):
                    began = time.perf_counter()
                    told = lines.post(next(names))
                    times.append(1000 * (time.perf_counter() - began))
                    statuses.add(told["status"])
                median, longest = statistics.median(times), max(times)
                print(f"{kind}: {median:.1f} ms, {longest:.1f} ms at most ({', '.join(sorted(statuses))})", flush=True)
        finally:
            live.stop(code=None)


if __name__ == "__main__":
    main()
