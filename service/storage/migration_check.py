"""The guide's verification checklist, asked of a database as it is.

It only reads: what the guide tries with an INSERT that must fail is tried on an empty copy of the schema in memory.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from service.storage import copies, migration_plan, migrator, schema, sqlite
from service.storage.migrator import Migration
from service.storage.schema import Thing
from service.storage.sqlite import Connection

_NAMED_MAX = 5
_AMOUNT = 5000


class CheckLine(Struct, frozen=True, kw_only=True):
    """A line of the checklist. `passed` is null for what cannot be seen from here; `said` gives the figure or why."""

    check: str
    passed: bool | None
    said: str


class Before(Struct, frozen=True, kw_only=True):
    """What is counted before a migration, to be compared with afterwards."""

    version: int
    rows: dict[str, int]
    negative: int
    openings: int
    half_finished: bool


def count_before(connection: Connection, migrations: list[Migration]) -> Before:
    """The row counts now, with those rows that an interrupted 001 keeps in its copies."""
    found = migrator.schema_of(connection)

    def ask(table: str, condition: str) -> int:
        select = migration_plan.all_rows(found, table, "*")
        return int(connection.execute(f"SELECT COUNT(*) FROM ({select}) WHERE {condition}").fetchone()[0])

    return Before(
        version=migrator.version_of(connection, migrations),
        rows={table: ask(table, "true") for table in _tables(found)},
        negative=ask("user_deposits", "balance < 0"),
        openings=ask("deposit_transactions", "type IN ('opening_credit', 'opening_debit')"),
        half_finished=bool(found.keys() & migrator.WORKING_TABLES_OF_001),
    )


def _tables(found: dict[str, str]) -> list[str]:
    return [name for name in (*migration_plan.TABLES, "audit_logs") if migration_plan.all_rows(found, name, "id")]


def checklist(
    connection: Connection, migrations: list[Migration], *, before: Before | None, backup: Path | None
) -> Iterator[CheckLine]:
    """The guide's nine points, some of ours, and how each stands; one by one, because some take a while."""
    version = migrator.version_of(connection, migrations)
    things = schema.read(connection)
    made = migrator.made(migrations)[version] if version >= 0 else {}
    found, wanted = migrator.texts(things), migrator.texts(made)
    yield _constraint(connection, found, version, "user_deposits", "balance < 0", "balance >= 0")
    yield _constraint(
        connection,
        found,
        version,
        "deposit_transactions",
        "length(depositor_name) > 50",
        "`depositor_name` length <= 50",
    )
    yield _audit_table(found, wanted, version)
    yield _indexes(found, wanted)
    yield _counts(connection, before, version)
    yield _schema(things, made, version)
    yield _files(connection, migrations)
    yield _refusals(connection, version)
    yield _deposits(connection, version)
    yield _pages(connection)
    yield _backup(backup)
    yield CheckLine(check="Bot responds to /start command", passed=None, said="ask the bot")
    yield CheckLine(check="No errors in wrangler tail logs", passed=None, said="look there, while the bot runs")


def _line(check: str, wrong: list[str], right: str) -> CheckLine:
    more = f" and {len(wrong) - _NAMED_MAX} more" if len(wrong) > _NAMED_MAX else ""
    return CheckLine(check=check, passed=not wrong, said="; ".join(wrong[:_NAMED_MAX]) + more if wrong else right)


def _constraint(
    connection: Connection, found: dict[str, str], version: int, table: str, breaks: str, rule: str
) -> CheckLine:
    check = f"All {table} records have {rule}"
    if table not in found:
        return CheckLine(check=check, passed=False, said=f"the table {table} is not there")
    total, broken = connection.execute(f"SELECT COUNT(*), COALESCE(SUM({breaks}), 0) FROM {table}").fetchone()
    if version < 1:
        return CheckLine(check=check, passed=None, said=f"{broken:,} of {total:,} do not; 001 is not applied")
    return _line(check, [f"{broken:,} of {total:,} do not"] if broken else [], f"{total:,} records")


