"""Write the report of a run again from the files of the run, and print the path of report.html.

Sends no requests and changes nothing else. Can be used while the run is in progress.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from bt_migrate.cli.command import run_command
from bt_migrate.cli.run_status import AT_WORK, run_status
from bt_migrate.config.load import app_urls_of, state_dir_of
from bt_migrate.errors import EXIT_OK
from bt_migrate.report.build import build_report
from bt_migrate.report.files import HTML_FILE, REPORT_FILE
from bt_migrate.report.write import write_report
from bt_migrate.state.run_directory import RunDirectory, run_at

NAME = "report"


def status_in(path: Path) -> str:
    """The status of the run for its report: running, or how its last process ended."""
    if run_status(path, datetime.now(timezone.utc))["state"] in AT_WORK:
        return "running"
    try:
        return str(json.loads((path / REPORT_FILE).read_text(encoding="utf-8"))["status"])
    except (OSError, ValueError, LookupError, TypeError):  # killed before it wrote its report
        return "interrupted"


def write(flags: Dict[str, Any]) -> int:
    path = run_at(Path(flags["run"] or state_dir_of(flags["env_file"])))
    run = RunDirectory(path)
    report = build_report(run, status_in(path))
    write_report(run, report, app_urls_of(flags["env_file"]))
    print(json.dumps(report) if flags["json"] else path / HTML_FILE)
    return EXIT_OK


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(argv, NAME, __doc__ or "", write)


if __name__ == "__main__":
    raise SystemExit(main())
