"""What each migration and rollback makes of the rows that are there, said by hand, row by row.

A story is a row of steps on an empty database. A step is SQL, `up 3` or `down 3` for a whole file, or `up 1 until …`
for the statements before the first one with these words. A story says which rows each query then gives, or the message
that a file stops with. The same stories are told with files that have one small fault in a statement, and one of them
then ends otherwise.
"""

import functools
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from msgspec import Struct

from service import resources
from service.storage import migrator, sqlite
from tests.migrations import sql_faults

Files = Mapping[str, Sequence[str]]
"""`up 3` -> the statements of the file."""


class Story(Struct, frozen=True):
    """`steps`: SQL with semicolons between, or files. `then`: query -> rows. `stops`: the message that ends it."""

    steps: Sequence[str]
    then: Mapping[str, list[tuple[Any, ...]]] = {}
    stops: str = ""


def _up(first: int, last: int) -> list[str]:
    return [f"up {version}" for version in range(first, last + 1)]


def _files() -> Files:
    found: dict[str, list[str]] = {}
    for migration in migrator.load(resources.folder("migrations")):
        found[f"up {migration.version}"] = list(migrator.statements(migration.up))
        if migration.down:
            found[f"down {migration.version}"] = list(migrator.statements(migration.down))
    return found


FILES = _files()
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
_RULE_2 = "INSERT INTO audit_leaves (leaf_index, audit_log_id, hash, rule) VALUES (4, 15, zeroblob(32), 2)"

_BOTS_OF_001 = f"""
INSERT INTO users (id, telegram_id) VALUES (1, 't1'), (2, 't2'), (3, 't3'), (4, 't4');
INSERT INTO user_deposits (id, user_id, balance, created_at) VALUES (11, 1, 100, 'a'), (12, 2, -5, 'b'),
  (13, 3, 0, NULL), (14, 777, -7, 'c'), (15, 4, 1, 'd'), (19, 778, 1, 'x');
DELETE FROM user_deposits WHERE id = 19;
INSERT INTO deposit_transactions
  (id, user_id, type, amount, status, depositor_name, description, confirmed_at, created_at) VALUES
  (12, 2, 'deposit', 5, 'confirmed', '{"가" * 51}', 'd', 'e', 'f'),
  (13, 3, 'deposit', 6, 'pending', '{"나" * 50}', NULL, NULL, 'f'), (14, 4, 'gift', 7, 'other', NULL, NULL, NULL, 'f'),
  (15, 1, 'deposit', 8, 'pending', '{"다" * 60}', NULL, NULL, NULL), (29, 1, 'x', 9, 'x', 'x', 'x', 'x', 'x');
DELETE FROM deposit_transactions WHERE id = 29;
INSERT INTO bank_notifications (id, amount, matched_transaction_id) VALUES (31, 5, 12), (32, 6, NULL), (33, 7, 13);
CREATE INDEX mine ON users(username)
"""
_OTHER_LONG_NAME = "라" * 55
_TRIGGER_OF_THE_BOT = "CREATE TRIGGER mine_too AFTER INSERT ON users BEGIN SELECT 1; END"
_AT_001 = ("up 0", _BOTS_OF_001, _TRIGGER_OF_THE_BOT)
_ACCOUNTS = "SELECT id, user_id, balance, created_at FROM user_deposits ORDER BY id"
_TRANSACTIONS = (
    "SELECT id, user_id, type, amount, status, depositor_name, description, confirmed_at, created_at"
    " FROM deposit_transactions ORDER BY id"
)
_LINKS = "SELECT id, matched_transaction_id FROM bank_notifications ORDER BY id"
_IDS = "SELECT name, seq FROM sqlite_sequence WHERE name IN ('user_deposits', 'deposit_transactions') ORDER BY name"
_NOTES = (
    "SELECT action, resource_type, resource_id, user_id, telegram_id, details FROM audit_logs"
    " WHERE action LIKE 'migration%' AND details IS NOT NULL ORDER BY id"
)
_TABLES = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
_REJECTED, _CUT, _OLDER = (
    "migration_balance_rejected", "migration_depositor_name_truncated", "migration_account_superseded",
)  # fmt: skip


