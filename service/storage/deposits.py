"""Table deposit_transactions, its rows of type deposit."""

import heapq
from itertools import chain

import msgspec

from service.ledger.deposits import Deposit
from service.ledger.expiry import Due
from service.ledger.timestamps import spoken
from service.ledger.transactions import TransactionStatus
from service.ledger.users import Account
from service.storage.sqlite import Connection

_SELECT = (
    "SELECT t.id, u.telegram_id, t.amount, t.depositor_name,"
    " CASE WHEN r.id IS NULL THEN t.status ELSE 'reversed' END, t.created_at, t.confirmed_at,"
    " (SELECT id FROM bank_notifications WHERE matched_transaction_id = t.id"
    "  ORDER BY match_method IS NULL, id DESC LIMIT 1)"  # a line of the bot's may be matched by it and one by Passbook
    " FROM deposit_transactions AS t JOIN users AS u ON u.id = t.user_id"
    " LEFT JOIN deposit_transactions AS r ON r.reverses_id = t.id"
)


def confirm(tx: Connection, deposit: Deposit, account: Account, *, balance_after: int, now: str) -> None:
    """Moves the deposit from the status it was read in to confirmed; a trigger moves the balance with it."""
    moved = tx.execute(
        "UPDATE deposit_transactions SET status = 'confirmed', confirmed_at = ?, balance_before = ?,"
        " balance_after = ?, version = ? WHERE id = ? AND status = ?",
        (now, account.balance, balance_after, account.version + 1, deposit.id, deposit.status),
    ).rowcount
    _expect_one(moved, deposit)


def cancel(tx: Connection, deposit: Deposit) -> None:
    """Moves the deposit from the status it was read in to cancelled."""
    moved = tx.execute(
        "UPDATE deposit_transactions SET status = 'cancelled' WHERE id = ? AND status = ?", (deposit.id, deposit.status)
    ).rowcount
    _expect_one(moved, deposit)


def expire(tx: Connection, deposit: Deposit) -> None:
    """Moves the deposit from the status it was read in to expired."""
    moved = tx.execute(
        "UPDATE deposit_transactions SET status = 'expired' WHERE id = ? AND status = ?", (deposit.id, deposit.status)
    ).rowcount
    _expect_one(moved, deposit)


def _expect_one(moved: int, deposit: Deposit) -> None:
    if moved != 1:
        raise RuntimeError(f"deposit {deposit.id} is no longer {deposit.status}")


def find(tx: Connection, deposit_id: int) -> Deposit | None:
    """One deposit, or None; a transaction of another type is no deposit."""
    row = tx.execute(f"{_SELECT} WHERE t.id = ? AND t.type = 'deposit'", (deposit_id,)).fetchone()
    return _deposit(row) if row else None


def pays_in(tx: Connection, deposit_id: int) -> bool:
    """Whether confirming the deposit raises the balance: some that were taken over are of 0 won, or of less."""
    sql = "SELECT amount > 0 AND direction = 'credit' FROM deposit_transactions WHERE id = ?"
    return bool(tx.execute(sql, (deposit_id,)).fetchone()[0])


def find_due(tx: Connection, deposit_id: int, *, created_before: str) -> Deposit | None:
    """The deposit if it is pending and older than `created_before`, or None. Without a time it counts as older."""
    row = tx.execute(
        f"{_SELECT} WHERE t.id = ? AND t.type = 'deposit' AND t.status = 'pending'"
        " AND (t.created_at IS NULL OR t.created_at < ?)",
        (deposit_id, created_before),
    ).fetchone()
    return _deposit(row) if row else None


def list_due(tx: Connection, *, created_before: str, after: Due, limit: int) -> list[Due]:
    """Up to `limit` pending deposits older than `created_before`, those without a time first, then oldest first."""
    found = []
    if after.created_at is None:
        found = tx.execute(
            "SELECT created_at, id FROM deposit_transactions INDEXED BY idx_transactions_status"
            " WHERE status = 'pending' AND type = 'deposit' AND created_at IS NULL AND id > ? ORDER BY id LIMIT ?",
            (after.id, limit),
        ).fetchall()
        after = Due(float("-inf"), 0)  # SQLite sorts numbers before texts
    found += tx.execute(
        "SELECT created_at, id FROM deposit_transactions INDEXED BY idx_transactions_status"
        " WHERE status = 'pending' AND type = 'deposit' AND created_at < ? AND (created_at, id) > (?, ?)"
        " ORDER BY created_at, id LIMIT ?",
        (created_before, after.created_at, after.id, limit - len(found)),
    ).fetchall()
    return [Due(*row) for row in found]


