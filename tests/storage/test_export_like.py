"""The way back into the bot's own tables: their columns, their CHECKs, their words; what does not fit is said first."""

# ruff: noqa: E501 (the bot's own statements stand on long lines)

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from service.storage import export_like
from service.storage.export_like import DoesNotFit, LikeReport, Misfit, Misfits, Words
from service.storage.importer import import_database
from tests.ledger_check import broken_invariants
from tests.live import LiveService, passbook
from tests.migrations.d1 import LocalD1, results, succeeded
from tests.some import some
from tests.storage.test_exporter import change, everything
from tests.storage.test_import_words import SEED
from tests.storage.test_importer import MIGRATIONS, read, take_over

SEED_SQL = SEED.read_text("utf-8")
NIGHTLY = (
    "SELECT d.user_id, d.balance, COALESCE(SUM(iif(t.type = 'withdrawal', -abs(t.amount), t.amount)), 0)"
    " FROM user_deposits AS d LEFT JOIN deposit_transactions AS t ON t.user_id = d.user_id AND t.status = 'confirmed'"
    " GROUP BY d.user_id ORDER BY d.user_id"
)
"""The bot's own job: each balance, and the sum of its confirmed transactions."""


def write_back(
    database: Path,
    target: Path,
    *,
    like: Path = SEED,
    types: Mapping[str, str] | None = None,
    statuses: Mapping[str, str] | None = None,
    cut_names: bool = False,
) -> LikeReport:
    """The export into the tables of `like`."""
    return export_like.export_database(
        database, target, MIGRATIONS, like=like, words=Words(types=types or {}, statuses=statuses or {}, cut_names=cut_names),
        with_schema=True, busy_timeout_ms=0, progress=lambda _s, _d, _t: None,
    )  # fmt: skip


def loaded(text: Path, target: Path) -> Path:
    """A database with what was written, as SQLite takes it with foreign keys on."""
    with closing(sqlite3.connect(target)) as bot:
        bot.execute("PRAGMA foreign_keys = ON")
        bot.executescript("BEGIN;" + text.read_text("utf-8") + "COMMIT;")
        assert bot.execute("PRAGMA foreign_key_check").fetchall() == []
    return target


def like(folder: Path, *pairs: tuple[str, str], more: str = "") -> Path:
    """The original in other words; each text that is replaced must be there."""
    sql = SEED_SQL
    assert [old for old, _ in pairs if old not in sql] == []
    for old, new in pairs:
        sql = sql.replace(old, new)
    path = folder / "like.sql"
    path.write_text(sql + more, "utf-8")
    return path


@pytest.fixture
def taken_over(tmp_path: Path) -> Path:
    """The real database after its import."""
    take_over(SEED, tmp_path / "p.db")
    return tmp_path / "p.db"


def test_the_bots_database_comes_back_as_it_was(taken_over: Path, tmp_path: Path) -> None:
    """Every table, every row and every column, those included that Passbook has not; and its indexes."""
    report = write_back(taken_over, tmp_path / "back.sql")
    assert (report.mapped, report.left_out) == ({}, [])
    with closing(sqlite3.connect(tmp_path / "bot.db")) as bot:
        bot.executescript(SEED_SQL)
        bot.commit()
    back = loaded(tmp_path / "back.sql", tmp_path / "back.db")
    tables = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    assert read(back, tables) == read(tmp_path / "bot.db", tables)
    for table, _ in some(read(tmp_path / "bot.db", tables.replace("WHERE", "WHERE type = 'table' AND"))):
        rows = set(read(tmp_path / "bot.db", f"SELECT * FROM {table}"))
        new = set(read(back, f"SELECT * FROM {table}")) - rows
        assert rows <= set(read(back, f"SELECT * FROM {table}")), table
        assert len(new) == {"user_deposits": 1, "audit_logs": 1}.get(str(table), 0), table


