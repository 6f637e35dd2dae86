-- Migration 000: the bot's database as it stood before migration 001.
--
-- Source: the parts of these five tables that the migration guide shows; where the guide is silent, what such a
-- bot keeps. Every statement is IF NOT EXISTS, so that running it on a live bot database changes nothing.
-- Times are UTC text as CURRENT_TIMESTAMP writes it ("2026-01-19 12:00:00"). Money is a whole number of won.

CREATE TABLE IF NOT EXISTS users (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  telegram_id TEXT NOT NULL UNIQUE,
  username TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

-- No foreign key on user_id: the guide writes an account for the user 999 that does not exist.
CREATE TABLE IF NOT EXISTS user_deposits (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL UNIQUE,
  balance INTEGER NOT NULL DEFAULT 0,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE IF NOT EXISTS deposit_transactions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users(id),
  type TEXT NOT NULL,
  amount INTEGER NOT NULL,
  status TEXT NOT NULL DEFAULT 'pending',
  depositor_name TEXT,
  description TEXT,
  confirmed_at DATETIME,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE IF NOT EXISTS bank_notifications (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  bank_name TEXT,
  depositor_name TEXT,
  amount INTEGER NOT NULL,
  balance_after INTEGER,
  transaction_time DATETIME,
  raw_message TEXT,
  matched_transaction_id INTEGER REFERENCES deposit_transactions(id),
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE IF NOT EXISTS user_domains (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users(id),
  domain TEXT NOT NULL,
  status TEXT NOT NULL DEFAULT 'active',
  price INTEGER,
  registered_at DATETIME,
  expires_at DATETIME,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX IF NOT EXISTS idx_users_telegram_id ON users(telegram_id);
CREATE INDEX IF NOT EXISTS idx_deposits_user ON user_deposits(user_id);
CREATE INDEX IF NOT EXISTS idx_transactions_user ON deposit_transactions(user_id, created_at);
CREATE INDEX IF NOT EXISTS idx_transactions_status ON deposit_transactions(status, created_at);
CREATE INDEX IF NOT EXISTS idx_bank_notifications_match ON bank_notifications(depositor_name, amount);
CREATE INDEX IF NOT EXISTS idx_domains_user ON user_domains(user_id);
CREATE INDEX IF NOT EXISTS idx_domains_domain ON user_domains(domain);
