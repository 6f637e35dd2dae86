-- Migration 018: what becomes of a bank notification after it came, and the bank's messages that are none.
--
-- A notification keeps what it said. What is told later, that it is dismissed, cancelled by the bank or freed by a
-- reversal, is a row of bank_notification_events; the notification changes only as its last event says.

-- The account that the money came to, as the bank printed it, mostly masked; null when the message did not say.
ALTER TABLE bank_notifications ADD COLUMN account TEXT;
-- dismissed: a person says that the money is no top-up; cancelled: the bank took it back. Null while it is neither.
ALTER TABLE bank_notifications ADD COLUMN closed_as TEXT CHECK (closed_as IN ('dismissed', 'cancelled'));

DROP INDEX idx_bank_notifications_status;
CREATE INDEX idx_bank_notifications_status ON bank_notifications(COALESCE(closed_as, status));
DROP INDEX idx_bank_notifications_waiting;
CREATE INDEX idx_bank_notifications_waiting ON bank_notifications(amount, match_name, transaction_time)
  WHERE status <> 'matched' AND closed_as IS NULL AND bank_transaction_id IS NOT NULL;
CREATE INDEX idx_bank_notifications_open ON bank_notifications(id)
  WHERE status <> 'matched' AND closed_as IS NULL;
-- The lines of a period. The bot may have kept no time of the bank's.
CREATE INDEX idx_bank_notifications_time ON bank_notifications(COALESCE(transaction_time, created_at));
-- The same line told again, in whatever state the first one is, also when it is the bot's.
CREATE INDEX idx_bank_notifications_same ON bank_notifications(amount, match_name, transaction_time);
-- The lines of one account, for gaps in its balances.
CREATE INDEX idx_bank_notifications_account ON bank_notifications(account) WHERE account IS NOT NULL;

CREATE TABLE bank_notification_events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  bank_notification_id INTEGER NOT NULL REFERENCES bank_notifications(id),
  -- told: the same line came again and said more. dismissed and reopened: by a person. cancelled: by the bank.
  -- freed: the deposit that it was matched with was reversed.
  kind TEXT NOT NULL CHECK (kind IN ('told', 'dismissed', 'reopened', 'cancelled', 'freed')),
  -- What was told and differs from the row; null where nothing did. Names and messages are null once erased.
  transaction_time TEXT,
  bank_name TEXT,
  depositor_name TEXT,
  account TEXT,
  -- Won.
  balance_after INTEGER,
  raw_message TEXT,
  -- Of freed: the deposit that was reversed; null in all others.
  deposit_id INTEGER REFERENCES deposit_transactions(id),
  -- What a person said; null once erased.
  note TEXT,
  -- The name of the API key whose request this was, and when (UTC).
  actor TEXT NOT NULL,
  created_at TEXT NOT NULL
) STRICT;
CREATE INDEX idx_bank_notification_events_line ON bank_notification_events(bank_notification_id);
CREATE INDEX idx_bank_notification_events_account ON bank_notification_events(account) WHERE account IS NOT NULL;
CREATE INDEX idx_bank_notification_events_deposit ON bank_notification_events(deposit_id)
  WHERE deposit_id IS NOT NULL;

CREATE TRIGGER bank_notification_events_fit_their_line BEFORE INSERT ON bank_notification_events
WHEN NOT EXISTS (
  SELECT 1 FROM bank_notifications AS b
  WHERE b.id = NEW.bank_notification_id AND (
    NEW.deposit_id IS NULL AND (
      NEW.kind = 'told'
      OR NEW.kind = 'dismissed' AND b.status <> 'matched' AND b.closed_as IS NULL
      OR NEW.kind = 'reopened' AND b.closed_as = 'dismissed'
      OR NEW.kind = 'cancelled' AND NOT EXISTS (
        SELECT 1 FROM bank_notification_events WHERE bank_notification_id = b.id AND kind = 'cancelled'))
    OR NEW.kind = 'freed' AND b.matched_transaction_id = NEW.deposit_id AND b.match_method IS NOT NULL
      AND EXISTS (SELECT 1 FROM deposit_transactions WHERE reverses_id = NEW.deposit_id)))
