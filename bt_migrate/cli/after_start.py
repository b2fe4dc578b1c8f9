"""What follows a start that runs unattended: a metrics file, and a command of the user.

Neither changes the exit code of the program.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from bt_migrate.config.settings import SECRET_VARIABLES, Settings
from bt_migrate.report.build import status_of
from bt_migrate.report.files import REPORT_FILE
from bt_migrate.report.metrics import metrics_text
from bt_migrate.state.files import write_named_file

log = logging.getLogger("bt_migrate")


def after_start(settings: Settings, folder: Path, exit_code: int, began_s: float) -> None:
    """Write the metrics file and run the command, where they are set.

    `folder` is the run directory, or the state folder if the start had no run; `began_s` is its
    beginning in seconds since the epoch.
    """
    if not (settings.metrics_file or settings.on_end):
        return
    report = report_of_start(folder, began_s)
    if settings.metrics_file:
        text = metrics_text(report, exit_code, time.time())
        _write_metrics(Path(settings.metrics_file), text)
    if settings.on_end:
        _run_on_end(settings.on_end, environment_of(report, exit_code, folder))


def report_of_start(folder: Path, began_s: float) -> Optional[Dict[str, Any]]:
    """Returns the report that this start wrote, None without one."""
    path = folder / REPORT_FILE
    try:
        if path.stat().st_mtime < began_s:
            return None
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def _write_metrics(path: Path, text: str) -> None:
    """Replace the file at once: a collector must not read half of it."""
    try:
        write_named_file(path, text, 0o666)
    except OSError as error:
        log.warning("--metrics-file: %s cannot be written (%s)", path, error.strerror)


def environment_of(
    report: Optional[Mapping[str, Any]], exit_code: int, folder: Path
) -> Dict[str, str]:
    """Returns the variables for the command, without the API keys."""
    variables = {
        "BT_MIGRATE_EXIT_CODE": str(exit_code),
        "BT_MIGRATE_STATUS": status_of(exit_code),
        "BT_MIGRATE_RUN": str(folder),
    }
    if report:
        variables["BT_MIGRATE_STATUS"] = report["status"]
        for kind in ("objects", "rows"):
            for name, number in report["totals"][kind].items():
                variables[f"BT_MIGRATE_{kind}_{name}".upper().replace(" ", "_")] = str(number)
        for severity in ("action", "loss", "failure"):
            findings = [
                finding for finding in report["findings"] if finding["severity"] == severity
            ]
            variables[f"BT_MIGRATE_FINDINGS_{severity}".upper()] = str(len(findings))
    inherited = {name: text for name, text in os.environ.items() if name not in SECRET_VARIABLES}
    return {**inherited, **variables}


def _run_on_end(command: str, environment: Mapping[str, str]) -> None:
    try:
        code = subprocess.run(
            command, shell=True, env=environment, stdin=subprocess.DEVNULL
        ).returncode
    except OSError as error:
        log.warning("--on-end: the command cannot be started (%s)", error.strerror)
        return
    if code:
        log.warning("--on-end: the command ended with exit code %d", code)
