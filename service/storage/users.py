"""Table users, and each user's account in user_deposits."""

from service.ledger.timestamps import spoken
from service.ledger.users import Account, Balance, User
from service.storage.sqlite import Connection


def find_account(tx: Connection, telegram_id: str) -> Account | None:
    """The user with balance and version, or None."""
    row = tx.execute(
        "SELECT u.id, u.telegram_id, u.username, u.created_at, d.balance, d.version"
        " FROM users AS u JOIN user_deposits AS d ON d.user_id = u.id WHERE u.telegram_id = ?",
        (telegram_id,),
    ).fetchone()
    return Account(*row) if row else None


def insert(tx: Connection, *, telegram_id: str, username: str | None, now: str) -> Account:
    """Makes the user; a trigger opens its account with a balance of 0."""
    user_id = tx.execute(
        "INSERT INTO users (telegram_id, username, created_at) VALUES (?, ?, ?)", (telegram_id, username, now)
    ).lastrowid
    assert user_id is not None
    return Account(user_id, telegram_id, username, now, 0, 0)


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
        " AND transaction_id IS NOT NULL)"
        " FROM users AS u JOIN user_deposits AS d ON d.user_id = u.id WHERE u.telegram_id = ?",
        (telegram_id,),
    ).fetchone()
    return Balance(telegram_id=row[0], balance=row[1], version=row[2], held=row[3]) if row else None
