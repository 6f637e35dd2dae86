"""Which deposits a bank notification that waits for a person could mean."""

from collections.abc import Iterable, Sequence

import msgspec

from service.ledger.depositor_names import AnnouncedName, PrintedName, could_be_meant, match_name
from service.ledger.deposits import Deposit, is_open
from service.ledger.timestamps import around, bound
from service.storage.sqlite import Connection

_THOSE_THAT_WAIT = (
    "bank_notifications AS b INDEXED BY idx_bank_notifications_waiting"
    " WHERE b.status <> 'matched' AND b.closed_as IS NULL AND b.bank_transaction_id IS NOT NULL AND b.amount = {amount}"
)
_EXISTS = f"EXISTS (SELECT 1 FROM {_THOSE_THAT_WAIT}{{of_name}})"
_ANY_OF_AMOUNT = (
    f"SELECT asked.value FROM json_each(?) AS asked WHERE {_EXISTS.format(amount='asked.value', of_name='')}"
)
_AMOUNT, _SINCE, _UNTIL = (f"json_extract(asked.value, '$[{place}]')" for place in (0, 2, 3))
_OF_NAME = f" AND b.match_name = name.value AND b.transaction_time BETWEEN {_SINCE} AND {_UNTIL}"
_ASKED = "FROM json_each(?1) AS asked CROSS JOIN json_each(asked.value, '$[1]') AS name"
# Whether there is one is a search for each name that a bank may print; how many there are does not matter.
_NAMES_PRINTED = f"SELECT asked.key, name.value {_ASKED} WHERE {_EXISTS.format(amount=_AMOUNT, of_name=_OF_NAME)}"
_LINES = f"SELECT b.id {_ASKED} CROSS JOIN {_THOSE_THAT_WAIT.format(amount=_AMOUNT)}{_OF_NAME} LIMIT ?2"
_LEARNED = (
    "SELECT u.telegram_id, l.match_name FROM json_each(?) AS asked CROSS JOIN users AS u ON u.telegram_id = asked.value"
    " CROSS JOIN learned_names AS l INDEXED BY idx_learned_names_user ON l.user_id = u.id"
)


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """What could be meant: the amount in won, all that a bank may print, and between which instants the money came."""

    amount: int
    prints: list[str]
    since: str
    until: str


def in_review(tx: Connection, deposits: Sequence[Deposit], *, window_s: int) -> set[int]:
    """The ids of those deposits whose money may still come and that a notification which waits could mean.

    It could as a line does that comes now: by its amount, within the window, and by its name or one that was learned.
    """
    waiting = _of_waiting_amounts(tx, [one for one in deposits if is_open(one)])
    names = _names_of(tx, waiting)
    asked = {one.id: found for one in waiting if (found := asked_for(one, names[one.id], window_s=window_s))}
    if not asked:
        return set()
    ids = list(asked)
    rows = tx.execute(_NAMES_PRINTED, (msgspec.json.encode(list(asked.values())).decode(),)).fetchall()
    return {ids[place] for place, print_ in rows if _means_one(print_, names[ids[place]])}


def waits(tx: Connection, *, amount: int, names: Iterable[AnnouncedName], since: str, until: str) -> bool:
    """Whether a notification of the amount between the two stored instants waits that could mean one of the names."""
    meant = [one.name for one in names]
    asked = Asked(amount, _prints(meant), since, until)
    rows = tx.execute(_NAMES_PRINTED, (msgspec.json.encode([asked]).decode(),)).fetchall()
    return any(_means_one(print_, meant) for _, print_ in rows)


def lines_of(tx: Connection, deposits: Sequence[Deposit], *, window_s: int, limit: int) -> list[int]:
    """Up to `limit` ids of the notifications for which `in_review` holds of one of these deposits, in any order."""
    waiting = _of_waiting_amounts(tx, [one for one in deposits if is_open(one)])
    names = _names_of(tx, waiting)
    asked = [found for one in waiting if (found := asked_for(one, names[one.id], window_s=window_s))]
    rows = tx.execute(_LINES, (msgspec.json.encode(asked).decode(), limit)).fetchall() if asked else []
    return [row[0] for row in rows]


def asked_for(deposit: Deposit, names: Sequence[str], *, window_s: int) -> Asked | None:
    """What to ask of a deposit; None for one whose name was erased, or without a readable time."""
    try:
        since, until = around(bound(deposit.created_at or ""), window_s)
    except ValueError:
        return None
    prints = _prints(names)
    return Asked(deposit.amount, prints, since, until) if prints else None


def _of_waiting_amounts(tx: Connection, deposits: Sequence[Deposit]) -> list[Deposit]:
    """Mostly none: one search for each amount says so."""
    amounts = msgspec.json.encode(sorted({one.amount for one in deposits})).decode()
    waiting = {row[0] for row in tx.execute(_ANY_OF_AMOUNT, (amounts,)).fetchall()} if deposits else set()
    return [one for one in deposits if one.amount in waiting]


def _names_of(tx: Connection, deposits: Sequence[Deposit]) -> dict[int, list[str]]:
    """Of each deposit the name that was announced, and those that were learned of its user, folded."""
    users = msgspec.json.encode(sorted({one.telegram_id for one in deposits})).decode()
    learned: dict[str, list[str]] = {}
    for telegram_id, name in tx.execute(_LEARNED, (users,)).fetchall() if deposits else []:
        learned.setdefault(telegram_id, []).append(name)
    return {one.id: [match_name(one.depositor_name or ""), *learned.get(one.telegram_id, [])] for one in deposits}


def _prints(names: Iterable[str]) -> list[str]:
    """All that a bank may print for the names: each of them, and each of their beginnings."""
    return sorted({one for name in names if name for one in (name, *AnnouncedName(name, name).beginnings())})


def _means_one(print_: str, names: Iterable[str]) -> bool:
    line = PrintedName(print_, fills_field=False)
    return any(could_be_meant(line, name) is not None for name in names)
