-- Migration 010: what an import found in the bot's tables and the ledger has no column for, kept word for word.
CREATE TABLE import_archive (
  id INTEGER PRIMARY KEY,
  -- users, user_deposits, deposit_transactions, bank_notifications, user_domains or audit_logs.
  source_table TEXT NOT NULL,
  -- The row's id there, which is its id here; the row's number where the source had no ids.
  row_id INTEGER NOT NULL,
  -- JSON object: column -> value, without nulls; binary data as "X'00ff'".
  column_values TEXT NOT NULL CHECK (json_valid(column_values)),
  imported_at TEXT NOT NULL
) STRICT;
CREATE INDEX idx_import_archive_row ON import_archive(source_table, row_id);

CREATE TRIGGER import_archive_refuse_update BEFORE UPDATE ON import_archive
BEGIN
  SELECT RAISE(ABORT, 'archived rows are never updated');
END;

CREATE TRIGGER import_archive_refuse_delete BEFORE DELETE ON import_archive
BEGIN
  SELECT RAISE(ABORT, 'archived rows are never deleted');
END;

CREATE TRIGGER import_archive_refuse_replace BEFORE INSERT ON import_archive
WHEN EXISTS (SELECT 1 FROM import_archive WHERE id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'archived rows are never replaced');
END;
