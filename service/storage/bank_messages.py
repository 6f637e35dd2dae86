"""Table bank_messages, and the notifications that a cancellation may mean."""

from typing import Any

from service.ledger.bank_formats import ReadMessage
from service.ledger.bank_lines import BankFacts, minute_of
from service.ledger.bank_messages import (
    CANCELLED_WITHIN_HOURS,
    BankMessage,
    BankMessageKind,
    BankMessageStatus,
    CancelledLine,
    to_do,
)
from service.ledger.depositor_names import match_name
from service.ledger.timestamps import around, bound, spoken, stored
from service.storage.sqlite import Connection

_SELECT = (
    "SELECT m.id, m.kind, m.status, m.raw_message, m.bank_name, m.account, m.depositor_name, m.amount,"
    " m.balance_after, m.transaction_time, m.bank_notification_id, m.note, m.settled_by, m.settled_at, m.received_by,"
    " m.created_at, iif(EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = b.matched_transaction_id), NULL,"
    " b.matched_transaction_id) FROM bank_messages AS m"
    " LEFT JOIN bank_notifications AS b ON b.id = m.bank_notification_id"
)
_LINE = (
    "SELECT b.id, b.amount, b.matched_transaction_id, EXISTS (SELECT 1 FROM bank_notification_events"
    " WHERE bank_notification_id = b.id AND kind = 'cancelled'),"
    " b.depositor_name IS NULL AND b.bank_transaction_id IS NOT NULL FROM bank_notifications AS b"
)
# Two stand for more. Of one that names no payer, all of the amount that came to the account are asked about.
_MEANT = (
    f"{_LINE} INDEXED BY idx_bank_notifications_same WHERE b.bank_transaction_id IS NOT NULL AND b.amount = :amount"
    " AND {name} AND b.transaction_time >= :since AND b.transaction_time < :until AND b.depositor_name IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM bank_notification_events WHERE bank_notification_id = b.id AND kind = 'cancelled')"
)
_OF_THE_NAME = _MEANT.format(name="b.match_name = :name") + " AND coalesce({account} = :account, 1) LIMIT 2"
_OF_THE_ACCOUNT = _MEANT.format(name="1") + " AND {account} = :account LIMIT 2"
_DIGITS = "replace(b.account, '-', '')"
# Few wait at a time.
_WAITING = (
    "SELECT depositor_name, account FROM bank_messages INDEXED BY idx_bank_messages_status"
    " WHERE status = 'waiting' AND amount = ? AND transaction_time >= ? AND transaction_time <= ?"
)


def insert(
    tx: Connection,
    *,
    raw_message: str,
    digest: bytes,
    kind: BankMessageKind,
    status: BankMessageStatus,
    read: ReadMessage | None,
    notification_id: int | None,
    actor: str,
    now: str,
) -> int:
    """Writes a message with what was read of it; returns its id."""
    made = tx.execute(
        "INSERT INTO bank_messages (raw_message, raw_sha256, kind, status, bank_name, account, depositor_name, amount,"
        " balance_after, transaction_time, bank_notification_id, received_by, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(raw_message, digest, kind, status),
            *((read.bank_name, read.account, read.depositor_name, read.amount, read.balance_after) if read else _NONE),
            *(stored(read.occurred_at) if read else None, notification_id, actor, now),
        ),
    ).lastrowid
    assert made is not None
    return made


_NONE = (None, None, None, None, None)


def settle(tx: Connection, message_id: int, *, note: str, notification_id: int | None, actor: str, now: str) -> None:
    """Writes what a person said of a message that waits."""
    tx.execute(
        "UPDATE bank_messages SET status = 'settled', note = ?, bank_notification_id = ?, settled_by = ?,"
        " settled_at = ? WHERE id = ?",
        (note, notification_id, actor, now, message_id),
    )


def find(tx: Connection, message_id: int) -> BankMessage | None:
    """The message, or None."""
    row = tx.execute(f"{_SELECT} WHERE m.id = ?", (message_id,)).fetchone()
    return _message(row) if row else None


