"""What may stand in a row that is taken over: SQLite keeps any value in any column, the ledger must not.

Money and ids are whole numbers or the row is refused; one that is whole in another type (5000.0, '5000') is taken for
the number that it is. Times that can be read are spelled as rows hold them; those that cannot become null. Where the
old value said more, or was money, it goes to the audit log. Text that is binary data is refused.
"""

import math
import re
from collections.abc import Callable, Mapping

from msgspec import Struct

from service.ledger.fields import BALANCE_MAX, TELEGRAM_ID_PATTERN, is_padded
from service.ledger.timestamps import restored

Value = str | int | float | bytes | None
"""What a column of SQLite can hold."""

_WHOLE_NUMBERS = {
    "id", "user_id", "matched_transaction_id", "resource_id", "balance", "amount", "price", "balance_after",
}  # fmt: skip
_SEALED_ID = ("audit_logs", "id")
_MONEY = {"balance", "amount", "price", "balance_after"}
FRACTION = "typeof({column}) = 'real' AND {column} <> round({column}) AND abs({column}) < 9e15"
"""SQL that is true of a number of won that is no whole one; beyond 2^53 none has a fraction."""
_MAY_BE_NULL = {"matched_transaction_id", "balance_after", "price"}
_TIMES = {"created_at", "confirmed_at", "registered_at", "expires_at", "transaction_time"}
# As nearly every row holds it; what else is a time is told by `restored`.
_PLAIN_TIME = re.compile(
    r"[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8]) ([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
)
_PLAIN_INTEGER = re.compile(r"[+-]?[0-9]{1,16}")
_TELEGRAM_ID = re.compile(TELEGRAM_ID_PATTERN)
_WHOLE_WITH_FRACTION = re.compile(r"([0-9]{1,20})\.0*")


class Refused(Exception):
    """The value cannot be taken over. The text says what is wrong with it."""


class Taken(Struct, frozen=True):
    """The value as it will be stored. `mended`: the old one belongs into the audit log: it says more or is money.

    respelled: a time that is the same instant in other letters. retyped: a number or a name of digits that is the same
    in another type.
    """

    value: Value
    mended: bool = False
    respelled: bool = False
    retyped: bool = False


Test = Callable[[Value], bool]


def plain(table: str, column: str) -> Test:
    """A quick test whether a value of the column may stand as it is; of those that fail it, `take` says the rest."""
    may_be_null = column in _MAY_BE_NULL or (table == "audit_logs" and column in {"user_id", "resource_id"})
    if (table, column) == _SEALED_ID:
        return lambda value: type(value) is int and 0 < value <= BALANCE_MAX
    if column in _WHOLE_NUMBERS:
        return lambda value: (
            -BALANCE_MAX <= value <= BALANCE_MAX if type(value) is int else value is None and may_be_null
        )
    if column in _TIMES:
        return lambda value: value is None or (type(value) is str and _PLAIN_TIME.fullmatch(value) is not None)
    if column == "telegram_id" and table == "users":  # one that begins with 0 is told of
        return lambda value: type(value) is str and is_telegram_id(value) and not is_padded(value)
    if column == "telegram_id":
        return lambda value: value is None or (type(value) is str and is_telegram_id(value))
    return lambda value: value is None or type(value) is str


def odd(table: str, column: str) -> str:
    """SQL that is true of every value of the column that `take` does not take as it is, and of few others.

    It says nothing of text that is no UTF-8: SQLite does not ask.
    """
    if (table, column) == _SEALED_ID:
        return f"typeof({column}) <> 'integer' OR {column} NOT BETWEEN 1 AND {BALANCE_MAX}"
    if column in _WHOLE_NUMBERS:
        return f"typeof({column}) NOT IN ('integer', 'null') OR {column} NOT BETWEEN -{BALANCE_MAX} AND {BALANCE_MAX}"
    if column in _TIMES:
        # datetime() leaves the hour 24 as it is, and no clock of ours has one.
        return f"{column} IS NOT datetime({column}) OR {column} < '1' OR {column} GLOB '* 24:*'"
    other = f"typeof({column}) NOT IN ('text', 'null')"
    if column == "telegram_id":
        return f"{other} OR {column} GLOB '*[^0-9]*'"
    never = " OR (status = 'pending' AND amount <= 0)" if (table, column) == ("deposit_transactions", "status") else ""
    return other + never


def is_text(column: str) -> bool:
    """Whether the column holds words, not numbers or times."""
    return column not in _WHOLE_NUMBERS | _TIMES


