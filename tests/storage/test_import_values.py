"""What may stand in a row that is taken over: three ways to ask agree, at the edges of every column."""

import contextlib
import json
import math

import pytest

from service.ledger.fields import BALANCE_MAX
from service.storage import import_values, sqlite
from service.storage.import_source import baseline_columns
from service.storage.import_values import Refused, Taken, Value, take
from tests.some import some
from tests.storage.test_importer import MIGRATIONS

COLUMNS = [(table, column) for table, columns in baseline_columns(MIGRATIONS).items() for column in columns]
VALUES: tuple[Value, ...] = (
    *(None, 0, 1, -1, 2**62, BALANCE_MAX, BALANCE_MAX + 1, -BALANCE_MAX, -BALANCE_MAX - 1),
    *(5.0, 5.5, -5.0, 1e300, math.inf, -math.inf, float(2**53)),
    *("5", "5.0", "-5", "+5", " 5", "5,000", "0", "007", "7" * 16, "7" * 30, "", " ", "x", "김", "pending"),
    *("2026-01-02 03:04:05", "2026-01-02 03:04:05.678", "2026-01-02T03:04:05Z", "2026-01-02", "2026-02-28 00:00:00"),
    *(
        "2026-02-29 00:00:00",
        "2026-02-30 00:00:00",
        "2026-13-01 00:00:00",
        "2026-01-01 24:00:00",
        "0001-01-01 00:00:00",
    ),
    *(b"", b"x", b"\xff", b"2026-01-02 03:04:05"),
)


def stands(table: str, column: str, value: Value) -> bool:
    """Whether `take` takes it as it is."""
    try:
        found = take(table, column, value)
    except Refused:
        return False
    return found == Taken(value) and type(found.value) is type(value)


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_what_passes_a_quick_test_is_taken_as_it_is(table: str, column: str) -> None:
    """The quick test in Python, and the one in SQL, may send more to `take`, never less; plain values pass both."""
    plain, odd = import_values.plain(table, column), import_values.odd(table, column)
    with contextlib.closing(sqlite.open_scratch()) as connection:
        connection.execute(
            "CREATE TABLE one (status, amount)" if column == "status" else f"CREATE TABLE one ({column})"
        )
        for value in some(VALUES):
            connection.execute("DELETE FROM one")
            connection.execute(f"INSERT INTO one ({column}) VALUES (?)", (value,))
            is_odd = bool(connection.execute(f"SELECT {odd} FROM one").fetchone()[0])
            as_it_is = stands(table, column, value)
            assert as_it_is or not plain(value), f"{value!r} passes the quick test"
            null = value is None and import_values.is_text(column) is False
            assert as_it_is or is_odd or null, f"{value!r} passes the test in SQL"


@pytest.mark.parametrize(("amount", "odd"), [(-1, True), (0, True), (1, False), (None, False)])
@pytest.mark.parametrize("status", ["pending", "confirmed"])
def test_a_waiting_deposit_of_nothing_is_sent_to_be_looked_at(amount: int | None, odd: bool, status: str) -> None:
    """By the status that it has, since its amount may stand in any other."""
    with contextlib.closing(sqlite.open_scratch()) as connection:
        connection.execute("CREATE TABLE one (status, amount)")
        connection.execute("INSERT INTO one VALUES (?, ?)", (status, amount))
        found = connection.execute(f"SELECT {import_values.odd('deposit_transactions', 'status')} FROM one").fetchone()[
            0
        ]
    assert bool(found) is (odd and status == "pending")
    row: dict[str, Value] = {"type": "deposit", "status": status, "amount": amount}
    assert import_values.never_confirmable(row) is (odd and status == "pending")
    assert not import_values.never_confirmable({**row, "type": "debit"})


@pytest.mark.parametrize(
    ("table", "column", "value", "taken"),
    [
        ("audit_logs", "id", 1, Taken(1)),
        ("audit_logs", "id", 0, "0 is below 1"),
        ("audit_logs", "id", -1, "-1 is below 1"),
        ("users", "id", 0, Taken(0)),
        ("audit_logs", "user_id", "x", Taken(None, mended=True)),
        ("audit_logs", "resource_id", 5.5, Taken(None, mended=True)),
        ("audit_logs", "resource_id", None, Taken(None)),
        *(("user_domains", "price", value, Taken(value)) for value in (None, BALANCE_MAX, -BALANCE_MAX)),
        ("bank_notifications", "matched_transaction_id", None, Taken(None)),
        ("bank_notifications", "balance_after", None, Taken(None)),
        ("bank_notifications", "amount", None, "NULL is no whole number"),
        ("user_deposits", "balance", BALANCE_MAX + 1, "9007199254740992 is beyond 9,007,199,254,740,991"),
        ("user_deposits", "balance", -BALANCE_MAX - 1, "is beyond"),
        ("user_deposits", "balance", 5.0, Taken(5, mended=True, retyped=True)),
        ("user_deposits", "user_id", "5", Taken(5, retyped=True)),
        ("users", "username", b"x", "X'78' is no text"),
        ("users", "username", 5, Taken("5")),
    ],
)
def test_a_value_is_taken_mended_or_refused(table: str, column: str, value: Value, taken: Taken | str) -> None:
    """What becomes of it, and for what is money whether the log keeps the old one."""
    if isinstance(taken, Taken):
        assert take(table, column, value) == taken
        return
    with pytest.raises(Refused, match=taken):
        take(table, column, value)


@pytest.mark.parametrize("value", ["x" * 58, "x" * 59, "x" * 1000, "\n" * 500, b"x" * 500, None, 5, math.inf])
def test_a_value_in_a_message_is_one_short_line_and_in_the_log_it_is_whole(value: Value) -> None:
    """However long or strange it is; JSON can hold what the log keeps."""
    said = import_values.shown(value)
    assert (len(said) <= 60, said.isprintable(), said.endswith("…")) == (True, True, len(said) == 60 and "…" in said)
    logged = import_values.logged(value)
    assert json.loads(json.dumps(logged, allow_nan=False)) == logged
    assert (
        value is None
        or isinstance(value, float)
        or len(str(logged)) >= len(value if not isinstance(value, int) else "")
    )
