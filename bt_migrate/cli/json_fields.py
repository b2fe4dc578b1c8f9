"""What programs print with --json, field by field; see `report/fields.py` for the shapes."""

from __future__ import annotations

from typing import Mapping

from bt_migrate.report.fields import REPORT_FIELDS, VERIFICATION_FIELDS, JsonField

AS_IN_REPORT = "as in [the report](report.md)"


def _of_report(*names: str) -> Mapping[str, JsonField]:
    return {name: JsonField(REPORT_FIELDS[name].shape, AS_IN_REPORT) for name in names}


JSON_FIELDS: Mapping[str, Mapping[str, JsonField]] = {
    "validate, migrate-all, migrate-…": {
        "event": JsonField(
            "string",
            "`summary`; the lines before it are log lines with other events",
        ),
        "more_to_do": JsonField(
            "boolean",
            "true: the run was stopped, and the same command continues it",
        ),
        **_of_report(
            "status",
            "command",
            "dry_run",
            "run_directory",
            "duration_seconds",
            "this_start",
            "whole_run",
            "totals",
            "validation",
            "to_do",
            "failed",
            "problems",
            "accepted",
            "lost",
            "findings_by_kind",
            "verification",
            "estimate",
            "lag",
            "next_commands",
        ),
        "report": JsonField("string", "path of report.html"),
        "exit_code": JsonField("integer~", "exit code of the program"),
        "runs_before": JsonField(
            "[any]~",
            "results of the window runs that this start finished first, each like this object",
        ),
        "merged": JsonField("[string]~", "of merge-runs: paths of the runs that it joined"),
    },
    "verify": {
        **VERIFICATION_FIELDS,
        "next_commands": JsonField("[string]", "commands to run next"),
    },
    "undo": {
        "run_directory": JsonField("string", "path of the run"),
        "done": JsonField("boolean", "false without --yes: nothing was deleted"),
        "deleted": JsonField(
            "counts",
            "kind, or `rows` -> number that was (without --yes: would be) deleted",
        ),
        "restored": JsonField(
            "integer",
            "number of updated objects whose former content was (would be) restored",
        ),
        "left": JsonField("[string]", "what was not deleted and why, one text each"),
        "invited": JsonField(
            "integer",
            "number of users that the run invited; they are not removed",
        ),
        "rows_of_others": JsonField(
            "integer",
            "how many of the deleted rows others wrote (with --changed)",
        ),
    },
    "status": {
        "run": JsonField("string", "path of the run"),
        "state": JsonField(
            "string",
            "`running`, `paused`, `silent`, `killed`, `ended`, `finished` or `undone`",
        ),
        "result": JsonField(
            "string",
            'of a finished run: status in its last report, "" if there is none',
        ),
        "command": JsonField("string", "program that is running, or that created the run"),
        "dry_run": JsonField("boolean", "whether it only planned"),
        "source": JsonField("string", "name of the organization"),
        "dest": JsonField("string", "name of the organization"),
        "window": JsonField("window", "`created_after`, `created_before`"),
        "process": JsonField(
            "{pid: integer?, host: string?, started: string?, updated: string?}",
            "`pid`, `host`, `started`, `updated` of the last process",
        ),
        "phase": JsonField("string", 'phase that is running, "" if none'),
        "phase_number": JsonField("[integer]?", "number of the phase, and number of all phases"),
        "phases_done": JsonField("[string]", "names of the completed phases"),
        "stopping": JsonField(
            "string",
            'reason for which the process is about to stop, "" if none',
        ),
        "rows": JsonField("rows_done", "`done`, `total`, `rows_per_second`, `eta_seconds`"),
        "work": JsonField(
            "{unit: string, done: integer, total: integer?, per_second: number, seconds_left: "
            "integer?}?",
            "in the phase's unit: `unit`, `done`, `total`, `per_second`, `seconds_left`",
        ),
        "parts": JsonField("[stream]", "open streams of a comparison or an undo, like `streams`"),
        "wait": JsonField(
            "{reason: string, detail: string, until: string}?",
            "what the process waits for: `reason`, `detail`, `until`",
        ),
        "undone": JsonField(
            "{started: string, ended~: string, objects: integer, rows: integer, restored: integer, "
            "left: integer}?",
            "what bin/undo has deleted",
        ),
        "verification": JsonField("string", "result of the last comparison in one line"),
        "sides": JsonField("{*: side}", "for each organization: requests, retries, limits"),
        "last_error": JsonField("string", "the last warning or error"),
        "lag": JsonField("lag?", "rows written to the source since the sync mark of the run"),
        "streams": JsonField(
            "[stream]",
            "each stream with `done`, `total`, `complete`, `error`, `eta_seconds`",
        ),
    },
    "status --all (a list)": {
        "run": JsonField("string", "path of the run"),
        "command": JsonField("string", "program that is running, or that created the run"),
        "rows": JsonField("integer", "number of rows with an outcome, in all starts"),
        "started": JsonField("string", "when it was created"),
        "dry_run": JsonField("boolean", "whether it only planned"),
        "result": JsonField(
            "string",
            "`state` as in the status of one run, or the `status` of its report",
        ),
    },
    "status of a folder of shards": {
        "folder": JsonField("string", "the folder"),
        "at_work": JsonField("boolean", "whether a process works on one of the shards"),
        "rows": JsonField("rows_done", "the sums over all shards"),
        "runs": JsonField("[any]", "the status of each shard"),
    },
    "control": {
        "run_directory": JsonField("string", "path of the run"),
        "requested": JsonField(
            "{pause: boolean, stop: boolean, requests-per-second: number?, "
            "max-concurrent: integer?}",
            "`pause`, `stop`, `requests-per-second`, `max-concurrent` (null: no limit)",
        ),
    },
    "plan-shards (a line for each shard)": {
        "format": JsonField("integer", "1"),
        "plan": JsonField("string", "name of the plan"),
        "number": JsonField("integer", "number of the shard, from 0"),
        "of": JsonField("integer", "number of shards"),
        "rows": JsonField("integer", "number of rows of the shard"),
        "mark": JsonField("{*: integer}", "time of the plan by the clock of each side, in seconds"),
        "source": JsonField("organization", "source organization"),
        "dest": JsonField("organization", "destination organization"),
        "selection": JsonField("selection", "what is moved"),
        "resources": JsonField("[string]", "kinds of rows"),
        "units": JsonField(
            "[{kind: string, project: string, id: string, name: string, rows: integer, "
            "new: boolean}]",
            "objects, or ranges of the rows of large objects",
        ),
    },
}
