"""Pure types and rules: no await, no SQL, no HTTP."""
