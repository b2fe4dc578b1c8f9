"""The end of a start: builds the report, writes it, prints it, and chooses the exit code.

This module does not know how the run reached its end.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional

from bt_migrate.cli.pinned import terminal_size
from bt_migrate.cli.streams import raw_stream
from bt_migrate.cli.terminal import print_result
from bt_migrate.config.settings import Settings
from bt_migrate.errors import EXIT_INCOMPLETE, EXIT_OK, EXIT_STOPPED, LossError
from bt_migrate.report.build import build_report, exit_code_of, started_part, status_of
from bt_migrate.report.files import SUMMARY_FILE
from bt_migrate.report.plan_file import build_plan, losses_text
from bt_migrate.report.refused import ROWS_DIFFER, refused_print
from bt_migrate.report.screen import comparison_text, screen_text, summary_line, summary_record
from bt_migrate.report.write import write_report
from bt_migrate.state.files import cannot_write, json_lines, write_named_file
from bt_migrate.state.run_directory import RunDirectory

log = logging.getLogger("bt_migrate")


@dataclass
class RunsOfStart:
    """The runs that one start works in: what an earlier one left unfinished, then its own.

    `follows`: the next sync of the same run, or another run, comes after this one. `before`: the
    results of other runs before this one, as --json prints them.
    """

    follows: bool = False
    before: List[Dict[str, Any]] = field(default_factory=list)


def write_plan(settings: Settings, run: RunDirectory) -> None:
    """Write the plan to --plan-out. Raises StateError."""
    if settings.plan_out:
        path = Path(settings.plan_out).absolute()
        try:
            write_named_file(path, json_lines(build_plan(run)), 0o600)
        except OSError as error:
            raise cannot_write(path, error) from None
        facts = {"event": "plan", "path": settings.plan_out}
        log.info("plan written to %s", settings.plan_out, extra=facts)


def refuse_losses(settings: Settings, run: RunDirectory) -> None:
    """Raises LossError if the plan has losses and --fail-on-loss is given."""
    losses = build_plan(run)["losses"] if settings.fail_on_loss else []
    if losses:
        raise LossError(
            f"nothing was written (--fail-on-loss): {losses_text(losses)};"
            f" all are in {run.path / SUMMARY_FILE}"
        )


def report_comparison(
    run: RunDirectory, settings: Settings, code: Optional[int], status: str
) -> int:
    """Print the result of bin/verify and add it to the run's report.

    Returns the exit code, which depends on the comparison alone.
    """
    # the end of the start
    run.save()
    if code != EXIT_OK or status:
        # A comparison that was stopped has no result.
        return code or EXIT_STOPPED
    report = build_report(run, status_of(code))
    write_report(run, report, settings.app_urls)
    result = report["verification"]
    if settings.json:
        print(json.dumps({**result, "next_commands": report["next_commands"]}))
    elif not settings.quiet:
        print_report(report, comparison_text)
    elif not result["equal"]:
        print(f"Verification: {result['text']}; see {result['folder']}")
    return EXIT_OK if result["equal"] else EXIT_INCOMPLETE


def print_report(report: Mapping[str, Any], text_of: Callable[..., str] = screen_text) -> None:
    """Print the report as it fits the window of a terminal."""
    size = terminal_size(raw_stream(sys.stdout)) if sys.stdout.isatty() else None
    # The shell's prompt takes a line.
    print_result(text_of(report, size.lines - 1) if size else text_of(report), sys.stdout)


def report_run(
    run: RunDirectory, settings: Settings, code: Optional[int], status: str, runs: RunsOfStart
) -> int:
    """Write and print the report of a start.

    Returns the exit code: 1 if the start reached its end and not everything arrived.
    """
    part = started_part(run, settings)
    report = build_report(run, status or status_of(code), part)
    if code == EXIT_OK and not status:
        code = exit_code_of(report, part)
    run.record.sessions[-1].refused = refused_print(report)
    code = code or EXIT_OK
    is_followed = runs.follows and not status and code in (EXIT_OK, EXIT_INCOMPLETE)
    if is_followed and settings.since_last:
        kept = [record for record in report["findings"] if record["kind"] == ROWS_DIFFER]
        run.record.kept_findings, run.record.kept_round = kept, run.record.round + 1
    run.save()
    write_report(run, report, settings.app_urls)
    # The report of the next sync is about the whole run.
    if (is_followed and settings.since_last) or (settings.quiet and code == EXIT_OK):
        return code
    record = {**summary_record(report), "exit_code": code}
    if settings.json and is_followed:
        runs.before.append(record)
    elif settings.json:
        codes = [code, *(before["exit_code"] for before in runs.before)]
        print(json.dumps({**record, "exit_code": max(codes), "runs_before": runs.before}))
    elif settings.quiet:
        print(summary_line(report))
    else:
        print_report(report)
    return code
