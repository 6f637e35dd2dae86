-- Rollback of migration 002: audit_logs goes back to the guide's ten columns. Who acted and the request id are lost.
DROP TRIGGER IF EXISTS audit_logs_refuse_replace;
DROP TRIGGER IF EXISTS audit_logs_refuse_delete;
DROP TRIGGER IF EXISTS audit_logs_refuse_update;
ALTER TABLE audit_logs DROP COLUMN request_id;
ALTER TABLE audit_logs DROP COLUMN actor;
