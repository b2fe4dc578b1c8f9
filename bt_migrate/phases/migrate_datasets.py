"""Move datasets, then their rows, then dataset snapshots."""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.cli.program import run_program
from bt_migrate.migration.context import Migration
from bt_migrate.migration.steps import move_kinds

NAME = "migrate-datasets"


def run(migration: Migration) -> None:
    move_kinds(migration, NAME)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
