"""The fields of the report, the plan and of what programs print with --json: shape and content.

The manual's pages and the JSON Schemas of `docs/schemas/` are made from these tables. A shape is a
type of JSON (`string`, `integer`, `number`, `boolean`, `any`), a name in SHAPES, a list `[shape]`,
an object `{field: shape}` or, with fields of any name, `{*: shape}`. `?` after a shape: or null;
`~` after a field: may be absent.
"""

from __future__ import annotations

from typing import Mapping, NamedTuple


class JsonField(NamedTuple):
    """`shape`: see above. `about`: what the field contains, for the manual."""

    shape: str
    about: str


VERIFICATION_FIELDS: Mapping[str, JsonField] = {
    "equal": JsonField(
        "boolean",
        "everything matches, except what cannot be moved, was accepted or is only_in_dest",
    ),
    "arrived": JsonField(
        "boolean",
        "nothing differs, is missing or unreadable, except what changed after the copy",
    ),
    "depth": JsonField("string", "`counts`, `sample` or `full`"),
    "text": JsonField("string", "the result in one line"),
    "objects": JsonField("counts", "outcome -> number of objects"),
    "counts": JsonField("counts", "outcome of the row counts -> number of objects"),
    "rows": JsonField("counts", "outcome -> number of compared rows"),
    "changed_since_copy": JsonField(
        "integer",
        "how many of these the source changed after the copy",
    ),
    "kinds": JsonField(
        "{*: {outcomes: counts, changed_since_copy: integer}}",
        "kind -> `outcomes`, `changed_since_copy`",
    ),
    "days": JsonField(
        "{*: {*: counts}}",
        "with --full: kind of rows -> day of their creation in UTC -> outcome -> rows",
    ),
    "tolerated": JsonField("counts", "tolerated change -> number of occurrences"),
    "security": JsonField(
        "[difference]",
        "differences that give more access than in the source",
    ),
    "cannot_move": JsonField("[difference]", "what the API cannot carry"),
    "accepted": JsonField("[difference]", "differences that a person accepted"),
    "only_in_dest": JsonField(
        "[difference]",
        "the first 1,000 objects that only the destination has and no run created",
    ),
    "differences": JsonField("[difference]", "the first 1,000 differences"),
    "folder": JsonField("string", "folder with the files of all differences"),
    "to_do": JsonField("[string]", "what a person must do, one text per kind: users to invite"),
    "at": JsonField("string", "time of the comparison"),
}

_VERIFICATION = ", ".join(f"{name}: {field.shape}" for name, field in VERIFICATION_FIELDS.items())

