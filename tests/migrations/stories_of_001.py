"""What migration 001 and its rollback make of the bot's rows: undisturbed, stopped, and with the bot at work meanwhile.

001 and its rollback may be stopped after any statement and run again, by hand or by wrangler; test_001.py does that at
each of them. These stories stop at the places where a clause decides what is kept.
"""

from tests.migrations.stories import Rows, Story

_LONG, _LONGER, _OTHER_LONG = f"A{'가' * 50}", f"B{'다' * 59}", f"C{'라' * 54}"
_BOTS = f"""
INSERT INTO users (id, telegram_id) VALUES (1, 't1'), (2, 't2'), (3, 't3'), (4, 't4'), (900, 't900');
INSERT INTO user_deposits (id, user_id, balance, created_at) VALUES (11, 1, 100, 'a'), (12, 2, -5, 'b'),
  (13, 3, 0, NULL), (14, 777, -7, 'c'), (15, 4, 1, 'd'), (16, 779, 2, 'e'), (19, 778, 1, 'x');
DELETE FROM user_deposits WHERE id = 19;
INSERT INTO deposit_transactions
  (id, user_id, type, amount, status, depositor_name, description, confirmed_at, created_at) VALUES
  (12, 2, 'deposit', 5, 'confirmed', '{_LONG}', 'd', 'e', 'f'),
  (13, 3, 'deposit', 6, 'pending', '{"나" * 50}', NULL, NULL, 'f'), (14, 4, 'gift', 7, 'other', NULL, NULL, NULL, 'f'),
  (15, 1, 'deposit', 8, 'pending', '{_LONGER}', NULL, NULL, NULL), (29, 1, 'x', 9, 'x', 'x', 'x', 'x', 'x');
DELETE FROM deposit_transactions WHERE id = 29;
INSERT INTO bank_notifications (id, amount, matched_transaction_id) VALUES (31, 5, 12), (32, 6, NULL), (33, 7, 13);
CREATE INDEX of_users ON users(username);
CREATE TABLE a_table (x)
"""
_TRIGGERS_OF_THE_BOT = (
    "CREATE TRIGGER after_users AFTER INSERT ON users BEGIN SELECT 1; END",
    "CREATE TRIGGER after_a_table AFTER INSERT ON a_table BEGIN SELECT 1; END",
)
_AT = ("up 0", _BOTS, *_TRIGGERS_OF_THE_BOT)
_KEYS_ON = "PRAGMA foreign_keys = ON"
_ACCOUNTS = "SELECT id, user_id, balance, created_at FROM user_deposits ORDER BY id"
_TRANSACTIONS = (
    "SELECT id, user_id, type, amount, status, depositor_name, description, confirmed_at, created_at"
    " FROM deposit_transactions ORDER BY id"
)
_NOW = "created_at GLOB '20??-??-?? ??:??:??'"
_ACCOUNTS_OPENED = f"SELECT id, user_id, balance, {_NOW} FROM user_deposits WHERE id > 16"
_TRANSACTIONS_MADE = f"SELECT id, user_id, type, amount, status, {_NOW} FROM deposit_transactions WHERE id > 15"
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


def _account_note(action: str, row: int, user: int, telegram: str | None, balance: int, created: str) -> Rows:
    details = f'{{"id":{row},"user_id":{user},"balance":{balance},"created_at":{created}}}'
    return [(action, "user_deposits", row, user, telegram, details)]


def _name_note(row: int, user: int, telegram: str, name: str) -> Rows:
    details = f'{{"depositor_name":"{name}","new_depositor_name":"{name[:50]}"}}'
    return [(_CUT, "deposit_transaction", row, user, telegram, details)]


def _named(first: str, fourth: str, second: str = "나" * 50, third: str | None = None) -> Rows:
    """The four transactions with these names."""
    return [
        (12, 2, "deposit", 5, "confirmed", first, "d", "e", "f"),
        (13, 3, "deposit", 6, "pending", second, None, None, "f"),
        (14, 4, "gift", 7, "other", third, None, None, "f"),
        (15, 1, "deposit", 8, "pending", fourth, None, None, None),
    ]


def _without(rows: Rows, *ids: int) -> Rows:
    return [row for row in rows if row[0] not in ids]


