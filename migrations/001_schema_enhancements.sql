-- Migration 001: schema enhancements (guide: Schema Migration Guide, "Migration 001").
--
-- user_deposits.balance >= 0, deposit_transactions.depositor_name of at most 50 characters, and the table audit_logs.
-- SQLite cannot add a CHECK to a table, so both tables are rebuilt: backup -> drop -> create -> restore.
--
-- The file may be run again from every half-finished state, and after it has finished. Each statement may stand for
-- itself or all of them may be one transaction. What makes that true: nothing is dropped before its copy is complete,
-- the copies are merged and never replaced, and all that is logged lies in a working table until the very end.
--
-- Nothing is lost: a row with a negative balance is not restored, and a name above 50 characters is cut, but the whole
-- old value is in the details of an audit_logs row, from where 001_rollback.sql puts it back.

-- Step 0: guards. A number above zero breaks a named constraint, whose name is then the error message.
DROP TABLE IF EXISTS migration_001_guard;

CREATE TABLE migration_001_guard (
  unknown_columns INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "migration 001 stopped: user_deposits or deposit_transactions has columns that this file does not know"
    CHECK (unknown_columns = 0),
  unknown_objects INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "migration 001 stopped: user_deposits or deposit_transactions has indexes or triggers that this file does not know"
    CHECK (unknown_objects = 0),
  accounts_without_copy INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "migration 001 stopped: user_deposits_backup lacks rows of user_deposits"
    CHECK (accounts_without_copy = 0),
  accounts_lost INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "migration 001 stopped: rows of user_deposits_backup were neither restored nor rejected"
    CHECK (accounts_lost = 0),
  transactions_without_copy INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "migration 001 stopped: deposit_transactions_backup lacks rows of deposit_transactions"
    CHECK (transactions_without_copy = 0),
  transactions_lost INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "migration 001 stopped: rows of deposit_transactions_backup were not restored"
    CHECK (transactions_lost = 0),
  matches_lost INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "migration 001 stopped: bank_notifications lost links to deposit_transactions"
    CHECK (matches_lost = 0),
  audit_rows_lost INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "migration 001 stopped: audit_logs lacks rows about rejected or cut values"
    CHECK (audit_rows_lost = 0)
);

-- Nothing has been touched yet: a table with a column that the rebuild does not carry over would lose it, so stop here.
INSERT INTO migration_001_guard (unknown_columns)
SELECT
  (SELECT COUNT(*) FROM pragma_table_info('user_deposits')
    WHERE name NOT IN ('id', 'user_id', 'balance', 'created_at'))
  + (SELECT COUNT(*) FROM pragma_table_info('deposit_transactions')
    WHERE name NOT IN ('id', 'user_id', 'type', 'amount', 'status', 'depositor_name', 'description', 'confirmed_at',
      'created_at'));

-- Dropping a table drops its indexes and triggers; those that are not made anew below would vanish in silence.
INSERT INTO migration_001_guard (unknown_objects)
SELECT COUNT(*) FROM sqlite_master
WHERE tbl_name IN ('user_deposits', 'deposit_transactions')
  AND type IN ('index', 'trigger')
  AND sql IS NOT NULL
  AND name NOT IN ('idx_deposits_user', 'idx_transactions_user', 'idx_transactions_status');

-- Where the whole file is one transaction, tables of the bot that we do not know may point at the rebuilt ones; such links
-- are then checked at its end, when the rows are back under the same name and the same id.
PRAGMA defer_foreign_keys = ON;

-- Step 1: the audit log, first, so that there is a place for what the rebuild rejects.
CREATE TABLE IF NOT EXISTS audit_logs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER,
  telegram_id TEXT,
  action TEXT NOT NULL,
  resource_type TEXT,
  resource_id INTEGER,
  details TEXT,
  ip_address TEXT,
  user_agent TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX IF NOT EXISTS idx_audit_logs_telegram_id ON audit_logs(telegram_id, created_at);

CREATE INDEX IF NOT EXISTS idx_audit_logs_action ON audit_logs(action, created_at);

CREATE INDEX IF NOT EXISTS idx_audit_logs_resource ON audit_logs(resource_type, resource_id);

-- The working tables. They outlive an interrupted run, and the other file of this pair reads them too.
-- migration_001_sequence: the highest id ever given out, because DROP TABLE forgets it and an id must not be used twice.
CREATE TABLE IF NOT EXISTS migration_001_sequence (
  name TEXT PRIMARY KEY,
  seq INTEGER NOT NULL
);

