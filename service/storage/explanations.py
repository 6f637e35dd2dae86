"""The causes of a balance: confirmed transactions with what the bank, the purchases and the log say of them.

Two kinds of rows count. Those with a version are Passbook's, in an order that is proved. Those without, the *history*,
are the bot's and the takeover's. INDEXED BY, because without statistics an index of other columns looks as good to
SQLite as the user's own, and would read every user's rows.
"""

from typing import Any, NamedTuple

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


class VersionSought(NamedTuple):
    """version: the one that was found, or None. below: where it is to be sought next; None when it is settled."""

    version: int | None
    below: int | None


def find_version_at(tx: Connection, user_id: int, moment: str, *, below: int, limit: int) -> VersionSought:
    """The highest version confirmed at or before the stored `moment`, among the `limit` that come next under `below`.

    Versions are the order of truth: where the clock went back, a lower version may have been confirmed later.
    """
    edge = tx.execute(
        "SELECT version FROM deposit_transactions WHERE user_id = ? AND version < ? ORDER BY version DESC"
        " LIMIT 1 OFFSET ?",
        (user_id, below, limit - 1),
    ).fetchone()
    row = tx.execute(
        "SELECT version FROM deposit_transactions WHERE user_id = ? AND version < ? AND version >= ?"
        " AND confirmed_at <= ? ORDER BY version DESC LIMIT 1",
        (user_id, below, edge[0] if edge else 0, moment),
    ).fetchone()
    return VersionSought(row[0] if row else None, edge[0] if edge and not row else None)


def find_recorded_balance(tx: Connection, user_id: int, version: int) -> int | None:
    """The balance in won that transaction `version` left, or for 0 the one that the first found; None without it."""
    column, wanted = ("balance_after", version) if version > 0 else ("balance_before", 1)
    row = tx.execute(
        f"SELECT {column} FROM deposit_transactions WHERE user_id = ? AND version = ?", (user_id, wanted)
    ).fetchone()
    return row[0] if row else None


class HistoryPart(NamedTuple):
    """Some of a user's rows. row: the last that was looked at, None at the end; end: the last that is history."""

    sums: Sums
    row: int | None
    end: int | None


def sum_history(
    tx: Connection, user_id: int, *, until: str | None, after: int | None, limit: int
) -> HistoryPart | None:
    """The sums of the confirmed history up to the stored `until`, or of all of it; `apart` counts what is later.

    Looks at the `limit` rows of the user's that come next behind the row `after`, in the order of created_at and id,
    those without a time first. The bot's rows that have no time count at every moment. None where that row is gone.
    """
    begin = _position(tx, after)
    if begin is None and after is not None:
        return None
    moment, row = begin or (None, 0)
    ranges: list[_Range] = [("created_at IS ? AND id > ?", (moment, row))]
    edge = _nth(tx, user_id, ranges[0], limit)
    if edge is not None:
        ranges = [("created_at IS ? AND id > ? AND id <= ?", (moment, row, edge[1]))]
    else:
        later: _Range = ("created_at > -9e999", ()) if moment is None else ("created_at > ?", (moment,))
        edge = _nth(tx, user_id, later, limit)
        if edge is None:
            ranges += [later]
        else:
            ranges += [(f"{later[0]} AND created_at < ?", (*later[1], edge[0])), ("created_at = ? AND id <= ?", edge)]
    sums, end = Sums(), None
    for one in ranges:
        more, last = _sum_range(tx, user_id, one, until)
        sums, end = sums.plus(more), last or end
    return HistoryPart(sums, edge[1] if edge else None, end)


_Range = tuple[str, tuple[Any, ...]]
"""A condition that an index on (created_at, id) bounds at both ends, with its values. Numbers are before texts."""


def _nth(tx: Connection, user_id: int, where: _Range, n: int) -> tuple[Any, int] | None:
    """(created_at, id) of the nth row of the user's in the range, which the index alone tells; None with fewer."""
    condition, values = where
    found = tx.execute(
        "SELECT created_at, id FROM deposit_transactions INDEXED BY idx_transactions_user"
        f" WHERE user_id = ? AND {condition} ORDER BY created_at, id LIMIT 1 OFFSET ?",
        (user_id, *values, n - 1),
    ).fetchone()
    return tuple(found) if found else None


