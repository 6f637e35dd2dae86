-- Rollback of migration 001 (guide: Schema Migration Guide, "Rollback Procedure").
--
-- The CHECK constraints go, the indexes are made anew, audit_logs is removed. The tables are rebuilt in the same way as
-- in 001_schema_enhancements.sql: backup -> drop -> create -> restore.
--
-- Nothing is lost: rejected accounts and cut names are put back out of the details of their audit_logs rows before that
-- table goes. Only where the user has a newer account since then, the rejected one stays out: one user has one account.
--
-- The file may be run again from every half-finished state, and on the remains of an interrupted 001, which is when the
-- guide wants it most.

-- Step 0: guards. A number above zero breaks a named constraint, whose name is then the error message.
DROP TABLE IF EXISTS migration_001_guard;

CREATE TABLE migration_001_guard (
  unknown_columns INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "rollback 001 stopped: user_deposits or deposit_transactions has columns that this file does not know"
    CHECK (unknown_columns = 0),
  unknown_objects INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "rollback 001 stopped: user_deposits or deposit_transactions has indexes or triggers that this file does not know"
    CHECK (unknown_objects = 0),
  unknown_audit INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "rollback 001 stopped: audit_logs has columns or triggers of a later migration, roll that one back first"
    CHECK (unknown_audit = 0),
  accounts_without_copy INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "rollback 001 stopped: user_deposits_backup lacks rows of user_deposits"
    CHECK (accounts_without_copy = 0),
  accounts_lost INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "rollback 001 stopped: rows of user_deposits_backup were not restored (two accounts of one user?)"
    CHECK (accounts_lost = 0),
  transactions_without_copy INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "rollback 001 stopped: deposit_transactions_backup lacks rows of deposit_transactions"
    CHECK (transactions_without_copy = 0),
  transactions_lost INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "rollback 001 stopped: rows of deposit_transactions_backup were not restored"
    CHECK (transactions_lost = 0),
  matches_lost INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "rollback 001 stopped: bank_notifications lost links to deposit_transactions"
    CHECK (matches_lost = 0)
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

-- Later migrations widen audit_logs; dropping it under them would lose what they keep there.
INSERT INTO migration_001_guard (unknown_audit)
SELECT
  (SELECT COUNT(*) FROM pragma_table_info('audit_logs')
    WHERE name NOT IN ('id', 'user_id', 'telegram_id', 'action', 'resource_type', 'resource_id', 'details', 'ip_address',
      'user_agent', 'created_at'))
  + (SELECT COUNT(*) FROM sqlite_master WHERE tbl_name = 'audit_logs' AND type = 'trigger');

-- Where the whole file is one transaction, tables of the bot that we do not know may point at the rebuilt ones; such links
-- are then checked at its end, when the rows are back under the same name and the same id.
PRAGMA defer_foreign_keys = ON;

-- Step 1: what 001 noted. An interrupted run may have dropped the log already, or never made it: then it is empty.
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

-- The log and the notes that an interrupted 001 has left are put together; a note is the same thing before it is logged.
INSERT INTO migration_001_audit (action, resource_type, resource_id, user_id, telegram_id, details)
SELECT action, resource_type, resource_id, user_id, telegram_id, details
FROM audit_logs
WHERE resource_id IS NOT NULL
  AND json_valid(details)
  AND (
    resource_type = 'user_deposits' AND action IN ('migration_balance_rejected', 'migration_account_superseded')
    OR resource_type = 'deposit_transaction' AND action = 'migration_depositor_name_truncated'
  )
ORDER BY id
ON CONFLICT (action, resource_id) DO NOTHING;

-- Step 2: user_deposits, backup. A table that an interrupted run has dropped comes back empty, with its old high id.
INSERT INTO sqlite_sequence (name, seq)
SELECT name, seq FROM migration_001_sequence
WHERE name = 'user_deposits' AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'user_deposits');

