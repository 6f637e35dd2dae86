"""Table deposit_transactions as the passbook's lines, whatever their type."""

from service.ledger.timestamps import spoken
from service.ledger.transactions import Direction, Transaction, TransactionStatus
from service.ledger.users import Account
from service.storage.sqlite import Connection

_COLUMNS = (
    "t.id, u.telegram_id, t.type, t.direction, t.amount, t.status, t.depositor_name, t.description, t.reference,"
    " t.created_at, t.confirmed_at, t.balance_before, t.balance_after, t.version, t.reverses_id,"
    " (SELECT id FROM deposit_transactions WHERE reverses_id = t.id)"
)


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
    transaction_id = tx.execute(
        "INSERT INTO deposit_transactions (user_id, type, direction, amount, status, description, reference,"
        " created_at, confirmed_at, balance_before, balance_after, version, reverses_id)"
        " VALUES (?, ?, ?, ?, 'confirmed', ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            account.user_id,
            transaction_type,
            direction,
            amount,
            description,
            reference,
            now,
            now,
            account.balance,
            balance_after,
            account.version + 1,
            reverses_id,
        ),
    ).lastrowid
    assert transaction_id is not None
    return transaction_id


def find(tx: Connection, transaction_id: int) -> Transaction | None:
    """One transaction, or None."""
    row = tx.execute(
        f"SELECT {_COLUMNS} FROM deposit_transactions AS t JOIN users AS u ON u.id = t.user_id WHERE t.id = ?",
        (transaction_id,),
    ).fetchone()
    return _transaction(row) if row else None


def list_of_user(tx: Connection, user_id: int, *, before_id: int, limit: int) -> list[Transaction]:
    """Up to `limit` transactions of the user with an id below `before_id`, newest first."""
    rows = tx.execute(
        f"SELECT {_COLUMNS} FROM deposit_transactions AS t JOIN users AS u ON u.id = t.user_id"
        " WHERE t.user_id = ? AND t.id < ? ORDER BY t.id DESC LIMIT ?",
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