INSERT INTO migration_001_sequence (name, seq)
SELECT name, seq FROM sqlite_sequence
WHERE name IN ('user_deposits', 'deposit_transactions') AND seq IS NOT NULL
ON CONFLICT (name) DO UPDATE SET seq = max(seq, excluded.seq);

-- migration_001_audit: the audit rows of this migration, one for each action and row, so that neither a second run nor
-- an operator who drops audit_logs (guide, Troubleshooting) can double or lose one. It is dropped last of all.
CREATE TABLE IF NOT EXISTS migration_001_audit (
  action TEXT NOT NULL,
  resource_type TEXT NOT NULL,
  resource_id INTEGER NOT NULL,
  user_id INTEGER,
  telegram_id TEXT,
  details TEXT NOT NULL,
  PRIMARY KEY (action, resource_id)
);

-- bank_notifications_backup: the links to deposit_transactions, which must be loose while that table is dropped.
CREATE TABLE IF NOT EXISTS bank_notifications_backup (
  id INTEGER PRIMARY KEY,
  matched_transaction_id INTEGER NOT NULL
);

-- Step 2: user_deposits, backup. An interrupted run may have dropped the table: it comes back empty, with its old high
-- id, so that what follows can read it like any other.
INSERT INTO sqlite_sequence (name, seq)
SELECT name, seq FROM migration_001_sequence
WHERE name = 'user_deposits' AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'user_deposits');

CREATE TABLE IF NOT EXISTS user_deposits (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL UNIQUE,
  balance INTEGER NOT NULL DEFAULT 0 CHECK (balance >= 0),
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE IF NOT EXISTS user_deposits_backup (
  id INTEGER PRIMARY KEY,
  user_id INTEGER,
  balance INTEGER,
  created_at DATETIME
);

-- Without it, looking for a user's newer account would read the whole copy once for each account.
CREATE INDEX IF NOT EXISTS idx_user_deposits_backup_user ON user_deposits_backup(user_id);

-- A live row is newer than its copy and wins; a copy without a live row is all that an interrupted run left, and stays.
INSERT INTO user_deposits_backup (id, user_id, balance, created_at)
SELECT id, user_id, balance, created_at FROM user_deposits WHERE true
ON CONFLICT (id) DO UPDATE SET
  user_id = excluded.user_id,
  balance = excluded.balance,
  created_at = excluded.created_at;

-- What an interrupted run noted about these rows is noted anew from the copies: the operator may have mended a balance.
-- Notes about rows of which there is no copy any more stay.
DELETE FROM migration_001_audit
WHERE resource_type = 'user_deposits' AND resource_id IN (SELECT id FROM user_deposits_backup);

-- A negative balance is rejected by the new constraint; the row is noted whole.
INSERT INTO migration_001_audit (action, resource_type, resource_id, user_id, telegram_id, details)
SELECT
  'migration_balance_rejected', 'user_deposits', b.id, b.user_id, u.telegram_id,
  json_object('id', b.id, 'user_id', b.user_id, 'balance', b.balance, 'created_at', b.created_at)
FROM user_deposits_backup AS b
LEFT JOIN users AS u ON u.id = b.user_id
WHERE b.balance < 0
ON CONFLICT (action, resource_id) DO UPDATE SET details = excluded.details;

-- Between an interrupted run and this one the bot may have opened a second account for a user whose first one was only
-- in the backup. One user has one account: the newer one stays, and the older one is noted whole.
INSERT INTO migration_001_audit (action, resource_type, resource_id, user_id, telegram_id, details)
SELECT
  'migration_account_superseded', 'user_deposits', b.id, b.user_id, u.telegram_id,
  json_object('id', b.id, 'user_id', b.user_id, 'balance', b.balance, 'created_at', b.created_at)
FROM user_deposits_backup AS b
LEFT JOIN users AS u ON u.id = b.user_id
WHERE b.balance >= 0
  AND EXISTS (
    SELECT 1 FROM user_deposits_backup AS newer
    WHERE newer.user_id = b.user_id AND newer.id > b.id AND newer.balance >= 0
  )
ON CONFLICT (action, resource_id) DO UPDATE SET details = excluded.details;

-- The copy must be complete before the table goes.
INSERT INTO migration_001_guard (accounts_without_copy)
SELECT COUNT(*) FROM user_deposits WHERE id NOT IN (SELECT id FROM user_deposits_backup);

-- Step 3: user_deposits, drop. The copy holds every row, whatever happens after this statement.
DROP TABLE user_deposits;

-- Step 4: user_deposits, create. The high id comes first, so that not even an account that the bot opens in the moment
-- before the restore can be given the id of another one.
INSERT INTO sqlite_sequence (name, seq)
SELECT name, seq FROM migration_001_sequence
WHERE name = 'user_deposits' AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'user_deposits');

