"""Each table takes what it must and refuses the rest, without the help of any trigger.

Said by hand here: which columns may be null, what stands where nothing is given, what must be unique, where a number
ends. The same cases are tried on tables and unique indexes that have one small fault each, and notice it.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import pytest
from msgspec import Struct

from service.storage import sqlite
from tests.migrations import rules, sql_faults
from tests.migrations.rules import Case
from tests.migrations.sql_faults import Fault
from tests.migrations.test_rules import MADE, Objects, columns_of, database_of, outcome

Values = Mapping[str, str]
"""Column -> value, as SQL."""


class Unique(Struct, frozen=True):
    """A key: its columns, and for a partial index the values with which it binds, and those with which it does not."""

    columns: str
    binds: Sequence[Values] = ({},)
    leaves_free: Sequence[Values] = ()


class Table(Struct, frozen=True):
    """A row that the table takes, another one that differs in every key, and what else it says of its columns.

    `optional`: columns that may be null. `defaults`: column -> what is true of it where it is left out; other optional
    columns are null then. `refuses`, `takes`: column -> values at the ends of its CHECK. `key`: the column that is the
    row's number, if one is. `numbered`: no number is given twice.
    """

    row: Values
    another: Values
    optional: str = ""
    defaults: Values = {}
    unique: Sequence[Unique] = ()
    refuses: Mapping[str, Sequence[str]] = {}
    takes: Mapping[str, Sequence[str]] = {}
    references: Sequence[str] = ()
    key: str = "id"
    numbered: bool = False
    strict: bool = False


_NOW = "GLOB '20??-??-?? ??:??:??'"
_HASH = "zeroblob(32)"
_NO_HASH = ("zeroblob(31)", "zeroblob(33)", "x''")
_BALANCES = ("-1", "9007199254740992")
_BALANCES_TAKEN = ("0", "9007199254740991")

TABLES = {
    "users": Table(
        row={"id": "5", "telegram_id": "'t5'", "username": "'x'", "created_at": "'x'"},
        another={"id": "6", "telegram_id": "'t6'"},
        optional="username created_at",
        defaults={"created_at": _NOW},
        unique=[Unique("id"), Unique("telegram_id")],
        numbered=True,
    ),
    "user_deposits": Table(
        row={"id": "5", "user_id": "5", "balance": "1", "created_at": "'x'", "version": "1"},
        another={"id": "6", "user_id": "6"},
        optional="created_at",
        defaults={"balance": "= 0", "created_at": _NOW, "version": "= 0"},
        unique=[Unique("id"), Unique("user_id")],
        refuses={"balance": ["-1"], "version": ["-1"]},
        takes={"balance": ["0"], "version": ["0"]},
        numbered=True,
    ),
    "deposit_transactions": Table(
        row={
            "id": "5", "user_id": "9", "type": "'deposit'", "amount": "5", "status": "'x'", "depositor_name": "'x'",
            "description": "'x'", "confirmed_at": "'x'", "created_at": "'x'", "direction": "'debit'",
            "balance_before": "5", "balance_after": "5", "version": "5", "reference": "'x'", "reverses_id": "90",
            "match_name": "'x'",
        },
        another={"id": "6", "version": "6", "reverses_id": "91"},
        optional="depositor_name description confirmed_at created_at balance_before balance_after version reference"
        " reverses_id match_name",
        defaults={"status": "= 'pending'", "created_at": _NOW, "direction": "= 'credit'"},
        unique=[
            Unique("id"),
            Unique("user_id, version"),
            Unique("reverses_id"),
        ],
        refuses={
            "depositor_name": ["printf('%.51c', '가')"], "direction": ["'x'", "''"], "balance_before": _BALANCES,
            "balance_after": _BALANCES, "version": ["0", "-1"],
        },
        takes={
            "depositor_name": ["printf('%.50c', '가')"], "direction": ["'credit'"], "balance_before": _BALANCES_TAKEN,
            "balance_after": _BALANCES_TAKEN, "version": ["1"],
        },
        references=["user_id"],
        numbered=True,
    ),
    "bank_notifications": Table(
        row={
            "id": "5", "bank_name": "'x'", "depositor_name": "'x'", "amount": "5", "balance_after": "5",
            "transaction_time": "'x'", "raw_message": "'x'", "matched_transaction_id": "90", "created_at": "'x'",
            "bank_transaction_id": "'x'", "match_name": "'x'", "status": "'matched'", "match_method": "'manual'",
            "matched_by": "'x'", "matched_at": "'x'", "account": "'x'", "closed_as": "'dismissed'",
        },
        another={"id": "6", "bank_transaction_id": "'y'"},
        optional="bank_name depositor_name balance_after transaction_time raw_message matched_transaction_id created_at"
        " bank_transaction_id match_name match_method matched_by matched_at account closed_as",
        defaults={"created_at": _NOW, "status": "= 'unmatched'"},
        unique=[Unique("id"), Unique("bank_transaction_id")],
        refuses={"status": ["'x'", "''"], "match_method": ["'x'", "''"], "closed_as": ["'x'", "''"]},
        takes={
            "status": ["'unmatched'", "'ambiguous'"], "match_method": ["'automatic'"], "closed_as": ["'cancelled'"]
        },
        references=["matched_transaction_id"],
        numbered=True,
    ),
    "bank_notification_events": Table(
        row={
            "id": "5", "bank_notification_id": "90", "kind": "'freed'", "transaction_time": "'x'", "bank_name": "'x'",
            "depositor_name": "'x'", "account": "'x'", "balance_after": "5", "raw_message": "'x'", "deposit_id": "90",
            "note": "'x'", "actor": "'x'", "created_at": "'x'",
        },
        another={"id": "6"},
        optional="transaction_time bank_name depositor_name account balance_after raw_message deposit_id note",
        unique=[Unique("id")],
        refuses={"kind": ["'x'", "''"]},
        takes={"kind": ["'told'", "'dismissed'", "'reopened'", "'cancelled'"]},
        references=["bank_notification_id", "deposit_id"],
        numbered=True,
        strict=True,
    ),
    "user_domains": Table(
        row={
            "id": "5", "user_id": "9", "domain": "'x'", "status": "'pending'", "price": "5", "registered_at": "'x'",
            "expires_at": "'x'", "created_at": "'x'", "ascii_name": "'x'", "transaction_id": "90",
        },
        another={"id": "6", "ascii_name": "'y'"},
        optional="price registered_at expires_at created_at ascii_name transaction_id",
        defaults={"status": "= 'active'", "created_at": _NOW},
        unique=[
            Unique("id"),
            Unique(
                "ascii_name",
                binds=[{"status": "'pending'"}, {"status": "'registered'"}],
                leaves_free=[{"status": "'released'"}, {"status": "'expired'"}, {"status": "'active'"}],
            ),
        ],
        references=["user_id"],
        numbered=True,
    ),
    "audit_logs": Table(
        row={
            "id": "5", "user_id": "5", "telegram_id": "'x'", "action": "'x'", "resource_type": "'x'",
            "resource_id": "5", "details": "'x'", "ip_address": "'x'", "user_agent": "'x'", "created_at": "'x'",
            "actor": "'x'", "request_id": "'x'", "key_prefix": "'x'", "outcome": "'failure'",
        },
        another={"id": "6"},
        optional="user_id telegram_id resource_type resource_id details ip_address user_agent created_at actor"
        " request_id key_prefix outcome",
        defaults={"created_at": _NOW},
        unique=[Unique("id")],
        refuses={"outcome": ["'x'", "''"]},
        takes={"outcome": ["'success'"]},
        numbered=True,
    ),
    "api_keys": Table(
        row={
            "id": "5", "prefix": "'x'", "name": "'x'", "key_hash": _HASH, "scopes": "'x'", "created_at": "'x'",
            "revoked_at": "'x'",
        },
        another={"id": "6", "prefix": "'y'", "key_hash": "zeroblob(31)"},
        optional="revoked_at",
        unique=[Unique("id"), Unique("prefix"), Unique("key_hash")],
        numbered=True,
        strict=True,
    ),
    "idempotency_answers": Table(
        row={
            "id": "5", "actor": "'x'", "idempotency_key": "'x'", "operation": "'x'", "request": "'x'", "status": "5",
            "body": "x'00'", "location": "'x'", "created_at": "'x'", "audit_log_id": "5",
        },
        another={"id": "6", "actor": "'y'", "idempotency_key": "'y'"},
        optional="location audit_log_id",
        unique=[Unique("id"), Unique("actor, idempotency_key")],
        strict=True,
    ),
    "balance_change_references": Table(
        row={"actor": "'x'", "reference": "'x'", "transaction_id": "90"},
        another={"actor": "'y'", "reference": "'y'", "transaction_id": "91"},
        unique=[Unique("actor, reference"), Unique("transaction_id")],
        references=["transaction_id"],
        key="",
        strict=True,
    ),
    "import_archive": Table(
        row={"id": "5", "source_table": "'x'", "row_id": "5", "column_values": "'{}'", "imported_at": "'x'"},
        another={"id": "6"},
        unique=[Unique("id")],
        refuses={"column_values": ["'{'", "''"]},
        takes={"column_values": ["""'{"a":1}'"""]},
        strict=True,
    ),
    "audit_leaves": Table(
        row={
            "leaf_index": "5", "audit_log_id": "5", "hash": _HASH, "salt": "zeroblob(16)", "public_details": _HASH,
            "rule": "5",
        },
        another={"leaf_index": "6", "audit_log_id": "6"},
        optional="salt public_details rule",
        defaults={"rule": "= 1"},
        unique=[Unique("leaf_index"), Unique("audit_log_id")],
        refuses={
            "hash": _NO_HASH, "salt": ["zeroblob(15)", "zeroblob(17)"], "public_details": _NO_HASH, "rule": ["0", "256"]
        },
        takes={"rule": ["1", "255"], "hash": [_HASH], "salt": ["zeroblob(16)"], "public_details": [_HASH]},
        key="leaf_index",
        strict=True,
    ),
    "audit_nodes": Table(
        row={
            "level": "8", "position": "5", "hash": _HASH, "first_id": "5", "last_id": "5", "created_at_min": "'x'",
            "created_at_max": "'x'",
        },
        another={"level": "16", "position": "6"},
        optional="created_at_min created_at_max",
        unique=[Unique("level, position")],
        refuses={"level": ["0", "-8", "7", "9", "12"], "hash": _NO_HASH},
        takes={"level": ["8", "16", "24"], "hash": [_HASH]},
        key="",
        strict=True,
    ),
    "audit_tree": Table(
        row={"id": "1", "size": "5", "last_id": "5", "last_hash": _HASH, "frontier": _HASH},
        another={"size": "6"},
        unique=[Unique("id")],
        refuses={"id": ["0", "2"], "last_hash": _NO_HASH, "frontier": ["zeroblob(1)", "zeroblob(31)", "zeroblob(33)"]},
        takes={"id": ["1"], "last_hash": [_HASH], "frontier": ["x''", "zeroblob(64)"]},
        strict=True,
    ),
    "name_folding": Table(
        row={"id": "1", "rule": "5"},
        another={"rule": "6"},
        unique=[Unique("id")],
        refuses={"id": ["0", "2"], "rule": ["0", "256"]},
        takes={"id": ["1"], "rule": ["1", "255"]},
        strict=True,
    ),
    "bank_messages": Table(
        row={
            "id": "5", "raw_message": "'x'", "raw_sha256": _HASH, "kind": "'deposit_cancelled'", "status": "'settled'",
            "bank_name": "'x'", "account": "'x'", "depositor_name": "'x'", "amount": "5", "balance_after": "5",
            "transaction_time": "'x'", "bank_notification_id": "90", "note": "'x'", "settled_by": "'x'",
            "settled_at": "'x'", "received_by": "'x'", "created_at": "'x'",
        },
        another={"id": "6"},
        optional="raw_message bank_name account depositor_name amount balance_after transaction_time"
        " bank_notification_id note settled_by settled_at",
        unique=[Unique("id")],
        refuses={"raw_sha256": _NO_HASH, "kind": ["'x'", "''"], "status": ["'x'", "''"]},
        takes={
            "raw_sha256": [_HASH], "kind": ["'unreadable'", "'withdrawal'", "'withdrawal_cancelled'"],
            "status": ["'unreadable'", "'waiting'", "'kept'"],
        },
        references=["bank_notification_id"],
        numbered=True,
        strict=True,
    ),
    "learned_names": Table(
        row={
            "id": "5", "user_id": "9", "printed_name": "'x'", "match_name": "'x'", "bank_notification_id": "90",
            "learned_by": "'x'", "created_at": "'x'",
        },
        another={"id": "6", "user_id": "8", "match_name": "'y'"},
        unique=[Unique("id"), Unique("match_name, user_id")],
        references=["user_id", "bank_notification_id"],
        numbered=True,
    ),
    "audit_prunes": Table(
        row={
            "through_id": "5", "first_index": "5", "size": "6", "root": _HASH, "created_at_min": "'x'",
            "created_at_max": "'x'", "archive": "'x'", "archive_sha256": _HASH, "actor": "'x'", "pruned_at": "'x'",
        },
        another={"through_id": "6"},
        optional="created_at_min created_at_max",
        unique=[Unique("through_id")],
        refuses={
            "through_id": ["0", "-1"], "first_index": ["-1"], "size": ["5", "4"], "root": _NO_HASH,
            "archive_sha256": _NO_HASH,
        },
        takes={
            "through_id": ["1"], "first_index": ["0"], "size": ["6", "99"], "root": [_HASH], "archive_sha256": [_HASH]
        },
        key="through_id",
        strict=True,
    ),
    "audit_pruned_steps": Table(
        row={"step": "'x'", "block": "5", "nth": "5", "bits": "5"},
        another={"step": "'y'", "block": "6", "nth": "6"},
        unique=[Unique("step, block, nth")],
        refuses={"block": ["-1"], "nth": ["0", "-1"], "bits": ["0", "-1", "4294967296"]},
        takes={"block": ["0"], "nth": ["1"], "bits": ["1", "4294967295"]},
        key="",
        strict=True,
    ),
    "user_erasures": Table(
        row={"user_id": "9", "begun_at": "'x'", "actor": "'x'", "finished_at": "'x'"},
        another={"user_id": "8"},
        optional="finished_at",
        unique=[Unique("user_id")],
        references=["user_id"],
        key="user_id",
        strict=True,
    ),
    "audit_erasures": Table(
        row={"audit_log_id": "5", "commitment": _HASH, "user_id": "8"},
        another={"audit_log_id": "6"},
        unique=[Unique("audit_log_id")],
        refuses={"commitment": _NO_HASH},
        takes={"commitment": [_HASH]},
        references=["user_id"],
        key="audit_log_id",
        strict=True,
    ),
}  # fmt: skip
_ROWS = f"{rules.BOTS_ROWS} INSERT INTO users (id, telegram_id) VALUES (8, 't8'), (7, 't7');"
_ERASING = "INSERT INTO user_erasures VALUES (8, 'x', 'x', NULL)"


class Trial(Struct, frozen=True):
    """A statement and what must come of it: `changed`, or the message of its refusal."""

    case: Case
    expected: str


def _insert(table: str, values: Values) -> str:
    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})"


def _trials(name: str) -> Iterator[Trial]:
    """Everything that the table above says of one table, as statements."""
    table = TABLES[name]
    before = f"{_ERASING}; " if name == "audit_erasures" else ""

    def trial(values: Values, expected: str = "changed", leaves: str = "") -> Trial:
        return Trial(Case(before + _insert(name, values), leaves), expected)

    yield trial(table.row)
    for column in table.row.keys() - {table.key}:
        without = {other: value for other, value in table.row.items() if other != column}
        missing = f"NOT NULL constraint failed: {name}.{column}"
        optional = column in table.optional.split()
        yield trial({**table.row, column: "NULL"}, "changed" if optional else missing)
        default = table.defaults.get(column, "IS NULL" if optional else "")
        left = f"SELECT {column} {default} FROM {name} ORDER BY rowid DESC LIMIT 1" if default else ""
        numbered = (
            {**without, table.key: "500"} if table.key and name not in {"audit_tree", "user_erasures"} else without
        )
        yield trial(numbered, "changed" if default else missing, left)
    for key in table.unique:
        yield from _trials_of_key(name, key, before)
    for column, values in table.refuses.items():
        for value in values:
            yield Trial(Case(before + _insert(name, {**table.row, column: value})), "CHECK constraint failed")
    for column, values in table.takes.items():
        for value in values:
            yield trial({**table.row, column: value})
    for column in table.references:
        yield trial({**table.row, column: "77"}, "FOREIGN KEY constraint failed")
    if table.numbered:
        yield trial({**table.row, "id": "500"}, leaves=f"SELECT seq = 500 FROM sqlite_sequence WHERE name = '{name}'")
    if table.strict:
        for column, value in table.row.items():
            kind, other, said = _kind(value)
            refused = f"cannot store {said} value in {kind} column {name}.{column}"
            yield trial({**table.row, column: other}, "datatype mismatch" if column == table.key else refused)


def _kind(value: str) -> tuple[str, str, str]:
    """The type of a column that holds `value`, a value that it must not hold, and how SQLite calls that one."""
    if value.startswith("'"):
        return "TEXT", "x'00'", "BLOB"
    return ("INTEGER", "'x'", "TEXT") if value.isdecimal() else ("BLOB", "5", "INT")


def _trials_of_key(name: str, key: Unique, before: str) -> Iterator[Trial]:
    table, columns = TABLES[name], key.columns.split(", ")
    message = f"UNIQUE constraint failed: {', '.join(f'{name}.{column}' for column in columns)}"
    same = {column: table.row[column] for column in columns}
    for expected, settings in ((message, key.binds), ("changed", key.leaves_free)):
        for setting in settings:
            first = _insert(name, {**table.row, **setting})
            second = _insert(name, {**table.row, **table.another, **same, **setting})
            yield Trial(Case(f"{before}{first}; {second}"), expected)
    for column in columns if len(columns) > 1 else []:
        other = table.another.get(column, "8")
        second = _insert(name, {**table.row, **table.another, **same, column: other})
        yield Trial(Case(f"{before}{_insert(name, table.row)}; {second}"), "changed")


def _wrong(connection: sqlite3.Connection, name: str) -> Iterator[str]:
    """A sentence for each trial that comes out otherwise."""
    for trial in _trials(name):
        came = outcome(connection, trial.case)
        if not (came.startswith(trial.expected) if "CHECK" in trial.expected else came == trial.expected):
            yield f"[{trial.case.sql}] must be '{trial.expected}', not: {came}"


def _empty(made: Objects) -> sqlite3.Connection:
    """A database with the tables and unique indexes of `made`, and what others refer to."""
    return database_of(made, ("table", "index"), _ROWS)


@pytest.fixture(scope="module")
def tables() -> Iterator[sqlite3.Connection]:
    """The tables without triggers. Each test leaves them as they were."""
    connection = _empty(MADE)
    yield connection
    connection.close()


def test_every_table_column_key_and_check_has_cases(tables: sqlite3.Connection) -> None:
    """What a migration adds to a table is said above, or this fails."""
    made_tables = [name for name, (kind, _, _) in MADE.items() if kind == "table"]
    assert sorted(TABLES) == sorted(made_tables)
    for name, table in TABLES.items():
        assert list(table.row) == columns_of(tables, name), name
        sql = MADE[name][2]
        checked = table.refuses.keys()
        assert table.takes.keys() <= checked <= table.row.keys(), name
        assert len(checked) == len(re.findall(r"\bCHECK\b", sql)), f"a CHECK of {name} has no refused value"
        assert set(checked) <= set(table.takes) | {"column_values"}, f"a CHECK of {name} has no value at its end"
        keys = {key.columns for key in table.unique} - {table.key}
        indexes = tables.execute(f"PRAGMA index_list({name})").fetchall()
        unique = {
            ", ".join(row[2] for row in tables.execute(f"PRAGMA index_info({index[1]})").fetchall())
            for index in indexes
            if index[2]
        }
        assert unique == keys, name
        assert len(table.references) == len(tables.execute(f"PRAGMA foreign_key_list({name})").fetchall()), name


@pytest.mark.parametrize("name", TABLES)
def test_table_refuses_and_takes_what_it_must(tables: sqlite3.Connection, name: str) -> None:
    """Nulls, defaults, keys, the ends of every CHECK, links and types, each with SQLite's own message."""
    assert list(_wrong(tables, name)) == []


