"""The schema as a database has it, compared with the one that the migrations make.

The database itself keeps the ledger's invariants, by its constraints and triggers. So no write is answered by a
database that lacks one of them, or has a stranger's trigger on a table of ours.

What is compared is the SQL that SQLite keeps, word by word: whitespace, comments, quotes around names and the case of
letters are left out, since other programs (wrangler, D1) write these in their own way. Tables that Passbook does not
know are their owner's affair, with all that hangs on them.
"""

import re
from collections.abc import Mapping

from msgspec import Struct

from service.storage.sqlite import Connection, NotTrusted

_TOKEN = re.compile(
    r"(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))|(?P<space>\s+)|(?P<text>'(?:[^']|'')*')"
    r"""|(?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])|(?P<word>\w+)|(?P<sign>.)""",
    re.DOTALL,
)
_OTHERS = ("sqlite_", "_cf_")
"""How the tables of SQLite and Cloudflare begin."""
_MIGRATORS_TABLE = "schema_migrations"
_NAMED_MAX = 5


class SchemaChanged(NotTrusted):
    """The schema is not the one that the migrations make. The text names what is missing, changed or extra."""


class Thing(Struct, frozen=True):
    """A table, index, trigger or view. `table`: what it hangs on, in lower case; `sql` as `normalised` gives it."""

    kind: str
    table: str
    sql: str


def read(connection: Connection) -> dict[str, Thing]:
    """Name -> every table, index, trigger and view but those of SQLite's, Cloudflare's and the migrator's tables."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {
        name: Thing(kind, table.lower(), normalised(sql))
        for kind, name, table, sql in rows
        if not table.lower().startswith(_OTHERS) and table.lower() != _MIGRATORS_TABLE
    }


def faults(found: Mapping[str, Thing], wanted: Mapping[str, Thing]) -> list[str]:
    """A sentence for each thing of `wanted` that is missing or changed, and for what else hangs on its tables."""
    ours = {thing.table for thing in wanted.values()}
    by_name = {name.lower(): thing for name, thing in found.items()}
    said = []
    for name, thing in wanted.items():
        other = by_name.get(name.lower())
        if other is None:
            said.append(f"The {thing.kind} {name} is not there.")
        elif other.kind != thing.kind:
            said.append(f"The {thing.kind} {name} is a {other.kind}.")
        elif not same(other.sql, thing.sql):
            said.append(f"The {thing.kind} {name} is not as it was made.")
    names = {name.lower() for name in wanted}
    return said + [
        f"The {thing.kind} {name} on {thing.table} is of no migration."
        for name, thing in found.items()
        if thing.table in ours and name.lower() not in names
    ]


def check(connection: Connection, wanted: Mapping[str, Thing]) -> None:
    """Raises SchemaChanged unless the database has `wanted`, and nothing else on its tables."""
    if wrong := faults(read(connection), wanted):
        more = f" And {len(wrong) - _NAMED_MAX} more." if len(wrong) > _NAMED_MAX else ""
        raise SchemaChanged(
            f"The schema is not what the migrations make. {' '.join(wrong[:_NAMED_MAX])}{more} Put it right with"
            " the service stopped, or restore a backup; all of it is listed by: passbook migrate verify"
        )


class Watch:
    """Finds that the schema was changed while it is in use. For connections of one process, one after the other.

    SQLite counts each change of the schema, so that the whole is compared only when that number has moved.
    """

    def __init__(self, wanted: Mapping[str, Thing]) -> None:
        self._wanted = wanted
        self._proved: int | None = None

    def check(self, connection: Connection) -> None:
        """Raises SchemaChanged. Within a transaction it holds until the end of it."""
        version = connection.execute("PRAGMA schema_version").fetchone()[0]
        if version != self._proved:
            check(connection, self._wanted)
            self._proved = version


def normalised(sql: str) -> str:
    """`sql` without comments, without quotes around plain names, and with spaces only between words."""
    result: list[str] = []
    was_word = False
    for match in _TOKEN.finditer(sql):
        kind, token = match.lastgroup, match[0]
        if kind in {"comment", "space"}:
            continue
        if kind == "quoted" and re.fullmatch(r"\w+", token[1:-1]):
            token = token[1:-1]
        is_word = kind != "sign"
        if is_word and was_word:
            result.append(" ")
        result.append(token)
        was_word = is_word
    return "".join(result)


def same(one: str, other: str) -> bool:
    """Whether two texts of `normalised` differ at most in the case of letters outside of quotes."""
    return one == other or _folded(one) == _folded(other)


def _folded(sql: str) -> str:
    return "".join(
        match[0] if match.lastgroup in {"text", "quoted"} else match[0].lower() for match in _TOKEN.finditer(sql)
    )
