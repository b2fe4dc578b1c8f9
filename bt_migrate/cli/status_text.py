"""status_text."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Sequence

from bt_migrate.cli.program import connected
from bt_migrate.cli.run_status import AT_WORK, ENDED, FINISHED, KILLED, PAUSED, SILENT
from bt_migrate.config.settings import load_settings
from bt_migrate.errors import UsageError
from bt_migrate.migration.lag import measure_lag
from bt_migrate.objects.catalog import Catalog
from bt_migrate.report.text import duration_text, lag_text
from bt_migrate.state.run_directory import RunDirectory

SHOWN_STREAMS = 25

WORDS = {
    PAUSED: "paused",
    SILENT: "SILENT: the process is there and says nothing",
    KILLED: "killed: the same command goes on",
    ENDED: "not running, not finished: the same command goes on",
    FINISHED: "finished",
}


def status_lines(status: Dict[str, Any]) -> Iterator[str]:
    """The status for a person."""
    yield f"run {status['run']}: {WORDS.get(status['state'], status['state'])}; {status['source']} -> {status['dest']}"
    window = status["window"]
    if window["created_after"] or window["created_before"]:
        yield f"window {window['created_after'] or 'the beginning'} to {window['created_before'] or 'now'}"
    if status["state"] in AT_WORK:
        number, count = status["phase_number"]
        process = status["process"]
        phase = f"phase {number} of {count}: {status['phase']}" if number else "starting"
        yield f"{phase} (process {process['pid']} on {process['host']}, since {process['started']})"
        if status["stopping"]:
            yield f"stopping: {status['stopping']}"
    else:
        yield f"phases done: {', '.join(status['phases_done']) or 'none'}"
    yield f"rows: {_progress(status['rows'])}"
    for side, one in status["sides"].items():
        pace = (
            f", at most {one['requests_per_second']:g} a second"
            if one["requests_per_second"]
            else ""
        )
        yield (
            f"{side}: {one['in_flight']} in flight of {one['max_concurrent']}{pace}; {one['requests']:,} requests, "
            f"{one['retries']:,} retries, {one['rate_limited']:,} times 429"
        )
    if status["last_error"]:
        yield f"last error: {status['last_error']}"
    yield f"lag: {lag_text(status['lag'])}"
    yield from _stream_lines(status["streams"])


def _progress(one: Dict[str, Any]) -> str:
    """`120 of 480, 30 a second, about 12 s to go`"""
    total = "unknown" if one["total"] is None else f"{one['total']:,}"
    rate = f", {one['rows_per_second']:,.0f} a second" if one["rows_per_second"] else ""
    eta = "" if one["eta_seconds"] is None else f", about {duration_text(one['eta_seconds'])} to go"
    return f"{one['done']:,} of {total}{rate}{eta}"


def _stream_lines(streams: Sequence[Dict[str, Any]]) -> Iterator[str]:
    for one in streams[:SHOWN_STREAMS]:
        end = ", complete" if one["complete"] else ""
        error = f": {one['error']}" if one["error"] else ""
        yield f"  {one['kind']} {one['name'][:40]!r} of {one['project'][:40]!r}: {_progress(one)}{end}{error}"
    if len(streams) > SHOWN_STREAMS:
        rest = streams[SHOWN_STREAMS:]
        yield f"  … and {len(rest)} more, {sum(one['complete'] for one in rest)} of them complete (--json shows all)"


def lag_now(path: Path, env_file: Optional[str]) -> Dict[str, Any]:
    """Asked of the source anew. Needs the keys of the run's organizations."""
    run = RunDirectory(path)
    selection = run.data["selection"]
    settings = load_settings({"env_file": env_file})
    settings = replace(
        settings, projects=tuple(selection["projects"]), resources=tuple(selection["resources"])
    )
    source, dest = connected(settings, threading.Event(), writes=False)
    if source.org_id != run.data["source"]["org_id"]:
        raise UsageError(
            f"{path}: was made for source organization {run.data['source']['org_name']}, the key is of {source.display_name}"
        )
    return measure_lag(Catalog(source, dest, run, settings), run.data)
