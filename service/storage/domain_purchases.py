"""Table user_domains."""

from service.ledger.domain_purchases import DomainPurchase, DomainPurchaseStatus, Name
from service.ledger.timestamps import spoken
from service.storage.sqlite import Connection

_SELECT = (
    "SELECT p.id, u.telegram_id, p.domain, p.ascii_name, p.price, p.status, p.transaction_id, p.created_at,"
    " p.registered_at FROM user_domains AS p JOIN users AS u ON u.id = p.user_id"
)


def find(tx: Connection, purchase_id: int) -> DomainPurchase | None:
    """One purchase, or None."""
    row = tx.execute(f"{_SELECT} WHERE p.id = ?", (purchase_id,)).fetchone()
    return _purchase(row) if row else None


def find_live(tx: Connection, name: Name) -> DomainPurchase | None:
    """The purchase that holds the name now, ours or a row of the bot's, or None."""
    row = tx.execute(
        f"{_SELECT} WHERE p.ascii_name = ? AND p.status IN ('pending', 'registered') LIMIT 1", (name.ascii,)
    ).fetchone()
    row = (
        row
        or tx.execute(
            f"{_SELECT} WHERE p.domain IN (?, ?) AND p.ascii_name IS NULL"
            " AND p.status IN ('active', 'pending', 'registered') LIMIT 1",
            (name.readable, name.ascii),
        ).fetchone()
    )
    return _purchase(row) if row else None


def list_newest(tx: Connection, *, telegram_id: str | None, before_id: int, limit: int) -> list[DomainPurchase]:
    """Up to `limit` purchases with an id below `before_id`, newest first, of that user where given."""
    rows = tx.execute(
        f"{_SELECT} WHERE p.id < ? AND (? IS NULL OR u.telegram_id = ?) ORDER BY p.id DESC LIMIT ?",
        (before_id, telegram_id, telegram_id, limit),
    ).fetchall()
    return [_purchase(row) for row in rows]


def insert(
    tx: Connection, *, user_id: int, name: Name, price: int, transaction_id: int, registered: bool, now: str
) -> int:
    """Writes a purchase that is paid for, held or registered at once; returns its id."""
    purchase_id = tx.execute(
        "INSERT INTO user_domains (user_id, domain, ascii_name, status, price, transaction_id, registered_at,"
        " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            user_id,
            name.readable,
            name.ascii,
            DomainPurchaseStatus.REGISTERED if registered else DomainPurchaseStatus.PENDING,
            price,
            transaction_id,
            now if registered else None,
            now,
        ),
    ).lastrowid
    assert purchase_id is not None
    return purchase_id


def settle(tx: Connection, purchase: DomainPurchase, status: DomainPurchaseStatus, *, now: str) -> None:
    """Moves a held purchase on to `status`."""
    registered_at = now if status == DomainPurchaseStatus.REGISTERED else None
    moved = tx.execute(
        "UPDATE user_domains SET status = ?, registered_at = ? WHERE id = ? AND status = 'pending'",
        (status, registered_at, purchase.id),
    ).rowcount
    if moved != 1:
        raise RuntimeError(f"domain purchase {purchase.id} is no longer pending")


def _purchase(row: tuple[object, ...]) -> DomainPurchase:
    values = dict(zip(DomainPurchase.__struct_fields__, row, strict=True))
    for moment in ("created_at", "registered_at"):
        text = values[moment]
        values[moment] = spoken(text) if isinstance(text, str) else None
    return DomainPurchase(**values)  # type: ignore[arg-type]
