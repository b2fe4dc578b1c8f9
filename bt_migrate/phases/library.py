"""Functions for other Python programs: run a program of bin/, read the report of a run.

`import bt_migrate` exports them; see development.md in the manual.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any, Dict, Sequence, Union

import bt_migrate.phases
from bt_migrate.errors import StateError, UsageError
from bt_migrate.report.files import REPORT_FILE
from bt_migrate.state.run_directory import run_at


def run(program: str, arguments: Sequence[str] = ()) -> int:
    """Run a program of bin/ in this process and return its exit code.

    `program` is its name, such as "migrate-all"; `arguments` are those of its command line. The
    settings come from the environment and from `.env`. It prints as the program does, and sets
    signal handlers while it runs, so it must be called from the main thread. Raises UsageError if
    there is no such program.
    """
    name = program.replace("-", "_")
    programs = {module.name for module in pkgutil.iter_modules(bt_migrate.phases.__path__)}
    if name not in programs - {"library"}:
        raise UsageError(f"there is no program {program!r} in bin/")
    module = importlib.import_module(f"bt_migrate.phases.{name}")
    return int(module.main(list(arguments)))


def read_report(path: Union[str, Path]) -> Dict[str, Any]:
    """Returns migration_report.json of a run directory, or of the newest run in a state folder.

    The manual's page report.md describes its fields. Raises UsageError if there is no run, and
    StateError if the run has no report that can be read.
    """
    file = run_at(Path(path)) / REPORT_FILE
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StateError(f"{file}: cannot be read ({error}); bin/report writes it again") from None
    if not isinstance(report, dict):
        raise StateError(f"{file}: is not a report; bin/report writes it again")
    return report
