"""The second pass over objects: complete what was created without some references.

Their targets did not exist yet, or an earlier run could not create them.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Dict, List, Set

from bt_migrate.api.answers import object_with_id
from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import (
    CREATED,
    DIFFERS,
    FOUND,
    SKIPPED,
    UPDATED,
    WAITING,
    WOULD_UPDATE,
)
from bt_migrate.model.references import without
from bt_migrate.model.resource import OWNER, PROJECT, Resource
from bt_migrate.model.resource_table import PROJECTS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import (
    UPDATE,
    Action,
    differing,
    display_name,
    owner_fields,
    plan_object,
    second_pass_body,
)
from bt_migrate.objects.lists import PLANNED
from bt_migrate.objects.paths import object_path
from bt_migrate.objects.plan import can_be_made_by_hand, counterpart_id, was_changed
from bt_migrate.objects.prepare import (
    PlannedObject,
    Prepared,
    expected_body,
    missing_places,
    not_taken,
    note_not_taken,
    object_finding,
    prepare,
    unresolved_finding,
    waiting_finding,
)
from bt_migrate.objects.update import (
    decided,
    fingerprint_of_difference,
    fingerprints_of,
    foreseen_update,
    note_former,
    note_left_out,
    note_update,
    remember_fingerprints,
    send_update,
    update_object,
    words_to_activate,
)
from bt_migrate.objects.write import read_back
from bt_migrate.state.object_file import ObjectOutcome
from bt_migrate.state.object_states import ObjectStates

log = logging.getLogger("bt_migrate.objects")

# Findings of the creation, which preparing the object again does not find again.
FINDINGS_OF_CREATION = (
    "secret_to_enter", "attachment_missing", "attachment_not_copied", "earlier_versions",
)  # fmt: skip


def finish_deferred(catalog: Catalog, resource: Resource, states: ObjectStates) -> None:
    """Complete the objects whose missing targets exist now.

    An object that was found, not created, is compared now. A dry run only compares.
    """
    for source_id, dest_id in list(states.deferred.items()):
        source = catalog.lists.source_object(resource, source_id)
        if source is None:
            # An object that belongs to an owner may be listed by a later phase.
            if resource.scope != OWNER and resource.name not in catalog.lists.unavailable:
                del states.deferred[source_id]
            continue
        if states.overall(source_id) is None or states.outcome_of(source_id) == WAITING:
            # A kill came before its outcome was recorded, or versions have to be written first: its
            # phase plans it again.
            continue
        item = PlannedObject(source, states, _dest_project(catalog, resource, source))
        prepared = prepare(catalog, resource, item)
        complete = not prepared.deferred
        try:
            _complete(catalog, resource, item, dest_id, prepared)
        except ApiError as error:
            prepared.findings.append(_not_added(resource, item, error))
            complete = False
        _note_beside_creation(states, source_id, prepared.findings)
        if complete:
            del states.deferred[source_id]
    states.save()


def finish_left_out(catalog: Catalog, resource: Resource, states: ObjectStates) -> None:
    """Add references that were left out of objects that this tool wrote and that resolve now.

    A user was invited, a person created what could not be moved, or the rows of a dataset arrived
    whose state is named. An object that is not as this tool last wrote it is not written here: the
    next start compares it and decides it as a conflict. A dry run writes no object, it only records
    the findings that are left.
    """
    for source_id, refs in list(states.left_out.items()):
        source = catalog.lists.source_object(resource, source_id)
        dest_id = states.dest_id_of(source_id)
        if source is None or not dest_id or source_id in states.deferred:
            continue
        item = PlannedObject(source, states, _dest_project(catalog, resource, source))
        prepared = prepare(catalog, resource, item)
        if missing_of(catalog, resource, prepared).issuperset(refs):
            continue
        if dest_id.startswith(PLANNED):
            _note_beside_creation(states, source_id, prepared.findings)
            continue
        try:
            existing = _get(catalog, resource, item, dest_id, prepared)
            now = fingerprints_of(resource, source, existing)
            if now != catalog.earlier.fingerprints(resource, source_id):
                continue
            if not catalog.settings.dry_run:
                catalog.earlier.expect_again(resource)
            _add_references(catalog, resource, item, existing, prepared)
        except ApiError as error:
            prepared.findings.append(_not_added(resource, item, error))
        _note_beside_creation(states, source_id, prepared.findings)
    states.save()


def missing_of(catalog: Catalog, resource: Resource, prepared: Prepared) -> Set[str]:
    """Returns what an object is still without, as `left_out` of its states names it."""
    ids = {reference.id for reference in (*prepared.left_out, *prepared.deferred)}
    return ids.union(prepared.pins, catalog.earlier.fields_refused(resource))


def find_made_by_hand(catalog: Catalog, resource: Resource, states: ObjectStates) -> None:
    """Record the counterparts of objects that the API cannot carry and a person has created.

    Nothing is left to do for these.
    """
    for source_id, entry in list(states.outcomes.items()):
        source = catalog.lists.source_object(resource, source_id)
        if entry.outcome != SKIPPED or entry.dest_id or source is None:
            continue
        item = PlannedObject(source, states, _dest_project(catalog, resource, source))
        if can_be_made_by_hand(resource, source) and item.dest_project_id:
            dest_id = counterpart_id(catalog, resource, item)
            if dest_id:
                states.record(
                    source_id,
                    ObjectOutcome(entry.name, SKIPPED, dest_id=dest_id, reason=entry.reason),
                )
                states.note(source_id, [])
    states.save()


def _dest_project(catalog: Catalog, resource: Resource, source: JsonObject) -> str:
    if resource.scope != PROJECT:
        return ""
    project_id = catalog.lists.project_id_of(resource, source)
    return catalog.targets.resolve((PROJECTS.name,), project_id) or ""


def _not_added(resource: Resource, item: PlannedObject, error: ApiError) -> Dict[str, Any]:
    return object_finding(resource, item, "reference_not_added", detail=str(error))


def _note_beside_creation(
    states: ObjectStates, source_id: str, findings: List[Dict[str, Any]]
) -> None:
    """Replace the findings of an object, except those of its creation."""
    states.note(source_id, _findings_of_creation(states, source_id) + findings)


def _findings_of_creation(
    states: ObjectStates, source_id: str, *more_kinds: str
) -> List[Dict[str, Any]]:
    kinds = (*FINDINGS_OF_CREATION, *more_kinds)
    return [finding for finding in states.findings.get(source_id, []) if finding["kind"] in kinds]


def _complete(
    catalog: Catalog, resource: Resource, item: PlannedObject, dest_id: str, prepared: Prepared
) -> None:
    """Complete one object if this tool created or updated it; else compare it."""
    source_id = item.source["id"]
    entry = item.states.overall(source_id)  # in a sync, its phase may not have planned it yet
    if dest_id.startswith(PLANNED) or entry is None:
        return
    existing = _get(catalog, resource, item, dest_id, prepared)
    # An earlier run created the object and could not complete it.
    left_open = catalog.earlier.incomplete(resource.name, source_id) == dest_id
    # Created in this run, or updated only to add references: such an outcome has no reason. An
    # object with a reason was updated because it had other content; it is compared and decided
    # again, as one that was found.
    ours = entry.outcome in (CREATED, UPDATED) and not entry.reason
    body = expected_body(catalog, resource, prepared, existing)
    if not (left_open or ours) or was_changed(catalog, resource, source_id, body, existing):
        _decide_again(catalog, resource, item, existing, prepared)
        return
    is_of_earlier_run = left_open and entry.outcome != CREATED
    if is_of_earlier_run and second_pass_body(resource, body, existing)[1]:
        # Recorded as updated, for this run's undo: the run that created the object has it as
        # created.
        updated = ObjectOutcome(entry.name, UPDATED, dest_id=dest_id)
        item.states.record(source_id, updated)
    _add_references(catalog, resource, item, existing, prepared)


def _get(
    catalog: Catalog, resource: Resource, item: PlannedObject, dest_id: str, prepared: Prepared
) -> Dict[str, Any]:
    """Returns the destination's object as it is now."""
    there = {**prepared.body, "id": dest_id}
    path = object_path(resource, there, item.dest_project_id)
    owner = owner_fields(resource, prepared.body)
    existing: Dict[str, Any] = catalog.dest.get(path, owner, check=object_with_id(dest_id))
    return existing


