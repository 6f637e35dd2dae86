"""Statements that compare the tables with what the audit log told of them, each with its judge.

A statement names its range by :low and :high and selects telegram_id, transaction_id, table, row id, and then the
arguments of its judge, which says which check failed and how (storage/integrity.py). Most select the failures alone;
where SQL cannot compare (a hash, a name as matching compares it), they select what is to be compared.

What the log does not tell cannot be compared: rows of the bot, rows that are archived, and members that rows of an
earlier version do not have. In an erased row the personal members are null, and so are the columns. While an erasure is
under way, they are not compared.
"""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Any

import msgspec

from service.ledger.audit_logs import ANSWER_DIGEST, LEDGER_RESOURCE_TYPES
from service.ledger.audit_retention import MONEY_ACTIONS
from service.ledger.depositor_names import (
    FOLDING_RULE,
    OTHER_THAN_PLAIN,
    PrintedName,
    could_be_meant,
    match_name,
)
from service.ledger.domain_purchases import parse_name
from service.ledger.idempotency import digest
from service.ledger.timestamps import bound, spoken
from service.storage import audit_logs, audit_prunes, audit_told
from service.storage.sqlite import Connection

Failures = Iterable[tuple[str, str]]
"""(name of the check, what is wrong), in the words of a report."""
Agreement = tuple[str, Callable[..., Failures]]
"""A statement and its judge."""


def _match_name(check: str, name: Any, matched: Any) -> Failures:
    """An erased name is matched by none: the empty one."""
    if (matched == "") if name is None else (isinstance(name, str) and match_name(name) == matched):
        return []
    return [(check, "It is matched by another name than it has.")]


def _meant_name(printed: Any, announced: Any, learned: str) -> Failures:
    """Whether the name was cut by the bank's field, only the policy of then could say. learned: a JSON array of
    the names that other lines taught. No line is matched by the name that it taught."""
    names = [announced, *msgspec.json.decode(learned)]
    for rule in range(1, FOLDING_RULE + 1):  # it may have been matched before names were folded as they are now
        line = PrintedName(match_name(str(printed), rule=rule), fills_field=True)
        if any(could_be_meant(line, match_name(str(name), rule=rule)) is not None for name in names):
            return []
    return [("bank_notifications", "It was matched by itself with a deposit whose name it cannot mean.")]


def _ascii_name(domain: Any, ascii_name: Any) -> Failures:
    try:
        if parse_name(domain).ascii == ascii_name:
            return []
    except (TypeError, ValueError):
        pass
    return [("audit_of_domain_purchases", f"{ascii_name} is not the name of {domain} in the DNS.")]


def _bank_row(
    misarrived: int, mismatched: int, stands_at: Any, message: Any, told_at: Any, told_digest: Any, no_message: Any
) -> Iterator[tuple[str, str]]:
    check = "audit_of_bank_notifications"
    if misarrived:
        yield check, "Its audit row tells another name, bank, time or status."
    if mismatched:
        yield check, "Its audit row tells that it was matched with another deposit, at another time or by others."
    if told_at is not None and _stored(told_at) != stands_at:
        yield check, f"Its audit row tells that the money came at {told_at}."
    stands = None if message is None else sha256(str(message).encode()).hexdigest()
    if no_message or (told_digest is not None and stands != told_digest):
        yield check, "Its message is not the one that its audit row tells of."


def _added_row(agrees: int, stands_at: Any, message: Any, told_at: Any, told_digest: Any) -> Failures:
    digest = None if message is None else sha256(str(message).encode()).hexdigest()
    if agrees and _stored(told_at) == stands_at and digest == told_digest:
        return []
    return [("audit_of_bank_notifications", "Its audit row tells that something else was added.")]


def _stored(text: Any) -> str | None:
    try:
        return bound(text) if isinstance(text, str) else None
    except ValueError:
        return None


def api_keys(connection: Connection) -> Iterator[tuple[int, str]]:
    """(id, what is wrong) of each API key that is not as the audit log told last. There are few of them."""
    told = audit_told.keys(connection)
    rows = connection.execute("SELECT id, prefix, name, key_hash, scopes, created_at, revoked_at FROM api_keys")
    for key_id, *stands in rows.fetchall():
        for said in _key(*stands, told=told.get(key_id, {})):
            yield key_id, said


