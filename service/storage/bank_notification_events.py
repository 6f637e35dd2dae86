"""Table bank_notification_events: what became of a notification after it came, and the notification follows."""

from service.storage.sqlite import Connection

FREED = "EXISTS (SELECT 1 FROM bank_notification_events WHERE bank_notification_id = {line} AND kind = 'freed')"
"""SQL of whether the notification of the id `line` was matched once, with a deposit that was reversed since."""
# A chain of reversals is a row for each; the last one says which way the money went.
LOST_ITS_LINE = (
    "(EXISTS (SELECT 1 FROM bank_notification_events INDEXED BY idx_bank_notification_events_deposit"
    " WHERE deposit_id = {deposit})"
    " AND (WITH RECURSIVE chain(id, length) AS (SELECT {deposit}, 0 UNION ALL SELECT r.id, chain.length + 1"
    " FROM chain JOIN deposit_transactions AS r INDEXED BY idx_transactions_reverses ON r.reverses_id = chain.id)"
    " SELECT MAX(length) % 2 FROM chain) = 1)"
)
"""SQL of whether the deposit of the id `deposit` is taken back and its notification was freed: no money is for it."""


def dismiss(tx: Connection, notification_id: int, *, note: str, actor: str, now: str) -> int:
    """Writes that a notification is dismissed, and closes it; returns the event's id."""
    event_id = _insert(tx, notification_id, kind="dismissed", deposit_id=None, note=note, actor=actor, now=now)
    _close(tx, notification_id, "dismissed")
    return event_id


def cancel(tx: Connection, notification_id: int, *, is_matched: bool, actor: str, now: str) -> None:
    """Writes that the bank took the money of a notification back, and closes it unless it is matched."""
    _insert(tx, notification_id, kind="cancelled", deposit_id=None, note=None, actor=actor, now=now)
    if not is_matched:
        _close(tx, notification_id, "cancelled")


def reopen(tx: Connection, notification_id: int, *, note: str | None, actor: str, now: str) -> int:
    """Writes that a dismissal is undone, and opens the notification; returns the event's id."""
    event_id = _insert(tx, notification_id, kind="reopened", deposit_id=None, note=note, actor=actor, now=now)
    _close(tx, notification_id, None)
    return event_id


def free(tx: Connection, notification_id: int, *, deposit_id: int, actor: str, now: str) -> int:
    """Writes that the deposit of a notification was reversed, and opens the notification, or closes it where the bank
    took the money back; returns the event's id."""
    event_id = _insert(tx, notification_id, kind="freed", deposit_id=deposit_id, note=None, actor=actor, now=now)
    _one(
        tx.execute(
            "UPDATE bank_notifications SET status = 'unmatched', matched_transaction_id = NULL, match_method = NULL,"
            " matched_by = NULL, matched_at = NULL, closed_as = (SELECT kind FROM bank_notification_events"
            " WHERE bank_notification_id = bank_notifications.id AND kind = 'cancelled') WHERE id = ?",
            (notification_id,),
        ).rowcount
    )
    return event_id


def was_freed(tx: Connection, notification_id: int) -> bool:
    """Whether a person was wrong about the notification once: it never confirms by itself again."""
    return bool(tx.execute(f"SELECT {FREED.format(line='?')}", (notification_id,)).fetchone()[0])


def _insert(
    tx: Connection, notification_id: int, *, kind: str, deposit_id: int | None, note: str | None, actor: str, now: str
) -> int:
    event_id = tx.execute(
        "INSERT INTO bank_notification_events (bank_notification_id, kind, deposit_id, note, actor, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (notification_id, kind, deposit_id, note, actor, now),
    ).lastrowid
    assert event_id is not None
    return event_id


def _close(tx: Connection, notification_id: int, closed_as: str | None) -> None:
    _one(tx.execute("UPDATE bank_notifications SET closed_as = ? WHERE id = ?", (closed_as, notification_id)).rowcount)


def _one(moved: int) -> None:
    if moved != 1:
        raise RuntimeError("a bank notification is not there")
