-- Migration 013: old rows of audit_logs can be archived, and one user's personal data erased. Neither touches a hash.
--
-- Leaves and nodes stay for ever, so that every proof and every checkpoint of before holds. SQL cannot hash: that an
-- archive holds what was removed, and that what is left of erased details is what was sealed, is proved by Passbook.

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

-- A leaf loses its salt once its row has lost its personal values, and its salt and public_details once it is archived.
DROP TRIGGER audit_leaves_refuse_update;
CREATE TRIGGER audit_leaves_refuse_update BEFORE UPDATE ON audit_leaves
WHEN NEW.leaf_index IS NOT OLD.leaf_index OR NEW.audit_log_id IS NOT OLD.audit_log_id OR NEW.hash IS NOT OLD.hash
  OR NEW.salt IS NOT NULL
  OR NOT (
    NEW.public_details IS OLD.public_details
      AND EXISTS (SELECT 1 FROM audit_erasures WHERE audit_log_id = OLD.audit_log_id)
      AND EXISTS (SELECT 1 FROM audit_logs WHERE id = OLD.audit_log_id AND telegram_id IS NULL)
    OR NEW.public_details IS NULL AND EXISTS (SELECT 1 FROM audit_prunes WHERE through_id >= OLD.audit_log_id))
BEGIN
  SELECT RAISE(ABORT, 'leaves of the audit log are never updated');
END;

-- A row loses its personal values once: while its commitment is on record and its salt is still there.
DROP TRIGGER audit_logs_refuse_update;
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

DROP TRIGGER audit_logs_refuse_delete;
CREATE TRIGGER audit_logs_refuse_delete BEFORE DELETE ON audit_logs
WHEN NOT EXISTS (SELECT 1 FROM audit_prunes WHERE through_id >= OLD.id)
BEGIN
  SELECT RAISE(ABORT, 'audit_logs rows are never deleted before they are archived');
END;

-- A user is named anew once: as one who was erased.
DROP TRIGGER users_keep_identity;
CREATE TRIGGER users_keep_identity BEFORE UPDATE ON users
WHEN NEW.id IS NOT OLD.id OR NEW.telegram_id IS NOT OLD.telegram_id AND (
  NEW.telegram_id IS NOT 'erased-' || OLD.id OR NEW.username IS NOT NULL
  OR NOT EXISTS (SELECT 1 FROM user_erasures WHERE user_id = OLD.id AND finished_at IS NULL))
BEGIN
  SELECT RAISE(ABORT, 'a user keeps its id and its telegram_id');
END;

-- What a transaction says never changes; only its status moves on, and only forwards. In the erasure of its user it
-- forgets the name and the description, and nothing else.
DROP TRIGGER deposit_transactions_move_forwards;
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

-- An empty name matches no other.
DROP TRIGGER deposit_transactions_keep_match_name;
CREATE TRIGGER deposit_transactions_keep_match_name
BEFORE UPDATE ON deposit_transactions
WHEN NEW.match_name IS NOT OLD.match_name AND (
  OLD.match_name IS NULL OR NEW.match_name IS NOT ''
  OR NOT EXISTS (SELECT 1 FROM user_erasures WHERE user_id = OLD.user_id AND finished_at IS NULL))
BEGIN
  SELECT RAISE(ABORT, 'the name that a deposit is matched by never changes');
END;

-- A confirmed transaction continues the account where it stands, when it is confirmed.
DROP TRIGGER deposit_transactions_continue_account_update;
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