def test_every_kind_of_row_fits(tmp_path: Path) -> None:
    """Movements of every type and deposits of every status: in the words of the target, and its nightly job adds up."""
    database = everything(tmp_path)
    report = write_back(database, tmp_path / "back.sql", cut_names=True)
    assert report.mapped["status expired -> cancelled"] > 0
    words = {key.removeprefix("type ") for key in report.mapped if key.startswith("type ")}
    assert words >= {
        "debit -> withdrawal", "domain_purchase -> withdrawal", "balance_change -> withdrawal",
        "balance_change -> deposit", "domain_refund -> refund", "reversal -> refund", "reversal -> withdrawal",
    }  # fmt: skip
    back = loaded(tmp_path / "back.sql", tmp_path / "back.db")
    found = read(back, NIGHTLY)
    assert [row for row in some(found) if row[1] != row[2]] == []
    assert read(back, "SELECT id, balance FROM user_deposits") == read(
        database, "SELECT id, balance FROM user_deposits"
    )
    ids = "SELECT id FROM deposit_transactions ORDER BY id"
    assert read(back, ids) == read(database, ids)
    assert any("that are no registered name" in said for said in report.left_out)
    assert read(back, "SELECT COUNT(*) FROM bank_notifications WHERE depositor_name IS NULL") == [(0,)]


def test_versions_go_on_and_times_and_prefixes_follow(taken_over: Path, tmp_path: Path) -> None:
    """Of an account that moved twice, of one that the bot never had, and of a deposit that the bot never saw."""
    change(
        taken_over,
        "INSERT INTO deposit_transactions (id, user_id, type, direction, amount, status, depositor_name, balance_before,"
        " balance_after, version, confirmed_at, created_at, match_name) VALUES (50, 3, 'deposit', 'credit', 700,"
        " 'confirmed', '가나다라마바사아자', 0, 700, 1, '2026-12-01 00:00:00.000', '2026-11-30 00:00:00', '가나다라마바사아자'),"
        " (51, 1, 'debit', 'debit', 100, 'confirmed', NULL, 39000, 38900, 1, '2026-12-02 00:00:00.000', '2026-12-02 00:00:00.000', NULL),"
        " (52, 1, 'debit', 'debit', 100, 'confirmed', NULL, 38900, 38800, 2, '2026-12-03 00:00:00.000', '2026-12-03 00:00:00.000', NULL)",
    )
    write_back(taken_over, tmp_path / "back.sql")
    back = loaded(tmp_path / "back.sql", tmp_path / "back.db")
    accounts = read(back, "SELECT user_id, balance, version, updated_at FROM user_deposits ORDER BY user_id")
    assert accounts == [
        (1, 38800, 6, "2026-12-03 00:00:00.000"), (2, 0, 1, "2026-01-20 00:00:00"), (3, 700, 2, "2026-12-01 00:00:00.000"),
    ]  # fmt: skip
    prefixes = read(back, "SELECT depositor_name_prefix FROM deposit_transactions WHERE id IN (4, 50) ORDER BY id")
    assert prefixes == [("주식회사코딩하",), ("가나다라마바사",)]
    with closing(sqlite3.connect(back)) as bot:
        moved = (
            "UPDATE user_deposits SET balance = balance + ?, version = version + 1 WHERE user_id = ? AND version = ?"
        )
        assert bot.execute(moved, (5000, 1, 6)).rowcount == 1
        assert bot.execute(moved, (5000, 1, 6)).rowcount == 0


def test_rows_that_do_not_fit_are_named_and_nothing_is_written(taken_over: Path, tmp_path: Path) -> None:
    """A name that the target's CHECK refuses; cut, it fits. Each row is in the report."""
    change(
        taken_over,
        "INSERT INTO deposit_transactions (id, user_id, type, direction, amount, status, depositor_name, match_name)"
        " VALUES (50, 3, 'deposit', 'credit', 700, 'pending', '열여섯글자보다도더긴이름입니다요참', 'x')",
    )
    with pytest.raises(
        DoesNotFit, match=r"1 rows do not fit .*\n  deposit_transactions, row 50: CHECK constraint failed"
    ):
        write_back(taken_over, tmp_path / "back.sql")
    arguments = ["export", str(tmp_path / "back.sql"), "--database", str(taken_over), "--like", str(SEED)]
    refused = CliRunner().invoke(main, [*arguments, "--report", str(tmp_path / "no.ndjson")])
    assert (refused.exit_code, "deposit_transactions, row 50" in refused.output) == (1, True), refused.output
    assert [json.loads(line)["row"] for line in (tmp_path / "no.ndjson").read_text().splitlines()] == [50]
    assert not list(tmp_path.glob("back.sql*"))
    cut = CliRunner().invoke(main, [*arguments, "--cut-names"])
    assert cut.exit_code == 0, cut.output
    back = loaded(tmp_path / "back.sql", tmp_path / "back.db")
    assert read(back, "SELECT length(depositor_name) FROM deposit_transactions WHERE id = 50") == [(15,)]


