"""Tables user_erasures and audit_erasures: the personal data of one user goes, and the ledger still adds up.

What is personal in the audit log is what service/ledger/audit_chain.py says; a row that is erased keeps its leaf, and
its commitment stands for the salt. Elsewhere names and free texts go, and the user is called "erased-<id>", which can
be no telegram id. Amounts, times, statuses, references, domain names and the bank's ids of transfers stay.
"""

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from service.ledger.audit_chain import commitment, public_details
from service.storage.progress import Progress
from service.storage.sqlite import Connection

_IDS_AT_ONCE = 20_000
_ANSWERS_AT_ONCE = 5_000
_KEPT_DESCRIPTIONS = "('domain_purchase', 'domain_refund', 'opening_credit', 'opening_debit')"
"""Types of transactions whose description is no free text: a domain's name, or the takeover's sentence."""
_PATH = re.compile(
    r"POST /v1/(deposits|transactions|bank-notifications|bank-messages|domain-purchases)/(\d{1,15})/", re.ASCII
)


class EraseFailed(Exception):
    """The erasure stopped; what is erased until then stays so, and it can be started again. The text says why."""


class Standing(Struct, frozen=True, kw_only=True):
    """A user, and what is still open. balance: won; pending: deposits; held: domain names that are not settled."""

    user_id: int
    balance: int
    pending: int
    held: int


class Erased(Struct, frozen=True, kw_only=True):
    """How many rows of what lost personal data."""

    audit_logs: int
    transactions: int
    bank_notifications: int
    bank_messages: int
    stored_answers: int
    imported_rows: int


def find_standing(tx: Connection, telegram_id: str) -> Standing | None:
    """The user as it stands, or None."""
    row = tx.execute(
        "SELECT u.id, d.balance, (SELECT COUNT(*) FROM deposit_transactions WHERE user_id = u.id"
        " AND type = 'deposit' AND status = 'pending'), (SELECT COUNT(*) FROM user_domains WHERE user_id = u.id"
        " AND status = 'pending' AND ascii_name IS NOT NULL)"
        " FROM users AS u JOIN user_deposits AS d ON d.user_id = u.id WHERE u.telegram_id = ?",
        (telegram_id,),
    ).fetchone()
    return Standing(**dict(zip(Standing.__struct_fields__, row, strict=True))) if row else None


def begin(tx: Connection, *, user_id: int, actor: str, now: str) -> None:
    """Puts the erasure on record, unless it was begun before: nothing can be erased without."""
    if tx.execute("SELECT 1 FROM user_erasures WHERE user_id = ?", (user_id,)).fetchone() is None:
        tx.execute("INSERT INTO user_erasures (user_id, begun_at, actor) VALUES (?, ?, ?)", (user_id, now, actor))


def find_beginning(tx: Connection, user_id: int) -> tuple[str, str]:
    """When the user's erasure was begun, and by whom."""
    begun_at, actor = tx.execute("SELECT begun_at, actor FROM user_erasures WHERE user_id = ?", (user_id,)).fetchone()
    return begun_at, actor


def find_audit_logs(
    tx: Connection, *, user_id: int, telegram_id: str, after: int, progress: Progress
) -> tuple[list[int], int]:
    """The ids of audit rows about the user that hold personal values, in order, and the highest id there is.

    They are about the user by telegram_id. Without one, they are about a transaction, a purchase or a bank notification
    of the user. Of the rows above `after`, all of which are read, also by user_id.
    """
    found = {row[0] for row in tx.execute(_AUDIT_LOGS, {"user": user_id, "telegram": telegram_id}).fetchall()}
    last: int = tx.execute("SELECT COALESCE(MAX(id), 0) FROM audit_logs").fetchone()[0]
    for low in range(after + 1, last + 1, _IDS_AT_ONCE):
        progress("looking through the audit log", low, last)
        found |= {row[0] for row in tx.execute(_BY_USER, (low, low + _IDS_AT_ONCE, user_id)).fetchall()}
    return sorted(found), last