def list_newest(
    tx: Connection, *, status: str | None, telegram_id: str | None, before_id: int, limit: int
) -> list[Deposit]:
    """Up to `limit` deposits with an id below `before_id`, newest first, of that status and user where given."""
    if telegram_id is not None:
        ids = _ids_of_user(tx, telegram_id, status, before_id, limit)
    elif status == TransactionStatus.REVERSED:
        ids = _ids(tx, _REVERSED, (before_id, limit))
    else:
        # Each is a walk along the index, which has the ids of one status in order; those of several are merged.
        statuses = _statuses(tx) if status is None else [status]
        walk = _OF_STATUS if status is None else _OF_STATUS_AND_NOT_REVERSED
        found = (_ids(tx, walk, (one, before_id, limit)) for one in statuses)
        ids = heapq.nlargest(limit, chain.from_iterable(found))
    wanted = msgspec.json.encode(ids).decode()
    rows = tx.execute(f"{_SELECT} WHERE t.id IN (SELECT value FROM json_each(?)) ORDER BY t.id DESC", (wanted,))
    return [_deposit(row) for row in rows.fetchall()]


_OF_STATUS = (
    "SELECT id FROM deposit_transactions AS t INDEXED BY idx_transactions_type"
    " WHERE type = 'deposit' AND status = ? AND id < ? ORDER BY id DESC LIMIT ?"
)
# A reversed deposit keeps `confirmed` in its row: it did move the balance.
_IS_REVERSED = "EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = t.id)"
_OF_STATUS_AND_NOT_REVERSED = _OF_STATUS.replace(" ORDER", f" AND NOT {_IS_REVERSED} ORDER")
_REVERSED = (
    "SELECT t.id FROM deposit_transactions AS r INDEXED BY idx_transactions_reverses"
    " CROSS JOIN deposit_transactions AS t ON t.id = r.reverses_id"  # in this order
    " WHERE r.reverses_id < ? AND t.type = 'deposit' AND t.status = 'confirmed' ORDER BY r.reverses_id DESC LIMIT ?"
)


def _ids(tx: Connection, walk: str, values: tuple[str | int, ...]) -> list[int]:
    return [row[0] for row in tx.execute(walk, values).fetchall()]


def _statuses(tx: Connection) -> list[str]:
    """The words that deposits have for their status, the bot's too: found by skipping from one to the next."""
    found: list[str] = []
    walk = "SELECT status FROM deposit_transactions INDEXED BY idx_transactions_type WHERE type = 'deposit'"
    row = tx.execute(f"{walk} ORDER BY status LIMIT 1").fetchone()
    while row is not None:
        found.append(row[0])
        row = tx.execute(f"{walk} AND status > ? ORDER BY status LIMIT 1", row).fetchone()
    return found


def _ids_of_user(tx: Connection, telegram_id: str, status: str | None, before_id: int, limit: int) -> list[int]:
    """Of the user's own rows, by the index on them, whatever else would look as good to SQLite without statistics."""
    conditions, values = "", []
    if status == TransactionStatus.REVERSED:
        conditions = f" AND status = 'confirmed' AND {_IS_REVERSED}"
    elif status is not None:
        conditions, values = f" AND status = ? AND NOT {_IS_REVERSED}", [status]
    walk = (
        "SELECT id FROM deposit_transactions AS t INDEXED BY idx_transactions_user"
        " WHERE user_id = (SELECT id FROM users WHERE telegram_id = ?) AND id < ? AND type = 'deposit'"
    )
    return _ids(tx, f"{walk}{conditions} ORDER BY id DESC LIMIT ?", (telegram_id, before_id, *values, limit))


def _deposit(row: tuple[int, str, int, str | None, str, str | None, str | None, int | None]) -> Deposit:
    deposit_id, telegram_id, amount, depositor_name, status, created_at, confirmed_at, notification_id = row
    return Deposit(
        id=deposit_id,
        telegram_id=telegram_id,
        amount=amount,
        depositor_name=depositor_name,
        status=status,
        created_at=created_at and spoken(created_at),
        confirmed_at=confirmed_at and spoken(confirmed_at),
        matched_bank_notification_id=notification_id,
    )
