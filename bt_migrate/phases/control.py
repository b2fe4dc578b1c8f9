"""Pause, resume or stop the process that works on a run, or change its limits.

The process reacts within a second. To pause or stop, it finishes the requests in flight and sends
no others. The next start of the run ignores earlier requests of bin/control.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from bt_migrate.cli.command import run_command
from bt_migrate.cli.control import control, request_text
from bt_migrate.cli.run_status import newest_run
from bt_migrate.errors import EXIT_OK

NAME = "control"


def request(flags: Dict[str, Any]) -> int:
    path = newest_run(Path(flags["run"]), datetime.now(timezone.utc))
    requested = control(path, flags["words"])
    if flags["json"]:
        print(json.dumps({"run_directory": str(path), "requested": requested}))
    else:
        print(f"{path}: requested: {request_text(requested, flags['words'][0])}")
    return EXIT_OK


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(argv, NAME, __doc__ or "", request)


if __name__ == "__main__":
    raise SystemExit(main())
