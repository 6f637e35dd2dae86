"""Table learned_names."""

from service.ledger.depositor_names import PrintedName
from service.ledger.learned_names import LearnedName
from service.ledger.timestamps import spoken
from service.storage.sqlite import Connection

_SELECT = (
    "SELECT l.id, u.telegram_id, l.printed_name, l.bank_notification_id, l.learned_by, l.created_at"
    " FROM learned_names AS l JOIN users AS u ON u.id = l.user_id"
)


def insert(
    tx: Connection, *, user_id: int, printed_name: str, match_name: str, notification_id: int, actor: str, now: str
) -> int:
    """Writes a learned name; returns its id."""
    made = tx.execute(
        "INSERT INTO learned_names (user_id, printed_name, match_name, bank_notification_id, learned_by, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (user_id, printed_name, match_name, notification_id, actor, now),
    ).lastrowid
    assert made is not None
    return made


def delete(tx: Connection, learned_name_id: int) -> None:
    """Takes a learned name away."""
    tx.execute("DELETE FROM learned_names WHERE id = ?", (learned_name_id,))


def find(tx: Connection, learned_name_id: int) -> LearnedName | None:
    """The learned name, or None."""
    row = tx.execute(f"{_SELECT} WHERE l.id = ?", (learned_name_id,)).fetchone()
    return _learned_name(row) if row else None


def list_taught_by(tx: Connection, notification_id: int, *, telegram_id: str) -> list[LearnedName]:
    """What this bank notification taught of the user."""
    rows = tx.execute(
        f"{_SELECT} WHERE l.user_id = (SELECT id FROM users WHERE telegram_id = ?) AND l.bank_notification_id = ?",
        (telegram_id, notification_id),
    ).fetchall()
    return [_learned_name(row) for row in rows]


def list_newest(tx: Connection, *, telegram_id: str | None, before_id: int, limit: int) -> list[LearnedName]:
    """Up to `limit` learned names with an id below `before_id`, newest first, of one user or of all."""
    condition, values = ("", ()) if telegram_id is None else ("u.telegram_id = ? AND ", (telegram_id,))
    rows = tx.execute(f"{_SELECT} WHERE {condition}l.id < ? ORDER BY l.id DESC LIMIT ?", (*values, before_id, limit))
    return [_learned_name(row) for row in rows.fetchall()]


def of_user(tx: Connection, telegram_id: str) -> list[str]:
    """The learned names of the user, as matching compares them; there are few."""
    rows = tx.execute(
        "SELECT match_name FROM learned_names WHERE user_id = (SELECT id FROM users WHERE telegram_id = ?)",
        (telegram_id,),
    ).fetchall()
    return [name for (name,) in rows]


def users_of(tx: Connection, line: PrintedName) -> list[str]:
    """The users of whom the printed name was learned, whole or cut by the bank's field; two stand for more."""
    if not line.name:
        return []
    alike = (
        "l.match_name >= :name AND l.match_name < :name || char(1114111)"
        if line.fills_field
        else "l.match_name = :name"
    )
    rows = tx.execute(
        "SELECT DISTINCT u.telegram_id FROM learned_names AS l INDEXED BY idx_learned_names_name"
        f" JOIN users AS u ON u.id = l.user_id WHERE {alike} LIMIT 2",
        {"name": line.name},
    ).fetchall()
    return [telegram_id for (telegram_id,) in rows]


def is_empty(tx: Connection) -> bool:
    """Whether no name was learned of anybody."""
    return tx.execute("SELECT 1 FROM learned_names LIMIT 1").fetchone() is None


def _learned_name(row: tuple[int, str, str, int, str, str]) -> LearnedName:
    learned_name_id, telegram_id, printed_name, notification_id, learned_by, created_at = row
    return LearnedName(
        id=learned_name_id,
        telegram_id=telegram_id,
        printed_name=printed_name,
        bank_notification_id=notification_id,
        learned_by=learned_by,
        created_at=spoken(created_at),
    )
