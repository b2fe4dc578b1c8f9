"""bin/status of several runs: all runs of a state folder, and the shards of a move as one.

Takes no lock and writes nothing.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from bt_migrate.cli.run_status import AT_WORK, newest_run, run_status
from bt_migrate.errors import StateError, UsageError
from bt_migrate.report.display import duration_text, number, shown, table
from bt_migrate.state.run_directory import run_paths_in
from bt_migrate.state.run_files import RUN_FILE
from bt_migrate.state.run_record import read_run

DAMAGED = "damaged"


def all_runs(root: Path, now: datetime) -> List[Dict[str, Any]]:
    """Returns every run of a folder, newest first: {run, command, result, rows, started, dry_run}.

    Raises UsageError if there is none.
    """
    paths = run_paths_in(root)
    if not paths:
        raise UsageError(f"{root}: there is no run; name the folder of runs")
    return [_about(path, now) for path in paths]


def _about(path: Path, now: datetime) -> Dict[str, Any]:
    about = {"run": str(path), "command": "", "rows": None, "started": "", "dry_run": False}
    try:
        record = read_run(path / RUN_FILE)
        status = run_status(path, now)
    except StateError as error:
        return {**about, "result": DAMAGED, "error": str(error)}
    earlier_rows = sum(session.rows for session in record.sessions)
    return {
        **about,
        "command": status["command"],
        "result": status["result"] or status["state"],
        # a sync counts only its own rows
        "rows": max(status["rows"]["done"], earlier_rows),
        "started": record.created,
        "dry_run": record.dry_run,
    }


def all_runs_lines(runs: Sequence[Dict[str, Any]]) -> List[str]:
    """Returns a table. A narrow window cuts its lines at their end, so the result comes first."""
    return table(
        ("result", "run", "command", "rows", "began (UTC)"),
        [
            (
                "dry run" if run["dry_run"] else run["result"],
                Path(run["run"]).name,
                run["command"],
                number(run["rows"]),
                run["started"].partition(".")[0].replace("T", " ").rstrip("Z"),
            )
            for run in runs
        ],
        indent="",
    )


# -- shards


def parts_below(folder: Path, now: datetime) -> List[Path]:
    """Returns the newest run of each folder of runs inside a folder; [] if there is none."""
    if (folder / RUN_FILE).is_file() or run_paths_in(folder) or not folder.is_dir():
        return []
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and run_paths_in(path))
    return [newest_run(path, now) for path in inside]


def summed(folder: Path, paths: Sequence[Path], now: datetime) -> Dict[str, Any]:
    """Returns the status of the runs of a move in shards, and their rows together."""
    runs = [run_status(path, now) for path in paths]
    rows = [run["rows"] for run in runs]
    left = [count["eta_seconds"] for count in rows if count["eta_seconds"] is not None]
    totals = [count["total"] for count in rows if count["done"] or count["total"]]
    return {
        "folder": str(folder),
        "at_work": any(run["state"] in AT_WORK for run in runs),
        "rows": {
            "done": sum(count["done"] for count in rows),
            "total": None if None in totals else sum(totals),
            "rows_per_second": round(sum(count["rows_per_second"] for count in rows), 1),
            "eta_seconds": max(left, default=None),
        },
        "runs": runs,
    }


def summed_lines(status: Dict[str, Any], height: Optional[int] = None) -> List[str]:
    rows = status["rows"]
    head = [
        f"{len(status['runs'])} runs in {status['folder']}: {', '.join(_states(status['runs']))}",
        f"rows: {_rows_text(rows)}{_left_text(rows['eta_seconds'])}",
    ]
    lines = table(
        ("run", "state", "rows", "a second", "left"),
        [
            (
                shown(Path(run["run"]).relative_to(status["folder"]).parent),
                run["state"],
                _rows_text(run["rows"]) if run["streams"] else "none",
                f"{run['rows']['rows_per_second']:,.0f}",
                duration_text(run["rows"]["eta_seconds"]) if run["rows"]["eta_seconds"] else "",
            )
            for run in status["runs"]
        ],
    )
    return [*head, *lines][:height]


def _states(runs: Sequence[Dict[str, Any]]) -> Iterator[str]:
    states = [run["state"] for run in runs]
    for state in dict.fromkeys(states):
        yield f"{states.count(state)} {state}"


def _rows_text(rows: Dict[str, Any]) -> str:
    return f"{rows['done']:,} of {number(rows['total'])}"


def _left_text(seconds: Optional[int]) -> str:
    return f", about {duration_text(seconds)} left" if seconds else ""
