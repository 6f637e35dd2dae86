"""Sums of what is taken over: at their bound they are taken exactly, one won beyond they are refused by user."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from service.storage import import_sums
from service.storage.exporter import DEBIT_TYPES
from service.storage.importer import ImportFailed
from tests.contents import contents
from tests.ledger_check import broken_invariants
from tests.live import passbook
from tests.storage.test_importer import make_bots_file, only, read, take_over
from tests.storage.test_migration_values import plan_of

MOST = 2**53 - 1
FIRST = 50


def rows(amount: int, times: int = 1, kind: str = "deposit", status: str = "confirmed") -> str:
    """SQL of so many transactions of the user :user."""
    return (
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {times})"
        f" INSERT INTO deposit_transactions (user_id, type, amount, status)"
        f" SELECT :user, '{kind}', {amount}, '{status}' FROM n;"
    )


def bots_file(path: Path, users: Sequence[tuple[int, tuple[str, ...]]]) -> Path:
    """The bot's database with more users from FIRST on, each of whom has that balance and these transactions."""
    sql = ""
    for user, (balance, transactions) in enumerate(users, start=FIRST):
        sql += f"INSERT INTO users (id, telegram_id) VALUES ({user}, '500{user}');"
        sql += f"INSERT INTO user_deposits (user_id, balance) VALUES ({user}, {balance});"
        sql += "".join(transactions).replace(":user", str(user))
    return make_bots_file(path, extra=sql)


TAKEN: dict[str, tuple[int, tuple[str, ...], int | None]] = {
    "an opening credit of the most": (MOST, (), MOST),
    "the most in one row": (MOST, (rows(MOST),), None),
    "the most in two rows": (MOST, (rows(MOST - 1), rows(1)), None),
    "the most in a row and an opening credit": (MOST, (rows(MOST - 1),), 1),
    "the most in and out": (0, (rows(MOST), rows(MOST, kind="withdrawal")), None),
    "the most out as a negative amount, and in": (0, (rows(-MOST), rows(MOST)), None),
    "an opening credit against the most out": (0, (rows(-MOST),), MOST),
    "an opening debit of the most": (0, (rows(MOST),), MOST),
    "beyond it, of what never counted": (0, (rows(MOST, 3, status="pending"), rows(MOST, 2, status="expired")), None),
    "a negative balance of the most": (-MOST, (rows(MOST),), MOST),
    "nothing": (0, (rows(0),), None),
}
"""What it is -> balance, transactions, and the amount of the opening entry where there is one."""
REFUSED: dict[str, tuple[int, tuple[str, ...], str]] = {
    "a won beyond the most in": (MOST, (rows(MOST), rows(1), rows(1, kind="fee")), f"adds up to {2**53}"),
    "a won beyond, with an opening debit": (0, (rows(MOST), rows(1)), f"adds up to {2**53}"),
    "a won beyond, by an opening credit": (MOST, (rows(-1),), f"with its opening entry adds up to {2**53}"),
    "a won beyond, out": (0, (rows(-MOST), rows(1, kind="fee")), f"with its opening entry adds up to {2**53}"),
    "an opening credit of twice the most": (MOST, (rows(-MOST),), f"with its opening entry adds up to {2 * MOST}"),
    "beyond 64 bits": (0, (rows(MOST, 1025),), f"adds up to {1025 * MOST}"),
    "beyond 64 bits both ways": (0, (rows(MOST, 1025), rows(-MOST, 1025)), f"adds up to {1025 * MOST}"),
    "beyond 64 bits, out": (0, (rows(-MOST, 1025),), f"with its opening entry adds up to {1025 * MOST}"),
}
"""What it is -> balance, transactions, and what is said of it."""


def test_sums_at_the_bound_are_taken_exactly(tmp_path: Path) -> None:
    """The plan has nothing against them, the import takes them, and every invariant and `passbook integrity` holds."""
    bots = bots_file(tmp_path / "bots.sqlite", [(balance, moved) for balance, moved, _ in TAKEN.values()])
    assert plan_of(bots).loose_values.examples == []
    take_over(bots, tmp_path / "p.db")
    balances = dict(read(tmp_path / "p.db", "SELECT user_id, balance FROM user_deposits"))
    entries = dict(
        read(tmp_path / "p.db", "SELECT user_id, amount FROM deposit_transactions WHERE type LIKE 'opening_%'")
    )
    found = {case: (balances[user], entries.get(user)) for user, case in enumerate(TAKEN, start=FIRST)}
    assert found == {case: (max(balance, 0), opening) for case, (balance, _, opening) in TAKEN.items()}
    assert broken_invariants(tmp_path / "p.db") == []
    proof = passbook("integrity", "--database", str(tmp_path / "p.db"))
    assert proof.returncode == 0, proof.stdout


def test_sums_beyond_the_bound_are_refused_by_user(tmp_path: Path) -> None:
    """By the plan and by the import in the same words; nothing is made, and the source stays as it is."""
    bots = bots_file(tmp_path / "bots.sqlite", [(balance, moved) for balance, moved, _ in REFUSED.values()])
    before = contents(bots)
    plan = plan_of(bots)
    assert plan.loose_values.count == len(REFUSED)
    with pytest.raises(ImportFailed) as refused:
        take_over(bots, tmp_path / "p.db")
    head, *told = str(refused.value).splitlines()
    assert head.startswith(f"{len(REFUSED)} rows or values cannot be taken over"), head
    for line, (user, (case, (_, _, why))) in zip(told, enumerate(REFUSED.items(), start=FIRST), strict=True):
        wanted = f"  users, row {user}, id: what came in {why}, which is beyond 9,007,199,254,740,991"
        assert line == wanted, case
    assert [
        f"  {one['table']}, row {one['row']}, {one['column']}: {one['why']}" for one in plan.loose_values.examples
    ] == told[: len(plan.loose_values.examples)]
    assert only(tmp_path, "bots.sqlite", "p.db.lock")
    assert contents(bots) == before


def test_what_counts_as_money_out_is_what_the_migration_says() -> None:
    """Each type that migration 003 takes for a debit is summed as one, to the won."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (user_id, type, amount, status)")
        connection.execute("CREATE TABLE a (user_id, balance)")
        for number, kind in enumerate(DEBIT_TYPES):
            paid_out = [(number, kind, MOST, "confirmed"), (number, "deposit", MOST, "confirmed")]
            connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", paid_out)
        tables = {"transactions": "SELECT * FROM t", "accounts": "SELECT * FROM a"}
        assert list(import_sums.beyond(connection, **tables, debits=DEBIT_TYPES)) == []
        connection.executemany("INSERT INTO t VALUES (?, ?, 1, 'confirmed')", list(enumerate(DEBIT_TYPES)))
        found = list(import_sums.beyond(connection, **tables, debits=DEBIT_TYPES))
        assert [number for number, _ in found] == list(range(len(DEBIT_TYPES)))
        assert {why for _, why in found} == {
            f"what came in with its opening entry adds up to {2**53}, which is beyond 9,007,199,254,740,991"
        }
