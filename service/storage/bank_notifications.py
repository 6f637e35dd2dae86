"""Table bank_notifications, and the deposits that a notification may be for."""

from collections.abc import Iterable, Mapping
from datetime import date
from functools import lru_cache
from typing import Any

import msgspec

from service.ledger.bank_notifications import (
    CANDIDATES_MAX,
    TRUNCATED_CHARACTERS_MIN,
    BankNotification,
    BankNotificationPost,
    BankNotificationStatus,
    Candidate,
    MatchMethod,
    likeness,
    match_name,
)
from service.ledger.fields import given
from service.ledger.timestamps import around, bound, spoken
from service.storage.sqlite import Connection

_SELECT = (
    "SELECT id, bank_transaction_id, depositor_name, amount, transaction_time, bank_name, raw_message, status,"
    " matched_transaction_id, match_method, matched_by, matched_at, created_at FROM bank_notifications"
)
# What the money of a notification could be for: a deposit that waits, one that has expired, and one that was confirmed
# without a notification of ours, taken back since or not. Of the bot's rows the match name is not known: they are
# compared one by one.
_SELECT_CANDIDATES = (
    "SELECT t.id, u.telegram_id, t.depositor_name, t.amount,"
    " iif(EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = t.id), 'reversed', t.status), t.created_at"
    " FROM deposit_transactions AS t INDEXED BY {index} JOIN users AS u ON u.id = t.user_id"
)
_WITHOUT_LINE = (
    "NOT EXISTS (SELECT 1 FROM bank_notifications WHERE matched_transaction_id = t.id AND match_method IS NOT NULL)"
)
_CANDIDATES = (
    f"{_SELECT_CANDIDATES.format(index='idx_transactions_match')}"
    " WHERE t.type = 'deposit' AND substr(t.created_at, 1, 10) IN ({days}) AND t.amount = :amount"
    " AND t.created_at BETWEEN :since AND :until"
    f" AND (t.status IN ('pending', 'expired') OR t.status = 'confirmed' AND {_WITHOUT_LINE})"
)
# In the order of the index, so that of thousands no more are read than are listed.
_SAME_NAME = f"{_CANDIDATES} AND t.match_name = :name ORDER BY substr(t.created_at, 1, 10), t.id LIMIT :limit"
_OF_THE_BOT = f"{_CANDIDATES} AND t.match_name IS NULL ORDER BY t.id"
_LONGER_NAME = f"{_CANDIDATES} AND t.match_name > :name AND t.match_name < :name || char(1114111) LIMIT :limit"
_SHORTER_NAME = f"{_CANDIDATES} AND t.match_name IN (SELECT value FROM json_each(:beginnings)) LIMIT :limit"
# The money of what was confirmed on another day may have come at any time from its announcement on.
_CONFIRMED_LATE = (
    f"{_SELECT_CANDIDATES.format(index='idx_transactions_match_late')}"
    " WHERE t.type = 'deposit' AND t.status = 'confirmed'"
    " AND substr(t.confirmed_at, 1, 10) IS NOT substr(t.created_at, 1, 10) AND t.amount = :amount"
    f" AND t.confirmed_at >= :since AND coalesce(t.created_at, '') <= :until AND {_WITHOUT_LINE}"
)
_SAME_NAME_LATE = f"{_CONFIRMED_LATE} AND t.match_name = :name LIMIT :limit"
_OF_THE_BOT_LATE = f"{_CONFIRMED_LATE} AND t.match_name IS NULL"
# Whose names were erased: an empty one, and of the bot's rows still none.
_OF_THE_ERASED = " AND t.match_name {name} AND EXISTS (SELECT 1 FROM user_erasures WHERE user_id = t.user_id) LIMIT 1"
_NAMELESS = tuple(
    select + _OF_THE_ERASED.replace("{name}", name)
    for select in (_CANDIDATES, _CONFIRMED_LATE)
    for name in ("= ''", "IS NULL")
)
_OPEN = (
    "bank_notifications WHERE status <> 'matched' AND bank_transaction_id IS NOT NULL AND amount = :amount"
    " AND match_name = :name AND transaction_time BETWEEN :since AND :until"
)
_DEPOSIT = (
    "SELECT 1 FROM deposit_transactions INDEXED BY idx_transactions_match WHERE type = 'deposit'"
    " AND substr(created_at, 1, 10) IN ({days}) AND created_at BETWEEN :since AND :until AND amount = :amount"
)
_DEPOSIT_LATE = (
    "SELECT 1 FROM deposit_transactions INDEXED BY idx_transactions_match_late WHERE type = 'deposit'"
    " AND status = 'confirmed' AND substr(confirmed_at, 1, 10) IS NOT substr(created_at, 1, 10)"
    " AND amount = :amount AND confirmed_at >= :since"
)
_QUIET = (
    f"SELECT NOT (EXISTS (SELECT 1 FROM {_OPEN})"
    f" OR EXISTS ({_DEPOSIT} AND match_name = :name) OR EXISTS ({_DEPOSIT} AND match_name IS NULL)"
    f" OR EXISTS ({_DEPOSIT_LATE} AND match_name = :name) OR EXISTS ({_DEPOSIT_LATE} AND match_name IS NULL))"
)


