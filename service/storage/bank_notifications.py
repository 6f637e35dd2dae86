"""Table bank_notifications, and the deposits that a notification may be for."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import date
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct

from service.ledger.bank_lines import BankFacts
from service.ledger.bank_notifications import (
    CANDIDATES_MAX,
    DEPOSITS_READ_MAX,
    NAMES_ASKED_MAX,
    BankNotification,
    BankNotificationStatus,
    Candidate,
    Candidates,
    MatchMethod,
    reverse_deposit,
)
from service.ledger.depositor_names import (
    OTHER_THAN_PLAIN,
    AnnouncedName,
    Meaning,
    PrintedName,
    announced,
    could_be_confused,
    could_be_meant,
    match_name,
    printed,
)
from service.ledger.likeness import RULES, Likeness, Printed, likely_names, read, seen_in
from service.ledger.timestamps import around, bound, spoken
from service.storage import bank_lines, learned_names
from service.storage.bank_notification_events import LOST_ITS_LINE
from service.storage.sqlite import Connection

_SELECT_OPEN = (
    "SELECT id, bank_transaction_id, depositor_name, amount, transaction_time, bank_name, raw_message,"
    " COALESCE(closed_as, status), matched_transaction_id, match_method, matched_by, matched_at, created_at, account,"
    " balance_after, iif(EXISTS (SELECT 1 FROM bank_notification_events WHERE bank_notification_id ="
    " bank_notifications.id AND kind = 'cancelled') AND NOT EXISTS (SELECT 1 FROM deposit_transactions"
    " WHERE reverses_id = matched_transaction_id), matched_transaction_id, NULL) FROM"
)
_SELECT = f"{_SELECT_OPEN} bank_notifications"
# What the money of a notification could be for: a deposit that waits, one that has expired, and one that was confirmed
# without a notification of ours, taken back since or not. Of the bot's rows the match name is not known: they are
# compared one by one.
_CANDIDATE = (
    "SELECT t.id, u.telegram_id, t.depositor_name, t.amount,"
    " iif(EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = t.id), 'reversed', t.status), t.created_at"
)
_FROM = " FROM deposit_transactions AS t INDEXED BY {index} JOIN users AS u ON u.id = t.user_id"
_SELECT_CANDIDATES = _CANDIDATE + _FROM
_WITHOUT_LINE = (
    "NOT EXISTS (SELECT 1 FROM bank_notifications WHERE matched_transaction_id = t.id AND match_method IS NOT NULL)"
    f" AND NOT {LOST_ITS_LINE.format(deposit='t.id')}"
)
_WHERE_NEAR = (
    " WHERE t.type = 'deposit' AND substr(t.created_at, 1, 10) IN ({days}) AND t.amount = :amount"
    " AND t.created_at BETWEEN :since AND :until"
)
_ANNOUNCED_NEAR = _SELECT_CANDIDATES.format(index="idx_transactions_match") + _WHERE_NEAR
_OPEN_OR_WITHOUT_LINE = f"t.status IN ('pending', 'expired') OR t.status = 'confirmed' AND {_WITHOUT_LINE}"
_CANDIDATES = f"{_ANNOUNCED_NEAR} AND ({_OPEN_OR_WITHOUT_LINE})"
# In whatever state, also just outside of the window: so the bound on what is read holds. The last column says whether
# the deposit is open or without a line.
_OF_THE_AMOUNT = (
    f"{_CANDIDATE}, ({_OPEN_OR_WITHOUT_LINE}){_FROM.format(index='idx_transactions_match')}"
    " WHERE t.type = 'deposit' AND substr(t.created_at, 1, 10) IN ({days}) AND t.amount = :amount LIMIT :read + 1"
)
# What was cancelled after the money came could be meant when it came. The log tells when; the row of a cancellation in
# this very commit is not in it yet.
_CANCELLED_SINCE = (
    "t.status = 'cancelled' AND NOT EXISTS (SELECT 1 FROM audit_logs INDEXED BY idx_audit_logs_resource"
    " WHERE resource_type = 'deposit_transaction' AND resource_id = t.id AND action = 'deposit_cancelled'"
    " AND created_at < :occurred_at)"
)
# In the order of the index, so that of thousands no more are read than are listed.
_SAME_NAME = f"{_CANDIDATES} AND t.match_name = :name ORDER BY substr(t.created_at, 1, 10), t.id LIMIT :limit"
_OF_THE_BOT = f"{_CANDIDATES} AND t.match_name IS NULL ORDER BY t.id"
# Of thousands of them SQL leaves out most: it knows how a plain name is folded. What a NUL hides it does not see.
_FOLDED = "lower(replace(t.depositor_name, ' ', ''))"
_NOT_PLAIN = f"t.depositor_name GLOB '{OTHER_THAN_PLAIN}' OR instr(t.depositor_name, char(0))"
_MAY_BEGIN_WITH_IT = f"({_NOT_PLAIN} OR substr({_FOLDED}, 1, length(:name)) = :name)"
# A bank prints as many letters of a longer name as its field holds wide ones; where there are spaces, maybe one.
_MAY_BE_CONFUSED = (
    f"({_NOT_PLAIN} OR substr({_FOLDED}, 1, length(:print)) = :print"
    f" OR instr(:name, substr({_FOLDED}, 1, iif(instr(t.depositor_name, ' '), 1, :letters))) = 1)"
)
_BEGINNING_WITH_IT = "{t}match_name >= :{name} AND {t}match_name < :{name} || char(1114111)"
_LONGER_NAME = f"{_CANDIDATES} AND t.match_name > :name AND t.match_name < :name || char(1114111) LIMIT :limit"
_LIKELY_NAME = f"{_CANDIDATES} AND t.match_name IN (SELECT value FROM json_each(:likely)) LIMIT :limit"
# The money of what was confirmed on another day may have come at any time from its announcement on.
_WHERE_CONFIRMED_LATE = (
    " WHERE t.type = 'deposit' AND t.status = 'confirmed'"
    " AND substr(t.confirmed_at, 1, 10) IS NOT substr(t.created_at, 1, 10) AND t.amount = :amount"
    f" AND t.confirmed_at >= :since AND coalesce(t.created_at, '') <= :until AND {_WITHOUT_LINE}"
)
_CONFIRMED_LATE = _SELECT_CANDIDATES.format(index="idx_transactions_match_late") + _WHERE_CONFIRMED_LATE
_SAME_NAME_LATE = f"{_CONFIRMED_LATE} AND t.match_name = :name LIMIT :limit"
_LONGER_NAME_LATE = f"{_CONFIRMED_LATE} AND t.match_name > :name AND t.match_name < :name || char(1114111) LIMIT :limit"
_LIKELY_NAME_LATE = f"{_CONFIRMED_LATE} AND t.match_name IN (SELECT value FROM json_each(:likely)) LIMIT :limit"
_OF_THE_BOT_LATE = f"{_CONFIRMED_LATE} AND t.match_name IS NULL"
_OF_THE_BOT_MEANT = tuple(
    f"{select} AND t.match_name IS NULL AND {_MAY_BEGIN_WITH_IT}" for select in (_CANDIDATES, _CONFIRMED_LATE)
)
# Of more deposits of one amount than are read, those whose names are likely.
_ALIKE = (_SAME_NAME, _LONGER_NAME, _LIKELY_NAME, f"{_OF_THE_BOT} LIMIT :limit")
_ALIKE_LATE = (_SAME_NAME_LATE, _LONGER_NAME_LATE, _LIKELY_NAME_LATE, f"{_OF_THE_BOT_LATE} LIMIT :limit")
# Whose names were erased: an empty one, and of the bot's rows still none.
_OF_THE_ERASED = " AND t.match_name {name} AND EXISTS (SELECT 1 FROM user_erasures WHERE user_id = t.user_id) LIMIT 1"
_NAMELESS = tuple(
    select + _OF_THE_ERASED.replace("{name}", name)
    for select in (_CANDIDATES, _CONFIRMED_LATE)
    for name in ("= ''", "IS NULL")
)
_COULD_BE_MEANT = tuple(
    f"{{select}}{where} AND {_BEGINNING_WITH_IT.format(t='t.', name='name')}"
    for where in (
        f"{_WHERE_NEAR} AND ({_OPEN_OR_WITHOUT_LINE} OR {_CANCELLED_SINCE})",
        _WHERE_CONFIRMED_LATE,
    )
)
_FITS = "(t.match_name = :name OR :may_be_cut)"
# Of thousands of deposits no row leaves SQLite but the oldest one, and the oldest one of each kind that counts. Of what
# was confirmed without a line the newest too: two of them are more than one.
_COUNTED = (
    "SELECT MIN(t.user_id), MAX(t.user_id), MIN(t.id),"
    f" MIN(t.id) FILTER (WHERE t.status = 'pending' AND {_FITS}),"
    f" MIN(t.id) FILTER (WHERE t.status = 'expired' AND t.created_at >= :open_since AND {_FITS}),"
    f" MIN(t.id) FILTER (WHERE t.status <> 'cancelled' AND {_FITS}),"
    " MIN(t.id) FILTER (WHERE t.status = 'confirmed'), MAX(t.id) FILTER (WHERE t.status = 'confirmed')"
    " FROM deposit_transactions AS t INDEXED BY {index}"
)
_INDEXES = ("idx_transactions_match", "idx_transactions_match_late")
_MEANT_COUNTED = tuple(
    meant.replace("{select}", _COUNTED.format(index=index))
    for meant, index in zip(_COULD_BE_MEANT, _INDEXES, strict=True)
)
_MEANT = tuple(
    meant.replace("{select}", _SELECT_CANDIDATES.format(index=index))
    for meant, index in zip(_COULD_BE_MEANT, _INDEXES, strict=True)
)
_MEANT_NAMES = tuple(
    meant.replace("{select}", f"SELECT DISTINCT t.match_name FROM deposit_transactions AS t INDEXED BY {index}")
    + " LIMIT :names"
    for meant, index in zip(_COULD_BE_MEANT, _INDEXES, strict=True)
)
_BY_ID = (
    f"{_CANDIDATE} FROM deposit_transactions AS t JOIN users AS u ON u.id = t.user_id"
    " WHERE t.id IN (SELECT value FROM json_each(:ids))"
)
# Of the users of whom a name was learned that the printed one is or begins, whatever they announced.
_OF_THE_LEARNED = (
    "deposit_transactions AS t INDEXED BY idx_transactions_user JOIN users AS u ON u.id = t.user_id"
    " WHERE t.user_id IN (SELECT user_id FROM learned_names INDEXED BY idx_learned_names_name WHERE {learned})"
    " AND t.type = 'deposit' AND t.amount = :amount"
)
_LEARNED_NEAR = f"{_OF_THE_LEARNED} AND t.created_at BETWEEN :since AND :until"
_LEARNED_LATE = (
    f"{_OF_THE_LEARNED} AND t.created_at <= :until AND t.status = 'confirmed' AND t.confirmed_at >= :since"
    f" AND substr(t.confirmed_at, 1, 10) IS NOT substr(t.created_at, 1, 10) AND {_WITHOUT_LINE}"
)
_IS_LEARNED = _BEGINNING_WITH_IT.format(t="", name="name")
_LEARNED_MEANT = tuple(
    f"{_CANDIDATE} FROM {where}".replace("{learned}", _IS_LEARNED)
    for where in (f"{_LEARNED_NEAR} AND ({_OPEN_OR_WITHOUT_LINE} OR {_CANCELLED_SINCE})", _LEARNED_LATE)
)
_LEARNED_CANDIDATES = tuple(
    f"{_CANDIDATE} FROM {where} LIMIT :limit".replace("{learned}", _IS_LEARNED)
    for where in (f"{_LEARNED_NEAR} AND ({_OPEN_OR_WITHOUT_LINE})", _LEARNED_LATE)
)
# Of the users of whom a name was learned that a bank may print like this one.
_IS_ALIKE = f"{_BEGINNING_WITH_IT.format(t='', name='print')} OR match_name IN ({{beginnings}})"
_LEARNED_RIVALS = tuple(
    f"{_CANDIDATE} FROM {where} AND (u.telegram_id <> :telegram_id OR t.status = 'confirmed') LIMIT :limit".replace(
        "{learned}", _IS_ALIKE
    )
    for where in (f"{_LEARNED_NEAR} AND ({_OPEN_OR_WITHOUT_LINE})", _LEARNED_LATE)
)
_LEARNED_AROUND = tuple(
    f"SELECT 1 FROM {where} LIMIT 1".replace("{learned}", _IS_ALIKE)
    for where in (_LEARNED_NEAR, _LEARNED_LATE.replace(f" AND {_WITHOUT_LINE}", ""))
)
# A user's own deposits are no rivals of each other, but the money of a confirmed one may still come.
_RIVALS = tuple(
    f"{select} AND (u.telegram_id <> :telegram_id OR t.status = 'confirmed') AND {of_name}{limit}"
    for select in (_CANDIDATES, _CONFIRMED_LATE)
    for of_name, limit in (
        (_BEGINNING_WITH_IT.format(t="t.", name="print"), " LIMIT :limit"),
        ("t.match_name IN ({beginnings})", " LIMIT :limit"),
    )
)
_RIVALS_OF_THE_BOT = tuple(
    f"{select} AND (u.telegram_id <> :telegram_id OR t.status = 'confirmed')"
    f" AND t.match_name IS NULL AND {_MAY_BE_CONFUSED}"
    for select in (_CANDIDATES, _CONFIRMED_LATE)
)
_OPEN_OF_AMOUNT = (
    "bank_notifications INDEXED BY idx_bank_notifications_waiting WHERE status <> 'matched' AND closed_as IS NULL"
    " AND bank_transaction_id IS NOT NULL AND amount = :amount AND transaction_time BETWEEN :since AND :until"
)
_OPEN = (
    f"{_OPEN_OF_AMOUNT} AND match_name = :name LIMIT 2",
    f"{_OPEN_OF_AMOUNT} AND match_name IN ({{beginnings}})",
)
_DEPOSIT = (
    "SELECT 1 FROM deposit_transactions INDEXED BY idx_transactions_match WHERE type = 'deposit'"
    " AND substr(created_at, 1, 10) IN ({days}) AND created_at BETWEEN :since AND :until AND amount = :amount"
)
_DEPOSIT_LATE = (
    "SELECT 1 FROM deposit_transactions INDEXED BY idx_transactions_match_late WHERE type = 'deposit'"
    " AND status = 'confirmed' AND substr(confirmed_at, 1, 10) IS NOT substr(created_at, 1, 10)"
    " AND amount = :amount AND confirmed_at >= :since"
)
_ITS_BEGINNINGS = "match_name IN ({beginnings})"
_QUIET_OF = tuple(
    f"EXISTS ({select} AND {of_name})"
    for select in (_DEPOSIT, _DEPOSIT_LATE)
    for of_name in (_BEGINNING_WITH_IT.format(t="", name="print"), _ITS_BEGINNINGS, "match_name IS NULL")
)
_QUIET = (
    f"SELECT NOT (EXISTS (SELECT 1 FROM {_OPEN_OF_AMOUNT} AND match_name = :name)"
    f" OR EXISTS (SELECT 1 FROM {_OPEN_OF_AMOUNT} AND {_ITS_BEGINNINGS}) OR {' OR '.join(_QUIET_OF)})"
)

# All that could be confused with a name is in one range, from its first character on. Mostly that range is empty, and
# one search says so; only else are its beginnings searched for one by one.
_FROM_ITS_FIRST_CHARACTER = "match_name >= :first AND match_name < :print || char(1114111)"
_EMPTY_AROUND_OF = tuple(
    f"EXISTS ({select} AND {of_name})"
    for select in (_DEPOSIT, _DEPOSIT_LATE)
    for of_name in (_FROM_ITS_FIRST_CHARACTER, "match_name IS NULL")
)
_EMPTY_AROUND = (
    "SELECT NOT (EXISTS (SELECT 1 FROM learned_names INDEXED BY idx_learned_names_name"
    f" WHERE {_FROM_ITS_FIRST_CHARACTER})"
    " OR EXISTS (SELECT 1 FROM learned_names"
    " WHERE user_id = (SELECT id FROM users WHERE telegram_id = :telegram_id))"
    f" OR EXISTS (SELECT 1 FROM {_OPEN_OF_AMOUNT} AND {_FROM_ITS_FIRST_CHARACTER})"
    f" OR {' OR '.join(_EMPTY_AROUND_OF)})"
)


class Meant(Struct, frozen=True):
    """What a line could mean: `deposits` for `fitting` to judge, and the folded names of all deposits of that kind.

    names: of each index NAMES_ASKED_MAX and one at most; where the deposits are of several users, only some.
    """

    deposits: list[Candidate]
    names: list[str]


def insert(
    tx: Connection,
    facts: BankFacts,
    *,
    bank_transaction_id: str,
    occurred_at: str,
    name: str,
    status: BankNotificationStatus,
    now: str,
) -> int:
    """Writes a notification that is not matched yet; returns its id. `occurred_at` is stored UTC text."""
    notification_id = tx.execute(
        "INSERT INTO bank_notifications (bank_name, depositor_name, amount, transaction_time, raw_message, created_at,"
        " bank_transaction_id, match_name, status, account, balance_after) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            facts.bank_name,
            facts.depositor_name,
            facts.amount,
            occurred_at,
            facts.raw_message,
            now,
            bank_transaction_id,
            name,
            status,
            facts.account,
            facts.balance_after,
        ),
    ).lastrowid
    assert notification_id is not None
    return notification_id


def match(tx: Connection, *, notification_id: int, deposit_id: int, method: MatchMethod, actor: str, now: str) -> None:
    """Settles a notification with a confirmed deposit."""
    moved = tx.execute(
        "UPDATE bank_notifications SET status = 'matched', matched_transaction_id = ?, match_method = ?,"
        " matched_by = ?, matched_at = ? WHERE id = ? AND status <> 'matched' AND closed_as IS NULL",
        (deposit_id, method, actor, now, notification_id),
    ).rowcount
    if moved != 1:
        raise RuntimeError(f"bank notification {notification_id} is not open")


def find(tx: Connection, notification_id: int) -> BankNotification | None:
    """One notification, without candidates, or None."""
    row = tx.execute(f"{_SELECT} WHERE id = ?", (notification_id,)).fetchone()
    return _shown(tx, row) if row else None


def find_of_deposit(tx: Connection, deposit_id: int) -> int | None:
    """The id of the notification that Passbook matched with this deposit, or None."""
    row = tx.execute(
        "SELECT id FROM bank_notifications WHERE matched_transaction_id = ? AND match_method IS NOT NULL",
        (deposit_id,),
    ).fetchone()
    return row[0] if row else None


def with_candidates(
    tx: Connection, notification: BankNotification, *, window_s: int, field_width: int
) -> BankNotification:
    """The notification with the deposits that its money may be for; none unless it is open."""
    if notification.status not in {BankNotificationStatus.UNMATCHED, BankNotificationStatus.AMBIGUOUS}:
        return notification
    try:
        since, until = around(bound(notification.occurred_at or notification.created_at or ""), window_s)
    except ValueError:  # what the bot recorded is no time
        return notification
    name = notification.depositor_name or ""
    found = candidates(tx, name, amount=notification.amount, since=since, until=until, field_width=field_width)
    return listing(notification, found)


def listing(notification: BankNotification, found: Candidates) -> BankNotification:
    """The notification with these candidates."""
    return msgspec.structs.replace(
        notification, candidates=found.listed, more_candidates=found.more, more_candidates_counted=found.counted
    )


def candidates(
    tx: Connection, depositor_name: str, *, amount: int, since: str, until: str, field_width: int
) -> Candidates:
    """The deposits of `amount` won, announced between the two stored instants, that a person would look at.

    Those with a name like the printed one, and the open ones of any name; the likeliest first, then the oldest. A
    limited number is read.
    """
    line = Printed(read(depositor_name), printed(depositor_name, field_width=field_width).fills_field)
    parameters = {
        "amount": amount,
        "name": line.reading.name,
        "likely": msgspec.json.encode(likely_names(line)).decode(),
        "since": since,
        "until": until,
        "limit": CANDIDATES_MAX + 1,
        "read": DEPOSITS_READ_MAX,
    }
    days = _days(since, until)
    near = _all(tx, _OF_THE_AMOUNT, days, parameters)
    counted = len(near) <= DEPOSITS_READ_MAX
    rows = {row[:6] for row in near[:DEPOSITS_READ_MAX] if row[6] and since <= row[5] <= until}
    for statement in _ALIKE_LATE if counted else (*_ALIKE, *_ALIKE_LATE):
        found = _all(tx, statement, days, parameters) if line.reading.name else []
        counted = counted and len(found) <= CANDIDATES_MAX
        rows |= set(found)
    learned: set[Any] = set()
    for statement in _LEARNED_CANDIDATES:
        found = _all(tx, statement, days, parameters) if line.reading.name else []
        counted = counted and len(found) <= CANDIDATES_MAX
        learned |= set(found)
    rows |= learned
    ranked = sorted(
        (place, row[0], alike, row)
        for row in rows
        for place, alike in _likeness_of(line, row in learned, depositor_name=row[2], status=row[4])
    )
    listed = [_candidate(row, alike) for _, _, alike, row in ranked[:CANDIDATES_MAX]]
    return Candidates(listed, len(ranked) - len(listed), counted)


def _likeness_of(
    line: Printed, is_learned: bool, *, depositor_name: str | None, status: str
) -> list[tuple[int, Likeness]]:
    """How the deposit is like the line, and in which place of the likeliest; empty when it is not. Of one whose name
    was erased nobody knows."""
    if not depositor_name:
        return []
    alike = seen_in(depositor_name, line)
    if is_learned and (alike is None or alike[1] is not Likeness.SAME_NAME):
        return [(1, Likeness.LEARNED_NAME)]
    if alike is None and status in {"pending", "expired"}:
        alike = len(RULES), Likeness.SAME_AMOUNT
    return [(2 * alike[0], alike[1])] if alike else []


def meant(
    tx: Connection, line: PrintedName, *, amount: int, since: str, until: str, occurred_at: str, open_since: str
) -> Meant:
    """The deposits that a line of money that came at `occurred_at` could mean, as many as `fitting` needs to judge.

    What was announced from `open_since` on was open then. Of two users one deposit each; of one user the oldest one of
    each kind that counts, and of those confirmed without a line two.
    """
    if not line.name:
        return Meant([], [])
    parameters = {
        "amount": amount,
        "name": line.name,
        "since": since,
        "until": until,
        "occurred_at": occurred_at,
        "open_since": open_since,
        "may_be_cut": line.fills_field,
        "names": NAMES_ASKED_MAX + 1,
    }
    days = _days(since, until)
    rows = _of_the_bot_meant(tx, line, days, parameters)
    names = {match_name(row[2] or "") for row in rows}
    users, ids = set(), set()
    for statement in _MEANT_COUNTED:
        first_user, last_user, *found_ids = _all(tx, statement, days, parameters)[0]
        users |= {first_user, last_user} - {None}
        ids |= set(found_ids) - {None}
    rows |= set(_all(tx, _BY_ID, "", {"ids": msgspec.json.encode(sorted(ids)).decode()}) if ids else [])
    if len(users) > 1:
        one = {**parameters, "telegram_id": min(rows)[1]}
        for statement in _MEANT:
            rows |= set(_all(tx, f"{statement} AND u.telegram_id <> :telegram_id LIMIT 1", days, one))
    else:
        for statement in _MEANT_NAMES:
            names |= {name for (name,) in _all(tx, statement, days, parameters)}
    learned = _learned_meant(tx, days, parameters, rows)
    rows |= learned
    names |= {match_name(row[2] or "") for row in learned}
    for telegram_id in {row[1] for row in rows}:
        names |= set(learned_names.of_user(tx, telegram_id))
    return Meant(
        [_candidate(row, _meant_as(line, match_name(row[2] or ""))) for row in sorted(rows)],
        sorted(names),
    )


def _of_the_bot_meant(tx: Connection, line: PrintedName, days: str, parameters: Mapping[str, object]) -> set[Any]:
    """Of the bot's deposits those that the line could mean: all where they are one user's, else two of two users."""
    found: set[Any] = set()
    for statement in _OF_THE_BOT_MEANT:
        with closing(tx.execute(_filled_in(statement, days, 0), parameters)) as rows:
            for row in rows:
                if could_be_meant(line, match_name(row[2] or "")) is None:
                    continue
                first = next(iter(found), row)
                if first[1] != row[1]:
                    return {first, row}
                found.add(row)
    return found


def _learned_meant(tx: Connection, days: str, parameters: Mapping[str, object], rows: set[Any]) -> set[Any]:
    """The deposits of the users of whom the printed name was learned: all of them where `rows` are this one user's too,
    else at least one of another user's."""
    found = {row for statement in _LEARNED_MEANT for row in _all(tx, f"{statement} LIMIT 1", days, parameters)}
    if not found:
        return found
    one = {**parameters, "telegram_id": min(rows | found)[1]}
    others = {
        row
        for statement in _LEARNED_MEANT
        for row in _all(tx, f"{statement} AND u.telegram_id <> :telegram_id LIMIT 1", days, one)
    }
    if others:
        return found | others
    return {row for statement in _LEARNED_MEANT for row in _all(tx, statement, days, parameters)}