def _key(
    prefix: str,
    name: str,
    key_hash: bytes,
    scopes: str,
    created_at: str,
    revoked_at: str | None,
    *,
    told: dict[str, Any],
) -> Iterator[str]:
    if told.get("name", name) != name:
        yield f"Its name is {name}; its audit row tells {told['name']}."
    if told.get("prefix", prefix) != prefix:
        yield f"Its prefix is {prefix}; its audit row tells {told['prefix']}."
    granted = told.get("scopes")
    if isinstance(granted, list) and " ".join(map(str, granted)) != scopes:
        yield f"It may {scopes or 'nothing'}; its audit rows tell {' '.join(map(str, granted))}."
    if told.get("key_sha256") not in (None, sha256(key_hash).hexdigest()):
        yield "Its hash is not the one that its audit row tells of: another secret opens it."
    if told.get("created_at", created_at) != created_at:
        yield f"It was made at {created_at}; its audit row is of {told['created_at']}."
    if revoked_at is not None and told.get("revoked_at", revoked_at) != revoked_at:
        yield f"It was revoked at {revoked_at}; its audit row is of {told['revoked_at']}."


def _check_of_step(step: str) -> str:
    for beginning, check in (
        ("deposit_", "audit_of_deposits"),
        ("domain_", "audit_of_domain_purchases"),
        ("bank_notification_", "audit_of_bank_notifications"),
        ("user_", "audit_of_users"),
        ("api_key_", "audit_of_api_keys"),
    ):
        if step.startswith(beginning):
            return check
    return "audit_of_movements"


def _answer(
    idempotency_key: str, operation: str, request: str, status: int, location: str | None, body: bytes, told: str
) -> Failures:
    stands = digest(
        idempotency_key=idempotency_key,
        operation=operation,
        request=request,
        status=status,
        location=location,
        body=body,
    )
    if stands == told or not request:  # or it was erased
        return []
    return [("stored_answers", "It or its request is not what its audit row tells the digest of.")]


def _event(*values: Any) -> Failures:
    """The answer to a caller's event is its row as the API shows it; its request asked for that."""
    location, request, body, *row = values
    told = [("stored_answers", "It or its request tells of another event than its audit row.")]
    try:
        shown = audit_logs.audit_log(tuple(row))
        asked, answered = msgspec.json.decode(request), msgspec.json.decode(body)
        same = {name: asked.get(name) for name in ("action", "telegram_id", "resource_type", "resource_id", "details")}
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError):  # a hand may have put anything there
        return told
    row_again = msgspec.json.decode(msgspec.json.encode(shown))
    same_row = answered == row_again and location == f"/v1/audit-logs/{shown.id}"
    if same_row and all(value == row_again[name] for name, value in same.items()):
        return []
    return told


_IS_FORGETTING = (
    "EXISTS (SELECT 1 FROM audit_erasures AS e CROSS JOIN user_erasures AS f ON f.user_id = e.user_id"
    " WHERE e.audit_log_id = a.id AND f.finished_at IS NULL)"
)
LEDGERS = str(tuple(sorted(LEDGER_RESOURCE_TYPES)))
_USER = "(SELECT telegram_id FROM users WHERE id = {})"


def _tells(member: str, column: str, *, personal: bool = False) -> str:
    """SQL of whether the audit row `a`, whose details are JSON, tells of `column` what it holds, or nothing at all."""
    said = f"json_extract(a.details, '$.{member}') IS {column} OR json_type(a.details, '$.{member}') IS NULL"
    return f"({said} OR {_IS_FORGETTING})" if personal else f"({said})"


def _tells_always(member: str, column: str) -> str:
    """The same of a row that tells nothing only where nothing is held, or once a person was erased from it."""
    erased = "EXISTS (SELECT 1 FROM audit_erasures AS e WHERE e.audit_log_id = a.id)"
    return f"(json_extract(a.details, '$.{member}') IS {column} OR {erased})"


def _all(*conditions: str) -> str:
    return " AND ".join(conditions)