CREATE TABLE user_deposits (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL UNIQUE,
  balance INTEGER NOT NULL DEFAULT 0 CHECK (balance >= 0),
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

-- Step 5: user_deposits, restore: all rows but the noted ones.
INSERT INTO user_deposits (id, user_id, balance, created_at)
SELECT id, user_id, balance, created_at FROM user_deposits_backup
WHERE id NOT IN (SELECT resource_id FROM migration_001_audit WHERE resource_type = 'user_deposits')
ORDER BY id;

CREATE INDEX IF NOT EXISTS idx_deposits_user ON user_deposits(user_id);

-- Restored + rejected = before.
INSERT INTO migration_001_guard (accounts_lost)
SELECT
  (SELECT COUNT(*) FROM user_deposits_backup)
  - (SELECT COUNT(*) FROM user_deposits WHERE id IN (SELECT id FROM user_deposits_backup))
  - (SELECT COUNT(*) FROM migration_001_audit
    WHERE resource_type = 'user_deposits' AND resource_id IN (SELECT id FROM user_deposits_backup));

-- Step 6: deposit_transactions, backup, in the same manner.
INSERT INTO sqlite_sequence (name, seq)
SELECT name, seq FROM migration_001_sequence
WHERE name = 'deposit_transactions' AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'deposit_transactions');

CREATE TABLE IF NOT EXISTS deposit_transactions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users(id),
  type TEXT NOT NULL,
  amount INTEGER NOT NULL,
  status TEXT NOT NULL DEFAULT 'pending',
  depositor_name TEXT CHECK (length(depositor_name) <= 50),
  description TEXT,
  confirmed_at DATETIME,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE IF NOT EXISTS deposit_transactions_backup (
  id INTEGER PRIMARY KEY,
  user_id INTEGER,
  type TEXT,
  amount INTEGER,
  status TEXT,
  depositor_name TEXT,
  description TEXT,
  confirmed_at DATETIME,
  created_at DATETIME
);

-- As above, with one exception: a name that an interrupted run has cut must not overwrite the whole name in its copy.
INSERT INTO deposit_transactions_backup
  (id, user_id, type, amount, status, depositor_name, description, confirmed_at, created_at)
SELECT id, user_id, type, amount, status, depositor_name, description, confirmed_at, created_at
FROM deposit_transactions WHERE true
ON CONFLICT (id) DO UPDATE SET
  user_id = excluded.user_id,
  type = excluded.type,
  amount = excluded.amount,
  status = excluded.status,
  depositor_name = iif(
    length(depositor_name) > 50 AND substr(depositor_name, 1, 50) = excluded.depositor_name,
    depositor_name,
    excluded.depositor_name
  ),
  description = excluded.description,
  confirmed_at = excluded.confirmed_at,
  created_at = excluded.created_at;

-- A note about a name that has been changed by hand since an interrupted run is no longer true.
DELETE FROM migration_001_audit
WHERE action = 'migration_depositor_name_truncated'
  AND NOT EXISTS (
    SELECT 1 FROM deposit_transactions_backup AS b
    WHERE b.id = migration_001_audit.resource_id
      AND substr(b.depositor_name, 1, 50) = json_extract(migration_001_audit.details, '$.new_depositor_name')
  );

-- A name above 50 characters is going to be cut; the whole name is noted.
INSERT INTO migration_001_audit (action, resource_type, resource_id, user_id, telegram_id, details)
SELECT
  'migration_depositor_name_truncated', 'deposit_transaction', b.id, b.user_id, u.telegram_id,
  json_object('depositor_name', b.depositor_name, 'new_depositor_name', substr(b.depositor_name, 1, 50))
FROM deposit_transactions_backup AS b
LEFT JOIN users AS u ON u.id = b.user_id
WHERE length(b.depositor_name) > 50
ON CONFLICT (action, resource_id) DO UPDATE SET details = excluded.details;

-- The copy must be complete before the table goes.
INSERT INTO migration_001_guard (transactions_without_copy)
SELECT COUNT(*) FROM deposit_transactions WHERE id NOT IN (SELECT id FROM deposit_transactions_backup);

-- The links are copied and then loosened: DROP TABLE deletes the rows first, and with foreign keys on that is refused
-- while a notification still points at one of them, if every statement stands for itself.
INSERT INTO bank_notifications_backup (id, matched_transaction_id)
SELECT id, matched_transaction_id FROM bank_notifications WHERE matched_transaction_id IS NOT NULL
ON CONFLICT (id) DO UPDATE SET matched_transaction_id = excluded.matched_transaction_id;

