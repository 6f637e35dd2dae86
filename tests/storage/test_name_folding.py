"""Migration 016: stored names are folded anew by `migrate up`, and back by `migrate down`, whole or not at all."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service import resources
from service.ledger.depositor_names import FOLDING_RULE, match_name
from service.storage import audit_chain, integrity_agreement, migrator, name_folding, sqlite
from service.storage.audit_chain import Sealing
from service.storage.migrator import MigrationError, NotMigrated
from tests.live import passbook
from tests.storage.broken import by_hand

MIGRATIONS = migrator.load(resources.folder("migrations"))
BEFORE = name_folding.MIGRATION - 1
NAMES = ("홍길동", "ＨＯＮＧ", "Hong", "㈜한빛", "(주)한빛", "ｶﾞｶﾞ", "홍\u2060길\U000e0100동", "a ~", "Straße", "한빛 ㈱")
WAS_EDITED = "ｗｒｏｎｇ"


def quiet(_: str) -> None:
    """Reports to nobody."""


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[sqlite.Connection]:
    """A database of the migration before, with names as that program kept them, one edited, erased and the bot's."""
    connection = sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True)
    migrator.up(connection, MIGRATIONS, quiet, to=BEFORE)
    connection.execute("INSERT INTO users (id, telegram_id) VALUES (1, '1')")
    rows: list[tuple[Any, Any]] = [(name, match_name(name, rule=1)) for name in NAMES]
    rows += [("Ｗ", WAS_EDITED), (None, ""), ("Ｂ", None)]
    connection.executemany(
        "INSERT INTO deposit_transactions (id, user_id, type, direction, amount, depositor_name, match_name)"
        " VALUES (?, 1, 'deposit', 'credit', 5, ?, ?)",
        [(2 * place + 2**50, *row) for place, row in enumerate(rows)],
    )
    connection.executemany(
        "INSERT INTO bank_notifications (bank_transaction_id, amount, depositor_name, match_name) VALUES (?, 5, ?, ?)",
        [(f"b{place}", *row) for place, row in enumerate(rows)],
    )
    yield connection
    connection.close()


def folded(connection: sqlite.Connection) -> list[list[tuple[Any, Any]]]:
    """(name, folded name) of the deposits and of the lines, in their order."""
    return [
        connection.execute(f"SELECT depositor_name, match_name FROM {table} ORDER BY id").fetchall()
        for table in ("deposit_transactions", "bank_notifications")
    ]


def as_folded(rule: int) -> list[tuple[Any, Any]]:
    """What they are to be by this rule."""
    return [*((name, match_name(name, rule=rule)) for name in NAMES), ("Ｗ", WAS_EDITED), (None, ""), ("Ｂ", None)]


def everything(connection: sqlite.Connection) -> list[tuple[Any, ...]]:
    """The schema to the letter, and the folded names."""
    schema = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()
    return [*schema, *(row for rows in folded(connection) for row in rows)]


