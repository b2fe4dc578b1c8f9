"""The end of a start on the terminal: on one screen, in one line for cron, or as JSON. Pure."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from bt_migrate.model.outcomes import OUTCOMES
from bt_migrate.report.display import counts_text, duration_text
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

SHOWN_PROBLEMS = 10
LONGEST_PHASES = 1

RECORD_FIELDS = (
    "status", "command", "dry_run", "run_directory", "duration_seconds", "this_start", "whole_run",
    "totals", "validation", "to_do", "failed", "problems", "accepted", "lost", "findings_by_kind",
    "verification",
    "estimate", "lag", "next_commands",
)  # fmt: skip


def screen_text(report: Mapping[str, Any]) -> str:
    """Returns the report on one screen of 80 columns. The last line is the next command."""
    return "\n".join(
        [
            *verdict_lines(report),
            *to_do_lines(report),
            *failed_lines(report, SHOWN_PROBLEMS),
            *accepted_lines(report),
            *table_lines(report),
            *validation_lines(report),
            *lost_lines(report),
            *time_lines(report, LONGEST_PHASES),
            f"Report: {report['run_directory']}/{HTML_FILE}",
            *next_lines(report),
        ]
    )


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
    """Returns the report for a script: the same as the screen."""
    return {
        "event": "summary",
        "more_to_do": report["status"] == "stopped",
        **{name: report[name] for name in RECORD_FIELDS},
        "report": f"{report['run_directory']}/{HTML_FILE}",
    }
