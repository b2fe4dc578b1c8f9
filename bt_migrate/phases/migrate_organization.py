"""Move what belongs to the organization as a whole: AI secrets (without their values), roles, groups and environments."""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.cli.program import run_program
from bt_migrate.migration.context import Migration
from bt_migrate.migration.steps import copy_organization_kind
from bt_migrate.model.resources import AI_SECRETS, ENVIRONMENTS, GROUPS, ROLES

NAME = "migrate-organization"


def run(migration: Migration) -> None:
    """Parents before children, whatever the order in which the API lists them; built-in roles are matched, never made."""
    for resource in (AI_SECRETS, ROLES, GROUPS, ENVIRONMENTS):
        copy_organization_kind(migration, resource)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
