-- The database as it stands after all migrations. A test holds this file equal to what migrations/ make.
--
-- Money is a whole number of won (KRW). Times are UTC text that SQLite's date functions read: "2026-01-19 12:00:00" where
-- the bot or a migration wrote them, with milliseconds where Passbook did. DATETIME is only a name: the column holds text.
-- The migrator adds one table of its own, schema_migrations (version, name, checksum, applied_at).

-- The bot's users. Passbook names them by telegram_id everywhere outside this file.
CREATE TABLE users (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  -- "erased-<id>" once the user's personal data was erased.
  telegram_id TEXT NOT NULL UNIQUE,
  -- Null when Telegram gave none, and once it was erased.
  username TEXT,
  -- Null only in rows that the bot wrote so.
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX idx_users_telegram_id ON users(telegram_id);

-- One account per user. The balance moves only together with a row of deposit_transactions; see the triggers.
CREATE TABLE user_deposits (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL UNIQUE,
  -- Won.
  balance INTEGER NOT NULL DEFAULT 0 CHECK (balance >= 0),
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  -- The version of the latest transaction that moved the balance; 0 before the first.
  version INTEGER NOT NULL DEFAULT 0 CHECK (version >= 0)
);
CREATE INDEX idx_deposits_user ON user_deposits(user_id);

-- Everything that moved or is to move a balance: deposits, debits, opening entries.
CREATE TABLE deposit_transactions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users(id),
  -- deposit, debit, balance_change, domain_purchase, domain_refund, reversal, opening_credit, opening_debit; other words
  -- in rows that the bot wrote.
  type TEXT NOT NULL,
  -- Won, never negative; the direction says which way.
  amount INTEGER NOT NULL,
  -- pending, confirmed, cancelled, expired; other words in rows that the bot wrote.
  status TEXT NOT NULL DEFAULT 'pending',
  -- Null for what is no deposit, and once it was erased.
  depositor_name TEXT CHECK (length(depositor_name) <= 50),
  -- The reason of a debit; null for deposits, and once it was erased.
  description TEXT,
  -- Null until confirmed.
  confirmed_at DATETIME,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  -- credit raises the balance, debit lowers it.
  direction TEXT NOT NULL DEFAULT 'credit'
    CHECK (direction IN ('credit', 'debit')),
  -- Won; null until confirmed, and in rows confirmed before Passbook kept the account.
  balance_before INTEGER
    CHECK (balance_before BETWEEN 0 AND 9007199254740991),
  balance_after INTEGER
    CHECK (balance_after BETWEEN 0 AND 9007199254740991),
  -- 1, 2, 3, … along each user's account, without a gap; null like balance_before.
  version INTEGER CHECK (version >= 1),
  -- The caller's own name for the transaction; null when it gave none.
  reference TEXT,
  -- The id of the transaction that this one takes back; null for every other.
  reverses_id INTEGER,
  -- depositor_name as matching compares it; null for what is no deposit and in rows that the bot wrote; empty, which
  -- matches no name, once it was erased.
  match_name TEXT
);
CREATE INDEX idx_transactions_user ON deposit_transactions(user_id, created_at);
CREATE INDEX idx_transactions_status ON deposit_transactions(status, created_at);
CREATE INDEX idx_transactions_type ON deposit_transactions(type, status);
CREATE UNIQUE INDEX idx_transactions_user_version ON deposit_transactions(user_id, version)
  WHERE version IS NOT NULL;
CREATE UNIQUE INDEX idx_transactions_reverses ON deposit_transactions(reverses_id) WHERE reverses_id IS NOT NULL;
-- By day first: only the days of the window are ever looked at, and new rows stay close together.
CREATE INDEX idx_transactions_match ON deposit_transactions(substr(created_at, 1, 10), amount, match_name)
  WHERE type = 'deposit';
-- What was confirmed on another day than it was announced: its money may have come at any time between.
CREATE INDEX idx_transactions_match_late ON deposit_transactions(amount, match_name, confirmed_at)
  WHERE type = 'deposit' AND status = 'confirmed' AND substr(confirmed_at, 1, 10) IS NOT substr(created_at, 1, 10);

-- What the bank said arrived, as the bot recorded it or a service posted it.
CREATE TABLE bank_notifications (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  bank_name TEXT,
  -- Null when the message did not say, and once it was erased; so is raw_message.
  depositor_name TEXT,
  -- Won.
  amount INTEGER NOT NULL,
  -- The bank account's balance in won; null when the message did not say.
  balance_after INTEGER,
  -- When the bank says that the money came; null when the message did not say.
  transaction_time DATETIME,
  raw_message TEXT,
  -- Null until it is matched with a deposit.
  matched_transaction_id INTEGER REFERENCES deposit_transactions(id),
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  -- The bank's own name of the transfer; null in the bot's rows.
  bank_transaction_id TEXT,
  -- depositor_name as matching compares it (see name_folding); null in the bot's rows, empty once erased.
  match_name TEXT,
  -- unmatched or ambiguous, then matched.
  status TEXT NOT NULL DEFAULT 'unmatched'
    CHECK (status IN ('unmatched', 'ambiguous', 'matched')),
  -- How it was matched; null until it is, and in the bot's rows.
  match_method TEXT CHECK (match_method IN ('automatic', 'manual')),
  -- The name of the API key whose request matched it, and when (UTC); null like match_method.
  matched_by TEXT,
  matched_at DATETIME,
  -- The account that the money came to, as the bank printed it, mostly masked; null when the message did not say.
  account TEXT,
  -- dismissed: a person says that the money is no top-up; cancelled: the bank took it back. Null while it is neither.
  closed_as TEXT CHECK (closed_as IN ('dismissed', 'cancelled'))
);
CREATE INDEX idx_bank_notifications_match ON bank_notifications(depositor_name, amount);
CREATE UNIQUE INDEX idx_bank_notifications_bank_id ON bank_notifications(bank_transaction_id)
  WHERE bank_transaction_id IS NOT NULL;
CREATE INDEX idx_bank_notifications_matched ON bank_notifications(matched_transaction_id);
CREATE INDEX idx_bank_notifications_status ON bank_notifications(COALESCE(closed_as, status));
CREATE INDEX idx_bank_notifications_waiting ON bank_notifications(amount, match_name, transaction_time)
  WHERE status <> 'matched' AND closed_as IS NULL AND bank_transaction_id IS NOT NULL;
CREATE INDEX idx_bank_notifications_open ON bank_notifications(id)
  WHERE status <> 'matched' AND closed_as IS NULL;
-- The lines of a period. The bot may have kept no time of the bank's.
CREATE INDEX idx_bank_notifications_time ON bank_notifications(COALESCE(transaction_time, created_at));
-- The same line told again, in whatever state the first one is, also when it is the bot's.
CREATE INDEX idx_bank_notifications_same ON bank_notifications(amount, match_name, transaction_time);
-- The lines of one account, for gaps in its balances.
CREATE INDEX idx_bank_notifications_account ON bank_notifications(account) WHERE account IS NOT NULL;