_PLAIN = _all("t.created_at IS a.created_at", "t.depositor_name IS NULL", "t.match_name IS NULL")
_MOVEMENT = f"""CASE WHEN t.confirmed_at IS NOT a.created_at THEN 0 WHEN json_valid(a.details) THEN CASE a.action
  WHEN 'deposit_confirmed' THEN
    {
    _all(
        "t.direction = 'credit'",
        "t.description IS NULL",
        "t.reference IS NULL",
        "t.reverses_id IS NULL",
        _tells("depositor_name", "t.depositor_name", personal=True),
    )
}
  WHEN 'transaction_reversed' THEN
    {
    _all(
        "t.type = 'reversal'",
        "t.reference IS NULL",
        _PLAIN,
        _tells("reverses_id", "t.reverses_id"),
        _tells("direction", "t.direction"),
        _tells("note", "t.description", personal=True),
    )
}
  ELSE
    {
    _all(
        "t.direction = iif(a.action = 'balance_credited', 'credit', 'debit')",
        "t.type IN ('debit', 'balance_change')",
        "t.reverses_id IS NULL",
        _PLAIN,
        _tells("reference", "t.reference"),
        _tells("reason", "t.description", personal=True),
    )
}
END END"""
MISTOLD = f"a.action IN {MONEY_ACTIONS} AND ({_MOVEMENT}) IS NOT 1"
"""SQL of whether the audit row `a` of the movement `t` tells another type, reference, reason, name or time."""
MISANNOUNCED = f"""a.action = 'deposit_announced' AND (t.created_at IS a.created_at AND t.reverses_id IS NULL
  AND t.reference IS NULL AND t.description IS NULL
  AND CASE WHEN json_valid(a.details)
    THEN {_tells("depositor_name", "t.depositor_name", personal=True)} END) IS NOT 1"""
"""The same of the announcement of a deposit."""
TRANSACTIONS: tuple[Agreement, ...] = (
    # What is not confirmed has moved nothing, and says so.
    (
        f"""
        SELECT {_USER.format("t.user_id")}, t.id, 'deposit_transactions', t.id
        FROM deposit_transactions AS t
        WHERE t.id BETWEEN :low AND :high AND t.match_name IS NOT NULL AND +t.status <> 'confirmed'
          AND (t.confirmed_at IS NOT NULL OR t.balance_before IS NOT NULL OR t.balance_after IS NOT NULL)
        """,
        lambda: [("audit_of_deposits", "It is not confirmed, and has a time or a balance of its confirmation.")],
    ),
    # Confirming it would move the money the other way.
    (
        f"""
        SELECT {_USER.format("t.user_id")}, t.id, 'deposit_transactions', t.id
        FROM deposit_transactions AS t
        WHERE t.id BETWEEN :low AND :high AND t.match_name IS NOT NULL AND t.direction IS NOT 'credit'
        """,
        lambda: [("audit_of_deposits", "It is a deposit, and no credit.")],
    ),
    # lower() is of ASCII; all but plain names are for the judge.
    (
        f"""
        SELECT {_USER.format("t.user_id")}, t.id, 'deposit_transactions', t.id, t.depositor_name, t.match_name
        FROM deposit_transactions AS t
        WHERE t.id BETWEEN :low AND :high AND t.match_name IS NOT NULL
          AND (t.match_name IS NOT lower(replace(t.depositor_name, ' ', ''))
            OR t.depositor_name GLOB '{OTHER_THAN_PLAIN}')
        """,
        lambda name, matched: _match_name("audit_of_deposits", name, matched),
    ),
    (
        f"""
        SELECT {_USER.format("t.user_id")}, t.id, 'deposit_transactions', t.id, r.transaction_id IS NULL
        FROM deposit_transactions AS t LEFT JOIN balance_change_references AS r ON r.transaction_id = t.id
        WHERE t.id BETWEEN :low AND :high AND +t.type = 'balance_change' AND t.version IS NOT NULL
          AND r.reference IS NOT t.reference
        """,
        lambda gone: [
            ("references", "Its reference is not kept." if gone else "Another reference is kept for it than it has.")
        ],
    ),
)

