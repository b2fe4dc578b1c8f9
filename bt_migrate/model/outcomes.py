"""The outcomes of objects and rows. Each one that is listed or read ends in exactly one outcome."""

from __future__ import annotations

CREATED = "created"
FOUND = "found"
UPDATED = "updated"
DIFFERS = "differs"
SKIPPED = "skipped"
FAILED = "failed"
# its target is not in the destination yet; a later start creates it
WAITING = "waiting"
OUTCOMES = (CREATED, FOUND, UPDATED, DIFFERS, SKIPPED, FAILED, WAITING)
# Outcomes of objects that are tried again.
OPEN_OUTCOMES = (FAILED, WAITING)

# the outcomes of a dry run for what it would write
WOULD_CREATE = "planned"
WOULD_UPDATE = "planned update"

# Reasons of objects that are skipped for now: a later start plans them again.
LATER = "moved by a later phase"
NOT_KNOWN_THERE = "the server of the destination does not have this kind"
READY_TO_ACTIVATE = "ready to activate"
NO_PROJECT = "its project could not be created"
OPEN_REASONS = (LATER, NOT_KNOWN_THERE, READY_TO_ACTIVATE, NO_PROJECT)
