-- Migration 007: domain purchases that Passbook makes: one live purchase for each name, paid by a transaction.
--
-- pending (held, paid for) -> registered | released | expired. The bot's own rows keep their words and have nulls here.

-- The name as the DNS knows it (IDNA, lower case: "xn--bj0bj06e.kr"); `domain` holds it as people read it.
ALTER TABLE user_domains ADD COLUMN ascii_name TEXT;
-- The transaction that paid for it.
ALTER TABLE user_domains ADD COLUMN transaction_id INTEGER;

CREATE UNIQUE INDEX idx_domains_live ON user_domains(ascii_name)
  WHERE ascii_name IS NOT NULL AND status IN ('pending', 'registered');
CREATE INDEX idx_domains_pending ON user_domains(status, created_at) WHERE ascii_name IS NOT NULL;

CREATE TRIGGER user_domains_move_forwards
BEFORE UPDATE ON user_domains
WHEN OLD.ascii_name IS NOT NULL AND (
  NEW.id IS NOT OLD.id OR NEW.user_id IS NOT OLD.user_id OR NEW.domain IS NOT OLD.domain
  OR NEW.ascii_name IS NOT OLD.ascii_name OR NEW.price IS NOT OLD.price
  OR NEW.transaction_id IS NOT OLD.transaction_id OR NEW.created_at IS NOT OLD.created_at
  OR NOT (OLD.status = 'pending' AND NEW.status IN ('registered', 'released', 'expired')))
BEGIN
  SELECT RAISE(ABORT, 'a domain purchase keeps what it says and its status only moves forwards');
END;

CREATE TRIGGER user_domains_refuse_delete BEFORE DELETE ON user_domains
WHEN OLD.ascii_name IS NOT NULL
BEGIN
  SELECT RAISE(ABORT, 'domain purchases are never deleted');
END;
