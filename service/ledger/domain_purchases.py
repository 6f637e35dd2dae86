"""Domain purchases: a name is taken up and paid for, then registered, or released and the money given back.

pending -> registered | released | expired; one call may take both steps. A name has one live purchase (pending or
registered).
"""

from enum import StrEnum

import idna
from msgspec import UNSET, Struct, UnsetType

from service.ledger.errors import DomainPurchaseNotPending
from service.ledger.fields import Amount, DomainName, Instant, OptionalNote, TelegramId


class DomainPurchaseStatus(StrEnum):
    """The states that Passbook gives a purchase. Rows taken over from the bot may hold other words."""

    PENDING = "pending"
    REGISTERED = "registered"
    RELEASED = "released"
    EXPIRED = "expired"


class DomainPurchaseMake(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Takes `price` won for `domain`; with `hold` it stays pending until it is completed or released."""

    telegram_id: TelegramId
    domain: DomainName
    price: Amount
    hold: bool | UnsetType = UNSET


class DomainPurchaseComplete(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Says that the registrar has registered the name."""

    note: OptionalNote = UNSET


class DomainPurchaseRelease(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Gives a held name up, and the money back."""

    note: OptionalNote = UNSET


class DomainPurchase(Struct, frozen=True, kw_only=True):
    """A row of user_domains as the API shows it; `price` in won.

    ascii_name, price and transaction_id are null in rows that the bot wrote; registered_at until it is registered.
    """

    id: int
    telegram_id: str
    domain: str
    ascii_name: str | None
    price: int | None
    status: str
    transaction_id: int | None
    created_at: Instant | None
    registered_at: Instant | None


class DomainPurchaseWritten(DomainPurchase, frozen=True, kw_only=True):
    """Answer to every change of a purchase: the purchase, and the user's balance (won) before and after the change."""

    balance_before: int
    balance_after: int
    version: int
    audit_log_id: int


class DomainPurchasePage(Struct, frozen=True, kw_only=True):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[DomainPurchase]
    next_cursor: str | None


class Name(Struct, frozen=True):
    """A domain name as people read it and as the DNS knows it, both in the one form that UTS 46 gives them."""

    readable: str
    ascii: str


def parse_name(text: str) -> Name:
    """The name that `text` means: UTS 46 (non-transitional), then IDNA 2008. Raises ValueError with the reason."""
    try:
        ascii_name = idna.encode(text, uts46=True, std3_rules=True).decode()
        readable = idna.decode(ascii_name, uts46=True)
    except (idna.IDNAError, UnicodeError) as error:
        raise ValueError(str(error)) from error
    ascii_name, readable = ascii_name.rstrip(".").lower(), readable.rstrip(".")
    if "." not in ascii_name or len(ascii_name) > 253:
        raise ValueError("it takes at least two labels and at most 253 ASCII characters")
    return Name(readable, ascii_name)


def check_pending(purchase: DomainPurchase) -> None:
    """Returns when `purchase` is held. Raises DomainPurchaseNotPending."""
    if purchase.status != DomainPurchaseStatus.PENDING or purchase.transaction_id is None:
        raise DomainPurchaseNotPending(
            f"Domain purchase {purchase.id} is {purchase.status}, not held.", current_status=purchase.status
        )