def _sum_range(tx: Connection, user_id: int, where: _Range, until: str | None) -> tuple[Sums, int | None]:
    """The sums of the history in the range, and its last row."""
    condition, values = where
    history = (
        "FROM deposit_transactions INDEXED BY idx_transactions_user"
        f" WHERE user_id = ? AND {condition} AND version IS NULL AND status = 'confirmed'"
    )
    row = tx.execute(
        f"SELECT {_TOTALS}, COUNT(*) FILTER (WHERE NOT counts) FROM ("
        f"SELECT amount, direction, COALESCE(confirmed_at <= ?, TRUE) AS counts {history}) AS history",
        (until, user_id, *values),
    ).fetchone()
    sums = Sums(count=row[0], credits=row[1], debits=row[2], apart=row[3])
    if not sums.count + sums.apart:
        return sums, None
    last = tx.execute(f"SELECT id {history} ORDER BY created_at DESC, id DESC LIMIT 1", (user_id, *values)).fetchone()
    return sums, last[0]


def _position(tx: Connection, row_id: int | None) -> tuple[Any, int] | None:
    """(created_at, id) of the row, or None where there is none."""
    if row_id is None:
        return None
    found = tx.execute("SELECT created_at, id FROM deposit_transactions WHERE id = ?", (row_id,)).fetchone()
    return tuple(found) if found else None


class ChainPart(NamedTuple):
    """Some versions summed up. version: the highest of them; balance: what it left, None where that is not recorded."""

    sums: Sums
    version: int
    balance: int | None


def sum_versions(
    tx: Connection, user_id: int, *, after: int, version: int, opening: int | None, limit: int
) -> ChainPart:
    """The sums of the versions that come next behind `after`, up to `version`, at most `limit` of them.

    `apart` counts those that do not continue the one before; the first must continue `opening`, the balance in won
    before it.
    """
    edge = tx.execute(
        "SELECT version FROM deposit_transactions WHERE user_id = ? AND version > ? AND version < ? ORDER BY version"
        " LIMIT 1 OFFSET ?",
        (user_id, after, version, limit - 1),
    ).fetchone()
    through = edge[0] if edge else version
    # A look at the row before costs half of what a window does.
    row = tx.execute(
        f"SELECT {_TOTALS}, COUNT(*) FILTER (WHERE status <> 'confirmed' OR balance_before IS NOT previous"
        " OR balance_after IS NOT balance_before + CASE direction WHEN 'credit' THEN amount ELSE -amount END) FROM ("
        "SELECT t.amount, t.direction, t.status, t.balance_before, t.balance_after, TRUE AS counts,"
        " CASE WHEN t.version = (SELECT MIN(version) FROM deposit_transactions WHERE user_id = ? AND version > ?)"
        " THEN ? ELSE (SELECT b.balance_after FROM deposit_transactions AS b WHERE b.user_id = t.user_id"
        " AND b.version < t.version ORDER BY b.version DESC LIMIT 1) END AS previous"
        " FROM deposit_transactions AS t WHERE t.user_id = ? AND t.version > ? AND t.version <= ?) AS chain",
        (user_id, after, opening, user_id, after, through),
    ).fetchone()
    last = tx.execute(
        "SELECT balance_after FROM deposit_transactions WHERE user_id = ? AND version > ? AND version <= ?"
        " ORDER BY version DESC LIMIT 1",
        (user_id, after, through),
    ).fetchone()
    sums = Sums(count=row[0], credits=row[1], debits=row[2], apart=row[3])
    return ChainPart(sums, through, last[0] if last else opening)


def list_versions(tx: Connection, user_id: int, *, version_max: int, limit: int) -> list[Cause]:
    """Up to `limit` causes from version `version_max` down."""
    keys = (
        "SELECT id FROM deposit_transactions WHERE user_id = ? AND version BETWEEN 1 AND ?"
        " ORDER BY version DESC LIMIT ?"
    )
    return _causes(tx, keys, (user_id, version_max, limit))


def list_history(
    tx: Connection, user_id: int, *, end: int, until: str | None, before_id: int, limit: int
) -> list[Cause]:
    """Up to `limit` causes of the history up to `until` with an id below `before_id`, the highest first.

    `end` is the last row of the history by created_at and id: what comes behind it is not looked at.
    """
    conditions = (
        "user_id = ? AND version IS NULL AND status = 'confirmed' AND id < ? AND COALESCE(confirmed_at <= ?, TRUE)"
    )
    walk = f"SELECT id FROM deposit_transactions INDEXED BY idx_transactions_user WHERE {conditions}"
    keys = f"{walk} AND created_at IS NULL UNION ALL {walk} AND (created_at, id) <= (?, ?) ORDER BY id DESC LIMIT ?"
    asked = (user_id, before_id, until)
    return _causes(tx, keys, (*asked, *asked, *(_position(tx, end) or (None, 0)), limit))


def _causes(tx: Connection, keys: str, parameters: tuple[Any, ...]) -> list[Cause]:
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
