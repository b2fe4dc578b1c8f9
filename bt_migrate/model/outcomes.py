"""What becomes of objects and rows. Each one that is listed or read ends in exactly one outcome."""

from __future__ import annotations

CREATED = "created"
FOUND = "found"
UPDATED = "updated"
DIFFERS = "differs"
SKIPPED = "skipped"
FAILED = "failed"
OUTCOMES = (CREATED, FOUND, UPDATED, DIFFERS, SKIPPED, FAILED)

# What a dry run gives for what it would write.
WOULD_CREATE = "planned"
WOULD_UPDATE = "planned update"

# The reason of an object that is skipped for now.
LATER = "moved by a later phase"