-- What became of a bank notification after it came.
CREATE TABLE bank_notification_events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  bank_notification_id INTEGER NOT NULL REFERENCES bank_notifications(id),
  -- told: the same line came again and said more. dismissed and reopened: by a person. cancelled: by the bank.
  -- freed: the deposit that it was matched with was reversed.
  kind TEXT NOT NULL CHECK (kind IN ('told', 'dismissed', 'reopened', 'cancelled', 'freed')),
  -- What was told and differs from the row; null where nothing did. Names and messages are null once erased.
  transaction_time TEXT,
  bank_name TEXT,
  depositor_name TEXT,
  account TEXT,
  -- Won.
  balance_after INTEGER,
  raw_message TEXT,
  -- Of freed: the deposit that was reversed; null in all others.
  deposit_id INTEGER REFERENCES deposit_transactions(id),
  -- What a person said; null once erased.
  note TEXT,
  -- The name of the API key whose request this was, and when (UTC).
  actor TEXT NOT NULL,
  created_at TEXT NOT NULL
) STRICT;
CREATE INDEX idx_bank_notification_events_line ON bank_notification_events(bank_notification_id);
CREATE INDEX idx_bank_notification_events_account ON bank_notification_events(account) WHERE account IS NOT NULL;
CREATE INDEX idx_bank_notification_events_deposit ON bank_notification_events(deposit_id)
  WHERE deposit_id IS NOT NULL;

CREATE TRIGGER bank_notification_events_fit_their_line BEFORE INSERT ON bank_notification_events
WHEN NOT EXISTS (
  SELECT 1 FROM bank_notifications AS b
  WHERE b.id = NEW.bank_notification_id AND (
    NEW.deposit_id IS NULL AND (
      NEW.kind = 'told'
      OR NEW.kind = 'dismissed' AND b.status <> 'matched' AND b.closed_as IS NULL
      OR NEW.kind = 'reopened' AND b.closed_as = 'dismissed'
      OR NEW.kind = 'cancelled' AND NOT EXISTS (
        SELECT 1 FROM bank_notification_events WHERE bank_notification_id = b.id AND kind = 'cancelled'))
    OR NEW.kind = 'freed' AND b.matched_transaction_id = NEW.deposit_id AND b.match_method IS NOT NULL
      AND EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = NEW.deposit_id)))
BEGIN
  SELECT RAISE(ABORT, 'an event of a bank notification fits the state that it is in');
END;

CREATE TRIGGER bank_notification_events_refuse_update BEFORE UPDATE ON bank_notification_events
WHEN NEW.id IS NOT OLD.id OR NEW.bank_notification_id IS NOT OLD.bank_notification_id OR NEW.kind IS NOT OLD.kind
  OR NEW.transaction_time IS NOT OLD.transaction_time OR NEW.bank_name IS NOT OLD.bank_name
  OR NEW.account IS NOT OLD.account OR NEW.balance_after IS NOT OLD.balance_after
  OR NEW.deposit_id IS NOT OLD.deposit_id OR NEW.actor IS NOT OLD.actor OR NEW.created_at IS NOT OLD.created_at
  OR NEW.depositor_name IS NOT NULL OR NEW.raw_message IS NOT NULL OR NEW.note IS NOT NULL
  OR NOT EXISTS (SELECT 1 FROM user_erasures WHERE finished_at IS NULL AND user_id IN (
    SELECT user_id FROM deposit_transactions
    WHERE id = (SELECT matched_transaction_id FROM bank_notifications WHERE id = OLD.bank_notification_id)
      OR id IN (SELECT deposit_id FROM bank_notification_events
                WHERE bank_notification_id = OLD.bank_notification_id)))
BEGIN
  SELECT RAISE(ABORT, 'events of bank notifications are never updated');
END;

CREATE TRIGGER bank_notification_events_refuse_delete BEFORE DELETE ON bank_notification_events
BEGIN
  SELECT RAISE(ABORT, 'events of bank notifications are never deleted');
END;

CREATE TRIGGER bank_notification_events_refuse_replace BEFORE INSERT ON bank_notification_events
WHEN EXISTS (SELECT 1 FROM bank_notification_events WHERE id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'events of bank notifications are never replaced');
END;

-- Messages of a bank that are no deposit: money that went, what takes an earlier message back, and what nobody could
-- read. None of them moves anything.
CREATE TABLE bank_messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  -- As it came; null once erased. The SHA-256 of its UTF-8 text stays.
  raw_message TEXT,
  raw_sha256 BLOB NOT NULL CHECK (length(raw_sha256) = 32),
  kind TEXT NOT NULL CHECK (kind IN ('unreadable', 'withdrawal', 'withdrawal_cancelled', 'deposit_cancelled')),
  -- unreadable and waiting: a person has to look; kept: nothing is to be done; settled: a person said what it was.
  status TEXT NOT NULL CHECK (status IN ('unreadable', 'waiting', 'kept', 'settled')),
  -- What was read; null where the message did not say. Amounts are in won, transaction_time is UTC.
  bank_name TEXT,
  account TEXT,
  depositor_name TEXT,
  amount INTEGER,
  balance_after INTEGER,
  transaction_time TEXT,
  -- The notification that it takes back, or that a person says it belongs to.
  bank_notification_id INTEGER REFERENCES bank_notifications(id),
  -- What a person said, who and when (UTC); null until it is settled. The note is null once erased.
  note TEXT,
  settled_by TEXT,
  settled_at TEXT,
  -- The name of the API key whose request it came with, and when (UTC).
  received_by TEXT NOT NULL,
  created_at TEXT NOT NULL
) STRICT;
CREATE INDEX idx_bank_messages_status ON bank_messages(status);
CREATE INDEX idx_bank_messages_text ON bank_messages(raw_sha256);
CREATE INDEX idx_bank_messages_account ON bank_messages(account) WHERE account IS NOT NULL;
CREATE INDEX idx_bank_messages_line ON bank_messages(bank_notification_id) WHERE bank_notification_id IS NOT NULL;

CREATE TRIGGER bank_messages_begin_unsettled BEFORE INSERT ON bank_messages
WHEN NEW.note IS NOT NULL OR NEW.settled_by IS NOT NULL OR NEW.settled_at IS NOT NULL
  OR NOT (
    NEW.bank_notification_id IS NULL AND (
      NEW.kind = 'unreadable' AND NEW.status = 'unreadable'
      OR NEW.kind = 'deposit_cancelled' AND NEW.status = 'waiting'
      OR (NEW.kind = 'withdrawal' OR NEW.kind = 'withdrawal_cancelled') AND NEW.status = 'kept')
    OR NEW.bank_notification_id IS NOT NULL AND NEW.kind = 'deposit_cancelled' AND NEW.status = 'kept')
BEGIN
  SELECT RAISE(ABORT, 'a message of a bank begins unsettled, in the state of its kind');
END;

