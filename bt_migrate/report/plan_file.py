"""The plan: what a dry run found out, as the list that the real run then carries out. No contents, no keys, always in one order."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List

from bt_migrate.model.findings import UNSEEN, is_lost
from bt_migrate.model.outcomes import CREATED, SKIPPED, UPDATED, WOULD_CREATE, WOULD_UPDATE
from bt_migrate.report.build import ORDER, build_report
from bt_migrate.state.records import json_of
from bt_migrate.state.run_directory import RunDirectory

PLAN_VERSION = 1
SHOWN_LOSSES = 3
# outcome -> action; others are their own
ACTIONS = {
    WOULD_CREATE: "create",
    CREATED: "create",
    WOULD_UPDATE: "update",
    UPDATED: "update",
    SKIPPED: "skip",
}


def build_plan(run: RunDirectory) -> Dict[str, Any]:
    """The plan of a dry run that came to its end."""
    findings = sorted(build_report(run, "completed")["findings"], key=_place)
    kinds = run.record.row_plans
    return {
        "plan_version": PLAN_VERSION,
        "source": json_of(run.record.source),
        "destination": json_of(run.record.dest),
        "selection": json_of(run.record.selection),
        "objects": sorted(_actions(run), key=_place),
        "streams": [
            stream
            for name in sorted(kinds, key=lambda kind: ORDER[kind])
            for stream in kinds[name]["streams"]
        ],
        "estimate": run.record.estimate,
        "losses": [one for one in findings if is_lost(one)],
        "unseen": list(UNSEEN),
        "other_findings": [one for one in findings if not is_lost(one)],
    }


def _actions(run: RunDirectory) -> Iterator[Dict[str, Any]]:
    for states in run.all_objects():
        for source_id, entry in states.outcomes.items():
            yield {
                "resource": states.resource,
                "project": states.project,
                "id": source_id,
                "name": entry["name"],
                "action": ACTIONS.get(entry["outcome"], entry["outcome"]),
                "reason": entry.get("reason", ""),
                "fields": entry.get("fields", []),
            }


def _place(one: Dict[str, Any]) -> tuple:
    """By resource, project and name."""
    names = [
        str(one.get(name, ""))
        for name in ("project", "name", "id", "kind", "path", "ref", "detail")
    ]
    return (ORDER.get(one["resource"], len(ORDER)), one["resource"], *names)


def losses_text(losses: List[Dict[str, Any]]) -> str:
    """How many, and the first few by name, in one line."""
    first = [f"{one['resource']} {one['name']!r} ({one['kind']})" for one in losses[:SHOWN_LOSSES]]
    more = f" and {len(losses) - SHOWN_LOSSES:,} more" if len(losses) > SHOWN_LOSSES else ""
    return f"{len(losses):,} losses: {', '.join(first)}{more}"
