-- Migration 008: a caller's reference names one balance change for ever, whatever the Idempotency-Key.
CREATE TABLE balance_change_references (
  -- The name of the API key that posted the change.
  actor TEXT NOT NULL,
  reference TEXT NOT NULL,
  transaction_id INTEGER NOT NULL UNIQUE REFERENCES deposit_transactions(id),
  PRIMARY KEY (actor, reference)
) STRICT;

CREATE TRIGGER balance_change_references_refuse_update BEFORE UPDATE ON balance_change_references
BEGIN
  SELECT RAISE(ABORT, 'references of balance changes are never updated');
END;

CREATE TRIGGER balance_change_references_refuse_delete BEFORE DELETE ON balance_change_references
BEGIN
  SELECT RAISE(ABORT, 'references of balance changes are never deleted');
END;
