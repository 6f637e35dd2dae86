"""Why a balance is what it is: its causes, checked to sum.

The cursor of a page is ``<at>-<version>-<place>-<sums>``. `at` counts milliseconds since the year 1, so that every
number of 14 digits is an instant. `version` is the one that is explained, or ``h`` where only a part of the bot's
history is. `place` is the last cause of the page before: ``v7`` its version, ``t345`` its transaction id where it has
no version. So all pages explain one moment, whatever is written between them.

`sums` is what has been summed until then, so that no page sums it again. It is 16 bytes of HMAC-SHA256 under the key
that the service made at its start, then the sums in MessagePack, in base64url. It is optional. Sums that this run did
not write, such as those of an earlier run, are ignored, and the rows are read again.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec
from msgspec import Struct

from service.ledger.fields import Instant
from service.ledger.timestamps import spoken, stored
from service.ledger.transactions import Direction
from service.ledger.users import Account

_YEAR_1 = datetime(1, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_VERSION_UNBOUNDED = 10**15 - 1
_ID_UNBOUNDED = 2**53
_MAC_BYTES = 16


class Source(StrEnum):
    """Who recorded a cause: Passbook, the bot before it, or the takeover, which states what the bot did not record."""

    PASSBOOK = "passbook"
    BOT = "bot"
    TAKEOVER = "takeover"


class Doubt(StrEnum):
    """Why a balance is not proved.

    sum_differs: it is not credits - debits. versions_incomplete: a version is missing. balances_broken: a cause does
    not begin where the one before it ended, does not add up, or is not confirmed. account_differs: the account is not
    at the version of the user's last transaction. balance_not_recorded: nobody wrote down what the balance was at that
    moment, as within the bot's time; it is given as the sum. not_summed_yet: one request does not read as many
    transactions; the sums are of those read until now, no causes are listed, and `next_cursor` goes on.
    """

    SUM_DIFFERS = "sum_differs"
    VERSIONS_INCOMPLETE = "versions_incomplete"
    BALANCES_BROKEN = "balances_broken"
    ACCOUNT_DIFFERS = "account_differs"
    BALANCE_NOT_RECORDED = "balance_not_recorded"
    NOT_SUMMED_YET = "not_summed_yet"


class BankLine(Struct, frozen=True, kw_only=True):
    """What the bank said of a deposit. `amount` in won; `id` is the bank notification's.

    bank_transaction_id, match_method and matched_by are null in the bot's rows; bank_name, depositor_name and
    occurred_at (the bank's time) when the message did not say.
    """

    id: int
    bank_transaction_id: str | None
    bank_name: str | None
    depositor_name: str | None
    amount: int
    occurred_at: Instant | None
    match_method: str | None
    matched_by: str | None


class Cause(Struct, frozen=True, kw_only=True):
    """One confirmed transaction. `amount` and balances in won; `effect` is the amount with the sign of its direction.

    These are null. version, balance_before and balance_after: if `source` is not passbook, since the bot recorded no
    order. confirmed_at: if the bot recorded none. description (a reason, a note or a domain name), reference and
    depositor_name: if none was given, and once the user's personal data was erased. audit_log_id, the row of the audit
    log that was written with the movement: if the bot wrote none, or the row was archived. actor (who acted, by the
    name of its API key) and request_id: if `source` is not passbook, or the row was archived. request_id: also for the
    service's own work. reverses_id: if it takes nothing back. reversed_by_id: until it is taken back itself, as known
    now. domain_purchase_id and domain: unless it pays or refunds a purchase made with Passbook. bank_notification: if
    none is matched with the transaction.
    """

    transaction_id: int
    source: Source
    type: str
    direction: Direction
    amount: int
    effect: int
    balance_before: int | None
    balance_after: int | None
    version: int | None
    confirmed_at: Instant | None
    description: str | None
    reference: str | None
    depositor_name: str | None
    reverses_id: int | None
    reversed_by_id: int | None
    domain_purchase_id: int | None
    domain: str | None
    audit_log_id: int | None
    actor: str | None
    request_id: str | None
    bank_notification: BankLine | None


class BalanceExplanation(Struct, frozen=True, kw_only=True):
    """A balance at a moment and its causes, newest first. All but `items` and `next_cursor` is over all pages, unless
    `doubts` has not_summed_yet.

    `at` is the moment that is explained: the one asked for, or that of the first page where none was or one still to
    come. `version` is the last transaction's that counts, 0 before the first of Passbook's. `balance` is what was
    recorded; `difference` is balance - (credits - debits). `proved` means that `doubts` is empty: the sum is the
    balance, and every cause of Passbook's continues the one before it. Amounts in won. `next_cursor` is null on the
    last page.
    """

    telegram_id: str
    at: Instant
    balance: int
    version: int
    credits: int
    debits: int
    count: int
    difference: int
    proved: bool
    doubts: list[Doubt]
    items: list[Cause]
    next_cursor: str | None


class Sums(Struct, frozen=True, kw_only=True, array_like=True):
    """Causes summed up, in won. `apart`: rows of the history that are later, or versions that do not continue."""

    count: int = 0
    credits: int = 0
    debits: int = 0
    apart: int = 0

    @property
    def total(self) -> int:
        """Credits less debits."""
        return self.credits - self.debits

    def plus(self, more: "Sums") -> "Sums":
        """Both together."""
        return Sums(
            count=self.count + more.count,
            credits=self.credits + more.credits,
            debits=self.debits + more.debits,
            apart=self.apart + more.apart,
        )


class Summed(Struct, frozen=True, kw_only=True, array_like=True):
    """How far the causes are summed: the history first, row after row by created_at and id, then version after version.

    `row` is the id of the last row that was looked at for the history, null at first; `history_end` that of the last
    one that belongs to it, null while there is none. `balance` is what `version` left; null where that is not recorded.
    """

    history: Sums = Sums()
    row: int | None = None
    history_end: int | None = None
    history_is_whole: bool = False
    chain: Sums = Sums()
    version: int = 0
    balance: int | None = None


class Place(Struct, frozen=True, kw_only=True):
    """The moment that is explained, where in its causes a page begins, and what is summed of them already.

    `version` is null where no version had been reached `at` that moment: then only those rows of the history count that
    were confirmed by then. With a version, 0 too, the whole history counts.
    """

    at: datetime
    version: int | None
    before_version: int = _VERSION_UNBOUNDED
    before_id: int = _ID_UNBOUNDED
    summed: Summed = Summed()

    @property
    def history_until(self) -> str | None:
        """Stored text: rows of the history confirmed later do not count. Null where all of them do."""
        return stored(self.at) if self.version is None else None

    @property
    def version_max(self) -> int:
        """The version of the first cause of the page, or of the one that would be."""
        return min(self.version or 0, self.before_version - 1)

    @property
    def is_summed(self) -> bool:
        """Whether nothing is left to be summed."""
        return self.summed.history_is_whole and self.summed.version >= (self.version or 0)

    def after(self, last: Cause) -> "Place":
        """Where the page after the one that ends with `last` begins."""
        if last.version is not None:
            return msgspec.structs.replace(self, before_version=last.version, before_id=_ID_UNBOUNDED)
        return msgspec.structs.replace(self, before_version=1, before_id=last.transaction_id)


def whole_milliseconds(instant: datetime) -> datetime:
    """`instant` without what rows do not record."""
    return instant - (instant - _YEAR_1) % _MILLISECOND


def place_of(cursor: str, telegram_id: str, key: bytes) -> Place:
    """Where the page of `cursor` begins; the edge has checked its form. `key` is the one that `cursor_of` had."""
    at, version, position, *sums = cursor.split("-", 3)
    number = int(position[1:])
    moment = f"{int(at)}-{version}"
    return Place(
        at=_YEAR_1 + int(at) * _MILLISECOND,
        version=None if version == "h" else int(version),
        before_version=number if position[0] == "v" else 1,
        before_id=number if position[0] == "t" else _ID_UNBOUNDED,
        summed=_opened(sums[0], telegram_id, moment, key) if sums else Summed(),
    )


def cursor_of(place: Place, telegram_id: str, key: bytes) -> str:
    """The cursor of a page of the user's that begins at `place`."""
    moment = f"{(place.at - _YEAR_1) // _MILLISECOND}-{'h' if place.version is None else place.version}"
    position = f"t{place.before_id}" if place.before_id != _ID_UNBOUNDED else f"v{place.before_version}"
    told = msgspec.msgpack.encode(place.summed)
    sums = urlsafe_b64encode(_mac(told, telegram_id, moment, key) + told).decode().rstrip("=")
    return f"{moment}-{position}-{sums}"


def _opened(sums: str, telegram_id: str, moment: str, key: bytes) -> Summed:
    try:
        sealed = urlsafe_b64decode(sums + "=" * (-len(sums) % 4))
    except ValueError:
        return Summed()
    mac, told = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(told, telegram_id, moment, key)):
        return Summed()
    return msgspec.msgpack.decode(told, type=Summed)


