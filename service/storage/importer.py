"""Takes the bot's database over: what `wrangler d1 export` wrote, or an SQLite file, becomes a new Passbook database.

The tables of the baseline are copied by column name, then all migrations run over them. Everything happens in a file
beside the target; the target appears, whole and verified, by one rename at the end. Memory is bounded: rows go through
in batches, and SQLite sorts on disk.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from service.ledger.fields import BALANCE_MAX, is_padded
from service.ledger.timestamps import Clock, stored, system_clock
from service.ledger.transactions import Direction
from service.storage import import_digests, import_sums, import_values, import_words, lock, migrator, sqlite
from service.storage.exporter import DEBIT_TYPES
from service.storage.import_findings import EXAMPLES_MAX, Findings
from service.storage.import_source import (
    TABLES,
    ImportFailed,
    Source,
    columns_of,
    count_of,
    open_source,
    quoted,
    tables_of,
)
from service.storage.import_values import Refused, Taken, Value
from service.storage.migrator import Migration, MigrationError, Report
from service.storage.progress import Progress, quiet
from service.storage.sqlite import Connection, transaction

__all__ = ["KNOWN_STATUSES", "TABLES", "ImportFailed", "ImportReport", "import_database"]

KNOWN_STATUSES = ("pending", "confirmed", "cancelled", "rejected", "expired")
"""Of transactions; the bot's other words are kept and never count as money."""
_REGISTERED = "registered"
"""The status of a domain name where the bot's table has no such column: a row there is a name that was registered."""
_RESOURCE_TYPES = {
    "users": "user",
    "user_deposits": "user_deposits",
    "deposit_transactions": "deposit_transaction",
    "bank_notifications": "bank_notification",
    "user_domains": "user_domains",
    "audit_logs": "audit_log",
}
"""Table -> its name in audit_logs.resource_type, as the guide spells it."""
_LOGGED = {
    "import_value_mended": "mended",
    "import_status_mapped": "status_mapped",
    "import_type_told": "type_told",
    "migration_balance_rejected": "balance_rejected",
    "migration_account_superseded": "account_superseded",
    "migration_depositor_name_truncated": "name_truncated",
    "migration_amount_made_positive": "amount_made_positive",
    "migration_orphan_account_removed": "account_removed",
    "opening_adjustment": "opening_adjustment",
}
"""Action of an audit row -> its kind in the findings."""
_EXAMPLES_MAX = 5
_BATCH = 1000
_CONSTRAINT_ON = re.compile(r"failed: (\w+)\.(\w+)")
_REBUILT_INDEXES = ("idx_deposits_user", "idx_transactions_user", "idx_transactions_status")
"""001 makes them anew after its rebuild, sorted; kept up row by row they would cost more than the rows."""
_PARENTS = {
    "deposit_transactions": ("user_id", "users"),
    "bank_notifications": ("matched_transaction_id", "deposit_transactions"),
    "user_domains": ("user_id", "users"),
}
"""Table -> its column that points at a row, and the table of that row."""


class ImportReport(Struct, frozen=True, kw_only=True):
    """What came over. `tables`: name -> rows; balances_rejected to accounts_removed count the migrations' audit rows.

    left_aside names what the source holds and Passbook does not know: "table (rows)", "trigger name". archived:
    "table.column (values)" that are in import_archive. openings: the first of the opening entries, in words.
    times_respelled: times that are the same instant in other letters. numbers_retyped: numbers and names of digits that
    are the same in another type. values_mended: audit rows import_value_mended. unreachable_users counts telegram_ids
    that the API cannot name, padded_users those that begin with 0; the examples are the first few. types_told: type
    that migration 003 does not know -> "debit (rows)", "credit (rows)" or "deposit (rows)", as it was counted.
    unknown_types: "type (rows)" of transactions counted as credits because nothing says otherwise. unknown_statuses:
    word -> rows that moved no money. (Of both the most frequent.) domains_registered: names whose table has no status.
    by_order: tables whose columns are those of the baseline because the source did not name them. doubts: sentences
    about what may be missing.
    """

    tables: dict[str, int]
    left_aside: list[str]
    archived: list[str]
    balances_rejected: int
    names_truncated: int
    opening_entries: int
    openings: list[str]
    accounts_removed: int
    times_respelled: int
    numbers_retyped: int
    values_mended: int
    statuses_mapped: dict[str, int]
    unknown_statuses: dict[str, int]
    unreachable_users: int
    unreachable_examples: list[str]
    padded_users: int
    padded_examples: list[str]
    types_told: dict[str, str]
    unknown_types: list[str]
    domains_registered: int
    by_order: list[str]
    doubts: list[str]


