"""What a run does: the steps of the phases, the phase loop, what waits, validation, undo.

It joins `objects` and `rows`; how an object or a row is written is not known here.
"""
