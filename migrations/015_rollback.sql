-- Rollback of migration 015: nothing is lost; the program alone then keeps what a held name was paid with.
DROP TRIGGER IF EXISTS user_domains_keep_their_price;
DROP TRIGGER IF EXISTS deposit_transactions_keep_payments;
