-- Rollback of migration 007: which transaction paid for which domain is lost; the rows and the transactions stay.
DROP TRIGGER IF EXISTS user_domains_refuse_delete;
DROP TRIGGER IF EXISTS user_domains_move_forwards;
DROP INDEX IF EXISTS idx_domains_pending;
DROP INDEX IF EXISTS idx_domains_live;
ALTER TABLE user_domains DROP COLUMN transaction_id;
ALTER TABLE user_domains DROP COLUMN ascii_name;
