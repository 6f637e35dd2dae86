-- Rollback of migration 012: the rows stay, what proved that nobody changed them is lost. Receipts and checkpoints from
-- before fit no later tree: migrating up again seals the rows anew, with other salts.
ALTER TABLE idempotency_answers DROP COLUMN audit_log_id;
DROP TABLE IF EXISTS audit_tree;
DROP TABLE IF EXISTS audit_nodes;
DROP TABLE IF EXISTS audit_leaves;
