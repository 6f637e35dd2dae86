"""Documents are true."""

PREPARE = {}
