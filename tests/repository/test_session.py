"""The session by itself: what is gathered, when it is written, and what is left of an operation that fails."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.api import problems
from service.ledger.audit_logs import DEPOSIT_TRANSACTION
from service.ledger.balance_changes import BalanceChange, BalanceChangesPost
from service.ledger.debits import DebitPost
from service.ledger.depositor_names import AnnouncedName
from service.ledger.deposits import DepositAnnounce
from service.ledger.errors import InsufficientFunds, KeyRefused
from service.ledger.idempotency import Answer, Request
from service.ledger.policy import Policy
from service.repository import balance_changes, debits, deposits
from service.repository.session import Context, Session, Spoilt
from service.repository.unit_of_work import Operation, UnitOfWork
from service.repository.writer import Work, run_batch
from tests.ledger_check import broken_invariants
from tests.repository.house import make_database, writing
from tests.some import some

NOW = "2026-01-19 12:00:00.000"
USER = "3001"
CONTEXT = Context(actor="test", request_id="r", ip_address=None, user_agent=None)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Any]:
    """A database whose user has 1,000 won; sound when the test is over."""
    path = make_database(tmp_path / "passbook.db")
    with writing(path) as made:
        run(made, credit(1000, "start"))
        yield made
    assert broken_invariants(path) == []


def work(operation: Operation, command: msgspec.Struct, key: str, context: Context = CONTEXT) -> Work:
    """A request as the writer hands it over."""
    body = msgspec.json.encode(command).decode()
    return Work(operation, command, 0, Request(idempotency_key=key, operation="POST /x", body=body), context)


def credit(amount: int, reference: str, telegram_id: str = USER) -> Work:
    """One balance change that comes in."""
    change = BalanceChange(telegram_id=telegram_id, amount=amount, reason="test", reference=reference)
    return work(balance_changes.POST, BalanceChangesPost(changes=[change]), f"credit-{reference}")


def debit(amount: int, key: str, telegram_id: str = USER) -> Work:
    """A debit."""
    return work(debits.POST, DebitPost(telegram_id=telegram_id, amount=amount, reason="test"), key)


def run(connection: Any, *batch: Work) -> list[Answer | Exception]:
    """What came of one commit."""
    done = run_batch(connection, [*batch], now=NOW, policy=Policy(), render_refusal=problems.render_refusal)
    return done.outcomes


def statuses(outcomes: list[Answer | Exception]) -> list[int]:
    return [outcome.status for outcome in outcomes if isinstance(outcome, Answer)]


def balance(connection: Any, telegram_id: str = USER) -> int | None:
    sql = "SELECT balance FROM user_deposits AS d JOIN users AS u ON u.id = d.user_id WHERE u.telegram_id = ?"
    row = connection.execute(sql, (telegram_id,)).fetchone()
    return row and int(row[0])


def test_operations_of_one_commit_see_each_others_changes(connection: Any) -> None:
    """Debits, a refusal and a credit of one user in one commit: each starts where the one before ended."""
    outcomes = run(connection, debit(600, "a"), debit(600, "b"), credit(300, "c"), debit(700, "d"), debit(1, "e"))
    assert statuses(outcomes) == [201, 409, 200, 201, 409]
    assert balance(connection) == 0


def test_the_same_key_twice_in_one_commit_is_carried_out_once(connection: Any) -> None:
    """The second request gets the first one's bytes, as it does after the commit."""
    outcomes = run(connection, *(debit(10, "same") for _ in range(8)))
    assert len({outcome.body for outcome in outcomes if isinstance(outcome, Answer)}) == 1
    assert [outcome.replayed for outcome in outcomes if isinstance(outcome, Answer)] == [False] + [True] * 7
    assert balance(connection) == 990


@pytest.mark.parametrize("size", [1, 64], ids=["alone", "in_company"])
def test_a_batch_of_changes_writes_with_a_few_statements(connection: Any, size: int) -> None:
    """A thousand changes: accounts and references are read with one statement each, and rows go in many at a time."""
    changes = [
        BalanceChange(telegram_id=str(4000 + n % 500), amount=5, reason="test", reference=f"many-{size}-{n}")
        for n in range(1000)
    ]
    company = [debit(1, f"company-{size}-{n}") for n in range(size - 1)]
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    try:
        outcomes = run(
            connection, *company, work(balance_changes.POST, BalanceChangesPost(changes=changes), f"b{size}")
        )
    finally:
        connection.set_trace_callback(None)
    assert all(isinstance(outcome, Answer) and outcome.status < 300 for outcome in some(outcomes))
    reads = [sql for sql in asked if sql.startswith("SELECT") and "RAISE" not in sql]
    assert len(reads) <= 20, reads
    assert not any("SAVEPOINT" in sql for sql in asked)