def _add_references(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    existing: Dict[str, Any],
    prepared: Prepared,
) -> None:
    """Write the missing references, unless the object would begin to act outside.

    See --activate.
    """
    if words_to_activate(catalog, resource, item.source, existing):
        return
    desired = expected_body(catalog, resource, prepared, existing)
    name = display_name(resource, item.source)
    action = Action(
        resource.name, item.source["id"], name, FOUND,
        dest_id=existing["id"], body=desired, existing=existing,
    )  # fmt: skip
    if second_pass_body(resource, desired, existing)[1] and not catalog.settings.dry_run:
        action = _completed(catalog, resource, item, action)
    remember_fingerprints(catalog, resource, item, action, is_left_alone=False)
    note_left_out(catalog, resource, item, prepared)
    missing = missing_places(catalog, resource, prepared, action.existing)
    prepared.findings += [not_taken(resource, item, place) for place in missing]


def _completed(catalog: Catalog, resource: Resource, item: PlannedObject, action: Action) -> Action:
    """Write what the object lacks. Returns the action with the object as it is then."""
    source_id = item.source["id"]
    dest_id = str(action.dest_id)
    existing = action.existing
    is_found = item.states.outcome_of(source_id) == FOUND
    if is_found and note_former(resource, item.states, action):
        item.states.save()
    method, body = second_pass_body(resource, action.body, existing)
    path = resource.path_of(dest_id, item.dest_project_id)
    written, places = send_update(catalog.dest, resource, (method, path, body), existing)
    note_not_taken(catalog, resource, item, places)
    request = (method, path, without(body, places))
    now = read_back(catalog.dest, resource, request, existing, written)
    if is_found and differing(resource, now, existing):
        # This run found the object and has changed it. As "updated", an undo of this run gives it
        # its former fields again; only an undo of the run that created it deletes it.
        item.states.record(source_id, ObjectOutcome(action.name, UPDATED, dest_id=dest_id))
    if catalog.versions.knows(source_id):
        # The latest version is the complete one.
        xacts = (item.source.get("_xact_id"), now.get("_xact_id"))
        catalog.versions.record(item.states, source_id, *xacts)
    # A later phase of this start may plan the object.
    catalog.index.update(resource, now)
    extra = {
        "event": "completed",
        "resource": resource.name,
        "source_id": source_id,
        "dest_id": dest_id,
    }
    log.info("completed %s %r", resource.kind, action.name, extra=extra)
    return replace(action, body=without(action.body, places), existing=now)


