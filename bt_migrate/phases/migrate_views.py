"""Move the views of the organization, of projects, datasets and experiments."""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.program import run_program
from bt_migrate.work import Work, copy_views, project_scopes

NAME = "migrate-views"


def run(work: Work) -> None:
    copy_views(work, project_scopes(work))


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