def test_words_can_be_told(taken_over: Path, tmp_path: Path) -> None:
    """--type for one direction or both, --status; a word that turns a credit into a debit does not fit."""
    change(
        taken_over,
        "INSERT INTO deposit_transactions (id, user_id, type, direction, amount, status) VALUES"
        " (50, 3, 'balance_change', 'credit', 700, 'expired'), (51, 3, 'balance_change', 'debit', 7, 'expired')",
    )
    told = {"balance_change:credit": "refund"}
    write_back(taken_over, tmp_path / "back.sql", types=told, statuses={"expired": "rejected"})
    back = loaded(tmp_path / "back.sql", tmp_path / "back.db")
    rows = "SELECT type, amount, status FROM deposit_transactions WHERE id > 49 ORDER BY id"
    assert read(back, rows) == [("refund", 700, "rejected"), ("withdrawal", 7, "rejected")]
    with pytest.raises(DoesNotFit, match="row 50: a credit of the type withdrawal would count as a debit"):
        write_back(taken_over, tmp_path / "again.sql", types={"balance_change": "withdrawal"})
    with pytest.raises(DoesNotFit, match="row 50: CHECK constraint failed"):
        write_back(taken_over, tmp_path / "again.sql", types={"balance_change:credit": "gift"})


def test_words_that_the_import_was_told_come_back(tmp_path: Path) -> None:
    """A status that --status mapped and a deposit in the bot's word are what they were, and new rows speak so too."""
    own = like(
        tmp_path,
        ("('pending','confirmed','rejected','cancelled')", "('pending','done','rejected','cancelled')"),
        ("'confirmed'", "'done'"),
        ("type IN ('deposit',", "type IN ('입금',"),
        ("'deposit',50000", "'입금',50000"), ("'deposit',5000", "'입금',5000"), ("'deposit',100000", "'입금',100000"),
        ("'deposit',20000", "'입금',20000"),
    )  # fmt: skip
    import_database(own, tmp_path / "p.db", MIGRATIONS, lambda _: None, statuses={"done": "confirmed"})
    change(
        tmp_path / "p.db",
        "UPDATE deposit_transactions SET status = 'confirmed', version = 1, balance_before = 0, balance_after = 100000,"
        " confirmed_at = '2026-12-01 00:00:00.000' WHERE id = 4",
    )
    write_back(tmp_path / "p.db", tmp_path / "back.sql", like=own)
    back = loaded(tmp_path / "back.sql", tmp_path / "back.db")
    found = read(back, "SELECT type, status FROM deposit_transactions ORDER BY id")
    assert found == [
        ("입금", "done"),
        ("withdrawal", "done"),
        ("입금", "rejected"),
        ("입금", "done"),
        ("입금", "cancelled"),
    ]


LIKES: dict[str, tuple[tuple[tuple[str, str], ...], str]] = {
    "another order of columns": ((("telegram_id TEXT UNIQUE NOT NULL, username TEXT,", "username TEXT, telegram_id TEXT UNIQUE NOT NULL,"),
                                  ("(1,'123456','hong'", "(1,'hong','123456'"), ("(2,'7001','corp'", "(2,'corp','7001'"), ("(3,'7002',NULL", "(3,NULL,'7002'")), ""),
    "quoted names": ((("CREATE TABLE user_deposits ( id", 'CREATE TABLE "user_deposits" ( [id]'),), ""),
    "triggers and views": ((), "CREATE TRIGGER touched AFTER UPDATE ON users\nBEGIN\n  UPDATE users SET updated_at = 1 WHERE id = NEW.id;\nEND;\n"
                               "CREATE VIEW rich AS SELECT * FROM user_deposits;\n"),
    "a computed column": ((), "ALTER TABLE users ADD COLUMN shown TEXT GENERATED ALWAYS AS (coalesce(username, telegram_id)) VIRTUAL;"),
    "a unique index and a column with a default": ((), "ALTER TABLE users ADD COLUMN language TEXT NOT NULL DEFAULT 'ko'; CREATE UNIQUE INDEX one ON users(telegram_id, language);"),
    "no log": ((), "DROP TABLE audit_logs;"),
}  # fmt: skip