def find_same_text(tx: Connection, digest: bytes, *, since: str) -> int | None:
    """The id of a message of the same text that came since then, the newest one, or None."""
    row = tx.execute(
        "SELECT id FROM bank_messages WHERE raw_sha256 = ? AND created_at >= ? ORDER BY id DESC LIMIT 1",
        (digest, since),
    ).fetchone()
    return int(row[0]) if row else None


def list_newest(tx: Connection, *, status: str | None, before_id: int, limit: int) -> list[BankMessage]:
    """Up to `limit` messages with an id below `before_id`, newest first, of one state or of all."""
    condition, values = ("", ()) if status is None else ("m.status = ? AND ", (status,))
    rows = tx.execute(f"{_SELECT} WHERE {condition}m.id < ? ORDER BY m.id DESC LIMIT ?", (*values, before_id, limit))
    return [_message(row) for row in rows.fetchall()]


def find_line(tx: Connection, notification_id: int) -> CancelledLine | None:
    """The notification that a person names, or None."""
    row = tx.execute(f"{_LINE} WHERE b.id = ?", (notification_id,)).fetchone()
    return _line(row) if row else None


def lines_meant(tx: Connection, read: ReadMessage) -> list[CancelledLine]:
    """The notifications that a cancellation may mean: of its amount, payer and account, and not cancelled; two stand
    for more."""
    name = match_name(read.depositor_name)
    occurred_at = stored(read.occurred_at)
    until = minute_of(occurred_at) + ";"  # a semicolon follows the colon: to the minute's end
    since = around(occurred_at, CANCELLED_WITHIN_HOURS * 3600)[0]
    sql = (_OF_THE_NAME if name else _OF_THE_ACCOUNT).format(account=_DIGITS)
    parameters: dict[str, Any] = {"amount": read.amount, "name": name, "since": since, "until": until}
    rows = tx.execute(sql, {**parameters, "account": read.account.replace("-", "")}).fetchall()
    return [_line(row) for row in rows]


def may_be_taken_back(tx: Connection, facts: BankFacts) -> bool:
    """Whether a cancellation waits that may mean a notification of these facts."""
    occurred_at = bound(facts.occurred_at)
    until = around(occurred_at, CANCELLED_WITHIN_HOURS * 3600)[1]
    name, digits = match_name(facts.depositor_name), facts.account and facts.account.replace("-", "")
    rows = tx.execute(_WAITING, (facts.amount, minute_of(occurred_at), until)).fetchall()
    return any(
        (not name or not printed or match_name(printed) == name) and digits in {None, of.replace("-", "")}
        for printed, of in rows
    )


def _line(row: tuple[Any, ...]) -> CancelledLine:
    notification_id, amount, deposit_id, is_cancelled, is_erased = row
    return CancelledLine(
        id=notification_id,
        amount=amount,
        deposit_id=deposit_id,
        is_cancelled=bool(is_cancelled),
        is_erased=bool(is_erased),
    )


def _message(row: tuple[Any, ...]) -> BankMessage:
    (message_id, kind, status, raw_message, bank_name, account, depositor_name, amount, balance_after, occurred_at,
     notification_id, note, settled_by, settled_at, received_by, created_at, deposit_id) = row  # fmt: skip
    return BankMessage(
        id=message_id,
        kind=BankMessageKind(kind),
        status=BankMessageStatus(status),
        raw_message=raw_message,
        bank_name=bank_name,
        account=account,
        depositor_name=depositor_name,
        amount=amount,
        bank_balance_after=balance_after,
        occurred_at=occurred_at and spoken(occurred_at),
        bank_notification_id=notification_id,
        note=note,
        settled_by=settled_by,
        settled_at=settled_at and spoken(settled_at),
        received_by=received_by,
        created_at=spoken(created_at),
        to_do=to_do(BankMessageStatus(status), BankMessageKind(kind), reverse=deposit_id),
    )
