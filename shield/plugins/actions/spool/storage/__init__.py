"""A spool's file: SQLite in WAL mode, one writer."""