-- A message goes with the names of its notification.
CREATE TRIGGER bank_messages_settle_once BEFORE UPDATE ON bank_messages
WHEN NEW.id IS NOT OLD.id OR NEW.raw_sha256 IS NOT OLD.raw_sha256 OR NEW.kind IS NOT OLD.kind
  OR NEW.bank_name IS NOT OLD.bank_name OR NEW.account IS NOT OLD.account OR NEW.amount IS NOT OLD.amount
  OR NEW.balance_after IS NOT OLD.balance_after OR NEW.transaction_time IS NOT OLD.transaction_time
  OR NEW.received_by IS NOT OLD.received_by OR NEW.created_at IS NOT OLD.created_at
  OR (
    -- Settled.
    (OLD.status = 'unreadable' OR OLD.status = 'waiting') AND NEW.status = 'settled'
      AND NEW.settled_by IS NOT NULL AND NEW.settled_at IS NOT NULL
      AND NEW.raw_message IS OLD.raw_message AND NEW.depositor_name IS OLD.depositor_name
    -- Erased, with the user whose money the notification was.
    OR NEW.raw_message IS NULL AND NEW.depositor_name IS NULL AND NEW.note IS NULL
      AND NEW.status = OLD.status AND NEW.bank_notification_id = OLD.bank_notification_id
      AND NEW.settled_by IS OLD.settled_by AND NEW.settled_at IS OLD.settled_at
      AND EXISTS (SELECT 1 FROM user_erasures WHERE finished_at IS NULL AND user_id IN (
        SELECT user_id FROM deposit_transactions
        WHERE id = (SELECT matched_transaction_id FROM bank_notifications WHERE id = OLD.bank_notification_id)
          OR id IN (SELECT deposit_id FROM bank_notification_events
                    WHERE bank_notification_id = OLD.bank_notification_id)))) IS NOT 1
BEGIN
  SELECT RAISE(ABORT, 'a message of a bank keeps what it says and is settled once');
END;

CREATE TRIGGER bank_messages_refuse_delete BEFORE DELETE ON bank_messages
BEGIN
  SELECT RAISE(ABORT, 'messages of a bank are never deleted');
END;

CREATE TRIGGER bank_messages_refuse_replace BEFORE INSERT ON bank_messages
WHEN EXISTS (SELECT 1 FROM bank_messages WHERE id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'messages of a bank are never replaced');
END;

-- Names that a person taught: a bank prints them, and they mean one user. Deleted when somebody says so.
CREATE TABLE learned_names (
  -- Never given twice: the audit log names it for ever.
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users(id),
  -- As the bank printed it, and as matching compares it.
  printed_name TEXT NOT NULL,
  match_name TEXT NOT NULL,
  -- The notification by which it was learned.
  bank_notification_id INTEGER NOT NULL REFERENCES bank_notifications(id),
  -- The name of the API key whose request taught it, and when (UTC).
  learned_by TEXT NOT NULL,
  created_at DATETIME NOT NULL
);
CREATE UNIQUE INDEX idx_learned_names_name ON learned_names(match_name, user_id);
CREATE INDEX idx_learned_names_user ON learned_names(user_id);

CREATE TRIGGER learned_names_need_notification
BEFORE INSERT ON learned_names
WHEN NOT EXISTS (
  SELECT 1 FROM bank_notifications AS b JOIN deposit_transactions AS t ON t.id = b.matched_transaction_id
  WHERE b.id = NEW.bank_notification_id AND t.user_id = NEW.user_id AND b.depositor_name = NEW.printed_name)
BEGIN
  SELECT RAISE(ABORT, 'a name is learned of the user with whom its bank notification is matched');
END;

CREATE TRIGGER learned_names_refuse_update BEFORE UPDATE ON learned_names
BEGIN
  SELECT RAISE(ABORT, 'a learned name never changes');
END;

CREATE TRIGGER learned_names_refuse_replace BEFORE INSERT ON learned_names
WHEN EXISTS (SELECT 1 FROM learned_names
             WHERE id = NEW.id OR match_name = NEW.match_name AND user_id = NEW.user_id)
BEGIN
  SELECT RAISE(ABORT, 'learned names are never replaced');
END;

-- The domain names that users bought.
CREATE TABLE user_domains (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users(id),
  domain TEXT NOT NULL,
  -- pending (held), registered, released, expired; active and other words in the bot's rows.
  status TEXT NOT NULL DEFAULT 'active',
  -- Won; null when the bot recorded none.
  price INTEGER,
  -- Null until it is registered.
  registered_at DATETIME,
  -- Null when it is not known.
  expires_at DATETIME,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  -- The name as the DNS knows it, "xn--bj0bj06e.kr"; null in the bot's rows.
  ascii_name TEXT,
  -- The transaction that paid for it; null in the bot's rows.
  transaction_id INTEGER
);
CREATE INDEX idx_domains_user ON user_domains(user_id);
CREATE INDEX idx_domains_domain ON user_domains(domain);
CREATE UNIQUE INDEX idx_domains_live ON user_domains(ascii_name)
  WHERE ascii_name IS NOT NULL AND status IN ('pending', 'registered');
CREATE INDEX idx_domains_pending ON user_domains(status, created_at) WHERE ascii_name IS NOT NULL;

-- One row for every change and every refused attempt. The first ten columns are the guide's, in its order.
CREATE TABLE audit_logs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  -- users.id and its telegram_id; null when no user is concerned, user_id also when there is no such user, telegram_id
  -- also once it was erased.
  user_id INTEGER,
  telegram_id TEXT,
  -- What happened: deposit_confirmed; <verb>_failed for a refusal.
  action TEXT NOT NULL,
  -- deposit_transaction, user, user_deposits, user_domains, api_key; null in some of the bot's rows.
  resource_type TEXT,
  -- Null when none was named or made; one that was asked for and is not there is named all the same.
  resource_id INTEGER,
  -- A JSON object; null in some of the bot's rows. Erased, it has null for each personal value.
  details TEXT,
  -- Where the request came from; null for the command line, expiry and migrations.
  ip_address TEXT,
  user_agent TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  -- The name of the API key that acted, "cli:<user>" or "system:expiry"; null in rows of the bot and of migrations.
  actor TEXT,
  -- X-Request-ID; null for the command line and for expiry.
  request_id TEXT,
  -- The public start of the API key that acted, "pbk_3fJ9a2Qx"; null where no key did, and in rows from before 011.
  key_prefix TEXT,
  -- Null in rows from before 011, whose action tells: <verb>_failed is a failure.
  outcome TEXT CHECK (outcome IN ('success', 'failure'))
);
-- Lists go by id; an index on one column holds the ids of equal values in order.
CREATE INDEX idx_audit_logs_telegram_id ON audit_logs(telegram_id);
CREATE INDEX idx_audit_logs_action ON audit_logs(action);
CREATE INDEX idx_audit_logs_resource ON audit_logs(resource_type, resource_id);
CREATE INDEX idx_audit_logs_resource_type ON audit_logs(resource_type);
CREATE INDEX idx_audit_logs_actor ON audit_logs(actor) WHERE actor IS NOT NULL;
CREATE INDEX idx_audit_logs_request ON audit_logs(request_id) WHERE request_id IS NOT NULL;
-- For suspicious activity: refused attempts by when they were made.
CREATE INDEX idx_audit_logs_failed ON audit_logs(created_at) WHERE action GLOB '*_failed';
-- The audit row of a movement for a domain is found by its user and its instant, which are the movement's.
CREATE INDEX idx_audit_logs_domains ON audit_logs(telegram_id, created_at) WHERE resource_type = 'user_domains';

