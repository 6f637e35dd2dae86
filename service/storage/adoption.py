"""Turns the tables of a bot's database into those of migration 000, if they are written otherwise.

Each difference of columns or constraints is one sentence, and no value is lost. A table is made anew as 000 (or, for
audit_logs, 001) has it, and gets its rows back. Values of other columns wait in `adopted_columns` until
`import_archive` exists to hold them. Looser or stricter constraints of the bot are dropped, and so are its indexes and
triggers on these tables.

The statements are SQL that D1 takes in one file: copy, drop, create, restore for each table; links are checked last.
"""

import contextlib
from collections.abc import Iterator, Mapping

from msgspec import Struct

from service.storage import schema, sqlite
from service.storage.schema import Thing
from service.storage.sqlite import Connection

TABLES = ("audit_logs", "bank_notifications", "user_domains", "deposit_transactions", "user_deposits", "users")
"""Those that are made anew, in this order: what deletes with a user or a transaction comes before it."""
NEEDED = ("users", "user_deposits", "deposit_transactions")
"""Without these a database is not the bot's."""
REQUIRED = {
    "users": ("id", "telegram_id"),
    "user_deposits": ("id", "user_id", "balance"),
    "deposit_transactions": ("id", "user_id", "type", "amount", "status"),
    "bank_notifications": ("id", "amount"),
    "user_domains": ("id", "user_id", "domain"),
    "audit_logs": ("id", "action"),
}
"""Table -> the columns without which a row has no meaning."""
KEPT = "adopted_columns"
"""Values of columns that the baseline has not, as `import_archive` will hold them."""
_SEQUENCE = "adopted_sequence"
_LINKS = {
    "deposit_transactions": ("user_id", "users"),
    "bank_notifications": ("matched_transaction_id", "deposit_transactions"),
    "user_domains": ("user_id", "users"),
}
_UNIQUE = {"users": "telegram_id", "user_deposits": "user_id"}
_VALUES_OF_MISSING = {"user_domains": {"status": "'registered'", "registered_at": "created_at"}}
"""What stands in a column that the bot's table has not: a row of such a table is a name that was registered."""
_PAIRS = 8
"""Columns in one json_object: D1 takes 32 arguments."""


class Adoption(Struct, frozen=True, kw_only=True):
    """What differs, in sentences; why it cannot be adopted, if so; and the statements that do it."""

    differences: list[str]
    blockers: list[str]
    statements: list[str]


class _Column(Struct, frozen=True):
    name: str
    type: str
    not_null: bool
    default: str | None
    in_key: int


def lacking(connection: Connection) -> list[tuple[str, str | None]]:
    """(table, column) of what the bot's database must have and this one has not; the column is null for a table."""
    there = _tables(connection)
    missing: list[tuple[str, str | None]] = [(table, None) for table in NEEDED if table not in there]
    for table, columns in REQUIRED.items():
        if table in there:
            found = _columns(connection, there[table])
            missing += [(table, column) for column in columns if column not in found]
    return missing


_ALIKE = {
    "id": ("no", "seq", "idx"),
    "telegram_id": ("tg_id", "telegram_user_id", "tg_user_id", "chat_id", "telegram"),
    "user_id": ("owner_id", "account_id", "uid", "member_id", "telegram_id"),
    "balance": ("balances", "current_balance", "credit", "credits", "points", "wallet", "잔액"),
    "amount": ("price", "sum", "value", "won", "krw", "금액"),
    "type": ("kind", "category", "direction", "tx_type", "transaction_type", "종류"),
    "status": ("state", "result", "is_confirmed", "confirmed", "상태"),
    "domain": ("domain_name", "name", "fqdn"),
    "action": ("event", "what", "event_type"),
}
"""Column -> names that other bots give the same."""
_TELLING = {"telegram_id", "balance", "amount", "domain"}
"""Columns by which a table is known, whatever its name is."""


