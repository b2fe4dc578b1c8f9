"""Pause, resume, slow down, speed up or stop the process that works on a run.

The process obeys within a second: it finishes the requests in flight and begins no others. The next
start of the run ignores what was requested before.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Optional, Sequence

from bt_migrate.cli.control import control
from bt_migrate.config.options import flags_of, make_parser
from bt_migrate.errors import EXIT_OK, MigrationError
from bt_migrate.state.run_directory import run_at

NAME = "control"


def main(argv: Optional[Sequence[str]] = None) -> int:
    flags = flags_of(make_parser(NAME, __doc__ or ""), argv)
    try:
        path = run_at(Path(flags["run"]))
        print(f"{path}: requested: {control(path, flags['words'])}")
    except MigrationError as error:
        print(f"bt_migrate: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
