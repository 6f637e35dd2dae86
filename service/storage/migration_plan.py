"""What `migrate up` would do to a database: read, never written.

This is the guide's "Review Current Data" and its troubleshooting, before anything is touched. It finds the rows that
001 rejects or cuts, and half-finished states. It estimates how long the migration takes and how much disk it needs.
"""

import contextlib
import re
import shlex
import shutil
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from service.storage import (
    adoption,
    copies,
    import_values,
    migration_values,
    migrator,
    name_folding,
    schema,
    sequences,
    sqlite,
)
from service.storage.exporter import DEBIT_TYPES
from service.storage.import_source import baseline_columns, columns_of
from service.storage.migrator import Migration, MigrationError
from service.storage.progress import Progress, quiet
from service.storage.schema import Thing
from service.storage.sqlite import Connection

ROWS_PER_S = {1: 100_000, 3: 300_000, 9: 290_000}
"""Migration -> rows of the five tables that it gets through in a second; 001 with the look at their values, the others
take no time worth a number.

Measured on two shared cores with 1 million users and 5 million transactions (tests/benchmarks/migrate.py).
"""
NAMES_PER_S = 70_000
"""Names other than plain that 016 folds anew in a second, all of them changed; it passes by the others."""
COPY_BYTES_PER_S = 30 * 2**20
"""Bytes of the file that are copied, checked and synced, and checked once more afterwards, in a second."""
SPACE_FACTOR = 3
"""The write-ahead log of the greatest migration and the growth of the file, as a multiple of the file before."""
_SPACE_LEAST = 16 * 2**20
EXAMPLES_MAX = 5
TABLES = ("users", "user_deposits", "deposit_transactions", "bank_notifications", "user_domains")
_REBUILT = ("user_deposits", "deposit_transactions")
_LEDGER = 3
_FOREIGN = ("출금", "입금")
_TAKE_OVER = "take the file over into a new database with passbook import"
_ASIDE = "backup|old|new|copy|tmp|temp|bak"
_LEFT_OVER = re.compile(rf"_?(?:(?:{_ASIDE})_)?({'|'.join(TABLES)}|audit_logs)(?:_(?:{_ASIDE})\w*)?", re.IGNORECASE)
_REMOVED = re.compile(r"^DROP (?:INDEX|TRIGGER) IF EXISTS (\w+);", re.MULTILINE)
_MADE = re.compile(r"^CREATE (?:TABLE|(?:UNIQUE )?INDEX|TRIGGER) (?!IF )(\w+)", re.MULTILINE)


class Review(Struct, frozen=True, kw_only=True):
    """One of the guide's review queries, or ours of loose values: how many it finds, and the first few of them."""

    count: int
    examples: list[dict[str, Any]]


class Plan(Struct, frozen=True, kw_only=True):
    """What would happen. `version` is -1 for an empty database; `blockers` is empty when `up` would start.

    needed_bytes: beside the file, with the copy that is made before; seconds: from measured rates.
    backup: the newest copy beside the database, null when there is none. adopted: tables of the bot's are made those of
    000 first.
    """

    database: str
    version: int
    pending: list[str]
    tables: dict[str, int]
    negative_balances: Review
    long_names: Review
    loose_values: Review
    notices: list[str]
    blockers: list[str]
    seconds: float
    file_bytes: int
    needed_bytes: int
    free_bytes: int
    backups: int
    backup: str | None
    adopted: bool