def told_lacking(connection: Connection) -> str:
    """What the bot's database must have and this one has not, and where its like was seen; empty where nothing is."""
    said = [
        f"no table {table}" if column is None else f"no column {table}.{column}"
        for table, column in lacking(connection)
    ]
    likes = [like for table, column in lacking(connection) if (like := like_of(connection, table, column))]
    return ", ".join(said) + (f"; their like: {', '.join(likes)}" if likes else "")


def is_near(connection: Connection) -> bool:
    """Whether anything that is missing, or should stand in a table that is, was seen under some name."""
    return any(like_of(connection, table, column) for table, column in lacking(connection))


def like_of(connection: Connection, table: str, column: str | None) -> str:
    """Where the like of a missing column, or of the columns of a missing table, was seen; empty where nowhere."""
    tables = {
        name: _columns(connection, spelled)
        for name, spelled in _tables(connection).items()
        if not name.startswith(_NOT_THE_BOTS)
    }
    return _table_like(table, tables) if column is None else _column_like(table, column, tables)


_NOT_THE_BOTS = ("sqlite_", "_cf_", "d1_")


def _table_like(table: str, tables: Mapping[str, Mapping[str, _Column]]) -> str:
    """Where the columns by which `table` is known stand, most of them first."""
    best, most = "", 0
    for name, columns in tables.items():
        pairs = [(column, _same(column, columns)) for column in REQUIRED[table] if column not in {"id", "user_id"}]
        if name in REQUIRED and name != "users":
            continue
        seen = [found for _, found in pairs if found]
        if len(seen) > most and any(found for column, found in pairs if column in _TELLING and found):
            best, most = ", ".join(f"{name}.{column}" for column in seen), len(seen)
    return best


def _column_like(table: str, column: str, tables: Mapping[str, Mapping[str, _Column]]) -> str:
    here = _same(column, tables[table])
    if here:
        return f"{table}.{here}"
    others = [name for name, columns in tables.items() if column in columns and name != "audit_logs"]
    others = others if column in _TELLING - {"amount"} else []
    return f"{others[0]}.{column}" if others else ""


def _same(column: str, columns: Mapping[str, _Column]) -> str:
    return next((columns[name].name for name in (column, *_ALIKE.get(column, ())) if name in columns), "")


def of(connection: Connection, baseline: Mapping[str, Thing], log: Mapping[str, Thing]) -> Adoption | None:
    """What makes the database one of migration 000; None where nothing has to, or it is no database of the bot's.

    `baseline` and `log` are the schemas after 000 and 001. Reads only.
    """
    there = _tables(connection)
    if lacking(connection):
        return None
    wanted = {table: baseline.get(table) or log[table] for table in TABLES}
    found = schema.read(connection)
    rebuilt = [
        table
        for table in TABLES
        if table in there
        and (there[table] != table or not schema.same(found[table].sql, wanted[table].sql) or table not in found)
    ]
    differences: list[str] = []
    for table in rebuilt:
        differences += _differences(connection, table, there[table], wanted[table], log[table]) or [
            f"{table} is written in other words of the same meaning"
        ]
    missing = [table for table in TABLES if table in baseline and table not in there]
    differences += [f"the table {table} is not there, and is made" for table in missing]
    loose = list(_loose_things(found, baseline, log, there))
    differences += [said for said, _ in loose]
    if not differences:
        return None
    statements = ["PRAGMA defer_foreign_keys = ON;"]
    statements += [statement for _, statement in loose if statement]
    statements.append(
        f"CREATE TABLE IF NOT EXISTS {KEPT} (source_table TEXT NOT NULL, row_id INTEGER NOT NULL,"
        " column_values TEXT NOT NULL, imported_at TEXT NOT NULL);"
    )
    if rebuilt:
        statements += _saved_sequence(connection)
    for table in rebuilt:
        statements += _rebuild(connection, table, there[table], wanted[table])
    if rebuilt:
        statements.append(f"DROP TABLE {_SEQUENCE};")
    statements += [f"{baseline[table].sql};" for table in missing]
    statements += [f"{_if_not_exists(thing.sql)};" for thing in baseline.values() if thing.kind == "index"]
    return Adoption(
        differences=differences, blockers=list(_blockers(connection, there, rebuilt)), statements=statements
    )


