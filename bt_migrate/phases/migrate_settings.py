"""Move what reacts to data: project settings, online scores, automations. Run it after all rows."""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.cli.program import run_program
from bt_migrate.migration.context import Migration
from bt_migrate.migration.steps import copy_project_kind, project_scopes
from bt_migrate.model.resources import PROJECT_AUTOMATIONS, PROJECT_SCORES, PROJECT_SETTINGS

NAME = "migrate-settings"


def run(migration: Migration) -> None:
    """Automations last: a retention rule deletes rows by their original date."""
    scopes = project_scopes(migration)
    copy_project_kind(migration, PROJECT_SETTINGS, scopes)
    copy_project_kind(migration, PROJECT_SCORES, scopes)
    copy_project_kind(migration, PROJECT_AUTOMATIONS, scopes)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
