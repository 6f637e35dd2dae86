"""The proof that the ledger adds up, in SQL that only reads.

The tables are read in chunks of rows, each in a read transaction of its own. Whatever is compared within a chunk comes
from one snapshot, so writes beside it cause no false alarm. A long proof does not keep the write-ahead log from being
reused. A chunk of users includes all that they own. Each statement names its range by :low and :high and is answered
from indexes; its rows are the failures, so that a sound ledger costs no memory.

A statement selects telegram_id, transaction_id, table, row id, and then the arguments of its judge, which says which
check failed and how. `+column` keeps SQLite from choosing the index of that column.

Audit rows that were archived count as rows that told what they told: `_archived` says of which ids, exactly. What else
they told (an amount, a name) can no longer be compared here. An audit row that was erased tells no name.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from msgspec import Struct

from service.ledger import audit_retention
from service.ledger.integrity import (
    DESCRIPTIONS,
    EXAMPLES_MAX,
    IntegrityCheck,
    IntegrityExample,
    IntegrityReport,
    IntegrityStatus,
)
from service.ledger.timestamps import Clock, spoken, stored
from service.storage import (
    audit_chain,
    audit_prunes,
    import_digests,
    integrity_agreement,
    kept_digests,
    migrator,
    schema,
    sequences,
    sqlite,
)
from service.storage.audit_verification import ChainCheck
from service.storage.audit_workers import Workers, WorkersFailed
from service.storage.sqlite import Connection
from service.storage.transactions import sql_of_last_of_chain

_ID_MIN, _ID_MAX = -(2**63), 2**63 - 1
_CHUNK_MIN, _CHUNK_FIRST, _CHUNK_MAX = 16, 1024, 1 << 17
_CHUNK_S = 0.05
_AMOUNT_MAX = 2**53
_THOROUGH = {"audit_chain", "file"}

Failures = Iterable[tuple[str, str]]
"""(name of the check, what is wrong), in the words of a report."""


class _Statement(Struct, frozen=True):
    """`once`: a row that failed the same check by an earlier statement is not told of again."""

    sql: str
    judge: Callable[..., Failures]
    once: bool = False


class _Pass(Struct, frozen=True):
    """One table, gone through by `key`. `counts` selects how many rows each check has in a chunk, by its name."""

    table: str
    key: str
    counts: str
    statements: tuple[_Statement, ...]


def _agree(agreements: tuple[integrity_agreement.Agreement, ...]) -> tuple[_Statement, ...]:
    return tuple(_Statement(*each, once=True) for each in agreements)


def _says(check: str) -> Callable[..., Failures]:
    """A judge for a statement that says by itself what is wrong."""
    return lambda said: [(check, said)]


_MOVED = "iif(t.direction = 'credit', t.amount, -t.amount)"
_DOMAIN_TYPES = "('domain_purchase', 'domain_refund')"
_MONEY_ACTIONS = str(audit_retention.MONEY_ACTIONS)
_DEPOSIT_ACTIONS = str(audit_retention.DEPOSIT_ACTIONS)
_DOMAIN_ACTIONS = str(audit_retention.DOMAIN_ACTIONS)
_BANK_EVENT_ACTIONS = str(audit_retention.BANK_EVENT_ACTIONS)
_BANK_ACTIONS = str((audit_retention.RECEIVED, audit_retention.MATCHED, *audit_retention.BANK_EVENT_ACTIONS))
_MESSAGE_ACTIONS = str((audit_retention.MESSAGE_RECEIVED, audit_retention.MESSAGE_SETTLED))
_USER_ACTIONS = "('user_created', 'user_renamed')"
_KEY_ACTIONS = "('api_key_created', 'api_key_scopes_changed', 'api_key_revoked')"
_archived = audit_prunes.sql_of_told
_IS_ERASED = "EXISTS (SELECT 1 FROM audit_erasures WHERE audit_log_id = a.id)"


def _detail(name: str) -> str:
    """SQL of a member of an audit row's details; null where they are no JSON."""
    return f"iif(json_valid(a.details), json_extract(a.details, '$.{name}'), NULL)"


_TRANSACTION_ID = _detail("transaction_id")
_BANK_ID = _detail("matched_bank_notification_id")


def _agrees(amount: str) -> str:
    """SQL of whether the audit row `a` tells of the movement `t` what is so."""
    details = " AND ".join(
        f"json_extract(a.details, '$.{name}') = t.{column}"
        for name, column in (
            (amount, "amount"),
            ("balance_before", "balance_before"),
            ("balance_after", "balance_after"),
            ("version", "version"),
        )
    )
    return f"(a.user_id = t.user_id AND CASE WHEN json_valid(a.details) THEN {details} END)"


_ANNOUNCED = (
    "(a.user_id = t.user_id AND CASE WHEN json_valid(a.details) THEN json_extract(a.details, '$.amount') = t.amount"
    f" AND (json_extract(a.details, '$.depositor_name') = t.depositor_name OR {_IS_ERASED}) END)"
)
"""SQL of whether the audit row `a` tells of the announced deposit `t` what is so."""

_RECEIVED = (
    "CASE WHEN json_valid(a.details) THEN json_extract(a.details, '$.amount') = b.amount"
    f" AND (json_extract(a.details, '$.depositor_name') = b.depositor_name OR {_IS_ERASED})"
    " AND json_extract(a.details, '$.bank_transaction_id') = b.bank_transaction_id END"
)
"""SQL of whether the audit row `a` tells of the bank notification `b` what it says."""

_ACCOUNTS = f"""
SELECT u.telegram_id, NULL, iif(d.id IS NULL, 'users', 'user_deposits'), COALESCE(d.id, u.id),
  d.balance, d.version, COALESCE(SUM(m.moved), 0) AS total, COALESCE(SUM(m.moved) FILTER (WHERE m.version IS NULL), 0)
    AS unnumbered, COUNT(*) FILTER (WHERE m.beyond) AS beyond,
  (SELECT balance_before FROM deposit_transactions WHERE user_id = u.id AND version = 1) AS began,
  (SELECT COALESCE(MAX(version), 0) FROM deposit_transactions WHERE user_id = u.id AND version IS NOT NULL) AS last,
  (SELECT balance_after FROM deposit_transactions WHERE user_id = u.id AND version = d.version) AS left_at
FROM users AS u LEFT JOIN user_deposits AS d ON d.user_id = u.id
LEFT JOIN (
  SELECT user_id, version, typeof(amount) <> 'integer' OR amount NOT BETWEEN -{_AMOUNT_MAX} AND {_AMOUNT_MAX} AS beyond,
    iif(typeof(amount) = 'integer' AND amount BETWEEN -{_AMOUNT_MAX} AND {_AMOUNT_MAX},
        iif(direction = 'credit', amount, -amount), 0) AS moved
  FROM deposit_transactions WHERE +status = 'confirmed'
) AS m ON m.user_id = u.id
WHERE u.id BETWEEN :low AND :high
GROUP BY u.id
HAVING d.id IS NULL OR d.balance < 0 OR d.balance IS NOT total OR beyond > 0 OR began <> unnumbered
  OR d.version IS NOT last OR d.balance <> left_at
"""


def _judge_account(
    balance: int | None,
    version: int | None,
    total: int,
    unnumbered: int,
    beyond: int,
    began: int | None,
    last: int,
    left_at: int | None,
) -> Iterator[tuple[str, str]]:
    if balance is None:
        yield "balances", "The user has no account."
        return
    if balance != total:
        yield "balances", f"The balance is {balance}, the confirmed transactions sum to {total}."
    elif balance < 0:
        yield "balances", f"The balance is negative: {balance}."
    elif beyond:
        yield "balances", f"{beyond} of the confirmed amounts are no whole numbers of won within 2^53."
    if began is not None and began != unnumbered:
        yield "versions", f"Version 1 began at {began}, the transactions from before it sum to {unnumbered}."
    if version != last:
        yield "versions", f"The account is at version {version}, its last transaction has version {last}."
    elif left_at is not None and left_at != balance:
        yield "versions", f"The balance is {balance}, transaction version {version} left it at {left_at}."