def _account_note(
    action: str, row: int, user: int, telegram: str | None, balance: int, created: str
) -> tuple[Any, ...]:
    details = f'{{"id":{row},"user_id":{user},"balance":{balance},"created_at":{created}}}'
    return action, "user_deposits", row, user, telegram, details


def _name_note(row: int, user: int, telegram: str, name: str) -> tuple[Any, ...]:
    details = f'{{"depositor_name":"{name}","new_depositor_name":"{name[:50]}"}}'
    return _CUT, "deposit_transaction", row, user, telegram, details


_KEPT_ACCOUNTS = [(11, 1, 100, "a"), (13, 3, 0, None), (15, 4, 1, "d")]
_KEPT_TRANSACTIONS = [
    (12, 2, "deposit", 5, "confirmed", "가" * 50, "d", "e", "f"),
    (13, 3, "deposit", 6, "pending", "나" * 50, None, None, "f"),
    (14, 4, "gift", 7, "other", None, None, None, "f"),
    (15, 1, "deposit", 8, "pending", "다" * 50, None, None, None),
]
_NOTES_OF_ACCOUNTS = [
    _account_note(_REJECTED, 12, 2, "t2", -5, '"b"'), _account_note(_REJECTED, 14, 777, None, -7, '"c"'),
]  # fmt: skip
_NOTES_OF_NAMES = [_name_note(12, 2, "t2", "가" * 51), _name_note(15, 1, "t1", "다" * 60)]
_UP_001: dict[str, list[tuple[Any, ...]]] = {
    _ACCOUNTS: _KEPT_ACCOUNTS,
    _TRANSACTIONS: _KEPT_TRANSACTIONS,
    _LINKS: [(31, 12), (32, None), (33, 13)],
    _IDS: [("deposit_transactions", 29), ("user_deposits", 19)],
    _NOTES: _NOTES_OF_ACCOUNTS + _NOTES_OF_NAMES,
    _TABLES: [(6,)],
}
_DOWN_001: dict[str, list[tuple[Any, ...]]] = {
    _ACCOUNTS: [
        (11, 1, 100, "a"), (12, 2, -5, "b"), (13, 3, 0, None), (14, 777, -7, "c"), (15, 4, 1, "d"),
    ],
    _TRANSACTIONS: [
        (*_KEPT_TRANSACTIONS[0][:5], "가" * 51, *_KEPT_TRANSACTIONS[0][6:]), *_KEPT_TRANSACTIONS[1:3],
        (*_KEPT_TRANSACTIONS[3][:5], "다" * 60, *_KEPT_TRANSACTIONS[3][6:]),
    ],
    _LINKS: [(31, 12), (32, None), (33, 13)],
    _IDS: [("deposit_transactions", 29), ("user_deposits", 19)],
    _TABLES: [(5,)],
}  # fmt: skip
_MORE_COLUMNS = "ALTER TABLE user_deposits ADD COLUMN mine TEXT; ALTER TABLE deposit_transactions ADD COLUMN mine TEXT"
_SUPERSEDED = (
    "DELETE FROM user_deposits WHERE id IN (12, 13); INSERT INTO user_deposits (id, user_id, balance, created_at)"
    " VALUES (22, 2, 8, 'n'), (23, 3, 0, 'n')"
)
_BEFORE_ACCOUNTS_GO, _BEFORE_TRANSACTIONS_GO = (
    "{} until DROP TABLE user_deposits;", "{} until DROP TABLE deposit_transactions;",
)  # fmt: skip
_STRANGE_LOG = """
INSERT INTO audit_logs (action, resource_type, resource_id, details) VALUES
  ('migration_balance_rejected', 'other', 50, '{"user_id":50,"balance":5}'),
  ('other', 'user_deposits', 51, '{"user_id":51,"balance":5}'),
  ('a', 'user_deposits', 54, '{"user_id":54,"balance":5}'),
  ('migration_balance_rejected', 'user_deposits', 52, '{'),
  ('migration_balance_rejected', 'user_deposits', NULL, '{"user_id":53,"balance":5}'),
  ('migration_balance_rejected', 'user_deposits', 55, NULL),
  ('migration_depositor_name_truncated', 'other', 13, '{"depositor_name":"x","new_depositor_name":"' || '%s' || '"}'),
  ('other', 'deposit_transaction', 13, '{"depositor_name":"x","new_depositor_name":"' || '%s' || '"}'),
  ('a', 'deposit_transaction', 13, '{"depositor_name":"x","new_depositor_name":"' || '%s' || '"}')
""".replace("%s", "나" * 50)

