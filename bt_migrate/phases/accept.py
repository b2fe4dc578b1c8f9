"""List what differs after a run, and accept it: a difference that a person decided to live with.

An accepted difference no longer makes a run or a verification end with exit code 1; it is counted
and listed as accepted. It is known by its object and by the content of both sides: when one of the
two changes again, it is reported again. Asks no server; lists unless --all or --only selects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from bt_migrate.cli.accept import accept_differences
from bt_migrate.cli.program import run_command
from bt_migrate.errors import EXIT_OK
from bt_migrate.state.run_directory import run_at

NAME = "accept"


def act(flags: Dict[str, Any]) -> int:
    accept_differences(run_at(Path(flags["run"])), flags)
    return EXIT_OK


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(argv, NAME, __doc__ or "", act)


if __name__ == "__main__":
    raise SystemExit(main())
