"""Faults put into the service on purpose, one at a time, each of which a named test must notice (`make mutants`)."""