_FOR_DOMAIN = (
    "deposit_transactions AS t ON t.id = iif(json_valid(a.details), json_extract(a.details, '$.transaction_id'), NULL)"
)
AUDIT_LOGS: tuple[Agreement, ...] = (
    (
        f"""
        SELECT a.telegram_id, t.id, 'deposit_transactions', t.id
        FROM audit_logs AS a CROSS JOIN {_FOR_DOMAIN}
        WHERE a.id BETWEEN :low AND :high AND a.actor IS NOT NULL AND +a.resource_type = 'user_domains'
          AND +a.action IN ('domain_registered', 'domain_held', 'domain_released', 'domain_expired')
          AND ({
            _all("t.confirmed_at IS a.created_at", "t.reference IS NULL", _PLAIN, _tells("domain", "t.description"))
        }) IS NOT 1
        """,
        lambda: [("audit_of_movements", "Its audit row tells another domain name or time, or it has a reference.")],
    ),
)

REFERENCES: tuple[Agreement, ...] = (
    (
        f"""
        SELECT {_USER.format("t.user_id")}, t.id, 'balance_change_references', c.rowid,
          t.type <> 'balance_change' OR t.reference IS NOT c.reference
        FROM balance_change_references AS c CROSS JOIN deposit_transactions AS t ON t.id = c.transaction_id
        WHERE c.rowid BETWEEN :low AND :high AND (t.type <> 'balance_change' OR t.reference IS NOT c.reference
          OR EXISTS (SELECT 1 FROM audit_logs AS a WHERE a.resource_type = 'deposit_transaction'
                     AND a.resource_id = t.id AND a.action IN ('balance_credited', 'balance_debited')
                     AND a.actor IS NOT c.actor))
        """,
        lambda differs: [
            ("references", "Its transaction has another one." if differs else "Somebody else posted its transaction.")
        ],
    ),
)

_STEPS = "('domain_registered', 'domain_held', 'domain_released', 'domain_expired')"
USER_DOMAINS: tuple[Agreement, ...] = (
    (
        f"""
        SELECT {_USER.format("p.user_id")}, p.transaction_id, 'user_domains', p.id
        FROM user_domains AS p CROSS JOIN audit_logs AS a
          ON a.resource_type = 'user_domains' AND a.resource_id = p.id AND a.actor IS NOT NULL
          AND +a.action IN {_STEPS}
        WHERE p.id BETWEEN :low AND :high AND p.ascii_name IS NOT NULL AND (
          a.user_id IS NOT p.user_id
          OR a.action = 'domain_registered' AND p.registered_at IS NOT a.created_at
          OR json_valid(a.details) AND ({_tells("domain", "p.domain")} AND {_tells("price", "p.price")}) IS NOT 1
          OR json_valid(a.details) AND (a.action = 'domain_held' OR a.action = 'domain_registered'
              AND json_extract(a.details, '$.transaction_id') IS NOT NULL)
            AND (p.created_at IS a.created_at AND {_tells("transaction_id", "p.transaction_id")}) IS NOT 1)
        GROUP BY p.id
        """,
        lambda: [("audit_of_domain_purchases", "Its audit row tells another user, name, price, payment or time.")],
    ),
    (
        f"""
        SELECT {_USER.format("p.user_id")}, p.transaction_id, 'user_domains', p.id
        FROM user_domains AS p
        WHERE p.id BETWEEN :low AND :high AND p.ascii_name IS NOT NULL
          AND (p.expires_at IS NOT NULL OR (p.registered_at IS NOT NULL) <> (p.status = 'registered'))
        """,
        lambda: [("audit_of_domain_purchases", "It has a time that a purchase of its status does not have.")],
    ),
    (
        f"""
        SELECT {_USER.format("p.user_id")}, p.transaction_id, 'user_domains', p.id, p.domain, p.ascii_name
        FROM user_domains AS p
        WHERE p.id BETWEEN :low AND :high AND p.ascii_name IS NOT NULL AND p.ascii_name IS NOT lower(p.domain)
        """,
        _ascii_name,
    ),
)

