-- Migration 004: API keys. The key itself is shown once, when it is made; only its hash is kept.
CREATE TABLE api_keys (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  -- The public start of the key, for lists and for revoking: "pbk_3fJ9a2Qx".
  prefix TEXT NOT NULL UNIQUE,
  -- Who acts with it; becomes audit_logs.actor. A new key of the same name takes over its idempotency keys.
  name TEXT NOT NULL,
  -- SHA-256 of the whole key. The secret has 190 bits, so no slow hash is needed.
  key_hash BLOB NOT NULL UNIQUE,
  -- Scope names, separated by one space, in alphabetical order.
  scopes TEXT NOT NULL,
  created_at TEXT NOT NULL,
  -- UTC; null while the key is live.
  revoked_at TEXT
) STRICT;