-- What the bank said never changes; a notification is matched once, with a confirmed deposit of its amount. (A deposit
-- that the bot had matched may get one more: the same bank line, recorded again.) In the erasure of the deposit's user
-- it forgets the name and the message.
DROP TRIGGER bank_notifications_match_once;
CREATE TRIGGER bank_notifications_match_once
BEFORE UPDATE ON bank_notifications
WHEN NEW.id IS NOT OLD.id OR NEW.bank_name IS NOT OLD.bank_name OR NEW.amount IS NOT OLD.amount
  OR NEW.balance_after IS NOT OLD.balance_after OR NEW.transaction_time IS NOT OLD.transaction_time
  OR NEW.created_at IS NOT OLD.created_at OR NEW.bank_transaction_id IS NOT OLD.bank_transaction_id
  OR NEW.matched_transaction_id IS NULL
  OR NOT (
    NEW.depositor_name IS OLD.depositor_name AND NEW.raw_message IS OLD.raw_message
      AND NEW.match_name IS OLD.match_name AND OLD.status <> 'matched' AND NEW.status = 'matched'
      AND OLD.matched_transaction_id IS NULL
    OR NEW.depositor_name IS NULL AND NEW.raw_message IS NULL
      AND (NEW.match_name = '' OR NEW.match_name IS NULL) AND (NEW.match_name IS NULL) = (OLD.match_name IS NULL)
      AND NEW.status IS OLD.status AND NEW.matched_transaction_id IS OLD.matched_transaction_id
      AND NEW.match_method IS OLD.match_method AND NEW.matched_by IS OLD.matched_by
      AND NEW.matched_at IS OLD.matched_at
      AND EXISTS (SELECT 1 FROM user_erasures WHERE finished_at IS NULL AND user_id = (
        SELECT user_id FROM deposit_transactions WHERE id = OLD.matched_transaction_id)))
BEGIN
  SELECT RAISE(ABORT, 'a bank notification keeps what it says and is matched once');
END;

DROP TRIGGER bank_notifications_need_deposit_update;
CREATE TRIGGER bank_notifications_need_deposit_update
BEFORE UPDATE ON bank_notifications
WHEN NEW.matched_transaction_id IS NOT OLD.matched_transaction_id AND (NOT EXISTS (
    SELECT 1 FROM deposit_transactions
    WHERE id = NEW.matched_transaction_id AND type = 'deposit' AND status = 'confirmed' AND amount = NEW.amount)
  OR EXISTS (SELECT 1 FROM bank_notifications
             WHERE matched_transaction_id = NEW.matched_transaction_id AND match_method IS NOT NULL))
BEGIN
  SELECT RAISE(ABORT, 'a bank notification matches one confirmed deposit of its amount, once');
END;

-- A stored answer that tells of an erased user gives way to the word that it was erased: the request and the body are
-- empty then. The key stays, so that the request is never carried out again.
DROP TRIGGER idempotency_answers_refuse_update;
CREATE TRIGGER idempotency_answers_refuse_update BEFORE UPDATE ON idempotency_answers
WHEN NEW.id IS NOT OLD.id OR NEW.actor IS NOT OLD.actor OR NEW.idempotency_key IS NOT OLD.idempotency_key
  OR NEW.operation IS NOT OLD.operation OR NEW.status IS NOT OLD.status OR NEW.created_at IS NOT OLD.created_at
  OR NEW.audit_log_id IS NOT OLD.audit_log_id
  OR NEW.request <> '' OR NEW.body <> x'' OR NEW.location IS NOT NULL
  OR NOT EXISTS (SELECT 1 FROM user_erasures WHERE finished_at IS NULL)
BEGIN
  SELECT RAISE(ABORT, 'stored answers are never updated');
END;

-- What was kept of an erased user's rows goes.
DROP TRIGGER import_archive_refuse_update;
CREATE TRIGGER import_archive_refuse_update BEFORE UPDATE ON import_archive
WHEN NEW.id IS NOT OLD.id OR NEW.source_table IS NOT OLD.source_table OR NEW.row_id IS NOT OLD.row_id
  OR NEW.imported_at IS NOT OLD.imported_at OR NEW.column_values <> '{}'
  OR NOT EXISTS (SELECT 1 FROM user_erasures WHERE finished_at IS NULL)
BEGIN
  SELECT RAISE(ABORT, 'archived rows are never updated');
END;
