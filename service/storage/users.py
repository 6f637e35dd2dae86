"""Table users, and each user's account in user_deposits."""

from collections.abc import Iterable, Sequence

from service.ledger.timestamps import spoken
from service.ledger.users import Account, Balance, User
from service.storage.inserts import insert_rows
from service.storage.sqlite import Connection, as_json
from service.storage.transactions import sql_of_taken_back

_TAKEN_BACK = sql_of_taken_back("user_domains.transaction_id")
_ACCOUNT = (
    "SELECT u.id, u.telegram_id, u.username, u.created_at, d.balance, d.version"
    " FROM users AS u JOIN user_deposits AS d ON d.user_id = u.id"
)
Row = tuple[int, str, str | None, str]
"""A user to be written: id, telegram_id, username, created_at."""


def find_account(tx: Connection, telegram_id: str) -> Account | None:
    """The user with balance and version, or None."""
    row = tx.execute(f"{_ACCOUNT} WHERE u.telegram_id = ?", (telegram_id,)).fetchone()
    return Account(*row) if row else None


def find_accounts(tx: Connection, telegram_ids: Iterable[str]) -> dict[str, Account]:
    """The users that are there, by telegram_id."""
    rows = tx.execute(f"{_ACCOUNT} WHERE u.telegram_id IN (SELECT value FROM json_each(?))", (as_json(telegram_ids),))
    return {row[1]: Account(*row) for row in rows.fetchall()}


def insert_many(tx: Connection, rows: Sequence[Row]) -> None:
    """Makes the users; a trigger opens the account of each with a balance of 0."""
    insert_rows(tx, "INSERT INTO users (id, telegram_id, username, created_at)", rows)


def update_username(tx: Connection, *, user_id: int, username: str) -> None:
    """Sets the user name."""
    tx.execute("UPDATE users SET username = ? WHERE id = ?", (username, user_id))


def find(tx: Connection, telegram_id: str) -> User | None:
    """The user as the API shows it, or None."""
    row = tx.execute(
        "SELECT telegram_id, username, created_at FROM users WHERE telegram_id = ?", (telegram_id,)
    ).fetchone()
    return User(telegram_id=row[0], username=row[1], created_at=row[2] and spoken(row[2])) if row else None


def find_balance(tx: Connection, telegram_id: str) -> Balance | None:
    """The user's balance, or None when there is no such user."""
    row = tx.execute(
        "SELECT u.telegram_id, d.balance, d.version,"
        " (SELECT COALESCE(SUM(price), 0) FROM user_domains WHERE user_id = u.id AND status = 'pending'"
        f" AND transaction_id IS NOT NULL AND NOT {_TAKEN_BACK})"
        " FROM users AS u JOIN user_deposits AS d ON d.user_id = u.id WHERE u.telegram_id = ?",
        (telegram_id,),
    ).fetchone()
    return Balance(telegram_id=row[0], balance=row[1], version=row[2], held=row[3]) if row else None