_OF_THE_USER = (
    "(matched_transaction_id IN (SELECT id FROM deposit_transactions WHERE user_id = {user})"
    " OR matched_transaction_id IS NULL AND id IN (SELECT e.bank_notification_id FROM deposit_transactions AS t"
    " JOIN bank_notification_events AS e ON e.deposit_id = t.id WHERE t.user_id = {user}))"
)
"""SQL of the bank notifications whose money is a user's: matched with a deposit, or freed from one and open since."""
_PERSONAL = (
    "EXISTS (SELECT 1 FROM audit_leaves AS l WHERE l.audit_log_id = a.id AND l.salt IS NOT NULL"
    " AND (a.telegram_id IS NOT NULL OR l.public_details IS NOT NULL))"
)
_LINE_OF_THE_USER = (
    "m.bank_notification_id IN (SELECT b.id FROM deposit_transactions AS t"
    " JOIN bank_notifications AS b ON b.matched_transaction_id = t.id WHERE t.user_id = {user}"
    " UNION SELECT e.bank_notification_id FROM bank_notification_events AS e"
    " JOIN deposit_transactions AS t ON t.id = e.deposit_id WHERE t.user_id = {user})"
)
"""A message is about the user by its notification, also where the deposit of that was reversed since."""
_AUDIT_LOGS = f"""
WITH mine(kind, id) AS (
  SELECT 'user', :user
  UNION ALL SELECT 'user_deposits', id FROM user_deposits WHERE user_id = :user
  UNION ALL SELECT 'user_domains', id FROM user_domains WHERE user_id = :user
  UNION ALL SELECT 'deposit_transaction', id FROM deposit_transactions WHERE user_id = :user
  UNION ALL SELECT 'bank_notification', id FROM bank_notifications WHERE {_OF_THE_USER.format(user=":user")}
  UNION ALL SELECT 'bank_message', m.id FROM bank_messages AS m WHERE {_LINE_OF_THE_USER.format(user=":user")})
SELECT a.id FROM mine CROSS JOIN audit_logs AS a ON a.resource_type = mine.kind AND a.resource_id = mine.id
WHERE (a.telegram_id IS NULL OR a.telegram_id = :telegram) AND {_PERSONAL}
UNION SELECT a.id FROM audit_logs AS a WHERE a.telegram_id = :telegram AND {_PERSONAL}"""
_BY_USER = f"SELECT a.id FROM audit_logs AS a WHERE a.id >= ? AND a.id < ? AND a.user_id = ? AND {_PERSONAL}"


def erase_audit_logs(tx: Connection, audit_log_ids: list[int], *, user_id: int) -> int:
    """Takes the personal values out of these rows, keeping the commitment of each; how many that were.

    Raises EraseFailed for a row of which other bytes would be left than were sealed with it.
    """
    erased = 0
    for audit_log_id in audit_log_ids:
        row = tx.execute(
            "SELECT a.telegram_id, a.details, a.resource_type, a.actor, l.salt, l.public_details, l.rule"
            " FROM audit_logs AS a JOIN audit_leaves AS l ON l.audit_log_id = a.id"
            " WHERE a.id = ? AND l.salt IS NOT NULL",
            (audit_log_id,),
        ).fetchone()
        if row is None:  # archived or erased since
            continue
        telegram_id, details, resource_type, actor, salt, public, rule = row
        left = public_details(details, rule=rule, resource_type=resource_type, actor=actor)
        if public != (None if left is None else sha256(left.encode()).digest()):
            raise EraseFailed(f"What would be left of audit row {audit_log_id} is not what was sealed with it.")
        tx.execute(
            "INSERT INTO audit_erasures (audit_log_id, commitment, user_id) VALUES (?, ?, ?)",
            (audit_log_id, commitment(salt, telegram_id, details), user_id),
        )
        tx.execute(
            "UPDATE audit_logs SET telegram_id = NULL, details = ? WHERE id = ?",
            (details if left is None else left, audit_log_id),
        )
        tx.execute("UPDATE audit_leaves SET salt = NULL WHERE audit_log_id = ?", (audit_log_id,))
        erased += 1
    return erased


def find_answers(tx: Connection, *, user_id: int, telegram_id: str, after: int, progress: Progress) -> list[int]:
    """The stored answers with ids above `after` whose request or body tells of the user.

    To be asked once the user's audit rows are erased: by these too an answer is known.
    """
    mine = _ids_of(tx, user_id)
    last = last_answer(tx)
    found = []
    quoted = f'"{telegram_id}"'
    for low in range(after + 1, last + 1, _ANSWERS_AT_ONCE):
        progress("looking through stored answers", low, last)
        rows = tx.execute(_ANSWERS, (quoted, quoted.encode(), user_id, low, low + _ANSWERS_AT_ONCE)).fetchall()
        found += [row[0] for row in rows if _tells_of(*row[1:], telegram_id=telegram_id, mine=mine)]
    return found


_ANSWERS = """
SELECT id, operation, request, body,
  instr(request, ?) > 0 OR instr(body, ?) > 0,
  EXISTS (SELECT 1 FROM audit_erasures WHERE audit_log_id = i.audit_log_id AND user_id = ?)
FROM idempotency_answers AS i WHERE id >= ? AND id < ? AND request <> ''"""
_KINDS = {
    "deposits": "deposit_transactions",
    "transactions": "deposit_transactions",
    "bank-notifications": "bank_notifications",
    "bank-messages": "bank_messages",
    "domain-purchases": "user_domains",
}


def _ids_of(tx: Connection, user_id: int) -> dict[str, set[int]]:
    """Table -> the ids of the user's rows."""
    return {
        table: {row[0] for row in tx.execute(sql, (user_id,)).fetchall()}
        for table, sql in (
            ("users", "SELECT id FROM users WHERE id = ?"),
            ("user_deposits", "SELECT id FROM user_deposits WHERE user_id = ?"),
            ("user_domains", "SELECT id FROM user_domains WHERE user_id = ?"),
            ("deposit_transactions", "SELECT id FROM deposit_transactions WHERE user_id = ?"),
            ("bank_notifications", f"SELECT id FROM bank_notifications WHERE {_OF_THE_USER.format(user='?1')}"),
            (
                "bank_messages",
                f"SELECT m.id FROM bank_messages AS m WHERE {_LINE_OF_THE_USER.format(user='?1')}",
            ),
            ("audit_logs", "SELECT audit_log_id FROM audit_erasures WHERE user_id = ?"),
        )
    }


