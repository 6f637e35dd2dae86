"""Bank lines: what a bank said of money that came, and when two of them tell of the same money.

A caller may name a line with the bank's own id of the transfer. A line without one has an id that is derived from what
it says (`derived_id`), so that the same message sent again is the same line. Where nobody can tell, the money is
credited once at most: a line that may be another one's money waits for a person.
"""

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from msgspec import Struct

from service.ledger.depositor_names import match_name
from service.ledger.errors import BankTransactionReused
from service.ledger.fields import BLANK
from service.ledger.timestamps import bound, parsed

DERIVED = "derived:"
"""How a derived id begins; no caller's id does."""
CONTROL_PADDING = frozenset("\0\t")
"""Of the padding of a name, what no text of a command may hold."""
TOLD_MAX = 100
"""Most additions that are kept of one line."""

_DERIVED_ID = re.compile(f"{DERIVED}[0-9a-f]{{64}}")
_PADDING = re.compile(rf"\A[\0\t{BLANK}]+|[\0\t{BLANK}]+\Z")
_KOREA_AHEAD = timedelta(hours=9)


class BankFacts(Struct, frozen=True, kw_only=True):
    """What is said of one transfer. depositor_name is trimmed, and empty where the bank printed none; occurred_at is
    RFC 3339; account is as printed, mostly masked; balance_after is the account's, in won. None: it was not said."""

    bank_transaction_id: str | None
    depositor_name: str
    amount: int
    occurred_at: str
    bank_name: str | None = None
    raw_message: str | None = None
    account: str | None = None
    balance_after: int | None = None


class KnownLine(Struct, frozen=True, kw_only=True):
    """A line on record, with all that it said and was told since: first what the line itself said.

    name: folded; None where it was erased, or the bot recorded none. times are stored texts.
    """

    id: int
    bank_transaction_id: str | None
    name: str | None
    amount: int
    times: Sequence[str]
    bank_names: Sequence[str] = ()
    depositor_names: Sequence[str] = ()
    accounts: Sequence[str] = ()
    balances: Sequence[int] = ()
    messages: Sequence[str] = ()
    additions: int = 0


class Addition(Struct, frozen=True, kw_only=True):
    """What a line was told that it did not say yet; None where it was nothing. transaction_time is stored text."""

    transaction_time: str | None = None
    bank_name: str | None = None
    depositor_name: str | None = None
    account: str | None = None
    balance_after: int | None = None
    raw_message: str | None = None


def trimmed(depositor_name: str) -> str:
    """The name without the padding of a field of fixed width: NUL, tabs and blanks. Empty where there is no more."""
    return _PADDING.sub("", depositor_name)


def spelled(bank_transaction_id: str) -> str:
    """The one spelling of an id: letters in pieces (NFD) are the letters that they make."""
    return unicodedata.normalize("NFC", bank_transaction_id)


def is_derived(bank_transaction_id: str | None) -> bool:
    """Whether it is an id that `derived_id` made."""
    return bank_transaction_id is not None and _DERIVED_ID.fullmatch(bank_transaction_id) is not None


def canonical_text(facts: BankFacts) -> str:
    """What a derived id is made of, a line each: the minute in Korea, the amount, the folded name, the account as it
    was printed and the balance after. The last two are empty where they were not said."""
    balance = "" if facts.balance_after is None else str(facts.balance_after)
    minute = _korean_minute(facts.occurred_at)
    return "\n".join((minute, str(facts.amount), match_name(facts.depositor_name), facts.account or "", balance))


def derived_id(facts: BankFacts) -> str:
    """The id of a line that came without one: SHA-256 of `canonical_text` in UTF-8, in hexadecimal digits."""
    return DERIVED + sha256(canonical_text(facts).encode()).hexdigest()


def minute_of(stored_time: str) -> str:
    """The minute of a stored time, of which banks print no more. Korea's minutes begin when those of UTC do."""
    return stored_time[:16]


