"""Pages of table bank_notifications: by any conditions, and the queue of those that wait for a person."""

from collections.abc import Callable
from functools import partial

import msgspec

from service.ledger.bank_notifications import BankNotification, BankNotificationFilter
from service.storage import bank_notifications, deposits, lists, reviews
from service.storage.sqlite import Connection

_STATUS = "COALESCE(closed_as, status)"
_IS_OPEN = "status <> 'matched' AND closed_as IS NULL"
# The bot may have kept no time of the bank's.
_CAME = "COALESCE(transaction_time, created_at)"
_CONDITIONS = {
    "status": f"{_STATUS} = :status",
    "amount": "amount = :amount",
    "since": f"{_CAME} >= :since",
    "until": f"{_CAME} < :until",
    "telegram_id": "(EXISTS (SELECT 1 FROM deposit_transactions WHERE id = matched_transaction_id AND user_id = :user)"
    " OR id IN (SELECT value FROM json_each(:reviewed)))",
}
_LAST_OF_USER = (
    "SELECT id FROM deposit_transactions INDEXED BY idx_transactions_user WHERE user_id = :user"
    " ORDER BY created_at DESC LIMIT :read"
)
_MATCHED_OF_USER = (
    f"SELECT b.id FROM ({_LAST_OF_USER}) AS last CROSS JOIN bank_notifications AS b"
    " INDEXED BY idx_bank_notifications_matched ON b.matched_transaction_id = last.id LIMIT :read"
)
_OF_AMOUNT = (
    "SELECT id FROM bank_notifications INDEXED BY idx_bank_notifications_same WHERE amount = :amount LIMIT :read"
)
_OF_PERIOD = "SELECT id FROM bank_notifications INDEXED BY idx_bank_notifications_time WHERE {period} LIMIT :read"
_FROM_STATUS = f"bank_notifications INDEXED BY idx_bank_notifications_status WHERE {_STATUS} = :status AND id < :after"
_FROM_OPEN = f"bank_notifications INDEXED BY idx_bank_notifications_open WHERE {_IS_OPEN} AND id > :after"
_FROM_ALL = "bank_notifications NOT INDEXED WHERE id < :after"  # but by id: not to be sorted


def find_page(
    tx: Connection, wanted: BankNotificationFilter, *, window_s: int, field_width: int, after: int, limit: int
) -> lists.Page[BankNotification]:
    """Up to `limit` notifications for which all of `wanted` holds, each with its candidates.

    Newest first with ids below `after`; those that are open oldest first with ids above it. They are chosen by the
    index on the user, on the amount or on the time, where one of these leaves few; else by a walk of bounded length,
    and then the page may be short. Of one user READ_MAX that are open are found at most.
    """
    user = deposits.user_id_of(tx, wanted.telegram_id)
    if wanted.telegram_id is not None and user is None:
        return lists.Page([], None)
    reviewed = _reviewed(tx, user, window_s) if user is not None else []
    values: lists.Values = {
        "user": user,
        "reviewed": msgspec.json.encode(reviewed).decode(),
        "status": wanted.status,
        "amount": wanted.amount,
        "since": wanted.since,
        "until": wanted.until,
        "after": after,
    }
    conditions, oldest_first = _conditions(wanted), wanted.open is True
    chosen = lists.first_served(_sources(tx, wanted, values, reviewed))
    if chosen is not None:
        counted = partial(_counted, tx, conditions, values)
        ids, reached = lists.page_of(chosen, counted, after=after, oldest_first=oldest_first, limit=limit)
    else:
        walk = _walk(tx, wanted, conditions, {**values, "limit": limit + 1, "last": lists.READ_MAX})
        ids, reached = lists.merged([walk], oldest_first=oldest_first, limit=limit)
    found = (bank_notifications.find(tx, one) for one in ids)
    items = [
        bank_notifications.with_candidates(tx, one, window_s=window_s, field_width=field_width)
        for one in found
        if one is not None
    ]
    return lists.Page(items, reached)


def _reviewed(tx: Connection, user_id: int, window_s: int) -> list[int]:
    """What waits and could mean a deposit of the user."""
    return reviews.lines_of(tx, deposits.list_open_of_user(tx, user_id), window_s=window_s, limit=lists.READ_MAX)


def _conditions(wanted: BankNotificationFilter) -> str:
    """What is asked of each row; beginning with AND, or empty."""
    asked = [sql for name, sql in _CONDITIONS.items() if getattr(wanted, name) is not None]
    if wanted.open is not None:
        asked.append(f"({_IS_OPEN})" if wanted.open else f"NOT ({_IS_OPEN})")
    return "".join(f" AND {sql}" for sql in asked)


def _sources(
    tx: Connection, wanted: BankNotificationFilter, values: lists.Values, reviewed: list[int]
) -> list[Callable[[], list[int] | None]]:
    """Ways to the ids by one condition, the one that leaves the fewest first."""
    found: list[Callable[[], list[int] | None]] = []
    if wanted.telegram_id is not None:
        found.append(partial(_of_user, tx, values, reviewed))
    if wanted.amount is not None:
        found.append(partial(lists.few, tx, _OF_AMOUNT, values))
    period = " AND ".join(_CONDITIONS[name] for name in ("since", "until") if getattr(wanted, name) is not None)
    if period:
        found.append(partial(lists.few, tx, _OF_PERIOD.replace("{period}", period), values))
    return found


def _of_user(tx: Connection, values: lists.Values, reviewed: list[int]) -> list[int] | None:
    if lists.few(tx, _LAST_OF_USER, values) is None:
        return None
    matched = lists.few(tx, _MATCHED_OF_USER, values)
    return None if matched is None else [*matched, *reviewed]


def _counted(tx: Connection, conditions: str, values: lists.Values, ids: list[int]) -> list[int]:
    sql = f"SELECT id FROM bank_notifications WHERE id IN (SELECT value FROM json_each(:ids)){conditions}"
    return [row[0] for row in tx.execute(sql, {**values, "ids": msgspec.json.encode(ids).decode()}).fetchall()]


def _walk(tx: Connection, wanted: BankNotificationFilter, conditions: str, values: lists.Values) -> lists.Walk:
    """In the order of ids, along the index of those that are open, or of the status, or of all."""
    path, order, until_end, endless = _FROM_ALL, "DESC", "id >= :end", 0
    if wanted.open is True:
        path, order, until_end, endless = _FROM_OPEN, "ASC", "id <= :end", 2**63 - 1
    elif wanted.status is not None:
        path = _FROM_STATUS
    end = f"SELECT id FROM {path} ORDER BY id {order} LIMIT 1 OFFSET :last"
    rows = f"SELECT id FROM {path} AND {until_end}{conditions} ORDER BY id {order} LIMIT :limit"
    return lists.walk(tx, end=end, rows=rows, values=values, endless=endless)