def in_the_way_of_d1(connection: Connection) -> list[str]:
    """Links that would delete or change rows where a table is dropped under foreign keys, as D1 drops it."""
    there = _tables(connection)
    said = []
    for lower, name in sorted(there.items()):
        if lower == "audit_logs":
            continue  # made anew first, without links
        rows = connection.execute(
            "SELECT \"table\", on_delete FROM pragma_foreign_key_list(?) WHERE on_delete <> 'NO ACTION'", (name,)
        ).fetchall()
        said += [
            f"{name} says ON DELETE {action} of {parent}, and D1 would carry it out when {parent} is made anew"
            for parent, action in rows
            if parent.lower() in TABLES
        ]
    return said


def finish(connection: Connection) -> int:
    """Moves what `KEPT` holds into import_archive, once that is there; returns how many rows. Within a transaction."""
    if not is_unfinished(connection):
        return 0
    moved = connection.execute(
        "INSERT INTO import_archive (source_table, row_id, column_values, imported_at)"
        f" SELECT source_table, row_id, column_values, imported_at FROM {KEPT} ORDER BY rowid"
    ).rowcount
    connection.execute(f"DROP TABLE {KEPT}")
    return int(moved)


def is_unfinished(connection: Connection) -> bool:
    """Whether values wait for an import_archive that is there."""
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return {KEPT, "import_archive"} <= names


