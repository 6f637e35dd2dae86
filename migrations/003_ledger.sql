-- Migration 003: every confirmed transaction carries its place in the user's history, and the database itself
-- lets no balance change without its transaction.
--
-- What the bot wrote before keeps its rows. They get a direction; version, balance_before and balance_after stay
-- null in them, because the bot did not record an order that could be proved. Where their signed sum is not the
-- balance, one opening_credit or opening_debit per user states the difference, so that from here on
-- balance = signed sum of the confirmed transactions.

-- 'credit' raises the balance, 'debit' lowers it; amount itself is never negative.
ALTER TABLE deposit_transactions ADD COLUMN direction TEXT NOT NULL DEFAULT 'credit'
  CHECK (direction IN ('credit', 'debit'));
-- Won; null until confirmed, and in rows confirmed before this migration.
ALTER TABLE deposit_transactions ADD COLUMN balance_before INTEGER
  CHECK (balance_before BETWEEN 0 AND 9007199254740991);
ALTER TABLE deposit_transactions ADD COLUMN balance_after INTEGER
  CHECK (balance_after BETWEEN 0 AND 9007199254740991);
-- 1 for the first transaction that moved this user's balance, then 2, 3, …; null like balance_before.
ALTER TABLE deposit_transactions ADD COLUMN version INTEGER CHECK (version >= 1);
-- The caller's own name for the transaction; null when it gave none.
ALTER TABLE deposit_transactions ADD COLUMN reference TEXT;
-- The version of the user's latest transaction that moved the balance; 0 before the first.
ALTER TABLE user_deposits ADD COLUMN version INTEGER NOT NULL DEFAULT 0 CHECK (version >= 0);

CREATE UNIQUE INDEX idx_transactions_user_version ON deposit_transactions(user_id, version)
  WHERE version IS NOT NULL;
CREATE INDEX idx_transactions_type ON deposit_transactions(type, status);

-- The bot's own words for money that leaves.
UPDATE deposit_transactions SET direction = 'debit'
WHERE amount >= 0 AND type IN ('withdrawal', 'withdraw', 'debit', 'purchase', 'domain_purchase', 'domain',
                               'payment', 'spend', 'fee', 'opening_debit');

-- A negative amount is a debit of its absolute value; the old row is kept whole in the log.
INSERT INTO audit_logs (user_id, telegram_id, action, resource_type, resource_id, details)
SELECT t.user_id, u.telegram_id, 'migration_amount_made_positive', 'deposit_transaction', t.id,
       json_object('id', t.id, 'user_id', t.user_id, 'type', t.type, 'amount', t.amount, 'status', t.status,
                   'depositor_name', t.depositor_name, 'description', t.description,
                   'confirmed_at', t.confirmed_at, 'created_at', t.created_at)
FROM deposit_transactions AS t LEFT JOIN users AS u ON u.id = t.user_id
WHERE t.amount < 0 AND NOT EXISTS (
  SELECT 1 FROM audit_logs
  WHERE action = 'migration_amount_made_positive' AND resource_type = 'deposit_transaction' AND resource_id = t.id)
ORDER BY t.id;
UPDATE deposit_transactions SET direction = 'debit', amount = abs(amount) WHERE amount < 0;

-- An account whose user does not exist belongs to nobody and cannot be asked for; it is kept whole in the log.
INSERT INTO audit_logs (user_id, action, resource_type, resource_id, details)
SELECT d.user_id, 'migration_orphan_account_removed', 'user_deposits', d.id,
       json_object('id', d.id, 'user_id', d.user_id, 'balance', d.balance, 'created_at', d.created_at)
FROM user_deposits AS d WHERE d.user_id NOT IN (SELECT id FROM users) ORDER BY d.id;
DELETE FROM user_deposits WHERE user_id NOT IN (SELECT id FROM users);

-- Every user has an account; one whose negative balance 001 rejected starts again from 0.
INSERT INTO user_deposits (user_id, balance)
SELECT id, 0 FROM users WHERE id NOT IN (SELECT user_id FROM user_deposits) ORDER BY id;

-- The difference between each balance and its history, stated as a transaction and logged.
CREATE TABLE opening_differences (
  user_id INTEGER PRIMARY KEY,
  telegram_id TEXT,
  balance INTEGER NOT NULL,
  history INTEGER NOT NULL
);
INSERT INTO opening_differences (user_id, telegram_id, balance, history)
SELECT d.user_id, u.telegram_id, d.balance, COALESCE(h.total, 0)
FROM user_deposits AS d
JOIN users AS u ON u.id = d.user_id
LEFT JOIN (
  SELECT user_id, SUM(amount * ((direction = 'credit') - (direction = 'debit'))) AS total
  FROM deposit_transactions WHERE status = 'confirmed' GROUP BY user_id
) AS h ON h.user_id = d.user_id
WHERE d.balance <> COALESCE(h.total, 0);
INSERT INTO deposit_transactions (user_id, type, direction, amount, status, description, confirmed_at)
SELECT user_id, iif(balance > history, 'opening_credit', 'opening_debit'),
       iif(balance > history, 'credit', 'debit'), abs(balance - history),
       'confirmed', 'The balance taken over differs from the history taken over.', CURRENT_TIMESTAMP
FROM opening_differences ORDER BY user_id;
INSERT INTO audit_logs (user_id, telegram_id, action, resource_type, resource_id, details)
SELECT o.user_id, o.telegram_id, 'opening_adjustment', 'deposit_transaction', t.id,
       json_object('balance', o.balance, 'history', o.history, 'amount', t.amount, 'direction', t.direction)
FROM opening_differences AS o
JOIN deposit_transactions AS t ON t.id = (
  SELECT MAX(id) FROM deposit_transactions
  WHERE user_id = o.user_id AND type IN ('opening_credit', 'opening_debit'))
ORDER BY o.user_id;
DROP TABLE opening_differences;

-- A user keeps its name for ever, and has an account from the start, whoever writes the row.
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
WHEN NEW.id IS NOT OLD.id OR NEW.telegram_id IS NOT OLD.telegram_id
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

-- What a transaction says never changes; only its status moves on, and only forwards.
CREATE TRIGGER deposit_transactions_move_forwards
BEFORE UPDATE ON deposit_transactions
WHEN NEW.id IS NOT OLD.id OR NEW.user_id IS NOT OLD.user_id OR NEW.type IS NOT OLD.type
  OR NEW.direction IS NOT OLD.direction OR NEW.amount IS NOT OLD.amount
  OR NEW.depositor_name IS NOT OLD.depositor_name OR NEW.description IS NOT OLD.description
  OR NEW.reference IS NOT OLD.reference OR NEW.created_at IS NOT OLD.created_at
  OR NOT ((OLD.status = 'pending' AND NEW.status IN ('confirmed', 'cancelled', 'expired'))
          OR (OLD.status = 'expired' AND NEW.status = 'confirmed'))
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
WHEN (NEW.status = 'confirmed' OR NEW.version IS NOT NULL) AND NOT EXISTS (
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