def accounts_agree(one: str, other: str) -> bool:
    """Whether two printed accounts can be one: what is printed before and behind the masked part does not differ.

    Banks mask one account differently in their messages; the masks' lengths say nothing.
    """
    (head, tail, masked), (other_head, other_tail, other_masked) = _ends(one), _ends(other)
    if not masked and not other_masked:
        return head == other_head
    heads = head.startswith(other_head) or other_head.startswith(head)
    return heads and (tail.endswith(other_tail) or other_tail.endswith(tail))


def contradicts(facts: BankFacts, known: KnownLine) -> bool:
    """Whether the account or the balance says that this is other money than that of the line on record."""
    return _is_other_account(facts, known) or _is_other_balance(facts, known)


def check_same_transfer(facts: BankFacts, known: KnownLine) -> None:
    """Returns when `facts` tell of the transfer that is on record as `known`. Raises BankTransactionReused.

    More or less may be said than before, but nothing else. A name that was erased is not compared.
    """
    name, time = match_name(facts.depositor_name), bound(facts.occurred_at)
    times = [one for one in known.times if _has_seconds(one)]
    differing = {
        "depositor_name": bool(name and known.name and name != known.name),
        "amount": facts.amount != known.amount,
        "occurred_at": minute_of(time) != minute_of(known.times[0])
        or (bool(times) and _has_seconds(time) and time not in times),
        "bank_name": bool(facts.bank_name and known.bank_names) and facts.bank_name not in known.bank_names,
        "account": _is_other_account(facts, known),
        "balance_after": _is_other_balance(facts, known),
    }
    names = [field for field, differs in differing.items() if differs]
    if names:
        raise BankTransactionReused(
            f"The bank transaction is on record as notification {known.id}; {', '.join(names)} differ.",
            bank_notification_id=known.id,
            differing_fields=names,
        )


def addition(facts: BankFacts, known: KnownLine) -> Addition | None:
    """What `facts` say that the same line did not say yet; None where that is nothing, or enough is kept.

    Of an erased line the name and the message are not kept again.
    """
    time, is_erased = bound(facts.occurred_at), known.name is None
    spellings = {unicodedata.normalize("NFC", one) for one in known.depositor_names}
    name = unicodedata.normalize("NFC", facts.depositor_name)
    said = Addition(
        transaction_time=time if _has_seconds(time) and not any(map(_has_seconds, known.times)) else None,
        bank_name=_unless_known(facts.bank_name, known.bank_names),
        depositor_name=None if is_erased or not name or name in spellings else facts.depositor_name,
        account=_unless_known(facts.account, known.accounts),
        balance_after=None if facts.balance_after in known.balances else facts.balance_after,
        raw_message=None if is_erased else _unless_known(facts.raw_message, known.messages),
    )
    return None if said == Addition() or known.additions >= TOLD_MAX else said


def _unless_known(said: str | None, known: Sequence[str]) -> str | None:
    return None if said in known else said


def _is_other_account(facts: BankFacts, known: KnownLine) -> bool:
    return facts.account is not None and not all(accounts_agree(facts.account, one) for one in known.accounts)


def _is_other_balance(facts: BankFacts, known: KnownLine) -> bool:
    return facts.balance_after is not None and any(facts.balance_after != one for one in known.balances)


def _has_seconds(stored_time: str) -> bool:
    """Whether it says more than its minute: a message that prints no seconds means the minute's first."""
    return stored_time[17:].strip("0.") != ""


def _ends(account: str) -> tuple[str, str, bool]:
    digits = account.replace("-", "")
    head, tail = digits.split("*", 1)[0], digits.rsplit("*", 1)[-1]
    return head, tail, "*" in digits


def _korean_minute(occurred_at: str) -> str:
    instant = parsed(occurred_at)
    try:
        local = instant + _KOREA_AHEAD
    except OverflowError:
        local = datetime.max.replace(tzinfo=UTC)
    return f"{local.replace(tzinfo=None).isoformat()[:16]}+09:00"
