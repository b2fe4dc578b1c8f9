"""How far a run is, from its files alone: what its process told last, and the checkpoints. Takes no lock and writes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional

from bt_migrate.cli.operate import FRESH_S
from bt_migrate.model.date_windows import instant
from bt_migrate.state.run_directory import STATUS_FILE, RunDirectory, readable_runs_in, window_of

RUNNING, PAUSED, SILENT, KILLED, ENDED, FINISHED = (
    "running",
    "paused",
    "silent",
    "killed",
    "ended",
    "finished",
)
AT_WORK = (RUNNING, PAUSED, SILENT)


def run_status(path: Path, now: datetime) -> Dict[str, Any]:
    """All that `bin/status` shows, as one JSON object."""
    run = RunDirectory(path)
    told = _told(path)
    state = _state(run.data, told, now)
    at_work = state in AT_WORK
    streams = list(
        _streams(run, {one["source_id"]: one for one in told.get("streams", ())} if at_work else {})
    )
    done, total = sum(one["done"] for one in streams), _sum(one["total"] for one in streams)
    rate = told.get("rows_per_second", 0.0) if at_work else 0.0
    sessions = run.data["sessions"]
    return {
        "run": str(path),
        "state": state,
        "command": run.data["command"],
        "source": run.data["source"]["org_name"],
        "dest": run.data["dest"]["org_name"],
        "window": {
            name: run.data["selection"][name] for name in ("created_after", "created_before")
        },
        "process": {name: told.get(name) for name in ("pid", "host", "started", "updated")},
        "phase": told.get("phase", "") if at_work else "",
        "phase_number": told.get("phase_number") if at_work else None,
        "phases_done": run.data["phases_done"],
        "stopping": told.get("stopping", "") if at_work else "",
        "rows": {
            "done": done,
            "total": total,
            "rows_per_second": rate,
            "eta_seconds": _eta(done, total, rate),
        },
        "sides": told.get("sides", {}),
        "last_error": told.get("last_error") or (sessions[-1].get("error", "") if sessions else ""),
        "lag": run.data.get("lag"),
        "streams": streams,
    }


def _told(path: Path) -> Dict[str, Any]:
    """What the last process of the run said of itself; it replaces the file as a whole."""
    with contextlib.suppress(OSError, ValueError):
        value = json.loads((path / STATUS_FILE).read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    return {}


def _state(run: Mapping[str, Any], told: Mapping[str, Any], now: datetime) -> str:
    if told.get("state") == "running":
        fresh = (now - instant(told["updated"])).total_seconds() < FRESH_S
        if fresh and _lives(told) is not False:
            return PAUSED if told["paused"] else RUNNING
        return SILENT if _lives(told) else KILLED
    return FINISHED if run["finished"] else ENDED


def _lives(told: Mapping[str, Any]) -> Optional[bool]:
    """Whether the process is there; None where that cannot be seen from this machine."""
    if told["host"] != socket.gethostname():
        return None
    try:
        os.kill(told["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:  # of somebody else
        return True
    return True


def _streams(run: RunDirectory, live: Mapping[str, Mapping[str, Any]]) -> Iterator[Dict[str, Any]]:
    """{kind, project, name, source_id, done, total, complete, error, rows_per_second, eta_seconds} of each, the open ones first.

    Of a sync those that have rows in its round, which nobody counted before.
    """
    number = run.data.get("round", 0)
    found: Dict[str, Dict[str, Any]] = {}
    for kind, streams in ({} if number else _counted(run)).items():
        for one in streams:
            found[one["id"]] = {
                "kind": kind,
                "project": one["project"],
                "name": one["name"],
                "done": 0,
                "total": one["rows"],
            }
    for state in run.all_streams():
        if state.round != number:
            continue
        header = {name: state.header[name] for name in ("kind", "project", "name")}
        known = found.get(state.header["source_id"], {"total": None})
        facts = {"done": state.counts["fetched"], "complete": state.done, "error": state.error}
        found[state.header["source_id"]] = {**known, **header, **facts}
    for source_id, one in live.items():
        known = found.get(source_id, {})
        if not known.get("complete"):  # else it came to its end since the process told
            found[source_id] = {
                "total": None,
                **known,
                **one,
                "done": max(one["done"], known.get("done", 0)),
            }
    for source_id in sorted(
        found, key=lambda one: (one not in live, found[one].get("complete", False))
    ):
        one = {
            "complete": False,
            "error": "",
            "rows_per_second": 0.0,
            **found[source_id],
            "source_id": source_id,
        }
        if one["complete"]:
            one["total"] = one["done"]
        elif one["total"] is not None:
            one["total"] = max(one["total"], one["done"])  # it grows while it is read
        yield {**one, "eta_seconds": _eta(one["done"], one["total"], one["rows_per_second"])}


def _counted(run: RunDirectory) -> Dict[str, Any]:
    """kind -> rows per stream as they were counted: for a shard, by this run, or by a validation of the same window beside it."""
    if "shard" in run.data:
        units = run.data["shard"]["units"]
        return {
            kind: [unit for unit in units if unit["kind"] == kind]
            for kind in run.data["shard"]["resources"]
        }
    for one in (run, *readable_runs_in(run.path.parent)):
        if (
            one.same_pair(run.data)
            and window_of(one) == window_of(run)
            and "validation" in one.data
        ):
            return dict(one.data["validation"]["streams"])
    return {}


def _sum(totals: Iterator[Optional[int]]) -> Optional[int]:
    known = list(totals)
    return None if not known or None in known else sum(one or 0 for one in known)


def _eta(done: int, total: Optional[int], rate: float) -> Optional[int]:
    return int((total - done) / rate) if total is not None and total > done and rate > 0 else None
