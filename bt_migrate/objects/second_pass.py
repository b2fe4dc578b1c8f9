"""The second pass over objects: what was made without a reference whose target did not exist yet, or could not be made in an
earlier run.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, List

from bt_migrate.api.answers import object_with_id
from bt_migrate.errors import ApiError
from bt_migrate.model.outcomes import CREATED, DIFFERS, UPDATED, WOULD_UPDATE
from bt_migrate.model.resource import Resource
from bt_migrate.objects.catalog import PLANNED, Catalog
from bt_migrate.objects.decide import FOUND, UPDATE, Action, plan_object, second_pass_body
from bt_migrate.objects.prepare import (
    PlannedObject,
    Prepared,
    object_finding,
    prepare,
    unresolved_finding,
)
from bt_migrate.objects.update import (
    decided,
    foreseen_update,
    note_former,
    remember_fingerprints,
    update_object,
)
from bt_migrate.state.object_states import ObjectStates

log = logging.getLogger("bt_migrate.objects")

# What was noted when the object was made and is not found again by rewriting it.
MADE_WITH = ("secret_to_enter", "attachment_missing", "attachment_not_copied")


def finish_deferred(catalog: Catalog, resource: Resource, states: ObjectStates) -> None:
    """Complete what is open, as far as the targets exist by now. Objects that were found, not made, are compared at last.

    A dry run only compares.
    """
    for source_id, dest_id in list(states.deferred.items()):
        source = catalog.source_object(resource, source_id)
        if source is None:
            del states.deferred[source_id]
            continue
        project = (
            catalog.resolve(("projects",), source["project_id"])
            if resource.scope == "project"
            else ""
        )
        item = PlannedObject(source, states, project or "")
        prepared = prepare(catalog, resource, item)
        complete = not prepared.deferred
        try:
            _complete(catalog, resource, item, dest_id, prepared)
        except ApiError as error:
            prepared.findings.append(
                object_finding(resource, item, "reference_not_added", detail=str(error))
            )
            complete = False
        states.note(source_id, _made_with(states, source_id) + prepared.findings)
        if complete:
            del states.deferred[source_id]
    states.save()


def _made_with(states: ObjectStates, source_id: str, *more: str) -> List[Dict[str, Any]]:
    return [one for one in states.findings.get(source_id, []) if one["kind"] in (*MADE_WITH, *more)]


def _complete(
    catalog: Catalog, resource: Resource, item: PlannedObject, dest_id: str, prepared: Prepared
) -> None:
    source_id, states = item.source["id"], item.states
    entry = states.outcomes[source_id]
    if dest_id.startswith(PLANNED):
        return
    existing = catalog.dest.get(f"{resource.path}/{dest_id}", check=object_with_id(dest_id))
    left_open = (
        catalog.incomplete.get((resource.name, source_id)) == dest_id
    )  # by an earlier run, which made it
    # one that was updated because it differed has a reason, and keeps being settled as such
    ours = left_open or (entry["outcome"] in (CREATED, UPDATED) and not entry.get("reason"))
    if not ours:
        _settle(catalog, resource, item, existing, prepared)
        return
    method, body = second_pass_body(resource, prepared.body, existing)
    if (
        body and left_open and entry["outcome"] != CREATED
    ):  # as the run that made it remembers it, for its undo
        states.record(source_id, entry["name"], UPDATED, dest_id=dest_id)
    if body and not catalog.settings.dry_run:
        path = f"{resource.path}/{dest_id}"
        existing = (
            catalog.dest.patch(path, body)
            if method == "PATCH"
            else catalog.dest.put(resource.path, body, dest_id)
        )
        facts = {
            "event": "completed",
            "resource": resource.name,
            "source_id": source_id,
            "dest_id": dest_id,
        }
        log.info("completed %s %r", resource.kind, entry["name"], extra=facts)
    action = Action(
        resource.name, source_id, entry["name"], FOUND, body=prepared.body, existing=existing or {}
    )
    remember_fingerprints(catalog, resource, states, action, left=False)


def _settle(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    existing: Dict[str, Any],
    prepared: Prepared,
) -> None:
    """Of an object that somebody else made: what waited is compared by now, and updated where that is asked for."""
    source_id, states = item.source["id"], item.states
    entry = states.outcomes[source_id]
    waiting = {one.path.split(".")[0].split("[")[0] for one in prepared.deferred}
    action = decided(
        catalog, resource, plan_object(resource, item.source, prepared.body, existing, waiting)
    )
    if action.verb == FOUND:
        remember_fingerprints(catalog, resource, states, action, left=False)
        return
    outcome = DIFFERS
    if action.verb == UPDATE:
        if catalog.settings.dry_run:
            action = foreseen_update(resource, action, waiting)
        else:
            if note_former(resource, states, action):
                states.save()
            action = update_object(catalog.dest, resource, action, waiting)
        outcome = (
            DIFFERS
            if action.verb == DIFFERS
            else WOULD_UPDATE
            if catalog.settings.dry_run
            else UPDATED
        )
    fields = sorted({*entry.get("fields", ()), *action.fields})
    states.record(
        source_id,
        entry["name"],
        outcome,
        dest_id=existing["id"],
        reason=action.reason,
        fields=fields,
    )
    remember_fingerprints(catalog, resource, states, action, left=outcome == DIFFERS)


def note_deferred(
    catalog: Catalog, resource: Resource, states: ObjectStates, *, final: bool
) -> None:
    """Tell of what still waits: `final` at the end of a whole run (it is unresolved), else of a phase (a later one may bring
    it).
    """
    for source_id in states.deferred:
        source = catalog.source_object(resource, source_id)
        if source is None:
            continue
        item = PlannedObject(source, states)
        prepared = prepare(catalog, resource, item)
        waiting = [
            unresolved_finding(catalog, resource, item, one)
            if final
            else object_finding(
                resource, item, "waits", path=one.path, ref=one.id, detail=" or ".join(one.to)
            )
            for one in prepared.deferred
        ]
        states.note(
            source_id,
            _made_with(states, source_id, "reference_not_added") + prepared.findings + waiting,
        )
    states.save()
