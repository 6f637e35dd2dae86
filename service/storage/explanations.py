"""The causes of a balance: confirmed transactions with what the bank, the purchases and the log say of them.

Two kinds of rows count. Those with a version are Passbook's, in an order that is proved. Those without, the *history*,
are the bot's and the takeover's. INDEXED BY, because without statistics an index of other columns looks as good to
SQLite as the user's own, and would read every user's rows.
"""

from typing import Any

from service.ledger.explanations import BankLine, Cause, Source, Sums
from service.ledger.timestamps import spoken
from service.ledger.transactions import Direction
from service.storage.audit_prunes import sql_of_told
from service.storage.sqlite import Connection

_TOTALS = (
    "COUNT(*) FILTER (WHERE counts), COALESCE(SUM(amount) FILTER (WHERE counts AND direction = 'credit'), 0),"
    " COALESCE(SUM(amount) FILTER (WHERE counts AND direction = 'debit'), 0)"
)
# The audit row of a movement for a domain hangs on the purchase; it is found by its user and its instant, which are the
# movement's, or, where it no longer names its user, by the user's purchases; it tells which purchase it was. Where it
# was archived, the purchase is the one that the movement pays or takes back. A row of the bot's may hold text that is
# no JSON.
_SELECT_CAUSES = f"""
SELECT t.id, t.type, t.direction, t.amount, t.balance_before, t.balance_after, t.version, t.confirmed_at, t.description,
       t.reference, t.depositor_name, t.reverses_id, (SELECT id FROM deposit_transactions WHERE reverses_id = t.id),
       p.id, p.domain, a.id, a.actor, a.request_id,
       a.action = 'opening_adjustment' OR a.id IS NULL AND {sql_of_told("opening_adjustment", "t.id")},
       n.id, n.bank_transaction_id, n.bank_name, n.depositor_name, n.amount, n.transaction_time, n.match_method,
       n.matched_by
FROM ({{keys}}) AS k
JOIN deposit_transactions AS t ON t.id = k.id
JOIN users AS u ON u.id = t.user_id
LEFT JOIN audit_logs AS a ON a.id =
  CASE WHEN t.version IS NOT NULL AND t.type IN ('domain_purchase', 'domain_refund') THEN COALESCE((
    SELECT MIN(id) FROM audit_logs
    WHERE telegram_id = u.telegram_id AND created_at = t.created_at AND resource_type = 'user_domains'
      AND CASE WHEN json_valid(details) THEN json_extract(details, '$.transaction_id') END = t.id), (
    SELECT MIN(id) FROM audit_logs
    WHERE EXISTS (SELECT 1 FROM user_erasures WHERE user_id = u.id) AND resource_type = 'user_domains'
      AND resource_id IN (SELECT id FROM user_domains WHERE user_id = u.id) AND created_at = t.created_at
      AND CASE WHEN json_valid(details) THEN json_extract(details, '$.transaction_id') END = t.id))
  ELSE (
    SELECT MIN(id) FROM audit_logs
    WHERE resource_type = 'deposit_transaction' AND resource_id = t.id AND action IN
      ('deposit_confirmed', 'balance_debited', 'balance_credited', 'transaction_reversed', 'opening_adjustment'))
  END
LEFT JOIN user_domains AS p ON p.id = CASE
  WHEN a.resource_type = 'user_domains' THEN a.resource_id
  WHEN a.id IS NULL AND {sql_of_told("moved", "t.id")} AND t.type IN ('domain_purchase', 'domain_refund') THEN (
    SELECT MIN(id) FROM user_domains
    WHERE user_id = t.user_id AND ascii_name IS NOT NULL AND transaction_id IN (
      WITH RECURSIVE chain(id) AS (
        SELECT t.id UNION SELECT r.reverses_id FROM chain JOIN deposit_transactions AS r ON r.id = chain.id
        WHERE r.reverses_id IS NOT NULL)
      SELECT id FROM chain))
  END
LEFT JOIN bank_notifications AS n ON n.id = (
  SELECT id FROM bank_notifications WHERE matched_transaction_id = t.id ORDER BY match_method IS NULL, id DESC LIMIT 1)
ORDER BY t.version DESC NULLS LAST, t.id DESC
"""


def find_latest_version(tx: Connection, user_id: int) -> int:
    """The version of the user's last transaction; 0 when none has one."""
    found: int = tx.execute(
        "SELECT COALESCE(MAX(version), 0) FROM deposit_transactions WHERE user_id = ? AND version IS NOT NULL",
        (user_id,),
    ).fetchone()[0]
    return found


def find_version_at(tx: Connection, user_id: int, moment: str) -> int | None:
    """The highest version confirmed at or before the stored `moment`, or None.

    Versions are the order of truth: where the clock went back, a lower version may have been confirmed later.
    """
    row = tx.execute(
        "SELECT version FROM deposit_transactions WHERE user_id = ? AND version IS NOT NULL AND confirmed_at <= ?"
        " ORDER BY version DESC LIMIT 1",
        (user_id, moment),
    ).fetchone()
    return row[0] if row else None


