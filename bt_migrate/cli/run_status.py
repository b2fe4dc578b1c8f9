"""The progress of a run from its files alone: the last status of its process, and the checkpoints.

Takes no lock and writes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional

from bt_migrate.cli.process_status import ROWS
from bt_migrate.errors import StateError
from bt_migrate.model.date_windows import instant
from bt_migrate.report.files import REPORT_FILE
from bt_migrate.state.find_run import ALL_PHASES, VERIFY
from bt_migrate.state.records import json_of
from bt_migrate.state.run_directory import (
    RunDirectory,
    readable_runs_in,
    run_at,
    run_paths_in,
    window_of,
)
from bt_migrate.state.run_record import RunRecord
from bt_migrate.state.status_file import read_status

RUNNING = "running"
PAUSED = "paused"
SILENT = "silent"
KILLED = "killed"
ENDED = "ended"
FINISHED = "finished"
UNDONE = "undone"
# States in which a process works on the run.
AT_WORK = (RUNNING, PAUSED, SILENT)

# the part of a move in shards that moves no rows
OBJECTS_ALONE = "objects"
# of the status file
PROCESS_FIELDS = ("pid", "host", "started", "updated")
# the process of an older status file has ended, or hangs
FRESH_S = 10


def run_status(path: Path, now: datetime) -> Dict[str, Any]:
    """Returns everything that `bin/status` shows, as one JSON object."""
    run = RunDirectory(path)
    status_of_process = read_status(path)
    state = _state(run.record, status_of_process, now)
    at_work = state in AT_WORK
    live_status = status_of_process if at_work else {}
    live = {stream["source_id"]: stream for stream in live_status.get("streams", ())}
    # A run of bin/verify alone moves nothing.
    streams = list(_streams(run, live)) if run.record.command != VERIFY else []
    parts = [_part(part) for part in live_status.get("parts", ())]
    if work := live_status.get("work"):
        of_work = streams if work["unit"] == ROWS else parts
        of_work[:] = [_not_after(work["seconds_left"], stream) for stream in of_work]
    last_error = next((start.error for start in run.record.sessions[-1:] if start.error), "")
    return {
        "run": str(path),
        "state": state,
        "result": _reported(path) if state == FINISHED else "",
        "command": live_status.get("command") or run.record.command,
        "dry_run": run.record.dry_run,
        "source": run.record.source.org_name,
        "dest": run.record.dest.org_name,
        "window": window_of(run),
        "process": {name: status_of_process.get(name) for name in PROCESS_FIELDS},
        "phase": live_status.get("phase", ""),
        "phase_number": live_status.get("phase_number"),
        "phases_done": run.record.phases_done,
        "stopping": live_status.get("stopping", ""),
        "rows": _total(streams, live_status.get("rows_per_second", 0.0), work),
        "work": work,
        "parts": parts,
        "wait": live_status.get("wait"),
        "undone": run.record.undone,
        "verification": (run.record.verification or {}).get("text", ""),
        "sides": status_of_process.get("sides", {}),
        "last_error": status_of_process.get("last_error") or last_error,
        "lag": run.record.lag,
        "streams": streams,
    }


def _reported(path: Path) -> str:
    """Returns the status in the report of the last start: completed, incomplete …"""
    try:
        return str(json.loads((path / REPORT_FILE).read_text(encoding="utf-8"))["status"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def newest_run(path: Path, now: datetime) -> Path:
    """The run that a path names. Of a folder of runs, the newest on which a process works, or else
    the one on which a process worked last. Raises UsageError.
    """
    newest = run_at(path)
    updated = ""
    for run in run_paths_in(path):
        with contextlib.suppress(StateError):
            status = read_status(run)
            if status.get("state") == RUNNING and process_state(status, now) in AT_WORK:
                return run
            if str(status.get("updated", "")) > updated:
                newest, updated = run, str(status["updated"])
    return newest


def _part(part: Dict[str, Any]) -> Dict[str, Any]:
    eta = _eta(part["done"], part.get("total"), part["rows_per_second"])
    return {"total": None, **part, "complete": False, "error": "", "eta_seconds": eta}


def _not_after(whole_s: Optional[int], stream: Dict[str, Any]) -> Dict[str, Any]:
    """Returns the stream with a time left that is not above that of all.

    A stream that waits for its turn is slow now; it gets faster when others have ended.
    """
    times = [seconds for seconds in (stream["eta_seconds"], whole_s) if seconds is not None]
    return {**stream, "eta_seconds": min(times) if stream["eta_seconds"] is not None else None}


def _total(
    streams: List[Dict[str, Any]], rate: float, work: Optional[Mapping[str, Any]]
) -> Dict[str, Any]:
    done = sum(stream["done"] for stream in streams)
    total = _sum_if_known(stream["total"] for stream in streams)
    eta = _eta(done, total, rate)
    if work and work["unit"] == ROWS:
        # The process takes the query limits into account.
        eta = work["seconds_left"]
    return {"done": done, "total": total, "rows_per_second": rate, "eta_seconds": eta}


def _state(record: RunRecord, status: Mapping[str, Any], now: datetime) -> str:
    if status.get("state") == RUNNING:
        return process_state(status, now)
    if record.undone and "ended" in record.undone:
        return UNDONE
    is_done = record.finished or _ended_alone(record)
    return FINISHED if is_done and not record.undone else ENDED


def _ended_alone(record: RunRecord) -> bool:
    """Whether the last start was of one phase, which came to its end."""
    last = record.sessions[-1:]
    return any(item.command != ALL_PHASES and item.ended and not item.error for item in last)


def process_state(status: Mapping[str, Any], now: datetime) -> str:
    """Returns what the last process is doing, if it has not reported its end."""
    is_fresh = (now - instant(status["updated"])).total_seconds() < FRESH_S
    if is_fresh and _lives(status) is not False:
        return PAUSED if status["paused"] else RUNNING
    return SILENT if _lives(status) else KILLED


def _lives(status: Mapping[str, Any]) -> Optional[bool]:
    """Returns whether the process exists; None if that cannot be seen from this machine."""
    if status["host"] != socket.gethostname():
        return None
    try:
        os.kill(status["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process of another user
        return True
    return True


def _streams(run: RunDirectory, live: Mapping[str, Mapping[str, Any]]) -> Iterator[Dict[str, Any]]:
    """Yields the streams of the run, the open ones first.

    Each is {kind, project, name, source_id, done, total, complete, error, rows_per_second,
    eta_seconds}. In a sync these are the streams with rows in the current round; nobody counted
    them before.
    """
    number = run.record.round
    moves_rows = run.record.selection.part != OBJECTS_ALONE
    by_source_id = _counted_streams(run) if moves_rows and not number else {}
    for state in run.all_streams():
        if state.sync.round == number:
            _add_checkpoint(by_source_id, state)
    for source_id, stream in live.items():
        _add_live(by_source_id, source_id, stream)

    def open_first(source_id: str) -> Any:
        return source_id not in live, by_source_id[source_id].get("complete", False)

    for source_id in sorted(by_source_id, key=open_first):
        yield _with_totals(source_id, by_source_id[source_id])


def _counted_streams(run: RunDirectory) -> Dict[str, Dict[str, Any]]:
    return {
        stream["id"]: {
            "kind": kind,
            "project": stream["project"],
            "name": stream["name"],
            "done": 0,
            "total": stream["rows"],
        }
        for kind, streams in _counts_of(run).items()
        for stream in streams
    }


def _add_checkpoint(by_source_id: Dict[str, Dict[str, Any]], state: Any) -> None:
    source_id = state.header["source_id"]
    by_source_id[source_id] = {
        **by_source_id.get(source_id, {"total": None}),
        **{name: state.header[name] for name in ("kind", "project", "name")},
        "done": state.counts["fetched"],
        "complete": state.done,
        "error": state.error,
    }


def _add_live(
    by_source_id: Dict[str, Dict[str, Any]], source_id: str, stream: Mapping[str, Any]
) -> None:
    recorded = by_source_id.get(source_id, {})
    if recorded.get("complete"):  # it was completed after the process wrote its status
        return
    done = max(stream["done"], recorded.get("done", 0))
    by_source_id[source_id] = {"total": None, **recorded, **stream, "done": done}


def _with_totals(source_id: str, progress: Mapping[str, Any]) -> Dict[str, Any]:
    stream = {
        "complete": False,
        "error": "",
        "rows_per_second": 0.0,
        **progress,
        "source_id": source_id,
    }
    if stream["complete"]:
        stream["total"] = stream["done"]
    elif stream["total"] is not None:
        # The source may grow while it is read.
        stream["total"] = max(stream["total"], stream["done"])
    eta = _eta(stream["done"], stream["total"], stream["rows_per_second"])
    return {**stream, "eta_seconds": eta}


def _counts_of(run: RunDirectory) -> Dict[str, Any]:
    """Returns kind -> [{id, project, name, rows}], as the streams were counted.

    For a shard that is its plan; else a validation of this run, or of another with its window.
    """
    if run.record.shard is not None:
        shard = run.record.shard
        return {
            kind: [json_of(unit) for unit in shard.units if unit.kind == kind]
            for kind in shard.resources
        }
    for other in (run, *readable_runs_in(run.path.parent)):
        is_alike = other.same_pair(run.record) and window_of(other) == window_of(run)
        if is_alike and other.record.validation is not None:
            return dict(other.record.validation["streams"])
    return {}


def _sum_if_known(totals: Iterable[Optional[int]]) -> Optional[int]:
    """Returns None if there is no total, or one of them is unknown."""
    numbers = list(totals)
    return None if not numbers or None in numbers else sum(total or 0 for total in numbers)


def _eta(done: int, total: Optional[int], rate: float) -> Optional[int]:
    if total is None or total <= done or rate <= 0:
        return None
    return int((total - done) / rate)
