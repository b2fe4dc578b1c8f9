"""The run directory: which files there are, how they are written, and what they say after a crash.

Each record has one reader and one writer. What the records are used for is not known here.
"""
