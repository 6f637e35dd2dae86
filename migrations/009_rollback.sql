-- Rollback of migration 009: which bank transaction a notification was, and who matched it, is lost; what the bot's
-- table had, also the deposit that each was matched with, stays.
DROP TRIGGER IF EXISTS bank_notifications_refuse_delete;
DROP TRIGGER IF EXISTS bank_notifications_refuse_replace;
DROP TRIGGER IF EXISTS bank_notifications_need_deposit_update;
DROP TRIGGER IF EXISTS bank_notifications_need_deposit_insert;
DROP TRIGGER IF EXISTS bank_notifications_match_once;
DROP TRIGGER IF EXISTS deposit_transactions_keep_match_name;
DROP INDEX IF EXISTS idx_transactions_match_late;
DROP INDEX IF EXISTS idx_transactions_match;
DROP INDEX IF EXISTS idx_bank_notifications_waiting;
DROP INDEX IF EXISTS idx_bank_notifications_status;
DROP INDEX IF EXISTS idx_bank_notifications_matched;
DROP INDEX IF EXISTS idx_bank_notifications_bank_id;
ALTER TABLE deposit_transactions DROP COLUMN match_name;
ALTER TABLE bank_notifications DROP COLUMN matched_at;
ALTER TABLE bank_notifications DROP COLUMN matched_by;
ALTER TABLE bank_notifications DROP COLUMN match_method;
ALTER TABLE bank_notifications DROP COLUMN status;
ALTER TABLE bank_notifications DROP COLUMN match_name;
ALTER TABLE bank_notifications DROP COLUMN bank_transaction_id;
