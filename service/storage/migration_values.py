"""The values of the bot's rows that the ledger cannot keep as they are: SQLite lets any of them stand in any column.

They are what an import would mend or refuse, by the same rules (`import_values.py`); here nothing is written.
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from service.storage import import_values
from service.storage.import_source import text_or_bytes
from service.storage.import_values import Refused, Value
from service.storage.progress import Progress
from service.storage.sqlite import Connection

_BATCH = 1000


class Loose(Struct, frozen=True, kw_only=True):
    """A value, by table, id of its row, and column. `why` says what is wrong, or what an import would make of it."""

    table: str
    row: str
    column: str
    why: str


def loose(
    connection: Connection, selects: Mapping[str, tuple[list[str], str]], rows: int, on_progress: Progress
) -> Iterator[Loose]:
    """Every such value. `selects`: table -> its columns, `id` first, and their SELECT; `rows`: how many in all."""
    done = 0
    earlier, connection.text_factory = connection.text_factory, text_or_bytes
    try:
        for table, (columns, select) in selects.items():
            tests = [import_values.plain(table, column) for column in columns]
            found = connection.execute(select)
            while batch := found.fetchmany(_BATCH):
                done += len(batch)
                if all(all(map(holds, values)) for holds, values in zip(tests, zip(*batch, strict=True), strict=True)):
                    waiting = [row for row in batch if "pending" in row] if table == "deposit_transactions" else []
                    batch = [row for row in waiting if _never_confirmable(columns, row)]
                for row in batch:
                    yield from _of_row(table, columns, row)
                on_progress("checking values", done, max(done, rows))
    finally:
        connection.text_factory = earlier


def _of_row(table: str, columns: list[str], row: tuple[Value, ...]) -> Iterator[Loose]:
    name = import_values.shown(row[0])
    for column, value in zip(columns, row, strict=True):
        try:
            taken = import_values.take(table, column, value).value
        except Refused as refused:
            yield Loose(table=table, row=name, column=column, why=str(refused))
            continue
        if (type(taken), taken) != (type(value), value):
            why = f"{import_values.shown(value)} would become {import_values.shown(taken)}"
            yield Loose(table=table, row=name, column=column, why=why)
    if table == "deposit_transactions" and _never_confirmable(columns, row):
        yield Loose(table=table, row=name, column="status", why="'pending' for an amount that nobody can pay in")


def _never_confirmable(columns: list[str], row: tuple[Value, ...]) -> bool:
    return import_values.never_confirmable(dict(zip(columns, row, strict=True)))
