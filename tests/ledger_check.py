"""What must be true of a database after anything: the invariants, in SQL that shares nothing with the service."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

_BALANCE_IS_SUM = """
SELECT u.telegram_id, d.balance, COALESCE(t.moved, 0) AS s
FROM users AS u JOIN user_deposits AS d ON d.user_id = u.id
LEFT JOIN (SELECT user_id, SUM(CASE direction WHEN 'credit' THEN amount ELSE -amount END) AS moved
           FROM deposit_transactions WHERE status = 'confirmed' GROUP BY user_id) AS t ON t.user_id = u.id
WHERE d.balance <> s OR d.balance < 0
"""
_CHAIN_BROKEN = """
SELECT user_id, version FROM (
  SELECT user_id, version, balance_before, balance_after, amount, direction,
         LAG(balance_after) OVER w AS previous, ROW_NUMBER() OVER w AS place
  FROM deposit_transactions WHERE version IS NOT NULL WINDOW w AS (PARTITION BY user_id ORDER BY version))
WHERE version <> place OR (place > 1 AND previous <> balance_before)
   OR balance_after <> balance_before + CASE direction WHEN 'credit' THEN amount ELSE -amount END
"""
_LAST_VERSION = """
SELECT d.user_id FROM user_deposits AS d
WHERE d.version <> (SELECT COALESCE(MAX(version), 0) FROM deposit_transactions WHERE user_id = d.user_id)
   OR d.version > 0 AND d.balance <> (SELECT balance_after FROM deposit_transactions
                                      WHERE user_id = d.user_id AND version = d.version)
"""
_NOT_AUDITED_ONCE = """
SELECT t.id FROM deposit_transactions AS t WHERE t.version IS NOT NULL AND (
  SELECT COUNT(*) FROM audit_logs AS a WHERE a.resource_type = 'deposit_transaction' AND a.resource_id = t.id
    AND a.action IN ('deposit_confirmed', 'balance_debited', 'balance_credited', 'transaction_reversed'))
  + CASE WHEN t.type IN ('domain_purchase', 'domain_refund') THEN (
    SELECT COUNT(*) FROM audit_logs AS a WHERE a.resource_type = 'user_domains' AND a.action LIKE 'domain_%'
      AND a.user_id = t.user_id
      AND iif(json_valid(a.details), json_extract(a.details, '$.transaction_id'), 0) = t.id) ELSE 0 END <> 1
"""
_AUDITED_WITHOUT_CHANGE = """
SELECT a.id FROM audit_logs AS a
WHERE a.action IN ('deposit_confirmed', 'balance_debited', 'balance_credited', 'transaction_reversed')
  AND a.actor IS NOT NULL AND NOT EXISTS (SELECT 1 FROM deposit_transactions AS t
  WHERE t.id = a.resource_id AND t.status = 'confirmed' AND t.version IS NOT NULL)
"""
_REVERSED_WRONGLY = """
SELECT r.id FROM deposit_transactions AS r LEFT JOIN deposit_transactions AS t ON t.id = r.reverses_id
WHERE r.reverses_id IS NOT NULL AND (t.id IS NULL OR t.user_id <> r.user_id OR t.amount <> r.amount
  OR t.direction = r.direction OR t.status <> 'confirmed' OR r.status <> 'confirmed'
  OR (SELECT COUNT(*) FROM deposit_transactions WHERE reverses_id = t.id) <> 1)
"""
_MATCHED_WRONGLY = """
SELECT b.id FROM bank_notifications AS b LEFT JOIN deposit_transactions AS t ON t.id = b.matched_transaction_id
WHERE (b.status = 'matched') <> (b.matched_transaction_id IS NOT NULL)
   OR b.matched_transaction_id IS NOT NULL AND (t.id IS NULL OR t.status <> 'confirmed' OR t.amount <> b.amount)
   OR b.match_method IS NOT NULL AND (
     (SELECT COUNT(*) FROM bank_notifications WHERE matched_transaction_id = t.id AND match_method IS NOT NULL) <> 1)
"""
_MATCH_NOT_AUDITED = """
SELECT b.id FROM bank_notifications AS b WHERE b.bank_transaction_id IS NOT NULL AND (
  (SELECT COUNT(*) FROM audit_logs WHERE resource_type = 'bank_notification' AND resource_id = b.id
     AND action = 'bank_notification_received') <> 1
  OR (SELECT COUNT(*) FROM audit_logs WHERE resource_type = 'bank_notification' AND resource_id = b.id
        AND (action = 'bank_notification_matched'
          OR iif(json_valid(details), json_extract(details, '$.status'), '') = 'matched'))
     <> (b.status = 'matched')
        + (SELECT COUNT(*) FROM bank_notification_events WHERE bank_notification_id = b.id AND kind = 'freed')
  OR (SELECT COUNT(*) FROM audit_logs WHERE action = 'deposit_confirmed' AND resource_id <> b.matched_transaction_id
        AND resource_id NOT IN (SELECT deposit_id FROM bank_notification_events
                                WHERE bank_notification_id = b.id AND deposit_id IS NOT NULL)
        AND iif(json_valid(details), json_extract(details, '$.matched_bank_notification_id'), 0) = b.id) > 0)
