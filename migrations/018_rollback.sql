-- Rollback of migration 018: what became of bank notifications is lost, and so are the messages that are none. One that
-- was dismissed or cancelled waits again.
DROP TABLE IF EXISTS bank_messages;
DROP TRIGGER IF EXISTS bank_notifications_begin_open;
DROP TRIGGER IF EXISTS bank_notifications_keep_what_they_say;
DROP TRIGGER IF EXISTS bank_notifications_match_once;
DROP TRIGGER IF EXISTS bank_notifications_need_deposit_update;
DROP TABLE IF EXISTS bank_notification_events;
DROP INDEX IF EXISTS idx_bank_notifications_account;
DROP INDEX IF EXISTS idx_bank_notifications_same;
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
