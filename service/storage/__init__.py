"""All SQL: synchronous functions that take an open transaction and return ledger types."""
