-- Migration 005: the answer to each Idempotency-Key, written with the change that it answers.
CREATE TABLE idempotency_answers (
  id INTEGER PRIMARY KEY,
  -- The name of the API key that asked; two callers never share an Idempotency-Key.
  actor TEXT NOT NULL,
  idempotency_key TEXT NOT NULL,
  -- "METHOD /path" and the parsed body as canonical JSON: the same key asks for the same thing, or is refused.
  operation TEXT NOT NULL,
  request TEXT NOT NULL,
  -- The answer, byte for byte.
  status INTEGER NOT NULL,
  body BLOB NOT NULL,
  -- The Location header; null when the answer has none.
  location TEXT,
  created_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX idx_idempotency_answers_key ON idempotency_answers(actor, idempotency_key);

CREATE TRIGGER idempotency_answers_refuse_update BEFORE UPDATE ON idempotency_answers
BEGIN
  SELECT RAISE(ABORT, 'stored answers are never updated');
END;

CREATE TRIGGER idempotency_answers_refuse_delete BEFORE DELETE ON idempotency_answers
BEGIN
  SELECT RAISE(ABORT, 'stored answers are never deleted');
END;

CREATE TRIGGER idempotency_answers_refuse_replace BEFORE INSERT ON idempotency_answers
WHEN EXISTS (SELECT 1 FROM idempotency_answers
             WHERE id = NEW.id OR (actor = NEW.actor AND idempotency_key = NEW.idempotency_key))
BEGIN
  SELECT RAISE(ABORT, 'stored answers are never replaced');
END;
