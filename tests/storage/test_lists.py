"""Every list reads about as much as it shows: a walk along an index, and the rows that asking each one would give."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from service import resources
from service.ledger.bank_notifications import BankNotificationFilter
from service.ledger.deposits import DepositFilter
from service.ledger.domain_purchases import Name
from service.ledger.timestamps import around
from service.storage import (
    bank_notification_lists,
    bank_notifications,
    deposits,
    domain_purchases,
    lists,
    migrator,
    reviews,
    sqlite,
    transactions,
)
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
    wanted = DepositFilter(status=status, telegram_id=telegram_id)
    while page := deposits.list_newest(database, wanted, before_id=before, limit=limit).items:
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
            {"wanted": DepositFilter(status=status, telegram_id=telegram_id)},
            telegram_id is not None,
        )
        for status in ASKED
        for telegram_id in (None, "1")
    },
    "purchases": (domain_purchases.list_newest, {"telegram_id": None}, False),
    "purchases of a user": (domain_purchases.list_newest, {"telegram_id": "1"}, False),
    **{
        f"bank lines {wanted}": (
            bank_notification_lists.find_page,
            {"wanted": wanted, "window_s": 86_400, "field_width": 14},
            wanted.telegram_id is not None,
        )
        for wanted in (
            BankNotificationFilter(),
            BankNotificationFilter(status="unmatched"),
            BankNotificationFilter(open=True),
            BankNotificationFilter(open=False),
            BankNotificationFilter(amount=1),
            BankNotificationFilter(since="2026-01-02", until="2026-01-03"),
            BankNotificationFilter(telegram_id="1"),
        )
    },
    "deposits of an amount": (deposits.list_newest, {"wanted": DepositFilter(amount=1)}, False),
    "deposits of a period": (deposits.list_newest, {"wanted": DepositFilter(since="2026-01-02")}, False),
}


@pytest.mark.parametrize("name", READS)
def test_no_list_reads_more_than_the_index_of_what_it_lists(database: sqlite.Connection, name: str) -> None:
    """No statement scans a table; only the rows of one user are sorted, which no index has in the order of ids."""
    read, arguments, is_of_user = READS[name]
    said: list[str] = []
    database.set_trace_callback(said.append)
    place = "after" if read is bank_notification_lists.find_page else "before_id"
    read(database, **arguments, **{place: 0 if getattr(arguments.get("wanted"), "open", None) else 300}, limit=5)
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


# Any conditions together, of rows in no order, between pages as short as can be.

WINDOW_S = 36 * 3600
NAMES = ("홍길동", "홍길동이", "홍", "김철수", "")
DAYS = tuple(f"2026-01-{day:02}" for day in range(1, 8))
PERIODS = ((None, None), ("2026-01-03 06:00:00", None), (None, "2026-01-05"), ("2026-01-03", "2026-01-04 12:00:00"))
NO_PERIOD = ("2026-01-05", "2026-01-03")
FAR = ("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite.Connection]:
    """Deposits and bank notifications that differ in everything that a list can be asked for, and rows of the bot's."""
    connection = sqlite.connect_writer(tmp_path_factory.mktemp("mixed") / "p.db", busy_timeout_ms=0, checkpoints=True)
    migrator.up(connection, MIGRATIONS, lambda _: None)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    chosen = random.Random(17)

    def instant() -> str:
        return f"{chosen.choice(DAYS)} {chosen.randint(0, 23):02}:00:00"

    for telegram_id in USERS:
        connection.execute("INSERT INTO users (telegram_id) VALUES (?)", (telegram_id,))
    for number in range(160):
        name, at = chosen.choice(NAMES), None if number % 23 == 0 else instant()
        deposit = (chosen.randint(1, 2), chosen.choice(("deposit", "deposit", "debit")), chosen.randint(1, 4))
        status = chosen.choice(STATUSES[1:])
        moved = connection.execute(
            "INSERT INTO deposit_transactions (user_id, type, amount, status, created_at, depositor_name, match_name)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*deposit, status, at, name, name if number % 7 else None),
        ).lastrowid
        if number % 2 == 0 and status == "confirmed":
            connection.execute(
                "INSERT INTO deposit_transactions (user_id, type, amount, status, reverses_id)"
                " VALUES (1, 'reversal', 1, 'confirmed', ?)",
                (moved,),
            )
        printed, came = chosen.choice(NAMES), None if number % 29 == 0 else instant()
        status = chosen.choice(("unmatched", "ambiguous", "matched"))
        closed = chosen.choice((None, None, "dismissed", "cancelled")) if status != "matched" else None
        connection.execute(
            "INSERT INTO bank_notifications (amount, depositor_name, match_name, transaction_time, created_at,"
            " bank_transaction_id, status, closed_as, matched_transaction_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                chosen.randint(1, 4),
                printed,
                printed,
                came,
                instant(),
                f"B-{number}" if number % 13 else None,
                status,
                closed,
                moved if status == "matched" else None,
            ),
        )
    connection.execute(
        "INSERT INTO learned_names (user_id, printed_name, match_name, bank_notification_id, learned_by, created_at)"
        " VALUES (2, '김철수네', '김철수네', 1, 'ops', '2026-01-01 00:00:00.000')"
    )
    yield connection
    connection.close()


