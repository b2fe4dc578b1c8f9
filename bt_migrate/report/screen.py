"""The end of a start on the terminal: on one screen, in one line for cron, or as JSON. Pure."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence, Tuple

from bt_migrate.model.outcomes import OUTCOMES
from bt_migrate.report.display import COLUMNS, counts_text, duration_text, shown
from bt_migrate.report.files import HTML_FILE, SUMMARY_FILE
from bt_migrate.report.sections import (
    accepted_lines,
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
CONTINUED = " " * 4
SHOWN_PROBLEMS = 10
LONGEST_PHASES = 1

RECORD_FIELDS = (
    "status", "command", "dry_run", "run_directory", "duration_seconds", "this_start", "whole_run",
    "totals", "validation", "to_do", "failed", "problems", "accepted", "lost", "findings_by_kind",
    "verification",
    "estimate", "lag", "next_commands",
)  # fmt: skip

# The lines of what is to do, failed, accepted and lost.
Lists = Tuple[List[str], List[str], List[str], List[str]]


def screen_text(report: Mapping[str, Any]) -> str:
    """Returns the report on one screen of 80 columns. The last line is the next command.

    A long one has each thing to do, accepted or lost in one line; the page has it whole. What
    failed is whole, with its cause and the command that repeats it.
    """
    lists: Lists = (
        to_do_lines(report),
        failed_lines(report, SHOWN_PROBLEMS),
        accepted_lines(report),
        lost_lines(report),
    )
    lines = _lines(report, lists)
    if len(lines) > SCREEN_LINES:
        to_do, failed, accepted, lost = lists
        short = in_one_line_each
        lines = _lines(report, (short(to_do), failed, short(accepted), short(lost)))
    return "\n".join(lines)


def _lines(report: Mapping[str, Any], lists: Lists) -> List[str]:
    to_do, failed, accepted, lost = lists
    return [
        *verdict_lines(report),
        *to_do,
        *failed,
        *accepted,
        *table_lines(report),
        *validation_lines(report),
        *lost,
        *time_lines(report, LONGEST_PHASES),
        f"Report: {report['run_directory']}/{HTML_FILE}",
        *next_lines(report),
    ]


def in_one_line_each(lines: Sequence[str]) -> List[str]:
    """Returns the lines of a list, with entries of several lines cut to one."""
    entries: List[str] = []
    for line in lines:
        if line.startswith(CONTINUED):
            entries[-1] = shown(f"{entries[-1]} {line.strip()}", COLUMNS)
        else:
            entries.append(line)
    return entries


def summary_line(report: Mapping[str, Any]) -> str:
    """Returns the report in one line, for cron."""
    sums = [
        f"{name} {counts_text({k: n for k, n in report['totals'][name].items() if k in OUTCOMES})}"
        for name in ("objects", "rows")
    ]
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
