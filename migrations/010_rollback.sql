-- Rollback of migration 010: what the bot's tables had beside the ledger's columns is lost.
DROP TABLE IF EXISTS import_archive;
