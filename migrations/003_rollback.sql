-- Rollback of migration 003: the bot may write balances by itself again. The order of each user's transactions
-- (version, balance_before, balance_after), the directions and the callers' references are lost; opening
-- adjustments and what the migration logged stay, as they are part of the history.
DROP TRIGGER IF EXISTS deposit_transactions_move_balance_update;
DROP TRIGGER IF EXISTS deposit_transactions_move_balance_insert;
DROP TRIGGER IF EXISTS deposit_transactions_continue_account_update;
DROP TRIGGER IF EXISTS deposit_transactions_continue_account_insert;
DROP TRIGGER IF EXISTS deposit_transactions_move_forwards;
DROP TRIGGER IF EXISTS deposit_transactions_refuse_replace;
DROP TRIGGER IF EXISTS deposit_transactions_refuse_delete;
DROP TRIGGER IF EXISTS user_deposits_refuse_delete;
DROP TRIGGER IF EXISTS user_deposits_open_empty;
DROP TRIGGER IF EXISTS user_deposits_need_transaction;
DROP TRIGGER IF EXISTS users_refuse_delete;
DROP TRIGGER IF EXISTS users_keep_identity;
DROP TRIGGER IF EXISTS users_refuse_replace;
DROP TRIGGER IF EXISTS users_open_account;
DROP INDEX IF EXISTS idx_transactions_type;
DROP INDEX IF EXISTS idx_transactions_user_version;
-- A debit that the bot had written as a negative amount is one again, or its direction would be forgotten.
UPDATE deposit_transactions SET amount = -amount
WHERE amount > 0 AND id IN (
  SELECT resource_id FROM audit_logs
  WHERE action = 'migration_amount_made_positive' AND resource_type = 'deposit_transaction');
ALTER TABLE user_deposits DROP COLUMN version;
ALTER TABLE deposit_transactions DROP COLUMN reference;
ALTER TABLE deposit_transactions DROP COLUMN version;
ALTER TABLE deposit_transactions DROP COLUMN balance_after;
ALTER TABLE deposit_transactions DROP COLUMN balance_before;
ALTER TABLE deposit_transactions DROP COLUMN direction;
