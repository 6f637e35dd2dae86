"""Many rows to a statement are the same rows as one by one."""

import pytest

from service.ledger.audit_logs import AuditEvent
from service.ledger.transactions import Direction
from service.ledger.users import Account
from service.storage import audit_logs, transactions
from service.storage.inserts import insert_rows
from service.storage.sqlite import Connection, open_scratch


@pytest.fixture
def tx() -> Connection:
    """A table whose trigger refuses a row that does not go on from the one before it."""
    connection = open_scratch()
    connection.executescript(
        "CREATE TABLE steps (id INTEGER PRIMARY KEY, said TEXT);"
        "CREATE TRIGGER steps_go_on BEFORE INSERT ON steps"
        " WHEN NEW.id <> (SELECT COALESCE(MAX(id), 0) + 1 FROM steps)"
        " BEGIN SELECT RAISE(ABORT, 'a step goes on from the one before it'); END;"
    )
    connection.execute("BEGIN")
    return connection


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 49, 50, 51, 59, 60, 61, 110, 1000])
def test_every_row_is_written_once_and_in_order(tx: Connection, count: int) -> None:
    rows = [(number, f"step {number}") for number in range(1, count + 1)]
    insert_rows(tx, "INSERT INTO steps (id, said)", rows)
    assert tx.execute("SELECT id, said FROM steps ORDER BY rowid").fetchall() == rows


@pytest.mark.parametrize("wrong", [0, 9, 10, 49, 50, 57, 63])
def test_a_row_that_is_refused_raises_and_nothing_after_it_is_written(tx: Connection, wrong: int) -> None:
    """The rows of its own statement are taken back with it; the transaction goes on."""
    rows = [(number, "") for number in range(1, 65)]
    rows[wrong] = (1_000_000, "")
    with pytest.raises(Exception, match=r"^a step goes on from the one before it$"):
        insert_rows(tx, "INSERT INTO steps (id, said)", rows)
    (written,) = tx.execute("SELECT COUNT(*) FROM steps WHERE id < 1000000").fetchone()
    assert tx.execute("SELECT COUNT(*) FROM steps").fetchone() == (written,)
    assert wrong - 50 < written <= wrong
    assert tx.in_transaction


def test_what_is_bound_is_of_a_type_that_sqlite_knows() -> None:
    """For an enum the module looks for an adapter each time, which takes longer than the whole row."""
    account = Account(1, "7001", None, "2026-01-01 00:00:00.000", 100, 3)
    confirmed = transactions.confirmed_row(
        1, account, transaction_type="debit", direction=Direction.DEBIT, amount=5, balance_after=95,
        description="d", reference="r", now=account.created_at,
    )  # fmt: skip
    pending = transactions.pending_row(
        1, user_id=1, amount=5, depositor_name="홍길동", match_name="홍길동", now=account.created_at
    )
    event = AuditEvent(
        action="debit_failed",
        resource_type=None,
        resource_id=None,
        user_id=1,
        telegram_id="7001",
        details={"amount": 5},
    )
    recorded = audit_logs.row(
        1, event, actor="bot", key_prefix=None, request_id=None, ip_address=None, user_agent=None,
        now=account.created_at,
    )  # fmt: skip
    for value in (*confirmed, *pending, *recorded):
        assert type(value) in {int, str, type(None)}, value