@pytest.fixture(params=[(10_000, 500), (6, 2), (40, 7)], ids=["few rows", "hardly any", "some"])
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows a page reads, and how many at a time."""
    read_max, chunk = request.param
    monkeypatch.setattr(lists, "READ_MAX", read_max)
    monkeypatch.setattr(lists, "CHUNK", chunk)


def _pages(read: Any, *, after: int, limit: int) -> list[int]:
    """The ids of all pages; a cursor goes on, and no page is longer than was asked for."""
    found: list[int] = []
    seen = set()
    while True:
        page = read(after, limit)
        assert len(page.items) <= limit
        found += [one.id for one in page.items]
        if page.reached is None:
            return found
        assert page.reached not in seen, "a cursor that stands still"
        after = page.reached
        seen.add(after)


@pytest.mark.usefixtures("short")
def test_any_conditions_on_deposits_hold_together(mixed: sqlite.Connection) -> None:
    """Each deposit once, newest first, and none that a condition leaves out; whatever the pages read."""
    rows = mixed.execute(
        "SELECT t.id, iif(EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = +t.id) AND"
        " t.status = 'confirmed', 'reversed', t.status), u.telegram_id, t.amount, t.created_at"
        " FROM deposit_transactions AS t NOT INDEXED JOIN users AS u ON u.id = t.user_id WHERE t.type = 'deposit'"
        " ORDER BY t.id DESC"
    ).fetchall()
    seen = set()
    combinations = itertools.product(
        (None, "pending", "confirmed", "reversed"), (None, "1", "333", "9"), (None, 2, 9), (*PERIODS, NO_PERIOD, FAR)
    )
    for status, user, amount, (since, until) in some(random.Random(lists.READ_MAX).sample([*combinations], 90)):
        wanted = DepositFilter(status=status, telegram_id=user, amount=amount, since=since, until=until)
        expected = [
            row[0]
            for row in rows
            if status in {None, row[1]}
            and user in {None, row[2]}
            and amount in {None, row[3]}
            and (since is None or (row[4] is not None and row[4] >= since))
            and (until is None or (row[4] is not None and row[4] < until))
        ]

        def read(after: int, limit: int, wanted: DepositFilter = wanted) -> Any:
            return deposits.list_newest(mixed, wanted, before_id=after, limit=limit)

        assert _pages(read, after=2**53, limit=3) == expected, wanted
        seen.add(len(expected))
    assert len(seen) > 10


@pytest.mark.usefixtures("short")
def test_any_conditions_on_bank_notifications_hold_together(
    mixed: sqlite.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newest first, and the queue of those that are open oldest first."""
    rows = mixed.execute(
        "SELECT b.id, COALESCE(b.closed_as, b.status), b.status <> 'matched' AND b.closed_as IS NULL, b.amount,"
        " COALESCE(b.transaction_time, b.created_at), (SELECT u.telegram_id FROM deposit_transactions AS t JOIN users"
        " AS u ON u.id = t.user_id WHERE t.id = b.matched_transaction_id), b.match_name, b.transaction_time,"
        " b.bank_transaction_id FROM bank_notifications AS b NOT INDEXED ORDER BY b.id DESC"
    ).fetchall()
    of_user = {
        user: {row[0] for row in rows if row[5] == user or (row[2] and _could_mean(mixed, user, row))}
        for user in ("1", "22", "333", "9")
    }
    assert of_user["1"] != of_user["22"]
    seen = set()
    monkeypatch.setattr(bank_notifications, "with_candidates", lambda _tx, one, **_: one)
    combinations = itertools.product(
        (None, "ambiguous", "matched", "dismissed", "cancelled"),
        (None, True, False),
        (None, "22", "333", "9"),
        (None, 2),
        (*PERIODS[:3], FAR),
    )
    for status, is_open, user, amount, (since, until) in some(
        random.Random(lists.READ_MAX).sample([*combinations], 120)
    ):
        wanted = BankNotificationFilter(
            status=status, open=is_open, telegram_id=user, amount=amount, since=since, until=until
        )
        expected = [
            row[0]
            for row in (rows[::-1] if is_open else rows)
            if status in {None, row[1]}
            and is_open in {None, bool(row[2])}
            and (user is None or row[0] in of_user[user])
            and amount in {None, row[3]}
            and (since is None or row[4] >= since)
            and (until is None or row[4] < until)
        ]

        def read(after: int, limit: int, wanted: BankNotificationFilter = wanted) -> Any:
            return bank_notification_lists.find_page(
                mixed, wanted, window_s=WINDOW_S, field_width=14, after=after, limit=limit
            )

        found = _pages(read, after=0 if is_open else 2**53, limit=5)
        if lists.READ_MAX > 1000 or user is None:
            assert found == expected, wanted
        else:  # of a user with more transactions, and of more lines, than are read, some are not found
            assert set(found) <= set(expected), wanted
        seen.add(len(expected))
    assert len(seen) > 10