def _tables(connection: Connection) -> dict[str, str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {name.lower(): name for (name,) in rows}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _columns(connection: Connection, table: str) -> dict[str, _Column]:
    """Lower-case name -> column, in the table's order; those that are computed are none."""
    rows = connection.execute(
        'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_xinfo(?) WHERE hidden = 0', (table,)
    ).fetchall()
    return {row[0].lower(): _Column(row[0], row[1].upper(), bool(row[2]), row[3], row[4]) for row in rows}


def _differences(connection: Connection, table: str, name: str, wanted: Thing, later: Thing) -> list[str]:
    """What of the table is not as `wanted` has it, by what its columns and constraints mean.

    A constraint that `later`, the same table after 001, has again is no difference.
    """
    with contextlib.closing(sqlite.open_scratch()) as scratch, contextlib.closing(sqlite.open_scratch()) as after:
        scratch.execute(wanted.sql)
        after.execute(later.sql)
        ours, theirs, kept = _shape(scratch, table), _shape(connection, name), _shape(after, table).constraints
    said = []
    for column, found in theirs.columns.items():
        like = ours.columns.get(column)
        if like is None:
            said.append(f"{table}.{found.name} is a column more: its values go to import_archive")
        elif _told(found) != _told(like):
            said.append(f"{table}.{column} is {_told(found)}, and becomes {_told(like)}")
    said += [
        f"{table}.{column} is not there: it is made, {_given(table, column)}"
        for column in ours.columns
        if column not in theirs.columns
    ]
    if not said and list(theirs.columns) != list(ours.columns):
        said.append(f"the columns of {table} stand in another order")
    said += [f"{table} has {what}, which goes" for what in sorted(theirs.constraints - ours.constraints - kept)]
    said += [f"{table} has no {what}, and gets it" for what in sorted(ours.constraints - theirs.constraints)]
    return said


class _Shape(Struct, frozen=True):
    """Of a table: lower-case name -> column, and every constraint that is more than a column's own, in words."""

    columns: dict[str, _Column]
    constraints: set[str]


def _shape(connection: Connection, name: str) -> _Shape:
    said = set()
    indexes = connection.execute('SELECT name, "unique", origin FROM pragma_index_list(?)', (name,)).fetchall()
    for index, unique, origin in indexes:
        if unique and origin == "u":
            rows = connection.execute("SELECT name FROM pragma_index_info(?) ORDER BY seqno", (index,)).fetchall()
            said.add(f"UNIQUE ({', '.join(str(row[0]).lower() for row in rows)})")
    links = 'SELECT "from", "table", on_delete FROM pragma_foreign_key_list(?)'
    for column, parent, action in connection.execute(links, (name,)).fetchall():
        suffix = "" if action == "NO ACTION" else f" ON DELETE {action}"
        said.add(f"a link of {column.lower()} to {parent.lower()}{suffix}")
    sql = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone()[0]
    said |= {f"CHECK {check}" for check in schema.checks(sql)}
    if "autoincrement" in schema.words(sql):
        said.add("AUTOINCREMENT")
    computed = connection.execute("SELECT name FROM pragma_table_xinfo(?) WHERE hidden > 1", (name,)).fetchall()
    said |= {f"the computed column {column}" for (column,) in computed}
    without_rowid, strict = connection.execute(
        "SELECT wr, strict FROM pragma_table_list WHERE name = ? AND schema = 'main'", (name,)
    ).fetchone()
    said |= {word for word, has in (("WITHOUT ROWID", without_rowid), ("STRICT", strict)) if has}
    return _Shape(_columns(connection, name), said)


def _told(column: _Column) -> str:
    words = [column.type or "of no type"]
    words += ["NOT NULL"] if column.not_null else []
    words += [f"DEFAULT {column.default}"] if column.default is not None else []
    words += ["PRIMARY KEY"] if column.in_key else []
    return " ".join(words)


def _given(table: str, column: str) -> str:
    values = _VALUES_OF_MISSING.get(table, {})
    return f"with {values[column]} in every row" if column in values else "empty or with its default"


def _loose_things(
    found: Mapping[str, Thing], baseline: Mapping[str, Thing], log: Mapping[str, Thing], there: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Indexes and triggers on these tables that are not ours, and ours that are missing; how it is mended, in SQL."""
    for name, thing in found.items():
        wanted = baseline.get(name) or log.get(name)
        if thing.kind not in {"index", "trigger"} or thing.table not in TABLES:
            continue
        if wanted is None or not schema.same(wanted.sql, thing.sql):
            yield (
                f"the {thing.kind} {name} on {thing.table} is not Passbook's, and goes",
                f"DROP {thing.kind.upper()} {_quoted(name)};",
            )
    for name, thing in baseline.items():
        if thing.kind == "index" and name not in found and thing.table in there:
            yield f"the index {name} on {thing.table} is not there, and is made", ""


def _saved_sequence(connection: Connection) -> Iterator[str]:
    """The highest ids that were ever given out: DROP TABLE forgets them."""
    yield f"CREATE TABLE {_SEQUENCE} (name TEXT PRIMARY KEY, seq INTEGER NOT NULL);"
    if sqlite.has_table(connection, "sqlite_sequence"):
        yield (
            f"INSERT INTO {_SEQUENCE} (name, seq) SELECT lower(name), MAX(seq) FROM sqlite_sequence"
            f" WHERE lower(name) IN ({', '.join(map(_text, TABLES))}) AND typeof(seq) = 'integer' GROUP BY lower(name);"
        )


def _rebuild(connection: Connection, table: str, name: str, wanted: Thing) -> Iterator[str]:
    """Copy, drop, create, restore: never a moment in which the rows are nowhere."""
    with contextlib.closing(sqlite.open_scratch()) as scratch:
        scratch.execute(wanted.sql)
        ours = _columns(scratch, table)
    theirs = _columns(connection, name)
    kept = [column.name for key, column in theirs.items() if key not in ours]
    if kept:
        some_value = " OR ".join(f"{_quoted(column)} IS NOT NULL" for column in kept)
        yield (
            f"INSERT INTO {KEPT} (source_table, row_id, column_values, imported_at)\n"
            f"SELECT {_text(table)}, id, {_as_json(kept)}, CURRENT_TIMESTAMP\n"
            f"FROM {_quoted(name)} WHERE {some_value} ORDER BY id;"
        )
    shared = [column for column in theirs if column in ours]
    columns, copy = ", ".join(shared), f"adopted_{table}"
    yield f"CREATE TABLE {copy} ({columns});"
    yield f"INSERT INTO {copy} ({columns})\nSELECT {columns} FROM {_quoted(name)} ORDER BY id;"
    yield f"DROP TABLE {_quoted(name)};"
    yield f"{wanted.sql};"
    added = {
        column: value
        for column, value in _VALUES_OF_MISSING.get(table, {}).items()
        if column not in theirs and (value.startswith("'") or value in theirs)
    }
    into, values = ", ".join([*shared, *added]), ", ".join([*shared, *added.values()])
    yield f"INSERT INTO {table} ({into})\nSELECT {values} FROM {copy} ORDER BY id;"
    yield f"DROP TABLE {copy};"
    highest = f"(SELECT seq FROM {_SEQUENCE} WHERE name = {_text(table)})"
    yield f"UPDATE sqlite_sequence SET seq = max(seq, ifnull({highest}, 0)) WHERE name = {_text(table)};"
    yield (
        f"INSERT INTO sqlite_sequence (name, seq) SELECT name, seq FROM {_SEQUENCE} WHERE name = {_text(table)}"
        f" AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = {_text(table)});"
    )


def _as_json(names: list[str]) -> str:
    """SQL for a JSON object of these columns without its nulls, as an import archives them."""
    sql = "'{}'"
    for start in range(0, len(names), _PAIRS):
        pairs = ", ".join(
            f"{_text(name)}, iif(typeof({_quoted(name)}) = 'blob', 'X' || char(39) || lower(hex({_quoted(name)}))"
            f" || char(39), {_quoted(name)})"
            for name in names[start : start + _PAIRS]
        )
        sql = f"json_patch({sql}, json_object({pairs}))"
    return sql


def _blockers(connection: Connection, there: Mapping[str, str], rebuilt: list[str]) -> Iterator[str]:
    """Rows that the tables of the baseline do not take, each kind with its number."""
    for name in (*(f"adopted_{table}" for table in rebuilt), _SEQUENCE):
        if name in there:
            yield f"{name} is in the way of a table that is made meanwhile: look at it, then rename or drop it."
    for table in rebuilt:
        name = _quoted(there[table])
        if there[table] != table:
            yield f"The table {there[table]} is not spelled {table}: passbook import takes it over."
        for column in REQUIRED[table]:
            if count := _count(connection, f"{name} WHERE {column} IS NULL"):
                yield f"{table}.{column} is empty in {count:,} rows, which it cannot be: mend them."
        for column in ("id", *(_UNIQUE[table] for _ in "x" if table in _UNIQUE)):
            twice = f"(SELECT 1 FROM {name} WHERE {column} IS NOT NULL GROUP BY {column} HAVING COUNT(*) > 1)"
            if count := _count(connection, twice):
                yield f"{table}.{column} has {count:,} values that stand in several rows: mend them."
        column, parent = _LINKS.get(table, ("", ""))
        if column in _columns(connection, there[table]):
            parents = f"SELECT id FROM {_quoted(there[parent])}"
            if count := _count(connection, f"{name} WHERE {column} IS NOT NULL AND {column} NOT IN ({parents})"):
                yield f"{count:,} rows of {table} point by {column} at rows of {parent} that are not there: mend them."


def _count(connection: Connection, rows: str) -> int:
    return int(connection.execute(f"SELECT COUNT(*) FROM {rows}").fetchone()[0])


def _if_not_exists(sql: str) -> str:
    return sql.replace(" INDEX ", " INDEX IF NOT EXISTS ", 1)