def plan(
    connection: Connection,
    path: Path,
    migrations: list[Migration],
    *,
    to: int | None = None,
    copy: bool = True,
    on_progress: Progress = quiet,
) -> Plan:
    """What `up` to number `to` would do to the database at `path`. Raises MigrationError when it is none of ours."""
    here = _look(connection, migrations, to)
    version, pending, found = here.version, here.pending, here.found
    counts = {} if version == -1 else {table: _count(connection, found, table) for table in (*TABLES, "audit_logs")}
    file_bytes = _file_bytes(connection)
    needed = round(file_bytes * (SPACE_FACTOR + copy)) + _SPACE_LEAST if pending else 0
    free = shutil.disk_usage(path.parent).free
    blockers, notices = _of_the_schema(connection, here, migrations)
    more_blockers, more_notices = _of_the_rows(connection, here, path, counts["audit_logs"] if counts else 0)
    blockers += more_blockers
    notices += more_notices
    notices += [
        f"{row.migration.name}.sql was changed since it was applied; the schema is compared instead."
        for row in (migrator.status(connection, migrations) if version >= 0 else [])
        if row.checksum_differs
    ]
    names = _names(connection, version, pending)
    notices += _about_names(names)
    loose = Review(count=0, examples=[])
    if version in (0, 1) and pending and not blockers:  # later on only Passbook writes
        selects = _selects(connection, found, migrations)
        loose = _loose_values(connection, selects, on_progress)
        said = _about_loose(loose, migration_values.fractions(connection, selects), path, here.working)
        (blockers if pending[-1].version > 1 else notices).extend(said)
    blockers += sequences.used_up(connection) if pending else []
    if needed > free:
        blockers.append(
            f"The disk has {free / 2**20:,.0f} MiB free and {needed / 2**20:,.0f} MiB may be needed; free some space."
        )
    beside = copies.beside(path)
    rejects = any(migration.version == 1 for migration in pending) and version == 0
    return Plan(
        database=str(path),
        version=version,
        pending=[migration.name for migration in pending],
        tables=counts,
        negative_balances=_review(connection, found, _NEGATIVE if rejects else None),
        long_names=_review(connection, found, _LONG if rejects else None),
        loose_values=loose,
        notices=notices,
        blockers=blockers,
        seconds=_seconds(pending, sum(counts.values()), names or 0, file_bytes),
        file_bytes=file_bytes,
        needed_bytes=needed,
        free_bytes=free,
        backups=len(beside),
        backup=str(beside[0]) if beside else None,
        adopted=here.adopting is not None,
    )


class _Here(Struct, frozen=True, kw_only=True):
    """A database as `_look` found it. found: its tables and their texts. working: tables that 001 has left half-way.

    stranded: why 001 would make tables anew and empty; adopting: how the bot's tables become those of 000, if they do.
    """

    made: list[Any]
    things: dict[str, Thing]
    found: dict[str, str]
    version: int
    pending: list[Migration]
    working: set[str]
    stranded: list[str]
    adopting: adoption.Adoption | None


def _look(connection: Connection, migrations: list[Migration], to: int | None) -> _Here:
    """Raises MigrationError when it is no database of ours or of the bot's."""
    things = schema.read(connection)
    found = migrator.texts(things)
    stranded = _stranded(connection, found)
    try:
        version = migrator.version_of(connection, migrations)
    except MigrationError:
        # Of a table that was never there, its like elsewhere says more than that no copy of it is.
        if stranded and (any(_base_of(name) in _REBUILT for name in found) or not adoption.is_near(connection)):
            raise MigrationError("\n".join(stranded)) from None
        raise
    pending = migrator.pending(version, migrations, to=to)
    return _Here(
        made=migrator.stages(migrations),
        things=things,
        found=found,
        version=version,
        pending=pending,
        working=_own_working_tables(found, migrations) if version == 0 else set(),
        stranded=stranded,
        adopting=migrator.adoption_of(connection, migrations) if version == 0 and pending else None,
    )


def _of_the_schema(connection: Connection, here: _Here, migrations: list[Migration]) -> tuple[list[str], list[str]]:
    """What of its tables, columns and triggers keeps `up` from starting, and what there is to know of them."""
    blockers, notices = [*here.stranded], list[str]()
    version, pending, adopting = here.version, here.pending, here.adopting
    if version < 0:
        return blockers, notices
    blockers += _left_over(connection, here.found, here.working, notices)
    blockers += _schema(here.found, here.made, version, here.working, pending, adopted=adopting is not None)
    if adopting is not None:
        notices += [f"{said}." for said in adopting.differences]
        blockers += adopting.blockers or _rehearsed(connection, adopting.statements, migrations, pending)
    else:
        rebuilt = _REBUILT if version == 0 and pending else ()
        blockers += _strangers(here.things, here.made[version], pending, rebuilt=rebuilt)
    return blockers, notices


def _of_the_rows(connection: Connection, here: _Here, path: Path, logged: int) -> tuple[list[str], list[str]]:
    """The same of its rows, `logged` of them in audit_logs."""
    if not here.pending or here.version < 0:
        return [], []
    blockers = _loose_rows(connection)
    if here.version < _LEDGER and here.pending[-1].version >= _LEDGER:
        blockers += _foreign_types(connection, here.found, path)
    notices = _half_finished(connection, here.found, here.working)
    if here.version == 0 and "audit_logs" in here.found and not here.working:
        notices.append(f"audit_logs is there already; 001 keeps it with its {logged:,} rows.")
    return blockers, notices


def _seconds(pending: list[Migration], rows: int, names: int, file_bytes: int) -> float:
    """By measured rates, with the names that are folded and the copy that is made before."""
    migrating = sum(rows / ROWS_PER_S[one.version] for one in pending if one.version in ROWS_PER_S)
    return round(migrating + names / NAMES_PER_S + (file_bytes / COPY_BYTES_PER_S if pending else 0), 1)