USERS: tuple[Agreement, ...] = (
    (
        f"""
        SELECT u.telegram_id, NULL, 'users', u.id, a.action
        FROM users AS u CROSS JOIN audit_logs AS a
          ON a.resource_type = 'user' AND a.resource_id = u.id AND a.actor IS NOT NULL
          AND +a.action IN ('user_created', 'user_renamed')
        WHERE u.id BETWEEN :low AND :high AND (
          a.action = 'user_created' AND (u.created_at IS NOT a.created_at
            OR (SELECT created_at FROM user_deposits WHERE user_id = u.id) IS NOT a.created_at)
          OR NOT EXISTS (
              SELECT 1 FROM audit_logs AS b WHERE b.resource_type = 'user' AND b.resource_id = u.id AND b.id > a.id
                AND b.actor IS NOT NULL AND +b.action = 'user_renamed')
            AND json_valid(a.details)
            AND iif(a.action = 'user_created', {_tells("username", "u.username", personal=True)},
                    {_tells("username_after", "u.username", personal=True)}) IS NOT 1)
        GROUP BY u.id
        """,
        lambda _: [("audit_of_users", "Its audit row tells another user name or time.")],
    ),
    (
        """
        SELECT u.telegram_id, NULL, 'users', u.id
        FROM user_erasures AS e CROSS JOIN users AS u ON u.id = e.user_id
        WHERE e.user_id BETWEEN :low AND :high AND e.finished_at IS NOT NULL
          AND (u.telegram_id IS NOT 'erased-' || u.id OR u.username IS NOT NULL)
        """,
        lambda: [("audit_of_users", "The user was erased and has a name.")],
    ),
)

_WAS_FREED = (
    "EXISTS (SELECT 1 FROM bank_notification_events AS e WHERE e.bank_notification_id = b.id AND e.deposit_id = "
    "json_extract(a.details, '$.matched_deposit_id'))"
)
"""SQL of whether the deposit that the audit row `a` tells of was the one of the bank notification `b` once."""
_ARRIVAL = f"""(b.created_at IS a.created_at AND {_tells_always("bank_balance_after", "b.balance_after")}
  AND {_tells_always("account", "b.account")}
  AND (b.status = 'matched' OR {_tells("status", "b.status")} OR {_WAS_FREED})
  AND {_tells("depositor_name", "b.depositor_name", personal=True)}
  AND {_tells("bank_name", "b.bank_name", personal=True)})"""
_MATCH = f"""(b.matched_at IS a.created_at AND b.matched_by IS a.actor
  AND {_tells("matched_deposit_id", "b.matched_transaction_id")}
  AND (a.action = 'bank_notification_received' AND b.match_method = 'automatic'
    OR a.action = 'bank_notification_matched' AND {_tells("method", "b.match_method")}))"""
BANK_NOTIFICATIONS: tuple[Agreement, ...] = (
    (
        f"""
        SELECT NULL, b.matched_transaction_id, 'bank_notifications', b.id,
          a.action = 'bank_notification_received' AND {_ARRIVAL} IS NOT 1 AS misarrived,
          (a.action = 'bank_notification_matched' OR json_extract(a.details, '$.status') = 'matched')
            AND {_MATCH} IS NOT 1 AND NOT {_WAS_FREED} AS mismatched,
          b.transaction_time, b.raw_message, json_extract(a.details, '$.occurred_at') AS occurred_at,
          json_extract(a.details, '$.raw_message_sha256') AS message,
          json_type(a.details, '$.raw_message_sha256') = 'null' AND b.raw_message IS NOT NULL AND NOT {_IS_FORGETTING}
            AS no_message
        FROM bank_notifications AS b CROSS JOIN audit_logs AS a
          ON a.resource_type = 'bank_notification' AND a.resource_id = b.id AND a.actor IS NOT NULL
          AND +a.action IN ('bank_notification_received', 'bank_notification_matched')
        WHERE b.id BETWEEN :low AND :high AND json_valid(a.details) AND (
          misarrived OR mismatched OR message IS NOT NULL OR no_message
          OR occurred_at IS NOT NULL AND b.transaction_time IS NOT replace(rtrim(occurred_at, 'Z'), 'T', ' '))
        """,
        _bank_row,
    ),
    (
        f"""
        SELECT NULL, b.matched_transaction_id, 'bank_notifications', b.id, b.depositor_name, b.match_name
        FROM bank_notifications AS b
        WHERE b.id BETWEEN :low AND :high AND b.bank_transaction_id IS NOT NULL
          AND (b.match_name IS NOT lower(replace(b.depositor_name, ' ', ''))
            OR b.depositor_name GLOB '{OTHER_THAN_PLAIN}')
        """,
        lambda name, matched: _match_name("audit_of_bank_notifications", name, matched),
    ),
    (
        f"""
        SELECT {_USER.format("t.user_id")}, t.id, 'bank_notifications', b.id, b.depositor_name, t.depositor_name,
          (SELECT json_group_array(json_extract(a.details, '$.depositor_name')) FROM audit_logs AS a
             INDEXED BY idx_audit_logs_resource
           WHERE a.resource_type = 'user' AND a.resource_id = t.user_id AND a.action = 'user_name_learned'
             AND a.actor IS NOT NULL AND json_valid(a.details)
             AND json_extract(a.details, '$.bank_notification_id') IS NOT b.id)
        FROM bank_notifications AS b CROSS JOIN deposit_transactions AS t ON t.id = b.matched_transaction_id
        WHERE b.id BETWEEN :low AND :high AND b.match_method = 'automatic' AND t.match_name IS NOT b.match_name
          AND b.depositor_name IS NOT NULL AND t.depositor_name IS NOT NULL AND t.status = 'confirmed'
          AND {audit_prunes.sql_of_told("user_name_learned", "t.user_id")} = 0
        """,
        _meant_name,
    ),
    (
        f"""
        SELECT NULL, NULL, 'name_folding', 1
        WHERE :high = 9223372036854775807
          AND NOT EXISTS (SELECT 1 FROM name_folding WHERE id = 1 AND rule = {FOLDING_RULE})
        """,
        lambda: [("bank_notifications", "It tells another rule than the one that names are folded by.")],
    ),
)

