"""Lines on record that a new one may repeat, what was told of them since, and gaps in the balances of an account."""

from collections.abc import Iterator
from typing import Any

from service.ledger.bank_lines import (
    Addition,
    BankFacts,
    KnownLine,
    contradicts,
    is_derived,
    minute_of,
)
from service.ledger.bank_notifications import BankNotification
from service.ledger.depositor_names import match_name
from service.ledger.timestamps import bound
from service.storage.sqlite import Connection

LINES_OF_ACCOUNT_MAX = 100
"""How many lines of an account are searched for the balance that a line began with."""

_LINE = (
    "SELECT id, bank_transaction_id, depositor_name, match_name, amount, transaction_time, bank_name, account,"
    " balance_after, raw_message FROM bank_notifications"
)
_BY_ID = f"{_LINE} WHERE bank_transaction_id = ?"
# The minute's texts begin with it and a colon, which the semicolon follows.
_OF_THE_MINUTE = (
    f"{_LINE} INDEXED BY idx_bank_notifications_same WHERE amount = :amount AND {{name}}"
    " AND transaction_time >= :minute || ':' AND transaction_time < :minute || ';'{more} ORDER BY id"
)
# Lines whose name was erased have an empty one, and the bot's have none.
_OF_THE_NAME = _OF_THE_MINUTE.format(name="match_name = :name", more="")
_OF_THE_ERASED = _OF_THE_MINUTE.format(name="match_name = ''", more=" AND depositor_name IS NULL")
# Money that the bot had booked counts until a line of ours is matched with it.
_OF_THE_BOT = _OF_THE_MINUTE.format(
    name="match_name IS NULL",
    more=(
        " AND NOT EXISTS (SELECT 1 FROM bank_notifications AS b WHERE b.id <> bank_notifications.id"
        " AND b.matched_transaction_id = bank_notifications.matched_transaction_id AND b.match_method IS NOT NULL)"
    ),
)
_TOLD = (
    "SELECT transaction_time, bank_name, depositor_name, account, balance_after, raw_message"
    " FROM bank_notification_events WHERE bank_notification_id = ? AND kind = 'told' ORDER BY id"
)
# Lines that were told their account or balance later count with it; so do messages of money that went.
_BALANCE = (
    "COALESCE(b.balance_after, (SELECT balance_after FROM bank_notification_events"
    " WHERE bank_notification_id = b.id AND kind = 'told' AND balance_after IS NOT NULL ORDER BY id LIMIT 1))"
)
_TOLD_OF_ACCOUNT = (
    "SELECT MIN(account), MIN(balance_after) FROM bank_notification_events"
    " WHERE bank_notification_id = ? AND kind = 'told'"
)
_OF_THE_ACCOUNT = (
    f"SELECT * FROM (SELECT {_BALANCE} AS balance FROM bank_notifications AS b"
    " WHERE b.account = :account AND b.id <> :id AND b.transaction_time <= :time ORDER BY b.id DESC LIMIT :most)",
    f"SELECT * FROM (SELECT {_BALANCE} AS balance FROM bank_notification_events AS e"
    " JOIN bank_notifications AS b ON b.id = e.bank_notification_id"
    " WHERE e.account = :account AND b.id <> :id AND b.transaction_time <= :time ORDER BY e.id DESC LIMIT :most)",
    "SELECT * FROM (SELECT balance_after AS balance FROM bank_messages"
    " WHERE account = :account AND transaction_time <= :time ORDER BY id DESC LIMIT :most)",
)
_GAP = (
    f"SELECT COUNT(balance) > 0 AND NOT COALESCE(MAX(balance = :began), 0) FROM ({' UNION ALL '.join(_OF_THE_ACCOUNT)})"
)


def find(tx: Connection, bank_transaction_id: str) -> KnownLine | None:
    """The line of this id, with what was told of it since, or None."""
    row = tx.execute(_BY_ID, (bank_transaction_id,)).fetchone()
    return _known(tx, row) if row else None