_ALL_ACCOUNTS: Rows = [
    (11, 1, 100, "a"), (12, 2, -5, "b"), (13, 3, 0, None), (14, 777, -7, "c"), (15, 4, 1, "d"), (16, 779, 2, "e"),
]  # fmt: skip
_NOTE_12, _NOTE_14 = (
    _account_note(_REJECTED, 12, 2, "t2", -5, '"b"'), _account_note(_REJECTED, 14, 777, None, -7, '"c"'),
)  # fmt: skip
_NOTES_OF_NAMES = _name_note(12, 2, "t2", _LONG) + _name_note(15, 1, "t1", _LONGER)
_UP: dict[str, Rows] = {
    _ACCOUNTS: _without(_ALL_ACCOUNTS, 12, 14),
    _TRANSACTIONS: _named(_LONG[:50], _LONGER[:50]),
    _LINKS: [(31, 12), (32, None), (33, 13)],
    _IDS: [("deposit_transactions", 29), ("user_deposits", 19)],
    _NOTES: _NOTE_12 + _NOTE_14 + _NOTES_OF_NAMES,
    _TABLES: [(7,)],
}
_DOWN: dict[str, Rows] = {
    _ACCOUNTS: _ALL_ACCOUNTS,
    _TRANSACTIONS: _named(_LONG, _LONGER),
    _LINKS: [(31, 12), (32, None), (33, 13)],
    _IDS: [("deposit_transactions", 29), ("user_deposits", 19)],
    _TABLES: [(6,)],
}
_MORE_COLUMNS = tuple(
    f"ALTER TABLE {table} ADD COLUMN mine TEXT" for table in ("user_deposits", "deposit_transactions")
)
_SUPERSEDED = (
    "DELETE FROM user_deposits WHERE id IN (12, 13, 16); INSERT INTO user_deposits (id, user_id, balance, created_at)"
    " VALUES (22, 2, 8, 'n'), (23, 3, 0, 'n'), (24, 779, 3, 'n')"
)
_NEWER: Rows = [(22, 2, 8, "n"), (23, 3, 0, "n"), (24, 779, 3, "n")]
_BEFORE_ACCOUNTS_GO, _BEFORE_TRANSACTIONS_GO = (
    "{} until DROP TABLE user_deposits;", "{} until DROP TABLE deposit_transactions;",
)  # fmt: skip
_THE_BOT_CHANGES_13 = (
    "UPDATE deposit_transactions SET user_id = 1, type = 'a', amount = 66, status = 'b', depositor_name = 'n',"
    " description = 'c', confirmed_at = 'd', created_at = 'e' WHERE id = 13;"
    " UPDATE bank_notifications SET matched_transaction_id = 13 WHERE id = 32;"
    " UPDATE bank_notifications SET matched_transaction_id = 14 WHERE id = 33"
)
_CHANGED_13: Rows = [(13, 1, "a", 66, "b", "n", "c", "d", "e")]
_NO_LOG = "DROP TABLE migration_001_audit; DROP TABLE audit_logs"
_STRANGE_LOG = """
INSERT INTO audit_logs (id, action, resource_type, resource_id, details) VALUES
  (-1, 'migration_balance_rejected', 'other', 12, '{"user_id":50,"balance":5}'),
  (-2, 'migration_balance_rejected', 'zzz', 14, '{"user_id":50,"balance":5}'),
  (-3, 'migration_depositor_name_truncated', 'a', 12, '{"depositor_name":"x","new_depositor_name":"%s"}'),
  (-4, 'migration_depositor_name_truncated', 'zzz', 15, '{"depositor_name":"x","new_depositor_name":"%s"}');
INSERT INTO audit_logs (action, resource_type, resource_id, details) VALUES
  ('migration_balance_rejected', 'other', 50, '{"user_id":50,"balance":5}'),
  ('other', 'user_deposits', 51, '{"user_id":51,"balance":5}'),
  ('a', 'user_deposits', 54, '{"user_id":54,"balance":5}'),
  ('mine', 'user_deposits', 57, '{"user_id":57,"balance":5}'),
  ('migration_balance_rejected', 'user_deposits', 52, '{'),
  ('migration_balance_rejected', 'user_deposits', NULL, '{"user_id":53,"balance":5}'),
  ('migration_balance_rejected', 'user_deposits', 55, NULL),
  ('migration_balance_rejected', 'user_deposits', 12, '{"user_id":56,"balance":5}'),
  ('migration_depositor_name_truncated', 'other', 13, '{"depositor_name":"x","new_depositor_name":"%s"}'),
  ('other', 'deposit_transaction', 13, '{"depositor_name":"x","new_depositor_name":"%s"}'),
  ('a', 'deposit_transaction', 13, '{"depositor_name":"x","new_depositor_name":"%s"}')
""" % (_LONG[:50], _LONGER[:50], *["나" * 50] * 3)  # noqa: UP031
_ROWS_BESIDE = (
    "INSERT INTO audit_logs (action, resource_id) VALUES ('a', 12), ('z', 12),"
    " ('migration_balance_rejected', 99), ('migration_balance_rejected', 3),"
    " ('migration_depositor_name_truncated', 3), ('migration_depositor_name_truncated', 99)"
)


def _stopped_by(file: str, before: str, defect: str, message: str) -> Story:
    """A defect before the statement with the words `before`: the guard that comes next stops with `message`."""
    first = ["up 1"] if file == "down 1" else []
    return Story([*_AT, *first, f"{file} until {before}", defect, f"{file} from {before}"], stops=message)


