"""Domain purchases: a name is taken up and paid for, then registered, or released and the money given back.

pending -> registered | released | expired; one call may take both steps. A name has one live purchase (pending or
registered).

Where the price is: a pending purchase depends on its payment, which nobody can reverse meanwhile. A released or expired
one was paid back, for good. The payment of a registered name is given back only as goodwill, and the name stays
registered. The request must say so: it may be meant for a held name that was registered just before.
"""

import re
from enum import StrEnum

import idna
import msgspec
from msgspec import UNSET, Struct, UnsetType

from service.ledger.errors import DomainPurchaseNotPending, PaymentHeld, PaymentRegistered, PaymentReversed, RefundFinal
from service.ledger.expiry import expires_at
from service.ledger.fields import Amount, DomainName, Instant, OptionalNote, TelegramId
from service.ledger.transactions import Direction, Transaction


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
    payment_reversed: the user has the price back, by the refund of a release or an expiry, or, while the name is
    registered, by a reversal of its payment. expires_at: when a name that is held is given up, by the first sweep after
    it; null for every other. It says nothing of how long a registration lasts.
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
    payment_reversed: bool
    expires_at: Instant | None


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


_NUMBER_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")


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


def as_it_stands(purchase: DomainPurchase, *, expiry_s: int) -> DomainPurchase:
    """The purchase with when its hold expires."""
    held = purchase.status == DomainPurchaseStatus.PENDING and None not in {
        purchase.ascii_name,
        purchase.transaction_id,
    }
    return msgspec.structs.replace(purchase, expires_at=expires_at(purchase.created_at, expiry_s) if held else None)


def check_pending(purchase: DomainPurchase) -> None:
    """Returns when `purchase` is held. Raises DomainPurchaseNotPending."""
    if purchase.status != DomainPurchaseStatus.PENDING or purchase.transaction_id is None:
        raise DomainPurchaseNotPending(
            f"Domain purchase {purchase.id} is {purchase.status}, not held.", current_status=purchase.status
        )


def check_is_registrable(name: Name) -> None:
    """Returns when `name` is no address: what ends with a number is one of IPv4 (WHATWG URL, "ends in a number").

    The digits of every script count: people read them alike. Raises ValueError. Names that were taken before this was
    asked stay.
    """
    if _NUMBER_LABEL.fullmatch(name.ascii.rpartition(".")[2]) or name.readable.rpartition(".")[2].isdecimal():
        raise ValueError("its last label is a number, as in an address")


def check_paid(purchase: DomainPurchase, last: Transaction | None) -> Transaction:
    """The debit that has the money of `purchase`: `last`, the end of the chain of reversals that its payment begins.

    Raises PaymentReversed when that end gave the money back.
    """
    if last is not None and last.direction == Direction.DEBIT:
        return last
    back = purchase.transaction_id if last is None else last.id
    raise PaymentReversed(
        f"The payment of domain purchase {purchase.id} was taken back by transaction {back}. Release the purchase.",
        reversed_by_id=back or 0,
    )


def check_money_may_move(purchase: DomainPurchase, transaction: Transaction, *, goodwill: bool) -> None:
    """Returns when `transaction`, of the chain that the payment of `purchase` begins, may be reversed.

    Raises PaymentHeld if that would give back the payment of a held name, PaymentRegistered if it would give back the
    price of a registered one without goodwill, RefundFinal if it would take again what was paid back.
    """
    gives_back = transaction.direction == Direction.DEBIT
    if purchase.status == DomainPurchaseStatus.PENDING and gives_back:
        raise PaymentHeld(
            f"Domain purchase {purchase.id} holds {purchase.domain} by transaction {transaction.id}.",
            domain_purchase_id=purchase.id,
            domain=purchase.domain,
        )
    if purchase.status == DomainPurchaseStatus.REGISTERED and gives_back and not goodwill:
        raise PaymentRegistered(
            f"Domain purchase {purchase.id} registered {purchase.domain} for it."
            ' Send "goodwill": true to give its price back.',
            domain_purchase_id=purchase.id,
            domain=purchase.domain,
        )
    if purchase.status in {DomainPurchaseStatus.RELEASED, DomainPurchaseStatus.EXPIRED} and not gives_back:
        raise RefundFinal(
            f"Domain purchase {purchase.id} of {purchase.domain} is {purchase.status}, and its price stays paid back.",
            domain_purchase_id=purchase.id,
            domain=purchase.domain,
            current_status=purchase.status,
        )
