"""The schema as a database has it, compared with the one that the migrations make.

The database itself keeps the ledger's invariants, by its constraints and triggers. So no write is answered by a
database that lacks one of them, or has a stranger's trigger on a table of ours.

The SQL that SQLite keeps is compared word by word. Whitespace, comments, quotes around names, the case of letters and
the order of a column's own constraints do not count: other programs (wrangler, D1, the bot's author) write these in
their own way. Tables that Passbook does not know are left alone, with their indexes and triggers.
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
    """A sentence for each thing of `wanted` that is missing or changed, and for everything else that is attached to its
    tables."""
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
    """Whether two texts of `normalised` mean the same.

    The case of letters outside of quotes is none, nor is the order in which a column's own constraints stand:
    UNIQUE NOT NULL is NOT NULL UNIQUE.
    """
    return one == other or _meaning(_folded(one)) == _meaning(_folded(other))


def checks(sql: str) -> list[str]:
    """The condition of every CHECK of a CREATE TABLE, with its brackets, as `normalised` writes it."""
    text = _folded(normalised(sql))
    starts = [match.end() - 1 for match in re.finditer(r"\bcheck\(", _without_texts(text))]
    return [text[start : _closing(text, start) + 1] for start in starts]


def words(sql: str) -> set[str]:
    """The words of `sql` outside of quotes and comments, in lower case."""
    return {match[0].lower() for match in _TOKEN.finditer(sql) if match.lastgroup == "word"}


_OWN = re.compile(
    r"(?<!\bset )\b(?:constraint \w+ )?"
    r"(?:primary key|not null|unique|check\(|default\b|collate\b|references\b|generated\b|(?<!always )as\()"
)


def _meaning(sql: str) -> list[object]:
    """`sql` in a form that two texts of one meaning share; of a CREATE TABLE, with each column's constraints sorted."""
    if not sql.startswith("create table ") or "(" not in sql:
        return [sql]
    start = sql.index("(")
    end = _closing(sql, start)
    return [sql[:start], [_constraints(part) for part in _split(sql[start + 1 : end])], sql[end + 1 :]]


def _constraints(definition: str) -> list[str]:
    """The name and type of a column, then its constraints in order; a constraint of the table as it is."""
    blank = _without_texts(definition)
    starts = [
        match.start()
        for match in _OWN.finditer(blank)
        if blank.count("(", 0, match.start()) == blank.count(")", 0, match.start())
    ]
    if not starts or starts[0] == 0:
        return [definition]
    pieces = [definition[low:high].strip() for low, high in zip(starts, [*starts[1:], len(definition)], strict=True)]
    return [definition[: starts[0]].strip(), *sorted(pieces)]


def _split(text: str) -> list[str]:
    """The parts of `text` between commas that stand in no brackets and no quotes."""
    blank, depth, last = _without_texts(text), 0, 0
    parts = []
    for index, sign in enumerate(blank):
        depth += (sign == "(") - (sign == ")")
        if sign == "," and not depth:
            parts.append(text[last:index])
            last = index + 1
    return [*parts, text[last:]]


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` is closed; the end of the text where it is not."""
    blank, depth = _without_texts(text), 0
    for index in range(start, len(blank)):
        depth += (blank[index] == "(") - (blank[index] == ")")
        if not depth:
            return index
    return len(text)


def _without_texts(text: str) -> str:
    """`text` with a filler of the same length for whatever is quoted."""
    return "".join(
        "_" * len(match[0]) if match.lastgroup in {"text", "quoted"} else match[0] for match in _TOKEN.finditer(text)
    )


def _folded(sql: str) -> str:
    return "".join(
        match[0] if match.lastgroup in {"text", "quoted"} else match[0].lower() for match in _TOKEN.finditer(sql)
    )
