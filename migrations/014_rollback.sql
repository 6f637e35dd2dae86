-- Rollback of migration 014. A program of before knows the first rule alone: where rows were sealed by a later one, the
-- tree is forgotten, and that program's `passbook migrate up` seals all rows anew. Receipts and checkpoints from before fit
-- no later tree. It stops where rows were archived or erased as well: they cannot be sealed anew.
CREATE TABLE migration_014_guard (
  later INTEGER NOT NULL,
  gone INTEGER NOT NULL,
  CONSTRAINT "rollback 014 stopped: rows were archived or erased, and others sealed since by a rule that the program of before does not know; restore the copy that was made before"
    CHECK (later = 0 OR gone = 0)
);
INSERT INTO migration_014_guard (later, gone)
SELECT EXISTS (SELECT 1 FROM audit_leaves WHERE rule > 1),
  EXISTS (SELECT 1 FROM audit_prunes) OR EXISTS (SELECT 1 FROM user_erasures);

DROP TRIGGER audit_leaves_refuse_delete;
DROP TRIGGER audit_nodes_refuse_delete;
DROP TRIGGER audit_tree_only_grows;
DELETE FROM audit_leaves WHERE (SELECT later FROM migration_014_guard);
DELETE FROM audit_nodes WHERE (SELECT later FROM migration_014_guard);
UPDATE audit_tree SET size = 0, last_id = 0, last_hash = zeroblob(32), frontier = x''
WHERE (SELECT later FROM migration_014_guard);
DROP TABLE migration_014_guard;

CREATE TRIGGER audit_leaves_refuse_delete BEFORE DELETE ON audit_leaves
BEGIN
  SELECT RAISE(ABORT, 'leaves of the audit log are never deleted');
END;

CREATE TRIGGER audit_nodes_refuse_delete BEFORE DELETE ON audit_nodes
BEGIN
  SELECT RAISE(ABORT, 'nodes of the audit log are never deleted');
END;

CREATE TRIGGER audit_tree_only_grows BEFORE UPDATE ON audit_tree
WHEN NEW.size <= OLD.size OR NEW.last_id <= OLD.last_id
BEGIN
  SELECT RAISE(ABORT, 'the tree of the audit log only grows');
END;

DROP TRIGGER audit_leaves_refuse_update;
CREATE TRIGGER audit_leaves_refuse_update BEFORE UPDATE ON audit_leaves
WHEN NEW.leaf_index IS NOT OLD.leaf_index OR NEW.audit_log_id IS NOT OLD.audit_log_id OR NEW.hash IS NOT OLD.hash
  OR NEW.salt IS NOT NULL
  OR NOT (
    NEW.public_details IS OLD.public_details
      AND EXISTS (SELECT 1 FROM audit_erasures WHERE audit_log_id = OLD.audit_log_id)
      AND EXISTS (SELECT 1 FROM audit_logs WHERE id = OLD.audit_log_id AND telegram_id IS NULL)
    OR NEW.public_details IS NULL AND EXISTS (SELECT 1 FROM audit_prunes WHERE through_id >= OLD.audit_log_id))
BEGIN
  SELECT RAISE(ABORT, 'leaves of the audit log are never updated');
END;

ALTER TABLE audit_leaves DROP COLUMN rule;
