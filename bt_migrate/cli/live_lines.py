"""The status of a process as lines of a terminal: one for the whole run, one for each open stream.

Pure: the size of the window and the function that draws a bar are passed in.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Callable, Iterator, List, Mapping, NamedTuple, Sequence

from bt_migrate.cli.process_status import wait_text
from bt_migrate.report.display import (
    LEAST_MINUTES_S,
    LEAST_RATE,
    columns_of,
    duration_text,
    number,
    padded,
    shown,
)

# columns of a bar, and the least and most columns of a stream's label
BAR_COLUMNS = 10
LEAST_LABEL = 12
MOST_LABEL = 52
# lines of the window that are left for the log
LOG_LINES = 6

DrawBar = Callable[[float, int], str]  # share done (0 to 1) and columns -> the bar


class Window(NamedTuple):
    """The window's size, and how many streams may be shown."""

    columns: int
    lines: int


def progress_text(status: Mapping[str, Any], now: datetime) -> str:
    """`phase 6/10 migrate-logs: 31,968 / 40,000 rows (80%), 3,200/s, 3 s left`"""
    return ", ".join(_progress_parts(status, now))


def _progress_parts(status: Mapping[str, Any], now: datetime) -> Iterator[str]:
    place, count = status["phase_number"]
    phase = f"phase {place}/{count} {status['phase']}" if count > 1 else status["phase"]
    work = status["work"]
    counts = f": {_counts_text(work)}" if work["unit"] else ""
    yield f"{phase or 'starting'}{counts}"
    if status["paused"]:
        yield "paused"
    elif status["stopping"]:
        yield f"ending: {status['stopping']}"
    else:
        if work["unit"] and work["per_second"] >= LEAST_RATE:
            yield f"{work['per_second']:,.0f}/s"
        if work["seconds_left"] is not None:
            yield f"{left_text(work['seconds_left'])} left"
        if status["wait"]:
            yield wait_text(status["wait"], now)


def _counts_text(work: Mapping[str, Any]) -> str:
    """`31,968 / 40,000 rows (80%)`"""
    done, total = work["done"], work["total"]
    unit = _unit_of(total or done, work["unit"])
    if not total:
        return f"{done:,} {unit}"
    return f"{done:,} / {total:,} {unit} ({100 * done // total}%)"


def _unit_of(count: int, unit: str) -> str:
    """Returns the unit, "row" of "rows" for one: `1 row compared`."""
    noun, space, rest = unit.partition(" ")
    return f"{noun[:-1]}{space}{rest}" if count == 1 and noun.endswith("s") else unit


def live_lines(
    status: Mapping[str, Any], window: Window, draw_bar: DrawBar, now: datetime
) -> List[str]:
    """Returns lines for the whole run and for open streams that fit, and the number of others."""
    lines = _whole_lines(status, window.columns, draw_bar, now)
    streams = sorted(
        [*status["streams"], *status["parts"]], key=lambda stream: -(stream["total"] or 0)
    )
    room = max(0, window.lines - LOG_LINES - len(lines))
    if len(streams) > room:
        room = max(0, room - 1)
    if status["wait"] or status["paused"]:
        # How long one stream takes depends on how the others share what the limit allows.
        streams = [{**stream, "rows_per_second": 0.0} for stream in streams]
    whole_s = status["work"]["seconds_left"] or math.inf
    lines += stream_lines(streams[:room], window.columns, draw_bar, whole_s)
    hidden_streams = len(streams) - room
    if hidden_streams > 0:
        lines.append(f"  … and {hidden_streams:,} more open streams")
    return [shown(line, window.columns) for line in lines]


def _whole_lines(
    status: Mapping[str, Any], columns: int, draw_bar: DrawBar, now: datetime
) -> List[str]:
    """Returns one line with a bar if there is room; in a narrow window several lines of text."""
    parts = [f"{part}," for part in _progress_parts(status, now)]
    if columns_of(parts[0]) > columns:
        parts[:1] = parts[0].split(": ", 1)
    lines = [parts[0]]
    for part in parts[1:]:
        if columns_of(lines[-1]) + 1 + columns_of(part) <= columns:
            lines[-1] += f" {part}"
        else:
            lines.append(f"  {part}")
    lines[-1] = lines[-1][:-1]
    work = status["work"]
    room = columns - columns_of(lines[0]) - 1
    if len(lines) == 1 and work["total"] and room >= BAR_COLUMNS:
        lines[0] += f" {draw_bar(work['done'] / work['total'], min(room, 2 * BAR_COLUMNS))}"
    return lines


def stream_lines(
    streams: Sequence[Mapping[str, Any]], columns: int, draw_bar: DrawBar, whole_s: float = math.inf
) -> List[str]:
    """`  logs Support    79%  ███████▌    31,968 / 40,000  3,200/s  2.5 s`, in columns.

    `whole_s`: seconds that all of them need. A stream that waits for its turn needs no more.
    """
    if not streams:
        return []
    cells = [_cells(stream, draw_bar, whole_s) for stream in streams]
    widths = _fitting_widths(cells, columns)
    room = columns - _columns_of_cells(widths)
    labels = _labels(streams, min(room, MOST_LABEL))
    label_columns = max(LEAST_LABEL, min(room, MOST_LABEL, max(map(columns_of, labels))))
    lines = []
    for label, texts in zip(labels, cells):
        words = [
            padded(text, width, right=place != 1)
            for place, (text, width) in enumerate(zip(texts, widths))
            if width
        ]
        words.insert(0, f"  {padded(shown(label, label_columns), label_columns)}")
        lines.append("  ".join(words).rstrip())
    return lines


def _labels(streams: Sequence[Mapping[str, Any]], room: int) -> List[str]:
    """Returns the kind and name of each stream, and its project where all of it has room."""
    labels = [f"{stream['kind']} {shown(stream['name'])}" for stream in streams]
    longer = [
        f"{label} of {shown(stream['project'])}" if stream["kind"] != "logs" else label
        for stream, label in zip(streams, labels)
    ]
    return [whole if columns_of(whole) <= room else label for whole, label in zip(longer, labels)]


def _fitting_widths(cells: Sequence[Sequence[str]], columns: int) -> List[int]:
    """Returns the widths of the columns that fit; a narrow window lacks the last ones."""
    widths = [max(map(columns_of, texts)) for texts in zip(*cells)]
    while len(widths) > 1 and columns - _columns_of_cells(widths) < LEAST_LABEL:
        widths.pop()
    return widths


def _columns_of_cells(widths: Sequence[int]) -> int:
    """Returns the columns that the cells take, with spaces and indent."""
    return 2 + sum(width + 2 for width in widths if width)


def _cells(stream: Mapping[str, Any], draw_bar: DrawBar, whole_s: float) -> List[str]:
    """Returns percent, bar, counts, rate and time left: the most important first."""
    done, rate = stream["done"], stream["rows_per_second"]
    total = max(stream["total"], done) if stream["total"] else None
    share = done / total if total else 0.0
    seconds_left = min((total - done) / rate, whole_s) if total and rate else 0.0
    return [
        f"{100 * done // total:3}%" if total else "",
        draw_bar(share, BAR_COLUMNS) if total else "",
        f"{done:,} / {number(total)}" if total else f"{done:,}",
        f"{rate:,.0f}/s" if rate >= LEAST_RATE else "",
        left_text(seconds_left) if seconds_left else "",
    ]


def left_text(seconds: float) -> str:
    """Returns a time left in whole seconds, which do not flicker, and at least one."""
    return f"{max(1, seconds):.0f} s" if seconds < LEAST_MINUTES_S else duration_text(seconds)