-- API keys. The key itself is shown once, when it is made; only its hash is kept.
CREATE TABLE api_keys (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  -- The public start of the key, for lists and for revoking: "pbk_3fJ9a2Qx".
  prefix TEXT NOT NULL UNIQUE,
  -- Who acts with it; becomes audit_logs.actor. A new key of the same name takes over its idempotency keys.
  name TEXT NOT NULL,
  -- SHA-256 of the whole key. The secret has 190 bits, so no slow hash is needed.
  key_hash BLOB NOT NULL UNIQUE,
  -- Scope names, separated by one space, in alphabetical order.
  scopes TEXT NOT NULL,
  created_at TEXT NOT NULL,
  -- UTC; null while the key is live.
  revoked_at TEXT
) STRICT;

-- The answer to each Idempotency-Key, written with the change that it answers.
CREATE TABLE idempotency_answers (
  id INTEGER PRIMARY KEY,
  -- The name of the API key that asked; two callers never share an Idempotency-Key.
  actor TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  -- "METHOD /path" and the parsed body as canonical JSON: the same key asks for the same thing, or is refused. Request
  -- and body are empty where they told of a user who was erased.
  operation TEXT NOT NULL,
  request TEXT NOT NULL,
  -- The answer, byte for byte.
  status INTEGER NOT NULL,
  body BLOB NOT NULL,
  -- The Location header; null when the answer has none.
  location TEXT,
  created_at TEXT NOT NULL,
  -- audit_logs.id of the last row that the request wrote, for its receipt; null in answers from before 012.
  audit_log_id INTEGER
) STRICT;
CREATE UNIQUE INDEX idx_idempotency_answers_key ON idempotency_answers(actor, idempotency_key);

CREATE TRIGGER idempotency_answers_refuse_update BEFORE UPDATE ON idempotency_answers
WHEN NEW.id IS NOT OLD.id OR NEW.actor IS NOT OLD.actor OR NEW.idempotency_key IS NOT OLD.idempotency_key
  OR NEW.operation IS NOT OLD.operation OR NEW.status IS NOT OLD.status OR NEW.created_at IS NOT OLD.created_at
  OR NEW.audit_log_id IS NOT OLD.audit_log_id
  OR NEW.request <> '' OR NEW.body <> x'' OR NEW.location IS NOT NULL
  OR NOT EXISTS (SELECT 1 FROM user_erasures WHERE finished_at IS NULL)
BEGIN
  SELECT RAISE(ABORT, 'stored answers are never updated');
END;

CREATE TRIGGER idempotency_answers_refuse_delete BEFORE DELETE ON idempotency_answers
BEGIN
  SELECT RAISE(ABORT, 'stored answers are never deleted');
END;

CREATE TRIGGER idempotency_answers_refuse_replace BEFORE INSERT ON idempotency_answers
WHEN EXISTS (SELECT 1 FROM idempotency_answers
             WHERE id = NEW.id OR (actor = NEW.actor AND idempotency_key = NEW.idempotency_key))
BEGIN
  SELECT RAISE(ABORT, 'stored answers are never replaced');
END;

-- A caller's reference names one balance change for ever.
CREATE TABLE balance_change_references (
  -- The name of the API key that posted the change.
  actor TEXT NOT NULL,
  reference TEXT NOT NULL,
  transaction_id INTEGER NOT NULL UNIQUE REFERENCES deposit_transactions(id),
  PRIMARY KEY (actor, reference)
) STRICT;

CREATE TRIGGER balance_change_references_refuse_update BEFORE UPDATE ON balance_change_references
BEGIN
  SELECT RAISE(ABORT, 'references of balance changes are never updated');
END;

CREATE TRIGGER balance_change_references_refuse_delete BEFORE DELETE ON balance_change_references
BEGIN
  SELECT RAISE(ABORT, 'references of balance changes are never deleted');
END;

-- The audit log only grows. A row loses its personal values once, while its commitment is on record and its salt is
-- still there; it goes once it is archived.
CREATE TRIGGER audit_logs_refuse_update BEFORE UPDATE ON audit_logs
WHEN NEW.id IS NOT OLD.id OR NEW.user_id IS NOT OLD.user_id OR NEW.action IS NOT OLD.action
  OR NEW.resource_type IS NOT OLD.resource_type OR NEW.resource_id IS NOT OLD.resource_id
  OR NEW.ip_address IS NOT OLD.ip_address OR NEW.user_agent IS NOT OLD.user_agent
  OR NEW.created_at IS NOT OLD.created_at OR NEW.actor IS NOT OLD.actor OR NEW.request_id IS NOT OLD.request_id
  OR NEW.key_prefix IS NOT OLD.key_prefix OR NEW.outcome IS NOT OLD.outcome
  OR NEW.telegram_id IS NOT NULL OR (NEW.details IS NULL) <> (OLD.details IS NULL)
  OR NOT EXISTS (SELECT 1 FROM audit_erasures WHERE audit_log_id = OLD.id)
  OR NOT EXISTS (SELECT 1 FROM audit_leaves WHERE audit_log_id = OLD.id AND salt IS NOT NULL)
BEGIN
  SELECT RAISE(ABORT, 'audit_logs rows are never updated');
END;

CREATE TRIGGER audit_logs_refuse_delete BEFORE DELETE ON audit_logs
WHEN NOT EXISTS (SELECT 1 FROM audit_prunes WHERE through_id >= OLD.id)
BEGIN
  SELECT RAISE(ABORT, 'audit_logs rows are never deleted before they are archived');
END;

-- INSERT OR REPLACE deletes without asking the trigger above; this one stops it.
CREATE TRIGGER audit_logs_refuse_replace BEFORE INSERT ON audit_logs
WHEN EXISTS (SELECT 1 FROM audit_logs WHERE id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'audit_logs rows are never replaced');
END;

-- A user keeps its name until it is erased, and has an account from the start, whoever writes the row.
CREATE TRIGGER users_open_account AFTER INSERT ON users
BEGIN
  INSERT INTO user_deposits (user_id, created_at) VALUES (NEW.id, NEW.created_at);
END;

CREATE TRIGGER users_refuse_replace BEFORE INSERT ON users
WHEN EXISTS (SELECT 1 FROM users WHERE id = NEW.id OR telegram_id = NEW.telegram_id)
BEGIN
  SELECT RAISE(ABORT, 'users are never replaced');
END;

CREATE TRIGGER users_keep_identity BEFORE UPDATE ON users
WHEN NEW.id IS NOT OLD.id OR NEW.telegram_id IS NOT OLD.telegram_id AND (
  NEW.telegram_id IS NOT 'erased-' || OLD.id OR NEW.username IS NOT NULL
  OR NOT EXISTS (SELECT 1 FROM user_erasures WHERE user_id = OLD.id AND finished_at IS NULL))
BEGIN
  SELECT RAISE(ABORT, 'a user keeps its id and its telegram_id');
END;

CREATE TRIGGER users_refuse_delete BEFORE DELETE ON users
BEGIN
  SELECT RAISE(ABORT, 'users are never deleted');
END;

