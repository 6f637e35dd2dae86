"""What the database itself refuses and allows: a table of cases by rule, and the rows that they are tried on.

A case is one or more statements with semicolons between them; only the last one is on trial. `leaves` is a query that
must be true after it.
"""

from collections.abc import Sequence

from msgspec import Struct


class Case(Struct, frozen=True):
    """`sql`: what is done. `leaves`: a query that is 1 afterwards; empty where the change itself is enough."""

    sql: str
    leaves: str = ""


class Rule(Struct, frozen=True):
    """A trigger's message, or null where it refuses nothing, with what it refuses and what it allows.

    `untouchable`: a condition on rows of which it refuses to set any column, even to the value that is there, and
    `before`, what makes such rows.
    """

    message: str | None
    refuses: Sequence[str]
    allows: Sequence[str | Case]
    untouchable: str = ""
    before: str = ""


T = "'2026-01-01 00:00:00'"
BOTS_ROWS = f"""
INSERT INTO users VALUES (9, 't9', 'bot', {T});
INSERT INTO user_deposits (id, user_id, balance) VALUES (19, 9, 50);
INSERT INTO deposit_transactions (id, user_id, type, amount, status, depositor_name, confirmed_at, created_at) VALUES
  (90, 9, 'deposit', 50, 'confirmed', 'bot', {T}, {T}), (91, 9, 'deposit', 60, 'pending', 'bot', NULL, {T});
INSERT INTO bank_notifications (id, depositor_name, amount, raw_message, matched_transaction_id, status) VALUES
  (90, 'bot', 50, 'text', 90, 'matched'), (91, NULL, 50, NULL, NULL, 'unmatched');
INSERT INTO user_domains (id, user_id, domain, status, price) VALUES (90, 9, 'bot.kr', 'active', 10);
INSERT INTO audit_logs (id, action) VALUES (90, 'deposit_confirmed');
"""
"""What the bot wrote before there was a trigger."""
_CONFIRMED = "status, balance_before, balance_after, version, confirmed_at, created_at"
ROWS = f"""
INSERT INTO users VALUES (1, 't1', 'kim', {T}), (2, 't2', NULL, {T}), (3, 't3', 'lee', {T});
INSERT INTO deposit_transactions
  (id, user_id, type, direction, amount, depositor_name, description, match_name, reference, {_CONFIRMED}) VALUES
  (21, 1, 'deposit', 'credit', 1000, 'kim', NULL, 'kim', 'r', 'confirmed', 0, 1000, 1, {T}, {T}),
  (22, 1, 'deposit', 'credit', 500, 'kim', 'why', 'kim', 'r', 'pending', NULL, NULL, NULL, NULL, {T}),
  (23, 1, 'deposit', 'credit', 300, 'kim', NULL, 'kim', NULL, 'expired', NULL, NULL, NULL, NULL, {T}),
  (24, 1, 'deposit', 'credit', 200, 'kim', NULL, 'kim', NULL, 'cancelled', NULL, NULL, NULL, NULL, {T}),
  (25, 2, 'deposit', 'credit', 1000, 'park', NULL, 'park', NULL, 'confirmed', 0, 1000, 1, {T}, {T}),
  (26, 2, 'domain_purchase', 'debit', 400, NULL, 'a.kr', NULL, NULL, 'confirmed', 1000, 600, 2, {T}, {T}),
  (27, 3, 'deposit', 'credit', 700, 'lee', 'why', 'lee', 'r', 'confirmed', 0, 700, 1, {T}, {T}),
  (28, 3, 'deposit', 'credit', 80, 'lee', NULL, 'lee', NULL, 'pending', NULL, NULL, NULL, NULL, {T}),
  (29, 2, 'debit', 'debit', 100, NULL, 'why', NULL, NULL, 'confirmed', 600, 500, 3, {T}, {T}),
  (31, 1, 'deposit', 'credit', 0, 'kim', NULL, 'kim', NULL, 'pending', NULL, NULL, NULL, NULL, {T}),
  (32, 1, 'debit', 'debit', 70, NULL, 'why', NULL, NULL, 'pending', NULL, NULL, NULL, NULL, {T}),
  (33, 1, 'gift', 'credit', 70, NULL, 'why', NULL, NULL, 'pending', NULL, NULL, NULL, NULL, {T}),
  (34, 1, 'bonus', 'credit', 150, NULL, 'why', NULL, NULL, 'confirmed', 1000, 1150, 2, {T}, {T});
INSERT INTO bank_notifications (id, account, bank_name, depositor_name, amount, balance_after, transaction_time,
  raw_message, matched_transaction_id, created_at, bank_transaction_id, match_name, status,
  match_method, matched_by, matched_at)
VALUES
  (41, '1', 'KB', 'kim', 1000, 5, {T}, 'text', 21, {T}, 'b1', 'kim', 'matched', 'automatic', 'bot', {T}),
  (42, '1', 'KB', 'park', 1000, 5, {T}, 'text', NULL, {T}, 'b2', 'park', 'unmatched', NULL, NULL, NULL),
  (43, '1', 'KB', 'park', 1000, 5, {T}, 'text', NULL, {T}, 'b3', 'park', 'ambiguous', NULL, NULL, NULL),
  (44, '1', 'KB', 'lee', 700, 5, {T}, 'text', 27, {T}, 'b4', 'lee', 'matched', 'manual', 'bot', {T}),
  (45, '1', 'KB', 'bot', 50, 5, {T}, 'text', NULL, {T}, 'b5', 'bot', 'unmatched', NULL, NULL, NULL),
  (46, '1', 'KB', 'kim', 500, 5, {T}, 'text', NULL, {T}, 'b6', 'kim', 'unmatched', NULL, NULL, NULL),
  (47, '1', 'KB', 'kim', 150, 5, {T}, 'text', NULL, {T}, 'b7', 'kim', 'unmatched', NULL, NULL, NULL),
  (48, '1', 'KB', 'kim', 200, 5, {T}, 'text', NULL, {T}, 'b8', 'kim', 'unmatched', NULL, NULL, NULL),
  (49, '1', 'KB', 'kim', 400, 5, {T}, 'text', NULL, {T}, NULL, NULL, 'unmatched', NULL, NULL, NULL);
INSERT INTO bank_messages (id, raw_message, raw_sha256, kind, status, bank_name, account, depositor_name, amount,
  balance_after, transaction_time, bank_notification_id, received_by, created_at) VALUES
  (131, 'text', zeroblob(32), 'unreadable', 'unreadable', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'bot', {T}),
  (132, 'text', zeroblob(32), 'deposit_cancelled', 'waiting', 'KB', '1', 'lee', 700, 5, {T}, NULL, 'bot', {T}),
  (133, 'text', zeroblob(32), 'deposit_cancelled', 'kept', 'KB', '1', 'lee', 700, 5, {T}, 44, 'bot', {T}),
  (134, 'text', zeroblob(32), 'withdrawal', 'kept', 'KB', '1', 'lee', 700, 5, {T}, NULL, 'bot', {T});
INSERT INTO learned_names VALUES (121, 1, 'kim', 'kim', 41, 'ops', {T});
INSERT INTO user_domains VALUES
  (51, 2, 'a.kr', 'pending', 400, NULL, NULL, {T}, 'a.kr', 26),
  (52, 1, 'b.kr', 'registered', 10, {T}, NULL, {T}, 'b.kr', NULL),
  (53, 1, 'c.kr', 'pending', 10, NULL, NULL, {T}, 'c.kr', NULL),
  (54, 1, 'd.kr', 'released', 10, NULL, NULL, {T}, 'd.kr', NULL),
  (55, 1, 'e.kr', 'expired', 10, NULL, NULL, {T}, 'e.kr', NULL);
INSERT INTO audit_logs VALUES
  (11, 1, NULL, 'user_created', 'user', 1, '{{}}', '::1', 'curl', {T}, 'bot', 'q', 'pbk_1', 'success'),
  (12, 3, '3', 'user_created', 'user', 3, '{{}}', '::1', 'curl', {T}, 'bot', 'q', 'pbk_1', 'success'),
  (13, 3, '3', 'user_read', 'user', 3, NULL, '::1', 'curl', {T}, 'bot', 'q', 'pbk_1', 'success'),
  (14, 3, '3', 'user_created', 'user', 3, '{{}}', '::1', 'curl', {T}, 'bot', 'q', 'pbk_1', 'success'),
  (15, 3, NULL, 'user_created', 'user', 3, '{{}}', '::1', 'curl', {T}, 'bot', 'q', 'pbk_1', 'success');
INSERT INTO audit_leaves VALUES
  (0, 11, zeroblob(32), zeroblob(16), zeroblob(32), 1), (1, 12, zeroblob(32), zeroblob(16), zeroblob(32), 1),
  (2, 13, zeroblob(32), zeroblob(16), NULL, 1), (3, 14, zeroblob(32), NULL, zeroblob(32), 1),
  (4, 15, zeroblob(32), zeroblob(16), zeroblob(32), 1);
INSERT INTO audit_nodes VALUES (8, 0, zeroblob(32), 11, 15, NULL, NULL);
INSERT INTO audit_tree VALUES (1, 5, 15, zeroblob(32), zeroblob(64));
INSERT INTO name_folding VALUES (1, 2);
INSERT INTO audit_pruned_steps VALUES ('moved', 3, 2, 6);
INSERT INTO user_erasures VALUES (2, {T}, 'cli', {T});
INSERT INTO idempotency_answers VALUES (61, 'bot', 'k', 'POST /v1/debits', '{{}}', 201, x'31', '/v1/1', {T}, 4);
INSERT INTO import_archive VALUES (71, 'users', 9, '{{"a":1}}', {T});
INSERT INTO balance_change_references VALUES ('bot', 'r1', 29);
INSERT INTO api_keys VALUES (81, 'pbk_1', 'bot', zeroblob(32), 'users:write', {T}, NULL);
"""
"""User 1 owns most, user 2 holds a name and was erased of all but its row, user 3 is going to be erased."""

ERASING = f"INSERT INTO user_erasures VALUES (3, {T}, 'cli', NULL);"
ERASING_BOTS = f"INSERT INTO user_erasures VALUES (9, {T}, 'cli', NULL);"
FINISHED = f"UPDATE user_erasures SET finished_at = {T} WHERE user_id = 3;"


def each(table: str, where: str, before: str, changes: str, *, beside: str = "") -> list[str]:
    """A statement for each of the changes, which semicolons separate; `beside` is set in each of them."""
    more = f", {beside}" if beside else ""
    return [f"{before} UPDATE {table} SET {change.strip()}{more} WHERE {where}" for change in changes.split(";")]


def _tries(head: str, values: str, *, before: str = "") -> list[str]:
    """A statement for each row of `values`, one in a line."""
    return [f"{before} {head} ({line.strip()})" for line in values.strip().splitlines()]


def _forgotten(row: int, *, and_gone: bool = False) -> str:
    """The commitment of a row of audit_logs is on record, and its personal values are gone."""
    gone = f"UPDATE audit_logs SET telegram_id = NULL WHERE id = {row};" if and_gone else ""
    return f"{ERASING} INSERT INTO audit_erasures VALUES ({row}, zeroblob(32), 3); {gone}"