@pytest.mark.parametrize(("pairs", "more"), LIKES.values(), ids=LIKES)
def test_the_original_may_be_written_in_other_words(
    taken_over: Path, tmp_path: Path, pairs: tuple[tuple[str, str], ...], more: str
) -> None:
    """What is written makes the original's tables, indexes, triggers and views, with every row; an import takes it."""
    with closing(sqlite3.connect(tmp_path / "like.db")) as bot:
        bot.executescript(like(tmp_path, *pairs, more=more).read_text("utf-8"))
        bot.commit()
    objects = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    if "DROP" not in more and "ALTER" not in more:  # an export has neither
        write_back(taken_over, tmp_path / "text.sql", like=tmp_path / "like.sql")
        back = loaded(tmp_path / "text.sql", tmp_path / "text.db")
        assert read(back, objects) == read(tmp_path / "like.db", objects)
    write_back(taken_over, tmp_path / "back.sql", like=tmp_path / "like.db")
    back = loaded(tmp_path / "back.sql", tmp_path / "back.db")
    assert read(back, objects) == read(tmp_path / "like.db", objects)
    accounts = "SELECT user_id, balance, version FROM user_deposits WHERE user_id < 3 ORDER BY user_id"
    assert read(back, accounts) == [(1, 39000, 4), (2, 0, 1)]
    assert take_over(tmp_path / "back.sql", tmp_path / "again.db").opening_entries == 0
    assert broken_invariants(tmp_path / "again.db") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--type", "debit=withdrawal"], "go with --like"),
        (["--cut-names"], "go with --like"),
        (["--like", str(SEED), "--type", "debit"], "'debit' is not OURS=WORD."),
        (["--like", str(SEED), "--type", "debit=a", "--type", "debit=b"], "debit is given two words."),
        (
            ["--like", str(SEED), "--status", "expired=confirmed"],
            "expired never counted, and confirmed would be money.",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(taken_over: Path, arguments: list[str], said: str) -> None:
    """Exit code 2, before anything is read."""
    target = taken_over.with_name("back.sql")
    refused = CliRunner().invoke(main, ["export", str(target), "--database", str(taken_over), *arguments])
    assert (refused.exit_code, said in refused.output, target.exists()) == (2, True, False), refused.output


def test_the_bot_goes_on_with_its_own_statements_on_d1(
    tmp_path: Path, node_modules: Path, own_service: LiveService
) -> None:
    """Work of each kind over HTTP, the way back under wrangler, and then the bot's own UPDATE with its version."""
    assert passbook("import", str(SEED), "--database", str(own_service.database)).returncode == 0
    own_service.start()
    client = own_service.client(own_service.make_key("--role", "admin"))
    for path, body in (
        ("/v1/debits", {"telegram_id": "123456", "amount": 1000, "reason": "hosting"}),
        ("/v1/domain-purchases", {"telegram_id": "123456", "domain": "통장.kr", "price": 1500}),
        ("/v1/deposits/4/confirm", {}),
    ):
        answer = client.write(path, body)
        assert answer.is_success, answer.text
    arguments = ("--database", str(own_service.database), "--like", str(SEED))
    written = passbook("export", str(tmp_path / "back.sql"), *arguments)
    assert written.returncode == 0, written.stderr
    assert "type domain_purchase -> withdrawal: 1 transactions" in written.stdout
    d1 = LocalD1.create(tmp_path / "d1", node_modules)
    succeeded(d1.execute_file(tmp_path / "back.sql"))
    moved = d1.execute_command(
        "UPDATE user_deposits SET balance = balance + 500, version = version + 1 WHERE user_id = 1 AND version = 6;"
        "INSERT INTO deposit_transactions (user_id, type, amount, status, confirmed_at) VALUES"
        " (1, 'deposit', 500, 'confirmed', CURRENT_TIMESTAMP);" + NIGHTLY
    )
    rows = [list(row.values()) for row in results(moved)[2]]
    assert rows == [[1, 37000, 37000], [2, 100000, 100000], [3, 0, 0]]


def test_of_many_rows_that_do_not_fit_few_are_held() -> None:
    """Whoever lists them hears of each; the rest of the program counts them."""
    told: list[Misfit] = []
    misfits = Misfits(told.append)
    for row in range(1000):
        misfits.add("users", row, "why")
    assert [one.row for one in told] == list(range(1000))
    assert misfits.first == told[:20]
    assert str(DoesNotFit(misfits)).startswith(
        "1,000 rows do not fit the tables of the original:\n  users, row 0: why\n"
    )
    assert str(DoesNotFit(misfits)).endswith("users, row 19: why\n  … and 980 more")
