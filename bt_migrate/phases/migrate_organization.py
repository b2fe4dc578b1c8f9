"""Move objects of the organization: AI secrets (without values), roles, groups, environments and
project groups. The projects of a project group are found or created first.
"""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.cli.program import run_program
from bt_migrate.migration.context import Migration
from bt_migrate.migration.steps import move_kinds

NAME = "migrate-organization"


def run(migration: Migration) -> None:
    """Move parents before children. Built-in roles exist in every organization, and stay."""
    move_kinds(migration, NAME)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
