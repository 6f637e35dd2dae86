"""What the rows of one user come to: sums that the ledger, and whoever reads its answers, can hold exactly.

Each value by itself is `import_values`' to judge. A thousand of them, each within its bound, may still add up to what
no column, no sum of SQLite's and no reader of JSON holds.
"""

from collections.abc import Iterator, Sequence

from service.ledger.fields import BALANCE_MAX
from service.storage.sqlite import Connection

_HALF_BITS = 26
"""An amount is summed in two halves: whatever the rows, neither sum leaves the 64 bits of an integer of SQLite's."""
_SUM = f"COALESCE(SUM({{size}} >> {_HALF_BITS}), 0), COALESCE(SUM({{size}} & {(1 << _HALF_BITS) - 1}), 0)"
_WITHIN = f"typeof({{0}}) = 'integer' AND {{0}} BETWEEN -{BALANCE_MAX} AND {BALANCE_MAX}"
# In the words of migration 003 (and `import_words`): a negative amount is a debit, and so is what has a debit's type. A
# negative balance is rejected by 001, which leaves 0.
_MOVED = f"""
SELECT user_id, NOT is_debit AS credit, is_debit AS debit, 0 AS balance, abs(amount) AS size FROM (
  SELECT user_id, amount, amount < 0 OR type IN ({{debits}}) AS is_debit FROM ({{transactions}})
  WHERE status = 'confirmed' AND {_WITHIN.format("amount")}
)
UNION ALL
SELECT user_id, 0, 0, 1, balance FROM ({{accounts}}) WHERE {_WITHIN.format("balance")} AND balance > 0
"""
_ALL = "SELECT TOTAL(size) FROM ({moved})"
_BY_USER = f"""
SELECT user_id, {_SUM.format(size="size * credit")}, {_SUM.format(size="size * debit")}, TOTAL(size * balance)
FROM ({{moved}}) GROUP BY user_id HAVING TOTAL(size) > {BALANCE_MAX} ORDER BY user_id
"""


def beyond(
    connection: Connection, *, transactions: str, accounts: str, debits: Sequence[str]
) -> Iterator[tuple[int, str]]:
    """Each user, by users.id, whose money that came in adds up to more than BALANCE_MAX won, and why, in words.

    Counted are the confirmed transactions and the opening entry that migration 003 will add. With it, what came in is
    what went out and the balance: no other sum is greater. `transactions` is a SELECT of user_id, type, amount and
    status, `accounts` one of user_id and balance; `debits` are the types of money that leaves. A value that is no
    amount is left out.
    """
    words = ", ".join("'" + word.replace("'", "''") + "'" for word in debits)
    moved = _MOVED.format(transactions=transactions, accounts=accounts, debits=words)
    if connection.execute(_ALL.format(moved=moved)).fetchone()[0] <= BALANCE_MAX:
        return  # nearly always
    for user_id, *halves, balance in connection.execute(_BY_USER.format(moved=moved)).fetchall():
        came_in, went_out = ((high << _HALF_BITS) + low for high, low in (halves[:2], halves[2:]))
        total = max(came_in, went_out + int(balance))
        if total > BALANCE_MAX:
            with_opening = " with its opening entry" if total > came_in else ""
            yield user_id, f"what came in{with_opening} adds up to {total}, which is beyond {BALANCE_MAX:,}"
