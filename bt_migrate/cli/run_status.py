"""How far a run is, from its files alone: what its process wrote last, and the checkpoints.

Takes no lock and writes nothing.
"""

from __future__ import annotations

import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional

from bt_migrate.model.date_windows import instant
from bt_migrate.state.run_directory import (
    RunDirectory,
    readable_runs_in,
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
# States in which a process works on the run.
AT_WORK = (RUNNING, PAUSED, SILENT)

# The process of an older status file is gone, or hangs.
FRESH_S = 10


def run_status(path: Path, now: datetime) -> Dict[str, Any]:
    """Returns everything that `bin/status` shows, as one JSON object."""
    run = RunDirectory(path)
    said = read_status(path)
    state = _state(run.record, said, now)
    at_work = state in AT_WORK
    live_streams = said.get("streams", ()) if at_work else ()
    live = {stream["source_id"]: stream for stream in live_streams}
    streams = list(_streams(run, live))
    rate = said.get("rows_per_second", 0.0) if at_work else 0.0
    sessions = run.record.sessions
    last_error = (sessions[-1].error or "") if sessions else ""
    return {
        "run": str(path),
        "state": state,
        "command": run.record.command,
        "source": run.record.source.org_name,
        "dest": run.record.dest.org_name,
        "window": window_of(run),
        "process": {name: said.get(name) for name in ("pid", "host", "started", "updated")},
        "phase": said.get("phase", "") if at_work else "",
        "phase_number": said.get("phase_number") if at_work else None,
        "phases_done": run.record.phases_done,
        "stopping": said.get("stopping", "") if at_work else "",
        "rows": _total(streams, rate),
        "sides": said.get("sides", {}),
        "last_error": said.get("last_error") or last_error,
        "lag": run.record.lag,
        "streams": streams,
    }


def _total(streams: List[Dict[str, Any]], rate: float) -> Dict[str, Any]:
    done = sum(stream["done"] for stream in streams)
    total = _sum_if_known(stream["total"] for stream in streams)
    eta = _eta(done, total, rate)
    return {"done": done, "total": total, "rows_per_second": rate, "eta_seconds": eta}


def _state(record: RunRecord, said: Mapping[str, Any], now: datetime) -> str:
    if said.get("state") != "running":
        return FINISHED if record.finished else ENDED
    is_fresh = (now - instant(said["updated"])).total_seconds() < FRESH_S
    if is_fresh and _lives(said) is not False:
        return PAUSED if said["paused"] else RUNNING
    return SILENT if _lives(said) else KILLED


def _lives(said: Mapping[str, Any]) -> Optional[bool]:
    """Returns whether the process exists; None if that cannot be seen from this machine."""
    if said["host"] != socket.gethostname():
        return None
    try:
        os.kill(said["pid"], 0)
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
    found = {} if number else _counted_streams(run)
    for state in run.all_streams():
        if state.sync.round == number:
            _add_checkpoint(found, state)
    for source_id, stream in live.items():
        _add_live(found, source_id, stream)

    def open_first(source_id: str) -> Any:
        return source_id not in live, found[source_id].get("complete", False)

    for source_id in sorted(found, key=open_first):
        yield _with_totals(source_id, found[source_id])


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


def _add_checkpoint(found: Dict[str, Dict[str, Any]], state: Any) -> None:
    source_id = state.header["source_id"]
    found[source_id] = {
        **found.get(source_id, {"total": None}),
        **{name: state.header[name] for name in ("kind", "project", "name")},
        "done": state.counts["fetched"],
        "complete": state.done,
        "error": state.error,
    }


def _add_live(found: Dict[str, Dict[str, Any]], source_id: str, stream: Mapping[str, Any]) -> None:
    known = found.get(source_id, {})
    if known.get("complete"):  # it ended after the process wrote its status
        return
    done = max(stream["done"], known.get("done", 0))
    found[source_id] = {"total": None, **known, **stream, "done": done}


def _with_totals(source_id: str, known: Mapping[str, Any]) -> Dict[str, Any]:
    stream = {
        "complete": False,
        "error": "",
        "rows_per_second": 0.0,
        **known,
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
        units = run.record.shard["units"]
        return {
            kind: [unit for unit in units if unit["kind"] == kind]
            for kind in run.record.shard["resources"]
        }
    for other in (run, *readable_runs_in(run.path.parent)):
        is_alike = other.same_pair(run.record) and window_of(other) == window_of(run)
        if is_alike and other.record.validation is not None:
            return dict(other.record.validation["streams"])
    return {}


def _sum_if_known(totals: Iterable[Optional[int]]) -> Optional[int]:
    """Returns None if there is no total, or one of them is unknown."""
    known = list(totals)
    return None if not known or None in known else sum(total or 0 for total in known)


def _eta(done: int, total: Optional[int], rate: float) -> Optional[int]:
    if total is None or total <= done or rate <= 0:
        return None
    return int((total - done) / rate)
