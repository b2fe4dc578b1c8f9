"""Move project logs."""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.program import run_program
from bt_migrate.work import Work, copy_logs, project_scopes

NAME = "migrate-logs"


def run(work: Work) -> None:
    copy_logs(work, project_scopes(work))


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
