"""What a file makes, changes or drops: each small fault in it is seen in schema.sql or on the way back.

The schema after the last migration is that of schema/schema.sql, and each rollback gives back the schema that was there
before its migration. A fault in one file breaks one of the two, or it is listed below with the reason why it may not.
"""

import functools
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import pytest

from service import resources
from service.storage import schema, sqlite
from tests.migrations import sql_faults
from tests.migrations.stories import EVERY_FAULT, FILES, MOVES_ROWS, file_of, wrong
from tests.migrations.test_kept_rows import STORIES

LAST = max(int(step.split()[1]) for step in FILES)
Schema = Mapping[str, str]
"""Name -> SQL as `schema.normalised` gives it."""
_normalised = functools.cache(schema.normalised)


def _new() -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite.driver.connect(":memory:", isolation_level=None)
    return connection


def _run(connection: sqlite3.Connection, script: Sequence[str]) -> None:
    for statement in script:
        connection.execute(statement)


def _schema(connection: sqlite3.Connection) -> Schema:
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    return {name: _normalised(sql) for name, sql in rows.fetchall()}


@functools.cache
def _stage(version: int) -> sqlite3.Connection:
    """An empty database after migration `version`, to be copied; an empty file for -1."""
    connection = _new()
    if version >= 0:
        _stage(version - 1).backup(connection)
        _run(connection, FILES[f"up {version}"])
    return connection


@functools.cache
def _wanted(version: int) -> Schema:
    return _schema(_stage(version))


@functools.cache
def _from_file() -> Schema:
    connection = _new()
    connection.executescript((resources.folder("schema") / "schema.sql").read_text("utf-8"))
    return _schema(connection)


def _differences(found: Schema, wanted: Schema) -> set[str]:
    return {name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)}


@functools.cache
def _is_for_good(name: str, version: int) -> bool:
    """Whether what migration `version` leaves of `name` is what schema.sql has: no later one makes or changes it."""
    later = " ".join(" ".join(FILES[f"up {number}"]) for number in range(version + 1, LAST + 1))
    return not re.search(rf"\b(?:TABLE|INDEX|TRIGGER|EXISTS) {name}\b", later)


def _wrong(step: str, script: Sequence[str]) -> str:
    """What is seen of the file `step` when it says `script`; empty where nothing is."""
    version = int(step.split()[1])
    connection = _new()
    try:
        if step.startswith("down"):
            _stage(version).backup(connection)
            _run(connection, script)
            return "" if _schema(connection) == _wanted(version - 1) else f"{step} does not give back what was there"
        _stage(version - 1).backup(connection)
        _run(connection, script)
        found = {version: _schema(connection)}
        if any(_is_for_good(name, version) for name in _differences(found[version], _wanted(version))):
            return "schema.sql says otherwise"
        for later in range(version + 1, LAST + 1):
            _run(connection, FILES[f"up {later}"])
            found[later] = _schema(connection)
            if any(_is_for_good(name, later) for name in _differences(found[later], _wanted(later))):
                return "schema.sql says otherwise"
        if found[LAST] != _from_file():
            return "schema.sql says otherwise"
        for number in range(LAST, max(version, 1) - 1, -1):
            _run(connection, FILES[f"down {number}"])
            if _schema(connection) != (found.get(number - 1) or _wanted(number - 1)):
                return f"down {number} does not give back what was there"
    except sqlite.DatabaseError as error:
        return str(error)
    finally:
        connection.close()
    return ""


_WORDS = {
    "NOT NULL": r"\bNOT NULL\b",
    "UNIQUE": r"\bUNIQUE\b",
    "AUTOINCREMENT": r"\bAUTOINCREMENT\b",
    "PRIMARY KEY": r"\bPRIMARY KEY(?: \([^()]*\))?",
    "STRICT": r"\bSTRICT\b",
    "DEFAULT": r"\bDEFAULT (?:\w+|'\w+')",
    "REFERENCES": r"\bREFERENCES \w+ \( \w+ \)",
    "CHECK": r"\bCHECK \((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)",
    "WHERE": r"\bWHERE [^;]*(?=;)",
    "WHEN": r"\bWHEN .*(?=BEGIN)",
    "ABORT": r"ABORT ,",
    "BEFORE": r"\bBEFORE\b",
    "AFTER": r"\bAFTER\b",
}
"""What is taken out of a statement, wherever it stands."""


