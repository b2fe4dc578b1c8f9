"""The second pass over objects: complete what was created without some references.

Their targets did not exist yet, or an earlier run could not create them.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, List

from bt_migrate.api.answers import object_with_id
from bt_migrate.errors import ApiError
from bt_migrate.model.outcomes import CREATED, DIFFERS, FOUND, UPDATED, WOULD_UPDATE
from bt_migrate.model.references import Unresolved, top_field
from bt_migrate.model.resource import PROJECT, Resource
from bt_migrate.model.resource_table import PROJECTS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import UPDATE, Action, plan_object, second_pass_body
from bt_migrate.objects.lists import PLANNED
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

# Findings of the creation, which preparing the object again does not find again.
FINDINGS_OF_CREATION = ("secret_to_enter", "attachment_missing", "attachment_not_copied")


def finish_deferred(catalog: Catalog, resource: Resource, states: ObjectStates) -> None:
    """Complete the objects whose missing targets exist by now.

    An object that was found, not created, is compared now. A dry run only compares.
    """
    for source_id, dest_id in list(states.deferred.items()):
        source = catalog.lists.source_object(resource, source_id)
        if source is None:
            del states.deferred[source_id]
            continue
        item = PlannedObject(source, states, _dest_project(catalog, resource, source))
        prepared = prepare(catalog, resource, item)
        complete = not prepared.deferred
        try:
            _complete(catalog, resource, item, dest_id, prepared)
        except ApiError as error:
            failed = object_finding(resource, item, "reference_not_added", detail=str(error))
            prepared.findings.append(failed)
            complete = False
        states.note(source_id, _findings_of_creation(states, source_id) + prepared.findings)
        if complete:
            del states.deferred[source_id]
    states.save()


def _dest_project(catalog: Catalog, resource: Resource, source: dict) -> str:
    if resource.scope != PROJECT:
        return ""
    return catalog.targets.resolve((PROJECTS.name,), source["project_id"]) or ""


def _findings_of_creation(
    states: ObjectStates, source_id: str, *more_kinds: str
) -> List[Dict[str, Any]]:
    kinds = (*FINDINGS_OF_CREATION, *more_kinds)
    return [finding for finding in states.findings.get(source_id, []) if finding["kind"] in kinds]


def _complete(
    catalog: Catalog, resource: Resource, item: PlannedObject, dest_id: str, prepared: Prepared
) -> None:
    """Complete one object if this tool created or updated it; else compare it."""
    if dest_id.startswith(PLANNED):
        return
    source_id = item.source["id"]
    entry = item.states.outcomes[source_id]
    existing = catalog.dest.get(f"{resource.path}/{dest_id}", check=object_with_id(dest_id))
    # An earlier run created the object.
    left_open = catalog.earlier.incomplete(resource.name, source_id) == dest_id
    # An object that was updated because it differed has a reason; it is decided as a conflict.
    ours = entry["outcome"] in (CREATED, UPDATED) and not entry.get("reason")
    if not (left_open or ours):
        _decide_again(catalog, resource, item, existing, prepared)
        return
    method, body = second_pass_body(resource, prepared.body, existing)
    if body and left_open and entry["outcome"] != CREATED:
        # Updated, for this run's undo; the run that created the object has it as created.
        item.states.record(source_id, entry["name"], UPDATED, dest_id=dest_id)
    if body and not catalog.settings.dry_run:
        path = f"{resource.path}/{dest_id}"
        patched = method == "PATCH"
        dest = catalog.dest
        existing = dest.patch(path, body) if patched else dest.put(resource.path, body, dest_id)
        facts = {"resource": resource.name, "source_id": source_id, "dest_id": dest_id}
        extra = {"event": "completed", **facts}
        log.info("completed %s %r", resource.kind, entry["name"], extra=extra)
    action = Action(
        resource.name, source_id, entry["name"], FOUND, body=prepared.body, existing=existing or {}
    )
    remember_fingerprints(catalog, resource, item.states, action, left=False)


def _decide_again(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    existing: Dict[str, Any],
    prepared: Prepared,
) -> None:
    """Compare an object that somebody else created, and update it where that is asked for."""
    source_id = item.source["id"]
    states = item.states
    entry = states.outcomes[source_id]
    waiting = {top_field(reference.path) for reference in prepared.deferred}
    planned = plan_object(resource, item.source, prepared.body, existing, waiting)
    action = decided(catalog, resource, planned)
    if action.verb == FOUND:
        remember_fingerprints(catalog, resource, states, action, left=False)
        return
    outcome = DIFFERS
    if action.verb == UPDATE:
        action = _updated(catalog, resource, item, action, waiting)
        if action.verb == UPDATE:
            outcome = WOULD_UPDATE if catalog.settings.dry_run else UPDATED
    fields = sorted({*entry.get("fields", ()), *action.fields})
    facts = {"dest_id": existing["id"], "reason": action.reason, "fields": fields}
    states.record(source_id, entry["name"], outcome, **facts)
    remember_fingerprints(catalog, resource, states, action, left=outcome == DIFFERS)


def _updated(
    catalog: Catalog, resource: Resource, item: PlannedObject, action: Action, waiting: set
) -> Action:
    if catalog.settings.dry_run:
        return foreseen_update(resource, action, waiting)
    if note_former(resource, item.states, action):
        item.states.save()
    return update_object(catalog.dest, resource, action, waiting)


def note_deferred(
    catalog: Catalog, resource: Resource, states: ObjectStates, *, final: bool
) -> None:
    """Record what still waits.

    `final`, at the end of a whole run: it is unresolved. At the end of a phase: a later one may
    bring the target.
    """
    for source_id in states.deferred:
        source = catalog.lists.source_object(resource, source_id)
        if source is None:
            continue
        item = PlannedObject(source, states)
        prepared = prepare(catalog, resource, item)
        kept = _findings_of_creation(states, source_id, "reference_not_added")
        waiting = [
            unresolved_finding(catalog, resource, item, reference)
            if final
            else _waits(resource, item, reference)
            for reference in prepared.deferred
        ]
        states.note(source_id, kept + prepared.findings + waiting)
    states.save()


def _waits(resource: Resource, item: PlannedObject, reference: Unresolved) -> Dict[str, Any]:
    facts = {"path": reference.path, "ref": reference.id, "detail": " or ".join(reference.to)}
    return object_finding(resource, item, "waits", **facts)
