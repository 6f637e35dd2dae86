"""The bot's tables as its own author wrote them become those of migration 000, in place, and nothing is lost."""

# ruff: noqa: E501 (the bot's own statements stand on long lines)

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from service.storage import adoption, migration_plan, migrator, schema, sqlite
from service.storage.migration_plan import Plan
from service.storage.migrator import MigrationError
from tests.contents import contents
from tests.ledger_check import broken_invariants
from tests.live import passbook
from tests.migrations.d1 import LocalD1, succeeded
from tests.printed import stands
from tests.storage.test_import_words import SEED
from tests.storage.test_importer import MIGRATIONS, make_bots_file, read

SEED_SQL = SEED.read_text("utf-8")
LATEST = len(MIGRATIONS) - 1


def bots_file(path: Path, sql: str) -> Path:
    """An SQLite file with what `sql` makes."""
    with closing(sqlite3.connect(path)) as bot:
        bot.executescript(sql)
        bot.commit()
    return path


def plan_of(path: Path) -> Plan:
    """The plan, asked as `passbook migrate plan` asks."""
    with closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as connection:
        return migration_plan.plan(connection, path, MIGRATIONS)


def migrated(path: Path) -> None:
    """`migrate up` without the words around it."""
    with closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        migrator.up(connection, MIGRATIONS, lambda _: None)


def changed(*pairs: tuple[str, str], more: str = "") -> str:
    """The real database in other words; each text that is replaced must be there."""
    sql = SEED_SQL
    assert [old for old, _ in pairs if old not in sql] == []
    for old, new in pairs:
        sql = sql.replace(old, new)
    return sql + more


VARIANTS = {
    "as it is": SEED_SQL,
    "another order of columns": changed(
        ("telegram_id TEXT UNIQUE NOT NULL, username TEXT,", "username TEXT, telegram_id TEXT UNIQUE NOT NULL,"),
        ("VALUES(1,'123456','hong',", "VALUES(1,'hong','123456',"),
        ("VALUES(2,'7001','corp',", "VALUES(2,'corp','7001',"),
        ("VALUES(3,'7002',NULL,", "VALUES(3,NULL,'7002',"),
    ),
    "quoted names": changed(
        ("CREATE TABLE users ( id", 'CREATE TABLE "users" ( [id]'), ("CREATE TABLE user_deposits (", "CREATE TABLE `user_deposits` (")
    ),
    "no AUTOINCREMENT at all": changed(
        ("AUTOINCREMENT", ""), ("DELETE FROM sqlite_sequence;\n", ""),
        ("INSERT INTO \"sqlite_sequence\" VALUES('users',3);\n", ""),
        ("INSERT INTO \"sqlite_sequence\" VALUES('deposit_transactions',5);\n", ""),
    ),
    "WITHOUT ROWID": changed(
        ("id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL UNIQUE,", "id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL UNIQUE,"),
        ("version INTEGER NOT NULL DEFAULT 1, FOREIGN KEY (user_id) REFERENCES users(id) );", "version INTEGER NOT NULL DEFAULT 1) WITHOUT ROWID;"),
    ),
    "STRICT": changed(
        ("verified INTEGER DEFAULT 0, created_at DATETIME DEFAULT CURRENT_TIMESTAMP, FOREIGN KEY (user_id) REFERENCES users(id) );",
         "verified INTEGER DEFAULT 0, created_at TEXT DEFAULT CURRENT_TIMESTAMP, FOREIGN KEY (user_id) REFERENCES users(id) ) STRICT;"),
    ),
    "a computed column": changed(
        ("'주식회사코딩하는사람들','주식회사코딩하',NULL,NULL", "'주식회사코딩하는사람들',NULL,NULL"),
        ("'홍길동','홍길동','입금'", "'홍길동','입금'"), ("NULL,NULL,'도메인", "NULL,'도메인"),
        ("'홍길동','홍길동',NULL,NULL,'2026-01-18", "'홍길동',NULL,NULL,'2026-01-18"),
        ("'김철수','김철수',NULL", "'김철수',NULL"),
        ("depositor_name_prefix TEXT, description", "depositor_name_prefix TEXT GENERATED ALWAYS AS (substr(depositor_name, 1, 7)) VIRTUAL, description"),
    ),
    "triggers, views and indexes of the bot": changed(
        more="CREATE TRIGGER touched AFTER UPDATE ON users BEGIN UPDATE users SET updated_at = CURRENT_TIMESTAMP WHERE id = NEW.id; END;"
        "CREATE VIEW rich AS SELECT u.telegram_id, d.balance, d.version FROM users u JOIN user_deposits d ON d.user_id = u.id;"
        "CREATE UNIQUE INDEX mine ON users(username, first_name) WHERE username IS NOT NULL;"
        "CREATE INDEX idx_transactions_user ON deposit_transactions(amount);",
    ),
    "tables of the bot that delete with a user": changed(
        ("FOREIGN KEY (user_id) REFERENCES users(id) );\nINSERT INTO \"message_buffer\"",
         "FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE );\nINSERT INTO \"message_buffer\""),
    ),
    "no domains and no log": changed(
        more="DROP TABLE user_domains; DROP TABLE audit_logs;"
    ),
    "values of every kind in a column more": changed(
        more="ALTER TABLE users ADD COLUMN \"it's \"\"odd\"\"\"; UPDATE users SET \"it's \"\"odd\"\"\" = X'00FF' WHERE id = 1;"
        "UPDATE users SET \"it's \"\"odd\"\"\" = '{\"a\":null}' WHERE id = 2; UPDATE users SET \"it's \"\"odd\"\"\" = 1.5 WHERE id = 3;"
    ),
}  # fmt: skip