def insert(
    tx: Connection,
    command: BankNotificationPost,
    *,
    occurred_at: str,
    name: str,
    status: BankNotificationStatus,
    now: str,
) -> int:
    """Writes a notification that is not matched yet; returns its id. `occurred_at` is stored UTC text."""
    notification_id = tx.execute(
        "INSERT INTO bank_notifications (bank_name, depositor_name, amount, transaction_time, raw_message, created_at,"
        " bank_transaction_id, match_name, status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            given(command.bank_name),
            command.depositor_name,
            command.amount,
            occurred_at,
            given(command.raw_message),
            now,
            command.bank_transaction_id,
            name,
            status,
        ),
    ).lastrowid
    assert notification_id is not None
    return notification_id


def match(tx: Connection, *, notification_id: int, deposit_id: int, method: MatchMethod, actor: str, now: str) -> None:
    """Settles a notification with a confirmed deposit."""
    moved = tx.execute(
        "UPDATE bank_notifications SET status = 'matched', matched_transaction_id = ?, match_method = ?,"
        " matched_by = ?, matched_at = ? WHERE id = ? AND status <> 'matched'",
        (deposit_id, method, actor, now, notification_id),
    ).rowcount
    if moved != 1:
        raise RuntimeError(f"bank notification {notification_id} is matched already")


def find(tx: Connection, notification_id: int) -> BankNotification | None:
    """One notification, without candidates, or None."""
    row = tx.execute(f"{_SELECT} WHERE id = ?", (notification_id,)).fetchone()
    return _notification(row) if row else None


def find_by_bank_id(tx: Connection, bank_transaction_id: str) -> BankNotification | None:
    """The notification of this bank transaction, without candidates, or None."""
    row = tx.execute(f"{_SELECT} WHERE bank_transaction_id = ?", (bank_transaction_id,)).fetchone()
    return _notification(row) if row else None


def find_of_deposit(tx: Connection, deposit_id: int) -> int | None:
    """The id of the notification that Passbook matched with this deposit, or None."""
    row = tx.execute(
        "SELECT id FROM bank_notifications WHERE matched_transaction_id = ? AND match_method IS NOT NULL",
        (deposit_id,),
    ).fetchone()
    return row[0] if row else None


def list_newest(
    tx: Connection, *, status: str | None, window_s: int, before_id: int, limit: int
) -> list[BankNotification]:
    """Up to `limit` notifications with an id below `before_id`, newest first, each with its candidates."""
    condition, values = ("", ()) if status is None else ("status = ? AND ", (status,))
    rows = tx.execute(f"{_SELECT} WHERE {condition}id < ? ORDER BY id DESC LIMIT ?", (*values, before_id, limit))
    return [with_candidates(tx, _notification(row), window_s=window_s) for row in rows.fetchall()]


def with_candidates(tx: Connection, notification: BankNotification, *, window_s: int) -> BankNotification:
    """The notification with the deposits that its money may be for; none once it is matched."""
    if notification.status is BankNotificationStatus.MATCHED or notification.depositor_name is None:
        return notification
    try:
        since, until = around(bound(notification.occurred_at or notification.created_at or ""), window_s)
    except ValueError:  # what the bot recorded is no time
        return notification
    found = candidates(
        tx, amount=notification.amount, name=match_name(notification.depositor_name), since=since, until=until
    )
    return msgspec.structs.replace(notification, candidates=found)


def candidates(tx: Connection, *, amount: int, name: str, since: str, until: str) -> list[Candidate]:
    """The deposits of `amount` won, announced between the two stored instants, whose name is the same or cut.

    The same name first, then the oldest; at most CANDIDATES_MAX of each likeness.
    """
    parameters = {"amount": amount, "name": name, "since": since, "until": until, "limit": CANDIDATES_MAX}
    days = _days(since, until)
    rows = _of_same_name(tx, days, parameters)
    if len(name) >= TRUNCATED_CHARACTERS_MIN:
        beginnings = [name[:end] for end in range(TRUNCATED_CHARACTERS_MIN, len(name))]
        rows |= set(_all(tx, _LONGER_NAME, days, parameters))
        cut = {**parameters, "beginnings": msgspec.json.encode(beginnings).decode()}
        rows |= set(_all(tx, _SHORTER_NAME, days, cut))
    return _capped(_candidate(row, name) for row in sorted(rows))