BEGIN
  SELECT RAISE(ABORT, 'an event of a bank notification fits the state that it is in');
END;

CREATE TRIGGER bank_notification_events_refuse_update BEFORE UPDATE ON bank_notification_events
WHEN NEW.id IS NOT OLD.id OR NEW.bank_notification_id IS NOT OLD.bank_notification_id OR NEW.kind IS NOT OLD.kind
  OR NEW.transaction_time IS NOT OLD.transaction_time OR NEW.bank_name IS NOT OLD.bank_name
  OR NEW.account IS NOT OLD.account OR NEW.balance_after IS NOT OLD.balance_after
  OR NEW.deposit_id IS NOT OLD.deposit_id OR NEW.actor IS NOT OLD.actor OR NEW.created_at IS NOT OLD.created_at
  OR NEW.depositor_name IS NOT NULL OR NEW.raw_message IS NOT NULL OR NEW.note IS NOT NULL
  OR NOT EXISTS (SELECT 1 FROM user_erasures WHERE finished_at IS NULL AND user_id IN (
    SELECT user_id FROM deposit_transactions
    WHERE id = (SELECT matched_transaction_id FROM bank_notifications WHERE id = OLD.bank_notification_id)
      OR id IN (SELECT deposit_id FROM bank_notification_events
                WHERE bank_notification_id = OLD.bank_notification_id)))
BEGIN
  SELECT RAISE(ABORT, 'events of bank notifications are never updated');
END;

CREATE TRIGGER bank_notification_events_refuse_delete BEFORE DELETE ON bank_notification_events
BEGIN
  SELECT RAISE(ABORT, 'events of bank notifications are never deleted');
END;

CREATE TRIGGER bank_notification_events_refuse_replace BEFORE INSERT ON bank_notification_events
WHEN EXISTS (SELECT 1 FROM bank_notification_events WHERE id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'events of bank notifications are never replaced');
END;

-- What the bank said never changes. A notification is matched with a confirmed deposit of its amount, while it is open;
-- it is closed, opened again and freed by its last event; and its names go with an erasure.
DROP TRIGGER bank_notifications_match_once;
CREATE TRIGGER bank_notifications_keep_what_they_say
BEFORE UPDATE ON bank_notifications
WHEN NEW.id IS NOT OLD.id OR NEW.bank_name IS NOT OLD.bank_name OR NEW.amount IS NOT OLD.amount
  OR NEW.balance_after IS NOT OLD.balance_after OR NEW.transaction_time IS NOT OLD.transaction_time
  OR NEW.created_at IS NOT OLD.created_at OR NEW.bank_transaction_id IS NOT OLD.bank_transaction_id
  OR NEW.account IS NOT OLD.account
  OR (NEW.depositor_name IS NOT OLD.depositor_name OR NEW.raw_message IS NOT OLD.raw_message
      OR NEW.match_name IS NOT OLD.match_name)
    AND NOT (NEW.depositor_name IS NULL AND NEW.raw_message IS NULL
      AND (NEW.match_name = '' OR NEW.match_name IS NULL) AND (NEW.match_name IS NULL) = (OLD.match_name IS NULL)
      AND NEW.status IS OLD.status AND NEW.closed_as IS OLD.closed_as
      AND NEW.matched_transaction_id IS OLD.matched_transaction_id
      AND EXISTS (SELECT 1 FROM user_erasures WHERE finished_at IS NULL AND user_id IN (
        SELECT user_id FROM deposit_transactions WHERE id = OLD.matched_transaction_id
          OR OLD.matched_transaction_id IS NULL AND id IN (
            SELECT deposit_id FROM bank_notification_events WHERE bank_notification_id = OLD.id))))
BEGIN
  SELECT RAISE(ABORT, 'a bank notification keeps what it says');
END;

