-- Rollback of migration 018: what became of bank notifications is lost, and so are the messages that are none. One that
-- was dismissed or cancelled waits again.
--
-- A program of before knows the first two rules that rows are sealed by. Where rows were sealed by a later one, the tree
-- is forgotten, and that program's `passbook migrate up` seals all rows anew. Receipts and checkpoints from before fit no
-- later tree. It stops where rows were archived or erased as well: they cannot be sealed anew.
CREATE TABLE migration_018_guard (
  later INTEGER NOT NULL,
  gone INTEGER NOT NULL,
  CONSTRAINT "rollback 018 stopped: rows were archived or erased, and others sealed since by a rule that the program of before does not know; restore the copy that was made before"
    CHECK (later = 0 OR gone = 0)
);
INSERT INTO migration_018_guard (later, gone)
SELECT EXISTS (SELECT 1 FROM audit_leaves WHERE rule > 2),
  EXISTS (SELECT 1 FROM audit_prunes) OR EXISTS (SELECT 1 FROM user_erasures);

DROP TRIGGER audit_leaves_refuse_delete;
DROP TRIGGER audit_nodes_refuse_delete;
DROP TRIGGER audit_tree_only_grows;
DELETE FROM audit_leaves WHERE (SELECT later FROM migration_018_guard);
DELETE FROM audit_nodes WHERE (SELECT later FROM migration_018_guard);
UPDATE audit_tree SET size = 0, last_id = 0, last_hash = zeroblob(32), frontier = x''
WHERE (SELECT later FROM migration_018_guard);
DROP TABLE migration_018_guard;

CREATE TRIGGER audit_leaves_refuse_delete BEFORE DELETE ON audit_leaves
BEGIN
  SELECT RAISE(ABORT, 'leaves of the audit log are never deleted');
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

DROP TABLE IF EXISTS bank_messages;
DROP TRIGGER IF EXISTS bank_notifications_begin_open;
DROP TRIGGER IF EXISTS bank_notifications_keep_what_they_say;
DROP TRIGGER IF EXISTS bank_notifications_match_once;
DROP TRIGGER IF EXISTS bank_notifications_need_deposit_update;
DROP TABLE IF EXISTS bank_notification_events;
DROP INDEX IF EXISTS idx_bank_notifications_account;
DROP INDEX IF EXISTS idx_bank_notifications_same;
DROP INDEX IF EXISTS idx_bank_notifications_time;
DROP INDEX IF EXISTS idx_bank_notifications_open;
DROP INDEX IF EXISTS idx_bank_notifications_waiting;
DROP INDEX IF EXISTS idx_bank_notifications_status;
ALTER TABLE bank_notifications DROP COLUMN closed_as;
ALTER TABLE bank_notifications DROP COLUMN account;
CREATE INDEX idx_bank_notifications_status ON bank_notifications(status);
CREATE INDEX idx_bank_notifications_waiting ON bank_notifications(amount, match_name)
  WHERE status <> 'matched' AND bank_transaction_id IS NOT NULL;

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