def import_database(
    source: Path,
    target: Path,
    migrations: list[Migration],
    report: Report,
    *,
    statuses: Mapping[str, str] | None = None,
    types: Mapping[str, Direction] | None = None,
    findings: Findings | None = None,
    progress: Progress = quiet,
    clock: Clock = system_clock,
) -> ImportReport:
    """Makes `target` from `source`.

    `statuses`: the bot's word for a transaction's status -> the one of KNOWN_STATUSES that it means; `types`: its word
    for a transaction's type -> which way the money moved. All that is found is added to `findings`, also of an import
    that is refused because of it. Raises ImportFailed, MigrationError, DatabaseInUse, FileExistsError for the file of
    the findings; then nothing was made.
    """
    if not source.is_file():
        raise ImportFailed(f"There is no file {source}.")
    found = findings or Findings()
    sqlite.make_folder(target.parent)
    with lock.exclusive(target, purpose="import"):
        _check_target_is_free(target)
        found.open()
        try:
            with _working_files(target) as (scratch, fresh):
                old = open_source(source, scratch, migrations, report, progress)
                with contextlib.closing(old.connection):
                    words = _Words(statuses or {}, types or {})
                    result = _make(old, fresh, migrations, report, progress, words, found, stored(clock()))
                found.close()
                sqlite.sync(fresh)
                fresh.replace(target)
                sqlite.sync(target.parent)
        except (sqlite.DatabaseError, MigrationError) as error:
            found.discard()
            if sqlite.is_full(error.__cause__ or error):
                raise ImportFailed(
                    f"There is no space left on the disk of {target.absolute().parent} (or of the folder for temporary"
                    " files); an import takes about four times the size of its source while it runs."
                ) from error
            raise
        except BaseException:
            if "refused" not in found.counts:  # else the list is what the caller needs now
                found.discard()
            raise
        finally:
            found.close()
    return result


def _make(
    old: Source,
    fresh: Path,
    migrations: list[Migration],
    report: Report,
    progress: Progress,
    words: "_Words",
    findings: Findings,
    now: str,
) -> ImportReport:
    with contextlib.closing(sqlite.connect_writer(fresh, busy_timeout_ms=0, checkpoints=True)) as new:
        # Nobody sees the file before it is whole and synced.
        for pragma in ("synchronous = OFF", "temp_store = FILE", "cache_size = -65536"):
            new.execute(f"PRAGMA {pragma}")
        migrator.up(new, migrations, report, to=0)
        with transaction(new):
            for index in _REBUILT_INDEXES:
                new.execute(f"DROP INDEX {index}")
            copy = _Copy(old, new, migrations, report, progress, words, findings)
            copy.run()
        migrator.up(new, import_words.taught(migrations, words.types), report, adopt=False)
        with transaction(new):
            copy.archive(now)
        import_digests.record(new, now=now)
        result = _result(new, copy, old, findings)
        progress("checking", 0, 1)
        _verify(new)
        progress("checking", 1, 1)
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return result


def _check_target_is_free(target: Path) -> None:
    if target.exists() and target.stat().st_size > 0:
        raise ImportFailed(f"{target} is there already; import makes a new database. Move it away first.")
    # SQLite would replay the log of the earlier database over the new one.
    stale = [path.name for path in sqlite.side_files(target) if path.exists()]
    if stale:
        raise ImportFailed(
            f"Beside {target} there is still {', '.join(stale)} of an earlier database, which SQLite would mix into"
            f" the new one; move it away together with the earlier {target.name}."
        )


