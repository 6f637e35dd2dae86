"""The plan says before anything is touched what `migrate up` would do, and names every half-finished state."""

import contextlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service import resources
from service.storage import copies, migration_plan, migrator, sqlite
from service.storage.migration_plan import Plan
from service.storage.migrator import MigrationError
from service.storage.progress import quiet
from tests.contents import contents
from tests.storage.test_importer import make_bots_file

MIGRATIONS = migrator.load(resources.folder("migrations"))
COPY_BY_HAND = "CREATE TABLE {0}_backup AS SELECT * FROM {0};"


def plan_of(path: Path, **options: bool) -> Plan:
    """The plan, after which the file is as it was."""
    before = contents(path)
    connection = sqlite.connect_reader(path, busy_timeout_ms=0)
    try:
        return migration_plan.plan(connection, path, MIGRATIONS, **options)  # type: ignore[arg-type]
    finally:
        connection.close()
        assert contents(path) == before


def test_plan_counts_rows_and_shows_what_001_rejects_and_cuts(tmp_path: Path) -> None:
    """The guide's two review queries with their first rows, the row counts, and no backup yet."""
    plan = plan_of(make_bots_file(tmp_path / "bot.db"))
    assert (plan.version, plan.pending, plan.blockers) == (0, [m.name for m in MIGRATIONS[1:]], [])
    assert plan.negative_balances.count == 2
    assert plan.negative_balances.examples[0] == {"id": 2, "user_id": 2, "balance": -500}
    assert plan.long_names.count == 1
    assert plan.long_names.examples[0]["depositor_name"] == "가" * 60
    assert plan.tables["deposit_transactions"] == 6
    assert (plan.backups, plan.backup) == (0, None)
    assert plan.needed_bytes > 2 * plan.file_bytes > 0
    without = plan_of(tmp_path / "bot.db", copy=False)
    assert plan.needed_bytes - without.needed_bytes == plan.file_bytes, "the copy takes as much as the file"


def test_plan_counts_the_time_of_names_that_are_folded_anew(tmp_path: Path) -> None:
    """Those that the rules may fold differently, one by one; the plain ones take no time worth a number."""
    path, seconds = tmp_path / "earlier.db", []
    for count in (0, 3 * migration_plan.NAMES_PER_S // 10):
        path.unlink(missing_ok=True)
        connection = sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)
        migrator.up(connection, MIGRATIONS, lambda _: None, to=15)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 21000) INSERT INTO bank_notifications"
            " (bank_transaction_id, amount, depositor_name, match_name)"
            " SELECT i, 5, iif(i <= ?, 'Ｗ', 'W') || i, iif(i <= ?, 'ｗ', 'w') || i FROM n",
            (count, count),
        )
        connection.close()
        seconds.append(plan_of(path).seconds)
    assert round(seconds[1] - seconds[0], 1) == pytest.approx(0.3, abs=0.11)


def test_plan_names_the_newest_backup(tmp_path: Path) -> None:
    """A copy beside the database is found; another database of a like name is none."""
    path = make_bots_file(tmp_path / "bot.db")
    make_bots_file(tmp_path / "bottom.db")
    connection = sqlite.connect_reader(path, busy_timeout_ms=0)
    now = datetime(2026, 1, 19, tzinfo=UTC)
    made = [copies.keep(connection, path, purpose="migrate", now=now, on_progress=quiet) for _ in range(2)]
    connection.close()
    assert plan_of(path).backup == str(made[1])
    assert plan_of(path).backups == 2