def _decide_again(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    existing: Dict[str, Any],
    prepared: Prepared,
) -> None:
    """Compare an object that this tool did not create, and update it if the policy says so."""
    source_id, states = item.source["id"], item.states
    entry = states.outcomes[source_id]
    body = expected_body(catalog, resource, prepared, existing)
    planned = plan_object(resource, item.source, body, existing, prepared.waiting_fields)
    action = decided(catalog, resource, item.source, planned)
    if action.verb == FOUND:
        remember_fingerprints(catalog, resource, item, action, is_left_alone=False)
        return
    outcome = DIFFERS
    if action.verb == UPDATE:
        action = _updated(catalog, resource, item, action, prepared)
        if action.verb == UPDATE:
            outcome = WOULD_UPDATE if catalog.settings.dry_run else UPDATED
    decided_outcome = ObjectOutcome(
        entry.name,
        outcome,
        dest_id=existing["id"],
        reason=action.reason,
        fields=sorted({*entry.fields, *action.fields}),
        fingerprint=fingerprint_of_difference(resource, item.source, action, outcome),
    )
    states.record(source_id, decided_outcome)
    remember_fingerprints(catalog, resource, item, action, is_left_alone=outcome == DIFFERS)


def _updated(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    action: Action,
    prepared: Prepared,
) -> Action:
    waiting = prepared.waiting_fields
    if catalog.settings.dry_run:
        return foreseen_update(resource, action, waiting)
    if note_update(resource, item.states, action):
        item.states.save()
    action, places = update_object(catalog.dest, resource, action, waiting)
    item.states.begun_versions.pop(action.source_id, None)
    prepared.findings += note_not_taken(catalog, resource, item, places)
    return action


def note_deferred(
    catalog: Catalog, resource: Resource, states: ObjectStates, *, final: bool
) -> None:
    """Record a finding for each reference that still waits for its target.

    With `final`, at the end of a whole run, the finding says that the reference is unresolved.
    Without, at the end of one phase, it says that it waits: a later phase may create the target.
    """
    for source_id in states.deferred:
        source = catalog.lists.source_object(resource, source_id)
        if source is None:
            continue
        item = PlannedObject(source, states)
        prepared = prepare(catalog, resource, item)
        creation_findings = _findings_of_creation(states, source_id, "reference_not_added")
        waiting = [
            unresolved_finding(catalog, resource, item, reference)
            if final
            else waiting_finding(catalog, resource, item, reference)
            for reference in prepared.deferred
        ]
        states.note(source_id, creation_findings + prepared.findings + waiting)
    states.save()