@contextlib.contextmanager
def _working_files(target: Path) -> Iterator[tuple[Path, Path]]:
    """Two free paths beside `target` for the block; what is left of them is deleted after it."""
    scratch, fresh = (target.with_name(f"{target.name}.{part}") for part in ("source", "importing"))
    leftovers = [one for path in (scratch, fresh) for one in sqlite.files_of(path)]
    for path in leftovers:
        path.unlink(missing_ok=True)
    try:
        yield scratch, fresh
    finally:
        for path in leftovers:
            path.unlink(missing_ok=True)


class _Words(Struct, frozen=True):
    """What the operator says that the bot's words mean; see `import_database`."""

    statuses: Mapping[str, str]
    types: Mapping[str, Direction]


class _Copy:
    """The bot's rows on their way into the baseline of `new`, within one transaction; what happened is counted."""

    def __init__(
        self,
        source: Source,
        new: Connection,
        migrations: list[Migration],
        report: Report,
        progress: Progress,
        words: _Words,
        findings: Findings,
    ) -> None:
        self._source = source
        self._old = source.connection
        self._new = new
        self._migrations = migrations
        self._report = report
        self._progress = progress
        self._statuses = words.statuses
        self._types = words.types
        self._findings = findings
        self._tables = tables_of(self._old)
        self._refused: dict[str, set[object]] = {}
        """Table -> ids of the rows that are refused: what points at them is not reported too."""
        self._fractions: dict[tuple[str, str], int] = {}
        """(table, column) -> how many rows have a fraction of a won there."""
        self.rows: dict[str, int] = {}
        self.columns: dict[str, set[str]] = {}
        """Table -> the columns that were copied."""
        self.last_of_log = 0
        """The highest id of the rows that audit_logs had in the source."""
        self.archived: dict[str, int] = {}
        self.statuses_mapped: dict[str, int] = dict.fromkeys(words.statuses, 0)
        self.types_told: dict[str, int] = dict.fromkeys(words.types, 0)
        """Type that migration 003 does not know -> its rows."""
        self.domains_registered = 0
        self.times_respelled = 0
        self.numbers_retyped = 0
        self.values_mended = 0
        self.unreachable_users = 0
        self.unreachable_examples: list[str] = []
        self.padded_users = 0
        self.padded_examples: list[str] = []

    def run(self) -> None:
        """Copies every table that is there. Raises ImportFailed with the rows that cannot be taken over."""
        for statement in migrator.statements(self._migrations[1].up):
            if "CREATE TABLE IF NOT EXISTS audit_logs" in statement:
                self._new.execute(statement)
        # The log comes first, and what is added to it has ids after its own.
        self._begin_log_after_its_own()
        for table in ("audit_logs", *TABLES):
            if table in self._tables:
                self._copy_table(table)
                self._copy_high_water_mark(table)
        self._check_order()
        self._check_sums()
        self._refuse()
        self._log_statuses()
        self._log_types()
        for table in (*TABLES, "audit_logs"):
            if table in self.rows:
                self._report(f"  {table}: {self.rows[table]:,} rows")

    def _begin_log_after_its_own(self) -> None:
        if "audit_logs" not in self._tables:
            return
        named = "id" in columns_of(self._old, self._tables["audit_logs"])
        wanted = "MAX(id)" if named else "COUNT(*)"
        last = self._old.execute(f"SELECT {wanted} FROM {quoted(self._tables['audit_logs'])}").fetchone()[0]
        if isinstance(last, int) and 0 < last <= BALANCE_MAX:
            self.last_of_log = last
            if named:
                self._new.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('audit_logs', ?)", (last,))

    def archive(self, now: str) -> None:
        """Keeps what the ledger has no column for: values of unknown columns, and statuses that were mapped."""
        for table, copied in self.columns.items():
            spelled = columns_of(self._old, self._tables[table])
            unknown = [name for name in spelled if name not in copied]
            if unknown:
                self._archive_columns(table, [spelled[name] for name in unknown], "id" in spelled, now)
        if any(self.statuses_mapped.values()) or any(self.types_told.get(word) for word in import_words.DEPOSITS):
            for row_id, kind, status in self._source_rows("deposit_transactions", ["id", "type", "status"]):
                old = {"type": str(kind)} if str(kind) in import_words.DEPOSITS else {}
                if str(status) in self._statuses:
                    old["status"] = str(status)
                if old:
                    kept = msgspec.json.encode(old).decode()
                    number = import_values.take("deposit_transactions", "id", row_id).value
                    self._insert_archived("deposit_transactions", number, kept, now)

    def _archive_columns(self, table: str, unknown: list[str], has_ids: bool, now: str) -> None:
        names = ["id", *(name.lower() for name in unknown)] if has_ids else [name.lower() for name in unknown]
        for number, row in enumerate(self._source_rows(table, names), start=1):
            values = row[1:] if has_ids else row
            kept = {
                name: import_values.logged(value)
                for name, value in zip(unknown, values, strict=True)
                if value is not None
            }
            for name in kept:
                key = f"{self._tables[table]}.{name}"
                self.archived[key] = self.archived.get(key, 0) + 1
            if kept:
                row_id = import_values.take(table, "id", row[0]).value if has_ids else number
                self._insert_archived(table, row_id, msgspec.json.encode(kept).decode(), now)
        for name in unknown:
            self.archived.setdefault(f"{self._tables[table]}.{name}", 0)

    def _insert_archived(self, table: str, row_id: Value, values: str, now: str) -> None:
        self._new.execute(
            "INSERT INTO import_archive (source_table, row_id, column_values, imported_at) VALUES (?, ?, ?, ?)",
            (table, row_id, values, now),
        )

    def _refuse(self) -> None:
        count = self._findings.counts.get("refused", 0)
        if not count:
            return
        shown = self._findings.examples["refused"]
        more = count - len(shown)
        rest = ""
        if more:
            where = self._findings.path
            rest = f"\n  … and {more:,} more: " + (f"see {where}" if where else "--report FILE lists all")
        raise ImportFailed(
            f"{count:,} rows or values cannot be taken over; correct them in the source:\n  "
            + "\n  ".join([*([import_values.about_fractions(self._fractions)] if self._fractions else []), *shown])
            + rest
        )

    def _log_statuses(self) -> None:
        for word, count in self.statuses_mapped.items():
            if not count:
                raise ImportFailed(f"No transaction has the status {word!r} that --status names; nothing was made.")
            details = {"old": word, "new": self._statuses[word], "rows": count}
            self._new.execute(
                "INSERT INTO audit_logs (action, resource_type, details) VALUES ('import_status_mapped',"
                " 'deposit_transaction', ?)",
                (msgspec.json.encode(details).decode(),),
            )

    def _log_types(self) -> None:
        for word, count in self.types_told.items():
            if not count:
                raise ImportFailed(f"No transaction has the type {word!r} that --type names; nothing was made.")
            details = {"type": word, "counted_as": self.counted_as(word), "rows": count}
            self._new.execute(
                "INSERT INTO audit_logs (action, resource_type, details) VALUES ('import_type_told',"
                " 'deposit_transaction', ?)",
                (msgspec.json.encode(details).decode(),),
            )

    def counted_as(self, word: str) -> str:
        """What rows of the type became: deposit, or a credit or a debit that keeps its word."""
        return import_words.DEPOSITS.get(word) or str(import_words.direction_of(word, self._types))

    def _check_sums(self) -> None:
        """Refuses each user whose rows, each of them within its bounds, add up to more than the ledger holds."""
        transactions = "SELECT user_id, type, amount, status FROM deposit_transactions"
        accounts = "SELECT user_id, balance FROM user_deposits"
        for user_id, why in import_sums.beyond(
            self._new,
            transactions=transactions,
            accounts=accounts,
            debits=[*DEBIT_TYPES, *import_words.unknown_to_003(self._types)],
        ):
            self._add_refused("users", user_id, "id", user_id, why)

    def _check_order(self) -> None:
        """Raises ImportFailed when accounts without column names mostly belong to nobody: their order is another."""
        if "user_deposits" not in self._source.by_order:
            return
        accounts, lost = self._new.execute(
            "SELECT COUNT(*), COALESCE(SUM(user_id NOT IN (SELECT id FROM users)), 0) FROM user_deposits"
        ).fetchone()
        if lost * 2 > accounts:
            raise ImportFailed(
                f"The export names no columns, and in the baseline's order {lost:,} of {accounts:,} accounts belong to"
                " no user: its order is another. Export with the schema: wrangler d1 export NAME --output FILE."
            )

    def _copy_table(self, table: str) -> None:
        known = columns_of(self._new, table)
        columns = [name for name in columns_of(self._old, self._tables[table]) if name in known]
        self.columns[table] = set(columns)
        read = list(columns)
        added = self._added(table, columns)
        columns += added
        insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        plain = [import_values.plain(table, column) for column in columns]
        total = count_of(self._old, self._tables[table]) or 0
        has_status = table == "deposit_transactions"
        kind, status, amount = (columns.index(name) if has_status else -1 for name in ("type", "status", "amount"))
        special = {*self._statuses, "pending"}
        foreign = {*self._types, *import_words.FOREIGN}
        batch: list[tuple[Value, ...]] = []
        count = 0
        for source_row in self._source_rows(table, read):
            row = source_row + tuple(source_row[read.index(old)] if old in read else old for old in added.values())
            count += 1
            as_it_is = all(holds(value) for holds, value in zip(plain, row, strict=True))
            if as_it_is and has_status and row[status] in special:
                as_it_is = row[status] not in self._statuses and row[amount] > 0  # type: ignore[operator]
            if as_it_is and has_status and row[kind] in foreign:
                as_it_is = False
            if as_it_is:
                batch.append(row)
            if batch and (len(batch) == _BATCH or not as_it_is):
                self._insert_batch(table, insert, columns, batch, count - len(batch) + as_it_is)
                batch.clear()
            if not as_it_is:
                self._insert_row(table, insert, columns, row, count)
            if count % _BATCH == 0:
                self._progress(f"taking over {table}", count, total)
        self._insert_batch(table, insert, columns, batch, count - len(batch) + 1)
        self.rows[table] = count
        self._progress(f"taking over {table}", count, total)

    def _added(self, table: str, columns: list[str]) -> dict[str, str]:
        """Columns that the source has not and a row is to have -> the source's column, or the word, that stands there.

        A table of domain names without a status holds those that were registered.
        """
        if table != "user_domains" or "status" in columns:
            return {}
        self.domains_registered = count_of(self._old, self._tables[table]) or 0
        when = {"registered_at": "created_at"} if "created_at" in columns and "registered_at" not in columns else {}
        return {"status": _REGISTERED, **when}

    def _insert_batch(
        self, table: str, insert: str, columns: list[str], batch: list[tuple[Value, ...]], first: int
    ) -> None:
        """Rows that may stand as they are, all at once; one by one where a constraint refuses one of them."""
        if not batch:
            return
        self._new.execute("SAVEPOINT batch")
        try:
            self._new.executemany(insert, batch)
        except sqlite.DatabaseError as error:
            if not sqlite.is_of_statement(error):
                raise
            self._new.execute("ROLLBACK TO batch")
            for number, row in enumerate(batch, start=first):
                self._insert_row(table, insert, columns, row, number)
        self._new.execute("RELEASE batch")

    def _insert_row(self, table: str, insert: str, columns: list[str], row: tuple[Value, ...], number: int) -> None:
        old = dict(zip(columns, row, strict=True))
        name = old.get("id", number)
        taken, mended, problems = self._take(table, old)
        for column, why in problems:
            self._add_refused(table, name, column, old[column], why)
        if problems:
            return
        try:
            cursor = self._new.execute(insert, list(taken.values()))
        except sqlite.DatabaseError as error:
            if not sqlite.is_of_statement(error):
                raise
            self._refuse_row(table, name, taken, error)
            return
        for details in mended:
            self._log(table, cursor.lastrowid, taken, details)

    def _add_refused(self, table: str, name: Value, column: str | None, value: Value, why: str) -> None:
        self._refused.setdefault(table, set()).add(name)
        if column is not None and import_values.is_fraction(column, value):
            self._fractions[table, column] = self._fractions.get((table, column), 0) + 1
        self._findings.add(
            "refused",
            f"{table}, row {import_values.shown(name)}{f', {column}' if column else ''}: {why}",
            table=table,
            row=import_values.logged(name),
            column=column,
            value=import_values.shown(value),
            why=why,
        )

    def _refuse_row(self, table: str, name: Value, taken: dict[str, Value], error: Exception) -> None:
        """Says what the database has against the row; nothing, where it points at a row that is refused itself."""
        if table in _PARENTS and sqlite.is_of_statement(error) and "FOREIGN KEY" in str(error):
            column, parent = _PARENTS[table]
            self._refused.setdefault(table, set()).add(name)
            if taken[column] not in self._refused.get(parent, ()):
                self._add_refused(
                    table,
                    name,
                    column,
                    taken[column],
                    f"there is no row {import_values.shown(taken[column])} in {parent}",
                )
            return
        on = _CONSTRAINT_ON.search(str(error))
        column_named = on[2] if on else None
        value = taken.get(column_named or "")
        self._add_refused(table, name, column_named, value, f"{error}{self._same_telegram_id(table, taken)}")

    def _source_rows(self, table: str, columns: list[str]) -> Iterator[tuple[Value, ...]]:
        spelled = columns_of(self._old, self._tables[table])
        names = ", ".join(quoted(spelled[column]) for column in columns)
        order = quoted(spelled.get("id", next(iter(spelled.values()))))
        try:
            rows = self._old.execute(f"SELECT {names} FROM {quoted(self._tables[table])} ORDER BY {order}")
            while batch := rows.fetchmany(_BATCH):
                yield from batch
        except sqlite.DatabaseError as error:
            if sqlite.is_full(error):
                raise
            raise ImportFailed(f"The table {table} of the source cannot be read: {error}.") from error

    def _take(
        self, table: str, old: dict[str, Value]
    ) -> tuple[dict[str, Value], list[dict[str, object]], list[tuple[str, str]]]:
        """The row as it will be stored, what the log must say of it, and the columns that cannot be taken and why."""
        taken: dict[str, Value] = {}
        mended: list[dict[str, object]] = []
        problems: list[tuple[str, str]] = []
        by_order = table in self._source.by_order
        for column, value in old.items():
            try:
                result = import_values.take(table, column, value)
                if by_order and table != "audit_logs" and result.mended and result.value is None:
                    raise Refused(
                        f"{import_values.shown(value)} is no time; the export names no columns, so their order may be"
                        " another than the baseline's: export with the schema"
                    )
            except Refused as refused:
                problems.append((column, str(refused)))
                continue
            taken[column] = result.value
            if (result.respelled or result.retyped) and not result.mended:
                self._note_spelling(table, old.get("id"), column, value, result)
            if result.mended:
                mended.append({"column": column, "old": import_values.logged(value), "new": result.value})
        if problems:
            return taken, [], problems
        if table == "deposit_transactions":
            word = str(taken["status"])
            if word in self._statuses:
                taken["status"] = self._statuses[word]
                self.statuses_mapped[word] += 1
            self._take_type(taken)
            if import_values.never_confirmable(taken):
                row = {column: import_values.logged(value) for column, value in old.items()}
                mended.append({"column": "status", "old": word, "new": "cancelled", "row": row})
                taken["status"] = "cancelled"
        if table == "users" and not import_values.is_telegram_id(str(taken["telegram_id"])):
            self.unreachable_users += 1
            self._findings.add(
                "unreachable_user",
                import_values.shown(taken["telegram_id"]),
                table="users",
                row=taken.get("id"),
                column="telegram_id",
                value=taken["telegram_id"],
            )
            if len(self.unreachable_examples) < _EXAMPLES_MAX:
                self.unreachable_examples.append(import_values.shown(taken["telegram_id"]))
        if table == "users" and not problems:
            self._note_padded(taken)
        return taken, mended, problems

    def _take_type(self, taken: dict[str, Value]) -> None:
        """Counts a type that migration 003 does not know, and gives a deposit the word by which it is one."""
        word = str(taken["type"])
        if import_words.direction_of(word, self._types) is None or word in (*DEBIT_TYPES, *import_words.PLAIN_CREDITS):
            return
        self.types_told[word] = self.types_told.get(word, 0) + 1
        taken["type"] = import_words.DEPOSITS.get(word, word)

    def _note_spelling(self, table: str, row: Value, column: str, value: Value, result: Taken) -> None:
        """A value that is the same in other letters or in another type."""
        self.times_respelled += result.respelled
        self.numbers_retyped += result.retyped
        self._findings.add(
            "time_respelled" if result.respelled else "number_retyped",
            f"{table}, row {import_values.shown(row)}, {column}",
            table=table,
            row=import_values.logged(row),
            column=column,
            old=import_values.logged(value),
            new=result.value,
        )

    def _note_padded(self, taken: dict[str, Value]) -> None:
        """Whose telegram_id begins with 0, as no new one may: they stay, and are told."""
        telegram_id = str(taken["telegram_id"])
        if not (import_values.is_telegram_id(telegram_id) and is_padded(telegram_id)):
            return
        self.padded_users += 1
        if len(self.padded_examples) < _EXAMPLES_MAX:
            self.padded_examples.append(telegram_id)
        row = taken.get("id")
        self._findings.add(
            "padded_telegram_id", telegram_id, table="users", row=row, column="telegram_id", value=telegram_id
        )

    def _same_telegram_id(self, table: str, taken: dict[str, Value]) -> str:
        """The row that stands in the way of this one, for the message."""
        if table != "users":
            return ""
        wanted = "SELECT id FROM users WHERE telegram_id = ? AND id <> ?"
        found = self._new.execute(wanted, (taken["telegram_id"], taken["id"])).fetchone()
        return f"; row {found[0]} has the same {import_values.shown(taken['telegram_id'])}" if found else ""

    def _log(self, table: str, row_id: int | None, taken: dict[str, Value], details: dict[str, object]) -> None:
        user_id = taken.get("id") if table == "users" else taken.get("user_id")
        self._new.execute(
            "INSERT INTO audit_logs (user_id, telegram_id, action, resource_type, resource_id, details)"
            " VALUES (?, (SELECT telegram_id FROM users WHERE id = ?), 'import_value_mended', ?, ?, ?)",
            (user_id, user_id, _RESOURCE_TYPES[table], row_id, msgspec.json.encode(details).decode()),
        )
        self.values_mended += 1

    def _copy_high_water_mark(self, table: str) -> None:
        """An id that was given out once is never given out again, even when its row is gone."""
        if not sqlite.has_table(self._old, "sqlite_sequence"):
            return
        for name, sequence in self._old.execute("SELECT name, seq FROM sqlite_sequence").fetchall():
            if str(name).lower() != table or not isinstance(sequence, int):
                continue
            if sequence > BALANCE_MAX:
                self._add_refused("sqlite_sequence", table, "seq", sequence, f"{sequence} leaves no id to give out")
            elif self._new.execute("SELECT 1 FROM sqlite_sequence WHERE name = ?", (table,)).fetchone():
                self._new.execute("UPDATE sqlite_sequence SET seq = MAX(seq, ?) WHERE name = ?", (sequence, table))
            else:  # the table is empty now
                self._new.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, sequence))