def _meant_as(line: PrintedName, name: str) -> Likeness:
    if name == line.name:
        return Likeness.SAME_NAME
    return Likeness.TRUNCATED_NAME if name.startswith(line.name) else Likeness.LEARNED_NAME


def in_time(tx: Connection, candidates: Iterable[Candidate], *, open_since: str) -> set[int]:
    """Those that have expired and were announced from `open_since` on. Of the bot's own deposits that is not known."""
    expired = [candidate.deposit_id for candidate in candidates if candidate.status == "expired"]
    sql = (
        "SELECT id FROM deposit_transactions WHERE id IN (SELECT value FROM json_each(?))"
        " AND match_name IS NOT NULL AND created_at >= ?"
    )
    rows = tx.execute(sql, (msgspec.json.encode(expired).decode(), open_since)).fetchall() if expired else []
    return {row[0] for row in rows}


def rivals(
    tx: Connection,
    *,
    amount: int,
    name: AnnouncedName,
    since: str,
    until: str,
    field_width: int,
    telegram_id: str,
) -> list[int]:
    """The ids of deposits that a transfer of this name by the user could be confused with, CANDIDATES_MAX at most.

    The user's own count where they were confirmed without a notification: their money may still come.
    """
    parameters = {
        **_of_name(name),
        "amount": amount,
        "since": since,
        "until": until,
        "telegram_id": telegram_id,
        "limit": CANDIDATES_MAX,
    }
    days, beginnings = _days(since, until), len(name.beginnings())
    rows = {row for statement in _RIVALS for row in _all(tx, statement, days, parameters, beginnings=beginnings)}
    found = {row[0] for row in rows if could_be_confused(name, announced(row[2] or "", field_width=field_width))}
    bots = {**parameters, "letters": max((field_width - 1) // 2, 1)}
    for statement in _RIVALS_OF_THE_BOT:
        with closing(tx.execute(_filled_in(statement, days, 0), bots)) as read:
            names = ((row[0], announced(row[2] or "", field_width=field_width)) for row in read)
            alike = (deposit for deposit, other in names if could_be_confused(name, other))
            found |= set(islice(alike, CANDIDATES_MAX))
    for statement in _LEARNED_RIVALS:
        found |= {row[0] for row in _all(tx, statement, days, parameters, beginnings=beginnings)}
    return sorted(found)[:CANDIDATES_MAX]


def has_erased_rival(tx: Connection, *, amount: int, since: str, until: str) -> bool:
    """Whether there is a deposit among the candidates of any name whose name was erased: it may have been the same."""
    parameters = {"amount": amount, "since": since, "until": until}
    days = _days(since, until)
    return any(_all(tx, statement, days, parameters) for statement in _NAMELESS)


def list_open(
    tx: Connection, *, amount: int, name: AnnouncedName, since: str, until: str, field_width: int
) -> list[BankNotification]:
    """Notifications of the amount between the two instants that are not matched and print the name, whole or cut.

    Two at least where there are so many; without candidates.
    """
    parameters = {**_of_name(name), "amount": amount, "since": since, "until": until}
    rows = {
        row
        for of_name in _OPEN
        for row in _all(tx, f"{_SELECT_OPEN} {of_name}", "", parameters, beginnings=len(name.beginnings()))
    }
    lines = [_notification(row) for row in sorted(rows)]
    confirming = (Meaning.WHOLE, Meaning.CUT)
    return [
        line
        for line in lines
        if could_be_meant(printed(line.depositor_name or "", field_width=field_width), name.name) in confirming
    ]


def is_quiet(
    tx: Connection, *, amount: int, name: AnnouncedName, since: str, until: str, telegram_id: str = ""
) -> bool:
    """Whether there is surely neither a notification nor a deposit of the amount between the two instants that could be
    confused with this name or with one that was learned of the user."""
    days = _days(since, until)
    within = {
        "amount": amount,
        "since": since,
        "until": until,
        "first": name.name[:1],
        "print": name.print,
        "telegram_id": telegram_id,
    }
    if _all(tx, _EMPTY_AROUND, days, within)[0][0]:
        return True
    others = [AnnouncedName(learned, learned) for learned in learned_names.of_user(tx, telegram_id)]
    return all(_is_quiet(tx, one, days, within) for one in (name, *others))


def _is_quiet(tx: Connection, name: AnnouncedName, days: str, within: Mapping[str, object]) -> bool:
    parameters, beginnings = {**within, **_of_name(name)}, len(name.beginnings())
    if not _all(tx, _QUIET, days, parameters, beginnings=beginnings)[0][0]:
        return False
    return not any(_all(tx, statement, days, parameters, beginnings=beginnings) for statement in _LEARNED_AROUND)


def _of_name(name: AnnouncedName) -> dict[str, str]:
    beginnings = {f"b{place}": beginning for place, beginning in enumerate(name.beginnings())}
    return {"name": name.name, "print": name.print, **beginnings}


def _all(tx: Connection, sql: str, days: str, parameters: Mapping[str, object], *, beginnings: int = 0) -> list[Any]:
    return tx.execute(_filled_in(sql, days, beginnings), parameters).fetchall()


@lru_cache(maxsize=1024)
def _filled_in(sql: str, days: str, beginnings: int) -> str:
    """The statement with the days of its window, and with a parameter for each of that many beginnings of a name.

    A name of one letter has none: of an empty list SQLite would use no index, and refuse one that is named.
    """
    return sql.format(days=days, beginnings=", ".join(f":b{place}" for place in range(beginnings)) or "NULL")


@lru_cache(maxsize=16)
def _days(since: str, until: str) -> str:
    """The days of a window as SQL: the index on deposits is by day first, and reads those of the window alone."""
    first, last = (date.fromisoformat(moment[:10]).toordinal() for moment in (since, until))
    return ", ".join(f"'{date.fromordinal(day)}'" for day in range(first, last + 1))


def _candidate(row: tuple[int, str, str | None, int, str, str | None], alike: Likeness) -> Candidate:
    deposit_id, telegram_id, depositor_name, amount, status, created_at = row
    return Candidate(
        deposit_id=deposit_id,
        telegram_id=telegram_id,
        depositor_name=depositor_name or "",
        amount=amount,
        status=status,
        created_at=created_at and spoken(created_at),
        likeness=alike,
    )


def _shown(tx: Connection, row: tuple[object, ...]) -> BankNotification:
    """The notification as the API shows it, but for its candidates."""
    notification = _notification(row)
    return msgspec.structs.replace(notification, balance_gap=bank_lines.has_gap(tx, notification))


def _notification(row: tuple[object, ...]) -> BankNotification:
    *said, account, balance, to_reverse = row
    names = BankNotification.__struct_fields__
    # The bot may have kept any text as a balance.
    balance = balance if isinstance(balance, int) else None
    values = dict(zip(names, (*said, [], 0, True, account, balance, False, None), strict=True))
    values["to_do"] = None if to_reverse is None else reverse_deposit(int(str(to_reverse)))
    for name in ("bank_transaction_id", "depositor_name", "bank_name", "raw_message"):
        values[name] = None if values[name] is None else str(values[name])
    for moment in ("occurred_at", "matched_at", "created_at"):
        values[moment] = None if values[moment] is None else spoken(str(values[moment]))
    return msgspec.convert(values, BankNotification)