_CHAIN = f"""
SELECT (SELECT telegram_id FROM users WHERE id = t.user_id), t.id, 'deposit_transactions', t.id,
  t.version, t.status, t.balance_before, {_MOVED}, t.balance_after, p.id, p.balance_after
FROM deposit_transactions AS t
LEFT JOIN deposit_transactions AS p ON p.user_id = t.user_id AND p.version = t.version - 1
WHERE t.user_id BETWEEN :low AND :high AND t.version IS NOT NULL AND (
  +t.status <> 'confirmed' OR t.balance_after IS NOT t.balance_before + {_MOVED}
  OR t.version > 1 AND p.balance_after IS NOT t.balance_before)
"""


def _judge_link(
    version: Any, status: str, before: Any, moved: Any, after: Any, previous: int | None, previous_after: Any
) -> Iterator[tuple[str, str]]:
    # A column of numbers holds whatever a hand put there.
    if status != "confirmed":
        yield "versions", f"It has version {version} and is {status}."
    if not isinstance(before, int) or not isinstance(moved, int) or after != before + moved:
        yield "versions", f"It moved {before} by {moved} and left {after}."
    if not isinstance(version, int):
        yield "versions", f"Its version is {version}."
    elif version > 1 and previous is None:
        yield "versions", f"It has version {version}, and the user has no version {version - 1}."
    elif version > 1 and previous_after != before:
        yield "versions", f"It began at {before}, version {version - 1} before it left {previous_after}."


# Where a movement for a domain belongs. Row values, so that it does not matter which users are in the chunk.
_DOMAIN_MONEY = """
SELECT (SELECT telegram_id FROM users WHERE id = t.user_id), t.id, 'deposit_transactions', t.id,
  iif(t.type = 'domain_purchase',
    'It took ' || t.amount || ' won for a domain, and no purchase of its user names it.',
    'It gave ' || t.amount || ' won back for a domain, and no purchase that its user gave up was paid with them.')
FROM deposit_transactions AS t
WHERE t.user_id BETWEEN :low AND :high AND t.version IS NOT NULL AND (
  +t.type = 'domain_purchase' AND (t.user_id, t.id) NOT IN (
    SELECT user_id, transaction_id FROM user_domains
    WHERE user_id BETWEEN :low AND :high AND transaction_id IS NOT NULL)
  OR +t.type = 'domain_refund' AND (t.user_id, COALESCE((
    WITH RECURSIVE chain(id, reverses_id) AS (
      SELECT t.id, t.reverses_id
      UNION SELECT r.id, r.reverses_id FROM chain JOIN deposit_transactions AS r ON r.id = chain.reverses_id)
    SELECT id FROM chain WHERE reverses_id IS NULL), 0)) NOT IN (
    SELECT user_id, transaction_id FROM user_domains
    WHERE user_id BETWEEN :low AND :high AND transaction_id IS NOT NULL AND status IN ('released', 'expired')))
"""

# The chunk's purchases are looked through by an index that is made for it; there is none of the table's own.
_SAME_PAYMENT = """
WITH other AS MATERIALIZED (
  SELECT transaction_id, id FROM user_domains WHERE user_id BETWEEN :low AND :high AND transaction_id IS NOT NULL)
SELECT (SELECT telegram_id FROM users WHERE id = p.user_id), p.transaction_id, 'user_domains', p.id,
  'It names transaction ' || p.transaction_id || ', and another purchase does too.'
FROM user_domains AS p
WHERE p.user_id BETWEEN :low AND :high AND EXISTS (
  SELECT 1 FROM other WHERE transaction_id = p.transaction_id AND id <> p.id)
"""

_USERS = _Pass(
    "users",
    "id",
    """
    SELECT COUNT(*) AS balances, COUNT(*) AS audit_of_users,
      (SELECT COUNT(*) FROM deposit_transactions
       WHERE user_id BETWEEN :low AND :high AND version IS NOT NULL) AS versions
    FROM users WHERE id BETWEEN :low AND :high
    """,
    (
        _Statement(_ACCOUNTS, _judge_account),
        _Statement(_CHAIN, _judge_link),
        _Statement(_DOMAIN_MONEY, _says("domain_purchases")),
        _Statement(_SAME_PAYMENT, _says("domain_purchases")),
        _Statement(
            """
            SELECT NULL, NULL, 'user_deposits', d.id, 'The account''s user ' || d.user_id || ' is not there.'
            FROM user_deposits AS d
            WHERE d.user_id BETWEEN :low AND :high AND NOT EXISTS (SELECT 1 FROM users WHERE id = d.user_id)
            """,
            _says("balances"),
        ),
        _Statement(
            f"""
            SELECT u.telegram_id, NULL, 'users', u.id, 'More than one audit row says that the user was made.'
            FROM users AS u WHERE u.id BETWEEN :low AND :high AND (
              SELECT COUNT(*) FROM audit_logs AS a WHERE a.resource_type = 'user' AND a.resource_id = u.id
                AND +a.action = 'user_created' AND a.actor IS NOT NULL) + {_archived("user_created", "u.id")} > 1
            """,
            _says("audit_of_users"),
        ),
        *_agree(integrity_agreement.USERS),
    ),
)

_AUDITED = f"""
SELECT (SELECT telegram_id FROM users WHERE id = t.user_id), t.id, 'deposit_transactions', t.id,
  t.version IS NOT NULL AND t.type NOT IN {_DOMAIN_TYPES} AS money_wanted, t.type = 'deposit' AS is_deposit,
  t.match_name IS NOT NULL AS is_ours, t.status,
  COUNT(*) FILTER (WHERE a.action IN {_MONEY_ACTIONS})
    + iif(t.type IN {_DOMAIN_TYPES}, 0, {_archived("moved", "t.id")}) AS money,
  COUNT(*) FILTER (WHERE a.action IN {_MONEY_ACTIONS} AND {_agrees("amount")} IS NOT TRUE) AS differing,
  COUNT(*) FILTER (WHERE a.action = 'deposit_announced') + {_archived("deposit_announced", "t.id")} AS announced,
  COUNT(*) FILTER (WHERE a.action = 'deposit_announced' AND {_ANNOUNCED} IS NOT TRUE) AS misannounced,
  COUNT(*) FILTER (WHERE {integrity_agreement.MISTOLD}) AS mistold,
  COUNT(*) FILTER (WHERE {integrity_agreement.MISANNOUNCED}) AS misannounced_else,
  COUNT(*) FILTER (WHERE a.action = 'deposit_cancelled') + {_archived("deposit_cancelled", "t.id")} AS cancelled,
  COUNT(*) FILTER (WHERE a.action = 'deposit_expired') + {_archived("deposit_expired", "t.id")} AS expired,
  COUNT(*) FILTER (WHERE a.action = 'deposit_confirmed' AND {_BANK_ID} IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM bank_notifications AS b WHERE b.id = {_BANK_ID} AND b.matched_transaction_id = t.id) AND NOT EXISTS (
    SELECT 1 FROM bank_notification_events AS e WHERE e.bank_notification_id = {_BANK_ID} AND e.deposit_id = t.id))
    AS misnamed
FROM deposit_transactions AS t
LEFT JOIN audit_logs AS a ON a.resource_type = 'deposit_transaction' AND a.resource_id = t.id AND a.actor IS NOT NULL
WHERE t.id BETWEEN :low AND :high
GROUP BY t.id
HAVING money <> money_wanted OR differing > 0 AND money_wanted OR misnamed > 0
  OR misannounced > 0 OR mistold > 0 OR misannounced_else > 0 OR announced NOT BETWEEN is_ours AND is_deposit
  OR cancelled NOT BETWEEN (is_ours AND t.status = 'cancelled') AND (t.status = 'cancelled')
  OR expired NOT BETWEEN (is_ours AND t.status = 'expired') AND (t.status IN ('expired', 'confirmed'))
"""