-- From here on a balance moves only together with the transaction that says why.
CREATE TRIGGER user_deposits_need_transaction
BEFORE UPDATE ON user_deposits
WHEN NEW.id IS NOT OLD.id OR NEW.user_id IS NOT OLD.user_id OR NEW.version <> OLD.version + 1 OR NOT EXISTS (
  SELECT 1 FROM deposit_transactions
  WHERE user_id = NEW.user_id AND version = NEW.version AND status = 'confirmed'
    AND balance_before = OLD.balance AND balance_after = NEW.balance)
BEGIN
  SELECT RAISE(ABORT, 'a balance changes only together with its transaction');
END;

CREATE TRIGGER user_deposits_open_empty
BEFORE INSERT ON user_deposits
WHEN NEW.balance <> 0 OR NEW.version <> 0
  OR NOT EXISTS (SELECT 1 FROM users WHERE id = NEW.user_id)
  OR EXISTS (SELECT 1 FROM user_deposits WHERE user_id = NEW.user_id OR id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'an account opens once, for a user, with a balance of 0');
END;

CREATE TRIGGER user_deposits_refuse_delete BEFORE DELETE ON user_deposits
BEGIN
  SELECT RAISE(ABORT, 'accounts are never deleted');
END;

CREATE TRIGGER deposit_transactions_refuse_delete BEFORE DELETE ON deposit_transactions
BEGIN
  SELECT RAISE(ABORT, 'transactions are never deleted');
END;

CREATE TRIGGER deposit_transactions_refuse_replace BEFORE INSERT ON deposit_transactions
WHEN EXISTS (SELECT 1 FROM deposit_transactions WHERE id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'transactions are never replaced');
END;

-- What a transaction says never changes; only its status moves on, and only forwards. In the erasure of its user it
-- forgets the name and the description, and nothing else.
CREATE TRIGGER deposit_transactions_move_forwards
BEFORE UPDATE ON deposit_transactions
WHEN NEW.id IS NOT OLD.id OR NEW.user_id IS NOT OLD.user_id OR NEW.type IS NOT OLD.type
  OR NEW.direction IS NOT OLD.direction OR NEW.amount IS NOT OLD.amount
  OR NEW.reference IS NOT OLD.reference OR NEW.created_at IS NOT OLD.created_at
  OR NOT (
    NEW.depositor_name IS OLD.depositor_name AND NEW.description IS OLD.description
      AND ((OLD.status = 'pending' AND NEW.status IN ('confirmed', 'cancelled', 'expired'))
           OR (OLD.status = 'expired' AND NEW.status = 'confirmed'))
    OR NEW.depositor_name IS NULL AND (NEW.description IS NULL OR NEW.description IS OLD.description)
      AND NEW.status IS OLD.status AND NEW.version IS OLD.version AND NEW.confirmed_at IS OLD.confirmed_at
      AND NEW.balance_before IS OLD.balance_before AND NEW.balance_after IS OLD.balance_after
      AND EXISTS (SELECT 1 FROM user_erasures WHERE user_id = OLD.user_id AND finished_at IS NULL))
BEGIN
  SELECT RAISE(ABORT, 'a transaction keeps what it says and its status only moves forwards');
END;

-- A confirmed transaction continues the account exactly where it stands.
CREATE TRIGGER deposit_transactions_continue_account_insert
BEFORE INSERT ON deposit_transactions
WHEN (NEW.status = 'confirmed' OR NEW.version IS NOT NULL) AND NOT EXISTS (
  SELECT 1 FROM user_deposits
  WHERE user_id = NEW.user_id AND balance = NEW.balance_before AND version + 1 = NEW.version
    AND NEW.status = 'confirmed' AND NEW.amount > 0
    AND NEW.balance_after = balance + NEW.amount * ((NEW.direction = 'credit') - (NEW.direction = 'debit')))
BEGIN
  SELECT RAISE(ABORT, 'a confirmed transaction continues the account where it stands');
END;

CREATE TRIGGER deposit_transactions_continue_account_update
BEFORE UPDATE ON deposit_transactions
WHEN (NEW.status = 'confirmed' OR NEW.version IS NOT NULL)
  AND NOT (NEW.status IS OLD.status AND NEW.version IS OLD.version AND NEW.amount IS OLD.amount
    AND NEW.balance_before IS OLD.balance_before AND NEW.balance_after IS OLD.balance_after)
  AND NOT EXISTS (
    SELECT 1 FROM user_deposits
    WHERE user_id = NEW.user_id AND balance = NEW.balance_before AND version + 1 = NEW.version
      AND NEW.status = 'confirmed' AND NEW.amount > 0
      AND NEW.balance_after = balance + NEW.amount * ((NEW.direction = 'credit') - (NEW.direction = 'debit')))
BEGIN
  SELECT RAISE(ABORT, 'a confirmed transaction continues the account where it stands');
END;

-- The database itself moves the balance when a transaction is confirmed: neither can be written without the other.
CREATE TRIGGER deposit_transactions_move_balance_insert
AFTER INSERT ON deposit_transactions
WHEN NEW.version IS NOT NULL
BEGIN
  UPDATE user_deposits SET balance = NEW.balance_after, version = NEW.version WHERE user_id = NEW.user_id;
END;

CREATE TRIGGER deposit_transactions_move_balance_update
AFTER UPDATE ON deposit_transactions
WHEN NEW.version IS NOT NULL AND OLD.version IS NULL
BEGIN
  UPDATE user_deposits SET balance = NEW.balance_after, version = NEW.version WHERE user_id = NEW.user_id;
END;

-- A reversal moves the same amount of the same user's money the other way.
CREATE TRIGGER deposit_transactions_reverse_whole
BEFORE INSERT ON deposit_transactions
WHEN NEW.reverses_id IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM deposit_transactions
  WHERE id = NEW.reverses_id AND user_id = NEW.user_id AND amount = NEW.amount AND direction <> NEW.direction
    AND status = 'confirmed' AND NEW.status = 'confirmed')
BEGIN
  SELECT RAISE(ABORT, 'a reversal takes back a confirmed transaction whole');
END;

CREATE TRIGGER deposit_transactions_keep_reversal
BEFORE UPDATE ON deposit_transactions
WHEN NEW.reverses_id IS NOT OLD.reverses_id
BEGIN
  SELECT RAISE(ABORT, 'what a transaction reverses never changes');
END;

-- Domain purchases move forwards only.
CREATE TRIGGER user_domains_move_forwards
BEFORE UPDATE ON user_domains
WHEN OLD.ascii_name IS NOT NULL AND (
  NEW.id IS NOT OLD.id OR NEW.user_id IS NOT OLD.user_id OR NEW.domain IS NOT OLD.domain
  OR NEW.ascii_name IS NOT OLD.ascii_name OR NEW.price IS NOT OLD.price
  OR NEW.transaction_id IS NOT OLD.transaction_id OR NEW.created_at IS NOT OLD.created_at
  OR NOT (OLD.status = 'pending' AND NEW.status IN ('registered', 'released', 'expired')))
BEGIN
  SELECT RAISE(ABORT, 'a domain purchase keeps what it says and its status only moves forwards');
END;

