-- Rollback of migration 017: the learned names are lost; what they matched stays, and the audit log tells of them.
DROP TABLE IF EXISTS learned_names;
