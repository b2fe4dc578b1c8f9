"""Rows of logs, experiments and datasets: read, encode, decide, insert, commit, count, delete.

`pump` copies the pages of one reader; `copy` decides which streams are read by which readers.
"""
