-- Migration 009: bank notifications that Passbook receives: each bank transaction once, matched with one deposit.
--
-- unmatched | ambiguous -> matched. The bot's own rows keep what they hold; they have no bank_transaction_id, and
-- nothing matches them by itself.

-- The bank's own name of the transfer; null in the bot's rows.
ALTER TABLE bank_notifications ADD COLUMN bank_transaction_id TEXT;
-- depositor_name as matching compares it (NFC, case folded, no spaces); null in the bot's rows.
ALTER TABLE bank_notifications ADD COLUMN match_name TEXT;
ALTER TABLE bank_notifications ADD COLUMN status TEXT NOT NULL DEFAULT 'unmatched'
  CHECK (status IN ('unmatched', 'ambiguous', 'matched'));
-- How it was matched; null until it is, and in the bot's rows.
ALTER TABLE bank_notifications ADD COLUMN match_method TEXT CHECK (match_method IN ('automatic', 'manual'));
-- The name of the API key whose request matched it, and when (UTC); null like match_method.
ALTER TABLE bank_notifications ADD COLUMN matched_by TEXT;
ALTER TABLE bank_notifications ADD COLUMN matched_at DATETIME;
-- depositor_name as matching compares it; null for what is no deposit and in rows that the bot wrote.
ALTER TABLE deposit_transactions ADD COLUMN match_name TEXT;

UPDATE bank_notifications SET status = 'matched' WHERE matched_transaction_id IS NOT NULL;

CREATE UNIQUE INDEX idx_bank_notifications_bank_id ON bank_notifications(bank_transaction_id)
  WHERE bank_transaction_id IS NOT NULL;
CREATE INDEX idx_bank_notifications_matched ON bank_notifications(matched_transaction_id);
CREATE INDEX idx_bank_notifications_status ON bank_notifications(status);
CREATE INDEX idx_bank_notifications_waiting ON bank_notifications(amount, match_name)
  WHERE status <> 'matched' AND bank_transaction_id IS NOT NULL;
-- By day first: only the days of the window are ever looked at, and new rows stay close together.
CREATE INDEX idx_transactions_match ON deposit_transactions(substr(created_at, 1, 10), amount, match_name)
  WHERE type = 'deposit';
-- What was confirmed on another day than it was announced: its money may have come at any time between.
CREATE INDEX idx_transactions_match_late ON deposit_transactions(amount, match_name, confirmed_at)
  WHERE type = 'deposit' AND status = 'confirmed' AND substr(confirmed_at, 1, 10) IS NOT substr(created_at, 1, 10);

CREATE TRIGGER deposit_transactions_keep_match_name
BEFORE UPDATE ON deposit_transactions
WHEN NEW.match_name IS NOT OLD.match_name
BEGIN
  SELECT RAISE(ABORT, 'the name that a deposit is matched by never changes');
END;

-- What the bank said never changes; a notification is matched once, with a confirmed deposit of its amount. (A deposit
-- that the bot had matched may get one more: the same bank line, recorded again.)
CREATE TRIGGER bank_notifications_match_once
BEFORE UPDATE ON bank_notifications
WHEN NEW.id IS NOT OLD.id OR NEW.bank_name IS NOT OLD.bank_name OR NEW.depositor_name IS NOT OLD.depositor_name
  OR NEW.amount IS NOT OLD.amount OR NEW.balance_after IS NOT OLD.balance_after
  OR NEW.transaction_time IS NOT OLD.transaction_time OR NEW.raw_message IS NOT OLD.raw_message
  OR NEW.created_at IS NOT OLD.created_at OR NEW.bank_transaction_id IS NOT OLD.bank_transaction_id
  OR NEW.match_name IS NOT OLD.match_name OR OLD.status = 'matched' OR NEW.status <> 'matched'
  OR NEW.matched_transaction_id IS NULL OR OLD.matched_transaction_id IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'a bank notification keeps what it says and is matched once');
END;

CREATE TRIGGER bank_notifications_need_deposit_insert
BEFORE INSERT ON bank_notifications
WHEN (NEW.status = 'matched') <> (NEW.matched_transaction_id IS NOT NULL)
  OR NEW.matched_transaction_id IS NOT NULL AND (NOT EXISTS (
    SELECT 1 FROM deposit_transactions
    WHERE id = NEW.matched_transaction_id AND type = 'deposit' AND status = 'confirmed' AND amount = NEW.amount)
  OR EXISTS (SELECT 1 FROM bank_notifications
             WHERE matched_transaction_id = NEW.matched_transaction_id AND match_method IS NOT NULL))
BEGIN
  SELECT RAISE(ABORT, 'a bank notification matches one confirmed deposit of its amount, once');
END;

CREATE TRIGGER bank_notifications_need_deposit_update
BEFORE UPDATE ON bank_notifications
WHEN NEW.matched_transaction_id IS NOT NULL AND (NOT EXISTS (
    SELECT 1 FROM deposit_transactions
    WHERE id = NEW.matched_transaction_id AND type = 'deposit' AND status = 'confirmed' AND amount = NEW.amount)
  OR EXISTS (SELECT 1 FROM bank_notifications
             WHERE matched_transaction_id = NEW.matched_transaction_id AND match_method IS NOT NULL))
BEGIN
  SELECT RAISE(ABORT, 'a bank notification matches one confirmed deposit of its amount, once');
END;

CREATE TRIGGER bank_notifications_refuse_replace BEFORE INSERT ON bank_notifications
WHEN EXISTS (SELECT 1 FROM bank_notifications
             WHERE id = NEW.id OR bank_transaction_id = NEW.bank_transaction_id)
BEGIN
  SELECT RAISE(ABORT, 'bank notifications are never replaced');
END;

CREATE TRIGGER bank_notifications_refuse_delete BEFORE DELETE ON bank_notifications
BEGIN
  SELECT RAISE(ABORT, 'bank notifications are never deleted');
END;