def all_rows(found: dict[str, str], table: str, columns: str) -> str:
    """A SELECT of all rows of `table`, also of those that an interrupted 001 has in its copy only."""
    copy = f"{table}_backup"
    parts = [f"SELECT {columns} FROM {table}"] if table in found else []
    if table in _REBUILT and copy in found:
        missing = f" WHERE id NOT IN (SELECT id FROM {table})" if parts else ""
        parts.append(f"SELECT {columns} FROM {copy}{missing}")
    return " UNION ALL ".join(parts)


def _count(connection: Connection, found: dict[str, str], table: str) -> int:
    select = all_rows(found, table, "id")
    return int(connection.execute(f"SELECT COUNT(*) FROM ({select})").fetchone()[0]) if select else 0


def _file_bytes(connection: Connection) -> int:
    (pages,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return int(pages * size)


# The guide's two review queries: table, columns, condition.
_NEGATIVE = ("user_deposits", ("id", "user_id", "balance"), "balance < 0")
_LONG = ("deposit_transactions", ("id", "user_id", "depositor_name"), "length(depositor_name) > 50")


def _review(connection: Connection, found: dict[str, str], query: tuple[str, tuple[str, ...], str] | None) -> Review:
    if query is None:
        return Review(count=0, examples=[])
    table, columns, condition = query
    select = all_rows(found, table, ", ".join(columns))
    if not select:
        return Review(count=0, examples=[])
    count = connection.execute(f"SELECT COUNT(*) FROM ({select}) WHERE {condition}").fetchone()[0]
    rows = connection.execute(
        f"SELECT * FROM ({select}) WHERE {condition} ORDER BY id LIMIT ?", (EXAMPLES_MAX,)
    ).fetchall()
    return Review(count=count, examples=[dict(zip(columns, row, strict=True)) for row in rows])


def _selects(
    connection: Connection, found: dict[str, str], migrations: list[Migration]
) -> dict[str, tuple[list[str], str]]:
    """Table of the baseline's -> its columns that are there, and the SELECT of them."""
    selects = {}
    for table, columns in baseline_columns(migrations).items():
        there = columns_of(connection, table if table in found else f"{table}_backup")
        if names := [name for name in columns if name in there]:
            selects[table] = (names, all_rows(found, table, ", ".join(names)))
    return selects


def _loose_values(connection: Connection, selects: dict[str, tuple[list[str], str]], on_progress: Progress) -> Review:
    values = chain(
        migration_values.loose(connection, selects, on_progress), migration_values.loose_sums(connection, selects)
    )
    examples = [msgspec.to_builtins(value) for value in islice(values, EXAMPLES_MAX)]
    return Review(count=len(examples) + sum(1 for _ in values), examples=examples)


def _about_loose(loose: Review, fractions: dict[tuple[str, str], int], path: Path, working: set[str]) -> list[str]:
    if not loose.count:
        return []
    first = "; ".join(f"{one['table']}, row {one['row']}, {one['column']}: {one['why']}" for one in loose.examples)
    more = f"; and {loose.count - len(loose.examples):,} more" if loose.count > len(loose.examples) else ""
    half = "finish 001 (passbook migrate up --to 1), then " if working else ""
    said = (
        f"{loose.count:,} values cannot stay as they are ({first}{more}), and migrations mend none: {half}take the file"
        f" over into a new database, which mends or names each: passbook import {shlex.quote(str(path))}"
        " --database NEW"
    )
    return [f"{said}. {import_values.about_fractions(fractions)}" if fractions else said]


def _base_of(name: str) -> str | None:
    """The table that `name` looks like a copy of; None when it does not."""
    match = _LEFT_OVER.fullmatch(name)
    return match[1].lower() if match and match[1].lower() != name.lower() else None


def _stranded(connection: Connection, found: dict[str, str]) -> list[str]:
    """The tables that 001 would make anew and empty, although their rows lie elsewhere or nowhere."""
    said: list[str] = []
    if "users" not in found:
        return said
    for table in _REBUILT:
        if table in found or f"{table}_backup" in found:
            continue
        others = [name for name in found if _base_of(name) == table and found[name].startswith("CREATE TABLE")]
        if not others:
            said.append(f"The table {table} is not there, and no copy of it either: put a backup of the database back.")
        for other in others:
            count = connection.execute(f'SELECT COUNT(*) FROM "{other}"').fetchone()[0]
            said.append(
                f"The table {table} is not there and {other} has {count:,} rows: a migration by hand stopped half-way."
                f" Give it its name back (ALTER TABLE {other} RENAME TO {table}), then try again."
            )
    return said


def _own_working_tables(found: dict[str, str], migrations: list[Migration]) -> set[str]:
    """The working tables of 001 or its rollback that are there as these make them."""
    scripts = (migrations[1].up, migrations[1].down or "")
    made: dict[str, set[str]] = {}
    for statement in (one for script in scripts for one in migrator.statements(script)):
        sql = schema.normalised(statement).rstrip(";").replace(" IF NOT EXISTS", "")
        if sql.startswith("CREATE TABLE "):
            made.setdefault(sql.split("(")[0].split()[2], set()).add(sql)
    return {name for name in migrator.WORKING_TABLES_OF_001 & found.keys() if found[name] in made.get(name, set())}


def _left_over(connection: Connection, found: dict[str, str], working: set[str], notices: list[str]) -> list[str]:
    """Copies of tables that some other attempt has left: refused while they hold rows that are nowhere else."""
    blockers = []
    for name in sorted(found):
        base = _base_of(name)
        if base not in found or name in working or not found[name].startswith("CREATE TABLE"):
            continue
        away = f"ALTER TABLE {name} RENAME TO kept_{name}"
        only_there = _rows_only_in(connection, name, base)
        if name in migrator.WORKING_TABLES_OF_001:
            blockers.append(
                f"{name} was not left by this migration 001 and would be in its way ({only_there:,} of its rows are not"
                f" in {base}): look at them, then rename the table ({away})."
            )
        elif only_there:
            blockers.append(
                f"{name} has {only_there:,} rows that {base} has not, from an attempt that stopped half-way: copy them"
                f" back or, when they are not wanted, rename the table ({away})."
            )
        else:
            notices.append(f"{name} is left from an earlier attempt; {base} has all its rows. It stays as it is.")
    return blockers


def _rows_only_in(connection: Connection, copy: str, base: str) -> int:
    has_id = connection.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = 'id'", (copy,)).fetchone()
    if has_id:
        sql = f'SELECT COUNT(*) FROM "{copy}" WHERE id NOT IN (SELECT id FROM {base})'
    else:
        sql = f'SELECT max(0, (SELECT COUNT(*) FROM "{copy}") - (SELECT COUNT(*) FROM {base}))'
    return int(connection.execute(sql).fetchone()[0])


def _half_finished(connection: Connection, found: dict[str, str], working: set[str]) -> list[str]:
    if not working:
        return []
    kept = []
    for table in _REBUILT:
        if f"{table}_backup" in working:
            only = _rows_only_in(connection, f"{table}_backup", table) if table in found else -1
            kept.append(f"{table}_backup has {'all' if only < 0 else f'{only:,}'} rows that {table} has not")
    rows = f" ({'; '.join(kept)})" if kept else ""
    return [
        "Migration 001 or its rollback stopped half-way in this database before"
        f"{rows}: `migrate up` goes on from there and loses none. Do not drop its tables: {', '.join(sorted(working))}."
    ]


def _schema(
    found: dict[str, str],
    made: list[dict[str, str]],
    version: int,
    working: set[str],
    pending: list[Migration],
    *,
    adopted: bool,
) -> list[str]:
    """Objects that are not as the applied migrations made them, and those in the place of what a pending one makes.

    `adopted`: those of 000 and 001 are going to be made so.
    """
    blockers = []
    if not working and not adopted:
        changed = migrator.differences(found, made[version])
        if changed:
            blockers.append(
                f"The schema is not what the migrations up to {version:03d} make: {'; '.join(changed[:5])}"
                f"{' and more' if len(changed) > 5 else ''}. Put it right, or a backup back, first."
            )
    for migration in pending:
        if migration.version == 0 or (migration.version == 1 and adopted):
            continue
        earlier, now = made[migration.version - 1], made[migration.version]
        new = {name: sql for name, sql in now.items() if name not in earlier}
        if migration.version == 1:  # it takes what it finds, if that is as it makes it
            there = {name for name, sql in new.items() if found.get(name, sql) != sql}
        else:
            there = ({*new, *_MADE.findall(migration.up)} & found.keys()) - earlier.keys()
        blockers += [
            f"{name} is there already, not by {migration.name}, which is still to come: a migration by hand stopped"
            " half-way, or it is something else's. Look at it, rename or drop it, then try again."
            for name in sorted(there)
        ]
    return blockers


def _rehearsed(
    connection: Connection, statements: list[str], migrations: list[Migration], pending: list[Migration]
) -> list[str]:
    """What goes wrong when the bot's tables are adopted and migrated on an empty copy of the schema, in memory."""
    with contextlib.closing(sqlite.open_scratch()) as scratch:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
            " ORDER BY type <> 'table', type = 'trigger', rowid"
        ).fetchall()
        for name, sql in rows:
            if not name.startswith(("sqlite_", "_cf_")):
                with contextlib.suppress(sqlite.DatabaseError):  # a virtual table of a module that is not here
                    scratch.execute(sql)
        step = "the adoption of its tables"
        try:
            for statement in statements:
                scratch.execute(statement)
            for migration in pending:
                step = migration.name
                for statement in migrator.statements(migration.up):
                    scratch.execute(statement).fetchall()
        except sqlite.DatabaseError as error:
            return [f"On an empty copy of this schema {step} fails ({error}): {_TAKE_OVER}."]
        wrong = schema.faults(schema.read(scratch), migrator.made(migrations[: pending[-1].version + 1])[-1])
    return [f"On an empty copy of this schema it ends with another one ({wrong[0]}): {_TAKE_OVER}."] if wrong else []


