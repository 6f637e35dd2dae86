-- Migration 012: every row of audit_logs is a leaf of one Merkle tree, and each leaf covers the leaf before it.
--
-- Which bytes are hashed is written at the head of service/ledger/audit_chain.py. SQL cannot hash: the rows that are
-- there already are sealed by `passbook migrate up`, in the transaction of this file.

CREATE TABLE audit_leaves (
  -- 0, 1, 2, … without a gap, in the order of the ids.
  leaf_index INTEGER PRIMARY KEY,
  -- audit_logs.id; the row may be gone where a prefix was archived.
  audit_log_id INTEGER NOT NULL UNIQUE,
  -- SHA-256, as RFC 6962 has it for a leaf.
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  -- 16 random bytes, without which nobody can guess what the row's personal values were; null when those are erased.
  salt BLOB CHECK (length(salt) = 16),
  -- SHA-256 of the details without their personal values; null where they hold none.
  public_details BLOB CHECK (length(public_details) = 32)
) STRICT;

-- Roots of whole subtrees, for proofs without reading all leaves: level 8 has 256 leaves below it, level 16 has 65,536, …
CREATE TABLE audit_nodes (
  level INTEGER NOT NULL CHECK (level > 0 AND level % 8 = 0),
  -- 0, 1, 2, … from the left.
  position INTEGER NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  -- The ids of the first and the last row below it, and the range of their created_at: a search by time leaves out
  -- whole subtrees. Null when none of the rows has a created_at.
  first_id INTEGER NOT NULL,
  last_id INTEGER NOT NULL,
  created_at_min TEXT,
  created_at_max TEXT,
  PRIMARY KEY (level, position)
) STRICT;

-- Where the tree ends: one row, moved on with every row of audit_logs.
CREATE TABLE audit_tree (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  -- The number of leaves.
  size INTEGER NOT NULL,
  -- audit_logs.id and hash of the last leaf; 0 and 32 zero bytes while there is none.
  last_id INTEGER NOT NULL,
  last_hash BLOB NOT NULL CHECK (length(last_hash) = 32),
  -- The roots of the whole subtrees that the leaves make up, the largest first, 32 bytes each.
  frontier BLOB NOT NULL CHECK (length(frontier) % 32 = 0)
) STRICT;
INSERT INTO audit_tree (id, size, last_id, last_hash, frontier) VALUES (1, 0, 0, zeroblob(32), x'');

-- audit_logs.id of the last row that the request wrote, for its receipt; null in answers from before.
ALTER TABLE idempotency_answers ADD COLUMN audit_log_id INTEGER;

CREATE TRIGGER audit_leaves_refuse_update BEFORE UPDATE ON audit_leaves
BEGIN
  SELECT RAISE(ABORT, 'leaves of the audit log are never updated');
END;

CREATE TRIGGER audit_leaves_refuse_delete BEFORE DELETE ON audit_leaves
BEGIN
  SELECT RAISE(ABORT, 'leaves of the audit log are never deleted');
END;

CREATE TRIGGER audit_nodes_refuse_update BEFORE UPDATE ON audit_nodes
BEGIN
  SELECT RAISE(ABORT, 'nodes of the audit log are never updated');
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

CREATE TRIGGER audit_tree_refuse_delete BEFORE DELETE ON audit_tree
BEGIN
  SELECT RAISE(ABORT, 'the tree of the audit log is never deleted');
END;