UPDATE bank_notifications SET matched_transaction_id = NULL WHERE matched_transaction_id IS NOT NULL;

-- With foreign keys on, DROP TABLE looks for what points at each row; without an index it would read all notifications
-- once for each transaction: hours for half a million. It goes with the table.
CREATE INDEX IF NOT EXISTS idx_migration_001_links ON bank_notifications(matched_transaction_id);

-- Step 7: deposit_transactions, drop.
DROP TABLE deposit_transactions;

DROP INDEX IF EXISTS idx_migration_001_links;

-- Step 8: deposit_transactions, create, with the high id first.
INSERT INTO sqlite_sequence (name, seq)
SELECT name, seq FROM migration_001_sequence
WHERE name = 'deposit_transactions' AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'deposit_transactions');

CREATE TABLE deposit_transactions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users(id),
  type TEXT NOT NULL,
  amount INTEGER NOT NULL,
  status TEXT NOT NULL DEFAULT 'pending',
  depositor_name TEXT CHECK (length(depositor_name) <= 50),
  description TEXT,
  confirmed_at DATETIME,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

-- Step 9: deposit_transactions, restore: all rows, with names cut to 50 characters (code points, as length() counts).
INSERT INTO deposit_transactions
  (id, user_id, type, amount, status, depositor_name, description, confirmed_at, created_at)
SELECT
  id, user_id, type, amount, status,
  iif(length(depositor_name) > 50, substr(depositor_name, 1, 50), depositor_name),
  description, confirmed_at, created_at
FROM deposit_transactions_backup
ORDER BY id;

-- The links are tied again; one that the bot has tied anew since an interrupted run stays as the bot wants it.
UPDATE bank_notifications
SET matched_transaction_id = (
  SELECT b.matched_transaction_id FROM bank_notifications_backup AS b WHERE b.id = bank_notifications.id
)
WHERE matched_transaction_id IS NULL AND id IN (SELECT id FROM bank_notifications_backup);

CREATE INDEX IF NOT EXISTS idx_transactions_user ON deposit_transactions(user_id, created_at);

CREATE INDEX IF NOT EXISTS idx_transactions_status ON deposit_transactions(status, created_at);

-- Restored = before.
INSERT INTO migration_001_guard (transactions_lost)
SELECT
  (SELECT COUNT(*) FROM deposit_transactions_backup)
  - (SELECT COUNT(*) FROM deposit_transactions WHERE id IN (SELECT id FROM deposit_transactions_backup));

-- A loose link would let the same bank transfer be credited a second time.
INSERT INTO migration_001_guard (matches_lost)
SELECT COUNT(*) FROM bank_notifications_backup AS b
JOIN bank_notifications AS n ON n.id = b.id
WHERE n.matched_transaction_id IS NULL;

-- Step 10: the audit log. Written now, when it is certain what was rejected and cut, and each row only once.
INSERT INTO audit_logs (user_id, telegram_id, action, resource_type, resource_id, details)
SELECT m.user_id, m.telegram_id, m.action, m.resource_type, m.resource_id, m.details
FROM migration_001_audit AS m
WHERE NOT EXISTS (
  SELECT 1 FROM audit_logs AS a WHERE a.action = m.action AND a.resource_id = m.resource_id
)
ORDER BY m.action, m.resource_id;

-- After this the copies go, so every note must be in the log.
INSERT INTO migration_001_guard (audit_rows_lost)
SELECT COUNT(*) FROM migration_001_audit AS m
WHERE NOT EXISTS (
  SELECT 1 FROM audit_logs AS a WHERE a.action = m.action AND a.resource_id = m.resource_id
);

-- Step 11: the backups and working tables go, so that a later run cannot take them for the remains of an interrupted one.
DROP TABLE IF EXISTS user_deposits_backup;

DROP TABLE IF EXISTS deposit_transactions_backup;

DROP TABLE IF EXISTS bank_notifications_backup;

DROP TABLE IF EXISTS migration_001_guard;

DROP TABLE IF EXISTS migration_001_sequence;

-- Last, because until now it alone could have made a dropped audit_logs whole again.
DROP TABLE IF EXISTS migration_001_audit;

-- The counts are for the eye of the operator, who compares them with those from before.
SELECT
  '✅ Migration 001 completed successfully' AS result,
  (SELECT COUNT(*) FROM user_deposits) AS user_deposits,
  (SELECT COUNT(*) FROM deposit_transactions) AS deposit_transactions,
  (SELECT COUNT(*) FROM audit_logs WHERE action = 'migration_balance_rejected') AS balances_rejected,
  (SELECT COUNT(*) FROM audit_logs WHERE action = 'migration_depositor_name_truncated') AS names_truncated;