def _judge_audited(
    money_wanted: int,
    is_deposit: int,
    is_ours: int,
    status: str,
    money: int,
    differing: int,
    announced: int,
    misannounced: int,
    mistold: int,
    misannounced_else: int,
    cancelled: int,
    expired: int,
    misnamed: int,
) -> Iterator[tuple[str, str]]:
    if money != money_wanted:
        yield "audit_of_movements", f"{money} audit rows tell that it moved money; there must be {money_wanted}."
    elif differing and money_wanted:
        yield "audit_of_movements", "Its audit row tells another user, amount, balance or version."
    elif mistold:
        yield "audit_of_movements", "Its audit row tells another type, reference, reason, name or time."
    for action, rows, least, most in (
        ("announced", announced, is_ours, is_deposit),
        ("cancelled", cancelled, is_ours and status == "cancelled", status == "cancelled"),
        ("expired", expired, is_ours and status == "expired", status in {"expired", "confirmed"}),
    ):
        if not least <= rows <= most:
            yield "audit_of_deposits", f"It is {status}, and {rows} audit rows tell that it was {action}."
    if misannounced and is_ours <= announced <= is_deposit:
        yield "audit_of_deposits", "Its audit row announces another user, amount or name."
    elif misannounced_else and not misannounced:
        yield "audit_of_deposits", "Its audit row announces another name or time, or it has what no deposit has."
    if misnamed:
        yield "bank_notifications", "Its audit row names a bank notification that does not name it."


_TRANSACTIONS = _Pass(
    "deposit_transactions",
    "id",
    """
    SELECT COUNT(*) AS foreign_keys, COUNT(version) AS audit_of_movements, COUNT(match_name) AS audit_of_deposits,
      COUNT(reverses_id) AS reversals
    FROM deposit_transactions WHERE id BETWEEN :low AND :high
    """,
    (
        _Statement(_AUDITED, _judge_audited),
        # The audit row of a movement for a domain hangs on the purchase; it is found by its user and its instant, or,
        # where it no longer names its user, by the user's purchases.
        _Statement(
            f"""
            SELECT u.telegram_id, t.id, 'deposit_transactions', t.id,
              CASE (SELECT COUNT(*) FROM audit_logs AS a
                    WHERE a.telegram_id = u.telegram_id AND a.created_at = t.created_at AND a.actor IS NOT NULL
                      AND a.resource_type = 'user_domains' AND +a.action IN {_DOMAIN_ACTIONS}
                      AND {_TRANSACTION_ID} = t.id)
                + (SELECT COUNT(*) FROM audit_logs AS a
                   WHERE EXISTS (SELECT 1 FROM user_erasures WHERE user_id = t.user_id)
                     AND a.resource_type = 'user_domains'
                     AND a.resource_id IN (SELECT id FROM user_domains WHERE user_id = t.user_id)
                     AND +a.telegram_id IS NULL AND a.created_at = t.created_at AND a.actor IS NOT NULL
                     AND +a.action IN {_DOMAIN_ACTIONS} AND {_TRANSACTION_ID} = t.id AND {_IS_ERASED})
                + {_archived("moved", "t.id")}
                WHEN 1 THEN NULL WHEN 0 THEN 'No audit row of its instant tells that it moved money.'
                ELSE 'More than one audit row tells that it moved money.' END AS said
            FROM deposit_transactions AS t LEFT JOIN users AS u ON u.id = t.user_id
            WHERE t.id BETWEEN :low AND :high AND t.version IS NOT NULL AND +t.type IN {_DOMAIN_TYPES}
              AND said IS NOT NULL
            """,
            _says("audit_of_movements"),
        ),
        _Statement(
            """
            SELECT (SELECT telegram_id FROM users WHERE id = r.user_id), r.id, 'deposit_transactions', r.id,
              CASE
                WHEN t.id IS NULL THEN 'It takes back transaction ' || r.reverses_id || ', which is not there.'
                WHEN t.user_id <> r.user_id THEN 'It takes back a transaction of another user.'
                WHEN t.amount <> r.amount THEN 'It moves ' || r.amount || ' and takes back ' || t.amount || '.'
                WHEN t.direction = r.direction THEN 'It moves money the same way as what it takes back.'
                WHEN t.status <> 'confirmed' OR r.status <> 'confirmed' THEN 'It or what it takes back moved no money.'
                WHEN EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = r.reverses_id AND id <> r.id)
                  THEN 'Another transaction takes back the same.'
              END AS said
            FROM deposit_transactions AS r LEFT JOIN deposit_transactions AS t ON t.id = r.reverses_id
            WHERE r.reverses_id BETWEEN :low AND :high AND said IS NOT NULL
            """,
            _says("reversals"),
        ),
        _Statement(
            """
            SELECT NULL, t.id, 'deposit_transactions', t.id, 'Its user ' || t.user_id || ' is not there.'
            FROM deposit_transactions AS t
            WHERE t.id BETWEEN :low AND :high AND NOT EXISTS (SELECT 1 FROM users WHERE id = t.user_id)
            """,
            _says("foreign_keys"),
        ),
        *_agree(integrity_agreement.TRANSACTIONS),
    ),
)

_TOLD = f"""
SELECT a.telegram_id, iif(a.resource_type = 'deposit_transaction', a.resource_id, NULL), 'audit_logs', a.id,
  a.action, a.resource_type, a.resource_id
FROM audit_logs AS a
WHERE a.id BETWEEN :low AND :high AND a.actor IS NOT NULL AND CASE
  WHEN a.action IN {_MONEY_ACTIONS} OR a.action IN {_DEPOSIT_ACTIONS} THEN a.resource_type IS NOT 'deposit_transaction'
    OR NOT EXISTS (SELECT 1 FROM deposit_transactions WHERE id = a.resource_id)
  WHEN a.action IN {_DOMAIN_ACTIONS} THEN a.resource_type IS NOT 'user_domains'
    OR NOT EXISTS (SELECT 1 FROM user_domains WHERE id = a.resource_id AND ascii_name IS NOT NULL)
  WHEN a.action IN {_BANK_ACTIONS} THEN a.resource_type IS NOT 'bank_notification'
    OR NOT EXISTS (SELECT 1 FROM bank_notifications WHERE id = a.resource_id)
  WHEN a.action IN {_MESSAGE_ACTIONS} THEN a.resource_type IS NOT 'bank_message'
    OR NOT EXISTS (SELECT 1 FROM bank_messages WHERE id = a.resource_id)
  WHEN a.action IN {_USER_ACTIONS} THEN a.resource_type IS NOT 'user'
    OR NOT EXISTS (SELECT 1 FROM users WHERE id = a.resource_id
                   AND (telegram_id = a.telegram_id OR a.telegram_id IS NULL AND {_IS_ERASED}))
  WHEN a.action IN {_KEY_ACTIONS} THEN a.resource_type IS NOT 'api_key'
    OR NOT EXISTS (SELECT 1 FROM api_keys WHERE id = a.resource_id)
END
"""
_CHECK_OF_ACTION = {
    action: check
    for check, actions in (
        ("audit_of_movements", _MONEY_ACTIONS),
        ("audit_of_deposits", _DEPOSIT_ACTIONS),
        ("audit_of_domain_purchases", _DOMAIN_ACTIONS),
        ("audit_of_bank_notifications", _BANK_ACTIONS),
        ("bank_messages", _MESSAGE_ACTIONS),
        ("audit_of_users", _USER_ACTIONS),
        ("audit_of_api_keys", _KEY_ACTIONS),
    )
    for action in actions.strip("()").replace("'", "").split(", ")
}


