"""The status of a run as text for a person."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from bt_migrate.cli.connect import connected
from bt_migrate.cli.run_status import AT_WORK, ENDED, FINISHED, KILLED, PAUSED, SILENT
from bt_migrate.config.load import load_settings
from bt_migrate.errors import UsageError
from bt_migrate.migration.lag import measure_lag
from bt_migrate.objects.catalog import open_catalog
from bt_migrate.report.display import duration_text, shown
from bt_migrate.report.measures import lag_text
from bt_migrate.state.run_directory import RunDirectory

SHOWN_STREAMS = 25

STATE_WORDS = {
    PAUSED: "paused",
    SILENT: "SILENT: the process exists, but has not written its status for a while",
    KILLED: "killed; run the same command to continue",
    ENDED: "stopped before the end; run the same command to continue",
    FINISHED: "finished",
}


def status_lines(status: Dict[str, Any], height: Optional[int] = None) -> List[str]:
    """Returns the status for a person, in at most `height` lines: the head, then open streams."""
    head = list(_head_lines(status))
    limit = SHOWN_STREAMS if height is None else max(0, height - len(head) - 1)
    return [*head, *_stream_lines(status["streams"], min(limit, SHOWN_STREAMS))]


def _head_lines(status: Dict[str, Any]) -> Iterator[str]:
    state = STATE_WORDS.get(status["state"], status["state"])
    sides = f"{shown(status['source'])} -> {shown(status['dest'])}"
    yield f"run {status['run']}: {state}; {sides}"
    window = status["window"]
    if window["created_after"] or window["created_before"]:
        begin = window["created_after"] or "the beginning"
        yield f"window {begin} to {window['created_before'] or 'now'}"
    if status["state"] in AT_WORK:
        yield from _process_lines(status)
    else:
        yield f"phases done: {', '.join(status['phases_done']) or 'none'}"
    yield f"rows: {_progress(status['rows'])}"
    for name, side in status["sides"].items():
        yield _side_line(name, side)
    if status["last_error"]:
        yield f"last error: {status['last_error']}"
    yield f"lag: {lag_text(status['lag'])}"


def _process_lines(status: Dict[str, Any]) -> Iterator[str]:
    number, count = status["phase_number"]
    process = status["process"]
    phase = f"phase {number} of {count}: {status['phase']}" if number else "starting"
    yield f"{phase} (process {process['pid']} on {process['host']}, since {process['started']})"
    if status["stopping"]:
        yield f"stopping: {status['stopping']}"


def _side_line(name: str, side: Dict[str, Any]) -> str:
    rate = side["requests_per_second"]
    limit = f", at most {rate:g} a second" if rate else ""
    return (
        f"{name}: {side['in_flight']} of {side['max_concurrent']} in flight{limit};"
        f" {side['requests']:,} requests, {side['retries']:,} retries,"
        f" {side['rate_limited']:,} rate-limit waits"
    )


def _progress(counts: Dict[str, Any]) -> str:
    """`120 of 480, 30 a second, about 12 s left`"""
    total = "unknown" if counts["total"] is None else f"{counts['total']:,}"
    text = f"{counts['done']:,} of {total}"
    if counts["rows_per_second"]:
        text += f", {counts['rows_per_second']:,.0f} a second"
    if counts["eta_seconds"] is not None:
        text += f", about {duration_text(counts['eta_seconds'])} left"
    return text


def _stream_lines(streams: Sequence[Dict[str, Any]], limit: int) -> Iterator[str]:
    """Yields a line for each open stream, and the others as a count."""
    ordered = sorted(streams, key=lambda stream: stream["complete"])
    for stream in ordered[:limit]:
        end = ", complete" if stream["complete"] else ""
        error = f": {stream['error']}" if stream["error"] else ""
        place = f"{stream['kind']} {shown(stream['name'])!r} of {shown(stream['project'])!r}"
        yield f"  {place}: {_progress(stream)}{end}{error}"
    rest = ordered[limit:]
    if rest:
        complete = sum(stream["complete"] for stream in rest)
        yield f"  … and {len(rest):,} more, {complete:,} of them complete (--json shows all)"


def lag_now(path: Path, env_file: Optional[str]) -> Dict[str, Any]:
    """Returns the lag, asked of the source now. Needs the keys of the run's organizations."""
    run = RunDirectory(path)
    selection = run.record.selection
    settings = replace(
        load_settings({"env_file": env_file}),
        projects=tuple(selection.projects),
        exclude_projects=tuple(selection.exclude_projects or ()),
        resources=tuple(selection.resources),
    )
    source, dest = connected(settings, threading.Event(), writes=False)
    if source.org_id != run.record.source.org_id:
        raise UsageError(
            f"{path}: this run's source organization is {run.record.source.org_name}; the key"
            f" is for {source.display_name}"
        )
    return measure_lag(open_catalog(source, dest, run, settings), run.record)
