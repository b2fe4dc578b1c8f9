"""What is recommended after a start, of a run whose record is written here."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Dict, List, Optional

from bt_migrate.model.run_identity import RunSide, Selection
from bt_migrate.report.advice import next_commands
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_record import RunRecord, Session, write_run

RUN = "RUN"  # stands for the path of the run
# Of a report: what a comparison found.
EQUAL = {"equal": True, "arrived": True, "differences": []}
UNEQUAL = {
    "equal": False,
    "arrived": False,
    "differences": [{"resource": "prompts", "outcome": "differs"}],
}
MISSING = {**UNEQUAL, "differences": [{"resource": "rows of logs", "outcome": "missing"}]}


def commands(folder: Path, started: str, arguments: str, status: str, **facts: Any) -> List[str]:
    """Returns the commands of `next_lines` without their comments."""
    found = next_lines(folder, started, arguments, status, **facts)
    return [line.partition("  # ")[0] for line in found]


def next_lines(
    folder: Path,
    started: str,
    arguments: str,
    status: str,
    *,
    report: Optional[Dict[str, Any]] = None,
    session: Optional[Dict[str, Any]] = None,
    before: str = "",
    **record: Any,
) -> List[str]:
    path = folder / "runs" / "20260101_000000"
    path.mkdir(parents=True)
    side = RunSide("id", "name", "http://127.0.0.1:1")
    window = record.pop("window", (None, None))
    selection = Selection(["prompts"], [], *window, **record.pop("selection", {}))
    sessions = [
        Session("2026-01-01T00:00:00Z", program, words)
        for program, *words in map(shlex.split, filter(None, before.split(";")))
    ]
    last = Session("2026-01-01T00:00:00Z", started, shlex.split(arguments), **(session or {}))
    values = {"command": started, "sessions": [*sessions, last], "finished": False, **record}
    write_run(
        path / "run.json", RunRecord(side, side, selection, values.pop("dry_run", False), **values)
    )
    facts = {"status": status, "problems": [], "failed": [], "verification": None, **(report or {})}
    found = next_commands(RunDirectory(path), facts)
    return [line.replace(str(path), RUN) for line in found]