def _foreign_types(connection: Connection, found: dict[str, str], path: Path) -> list[str]:
    """Types of the bot's that migration 003 would count the wrong way, or that would be no deposits afterwards."""
    select = all_rows(found, "deposit_transactions", "type")
    rows = connection.execute(
        f"SELECT type, COUNT(*) FROM ({select}) WHERE type IN ({', '.join('?' * len(_FOREIGN))}) GROUP BY type",
        _FOREIGN,
    ).fetchall()
    return [
        f"{count:,} transactions have the type {word}, which no migration knows; an import does: passbook import"
        f" {shlex.quote(str(path))} --database NEW"
        for word, count in rows
    ]


def directions_lost(connection: Connection, version: int, to: int) -> list[str]:
    """The types whose direction an import was told, and that a rollback of 003 would forget: it keeps no direction."""
    if not to < _LEDGER <= version:
        return []
    rows = connection.execute(
        "SELECT type, COUNT(*) FROM deposit_transactions AS t WHERE direction = 'debit' AND version IS NULL"
        f" AND type NOT IN ({', '.join('?' * len(DEBIT_TYPES))}) AND NOT EXISTS (SELECT 1 FROM audit_logs WHERE"
        " action = 'migration_amount_made_positive' AND resource_type = 'deposit_transaction' AND resource_id = t.id)"
        " GROUP BY type ORDER BY type",
        DEBIT_TYPES,
    ).fetchall()
    return [
        f"{count:,} debits of the type {word} would be credits afterwards, as 003 does not know the word: write the way"
        " back with passbook export instead."
        for word, count in rows
    ]


