"""Each rule of the database refuses what it must, by its own message, and allows the rest."""

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence

import pytest

from service import resources
from service.storage import migrator, sqlite
from tests.migrations import rules
from tests.migrations.rules import TRIGGERS, Case
from tests.some import some

Objects = dict[str, tuple[str, str, str]]
"""Name -> kind, table and SQL, in the order in which they were made."""


def objects() -> Objects:
    """What the migrations make."""
    connection = sqlite.driver.connect(":memory:", isolation_level=None)
    for migration in migrator.load(resources.folder("migrations")):
        for statement in migrator.statements(migration.up):
            connection.execute(statement)
    found = connection.execute(
        "SELECT name, type, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    connection.close()
    return {name: (kind, table, sql) for name, kind, table, sql in found}


def database_of(made: Objects, kinds: Sequence[str], rows: str) -> sqlite3.Connection:
    """A database in memory with what `made` has of these kinds, in their order, and then `rows`."""
    connection: sqlite3.Connection = sqlite.driver.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    for kind in kinds:
        for its, _, sql in made.values():
            if its == kind:
                connection.execute(sql)
    for statement in rows.split(";"):
        connection.execute(statement)
    return connection


def database(made: Objects) -> sqlite3.Connection:
    """A database with all of `made`, the bot's rows and ours."""
    connection = database_of(made, ("table", "index"), rules.BOTS_ROWS)
    triggers = [sql for kind, _, sql in made.values() if kind == "trigger"]
    for statement in (*triggers, *rules.ROWS.split(";")):
        connection.execute(statement)
    return connection


MADE = objects()
MADE_TRIGGERS = {name: sql for name, (kind, _, sql) in MADE.items() if kind == "trigger"}


@pytest.fixture(scope="module")
def ledger() -> Iterator[sqlite3.Connection]:
    """A database with rows of every kind. Each test leaves it as it was."""
    connection = database(MADE)
    yield connection
    connection.close()


def outcome(connection: sqlite3.Connection, case: str | Case, on_trial: Callable[[], None] = lambda: None) -> str:
    """What became of the last statement: `changed`, `nothing`, or the message of its refusal. All is taken back.

    `on_trial` is called when only the last statement is left to be done.
    """
    sql, leaves = (case.sql, case.leaves) if isinstance(case, Case) else (case, "")
    *before, last = sql.split(";")
    connection.execute("SAVEPOINT outcome")
    try:
        for statement in before:
            connection.execute(statement)
        on_trial()
        try:
            changed = connection.execute(last).rowcount
        except sqlite.IntegrityError as error:
            return str(error) if connection.in_transaction else f"{error}, and what was done before it is undone"
        if leaves:
            return "changed" if connection.execute(leaves).fetchall() == [(1,)] else "changed otherwise"
        return "changed" if changed else "nothing"
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO outcome")
            connection.execute("RELEASE outcome")


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """The names of a table's columns, in order."""
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})").fetchall()]


def refused(connection: sqlite3.Connection, name: str) -> list[str]:
    """Everything that a trigger must refuse, with the setting of each column of a row that is not to be touched."""
    rule, table = TRIGGERS[name], MADE[name][1]
    touches = [
        f"{rule.before} UPDATE {table} SET {column} = {column} WHERE {rule.untouchable}"
        for column in columns_of(connection, table)
        if rule.untouchable
    ]
    return [*rule.refuses, *touches]


def unexpected(connection: sqlite3.Connection, name: str) -> Iterator[str]:
    """A sentence for each case of a trigger that comes out otherwise than the table of cases says."""
    rule = TRIGGERS[name]
    for case in refused(connection, name):
        if (came := outcome(connection, case)) != rule.message:
            yield f"{name} must refuse [{case}] with '{rule.message}', not: {came}"
    for allowed in rule.allows:
        if (came := outcome(connection, allowed)) != "changed":
            yield f"{name} must allow [{allowed}], not: {came}"


def test_every_trigger_and_every_message_has_cases() -> None:
    """No trigger is without a case that it allows, and none that raises without one that it refuses by its message."""
    assert sorted(TRIGGERS) == sorted(MADE_TRIGGERS)
    for name, rule in some(TRIGGERS.items()):
        assert "UPDATE OF" not in MADE_TRIGGERS[name], f"{name} looks at some of the columns only"
        said = re.findall(r"RAISE\((\w+), '([^']*)'\)", MADE_TRIGGERS[name])
        assert said == ([("ABORT", rule.message)] if rule.message else []), name
        assert rule.allows, name
        assert bool(rule.refuses) == bool(rule.message), name


@pytest.mark.parametrize("name", TRIGGERS)
def test_trigger_refuses_and_allows_what_it_must(ledger: sqlite3.Connection, name: str) -> None:
    """Each refusal has the trigger's own message and undoes nothing else; each allowed change is made."""
    assert list(unexpected(ledger, name)) == []