def test_names_are_folded_there_and_back(earlier: sqlite.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name of ours by the new rule, a few rows at a time; what was edited, erased or is the bot's stays."""
    monkeypatch.setattr(name_folding, "_ROWS_AT_ONCE", 3)
    before = everything(earlier)
    said: list[str] = []
    steps: list[tuple[str, int, int]] = []
    migrator.up(earlier, MIGRATIONS, said.append, progress=lambda *step: steps.append(step))
    assert folded(earlier) == [as_folded(FOLDING_RULE)] * 2
    assert name_folding.rule_of(earlier) == FOLDING_RULE
    migrator.require_schema(earlier, MIGRATIONS)
    changed = 2 * sum(match_name(name) != match_name(name, rule=1) for name in NAMES)
    assert f"  {changed} names are compared by another spelling now" in said
    looked_at = [done for name, done, _ in steps if name == "fold names"]
    assert looked_at == [3, 6, 9, 12, 13, 16, 19, 22, 25, 26]
    migrator.down(earlier, MIGRATIONS, quiet, to=BEFORE)
    assert everything(earlier) == before


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_step_that_ends_half_way_leaves_all_as_it_was(
    earlier: sqlite.Connection, monkeypatch: pytest.MonkeyPatch, up: bool
) -> None:
    """Names, triggers, table and the record of migrations are as before, and the next run does it all."""
    monkeypatch.setattr(name_folding, "_ROWS_AT_ONCE", 3)
    if not up:
        migrator.up(earlier, MIGRATIONS, quiet, to=name_folding.MIGRATION)
    before = everything(earlier)

    def stop(name: str, done: int, _: int) -> None:
        if name == "fold names" and done > len(NAMES):
            raise KeyboardInterrupt

    move: Callable[..., int] = migrator.up if up else partial(migrator.down, to=BEFORE)
    with pytest.raises(KeyboardInterrupt):
        move(earlier, MIGRATIONS, quiet, progress=stop)
    assert everything(earlier) == before
    assert migrator.version_of(earlier, MIGRATIONS) == (BEFORE if up else name_folding.MIGRATION)
    migrator.up(earlier, MIGRATIONS, quiet)
    assert folded(earlier) == [as_folded(FOLDING_RULE)] * 2


def test_where_sql_alone_ran_the_file_no_service_starts_until_names_are_folded(
    earlier: sqlite.Connection, tmp_path: Path
) -> None:
    """`check`, `serve` and the rest name the command; it says what it does, folds the names and is done."""
    for migration in MIGRATIONS[name_folding.MIGRATION :]:
        for statement in migrator.statements(migration.up):
            earlier.execute(statement)
    earlier.execute("DROP TABLE schema_migrations")
    assert migrator.version_of(earlier, MIGRATIONS) == len(MIGRATIONS) - 1
    with pytest.raises(NotMigrated, match=r"Names are still compared as before.*passbook migrate up"):
        migrator.require_latest(earlier, MIGRATIONS)
    assert folded(earlier) == [as_folded(1)] * 2
    path = tmp_path / "p.db"
    planned = passbook("migrate", "plan", "--database", str(path))
    assert "Note: Up to 14 names of deposits and bank lines are folded anew" in planned.stdout
    up = passbook("migrate", "up", "--database", str(path), "--no-backup")
    assert up.returncode == 0, up.stderr
    assert folded(earlier) == [as_folded(FOLDING_RULE)] * 2
    assert migrator.require_latest(earlier, MIGRATIONS) == len(MIGRATIONS) - 1
    again = passbook("migrate", "up", "--database", str(path), "--no-backup")
    assert again.stdout.startswith("Nothing was pending.")


def test_names_of_a_later_rule_are_not_touched(earlier: sqlite.Connection) -> None:
    """A database whose names a newer program folded is refused, and told so."""
    migrator.up(earlier, MIGRATIONS, quiet)
    earlier.execute("UPDATE name_folding SET rule = rule + 1")
    with pytest.raises(MigrationError, match="A newer program folded its names"):
        migrator.require_latest(earlier, MIGRATIONS)
    with pytest.raises(MigrationError, match="A newer program folded its names"):
        migrator.up(earlier, MIGRATIONS, quiet)


def test_integrity_names_a_folded_name_that_is_not_its_own(earlier: sqlite.Connection, tmp_path: Path) -> None:
    """Also one that SQL, which makes only ASCII lower case, would take for right."""
    migrator.up(earlier, MIGRATIONS, quiet)
    by_hand(
        tmp_path / "p.db",
        "DELETE FROM bank_notifications; DELETE FROM deposit_transactions;"
        "INSERT INTO deposit_transactions (id, user_id, type, direction, amount, depositor_name, match_name)"
        " VALUES (1, 1, 'deposit', 'credit', 5, 'Ｗ', 'w'), (2, 1, 'deposit', 'credit', 5, 'Ｗ', 'Ｗ');"
        "INSERT INTO bank_notifications (id, bank_transaction_id, amount, depositor_name, match_name)"
        " VALUES (3, 'b3', 5, 'Ｗ', 'w'), (4, 'b4', 5, 'Ｗ', 'Ｗ');",
    )
    named = [
        row[3]
        for sql, judge in (*integrity_agreement.TRANSACTIONS, *integrity_agreement.BANK_NOTIFICATIONS)
        if "t.match_name IS NOT lower(" in sql or "b.match_name IS NOT lower(" in sql
        for row in earlier.execute(sql, {"low": 1, "high": 9}).fetchall()
        if list(judge(*row[4:]))
    ]
    assert named == [2, 4]


def third_rule(name: str, *, rule: int = FOLDING_RULE + 1) -> str:
    """A rule that nobody has made: it takes double stars and hollow ones for stars."""
    folded = match_name(name, rule=min(rule, FOLDING_RULE))
    return folded.replace("☆", "*").replace("**", "*") if rule > FOLDING_RULE else folded


LEARNED = {1: "Ｗ☆", 2: "☆길동", 3: "홍*", 4: "홍☆", 5: "홍☆☆", 6: "*길동", 7: "홍☆"}
"""Learned names by id: 1 to 5 are user 1's; 6 and 7 user 2's."""


@pytest.fixture
def taught(tmp_path: Path) -> Iterator[sqlite.Connection]:
    """A database with learned names, each from a line of its user's."""
    connection = sqlite.connect_writer(tmp_path / "p.db", busy_timeout_ms=0, checkpoints=True)
    migrator.up(connection, MIGRATIONS, quiet)
    sealing = Sealing(connection)
    with sqlite.transaction(connection):
        connection.execute("INSERT INTO users (id, telegram_id) VALUES (1, '1'), (2, '2')")
        for number, name in LEARNED.items():
            user = 1 if number < 6 else 2
            connection.execute(
                "INSERT INTO deposit_transactions (id, user_id, type, direction, amount, status, balance_before,"
                " balance_after, version, match_name, depositor_name) SELECT ?, ?, 'deposit', 'credit', 5, 'confirmed',"
                " balance, balance + 5, version + 1, '가', '가' FROM user_deposits WHERE user_id = ?",
                (number, user, user),
            )
            connection.execute(
                "INSERT INTO bank_notifications (id, bank_transaction_id, amount, depositor_name, match_name)"
                " VALUES (?, ?, 5, ?, ?)",
                (number, f"b{number}", name, match_name(name)),
            )
            connection.execute(
                "UPDATE bank_notifications SET status = 'matched', matched_transaction_id = id, match_method = 'manual'"
                " WHERE id = ?",
                (number,),
            )
            connection.execute(
                "INSERT INTO learned_names (id, user_id, printed_name, match_name, bank_notification_id, learned_by,"
                " created_at) VALUES (?, ?, ?, ?, ?, 'ops', '2026-01-19 12:00:00.000')",
                (number, user, name, match_name(name), number),
            )
        sealing.seal(lambda _: None, rule=audit_chain.rule_of_schema(connection))
    yield connection
    connection.close()


def test_a_later_rule_folds_every_stored_name(taught: sqlite.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learned names too, and any table that a later migration gives a column match_name. Of two that become one of the
    same user the other is forgotten, and the audit log tells it under its seal; those of two users stay."""
    taught.execute("CREATE TABLE told_later (id INTEGER PRIMARY KEY, depositor_name TEXT, match_name TEXT)")
    taught.execute("INSERT INTO told_later (depositor_name, match_name) VALUES ('홍☆', '홍☆')")
    before = taught.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
    monkeypatch.setattr(name_folding, "match_name", third_rule)
    with sqlite.transaction(taught):
        sealing = Sealing(taught)
        name_folding.fold(taught, rule=FOLDING_RULE + 1, on_progress=lambda *_: None)
        sealing.seal(lambda _: None, rule=audit_chain.rule_of_schema(taught))
    assert name_folding.rule_of(taught) == FOLDING_RULE + 1
    learned = taught.execute("SELECT id, printed_name, match_name FROM learned_names ORDER BY id").fetchall()
    assert learned == [(n, LEARNED[n], third_rule(LEARNED[n])) for n in (1, 2, 3, 6, 7)]
    for table in ("bank_notifications", "deposit_transactions", "told_later"):
        rows = taught.execute(f"SELECT depositor_name, match_name FROM {table}").fetchall()
        assert [stored for _, stored in rows] == [third_rule(name) for name, _ in rows], table
    forgotten = taught.execute(
        "SELECT user_id, telegram_id, resource_id, actor, json_extract(details, '$.id'),"
        " json_extract(details, '$.depositor_name') FROM audit_logs WHERE action = 'user_name_forgotten' ORDER BY id"
    ).fetchall()
    assert forgotten == [(1, "1", 1, "system:folding", n, LEARNED[n]) for n in (4, 5)]
    assert not audit_chain.is_unsealed(taught)
    assert taught.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall() == before


def test_learned_names_may_change_places(taught: sqlite.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that becomes what another one of the user's has been is that one's twin only if the other stays so."""
    turned = {"홍☆": "홍☆☆", "홍☆☆": "☆길동", "☆길동": "홍☆"}

    def turning(name: str, *, rule: int = FOLDING_RULE + 1) -> str:
        folded = match_name(name, rule=min(rule, FOLDING_RULE))
        return turned.get(folded, folded) if rule > FOLDING_RULE else folded

    monkeypatch.setattr(name_folding, "match_name", turning)
    with sqlite.transaction(taught):
        name_folding.fold(taught, rule=FOLDING_RULE + 1, on_progress=lambda *_: None)
    learned = taught.execute("SELECT id, match_name FROM learned_names ORDER BY id").fetchall()
    assert learned == [(number, turning(name)) for number, name in LEARNED.items()]


def test_a_program_with_a_later_rule_folds_with_migrate_up(
    taught: sqlite.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No migration is needed for it, and what it writes to the audit log is sealed in the same transaction."""
    monkeypatch.setattr(name_folding, "match_name", third_rule)
    for module in (name_folding, migrator):
        monkeypatch.setattr(module, "FOLDING_RULE", FOLDING_RULE + 1)
    said: list[str] = []
    assert migrator.up(taught, MIGRATIONS, said.append) == 0
    assert "  2 rows of the audit log sealed" in said
    assert taught.execute("SELECT COUNT(*) FROM learned_names").fetchone() == (5,)
    assert migrator.require_latest(taught, MIGRATIONS) == len(MIGRATIONS) - 1


def test_every_table_of_the_schema_with_folded_names_is_known(taught: sqlite.Connection) -> None:
    """Each column match_name is folded from the one column of a name that stands beside it."""
    every = taught.execute(
        "SELECT t.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c"
        " WHERE t.type = 'table' AND c.name = 'match_name' ORDER BY t.name"
    ).fetchall()
    assert [(name,) for name in name_folding.tables(taught)] == every
    assert set(name_folding.tables(taught).values()) == {"depositor_name", "printed_name"}