def take(table: str, column: str, value: Value) -> Taken:
    """What becomes of `value`. Raises Refused."""
    if table == "audit_logs" and column in {"user_id", "resource_id"}:
        try:
            return Taken(None) if value is None else _taken_number(column, value)
        except Refused:
            return Taken(None, mended=True)
    if column in _WHOLE_NUMBERS:
        if value is None and column in _MAY_BE_NULL:
            return Taken(None)
        taken = _taken_number(column, value)
        if (table, column) == _SEALED_ID and not _is_above_0(taken.value):
            raise Refused(f"{shown(value)} is below 1, the least id that can be sealed; give the row one that is free")
        return taken
    if column in _TIMES:
        return _time(value)
    if isinstance(value, bytes):
        raise Refused(f"{shown(value)} is no text")
    if column == "telegram_id" and value is not None:
        return _telegram_id(value, is_name=table == "users")
    return Taken(None if value is None else str(value))


def is_money(column: str) -> bool:
    """Whether the column holds won."""
    return column in _MONEY


def is_fraction(column: str | None, value: Value) -> bool:
    """Whether the value is a number of won that is no whole one."""
    return column in _MONEY and isinstance(value, float) and math.isfinite(value) and not value.is_integer()


def about_fractions(rows: Mapping[tuple[str, str], int]) -> str:
    """One sentence about all of them. `rows`: (table, column) -> how many rows have a fraction there."""
    told = ", ".join(
        f"{table}.{column} ({count:,} row{'s' if count > 1 else ''})" for (table, column), count in rows.items()
    )
    statements = " ".join(f"UPDATE {table} SET {column} = round({column});" for table, column in rows)
    return (
        f"There are fractions of a won in {told}, and Passbook keeps whole won: round them in the source, each in your"
        f" user's favour or as you decide, such as {statements}"
    )


def _is_above_0(value: Value) -> bool:
    return isinstance(value, int) and value > 0


def _taken_number(column: str, value: Value) -> Taken:
    same = isinstance(value, int)
    return Taken(_whole_number(value), mended=not same and column in _MONEY, retyped=not same)


def _whole_number(value: Value) -> int:
    plain = isinstance(value, str) and _PLAIN_INTEGER.fullmatch(value)
    if not (isinstance(value, int) or plain or (isinstance(value, float) and value.is_integer())):
        raise Refused(f"{shown(value)} is no whole number")
    number = int(value)  # type: ignore[arg-type]
    if abs(number) > BALANCE_MAX:
        raise Refused(f"{shown(value)} is beyond {BALANCE_MAX:,}")
    return number


def _time(value: Value) -> Taken:
    if value is None:
        return Taken(None)
    try:
        text, same = restored(value)
    except ValueError:
        return Taken(None, mended=True)
    if value in {text, f"{text}.000"}:
        return Taken(value)
    return Taken(text, mended=not same, respelled=same)


def _telegram_id(value: str | int | float, *, is_name: bool) -> Taken:
    if is_name and isinstance(value, int | float) and math.isfinite(value) and abs(value) > BALANCE_MAX:
        raise Refused(
            f"{shown(value)} is a number beyond {BALANCE_MAX:,}, which may have been rounded; it must be text"
        )
    if isinstance(value, int):
        return Taken(str(value), retyped=True)
    text = f"{value:.1f}" if isinstance(value, float) and math.isfinite(value) else str(value)
    text = text.strip()
    found = _WHOLE_WITH_FRACTION.fullmatch(text)
    if found:
        text = found[1]
    if text == value or not is_telegram_id(text):
        return Taken(str(value))
    return Taken(text, mended=True, retyped=isinstance(value, float))


def never_confirmable(transaction_row: Mapping[str, Value]) -> bool:
    """Whether it is a deposit that waits for an amount nobody can pay in; an import cancels it."""
    amount = transaction_row["amount"]
    return (
        (transaction_row["type"], transaction_row["status"]) == ("deposit", "pending")
        and isinstance(amount, int)
        and amount <= 0
    )


def is_telegram_id(text: str) -> bool:
    """Whether the API can name a user by `text`."""
    return bool(_TELEGRAM_ID.match(text))


def shown(value: Value) -> str:
    """`value` for a message: quoted, without control characters, of bounded length."""
    text = "NULL" if value is None else f"X'{value[:20].hex()}'" if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def logged(value: Value) -> str | int | float | None:
    """`value` whole, as JSON can hold it."""
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
