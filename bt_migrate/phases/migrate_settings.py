"""Move environment assignments, project settings, online project scores, and the automations of
projects and of the organization, after the rows they act on.

Automations that act outside of Braintrust or delete are created with --activate only.
"""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.cli.program import run_program
from bt_migrate.migration.context import Migration
from bt_migrate.migration.steps import move_kinds

NAME = "migrate-settings"


def run(migration: Migration) -> None:
    """Move automations last: a retention rule deletes rows by their original date."""
    move_kinds(migration, NAME)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