def _strangers(
    found: dict[str, Thing], made: dict[str, str], pending: Sequence[Migration], *, rebuilt: tuple[str, ...]
) -> list[str]:
    """Indexes and triggers of somebody else on tables of ours, which no service starts with. Not those of `rebuilt`,
    and not what a migration that is still to come removes itself."""
    removed = {name for migration in pending for name in _REMOVED.findall(migration.up)}
    return [
        f"The {thing.kind} {name} on {thing.table} is of no migration, and no service starts with it: drop it (DROP"
        f" {thing.kind.upper()} {name})."
        for name, thing in sorted(found.items())
        if thing.kind in {"index", "trigger"}
        and name not in made
        and name not in removed
        and thing.table in made
        and thing.table not in rebuilt
    ]


def _names(connection: Connection, version: int, pending: list[Migration]) -> int | None:
    """How many names the step of 016 may fold anew, None where it does not run; they are there from 009 on."""
    to_come = version >= 9 and any(migration.version == name_folding.MIGRATION for migration in pending)
    if not to_come and not name_folding.is_behind(connection):
        return None
    return name_folding.count_other_than_plain(connection)


def _about_names(names: int | None) -> list[str]:
    if names is None:
        return []
    return [
        f"Up to {names:,} names of deposits and bank lines are folded anew, so that ＨＯＮＧ is HONG. Nobody is"
        " credited by it."
    ]


def _loose_rows(connection: Connection) -> list[str]:
    rows = connection.execute('SELECT "table", rowid, parent FROM pragma_foreign_key_check LIMIT 1001').fetchall()
    if not rows:
        return []
    table, row_id, parent = rows[0]
    count = "More than 1,000" if len(rows) > 1000 else f"{len(rows):,}"
    return [
        f"{count} rows point at rows that are not there, the first is {table}, row {row_id} -> {parent}: mend them."
    ]
