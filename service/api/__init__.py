"""All of HTTP: one file per resource, and the strict edge that they share."""