CREATE TRIGGER bank_notifications_match_once
BEFORE UPDATE ON bank_notifications
WHEN (NEW.status IS NOT OLD.status OR NEW.closed_as IS NOT OLD.closed_as
    OR NEW.matched_transaction_id IS NOT OLD.matched_transaction_id OR NEW.match_method IS NOT OLD.match_method
    OR NEW.matched_by IS NOT OLD.matched_by OR NEW.matched_at IS NOT OLD.matched_at)
  AND (
    -- Matched.
    OLD.status <> 'matched' AND OLD.closed_as IS NULL AND OLD.matched_transaction_id IS NULL
      AND NEW.status = 'matched' AND NEW.closed_as IS NULL AND NEW.matched_transaction_id IS NOT NULL
    -- Closed or opened again, as the last event says.
    OR NEW.status = OLD.status AND OLD.status <> 'matched'
      AND NEW.matched_transaction_id IS NULL AND NEW.match_method IS NULL AND NEW.matched_by IS NULL
      AND NEW.matched_at IS NULL
      AND (SELECT kind FROM bank_notification_events WHERE bank_notification_id = OLD.id AND kind <> 'told'
           ORDER BY id DESC LIMIT 1) = COALESCE(NEW.closed_as, 'reopened')
    -- Freed; what the bank has cancelled meanwhile is closed.
    OR NEW.status = 'unmatched'
      AND NEW.matched_transaction_id IS NULL AND NEW.match_method IS NULL AND NEW.matched_by IS NULL
      AND NEW.matched_at IS NULL
      AND (SELECT deposit_id FROM bank_notification_events WHERE bank_notification_id = OLD.id AND kind <> 'told'
           ORDER BY id DESC LIMIT 1) = OLD.matched_transaction_id
      AND NEW.closed_as IS (SELECT kind FROM bank_notification_events
                            WHERE bank_notification_id = OLD.id AND kind = 'cancelled')) IS NOT 1
BEGIN
  SELECT RAISE(ABORT, 'a bank notification is matched once, and closed, opened and freed by its last event');
END;

DROP TRIGGER bank_notifications_need_deposit_update;
CREATE TRIGGER bank_notifications_need_deposit_update
BEFORE UPDATE ON bank_notifications
WHEN NEW.matched_transaction_id IS NOT OLD.matched_transaction_id AND NEW.matched_transaction_id IS NOT NULL
  AND (NOT EXISTS (
    SELECT 1 FROM deposit_transactions
    WHERE id = NEW.matched_transaction_id AND type = 'deposit' AND status = 'confirmed' AND amount = NEW.amount)
  OR EXISTS (SELECT 1 FROM bank_notifications
             WHERE matched_transaction_id = NEW.matched_transaction_id AND match_method IS NOT NULL))
BEGIN
  SELECT RAISE(ABORT, 'a bank notification matches one confirmed deposit of its amount, once');
END;

CREATE TRIGGER bank_notifications_begin_open BEFORE INSERT ON bank_notifications
WHEN NEW.closed_as IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'a bank notification is closed by an event alone');
END;

-- Messages of a bank that are no deposit: money that went, what takes an earlier message back, and what nobody could
-- read. None of them moves anything.
CREATE TABLE bank_messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  -- As it came; null once erased. The SHA-256 of its UTF-8 text stays.
  raw_message TEXT,
  raw_sha256 BLOB NOT NULL CHECK (length(raw_sha256) = 32),
  kind TEXT NOT NULL CHECK (kind IN ('unreadable', 'withdrawal', 'withdrawal_cancelled', 'deposit_cancelled')),
  -- unreadable and waiting: a person has to look; kept: nothing is to be done; settled: a person said what it was.
  status TEXT NOT NULL CHECK (status IN ('unreadable', 'waiting', 'kept', 'settled')),
  -- What was read; null where the message did not say. Amounts are in won, transaction_time is UTC.
  bank_name TEXT,
  account TEXT,
  depositor_name TEXT,
  amount INTEGER,
  balance_after INTEGER,
  transaction_time TEXT,
  -- The notification that it takes back, or that a person says it belongs to.
  bank_notification_id INTEGER REFERENCES bank_notifications(id),
  -- What a person said, who and when (UTC); null until it is settled. The note is null once erased.
  note TEXT,
  settled_by TEXT,
  settled_at TEXT,
  -- The name of the API key whose request it came with, and when (UTC).
  received_by TEXT NOT NULL,
  created_at TEXT NOT NULL
) STRICT;
CREATE INDEX idx_bank_messages_status ON bank_messages(status);
CREATE INDEX idx_bank_messages_text ON bank_messages(raw_sha256);
CREATE INDEX idx_bank_messages_account ON bank_messages(account) WHERE account IS NOT NULL;
CREATE INDEX idx_bank_messages_line ON bank_messages(bank_notification_id) WHERE bank_notification_id IS NOT NULL;

