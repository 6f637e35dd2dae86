-- Migration 015: the price of a domain purchase is where its status says, whoever writes.
--
-- The chain of reversals that a payment begins says who has the money: each of it moves the money the other way. Rows
-- from before keep what they are; `passbook integrity` names those that are wrong.

-- What a held name was paid with goes back with the name alone.
CREATE TRIGGER deposit_transactions_keep_payments
BEFORE INSERT ON deposit_transactions
WHEN NEW.reverses_id IS NOT NULL AND NEW.direction = 'credit' AND NEW.type <> 'domain_refund' AND EXISTS (
  SELECT 1 FROM user_domains
  WHERE user_id = NEW.user_id AND status = 'pending' AND transaction_id IN (
    WITH RECURSIVE chain(id) AS (
      SELECT NEW.reverses_id
      UNION SELECT t.reverses_id FROM chain JOIN deposit_transactions AS t ON t.id = chain.id
      WHERE t.reverses_id IS NOT NULL)
    SELECT id FROM chain))
BEGIN
  SELECT RAISE(ABORT, 'what a held name was paid with is not taken back');
END;

-- A name is registered while its price is taken, and given up when it is back.
CREATE TRIGGER user_domains_keep_their_price
BEFORE UPDATE ON user_domains
WHEN OLD.status = 'pending' AND OLD.transaction_id IS NOT NULL AND NEW.status IS NOT OLD.status
  AND (NEW.status = 'registered') <> (
    WITH RECURSIVE chain(id) AS (
      SELECT OLD.transaction_id
      UNION SELECT r.id FROM chain JOIN deposit_transactions AS r ON r.reverses_id = chain.id)
    SELECT COUNT(*) % 2 FROM chain)
BEGIN
  SELECT RAISE(ABORT, 'a name is registered while its price is taken, and given up when it is back');
END;
