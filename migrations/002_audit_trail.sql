-- Migration 002: audit_logs says who asked and by which request, and its rows can no longer be changed.
--
-- The guide's ten columns stay as they are and where they are; these come after them.
-- Both are null in rows that the bot or migration 001 wrote.

-- The name of the API key that acted ("telegram-bot"), or "cli:<operating system user>".
ALTER TABLE audit_logs ADD COLUMN actor TEXT;
-- The X-Request-ID of the request that caused the row; null for the command line.
ALTER TABLE audit_logs ADD COLUMN request_id TEXT;

CREATE TRIGGER audit_logs_refuse_update BEFORE UPDATE ON audit_logs
BEGIN
  SELECT RAISE(ABORT, 'audit_logs rows are never updated');
END;

CREATE TRIGGER audit_logs_refuse_delete BEFORE DELETE ON audit_logs
BEGIN
  SELECT RAISE(ABORT, 'audit_logs rows are never deleted');
END;

-- INSERT OR REPLACE deletes without asking the trigger above; this one stops it.
CREATE TRIGGER audit_logs_refuse_replace BEFORE INSERT ON audit_logs
WHEN EXISTS (SELECT 1 FROM audit_logs WHERE id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'audit_logs rows are never replaced');
END;
