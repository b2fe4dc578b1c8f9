"""Move project logs."""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.cli.program import run_program
from bt_migrate.migration.context import Migration
from bt_migrate.migration.row_steps import copy_logs
from bt_migrate.migration.steps import project_scopes

NAME = "migrate-logs"


def run(migration: Migration) -> None:
    copy_logs(migration, project_scopes(migration))


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