def _faults(statement: str) -> Iterator[tuple[str, str]]:
    """A label and what the statement says then: nothing, without one of its words, or an index of other columns."""
    plain = " ".join(sql_faults.tokens(statement))
    name = re.split(r" (?:\(|;|AS|=)", plain)[0]
    yield f"{name}: gone", "SELECT 1"
    if not plain.startswith(("CREATE", "ALTER")):
        return
    for word, pattern in _WORDS.items():
        for number, match in enumerate(re.finditer(pattern, plain)):
            instead = "ABORT , 'x' ||" if word == "ABORT" else ""
            yield f"{name}: without {word} {number + 1}", plain[: match.start()] + instead + plain[match.end() :]
    index = re.match(r"(CREATE (?:UNIQUE )?INDEX .*? \( )(.*?)( \)(?: WHERE .*)? ;)$", plain)
    if index:
        columns = index[2].split(" , ")
        for number in range(len(columns) if len(columns) > 1 else 0):
            kept = " , ".join(columns[:number] + columns[number + 1 :])
            yield f"{name}: without column {number + 1}", f"{index[1]}{kept}{index[3]}"
        yield f"{name}: the other way", f"{index[1]}{' , '.join(reversed(columns))} DESC{index[3]}"


_A_NET = "a net under the statements that write it, which never meet it"
_ON_THE_WAY = "what the table takes meanwhile goes into the copy, which takes it as it is"
_FASTER = "an index that makes a statement faster and is gone at the end"
_IN_ONE_TRANSACTION = "it matters where the file is one transaction: test_001.py"
_TO_THE_OPERATOR = "what is told at the end is read by test_001.py"


def _without(statement: str, words: str, why: str) -> dict[str, str]:
    return {f"{statement}: without {word}": why for word in words.split(", ")}


_OF_BOTH = {
    "PRAGMA defer_foreign_keys: gone": _IN_ONE_TRANSACTION,
    **_without("CREATE TABLE IF NOT EXISTS migration_001_sequence", "NOT NULL 1", _A_NET),
    **_without(
        "CREATE TABLE IF NOT EXISTS migration_001_audit", "NOT NULL 1, NOT NULL 2, NOT NULL 3, NOT NULL 4", _A_NET
    ),
    **_without("CREATE TABLE IF NOT EXISTS bank_notifications_backup", "NOT NULL 1", _A_NET),
    **_without("CREATE TABLE IF NOT EXISTS user_deposits", "NOT NULL 1, NOT NULL 2, UNIQUE 1", _ON_THE_WAY),
    **_without(
        "CREATE TABLE IF NOT EXISTS deposit_transactions",
        "NOT NULL 1, NOT NULL 2, NOT NULL 3, NOT NULL 4, REFERENCES 1",
        _ON_THE_WAY,
    ),
    **{
        f"CREATE INDEX IF NOT EXISTS {index}: {fault}": _FASTER
        for index in (
            "idx_user_deposits_backup_user ON user_deposits_backup",
            "idx_migration_001_links ON bank_notifications",
        )
        for fault in ("gone", "the other way")
    },
}
EQUIVALENT = {
    "up 1": {
        **_OF_BOTH,
        **_without("CREATE TABLE IF NOT EXISTS user_deposits", "CHECK 1", _ON_THE_WAY),
        **_without("CREATE TABLE IF NOT EXISTS deposit_transactions", "CHECK 1", _ON_THE_WAY),
        "SELECT '✅ Migration 001 completed successfully': gone": _TO_THE_OPERATOR,
    },
    "down 1": {
        **_OF_BOTH,
        **_without(
            "CREATE TABLE IF NOT EXISTS audit_logs", "NOT NULL 1, AUTOINCREMENT 1, DEFAULT 1", "it is dropped empty"
        ),
        "SELECT '✅ Rollback 001 completed successfully': gone": _TO_THE_OPERATOR,
    },
    "up 3": _without("CREATE TABLE opening_differences", "NOT NULL 1, NOT NULL 2, PRIMARY KEY 1", _A_NET),
}
"""File -> a fault that neither the schema nor a story tells of -> why."""


def _seen_in_a_story(step: str, number: int, changed: Sequence[str]) -> bool:
    version, files = f"{int(step.split()[1]):03d}", {**FILES, step: changed}
    stories = [s for name, s in STORIES.items() if name[:3] == version and step in map(file_of, s.steps)]
    return any(next(wrong(story, files, fault=(step, number)), None) for story in stories)


@pytest.mark.parametrize("step", FILES)
@pytest.mark.long
def test_what_a_file_makes_is_seen(step: str) -> None:
    """schema.sql, a rollback or a story says otherwise when a word of a file that makes or drops something is gone.

    The faults that are listed, which every story must be told for, are tried by `make faults` alone.
    """
    script, listed = FILES[step], EQUIVALENT.get(step, {})
    assert _wrong(step, script) == ""
    made, unseen = set(), []
    for number, statement in enumerate(script):
        for label, faulty in _faults(statement) if not MOVES_ROWS.match(statement) else ():
            made.add(label)
            changed = [*script[:number], faulty, *script[number + 1 :]]
            if (label not in listed or EVERY_FAULT) and not (
                _wrong(step, changed) or _seen_in_a_story(step, number, changed)
            ):
                unseen.append(label)
    assert listed.keys() <= made, f"faults of {step} are listed that there are not"
    assert sorted(unseen) == sorted(listed if EVERY_FAULT else ()), f"nothing sees these faults of {step}"