CREATE TRIGGER user_domains_refuse_delete BEFORE DELETE ON user_domains
WHEN OLD.ascii_name IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'domain purchases are never deleted');
END;

-- What a held name was paid with goes back with the name alone.
CREATE TRIGGER deposit_transactions_keep_payments
BEFORE INSERT ON deposit_transactions
WHEN NEW.reverses_id IS NOT NULL AND NEW.direction = 'credit' AND NEW.type <> 'domain_refund' AND EXISTS (
  SELECT 1 FROM user_domains
  WHERE user_id = NEW.user_id AND status = 'pending' AND transaction_id IN (
    WITH RECURSIVE chain(id) AS (
      SELECT NEW.reverses_id
      UNION SELECT t.reverses_id FROM chain JOIN deposit_transactions AS t ON t.id = chain.id
      WHERE t.reverses_id IS NOT NULL)
    SELECT id FROM chain))
BEGIN
  SELECT RAISE(ABORT, 'what a held name was paid with is not taken back');
END;

-- A name is registered while its price is taken, and given up when it is back.
CREATE TRIGGER user_domains_keep_their_price
BEFORE UPDATE ON user_domains
WHEN OLD.status = 'pending' AND OLD.transaction_id IS NOT NULL AND NEW.status IS NOT OLD.status
  AND (NEW.status = 'registered') <> (
    WITH RECURSIVE chain(id) AS (
      SELECT OLD.transaction_id
      UNION SELECT r.id FROM chain JOIN deposit_transactions AS r ON r.reverses_id = chain.id)
    SELECT COUNT(*) % 2 FROM chain)
BEGIN
  SELECT RAISE(ABORT, 'a name is registered while its price is taken, and given up when it is back');
END;

CREATE TRIGGER deposit_transactions_keep_match_name
BEFORE UPDATE ON deposit_transactions
WHEN NEW.match_name IS NOT OLD.match_name AND (
  OLD.match_name IS NULL OR NEW.match_name IS NOT ''
  OR NOT EXISTS (SELECT 1 FROM user_erasures WHERE user_id = OLD.user_id AND finished_at IS NULL))
BEGIN
  SELECT RAISE(ABORT, 'the name that a deposit is matched by never changes');
END;

-- What the bank said never changes. A notification is matched with a confirmed deposit of its amount, while it is open;
-- it is closed, opened again and freed by its last event; and its names go with an erasure.
CREATE TRIGGER bank_notifications_keep_what_they_say
BEFORE UPDATE ON bank_notifications
WHEN NEW.id IS NOT OLD.id OR NEW.bank_name IS NOT OLD.bank_name OR NEW.amount IS NOT OLD.amount
  OR NEW.balance_after IS NOT OLD.balance_after OR NEW.transaction_time IS NOT OLD.transaction_time
  OR NEW.created_at IS NOT OLD.created_at OR NEW.bank_transaction_id IS NOT OLD.bank_transaction_id
  OR NEW.account IS NOT OLD.account
  OR (NEW.depositor_name IS NOT OLD.depositor_name OR NEW.raw_message IS NOT OLD.raw_message
      OR NEW.match_name IS NOT OLD.match_name)
    AND NOT (NEW.depositor_name IS NULL AND NEW.raw_message IS NULL
      AND (NEW.match_name = '' OR NEW.match_name IS NULL) AND (NEW.match_name IS NULL) = (OLD.match_name IS NULL)
      AND NEW.status IS OLD.status AND NEW.closed_as IS OLD.closed_as
      AND NEW.matched_transaction_id IS OLD.matched_transaction_id
      AND EXISTS (SELECT 1 FROM user_erasures WHERE finished_at IS NULL AND user_id IN (
        SELECT user_id FROM deposit_transactions WHERE id = OLD.matched_transaction_id
          OR OLD.matched_transaction_id IS NULL AND id IN (
            SELECT deposit_id FROM bank_notification_events WHERE bank_notification_id = OLD.id))))
BEGIN
  SELECT RAISE(ABORT, 'a bank notification keeps what it says');
END;

CREATE TRIGGER bank_notifications_match_once
BEFORE UPDATE ON bank_notifications
WHEN (NEW.status IS NOT OLD.status OR NEW.closed_as IS NOT OLD.closed_as
    OR NEW.matched_transaction_id IS NOT OLD.matched_transaction_id OR NEW.match_method IS NOT OLD.match_method
    OR NEW.matched_by IS NOT OLD.matched_by OR NEW.matched_at IS NOT OLD.matched_at)
  AND (
    -- Matched.
    OLD.status <> 'matched' AND OLD.closed_as IS NULL AND OLD.matched_transaction_id IS NULL
      AND NEW.status = 'matched' AND NEW.closed_as IS NULL AND NEW.matched_transaction_id IS NOT NULL
    -- Closed or opened again, as the last event says.
    OR NEW.status = OLD.status AND OLD.status <> 'matched'
      AND NEW.matched_transaction_id IS NULL AND NEW.match_method IS NULL AND NEW.matched_by IS NULL
      AND NEW.matched_at IS NULL
      AND (SELECT kind FROM bank_notification_events WHERE bank_notification_id = OLD.id AND kind <> 'told'
           ORDER BY id DESC LIMIT 1) = COALESCE(NEW.closed_as, 'reopened')
    -- Freed; what the bank has cancelled meanwhile is closed.
    OR NEW.status = 'unmatched'
      AND NEW.matched_transaction_id IS NULL AND NEW.match_method IS NULL AND NEW.matched_by IS NULL
      AND NEW.matched_at IS NULL
      AND (SELECT deposit_id FROM bank_notification_events WHERE bank_notification_id = OLD.id AND kind <> 'told'
           ORDER BY id DESC LIMIT 1) = OLD.matched_transaction_id
      AND NEW.closed_as IS (SELECT kind FROM bank_notification_events
                            WHERE bank_notification_id = OLD.id AND kind = 'cancelled')) IS NOT 1
BEGIN
  SELECT RAISE(ABORT, 'a bank notification is matched once, and closed, opened and freed by its last event');
END;

CREATE TRIGGER bank_notifications_need_deposit_insert
BEFORE INSERT ON bank_notifications
WHEN (NEW.status = 'matched') <> (NEW.matched_transaction_id IS NOT NULL)
  OR NEW.matched_transaction_id IS NOT NULL AND (NOT EXISTS (
    SELECT 1 FROM deposit_transactions
    WHERE id = NEW.matched_transaction_id AND type = 'deposit' AND status = 'confirmed' AND amount = NEW.amount)
  OR EXISTS (SELECT 1 FROM bank_notifications
             WHERE matched_transaction_id = NEW.matched_transaction_id AND match_method IS NOT NULL))
BEGIN
  SELECT RAISE(ABORT, 'a bank notification matches one confirmed deposit of its amount, once');
END;

CREATE TRIGGER bank_notifications_need_deposit_update
BEFORE UPDATE ON bank_notifications
WHEN NEW.matched_transaction_id IS NOT OLD.matched_transaction_id AND NEW.matched_transaction_id IS NOT NULL
  AND (NOT EXISTS (
    SELECT 1 FROM deposit_transactions
    WHERE id = NEW.matched_transaction_id AND type = 'deposit' AND status = 'confirmed' AND amount = NEW.amount)
  OR EXISTS (SELECT 1 FROM bank_notifications
             WHERE matched_transaction_id = NEW.matched_transaction_id AND match_method IS NOT NULL))
