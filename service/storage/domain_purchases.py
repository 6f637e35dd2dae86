"""Table user_domains."""

from service.ledger.domain_purchases import DomainPurchase, DomainPurchaseStatus, Name
from service.ledger.expiry import Due
from service.ledger.timestamps import spoken
from service.storage.sqlite import Connection
from service.storage.transactions import sql_of_taken_back

_SELECT = (
    "SELECT p.id, u.telegram_id, p.domain, p.ascii_name, p.price, p.status, p.transaction_id, p.created_at,"
    f" p.registered_at, {sql_of_taken_back('p.transaction_id')}"
    " FROM user_domains AS p JOIN users AS u ON u.id = p.user_id"
)
_SELECT_OF_USER = _SELECT.replace("user_domains AS p", "user_domains AS p INDEXED BY idx_domains_user", 1)


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


def find_paid_with(tx: Connection, user_id: int, transaction_id: int) -> DomainPurchase | None:
    """The user's purchase whose payment begins the chain of reversals that the transaction is in, or None."""
    row = tx.execute(
        f"{_SELECT} WHERE p.user_id = ? AND p.transaction_id IN (WITH RECURSIVE chain(id) AS (SELECT ? UNION"
        " SELECT t.reverses_id FROM chain JOIN deposit_transactions AS t ON t.id = chain.id"
        " WHERE t.reverses_id IS NOT NULL) SELECT id FROM chain)",
        (user_id, transaction_id),
    ).fetchone()
    return _purchase(row) if row else None


def find_due(tx: Connection, purchase_id: int, *, created_before: str) -> DomainPurchase | None:
    """The purchase if it is held and older than `created_before`, or None. Without a time it counts as older."""
    row = tx.execute(
        f"{_SELECT} WHERE p.id = ? AND p.status = 'pending' AND p.ascii_name IS NOT NULL"
        " AND p.transaction_id IS NOT NULL AND (p.created_at IS NULL OR p.created_at < ?)",
        (purchase_id, created_before),
    ).fetchone()
    return _purchase(row) if row else None


def list_due(tx: Connection, *, created_before: str, after: Due, limit: int) -> list[Due]:
    """Up to `limit` held purchases older than `created_before`, those without a time first, then oldest first."""
    found = []
    if after.created_at is None:
        found = tx.execute(
            "SELECT created_at, id FROM user_domains INDEXED BY idx_domains_pending"
            " WHERE status = 'pending' AND ascii_name IS NOT NULL AND transaction_id IS NOT NULL"
            " AND created_at IS NULL AND id > ? ORDER BY id LIMIT ?",
            (after.id, limit),
        ).fetchall()
        after = Due(float("-inf"), 0)  # SQLite sorts numbers before texts
    found += tx.execute(
        "SELECT created_at, id FROM user_domains INDEXED BY idx_domains_pending"
        " WHERE status = 'pending' AND ascii_name IS NOT NULL AND transaction_id IS NOT NULL"
        " AND created_at < ? AND (created_at, id) > (?, ?) ORDER BY created_at, id LIMIT ?",
        (created_before, after.created_at, after.id, limit - len(found)),
    ).fetchall()
    return [Due(*row) for row in found]


def list_newest(tx: Connection, *, telegram_id: str | None, before_id: int, limit: int) -> list[DomainPurchase]:
    """Up to `limit` purchases with an id below `before_id`, newest first, of that user where given."""
    walk, values = f"{_SELECT} WHERE p.id < ?", [before_id]
    if telegram_id is not None:
        user = tx.execute("SELECT id FROM users WHERE telegram_id = ?", (telegram_id,)).fetchone()
        # The index on user_id has the ids of one user in order; without it all purchases would be passed by.
        walk, values = f"{_SELECT_OF_USER} WHERE p.id < ? AND p.user_id = ?", [before_id, user[0] if user else 0]
    rows = tx.execute(f"{walk} ORDER BY p.id DESC LIMIT ?", (*values, limit)).fetchall()
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
    values = dict(zip(DomainPurchase.__struct_fields__, (*row, None), strict=True))
    for moment in ("created_at", "registered_at"):
        text = values[moment]
        values[moment] = spoken(text) if isinstance(text, str) else None
    values["payment_reversed"] = bool(values["payment_reversed"])
    return DomainPurchase(**values)  # type: ignore[arg-type]
