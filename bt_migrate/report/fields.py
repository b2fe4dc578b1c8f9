"""The fields of migration_report.json, in their order, with what each contains."""

from __future__ import annotations

from typing import Mapping

REPORT_FIELDS: Mapping[str, str] = {
    "report_version": "1; raised when a field changes its meaning",
    "tool_version": "version of bt_migrate",
    "status": "`completed`, `incomplete` (exit code 1), `stopped` (more to do), `interrupted`, "
    "`failed`, `merged` or `undone`",
    "dry_run": "whether the run only planned",
    "run_directory": "path of the run",
    "source": "id, name and URL of the source organization",
    "destination": "id, name and URL of the destination organization",
    "selection": "resources, projects and date window of the run",
    "round": "number of the sync; 0 for the first copy",
    "marks": "for each kind of rows, the source transaction up to which they were copied",
    "started": "when the run was created",
    "command": "program that made the run",
    "sessions": "every process that worked on the run; of very many, the oldest are summed up in "
    "the first (`starts`)",
    "settings": "of the last start: the settings that differ from their defaults, without secrets",
    "duration_seconds": "seconds of all processes together",
    "this_start": "of the last start: `seconds`, `rows`, `rows_per_second`, seconds of its "
    "`phases`, `error`",
    "whole_run": "of all starts together: `starts`, `seconds`, `rows`, `rows_per_second`",
    "phases_done": "names of the completed phases",
    "merged": "paths of the runs that bin/merge-runs joined into this one",
    "objects": "per resource and project: `listed`, `outcomes`, `skipped_by_reason`; the outcomes "
    "add up to what was listed",
    "rows": "per dataset, experiment and project log: `fetched`, `outcomes` (they add up to it), "
    "`bytes`, `complete`, `error`, `deleted`; of a sync only those with something new",
    "planned_streams": "in a dry run, as in the plan",
    "estimate": "in a dry run, as in the plan",
    "totals": "the sums, objects and rows apart; `rows_per_second`, `bytes_per_second`",
    "validation": "what bin/validate found: `write_right`, `objects` by resource and project, "
    "`rows` by kind, `estimate`, `cannot_move`, `unavailable`, `refused_lists`",
    "verification": "result of the comparison: `equal`, `arrived`, counts by outcome and kind, "
    "`tolerated`, `security`, `cannot_move`, `only_in_dest`, the first `differences`; `rows` and "
    "`counts` apart",
    "lag": "rows written to the source since the mark of the run, and the age of the oldest; of "
    "syncs and of runs with a relative window",
    "problems": "each object that failed or differs: kind, name, id, project, fields, reason",
    "findings": "one record each: `kind`, `severity`, `resource`, `id`, `name`, `project`, `path`, "
    "`ref`, `next`; those of rows with `count` (places), `rows` and the first `row`; also in "
    "`findings.jsonl`",
    "findings_by_kind": "number of findings of each kind",
    "to_do": "what a person must do, a line for each kind: `kind`, `text`, number of `findings`",
    "failed": "what should have arrived and did not, likewise",
    "accepted": "differences that a person accepted, likewise",
    "lost": "what cannot be carried, likewise",
    "next_commands": "what to run next",
}