def _guards(file: str) -> dict[str, Story]:
    """What both files stop at, each with a row that is lost, and others beside it that make no difference."""
    name = "001 rolled back" if file == "down 1" else "001"
    first = ["up 1"] if file == "down 1" else []
    return {
        **{
            f"{name} stops at a column of {table} that it does not know": Story(
                [*_AT, *first, *columns, file], stops="has columns that this file does not know"
            )
            for table, columns in (
                ("an account", _MORE_COLUMNS[:1]), ("a transaction", _MORE_COLUMNS[1:]), ("both", _MORE_COLUMNS),
            )
        },
        **{
            f"{name} stops at {made.partition(' ON')[0].lower()}": Story(
                [*_AT, *first, made, file], stops="has indexes or triggers that this file does not know"
            )
            for made in (
                "CREATE INDEX mine ON user_deposits(balance)",
                "CREATE TRIGGER mine AFTER INSERT ON deposit_transactions BEGIN SELECT 1; END",
            )
        },
        f"{name} stops where an account has no copy": _stopped_by(
            file, "INSERT INTO migration_001_guard (accounts_without_copy)",
            "DELETE FROM user_deposits_backup WHERE id = 11", "user_deposits_backup lacks rows",
        ),
        f"{name} stops where an account is lost": _stopped_by(
            file, "INSERT INTO migration_001_guard (accounts_lost)",
            "DELETE FROM user_deposits WHERE id = 11; INSERT INTO user_deposits (id, user_id) VALUES (90, 90);"
            " INSERT INTO migration_001_audit VALUES ('x', 'user_deposits', 91, 1, 'x', '{}'),"
            " ('x', 'deposit_transaction', 11, 1, 'x', '{}')",
            "rows of user_deposits_backup were",
        ),
        f"{name} stops where a transaction has no copy": _stopped_by(
            file, "INSERT INTO migration_001_guard (transactions_without_copy)",
            "DELETE FROM deposit_transactions_backup WHERE id = 13", "deposit_transactions_backup lacks rows",
        ),
        f"{name} stops where a transaction is lost": _stopped_by(
            file, "INSERT INTO migration_001_guard (transactions_lost)",
            "DELETE FROM deposit_transactions WHERE id = 13;"
            " INSERT INTO deposit_transactions (id, user_id, type, amount) VALUES (90, 1, 'x', 1)",
            "rows of deposit_transactions_backup were not restored",
        ),
        f"{name} stops where a link is lost": _stopped_by(
            file, "INSERT INTO migration_001_guard (matches_lost)",
            "UPDATE bank_notifications SET matched_transaction_id = NULL WHERE id = 31", "lost links",
        ),
    }  # fmt: skip


def _meanwhile(file: str) -> dict[str, Story]:
    """What holds for both files: links and ids, whatever the bot does between two statements or two runs."""
    name, undisturbed = ("001 rolled back", _DOWN) if file == "down 1" else ("001", _UP)
    first = ["up 1"] if file == "down 1" else []
    return {
        f"{name} minds no index of another table": Story(
            [*_AT, *first, "CREATE TABLE mine (x); CREATE INDEX of_mine ON mine(x)", file],
            {_ACCOUNTS: undisturbed[_ACCOUNTS]},
        ),
        f"{name} with foreign keys on is no different": Story([_KEYS_ON, *_AT, *first, file], undisturbed),
        f"{name} leaves a link alone that the bot ties between two statements": Story(
            [
                *_AT, *first, f"{file} until -- The links are tied again",
                "UPDATE bank_notifications SET matched_transaction_id = 14 WHERE id = 33",
                f"{file} from -- The links are tied again",
            ],
            {**undisturbed, _LINKS: [(31, 12), (32, None), (33, 14)]},
        ),
        f"{name} gives an account that is opened before the copy an id of its own": Story(
            [
                *_AT, *first, f"{file} until -- Step 4", f"{file} until CREATE TABLE IF NOT EXISTS user_deposits_b",
                "INSERT INTO user_deposits (user_id) VALUES (5)", file,
            ],
            {
                _ACCOUNTS_OPENED: [(20, 5, 0, 1)], _IDS: [("deposit_transactions", 29), ("user_deposits", 20)],
            },
        ),
        f"{name} gives a transaction that is made before the copy an id of its own": Story(
            [
                *_AT, *first, f"{file} until -- Step 8",
                f"{file} until CREATE TABLE IF NOT EXISTS deposit_transactions_b",
                "INSERT INTO deposit_transactions (user_id, type, amount) VALUES (1, 'n', 1)", file,
            ],
            {
                _TRANSACTIONS_MADE: [(30, 1, "n", 1, "pending", 1)],
                _IDS: [("deposit_transactions", 30), ("user_deposits", 19)],
            },
        ),
        f"{name} goes on where a high id is null": Story(
            [*_AT, *first, "UPDATE sqlite_sequence SET seq = NULL WHERE name = 'deposit_transactions'", file],
            {**undisturbed, _IDS: [("deposit_transactions", 15), ("user_deposits", 19)]},
        ),
    }  # fmt: skip