_ADDED = " AND ".join(
    f"json_extract(a.details, '$.{member}') IS e.{column}"
    for member, column in (
        ("bank_name", "bank_name"),
        ("depositor_name", "depositor_name"),
        ("account", "account"),
        ("bank_balance_after", "balance_after"),
    )
)
TOLD_LATER: tuple[Agreement, ...] = (
    (
        f"""
        SELECT NULL, NULL, 'bank_notification_events', e.id, {_ADDED} AS agrees, e.transaction_time, e.raw_message,
          json_extract(a.details, '$.occurred_at'), json_extract(a.details, '$.raw_message_sha256')
        FROM bank_notification_events AS e CROSS JOIN audit_logs AS a
          ON a.resource_type = 'bank_notification' AND a.resource_id = e.bank_notification_id AND a.actor IS NOT NULL
          AND +a.action = 'bank_notification_told'
        WHERE e.bank_notification_id BETWEEN :low AND :high AND e.kind = 'told' AND json_valid(a.details)
          AND json_extract(a.details, '$.event_id') = e.id AND NOT {_IS_FORGETTING}
        """,
        _added_row,
    ),
)
"""What a bank notification was told later is what its audit rows tell, until the user is erased."""


def _message(raw_message: Any, raw_sha256: Any, occurred_at: Any, told_at: Any) -> Failures:
    if raw_message is not None and sha256(str(raw_message).encode()).digest() != raw_sha256:
        yield "bank_messages", "Its text is not the one that came."
    if told_at is not None and _stored(told_at) != _stored(spoken(str(occurred_at))):
        yield "bank_messages", f"Its audit row tells that it is of {told_at}."


BANK_MESSAGES: tuple[Agreement, ...] = (
    (
        """
        SELECT NULL, NULL, 'bank_messages', m.id, m.raw_message, m.raw_sha256, m.transaction_time,
          (SELECT iif(json_valid(details), json_extract(details, '$.occurred_at'), NULL) FROM audit_logs AS a
           WHERE a.resource_type = 'bank_message' AND a.resource_id = m.id AND a.action = 'bank_message_received'
             AND a.actor IS NOT NULL)
        FROM bank_messages AS m WHERE m.id BETWEEN :low AND :high
        """,
        _message,
    ),
)

LEARNED_NAMES: tuple[Agreement, ...] = (
    (
        f"""
        SELECT {_USER.format("l.user_id")}, NULL, 'learned_names', l.id, l.printed_name, l.match_name
        FROM learned_names AS l WHERE l.id BETWEEN :low AND :high
        """,
        lambda name, matched: _match_name("learned_names", name, matched),
    ),
)

