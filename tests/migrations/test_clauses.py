"""No clause of a trigger is there for nothing: with any small fault in its condition a case comes out otherwise.

Each case is done once, with a trigger beside that asks all the faulty conditions about the row on trial. A fault is
noticed where its condition says yes to a case that is allowed, or no to one that is refused.
"""

import sqlite3
from collections.abc import Mapping

import pytest

from service.storage import sqlite
from tests.migrations import sql_faults
from tests.migrations.rules import TRIGGERS, Case
from tests.migrations.sql_faults import Fault
from tests.migrations.test_rules import MADE, MADE_TRIGGERS, database, outcome, refused, unexpected
from tests.some import some

_SAME_ROW = "the statement is refused already where the two differ"
_YES_OR_NO = "both sides are 1 or 0"
_NEVER_NULL = "one side is never null"
_NONE_BETWEEN = "no other value is on that side"
_KEPT_ID = "bank_notifications_keep_what_they_say refuses where the two differ"
_FIRST_ROW = "a SELECT that is a value is its first row"
EQUIVALENT = {
    "users_keep_identity": {
        "row: OLD.id -> NEW.id in 'erased-' || OLD.id OR NEW.username": _SAME_ROW,
        "row: OLD.id -> NEW.id in user_id = OLD.id AND finished_at": _SAME_ROW,
    },
    "user_deposits_need_transaction": {
        "row: NEW.user_id -> OLD.user_id in user_id = NEW.user_id AND version": _SAME_ROW,
    },
    "deposit_transactions_move_forwards": {
        "row: OLD.user_id -> NEW.user_id in user_id = OLD.user_id AND finished_at": _SAME_ROW,
    },
    "deposit_transactions_continue_account_insert": {
        "null: = -> IS in AND balance = NEW.balance_before AND": _NEVER_NULL,
        "null: = -> IS in AND NEW.balance_after = balance +": _NEVER_NULL,
        "operator: = -> <= in ( NEW.direction = 'credit' )": _NONE_BETWEEN,
        "operator: = -> >= in ( NEW.direction = 'debit' )": _NONE_BETWEEN,
    },
    "deposit_transactions_continue_account_update": {
        "null: = -> IS in AND balance = NEW.balance_before AND": _NEVER_NULL,
        "null: = -> IS in AND NEW.balance_after = balance +": _NEVER_NULL,
        "operator: = -> <= in ( NEW.direction = 'credit' )": _NONE_BETWEEN,
        "operator: = -> >= in ( NEW.direction = 'debit' )": _NONE_BETWEEN,
    },
    "deposit_transactions_move_balance_insert": {"null: = -> IS in WHERE user_id = NEW.user_id ;": _NEVER_NULL},
    "deposit_transactions_move_balance_update": {
        "null: = -> IS in WHERE user_id = NEW.user_id ;": _NEVER_NULL,
        "row: NEW.user_id -> OLD.user_id in user_id = NEW.user_id ; END": _SAME_ROW,
    },
    "deposit_transactions_keep_payments": {
        "always: NEW.reverses_id IS NOT NULL -> 1 in WHEN NEW.reverses_id IS NOT NULL AND NEW.direction": (
            "null is among no ids"
        ),
        "always: t.reverses_id IS NOT NULL -> 1 in chain.id WHERE t.reverses_id IS NOT NULL ) SELECT": (
            "null is among no ids"
        ),
        "operator: = -> <= in AND NEW.direction = 'credit' AND": _NONE_BETWEEN,
    },
    "user_domains_keep_their_price": {"null: <> -> IS NOT in 'registered' ) <> ( WITH": _YES_OR_NO},
    "deposit_transactions_keep_match_name": {
        "row: OLD.user_id -> NEW.user_id in user_id = OLD.user_id AND finished_at": (
            "deposit_transactions_move_forwards refuses where the two differ"
        ),
    },
    "bank_notification_events_fit_their_line": {
        "operator: = -> >= in AND b.closed_as = 'dismissed' OR": _NONE_BETWEEN,
        "operator: = -> <= in AND kind = 'cancelled' )": _NONE_BETWEEN,
        "null: = -> IS in AND b.matched_transaction_id = NEW.deposit_id AND": "no transaction reverses null",
        "null: = -> IS in WHERE reverses_id = NEW.deposit_id )": "a line that is matched names its deposit",
    },
    "bank_notification_events_refuse_update": {
        "operator: = -> >= in WHERE id = OLD.bank_notification_id )": "the first row from there on is the row itself",
        "row: OLD.bank_notification_id -> NEW.bank_notification_id in id = OLD.bank_notification_id ) OR": _SAME_ROW,
        "row: OLD.bank_notification_id -> NEW.bank_notification_id in bank_notification_id ="
        " OLD.bank_notification_id ) )": _SAME_ROW,
    },
    "bank_messages_begin_unsettled": {
        "operator: = -> <= in OR NEW.kind = 'deposit_cancelled' AND": _NONE_BETWEEN,
        "operator: = -> >= in AND NEW.status = 'waiting' OR": _NONE_BETWEEN,
        "operator: = -> >= in ( NEW.kind = 'withdrawal' OR": "the next one is named beside it",
        "operator: = -> >= in OR NEW.kind = 'withdrawal_cancelled' )": _NONE_BETWEEN,
        "operator: = -> <= in AND NEW.status = 'kept' )": _NONE_BETWEEN,
        "operator: = -> <= in AND NEW.kind = 'deposit_cancelled' AND": _NONE_BETWEEN,
        "operator: = -> <= in AND NEW.status = 'kept' ) (2)": _NONE_BETWEEN,
    },
    "bank_messages_settle_once": {
        "operator: = -> >= in ( OLD.status = 'unreadable' OR": "the next one is named beside it",
        "operator: = -> >= in OR OLD.status = 'waiting' )": _NONE_BETWEEN,
        "null: = -> IS in AND NEW.bank_notification_id = OLD.bank_notification_id AND": (
            "a message without a notification is of no user, which the last clause refuses"
        ),
        "operator: = -> >= in WHERE id = OLD.bank_notification_id )": "the first row from there on is the row itself",
        "row: OLD.bank_notification_id -> NEW.bank_notification_id in id = OLD.bank_notification_id ) OR": _SAME_ROW,
        "null: = -> IS in WHERE bank_notification_id = OLD.bank_notification_id )": _NEVER_NULL,
        "row: OLD.bank_notification_id -> NEW.bank_notification_id in bank_notification_id ="
        " OLD.bank_notification_id ) )": _SAME_ROW,
    },
    "bank_notifications_keep_what_they_say": {
        "left out: NEW.match_name IS NULL -> 0 in '' OR NEW.match_name IS NULL ) AND": (
            "null = '' is null, which refuses nothing either, and the next clause compares the nulls"
        ),
        "operator: = -> <= in ( NEW.match_name = '' OR": _NONE_BETWEEN,
        "row: NEW.match_name -> OLD.match_name in '' OR NEW.match_name IS NULL": _SAME_ROW,
        "null: = -> IS in NULL ) = ( OLD.match_name": _YES_OR_NO,
        "row: OLD.matched_transaction_id -> NEW.matched_transaction_id in id = OLD.matched_transaction_id OR"
        " OLD.matched_transaction_id": _SAME_ROW,
        "row: OLD.matched_transaction_id -> NEW.matched_transaction_id in OLD.matched_transaction_id OR"
        " OLD.matched_transaction_id IS NULL": _SAME_ROW,
        "row: OLD.id -> NEW.id in bank_notification_id = OLD.id ) )": _SAME_ROW,
        "column: NEW.match_name -> NEW.status in '' OR NEW.match_name IS NULL": (
            "as if the clause were left out, see there"
        ),
        "column: NEW.match_name -> NEW.bank_transaction_id in '' OR NEW.match_name IS NULL": (
            "null = '' is null, which refuses nothing either"
        ),
    },
    "bank_notifications_match_once": {
        "row: OLD.status -> NEW.status in OLD.status AND OLD.status <> 'matched'": _SAME_ROW,
        "row: OLD.id -> NEW.id in bank_notification_id = OLD.id AND kind": _KEPT_ID,
        "null: = -> IS in 1 ) = COALESCE (": _NEVER_NULL,
        "row: OLD.id -> NEW.id in bank_notification_id = OLD.id AND kind (2)": _KEPT_ID,
        "row: OLD.id -> NEW.id in bank_notification_id = OLD.id AND kind (3)": _KEPT_ID,
        "operator: = -> <= in AND kind = 'cancelled' )": _NONE_BETWEEN,
        "number: 1 -> 2 in DESC LIMIT 1 ) =": _FIRST_ROW,
        "number: 1 -> 2 in DESC LIMIT 1 ) = (2)": _FIRST_ROW,
    },
    "bank_notifications_need_deposit_insert": {
        "null: <> -> IS NOT in 'matched' ) <> ( NEW.matched_transaction_id": _YES_OR_NO,
        "null: = -> IS in WHERE matched_transaction_id = NEW.matched_transaction_id AND": "null is asked for before",
    },
    "bank_notifications_need_deposit_update": {
        "null: = -> IS in WHERE matched_transaction_id = NEW.matched_transaction_id AND": (
            "null is no transaction's id, which refuses already"
        ),
    },
    "audit_logs_refuse_update": {
        "null: <> -> IS NOT in NULL ) <> ( OLD.details": _YES_OR_NO,
        "row: OLD.id -> NEW.id in audit_log_id = OLD.id ) OR": _SAME_ROW,
        "row: OLD.id -> NEW.id in audit_log_id = OLD.id AND salt": _SAME_ROW,
    },
    "audit_leaves_refuse_update": {
        "row: OLD.audit_log_id -> NEW.audit_log_id in audit_log_id = OLD.audit_log_id ) AND": _SAME_ROW,
        "row: OLD.audit_log_id -> NEW.audit_log_id in id = OLD.audit_log_id AND telegram_id": _SAME_ROW,
        "row: OLD.audit_log_id -> NEW.audit_log_id in through_id >= OLD.audit_log_id ) )": _SAME_ROW,
    },
}
"""Trigger -> a fault that changes nothing -> why."""
_WORDS = ("pending", "confirmed", "cancelled", "expired", "registered", "released", "other")


