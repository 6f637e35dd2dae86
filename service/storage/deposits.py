"""Table deposit_transactions, its rows of type deposit."""

from collections.abc import Callable
from functools import partial

import msgspec

from service.ledger.deposits import Deposit, DepositFilter
from service.ledger.expiry import Due
from service.ledger.timestamps import spoken
from service.ledger.transactions import TransactionStatus
from service.ledger.users import Account
from service.storage import lists, transactions
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
    """One deposit, or None; a transaction of another type is no deposit. When it expires and whether it is in review
    are said by who shows it."""
    row = tx.execute(f"{_SELECT} WHERE t.id = ? AND t.type = 'deposit'", (deposit_id,)).fetchone()
    return _deposit(row) if row else None


def pays_in(tx: Connection, deposit_id: int) -> bool:
    """Whether confirming the deposit raises the balance: some that were taken over are of 0 won, or of less."""
    sql = "SELECT amount > 0 AND direction = 'credit' FROM deposit_transactions WHERE id = ?"
    return bool(tx.execute(sql, (deposit_id,)).fetchone()[0])


def stands_again(tx: Connection, deposit_id: int) -> bool:
    """Whether the deposit was reversed and that reversal was reversed itself, so that its money counts."""
    sql = (
        "SELECT EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = ?1)"
        f" AND NOT {transactions.sql_of_taken_back('?1')}"
    )
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


def list_newest(tx: Connection, wanted: DepositFilter, *, before_id: int, limit: int) -> lists.Page[Deposit]:
    """Up to `limit` deposits with an id below `before_id` for which all of `wanted` holds, newest first.

    They are chosen by the index on the user, on the amount or on the day, where one of these leaves few; else by walks
    of bounded length along the index that has the ids of each status in order. Then a page may be short.
    """
    user = user_id_of(tx, wanted.telegram_id)
    values: lists.Values = {
        "user": user,
        "status": TransactionStatus.CONFIRMED if wanted.status == TransactionStatus.REVERSED else wanted.status,
        "amount": wanted.amount,
        "since": wanted.since,
        "until": wanted.until,
    }
    if wanted.telegram_id is not None and user is None:
        return lists.Page([], None)
    conditions = _conditions(wanted)
    chosen = lists.first_served(_sources(tx, wanted, values))
    if chosen is not None:
        counted = partial(_counted, tx, conditions, values)
        ids, reached = lists.page_of(chosen, counted, after=before_id, oldest_first=False, limit=limit)
    else:
        walks = _walks(tx, wanted, conditions, {**values, "before": before_id, "limit": limit + 1})
        ids, reached = lists.merged(walks, oldest_first=False, limit=limit)
    in_page = msgspec.json.encode(ids).decode()
    rows = tx.execute(f"{_SELECT} WHERE t.id IN (SELECT value FROM json_each(?)) ORDER BY t.id DESC", (in_page,))
    return lists.Page([_deposit(row) for row in rows.fetchall()], reached)


# A reversed deposit keeps `confirmed` in its row: it did move the balance.
_IS_REVERSED = "EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = t.id)"
_OF_USER = "SELECT id FROM deposit_transactions INDEXED BY idx_transactions_user WHERE user_id = :user"
_OF_DAYS = "deposit_transactions INDEXED BY idx_transactions_match WHERE type = 'deposit'"
_DAY = "substr(created_at, 1, 10)"
_DAYS_MAX = 5000
"""How many days are asked for an amount, one by one: those of thirteen years."""


def list_open_of_user(tx: Connection, user_id: int) -> list[Deposit]:
    """The user's deposits whose money may still come, of an amount of which a bank notification waits.

    They are looked for among the user's last READ_MAX transactions.
    """
    rows = tx.execute(
        f"{_SELECT} WHERE t.id IN (SELECT o.id FROM (SELECT id FROM deposit_transactions INDEXED BY"
        " idx_transactions_user WHERE user_id = ? ORDER BY created_at DESC LIMIT ?) AS last"
        " CROSS JOIN deposit_transactions AS o ON o.id = last.id"
        " WHERE o.type = 'deposit' AND o.status IN ('pending', 'expired') AND EXISTS ("
        " SELECT 1 FROM bank_notifications INDEXED BY idx_bank_notifications_waiting"
        " WHERE status <> 'matched' AND closed_as IS NULL AND bank_transaction_id IS NOT NULL AND amount = o.amount))",
        (user_id, lists.READ_MAX),
    ).fetchall()
    return [_deposit(row) for row in rows]


def user_id_of(tx: Connection, telegram_id: str | None) -> int | None:
    """users.id, or None; also where nobody is asked for."""
    row = tx.execute("SELECT id FROM users WHERE telegram_id = ?", (telegram_id,)).fetchone() if telegram_id else None
    return row[0] if row else None


def _conditions(wanted: DepositFilter) -> str:
    """What is asked of each row `t`; beginning with AND, or empty."""
    said = {
        "telegram_id": "t.user_id = :user",
        "amount": "t.amount = :amount",
        "since": "t.created_at >= :since",
        "until": "t.created_at < :until",
        "status": f"t.status = :status AND NOT {_IS_REVERSED}",
    }
    if wanted.status == TransactionStatus.REVERSED:
        said["status"] = f"t.status = :status AND {_IS_REVERSED}"
    return "".join(f" AND {sql}" for name, sql in said.items() if getattr(wanted, name) is not None)


