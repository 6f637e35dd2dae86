-- Rollback of migration 011: which key acted is lost (its name stays), the guide's indexes are as the guide has them.
DROP INDEX IF EXISTS idx_audit_logs_domains;
DROP INDEX IF EXISTS idx_audit_logs_failed;
DROP INDEX IF EXISTS idx_audit_logs_request;
DROP INDEX IF EXISTS idx_audit_logs_actor;
DROP INDEX IF EXISTS idx_audit_logs_resource_type;
DROP INDEX IF EXISTS idx_audit_logs_action;
CREATE INDEX idx_audit_logs_action ON audit_logs(action, created_at);
DROP INDEX IF EXISTS idx_audit_logs_telegram_id;
CREATE INDEX idx_audit_logs_telegram_id ON audit_logs(telegram_id, created_at);
ALTER TABLE audit_logs DROP COLUMN outcome;
ALTER TABLE audit_logs DROP COLUMN key_prefix;
