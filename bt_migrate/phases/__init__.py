"""The phases: one module and one program each. Only this module knows their order."""

from __future__ import annotations

# In the order in which bin/migrate-all runs them.
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
