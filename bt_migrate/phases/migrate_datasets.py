"""Move datasets, then their rows."""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.program import run_program
from bt_migrate.resources import DATASETS
from bt_migrate.work import Work, copy_project_kind, copy_rows, project_scopes

NAME = "migrate-datasets"


def run(work: Work) -> None:
    """All datasets of all projects first, so that rows can refer to any of them."""
    scopes = project_scopes(work)
    copy_project_kind(work, DATASETS, scopes)
    copy_rows(work, DATASETS.name, scopes)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