def find_recorded_balance(tx: Connection, user_id: int, version: int) -> int | None:
    """The balance in won that transaction `version` left, or for 0 the one that the first found; None without it."""
    column, wanted = ("balance_after", version) if version > 0 else ("balance_before", 1)
    row = tx.execute(
        f"SELECT {column} FROM deposit_transactions WHERE user_id = ? AND version = ?", (user_id, wanted)
    ).fetchone()
    return row[0] if row else None


def sum_history(tx: Connection, user_id: int, *, until: str | None) -> Sums:
    """The sums of the confirmed history up to the stored `until`, or of all of it; `apart` counts what is later.

    The bot's rows that have no time count at every moment.
    """
    row = tx.execute(
        f"SELECT {_TOTALS}, COUNT(*) FILTER (WHERE NOT counts) FROM ("
        "SELECT amount, direction, COALESCE(confirmed_at <= ?, TRUE) AS counts FROM deposit_transactions"
        " INDEXED BY idx_transactions_user WHERE user_id = ? AND version IS NULL AND status = 'confirmed') AS history",
        (until, user_id),
    ).fetchone()
    return Sums(count=row[0], credits=row[1], debits=row[2], apart=row[3])


def sum_versions(tx: Connection, user_id: int, *, version: int, opening: int) -> Sums:
    """The sums of versions 1 to `version`; `apart` counts those that do not continue the one before.

    The first must continue `opening`, the balance in won before it.
    """
    row = tx.execute(
        f"SELECT {_TOTALS}, COUNT(*) FILTER (WHERE status <> 'confirmed' OR balance_before IS NOT previous"
        " OR balance_after IS NOT balance_before + CASE direction WHEN 'credit' THEN amount ELSE -amount END) FROM ("
        "SELECT amount, direction, status, balance_before, balance_after, TRUE AS counts,"
        " LAG(balance_after, 1, ?) OVER (ORDER BY version) AS previous"
        " FROM deposit_transactions WHERE user_id = ? AND version BETWEEN 1 AND ?) AS chain",
        (opening, user_id, version),
    ).fetchone()
    return Sums(count=row[0], credits=row[1], debits=row[2], apart=row[3])


def list_versions(tx: Connection, user_id: int, *, version_max: int, limit: int) -> list[Cause]:
    """Up to `limit` causes from version `version_max` down."""
    keys = (
        "SELECT id FROM deposit_transactions WHERE user_id = ? AND version BETWEEN 1 AND ?"
        " ORDER BY version DESC LIMIT ?"
    )
    return _causes(tx, keys, (user_id, version_max, limit))


def list_history(tx: Connection, user_id: int, *, until: str | None, before_id: int, limit: int) -> list[Cause]:
    """Up to `limit` causes of the history up to `until` with an id below `before_id`, the highest first."""
    keys = (
        "SELECT id FROM deposit_transactions INDEXED BY idx_transactions_user"
        " WHERE user_id = ? AND version IS NULL AND status = 'confirmed' AND id < ?"
        " AND COALESCE(confirmed_at <= ?, TRUE) ORDER BY id DESC LIMIT ?"
    )
    return _causes(tx, keys, (user_id, before_id, until, limit))


def _causes(tx: Connection, keys: str, parameters: tuple[int | str | None, ...]) -> list[Cause]:
    return [_cause(row) for row in tx.execute(_SELECT_CAUSES.format(keys=keys), parameters).fetchall()]


def _cause(row: tuple[Any, ...]) -> Cause:
    moved, (domain_purchase_id, domain), audit, notification = row[:13], row[13:15], row[15:19], row[19:]
    (transaction_id, kind, direction, amount, balance_before, balance_after, version, confirmed_at, *told) = moved
    description, reference, depositor_name, reverses_id, reversed_by_id = told
    audit_log_id, actor, request_id, was_taken_over = audit
    return Cause(
        transaction_id=transaction_id,
        source=_source(version, taken_over=bool(was_taken_over)),
        type=kind,
        direction=Direction(direction),
        amount=amount,
        effect=amount if direction == Direction.CREDIT else -amount,
        balance_before=balance_before,
        balance_after=balance_after,
        version=version,
        confirmed_at=None if confirmed_at is None else spoken(confirmed_at),
        description=description,
        reference=reference,
        depositor_name=depositor_name,
        reverses_id=reverses_id,
        reversed_by_id=reversed_by_id,
        domain_purchase_id=domain_purchase_id,
        domain=domain,
        audit_log_id=audit_log_id,
        actor=actor,
        request_id=request_id,
        bank_notification=_bank_line(notification) if notification[0] is not None else None,
    )


def _source(version: int | None, *, taken_over: bool) -> Source:
    # The bot may have had an opening_debit of its own; the takeover's is the one that migration 003 put on record.
    if version is not None:
        return Source.PASSBOOK
    return Source.TAKEOVER if taken_over else Source.BOT


def _bank_line(row: tuple[Any, ...]) -> BankLine:
    values = dict(zip(BankLine.__struct_fields__, row, strict=True))
    occurred_at = values["occurred_at"]
    return BankLine(**{**values, "occurred_at": None if occurred_at is None else spoken(occurred_at)})
