"""The status of a run as text for a person."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional

from bt_migrate.cli.live_lines import left_text
from bt_migrate.cli.process_status import ROWS, wait_text
from bt_migrate.cli.run_status import (
    AT_WORK,
    ENDED,
    FINISHED,
    KILLED,
    PAUSED,
    RUNNING,
    SILENT,
    UNDONE,
)
from bt_migrate.report.display import (
    COLUMNS,
    NAME_COLUMNS,
    columns_of,
    number,
    plural,
    quoted,
    shown,
    wrapped,
)
from bt_migrate.report.measures import lag_text

SHOWN_STREAMS = 25
# of work that stands still
STILL = {"eta_seconds": None, "rows_per_second": 0.0}
# the least columns of a name
LEAST_NAME = 8

STATE_WORDS = {
    PAUSED: "paused",
    SILENT: "SILENT: the process exists, but has not written its status for a while",
    KILLED: "killed; run the same command to continue",
    ENDED: "stopped before the end; run the same command to continue",
    FINISHED: "finished",
    UNDONE: "undone",
}
RUNNING_WORDS = {"verify": "verifying", "undo": "undoing", "validate": "validating"}


def status_lines(
    status: Dict[str, Any], now: datetime, height: Optional[int] = None, columns: int = COLUMNS
) -> List[str]:
    """Returns the status for a person, in at most `height` lines: the head, then open streams.

    The lines of the head are broken at `columns`. Names in the lines of streams are cut to what a
    window of 80 columns or more has room for.
    """
    head = broken_lines(_head_lines(status, now), columns)
    limit = SHOWN_STREAMS if height is None else max(0, height - len(head) - 1)
    streams = _stream_lines(status, min(limit, SHOWN_STREAMS), max(columns, COLUMNS))
    return [*head, *streams][:height]


def broken_lines(lines: Iterable[str], columns: int) -> List[str]:
    """Returns the lines with breaks between words where a window is narrower than they are."""
    broken: List[str] = []
    for line in lines:
        text = line.lstrip()
        indent = line[: len(line) - len(text)]
        broken += wrapped(text, first=indent, more=f"{indent}    ", columns=columns)
    return broken


def state_text(status: Mapping[str, Any]) -> str:
    """Returns what the run does or did, in words."""
    if status["state"] == RUNNING:
        return RUNNING_WORDS.get(status["command"], f"running {status['command']}")
    if status["result"] not in ("", "completed"):
        return f"{STATE_WORDS[status['state']]}, {status['result']} (see report.html in it)"
    return STATE_WORDS[status["state"]]


def _head_lines(status: Dict[str, Any], now: datetime) -> Iterator[str]:
    sides = f"{shown(status['source'])} -> {shown(status['dest'])}"
    kind = "dry run" if status["dry_run"] else "run"
    yield f"{kind} {status['run']}: {state_text(status)}; {sides}"
    window = status["window"]
    if window["created_after"] or window["created_before"]:
        begin = window["created_after"] or "the beginning"
        yield f"window {begin} to {window['created_before'] or 'now'}"
    if status["state"] in AT_WORK:
        yield from _process_lines(status, now)
    else:
        done = ", ".join(status["phases_done"]) or "none"
        yield f"phases done: {done}"
    if status["streams"] and not _does_other_work(status):
        still = STILL if status["state"] == PAUSED else {}
        yield f"rows: {_progress({**status['rows'], **still})}"
    if status["state"] in AT_WORK:
        yield _advice_text(status)
    if status["undone"]:
        yield _undone_text(status["undone"])
    elif status["verification"]:
        yield f"verification: {status['verification']}"
    for name, side in status["sides"].items():
        yield _side_line(name, side, at_work=status["state"] in AT_WORK)
    if status["last_error"]:
        yield f"last problem: {status['last_error']}"
    if status["lag"]:
        yield f"lag: {lag_text(status['lag'])}"


def _does_other_work(status: Mapping[str, Any]) -> bool:
    """Whether the process does something else than to copy rows."""
    if status["state"] in AT_WORK and status["command"] in RUNNING_WORDS:
        return True
    return bool(status["work"]) and status["work"]["unit"] not in ("", ROWS)


def _process_lines(status: Dict[str, Any], now: datetime) -> Iterator[str]:
    place, count = status["phase_number"]
    process = status["process"]
    phase = f"phase {place} of {count}: {status['phase']}" if count > 1 else status["phase"]
    since = process["started"].partition(".")[0]
    where = f"process {process['pid']} on {process['host']}"
    yield f"{phase or 'starting'} ({where}, started {since})"
    work = status["work"]
    if work and work["unit"] not in ("", ROWS):
        yield f"{work['unit']}: {_progress({**work, **_as_rows(work)})}"
    if status["wait"]:
        yield wait_text(status["wait"], now)


def _advice_text(status: Dict[str, Any]) -> str:
    if status["stopping"]:
        return f"stopping: {status['stopping']}"
    if status["state"] == PAUSED:
        return f"to go on: bin/control {status['run']} resume"
    return f"to stop it: bin/control {status['run']} stop; the same command continues"


def _as_rows(work: Mapping[str, Any]) -> Dict[str, Any]:
    return {"rows_per_second": work["per_second"], "eta_seconds": work["seconds_left"]}


def _undone_text(undone: Mapping[str, Any]) -> str:
    if "ended" not in undone:
        return f"undo began {undone['started']} and has not ended; run bin/undo again"
    objects, rows = plural(undone["objects"], "object"), plural(undone["rows"], "row")
    return (
        f"undone: {objects} and {rows} deleted,"
        f" {plural(undone['restored'], 'object')} restored, {undone['left']:,} left"
    )


def _side_line(name: str, side: Dict[str, Any], *, at_work: bool) -> str:
    rate = side["requests_per_second"]
    limit = f", at most {rate:g} a second" if rate else ""
    now = f"{side['in_flight']} of {side['max_concurrent']} in flight{limit}; " if at_work else ""
    return (
        f"{name}: {now}{plural(side['requests'], 'request')}, {side['retries']:,} retried,"
        f" {side['rate_limited']:,} rate limited"
    )


def _progress(counts: Mapping[str, Any], *, rate: str = " a second", about: str = "about ") -> str:
    """`120 of 480 (25%), 30 a second, about 12 s left`"""
    text = f"{counts['done']:,} of {number(counts['total'])}"
    if counts["total"]:
        text += f" ({100 * counts['done'] // counts['total']}%)"
    if counts["rows_per_second"]:
        text += f", {counts['rows_per_second']:,.0f}{rate}"
    if counts["eta_seconds"] is not None:
        text += f", {about}{left_text(counts['eta_seconds'])} left"
    return text


def _stream_line(stream: Mapping[str, Any], columns: int) -> str:
    """Returns a line of these columns if the error is short; the names are cut to what is left."""
    error = f": {stream['error']}" if stream["error"] else ""
    end = f": {_progress(stream, rate='/s', about='')}{error}"
    places = [stream["name"]] if stream["kind"] == "logs" else [stream["name"], stream["project"]]
    room = (columns - columns_of(f"  {stream['kind']} {end}")) // len(places) - len("'' of")
    most = max(LEAST_NAME, min(room, NAME_COLUMNS))
    names = " of ".join(quoted(place, most) for place in places)
    return f"  {stream['kind']} {names}{end}"


def _stream_lines(status: Mapping[str, Any], limit: int, columns: int) -> Iterator[str]:
    """Yields a line for each stream that is open or has an error, and the others as counts."""
    streams = status["parts"] or status["streams"]
    unfinished = [stream for stream in streams if not stream["complete"]]
    # A stream that is not being read is not begun, or waits for the next start.
    begun = [stream for stream in unfinished if stream["done"] or stream["error"]]
    # As in the pinned lines: how long one stream takes depends on how the others share a limit.
    still = STILL if status["state"] == PAUSED or status["wait"] else {}
    for stream in begun[:limit]:
        yield _stream_line({**stream, **still}, columns)
    counts = (
        (len(begun[limit:]), "more open"),
        (len(unfinished) - len(begun), "not begun"),
        (len(streams) - len(unfinished), "complete"),
    )
    words = [f"{count:,} {word}" for count, word in counts if count]
    if words:
        yield f"streams: {', '.join(words)} (--json shows all)"