def _left_aside(old: Connection, copied: dict[str, set[str]], findings: Findings) -> list[str]:
    aside = []
    for table, name in sorted(tables_of(old).items()):
        if table not in copied:
            count = count_of(old, name)
            aside.append(f"{name} ({'rows unknown' if count is None else f'{count:,} rows'})")
            findings.add("left_aside", aside[-1], table=name, rows=count)
    return aside


def _result(new: Connection, copy: _Copy, old: Source, findings: Findings) -> ImportReport:
    _find_logged(new, findings, copy.last_of_log)
    known = [*import_words.CREDITS, *copy.types_told]
    unknown = new.execute(
        "SELECT type, COUNT(*) FROM deposit_transactions"
        f" WHERE direction = 'credit' AND type NOT IN ({', '.join('?' * len(known))})"
        f" GROUP BY type ORDER BY COUNT(*) DESC, type LIMIT {EXAMPLES_MAX}",
        known,
    ).fetchall()
    statuses = new.execute(
        "SELECT status, COUNT(*) FROM deposit_transactions"
        f" WHERE status NOT IN ({', '.join('?' * len(KNOWN_STATUSES))}) GROUP BY status"
        f" ORDER BY COUNT(*) DESC, status LIMIT {EXAMPLES_MAX}",
        KNOWN_STATUSES,
    ).fetchall()
    for name, values in copy.archived.items():
        findings.add("archived", name, column=name, values=values)
    for word, count in statuses:
        findings.add("unknown_status", word, status=word, rows=count)
    for kind, count in unknown:
        findings.add("unknown_type", kind, type=kind, rows=count)
    if copy.domains_registered:
        findings.add("domains_registered", "user_domains", table="user_domains", rows=copy.domains_registered)
    for table in sorted(old.by_order & copy.rows.keys()):
        findings.add("by_order", table, table=table)
    for doubt in old.doubts:
        findings.add("doubt", doubt, doubt=doubt)
    aside = _left_aside(old.connection, copy.columns, findings)
    for said in old.left_aside:
        findings.add("left_aside", said, object=said)
    counts = findings.counts
    return ImportReport(
        tables={table: copy.rows[table] for table in (*TABLES, "audit_logs") if table in copy.rows},
        left_aside=aside + old.left_aside,
        archived=[f"{name} ({count:,} values)" for name, count in sorted(copy.archived.items())],
        balances_rejected=counts.get("balance_rejected", 0),
        names_truncated=counts.get("name_truncated", 0),
        opening_entries=counts.get("opening_adjustment", 0),
        openings=findings.examples.get("opening_adjustment", []),
        accounts_removed=counts.get("account_removed", 0),
        times_respelled=copy.times_respelled,
        numbers_retyped=copy.numbers_retyped,
        values_mended=copy.values_mended,
        statuses_mapped=copy.statuses_mapped,
        unknown_statuses=dict(statuses),
        unreachable_users=copy.unreachable_users,
        unreachable_examples=copy.unreachable_examples,
        padded_users=copy.padded_users,
        padded_examples=copy.padded_examples,
        types_told={word: f"{copy.counted_as(word)} ({count:,})" for word, count in copy.types_told.items()},
        domains_registered=copy.domains_registered,
        unknown_types=[f"{name} ({count:,})" for name, count in unknown],
        by_order=sorted(old.by_order & copy.rows.keys()),
        doubts=old.doubts,
    )


