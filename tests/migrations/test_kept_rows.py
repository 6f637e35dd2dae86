"""What each migration and rollback makes of the rows that are there, said by hand, row by row.

The same stories are told with files that have one small fault in a statement, and one of them then ends otherwise.
"""

from collections.abc import Sequence

import pytest

from tests.migrations import stories_of_001
from tests.migrations.stories import EVERY_FAULT, FILES, MOVES_ROWS, Story, labels, unnoticed, wrong


def _up(first: int, last: int) -> list[str]:
    return [f"up {version}" for version in range(first, last + 1)]


_DEBIT_WORDS = (
    *("withdrawal", "withdraw", "debit", "purchase", "domain_purchase", "domain", "payment", "spend", "fee"),
    "opening_debit",
)
_OTHER_WORDS = ("deposit", "refund", "topup", "opening_credit", "Withdrawal", "other")


def _rows_of(first: int, words: Sequence[str], status: str) -> str:
    """A transaction of 1, 2, 4, … won of user 1 for each word."""
    return ", ".join(
        f"({first + n}, 1, '{word}', {2**n}, '{status}', 'k', 'w', 'x', 'y')" for n, word in enumerate(words)
    )


_BOTS = f"""
INSERT INTO users (id, telegram_id) VALUES (1, 't1'), (2, 't2'), (3, 't3'), (4, 't4'), (5, 't5'), (6, 't6'), (7, 't7');
INSERT INTO user_deposits (id, user_id, balance, created_at) VALUES (11, 1, 1000, 'a'), (12, 2, 40, 'b'),
  (13, 3, 0, 'c'), (14, 777, 9, 'd'), (15, 7, 5, 'f'), (16, 6, 30, 'e'), (17, 779, 0, NULL);
INSERT INTO deposit_transactions (id, user_id, type, amount, status, depositor_name, description, confirmed_at,
  created_at) VALUES
  {_rows_of(100, _DEBIT_WORDS, "confirmed")},
  {_rows_of(200, _OTHER_WORDS, "pending")},
  (300, 1, 'deposit', 1500, 'confirmed', NULL, NULL, NULL, 'y'),
  (301, 2, 'opening_debit', 10, 'confirmed', NULL, NULL, NULL, 'y'),
  (302, 2, 'deposit', 90, 'confirmed', NULL, NULL, NULL, 'y'),
  (303, 3, 'deposit', 70, 'cancelled', NULL, NULL, NULL, 'y'),
  (304, 4, 'withdrawal', 50, 'confirmed', NULL, NULL, NULL, 'y'),
  (305, 6, 'deposit', 31, 'confirmed', NULL, NULL, NULL, 'y'),
  (306, 6, 'refund', -1, 'confirmed', 'n', 'd', 'c', 'y'),
  (307, 5, 'debit', 0, 'pending', NULL, NULL, NULL, 'y'),
  (308, 5, 'withdrawal', -7, 'pending', NULL, NULL, NULL, 'y'),
  (309, 5, 'deposit', -8, 'pending', NULL, NULL, NULL, 'y'),
  (310, 5, 'deposit', 5, 'pending', NULL, NULL, NULL, 'y'),
  (311, 1, 'opening_credit', 20, 'confirmed', NULL, NULL, NULL, 'y'),
  (312, 5, 'deposit', 6, 'pending', NULL, NULL, NULL, 'y'),
  (50, 5, 'deposit', 0, 'pending', NULL, NULL, NULL, 'y');
INSERT INTO audit_logs (id, action, resource_type, resource_id) VALUES
  (1, 'migration_amount_made_positive', 'other', 308), (2, 'other', 'deposit_transaction', 308),
  (3, 'migration_amount_made_positive', 'deposit_transaction', 309),
  (4, 'migration_amount_made_positive', 'other', 310), (5, 'other', 'deposit_transaction', 312),
  (6, 'a', 'deposit_transaction', 300), (7, 'migration_amount_made_positive', 'a', 300),
  (8, 'a', 'deposit_transaction', 306), (9, 'migration_amount_made_positive', 'a', 306),
  (10, 'migration_amount_made_positive', 'deposit_transaction', 299);
"""
_NOW = "GLOB '20??-??-?? ??:??:??'"
_OPENING = "The balance taken over differs from the history taken over."
_AT_3 = [*_up(0, 2), _BOTS, "up 3"]
_AMOUNTS = (
    "SELECT id, amount FROM deposit_transactions WHERE id IN (100, 300, 306, 307, 308, 309, 310, 312) ORDER BY id"
)
_LEAVES = """
INSERT INTO audit_logs (id, action) VALUES (11, 'a'), (12, 'a'), (13, 'a'), (14, 'a');
INSERT INTO audit_leaves (leaf_index, audit_log_id, hash) VALUES (0, 11, zeroblob(32)), (1, 12, zeroblob(32)),
  (2, 13, zeroblob(32)), (3, 14, zeroblob(32));
INSERT INTO audit_nodes VALUES (8, 0, zeroblob(32), 11, 14, NULL, NULL);
UPDATE audit_tree SET size = 4, last_id = 14, last_hash = x'{hash}', frontier = x'{hash}';
""".format(hash="ab" * 32)
_PRUNES = """
INSERT INTO audit_prunes VALUES (11, 0, 1, zeroblob(32), NULL, NULL, 'a', zeroblob(32), 'x', 'x');
INSERT INTO audit_prunes VALUES (13, 1, 3, zeroblob(32), NULL, NULL, 'a', zeroblob(32), 'x', 'x');
"""
_ERASURE = "INSERT INTO users (id, telegram_id) VALUES (1, 't'); INSERT INTO user_erasures VALUES (1, 'x', 'x', NULL)"
_RULES = "SELECT audit_log_id, rule FROM audit_leaves ORDER BY 1"
_TREE = {
    "SELECT audit_log_id FROM audit_leaves ORDER BY 1": [(11,), (12,), (13,), (14,)],
    "SELECT first_id, last_id FROM audit_nodes": [(11, 14)],
    "SELECT id, size, last_id, hex(last_hash), hex(frontier) FROM audit_tree": [(1, 4, 14, "AB" * 32, "AB" * 32)],
}
_NO_TREE = {
    "SELECT COUNT(*) FROM audit_leaves": [(0,)],
    "SELECT COUNT(*) FROM audit_nodes": [(0,)],
    "SELECT id, size, last_id, hex(last_hash), hex(frontier) FROM audit_tree": [(1, 0, 0, "00" * 32, "")],
}
_NAMES = """
INSERT INTO users (id, telegram_id) VALUES (1, 't');
INSERT INTO deposit_transactions (id, user_id, type, direction, amount, depositor_name, match_name) VALUES
  (21, 1, 'deposit', 'credit', 5, '{deposit}', {match_name}), (22, 1, 'deposit', 'credit', 5, 'Kim 한빛~', 'kim한빛~');
INSERT INTO bank_notifications (id, amount, depositor_name, match_name) VALUES
  (31, 5, '{line}', {match_name}), (32, 5, 'Kim 한빛~', 'kim한빛~');
"""
_FOLDED_ANEW = "UPDATE name_folding SET rule = 2"
_NO_FOLDING = {"SELECT COUNT(*) FROM sqlite_master WHERE name LIKE '%fold%' OR name LIKE '%guard'": [(0,)]}
_RULE_2 = "INSERT INTO audit_leaves (leaf_index, audit_log_id, hash, rule) VALUES (4, 15, zeroblob(32), 2)"
_RULE_3 = _RULE_2.replace(", 2)", ", 3)")