_LEARN = (
    "INSERT INTO learned_names (user_id, printed_name, match_name, bank_notification_id, learned_by, created_at) VALUES"
)
_LEARN_AS = (
    "INSERT OR REPLACE INTO learned_names"
    " (id, user_id, printed_name, match_name, bank_notification_id, learned_by, created_at) VALUES"
)
_PRUNES = "INSERT INTO audit_prunes (root, archive, archive_sha256, actor, pruned_at, through_id, first_index, size)"
_PRUNE = f"{_PRUNES} SELECT zeroblob(32), 'a', zeroblob(32), 'cli', 'x',"
_PRUNED = f"{_PRUNE} 12, 0, 2;"
_TRANSACTION = "user_id, type, direction, amount, status, balance_before, balance_after, version"
_NEW = f"INSERT INTO deposit_transactions ({_TRANSACTION}) VALUES"
_REVERSAL = f"INSERT INTO deposit_transactions ({_TRANSACTION}, reverses_id) VALUES"
_LATEST = "(SELECT MAX(id) FROM deposit_transactions)"
_UNMOVED = "DROP TRIGGER deposit_transactions_move_balance_insert;"
_UNCHECKED = f"{_UNMOVED} DROP TRIGGER deposit_transactions_continue_account_insert;"
_MOVED = "UPDATE user_deposits SET"
_CONFIRM = "UPDATE deposit_transactions SET"
_FREE_NAME = "DROP TRIGGER user_domains_move_forwards;"
_UNTIED = "DROP TRIGGER bank_notifications_need_deposit_update;"
_FREE = "DROP TRIGGER deposit_transactions_move_forwards;"
_REFUNDED = f"{_REVERSAL} (2, 'domain_refund', 'credit', 400, 'confirmed', 500, 900, 4, 26);"
_PAID_AGAIN = f"{_REFUNDED} {_REVERSAL} (2, 'reversal', 'debit', 400, 'confirmed', 900, 500, 5, {_LATEST});"
_LINE = "INSERT INTO bank_notifications (amount, status, matched_transaction_id, match_method) VALUES"
_MATCH = "UPDATE bank_notifications SET status = 'matched', match_method = 'manual', matched_transaction_id ="
_FORGET_LINE = "depositor_name = NULL, raw_message = NULL, match_name = ''"
_UNMATCHED_ONCE = "DROP TRIGGER bank_notifications_match_once;"
_MATCHED_WITH_25 = "status = 'matched', matched_transaction_id = 25"
_LINE_NAMES = (
    "depositor_name = 'x'; depositor_name = NULL; raw_message = 'x'; raw_message = NULL; match_name = 'x';"
    " match_name = NULL"
)
_EVENT = "INSERT INTO bank_notification_events (bank_notification_id, kind, deposit_id, actor, created_at) VALUES"
_BY = ", NULL, 'ops', 'x')"
_CLOSED = "UPDATE bank_notifications SET closed_as ="
_DISMISSED = f"{_EVENT} (42, 'dismissed'{_BY}; {_CLOSED} 'dismissed' WHERE id = 42;"
_REOPENED = f"{_EVENT} (42, 'reopened'{_BY}; {_CLOSED} NULL WHERE id = 42;"
_CANCELLED = f"{_EVENT} (42, 'cancelled'{_BY}; {_CLOSED} 'cancelled' WHERE id = 42;"
_REVERSED = f"{_REVERSAL} (3, 'reversal', 'debit', 700, 'confirmed', 700, 0, 2, 27);"
_REVERSED_21 = f"{_REVERSAL} (1, 'reversal', 'debit', 1000, 'confirmed', 1150, 150, 3, 21);"
_EVENT_FREED = f"{_EVENT} (44, 'freed', 27, 'ops', 'x')"
_NOT_MATCHED = "matched_transaction_id = NULL, match_method = NULL, matched_by = NULL, matched_at = NULL"
_UNMATCH = f"UPDATE bank_notifications SET status = 'unmatched', {_NOT_MATCHED}"
_FREE_44 = f"{_UNMATCH} WHERE id = 44"
_FREED = f"{_REVERSED} {_EVENT_FREED}; {_FREE_44};"
_DISMISSED_44 = f"{_EVENT} (44, 'dismissed'{_BY}; {_CLOSED} 'dismissed' WHERE id = 44;"
_TOLD = (
    "INSERT INTO bank_notification_events (bank_notification_id, kind, transaction_time, bank_name, depositor_name,"
    " account, balance_after, raw_message, note, actor, created_at)"
    " VALUES (44, 'told', 't', 'b', 'lee', '1', 5, 'text', 'n', 'ops', 'y');"
)
_ERASING_1 = f"INSERT INTO user_erasures VALUES (1, {T}, 'cli', NULL);"
_FORGET_EVENT = "depositor_name = NULL, raw_message = NULL, note = NULL"
_MESSAGE = (
    "INSERT OR REPLACE INTO bank_messages (id, raw_sha256, kind, status, bank_notification_id, note, settled_by,"
    " settled_at, received_by, created_at) SELECT"
)
_MESSAGE_BEGINS = f"{_MESSAGE} 150, zeroblob(32), {{}}, 'ops', 'x'"
_SETTLE = "status = 'settled', settled_by = 'ops', settled_at = 'x'"
_FORGET_MESSAGE = "raw_message = NULL, depositor_name = NULL, note = NULL"
_SETTLED_132 = f"UPDATE bank_messages SET {_SETTLE}, note = 'n', bank_notification_id = 44 WHERE id = 132;"
_MESSAGE_SAID = (
    f"id = 139; raw_sha256 = x'{'01' * 32}'; kind = 'withdrawal_cancelled'; bank_name = 'x'; bank_name = NULL;"
    " account = 'x'; account = NULL; amount = 6; amount = NULL; balance_after = 6; balance_after = NULL;"
    " transaction_time = 'x'; transaction_time = NULL; received_by = 'x'; created_at = 'z'"
)
_SAID = (
    "id = 39; user_id = 2; type = 'debit'; direction = 'debit'; amount = 501; reference = 'x'; reference = NULL;"
    " created_at = 'x'; created_at = NULL"
)
_LINE_SAID = (
    "id = 39; bank_name = 'x'; bank_name = NULL; balance_after = 6; balance_after = NULL; transaction_time = 'x';"
    " transaction_time = NULL; created_at = 'x'; created_at = NULL; bank_transaction_id = 'x';"
    " bank_transaction_id = NULL; account = 'x'; account = NULL"
)
_LOG_CHANGES = (
    "id = 19; user_id = 4; user_id = NULL; action = 'x'; resource_type = 'x'; resource_type = NULL; resource_id = 4;"
    " resource_id = NULL; ip_address = 'x'; ip_address = NULL; user_agent = 'x'; user_agent = NULL; created_at = 'x';"
    " created_at = NULL; actor = 'x'; actor = NULL; request_id = 'x'; request_id = NULL; key_prefix = 'x';"
    " key_prefix = NULL; outcome = 'failure'; outcome = NULL; details = NULL"
)
_ANSWER_CHANGES = (
    "id = 62; actor = 'x'; idempotency_key = 'x'; operation = 'x'; status = 200; created_at = 'x'; audit_log_id = 5;"
    " audit_log_id = NULL"
)
_EMPTY_ANSWER = "request = '', body = x'', location = NULL"
_DOMAIN_SAID = (
    "id = 59; user_id = 2; domain = 'x.kr'; ascii_name = 'x.kr'; ascii_name = NULL; price = 11; price = NULL;"
    " created_at = 'x'; created_at = NULL; transaction_id = 21"
)
_ANOTHER_ANSWER = (
    "INSERT OR REPLACE INTO idempotency_answers (id, actor, idempotency_key, operation, request, status, body,"
    " created_at) SELECT {}, 'POST', '{{}}', 200, x'', 'x'"
)
_STEP = "INSERT OR REPLACE INTO audit_pruned_steps VALUES"
_ERASED_ROW = "INSERT OR REPLACE INTO audit_erasures VALUES"
_STARTS_ANEW = f"{_NEW} (5, 'a', 'credit', 10, 'confirmed', 0, 10, 1), (5, 'a', 'debit', 10, 'confirmed', 10, 0, 2);"
_CREDITS = """
1, 'a', 'credit', 10, 'confirmed', NULL, NULL, NULL
1, 'a', 'credit', 10, 'pending', 1150, 1160, 3
1, 'a', 'credit', 10, 'cancelled', 1150, 1160, 3
1, 'a', 'credit', 10, 'pending', 1150, NULL, 3
1, 'a', 'credit', 10, 'confirmed', 500, 510, 4
3, 'a', 'credit', 10, 'confirmed', 1150, 1160, 3
1, 'a', 'credit', 10, 'confirmed', 1149, 1160, 3
1, 'a', 'credit', 10, 'confirmed', 1151, 1160, 3
1, 'a', 'credit', 10, 'confirmed', 1150, 1160, 4
1, 'a', 'credit', 10, 'confirmed', 1150, 1160, 2
1, 'a', 'credit', 0, 'confirmed', 1150, 1150, 3
1, 'a', 'credit', -10, 'confirmed', 1150, 1140, 3
1, 'a', 'credit', 10, 'confirmed', 1150, 1159, 3
1, 'a', 'credit', 10, 'confirmed', 1150, 1161, 3
1, 'a', 'credit', 10, 'confirmed', 1150, 1140, 3
1, 'a', 'debit', 10, 'confirmed', 1150, 1160, 3
1, 'a', 'credit', 10, 'confirmed', NULL, 1160, 3
1, 'a', 'credit', 10, 'confirmed', 1150, NULL, 3
1, 'a', 'credit', 10, 'confirmed', 1150, 1160, NULL
"""

