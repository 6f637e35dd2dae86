-- Rollback of migration 004: every API key is lost; who made and revoked them stays in audit_logs.
DROP TABLE IF EXISTS api_keys;
