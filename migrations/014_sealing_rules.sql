-- Migration 014: every leaf of the audit log names the rule that its row was sealed by.
--
-- Which values of a row are personal is said by rules with numbers (service/ledger/sealing_rules.py), and the number is in
-- the bytes that are hashed. All leaves that are there already are of rule 1, whose bytes stay as they were.

-- Null once the row is archived and gone, as salt and public_details are.
ALTER TABLE audit_leaves ADD COLUMN rule INTEGER DEFAULT 1 CHECK (rule BETWEEN 1 AND 255);

DROP TRIGGER audit_leaves_refuse_update;
CREATE TRIGGER audit_leaves_refuse_update BEFORE UPDATE ON audit_leaves
WHEN NEW.leaf_index IS NOT OLD.leaf_index OR NEW.audit_log_id IS NOT OLD.audit_log_id OR NEW.hash IS NOT OLD.hash
  OR NEW.salt IS NOT NULL
  OR NOT (
    NEW.public_details IS OLD.public_details AND NEW.rule IS OLD.rule
      AND EXISTS (SELECT 1 FROM audit_erasures WHERE audit_log_id = OLD.audit_log_id)
      AND EXISTS (SELECT 1 FROM audit_logs WHERE id = OLD.audit_log_id AND telegram_id IS NULL)
    OR NEW.public_details IS NULL AND NEW.rule IS NULL
      AND EXISTS (SELECT 1 FROM audit_prunes WHERE through_id >= OLD.audit_log_id))
BEGIN
  SELECT RAISE(ABORT, 'leaves of the audit log are never updated');
END;

UPDATE audit_leaves SET rule = NULL
WHERE audit_log_id <= (SELECT MAX(through_id) FROM audit_prunes)
  AND audit_log_id < (SELECT COALESCE(MIN(id), 9223372036854775807) FROM audit_logs);
