"""Named objects: list, rewrite their references, decide, create or update, second pass.

Rows are not known here.
"""