"""
_CHAINS = """
WITH RECURSIVE chain(purchase, id, direction, type) AS (
  SELECT p.id, t.id, t.direction, t.type
  FROM user_domains AS p JOIN deposit_transactions AS t ON t.id = p.transaction_id
  UNION SELECT c.purchase, r.id, r.direction, r.type
  FROM chain AS c JOIN deposit_transactions AS r ON r.reverses_id = c.id),
ends AS (SELECT purchase, direction, type FROM chain
         WHERE id NOT IN (SELECT reverses_id FROM deposit_transactions WHERE reverses_id IS NOT NULL))
"""
_PRICE_ELSEWHERE = (
    _CHAINS
    + """
SELECT p.id, p.status, e.direction, e.type FROM user_domains AS p LEFT JOIN ends AS e ON e.purchase = p.id
LEFT JOIN deposit_transactions AS t ON t.id = p.transaction_id
WHERE p.ascii_name IS NOT NULL AND (
  t.type IS NOT 'domain_purchase' OR t.direction IS NOT 'debit' OR t.amount IS NOT p.price OR t.user_id <> p.user_id
  OR (SELECT COUNT(*) FROM user_domains WHERE transaction_id = t.id) <> 1
  OR CASE p.status WHEN 'pending' THEN e.direction IS NOT 'debit'
                   WHEN 'registered' THEN e.direction = 'credit' AND e.type <> 'reversal'
                   ELSE e.direction IS NOT 'credit' END)
"""
)
_DOMAIN_MONEY_ASTRAY = (
    _CHAINS
    + """
SELECT t.id, t.type FROM deposit_transactions AS t
WHERE t.version IS NOT NULL AND t.type IN ('domain_purchase', 'domain_refund') AND t.id NOT IN (SELECT id FROM chain)
"""
)
_REGISTERED_FOR_NOTHING = """
SELECT p.id FROM user_domains AS p
WHERE p.status = 'registered' AND p.ascii_name IS NOT NULL AND (
  SELECT MAX(a.id) FROM audit_logs AS a JOIN deposit_transactions AS r ON r.id = a.resource_id
  WHERE a.resource_type = 'deposit_transaction' AND a.action = 'transaction_reversed'
    AND r.reverses_id = p.transaction_id
    AND r.id NOT IN (SELECT reverses_id FROM deposit_transactions WHERE reverses_id IS NOT NULL)
) < (SELECT MIN(id) FROM audit_logs
     WHERE resource_type = 'user_domains' AND resource_id = p.id AND action = 'domain_registered')
"""


_NOT_SEALED_ONCE = """
SELECT a.id, l.leaf_index
FROM (SELECT id, ROW_NUMBER() OVER (ORDER BY id) - 1 AS place FROM audit_logs) AS a
FULL JOIN audit_leaves AS l ON l.audit_log_id = a.id
WHERE a.place IS NOT l.leaf_index
UNION ALL SELECT size, last_id FROM audit_tree WHERE size <> (SELECT COUNT(*) FROM audit_logs)
"""
"""By the tree's own count; that the hashes are right is for those who can hash."""


def _put_back(connection: sqlite3.Connection, archives: Sequence[Path]) -> None:
    """A table of this connection alone, in the place of audit_logs, with all rows that it ever had."""
    connection.execute("CREATE TEMP TABLE audit_logs AS SELECT * FROM main.audit_logs")
    connection.execute("CREATE INDEX temp.by_resource ON audit_logs (resource_type, resource_id)")
    for archive in archives:
        for line in archive.read_text("utf-8").splitlines()[1:]:
            row = {name: value for name, value in json.loads(line).items() if name not in _SEAL}
            places = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO temp.audit_logs ({', '.join(row)}) VALUES ({places})", [*row.values()])


_SEAL = {"leaf_index", "salt", "public_details", "commitment", "rule", "leaf"}


def broken_invariants(database: Path, archives: Sequence[Path] = ()) -> list[str]:
    """The name and the first rows of every invariant that does not hold; empty for a sound database.

    `archives`: what was pruned of the audit log, which is asked together with what is left of it.
    """
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        if archives:
            _put_back(connection, archives)
        found = []
        for name, sql in (
            ("balance is not the sum of its transactions", _BALANCE_IS_SUM),
            ("versions or balances do not continue each other", _CHAIN_BROKEN),
            ("the account is not where its last transaction left it", _LAST_VERSION),
            ("a movement is not audited exactly once", _NOT_AUDITED_ONCE),
            ("an audit row names a movement that is not there", _AUDITED_WITHOUT_CHANGE),
            ("a transaction was reversed twice or not whole", _REVERSED_WRONGLY),
            ("the price of a purchase is not where its status says", _PRICE_ELSEWHERE),
            ("money for a domain belongs to no purchase", _DOMAIN_MONEY_ASTRAY),
            ("a name was registered when its price was back", _REGISTERED_FOR_NOTHING),
            ("a notification is matched with what is not its deposit", _MATCHED_WRONGLY),
            ("a notification is not audited once, and once when it is matched", _MATCH_NOT_AUDITED),
            ("the audit log and its leaves are not one to one", _NOT_SEALED_ONCE),
            ("a foreign key dangles", "PRAGMA foreign_key_check"),
        ):
            rows = connection.execute(sql).fetchmany(3)
            if rows:
                found.append(f"{name}: {rows}")
        if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            found.append("integrity_check")
        return found
    finally:
        connection.close()
