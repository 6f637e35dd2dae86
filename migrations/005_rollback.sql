-- Rollback of migration 005: the stored answers are lost, so a retry of an old request would be carried out again.
DROP TABLE IF EXISTS idempotency_answers;
