"""Runs the files of migrations/: the same ones that `wrangler d1 execute --file` takes.

Each file is one immediate transaction together with its row in `schema_migrations`, so that it applies whole or not at
all. A database that was migrated by wrangler has no such rows; its version is then told by comparing its schema with
what each migration leaves.

Foreign keys are off meanwhile (https://www.sqlite.org/lang_altertable.html, 7). With them, DROP TABLE deletes row by
row, holds all of it in memory, and carries out the ON DELETE of other tables. A file that says `defer_foreign_keys` has
the links checked at its end.
"""

import contextlib
import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from service.ledger.depositor_names import FOLDING_RULE
from service.storage import adoption, audit_chain, name_folding, schema, sqlite
from service.storage.adoption import Adoption
from service.storage.audit_chain import Sealing, TreeBroken
from service.storage.progress import Progress
from service.storage.schema import Thing
from service.storage.sqlite import Connection, transaction

_FILE = re.compile(r"^(\d{3})_(\w+)\.sql$")
_RECORD_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
  version INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  checksum TEXT NOT NULL,
  applied_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
) STRICT
"""
_LOOSENS_LINKS = "PRAGMA defer_foreign_keys"
_BASELINE_TABLES = ("users", "bank_notifications", "user_domains")
"""The tables of 000 that 001 does not rebuild."""
WORKING_TABLES_OF_001 = {
    "user_deposits_backup",
    "deposit_transactions_backup",
    "bank_notifications_backup",
    "migration_001_guard",
    "migration_001_sequence",
    "migration_001_audit",
}
"""They are there only while 001 or its rollback is half done."""

_OURS_ONLY = {"idempotency_answers", "balance_change_references", "import_archive"}
"""Tables that no bot has."""

Report = Callable[[str], None]


class MigrationError(Exception):
    """The database cannot be migrated. The text says why and what to do; the database is as it was."""


class NotMigrated(MigrationError):
    """The database is of an earlier version than the program."""


class Migration(Struct, frozen=True, kw_only=True):
    """A step of the schema. `down` is None for the first, which has nothing before it. checksum: SHA-256 of `up`."""

    version: int
    name: str
    up: str
    down: str | None
    checksum: str


class Applied(Struct, frozen=True, kw_only=True):
    """A migration and when it was applied: UTC text, or null while it is pending."""

    migration: Migration
    applied_at: str | None
    checksum_differs: bool


def load(folder: Path) -> list[Migration]:
    """The migrations in `folder`, in order. Raises MigrationError when their numbers have a gap."""
    ups: dict[int, Path] = {}
    downs: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        found = _FILE.match(path.name)
        if found:
            (downs if found[2] == "rollback" else ups)[int(found[1])] = path
    if sorted(ups) != list(range(len(ups))) or set(downs) != set(range(1, len(ups))):
        raise MigrationError(f"The files in {folder} are not numbered 000, 001, … each with its rollback.")
    return [
        Migration(
            version=version,
            name=ups[version].stem,
            up=ups[version].read_text("utf-8"),
            down=downs[version].read_text("utf-8") if version in downs else None,
            checksum=hashlib.sha256(ups[version].read_bytes()).hexdigest(),
        )
        for version in range(len(ups))
    ]


def statements(sql: str) -> Iterator[str]:
    """The statements of a file, one by one; a trigger is one statement. Raises MigrationError on an unfinished one."""
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending.strip()
            pending = ""
    if re.sub(r"(--[^\n]*|/\*.*?\*/|\s)", "", pending, flags=re.DOTALL):
        raise MigrationError(f"The SQL ends within a statement: {pending.strip()[:80]}")


def version_of(connection: Connection, migrations: list[Migration]) -> int:
    """The number of the last migration applied; -1 for an empty database.

    Raises MigrationError when the database is no database of the bot or of Passbook, or newer than the program.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "schema_migrations" in tables:
        version = connection.execute("SELECT MAX(version) FROM schema_migrations").fetchone()[0]
        if version is not None:
            if version >= len(migrations):
                raise MigrationError(
                    f"The database is at migration {version:03d}; this program knows fewer. Update it."
                )
            if name_folding.rule_of(connection) > FOLDING_RULE:
                raise MigrationError(
                    "A newer program folded its names, by a rule that this one does not know. Update it."
                )
            return int(version)
    if not {name for name in tables if not name.startswith(("sqlite_", "_cf_", "schema_migrations"))}:
        return -1
    return _recognise(connection, migrations)


