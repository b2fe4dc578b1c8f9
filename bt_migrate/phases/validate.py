"""Check both keys and their rights, count what is there, tell what cannot move and how long the rest takes. Writes nothing."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Optional, Sequence

from bt_migrate.program import run_program
from bt_migrate.validation import validate
from bt_migrate.work import Work

NAME = "validate"


def run(work: Work) -> Optional[Future[None]]:
    return validate(work)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
