"""Parse BTQL text (native clauses and SQL) and answer it from stored rows."""