BEGIN
  SELECT RAISE(ABORT, 'a bank notification matches one confirmed deposit of its amount, once');
END;

CREATE TRIGGER bank_notifications_begin_open BEFORE INSERT ON bank_notifications
WHEN NEW.closed_as IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'a bank notification is closed by an event alone');
END;

CREATE TRIGGER bank_notifications_refuse_replace BEFORE INSERT ON bank_notifications
WHEN EXISTS (SELECT 1 FROM bank_notifications
             WHERE id = NEW.id OR bank_transaction_id = NEW.bank_transaction_id)
BEGIN
  SELECT RAISE(ABORT, 'bank notifications are never replaced');
END;

CREATE TRIGGER bank_notifications_refuse_delete BEFORE DELETE ON bank_notifications
BEGIN
  SELECT RAISE(ABORT, 'bank notifications are never deleted');
END;

-- What an import found in the bot's tables and the ledger has no column for, kept word for word.
CREATE TABLE import_archive (
  id INTEGER PRIMARY KEY,
  -- users, user_deposits, deposit_transactions, bank_notifications, user_domains or audit_logs.
  source_table TEXT NOT NULL,
  -- The row's id there, which is its id here; the row's number where the source had no ids.
  row_id INTEGER NOT NULL,
  -- JSON object: column -> value, without nulls; binary data as "X'00ff'".
  column_values TEXT NOT NULL CHECK (json_valid(column_values)),
  imported_at TEXT NOT NULL
) STRICT;
CREATE INDEX idx_import_archive_row ON import_archive(source_table, row_id);

CREATE TRIGGER import_archive_refuse_update BEFORE UPDATE ON import_archive
WHEN NEW.id IS NOT OLD.id OR NEW.source_table IS NOT OLD.source_table OR NEW.row_id IS NOT OLD.row_id
  OR NEW.imported_at IS NOT OLD.imported_at OR NEW.column_values <> '{}'
  OR NOT EXISTS (SELECT 1 FROM user_erasures WHERE finished_at IS NULL)
BEGIN
  SELECT RAISE(ABORT, 'archived rows are never updated');
END;

CREATE TRIGGER import_archive_refuse_delete BEFORE DELETE ON import_archive
BEGIN
  SELECT RAISE(ABORT, 'archived rows are never deleted');
END;

CREATE TRIGGER import_archive_refuse_replace BEFORE INSERT ON import_archive
WHEN EXISTS (SELECT 1 FROM import_archive WHERE id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'archived rows are never replaced');
END;

-- Every row of audit_logs is a leaf of one Merkle tree (RFC 6962), and each leaf covers the leaf before it. Which
-- bytes are hashed is written at the head of service/ledger/audit_chain.py.
CREATE TABLE audit_leaves (
  -- 0, 1, 2, … without a gap, in the order of the ids.
  leaf_index INTEGER PRIMARY KEY,
  -- audit_logs.id; the row may be gone where a prefix was archived.
  audit_log_id INTEGER NOT NULL UNIQUE,
  -- SHA-256, as RFC 6962 has it for a leaf.
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  -- 16 random bytes, without which nobody can guess what the row's personal values were; null when those are erased.
  salt BLOB CHECK (length(salt) = 16),
  -- SHA-256 of the details without their personal values; null where they hold none.
  public_details BLOB CHECK (length(public_details) = 32),
  -- The rule of service/ledger/sealing_rules.py that the row was sealed by; null once the row is archived and gone, as
  -- salt and public_details are.
  rule INTEGER DEFAULT 1 CHECK (rule BETWEEN 1 AND 255)
) STRICT;

-- Roots of whole subtrees, for proofs without reading all leaves: level 8 has 256 leaves below it, level 16 has 65,536, …
CREATE TABLE audit_nodes (
  level INTEGER NOT NULL CHECK (level > 0 AND level % 8 = 0),
  -- 0, 1, 2, … from the left.
  position INTEGER NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  -- The ids of the first and the last row below it, and the range of their created_at: a search by time leaves out
  -- whole subtrees. Null when none of the rows has a created_at.
  first_id INTEGER NOT NULL,
  last_id INTEGER NOT NULL,
  created_at_min TEXT,
  created_at_max TEXT,
  PRIMARY KEY (level, position)
) STRICT;

-- Where the tree ends: one row, moved on with every row of audit_logs.
CREATE TABLE audit_tree (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  -- The number of leaves.
  size INTEGER NOT NULL,
  -- audit_logs.id and hash of the last leaf; 0 and 32 zero bytes while there is none.
  last_id INTEGER NOT NULL,
  last_hash BLOB NOT NULL CHECK (length(last_hash) = 32),
  -- The roots of the whole subtrees that the leaves make up, the largest first, 32 bytes each.
  frontier BLOB NOT NULL CHECK (length(frontier) % 32 = 0)
) STRICT;

CREATE TRIGGER audit_leaves_refuse_update BEFORE UPDATE ON audit_leaves
WHEN NEW.leaf_index IS NOT OLD.leaf_index OR NEW.audit_log_id IS NOT OLD.audit_log_id OR NEW.hash IS NOT OLD.hash
  OR NEW.salt IS NOT NULL
  OR NOT (
    NEW.public_details IS OLD.public_details AND NEW.rule IS OLD.rule
      AND EXISTS (SELECT 1 FROM audit_erasures WHERE audit_log_id = OLD.audit_log_id)
      AND EXISTS (SELECT 1 FROM audit_logs WHERE id = OLD.audit_log_id AND telegram_id IS NULL)
    OR NEW.public_details IS NULL AND NEW.rule IS NULL
      AND EXISTS (SELECT 1 FROM audit_prunes WHERE through_id >= OLD.audit_log_id))
BEGIN
  SELECT RAISE(ABORT, 'leaves of the audit log are never updated');
END;

CREATE TRIGGER audit_leaves_refuse_delete BEFORE DELETE ON audit_leaves
BEGIN
  SELECT RAISE(ABORT, 'leaves of the audit log are never deleted');
END;

CREATE TRIGGER audit_nodes_refuse_update BEFORE UPDATE ON audit_nodes
BEGIN
  SELECT RAISE(ABORT, 'nodes of the audit log are never updated');
END;

CREATE TRIGGER audit_nodes_refuse_delete BEFORE DELETE ON audit_nodes
BEGIN
  SELECT RAISE(ABORT, 'nodes of the audit log are never deleted');
END;

CREATE TRIGGER audit_tree_only_grows BEFORE UPDATE ON audit_tree
WHEN NEW.size <= OLD.size OR NEW.last_id <= OLD.last_id
BEGIN
  SELECT RAISE(ABORT, 'the tree of the audit log only grows');
END;

CREATE TRIGGER audit_tree_refuse_delete BEFORE DELETE ON audit_tree
BEGIN
  SELECT RAISE(ABORT, 'the tree of the audit log is never deleted');
END;