def same_name(tx: Connection, *, amount: int, name: str, since: str, until: str) -> list[Candidate]:
    """The candidates of the same name alone."""
    parameters = {"amount": amount, "name": name, "since": since, "until": until, "limit": CANDIDATES_MAX}
    found = (_candidate(row, name) for row in sorted(_of_same_name(tx, _days(since, until), parameters)))
    return _capped(one for one in found if one is not None and one.likeness == "same_name")


def has_erased_rival(tx: Connection, *, amount: int, since: str, until: str) -> bool:
    """Whether there is a deposit among the candidates of any name whose name was erased: it may have been the same."""
    parameters = {"amount": amount, "since": since, "until": until}
    days = _days(since, until)
    return any(_all(tx, statement, days, parameters) for statement in _NAMELESS)


def _of_same_name(tx: Connection, days: str, parameters: Mapping[str, object]) -> set[Any]:
    """Rows that may be of the same name: of ours those that are, and the bot's, whatever their name."""
    statements = (_SAME_NAME, _OF_THE_BOT, _SAME_NAME_LATE, _OF_THE_BOT_LATE)
    return {row for statement in statements for row in _all(tx, statement, days, parameters)}


def list_open(
    tx: Connection, *, amount: int, name: str, since: str, until: str
) -> list[tuple[int, BankNotificationStatus]]:
    """Up to two notifications of this name and amount between the two instants that are not matched: id and status."""
    parameters = {"amount": amount, "name": name, "since": since, "until": until}
    rows = tx.execute(f"SELECT id, status FROM {_OPEN} ORDER BY id LIMIT 2", parameters).fetchall()
    return [(row[0], BankNotificationStatus(row[1])) for row in rows]


def is_quiet(tx: Connection, *, amount: int, name: str, since: str, until: str) -> bool:
    """Whether there is surely neither a notification nor a deposit of this name and amount between the two instants."""
    parameters = {"amount": amount, "name": name, "since": since, "until": until}
    return bool(_all(tx, _QUIET, _days(since, until), parameters)[0][0])


def _all(tx: Connection, sql: str, days: str, parameters: Mapping[str, object]) -> list[Any]:
    return tx.execute(_with_days(sql, days), parameters).fetchall()


@lru_cache(maxsize=64)
def _with_days(sql: str, days: str) -> str:
    return sql.format(days=days)


@lru_cache(maxsize=16)
def _days(since: str, until: str) -> str:
    """The days of a window as SQL: the index on deposits is by day first, and reads those of the window alone."""
    first, last = (date.fromisoformat(moment[:10]).toordinal() for moment in (since, until))
    return ", ".join(f"'{date.fromordinal(day)}'" for day in range(first, last + 1))


def _capped(found: Iterable[Candidate | None]) -> list[Candidate]:
    by_likeness: dict[str, list[Candidate]] = {"same_name": [], "truncated_name": []}
    for candidate in found:
        if candidate is not None:
            by_likeness[candidate.likeness].append(candidate)
    return [candidate for alike in by_likeness.values() for candidate in alike[:CANDIDATES_MAX]]


def _candidate(row: tuple[int, str, str | None, int, str, str | None], name: str) -> Candidate | None:
    deposit_id, telegram_id, depositor_name, amount, status, created_at = row
    alike = likeness(match_name(depositor_name or ""), name)
    if alike is None:
        return None
    return Candidate(
        deposit_id=deposit_id,
        telegram_id=telegram_id,
        depositor_name=depositor_name or "",
        amount=amount,
        status=status,
        created_at=created_at and spoken(created_at),
        likeness=alike,
    )


def _notification(row: tuple[object, ...]) -> BankNotification:
    values = dict(zip(BankNotification.__struct_fields__, (*row, []), strict=True))
    for name in ("bank_transaction_id", "depositor_name", "bank_name", "raw_message"):
        values[name] = None if values[name] is None else str(values[name])
    for moment in ("occurred_at", "matched_at", "created_at"):
        values[moment] = None if values[moment] is None else spoken(str(values[moment]))
    return msgspec.convert(values, BankNotification)