# Answers and the rows of their requests are written in one order: the rows between the last row of one answer and that
# of the next are of the next one's request, or of nobody's who asked over HTTP.
_ANSWERS = """
SELECT i.id, i.audit_log_id AS last,
  (SELECT audit_log_id FROM idempotency_answers WHERE id < i.id AND audit_log_id IS NOT NULL ORDER BY id DESC LIMIT 1)
    AS before
FROM idempotency_answers AS i WHERE i.id BETWEEN :low AND :high AND i.audit_log_id IS NOT NULL"""
_PRUNED = "COALESCE((SELECT MAX(through_id) FROM audit_prunes), 0)"
_TOLD_DIGEST = f"json_extract(a.details, '$.{ANSWER_DIGEST}')"
ANSWERS: tuple[Agreement, ...] = (
    (
        f"""
        SELECT a.telegram_id, NULL, 'idempotency_answers', i.id, i.idempotency_key, i.operation, i.request, i.status,
          i.location, i.body, {_TOLD_DIGEST}
        FROM idempotency_answers AS i CROSS JOIN audit_logs AS a ON a.id = i.audit_log_id
        WHERE i.id BETWEEN :low AND :high AND json_valid(a.details) AND {_TOLD_DIGEST} IS NOT NULL
          AND a.resource_type IN {LEDGERS}
        """,
        _answer,
    ),
    (
        f"""
        SELECT a.telegram_id, NULL, 'idempotency_answers', i.id, i.location, i.request, i.body,
          {", ".join(f"a.{column}" for column in audit_logs.COLUMNS.split(", "))}
        FROM idempotency_answers AS i CROSS JOIN audit_logs AS a ON a.id = i.audit_log_id
        WHERE i.id BETWEEN :low AND :high AND i.operation = 'POST /v1/audit-logs' AND i.body <> x''
          AND NOT EXISTS (SELECT 1 FROM audit_erasures WHERE audit_log_id = a.id)
        """,
        _event,
    ),
    # A caller's row has no digest: what else posts one?
    (
        f"""
        SELECT a.telegram_id, NULL, 'idempotency_answers', i.id
        FROM idempotency_answers AS i CROSS JOIN audit_logs AS a ON a.id = i.audit_log_id
        WHERE i.id BETWEEN :low AND :high AND +a.resource_type NOT IN {LEDGERS}
          AND (i.operation <> 'POST /v1/audit-logs' OR i.status <> 201)
        """,
        lambda: [("stored_answers", "It or its request tells of another event than its audit row.")],
    ),
    # Who asked for what was so already gets an answer, and nothing is written; so were answers from before 012.
    (
        """
        SELECT NULL, NULL, 'idempotency_answers', i.id
        FROM idempotency_answers AS i
        WHERE i.id BETWEEN :low AND :high AND i.audit_log_id IS NULL
          AND (i.status <> 200 OR i.operation NOT IN ('POST /v1/users', 'POST /v1/bank-notifications'))
          AND ((SELECT audit_log_id FROM idempotency_answers WHERE id < :low ORDER BY id DESC LIMIT 1) IS NOT NULL
            OR i.id > (SELECT id FROM idempotency_answers WHERE id BETWEEN :low AND :high
                       AND audit_log_id IS NOT NULL ORDER BY id LIMIT 1))
        """,
        lambda: [("stored_answers", "It names no audit row.")],
    ),
    # A row of a request that tells a digest is the last one of it: its answer names it.
    (
        f"""
        SELECT a.telegram_id, NULL, 'audit_logs', a.id
        FROM ({_ANSWERS}) AS i CROSS JOIN audit_logs AS a ON a.id > COALESCE(i.before, 0) AND a.id < i.last
        WHERE +a.resource_type IN {LEDGERS} AND a.details GLOB '*"{ANSWER_DIGEST}":*' AND i.last > {_PRUNED}
        """,
        lambda: [("stored_answers", "A request wrote it, and its answer is not there.")],
    ),
    (
        f"""
        SELECT a.telegram_id, NULL, 'idempotency_answers', i.id, CASE
          WHEN a.id IS NULL AND i.audit_log_id > {_PRUNED} THEN 'Its audit row is not there.'
          WHEN a.actor IS NOT i.actor OR a.created_at IS NOT i.created_at
            THEN 'Its audit row is of another caller or time.'
          WHEN (a.outcome = 'failure') IS NOT (i.status >= 400) AND a.outcome IS NOT NULL
            AND a.action NOT GLOB 'balance_change_failed' AND a.resource_type IN ('deposit_transaction', 'user',
              'user_domains', 'bank_notification')
            THEN 'It answers ' || i.status || ', and its audit row tells otherwise.'
          WHEN (i.request = '') <> (i.body = x'') THEN 'A part of it was erased, and a part not.'
          WHEN i.body = x'' AND i.location IS NOT NULL THEN 'It is empty, and names a place.'
          WHEN i.body = x'' AND NOT EXISTS (SELECT 1 FROM user_erasures WHERE user_id > 0)
            THEN 'It is empty, and nobody was erased.'
        END AS said
        FROM idempotency_answers AS i LEFT JOIN audit_logs AS a ON a.id = i.audit_log_id
        WHERE i.id BETWEEN :low AND :high AND i.audit_log_id IS NOT NULL
          AND (a.id IS NOT NULL OR i.audit_log_id > {_PRUNED}) AND said IS NOT NULL
        """,
        lambda said: [("stored_answers", said)],
    ),
    (
        f"""
        WITH answers AS ({_ANSWERS})
        SELECT NULL, NULL, 'idempotency_answers', i.id, i.last
        FROM answers AS i WHERE i.before >= i.last
        """,
        lambda last: [("stored_answers", f"It was stored after one of a later request than audit row {last} is of.")],
    ),
    (
        f"""
        WITH answers AS ({_ANSWERS})
        SELECT a.telegram_id, NULL, 'audit_logs', a.id
        FROM answers AS i CROSS JOIN audit_logs AS a ON a.id > i.before AND a.id < i.last
        WHERE a.key_prefix IS NOT NULL
          AND a.request_id IS NOT (SELECT request_id FROM audit_logs WHERE id = i.last)
          AND i.last > {_PRUNED}
        """,
        lambda: [("stored_answers", "A request wrote it, and its answer is not there.")],
    ),
    (
        """
        SELECT a.telegram_id, NULL, 'audit_logs', a.id
        FROM audit_logs AS a
        WHERE :high = 9223372036854775807 AND a.key_prefix IS NOT NULL
          AND a.id > COALESCE((SELECT audit_log_id FROM idempotency_answers WHERE id > 0 AND audit_log_id IS NOT NULL
                               ORDER BY id DESC LIMIT 1), 0)
          AND (a.details GLOB '*"answer_sha256":*'
            OR EXISTS (SELECT 1 FROM idempotency_answers WHERE id > 0 AND audit_log_id IS NOT NULL))
        """,
        lambda: [("stored_answers", "A request wrote it, and its answer is not there.")],
    ),
)