STORIES = {
    "001 keeps all rows but negative balances and long names, which it notes whole": Story(
        [*_AT_001, "up 1"], _UP_001
    ),
    "001 done twice is as if done once": Story([*_AT_001, "up 1", "up 1"], _UP_001),
    "001 goes on where the accounts were dropped": Story(
        [*_AT_001, "up 1 until CREATE TABLE user_deposits (", "up 1"], _UP_001
    ),
    "001 goes on where the accounts were made anew": Story(
        [*_AT_001, "up 1 until INSERT INTO user_deposits (id", "up 1"], _UP_001
    ),
    "001 goes on where the transactions were made anew": Story(
        [*_AT_001, "up 1 until INSERT INTO deposit_transactions\n", "up 1"], _UP_001
    ),
    "001 goes on where the names were cut": Story(
        [*_AT_001, "up 1 until INSERT INTO migration_001_guard (transactions_lost)", "up 1"], _UP_001
    ),
    "001 goes on where all is noted in the log": Story(
        [*_AT_001, "up 1 until INSERT INTO migration_001_guard (audit_rows_lost)", "up 1"], _UP_001
    ),
    "001 notes all beside other rows of the log": Story(
        [
            *_AT_001, "up 1 until CREATE TABLE IF NOT EXISTS migration_001_audit",
            "INSERT INTO audit_logs (action, resource_id) VALUES ('a', 12), ('z', 12),"
            " ('migration_balance_rejected', 99), ('migration_balance_rejected', 3),"
            " ('migration_depositor_name_truncated', 3), ('migration_depositor_name_truncated', 99)",
            "up 1",
        ],
        _UP_001,
    ),
    "001 takes the accounts as the bot left them between two runs": Story(
        [
            *_AT_001, _BEFORE_ACCOUNTS_GO.format("up 1"),
            "UPDATE user_deposits SET balance = 150, created_at = 'z' WHERE id = 11;"
            " UPDATE user_deposits SET user_id = 778 WHERE id = 13;"
            " UPDATE user_deposits SET balance = 5 WHERE id = 12; DELETE FROM user_deposits WHERE id = 15;"
            " INSERT INTO user_deposits (id, user_id, balance, created_at) VALUES (20, 4, -3, 'n'), (25, 9, 9, 'n');"
            " DELETE FROM user_deposits WHERE id = 25",
            "up 1",
        ],
        {
            **_UP_001,
            _ACCOUNTS: [(11, 1, 150, "z"), (12, 2, 5, "b"), (13, 778, 0, None), (15, 4, 1, "d")],
            _IDS: [("deposit_transactions", 29), ("user_deposits", 25)],
            _NOTES: [
                _NOTES_OF_ACCOUNTS[1], _account_note(_REJECTED, 20, 4, "t4", -3, '"n"'), *_NOTES_OF_NAMES,
            ],
        },
    ),
    "001 keeps the newer account of a user and notes the older one": Story(
        [*_AT_001, _BEFORE_ACCOUNTS_GO.format("up 1"), _SUPERSEDED, "up 1"],
        {
            **_UP_001,
            _ACCOUNTS: [(11, 1, 100, "a"), (15, 4, 1, "d"), (22, 2, 8, "n"), (23, 3, 0, "n")],
            _IDS: [("deposit_transactions", 29), ("user_deposits", 23)],
            _NOTES: [
                _account_note(_OLDER, 13, 3, "t3", 0, "null"), *_NOTES_OF_ACCOUNTS, *_NOTES_OF_NAMES,
            ],
        },
    ),
    "001 takes the transactions as the bot left them between two runs": Story(
        [
            *_AT_001, _BEFORE_TRANSACTIONS_GO.format("up 1"),
            "UPDATE deposit_transactions SET depositor_name = 'short' WHERE id = 12;"
            f" UPDATE deposit_transactions SET depositor_name = '{_OTHER_LONG_NAME}' WHERE id = 15;"
            " UPDATE deposit_transactions SET user_id = 1, type = 'a', amount = 66, status = 'b', depositor_name = 'n',"
            " description = 'c', confirmed_at = 'd', created_at = 'e' WHERE id = 13;"
            " UPDATE bank_notifications SET matched_transaction_id = 13 WHERE id = 32;"
            " UPDATE bank_notifications SET matched_transaction_id = 14 WHERE id = 33",
            "up 1",
        ],
        {
            **_UP_001,
            _TRANSACTIONS: [
                (12, 2, "deposit", 5, "confirmed", "short", "d", "e", "f"), (13, 1, "a", 66, "b", "n", "c", "d", "e"),
                _KEPT_TRANSACTIONS[2], (15, 1, "deposit", 8, "pending", "라" * 50, None, None, None),
            ],
            _LINKS: [(31, 12), (32, 13), (33, 14)],
            _NOTES: [*_NOTES_OF_ACCOUNTS, _name_note(15, 1, "t1", _OTHER_LONG_NAME)],
        },
    ),
    "001 forgets the note of a name that was changed after the cut": Story(
        [
            *_AT_001, "up 1 until INSERT INTO migration_001_guard (transactions_lost)",
            "UPDATE deposit_transactions SET depositor_name = 'zzz' WHERE id = 15;"
            " UPDATE deposit_transactions SET depositor_name = 'aaa' WHERE id = 12",
            "up 1",
        ],
        {
            **_UP_001,
            _TRANSACTIONS: [
                (*_KEPT_TRANSACTIONS[0][:5], "aaa", *_KEPT_TRANSACTIONS[0][6:]), *_KEPT_TRANSACTIONS[1:3],
                (*_KEPT_TRANSACTIONS[3][:5], "zzz", *_KEPT_TRANSACTIONS[3][6:]),
            ],
            _NOTES: _NOTES_OF_ACCOUNTS,
        },
    ),
    "001 stops at columns that it does not know": Story([*_AT_001, _MORE_COLUMNS, "up 1"], stops="001 stopped"),
    "001 rolled back gives all of it back": Story([*_AT_001, "up 1", "down 1"], _DOWN_001),
    "001 rolled back, a log with strange rows gives nothing else": Story(
        [*_AT_001, "up 1", _STRANGE_LOG, "down 1"], _DOWN_001
    ),
    "001 rolled back goes on where the accounts were made anew": Story(
        [*_AT_001, "up 1", "down 1 until INSERT INTO user_deposits (id", "down 1"], _DOWN_001
    ),
    "001 rolled back goes on where the transactions were made anew": Story(
        [*_AT_001, "up 1", "down 1 until INSERT INTO deposit_transactions\n", "down 1"], _DOWN_001
    ),
    "001 rolled back goes on where the log is about to go": Story(
        [*_AT_001, "up 1", "down 1 until DROP TABLE audit_logs", "down 1"], _DOWN_001
    ),
    "001 rolled back goes on from a half-finished 001": Story(
        [*_AT_001, "up 1 until INSERT INTO audit_logs", "down 1"], _DOWN_001
    ),
    "001 rolled back takes the rows as the bot left them between two runs": Story(
        [
            *_AT_001, "up 1", _BEFORE_TRANSACTIONS_GO.format("down 1"),
            "UPDATE deposit_transactions SET user_id = 1, type = 'a', amount = 66, status = 'b', depositor_name = 'n',"
            " description = 'c', confirmed_at = 'd', created_at = 'e' WHERE id = 13;"
            " UPDATE bank_notifications SET matched_transaction_id = 13 WHERE id = 32;"
            " UPDATE bank_notifications SET matched_transaction_id = 14 WHERE id = 33;"
            " UPDATE user_deposits SET balance = 150, created_at = 'z' WHERE id = 11",
            "down 1",
        ],
        {
            **_DOWN_001,
            _ACCOUNTS: [(11, 1, 150, "z"), *_DOWN_001[_ACCOUNTS][1:]],
            _TRANSACTIONS: [
                _DOWN_001[_TRANSACTIONS][0], (13, 1, "a", 66, "b", "n", "c", "d", "e"), *_DOWN_001[_TRANSACTIONS][2:],
            ],
            _LINKS: [(31, 12), (32, 13), (33, 14)],
        },
    ),
    "001 rolled back keeps a newer account and a newer name": Story(
        [
            *_AT_001, "up 1",
            "INSERT INTO user_deposits (id, user_id, balance, created_at) VALUES (20, 2, 3, 'n');"
            " UPDATE deposit_transactions SET depositor_name = 'zzz' WHERE id = 12;"
            " UPDATE deposit_transactions SET depositor_name = 'aaa' WHERE id = 15",
            "down 1",
        ],
        {
            **_DOWN_001,
            _ACCOUNTS: [
                (11, 1, 100, "a"), (13, 3, 0, None), (14, 777, -7, "c"), (15, 4, 1, "d"), (20, 2, 3, "n"),
            ],
            _TRANSACTIONS: [
                (*_KEPT_TRANSACTIONS[0][:5], "zzz", *_KEPT_TRANSACTIONS[0][6:]), *_KEPT_TRANSACTIONS[1:3],
                (*_KEPT_TRANSACTIONS[3][:5], "aaa", *_KEPT_TRANSACTIONS[3][6:]),
            ],
            _IDS: [("deposit_transactions", 29), ("user_deposits", 20)],
        },
    ),
    "001 rolled back leaves an older account out": Story(
        [*_AT_001, _BEFORE_ACCOUNTS_GO.format("up 1"), _SUPERSEDED, "up 1", "down 1"],
        {
            _ACCOUNTS: [
                (11, 1, 100, "a"), (14, 777, -7, "c"), (15, 4, 1, "d"), (22, 2, 8, "n"), (23, 3, 0, "n"),
            ],
        },
    ),
    "001 rolled back puts an older account back where the newer one is gone": Story(
        [
            *_AT_001, _BEFORE_ACCOUNTS_GO.format("up 1"), _SUPERSEDED, "up 1",
            "DELETE FROM user_deposits WHERE id = 23", "down 1",
        ],
        {
            _ACCOUNTS: [
                (11, 1, 100, "a"), (13, 3, 0, None), (14, 777, -7, "c"), (15, 4, 1, "d"), (22, 2, 8, "n"),
            ],
            _IDS: [("deposit_transactions", 29), ("user_deposits", 23)],
        },
    ),
    "001 is not rolled back over columns that it does not know": Story(
        [*_AT_001, "up 1", _MORE_COLUMNS, "down 1"], stops="rollback 001 stopped: user_deposits or"
    ),
    "001 is not rolled back under a later column of the log": Story(
        [*_AT_001, "up 1", "ALTER TABLE audit_logs ADD COLUMN mine TEXT", "down 1"], stops="roll that one back first"
    ),
    "001 is not rolled back under a later trigger of the log": Story(
        [*_AT_001, "up 1", "CREATE TRIGGER of_log AFTER INSERT ON audit_logs BEGIN SELECT 1; END", "down 1"],
        stops="roll that one back first",
    ),
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
    "013 is rolled back where nothing was archived or erased": Story(
        [*_up(0, 13), _LEAVES, "down 13"], {"SELECT COUNT(*) FROM sqlite_master WHERE name LIKE '%guard'": [(0,)]}
    ),
    "013 is not rolled back where rows are archived": Story(
        [*_up(0, 13), _LEAVES, _PRUNES, "down 13"], stops="rollback 013 stopped: rows of audit_logs were archived"
    ),
    "013 is not rolled back where a user is erased": Story(
        [*_up(0, 13), _ERASURE, "down 13"], stops="rollback 013 stopped: personal data was erased"
    ),
}  # fmt: skip


