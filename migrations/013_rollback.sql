-- Rollback of migration 013: the triggers as they were. It stops where rows were archived or erased: without the records
-- of 013 nobody could tell what is missing from what was taken away, and what is left of an erased row proves nothing.
CREATE TABLE migration_013_guard (
  prunes INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "rollback 013 stopped: rows of audit_logs were archived; restore the copy that was made before"
    CHECK (prunes = 0),
  erasures INTEGER NOT NULL DEFAULT 0
    CONSTRAINT "rollback 013 stopped: personal data was erased; what is left is proved by the records of 013 alone"
    CHECK (erasures = 0)
);
INSERT INTO migration_013_guard (prunes, erasures)
SELECT (SELECT COUNT(*) FROM audit_prunes), (SELECT COUNT(*) FROM user_erasures);
DROP TABLE migration_013_guard;

DROP TRIGGER import_archive_refuse_update;
CREATE TRIGGER import_archive_refuse_update BEFORE UPDATE ON import_archive
BEGIN
  SELECT RAISE(ABORT, 'archived rows are never updated');
END;

DROP TRIGGER idempotency_answers_refuse_update;
CREATE TRIGGER idempotency_answers_refuse_update BEFORE UPDATE ON idempotency_answers
BEGIN
  SELECT RAISE(ABORT, 'stored answers are never updated');
END;

DROP TRIGGER bank_notifications_need_deposit_update;
CREATE TRIGGER bank_notifications_need_deposit_update
BEFORE UPDATE ON bank_notifications
WHEN NEW.matched_transaction_id IS NOT NULL AND (NOT EXISTS (
    SELECT 1 FROM deposit_transactions
    WHERE id = NEW.matched_transaction_id AND type = 'deposit' AND status = 'confirmed' AND amount = NEW.amount)
  OR EXISTS (SELECT 1 FROM bank_notifications
             WHERE matched_transaction_id = NEW.matched_transaction_id AND match_method IS NOT NULL))
BEGIN
  SELECT RAISE(ABORT, 'a bank notification matches one confirmed deposit of its amount, once');
END;

DROP TRIGGER bank_notifications_match_once;
CREATE TRIGGER bank_notifications_match_once
BEFORE UPDATE ON bank_notifications
WHEN NEW.id IS NOT OLD.id OR NEW.bank_name IS NOT OLD.bank_name OR NEW.depositor_name IS NOT OLD.depositor_name
  OR NEW.amount IS NOT OLD.amount OR NEW.balance_after IS NOT OLD.balance_after
  OR NEW.transaction_time IS NOT OLD.transaction_time OR NEW.raw_message IS NOT OLD.raw_message
  OR NEW.created_at IS NOT OLD.created_at OR NEW.bank_transaction_id IS NOT OLD.bank_transaction_id
  OR NEW.match_name IS NOT OLD.match_name OR OLD.status = 'matched' OR NEW.status <> 'matched'
  OR NEW.matched_transaction_id IS NULL OR OLD.matched_transaction_id IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'a bank notification keeps what it says and is matched once');
END;

DROP TRIGGER deposit_transactions_continue_account_update;
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

DROP TRIGGER deposit_transactions_keep_match_name;
CREATE TRIGGER deposit_transactions_keep_match_name
BEFORE UPDATE ON deposit_transactions
WHEN NEW.match_name IS NOT OLD.match_name
BEGIN
  SELECT RAISE(ABORT, 'the name that a deposit is matched by never changes');
END;

DROP TRIGGER deposit_transactions_move_forwards;
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

DROP TRIGGER users_keep_identity;
CREATE TRIGGER users_keep_identity BEFORE UPDATE ON users
WHEN NEW.id IS NOT OLD.id OR NEW.telegram_id IS NOT OLD.telegram_id
BEGIN
  SELECT RAISE(ABORT, 'a user keeps its id and its telegram_id');
END;

DROP TRIGGER audit_logs_refuse_delete;
CREATE TRIGGER audit_logs_refuse_delete BEFORE DELETE ON audit_logs
BEGIN
  SELECT RAISE(ABORT, 'audit_logs rows are never deleted');
END;

DROP TRIGGER audit_logs_refuse_update;
CREATE TRIGGER audit_logs_refuse_update BEFORE UPDATE ON audit_logs
BEGIN
  SELECT RAISE(ABORT, 'audit_logs rows are never updated');
END;

DROP TRIGGER audit_leaves_refuse_update;
CREATE TRIGGER audit_leaves_refuse_update BEFORE UPDATE ON audit_leaves
BEGIN
  SELECT RAISE(ABORT, 'leaves of the audit log are never updated');
END;

DROP TABLE audit_erasures;
DROP TABLE user_erasures;
DROP TABLE audit_pruned_steps;
DROP TABLE audit_prunes;
