"""The phases: one module each, one argparse entry each. This is the only place that knows their order."""

from __future__ import annotations

# In the order in which bin/migrate-all runs them. Validation comes before, verification after everything.
ORDER = (
    "validate",
    "migrate_organization",
    "migrate_datasets",
    "migrate_definitions",
    "migrate_experiments",
    "migrate_logs",
    "migrate_views",
    "migrate_settings",
    "migrate_acls",
    "verify",
)