def _audit_table(found: dict[str, str], wanted: dict[str, str], version: int) -> CheckLine:
    if version < 1:
        there = ["it is there"] if "audit_logs" in found else []
        return _line("audit_logs removed", there, "no such table, as before 001")
    check = "audit_logs table exists with correct schema"
    if "audit_logs" not in found:
        return _line(check, ["it is not there"], "")
    other = found["audit_logs"] != wanted["audit_logs"]
    return _line(check, [f"it is {found['audit_logs']}"] if other else [], "as the guide has it, with later columns")


def _indexes(found: dict[str, str], wanted: dict[str, str]) -> CheckLine:
    indexes = {name: sql for name, sql in wanted.items() if sql.startswith(("CREATE INDEX", "CREATE UNIQUE INDEX"))}
    return _line(
        "All indexes recreated successfully", migrator.differences(found, indexes), f"{len(indexes)} indexes are there"
    )


def _counts(connection: Connection, before: Before | None, version: int) -> CheckLine:
    check = "Record counts match pre-migration"
    found = migrator.schema_of(connection)
    rows = {
        table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
        for table in _tables(found)
        if table in found
    }
    if before is None:
        now = ", ".join(f"{table} {count:,}" for table, count in rows.items())
        return CheckLine(check=check, passed=None, said=f"told by `migrate up` and `down` only; now {now}")
    openings = connection.execute(
        "SELECT COUNT(*) FROM deposit_transactions WHERE type IN ('opening_credit', 'opening_debit')"
    ).fetchone()[0]
    expected = _expected(before, version, openings - before.openings)
    wrong = [
        f"{table} had {before.rows.get(table, 0):,}, has {rows.get(table, 0):,}, should have {least:,}"
        + ("" if most == least else " or more")
        for table, (least, most) in expected.items()
        if rows.get(table, 0) < least or (most is not None and rows.get(table, 0) > most)
    ]
    said = []
    for table in _tables(found):
        old, new = before.rows.get(table, 0), rows.get(table, 0)
        said.append(f"{table} {new:,}" if old == new else f"{table} {old:,} -> {new:,}")
    if before.version < 1 <= version:
        said.append(f"{before.negative:,} negative balances rejected")
    if before.version < 3 <= version:
        said.append(f"{openings - before.openings:,} opening entries")
    return _line(check, wrong, ", ".join(said))


def _expected(before: Before, version: int, openings: int) -> dict[str, tuple[int, int | None]]:
    """Table -> least and most rows (null: no bound) that it must have now, by what the migrations say they do."""
    was = before.rows
    expected: dict[str, tuple[int, int | None]] = {
        table: (was.get(table, 0), was.get(table, 0)) for table in ("users", "bank_notifications", "user_domains")
    }
    upwards = version > before.version
    crossed = {number for number in (1, 3) if min(before.version, version) < number <= max(before.version, version)}
    accounts, log = was.get("user_deposits", 0), was.get("audit_logs", 0)
    added = openings if 3 in crossed and upwards else 0
    expected["deposit_transactions"] = (was.get("deposit_transactions", 0) + added,) * 2
    if upwards and 3 in crossed:
        expected["user_deposits"] = (was.get("users", 0),) * 2  # every user has one account from here on
    elif upwards and 1 in crossed:
        least = accounts - before.negative
        expected["user_deposits"] = (0 if before.half_finished else least, accounts if before.half_finished else least)
    elif 1 in crossed:
        expected["user_deposits"] = (accounts, None)  # rejected ones come back
    else:
        expected["user_deposits"] = (accounts, accounts)
    expected["audit_logs"] = (0, 0) if version < 1 else (log, None if upwards else log)
    return expected


def _schema(found: dict[str, Thing], wanted: dict[str, Thing], version: int) -> CheckLine:
    wrong = [said.removeprefix("The ").rstrip(".") for said in schema.faults(found, wanted)]
    wrong += [f"{name} is left over" for name in sorted(found.keys() & migrator.WORKING_TABLES_OF_001)]
    return _line(
        f"Schema is what the migrations up to {version:03d} make", wrong, f"{len(wanted)} tables, indexes and triggers"
    )


def _files(connection: Connection, migrations: list[Migration]) -> CheckLine:
    status = migrator.status(connection, migrations)
    return _line(
        "Applied files are unchanged",
        [f"{row.migration.name}.sql was changed since it was applied" for row in status if row.checksum_differs],
        f"{sum(row.applied_at is not None for row in status)} files",
    )