SHAPES: Mapping[str, str] = {
    "organization": "{org_id: string, org_name: string, url: string}",
    "selection": (
        "{resources: [string], projects: [string], created_after: string?, created_before: string?}"
    ),
    "window": "{created_after: string?, created_before: string?}",
    "counts": "{*: integer}",
    "session": (
        "{started: string, command: string, arguments~: [string], ended~: string, error~: "
        "string, seconds~: number, wrote_until~: number, rows~: integer, phases~: {*: number}, "
        "prefix~: string, refused~: string, starts~: integer}"
    ),
    "row_counts": (
        "{kind: string, project: string, name: string, source_id: string, dest_id: string?, "
        "outcomes: counts, fetched: integer, bytes: integer, seconds: number, rows_per_second: "
        "number, complete: boolean, error: string, deleted~: integer}"
    ),
    "planned_stream": (
        "{kind: string, objects: [planned_object], rows: integer?, bytes: integer, import_bytes: "
        "integer, queries: integer, inserts: integer, seconds: number}"
    ),
    "planned_object": (
        "{project: string, id: string, name: string, rows: integer?, rows_there: integer?, "
        "bytes: integer}"
    ),
    "estimate": (
        "{rows: integer, uncounted_streams: integer, bytes: integer, processed_bytes: integer, "
        "attachments: integer, queries: integer, inserts: integer, earlier_states~: {states: "
        "integer, rows: integer, deletes: integer}, deletes~: {*: {rows: integer, "
        "waiting: integer, too_many: integer}}, validation_queries: integer, "
        "verification_queries: integer, state_bytes: integer, queries_per_minute: number?, "
        "seconds: number, whole_seconds: number, minutes_at_20_queries_a_minute: number, how: "
        "string}"
    ),
    "states": (
        "{wanted: boolean, named: integer, to_make: integer, datasets: integer, kept: [string]}"
    ),
    "validation": (
        "{source: organization, destination: organization, write_right: string, refused_lists: "
        "[any], objects: {*: counts}, cannot_move: [string], dataset_states~: states?, "
        "estimate~: estimate?, listed~: {objects: integer, seconds: number, queries~: "
        "integer, versions~: integer, most_versions~: integer}, "
        "unavailable: {*: "
        "any}, rows: {*: integer?}}"
    ),
    "lag": "{since: string, rows: integer?, oldest_seconds: number?}",
    "problem": (
        "{resource: string, project: string, id: string, name: string, outcome: string, reason~: "
        "string, fields~: [string]}"
    ),
    "finding": (
        "{kind: string, severity: string, about: string, next: string, resource: string, id: "
        "string, name: string, project~: string, path~: string, ref~: string, detail~: string, "
        "count~: integer, rows~: integer, row~: string, sampled~: integer}"
    ),
    "findings_of_kind": "{kind: string, text: string, findings: integer}",
    "difference": (
        "{outcome: string, resource: string, project: string, id: string, name: string, row~: "
        "string, day~: string, fields~: [string], detail~: string, fingerprint~: string, "
        "changed_since_copy~: boolean, security~: any, was~: string}"
    ),
    "rows_done": "{done: integer, total: integer?, rows_per_second: number, eta_seconds: number?}",
    "stream": (
        "{kind: string, project: string, name: string, source_id: string, done: integer, total: "
        "integer?, rows_per_second: number, eta_seconds: number?, complete: boolean, error: "
        "string}"
    ),
    "side": (
        "{started_with: integer, in_flight: integer, max_concurrent: integer, "
        "requests_per_second: number?, requests: integer, retries: integer, rate_limited: "
        "integer}"
    ),
    "verification": f"{{{_VERIFICATION}}}",
}

