"""Table deposit_transactions as the passbook's lines, whatever their type."""

from collections.abc import Sequence

from service.ledger.timestamps import spoken
from service.ledger.transactions import Direction, Transaction, TransactionStatus
from service.ledger.users import Account
from service.storage.inserts import insert_row, insert_rows
from service.storage.sqlite import Connection

_COLUMNS = (
    "t.id, u.telegram_id, t.type, t.direction, t.amount, t.status, t.depositor_name, t.description, t.reference,"
    " t.created_at, t.confirmed_at, t.balance_before, t.balance_after, t.version, t.reverses_id,"
    " (SELECT id FROM deposit_transactions WHERE reverses_id = t.id)"
)


_INSERT = (
    "INSERT INTO deposit_transactions (id, user_id, type, direction, amount, status, depositor_name, match_name,"
    " description, reference, created_at, confirmed_at, balance_before, balance_after, version, reverses_id)"
)
Row = tuple[int | str | None, ...]
"""A transaction to be written: the values of _INSERT. A null id takes the next one.

Enums are written as their values: for one that is bound as it is, SQLite's module looks for an adapter, 1.2 µs each.
"""
_CONFIRMED = TransactionStatus.CONFIRMED.value


def confirmed_row(
    transaction_id: int | None,
    account: Account,
    *,
    transaction_type: str,
    direction: Direction,
    amount: int,
    balance_after: int,
    description: str | None,
    reference: str | None,
    now: str,
    reverses_id: int | None = None,
) -> Row:
    """A transaction that moves the balance at once. `account` is as it stands before."""
    return (
        transaction_id,
        account.user_id,
        transaction_type,
        direction.value,
        amount,
        _CONFIRMED,
        None,
        None,
        description,
        reference,
        now,
        now,
        account.balance,
        balance_after,
        account.version + 1,
        reverses_id,
    )


def pending_row(
    transaction_id: int, *, user_id: int, amount: int, depositor_name: str, match_name: str, now: str
) -> Row:
    """A deposit that waits for its money."""
    status, direction, nothing_yet = TransactionStatus.PENDING.value, Direction.CREDIT.value, (None,) * 5
    about = (transaction_id, user_id, "deposit", direction, amount, status, depositor_name, match_name)
    return (*about, None, None, now, *nothing_yet)


def find_first_of_chain(tx: Connection, transaction_id: int) -> int:
    """What a chain of reversals began with; the transaction itself where it reverses nothing."""
    found: int = tx.execute(
        "WITH RECURSIVE chain(id, reverses_id) AS ("
        " SELECT id, reverses_id FROM deposit_transactions WHERE id = ?"
        " UNION SELECT t.id, t.reverses_id FROM chain JOIN deposit_transactions AS t ON t.id = chain.reverses_id)"
        " SELECT id FROM chain WHERE reverses_id IS NULL",
        (transaction_id,),
    ).fetchone()[0]
    return found


def insert_many(tx: Connection, rows: Sequence[Row]) -> None:
    """Writes the transactions. Triggers move the balances, in the order of the rows."""
    insert_rows(tx, _INSERT, rows)


def insert_confirmed(
    tx: Connection,
    account: Account,
    *,
    transaction_type: str,
    direction: Direction,
    amount: int,
    balance_after: int,
    description: str | None,
    reference: str | None,
    now: str,
    reverses_id: int | None = None,
) -> int:
    """Writes a transaction that moves the balance at once; returns its id. A trigger moves it."""
    row = confirmed_row(
        None,
        account,
        transaction_type=transaction_type,
        direction=direction,
        amount=amount,
        balance_after=balance_after,
        description=description,
        reference=reference,
        now=now,
        reverses_id=reverses_id,
    )
    return insert_row(tx, _INSERT, row)


def find(tx: Connection, transaction_id: int) -> Transaction | None:
    """One transaction, or None."""
    row = tx.execute(
        f"SELECT {_COLUMNS} FROM deposit_transactions AS t JOIN users AS u ON u.id = t.user_id WHERE t.id = ?",
        (transaction_id,),
    ).fetchone()
    return _transaction(row) if row else None


def sql_of_taken_back(transaction_id: str) -> str:
    """SQL of whether the money that the debit `transaction_id` took is back: its chain of reversals ends with a credit.

    A reversal may be reversed in its turn, and each of the chain moves the money the other way. False for null.
    """
    return (
        f"(EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = {transaction_id})"
        f" AND (WITH RECURSIVE chain(id) AS (SELECT {transaction_id} UNION SELECT r.id FROM chain"
        " JOIN deposit_transactions AS r ON r.reverses_id = chain.id) SELECT COUNT(*) % 2 = 0 FROM chain))"
    )


def sql_of_last_of_chain(transaction_id: str) -> str:
    """SQL of the id of the end of the chain of reversals that the transaction begins: its own, if it was not reversed.

    Null for null, and where a hand made a ring of them.
    """
    return (
        f"iif(NOT EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = {transaction_id}), {transaction_id},"
        f" (WITH RECURSIVE chain(id) AS (SELECT {transaction_id} UNION SELECT r.id FROM chain"
        " JOIN deposit_transactions AS r ON r.reverses_id = chain.id) SELECT id FROM chain"
        " WHERE NOT EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = chain.id) LIMIT 1))"
    )


def find_last_of_chain(tx: Connection, transaction_id: int) -> Transaction | None:
    """The end of the chain of reversals that the transaction begins: itself, where it was not reversed."""
    row = tx.execute(f"SELECT {sql_of_last_of_chain('?1')}", (transaction_id,)).fetchone()
    return find(tx, row[0]) if row[0] is not None else None


def list_of_user(tx: Connection, user_id: int, *, before_id: int, limit: int) -> list[Transaction]:
    """Up to `limit` transactions of the user with an id below `before_id`, newest first."""
    rows = tx.execute(
        # Which ids are on the page is asked of the index alone: only they are read as rows.
        f"SELECT {_COLUMNS} FROM deposit_transactions AS t JOIN users AS u ON u.id = t.user_id"
        " WHERE t.id IN (SELECT id FROM deposit_transactions INDEXED BY idx_transactions_user"
        "  WHERE user_id = ? AND id < ? ORDER BY id DESC LIMIT ?) ORDER BY t.id DESC",
        (user_id, before_id, limit),
    ).fetchall()
    return [_transaction(row) for row in rows]


def _transaction(row: tuple[object, ...]) -> Transaction:
    values = dict(zip(Transaction.__struct_fields__, row, strict=True))
    for moment in ("created_at", "confirmed_at"):
        text = values[moment]
        values[moment] = spoken(text) if isinstance(text, str) else None
    if values["reversed_by_id"] is not None:  # the row keeps `confirmed`: it did move the balance
        values["status"] = TransactionStatus.REVERSED
    return Transaction(**values)  # type: ignore[arg-type]
