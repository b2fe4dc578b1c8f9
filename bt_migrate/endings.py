"""How a run ends for whoever started it: report, summary, plan, and the exit code that follows from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional

from bt_migrate.errors import EXIT_INCOMPLETE, EXIT_OK, EXIT_STOPPED, LossError
from bt_migrate.plan import build_plan, losses_text
from bt_migrate.report import (
    SUMMARY_FILE,
    build_report,
    comparison_text,
    exit_code_of,
    short_text,
    status_of,
    summary_line,
    summary_record,
    write_report,
)
from bt_migrate.runs import RunDirectory
from bt_migrate.settings import Settings
from bt_migrate.state import CREATED, UPDATED, write_json


def hand_over_plan(settings: Settings, run: RunDirectory) -> None:
    """Write the plan where that was asked for. Raises LossError where it leaves something behind and that is forbidden."""
    plan = build_plan(run)
    if settings.plan_out:
        write_json(Path(settings.plan_out).absolute(), plan)
        print(f"Plan: {settings.plan_out}")
    if settings.fail_on_loss and plan["losses"]:
        raise LossError(
            f"nothing was written (--fail-on-loss): {losses_text(plan['losses'])}; all are in {run.path / SUMMARY_FILE}"
        )


def tell_comparison(run: RunDirectory, settings: Settings, code: Optional[int], status: str) -> int:
    """Print what was compared; the run's report takes it up. The exit code is that of the comparison alone."""
    if code != EXIT_OK or status:
        return code or EXIT_STOPPED  # stopped before its end it says nothing
    report = build_report(run, status_of(code))
    write_report(run, report)
    result = report["verification"]
    if settings.json:
        print(json.dumps(result))
    elif not settings.quiet:
        print(comparison_text(result))
    elif not result["equal"]:
        print(f"Verification: {result['text']}; see {result['folder']}")
    return EXIT_OK if result["equal"] else EXIT_INCOMPLETE


def tell_run(run: RunDirectory, settings: Settings, code: Optional[int], status: str) -> int:
    """Write and print the report; gives back the exit code, which is 1 where a run came to its end without everything having
    arrived.
    """
    report = build_report(run, status or status_of(code))
    if code == EXIT_OK and not status:
        code = exit_code_of(report)
    wrote = bool({CREATED, UPDATED} & {*report["totals"]["objects"], *report["totals"]["rows"]})
    run.data["wrote"] = not run.data["dry_run"] and (wrote or run.data.get("wrote", False))
    run.save()
    write_report(run, report)
    if settings.quiet and code == EXIT_OK:
        return EXIT_OK
    if settings.json:
        print(json.dumps({**summary_record(report), "exit_code": code}))
    elif settings.quiet:
        print(summary_line(report))
    else:
        print(short_text(report))
        print(f"Report: {run.path / SUMMARY_FILE}")
    return code or EXIT_OK
