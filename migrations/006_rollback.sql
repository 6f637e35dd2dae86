-- Rollback of migration 006: which transaction a reversal took back is lost; the transactions themselves stay.
DROP TRIGGER IF EXISTS deposit_transactions_keep_reversal;
DROP TRIGGER IF EXISTS deposit_transactions_reverse_whole;
DROP INDEX IF EXISTS idx_transactions_reverses;
ALTER TABLE deposit_transactions DROP COLUMN reverses_id;