def find_same(tx: Connection, facts: BankFacts) -> KnownLine | None:
    """The line on record that facts without an id repeat, or None.

    The minute, the amount and the name are the same; the account and the balance do not differ. One of the same
    balance goes first, then the oldest.
    """
    lines = [line for line in _named(tx, facts) if not contradicts(facts, line)]
    return min(lines, key=lambda line: (facts.balance_after not in line.balances, line.id), default=None)


def may_be_repeated(tx: Connection, facts: BankFacts, *, besides: int = 0) -> bool:
    """Whether a line on record besides that one may be of the same money, though nobody can say so.

    One of the two has no id of the bank's, and they do not contradict each other; or the name was erased.
    """
    without_id = facts.bank_transaction_id is None or is_derived(facts.bank_transaction_id)
    lines = (line for of in (_named, _nameless) for line in of(tx, facts))
    return any(
        line.id != besides
        and (without_id or line.bank_transaction_id is None or is_derived(line.bank_transaction_id))
        and not contradicts(facts, line)
        for line in lines
    )


def insert_told(tx: Connection, line_id: int, said: Addition, *, actor: str, now: str) -> int:
    """Keeps what a line was told since; returns the id of the event."""
    made = tx.execute(
        "INSERT INTO bank_notification_events (bank_notification_id, kind, transaction_time, bank_name, depositor_name,"
        " account, balance_after, raw_message, actor, created_at) VALUES (?, 'told', ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            line_id,
            said.transaction_time,
            said.bank_name,
            said.depositor_name,
            said.account,
            said.balance_after,
            said.raw_message,
            actor,
            now,
        ),
    ).lastrowid
    assert made is not None
    return made


def has_gap(tx: Connection, line: BankNotification) -> bool:
    """Whether the account has lines before this one, and none of them the balance that this one began with."""
    account, balance = line.account, line.bank_balance_after
    if line.bank_transaction_id is None or line.occurred_at is None:
        return False
    if account is None or balance is None:
        told = tx.execute(_TOLD_OF_ACCOUNT, (line.id,)).fetchone()
        account, balance = account or told[0], told[1] if balance is None else balance
    if account is None or balance is None:
        return False
    parameters = {
        "id": line.id,
        "account": account,
        "began": balance - line.amount,
        "time": bound(line.occurred_at),
        "most": LINES_OF_ACCOUNT_MAX,
    }
    return bool(tx.execute(_GAP, parameters).fetchone()[0])


def _named(tx: Connection, facts: BankFacts) -> Iterator[KnownLine]:
    """The lines of the same minute, amount and name; of the bot's too, which have no id."""
    key = _key(facts)
    for row in tx.execute(_OF_THE_NAME, key).fetchall():
        if row[2] is not None:
            yield _known(tx, row)
    for row in tx.execute(_OF_THE_BOT, key).fetchall():
        if row[2] is not None and match_name(str(row[2])) == key["name"]:
            yield _known(tx, row)


def _nameless(tx: Connection, facts: BankFacts) -> Iterator[KnownLine]:
    """The lines of the same minute and amount whose name is not known: it was erased, or the bot kept none."""
    key = _key(facts)
    for of in (_OF_THE_ERASED, _OF_THE_BOT):
        for row in tx.execute(of, key).fetchall():
            if row[2] is None:
                yield _known(tx, row)


def _key(facts: BankFacts) -> dict[str, Any]:
    name, minute = match_name(facts.depositor_name), minute_of(bound(facts.occurred_at))
    return {"amount": facts.amount, "name": name, "minute": minute}


def _known(tx: Connection, row: tuple[Any, ...]) -> KnownLine:
    line_id, bank_id, depositor_name, name, amount, *said = row
    told = tx.execute(_TOLD, (line_id,)).fetchall()
    # In the order of a told event: the name stands third.
    own = (said[0], said[1], depositor_name, *said[2:])
    times, banks, names, accounts, balances, messages = (
        [value for value in values if value is not None] for values in zip(own, *told, strict=True)
    )
    return KnownLine(
        id=line_id,
        bank_transaction_id=bank_id,
        name=None if depositor_name is None else match_name(str(depositor_name)) if name is None else name,
        amount=amount,
        times=times,
        bank_names=banks,
        depositor_names=names,
        accounts=accounts,
        balances=balances,
        messages=messages,
        additions=len(told),
    )