_DROPPED = {
    "NOT NULL": r"\bNOT NULL\b",
    "UNIQUE": r"\bUNIQUE\b(?! \()",
    "AUTOINCREMENT": r"\bAUTOINCREMENT\b",
    "STRICT": r"\bSTRICT\b",
    "DEFAULT": r"\bDEFAULT (?:\w+|'\w+')",
    "REFERENCES": r"\bREFERENCES \w+ \( \w+ \)",
    "CHECK": r"\bCHECK \((?:[^()]|\([^()]*\))*\)",
    "PRIMARY KEY": r", PRIMARY KEY \([^()]*\)",
}
_NULLS_DIFFER = "nulls differ from one another in every key"
_STRICT_KEY = "no column of a key is null in a STRICT table"
_NO_REMAINDER_BELOW = "the remainder of such a number is never below 0"
EQUIVALENT = {
    "idx_transactions_user_version": {
        "always: version IS NOT NULL -> 1 in ) WHERE version IS NOT NULL": _NULLS_DIFFER,
    },
    "idx_transactions_reverses": {
        "always: reverses_id IS NOT NULL -> 1 in ) WHERE reverses_id IS NOT NULL": _NULLS_DIFFER,
    },
    "idx_domains_live": {
        "always: ascii_name IS NOT NULL -> 1 in ) WHERE ascii_name IS NOT NULL AND status": _NULLS_DIFFER,
    },
    "idx_bank_notifications_bank_id": {
        "always: bank_transaction_id IS NOT NULL -> 1 in ) WHERE bank_transaction_id IS NOT NULL": _NULLS_DIFFER,
    },
    "balance_change_references": {"without NOT NULL (1)": _STRICT_KEY, "without NOT NULL (2)": _STRICT_KEY},
    "audit_nodes": {
        "without NOT NULL (1)": _STRICT_KEY,
        "without NOT NULL (2)": _STRICT_KEY,
        "operator: = -> <= in % 8 = 0 )": _NO_REMAINDER_BELOW,
        "number: 0 -> 1 in level > 0 AND level": "1 is no multiple of 8",
    },
    "audit_tree": {"operator: = -> <= in % 32 = 0 )": _NO_REMAINDER_BELOW},
    "audit_pruned_steps": {f"without NOT NULL ({number})": _STRICT_KEY for number in (1, 2, 3)},
}
"""Table or unique index -> a fault that changes nothing -> why."""
_RULING = [name for name, (kind, _, sql) in MADE.items() if kind == "table" or sql.startswith("CREATE UNIQUE INDEX")]


