"""The end of a start on the terminal: on one screen, in one line for cron, or as JSON. Pure."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from bt_migrate.report.comparison import (
    EXPECTED,
    FAILURES,
    difference_lines,
    kind_lines,
    tolerated_lines,
    verdict_line,
)
from bt_migrate.report.display import (
    COLUMNS,
    columns_of,
    counts_text,
    duration_text,
    plural,
    section,
    shown,
    wrapped,
)
from bt_migrate.report.files import HTML_FILE, SUMMARY_FILE
from bt_migrate.report.metrics import NOT_OUTCOMES
from bt_migrate.report.sections import (
    accepted_lines,
    estimate_lines,
    failed_lines,
    headline,
    lost_lines,
    next_lines,
    table_lines,
    time_lines,
    to_do_lines,
    verdict_lines,
)
from bt_migrate.report.validation import validation_lines

# With the lines of the log, a start of a few minutes fits a window of 40 lines.
SCREEN_LINES = 35
# A list in a small window has at least this many lines.
LEAST_LINES = 4
CONTINUED = " " * 4
# how the lines of a plan begin, which are never cut
PLANNED = ("Destination key can write: ", "Estimate: ", "Would delete: ")
SHOWN_PROBLEMS = 10

# What a comparison found that is no failure.
LEFT_OUT = {name: EXPECTED[name] for name in ("cannot_move", "only_in_dest")}

RECORD_FIELDS = (
    "status", "command", "dry_run", "run_directory", "duration_seconds", "this_start", "whole_run",
    "totals", "validation", "to_do", "failed", "problems", "accepted", "lost", "findings_by_kind",
    "verification",
    "estimate", "lag", "next_commands",
)  # fmt: skip


class Body(NamedTuple):
    """The lines between the verdict and the times."""

    to_do: List[str]
    failed: List[str]
    accepted: List[str]
    table: List[str]
    lost: List[str]


class Parts(NamedTuple):
    """The text of a screen. `small`: the body for a small window."""

    head: List[str]
    body: Body
    small: Body
    foot: List[str]


def screen_text(report: Mapping[str, Any], height: int = SCREEN_LINES) -> str:
    """Returns the report on one screen of 80 columns. The last line is the next command.

    A long one has each thing to do, accepted or lost in one line, and the counts of each kind that
    share an outcome; what is lost may be cut. The page has it whole. What failed is whole, with its
    cause and the command that repeats it. In a window of fewer than SCREEN_LINES, sums replace the
    table, so that the verdict stays visible.
    """
    validation = validation_lines(report, LEAST_LINES)
    body = Body(
        to_do_lines(report),
        failed_lines(report, SHOWN_PROBLEMS),
        accepted_lines(report),
        [*table_lines(report), *validation],
        lost_lines(report),
    )
    small = body._replace(
        accepted=_only_counted("Accepted", report["accepted"]),
        table=body.table if validation else _sums(report),
        lost=_only_counted("Lost", report["lost"]),
    )
    return _fitted(Parts(verdict_lines(report), body, small, _foot(report)), height)


def comparison_text(report: Mapping[str, Any], height: int = SCREEN_LINES) -> str:
    """Returns the result of bin/verify, in the order and the size of `screen_text`."""
    result = report["verification"]
    body = Body(
        section("To do:", result["to_do"]),
        difference_lines(result, FAILURES),
        difference_lines(result, {"accepted": "Accepted:"}),
        [*kind_lines(result["kinds"]), *tolerated_lines(result)],
        difference_lines(result, LEFT_OUT),
    )
    small = body._replace(
        accepted=_only_counted("Accepted", result["accepted"]),
        lost=[
            line
            for name, title in LEFT_OUT.items()
            for line in _only_counted(title.rstrip(":"), result.get(name) or [])
        ],
    )
    foot = [f"Details: {result['folder']}", *_foot(report)]
    return _fitted(Parts(wrapped(verdict_line(result), first=""), body, small, foot), height)


def _foot(report: Mapping[str, Any]) -> List[str]:
    return [
        *time_lines(report),
        f"Report: {report['run_directory']}/{HTML_FILE}",
        *next_lines(report),
    ]


def _fitted(parts: Parts, height: int) -> str:
    # The next command is not broken: a window breaks it.
    foot_rows = sum(-(-columns_of(line) // COLUMNS) for line in parts.foot)
    room = min(height, SCREEN_LINES) - len(parts.head) - foot_rows
    body = parts.body
    if _size(body) > room:
        body = _in_short(body)
        body = body._replace(lost=_cut(body.lost, _size(body) - room))
    if _size(body) > room and height < SCREEN_LINES:
        body = _cut_to(_in_short(parts.small), room)
    return "\n".join([*parts.head, *(line for lines in body for line in lines), *parts.foot])


def _in_short(body: Body) -> Body:
    """Returns the body with one line for each entry, except for failures and the estimate."""
    return Body(*map(in_one_line_each, body))._replace(failed=body.failed)


def _size(body: Body) -> int:
    return sum(map(len, body))


def _cut_to(body: Body, room: int) -> Body:
    """Returns the body with what fits of the failures and of what is to do."""
    over = _size(body) - room
    failed = _cut(body.failed, over)
    over -= len(body.failed) - len(failed)
    return body._replace(failed=failed, to_do=_cut(body.to_do, over))


def _sums(report: Mapping[str, Any]) -> List[str]:
    sums = [
        line
        for name, counts in _outcomes(report).items()
        for line in wrapped(f"{name.capitalize()}: {counts_text(counts)}", first="")
        if counts
    ]
    return [*sums, *estimate_lines(report)]


def _outcomes(report: Mapping[str, Any]) -> Dict[str, Dict[str, int]]:
    return {
        name: {key: n for key, n in report["totals"][name].items() if key not in NOT_OUTCOMES}
        for name in ("objects", "rows")
    }


def _only_counted(title: str, entries: Sequence[Any]) -> List[str]:
    return [f"{title}: {plural(len(entries), 'entry')}, see the report"] if entries else []


def _cut(lines: Sequence[str], over: int) -> List[str]:
    """Returns the lines without the last `over` of them, but at least LEAST_LINES."""
    kept = max(LEAST_LINES, len(lines) - over) if over > 0 else len(lines)
    if kept >= len(lines):
        return list(lines)
    return [*lines[: kept - 1], "  … more in the report"]


def in_one_line_each(lines: Sequence[str]) -> List[str]:
    """Returns the lines of a list, each entry cut to one line, except those of a plan."""
    entries: List[str] = []
    is_whole = False
    for line in lines:
        if line.startswith(CONTINUED) and not is_whole:
            entries[-1] = shown(f"{entries[-1]} {line.strip()}", COLUMNS)
        else:
            entries.append(line)
            is_whole = line.startswith(PLANNED) or (is_whole and line.startswith(CONTINUED))
    return entries


def summary_line(report: Mapping[str, Any]) -> str:
    """Returns the report in one line, for cron."""
    sums = [f"{name} {counts_text(counts)}" for name, counts in _outcomes(report).items()]
    seconds = duration_text(report["this_start"]["seconds"])
    place = f"{report['run_directory']}/{SUMMARY_FILE}"
    return f"{headline(report)}, {seconds}; {'; '.join(sums)}; see {place}"


def summary_record(report: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the fields that --json prints: the same information as on the screen."""
    return {
        "event": "summary",
        "more_to_do": report["status"] == "stopped",
        **{name: report[name] for name in RECORD_FIELDS},
        "report": f"{report['run_directory']}/{HTML_FILE}",
    }