CREATE TRIGGER bank_messages_begin_unsettled BEFORE INSERT ON bank_messages
WHEN NEW.note IS NOT NULL OR NEW.settled_by IS NOT NULL OR NEW.settled_at IS NOT NULL
  OR NOT (
    NEW.bank_notification_id IS NULL AND (
      NEW.kind = 'unreadable' AND NEW.status = 'unreadable'
      OR NEW.kind = 'deposit_cancelled' AND NEW.status = 'waiting'
      OR (NEW.kind = 'withdrawal' OR NEW.kind = 'withdrawal_cancelled') AND NEW.status = 'kept')
    OR NEW.bank_notification_id IS NOT NULL AND NEW.kind = 'deposit_cancelled' AND NEW.status = 'kept')
BEGIN
  SELECT RAISE(ABORT, 'a message of a bank begins unsettled, in the state of its kind');
END;

-- A message goes with the names of its notification.
CREATE TRIGGER bank_messages_settle_once BEFORE UPDATE ON bank_messages
WHEN NEW.id IS NOT OLD.id OR NEW.raw_sha256 IS NOT OLD.raw_sha256 OR NEW.kind IS NOT OLD.kind
  OR NEW.bank_name IS NOT OLD.bank_name OR NEW.account IS NOT OLD.account OR NEW.amount IS NOT OLD.amount
  OR NEW.balance_after IS NOT OLD.balance_after OR NEW.transaction_time IS NOT OLD.transaction_time
  OR NEW.received_by IS NOT OLD.received_by OR NEW.created_at IS NOT OLD.created_at
  OR (
    -- Settled.
    (OLD.status = 'unreadable' OR OLD.status = 'waiting') AND NEW.status = 'settled'
      AND NEW.settled_by IS NOT NULL AND NEW.settled_at IS NOT NULL
      AND NEW.raw_message IS OLD.raw_message AND NEW.depositor_name IS OLD.depositor_name
    -- Erased, with the user whose money the notification was.
    OR NEW.raw_message IS NULL AND NEW.depositor_name IS NULL AND NEW.note IS NULL
      AND NEW.status = OLD.status AND NEW.bank_notification_id = OLD.bank_notification_id
      AND NEW.settled_by IS OLD.settled_by AND NEW.settled_at IS OLD.settled_at
      AND EXISTS (SELECT 1 FROM user_erasures WHERE finished_at IS NULL AND user_id IN (
        SELECT user_id FROM deposit_transactions
        WHERE id = (SELECT matched_transaction_id FROM bank_notifications WHERE id = OLD.bank_notification_id)
          OR id IN (SELECT deposit_id FROM bank_notification_events
                    WHERE bank_notification_id = OLD.bank_notification_id)))) IS NOT 1
BEGIN
  SELECT RAISE(ABORT, 'a message of a bank keeps what it says and is settled once');
END;

CREATE TRIGGER bank_messages_refuse_delete BEFORE DELETE ON bank_messages
BEGIN
  SELECT RAISE(ABORT, 'messages of a bank are never deleted');
END;

CREATE TRIGGER bank_messages_refuse_replace BEFORE INSERT ON bank_messages
WHEN EXISTS (SELECT 1 FROM bank_messages WHERE id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'messages of a bank are never replaced');
END;