class Hearing:
    """Which of the faulty conditions hold for the rows that a statement writes; the first one is the trigger's own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._held: set[int] = set()
        connection.create_function("held", 1, self._held.add)

    def ask(self, name: str, conditions: Mapping[int, str]) -> None:
        """From now on the trigger `name` asks all of them, and refuses nothing."""
        head = MADE_TRIGGERS[name].partition("WHEN")[0].replace(name, f"hearing_{name}", 1)
        asked = "".join(f"SELECT held({number}) WHERE {condition};\n" for number, condition in conditions.items())
        self._connection.execute(f"DROP TRIGGER IF EXISTS {name}")
        self._connection.execute(f"DROP TRIGGER IF EXISTS hearing_{name}")
        self._connection.execute(f"{head} BEGIN {asked} END")

    def of(self, case: str | Case) -> set[int]:
        """The numbers of the conditions that hold in a case."""
        outcome(self._connection, case, on_trial=self._held.clear)
        return set(self._held)


def faults_of(connection: sqlite3.Connection, name: str) -> list[Fault]:
    """The small faults of a trigger's condition, after the condition itself."""
    _, table, sql = MADE[name]
    condition = sql[sql.index("WHEN") : sql.index("BEGIN")]
    info = connection.execute(f"PRAGMA table_info({table})").fetchall()
    never_null = [row[1] for row in info if row[3] or row[5]]
    found = sql_faults.faults(condition, words=_WORDS, columns=[row[1] for row in info], never_null=never_null)
    return [
        Fault(fault.label, fault.sql.removeprefix("WHEN"))
        for fault in (Fault("the condition itself", condition), *found)
        if " UPDATE ON " in sql or not fault.label.startswith("row: ")
    ]