def _judge_told(action: str, resource_type: str | None, resource_id: int | None) -> Failures:
    return [(_CHECK_OF_ACTION[action], f"It tells {action} of {resource_type} {resource_id}, which is not there.")]


_LEARNED_ID = _detail("id")
_OF_THE_USER = "a.resource_type = 'user' AND a.resource_id = l.user_id AND a.actor IS NOT NULL"
_LEARNED_NAMES = _Pass(
    "learned_names",
    "id",
    "SELECT COUNT(*) AS learned_names FROM learned_names WHERE id BETWEEN :low AND :high",
    (
        _Statement(
            f"""
            SELECT (SELECT telegram_id FROM users WHERE id = l.user_id), NULL, 'learned_names', l.id,
              CASE
                WHEN NOT EXISTS (
                  SELECT 1 FROM bank_notifications AS b
                  JOIN deposit_transactions AS t ON t.id = b.matched_transaction_id
                  WHERE b.id = l.bank_notification_id AND b.depositor_name = l.printed_name AND t.user_id = l.user_id)
                  THEN 'No bank notification that is matched with its user prints it.'
                WHEN EXISTS (SELECT 1 FROM user_erasures WHERE user_id = l.user_id AND finished_at IS NOT NULL)
                  THEN 'Its user was erased.'
                WHEN {_archived("user_name_learned", "l.user_id")} > 0 THEN NULL
                WHEN (SELECT COUNT(*) FROM audit_logs AS a INDEXED BY idx_audit_logs_resource
                      WHERE {_OF_THE_USER} AND a.action = 'user_name_learned'
                        AND {_LEARNED_ID} = l.id AND a.created_at = l.created_at AND a.actor = l.learned_by
                        AND ({_detail("depositor_name")} = l.printed_name OR {_IS_ERASED})) <> 1
                  THEN 'Not exactly one audit row tells that it was learned so.'
                WHEN EXISTS (SELECT 1 FROM audit_logs AS a INDEXED BY idx_audit_logs_resource
                      WHERE {_OF_THE_USER} AND a.action = 'user_name_forgotten'
                        AND {_LEARNED_ID} = l.id)
                  THEN 'An audit row tells that it was removed.'
              END AS said
            FROM learned_names AS l WHERE l.id BETWEEN :low AND :high AND said IS NOT NULL
            """,
            _says("learned_names"),
        ),
        *_agree(integrity_agreement.LEARNED_NAMES),
    ),
)
_TELLS_MESSAGE = " AND ".join(
    f"{_detail(name)} IS m.{column}" for name, column in (("kind", "kind"), ("amount", "amount"))
)
_TELLS_TEXTS = " AND ".join(
    f"{_detail(name)} IS {value}"
    for name, value in (
        ("depositor_name", "m.depositor_name"),
        ("bank_name", "m.bank_name"),
        ("account", "m.account"),
        ("bank_balance_after", "m.balance_after"),
        ("raw_message_sha256", "lower(hex(m.raw_sha256))"),
    )
)
_BANK_MESSAGES = _Pass(
    "bank_messages",
    "id",
    "SELECT COUNT(*) AS bank_messages FROM bank_messages WHERE id BETWEEN :low AND :high",
    (
        _Statement(
            f"""
            SELECT NULL, NULL, 'bank_messages', m.id,
              CASE
                WHEN m.bank_notification_id IS NOT NULL
                  AND NOT EXISTS (SELECT 1 FROM bank_notifications WHERE id = m.bank_notification_id)
                  THEN 'The bank notification that it names is not there.'
                WHEN m.kind = 'deposit_cancelled' AND m.bank_notification_id IS NOT NULL AND NOT EXISTS (
                  SELECT 1 FROM bank_notification_events
                  WHERE bank_notification_id = m.bank_notification_id AND kind = 'cancelled')
                  THEN 'The bank notification that it took back is not cancelled.'
                WHEN m.kind = 'deposit_cancelled' AND m.bank_notification_id IS NOT NULL
                  AND (SELECT COUNT(*) FROM audit_logs AS a INDEXED BY idx_audit_logs_resource
                       WHERE a.resource_type = 'bank_notification' AND a.resource_id = m.bank_notification_id
                         AND a.action = 'bank_notification_cancelled' AND a.actor IS NOT NULL)
                    + {_archived("bank_notification_cancelled", "m.bank_notification_id")} <> 1
                  THEN 'Not exactly one audit row tells that the bank notification was taken back.'
                WHEN COUNT(*) FILTER (WHERE a.action = 'bank_message_received')
                     + {_archived("bank_message_received", "m.id")} <> 1
                  THEN 'Not exactly one audit row tells that it came.'
                WHEN COUNT(*) FILTER (WHERE a.action = 'bank_message_settled')
                     + {_archived("bank_message_settled", "m.id")} <> (m.status = 'settled')
                  THEN 'The audit rows of its settling are not one for a settled one and none for another.'
                WHEN COUNT(*) FILTER (WHERE a.action = 'bank_message_received' AND (
                       ({_TELLS_MESSAGE}) IS NOT TRUE OR a.created_at <> m.created_at OR a.actor <> m.received_by
                       OR NOT {_IS_ERASED} AND (({_TELLS_TEXTS}) IS NOT TRUE))) > 0
                  THEN 'Its audit row tells another message.'
                WHEN COUNT(*) FILTER (WHERE a.action = 'bank_message_received' AND m.status <> 'settled'
                       AND ({_detail("status")} IS NOT m.status
                         OR {_detail("bank_notification_id")} IS NOT m.bank_notification_id)) > 0
                  THEN 'Its audit row tells another state.'
                WHEN COUNT(*) FILTER (WHERE a.action = 'bank_message_settled' AND (
                       {_detail("bank_notification_id")} IS NOT m.bank_notification_id
                       OR a.created_at IS NOT m.settled_at OR a.actor IS NOT m.settled_by
                       OR NOT {_IS_ERASED} AND {_detail("note")} IS NOT m.note)) > 0
                  THEN 'Its audit row tells that it was settled otherwise.'
              END AS said
            FROM bank_messages AS m
            LEFT JOIN audit_logs AS a
              ON a.resource_type = 'bank_message' AND a.resource_id = m.id AND a.actor IS NOT NULL
            WHERE m.id BETWEEN :low AND :high
            GROUP BY m.id HAVING said IS NOT NULL
            """,
            _says("bank_messages"),
        ),
        *_agree(integrity_agreement.BANK_MESSAGES),
    ),
)
_LEARNED_AND_GONE = _Statement(
    f"""
    SELECT a.telegram_id, NULL, 'audit_logs', a.id, 'The name that it tells was learned is not there.'
    FROM audit_logs AS a
    WHERE a.id BETWEEN :low AND :high AND +a.action = 'user_name_learned' AND +a.resource_type = 'user'
      AND a.actor IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM learned_names WHERE id = {_LEARNED_ID} AND user_id = a.resource_id)
      AND NOT EXISTS (SELECT 1 FROM user_erasures WHERE user_id = a.resource_id AND finished_at IS NOT NULL)
      AND NOT EXISTS (SELECT 1 FROM audit_logs AS f INDEXED BY idx_audit_logs_resource
        WHERE f.resource_type = 'user' AND f.resource_id = a.resource_id AND f.actor IS NOT NULL
          AND f.action = 'user_name_forgotten'
          AND iif(json_valid(f.details), json_extract(f.details, '$.id'), NULL) = {_LEARNED_ID})
    """,
    _says("learned_names"),
)

