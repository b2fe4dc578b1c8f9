"""Compare both organizations, now or at any later time: every object field by field, and rows by number, by a sample or all by
content. Writes to neither. Ends with 0 only when everything matches.
"""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.program import run_program
from bt_migrate.verification import verify
from bt_migrate.work import Work

NAME = "verify"


def run(work: Work) -> None:
    if work.settings.verify and not work.settings.dry_run:
        verify(work)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
