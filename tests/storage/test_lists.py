"""Every list reads about as much as it shows: a walk along an index, and the rows that asking each one would give."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from service import resources
from service.ledger.domain_purchases import Name
from service.storage import bank_notifications, deposits, domain_purchases, migrator, sqlite, transactions
from tests.some import some

MIGRATIONS = migrator.load(resources.folder("migrations"))
USERS = ("1", "22", "333")
STATUSES = ("", "pending", "confirmed", "cancelled", "expired", "done_by_the_bot")
ASKED = (None, "pending", "confirmed", "cancelled", "expired", "reversed")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite.Connection]:
    """Deposits in every status, some reversed, between other movements; purchases of three users. No statistics."""
    connection = sqlite.connect_writer(tmp_path_factory.mktemp("lists") / "p.db", busy_timeout_ms=0, checkpoints=True)
    migrator.up(connection, MIGRATIONS, lambda _: None)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    chosen = random.Random(15)
    for telegram_id in USERS:
        connection.execute("INSERT INTO users (telegram_id) VALUES (?)", (telegram_id,))
    for number in range(400):
        kind, status = chosen.choice(("deposit", "debit", "balance_change")), chosen.choice(STATUSES)
        row = (chosen.randint(1, 3), kind, status, f"2026-01-{chosen.randint(1, 28):02} 00:00:00")
        insert = "INSERT INTO deposit_transactions (user_id, type, amount, status, created_at) VALUES (?, ?, 1, ?, ?)"
        moved = connection.execute(insert, row).lastrowid
        if status == "confirmed" and number % 3 == 0:
            connection.execute(
                "INSERT INTO deposit_transactions (user_id, type, amount, status, reverses_id)"
                " VALUES (?, 'reversal', 1, 'confirmed', ?)",
                (row[0], moved),
            )
    for number in range(60):
        name = Name(readable=f"a{number}.kr", ascii=f"a{number}.kr")
        domain_purchases.insert(
            connection,
            user_id=chosen.randint(1, 2),
            name=name,
            price=1,
            transaction_id=1,
            registered=False,
            now="2026-01-01 00:00:00.000",
        )
    yield connection
    connection.close()


def _by_asking_each(tx: sqlite.Connection, status: str | None, telegram_id: str | None) -> list[int]:
    """The ids, newest first, without any index."""
    return [
        row[0]
        for row in tx.execute(
            "SELECT t.id, t.status, u.telegram_id,"
            " EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = +t.id)"
            " FROM deposit_transactions AS t NOT INDEXED JOIN users AS u ON u.id = t.user_id WHERE t.type = 'deposit'"
            " ORDER BY t.id DESC"
        ).fetchall()
        if telegram_id in {None, row[2]} and status in {None, "reversed" if row[3] else row[1]}
    ]


@pytest.mark.parametrize("telegram_id", [None, *USERS, "9"])
@pytest.mark.parametrize("status", ASKED)
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pages_of_deposits_are_all_of_them(
    database: sqlite.Connection, status: str | None, telegram_id: str | None, limit: int
) -> None:
    """Page after page every deposit once, newest first, also with a word of the bot's for its status."""
    found: list[int] = []
    before = 2**53
    while page := deposits.list_newest(database, status=status, telegram_id=telegram_id, before_id=before, limit=limit):
        assert len(page) <= limit
        found += [deposit.id for deposit in page]
        before = found[-1]
    assert found == _by_asking_each(database, status, telegram_id)
    assert found or telegram_id in {"9", "22"}


@pytest.mark.parametrize("telegram_id", [None, *USERS, "9"])
def test_pages_of_purchases_and_transactions_are_all_of_them(
    database: sqlite.Connection, telegram_id: str | None
) -> None:
    """Of one user, of all, and of nobody."""
    wanted = database.execute(
        "SELECT p.id FROM user_domains AS p NOT INDEXED JOIN users AS u ON u.id = p.user_id"
        " WHERE ?1 IS NULL OR u.telegram_id = ?1 ORDER BY p.id DESC",
        (telegram_id,),
    ).fetchall()
    found: list[int] = []
    while page := domain_purchases.list_newest(
        database, telegram_id=telegram_id, before_id=found[-1] if found else 2**53, limit=7
    ):
        found += [purchase.id for purchase in page]
    assert found == [row[0] for row in wanted]
    rows = database.execute(
        "SELECT id FROM deposit_transactions NOT INDEXED WHERE user_id = 1 ORDER BY id DESC"
    ).fetchall()
    listed: list[int] = []
    while lines := transactions.list_of_user(database, 1, before_id=listed[-1] if listed else 2**53, limit=7):
        listed += [line.id for line in lines]
    assert listed == [row[0] for row in rows]


READS: dict[str, tuple[Any, dict[str, Any], bool]] = {
    **{
        f"deposits {status} {telegram_id}": (
            deposits.list_newest,
            {"status": status, "telegram_id": telegram_id},
            telegram_id is not None,
        )
        for status in ASKED
        for telegram_id in (None, "1")
    },
    "purchases": (domain_purchases.list_newest, {"telegram_id": None}, False),
    "purchases of a user": (domain_purchases.list_newest, {"telegram_id": "1"}, False),
    "bank lines": (bank_notifications.list_newest, {"status": None, "window_s": 86_400, "field_width": 14}, False),
    "open bank lines": (
        bank_notifications.list_newest,
        {"status": "unmatched", "window_s": 86_400, "field_width": 14},
        False,
    ),
}


@pytest.mark.parametrize("name", READS)
def test_no_list_reads_more_than_the_index_of_what_it_lists(database: sqlite.Connection, name: str) -> None:
    """No statement scans a table; only the rows of one user are sorted, which no index has in the order of ids."""
    read, arguments, is_of_user = READS[name]
    said: list[str] = []
    database.set_trace_callback(said.append)
    read(database, **arguments, before_id=300, limit=5)
    database.set_trace_callback(None)
    for statement in some(said):
        plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}")]
        names = ("t", "p", "u", "r", "deposit_transactions", "user_domains", "users", "bank_notifications")
        assert not [line for line in plan if line.startswith("SCAN") and line.split()[1] in names], plan
        page = "json_each" in statement or "bank_notifications WHERE matched_transaction_id" in statement
        if not is_of_user and not page and "ORDER BY" in statement and "FROM user_domains" not in statement:
            assert not [line for line in plan if line == "USE TEMP B-TREE FOR ORDER BY"], (statement, plan)


@pytest.mark.parametrize("status", ["active", "pending", "registered", "released", "expired"])
def test_a_name_of_the_bots_is_taken_while_it_is_live(database: sqlite.Connection, status: str) -> None:
    """The bot wrote `active`, and no name as the DNS knows it; either spelling counts. What is over is free again."""
    name = Name(readable="통장.kr", ascii="xn--qc0by0n.kr")
    for spelling in (name.readable, name.ascii):
        database.execute("SAVEPOINT one")
        database.execute("INSERT INTO user_domains (user_id, domain, status) VALUES (1, ?, ?)", (spelling, status))
        found = domain_purchases.find_live(database, name)
        database.execute("ROLLBACK TO one")
        database.execute("RELEASE one")
        assert (found is not None) == (status in {"active", "pending", "registered"}), spelling