def test_an_operation_that_breaks_after_it_wrote_takes_only_itself(connection: Any) -> None:
    """What it gathered and what it wrote by itself is gone; its neighbours in the same commit are whole."""

    def gathers(unit: UnitOfWork, command: Any, target: int) -> Answer:
        debits.POST.run(unit, command, target)
        raise RuntimeError("a bug")

    def writes(unit: UnitOfWork, command: Any, target: int) -> Answer:
        debits.POST.run(unit, command, target)
        unit.tx.execute("UPDATE users SET username = 'written'")
        raise InsufficientFunds("late")

    command = DebitPost(telegram_id=USER, amount=100, reason="test")
    for number, broken in enumerate((gathers, writes)):
        operation = Operation("debit", DEPOSIT_TRANSACTION, broken)
        outcomes = run(
            connection, debit(1, f"a{number}"), work(operation, command, f"broken{number}"), debit(1, f"b{number}")
        )
        assert [type(outcome) for outcome in outcomes] in ([Answer, RuntimeError, Answer], [Answer] * 3)
    assert balance(connection) == 996
    assert connection.execute("SELECT username FROM users").fetchall() == [(None,)]
    failed = "SELECT COUNT(*) FROM audit_logs WHERE action = 'debit_failed'"
    assert connection.execute(failed).fetchone() == (1,)
    stored = "SELECT idempotency_key FROM idempotency_answers WHERE idempotency_key GLOB 'broken*'"
    assert connection.execute(stored).fetchall() == [("broken1",)]
    first, last, count = connection.execute("SELECT MIN(id), MAX(id), COUNT(*) FROM audit_logs").fetchone()
    assert last - first + 1 == count, "a row that was taken back leaves no gap in the ids of the log"


def test_a_row_that_the_database_refuses_is_found_among_its_neighbours(connection: Any) -> None:
    """A gathered row that breaks a constraint at the flush fails its own operation alone."""

    def lies(unit: UnitOfWork, command: Any, target: int) -> Answer:
        account = unit.session.account(USER)
        assert account is not None
        richer = msgspec.structs.replace  # an account is a frozen struct
        unit.session.announce(
            richer(account, user_id=999), amount=5, depositor_name="nobody", name=AnnouncedName("nobody", "nobody")
        )
        return debits.POST.run(unit, command, target)

    command = DebitPost(telegram_id=USER, amount=100, reason="test")
    outcomes = run(
        connection,
        debit(1, "a"),
        work(Operation("debit", DEPOSIT_TRANSACTION, lies), command, "lies"),
        debit(1, "b"),
    )
    assert isinstance(outcomes[0], Answer)
    assert isinstance(outcomes[2], Answer)
    assert "FOREIGN KEY" in str(outcomes[1])
    assert balance(connection) == 998


def test_what_an_operation_gathered_is_there_when_it_reads(connection: Any) -> None:
    """`reading` and `tx` have what was gathered for the ledger; what was read ahead is read anew after `tx`."""
    session = Session(connection, now=NOW, policy=Policy())
    connection.execute("BEGIN IMMEDIATE")
    try:
        session.begin_operation()
        account = session.open_account("7001", None)
        session.announce(account, amount=5, depositor_name="x", name=AnnouncedName("x", "x"))
        found = "SELECT t.amount FROM deposit_transactions AS t JOIN users AS u ON u.id = t.user_id WHERE u.id = ?"
        assert session.reading.execute(found, (account.user_id,)).fetchall() == [(5,)]
        session.tx.execute("UPDATE users SET username = 'named' WHERE id = ?", (account.user_id,))
        again = session.account("7001")
        assert again is not None
        assert again.username == "named"
        with pytest.raises(Spoilt):
            session.undo_operation()
    finally:
        connection.execute("ROLLBACK")


def test_announcements_of_one_commit_see_each_other(connection: Any) -> None:
    """Of two users who announce the same amount in one commit, the second is warned of the first: where the name is the
    same, begins with that one, begins it, or is cut by the bank to the same."""
    announcements = (
        (500, "홍 길동", True),
        (500, "홍길동", False),
        (501, "홍길동", True),
        (502, "홍길동5678", True),
        (502, "홍길동", False),
        (503, "김철", True),
        (503, "김철수", False),
        (504, "주식회사가나다라", True),
        (504, "주식회사가나다마", False),
        (504, "주식회사가나나", True),
    )
    outcomes = run(
        connection,
        *(
            work(
                deposits.ANNOUNCE,
                DepositAnnounce(telegram_id=f"71{place:02}", amount=amount, depositor_name=name),
                f"announce-{place}",
            )
            for place, (amount, name, _) in enumerate(announcements)
        ),
    )
    told = [msgspec.json.decode(one.body)["collision"] for one in outcomes if isinstance(one, Answer)]
    assert [collision is None for collision in told] == [alone for _, _, alone in announcements], told


def test_a_key_that_is_gone_revoked_or_narrower_does_nothing(connection: Any) -> None:
    """The key is looked at within the transaction; the refusal leaves no row, and stored answers are kept from it."""
    insert = (
        "INSERT INTO api_keys (prefix, name, key_hash, scopes, created_at, revoked_at) VALUES (?, 'test', ?, ?, '', ?)"
    )
    connection.execute(insert, ("pbk_live", b"1", "balance:change", None))
    connection.execute(insert, ("pbk_gone", b"2", "balance:change", NOW))

    def asks(key_id: int, scope: str, key: str) -> list[Answer | Exception]:
        context = msgspec.structs.replace(CONTEXT, key_id=key_id, scope=scope)
        return run(connection, msgspec.structs.replace(debit(1, key), context=context))

    assert statuses(asks(1, "balance:change", "key")) == [201]
    rows = "SELECT (SELECT COUNT(*) FROM audit_logs), (SELECT COUNT(*) FROM idempotency_answers)"
    before = connection.execute(rows).fetchone()
    for key_id, scope, code in (
        (1, "audit:read", "scope_missing"),
        (2, "balance:change", "api_key_revoked"),
        (3, "balance:change", "api_key_unknown"),
    ):
        for key in ("key", f"key-{code}"):
            (outcome,) = asks(key_id, scope, key)
            assert isinstance(outcome, KeyRefused)
            assert outcome.code == code
    assert connection.execute(rows).fetchone() == before
    assert balance(connection) == 999
