"""Show how far a run is: phase, rows, rate, requests, last error, lag.

Can be used at any time, from a second shell. Changes nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from bt_migrate.cli.operate import BEAT_S
from bt_migrate.cli.program import run_command
from bt_migrate.cli.run_status import AT_WORK, run_status
from bt_migrate.cli.status_text import lag_now, status_lines
from bt_migrate.cli.streams import is_open, raw_stream
from bt_migrate.config.load import state_dir_of
from bt_migrate.errors import EXIT_OK
from bt_migrate.report.display import shown
from bt_migrate.state.run_directory import run_at

NAME = "status"
CLEAR = "\033[H\033[J"


def _show(path: Path, flags: Dict[str, Any]) -> bool:
    """Print the status once. Returns whether a process works on the run."""
    status = run_status(path, datetime.now(timezone.utc))
    if flags["lag"]:
        status["lag"] = lag_now(path, flags["env_file"])
    if flags["json"]:
        print(json.dumps(status))
    else:
        _print_lines(status, clears=flags["watch"])
    sys.stdout.flush()
    return status["state"] in AT_WORK


def _print_lines(status: Dict[str, Any], *, clears: bool) -> None:
    """On a terminal, cut to the height of the window."""
    if not sys.stdout.isatty():
        print("\n".join(status_lines(status)))
        return
    if clears:
        raw_stream(sys.stdout).write(CLEAR)
    size = shutil.get_terminal_size()
    lines = status_lines(status, size.lines - 1)
    print("\n".join(shown(line, size.columns) for line in lines))


def show(flags: Dict[str, Any]) -> int:
    path = run_at(Path(flags["run"] or state_dir_of(flags["env_file"])))
    try:
        while _show(path, flags) and flags["watch"] and is_open(sys.stdout):
            time.sleep(BEAT_S)
    except KeyboardInterrupt:  # ends --watch
        print(file=sys.stderr)
    return EXIT_OK


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(argv, NAME, __doc__ or "", show)


if __name__ == "__main__":
    raise SystemExit(main())
