-- Migration 006: a transaction that takes another one back names it. The other keeps its row as it is; that it was
-- reversed is read from here, and the unique index lets it happen once.

-- The id of the transaction that this one takes back; null for every other.
ALTER TABLE deposit_transactions ADD COLUMN reverses_id INTEGER;
CREATE UNIQUE INDEX idx_transactions_reverses ON deposit_transactions(reverses_id) WHERE reverses_id IS NOT NULL;

-- A reversal moves the same amount of the same user's money the other way.
CREATE TRIGGER deposit_transactions_reverse_whole
BEFORE INSERT ON deposit_transactions
WHEN NEW.reverses_id IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM deposit_transactions
  WHERE id = NEW.reverses_id AND user_id = NEW.user_id AND amount = NEW.amount AND direction <> NEW.direction
    AND status = 'confirmed' AND NEW.status = 'confirmed')
BEGIN
  SELECT RAISE(ABORT, 'a reversal takes back a confirmed transaction whole');
END;

CREATE TRIGGER deposit_transactions_keep_reversal
BEFORE UPDATE ON deposit_transactions
WHEN NEW.reverses_id IS NOT OLD.reverses_id
BEGIN
  SELECT RAISE(ABORT, 'what a transaction reverses never changes');
END;
