"""Move what reacts to data, after all data is there: project settings, online scores, automations."""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.program import run_program
from bt_migrate.resources import PROJECT_AUTOMATIONS, PROJECT_SCORES, PROJECT_SETTINGS
from bt_migrate.work import Work, copy_project_kind, project_scopes

NAME = "migrate-settings"


def run(work: Work) -> None:
    """Automations last: a retention rule deletes by the original date of rows."""
    scopes = project_scopes(work)
    copy_project_kind(work, PROJECT_SETTINGS, scopes)
    copy_project_kind(work, PROJECT_SCORES, scopes)
    copy_project_kind(work, PROJECT_AUTOMATIONS, scopes)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
