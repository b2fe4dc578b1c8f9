"""What becomes of objects and rows. Each one that is listed or read ends in exactly one outcome."""

from __future__ import annotations

CREATED = "created"
FOUND = "found"
UPDATED = "updated"
DIFFERS = "differs"
SKIPPED = "skipped"
FAILED = "failed"
# Its target is not in the destination yet; a later start brings it.
WAITING = "waiting"
OUTCOMES = (CREATED, FOUND, UPDATED, DIFFERS, SKIPPED, FAILED, WAITING)
# Outcomes of objects that are tried again.
OPEN_OUTCOMES = (FAILED, WAITING)

# What a dry run gives for what it would write.
WOULD_CREATE = "planned"
WOULD_UPDATE = "planned update"

# The reason of an object that is skipped for now.
LATER = "moved by a later phase"