@pytest.mark.parametrize("sql", VARIANTS.values(), ids=VARIANTS)
def test_the_real_database_is_migrated_in_place(tmp_path: Path, sql: str) -> None:
    """Every row and value is there afterwards, ids go on, and the ledger is sound; so are the bot's other tables."""
    path = bots_file(tmp_path / "bot.db", sql)
    before = {
        table: read(path, f"SELECT {columns} FROM {table} ORDER BY id")
        for table, columns in (
            ("users", "id, telegram_id, username, created_at"),
            ("deposit_transactions", "id, user_id, type, amount, status, depositor_name, description, confirmed_at"),
            ("bank_notifications", "id, depositor_name, amount, raw_message, matched_transaction_id"),
            ("message_buffer", "*"),
        )
    }
    plan = plan_of(path)
    assert plan.blockers == []
    migrated(path)
    assert broken_invariants(path) == []
    for table, rows in before.items():
        assert len(read(path, f"SELECT id FROM {table}")) == len(rows) > 0
    assert read(path, "SELECT id, telegram_id, username, created_at FROM users ORDER BY id") == before["users"]
    columns = "id, user_id, type, amount, status, depositor_name, description, confirmed_at"
    moved = read(path, f"SELECT {columns} FROM deposit_transactions ORDER BY id")
    assert moved == before["deposit_transactions"]
    assert read(path, "SELECT * FROM message_buffer") == before["message_buffer"]
    assert read(path, "SELECT balance FROM user_deposits ORDER BY user_id") == [(39000,), (0,), (0,)]
    kept = read(path, "SELECT column_values FROM import_archive WHERE source_table = 'user_deposits' ORDER BY row_id")
    assert [json.loads(str(row[0]))["version"] for row in kept] == [4, 1]
    assert not {name for (name,) in read(path, "SELECT name FROM sqlite_master") if str(name).startswith("adopted_")}
    with closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as tx:
        tx.execute("INSERT INTO users (telegram_id) VALUES ('99')")
        assert tx.execute("SELECT MAX(id) FROM users").fetchone() == (4,)


