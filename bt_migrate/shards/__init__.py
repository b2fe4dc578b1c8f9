"""Divide the rows of a move among processes, copy one part, and merge the runs into one."""
