"""Compare both organizations: every object by its fields; the number of rows, a sample, or all.

Can be run at any time. Writes to neither organization. Exits with 0 only if everything matches.
"""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.cli.program import run_program
from bt_migrate.migration.context import Migration
from bt_migrate.verify.run import verify

NAME = "verify"


def run(migration: Migration) -> None:
    settings = migration.settings
    if settings.verify and not settings.dry_run and is_due(migration):
        verify(migration)


def is_due(migration: Migration) -> bool:
    """Whether this start compares: any copy, but a sync only on request or after lost rows."""
    record = migration.run.record
    is_sync = migration.settings.since_last and record.round > 0
    return not is_sync or migration.settings.depth_given or record.refuted


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
