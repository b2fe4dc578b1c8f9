"""Move datasets, then their rows."""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.program import run_program
from bt_migrate.resources import DATASETS
from bt_migrate.work import Work, copy_with_rows, project_scopes

NAME = "migrate-datasets"


def run(work: Work) -> None:
    copy_with_rows(work, DATASETS, project_scopes(work))


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