def _could_mean(tx: sqlite.Connection, user: str, line: Any) -> bool:
    """Whether a line that waits has the amount, the time and the beginning of a name of an open deposit of the user."""
    _, _, _, amount, _, _, printed, came, bank_id = line
    if not printed or not came or bank_id is None:
        return False
    since, until = around(came, WINDOW_S)
    learned = tx.execute(
        "SELECT l.match_name FROM learned_names AS l JOIN users AS u ON u.id = l.user_id WHERE u.telegram_id = ?",
        (user,),
    ).fetchall()
    open_deposits = tx.execute(
        "SELECT t.depositor_name FROM deposit_transactions AS t NOT INDEXED JOIN users AS u ON u.id = t.user_id"
        " WHERE u.telegram_id = ? AND t.type = 'deposit' AND t.status IN ('pending', 'expired') AND t.amount = ?"
        " AND t.created_at BETWEEN ? AND ?",
        (user, amount, since, until),
    ).fetchall()
    return bool(open_deposits) and any(name.startswith(printed) for (name,) in [*open_deposits, *learned])


def test_a_deposit_is_in_review_where_a_line_that_waits_could_mean_it(mixed: sqlite.Connection) -> None:
    """By amount, time and name alike, of one deposit and of a page; what is closed or settled does not count."""
    page = deposits.list_newest(mixed, DepositFilter(), before_id=2**53, limit=1000).items
    found = reviews.in_review(mixed, page, window_s=WINDOW_S)
    lines = mixed.execute(
        "SELECT 0, 0, 0, amount, 0, 0, match_name, transaction_time, bank_transaction_id FROM bank_notifications"
        " NOT INDEXED WHERE status <> 'matched' AND closed_as IS NULL"
    ).fetchall()
    learned = {"22": ["김철수네"]}
    expected = set()
    for one in page:
        names = [one.depositor_name or "", *learned.get(one.telegram_id, [])]
        for _, _, _, amount, _, _, printed, came, bank_id in lines:
            fits = amount == one.amount and one.status in {"pending", "expired"} and one.created_at is not None
            if fits and came and bank_id and printed and any(name.startswith(printed) for name in names):
                since, until = around(came, WINDOW_S)
                if since <= str(one.created_at).replace("T", " ").rstrip("Z") <= until:
                    expected.add(one.id)
    assert found == expected
    assert 0 < len(found) < len([one for one in page if one.status in {"pending", "expired"}])
    assert {one.id for one in page if reviews.in_review(mixed, [one], window_s=WINDOW_S)} == expected


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite.Connection]:
    """40,000 deposits and as many bank notifications, all of one user, amount, name and month."""
    connection = sqlite.connect_writer(tmp_path_factory.mktemp("many") / "p.db", busy_timeout_ms=0, checkpoints=True)
    migrator.up(connection, MIGRATIONS, lambda _: None)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("INSERT INTO users (telegram_id) VALUES ('1')")
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)"
    at = "printf('2026-01-%02d 00:00:00', 1 + i % 28)"
    connection.execute(
        "INSERT INTO deposit_transactions (user_id, type, amount, status, created_at, depositor_name, match_name)"
        f" {numbers} SELECT 1, 'deposit', 5, 'pending', {at}, '홍길동', '홍길동' FROM n"
    )
    connection.execute(
        "INSERT INTO bank_notifications (amount, depositor_name, match_name, transaction_time, created_at,"
        f" bank_transaction_id, status) {numbers}"
        f" SELECT 5, '홍길동', '홍길동', {at}, {at}, 'B-' || i, 'unmatched' FROM n"
    )
    yield connection
    connection.close()