def test_values_of_every_kind_are_archived_as_an_import_archives_them(tmp_path: Path) -> None:
    """Binary data as X'…', text that looks like JSON as text, a number as a number; nulls are left out."""
    path = bots_file(tmp_path / "bot.db", VARIANTS["values of every kind in a column more"])
    migrated(path)
    rows = read(path, "SELECT column_values FROM import_archive WHERE source_table = 'users' ORDER BY row_id")
    assert [json.loads(str(row[0])).get('it\'s "odd"') for row in rows] == ["X'00ff'", '{"a":null}', 1.5]
    assert "first_name" not in json.loads(str(rows[1][0]))


def test_ids_that_were_given_out_are_not_given_out_again(tmp_path: Path) -> None:
    """Rows with higher ids were there and are gone: SQLite still knows, before and after."""
    path = bots_file(tmp_path / "bot.db", changed(more="UPDATE sqlite_sequence SET seq = 40 WHERE name = 'users';"))
    migrated(path)
    found = read(path, "SELECT seq FROM sqlite_sequence WHERE name = 'users'")
    assert found == [(40,)], "ids are given out again"


def test_each_difference_is_named(tmp_path: Path) -> None:
    """By table and column or constraint; what is only written in other words is no difference."""
    notices = "\n".join(plan_of(bots_file(tmp_path / "bot.db", SEED_SQL)).notices)
    for said in (
        "users.first_name is a column more: its values go to import_archive.",
        "bank_notifications.depositor_name is TEXT NOT NULL, and becomes TEXT.",
        "user_domains.status is not there: it is made, with 'registered' in every row.",
        "deposit_transactions has CHECK (length(depositor_name)<=15), which goes.",
        "user_domains has UNIQUE (domain), which goes.",
        "audit_logs has a link of user_id to users ON DELETE SET NULL, which goes.",
        "the index idx_deposits_user_version on user_deposits is not Passbook's, and goes.",
        "the index idx_domains_user on user_domains is not there, and is made.",
    ):
        assert said in notices, said
    assert "users.telegram_id" not in notices
    assert "balance>=0" not in notices


@pytest.mark.parametrize(
    "constraints", ["TEXT UNIQUE NOT NULL", "text not null unique", "TEXT UNIQUE /* ! */ NOT NULL"]
)
def test_constraints_in_another_order_are_the_same_table(tmp_path: Path, constraints: str) -> None:
    """A baseline that wrangler made from other words is recognised, by every stage, and is served as it is."""
    baseline = MIGRATIONS[0].up.replace("telegram_id TEXT NOT NULL UNIQUE", f"telegram_id {constraints}")
    path = bots_file(tmp_path / "bot.db", baseline + "".join(one.up for one in MIGRATIONS[1:]))
    with closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        assert migrator.version_of(connection, MIGRATIONS) == LATEST
        migrator.up(connection, MIGRATIONS, lambda _: None)
        migrator.require_latest(connection, MIGRATIONS)
        migrator.require_schema(connection, MIGRATIONS)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a TEXT UNIQUE NOT NULL", "a TEXT NOT NULL UNIQUE", True),
        ("a TEXT NOT NULL DEFAULT 'x, y'", "a TEXT DEFAULT 'x, y' NOT NULL", True),
        ("a INT CHECK (a IN (1, 2)) NOT NULL", "a INT NOT NULL CHECK (a IN (1, 2))", True),
        ("a INT REFERENCES b(c) ON DELETE SET NULL NOT NULL", "a INT NOT NULL REFERENCES b(c) ON DELETE SET NULL", True),
        ("a TEXT UNIQUE NOT NULL", "a TEXT UNIQUE", False),
        ("a TEXT UNIQUE", "a TEXT NOT NULL", False),
        ("a TEXT DEFAULT 'not null'", "a TEXT NOT NULL DEFAULT ''", False),
        ("a TEXT DEFAULT 'A'", "a TEXT DEFAULT 'a'", False),
        ("a INT CHECK (a > 0)", "a INT CHECK (a >= 0)", False),
        ("a INT, b INT", "b INT, a INT", False),
        ("a INT REFERENCES b(c) ON DELETE SET NULL", "a INT REFERENCES b(c) ON DELETE CASCADE", False),
        ("a INT, CHECK (a > 0)", "a INT", False),
    ],
)  # fmt: skip
def test_definitions_are_compared_by_what_they_mean(one: str, other: str, same: bool) -> None:
    """The order of a column's own constraints is none; a weaker or another constraint is another table."""
    texts = [schema.normalised(f"CREATE TABLE t ({definition})") for definition in (one, other)]
    assert schema.same(*texts) is same
    assert schema.same(*reversed(texts)) is same