_AUDIT_LOGS = _Pass(
    "audit_logs",
    "id",
    f"""
    SELECT COUNT(*) FILTER (WHERE action IN {_MONEY_ACTIONS}) AS audit_of_movements,
      COUNT(*) FILTER (WHERE action IN {_DEPOSIT_ACTIONS}) AS audit_of_deposits,
      COUNT(*) FILTER (WHERE action IN {_DOMAIN_ACTIONS}) AS audit_of_domain_purchases,
      COUNT(*) FILTER (WHERE action IN {_BANK_ACTIONS}) AS audit_of_bank_notifications,
      COUNT(*) FILTER (WHERE action IN {_MESSAGE_ACTIONS}) AS bank_messages,
      COUNT(*) FILTER (WHERE action IN {_USER_ACTIONS}) AS audit_of_users,
      COUNT(*) FILTER (WHERE action IN {_KEY_ACTIONS}) AS audit_of_api_keys
    FROM audit_logs WHERE id BETWEEN :low AND :high AND actor IS NOT NULL
    """,
    (
        _Statement(_TOLD, _judge_told),
        _Statement(
            """
            SELECT a.telegram_id, NULL, 'audit_logs', a.id, 'It was never sealed: Passbook did not write it.'
            FROM audit_logs AS a WHERE a.id BETWEEN :low AND :high
              AND NOT EXISTS (SELECT 1 FROM audit_leaves WHERE audit_log_id = a.id)
            """,
            _says("audit_rows"),
        ),
        _Statement(
            f"""
            SELECT a.telegram_id, {_TRANSACTION_ID}, 'audit_logs', a.id,
              CASE
                WHEN t.version IS NULL OR t.type NOT IN {_DOMAIN_TYPES}
                  THEN 'It tells of transaction ' || {_TRANSACTION_ID} || ', which is no movement for a domain.'
                WHEN {_agrees("price")} IS NOT TRUE
                  THEN 'It tells another user, price, balance or version than transaction ' || t.id || ' has.'
                WHEN NOT EXISTS (SELECT 1 FROM user_domains
                                 WHERE id = a.resource_id AND transaction_id IN (
                                   WITH RECURSIVE chain(id) AS (
                                     SELECT t.id UNION SELECT r.reverses_id FROM chain
                                     JOIN deposit_transactions AS r ON r.id = chain.id
                                     WHERE r.reverses_id IS NOT NULL)
                                   SELECT id FROM chain))
                  THEN 'The domain purchase that it names was not paid for by transaction ' || t.id || '.'
              END AS said
            FROM audit_logs AS a LEFT JOIN deposit_transactions AS t ON t.id = {_TRANSACTION_ID}
            WHERE a.id BETWEEN :low AND :high AND a.actor IS NOT NULL AND +a.action IN {_DOMAIN_ACTIONS}
              AND {_TRANSACTION_ID} IS NOT NULL AND said IS NOT NULL
            """,
            _says("audit_of_movements"),
        ),
        _LEARNED_AND_GONE,
        *_agree(integrity_agreement.AUDIT_LOGS),
    ),
)

_ARCHIVED_EVENTS = f"({' + '.join(_archived(action, 'b.id') for action in audit_retention.BANK_EVENT_ACTIONS)})"
_CLOSED_AS = """CASE
  WHEN b.status = 'matched' THEN NULL
  WHEN EXISTS (SELECT 1 FROM bank_notification_events WHERE bank_notification_id = b.id AND kind = 'cancelled')
    THEN 'cancelled'
  WHEN (SELECT kind FROM bank_notification_events WHERE bank_notification_id = b.id AND kind <> 'told'
        ORDER BY id DESC LIMIT 1) = 'dismissed' THEN 'dismissed' END"""
"""SQL of how the events of the notification `b` leave it."""
_TELLS_EVENT = f"""(SELECT COUNT(*) FROM audit_logs AS a INDEXED BY idx_audit_logs_resource
  WHERE a.resource_type = 'bank_notification' AND a.resource_id = e.bank_notification_id
    AND a.action = 'bank_notification_' || e.kind AND a.actor = e.actor AND a.created_at = e.created_at
    AND {_detail("deposit_id")} IS e.deposit_id
    AND (COALESCE({_detail("event_id")}, e.id) = e.id AND {_detail("note")} IS e.note OR {_IS_ERASED}))"""
"""SQL of how many audit rows tell of the event `e` what is so; of an erased one its kind, its author and its time."""

