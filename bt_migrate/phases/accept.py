"""List the differences that a run left, and accept those that should stay.

An accepted difference no longer makes a run or a verification end with exit code 1. It is counted
and listed as accepted. If the object changes again on either side, it is reported again. Without
--all or --only the differences are only listed. Sends no requests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from bt_migrate.cli.accept import accept_differences, refuse_useless
from bt_migrate.cli.command import run_command
from bt_migrate.errors import EXIT_OK
from bt_migrate.state.run_directory import run_at

NAME = "accept"


def act(flags: Dict[str, Any]) -> int:
    refuse_useless(flags)
    accept_differences(run_at(Path(flags["run"])), flags)
    return EXIT_OK


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(argv, NAME, __doc__ or "", act)


if __name__ == "__main__":
    raise SystemExit(main())
