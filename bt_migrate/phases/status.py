"""Show how far a run is: phase, rows, rate, requests, last error, lag.

Can be used at any time, from a second shell. Changes nothing.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from bt_migrate.cli.operate import BEAT_S
from bt_migrate.cli.run_status import AT_WORK, run_status
from bt_migrate.cli.status_text import lag_now, status_lines
from bt_migrate.config.load import state_dir_of
from bt_migrate.config.options import flags_of, make_parser
from bt_migrate.errors import EXIT_OK, MigrationError
from bt_migrate.state.run_directory import run_at

NAME = "status"
CLEAR = "\033[H\033[J"


def _show(path: Path, flags: Dict[str, Any]) -> bool:
    """Print the status once. Returns whether a process works on the run."""
    status = run_status(path, datetime.now(timezone.utc))
    if flags["lag"]:
        status["lag"] = lag_now(path, flags["env_file"])
    if flags["json"]:
        print(json.dumps(status), flush=True)
    else:
        clear = CLEAR if flags["watch"] and sys.stdout.isatty() else ""
        print(clear + "\n".join(status_lines(status)), flush=True)
    return status["state"] in AT_WORK


def main(argv: Optional[Sequence[str]] = None) -> int:
    flags = flags_of(make_parser(NAME, __doc__ or ""), argv)
    try:
        path = run_at(Path(flags["run"] or state_dir_of(flags["env_file"])))
        while _show(path, flags) and flags["watch"]:
            time.sleep(BEAT_S)
    except MigrationError as error:
        print(f"bt_migrate: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # ends --watch
        print(file=sys.stderr)
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