@contextlib.contextmanager
def _empty_copy(connection: Connection) -> Iterator[Connection]:
    """The database's tables, indexes and triggers without rows, in memory."""
    objects = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND type IN ('table', 'index', 'trigger')"
        " ORDER BY type = 'trigger', type = 'index', rowid"
    ).fetchall()
    with contextlib.closing(sqlite.open_scratch()) as scratch:
        scratch.execute("PRAGMA foreign_keys = ON")
        scratch.execute("PRAGMA recursive_triggers = ON")
        for name, sql in objects:
            if not name.startswith(("sqlite_", "_cf_")):
                scratch.execute(sql)
        yield scratch


def _refused(scratch: Connection, sql: str) -> bool:
    try:
        scratch.execute(sql)
    except sqlite.IntegrityError:
        return True
    return False


def _refusals(connection: Connection, version: int) -> CheckLine:
    """The guide's two inserts, which must fail; before 001 the first one must succeed."""
    negative = "INSERT INTO user_deposits (user_id, balance) VALUES (999999, -1000)"
    long = (
        "INSERT INTO deposit_transactions (user_id, type, amount, depositor_name) VALUES"
        " (1, 'deposit', 1000, 'ThisIsAVeryLongNameThatExceedsFiftyCharactersAndShouldBeRejected')"
    )
    try:
        with _empty_copy(connection) as scratch:
            scratch.execute("INSERT INTO users (telegram_id) VALUES ('1')")
            refused = {"a negative balance": _refused(scratch, negative), "a long name": _refused(scratch, long)}
    except sqlite.DatabaseError as error:
        return _line("Constraints hold", [f"they cannot be tried: {error}"], "")
    if version < 1:
        still = [f"{what} is still refused" for what, was in refused.items() if was]
        return _line("Constraints of 001 are gone", still, "the guide's two inserts are taken")
    taken = [f"{what} is taken" for what, was in refused.items() if not was]
    return _line("Constraints hold", taken, "the guide's two inserts are refused")


def _deposits(connection: Connection, version: int) -> CheckLine:
    """A deposit is announced and confirmed on an empty copy of the schema, as the ledger (before 003: the bot) does."""
    check = "Deposit system works (잔액 command)"
    try:
        with _empty_copy(connection) as scratch:
            scratch.execute("INSERT INTO users (id, telegram_id) VALUES (1, '1')")
            scratch.execute(
                "INSERT INTO deposit_transactions (id, user_id, type, amount, depositor_name)"
                " VALUES (1, 1, 'deposit', ?, '홍길동')",
                (_AMOUNT,),
            )
            confirm = "UPDATE deposit_transactions SET status = 'confirmed'"
            if version >= 3:
                scratch.execute(f"{confirm}, version = 1, balance_before = 0, balance_after = ?", (_AMOUNT,))
            else:
                scratch.execute("INSERT INTO user_deposits (user_id, balance) VALUES (1, 0)")
                scratch.execute(confirm)
                scratch.execute("UPDATE user_deposits SET balance = balance + ?", (_AMOUNT,))
            balance = scratch.execute("SELECT balance FROM user_deposits WHERE user_id = 1").fetchone()[0]
    except sqlite.DatabaseError as error:
        return _line(check, [f"a deposit fails: {error}"], "")
    wrong = [f"the balance is {balance} after {_AMOUNT}"] if balance != _AMOUNT else []
    return _line(check, wrong, f"a deposit of {_AMOUNT:,} won moves a balance, on an empty copy of the schema")


def _pages(connection: Connection) -> CheckLine:
    wrong = [said for (said,) in connection.execute("PRAGMA quick_check(5)") if said != "ok"]
    loose = connection.execute('SELECT "table", rowid, parent FROM pragma_foreign_key_check LIMIT 5').fetchall()
    wrong += [f"{table}, row {row_id} points at no row of {parent}" for table, row_id, parent in loose]
    return _line("No errors in the file", wrong, "quick_check and foreign_key_check find none")


def _backup(backup: Path | None) -> CheckLine:
    check = "Backup file created and validated"
    if backup is None:
        return CheckLine(check=check, passed=None, said="there is none beside the database")
    wrong = copies.faults(backup)
    return _line(check, [f"{backup}: {wrong}"] if wrong else [], str(backup))