STORIES = {
    **stories_of_001.STORIES,
    "003 gives every row a direction and every amount its sign": Story(
        _AT_3,
        {
            "SELECT type FROM deposit_transactions WHERE direction = 'debit' AND id BETWEEN 100 AND 299 ORDER BY id": [
                (word,) for word in _DEBIT_WORDS
            ],
            "SELECT type FROM deposit_transactions WHERE direction = 'credit' AND id BETWEEN 100 AND 299 ORDER BY id": [
                (word,) for word in _OTHER_WORDS
            ],
            "SELECT id, amount, direction FROM deposit_transactions WHERE id BETWEEN 300 AND 312 OR id < 100"
            " ORDER BY id": [
                (50, 0, "credit"),
                (300, 1500, "credit"), (301, 10, "debit"), (302, 90, "credit"), (303, 70, "credit"), (304, 50, "debit"),
                (305, 31, "credit"), (306, 1, "debit"), (307, 0, "debit"), (308, 7, "debit"), (309, 8, "debit"),
                (310, 5, "credit"), (311, 20, "credit"), (312, 6, "credit"),
            ],
            "SELECT COUNT(*) FROM deposit_transactions WHERE balance_before IS NOT NULL OR balance_after IS NOT NULL"
            " OR version IS NOT NULL OR reference IS NOT NULL": [(0,)],
        },
    ),
    "003 logs each amount that it makes positive, whole and once": Story(
        _AT_3,
        {
            "SELECT user_id, telegram_id, resource_type, resource_id, details FROM audit_logs"
            " WHERE action = 'migration_amount_made_positive' AND id > 10 ORDER BY id": [
                (
                    6, "t6", "deposit_transaction", 306,
                    '{"id":306,"user_id":6,"type":"refund","amount":-1,"status":"confirmed","depositor_name":"n",'
                    '"description":"d","confirmed_at":"c","created_at":"y"}',
                ),
                (
                    5, "t5", "deposit_transaction", 308,
                    '{"id":308,"user_id":5,"type":"withdrawal","amount":-7,"status":"pending","depositor_name":null,'
                    '"description":null,"confirmed_at":null,"created_at":"y"}',
                ),
            ],
        },
    ),
    "003 keeps an account without a user in the log, and gives every user one": Story(
        _AT_3,
        {
            "SELECT id, user_id, balance, version FROM user_deposits ORDER BY id": [
                (11, 1, 1000, 0), (12, 2, 40, 0), (13, 3, 0, 0), (15, 7, 5, 0), (16, 6, 30, 0), (18, 4, 0, 0),
                (19, 5, 0, 0),
            ],
            "SELECT user_id, telegram_id, resource_type, resource_id, details FROM audit_logs"
            " WHERE action = 'migration_orphan_account_removed' ORDER BY id": [
                (777, None, "user_deposits", 14, '{"id":14,"user_id":777,"balance":9,"created_at":"d"}'),
                (779, None, "user_deposits", 17, '{"id":17,"user_id":779,"balance":0,"created_at":null}'),
            ],
            f"SELECT id FROM user_deposits WHERE created_at {_NOW} ORDER BY id": [(18,), (19,)],
        },
    ),
    "003 states the difference between a balance and its history": Story(
        _AT_3,
        {
            "SELECT id, user_id, type, direction, amount, status, description FROM deposit_transactions WHERE id > 312"
            " ORDER BY id": [
                (313, 1, "opening_credit", "credit", 503, "confirmed", _OPENING),
                (314, 2, "opening_debit", "debit", 40, "confirmed", _OPENING),
                (315, 4, "opening_credit", "credit", 50, "confirmed", _OPENING),
                (316, 7, "opening_credit", "credit", 5, "confirmed", _OPENING),
            ],
            f"SELECT COUNT(*) FROM deposit_transactions WHERE id > 312 AND confirmed_at {_NOW} AND created_at {_NOW}": [
                (4,)
            ],
            "SELECT user_id, telegram_id, resource_type, resource_id, details FROM audit_logs"
            " WHERE action = 'opening_adjustment' ORDER BY id": [
                (
                    1, "t1", "deposit_transaction", 313,
                    '{"balance":1000,"history":497,"amount":503,"direction":"credit"}',
                ),
                (2, "t2", "deposit_transaction", 314, '{"balance":40,"history":80,"amount":40,"direction":"debit"}'),
                (4, "t4", "deposit_transaction", 315, '{"balance":0,"history":-50,"amount":50,"direction":"credit"}'),
                (7, "t7", "deposit_transaction", 316, '{"balance":5,"history":0,"amount":5,"direction":"credit"}'),
            ],
            "SELECT COUNT(*) FROM sqlite_master WHERE name = 'opening_differences'": [(0,)],
        },
    ),
    "003 rolled back, what was negative is so again and nothing else": Story(
        [*_AT_3, "down 3"],
        {_AMOUNTS: [(100, 1), (300, 1500), (306, -1), (307, 0), (308, -7), (309, -8), (310, 5), (312, 6)]},
    ),
    "003 rolled back and done again, the log says it once": Story(
        [*_AT_3, "down 3", "up 3"],
        {
            _AMOUNTS: [(100, 1), (300, 1500), (306, 1), (307, 0), (308, 7), (309, 8), (310, 5), (312, 6)],
            "SELECT COUNT(*) FROM audit_logs WHERE action = 'migration_amount_made_positive' AND id > 10": [(2,)],
            "SELECT COUNT(*) FROM audit_logs WHERE action = 'opening_adjustment'": [(4,)],
        },
    ),
    "009 calls matched what the bot had matched": Story(
        [
            *_up(0, 8),
            "INSERT INTO users (id, telegram_id) VALUES (1, 't1');"
            " INSERT INTO deposit_transactions (id, user_id, type, amount) VALUES (21, 1, 'deposit', 5);"
            " INSERT INTO bank_notifications (id, amount, matched_transaction_id) VALUES (31, 5, 21), (32, 5, NULL)",
            "up 9",
        ],
        {
            "SELECT id, status, match_method, matched_by, matched_at, bank_transaction_id, match_name"
            " FROM bank_notifications ORDER BY id": [
                (31, "matched", None, None, None, None, None), (32, "unmatched", None, None, None, None, None),
            ],
            "SELECT match_name FROM deposit_transactions": [(None,)],
        },
    ),
    "012 begins with an empty tree": Story(
        _up(0, 12),
        {"SELECT id, size, last_id, hex(last_hash), hex(frontier) FROM audit_tree": [(1, 0, 0, "00" * 32, "")]},
    ),
    "014 says of every leaf that it is of the first rule": Story(
        [*_up(0, 13), _LEAVES, "up 14"], {_RULES: [(11, 1), (12, 1), (13, 1), (14, 1)]}
    ),
    "014 takes the rule from the leaves of rows that are archived and gone": Story(
        [*_up(0, 13), _LEAVES, _PRUNES, "DELETE FROM audit_logs WHERE id <= 13", "up 14"],
        {_RULES: [(11, None), (12, None), (13, None), (14, 1)]},
    ),
    "014 keeps the rule of rows that are archived and still there": Story(
        [*_up(0, 13), _LEAVES, _PRUNES, "DELETE FROM audit_logs WHERE id = 11", "up 14"],
        {_RULES: [(11, None), (12, 1), (13, 1), (14, 1)]},
    ),
    "014 on a log of which every row is gone": Story(
        [
            *_up(0, 13), _LEAVES, _PRUNES, "DROP TRIGGER audit_logs_refuse_delete; DELETE FROM audit_logs", "up 14",
        ],
        {_RULES: [(11, None), (12, None), (13, None), (14, 1)]},
    ),
    "014 rolled back keeps a tree of the first rule": Story([*_up(0, 14), _LEAVES, "down 14"], _TREE),
    "014 rolled back keeps it also where rows were archived": Story([*_up(0, 14), _LEAVES, _PRUNES, "down 14"], _TREE),
    "014 rolled back keeps it also where a user was erased": Story([*_up(0, 14), _LEAVES, _ERASURE, "down 14"], _TREE),
    "014 rolled back forgets a tree of a later rule": Story([*_up(0, 14), _LEAVES, _RULE_2, "down 14"], _NO_TREE),
    "014 is not rolled back where rows are archived and others of a later rule": Story(
        [*_up(0, 14), _LEAVES, _RULE_2, _PRUNES, "down 14"], stops="rollback 014 stopped: rows were archived or erased"
    ),
    "014 is not rolled back where a user is erased and rows are of a later rule": Story(
        [*_up(0, 14), _LEAVES, _RULE_2, _ERASURE, "down 14"], stops="rollback 014 stopped: rows were archived or erased"
    ),
    "018 rolled back keeps a tree of the rules of before": Story(
        [*_up(0, 18), _LEAVES, _RULE_2, _PRUNES, "down 18"],
        {**_TREE, "SELECT audit_log_id FROM audit_leaves ORDER BY 1": [(number,) for number in range(11, 16)]},
    ),
    "018 rolled back forgets a tree of a later rule": Story(
        [*_up(0, 18), _LEAVES, _RULE_3, "down 18"], _NO_TREE
    ),
    "018 is not rolled back where rows are archived and others of a later rule": Story(
        [*_up(0, 18), _LEAVES, _RULE_3, _PRUNES, "down 18"],
        stops="rollback 018 stopped: rows were archived or erased",
    ),
    "018 is not rolled back where a user is erased and rows are of a later rule": Story(
        [*_up(0, 18), _LEAVES, _RULE_3, _ERASURE, "down 18"],
        stops="rollback 018 stopped: rows were archived or erased",
    ),
    "016 says that names are folded by the first rule": Story(
        [*_up(0, 15), _NAMES.format(deposit="㈜", line="㈜", match_name="'㈜'"), "up 16"],
        {
            "SELECT id, rule FROM name_folding": [(1, 1)],
            "SELECT match_name FROM deposit_transactions UNION SELECT match_name FROM bank_notifications": [
                ("kim한빛~",), ("㈜",),
            ],
        },
    ),
    "016 is rolled back where no name was folded anew": Story(
        [*_up(0, 16), _NAMES.format(deposit="㈜", line="㈜", match_name="'㈜'"), "down 16"], _NO_FOLDING
    ),
    "016 is rolled back where every rule folds the names alike": Story(
        [*_up(0, 16), _NAMES.format(deposit="a 가", line="힣 z", match_name="'x'"), _FOLDED_ANEW, "down 16"],
        _NO_FOLDING,
    ),
    "016 is rolled back where the names are the rows of the bot": Story(
        [*_up(0, 16), _NAMES.format(deposit="㈜", line="㈜", match_name="NULL"), _FOLDED_ANEW, "down 16"], _NO_FOLDING
    ),
    "016 is not rolled back by SQL where the name of a deposit may be folded otherwise": Story(
        [*_up(0, 16), _NAMES.format(deposit="a㈜b", line="a", match_name="'x'"), _FOLDED_ANEW, "down 16"],
        stops="rollback 016 stopped: names are folded by a rule",
    ),
    "016 is not rolled back by SQL where the name of a line may be folded otherwise": Story(
        [*_up(0, 16), _NAMES.format(deposit="a", line="a㈜b", match_name="'x'"), _FOLDED_ANEW, "down 16"],
        stops="rollback 016 stopped: names are folded by a rule",
    ),
    "013 is rolled back where nothing was archived or erased": Story(
        [*_up(0, 13), _LEAVES, "down 13"], {"SELECT COUNT(*) FROM sqlite_master WHERE name LIKE '%guard'": [(0,)]}
    ),
    "013 is not rolled back where rows are archived": Story(
        [*_up(0, 13), _LEAVES, _PRUNES, "down 13"], stops="rollback 013 stopped: rows of audit_logs were archived"
    ),
    "013 is not rolled back where an erasure is begun": Story(
        [*_up(0, 13), _ERASURE, "down 13"], stops="rollback 013 stopped: personal data was erased"
    ),
    "013 is not rolled back where a user is erased": Story(
        [*_up(0, 13), _ERASURE, "UPDATE user_erasures SET finished_at = 'y'", "down 13"],
        stops="rollback 013 stopped: personal data was erased",
    ),
    "013 is not rolled back where users are erased": Story(
        [*_up(0, 13), _ERASURE, "INSERT INTO users (id, telegram_id) VALUES (2, 'u')",
         "INSERT INTO user_erasures VALUES (2, 'x', 'x', 'y')", "down 13"],
        stops="rollback 013 stopped: personal data was erased",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STORIES)
def test_rows_are_kept_as_said(name: str) -> None:
    """Each migration and rollback makes of the rows what its story says, and stops where it says so."""
    assert list(wrong(STORIES[name])) == []


_NEVER_NULL = "one side is never null"
_NONE_BETWEEN = "no other value is on that side"
_LATEST = "the row that was just inserted is the user's latest"
_NO_DIFFERENCE = "a row has a difference, or it is not there"
_BOTH_GIVEN = "both columns are given a value"
EQUIVALENT = {
    **stories_of_001.EQUIVALENT,
    "up 3": {
        "always: amount >= 0 -> 1 in 'debit' WHERE amount >= 0 AND type": "the next statement says the same",
        "null: = -> IS in ON u.id = t.user_id WHERE": _NEVER_NULL,
        "null: = -> IS in AND resource_id = t.id )": _NEVER_NULL,
        "null: = -> IS in ON u.id = d.user_id LEFT": _NEVER_NULL,
        "operator: = -> <= in ( direction = 'credit' )": _NONE_BETWEEN,
        "operator: = -> >= in ( direction = 'debit' )": _NONE_BETWEEN,
        "null: = -> IS in ON h.user_id = d.user_id WHERE": _NEVER_NULL,
        "null: <> -> IS NOT in WHERE d.balance <> COALESCE (": _NEVER_NULL,
        "operator: > -> >= in ( balance > history ,": _NO_DIFFERENCE,
        "operator: > -> >= in ( balance > history , (2)": _NO_DIFFERENCE,
        "always: type IN ( 'opening_credit' , 'opening_debit' ) -> 1 in o.user_id AND type IN ( 'opening_credit' ,"
        " 'opening_debit' ) ) ORDER": _LATEST,
        "null: = -> IS in ON t.id = ( SELECT": _NEVER_NULL,
        "join: LEFT -> nothing in AS t LEFT JOIN users": "a transaction has its user",
        "operator: = -> <= in WHERE user_id = o.user_id AND": "they are inserted in the order of the users",
        "null: = -> IS in WHERE user_id = o.user_id AND": _NEVER_NULL,
        **{
            f"with {word}: 'opening_credit' , 'opening_debit' -> 'opening_credit' , 'opening_debit' , '{word}'"
            " in IN ( 'opening_credit' , 'opening_debit' ) )": _LATEST
            for word in ("deposit", "refund")
        },
    },
    "down 3": {
        "always: amount > 0 -> 1 in amount WHERE amount > 0 AND id": "003 leaves no negative amount",
        "operator: > -> >= in WHERE amount > 0 AND": "-0 is 0",
    },
    "up 14": {
        f"number: 9223372036854775807 -> {other} in ) , 9223372036854775807 ) FROM": "it is above every id"
        for other in (2**63, 2**63 - 2)
    },
    "down 14": {
        "operator: = -> <= in ( later = 0 OR": _NONE_BETWEEN,
        "operator: = -> <= in OR gone = 0 )": _NONE_BETWEEN,
    },
    "down 18": {
        "operator: = -> <= in ( later = 0 OR": _NONE_BETWEEN,
        "operator: = -> <= in OR gone = 0 )": _NONE_BETWEEN,
    },
    "down 16": {"operator: = -> <= in ( folded_otherwise = 0 )": _NONE_BETWEEN},
    "down 13": {
        "operator: = -> <= in ( prunes = 0 )": _NONE_BETWEEN,
        "operator: = -> <= in ( erasures = 0 )": _NONE_BETWEEN,
        'number: 0 -> 1 in NULL DEFAULT 0 CONSTRAINT "rollback 013 stopped: rows of audit_logs were archived; restore'
        ' the copy that was made before"': _BOTH_GIVEN,
        'number: 0 -> 1 in NULL DEFAULT 0 CONSTRAINT "rollback 013 stopped: personal data was erased; what is left is'
        ' proved by the records of 013 alone"': _BOTH_GIVEN,
    },
}
"""File -> a fault that changes nothing -> why."""


def _words(step: str) -> Sequence[str]:
    """What a list of texts of a file may wrongly hold, and a story has."""
    return ("mine",) if step in stories_of_001.EQUIVALENT else ("deposit", "refund")


_ASKED = (
    "up 1",
    "down 1",
    "up 3",
    "down 3",
    "up 9",
    "up 12",
    "down 13",
    "up 14",
    "down 14",
    "up 16",
    "down 16",
    "down 18",
)


def test_every_file_that_moves_rows_is_asked_about() -> None:
    """A migration or a rollback that writes rows has stories."""
    assert {step for step, statements in FILES.items() if any(map(MOVES_ROWS.match, statements))} == set(_ASKED)


@pytest.mark.parametrize("step", _ASKED)
@pytest.mark.long
def test_every_clause_that_moves_rows_decides_a_story(step: str) -> None:
    """What is left out or confused in a statement makes one of the file's stories end otherwise.

    The faults of 001 that change nothing, which every story must be told for, are tried by `make faults` alone.
    """
    listed = EQUIVALENT.get(step, {})
    known = listed if step in stories_of_001.EQUIVALENT and not EVERY_FAULT else {}
    assert listed.keys() <= set(labels(step, _words(step))), f"faults of {step} are listed that there are not"
    stories = [story for name, story in STORIES.items() if name.startswith(f"{int(step.split()[1]):03d}")]
    left = unnoticed(step, stories, _words(step), known)
    assert sorted(left) == sorted(listed.keys() - known.keys()), f"no story notices these faults of {step}"