_STORIES_OF_UP: dict[str, Story] = {
    "001 keeps all rows but negative balances and long names, which it notes whole": Story([*_AT, "up 1"], _UP),
    "001 done twice is as if done once": Story([*_AT, "up 1", "up 1"], _UP),
    **{
        f"001 goes on from the remains: {words}": Story([*_AT, f"up 1 until {words}", "up 1"], _UP)
        for words in (
            "-- Step 4", "CREATE TABLE user_deposits (", "INSERT INTO user_deposits (id", "-- Step 8",
            "INSERT INTO deposit_transactions\n", "INSERT INTO migration_001_guard (transactions_lost)",
            "INSERT INTO migration_001_guard (audit_rows_lost)",
        )
    },
    "001 makes its notes again out of the copies": Story(
        [*_AT, "up 1 until INSERT INTO migration_001_guard (transactions_lost)", _NO_LOG, "up 1"], _UP
    ),
    "001 writes the log again out of its notes when the copies are gone": Story(
        [*_AT, "up 1 until DROP TABLE IF EXISTS migration_001_sequence", "DROP TABLE audit_logs", "up 1"], _UP
    ),
    "001 notes all beside other rows of the log": Story(
        [*_AT, "up 1 until CREATE TABLE IF NOT EXISTS migration_001_audit", _ROWS_BESIDE, "up 1"], _UP
    ),
    "001 stops where a row of the log is lost": _stopped_by(
        "up 1", "INSERT INTO migration_001_guard (audit_rows_lost)",
        f"DELETE FROM audit_logs WHERE action = 'migration_balance_rejected' AND resource_id = 12; {_ROWS_BESIDE}",
        "audit_logs lacks rows",
    ),
    "001 takes the accounts as the bot left them between two runs": Story(
        [
            *_AT, _BEFORE_ACCOUNTS_GO.format("up 1"),
            "UPDATE user_deposits SET balance = 150, created_at = 'z' WHERE id = 11;"
            " UPDATE user_deposits SET user_id = 778 WHERE id = 13;"
            " UPDATE user_deposits SET balance = 5 WHERE id = 12; DELETE FROM user_deposits WHERE id = 15;"
            " INSERT INTO user_deposits (id, user_id, balance, created_at) VALUES (20, 4, -3, 'n'), (25, 9, 9, 'n');"
            " DELETE FROM user_deposits WHERE id = 25",
            "up 1",
        ],
        {
            **_UP,
            _ACCOUNTS: [(11, 1, 150, "z"), (12, 2, 5, "b"), (13, 778, 0, None), (15, 4, 1, "d"), (16, 779, 2, "e")],
            _IDS: [("deposit_transactions", 29), ("user_deposits", 25)],
            _NOTES: [*_NOTE_14, *_account_note(_REJECTED, 20, 4, "t4", -3, '"n"'), *_NOTES_OF_NAMES],
        },
    ),
    "001 keeps the newer account of a user and notes the older one": Story(
        [*_AT, _BEFORE_ACCOUNTS_GO.format("up 1"), _SUPERSEDED, "up 1"],
        {
            **_UP,
            _ACCOUNTS: [(11, 1, 100, "a"), (15, 4, 1, "d"), *_NEWER],
            _IDS: [("deposit_transactions", 29), ("user_deposits", 24)],
            _NOTES: [
                *_account_note(_OLDER, 13, 3, "t3", 0, "null"), *_account_note(_OLDER, 16, 779, None, 2, '"e"'),
                *_NOTE_12, *_NOTE_14, *_NOTES_OF_NAMES,
            ],
        },
    ),
    "001 takes the transactions as the bot left them between two runs": Story(
        [
            *_AT, _BEFORE_TRANSACTIONS_GO.format("up 1"),
            "UPDATE deposit_transactions SET depositor_name = 'short' WHERE id = 12;"
            f" UPDATE deposit_transactions SET depositor_name = '{_OTHER_LONG}' WHERE id = 15; {_THE_BOT_CHANGES_13}",
            "up 1",
        ],
        {
            **_UP,
            _TRANSACTIONS: sorted(_without(_named("short", _OTHER_LONG[:50]), 13) + _CHANGED_13),
            _LINKS: [(31, 12), (32, 13), (33, 14)],
            _NOTES: [*_NOTE_12, *_NOTE_14, *_name_note(15, 1, "t1", _OTHER_LONG)],
        },
    ),
    "001 notes a long name anew that begins as the earlier one": Story(
        [
            *_AT, _BEFORE_TRANSACTIONS_GO.format("up 1"),
            f"UPDATE deposit_transactions SET depositor_name = '{_LONG}!' WHERE id = 12", "up 1",
        ],
        {**_UP, _NOTES: _NOTE_12 + _NOTE_14 + _name_note(12, 2, "t2", f"{_LONG}!") + _NOTES_OF_NAMES[1:]},
    ),
    "001 after a rollback that was broken off writes the log again out of its notes": Story(
        [*_AT, "up 1", "down 1 until -- Step 2", "DROP TABLE audit_logs", "up 1"], _UP
    ),
    "001 forgets the note of a name that was changed after the cut": Story(
        [
            *_AT, "up 1 until INSERT INTO migration_001_guard (transactions_lost)",
            "UPDATE deposit_transactions SET depositor_name = '힣' WHERE id = 15;"
            " UPDATE deposit_transactions SET depositor_name = '0' WHERE id = 12;"
            f" UPDATE deposit_transactions SET depositor_name = '{_LONGER[:50]}' WHERE id = 13;"
            f" UPDATE deposit_transactions SET depositor_name = '{_LONG[:50]}' WHERE id = 14",
            "up 1",
        ],
        {
            **_UP,
            _TRANSACTIONS: _named("0", "힣", _LONGER[:50], _LONG[:50]),
            _NOTES: _NOTE_12 + _NOTE_14,
        },
    ),
    **_guards("up 1"),
    **_meanwhile("up 1"),
}  # fmt: skip
_UNNOTED = (
    "DELETE FROM user_deposits WHERE id = 15;"
    " INSERT INTO user_deposits (id, user_id, balance, created_at) VALUES (22, 4, 8, 'n')"
)
_STORIES_OF_DOWN: dict[str, Story] = {
    "001 rolled back gives all of it back": Story([*_AT, "up 1", "down 1"], _DOWN),
    "001 rolled back, a log with strange rows gives nothing else": Story([*_AT, "up 1", _STRANGE_LOG, "down 1"], _DOWN),
    **{
        f"001 rolled back goes on from the remains: {words}": Story(
            [*_AT, "up 1", f"down 1 until {words}", "down 1"], _DOWN
        )
        for words in (
            "-- Step 4", "INSERT INTO user_deposits (id", "-- Step 8", "INSERT INTO deposit_transactions\n",
            "DROP TABLE audit_logs",
        )
    },
    "001 rolled back goes on from a half-finished 001": Story(
        [*_AT, "up 1 until INSERT INTO audit_logs", "down 1"], _DOWN
    ),
    "001 rolled back takes whole names out of the copies": Story(
        [*_AT, "up 1 until INSERT INTO migration_001_guard (transactions_lost)", _NO_LOG, "down 1"], _DOWN
    ),
    "001 rolled back takes the rows as the bot left them between two runs": Story(
        [
            *_AT, "up 1", _BEFORE_TRANSACTIONS_GO.format("down 1"),
            f"{_THE_BOT_CHANGES_13}; UPDATE user_deposits SET balance = 150, created_at = 'z' WHERE id = 11;"
            " UPDATE user_deposits SET user_id = 778 WHERE id = 13;"
            " INSERT INTO user_deposits (id, user_id, balance, created_at) VALUES (25, 9, 9, 'n');"
            " DELETE FROM user_deposits WHERE id = 25",
            "down 1",
        ],
        {
            **_DOWN,
            _ACCOUNTS: [(11, 1, 150, "z"), (12, 2, -5, "b"), (13, 778, 0, None), *_ALL_ACCOUNTS[3:]],
            _TRANSACTIONS: sorted(_without(_DOWN[_TRANSACTIONS], 13) + _CHANGED_13),
            _LINKS: [(31, 12), (32, 13), (33, 14)],
            _IDS: [("deposit_transactions", 29), ("user_deposits", 25)],
        },
    ),
    "001 rolled back takes other long names as they are": Story(
        [
            *_AT, "up 1 until INSERT INTO migration_001_guard (transactions_without_copy)", _NO_LOG,
            f"UPDATE deposit_transactions SET depositor_name = '0' WHERE id = 12;"
            f" UPDATE deposit_transactions SET depositor_name = '{_OTHER_LONG}' WHERE id = 15",
            "down 1",
        ],
        {**_DOWN, _TRANSACTIONS: _named("0", _OTHER_LONG)},
    ),
    "001 rolled back keeps a newer account and a newer name": Story(
        [
            *_AT, "up 1",
            "INSERT INTO user_deposits (id, user_id, balance, created_at) VALUES (20, 2, 3, 'n'), (5, 777, 4, 'o');"
            " UPDATE deposit_transactions SET depositor_name = '힣' WHERE id = 12;"
            " UPDATE deposit_transactions SET depositor_name = '0' WHERE id = 15;"
            f" UPDATE deposit_transactions SET depositor_name = '{_LONGER[:50]}' WHERE id = 13;"
            f" UPDATE deposit_transactions SET depositor_name = '{_LONG[:50]}' WHERE id = 14",
            "down 1",
        ],
        {
            **_DOWN,
            _ACCOUNTS: [(5, 777, 4, "o"), *_without(_ALL_ACCOUNTS, 12, 14), (20, 2, 3, "n")],
            _TRANSACTIONS: _named("힣", "0", _LONGER[:50], _LONG[:50]),
            _IDS: [("deposit_transactions", 29), ("user_deposits", 20)],
        },
    ),
    "001 rolled back leaves a rejected account out whose id is another one's": Story(
        [*_AT, "up 1", "INSERT INTO user_deposits (id, user_id, created_at) VALUES (14, 50, 'n')", "down 1"],
        {_ACCOUNTS: sorted([*_without(_ALL_ACCOUNTS, 14), (14, 50, 0, "n")])},
    ),
    "001 rolled back leaves an older account out": Story(
        [*_AT, _BEFORE_ACCOUNTS_GO.format("up 1"), _SUPERSEDED, "up 1", "down 1"],
        {_ACCOUNTS: [(11, 1, 100, "a"), (14, 777, -7, "c"), (15, 4, 1, "d"), *_NEWER]},
    ),
    "001 rolled back puts an older account back where the newer one is gone": Story(
        [
            *_AT, _BEFORE_ACCOUNTS_GO.format("up 1"), _SUPERSEDED, "up 1",
            "DELETE FROM user_deposits WHERE id = 23", "down 1",
        ],
        {
            _ACCOUNTS: [(11, 1, 100, "a"), (13, 3, 0, None), (14, 777, -7, "c"), (15, 4, 1, "d"), _NEWER[0], _NEWER[2]],
            _IDS: [("deposit_transactions", 29), ("user_deposits", 24)],
        },
    ),
    "001 rolled back from its middle leaves out the older accounts that it noted": Story(
        [*_AT, _BEFORE_ACCOUNTS_GO.format("up 1"), _SUPERSEDED, _BEFORE_ACCOUNTS_GO.format("up 1"), "down 1"],
        {_ACCOUNTS: [(11, 1, 100, "a"), (14, 777, -7, "c"), (15, 4, 1, "d"), *_NEWER]},
    ),
    "001 rolled back from its middle stops at an older account that nobody noted": Story(
        [
            *_AT, _BEFORE_ACCOUNTS_GO.format("up 1"), _UNNOTED,
            "INSERT INTO audit_logs (action, resource_type, resource_id, details) VALUES"
            f" ('{_CUT}', 'deposit_transaction', 15, '{{}}')",
            "down 1",
        ],
        stops="two accounts of one user?",
    ),
    "001 is not rolled back under a later column of the log": Story(
        [*_AT, "up 1", "ALTER TABLE audit_logs ADD COLUMN mine TEXT", "down 1"], stops="roll that one back first"
    ),
    "001 is not rolled back under a later trigger of the log": Story(
        [*_AT, "up 1", "CREATE TRIGGER of_log AFTER INSERT ON audit_logs BEGIN SELECT 1; END", "down 1"],
        stops="roll that one back first",
    ),
    "001 is not rolled back under a later column and a later trigger of the log": Story(
        [
            *_AT, "up 1", "ALTER TABLE audit_logs ADD COLUMN mine TEXT",
            "CREATE TRIGGER of_log AFTER INSERT ON audit_logs BEGIN SELECT 1; END", "down 1",
        ],
        stops="roll that one back first",
    ),
    **_guards("down 1"),
    **_meanwhile("down 1"),
}  # fmt: skip
STORIES = {**_STORIES_OF_UP, **_STORIES_OF_DOWN}
_NEVER_BELOW = "a count is never below 0"
_NO_SUCH_KIND = "sqlite_master has no such kind of this table"
_NOT_ASKED_FOR = "what the working table has more is never asked for"
_BY_ID = "the rows of a table are in the order of their ids anyway"
_JUST_REMOVED = "such notes have just been removed"
_HAS_ITS_USER = "a transaction has its user, who is the first one from that id on"
_NEVER_NULL = "one side is never null"
_JUST_DROPPED = "the number went with the table; a second row of it says the same and goes with the next DROP TABLE"
_SAME_NUMBER = "the other table has its number; a second row of it says the same and goes with the next DROP TABLE"
_NONE_ABOVE = "no note has a word above this one"
_ONLY_OF_NAMES = "only the note of a name has a new name"
_SAME_NAME = "50 characters of a name of 50 are the name"
_NOTED_ANEW = "the note that is removed is made again out of the copy"
_NULL_AGAIN = "what is null is set to null"
_FIRST = "the first one from that id on is the one of that id"
_OF_BOTH = {
    "operator: = -> <= in ( unknown_columns = 0 )": _NEVER_BELOW,
    "operator: = -> <= in ( unknown_objects = 0 )": _NEVER_BELOW,
    "operator: = -> <= in ( accounts_without_copy = 0 )": _NEVER_BELOW,
    "operator: = -> <= in ( accounts_lost = 0 )": _NEVER_BELOW,
    "operator: = -> <= in ( transactions_without_copy = 0 )": _NEVER_BELOW,
    "operator: = -> <= in ( transactions_lost = 0 )": _NEVER_BELOW,
    "operator: = -> <= in ( matches_lost = 0 )": _NEVER_BELOW,
    "with mine: 'index' , 'trigger' -> 'index' , 'trigger' , 'mine' in IN ( 'index' , 'trigger' ) AND": _NO_SUCH_KIND,
    "always: name IN ( 'user_deposits' , 'deposit_transactions' ) -> 1 in sqlite_sequence WHERE name IN"
    " ( 'user_deposits' , 'deposit_transactions' ) AND seq": _NOT_ASKED_FOR,
    "with mine: 'user_deposits' , 'deposit_transactions' -> 'user_deposits' , 'deposit_transactions' ,"
    " 'mine' in IN ( 'user_deposits' , 'deposit_transactions' ) AND [2]": _NOT_ASKED_FOR,
    "always: name = 'user_deposits' -> 1 in migration_001_sequence WHERE name = 'user_deposits' AND NOT": _SAME_NUMBER,
    "always: NOT EXISTS ( SELECT 1 FROM sqlite_sequence WHERE name = 'user_deposits' ) -> 1 in"
    " 'user_deposits' AND NOT EXISTS ( SELECT 1 FROM sqlite_sequence WHERE name = 'user_deposits' ) ;": _JUST_DROPPED,
    "joined: AND -> OR in = 'user_deposits' AND NOT EXISTS": _SAME_NUMBER,
    "operator: = -> <= in WHERE name = 'user_deposits' AND": _SAME_NUMBER,
    "operator: = -> >= in WHERE name = 'user_deposits' AND": _SAME_NUMBER,
    "text: 'user_deposits' -> 'no such word' in name = 'user_deposits' ) ;": _JUST_DROPPED,
    "null: = -> IS in WHERE newer.user_id = b.user_id AND": _NEVER_NULL,
    "always: name = 'user_deposits' -> 1 in migration_001_sequence WHERE name = 'user_deposits' AND NOT"
    " [2]": _SAME_NUMBER,
    "always: NOT EXISTS ( SELECT 1 FROM sqlite_sequence WHERE name = 'user_deposits' ) -> 1 in"
    " 'user_deposits' AND NOT EXISTS ( SELECT 1 FROM sqlite_sequence WHERE name = 'user_deposits' ) ;"
    " [2]": _JUST_DROPPED,
    "operator: = -> <= in WHERE name = 'user_deposits' AND [2]": _SAME_NUMBER,
    "operator: = -> >= in WHERE name = 'user_deposits' AND [2]": _SAME_NUMBER,
    "text: 'user_deposits' -> 'no such word' in name = 'user_deposits' ) ; [2]": _JUST_DROPPED,
    "operator: = -> >= in WHERE resource_type = 'user_deposits' )": _NONE_ABOVE,
    "order: id -> id DESC in ORDER BY id ;": _BY_ID,
    "always: NOT EXISTS ( SELECT 1 FROM sqlite_sequence WHERE name = 'deposit_transactions' ) -> 1 in"
    " 'deposit_transactions' AND NOT EXISTS ( SELECT 1 FROM sqlite_sequence WHERE name ="
    " 'deposit_transactions' ) ;": _JUST_DROPPED,
    "operator: = -> <= in WHERE name = 'deposit_transactions' AND": _SAME_NUMBER,
    "text: 'deposit_transactions' -> 'no such word' in name = 'deposit_transactions' ) ;": _JUST_DROPPED,
    "operator: > -> >= in depositor_name ) > 50 AND": _SAME_NAME,
    "null: = -> IS in 50 ) = excluded.depositor_name ,": _NEVER_NULL,
    "number: 50 -> 49 in ) > 50 AND substr": _SAME_NAME,
    "always: matched_transaction_id IS NOT NULL -> 1 in NULL WHERE matched_transaction_id IS NOT NULL ;": _NULL_AGAIN,
    "always: NOT EXISTS ( SELECT 1 FROM sqlite_sequence WHERE name = 'deposit_transactions' ) -> 1 in"
    " 'deposit_transactions' AND NOT EXISTS ( SELECT 1 FROM sqlite_sequence WHERE name ="
    " 'deposit_transactions' ) ; [2]": _JUST_DROPPED,
    "operator: = -> <= in WHERE name = 'deposit_transactions' AND [2]": _SAME_NUMBER,
    "text: 'deposit_transactions' -> 'no such word' in name = 'deposit_transactions' ) ; [2]": _JUST_DROPPED,
    "order: id -> id DESC in ORDER BY id ; [2]": _BY_ID,
    "always: id IN ( SELECT id FROM bank_notifications_backup ) -> 1 in NULL AND id IN ( SELECT id FROM"
    " bank_notifications_backup ) ;": _NULL_AGAIN,
    "operator: = -> >= in WHERE b.id = bank_notifications.id )": _FIRST,
    "null: = -> IS in WHERE b.id = bank_notifications.id )": _NEVER_NULL,
    "null: = -> IS in ON n.id = b.id WHERE": _NEVER_NULL,
}
EQUIVALENT = {
    "up 1": {
        **_OF_BOTH,
        "operator: = -> <= in ( audit_rows_lost = 0 )": _NEVER_BELOW,
        "operator: = -> >= in WHERE resource_type = 'user_deposits' AND": _NONE_ABOVE,
        "null: = -> IS in ON u.id = b.user_id WHERE": _NEVER_NULL,
        "kept: details = excluded.details -> details = details in UPDATE SET details = excluded.details ;"
        "": _JUST_REMOVED,
        "null: = -> IS in ON u.id = b.user_id WHERE [2]": _NEVER_NULL,
        "kept: details = excluded.details -> details = details in UPDATE SET details = excluded.details ;"
        " [2]": _JUST_REMOVED,
        "joined: AND -> OR in = 'user_deposits' AND NOT EXISTS [2]": _SAME_NUMBER,
        "operator: = -> >= in WHERE resource_type = 'user_deposits' AND [2]": _NONE_ABOVE,
        "operator: = -> >= in WHERE action = 'migration_depositor_name_truncated' AND": _NONE_ABOVE,
        "null: = -> IS in WHERE b.id = migration_001_audit.resource_id AND": _NEVER_NULL,
        "null: = -> IS in 50 ) = json_extract (": _NEVER_NULL,
        "number: 50 -> 51 in 1 , 50 ) = [2]": _NOTED_ANEW,
        "operator: = -> >= in ON u.id = b.user_id WHERE [3]": _HAS_ITS_USER,
        "null: = -> IS in ON u.id = b.user_id WHERE [3]": _NEVER_NULL,
        "join: LEFT -> nothing in AS b LEFT JOIN users [3]": _HAS_ITS_USER,
        "operator: > -> >= in depositor_name ) > 50 ,": _SAME_NAME,
        "number: 50 -> 49 in ) > 50 , substr": _SAME_NAME,
        "null: = -> IS in WHERE a.action = m.action AND": _NEVER_NULL,
        "null: = -> IS in AND a.resource_id = m.resource_id )": _NEVER_NULL,
        "null: = -> IS in WHERE a.action = m.action AND [2]": _NEVER_NULL,
        "null: = -> IS in AND a.resource_id = m.resource_id ) [2]": _NEVER_NULL,
    },
    "down 1": {
        **_OF_BOTH,
        "operator: = -> <= in ( unknown_audit = 0 )": _NEVER_BELOW,
        "operator: = -> >= in AND type = 'trigger' )": _NO_SUCH_KIND,
        "always: action = 'migration_depositor_name_truncated' -> 1 in 'deposit_transaction' AND action ="
        " 'migration_depositor_name_truncated' ) ORDER": _NOT_ASKED_FOR,
        "operator: = -> <= in AND action = 'migration_depositor_name_truncated' )": _NOT_ASKED_FOR,
        "operator: = -> >= in AND action = 'migration_depositor_name_truncated' )": _NOT_ASKED_FOR,
        "operator: = -> >= in WHERE m.resource_type = 'user_deposits' AND": _NONE_ABOVE,
        "null: = -> IS in WHERE b.id = m.resource_id OR": _NEVER_NULL,
        "null: = -> IS in OR b.user_id = json_extract (": _NEVER_NULL,
        "joined: AND -> OR in = 'user_deposits' AND NOT EXISTS [3]": _SAME_NUMBER,
        "always: m.action = 'migration_depositor_name_truncated' -> 1 in m WHERE m.action ="
        " 'migration_depositor_name_truncated' AND m.resource_id (2)": _ONLY_OF_NAMES,
        "operator: = -> >= in WHERE m.action = 'migration_depositor_name_truncated' AND": _NONE_ABOVE,
        "operator: = -> >= in AND m.resource_id = deposit_transactions_backup.id )": _FIRST,
        "null: = -> IS in AND m.resource_id = deposit_transactions_backup.id )": _NEVER_NULL,
        "operator: = -> <= in WHERE m.action = 'migration_depositor_name_truncated' AND (2)": _ONLY_OF_NAMES,
        "operator: = -> >= in WHERE m.action = 'migration_depositor_name_truncated' AND (2)": _ONLY_OF_NAMES,
        "null: = -> IS in AND m.resource_id = deposit_transactions_backup.id AND": _NEVER_NULL,
        "null: = -> IS in '$.new_depositor_name' ) = deposit_transactions_backup.depositor_name )": _NEVER_NULL,
    },
}
"""File -> a fault that changes nothing -> why."""
