"""Check both keys and their rights, count objects and rows, list losses, estimate the time.

Writes nothing.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Optional, Sequence

from bt_migrate.cli.program import run_program
from bt_migrate.migration.context import Migration
from bt_migrate.migration.validate import validate

NAME = "validate"


def run(migration: Migration) -> Optional[Future[None]]:
    return validate(migration)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
