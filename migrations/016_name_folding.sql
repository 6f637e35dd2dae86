-- Migration 016: names are compared by NFKC, so that ＨＯＮＧ is HONG, ㈜한빛 is (주)한빛 and ｶﾅ is カナ.
--
-- match_name of deposits and bank notifications is what service/ledger/depositor_names.py folds a name to. SQL has no
-- NFKC: the names that are there are folded anew by `passbook migrate up`, in the transaction of this file. For that
-- transaction it lifts the triggers of the two tables, and puts them back as they were. No service starts before.
-- Nobody is credited by it: a line that waits goes on waiting, and the next announcement or a person looks at it anew.

-- One row: the rule by which match_name of every row was made.
CREATE TABLE name_folding (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  -- 1: NFC, case folded, without blanks. 2: NFKC, case folded, without all that cannot be seen.
  rule INTEGER NOT NULL CHECK (rule BETWEEN 1 AND 255)
) STRICT;
INSERT INTO name_folding (id, rule) VALUES (1, 1);

CREATE TRIGGER name_folding_only_grows BEFORE UPDATE ON name_folding
WHEN NEW.rule <= OLD.rule
BEGIN
  SELECT RAISE(ABORT, 'names are folded by a later rule only');
END;

CREATE TRIGGER name_folding_refuse_delete BEFORE DELETE ON name_folding
BEGIN
  SELECT RAISE(ABORT, 'the rule that names are folded by is never deleted');
END;