_BANK_NOTIFICATIONS = _Pass(
    "bank_notifications",
    "id",
    """
    SELECT COUNT(*) AS bank_notifications, COUNT(bank_transaction_id) AS audit_of_bank_notifications,
      COUNT(matched_transaction_id) AS foreign_keys
    FROM bank_notifications WHERE id BETWEEN :low AND :high
    """,
    (
        # What the bot matched is its history; what it did not say or said twice cannot be mended.
        _Statement(
            """
            SELECT (SELECT telegram_id FROM users WHERE id = t.user_id), b.matched_transaction_id,
              'bank_notifications', b.id,
              CASE
                WHEN (b.status = 'matched') <> (b.matched_transaction_id IS NOT NULL)
                  THEN 'It is ' || b.status || ' and ' || iif(b.matched_transaction_id IS NULL, 'names no deposit.',
                    'names transaction ' || b.matched_transaction_id || '.')
                WHEN b.bank_transaction_id IS NULL AND b.match_method IS NULL THEN NULL
                WHEN (b.status = 'matched') <> (b.match_method IS NOT NULL)
                  THEN 'It is ' || b.status || ' and ' || iif(b.match_method IS NULL, 'does not say', 'says') || ' how.'
                WHEN b.status <> 'matched' THEN NULL
                WHEN t.id IS NULL OR t.type <> 'deposit' OR t.status <> 'confirmed'
                  THEN 'Transaction ' || b.matched_transaction_id || ', which it names, is no confirmed deposit.'
                WHEN t.amount <> b.amount
                  THEN 'It is of ' || b.amount || ', the deposit that it names of ' || t.amount || '.'
                WHEN EXISTS (SELECT 1 FROM bank_notifications
                             WHERE matched_transaction_id = b.matched_transaction_id AND id <> b.id
                               AND match_method IS NOT NULL)
                  THEN 'Another bank notification names the same deposit.'
              END AS said
            FROM bank_notifications AS b LEFT JOIN deposit_transactions AS t ON t.id = b.matched_transaction_id
            WHERE b.id BETWEEN :low AND :high AND said IS NOT NULL
            """,
            _says("bank_notifications"),
        ),
        _Statement(
            f"""
            SELECT NULL, b.matched_transaction_id, 'bank_notifications', b.id,
              CASE
                WHEN COUNT(*) FILTER (WHERE a.action = 'bank_notification_received')
                     + {_archived("bank_notification_received", "b.id")} <> (b.bank_transaction_id IS NOT NULL)
                  THEN 'Not exactly one audit row tells that it arrived.'
                WHEN COUNT(*) FILTER (WHERE a.action = 'bank_notification_received' AND {_RECEIVED} IS NOT TRUE) > 0
                  THEN 'Its audit row tells another bank transaction, name or amount.'
                WHEN COUNT(*) FILTER (WHERE a.action = 'bank_notification_matched'
                       OR a.action = 'bank_notification_received' AND {_detail("status")} = 'matched')
                     + {_archived("bank_notification_matched", "b.id")}
                     <> (b.match_method IS NOT NULL) + (SELECT COUNT(*) FROM bank_notification_events
                                                        WHERE bank_notification_id = b.id AND kind = 'freed')
                  THEN 'The audit rows that tell of its matches are not one for each.'
                WHEN COUNT(*) FILTER (WHERE a.action IN {_BANK_EVENT_ACTIONS}) + {_ARCHIVED_EVENTS}
                     <> (SELECT COUNT(*) FROM bank_notification_events WHERE bank_notification_id = b.id)
                  THEN 'The audit rows that tell of its events are not one for each.'
              END AS said
            FROM bank_notifications AS b
            LEFT JOIN audit_logs AS a
              ON a.resource_type = 'bank_notification' AND a.resource_id = b.id AND a.actor IS NOT NULL
            WHERE b.id BETWEEN :low AND :high
            GROUP BY b.id HAVING said IS NOT NULL
            """,
            _says("audit_of_bank_notifications"),
        ),
        _Statement(
            """
            SELECT NULL, b.matched_transaction_id, 'bank_notifications', b.id,
              'Transaction ' || b.matched_transaction_id || ' is not there.'
            FROM bank_notifications AS b
            WHERE b.id BETWEEN :low AND :high AND b.matched_transaction_id IS NOT NULL
              AND NOT EXISTS (SELECT 1 FROM deposit_transactions WHERE id = b.matched_transaction_id)
            """,
            _says("foreign_keys"),
        ),
        _Statement(
            f"""
            SELECT NULL, b.matched_transaction_id, 'bank_notifications', b.id,
              'It is ' || COALESCE(b.closed_as, b.status) || '; its events leave it '
                || COALESCE({_CLOSED_AS}, 'as it came or matched') || '.'
            FROM bank_notifications AS b
            WHERE b.id BETWEEN :low AND :high AND b.closed_as IS NOT {_CLOSED_AS}
            """,
            _says("bank_notifications"),
        ),
        _Statement(
            """
            SELECT NULL, e.deposit_id, 'bank_notification_events', e.id,
              CASE
                WHEN b.id IS NULL THEN 'Bank notification ' || e.bank_notification_id || ' is not there.'
                WHEN (e.deposit_id IS NOT NULL) <> (e.kind = 'freed')
                  THEN 'It is ' || e.kind || ' and ' || iif(e.deposit_id IS NULL, 'names no', 'names a') || ' deposit.'
                WHEN e.kind <> 'told' AND COALESCE(e.transaction_time, e.bank_name, e.depositor_name, e.account,
                    e.balance_after, e.raw_message) IS NOT NULL
                  THEN 'It is ' || e.kind || ' and says what only a line that is told again says.'
                WHEN e.kind = 'freed' AND (t.id IS NULL OR t.type <> 'deposit' OR t.amount <> b.amount
                    OR NOT EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = t.id))
                  THEN 'Transaction ' || e.deposit_id || ', which it names, is no reversed deposit of its amount.'
                WHEN e.kind = 'cancelled' AND EXISTS (
                  SELECT 1 FROM bank_notification_events
                  WHERE bank_notification_id = e.bank_notification_id AND kind = 'cancelled' AND id < e.id)
                  THEN 'The bank took the money back before.'
              END AS said
            FROM bank_notification_events AS e LEFT JOIN bank_notifications AS b ON b.id = e.bank_notification_id
            LEFT JOIN deposit_transactions AS t ON t.id = e.deposit_id
            WHERE e.bank_notification_id BETWEEN :low AND :high AND said IS NOT NULL
            """,
            _says("bank_notifications"),
        ),
        _Statement(
            f"""
            SELECT NULL, e.deposit_id, 'bank_notification_events', e.id,
              'No audit row tells of it as it is.'
            FROM bank_notification_events AS e
            WHERE e.bank_notification_id BETWEEN :low AND :high AND {_TELLS_EVENT} = 0
              AND {_archived("bank_notification_' || e.kind || '", "e.bank_notification_id")} = 0
            """,
            _says("audit_of_bank_notifications"),
        ),
        *_agree(integrity_agreement.BANK_NOTIFICATIONS),
        *_agree(integrity_agreement.TOLD_LATER),
    ),
)

_ARCHIVED_STEPS = f"({' + '.join(_archived(action, 'p.id') for action in audit_retention.DOMAIN_ACTIONS)})"


def _step_count(step: str) -> str:
    """SQL of how many audit rows `a`, or archived ones, tell that step of the purchase `p`."""
    action = f"domain_{step}"
    return f"(COUNT(*) FILTER (WHERE a.action = '{action}') + {_archived(action, 'p.id')})"


def _told_at(action: str, resource_type: str, resource_id: str) -> str:
    """SQL of the id of the audit row that tells that; null where there is none, or it was archived."""
    return (
        f"(SELECT MIN(id) FROM audit_logs WHERE resource_type = '{resource_type}' AND resource_id = {resource_id}"
        f" AND +action = '{action}' AND actor IS NOT NULL)"
    )


# `e` is what ended the chain of reversals of the payment of `p`. Rows are archived from the oldest on: where one of two
# is left, it is the later one. Where none is left there are only the times.
_BACK_BEFORE_REGISTERED = f"""
CASE
  WHEN {_told_at("transaction_reversed", "deposit_transaction", "e.id")} IS NOT NULL
    THEN COALESCE({_told_at("transaction_reversed", "deposit_transaction", "e.id")}
      < {_told_at("domain_registered", "user_domains", "p.id")}, FALSE)
  WHEN {_told_at("domain_registered", "user_domains", "p.id")} IS NOT NULL THEN TRUE
  ELSE e.created_at < p.registered_at
END
"""

_USER_DOMAINS = _Pass(
    "user_domains",
    "id",
    """
    SELECT COUNT(ascii_name) AS domain_purchases, COUNT(ascii_name) AS audit_of_domain_purchases,
      COUNT(*) AS foreign_keys
    FROM user_domains WHERE id BETWEEN :low AND :high
    """,
    (
        _Statement(
            f"""
            SELECT (SELECT telegram_id FROM users WHERE id = p.user_id), p.transaction_id, 'user_domains', p.id,
              CASE
                WHEN t.id IS NULL THEN 'The transaction that paid for it is not there.'
                WHEN t.user_id <> p.user_id THEN 'Another user paid for it.'
                WHEN t.type <> 'domain_purchase' THEN 'The transaction that it names is a ' || t.type || ', no payment.'
                WHEN t.amount IS NOT p.price OR t.direction <> 'debit' OR t.version IS NULL OR t.status <> 'confirmed'
                  THEN 'Its price is ' || COALESCE(p.price, 'null') || '; the transaction that it names paid none such.'
                WHEN p.status NOT IN ('pending', 'registered', 'released', 'expired')
                  THEN 'No purchase is ' || p.status || '.'
                WHEN p.status IN ('pending', 'registered') AND EXISTS (
                  SELECT 1 FROM user_domains WHERE ascii_name = p.ascii_name AND status IN ('pending', 'registered')
                    AND id <> p.id)
                  THEN 'Another live purchase has its name.'
                WHEN p.status IN ('released', 'expired') AND e.direction IS NOT 'credit'
                  THEN 'It is ' || p.status || ', and transaction ' || e.id || ' has its ' || p.price || ' won.'
                WHEN e.direction IS NOT 'credit' THEN NULL
                WHEN p.status = 'pending'
                  THEN 'It is pending, and transaction ' || e.id || ' gave its ' || p.price || ' won back.'
                WHEN p.status = 'registered' AND e.type <> 'reversal'
                  THEN 'It is registered, and transaction ' || e.id || ' refunded its ' || p.price || ' won.'
                WHEN p.status = 'registered' AND {_BACK_BEFORE_REGISTERED}
                  THEN 'It was registered when transaction ' || e.id || ' had given its ' || p.price || ' won back.'
              END AS said
            FROM user_domains AS p LEFT JOIN deposit_transactions AS t ON t.id = p.transaction_id
            LEFT JOIN deposit_transactions AS e ON e.id = {sql_of_last_of_chain("p.transaction_id")}
            WHERE p.id BETWEEN :low AND :high AND p.ascii_name IS NOT NULL AND said IS NOT NULL
            """,
            _says("domain_purchases"),
        ),
        _Statement(
            f"""
            SELECT (SELECT telegram_id FROM users WHERE id = p.user_id), p.transaction_id, 'user_domains', p.id,
              'It is ' || p.status || ', and of its steps these audit rows tell: '
                || COALESCE(group_concat(a.action, ', '), 'none')
                || iif({_ARCHIVED_STEPS} > 0, ', and ' || {_ARCHIVED_STEPS} || ' that are archived', '') || '.'
            FROM user_domains AS p
            LEFT JOIN audit_logs AS a
              ON a.resource_type = 'user_domains' AND a.resource_id = p.id AND a.actor IS NOT NULL
              AND +a.action IN ('domain_registered', 'domain_held', 'domain_released', 'domain_expired')
            WHERE p.id BETWEEN :low AND :high AND p.ascii_name IS NOT NULL
            GROUP BY p.id
            HAVING CASE p.status
              WHEN 'registered' THEN {_step_count("registered")} = 1 AND {_step_count("held")} <= 1
                AND {_step_count("released")} + {_step_count("expired")} = 0
              WHEN 'pending' THEN COUNT(a.id) + {_ARCHIVED_STEPS} = 1 AND {_step_count("held")} = 1
              ELSE COUNT(a.id) + {_ARCHIVED_STEPS} = 2 AND {_step_count("held")} = 1
                AND iif(p.status = 'released', {_step_count("released")}, {_step_count("expired")}) = 1
            END = 0
            """,
            _says("audit_of_domain_purchases"),
        ),
        _Statement(
            """
            SELECT NULL, p.transaction_id, 'user_domains', p.id, 'Its user ' || p.user_id || ' is not there.'
            FROM user_domains AS p
            WHERE p.id BETWEEN :low AND :high AND NOT EXISTS (SELECT 1 FROM users WHERE id = p.user_id)
            """,
            _says("foreign_keys"),
        ),
        *_agree(integrity_agreement.USER_DOMAINS),
    ),
)