REPORT_FIELDS: Mapping[str, JsonField] = {
    "report_version": JsonField("integer", "1; raised when a field changes its meaning"),
    "tool_version": JsonField("string", "version of bt_migrate"),
    "status": JsonField(
        "string",
        "`completed`, `incomplete` (exit code 1), `stopped` (more to do), `interrupted`, "
        "`failed`, `merged` or `undone`",
    ),
    "dry_run": JsonField("boolean", "whether the run only planned"),
    "run_directory": JsonField("string", "path of the run"),
    "source": JsonField("organization", "id, name and URL of the source organization"),
    "destination": JsonField("organization", "id, name and URL of the destination organization"),
    "selection": JsonField("selection", "resources, projects and date window of the run"),
    "round": JsonField("integer", "number of the sync; 0 for the first copy"),
    "marks": JsonField(
        "{*: {*: integer}}",
        "for each kind of rows, the source transaction up to which they were copied",
    ),
    "started": JsonField("string", "when the run was created"),
    "command": JsonField("string", "program that made the run"),
    "sessions": JsonField(
        "[session]",
        "every process that worked on the run; of very many, the oldest are summed up in the "
        "first (`starts`)",
    ),
    "settings": JsonField(
        "{*: string}",
        "of the last start: the settings that differ from their defaults, without secrets; empty "
        "for a variable of .env that an empty one of the environment hides",
    ),
    "duration_seconds": JsonField("number", "seconds of all processes together"),
    "this_start": JsonField(
        "{command: string, seconds: number, rows: integer, rows_per_second: number, phases: {*: "
        "number}, error: string}",
        "of the last start: `seconds`, `rows`, `rows_per_second`, seconds of its `phases`, `error`",
    ),
    "whole_run": JsonField(
        "{starts: integer, seconds: number, rows: integer, rows_per_second: number}",
        "of all starts together: `starts`, `seconds`, `rows`, `rows_per_second`",
    ),
    "phases_done": JsonField("[string]", "names of the completed phases"),
    "merged": JsonField("[string]", "paths of the runs that bin/merge-runs joined into this one"),
    "objects": JsonField(
        "[{resource: string, project: string, listed: integer, outcomes: counts, "
        "skipped_by_reason: counts}]",
        "per resource and project: `listed`, `outcomes`, `skipped_by_reason`; the outcomes add "
        "up to what was listed",
    ),
    "rows": JsonField(
        "[row_counts]",
        "per dataset, experiment and project log: `fetched`, `outcomes` (they add up to it), "
        "`bytes`, `complete`, `error`, `deleted`; of a sync only those with something new",
    ),
    "planned_streams": JsonField("[planned_stream]", "in a dry run, as in the plan"),
    "estimate": JsonField("estimate?", "in a dry run, as in the plan"),
    "totals": JsonField(
        "{objects: counts, rows: counts, rows_per_second: number, bytes_per_second: number}",
        "the sums, objects and rows apart; `rows_per_second`, `bytes_per_second`",
    ),
    "validation": JsonField(
        "validation?",
        "what bin/validate found: `write_right`, `objects` by resource and project, `rows` by "
        "kind, `estimate`, `cannot_move`, `unavailable`, `refused_lists`",
    ),
    "verification": JsonField(
        "verification?",
        "result of the comparison: `equal`, `arrived`, counts by outcome and kind, `tolerated`, "
        "`security`, `cannot_move`, `only_in_dest`, the first `differences`; `rows` and `counts` "
        "apart",
    ),
    "lag": JsonField(
        "lag?",
        "rows written to the source since the mark of the run, and the age of the oldest; of "
        "syncs and of runs with a relative window",
    ),
    "problems": JsonField(
        "[problem]",
        "each object that failed or differs: kind, name, id, project, fields, reason",
    ),
    "findings": JsonField(
        "[finding]",
        "one record each: `kind`, `severity`, `resource`, `id`, `name`, `project`, `path`, "
        "`ref`, `next`; those of rows with `count` (places), `rows` and the first `row`; also in "
        "`findings.jsonl`",
    ),
    "findings_by_kind": JsonField("counts", "number of findings of each kind"),
    "to_do": JsonField(
        "[findings_of_kind]",
        "what a person must do, a line for each kind: `kind`, `text`, number of `findings`",
    ),
    "failed": JsonField("[findings_of_kind]", "what should have arrived and did not, likewise"),
    "accepted": JsonField("[findings_of_kind]", "differences that a person accepted, likewise"),
    "lost": JsonField("[findings_of_kind]", "what cannot be carried, likewise"),
    "next_commands": JsonField("[string]", "what to run next"),
}

PLAN_FIELDS: Mapping[str, JsonField] = {
    "plan_version": JsonField("integer", "1; raised when a field changes its meaning"),
    "source": JsonField("organization", "id, name and URL of the source organization"),
    "destination": JsonField("organization", "id, name and URL of the destination organization"),
    "selection": JsonField("selection", "resources, projects and date window"),
    "objects": JsonField(
        "[{resource: string, project: string, id: string, name: string, action: string, reason: "
        "string, fields: [string], versions~: integer}]",
        "what happens to each object: `action` is `create`, `update`, `found`, `differs`, `skip` "
        "or `waiting`",
    ),
    "streams": JsonField("[planned_stream]", "rows to copy, in the streams in which they are read"),
    "dataset_states": JsonField(
        "states?",
        "earlier states of datasets: how many are named, and how many are made",
    ),
    "estimate": JsonField(
        "estimate?",
        "rows, bytes, queries and time; `how` says how they were found",
    ),
    "losses": JsonField("[finding]", "what cannot be carried"),
    "unseen": JsonField("[string]", "what a plan cannot see"),
    "other_findings": JsonField("[finding]", "other things that a person must know"),
}
