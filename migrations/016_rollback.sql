-- Rollback of migration 016. A program of before compares names by NFC. `passbook migrate down` folds them back first, in
-- the transaction of this file. SQL cannot: it stops where a name may be folded otherwise.
CREATE TABLE migration_016_guard (
  folded_otherwise INTEGER NOT NULL,
  CONSTRAINT "rollback 016 stopped: names are folded by a rule that the program of before does not know; roll back by passbook migrate down"
    CHECK (folded_otherwise = 0)
);
INSERT INTO migration_016_guard (folded_otherwise)
SELECT EXISTS (SELECT 1 FROM name_folding WHERE rule > 1)
  AND (EXISTS (SELECT 1 FROM deposit_transactions WHERE match_name IS NOT NULL AND depositor_name GLOB '*[^ -~가-힣]*')
    OR EXISTS (SELECT 1 FROM bank_notifications WHERE match_name IS NOT NULL AND depositor_name GLOB '*[^ -~가-힣]*'));
DROP TABLE migration_016_guard;

DROP TABLE name_folding;