TRIGGERS = {
    "users_open_account": Rule(
        None,
        [],
        [
            Case(
                "INSERT INTO users VALUES (5, 't5', NULL, 'then')",
                "SELECT balance = 0 AND version = 0 AND created_at = 'then' FROM user_deposits WHERE user_id = 5",
            )
        ],
    ),
    "users_refuse_replace": Rule(
        "users are never replaced",
        [
            "INSERT OR REPLACE INTO users (id, telegram_id) VALUES (1, '7')",
            "INSERT OR REPLACE INTO users (id, telegram_id) VALUES (7, 't2')",
        ],
        ["INSERT INTO users (telegram_id) VALUES ('t25')", "INSERT INTO users (id, telegram_id) VALUES (6, 't8')"],
    ),
    "users_keep_identity": Rule(
        "a user keeps its id and its telegram_id",
        [
            "UPDATE users SET id = 7 WHERE id = 1",
            "UPDATE users SET telegram_id = '7' WHERE id = 1",
            f"{ERASING} UPDATE users SET id = 7, telegram_id = 'erased-3', username = NULL WHERE id = 3",
            f"{ERASING} UPDATE users SET id = 7 WHERE id = 3",
            f"{ERASING} UPDATE users SET telegram_id = 'erased-4', username = NULL WHERE id = 3",
            f"{ERASING} UPDATE users SET telegram_id = 'erased-3' WHERE id = 3",
            f"{ERASING} UPDATE users SET telegram_id = 'erased-1', username = NULL WHERE id = 1",
            f"{ERASING} UPDATE users SET telegram_id = 'erased-9', username = NULL WHERE id = 9",
            "UPDATE users SET telegram_id = 'erased-2', username = NULL WHERE id = 2",
            f"{ERASING} {FINISHED} UPDATE users SET telegram_id = 'erased-3', username = NULL WHERE id = 3",
        ],
        [
            "UPDATE users SET username = 'x' WHERE id = 1",
            "UPDATE users SET username = NULL, created_at = 'x' WHERE id = 1",
            f"{ERASING} UPDATE users SET telegram_id = 'erased-3', username = NULL WHERE id = 3",
        ],
    ),
    "users_refuse_delete": Rule(
        "users are never deleted",
        ["INSERT INTO users (id, telegram_id) VALUES (5, '5'); DELETE FROM users WHERE id = 5"],
        ["UPDATE users SET username = 'x' WHERE id = 1"],
    ),
    "user_deposits_need_transaction": Rule(
        "a balance changes only together with its transaction",
        [
            f"{_MOVED} balance = 5000 WHERE user_id = 1",
            f"{_MOVED} balance = 0, version = 3 WHERE user_id = 1",
            f"{_UNMOVED} {_NEW} (1, 'a', 'credit', 10, 'confirmed', 1150, 1160, 3);"
            f" {_MOVED} id = 99, balance = 1160, version = 3 WHERE user_id = 1",
            f"{_UNCHECKED} DROP TRIGGER users_open_account; INSERT INTO users (id, telegram_id) VALUES (5, '5');"
            f" {_NEW} (5, 'a', 'credit', 10, 'confirmed', 1150, 1160, 3);"
            f" {_MOVED} user_id = 5, balance = 1160, version = 3 WHERE user_id = 1",
            # A version that is not the next one, with a transaction that fits otherwise.
            f"{_UNCHECKED} {_NEW} (1, 'a', 'credit', 10, 'confirmed', 1150, 1160, 4);"
            f" {_MOVED} balance = 1160, version = 4 WHERE user_id = 1",
            f"INSERT INTO users (id, telegram_id) VALUES (5, '5'); {_STARTS_ANEW}"
            f" {_MOVED} balance = 10, version = 1 WHERE user_id = 5",
            # The next version, with a transaction that does not fit in one thing.
            f"INSERT INTO users (id, telegram_id) VALUES (5, '5'); {_STARTS_ANEW}"
            f" {_MOVED} balance = 10, version = 3 WHERE user_id = 5",
            f"{_UNCHECKED} {_NEW} (1, 'a', 'credit', 10, 'confirmed', 1150, 1160, 4);"
            f" {_MOVED} balance = 1160, version = 3 WHERE user_id = 1",
            *(
                f"{_UNCHECKED} {_NEW} (1, 'a', 'credit', 10, '{status}', {before}, {after}, 3);"
                f" {_MOVED} balance = 1160, version = 3 WHERE user_id = 1"
                for status, before, after in (
                    ("pending", 1150, 1160),
                    ("cancelled", 1150, 1160),
                    ("confirmed", 1149, 1160),
                    ("confirmed", 1151, 1160),
                    ("confirmed", 1150, 1159),
                    ("confirmed", 1150, 1161),
                )
            ),
            *(
                f"{_UNMOVED} INSERT INTO users (id, telegram_id) VALUES (5, '5'), (6, '6'), (7, '7');"
                f" {_NEW} (6, 'a', 'credit', 10, 'confirmed', 0, 10, 1);"
                f" {_MOVED} balance = 10, version = 1 WHERE user_id = {user}"
                for user in (5, 7)
            ),
        ],
        [
            Case(
                f"{_NEW} (1, 'a', 'credit', 10, 'confirmed', 1150, 1160, 3)",
                "SELECT balance = 1160 AND version = 3 FROM user_deposits WHERE user_id = 1",
            ),
        ],
        untouchable="user_id = 1",
    ),
    "user_deposits_open_empty": Rule(
        "an account opens once, for a user, with a balance of 0",
        [
            *_tries(
                "INSERT OR REPLACE INTO user_deposits (id, user_id, balance, version) VALUES",
                """
                NULL, 5, 1, 0
                NULL, 5, -1, 0
                NULL, 5, 0, 1
                NULL, 5, 0, -1
                NULL, 8, 0, 0
                99, 1, 0, 0
                19, 5, 0, 0
                """,
                before="DROP TRIGGER users_open_account; INSERT INTO users (id, telegram_id) VALUES (5, '5');",
            ),
        ],
        [
            "INSERT INTO users (id, telegram_id) VALUES (5, '5')",
            *_tries(
                "INSERT INTO user_deposits (id, user_id, balance, version) VALUES",
                "5, 5, 0, 0\n 99, 5, 0, 0",
                before="DROP TRIGGER users_open_account; INSERT INTO users (id, telegram_id) VALUES (5, '5');",
            ),
        ],
    ),
    "user_deposits_refuse_delete": Rule(
        "accounts are never deleted",
        ["DELETE FROM user_deposits WHERE user_id = 3"],
        [f"{_NEW} (1, 'a', 'credit', 10, 'confirmed', 1150, 1160, 3)"],
    ),
    "deposit_transactions_refuse_delete": Rule(
        "transactions are never deleted",
        ["DELETE FROM deposit_transactions WHERE id = 24"],
        [f"{_CONFIRM} status = 'cancelled' WHERE id = 22"],
    ),
    "deposit_transactions_refuse_replace": Rule(
        "transactions are never replaced",
        ["INSERT OR REPLACE INTO deposit_transactions (id, user_id, type, amount) VALUES (24, 1, 'deposit', 1)"],
        [
            "INSERT INTO deposit_transactions (id, user_id, type, amount) VALUES (40, 1, 'deposit', 1)",
            "INSERT INTO deposit_transactions (user_id, type, amount) VALUES (1, 'deposit', 1)",
        ],
    ),
    "deposit_transactions_move_forwards": Rule(
        "a transaction keeps what it says and its status only moves forwards",
        [
            *each("deposit_transactions", "id = 22", "", _SAID, beside="status = 'cancelled'"),
            *each(
                "deposit_transactions",
                "id = 22",
                "",
                "depositor_name = 'x'; depositor_name = NULL; description = 'x'; description = NULL",
                beside="status = 'cancelled'",
            ),
            *each("deposit_transactions", "id = 33", "", "depositor_name = 'x'", beside="status = 'cancelled'"),
            *each("deposit_transactions", "id = 24", "", "reference = 'x'; description = 'x'; status = 'pending'"),
            *each("deposit_transactions", "id = 22", "", "status = 'pending'; status = 'other'; status = 'registered'"),
            *each("deposit_transactions", "id = 22", "", "status = 'released'"),
            *(
                "INSERT INTO deposit_transactions (user_id, type, amount, status) VALUES (1, 'a', 10, 'refunded');"
                f" {_CONFIRM} {change} WHERE id = {_LATEST}"
                for change in (
                    "status = 'cancelled'",
                    "status = 'confirmed', balance_before = 1150, balance_after = 1160, version = 3",
                )
            ),
            *each(
                "deposit_transactions", "id = 23", "", "status = 'pending'; status = 'cancelled'; status = 'expired'"
            ),
            *each(
                "deposit_transactions", "id = 24", "", "status = 'pending'; status = 'expired'; status = 'cancelled'"
            ),
            *each(
                "deposit_transactions",
                "id = 90",
                "",
                "status = 'cancelled'; status = 'expired'; status = 'pending'; status = 'confirmed'",
            ),
            f"{_CONFIRM} status = 'confirmed', balance_before = 1150, balance_after = 1350, version = 3 WHERE id = 24",
            # In an erasure.
            *each(
                "deposit_transactions",
                "id = 27",
                f"{ERASING} DROP TRIGGER deposit_transactions_continue_account_update;",
                f"{_SAID.replace('501', '701')}; description = 'x'; status = 'expired'; version = 2; version = NULL;"
                " confirmed_at = 'x'; confirmed_at = NULL; balance_before = 1; balance_before = NULL;"
                " balance_after = 1; balance_after = NULL",
                beside="depositor_name = NULL",
            ),
            f"{ERASING} {_CONFIRM} depositor_name = NULL, description = 'x' WHERE id = 28",
            f"{ERASING} {_CONFIRM} depositor_name = 'x' WHERE id = 27",
            f"{ERASING} {_CONFIRM} description = NULL WHERE id = 27",
            f"{ERASING} {_CONFIRM} depositor_name = NULL WHERE id = 21",
            f"{ERASING} {_CONFIRM} depositor_name = NULL WHERE id = 90",
            f"{_CONFIRM} depositor_name = NULL WHERE id = 25",
            f"{ERASING} {FINISHED} {_CONFIRM} depositor_name = NULL WHERE id = 27",
        ],
        [
            *each("deposit_transactions", "id = 22", "", "status = 'cancelled'; status = 'expired'"),
            *each("deposit_transactions", "id = 33", "", "status = 'cancelled'; status = 'expired'"),
            *(
                f"{_CONFIRM} status = 'confirmed', balance_before = 1150, balance_after = {after}, version = 3,"
                f" confirmed_at = 'x' WHERE id = {row}"
                for row, after in ((22, 1650), (23, 1450), (32, 1080), (33, 1220))
            ),
            f"{ERASING} {_CONFIRM} depositor_name = NULL, match_name = '' WHERE id = 27",
            f"{ERASING} {_CONFIRM} depositor_name = NULL, description = NULL, match_name = '' WHERE id = 27",
            f"{ERASING} {_CONFIRM} depositor_name = NULL WHERE id = 28",
            f"{ERASING_BOTS} {_CONFIRM} depositor_name = NULL WHERE id = 90",
        ],
        untouchable="id = 22",
    ),
    "deposit_transactions_continue_account_insert": Rule(
        "a confirmed transaction continues the account where it stands",
        _tries(_NEW, _CREDITS),
        [
            *_tries(
                _NEW,
                """
                1, 'a', 'credit', 1, 'confirmed', 1150, 1151, 3
                1, 'a', 'debit', 1, 'confirmed', 1150, 1149, 3
                1, 'a', 'debit', 1150, 'confirmed', 1150, 0, 3
                2, 'a', 'credit', 10, 'confirmed', 500, 510, 4
                1, 'a', 'credit', 10, 'pending', NULL, NULL, NULL
                1, 'a', 'credit', 10, 'cancelled', NULL, NULL, NULL
                """,
            ),
        ],
    ),
    "deposit_transactions_continue_account_update": Rule(
        "a confirmed transaction continues the account where it stands",
        [
            *(
                f"{_CONFIRM} status = {status}, balance_before = {before}, balance_after = {after},"
                f" version = {version} WHERE id = {row}"
                for row, status, before, after, version in (
                    (22, "'confirmed'", "NULL", "NULL", "NULL"),
                    (22, "'expired'", 1150, 1650, 3),
                    (22, "'expired'", 1150, "NULL", 3),
                    (22, "'cancelled'", 1150, 1650, 3),
                    (22, "'confirmed'", 500, 1000, 4),
                    (28, "'confirmed'", 1150, 1230, 3),
                    (22, "'confirmed'", 1149, 1650, 3),
                    (22, "'confirmed'", 1151, 1650, 3),
                    (22, "'confirmed'", 1150, 1650, 4),
                    (22, "'confirmed'", 1150, 1650, 2),
                    (31, "'confirmed'", 1150, 1150, 3),
                    (22, "'confirmed'", 1150, 1649, 3),
                    (22, "'confirmed'", 1150, 1651, 3),
                    (22, "'confirmed'", 1150, 650, 3),
                    (32, "'confirmed'", 1150, 1220, 3),
                    (22, "'confirmed'", "NULL", 1650, 3),
                    (22, "'confirmed'", 1150, "NULL", 3),
                    (22, "'confirmed'", 1150, 1650, "NULL"),
                )
            ),
            *each(
                "deposit_transactions",
                "id = 27",
                _FREE,
                "status = 'pending'; version = 2; version = NULL; amount = 701; balance_before = 1;"
                " balance_before = NULL; balance_after = 701; balance_after = NULL",
            ),
            *each("deposit_transactions", "id = 90", _FREE, "amount = 51; balance_before = 1; balance_after = 51"),
        ],
        [
            *(
                f"{_CONFIRM} status = 'confirmed', balance_before = 1150, balance_after = {after}, version = 3"
                f" WHERE id = {row}"
                for row, after in ((22, 1650), (32, 1080))
            ),
            f"{_NEW} (1, 'a', 'credit', 1, 'pending', NULL, NULL, NULL); {_CONFIRM} status = 'confirmed',"
            f" balance_before = 1150, balance_after = 1151, version = 3 WHERE id = {_LATEST}",
            *each("deposit_transactions", "id = 22", "", "status = 'cancelled'; status = 'expired'"),
            # What is confirmed is what the row says then.
            *(
                f"{_FREE} {_CONFIRM} {change}, status = 'confirmed', balance_before = {before},"
                f" balance_after = {after}, version = {version} WHERE id = {row}"
                for row, change, before, after, version in (
                    (22, "user_id = 3", 700, 1200, 2),
                    (31, "amount = 10", 1150, 1160, 3),
                    (22, "direction = 'debit'", 1150, 650, 3),
                    (32, "direction = 'credit'", 1150, 1220, 3),
                )
            ),
            f"{ERASING} {_CONFIRM} depositor_name = NULL WHERE id = 27",
            f"{ERASING_BOTS} {_CONFIRM} depositor_name = NULL WHERE id = 90",
        ],
    ),
    "deposit_transactions_move_balance_insert": Rule(
        None,
        [],
        [
            *(
                Case(
                    f"{_NEW} ({user}, 'a', 'credit', 10, 'confirmed', {before}, {before} + 10, {version})",
                    f"SELECT balance = {before} + 10 AND version = {version} FROM user_deposits WHERE user_id = {user}",
                )
                for user, before, version in ((1, 1150, 3), (2, 500, 4), (3, 700, 2))
            ),
            f"{_NEW} (1, 'a', 'credit', 10, 'pending', NULL, NULL, NULL)",
            f"{_NEW} (1, 'a', 'credit', 10, 'pending', 5, 15, NULL)",
        ],
    ),
    "deposit_transactions_move_balance_update": Rule(
        None,
        [],
        [
            *(
                Case(
                    f"{_CONFIRM} status = 'confirmed', balance_before = {before}, balance_after = {after},"
                    f" version = {version} WHERE id = {row}",
                    f"SELECT balance = {after} AND version = {version} FROM user_deposits WHERE user_id = {user}",
                )
                for row, user, before, after, version in ((22, 1, 1150, 1650, 3), (28, 3, 700, 780, 2))
            ),
            Case(
                f"{_NEW} (1, 'a', 'credit', 10, 'pending', 5, 15, NULL);"
                f" {_CONFIRM} status = 'confirmed', balance_before = 1150, balance_after = 1160, version = 3"
                f" WHERE id = {_LATEST}",
                "SELECT balance = 1160 AND version = 3 FROM user_deposits WHERE user_id = 1",
            ),
            f"{_CONFIRM} status = 'cancelled', balance_after = 5 WHERE id = 22",
            f"{_CONFIRM} status = 'cancelled' WHERE id = 22",
            f"{ERASING} {_CONFIRM} depositor_name = NULL WHERE id = 27",
        ],
    ),
    "deposit_transactions_reverse_whole": Rule(
        "a reversal takes back a confirmed transaction whole",
        _tries(
            _REVERSAL,
            """
            1, 'reversal', 'debit', 1000, 'confirmed', 1150, 150, 3, 20
            1, 'reversal', 'debit', 1000, 'confirmed', 1150, 150, 3, 99
            3, 'reversal', 'debit', 150, 'confirmed', 700, 550, 2, 34
            1, 'reversal', 'debit', 700, 'confirmed', 1150, 450, 3, 27
            1, 'reversal', 'debit', 999, 'confirmed', 1150, 151, 3, 21
            1, 'reversal', 'debit', 1001, 'confirmed', 1150, 149, 3, 21
            1, 'reversal', 'credit', 1000, 'confirmed', 1150, 2150, 3, 21
            1, 'reversal', 'debit', 500, 'confirmed', 1150, 650, 3, 22
            1, 'reversal', 'debit', 200, 'confirmed', 1150, 950, 3, 24
            1, 'reversal', 'debit', 1000, 'pending', NULL, NULL, NULL, 21
            1, 'reversal', 'debit', 1000, 'cancelled', NULL, NULL, NULL, 21
            """,
        ),
        [
            f"{_REVERSAL} (1, 'reversal', 'debit', 1000, 'confirmed', 1150, 150, 3, 21)",
            f"{_REVERSAL} (2, 'reversal', 'credit', 100, 'confirmed', 500, 600, 4, 29)",
            f"{_REVERSAL} (1, 'debit', 'debit', 77, 'confirmed', 1150, 1073, 3, NULL)",
        ],
    ),
    "deposit_transactions_keep_reversal": Rule(
        "what a transaction reverses never changes",
        [
            f"{_CONFIRM} reverses_id = 21, status = 'cancelled' WHERE id = 22",
            *(
                f"{ERASING} {_REVERSAL} (3, 'reversal', 'debit', 700, 'confirmed', 700, 0, 2, 27);"
                f" {_CONFIRM} depositor_name = NULL, reverses_id = {other} WHERE id = {_LATEST}"
                for other in ("NULL", "28")
            ),
        ],
        [
            f"{_CONFIRM} status = 'cancelled' WHERE id = 22",
            f"{ERASING} {_REVERSAL} (3, 'reversal', 'debit', 700, 'confirmed', 700, 0, 2, 27);"
            f" {_CONFIRM} depositor_name = NULL, reverses_id = 27 WHERE id = {_LATEST}",
        ],
    ),
    "user_domains_move_forwards": Rule(
        "a domain purchase keeps what it says and its status only moves forwards",
        [
            *each("user_domains", "id = 53", "", _DOMAIN_SAID, beside="status = 'registered'"),
            *each(
                "user_domains",
                "id = 51",
                "",
                "transaction_id = NULL; transaction_id = 29",
                beside="status = 'registered'",
            ),
            *each(
                "user_domains",
                "id = 53",
                "",
                "status = 'pending'; status = 'active'; status = 'confirmed'; status = 'cancelled'; status = 'other'",
            ),
            *each(
                "user_domains",
                "id IN (52, 54, 55)",
                "",
                "status = 'pending'; status = 'registered'; status = 'released'; status = 'expired'; status = 'active'",
            ),
            *(f"UPDATE user_domains SET status = 'registered' WHERE id = {row}" for row in (52, 54, 55)),
        ],
        [
            *each("user_domains", "id = 53", "", "status = 'registered'; status = 'released'; status = 'expired'"),
            "UPDATE user_domains SET status = 'registered', registered_at = 'x', expires_at = 'x' WHERE id = 53",
            *each("user_domains", "id = 90", "", f"{_DOMAIN_SAID}; status = 'other'"),
        ],
        untouchable="id = 52",
    ),
    "user_domains_refuse_delete": Rule(
        "domain purchases are never deleted",
        ["DELETE FROM user_domains WHERE id = 54"],
        ["DELETE FROM user_domains WHERE id = 90"],
    ),
    "deposit_transactions_keep_payments": Rule(
        "what a held name was paid with is not taken back",
        [
            f"{_REVERSAL} (2, 'reversal', 'credit', 400, 'confirmed', 500, 900, 4, 26)",
            f"{_REVERSAL} (2, 'balance_change', 'credit', 400, 'confirmed', 500, 900, 4, 26)",
            f"{_PAID_AGAIN} {_REVERSAL} (2, 'reversal', 'credit', 400, 'confirmed', 500, 900, 6, {_LATEST})",
        ],
        [
            _REFUNDED.removesuffix(";"),
            _PAID_AGAIN.removesuffix(";"),
            f"{_PAID_AGAIN} {_REVERSAL} (2, 'domain_refund', 'credit', 400, 'confirmed', 500, 900, 6, {_LATEST})",
            f"{_REVERSAL} (2, 'reversal', 'credit', 100, 'confirmed', 500, 600, 4, 29)",
            f"{_NEW} (2, 'a', 'credit', 400, 'confirmed', 500, 900, 4)",
            "UPDATE user_domains SET status = 'registered' WHERE id = 51;"
            f" {_REVERSAL} (2, 'reversal', 'credit', 400, 'confirmed', 500, 900, 4, 26)",
            *(
                f"{_REFUNDED} UPDATE user_domains SET status = '{status}' WHERE id = 51;"
                f" {_REVERSAL} (2, 'reversal', 'debit', 400, 'confirmed', 900, 500, 5, {_LATEST});"
                f" {_REVERSAL} (2, 'reversal', 'credit', 400, 'confirmed', 500, 900, 6, {_LATEST})"
                for status in ("released", "expired")
            ),
            # Other rows' reversals are no part of the chain.
            f"{_PAID_AGAIN} {_REVERSAL} (2, 'reversal', 'credit', 100, 'confirmed', 500, 600, 6, 29)",
            f"{_PAID_AGAIN} {_NEW} (2, 'debit', 'debit', 7, 'confirmed', 500, 493, 6);"
            f" {_REVERSAL} (2, 'reversal', 'credit', 7, 'confirmed', 493, 500, 7, {_LATEST})",
            # The names of other users are none of this user's.
            *(
                f"INSERT INTO user_domains (user_id, domain, ascii_name, status, transaction_id)"
                f" VALUES ({user}, 'z.kr', 'z.kr', 'pending', 29);"
                f" {_REVERSAL} (2, 'reversal', 'credit', 100, 'confirmed', 500, 600, 4, 29)"
                for user in (1, 3)
            ),
        ],
    ),
    "user_domains_keep_their_price": Rule(
        "a name is registered while its price is taken, and given up when it is back",
        [
            *each("user_domains", "id = 51", "", "status = 'released'; status = 'expired'"),
            f"{_REFUNDED} UPDATE user_domains SET status = 'registered' WHERE id = 51",
            f"{_PAID_AGAIN} UPDATE user_domains SET status = 'released' WHERE id = 51",
            f"{_REVERSAL} (2, 'reversal', 'credit', 100, 'confirmed', 500, 600, 4, 29); {_FREE_NAME}"
            " UPDATE user_domains SET transaction_id = 29, status = 'released' WHERE id = 51",
        ],
        [
            "UPDATE user_domains SET status = 'registered' WHERE id = 51",
            *each("user_domains", "id = 51", _REFUNDED, "status = 'released'; status = 'expired'"),
            f"{_PAID_AGAIN} UPDATE user_domains SET status = 'registered' WHERE id = 51",
            *each("user_domains", "id = 53", "", "status = 'registered'; status = 'released'"),
            # Other transactions are no part of the chain.
            *(
                f"{other}; UPDATE user_domains SET status = 'registered' WHERE id = 51"
                for other in (
                    f"{_NEW} (2, 'a', 'credit', 1, 'pending', NULL, NULL, NULL)",
                    f"{_REVERSAL} (2, 'reversal', 'credit', 100, 'confirmed', 500, 600, 4, 29)",
                    f"{_REVERSAL} (1, 'reversal', 'debit', 1000, 'confirmed', 1150, 150, 3, 21)",
                )
            ),
            f"{_REFUNDED} UPDATE user_domains SET status = 'expired' WHERE id = 51; {_FREE_NAME}"
            " UPDATE user_domains SET status = 'registered' WHERE id = 51",
            f"{_FREE_NAME} UPDATE user_domains SET transaction_id = 29, status = 'released' WHERE id = 53",
            *(
                f"UPDATE user_domains SET status = 'registered' WHERE id = 51;"
                f" {_FREE_NAME} UPDATE user_domains SET status = '{status}' WHERE id = 51"
                for status in ("released", "expired")
            ),
            f"{_FREE_NAME} UPDATE user_domains SET registered_at = 'x' WHERE id = 51",
        ],
    ),
    "deposit_transactions_keep_match_name": Rule(
        "the name that a deposit is matched by never changes",
        [
            *each(
                "deposit_transactions",
                "id = 22",
                "",
                "match_name = 'x'; match_name = ''; match_name = NULL",
                beside="status = 'cancelled'",
            ),
            *each(
                "deposit_transactions",
                "id = 27",
                ERASING,
                "match_name = 'x'; match_name = NULL",
                beside="depositor_name = NULL",
            ),
            f"{ERASING_BOTS} {_CONFIRM} depositor_name = NULL, match_name = '' WHERE id = 91",
            f"{ERASING} {_CONFIRM} match_name = '', status = 'cancelled' WHERE id = 22",
            f"{ERASING} INSERT INTO deposit_transactions (user_id, type, amount, match_name) VALUES (9, 'a', 1, 'x');"
            f" {_CONFIRM} match_name = '', status = 'cancelled' WHERE id = {_LATEST}",
            f"{ERASING} {FINISHED} {_CONFIRM} match_name = '', status = 'cancelled' WHERE id = 28",
        ],
        [
            f"{_CONFIRM} status = 'cancelled' WHERE id = 22",
            f"{ERASING} {_CONFIRM} match_name = '', depositor_name = NULL WHERE id = 27",
            f"{ERASING_BOTS} {_CONFIRM} depositor_name = NULL WHERE id = 91",
        ],
    ),
    "bank_notifications_keep_what_they_say": Rule(
        "a bank notification keeps what it says",
        [
            *each("bank_notifications", "id = 43", "", _LINE_SAID, beside=_MATCHED_WITH_25),
            *each("bank_notifications", "id = 42", "", _LINE_NAMES, beside=_MATCHED_WITH_25),
            *each("bank_notifications", "id = 42", "", _LINE_NAMES),
            f"{_MATCH} 90, bank_name = 'x' WHERE id = 91",
            f"{_MATCH} 90, depositor_name = 'x' WHERE id = 91",
            f"{_MATCH} 90, raw_message = 'x' WHERE id = 91",
            f"{_MATCH} 90, match_name = 'x' WHERE id = 91",
            f"{_MATCH} 25, amount = 1000 WHERE id = 46",
            f"{_MATCH} 90, amount = 50 WHERE id = 42",
            # In an erasure.
            *each(
                "bank_notifications",
                "id = 44",
                f"{_UNTIED} {_UNMATCHED_ONCE} {ERASING}",
                f"{_LINE_SAID}; amount = 701; status = 'unmatched'; closed_as = 'cancelled';"
                " matched_transaction_id = NULL; matched_transaction_id = 21",
                beside=_FORGET_LINE,
            ),
            *each(
                "bank_notifications",
                "id = 44",
                ERASING,
                "raw_message = NULL, match_name = ''; depositor_name = NULL, match_name = ''",
            ),
            *each(
                "bank_notifications",
                "id = 44",
                ERASING,
                "match_name = 'lee'; match_name = NULL",
                beside="depositor_name = NULL, raw_message = NULL",
            ),
            f"{ERASING_BOTS} UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = 90",
            f"{ERASING} UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = 41",
            f"{ERASING} UPDATE bank_notifications SET depositor_name = NULL, raw_message = NULL WHERE id = 90",
            f"{ERASING} {FINISHED} UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = 44",
            f"UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = 44",
            f"{ERASING_BOTS} UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = 45",
            # Of a line that was freed from another user's deposit, or is matched with one since.
            f"{_FREED} {_ERASING_1} UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = 44",
            *(
                f"{_FREED} {ERASING} UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = {line}"
                for line in (42, 45)
            ),
            f"{_FREED} {_NEW} (1, 'deposit', 'credit', 700, 'confirmed', 1150, 1850, 3); {_MATCH}"
            f" {_LATEST} WHERE id = 44;"
            f" {ERASING} UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = 44",
        ],
        [
            f"{_MATCH} 25 WHERE id = 42",
            f"{_MATCH} 90, matched_by = 'x', matched_at = 'x' WHERE id = 45",
            f"{_MATCH} 90 WHERE id = 91",
            f"{ERASING} UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = 44",
            f"{ERASING_BOTS} UPDATE bank_notifications SET depositor_name = NULL, raw_message = NULL WHERE id = 90",
            f"{ERASING} {_NEW} (3, 'deposit', 'credit', 5, 'confirmed', 700, 705, 2);"
            " INSERT INTO bank_notifications (amount, status, match_method, depositor_name, match_name,"
            f" matched_transaction_id) VALUES (5, 'matched', 'manual', 'lee', 'lee', {_LATEST});"
            f" UPDATE bank_notifications SET {_FORGET_LINE} WHERE amount = 5",
            f"{_FREED} {ERASING} UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = 44",
            f"{_FREED} {_DISMISSED_44} {ERASING} UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = 44",
            f"{_EVENT} (42, 'dismissed', NULL, 'ops', 'x'); UPDATE bank_notifications SET closed_as ="
            f" 'dismissed' WHERE id = 42",
        ],
    ),
    "bank_notifications_match_once": Rule(
        "a bank notification is matched once, and closed, opened and freed by its last event",
        [
            "UPDATE bank_notifications SET matched_transaction_id = 25 WHERE id = 42",
            "UPDATE bank_notifications SET matched_transaction_id = 25, status = 'ambiguous' WHERE id = 42",
            "UPDATE bank_notifications SET status = 'matched' WHERE id = 42",
            "UPDATE bank_notifications SET status = 'ambiguous' WHERE id = 42",
            "UPDATE bank_notifications SET status = 'unmatched' WHERE id = 43",
            "UPDATE bank_notifications SET match_method = 'manual' WHERE id = 42",
            "UPDATE bank_notifications SET matched_by = 'x' WHERE id = 42",
            "UPDATE bank_notifications SET matched_at = 'x' WHERE id = 42",
            f"{_MATCH} 25, closed_as = 'dismissed' WHERE id = 42",
            "UPDATE bank_notifications SET matched_transaction_id = 25 WHERE id = 41",
            *each(
                "bank_notifications",
                "id = 41",
                "",
                "match_method = 'manual'; match_method = NULL; matched_by = 'x'; matched_by = NULL; matched_at = 'x';"
                " matched_at = NULL; closed_as = 'dismissed'; status = 'unmatched'",
            ),
            "DROP TRIGGER bank_notifications_need_deposit_insert;"
            " INSERT INTO bank_notifications (amount, status, match_name) VALUES (1000, 'matched', 'x');"
            f" {_MATCH} 25 WHERE id = (SELECT MAX(id) FROM bank_notifications)",
            f"DROP TRIGGER bank_notifications_need_deposit_insert; {_LINE} (1000, 'unmatched', 21, NULL);"
            f" {_MATCH} 25 WHERE id = (SELECT MAX(id) FROM bank_notifications)",
            # Closed, and opened again.
            f"{_CLOSED} 'dismissed' WHERE id = 42",
            f"{_CLOSED} 'cancelled' WHERE id = 42",
            f"{_EVENT} (42, 'dismissed'{_BY}; {_CLOSED} 'cancelled' WHERE id = 42",
            f"{_EVENT} (43, 'dismissed'{_BY}; {_CLOSED} 'dismissed' WHERE id = 42",
            f"{_EVENT} (42, 'told'{_BY}; {_CLOSED} 'dismissed' WHERE id = 42",
            f"{_EVENT} (44, 'cancelled'{_BY}; {_CLOSED} 'cancelled' WHERE id = 44",
            *each(
                "bank_notifications",
                "id = 42",
                f"{_UNTIED} {_EVENT} (42, 'dismissed'{_BY};",
                "status = 'ambiguous'; matched_transaction_id = 25; match_method = 'manual'; matched_by = 'x';"
                " matched_at = 'x'",
                beside="closed_as = 'dismissed'",
            ),
            f"{_EVENT} (43, 'dismissed'{_BY}; {_CLOSED} 'dismissed', status = 'unmatched' WHERE id = 43",
            f"{_EVENT} (44, 'cancelled'{_BY}; {_CLOSED} 'cancelled', {_NOT_MATCHED} WHERE id = 44",
            f"{_DISMISSED} {_CLOSED} NULL WHERE id = 42",
            f"{_DISMISSED} {_CLOSED} 'cancelled' WHERE id = 42",
            f"{_DISMISSED} {_EVENT} (42, 'cancelled'{_BY}; {_CLOSED} NULL WHERE id = 42",
            f"{_DISMISSED} {_MATCH} 25 WHERE id = 42",
            f"{_DISMISSED} {_MATCH} 25, closed_as = NULL WHERE id = 42",
            f"{_CANCELLED} {_MATCH} 25 WHERE id = 42",
            f"{_CANCELLED} {_CLOSED} NULL WHERE id = 42",
            # Freed.
            f"{_FREE_44}",
            f"{_REVERSED} {_FREE_44}",
            f"{_FREED} {_NEW} (1, 'deposit', 'credit', 700, 'confirmed', 1150, 1850, 3); {_MATCH}"
            f" {_LATEST} WHERE id = 44;"
            f" {_FREE_44}",
            f"{_FREED} INSERT INTO deposit_transactions (id, {_TRANSACTION})"
            " VALUES (20, 1, 'deposit', 'credit', 700, 'confirmed', 1150, 1850, 3);"
            f" {_MATCH} 20 WHERE id = 44; {_FREE_44}",
            f"{_REVERSED} {_EVENT_FREED}; {_UNMATCH}, closed_as = 'cancelled' WHERE id = 44",
            f"{_REVERSED} {_EVENT_FREED}; {_UNMATCH}, closed_as = 'dismissed' WHERE id = 44",
            f"{_EVENT} (44, 'cancelled'{_BY}; {_REVERSED} {_EVENT_FREED}; {_FREE_44}",
            f"{_REVERSED} {_EVENT_FREED}; {_EVENT} (44, 'cancelled'{_BY}; {_UNMATCH}, closed_as ="
            f" 'cancelled' WHERE id = 44",
            *(
                f"{_REVERSED} {_EVENT_FREED}; UPDATE bank_notifications SET {change} WHERE id = 44"
                for change in (
                    f"status = 'ambiguous', {_NOT_MATCHED}",
                    f"status = 'matched', {_NOT_MATCHED}",
                    f"status = 'x', {_NOT_MATCHED}",
                    *(
                        f"status = 'unmatched', {_NOT_MATCHED.replace(f'{column} = NULL', f'{column} = {column}')}"
                        for column in ("matched_transaction_id", "match_method", "matched_by", "matched_at")
                    ),
                )
            ),
        ],
        [
            f"{_MATCH} 25 WHERE id = 42",
            f"{_MATCH} 25, matched_by = 'x', matched_at = 'x' WHERE id = 43",
            *(
                f"{_EVENT} ({line}, '{kind}'{_BY}; {_CLOSED} '{kind}' WHERE id = {line}"
                for line in (42, 43)
                for kind in ("dismissed", "cancelled")
            ),
            *(
                f"{before} {_EVENT} (42, 'told'{_BY}; {after}"
                for before, after in (
                    (f"{_EVENT} (42, 'dismissed'{_BY};", f"{_CLOSED} 'dismissed' WHERE id = 42"),
                    (f"{_DISMISSED} {_EVENT} (42, 'reopened'{_BY};", f"{_CLOSED} NULL WHERE id = 42"),
                )
            ),
            f"{_DISMISSED} {_EVENT} (42, 'reopened'{_BY}; {_CLOSED} NULL WHERE id = 42",
            f"{_DISMISSED} {_EVENT} (42, 'cancelled'{_BY}; {_CLOSED} 'cancelled' WHERE id = 42",
            f"{_DISMISSED} {_REOPENED} {_MATCH} 25 WHERE id = 42",
            f"{_REVERSED} {_EVENT_FREED}; {_FREE_44}",
            f"{_EVENT} (42, 'dismissed'{_BY}; {_EVENT} (41, 'cancelled'{_BY}; {_CLOSED} 'dismissed' WHERE id = 42",
            *(f"{_REVERSED} {_EVENT_FREED}; {_EVENT} ({other}, 'cancelled'{_BY}; {_FREE_44}" for other in (42, 46)),
            f"{_REVERSED} {_EVENT_FREED}; {_EVENT} (44, 'told'{_BY}; {_FREE_44}",
            f"{_EVENT} (44, 'cancelled'{_BY}; {_REVERSED} {_EVENT_FREED}; {_UNMATCH}, closed_as ="
            f" 'cancelled' WHERE id = 44",
            f"{_FREED} {_NEW} (1, 'deposit', 'credit', 700, 'confirmed', 1150, 1850, 3); {_MATCH}"
            f" {_LATEST} WHERE id = 44",
            f"{ERASING} UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = 44",
        ],
    ),
    "bank_notifications_begin_open": Rule(
        "a bank notification is closed by an event alone",
        [
            f"INSERT INTO bank_notifications (amount, closed_as) VALUES (5, '{word}')"
            for word in ("dismissed", "cancelled")
        ],
        ["INSERT INTO bank_notifications (amount) VALUES (5)"],
    ),
    "bank_notification_events_fit_their_line": Rule(
        "an event of a bank notification fits the state that it is in",
        [
            *_tries(
                _EVENT,
                """
                99, 'told', NULL, 'x', 'x'
                1, 'told', NULL, 'x', 'x'
                41, 'dismissed', NULL, 'x', 'x'
                41, 'reopened', NULL, 'x', 'x'
                42, 'reopened', NULL, 'x', 'x'
                41, 'freed', 21, 'x', 'x'
                42, 'freed', 25, 'x', 'x'
                42, 'x', NULL, 'x', 'x'
                42, 'a', NULL, 'x', 'x'
                """,
            ),
            *(f"{_DISMISSED} {_EVENT} (42, '{kind}'{_BY}" for kind in ("dismissed", "x")),
            f"{_EVENT} (42, 'cancelled'{_BY}; {_EVENT} (42, 'cancelled'{_BY}",
            *(f"{_REVERSED} {_EVENT} (44, '{kind}', 27, 'x', 'x')" for kind in ("dismissed", "reopened", "told")),
            f"{_REVERSED} {_EVENT} (44, 'freed', NULL, 'x', 'x')",
            f"{_REVERSED_21} {_EVENT} (44, 'freed', 21, 'x', 'x')",
            f"{_REVERSED_21} {_EVENT_FREED}",
            *(f"{_CANCELLED} {_EVENT} (42, '{kind}'{_BY}" for kind in ("dismissed", "reopened", "cancelled")),
            f"{_EVENT} (44, 'cancelled'{_BY}; {_EVENT} (44, 'cancelled'{_BY}",
            # Freed from another deposit than it is matched with, from one that stands, and what the bot had matched.
            f"{_REVERSED} {_EVENT} (44, 'freed', 21, 'x', 'x')",
            f"{_REVERSED} {_EVENT} (41, 'freed', 27, 'x', 'x')",
            f"{_REVERSED} {_EVENT} (41, 'freed', 21, 'x', 'x')",
            f"{_REVERSED} {_EVENT} (42, 'freed', 27, 'x', 'x')",
            f"{_REVERSAL} (9, 'reversal', 'debit', 50, 'confirmed', 50, 0, 1, 90); {_EVENT} (90,"
            f" 'freed', 90, 'x', 'x')",
            f"{_FREED} {_EVENT_FREED}",
        ],
        [
            *(f"{_EVENT} ({line}, 'told'{_BY}" for line in (41, 42, 43, 49, 90, 91)),
            f"{_DISMISSED} {_EVENT} (42, 'told'{_BY}",
            *(f"{_EVENT} ({line}, 'dismissed'{_BY}" for line in (42, 43, 49, 91)),
            f"{_DISMISSED} {_EVENT} (42, 'reopened'{_BY}",
            *(f"{_EVENT} ({line}, 'cancelled'{_BY}" for line in (41, 42, 43, 91)),
            f"{_DISMISSED} {_EVENT} (42, 'cancelled'{_BY}",
            f"{_CANCELLED} {_EVENT} (43, 'cancelled'{_BY}",
            f"{_CANCELLED} {_EVENT} (41, 'cancelled'{_BY}",
            f"{_EVENT} (44, 'told'{_BY}; {_EVENT} (44, 'cancelled'{_BY}",
            f"{_REVERSED} {_EVENT_FREED}",
            f"{_EVENT} (44, 'cancelled'{_BY}; {_REVERSED} {_EVENT_FREED}",
            f"{_FREED} {_EVENT} (44, 'dismissed'{_BY}",
        ],
    ),
    "bank_notification_events_refuse_update": Rule(
        "events of bank notifications are never updated",
        [
            *each(
                "bank_notification_events",
                "bank_notification_id = 44 AND kind = 'told'",
                f"{_TOLD} {ERASING}",
                "id = 139; bank_notification_id = 41; kind = 'reopened'; transaction_time = 'x';"
                " transaction_time = NULL;"
                " bank_name = 'x'; bank_name = NULL; account = 'x'; account = NULL; balance_after = 6;"
                " balance_after = NULL; deposit_id = 27; actor = 'x'; created_at = 'z'",
                beside=_FORGET_EVENT,
            ),
            *each(
                "bank_notification_events",
                "kind = 'freed'",
                f"{_FREED} {ERASING}",
                "deposit_id = 21",
                beside=_FORGET_EVENT,
            ),
            *each(
                "bank_notification_events",
                "bank_notification_id = 44",
                f"{_TOLD} {ERASING}",
                "depositor_name = NULL, raw_message = NULL; depositor_name = NULL, note = NULL;"
                " raw_message = NULL, note = NULL;"
                " depositor_name = 'x'; raw_message = 'x'; note = 'x'",
            ),
            f"{_TOLD} UPDATE bank_notification_events SET {_FORGET_EVENT}",
            f"{_TOLD} {_ERASING_1} UPDATE bank_notification_events SET {_FORGET_EVENT}",
            f"{_FREED} {_EVENT} (46, 'told'{_BY}; {ERASING}"
            f" UPDATE bank_notification_events SET {_FORGET_EVENT} WHERE bank_notification_id = 46",
            f"{_TOLD} {ERASING} {FINISHED} UPDATE bank_notification_events SET {_FORGET_EVENT}",
            f"{_TOLD} {ERASING_BOTS} UPDATE bank_notification_events SET {_FORGET_EVENT}",
            f"{_FREED} {ERASING_BOTS} UPDATE bank_notification_events SET {_FORGET_EVENT}",
            f"{_FREED} {_DISMISSED} {ERASING} UPDATE bank_notification_events SET {_FORGET_EVENT}"
            f" WHERE bank_notification_id = 42",
        ],
        [
            f"{_TOLD} {ERASING} UPDATE bank_notification_events SET {_FORGET_EVENT} WHERE bank_notification_id = 44",
            f"{_FREED} {_TOLD} {ERASING} UPDATE bank_notification_events SET {_FORGET_EVENT} WHERE"
            f" bank_notification_id = 44",
        ],
    ),
    "bank_notification_events_refuse_delete": Rule(
        "events of bank notifications are never deleted",
        [f"{_TOLD} DELETE FROM bank_notification_events"],
        [_TOLD.removesuffix(";")],
    ),
    "bank_notification_events_refuse_replace": Rule(
        "events of bank notifications are never replaced",
        [
            f"{_TOLD} INSERT OR REPLACE INTO bank_notification_events (id, bank_notification_id,"
            f" kind, actor, created_at)"
            " SELECT id, 44, 'told', 'x', 'x' FROM bank_notification_events",
        ],
        [
            f"{_TOLD} INSERT OR REPLACE INTO bank_notification_events (id, bank_notification_id,"
            f" kind, actor, created_at)"
            f" SELECT id {step}, 44, 'told', 'x', 'x' FROM bank_notification_events"
            for step in ("+ 1", "- 1")
        ],
    ),
    "bank_notifications_need_deposit_insert": Rule(
        "a bank notification matches one confirmed deposit of its amount, once",
        _tries(
            _LINE,
            """
            1000, 'matched', NULL, NULL
            1000, 'unmatched', 25, NULL
            1000, 'ambiguous', 25, 'manual'
            1000, 'matched', 20, 'manual'
            1000, 'matched', 99, 'manual'
            150, 'matched', 34, 'manual'
            400, 'matched', 26, 'manual'
            500, 'matched', 22, 'manual'
            200, 'matched', 24, 'manual'
            999, 'matched', 25, 'manual'
            1001, 'matched', 25, 'manual'
            1000, 'matched', 21, 'manual'
            1000, 'matched', 21, NULL
            700, 'matched', 27, 'automatic'
            """,
        ),
        _tries(
            _LINE,
            """
            1000, 'matched', 25, 'manual'
            1000, 'matched', 25, NULL
            50, 'matched', 90, 'automatic'
            1000, 'unmatched', NULL, NULL
            1000, 'ambiguous', NULL, NULL
            """,
        ),
    ),
    "bank_notifications_need_deposit_update": Rule(
        "a bank notification matches one confirmed deposit of its amount, once",
        [
            f"{_MATCH} {transaction} WHERE id = {line}"
            for line, transaction in (
                (42, 20),
                (42, 99),
                (47, 34),
                (49, 26),
                (46, 22),
                (48, 24),
                (42, 90),
                (45, 25),
                (43, 21),
            )
        ],
        [
            f"{_MATCH} 25 WHERE id = 42",
            f"{_MATCH} 90 WHERE id = 45",
            f"DROP TRIGGER bank_notifications_keep_what_they_say; {_MATCH} 25, amount = 1000 WHERE id = 46",
            f"{ERASING} UPDATE bank_notifications SET {_FORGET_LINE} WHERE id = 44",
            _FREED.removesuffix(";"),
        ],
    ),
    "bank_notifications_refuse_replace": Rule(
        "bank notifications are never replaced",
        [
            "INSERT OR REPLACE INTO bank_notifications (id, amount) VALUES (46, 1)",
            "INSERT OR REPLACE INTO bank_notifications (amount, bank_transaction_id) VALUES (1, 'b6')",
        ],
        [
            "INSERT INTO bank_notifications (amount) VALUES (1)",
            "INSERT INTO bank_notifications (id, amount, bank_transaction_id) VALUES (60, 1, 'b55')",
        ],
    ),
    "bank_notifications_refuse_delete": Rule(
        "bank notifications are never deleted",
        ["DELETE FROM bank_notifications WHERE id = 42"],
        [f"{_MATCH} 25 WHERE id = 42"],
    ),
    "bank_messages_begin_unsettled": Rule(
        "a message of a bank begins unsettled, in the state of its kind",
        [
            _MESSAGE_BEGINS.format(values)
            for values in (
                "'unreadable', 'kept', NULL, NULL, NULL, NULL",
                "'unreadable', 'waiting', NULL, NULL, NULL, NULL",
                "'unreadable', 'settled', NULL, NULL, NULL, NULL",
                "'unreadable', 'unreadable', 44, NULL, NULL, NULL",
                "'deposit_cancelled', 'kept', NULL, NULL, NULL, NULL",
                "'deposit_cancelled', 'unreadable', NULL, NULL, NULL, NULL",
                "'deposit_cancelled', 'waiting', 44, NULL, NULL, NULL",
                "'withdrawal', 'waiting', NULL, NULL, NULL, NULL",
                "'withdrawal', 'unreadable', NULL, NULL, NULL, NULL",
                "'withdrawal_cancelled', 'settled', NULL, NULL, NULL, NULL",
                "'withdrawal_cancelled', 'kept', 44, NULL, NULL, NULL",
                "'unreadable', 'kept', 44, NULL, NULL, NULL",
                "'withdrawal', 'kept', 44, NULL, NULL, NULL",
                "'unreadable', 'unreadable', NULL, 'n', NULL, NULL",
                "'unreadable', 'unreadable', NULL, NULL, 'ops', NULL",
                "'unreadable', 'unreadable', NULL, NULL, NULL, 'x'",
            )
        ],
        [
            _MESSAGE_BEGINS.format(f"{values}, NULL, NULL, NULL")
            for values in (
                "'unreadable', 'unreadable', NULL",
                "'deposit_cancelled', 'waiting', NULL",
                "'deposit_cancelled', 'kept', 44",
                "'withdrawal', 'kept', NULL",
                "'withdrawal_cancelled', 'kept', NULL",
            )
        ],
    ),
    "bank_messages_settle_once": Rule(
        "a message of a bank keeps what it says and is settled once",
        [
            *each("bank_messages", "id = 132", "", _MESSAGE_SAID, beside=_SETTLE),
            *each("bank_messages", "id = 133", ERASING, _MESSAGE_SAID, beside=_FORGET_MESSAGE),
            *each(
                "bank_messages",
                "id = 132",
                "",
                "raw_message = 'x'; raw_message = NULL; depositor_name = 'x'; depositor_name = NULL",
                beside=_SETTLE,
            ),
            "UPDATE bank_messages SET status = 'settled', settled_by = 'ops' WHERE id = 132",
            "UPDATE bank_messages SET status = 'settled', settled_at = 'x' WHERE id = 132",
            "UPDATE bank_messages SET status = 'kept', settled_by = 'ops', settled_at = 'x' WHERE id = 132",
            "UPDATE bank_messages SET status = 'waiting', settled_by = 'ops', settled_at = 'x' WHERE id = 132",
            "UPDATE bank_messages SET note = 'n' WHERE id = 132",
            f"UPDATE bank_messages SET {_SETTLE} WHERE id = 133",
            f"UPDATE bank_messages SET {_SETTLE} WHERE id = 134",
            f"{_SETTLED_132} UPDATE bank_messages SET {_SETTLE} WHERE id = 132",
            f"UPDATE bank_messages SET {_SETTLE} WHERE id = 131; UPDATE bank_messages SET {_SETTLE} WHERE id = 131",
            # In an erasure.
            *each(
                "bank_messages",
                "id = 133",
                ERASING,
                "status = 'waiting'; bank_notification_id = 41; bank_notification_id = 45; bank_notification_id = NULL;"
                " settled_by = 'x';"
                " settled_at = 'x'",
                beside=_FORGET_MESSAGE,
            ),
            *each(
                "bank_messages",
                "id = 132",
                f"{_SETTLED_132} {ERASING}",
                "status = 'kept'; settled_by = 'x'; settled_by = NULL; settled_at = 'y'; settled_at = NULL",
                beside=_FORGET_MESSAGE,
            ),
            *each(
                "bank_messages",
                "id = 132",
                f"{_SETTLED_132} {ERASING}",
                "raw_message = NULL, depositor_name = NULL; raw_message = NULL, note = NULL;"
                " depositor_name = NULL, note = NULL",
            ),
            f"UPDATE bank_messages SET {_FORGET_MESSAGE} WHERE id = 133",
            f"{ERASING} UPDATE bank_messages SET {_FORGET_MESSAGE} WHERE id = 132",
            f"{ERASING} UPDATE bank_messages SET {_FORGET_MESSAGE} WHERE id = 134",
            f"{ERASING} UPDATE bank_messages SET {_FORGET_MESSAGE}, bank_notification_id = 44 WHERE id = 134",
            f"{_ERASING_1} UPDATE bank_messages SET {_FORGET_MESSAGE} WHERE id = 133",
            f"{ERASING} {FINISHED} UPDATE bank_messages SET {_FORGET_MESSAGE} WHERE id = 133",
            f"{_FREED} {ERASING_BOTS} UPDATE bank_messages SET {_FORGET_MESSAGE} WHERE id = 133",
            *(
                f"{_FREED} UPDATE bank_messages SET {_SETTLE}, bank_notification_id = {line} WHERE id = 132; {ERASING}"
                f" UPDATE bank_messages SET {_FORGET_MESSAGE} WHERE id = 132"
                for line in (42, 45)
            ),
        ],
        [
            f"UPDATE bank_messages SET {_SETTLE} WHERE id = 131",
            f"{_MESSAGE} 150, zeroblob(32), 'unreadable', 'unreadable', NULL, NULL, NULL, NULL, 'x', 'x';"
            f" UPDATE bank_messages SET {_SETTLE} WHERE id = 150",
            f"UPDATE bank_messages SET {_SETTLE}, note = 'n' WHERE id = 132",
            _SETTLED_132.removesuffix(";"),
            f"{ERASING} UPDATE bank_messages SET {_FORGET_MESSAGE} WHERE id = 133",
            f"{_SETTLED_132} {ERASING} UPDATE bank_messages SET {_FORGET_MESSAGE} WHERE id = 132",
            f"{_FREED} {ERASING} UPDATE bank_messages SET {_FORGET_MESSAGE} WHERE id = 133",
        ],
    ),
    "bank_messages_refuse_delete": Rule(
        "messages of a bank are never deleted",
        ["DELETE FROM bank_messages WHERE id = 131"],
        [f"UPDATE bank_messages SET {_SETTLE} WHERE id = 131"],
    ),
    "bank_messages_refuse_replace": Rule(
        "messages of a bank are never replaced",
        [f"{_MESSAGE} 132, zeroblob(32), 'unreadable', 'unreadable', NULL, NULL, NULL, NULL, 'x', 'x'"],
        [
            f"{_MESSAGE} {number}, zeroblob(32), 'unreadable', 'unreadable', NULL, NULL, NULL, NULL, 'x', 'x'"
            for number in (130, 135)
        ],
    ),
    "learned_names_need_notification": Rule(
        "a name is learned of the user with whom its bank notification is matched",
        _tries(
            _LEARN,
            """
            1, 'lee', 'lee', 44, 'ops', 'x'
            3, 'other', 'lee', 44, 'ops', 'x'
            3, 'lee', 'lee', 41, 'ops', 'x'
            3, 'a', 'lee', 44, 'ops', 'x'
            3, 'kim', 'kim', 41, 'ops', 'x'
            3, 'kim', 'kim', 46, 'ops', 'x'
            3, 'lee', 'lee', 99, 'ops', 'x'
            """,
        ),
        [
            Case(f"{_LEARN} (3, 'lee', 'lee', 44, 'ops', 'x')", "SELECT COUNT(*) = 2 FROM learned_names"),
            f"{_LEARN} (1, 'kim', 'other', 41, 'ops', 'x')",
        ],
    ),
    "learned_names_refuse_update": Rule(
        "a learned name never changes",
        each(
            "learned_names",
            "id = 121",
            "",
            "id = 122; user_id = 2; printed_name = 'x'; match_name = 'x'; bank_notification_id = 42; learned_by = 'x';"
            " created_at = 'y'",
        ),
        [Case("DELETE FROM learned_names WHERE id = 121", "SELECT COUNT(*) = 0 FROM learned_names")],
        untouchable="id = 121",
    ),
    "learned_names_refuse_replace": Rule(
        "learned names are never replaced",
        [
            f"{_LEARN_AS} (121, 1, 'kim', 'other', 41, 'ops', 'x')",
            f"{_LEARN_AS} (122, 1, 'kim', 'kim', 41, 'ops', 'x')",
        ],
        [
            f"{_LEARN} (1, 'kim', 'other', 41, 'ops', 'x')",
            f"{_LEARN} (1, 'kim', 'a', 41, 'ops', 'x')",
            f"{_LEARN} (3, 'lee', 'kim', 44, 'ops', 'x')",
            f"{_LEARN} (3, 'lee', 'lee', 44, 'ops', 'x'); {_LEARN} (1, 'kim', 'lee', 41, 'ops', 'x')",
            f"{_LEARN_AS} (120, 3, 'lee', 'lee', 44, 'ops', 'x')",
            f"{_LEARN_AS} (122, 3, 'lee', 'lee', 44, 'ops', 'x')",
        ],
    ),
    "import_archive_refuse_update": Rule(
        "archived rows are never updated",
        [
            *each(
                "import_archive",
                "id = 71",
                ERASING,
                "id = 72; source_table = 'x'; row_id = 8; imported_at = 'x'",
                beside="column_values = '{}'",
            ),
            f"{ERASING} UPDATE import_archive SET column_values = '[]'",
            "UPDATE import_archive SET column_values = '{}'",
        ],
        [
            Case(
                f"{ERASING} UPDATE import_archive SET column_values = '{{}}'",
                "SELECT column_values = '{}' FROM import_archive",
            )
        ],
        untouchable="id = 71",
    ),
    "import_archive_refuse_delete": Rule(
        "archived rows are never deleted",
        ["DELETE FROM import_archive"],
        [f"{ERASING} UPDATE import_archive SET column_values = '{{}}'"],
    ),
    "import_archive_refuse_replace": Rule(
        "archived rows are never replaced",
        ["INSERT OR REPLACE INTO import_archive VALUES (71, 'users', 9, '{}', 'x')"],
        [
            "INSERT INTO import_archive VALUES (70, 'users', 9, '{}', 'x')",
            "INSERT INTO import_archive VALUES (72, 'users', 9, '{}', 'x')",
        ],
    ),
    "idempotency_answers_refuse_update": Rule(
        "stored answers are never updated",
        [
            *each("idempotency_answers", "id = 61", ERASING, _ANSWER_CHANGES, beside=_EMPTY_ANSWER),
            f"{ERASING} UPDATE idempotency_answers SET body = x'', location = NULL",
            f"{ERASING} UPDATE idempotency_answers SET request = '', location = NULL",
            f"{ERASING} UPDATE idempotency_answers SET request = '', body = x''",
            f"{ERASING} UPDATE idempotency_answers SET request = '', body = x'', location = ''",
            f"UPDATE idempotency_answers SET {_EMPTY_ANSWER}",
        ],
        [
            f"{ERASING} UPDATE idempotency_answers SET {_EMPTY_ANSWER}",
            _ANOTHER_ANSWER.format("62, 'bot', 'l'")
            + f"; {ERASING} UPDATE idempotency_answers SET {_EMPTY_ANSWER} WHERE id = 62",
        ],
        untouchable="id = 61",
    ),
    "idempotency_answers_refuse_delete": Rule(
        "stored answers are never deleted",
        ["DELETE FROM idempotency_answers"],
        [f"{ERASING} UPDATE idempotency_answers SET {_EMPTY_ANSWER}"],
    ),
    "idempotency_answers_refuse_replace": Rule(
        "stored answers are never replaced",
        [_ANOTHER_ANSWER.format("61, 'x', 'x'"), _ANOTHER_ANSWER.format("62, 'bot', 'k'")],
        [
            _ANOTHER_ANSWER.format(f"{id_}, '{actor}', '{key}'")
            for id_, actor, key in ((60, "bot", "a"), (62, "bot", "z"), (62, "a", "k"), (62, "z", "k"))
        ],
    ),
    "balance_change_references_refuse_update": Rule(
        "references of balance changes are never updated",
        ["UPDATE balance_change_references SET reference = 'x'"],
        ["INSERT INTO balance_change_references VALUES ('bot', 'r2', 34)"],
        untouchable="true",
    ),
    "balance_change_references_refuse_delete": Rule(
        "references of balance changes are never deleted",
        ["DELETE FROM balance_change_references"],
        ["INSERT INTO balance_change_references VALUES ('bot', 'r2', 34)"],
    ),
    "audit_logs_refuse_update": Rule(
        "audit_logs rows are never updated",
        [
            *each("audit_logs", "id = 12", _forgotten(12), _LOG_CHANGES, beside="telegram_id = NULL"),
            f"{_forgotten(12)} UPDATE audit_logs SET details = '[]' WHERE id = 12",
            f"{_forgotten(12)} UPDATE audit_logs SET telegram_id = 'x' WHERE id = 12",
            f"{_forgotten(13)} UPDATE audit_logs SET telegram_id = NULL, details = '[]' WHERE id = 13",
            "UPDATE audit_logs SET telegram_id = NULL WHERE id = 12",
            f"{_forgotten(12)} UPDATE audit_logs SET details = '[]' WHERE id = 11",
            f"{_forgotten(12)} UPDATE audit_logs SET details = '[]' WHERE id = 15",
            f"{_forgotten(12, and_gone=True)} UPDATE audit_leaves SET salt = NULL WHERE audit_log_id = 12;"
            " UPDATE audit_logs SET details = '[]' WHERE id = 12",
        ],
        [
            f"{_forgotten(12)} UPDATE audit_logs SET telegram_id = NULL, details = '[]' WHERE id = 12",
            f"{_forgotten(13)} UPDATE audit_logs SET telegram_id = NULL WHERE id = 13",
        ],
        untouchable="id = 90",
    ),
    "audit_logs_refuse_delete": Rule(
        "audit_logs rows are never deleted before they are archived",
        ["DELETE FROM audit_logs WHERE id = 11", f"{_PRUNED} DELETE FROM audit_logs WHERE id = 13"],
        [f"{_PRUNED} DELETE FROM audit_logs WHERE id = {row}" for row in (11, 12)],
    ),
    "audit_logs_refuse_replace": Rule(
        "audit_logs rows are never replaced",
        ["INSERT OR REPLACE INTO audit_logs (id, action) VALUES (90, 'x')"],
        [f"INSERT INTO audit_logs (id, action) VALUES ({row}, 'x')" for row in ("NULL", "50")],
    ),
    "audit_leaves_refuse_update": Rule(
        "leaves of the audit log are never updated",
        [
            *each(
                "audit_leaves",
                "audit_log_id = 12",
                _forgotten(12, and_gone=True),
                "leaf_index = 9; audit_log_id = 19; hash = randomblob(32); public_details = NULL;"
                " public_details = randomblob(32); rule = 2; rule = NULL",
                beside="salt = NULL",
            ),
            *each(
                "audit_leaves",
                "audit_log_id = 12",
                _forgotten(12, and_gone=True),
                "salt = randomblob(16); salt = salt",
            ),
            f"{_forgotten(12)} UPDATE audit_leaves SET salt = NULL WHERE audit_log_id = 12",
            *(
                f"{_forgotten(12, and_gone=True)} UPDATE audit_leaves SET salt = NULL WHERE audit_log_id = {row}"
                for row in (11, 15)
            ),
            f"{_forgotten(13, and_gone=True)} UPDATE audit_leaves SET salt = NULL, public_details = zeroblob(32)"
            " WHERE audit_log_id = 13",
            # Where rows were archived.
            *each(
                "audit_leaves",
                "audit_log_id = 12",
                _PRUNED,
                "leaf_index = 9; audit_log_id = 19; hash = randomblob(32)",
                beside="salt = NULL, public_details = NULL, rule = NULL",
            ),
            *each(
                "audit_leaves",
                "audit_log_id = 12",
                _PRUNED,
                "rule = NULL; public_details = NULL",
                beside="salt = NULL",
            ),
            f"{_PRUNED} UPDATE audit_leaves SET public_details = NULL, rule = NULL WHERE audit_log_id = 12",
            f"{_PRUNED} UPDATE audit_leaves SET salt = NULL, public_details = NULL, rule = NULL WHERE leaf_index = 2",
        ],
        [
            f"{_forgotten(12, and_gone=True)} UPDATE audit_leaves SET salt = NULL WHERE audit_log_id = 12",
            f"{_forgotten(13, and_gone=True)} UPDATE audit_leaves SET salt = NULL WHERE audit_log_id = 13",
            *(
                f"{_PRUNED} UPDATE audit_leaves SET salt = NULL, public_details = NULL, rule = NULL"
                f" WHERE audit_log_id = {row}"
                for row in (11, 12)
            ),
        ],
        untouchable="audit_log_id = 11",
    ),
    "audit_leaves_refuse_delete": Rule(
        "leaves of the audit log are never deleted",
        ["DELETE FROM audit_leaves WHERE leaf_index = 0"],
        ["INSERT INTO audit_leaves VALUES (5, 90, zeroblob(32), zeroblob(16), NULL, 2)"],
    ),
    "audit_nodes_refuse_update": Rule(
        "nodes of the audit log are never updated",
        ["UPDATE audit_nodes SET hash = randomblob(32)"],
        ["INSERT INTO audit_nodes VALUES (8, 1, zeroblob(32), 5, 8, NULL, NULL)"],
        untouchable="true",
    ),
    "audit_nodes_refuse_delete": Rule(
        "nodes of the audit log are never deleted",
        ["DELETE FROM audit_nodes"],
        ["INSERT INTO audit_nodes VALUES (8, 1, zeroblob(32), 5, 8, NULL, NULL)"],
    ),
    "audit_tree_only_grows": Rule(
        "the tree of the audit log only grows",
        each(
            "audit_tree",
            "id = 1",
            "",
            "size = 5, last_id = 16; size = 4, last_id = 16; size = 6, last_id = 15; size = 6, last_id = 14; size = 6;"
            " last_id = 16",
        ),
        ["UPDATE audit_tree SET size = 6, last_id = 16, last_hash = randomblob(32), frontier = x''"],
        untouchable="id = 1",
    ),
    "audit_tree_refuse_delete": Rule(
        "the tree of the audit log is never deleted",
        ["DELETE FROM audit_tree"],
        ["UPDATE audit_tree SET size = 6, last_id = 16"],
    ),
    "name_folding_only_grows": Rule(
        "names are folded by a later rule only",
        ["UPDATE name_folding SET rule = 1", "UPDATE name_folding SET rule = 2"],
        ["UPDATE name_folding SET rule = 3"],
        untouchable="id = 1",
    ),
    "name_folding_refuse_delete": Rule(
        "the rule that names are folded by is never deleted",
        ["DELETE FROM name_folding"],
        ["UPDATE name_folding SET rule = 3"],
    ),
    "audit_prunes_go_on": Rule(
        "a prune goes on where the one before it ended, up to a leaf",
        [
            f"{_PRUNE} 12, 1, 2",
            f"{_PRUNE} 12, NULL, 2",
            f"{_PRUNE} 12, 0, 3",
            f"{_PRUNE} 13, 0, 2",
            f"{_PRUNE} 99, 0, 99",
            f"{_PRUNED} {_PRUNE} 14, 3, 4",
            f"{_PRUNED} {_PRUNE} 14, 1, 4",
            f"{_PRUNED} {_PRUNE} 14, 0, 4",
            f"{_PRUNED} {_PRUNE} 12, 2, 2",
            f"{_PRUNED} INSERT INTO audit_leaves VALUES (5, 3, zeroblob(32), NULL, NULL, 1); {_PRUNE} 3, 2, 6",
        ],
        [f"{_PRUNE} 11, 0, 1", f"{_PRUNED} {_PRUNE} 13, 2, 3; {_PRUNE} 15, 3, 5"],
    ),
    "audit_prunes_refuse_update": Rule(
        "records of prunes are never updated",
        [f"{_PRUNED} UPDATE audit_prunes SET root = randomblob(32)"],
        [_PRUNED.removesuffix(";")],
        untouchable="true",
        before=_PRUNED,
    ),
    "audit_prunes_refuse_delete": Rule(
        "records of prunes are never deleted", [f"{_PRUNED} DELETE FROM audit_prunes"], [_PRUNED.removesuffix(";")]
    ),
    "audit_pruned_steps_only_grow": Rule(
        "what archived rows told is never forgotten",
        each("audit_pruned_steps", "true", "", "step = 'x'; block = 4; nth = 3; bits = 4; bits = 9"),
        each("audit_pruned_steps", "true", "", "bits = 7; bits = 6; bits = 14"),
    ),
    "audit_pruned_steps_refuse_replace": Rule(
        "what archived rows told is never forgotten",
        [f"{_STEP} ('moved', 3, 2, 1)"],
        _tries(
            _STEP,
            """
            'moved', 3, 1, 1
            'moved', 3, 3, 1
            'moved', 2, 2, 1
            'moved', 4, 2, 1
            'a', 3, 2, 1
            'z', 3, 2, 1
            """,
        ),
    ),
    "audit_pruned_steps_refuse_delete": Rule(
        "what archived rows told is never forgotten",
        ["DELETE FROM audit_pruned_steps"],
        ["UPDATE audit_pruned_steps SET bits = 7"],
    ),
    "user_erasures_finish_once": Rule(
        "an erasure is finished once",
        [
            *each(
                "user_erasures",
                "user_id = 3",
                ERASING,
                "user_id = 1; begun_at = 'x'; actor = 'x'",
                beside="finished_at = 'x'",
            ),
            *each("user_erasures", "user_id = 2", "", "finished_at = 'x'; finished_at = NULL"),
            f"{ERASING} UPDATE user_erasures SET finished_at = NULL WHERE user_id = 3",
        ],
        [f"{ERASING} UPDATE user_erasures SET finished_at = 'x' WHERE user_id = 3"],
        untouchable="user_id = 2",
    ),
    "user_erasures_refuse_replace": Rule(
        "records of erasures are never replaced",
        ["INSERT OR REPLACE INTO user_erasures VALUES (2, 'x', 'x', NULL)"],
        [f"INSERT INTO user_erasures VALUES ({user}, 'x', 'x', NULL)" for user in (1, 3)],
    ),
    "user_erasures_refuse_delete": Rule(
        "records of erasures are never deleted",
        ["DELETE FROM user_erasures"],
        [f"{ERASING} UPDATE user_erasures SET finished_at = 'x' WHERE user_id = 3"],
    ),
    "audit_erasures_take_the_salts_place": Rule(
        "a row is erased once, in the erasure of a user",
        [
            f"{_forgotten(12)} {_ERASED_ROW} (12, zeroblob(32), 3)",
            *_tries(
                _ERASED_ROW,
                """
                12, zeroblob(32), 1
                12, zeroblob(32), 2
                12, zeroblob(32), 9
                14, zeroblob(32), 3
                99, zeroblob(32), 3
                """,
                before=ERASING,
            ),
            f"{ERASING} {FINISHED} {_ERASED_ROW} (12, zeroblob(32), 3)",
        ],
        [
            f"{ERASING} {_ERASED_ROW} (12, zeroblob(32), 3)",
            f"{_forgotten(12)} {_ERASED_ROW} (15, zeroblob(32), 3); {_ERASED_ROW} (13, zeroblob(32), 3)",
        ],
    ),
    "audit_erasures_refuse_update": Rule(
        "commitments of erased rows are never updated",
        [f"{_forgotten(12)} UPDATE audit_erasures SET commitment = randomblob(32)"],
        [f"{ERASING} {_ERASED_ROW} (12, zeroblob(32), 3)"],
        untouchable="true",
        before=_forgotten(12),
    ),
    "audit_erasures_refuse_delete": Rule(
        "commitments of erased rows are never deleted",
        [f"{_forgotten(12)} DELETE FROM audit_erasures"],
        [f"{ERASING} {_ERASED_ROW} (12, zeroblob(32), 3)"],
    ),
}
"""Trigger -> what it refuses, and what it allows."""