_REFERENCES = _Pass(
    "balance_change_references",
    "rowid",
    'SELECT COUNT(*) AS foreign_keys, COUNT(*) AS "references" FROM balance_change_references'
    " WHERE rowid BETWEEN :low AND :high",
    (
        _Statement(
            """
            SELECT NULL, c.transaction_id, 'balance_change_references', c.rowid,
              'Transaction ' || c.transaction_id || ' is not there.'
            FROM balance_change_references AS c
            WHERE c.rowid BETWEEN :low AND :high
              AND NOT EXISTS (SELECT 1 FROM deposit_transactions WHERE id = c.transaction_id)
            """,
            _says("foreign_keys"),
        ),
        *_agree(integrity_agreement.REFERENCES),
    ),
)

_API_KEYS = _Pass(
    "api_keys",
    "id",
    "SELECT COUNT(*) AS audit_of_api_keys FROM api_keys WHERE id BETWEEN :low AND :high",
    (
        _Statement(
            f"""
            SELECT NULL, NULL, 'api_keys', k.id,
              CASE
                WHEN COUNT(*) FILTER (WHERE a.action = 'api_key_created') + {_archived("api_key_created", "k.id")} <> 1
                  THEN 'Not exactly one audit row tells that it was made.'
                WHEN COUNT(*) FILTER (WHERE a.action = 'api_key_revoked') + {_archived("api_key_revoked", "k.id")}
                     <> (k.revoked_at IS NOT NULL)
                  THEN iif(k.revoked_at IS NULL, 'It is live', 'It is revoked') || '; the audit rows tell otherwise.'
              END AS said
            FROM api_keys AS k
            LEFT JOIN audit_logs AS a ON a.resource_type = 'api_key' AND a.resource_id = k.id AND a.actor IS NOT NULL
            WHERE k.id BETWEEN :low AND :high
            GROUP BY k.id HAVING said IS NOT NULL
            """,
            _says("audit_of_api_keys"),
        ),
    ),
)

# Rows are removed from the oldest on: of those that a prune lets go none is missing above one that is there.
_AUDIT_LEAVES = _Pass(
    "audit_leaves",
    "leaf_index",
    "SELECT COUNT(*) AS audit_rows FROM audit_leaves WHERE leaf_index BETWEEN :low AND :high",
    (
        _Statement(
            """
            SELECT NULL, NULL, 'audit_logs', l.audit_log_id,
              iif(l.audit_log_id <= (SELECT MAX(through_id) FROM audit_prunes),
                'It was archived, and is not there while older ones are.', 'It was sealed and is not there.')
            FROM audit_leaves AS l
            WHERE l.leaf_index BETWEEN :low AND :high
              AND NOT EXISTS (SELECT 1 FROM audit_logs WHERE id = l.audit_log_id)
              AND l.audit_log_id > COALESCE(MIN(
                (SELECT MAX(through_id) FROM audit_prunes),
                COALESCE((SELECT MIN(id) FROM audit_logs), 9223372036854775807)), 0)
            """,
            _says("audit_rows"),
        ),
    ),
)

_ANSWERS = _Pass(
    "idempotency_answers",
    "id",
    "SELECT COUNT(audit_log_id) AS stored_answers FROM idempotency_answers WHERE id BETWEEN :low AND :high",
    _agree(integrity_agreement.ANSWERS),
)

_PRUNED_STEPS = _Pass(
    "audit_pruned_steps",
    "rowid",
    "SELECT COUNT(*) * 0 AS audit_rows FROM audit_pruned_steps WHERE rowid BETWEEN :low AND :high",
    _agree(integrity_agreement.PRUNED_STEPS),
)

PASSES = (
    *(
        _USERS,
        _TRANSACTIONS,
        _AUDIT_LOGS,
        _AUDIT_LEAVES,
        _BANK_NOTIFICATIONS,
        _BANK_MESSAGES,
        _LEARNED_NAMES,
        _USER_DOMAINS,
        _REFERENCES,
        _API_KEYS,
    ),
    *(_ANSWERS, _PRUNED_STEPS),
)
"""All of it but the schema and the file."""


class _Found:
    """What one check has seen so far."""

    __slots__ = ("checked", "examples", "failed")

    def __init__(self) -> None:
        self.checked = 0
        self.failed = 0
        self.examples: list[IntegrityExample] = []


class _Stopped(Exception):
    """`stop` was called."""


