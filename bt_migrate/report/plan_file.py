"""The plan: the result of a dry run as JSON, which a real run can carry out with --plan.

It holds no content and no keys. The same plan is always written in the same order.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Tuple

from bt_migrate.model.findings import UNSEEN, is_lost
from bt_migrate.model.outcomes import CREATED, SKIPPED, UPDATED, WOULD_CREATE, WOULD_UPDATE
from bt_migrate.report.build import RESOURCE_ORDER, build_report
from bt_migrate.report.display import and_more, quoted
from bt_migrate.state.records import json_of
from bt_migrate.state.run_directory import RunDirectory

PLAN_VERSION = 1
SHOWN_LOSSES = 3
# Outcome -> action. Any other outcome is its own action.
ACTIONS = {
    WOULD_CREATE: "create",
    CREATED: "create",
    WOULD_UPDATE: "update",
    UPDATED: "update",
    SKIPPED: "skip",
}


def build_plan(run: RunDirectory) -> Dict[str, Any]:
    """Returns the plan of a dry run that reached its end."""
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
            for name in sorted(kinds, key=lambda kind: RESOURCE_ORDER[kind])
            for stream in kinds[name]["streams"]
        ],
        "dataset_states": (run.record.validation or {}).get("dataset_states"),
        "estimate": run.record.estimate,
        "losses": [record for record in findings if is_lost(record)],
        "unseen": list(UNSEEN),
        "other_findings": [record for record in findings if not is_lost(record)],
    }


def _actions(run: RunDirectory) -> Iterator[Dict[str, Any]]:
    for states in run.all_objects():
        for source_id, entry in states.outcomes.items():
            yield {
                "resource": states.resource,
                "project": states.project,
                "id": source_id,
                "name": entry.name,
                "action": ACTIONS.get(entry.outcome, entry.outcome),
                "reason": entry.reason,
                "fields": entry.fields,
                # how many versions are written, with --history
                **({"versions": entry.versions} if entry.versions else {}),
            }


def _place(record: Dict[str, Any]) -> Tuple[Any, ...]:
    """Returns the sort key: by resource, project and name."""
    fields = ("project", "name", "id", "kind", "path", "ref", "detail")
    names = [str(record.get(field, "")) for field in fields]
    return (RESOURCE_ORDER.get(record["resource"], len(RESOURCE_ORDER)), record["resource"], *names)


def losses_text(losses: List[Dict[str, Any]]) -> str:
    """Returns how many losses there are, and the first few by name, in one line."""
    first = ", ".join(
        f"{loss['resource']} {quoted(loss['name'])} ({loss['kind']})"
        for loss in losses[:SHOWN_LOSSES]
    )
    return f"{len(losses):,} losses: {and_more(first, len(losses) - SHOWN_LOSSES)}"
