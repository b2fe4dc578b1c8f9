"""Compare both organizations: objects, counts of rows, rows. It writes to neither of them."""