def require_latest(connection: Connection, migrations: list[Migration]) -> int:
    """The schema's version, which is the last of `migrations`. Raises NotMigrated, MigrationError."""
    version, latest = version_of(connection, migrations), len(migrations) - 1
    if version != latest:
        raise NotMigrated(
            f"The database is at migration {version:03d}, this program at {latest:03d}. Run: passbook migrate up"
        )
    if adoption.is_unfinished(connection):
        raise NotMigrated("Values of the bot's own columns wait to be archived. Run: passbook migrate up")
    if audit_chain.is_unsealed(connection):
        raise NotMigrated("The audit log has no leaves yet: another program migrated it. Run: passbook migrate up")
    if name_folding.is_behind(connection):
        raise NotMigrated("Names are still compared as before: another program migrated them. Run: passbook migrate up")
    return version


def has_steps_left(connection: Connection) -> bool:
    """Whether a program that runs SQL alone migrated the database, and `up` has something to seal, fold or archive."""
    return (
        audit_chain.is_unsealed(connection) or name_folding.is_behind(connection) or adoption.is_unfinished(connection)
    )


def _recognise(connection: Connection, migrations: list[Migration]) -> int:
    found = schema_of(connection)
    at = stages(migrations)
    for version in reversed(range(len(at))):
        if not differences(found, at[version]) and not found.keys() & WORKING_TABLES_OF_001:
            return version
    baseline_kept = not differences(found, {name: at[0][name] for name in _BASELINE_TABLES})
    if baseline_kept and found.keys() & {"audit_logs", *WORKING_TABLES_OF_001}:
        return 0  # 001 stopped half-way; it may be run again from any point
    if adoption_of(connection, migrations) is not None:
        return 0
    said = adoption.told_lacking(connection) if adoption.is_near(connection) else ""
    why = said or ("; ".join(differences(found, at[0])[:5]) if "users" in found else "")
    why = f" ({why})" if why else ""
    raise MigrationError(
        f"This is not the bot's database as the baseline describes it{why}. Export it and use: passbook import FILE"
    )


def adoption_of(connection: Connection, migrations: list[Migration]) -> Adoption | None:
    """What makes a database of the bot's one of migration 000; None where nothing has to, or where it is another one.

    A database that 001 stopped half-way in, or that a later migration was applied to, is never adopted.
    """
    found = schema_of(connection)
    columns = connection.execute("SELECT name FROM pragma_table_info('deposit_transactions')").fetchall()
    if found.keys() & (WORKING_TABLES_OF_001 | _OURS_ONLY) or ("direction",) in columns:
        return None
    at = made(migrations[:2])
    return adoption.of(connection, at[0], at[-1])