def _faults(name: str) -> Iterator[Fault]:
    """A table or a unique index without one of its words, or with a small fault in a condition."""
    kind, _, sql = MADE[name]
    plain = " ".join(sql_faults.tokens(sql))
    for word, pattern in _DROPPED.items():
        for number, match in enumerate(re.finditer(pattern, plain)):
            yield Fault(f"without {word} ({number + 1})", plain[: match.start()] + plain[match.end() :])
    yield from sql_faults.faults(sql, words=("x",) if kind == "table" else ("released", "expired", "active"))


def _unnoticed(name: str) -> list[str]:
    """The labels of the faults that no trial of the table notices."""
    kind, table, _ = MADE[name]
    found = []
    for fault in _faults(name):
        try:
            connection = _empty({**MADE, name: (kind, table, fault.sql)})
        except sqlite.DatabaseError:
            continue
        if next(_wrong(connection, table), None) is None:
            found.append(fault.label)
        connection.close()
    return found


@pytest.mark.parametrize("name", _RULING)
def test_every_word_of_a_constraint_decides_a_case(name: str) -> None:
    """What is left out or confused in a table or a unique index makes one of the table's cases come out otherwise."""
    assert _unnoticed(name) == list(EQUIVALENT.get(name, {})), f"no case notices these faults of {name}"