def _tells_of(
    operation: str,
    request: str,
    body: bytes,
    named: int,
    audited: int,
    *,
    telegram_id: str,
    mine: dict[str, set[int]],
) -> bool:
    if audited:
        return True
    about = _PATH.match(operation)
    if about and int(about[2]) in mine[_KINDS[about[1]]]:
        return True
    if named and any(telegram_id in _telegram_ids(text) for text in (request, body)):
        return True
    # Of what a watcher posts, a line or a message is told; a message alone has a kind.
    told = _decoded(body) if operation == "POST /v1/bank-notifications" else None
    return (
        isinstance(told, dict) and told.get("id") in mine["bank_messages" if "kind" in told else "bank_notifications"]
    )


def _telegram_ids(text: str | bytes) -> Iterator[str]:
    """Every member telegram_id in a JSON document."""
    waiting = [_decoded(text)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield str(value.get("telegram_id"))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _decoded(text: str | bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def last_answer(tx: Connection) -> int:
    """The highest id of a stored answer; 0 when there is none."""
    return int(tx.execute("SELECT COALESCE(MAX(id), 0) FROM idempotency_answers").fetchone()[0])


def finish(tx: Connection, answers: set[int], *, user_id: int, telegram_id: str, pseudonym: str, now: str) -> Erased:
    """Erases all that is not in the audit log, and then the user's own name; the erasure is done with that.

    Raises EraseFailed when an audit row still names the user.
    """
    left = tx.execute("SELECT MIN(id) FROM audit_logs WHERE telegram_id = ?", (telegram_id,)).fetchone()[0]
    if left is not None:
        raise EraseFailed(f"Audit row {left} was never sealed and cannot be erased; see `passbook integrity`.")
    mine = _ids_of(tx, user_id)
    transactions = tx.execute(
        "UPDATE deposit_transactions SET depositor_name = NULL, match_name = iif(match_name IS NULL, NULL, ''),"
        f" description = iif(type IN {_KEPT_DESCRIPTIONS}, description, NULL) WHERE user_id = ?"
        " AND (depositor_name IS NOT NULL OR match_name <> ''"
        f" OR description IS NOT NULL AND type NOT IN {_KEPT_DESCRIPTIONS})",
        (user_id,),
    ).rowcount
    notifications = tx.execute(
        "UPDATE bank_notifications SET depositor_name = NULL, raw_message = NULL,"
        f" match_name = iif(match_name IS NULL, NULL, '') WHERE {_OF_THE_USER.format(user='?1')}"
        " AND (depositor_name IS NOT NULL OR raw_message IS NOT NULL OR match_name <> '')",
        (user_id,),
    ).rowcount
    tx.execute(
        "UPDATE bank_notification_events SET depositor_name = NULL, raw_message = NULL, note = NULL"
        " WHERE (depositor_name IS NOT NULL OR raw_message IS NOT NULL OR note IS NOT NULL)"
        f" AND bank_notification_id IN (SELECT id FROM bank_notifications WHERE {_OF_THE_USER.format(user='?1')})",
        (user_id,),
    )
    messages = tx.execute(
        "UPDATE bank_messages AS m SET raw_message = NULL, depositor_name = NULL, note = NULL"
        f" WHERE {_LINE_OF_THE_USER.format(user='?1')}"
        " AND (raw_message IS NOT NULL OR depositor_name IS NOT NULL OR note IS NOT NULL)",
        (user_id,),
    ).rowcount
    tx.execute("DELETE FROM learned_names WHERE user_id = ?", (user_id,))
    imported = 0
    for table, ids in mine.items():
        for row_id in ids:
            imported += tx.execute(
                "UPDATE import_archive SET column_values = '{}'"
                " WHERE source_table = ? AND row_id = ? AND column_values <> '{}'",
                (table, row_id),
            ).rowcount
    tx.executemany(
        "UPDATE idempotency_answers SET request = '', body = x'', location = NULL WHERE id = ?",
        [(answer,) for answer in sorted(answers)],
    )
    tx.execute("UPDATE users SET username = NULL, telegram_id = ? WHERE id = ?", (pseudonym, user_id))
    tx.execute("UPDATE user_erasures SET finished_at = ? WHERE user_id = ?", (now, user_id))
    return Erased(
        audit_logs=len(mine["audit_logs"]),
        transactions=transactions,
        bank_notifications=notifications,
        bank_messages=messages,
        stored_answers=len(answers),
        imported_rows=imported,
    )


def list_archives(tx: Connection) -> list[str]:
    """The archives of pruned audit rows, which may hold what is erased here."""
    return [row[0] for row in tx.execute("SELECT archive FROM audit_prunes ORDER BY through_id").fetchall()]
