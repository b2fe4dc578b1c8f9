"""Compare both organizations: every object by its fields; the number of rows, a sample, or all.

Can be run at any time. Writes to neither organization. Exits with 0 only if everything matches.
"""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.cli.program import run_program
from bt_migrate.migration.context import Migration
from bt_migrate.rows.planned_comparison import is_compared
from bt_migrate.verify.run import verify

NAME = "verify"


def run(migration: Migration) -> None:
    if not migration.settings.dry_run and is_compared(migration.catalog):
        verify(migration)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