def test_a_page_reads_a_bounded_number_of_rows_whatever_is_asked(
    many: sqlite.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of SQLite are counted, not time: what finds nothing reads no more than what finds thousands."""
    monkeypatch.setattr(lists, "READ_MAX", 200)
    monkeypatch.setattr(bank_notifications, "with_candidates", lambda _tx, one, **_: one)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    for (status, line_status), user, amount, (since, until), is_open in itertools.product(
        ((None, None), ("pending", "unmatched"), ("confirmed", "matched"), ("reversed", "dismissed")),
        (None, "1"),
        (None, 5, 6),
        ((None, None), ("2026-01-02", "2026-01-20"), (None, "2025-01-01")),
        (None, True),
    ):
        given = {"telegram_id": user, "amount": amount, "since": since, "until": until}
        many.set_progress_handler(count, 100)
        steps = 0
        deposits.list_newest(many, DepositFilter(status=status, **given), before_id=2**53, limit=10)  # type: ignore[arg-type]
        of_deposits, steps = steps, 0
        wanted = BankNotificationFilter(status=line_status, open=is_open, **given)  # type: ignore[arg-type]
        after = 0 if is_open else 2**53
        bank_notification_lists.find_page(many, wanted, window_s=86_400, field_width=14, after=after, limit=10)
        of_lines = steps
        many.set_progress_handler(None, 0)
        assert of_deposits * 100 < 40_000, (status, given, of_deposits)
        assert of_lines * 100 < 80_000, (wanted, of_lines)
    monkeypatch.undo()
    page = deposits.list_newest(many, DepositFilter(), before_id=2**53, limit=1000).items
    many.set_progress_handler(count, 100)
    steps = 0
    assert len(reviews.in_review(many, page, window_s=86_400)) == 1000
    many.set_progress_handler(None, 0)
    assert steps * 100 < 400_000, "each deposit reads the thousands of lines of its amount"