@pytest.mark.parametrize("stop", range(1, len(list(migrator.statements(MIGRATIONS[1].up))), 4))
@pytest.mark.long
def test_interrupted_001_is_explained_and_not_in_the_way(tmp_path: Path, stop: int) -> None:
    """wrangler stopped after any statement of 001: the plan says so, counts all rows, and up would go on."""
    statements = list(migrator.statements(MIGRATIONS[1].up))
    path = make_bots_file(tmp_path / "bot.db")
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements[:stop]:
        connection.execute(statement)
    connection.close()
    plan = plan_of(path)
    assert plan.blockers == []
    assert plan.tables["deposit_transactions"] == 6
    if "migration_001_audit" in "\n".join(contents(path)):
        assert any("stopped half-way" in notice and "goes on from there" in notice for notice in plan.notices)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (COPY_BY_HAND.format("user_deposits"), "user_deposits_backup was not left by this migration 001"),
        (COPY_BY_HAND.format("deposit_transactions"), "deposit_transactions_backup was not left by"),
        (
            "ALTER TABLE user_deposits RENAME TO user_deposits_old;",
            "ALTER TABLE user_deposits_old RENAME TO user_deposits",
        ),
        ("CREATE TABLE audit_logs (id INTEGER); DROP TABLE user_deposits;", "user_deposits is not there, and no copy"),
        (
            "ALTER TABLE deposit_transactions RENAME TO old_deposit_transactions;"
            "CREATE TABLE deposit_transactions (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL"
            " REFERENCES users(id), type TEXT NOT NULL, amount INTEGER NOT NULL);",
            "deposit_transactions is not as",
        ),
        ("CREATE TABLE user_deposits_new AS SELECT id + 100 AS id FROM user_deposits;", "5 rows that user_deposits"),
        ("CREATE TABLE users_tmp AS SELECT telegram_id FROM users UNION ALL SELECT 1;", "1 rows that users has not"),
        ("CREATE TABLE audit_logs (id INTEGER PRIMARY KEY, what TEXT);", "audit_logs is there already, not by 001"),
        ("CREATE TABLE api_keys (id INTEGER);", "api_keys is there already, not by 004_api_keys"),
        ("CREATE TABLE opening_differences (user_id INTEGER);", "opening_differences is there already, not by 003"),
        (
            "UPDATE deposit_transactions SET type = '출금' WHERE id = 1;",
            "1 transactions have the type 출금, which no migration knows; an import does: passbook import",
        ),
        ("INSERT INTO user_domains (user_id, domain) VALUES (77, 'x');", "user_domains, row 2"),
    ],
)  # fmt: skip
def test_states_that_up_must_not_touch_are_refused_by_name(tmp_path: Path, extra: str, said: str) -> None:
    """Each left-over of another attempt that holds rows, or stands in the way, is named with what to do."""
    path = make_bots_file(tmp_path / "bot.db")
    connection = sqlite3.connect(path)
    connection.executescript(extra)
    connection.close()
    try:
        found = "\n".join(plan_of(path).blockers)
    except MigrationError as error:
        found = str(error)
    assert said in found


def test_harmless_left_overs_are_noted_and_kept(tmp_path: Path) -> None:
    """A copy whose rows are all in the table, and the guide's own audit_logs, stay and are mentioned."""
    audit = next(s for s in migrator.statements(MIGRATIONS[1].up) if "EXISTS audit_logs" in s)
    path = make_bots_file(tmp_path / "bot.db", extra="CREATE TABLE users_old AS SELECT * FROM users;" + audit)
    plan = plan_of(path)
    assert plan.blockers == []
    assert any("users_old is left" in notice for notice in plan.notices)
    assert any("audit_logs is there already; 001 keeps it" in notice for notice in plan.notices)


def test_edited_file_and_changed_schema_are_named(tmp_path: Path) -> None:
    """On a migrated database the plan names the file that was changed since, and the trigger that is gone."""
    path = tmp_path / "p.db"
    connection = sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)
    migrator.up(connection, MIGRATIONS, lambda _: None, to=5)
    connection.execute("UPDATE schema_migrations SET checksum = 'x' WHERE version = 3")
    connection.execute("DROP TRIGGER users_refuse_delete")
    connection.close()
    plan = plan_of(path)
    assert any(notice.startswith("003_ledger.sql was changed") for notice in plan.notices)
    assert "users_refuse_delete is not there" in plan.blockers[0]


@pytest.mark.parametrize("version", [0, 5, len(MIGRATIONS) - 1])
def test_what_somebody_else_put_on_a_table_of_ours_is_named(tmp_path: Path, version: int) -> None:
    """No service would start with it. From a table of the bot's it goes when Passbook adopts the table."""
    path = make_bots_file(tmp_path / "bot.db", through=version)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE others (x); CREATE INDEX on_others ON others(x);"
            "CREATE TRIGGER mine AFTER INSERT ON users BEGIN SELECT 1; END; CREATE INDEX also ON users(username);"
        )
    plan = plan_of(path)
    if version:
        said = "is of no migration, and no service starts with it: drop it"
        wanted = [
            f"The index also on users {said} (DROP INDEX also).",
            f"The trigger mine on users {said} (DROP TRIGGER mine).",
        ]
        assert plan.blockers == wanted, "what somebody else made is not named"
    else:
        assert plan.blockers == []
        goes = [f"the {thing} on users is not Passbook's, and goes." for thing in ("index also", "trigger mine")]
        assert set(goes) <= set(plan.notices), "what goes is not named"
