"""The values of the bot's rows that the ledger cannot keep as they are: SQLite lets any of them stand in any column.

They are what an import would mend or refuse, by the same rules (`import_values.py`); here nothing is written.
"""

from collections import deque
from collections.abc import Iterator, Mapping

from msgspec import Struct

from service.storage import copies, import_sums, import_values, sqlite
from service.storage.exporter import DEBIT_TYPES
from service.storage.import_source import text_or_bytes
from service.storage.import_values import Refused, Value
from service.storage.progress import Progress
from service.storage.sqlite import Connection


class Loose(Struct, frozen=True, kw_only=True):
    """A value, by table, id of its row, and column. `why` says what is wrong, or what an import would make of it."""

    table: str
    row: str
    column: str
    why: str


def loose(
    connection: Connection, selects: Mapping[str, tuple[list[str], str]], on_progress: Progress
) -> Iterator[Loose]:
    """Every such value. `selects`: table -> its columns, `id` first, and the SELECT of them."""
    for done, (table, (columns, select)) in enumerate(selects.items()):

        def look(done: int = done) -> None:
            on_progress("checking values", done, len(selects))

        with copies.looked_in_upon(connection, look):
            # SQLite itself passes by what nearly every row holds; that takes a quarter of the time.
            odd = " OR ".join(import_values.odd(table, column) for column in columns)
            if not _is_utf8(connection, columns, select):
                odd = "true"
            earlier, connection.text_factory = connection.text_factory, text_or_bytes
            try:
                for row in connection.execute(f"SELECT * FROM ({select}) WHERE {odd}"):
                    yield from _of_row(table, columns, row)
            finally:
                connection.text_factory = earlier


def loose_sums(connection: Connection, selects: Mapping[str, tuple[list[str], str]]) -> Iterator[Loose]:
    """Every user whose rows add up to more than the ledger holds; `selects` as for `loose`."""
    needed = {"deposit_transactions": {"user_id", "type", "amount", "status"}, "user_deposits": {"user_id", "balance"}}
    if all(columns <= set(selects.get(table, ([], ""))[0]) for table, columns in needed.items()):
        transactions, accounts = (selects[table][1] for table in needed)
        for user_id, why in import_sums.beyond(
            connection, transactions=transactions, accounts=accounts, debits=DEBIT_TYPES
        ):
            yield Loose(table="users", row=import_values.shown(user_id), column="id", why=why)


def fractions(connection: Connection, selects: Mapping[str, tuple[list[str], str]]) -> dict[tuple[str, str], int]:
    """(table, column) -> how many rows have a fraction of a won there, where any has; `selects` as for `loose`."""
    found = {}
    for table, (columns, select) in selects.items():
        for column in filter(import_values.is_money, columns):
            odd = import_values.FRACTION.format(column=column)
            (count,) = connection.execute(f"SELECT COUNT(*) FROM ({select}) WHERE {odd}").fetchone()
            if count:
                found[table, column] = count
    return found


def _is_utf8(connection: Connection, columns: list[str], select: str) -> bool:
    texts = [f"COALESCE({column}, '')" for column in columns if import_values.is_text(column)]
    if texts:
        try:
            deque(connection.execute(f"SELECT {' || char(10) || '.join(texts)} FROM ({select})"), maxlen=0)
        except sqlite.DatabaseError:  # the driver's, for what it cannot decode
            return False
    return True


def _of_row(table: str, columns: list[str], row: tuple[Value, ...]) -> Iterator[Loose]:
    old = dict(zip(columns, row, strict=True))
    name = import_values.shown(row[0])
    for column, value in old.items():
        try:
            taken = import_values.take(table, column, value).value
        except Refused as refused:
            yield Loose(table=table, row=name, column=column, why=str(refused))
            continue
        if (type(taken), taken) != (type(value), value):
            why = f"{import_values.shown(value)} would become {import_values.shown(taken)}"
            yield Loose(table=table, row=name, column=column, why=why)
    if table == "deposit_transactions" and import_values.never_confirmable(old):
        yield Loose(table=table, row=name, column="status", why="'pending' for an amount that nobody can pay in")
