"""A small database of each release, which every later version must be able to take further."""