def _statements(step: str, files: Files) -> Sequence[str]:
    file, _, words = step.partition(" until ")
    if file not in files:
        return [step] if step.startswith("CREATE TRIGGER") else step.split(";")
    if not words:
        return files[file]
    return files[file][: next(number for number, statement in enumerate(FILES[file]) if words in statement)]


def _run(connection: sqlite3.Connection, steps: Sequence[str], files: Files) -> None:
    for step in steps:
        for statement in _statements(step, files):
            connection.execute(statement)


@functools.cache
def _after(steps: tuple[str, ...]) -> sqlite3.Connection:
    """A database after these steps, to be copied."""
    connection: sqlite3.Connection = sqlite.driver.connect(":memory:", isolation_level=None)
    _run(connection, steps, FILES)
    return connection


def _wrong(story: Story, files: Files, *, since: int = 0) -> Iterator[str]:
    """A sentence for each thing that ends otherwise than the story says; `files` are told from step `since` on."""
    connection: sqlite3.Connection = sqlite.driver.connect(":memory:", isolation_level=None)
    _after(tuple(story.steps[:since])).backup(connection)
    try:
        try:
            _run(connection, story.steps[since:], files)
        except sqlite.DatabaseError as error:
            if not story.stops or story.stops not in str(error):
                yield f"it stops: {error}"
            return
        if story.stops:
            yield f"it does not stop with '{story.stops}'"
        for query, rows in story.then.items():
            if (found := connection.execute(query).fetchall()) != rows:
                yield f"[{query}] gives {found}, not {rows}"
    finally:
        connection.close()


