"""The search of the audit log against a filter in Python, and how SQLite goes about it."""

import itertools
import random
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from service.ledger.audit_logs import AuditLogFilter, Order, Outcome
from service.storage import audit_logs, audit_search, sqlite
from service.storage.audit_logs import COLUMNS
from service.storage.sqlite import Connection
from tests.audit_nodes import fill_audit_nodes
from tests.repository.house import make_database, writing
from tests.some import some

ROWS = 3000
ACTIONS = ("deposit_confirmed", "balance_debited", "debit_failed", "deposit_confirm_failed", "login", "x_failed_not")
NAMES = COLUMNS.split(", ")


def instant(second: int) -> str:
    """A stored instant."""
    return f"2026-01-{1 + second // 86400:02d} {second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}.000"


def moments(count: int) -> Iterator[str | None]:
    """Minute by minute; set back by hours, ahead by a day and back; and some rows without a time."""
    for number in range(count):
        second = 60 * number
        if 700 <= number < 1300:
            second -= 60 * 400
        if 2000 <= number < 2010:
            second += 86400
        yield None if number % 501 == 500 else instant(second)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with gaps in its ids, rare and frequent values, nulls, and a clock that was set."""
    database = make_database(tmp_path_factory.mktemp("search") / "passbook.db")
    chance = random.Random(1)
    with writing(database) as connection, sqlite.transaction(connection):
        for number, created_at in enumerate(moments(ROWS)):
            connection.execute(
                "INSERT INTO audit_logs (id, telegram_id, action, resource_type, resource_id, created_at, actor,"
                " request_id, details) VALUES (?, ?, ?, ?, ?, ?, ?, ?, '{}')",
                (
                    1 + number + 1000 * (number // 900),
                    chance.choice(["1", "2", "2", "2", None, "9"] if number < 100 else ["2", "2", "1", None]),
                    chance.choices(ACTIONS, [50, 40, 5, 2, 10, 1])[0],
                    chance.choice(["deposit_transaction", "user", None]),
                    chance.randrange(40),
                    created_at,
                    chance.choice(["bot", "ops", None]),
                    f"request-{number // 2}" if number % 3 else None,
                ),
            )
    return database


@pytest.fixture(params=["no nodes", "nodes behind", "nodes", "nodes of two levels"])
def log(request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """The log with audit_nodes empty, behind, or whole; and with several levels, for which 3,000 rows are too few."""
    if request.param == "nodes of two levels":
        monkeypatch.setattr(audit_search, "_LEVEL_BITS", 4)
        monkeypatch.setattr(audit_search, "_NODE_CHILDREN", 4)
        monkeypatch.setattr(audit_search, "_GAP_MAX", 8)
    with writing(path) as connection:
        connection.execute("BEGIN")
        if request.param == "nodes of two levels":
            _small_nodes(connection)
        elif request.param != "no nodes":
            fill_audit_nodes(connection, rows_max=1000 if request.param == "nodes behind" else ROWS)
        yield connection
        connection.execute("ROLLBACK")


def _small_nodes(connection: Connection) -> None:
    """Nodes of 16 rows, 64 and 256 as levels 8, 16, 24, moved to the levels that the patched search knows."""
    connection.execute("DROP TABLE audit_nodes")
    connection.execute("CREATE TABLE audit_nodes (level, position, first_id, last_id, created_at_min, created_at_max)")
    for level, size in ((4, 16), (8, 64), (12, 256)):
        connection.execute(
            "INSERT INTO audit_nodes SELECT ?, place / ?, MIN(id), MAX(id), MIN(created_at), MAX(created_at) FROM"
            " (SELECT id, created_at, ROW_NUMBER() OVER (ORDER BY id) - 1 AS place FROM audit_logs)"
            " WHERE place < 2900 GROUP BY place / ? HAVING COUNT(*) = ?",
            (level, size, size, size),
        )


def holds(row: dict[str, Any], wanted: AuditLogFilter) -> bool:
    """What a filter means, said another way."""
    failed = str(row["action"]).endswith("_failed")
    for name, value in asdict(wanted).items():
        if value is None:
            continue
        if name in {"since", "until"}:
            if row["created_at"] is None or (row["created_at"] >= value) != (name == "since"):
                return False
        elif name == "outcome":
            if failed != (value == Outcome.FAILURE):
                return False
        elif name == "action":
            if not fnmatchcase(row["action"], value):
                return False
        elif row[name] != value:
            return False
    return True


def every(
    connection: Connection, wanted: AuditLogFilter, order: Order, limit: int, budget_s: float = 60.0
) -> Iterator[list[int]]:
    """The ids, page by page."""
    after = None
    while True:
        found = audit_search.search(connection, wanted, order=order, after=after, limit=limit, budget_s=budget_s)
        yield [row[0] for row in found.rows]
        if found.reached is None:
            return
        assert after is None or (found.reached < after) == (order == Order.NEWEST), "it goes on from the same place"
        after = found.reached


CHOICES: dict[str, list[Any]] = {
    "telegram_id": ["2", "9", "none"],
    "action": ["login", "*_failed", "deposit_*", "*debit*", "nothing", "*x"],
    "resource_type": ["user"],
    "resource_id": [7],
    "actor": ["bot"],
    "request_id": ["request-100"],
    "outcome": [Outcome.SUCCESS, Outcome.FAILURE],
    "since": [instant(60 * 650), instant(60 * 1500), instant(60 * 2995), "2027-01-01 00:00:00"],
    "until": [instant(60 * 500), instant(60 * 1000), instant(60 * 2005 + 86400), "2025-01-01 00:00:00"],
}
COMBINATIONS = [
    dict(zip(names, values, strict=True))
    for size in range(4)
    for names in itertools.combinations(CHOICES, size)
    for values in itertools.product(*(CHOICES[name] for name in names))
]


@pytest.mark.parametrize("order", Order)
@pytest.mark.long
def test_any_combination_finds_what_a_filter_in_python_picks(log: Connection, order: Order) -> None:
    """In order, each row once, whatever the size of the page, and when the time for a page is always up."""
    rows = [dict(zip(NAMES, row, strict=True)) for row in log.execute(f"SELECT {COLUMNS} FROM audit_logs ORDER BY id")]
    chance = random.Random(2)
    assert len(COMBINATIONS) > 500
    for values in some(chance.sample(COMBINATIONS, 250)):
        wanted = AuditLogFilter(**values)
        expected = [row["id"] for row in rows if holds(row, wanted)]
        if order == Order.NEWEST:
            expected.reverse()
        for limit, budget_s in ((1000, 60.0), (7, 60.0), (50, 0.0)):
            pages = list(every(log, wanted, order, limit, budget_s))
            assert list(itertools.chain(*pages)) == expected, (values, limit)
            assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1) or budget_s == 0


def test_it_stops_below_the_id_that_was_the_newest(log: Connection) -> None:
    """A long reading from the oldest does not chase the rows that are written meanwhile."""
    found = audit_search.search(
        log, AuditLogFilter(), order=Order.OLDEST, after=None, limit=1000, budget_s=1, up_to=500
    )
    assert (len(found.rows), found.rows[-1][0], found.reached) == (500, 500, None)


def test_an_empty_log_is_searched_too(tmp_path: Path) -> None:
    """No row, and no next page."""
    with writing(make_database(tmp_path / "passbook.db")) as connection:
        for order in some(Order):
            for wanted in (AuditLogFilter(), AuditLogFilter(action="*_failed", since="2026-01-01 00:00:00")):
                found = audit_search.search(connection, wanted, order=order, after=None, limit=5, budget_s=1)
                assert found == ([], None)


def plans(connection: Connection, act: Callable[[], object]) -> list[str]:
    """The query plan of every statement that `act` carries out."""
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    act()
    connection.set_trace_callback(None)
    return [row[3] for sql in statements for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]


@pytest.mark.parametrize("values", [*COMBINATIONS[:20], *random.Random(3).sample(COMBINATIONS, 100)], ids=str)
@pytest.mark.parametrize("order", Order)
def test_no_search_scans_or_sorts(path: Path, values: dict[str, Any], order: Order) -> None:
    """Every step is a search in an index, or goes along the ids between two of them; no temporary b-tree."""
    with writing(path) as connection:
        found = plans(connection, lambda: next(every(connection, AuditLogFilter(**values), order, 50)))
    for step in some(found):
        assert not re.search(r"TEMP B-TREE|SCAN audit_|AUTOMATIC", step), step


@pytest.mark.parametrize("name", [*audit_search._EQUAL, "resource_id", "outcome", "*_failed", "time"])
def test_each_filter_goes_by_its_index(path: Path, name: str) -> None:
    """One condition alone touches no row that it does not answer."""
    values = {
        "*_failed": {"action": "*_failed"},
        "time": {"since": instant(0)},
        "outcome": {"outcome": Outcome.FAILURE},
        **{other: {other: CHOICES[other][0]} for other in (*audit_search._EQUAL, "resource_id")},
    }[name]
    index = {"resource_id": "idx_audit_logs_resource ", "outcome": "idx_audit_logs_action ", "time": "PRIMARY KEY"}.get(
        name, "idx_audit_logs_action " if name == "*_failed" else f"{audit_search._EQUAL.get(name)} "
    )
    with writing(path) as connection:
        found = plans(connection, lambda: next(every(connection, AuditLogFilter(**values), Order.NEWEST, 50)))
    assert any(step.startswith("SEARCH audit_logs USING") and index in step for step in found), found


@pytest.mark.parametrize("order", Order)
def test_a_rare_action_of_a_past_day_is_found_by_its_index(tmp_path: Path, order: Order) -> None:
    """Not by way of all rows of the day, though the newest rows, which have no node yet, are looked at one by one."""
    rows, rare = 20_000, 9_000
    with writing(make_database(tmp_path / "passbook.db")) as connection:
        with sqlite.transaction(connection):
            connection.executemany(
                "INSERT INTO audit_logs (id, action, created_at) VALUES (?, ?, ?)",
                ((n, "rare" if n == rare else "frequent", instant(n)) for n in range(1, rows + 1)),
            )
            fill_audit_nodes(connection)
        steps = thousands_of_steps(connection)
        wanted = AuditLogFilter(action="rare", since=instant(500), until=instant(15_000))
        found = audit_search.search(connection, wanted, order=order, after=None, limit=50, budget_s=10)
        connection.set_progress_handler(None, 0)
    assert [row[0] for row in found.rows] == [rare]
    assert steps[0] < 20, "thousands of steps of SQLite's machine; a row takes several"


SMALL = 4
"""Rows of a node, and children of one, in the next test."""
SIZES = (*range(1, 22), 31, 32, 33, *range(63, 67), 80, 81, 85)


@pytest.mark.parametrize("order", Order)
def test_every_end_of_every_tree_is_searched_by_time(
    tmp_path: Path, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs that end with, before and behind a node of each level: from each row on, up to each, and each alone."""
    for name, value in {"_LEVEL_BITS": 4, "_NODE_CHILDREN": SMALL, "_GAP_MAX": 0, "_PROBE": 1}.items():
        monkeypatch.setattr(audit_search, name, value)
    with writing(make_database(tmp_path / "passbook.db")) as connection, sqlite.transaction(connection):
        connection.execute("DROP TABLE audit_nodes")
        connection.execute(
            "CREATE TABLE audit_nodes (level, position, first_id, last_id, created_at_min, created_at_max)"
        )
        size = 0
        for wanted_size in SIZES:
            while size < wanted_size:
                size += 1
                connection.execute(
                    "INSERT INTO audit_logs (id, action, created_at) VALUES (?, 'a', ?)", (size, instant(size))
                )
                for level, rows in ((4, SMALL), (8, SMALL**2), (12, SMALL**3)):
                    if size % rows == 0:
                        first = size - rows + 1
                        node = (level, first // rows, first, size, instant(first), instant(size))
                        connection.execute("INSERT INTO audit_nodes VALUES (?, ?, ?, ?, ?, ?)", node)
            for at in range(1, size + 1):
                for since, until in ((at, None), (None, at + 1), (at, at + 1)):
                    wanted = AuditLogFilter(
                        since=None if since is None else instant(since), until=None if until is None else instant(until)
                    )
                    expected = list(range(since or 1, until or size + 1))
                    if order == Order.NEWEST:
                        expected.reverse()
                    for after in (None, at) if since and until else (None, size // 2, size - 1):
                        oldest = order == Order.OLDEST
                        left = [row for row in expected if after is None or (row > after if oldest else row < after)]
                        found = audit_search.search(
                            connection, wanted, order=order, after=after, limit=100, budget_s=60
                        ).rows
                        ids = [row[0] for row in found]
                        assert ids == left, f"{size} rows, from {since} to before {until}, after {after}: {ids}"


@pytest.mark.parametrize(
    ("order", "values", "first"),
    [
        (Order.OLDEST, {"since": instant(19_000)}, 19_000),
        (Order.NEWEST, {"until": instant(1_000)}, 999),
        (Order.OLDEST, {"since": instant(9_000), "until": instant(15_000)}, 9_000),
        (Order.NEWEST, {"since": instant(9_000), "until": instant(15_000)}, 14_999),
    ],
    ids=["since", "until", "both, oldest", "both, newest"],
)
def test_one_end_of_a_time_is_enough_to_leave_the_rest_out(
    tmp_path: Path, order: Order, values: dict[str, Any], first: int
) -> None:
    """The rows before or behind it are not read one by one."""
    with writing(make_database(tmp_path / "passbook.db")) as connection:
        with sqlite.transaction(connection):
            connection.executemany(
                "INSERT INTO audit_logs (id, action, created_at) VALUES (?, 'a', ?)",
                ((n, instant(n)) for n in range(1, 20_001)),
            )
            fill_audit_nodes(connection)
        steps = thousands_of_steps(connection)
        found = audit_search.search(
            connection, AuditLogFilter(**values), order=order, after=None, limit=50, budget_s=10
        )
        connection.set_progress_handler(None, 0)
    assert found.rows[0][0] == first
    assert steps[0] < 20, "thousands of steps of SQLite's machine; a row takes several"


def thousands_of_steps(connection: Connection) -> list[int]:
    """Counts them from now on, as its only member."""
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    connection.set_progress_handler(count, 1000)
    return steps


@pytest.mark.long
def test_a_pattern_of_too_many_actions_is_answered_all_the_same(tmp_path: Path) -> None:
    """Then the rows themselves are looked through, a bounded number for each page."""
    with writing(make_database(tmp_path / "passbook.db")) as connection:
        connection.executemany("INSERT INTO audit_logs (action) VALUES (?)", ((f"a{n:04d}",) for n in range(ROWS)))
        found = every(connection, AuditLogFilter(action="a*7"), Order.NEWEST, 1000)
        assert list(itertools.chain(*found)) == [id_ for id_ in range(ROWS, 0, -1) if id_ % 10 == 8]
        found = every(connection, AuditLogFilter(action="a0*7"), Order.NEWEST, 1000)
        assert list(itertools.chain(*found)) == [id_ for id_ in range(1000, 0, -1) if id_ % 10 == 8]


@pytest.mark.parametrize("order", Order)
@pytest.mark.long
def test_large_rows_make_short_pages_and_none_is_left_out(tmp_path: Path, order: Order) -> None:
    """A thousand rows could have 64 MB of details, which would be in memory until the caller has taken them."""
    size, count = 60_000, 200
    with writing(make_database(tmp_path / "passbook.db")) as connection:
        connection.executemany(
            "INSERT INTO audit_logs (action, details) VALUES (?, ?)",
            ((f"a{n % 3}", '"' + "x" * (size - 2) + '"') for n in range(count)),
        )
        for wanted, expected in ((AuditLogFilter(), count), (AuditLogFilter(action="a1"), len(range(1, count, 3)))):
            pages = list(every(connection, wanted, order, 1000))
            found = list(itertools.chain(*pages))
            assert found == sorted(set(found), reverse=order == Order.NEWEST)
            assert len(found) == expected
            most = audit_search.PAGE_CHARACTERS_MAX // size + 1
            assert [len(page) for page in pages[:-1]] == [most] * (expected // most)


def test_suspicious_activity_goes_by_the_index_of_failures(path: Path) -> None:
    """By when the attempts were made; the rest of the log is not read."""
    with writing(path) as connection:
        found = plans(
            connection, lambda: audit_logs.list_suspicious(connection, since=instant(86400), threshold=5, limit=1000)
        )
    assert any("idx_audit_logs_failed (created_at>?)" in step for step in found), found