def _mac(told: bytes, telegram_id: str, moment: str, key: bytes) -> bytes:
    return hmac.digest(key, f"{telegram_id} {moment} ".encode() + told, "sha256")[:_MAC_BYTES]


def explain(
    account: Account,
    place: Place,
    *,
    recorded: int | None,
    latest_version: int,
    causes: list[Cause],
    limit: int,
    key: bytes,
) -> BalanceExplanation:
    """The page of the first `limit` of `causes`, which holds one more when there is a next page.

    `recorded` is the balance (won) that was written down when the version was reached, null when none was;
    `latest_version` that of the user's last transaction. Where not all is summed, `causes` are none. `key` seals the
    cursor.
    """
    history, chain, is_summed = place.summed.history, place.summed.chain, place.is_summed
    total = history.total + chain.total
    balance = total if recorded is None else recorded
    version = place.version or 0
    found = {
        Doubt.SUM_DIFFERS: is_summed and balance != total,
        Doubt.VERSIONS_INCOMPLETE: is_summed and chain.count != version,
        Doubt.BALANCES_BROKEN: chain.apart > 0,
        Doubt.ACCOUNT_DIFFERS: version >= account.version and latest_version != account.version,
        Doubt.BALANCE_NOT_RECORDED: recorded is None,
        Doubt.NOT_SUMMED_YET: not is_summed,
    }
    doubts = [doubt for doubt, holds in found.items() if holds]
    items = causes[:limit]
    following = None
    if not is_summed:
        following = cursor_of(place, account.telegram_id, key)
    elif len(causes) > limit:
        following = cursor_of(place.after(items[-1]), account.telegram_id, key)
    return BalanceExplanation(
        telegram_id=account.telegram_id,
        at=spoken(stored(place.at)),
        balance=balance,
        version=version,
        credits=history.credits + chain.credits,
        debits=history.debits + chain.debits,
        count=history.count + chain.count,
        difference=balance - total,
        proved=not doubts,
        doubts=doubts,
        items=items,
        next_cursor=following,
    )
