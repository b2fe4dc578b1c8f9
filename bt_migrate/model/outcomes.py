"""outcomes."""

from __future__ import annotations

WOULD_CREATE, WOULD_UPDATE = (
    "planned",
    "planned update",
)  # the outcomes that a dry run gives to what it would write
# Outcomes of objects and rows. Every listed one ends in exactly one.
CREATED, FOUND, UPDATED, DIFFERS, SKIPPED, FAILED = OUTCOMES = (
    "created",
    "found",
    "updated",
    "differs",
    "skipped",
    "failed",
)

LATER = "moved by a later phase"  # reason of an object that is skipped for now