# Bits of archived rows about what is not there any more.
_BITS = "WITH RECURSIVE bits(bit) AS (SELECT 0 UNION ALL SELECT bit + 1 FROM bits WHERE bit < 31)"
_TABLE_OF_STEP = """CASE
  WHEN s.step IN ('moved', 'opening_adjustment') OR s.step GLOB 'deposit_*' THEN
    EXISTS (SELECT 1 FROM deposit_transactions WHERE id = s.block * 32 + b.bit)
  WHEN s.step GLOB 'domain_*' THEN EXISTS (SELECT 1 FROM user_domains WHERE id = s.block * 32 + b.bit)
  WHEN s.step GLOB 'bank_notification_*' THEN
    EXISTS (SELECT 1 FROM bank_notifications WHERE id = s.block * 32 + b.bit)
  WHEN s.step GLOB 'user_*' THEN EXISTS (SELECT 1 FROM users WHERE id = s.block * 32 + b.bit)
  WHEN s.step GLOB 'api_key_*' THEN EXISTS (SELECT 1 FROM api_keys WHERE id = s.block * 32 + b.bit)
  ELSE 0 END"""
PRUNED_STEPS: tuple[Agreement, ...] = (
    (
        f"""
        {_BITS}
        SELECT NULL, NULL, 'audit_pruned_steps', s.rowid, s.step, s.block * 32 + b.bit
        FROM audit_pruned_steps AS s CROSS JOIN bits AS b ON s.bits >> b.bit & 1
        WHERE s.rowid BETWEEN :low AND :high AND {_TABLE_OF_STEP} = 0
        """,
        lambda step, number: [(_check_of_step(step), f"An archived row told {step} of {number}, which is not there.")],
    ),
)