REFUSED = {
    "a user without a telegram id": (
        changed(("telegram_id TEXT UNIQUE NOT NULL", "telegram_id TEXT"), more="UPDATE users SET telegram_id = NULL WHERE id = 2;"),
        "users.telegram_id is empty in 1 rows",
    ),
    "one telegram id twice": (
        changed(("telegram_id TEXT UNIQUE NOT NULL", "telegram_id TEXT"), more="UPDATE users SET telegram_id = '7002';"),
        "users.telegram_id has 1 values that stand in several rows",
    ),
    "a transaction of nobody": (
        changed(("confirmed_at DATETIME, created_at DATETIME DEFAULT CURRENT_TIMESTAMP, FOREIGN KEY (user_id) REFERENCES users(id) );", "confirmed_at DATETIME, created_at DATETIME );"), more="UPDATE deposit_transactions SET user_id = 77 WHERE id = 3;"),
        "1 rows of deposit_transactions point by user_id at rows of users that are not there",
    ),
    "a table in the way": (changed(more="CREATE TABLE adopted_users (x);"), "adopted_users is in the way"),
    "a table of a later migration": (changed(more="CREATE TABLE api_keys (x);"), "api_keys is there already"),
    "a balance that is no whole number": (
        changed(("balance INTEGER NOT NULL", "balance REAL NOT NULL"), more="UPDATE user_deposits SET balance = 0.5 WHERE id = 2;"),
        "user_deposits, row 2, balance: 0.5 is no whole number",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sql", "said"), REFUSED.values(), ids=REFUSED)
def test_what_must_be_refused_is_refused_before_the_first_write(tmp_path: Path, sql: str, said: str) -> None:
    """`plan` and `up` say why, and no byte of the file is another one."""
    path = bots_file(tmp_path / "bot.db", sql)
    assert said in "\n".join(plan_of(path).blockers)
    before = path.read_bytes()
    refused = CliRunner().invoke(main, ["migrate", "up", "--database", str(path)])
    assert (refused.exit_code, said in refused.output) == (1, True), refused.output
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "more", ["", "UPDATE deposit_transactions SET amount = 'x' WHERE id = 1;"], ids=["alone", "and more"]
)
def test_fractions_of_a_won_are_one_sentence_of_a_plan(tmp_path: Path, more: str) -> None:
    """With the number of rows, and a statement that mends them; it stands alone behind what else is in the way."""
    sql = changed(
        ("balance INTEGER NOT NULL", "balance REAL NOT NULL"), more=f"UPDATE user_deposits SET balance = 0.5; {more}"
    )
    (blocker,) = plan_of(bots_file(tmp_path / "bot.db", sql)).blockers
    assert blocker.startswith(f"{2 + bool(more)} values cannot stay as they are (")
    assert ". There are fractions of a won in user_deposits.balance (2 rows), and Passbook keeps whole won: " in blocker
    assert blocker.endswith(", such as UPDATE user_deposits SET balance = round(balance);")


NEAR = {
    "the balance in users": (
        "CREATE TABLE users (id INTEGER PRIMARY KEY, telegram_id TEXT, balance INTEGER);"
        "CREATE TABLE deposit_transactions (id INTEGER PRIMARY KEY, user_id, type, amount, status);",
        "no table user_deposits", "users.balance",
    ),
    "tables of other names": (
        "CREATE TABLE users (id INTEGER PRIMARY KEY, telegram_id TEXT);"
        "CREATE TABLE wallets (id INTEGER PRIMARY KEY, uid INTEGER, balance REAL);"
        "CREATE TABLE ledger (id INTEGER PRIMARY KEY, uid INTEGER, kind TEXT, amount REAL, state TEXT);",
        "no table user_deposits, ", "wallets.balance, ledger.kind, ledger.amount, ledger.state",
    ),
    "a column of another name": (
        SEED_SQL.replace("status TEXT NOT NULL DEFAULT 'pending' CHECK(status IN ('pending','confirmed','rejected','cancelled'))", "state TEXT")
        .replace("deposit_transactions(status, type", "deposit_transactions(type").replace("WHERE status='pending'", ""),
        "no column ", "deposit_transactions.state",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sql", "missing", "like"), NEAR.values(), ids=NEAR)
def test_a_near_database_is_refused_in_one_sentence_that_names_its_like(
    tmp_path: Path, sql: str, missing: str, like: str
) -> None:
    """Which table or column is missing, and where something like it was seen; import and migrate say so alike."""
    path = bots_file(tmp_path / "bot.db", sql)
    (tmp_path / "bot.sql").write_text(sql, "utf-8")
    for arguments in (
        ["migrate", "plan", "--database", str(path)],
        ["import", str(path), "--database", str(tmp_path / "p.db")],
        ["import", str(tmp_path / "bot.sql"), "--database", str(tmp_path / "p.db")],
    ):
        refused = CliRunner().invoke(main, arguments)
        said = refused.output.splitlines()[-1]
        assert (refused.exit_code, missing in said, like in said) == (1, True, True), refused.output
    assert not (tmp_path / "p.db").exists()


def test_an_adoption_that_fails_changes_nothing(tmp_path: Path) -> None:
    """Its statements are one transaction; the links are checked at its end."""
    path = bots_file(tmp_path / "bot.db", SEED_SQL.replace("VALUES(1,1,'123456','user'", "VALUES(1,9,'123456','user'"))
    with closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        before = migrator.schema_of(connection)
        with pytest.raises(MigrationError, match="failed and changed nothing: message_buffer, row 1"):
            migrator.up(connection, MIGRATIONS, lambda _: None)
        assert migrator.schema_of(connection) == before


def test_the_way_back_from_an_adoption_is_said(tmp_path: Path) -> None:
    """The tables of 000 are not the bot's: the copy from before tells an export what they were."""
    path = bots_file(tmp_path / "bot.db", SEED_SQL)
    up = CliRunner().invoke(main, ["migrate", "up", "--database", str(path)])
    assert up.exit_code == 0, up.output
    (copy,) = tmp_path.glob("bot.db.before-migrate-*")
    assert f"passbook export BACK.sql --like {copy} --database {path}" in up.output
    back = CliRunner().invoke(main, ["export", str(tmp_path / "b.sql"), "--like", str(copy), "--database", str(path)])
    assert back.exit_code == 0, back.output
    assert "(1, 1, 39000, '2026-01-16 03:31:00', '2026-01-20 00:00:00', 4)" in (tmp_path / "b.sql").read_text("utf-8")


def test_a_rollback_that_forgets_a_direction_is_refused(tmp_path: Path) -> None:
    """Before 003 a debit is one by its type, and nothing knows the type that an import was told."""
    text = SEED_SQL.replace("'withdrawal',11000", "'출금',11000").replace("'deposit','withdrawal'", "'deposit','출금'")
    (tmp_path / "bot.sql").write_text(text, "utf-8")
    path = tmp_path / "p.db"
    assert CliRunner().invoke(main, ["import", str(tmp_path / "bot.sql"), "--database", str(path)]).exit_code == 0
    refused = CliRunner().invoke(main, ["migrate", "down", "--to", "2", "--yes", "--database", str(path)])
    assert (refused.exit_code, "1 debits of the type 출금 would be credits" in refused.output) == (1, True)
    assert read(path, "SELECT direction FROM deposit_transactions WHERE id = 2") == [("debit",)]


def test_a_stray_index_is_dropped_and_a_missing_one_made(tmp_path: Path) -> None:
    """On tables that are the baseline's otherwise; no row is touched for it."""
    path = make_bots_file(
        tmp_path / "bot.db", extra="CREATE INDEX mine ON user_deposits(balance); DROP INDEX idx_domains_user;"
    )
    plan = plan_of(path)
    assert plan.blockers == []
    assert plan.notices[:2] == [
        "the index mine on user_deposits is not Passbook's, and goes.",
        "the index idx_domains_user on user_domains is not there, and is made.",
    ]
    migrated(path)
    assert broken_invariants(path) == []


def test_a_database_of_the_baseline_is_left_alone(tmp_path: Path) -> None:
    """There is nothing to adopt before 001, half-way in it, or after it."""
    for through in range(3):
        path = make_bots_file(tmp_path / f"{through}.db", through=through)
        with closing(sqlite.connect_reader(path, busy_timeout_ms=0)) as connection:
            adopting = migrator.adoption_of(connection, MIGRATIONS)
        assert adopting is None or through > 0


def test_the_real_database_is_adopted_by_wrangler(tmp_path: Path, node_modules: Path) -> None:
    """`migrate adapt` writes a file that D1 takes; the migrations follow there, and `migrate up` archives and seals."""
    d1 = LocalD1.create(tmp_path / "d1", node_modules)
    succeeded(d1.execute_file(SEED))
    succeeded(d1.export(tmp_path / "bot.sql"))
    adapted = passbook("migrate", "adapt", str(tmp_path / "bot.sql"), str(tmp_path / "fit.sql"))
    assert adapted.returncode == 0, adapted.stderr
    succeeded(d1.execute_file(tmp_path / "fit.sql"))
    (tmp_path / "all.sql").write_text("\n".join(one.up for one in MIGRATIONS), "utf-8")
    succeeded(d1.execute_file(tmp_path / "all.sql"))
    assert d1.read("SELECT user_id, telegram_id FROM audit_logs") == [(1, "123456"), (1, "123456")]
    up = passbook("migrate", "up", "--database", str(d1.database_file))
    assert up.returncode == 0, up.stdout + up.stderr
    assert stands("12 rows with columns of the bot's own archived", up.stdout)
    assert broken_invariants(d1.database_file) == []
    again = passbook("migrate", "adapt", str(tmp_path / "bot.sql"), str(tmp_path / "fit.sql"))
    assert (again.returncode, "is there already" in again.stderr) == (1, True)


def test_adapt_refuses_what_d1_would_delete(tmp_path: Path) -> None:
    """A table of the bot's that deletes with a user would lose rows there, where foreign keys are always on."""
    path = bots_file(tmp_path / "bot.db", VARIANTS["tables of the bot that delete with a user"])
    before = contents(path)
    refused = CliRunner().invoke(main, ["migrate", "adapt", str(path), str(tmp_path / "fit.sql")])
    assert (refused.exit_code, "message_buffer says ON DELETE CASCADE of users" in refused.output) == (1, True)
    assert contents(path) == before
    assert not (tmp_path / "fit.sql").exists()
    plain = make_bots_file(tmp_path / "plain.db")
    nothing = CliRunner().invoke(main, ["migrate", "adapt", str(plain), str(tmp_path / "fit.sql")])
    assert (nothing.exit_code, "Nothing to adapt" in nothing.output) == (0, True), nothing.output


def test_a_database_whose_values_wait_is_not_served(tmp_path: Path) -> None:
    """wrangler ran every migration: what the bot's columns held is not archived yet."""
    path = bots_file(tmp_path / "bot.db", SEED_SQL)
    with closing(sqlite.connect_writer(path, busy_timeout_ms=0, checkpoints=True)) as connection:
        migrator.up(connection, MIGRATIONS, lambda _: None, to=3)
        assert not adoption.is_unfinished(connection)
        for migration in MIGRATIONS[4:]:
            for statement in migrator.statements(migration.up):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO schema_migrations VALUES (?, ?, ?, '')",
                (migration.version, migration.name, migration.checksum),
            )
        with pytest.raises(migrator.NotMigrated, match=r"wait to be archived\. Run: passbook migrate up"):
            migrator.require_latest(connection, MIGRATIONS)
        migrator.up(connection, MIGRATIONS, lambda _: None)
        migrator.require_latest(connection, MIGRATIONS)