def differences(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """What the schema `found` lacks of `wanted` or has otherwise, each named in a few words."""
    return [
        f"{name} {'is not there' if name not in found else 'is not as it was made'}"
        for name, sql in wanted.items()
        if name not in found or not schema.same(found[name], sql)
    ]


def stages(migrations: list[Migration]) -> list[dict[str, str]]:
    """What `schema_of` gives after each of `migrations`."""
    return [texts(things) for things in made(migrations)]


def schema_after(migrations: list[Migration]) -> dict[str, Thing]:
    """The schema of a database that all of `migrations` made."""
    return made(migrations)[-1]


def schema_of(connection: Connection) -> dict[str, str]:
    """Name -> normalised SQL of every table, index, trigger and view; see `schema.read`."""
    return texts(schema.read(connection))


def require_schema(connection: Connection, migrations: list[Migration]) -> None:
    """Raises SchemaChanged unless the schema is what `migrations` make, to the last trigger."""
    schema.check(connection, schema_after(migrations))


def texts(things: dict[str, Thing]) -> dict[str, str]:
    """Name -> SQL of each."""
    return {name: thing.sql for name, thing in things.items()}


def made(migrations: list[Migration]) -> list[dict[str, Thing]]:
    """The schema after each of `migrations`, which run in memory for it: some hundredths of a second."""
    result = []
    with contextlib.closing(sqlite.open_scratch()) as scratch:
        for migration in migrations:
            for statement in statements(migration.up):
                scratch.execute(statement)
            result.append(schema.read(scratch))
    return result


def status(connection: Connection, migrations: list[Migration]) -> list[Applied]:
    """Every migration, and when it was applied ("unknown" when wrangler did it)."""
    version = version_of(connection, migrations)
    records: dict[int, tuple[str, str]] = {}
    if sqlite.has_table(connection, "schema_migrations"):
        rows = connection.execute("SELECT version, applied_at, checksum FROM schema_migrations").fetchall()
        records = {number: (applied_at, checksum) for number, applied_at, checksum in rows}
    result = []
    for migration in migrations:
        applied_at, checksum = records.get(migration.version, ("unknown", migration.checksum))
        result.append(
            Applied(
                migration=migration,
                applied_at=applied_at if migration.version <= version else None,
                checksum_differs=migration.version <= version and checksum != migration.checksum,
            )
        )
    return result


def records_that_differ(connection: Connection, migrations: list[Migration]) -> list[tuple[int, str]]:
    """(version, what is wrong) of each row of schema_migrations that is not that of `migrations`, or is missing."""
    if not sqlite.has_table(connection, "schema_migrations"):
        return []
    rows = connection.execute("SELECT version, name, checksum FROM schema_migrations").fetchall()
    found = {version: (name, checksum) for version, name, checksum in rows}
    wanted = {m.version: (m.name, m.checksum) for m in migrations}
    return [
        (version, f"schema_migrations {'has no row of' if version not in found else 'tells of another'} {version:03d}.")
        for version in sorted(found.keys() | wanted.keys())
        if found.get(version) != wanted.get(version)
    ]


def pending(version: int, migrations: list[Migration], *, to: int | None = None) -> list[Migration]:
    """What `up` to and with number `to` (the last one unless given) applies to a database at `version`, in order."""
    return [m for m in migrations if version < m.version <= (len(migrations) if to is None else to)]


def up(
    connection: Connection,
    migrations: list[Migration],
    report: Report,
    *,
    to: int | None = None,
    progress: Progress | None = None,
    adopt: bool = True,
) -> int:
    """Applies what is pending up to and with number `to`; returns how many. Each file whole or not at all.

    Before the first of them, tables of the bot's that are not as 000 has them are made so, unless `adopt` is false.
    Raises MigrationError with the name of the file that failed.
    """
    version = version_of(connection, migrations)
    wanted = pending(version, migrations, to=to)
    adopting = adoption_of(connection, migrations) if adopt and version == 0 and wanted else None
    if adopting is not None and adopting.blockers:
        raise MigrationError("\n".join(adopting.blockers))
    with transaction(connection):
        connection.execute(_RECORD_TABLE)
        for migration in migrations[: version + 1]:
            _record(connection, migration)
    with _foreign_keys_off(connection):
        if adopting is not None:
            script = "\n".join(adopting.statements)
            _run(connection, "the bot's tables as 000 has them", script, report, progress, lambda: None)
        for migration in wanted:

            def record(applied: Migration = migration) -> None:
                _record(connection, applied)

            _run(connection, migration.name, migration.up, report, progress, record)
    with transaction(connection):
        if archived := adoption.finish(connection):
            report(f"  {archived:,} rows with columns of the bot's own archived")
    if audit_chain.is_unsealed(connection):
        with transaction(connection):
            _seal(connection, Sealing(connection), report, progress)
    if name_folding.is_behind(connection):
        with transaction(connection):
            sealing = Sealing(connection) if audit_chain.is_there(connection) else None
            _fold_names(connection, FOLDING_RULE, report, progress)
            if sealing is not None:
                _seal(connection, sealing, report, progress)
    return len(wanted)


def down(
    connection: Connection,
    migrations: list[Migration],
    report: Report,
    *,
    to: int,
    progress: Progress | None = None,
) -> int:
    """Rolls back every migration above number `to`, the latest first; returns how many. Raises MigrationError."""
    version = version_of(connection, migrations)
    rolled_back = 0
    with _foreign_keys_off(connection):
        for migration in reversed(migrations[to + 1 : version + 1]):
            if migration.down is None:
                raise MigrationError("The baseline has nothing before it; delete the file instead.")

            def forget(number: int = migration.version) -> None:
                connection.execute("DELETE FROM schema_migrations WHERE version = ?", (number,))

            def prepare(number: int = migration.version) -> None:
                if number == name_folding.MIGRATION and name_folding.rule_of(connection) > 1:
                    _fold_names(connection, 1, report, progress)

            _run(connection, f"{migration.version:03d}_rollback", migration.down, report, progress, forget, prepare)
            rolled_back += 1
    return rolled_back


@contextlib.contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    earlier = connection.execute("PRAGMA foreign_keys").fetchone()[0]
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA foreign_keys = {earlier}")


def _check_links(connection: Connection, name: str) -> None:
    loose = connection.execute('SELECT "table", rowid, parent FROM pragma_foreign_key_check LIMIT 1').fetchone()
    if loose:
        table, row_id, parent = loose
        raise MigrationError(
            f"{name} failed and changed nothing: {table}, row {row_id} points at a row of {parent} that is not there."
        )


def _record(connection: Connection, migration: Migration) -> None:
    connection.execute(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (migration.version, migration.name, migration.checksum),
    )


def _run(
    connection: Connection,
    name: str,
    sql: str,
    report: Report,
    progress: Progress | None,
    record: Callable[[], None],
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """One file, what `prepare` does before it, and its record in one transaction; rows that a statement gives are
    reported."""
    report(f"{name} …")
    lines = []
    script = list(statements(sql))
    try:
        with transaction(connection):
            sealing = Sealing(connection) if audit_chain.is_there(connection) else None
            prepare()
            for done, statement in enumerate(script):
                if progress is not None:
                    progress(name, done, len(script))
                rows = connection.execute(statement).fetchall()
                lines += ["  ".join(str(value) for value in row) for row in rows]
            if _LOOSENS_LINKS in sql:
                _check_links(connection, name)
            if name == f"{name_folding.MIGRATION:03d}_name_folding":
                _fold_names(connection, FOLDING_RULE, report, progress)
            record()
            if audit_chain.is_there(connection):
                _seal(connection, sealing or Sealing(connection), report, progress)
        if progress is not None:
            progress(name, len(script), len(script))
    except (sqlite.DatabaseError, TreeBroken) as error:
        raise MigrationError(f"{name} failed and changed nothing: {error}") from error
    for line in lines:
        report(line)


def _seal(connection: Connection, sealing: Sealing, report: Report, progress: Progress | None) -> None:
    """Makes leaves of the rows that are to have them and tells how many, if any."""
    before = audit_chain.tree(connection).size
    total = connection.execute("SELECT COUNT(*) FROM audit_logs").fetchone()[0]
    sealing.seal(
        lambda done: progress("seal", done, total) if progress is not None else None,
        rule=audit_chain.rule_of_schema(connection),
    )
    sealed = audit_chain.tree(connection).size - before
    if sealed:
        report(f"  {sealed:,} rows of the audit log sealed")


def _fold_names(connection: Connection, rule: int, report: Report, progress: Progress | None) -> None:
    """Folds the stored names by `rule` and tells how many are others now, if any."""
    changed = name_folding.fold(
        connection,
        rule=rule,
        on_progress=lambda done, total: progress("fold names", done, total) if progress is not None else None,
    )
    if changed:
        report(f"  {changed:,} names are compared by another spelling now")