class Proof:
    """One run over the whole ledger: `run` on one thread, `report` and `stop` from any. Lifetime: one run.

    `quick` leaves out the checks of the file, which reads every page, and of the audit chain, which hashes every row.
    `workers` share the hashing. Up to `examples_max` failures of a check are told.
    """

    def __init__(
        self,
        migrations: list[migrator.Migration],
        clock: Clock,
        *,
        quick: bool = False,
        workers: Workers | None = None,
        examples_max: int = EXAMPLES_MAX,
    ) -> None:
        self._workers = workers
        self._examples_max = examples_max
        self._migrations = migrations
        self._clock = clock
        self._names = [name for name in DESCRIPTIONS if not (quick and name in _THOROUGH)]
        self._found = {name: _Found() for name in self._names}
        self._started_at = clock()
        self._finished_at: datetime | None = None
        self._checked = 0
        self._total = 0
        self._reason: str | None = None
        self._stop = threading.Event()
        self._connection: Connection | None = None
        self.step = ""
        """The table, or the check, that is being gone through."""

    def run(self, connection: Connection, on_progress: Callable[[], None] = lambda: None) -> None:
        """Carries the proof out on a read-only connection of its own; `on_progress` is called after every chunk.

        What the database raises ends it early and becomes the report's reason.
        """
        self._connection = connection
        try:
            self._total = sum(self._rows_of(connection, each) for each in PASSES)
            if "audit_chain" in self._found:
                self._total += audit_chain.size_of(connection)
            if "file" in self._found:
                self._total += connection.execute("PRAGMA page_count").fetchone()[0]
            for each in PASSES:
                self.step = each.table
                for _ in self._chunks(connection, each):
                    on_progress()
            for name, check in (
                ("audit_of_api_keys", self._check_api_keys),
                ("taken_over", self._check_taken_over),
                ("audit_chain", self._check_audit_chain),
                ("schema", self._check_schema),
                ("file", self._check_file),
            ):
                if name in self._found:
                    self.step = name
                    self._raise_if_stopped()
                    on_progress()
                    check(connection, on_progress)
        except _Stopped:
            self.fail("It was stopped.")
        except sqlite.DatabaseError as error:
            self.fail("It was stopped." if self._stop.is_set() else f"The database answered: {error}.")
        except WorkersFailed as error:
            self.fail(str(error))
        finally:
            self._connection = None
            self._finished_at = self._finished_at or self._clock()

    def fail(self, reason: str) -> None:
        """Ends the proof early."""
        self._reason = reason
        self._finished_at = self._clock()

    def stop(self) -> None:
        """Asks the run to end soon; it then counts as unfinished."""
        self._stop.set()
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    @property
    def finished_at(self) -> datetime | None:
        """When it ended; None while it runs."""
        return self._finished_at

    @property
    def progress(self) -> tuple[int, int]:
        """How many rows are checked, and of how many."""
        return self._checked, max(self._total, self._checked)

    def report(self, previous: IntegrityReport | None = None) -> IntegrityReport:
        """The proof as far as it is."""
        finished_at = self._finished_at
        took = finished_at - self._started_at if finished_at else None
        checked, total = self.progress
        return IntegrityReport(
            status=self._status(),
            started_at=spoken(stored(self._started_at)),
            finished_at=spoken(stored(finished_at)) if finished_at else None,
            duration_ms=None if took is None else max(0, round(took.total_seconds() * 1000)),
            checked=checked,
            total=total,
            reason=self._reason,
            checks=[
                IntegrityCheck(
                    name=name,
                    description=DESCRIPTIONS[name],
                    checked=found.checked,
                    failed=found.failed,
                    examples=list(found.examples),
                )
                for name, found in self._found.items()
            ],
            previous=previous,
        )

    def _status(self) -> IntegrityStatus:
        if self._finished_at is None:
            return IntegrityStatus.RUNNING
        if any(found.failed for found in self._found.values()):
            return IntegrityStatus.BROKEN
        return IntegrityStatus.SOUND if self._reason is None else IntegrityStatus.UNFINISHED

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _rows_of(self, connection: Connection, each: _Pass) -> int:
        self._raise_if_stopped()
        return int(connection.execute(f"SELECT COUNT(*) FROM {each.table}").fetchone()[0])

    def _chunks(self, connection: Connection, each: _Pass) -> Iterator[None]:
        """Goes through one table; a chunk grows or shrinks so that its snapshot lasts some hundredths of a second."""
        low: int = _ID_MIN
        rows = _CHUNK_FIRST
        while True:
            self._raise_if_stopped()
            began = time.perf_counter()
            connection.execute("BEGIN")
            try:
                beyond = connection.execute(
                    f"SELECT {each.key} FROM {each.table} WHERE {each.key} >= ? ORDER BY {each.key} LIMIT 1 OFFSET ?",
                    (low, rows),
                ).fetchone()
                # The last chunk has no end: what belongs to no row of the table is seen there too.
                self._check_chunk(connection, each, low, _ID_MAX if beyond is None else beyond[0] - 1)
            finally:
                if connection.in_transaction:  # after some errors SQLite itself has ended it
                    connection.execute("COMMIT")
            yield
            if beyond is None:
                return
            low = beyond[0]
            took = time.perf_counter() - began
            if took < _CHUNK_S / 2:
                rows = min(rows * 2, _CHUNK_MAX)
            elif took > _CHUNK_S * 2:
                rows = max(rows // 2, _CHUNK_MIN)

    def _check_chunk(self, connection: Connection, each: _Pass, low: int, high: int) -> None:
        limits = {"low": low, "high": high}
        failed: set[tuple[str, Any, Any]] = set()
        for statement in each.statements:
            for telegram_id, transaction_id, table, row_id, *facts in connection.execute(statement.sql, limits):
                for check, said in statement.judge(*facts):
                    if not (statement.once and (check, table, row_id) in failed):
                        self._add(check, telegram_id, transaction_id, table, row_id, said)
                    failed.add((check, table, row_id))
        counts = connection.execute(each.counts, limits)
        names = [column[0] for column in counts.description]
        for name, count in zip(names, counts.fetchone(), strict=True):
            self._found[name].checked += count
        self._checked += connection.execute(
            f"SELECT COUNT(*) FROM {each.table} WHERE {each.key} BETWEEN :low AND :high", limits
        ).fetchone()[0]

    def _check_audit_chain(self, connection: Connection, on_progress: Callable[[], None]) -> None:
        chain = ChainCheck(connection, workers=self._workers)
        before = self._checked
        for _ in chain.chunks():
            self._raise_if_stopped()
            self._found["audit_chain"].checked = chain.checked
            self._checked = before + chain.checked
            on_progress()
        for fault in chain.faults:
            self._add("audit_chain", None, None, "audit_logs", fault.audit_log_id, f"{fault.said}.")

    def _check_api_keys(self, connection: Connection, _: Callable[[], None]) -> None:
        for key_id, said in integrity_agreement.api_keys(connection):
            self._add("audit_of_api_keys", None, None, "api_keys", key_id, said)

    def _check_taken_over(self, connection: Connection, _: Callable[[], None]) -> None:
        try:
            self._found["taken_over"].checked = import_digests.count(connection)
            found = [*import_digests.differences(connection), *kept_digests.differences(connection)]
        except (LookupError, TypeError, ValueError, ArithmeticError):  # a hand may have put anything there
            found = ["The audit row of the import, or of the last prune, does not tell what such a row tells."]
        for said in found:
            self._add("taken_over", None, None, None, None, said)

    def _check_schema(self, connection: Connection, _: Callable[[], None]) -> None:
        wanted = migrator.schema_after(self._migrations)
        self._found["schema"].checked += len(wanted)
        for said in schema.faults(schema.read(connection), wanted):
            self._add("schema", None, None, None, None, said)
        for said in (*sequences.used_up(connection), *sequences.set_back(connection, wanted)):
            self._add("schema", None, None, "sqlite_sequence", None, said)
        for version, said in migrator.records_that_differ(connection, self._migrations):
            self._add("schema", None, None, "schema_migrations", version, said)

    def _check_file(self, connection: Connection, _: Callable[[], None]) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        # quick_check does not compare an index with its table, and a row that a unique index has not is taken twice.
        # integrity_check does, and raises where a page is damaged, which quick_check tells.
        for pragma in ("quick_check", "integrity_check"):
            wrong = [said for (said,) in connection.execute(f"PRAGMA {pragma}") if said != "ok"]
            for said in wrong:
                self._add("file", None, None, None, None, said)
            if wrong:
                break
        self._found["file"].checked = pages
        self._checked += pages

    def _add(self, check: str, telegram_id: Any, transaction_id: Any, table: Any, row_id: Any, said: str) -> None:
        found = self._found[check]
        found.failed += 1
        if len(found.examples) < self._examples_max:
            found.examples.append(
                IntegrityExample(
                    telegram_id=None if telegram_id is None else str(telegram_id),
                    transaction_id=transaction_id if isinstance(transaction_id, int) else None,
                    table=table,
                    row_id=row_id,
                    said=said,
                )
            )