-- What was archived and then removed: each row a prefix of the log that goes on where the one before it ended.
CREATE TABLE audit_prunes (
  -- audit_logs.id of the last row that was archived.
  through_id INTEGER PRIMARY KEY CHECK (through_id > 0),
  -- The leaves of the archive: from first_index to before size.
  first_index INTEGER NOT NULL CHECK (first_index >= 0),
  size INTEGER NOT NULL CHECK (size > first_index),
  -- The tree's root at that size.
  root BLOB NOT NULL CHECK (length(root) = 32),
  -- The range of the rows' created_at; null when none of them had one.
  created_at_min TEXT,
  created_at_max TEXT,
  -- The archive's file, without its folder, and SHA-256 of its bytes.
  archive TEXT NOT NULL,
  archive_sha256 BLOB NOT NULL CHECK (length(archive_sha256) = 32),
  actor TEXT NOT NULL,
  pruned_at TEXT NOT NULL
) STRICT;

-- Of which ids the archived rows told what, so that the ledger is still proved row by row: one bit for each id.
CREATE TABLE audit_pruned_steps (
  -- The action; "moved" for every action that moves money, with the id of the transaction.
  step TEXT NOT NULL,
  -- The resource's id / 32; bit (id % 32) is that id's.
  block INTEGER NOT NULL CHECK (block >= 0),
  -- 1 for the first row that told it, 2 for another one: a log that was wrong is not made right by archiving it.
  nth INTEGER NOT NULL CHECK (nth > 0),
  bits INTEGER NOT NULL CHECK (bits BETWEEN 1 AND 4294967295),
  PRIMARY KEY (step, block, nth)
) STRICT;

-- Whose personal data was erased, or is being erased.
CREATE TABLE user_erasures (
  user_id INTEGER PRIMARY KEY REFERENCES users(id),
  begun_at TEXT NOT NULL,
  actor TEXT NOT NULL,
  -- Null while it is not done.
  finished_at TEXT
) STRICT;

-- Rows of audit_logs without their personal values, and what stands for these in the leaf.
CREATE TABLE audit_erasures (
  -- audit_logs.id; the row itself may have been archived since.
  audit_log_id INTEGER PRIMARY KEY,
  -- SHA-256 of salt and personal values, as service/ledger/audit_chain.py says.
  commitment BLOB NOT NULL CHECK (length(commitment) = 32),
  user_id INTEGER NOT NULL REFERENCES user_erasures(user_id)
) STRICT;

CREATE TRIGGER audit_prunes_go_on BEFORE INSERT ON audit_prunes
WHEN NEW.first_index IS NOT (SELECT COALESCE(MAX(size), 0) FROM audit_prunes)
  OR EXISTS (SELECT 1 FROM audit_prunes WHERE through_id >= NEW.through_id)
  OR NOT EXISTS (SELECT 1 FROM audit_leaves WHERE leaf_index = NEW.size - 1 AND audit_log_id = NEW.through_id)
BEGIN
  SELECT RAISE(ABORT, 'a prune goes on where the one before it ended, up to a leaf');
END;

CREATE TRIGGER audit_prunes_refuse_update BEFORE UPDATE ON audit_prunes
BEGIN
  SELECT RAISE(ABORT, 'records of prunes are never updated');
END;

CREATE TRIGGER audit_prunes_refuse_delete BEFORE DELETE ON audit_prunes
BEGIN
  SELECT RAISE(ABORT, 'records of prunes are never deleted');
END;

CREATE TRIGGER audit_pruned_steps_only_grow BEFORE UPDATE ON audit_pruned_steps
WHEN NEW.step IS NOT OLD.step OR NEW.block IS NOT OLD.block OR NEW.nth IS NOT OLD.nth
  OR NEW.bits & OLD.bits <> OLD.bits
BEGIN
  SELECT RAISE(ABORT, 'what archived rows told is never forgotten');
END;

CREATE TRIGGER audit_pruned_steps_refuse_replace BEFORE INSERT ON audit_pruned_steps
WHEN EXISTS (SELECT 1 FROM audit_pruned_steps WHERE step = NEW.step AND block = NEW.block AND nth = NEW.nth)
BEGIN
  SELECT RAISE(ABORT, 'what archived rows told is never forgotten');
END;

CREATE TRIGGER audit_pruned_steps_refuse_delete BEFORE DELETE ON audit_pruned_steps
BEGIN
  SELECT RAISE(ABORT, 'what archived rows told is never forgotten');
END;

CREATE TRIGGER user_erasures_finish_once BEFORE UPDATE ON user_erasures
WHEN NEW.user_id IS NOT OLD.user_id OR NEW.begun_at IS NOT OLD.begun_at OR NEW.actor IS NOT OLD.actor
  OR OLD.finished_at IS NOT NULL OR NEW.finished_at IS NULL
BEGIN
  SELECT RAISE(ABORT, 'an erasure is finished once');
END;

CREATE TRIGGER user_erasures_refuse_replace BEFORE INSERT ON user_erasures
WHEN EXISTS (SELECT 1 FROM user_erasures WHERE user_id = NEW.user_id)
BEGIN
  SELECT RAISE(ABORT, 'records of erasures are never replaced');
END;

CREATE TRIGGER user_erasures_refuse_delete BEFORE DELETE ON user_erasures
BEGIN
  SELECT RAISE(ABORT, 'records of erasures are never deleted');
END;

-- A commitment is put on record while there is a salt that it can be computed with.
CREATE TRIGGER audit_erasures_take_the_salts_place BEFORE INSERT ON audit_erasures
WHEN EXISTS (SELECT 1 FROM audit_erasures WHERE audit_log_id = NEW.audit_log_id)
  OR NOT EXISTS (SELECT 1 FROM user_erasures WHERE user_id = NEW.user_id AND finished_at IS NULL)
  OR NOT EXISTS (SELECT 1 FROM audit_leaves WHERE audit_log_id = NEW.audit_log_id AND salt IS NOT NULL)
BEGIN
  SELECT RAISE(ABORT, 'a row is erased once, in the erasure of a user');
END;

CREATE TRIGGER audit_erasures_refuse_update BEFORE UPDATE ON audit_erasures
BEGIN
  SELECT RAISE(ABORT, 'commitments of erased rows are never updated');
END;

CREATE TRIGGER audit_erasures_refuse_delete BEFORE DELETE ON audit_erasures
BEGIN
  SELECT RAISE(ABORT, 'commitments of erased rows are never deleted');
END;

-- One row: the rule by which match_name of every row was made (service/ledger/depositor_names.py).
CREATE TABLE name_folding (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  -- 1: NFC, case folded, without blanks. 2: NFKC, case folded, without all that cannot be seen.
  rule INTEGER NOT NULL CHECK (rule BETWEEN 1 AND 255)
) STRICT;

CREATE TRIGGER name_folding_only_grows BEFORE UPDATE ON name_folding
WHEN NEW.rule <= OLD.rule
BEGIN
  SELECT RAISE(ABORT, 'names are folded by a later rule only');
END;

CREATE TRIGGER name_folding_refuse_delete BEFORE DELETE ON name_folding
BEGIN
  SELECT RAISE(ABORT, 'the rule that names are folded by is never deleted');
END;
