-- Migration 011: audit_logs says which key acted and with what outcome, and has an index for each thing it is asked by.
--
-- Lists go by id, the order in which things happened; an index on one column holds the ids of equal values in order.
-- So the guide's indexes on (telegram_id, created_at) and (action, created_at) keep their names and lose created_at.

-- The public start of the API key that acted, "pbk_3fJ9a2Qx"; null where no key did, and in earlier rows.
ALTER TABLE audit_logs ADD COLUMN key_prefix TEXT;
-- Null in earlier rows, whose action tells: <verb>_failed is a failure.
ALTER TABLE audit_logs ADD COLUMN outcome TEXT CHECK (outcome IN ('success', 'failure'));

DROP INDEX IF EXISTS idx_audit_logs_telegram_id;
CREATE INDEX idx_audit_logs_telegram_id ON audit_logs(telegram_id);
DROP INDEX IF EXISTS idx_audit_logs_action;
CREATE INDEX idx_audit_logs_action ON audit_logs(action);
CREATE INDEX idx_audit_logs_resource_type ON audit_logs(resource_type);
CREATE INDEX idx_audit_logs_actor ON audit_logs(actor) WHERE actor IS NOT NULL;
CREATE INDEX idx_audit_logs_request ON audit_logs(request_id) WHERE request_id IS NOT NULL;
-- For suspicious activity: refused attempts by when they were made.
CREATE INDEX idx_audit_logs_failed ON audit_logs(created_at) WHERE action GLOB '*_failed';
-- The audit row of a movement for a domain is found by its user and its instant, which are the movement's.
CREATE INDEX idx_audit_logs_domains ON audit_logs(telegram_id, created_at) WHERE resource_type = 'user_domains';
