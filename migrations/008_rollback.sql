-- Rollback of migration 008: which references were used is lost; the transactions keep theirs in their own rows.
DROP TABLE IF EXISTS balance_change_references;
