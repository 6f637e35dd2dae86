"""The bot's words for what moves money, and what an import makes of them.

Migration 003 reads some words as debits and everything else as a credit. What it does not know is said here, or by
the operator: a word that means a debit there and is counted as a credit would change a balance's history.
"""

from collections.abc import Mapping

from service.ledger.transactions import Direction
from service.storage.exporter import DEBIT_TYPES
from service.storage.migrator import Migration

DEBITS = (*DEBIT_TYPES, "출금")
"""Types of money that leaves."""
PLAIN_CREDITS = ("deposit", "refund", "credit", "bonus", "opening_credit")
"""Types of money that comes in, of which nothing has to be said."""
CREDITS = (*PLAIN_CREDITS, "입금", "환불")
"""Types of money that comes in."""
FOREIGN = ("출금", "입금", "환불")
"""Types that migration 003 does not know and that need no telling."""
DEPOSITS = {"입금": "deposit"}
"""The bot's word for a deposit -> Passbook's: only what has that type is listed, confirmed and matched as one."""
_LEDGER = 3
"""The migration that gives every transaction its direction."""
_BEFORE = "-- A negative amount is a debit of its absolute value"


def direction_of(word: str, told: Mapping[str, Direction]) -> Direction | None:
    """Which way money of this type moves; None when nothing says so."""
    if word in DEBITS:
        return Direction.DEBIT
    return Direction.CREDIT if word in CREDITS else told.get(word)


def unknown_to_003(told: Mapping[str, Direction]) -> list[str]:
    """The types that are debits though migration 003 does not know it."""
    return sorted({word for word in (*DEBITS, *told) if direction_of(word, told) is Direction.DEBIT} - {*DEBIT_TYPES})


def taught(migrations: list[Migration], told: Mapping[str, Direction]) -> list[Migration]:
    """`migrations` for an import: 003 knows the further words for debits. The records of them stay the same.

    The file itself cannot know them: it was applied to other databases, and its checksum is on record there.
    """
    words = ", ".join("'" + word.replace("'", "''") + "'" for word in unknown_to_003(told))
    ledger = migrations[_LEDGER]
    before, mark, after = ledger.up.partition(_BEFORE)
    if not mark:
        raise AssertionError(f"{ledger.name} has changed: it says nothing of negative amounts.")
    update = f"UPDATE deposit_transactions SET direction = 'debit' WHERE amount >= 0 AND type IN ({words});\n\n"
    changed = Migration(
        version=ledger.version,
        name=ledger.name,
        up=f"{before}{update}{mark}{after}",
        down=ledger.down,
        checksum=ledger.checksum,
    )
    return [*migrations[:_LEDGER], changed, *migrations[_LEDGER + 1 :]]