def _sources(tx: Connection, wanted: DepositFilter, values: lists.Values) -> list[Callable[[], list[int] | None]]:
    """Ways to the ids by one condition, the one that leaves the fewest first."""
    period = "".join(
        f" AND created_at {sign} :{name}"
        for name, sign in (("since", ">="), ("until", "<"))
        if values[name] is not None
    )
    found: list[Callable[[], list[int] | None]] = []
    if wanted.telegram_id is not None:
        found.append(partial(lists.few, tx, f"{_OF_USER}{period} LIMIT :read", values))
    if wanted.amount is not None:
        found.append(partial(_of_amount, tx, wanted, values))
    if period:
        days = "".join(f" AND {_DAY} {sign} substr(:{name}, 1, 10)" for name, sign in _bounds_of_days(wanted))
        found.append(partial(lists.few, tx, f"SELECT id FROM {_OF_DAYS}{days} LIMIT :read", values))
    return found


def _bounds_of_days(wanted: DepositFilter) -> list[tuple[str, str]]:
    return [(name, sign) for name, sign in (("since", ">="), ("until", "<=")) if getattr(wanted, name) is not None]


def _of_amount(tx: Connection, wanted: DepositFilter, values: lists.Values) -> list[int] | None:
    """The deposits of the amount, day by day: the index begins with the day. None where there are too many of them, or
    of the days."""
    bounds = dict(_bounds_of_days(wanted))
    first = f" AND {_DAY} <= substr(:until, 1, 10)" if "until" in bounds else ""
    more = " AND days.day >= substr(:since, 1, 10)" if "since" in bounds else ""
    sql = (
        f"WITH RECURSIVE days(day, number) AS (SELECT MAX({_DAY}), 1 FROM {_OF_DAYS}{first}"
        f" UNION ALL SELECT (SELECT MAX({_DAY}) FROM {_OF_DAYS} AND {_DAY} < days.day), days.number + 1 FROM days"
        f" WHERE days.day IS NOT NULL{more} LIMIT {_DAYS_MAX + 1})"
        " SELECT t.id, days.number FROM days LEFT JOIN deposit_transactions AS t INDEXED BY idx_transactions_match"
        " ON t.type = 'deposit' AND substr(t.created_at, 1, 10) = days.day AND t.amount = :amount LIMIT :read"
    )
    rows = tx.execute(sql, {**values, "read": lists.READ_MAX + 1}).fetchall()
    if len(rows) > lists.READ_MAX or (rows and rows[-1][1] > _DAYS_MAX):
        return None
    # Without a time there is no day; no period has such a row.
    undated = f"SELECT id FROM {_OF_DAYS} AND {_DAY} IS NULL AND amount = :amount LIMIT :read"
    without = [] if bounds else lists.few(tx, undated, values)
    return None if without is None else [*without, *(row[0] for row in rows if row[0] is not None)]


def _counted(tx: Connection, conditions: str, values: lists.Values, ids: list[int]) -> list[int]:
    sql = (
        "SELECT t.id FROM deposit_transactions AS t WHERE t.id IN (SELECT value FROM json_each(:ids))"
        f" AND t.type = 'deposit'{conditions}"
    )
    return [row[0] for row in tx.execute(sql, {**values, "ids": msgspec.json.encode(ids).decode()}).fetchall()]


def _walks(tx: Connection, wanted: DepositFilter, conditions: str, values: lists.Values) -> list[lists.Walk]:
    """Each along an index that has the ids of one status in order."""
    if wanted.status == TransactionStatus.REVERSED:
        return [_walk(tx, _REVERSED, conditions, {**values, "last": lists.READ_MAX})]
    statuses = _statuses(tx) if wanted.status is None else [wanted.status]
    last = lists.READ_MAX // max(len(statuses), 1)
    return [_walk(tx, _OF_STATUS, conditions, {**values, "one": one, "last": last}) for one in statuses]


class _Path(msgspec.Struct, frozen=True):
    """A walk along an index, newest first: the id at which it ends, and the rows from there on."""

    end: str
    rows: str


_OF_STATUS = _Path(
    end="SELECT id FROM deposit_transactions INDEXED BY idx_transactions_type"
    " WHERE type = 'deposit' AND status = :one AND id < :before ORDER BY id DESC LIMIT 1 OFFSET :last",
    rows="SELECT t.id FROM deposit_transactions AS t INDEXED BY idx_transactions_type"
    " WHERE t.type = 'deposit' AND t.status = :one AND t.id < :before AND t.id >= :end{conditions}"
    " ORDER BY t.id DESC LIMIT :limit",
)
_REVERSED = _Path(
    end="SELECT reverses_id FROM deposit_transactions INDEXED BY idx_transactions_reverses"
    " WHERE reverses_id < :before ORDER BY reverses_id DESC LIMIT 1 OFFSET :last",
    rows="SELECT t.id FROM deposit_transactions AS r INDEXED BY idx_transactions_reverses"
    " CROSS JOIN deposit_transactions AS t ON t.id = r.reverses_id"  # in this order
    " WHERE r.reverses_id < :before AND r.reverses_id >= :end AND t.type = 'deposit'{conditions}"
    " ORDER BY r.reverses_id DESC LIMIT :limit",
)


def _walk(tx: Connection, path: _Path, conditions: str, values: lists.Values) -> lists.Walk:
    """Where only the status is asked for, each row counts but the reversed ones, and the walk ends with the page."""
    rows = path.rows.replace("{conditions}", conditions)
    return lists.walk(tx, end=path.end, rows=rows, values=values, endless=0)


def _statuses(tx: Connection) -> list[str]:
    """The words that deposits have for their status, the bot's too: found by skipping from one to the next."""
    found: list[str] = []
    walk = "SELECT status FROM deposit_transactions INDEXED BY idx_transactions_type WHERE type = 'deposit'"
    row = tx.execute(f"{walk} ORDER BY status LIMIT 1").fetchone()
    while row is not None:
        found.append(row[0])
        row = tx.execute(f"{walk} AND status > ? ORDER BY status LIMIT 1", row).fetchone()
    return found


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
        expires_at=None,
        in_review=False,
    )