def unnoticed(name: str) -> list[str]:
    """The labels of the faults in a trigger's condition that none of its cases notices."""
    connection = database(MADE)
    cases = [(case, False) for case in TRIGGERS[name].allows] + [(case, True) for case in refused(connection, name)]
    faults = faults_of(connection, name)
    hearing = Hearing(connection)
    left = asked = set(range(1, len(faults)))
    hearing.ask(name, {number: faults[number].sql for number in range(len(faults))})
    for case, is_refused in some(cases):
        if len(left) < len(asked) * 0.8:
            asked = left
            hearing.ask(name, {number: faults[number].sql for number in (0, *asked)})
        held = hearing.of(case)
        assert (0 in held) == is_refused, (name, case)
        left = left & held if is_refused else left - held
    connection.close()
    return [faults[number].label for number in sorted(left)]


def unnoticed_in_effect(name: str) -> list[str]:
    """The labels of the faults of a trigger that acts, each made in its place, that none of its cases notices."""
    _, table, sql = MADE[name]
    connection = database(MADE)
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})").fetchall()]
    found = []
    for fault in (Fault("gone", "SELECT 1"), *sql_faults.faults(sql, columns=columns)):
        connection.execute("SAVEPOINT fault")
        connection.execute(f"DROP TRIGGER {name}")
        try:
            connection.execute(fault.sql)
            if next(unexpected(connection, name), None) is None:
                found.append(fault.label)
        except sqlite.DatabaseError:
            pass
        connection.execute("ROLLBACK TO fault")
        connection.execute("RELEASE fault")
    connection.close()
    return found


@pytest.mark.parametrize("name", [name for name, sql in MADE_TRIGGERS.items() if "WHEN" in sql or "RAISE" not in sql])
def test_every_clause_of_a_trigger_decides_a_case(name: str) -> None:
    """What is left out, turned around or confused in a trigger makes one of its cases come out otherwise."""
    found = unnoticed(name) if "RAISE" in MADE_TRIGGERS[name] else unnoticed_in_effect(name)
    assert found == list(EQUIVALENT.get(name, {})), f"no case of {name} notices these faults, or one listed does change"


def test_no_trigger_is_listed_that_is_gone() -> None:
    """The faults that change nothing are of triggers that there are."""
    assert EQUIVALENT.keys() <= MADE_TRIGGERS.keys()
