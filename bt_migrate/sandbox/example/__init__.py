"""The organization that --demo and `--example` show: an object of every kind, and rows."""