@pytest.mark.parametrize("name", STORIES)
def test_rows_are_kept_as_said(name: str) -> None:
    """Each migration and rollback makes of the rows what its story says, and stops where it says so."""
    assert list(_wrong(STORIES[name], FILES)) == []


_MOVES_ROWS = re.compile(r"(?:--[^\n]*\n|\s)*(?:INSERT|UPDATE|DELETE|CREATE TABLE \w+_guard)")
_NEVER_NULL = "one side is never null"
_NONE_BETWEEN = "no other value is on that side"
_LATEST = "the row that was just inserted is the user's latest"
_NO_DIFFERENCE = "a row has a difference, or it is not there"
_BOTH_GIVEN = "both columns are given a value"
EQUIVALENT = {
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


def _faulty(step: str) -> Iterator[tuple[str, Files]]:
    """Label and files with one small fault in a statement of `step` that writes rows."""
    for number, statement in enumerate(FILES[step]):
        if _MOVES_ROWS.match(statement):
            for fault in sql_faults.faults(statement, words=("deposit", "refund")):
                changed = [*FILES[step][:number], fault.sql, *FILES[step][number + 1 :]]
                yield fault.label, {**FILES, step: changed}


def _first(story: Story, step: str) -> int:
    """The number of the story's first step that tells the file `step`, or a part of it."""
    return next(number for number, told in enumerate(story.steps) if told.startswith(step))


def _unnoticed(step: str) -> list[str]:
    """The labels of the faults of a file with which all its stories end as they are told."""
    version = f"{int(step.split()[1]):03d}"
    told: dict[tuple[str, ...], dict[str, list[tuple[Any, ...]]]] = {}
    stops: dict[tuple[str, ...], str] = {}
    for name, story in STORIES.items():
        if name.startswith(version) and any(told_step.startswith(step) for told_step in story.steps):
            told.setdefault(tuple(story.steps), {}).update(story.then)
            stops[tuple(story.steps)] = story.stops
    stories = [Story(steps, then, stops[steps]) for steps, then in told.items()]
    return [
        label
        for label, files in _faulty(step)
        if not any(next(_wrong(story, files, since=_first(story, step)), None) for story in stories)
    ]


def test_every_file_that_moves_rows_is_asked_about() -> None:
    """A migration that writes rows has stories; 001 and its rollback have test_001.py."""
    moving = {step for step, statements in FILES.items() if any(map(_MOVES_ROWS.match, statements))}
    assert moving - {"up 1", "down 1"} == set(_ASKED)


_ASKED = ("up 3", "down 3", "up 9", "up 12", "down 13", "up 14", "down 14")


@pytest.mark.parametrize("step", _ASKED)
def test_every_clause_that_moves_rows_decides_a_story(step: str) -> None:
    """What is left out or confused in a statement makes one of the file's stories end otherwise."""
    assert _unnoticed(step) == list(EQUIVALENT.get(step, {})), f"no story notices these faults of {step}"