CREATE TABLE IF NOT EXISTS user_deposits (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL UNIQUE,
  balance INTEGER NOT NULL DEFAULT 0,
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

-- The rejected rows join the others, unless the user has an account again.
INSERT INTO user_deposits_backup (id, user_id, balance, created_at)
SELECT
  m.resource_id,
  json_extract(m.details, '$.user_id'),
  json_extract(m.details, '$.balance'),
  json_extract(m.details, '$.created_at')
FROM migration_001_audit AS m
WHERE m.resource_type = 'user_deposits'
  AND NOT EXISTS (
    SELECT 1 FROM user_deposits_backup AS b
    WHERE b.id = m.resource_id OR b.user_id = json_extract(m.details, '$.user_id')
  );

-- The copy must be complete before the table goes.
INSERT INTO migration_001_guard (accounts_without_copy)
SELECT COUNT(*) FROM user_deposits WHERE id NOT IN (SELECT id FROM user_deposits_backup);

-- Step 3: user_deposits, drop.
DROP TABLE user_deposits;

-- Step 4: user_deposits, create, with the high id first, so that no id is given out twice.
INSERT INTO sqlite_sequence (name, seq)
SELECT name, seq FROM migration_001_sequence
WHERE name = 'user_deposits' AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'user_deposits');

CREATE TABLE user_deposits (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL UNIQUE,
  balance INTEGER NOT NULL DEFAULT 0,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

-- Step 5: user_deposits, restore. Of two accounts of one user (see 001, step 2) the newer one stays.
INSERT INTO user_deposits (id, user_id, balance, created_at)
SELECT id, user_id, balance, created_at FROM user_deposits_backup AS b
WHERE NOT EXISTS (
  SELECT 1 FROM user_deposits_backup AS newer WHERE newer.user_id = b.user_id AND newer.id > b.id
)
ORDER BY id;

CREATE INDEX IF NOT EXISTS idx_deposits_user ON user_deposits(user_id);

-- Every row is back, but for the noted ones of users who have a newer account. An older account that nobody has noted
-- stops the rollback here, with both rows in the backup: which of the two is right is for a person to say.
INSERT INTO migration_001_guard (accounts_lost)
SELECT COUNT(*) FROM user_deposits_backup
WHERE id NOT IN (SELECT id FROM user_deposits)
  AND id NOT IN (SELECT resource_id FROM migration_001_audit WHERE resource_type = 'user_deposits');

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
  depositor_name TEXT,
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

-- The cut names become whole again; a name that was changed after the cut is not touched.
UPDATE deposit_transactions_backup
SET depositor_name = (
  SELECT json_extract(m.details, '$.depositor_name') FROM migration_001_audit AS m
  WHERE m.action = 'migration_depositor_name_truncated' AND m.resource_id = deposit_transactions_backup.id
)
WHERE EXISTS (
  SELECT 1 FROM migration_001_audit AS m
  WHERE m.action = 'migration_depositor_name_truncated'
    AND m.resource_id = deposit_transactions_backup.id
    AND json_extract(m.details, '$.new_depositor_name') = deposit_transactions_backup.depositor_name
);

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
  depositor_name TEXT,
  description TEXT,
  confirmed_at DATETIME,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

-- Step 9: deposit_transactions, restore.
INSERT INTO deposit_transactions
  (id, user_id, type, amount, status, depositor_name, description, confirmed_at, created_at)
SELECT id, user_id, type, amount, status, depositor_name, description, confirmed_at, created_at
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

-- Step 10: the audit log goes, with its indexes. What 001 wrote into it is back in the tables.
DROP TABLE audit_logs;

-- Step 11: the backups and working tables go, so that a later run cannot take them for the remains of an interrupted one.
DROP TABLE IF EXISTS user_deposits_backup;

DROP TABLE IF EXISTS deposit_transactions_backup;

DROP TABLE IF EXISTS bank_notifications_backup;

DROP TABLE IF EXISTS migration_001_guard;

DROP TABLE IF EXISTS migration_001_sequence;

-- Last, because after audit_logs it alone knows what was rejected and cut.
DROP TABLE IF EXISTS migration_001_audit;

SELECT
  '✅ Rollback 001 completed successfully' AS result,
  (SELECT COUNT(*) FROM user_deposits) AS user_deposits,
  (SELECT COUNT(*) FROM deposit_transactions) AS deposit_transactions;