def _find_logged(new: Connection, findings: Findings, before: int) -> None:
    """What the log says that this import changed, and 001 also where the bot had run it: in rows up to `before`."""
    rows = new.execute(
        "SELECT action, user_id, telegram_id, resource_type, resource_id, details FROM audit_logs"
        f" WHERE action IN ({', '.join('?' * len(_LOGGED))}) AND (id > ? OR action IN"
        " ('migration_balance_rejected', 'migration_account_superseded', 'migration_depositor_name_truncated'))"
        " ORDER BY id",
        [*_LOGGED, before],
    )
    for action, user_id, telegram_id, resource_type, resource_id, text in rows:
        try:
            details = msgspec.json.decode(text or "null")
        except msgspec.DecodeError:
            details = text
        said = f"user {telegram_id or user_id}, {resource_type} {resource_id}"
        if action == "opening_adjustment" and isinstance(details, dict):
            said = (
                f"user {telegram_id}: balance {details.get('balance')}, history {details.get('history')}; transaction"
                f" {resource_id}, a {details.get('direction')} of {details.get('amount')}"
            )
        findings.add(
            _LOGGED[action],
            said,
            user_id=user_id,
            telegram_id=telegram_id,
            resource_type=resource_type,
            resource_id=resource_id,
            details=details,
        )


def _verify(new: Connection) -> None:
    """Raises MigrationError unless every balance is the sum of its transactions and the file is sound."""
    wrong = new.execute(
        "SELECT d.user_id FROM user_deposits AS d LEFT JOIN ("
        " SELECT user_id, SUM(CASE direction WHEN 'credit' THEN amount ELSE -amount END) AS total"
        " FROM deposit_transactions WHERE status = 'confirmed' GROUP BY user_id"
        ") AS history ON history.user_id = d.user_id WHERE d.balance <> COALESCE(history.total, 0) LIMIT 1"
    ).fetchone()
    if wrong:
        raise MigrationError(f"After the import the balance of user {wrong[0]} is not the sum of its transactions.")
    if new.execute("PRAGMA foreign_key_check").fetchone() or new.execute("PRAGMA integrity_check").fetchone() != (
        "ok",
    ):
        raise MigrationError("After the import the database does not pass SQLite's own checks.")
