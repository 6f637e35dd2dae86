-- Migration 017: names that a person taught: a bank prints them, and they mean one user.
--
-- A row is written when a person settles a bank notification with "remember", and deleted when somebody says so or the
-- user is erased. Whether it counts is judged anew with each notification.

CREATE TABLE learned_names (
  -- Never given twice: the audit log names it for ever.
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users(id),
  -- As the bank printed it, and as matching compares it.
  printed_name TEXT NOT NULL,
  match_name TEXT NOT NULL,
  -- The notification by which it was learned.
  bank_notification_id INTEGER NOT NULL REFERENCES bank_notifications(id),
  -- The name of the API key whose request taught it, and when (UTC).
  learned_by TEXT NOT NULL,
  created_at DATETIME NOT NULL
);
CREATE UNIQUE INDEX idx_learned_names_name ON learned_names(match_name, user_id);
CREATE INDEX idx_learned_names_user ON learned_names(user_id);

CREATE TRIGGER learned_names_need_notification
BEFORE INSERT ON learned_names
WHEN NOT EXISTS (
  SELECT 1 FROM bank_notifications AS b JOIN deposit_transactions AS t ON t.id = b.matched_transaction_id
  WHERE b.id = NEW.bank_notification_id AND t.user_id = NEW.user_id AND b.depositor_name = NEW.printed_name)
BEGIN
  SELECT RAISE(ABORT, 'a name is learned of the user with whom its bank notification is matched');
END;

CREATE TRIGGER learned_names_refuse_update BEFORE UPDATE ON learned_names
BEGIN
  SELECT RAISE(ABORT, 'a learned name never changes');
END;

CREATE TRIGGER learned_names_refuse_replace BEFORE INSERT ON learned_names
WHEN EXISTS (SELECT 1 FROM learned_names
             WHERE id = NEW.id OR match_name = NEW.match_name AND user_id = NEW.user_id)
BEGIN
  SELECT RAISE(ABORT, 'learned names are never replaced');
END;
