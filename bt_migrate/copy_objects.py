"""Copy objects of any kind: list the source -> rewrite references -> plan against the destination -> apply -> record.

One function for all kinds; the resource table says what is different about them. Objects that need each other are made in the
order of their references; a reference whose target does not exist yet is left out at first and added by `finish_deferred`.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.attachments import AttachmentCopier, dest_key
from bt_migrate.catalog import PLANNED, Catalog
from bt_migrate.errors import ApiError
from bt_migrate.findings import FAILURE, finding
from bt_migrate.planning import (
    CREATE,
    FOUND,
    Action,
    dependencies,
    dependency_levels,
    display_name,
    lost_fields,
    natural_key,
    plan_object,
    second_pass_body,
    writable_fields,
)
from bt_migrate.references import Rewritten, Unresolved, rewrite, value_at
from bt_migrate.resources import (
    ACLS,
    AI_SECRETS,
    CANNOT_MOVE,
    EXPERIMENTS,
    NEXT_ACTION,
    PROJECT_SETTINGS,
    PROJECTS,
    Resource,
    settings_cannot_move,
)
from bt_migrate.rows import attachment_places
from bt_migrate.state import CREATED, DIFFERS, FAILED, SKIPPED, UPDATED, ObjectStates
from bt_migrate.windows import in_window

log = logging.getLogger("bt_migrate.objects")

WOULD_CREATE = "planned"  # the outcome that a dry run gives to what it would create
FOUND_EXISTING = "x-bt-found-existing"  # header of a POST that created nothing


@dataclass(frozen=True)
class Item:
    """One source object with the state it is recorded in and the destination project that it belongs to ("" for none)."""

    source: dict
    states: ObjectStates
    dest_project_id: str = ""


@dataclass
class Prepared:
    """An object ready to be planned: what would be sent, and what is to be told."""

    body: Dict[str, Any]
    deferred: List[Unresolved]
    findings: List[Dict[str, Any]]


def copy_objects(
    catalog: Catalog,
    resource: Resource,
    items: Sequence[Item],
    *,
    copier: Optional[AttachmentCopier] = None,
) -> None:
    """Bring every item to an outcome. Objects that an earlier process of this run completed are not looked at again."""
    todo = []
    for item in items:
        if item.states.completed(item.source["id"]):
            continue
        reason = skip_reason(catalog, resource, item.source)
        if reason:
            _record_skipped(catalog, resource, item, reason)
        else:
            todo.append(item)
    by_id = {item.source["id"]: item for item in todo}
    levels = dependency_levels(
        [item.source for item in todo], lambda obj: dependencies(resource, obj, set(by_id)) if resource.references else set()
    )
    size = min(catalog.settings.batch_size, catalog.settings.checkpoint_interval)
    with ThreadPoolExecutor(catalog.settings.max_concurrent, thread_name_prefix="objects") as pool:
        list(pool.map(lambda project: catalog.dest_by_key(resource, project), {item.dest_project_id for item in todo}))
        for level in levels:
            for start in range(0, len(level), size):
                batch = [by_id[obj["id"]] for obj in level[start : start + size]]
                _copy_batch(catalog, resource, batch, pool, copier)
    for states in {id(item.states): item.states for item in items}.values():
        states.save()


def _copy_batch(
    catalog: Catalog, resource: Resource, batch: Sequence[Item], pool: ThreadPoolExecutor, copier: Optional[AttachmentCopier]
) -> None:
    """Write down what is about to be made, make it, write down what became of it: a crash in between finds its own objects as
    its own.
    """
    catalog.dest.check()
    touched = {id(item.states): item.states for item in batch}.values()
    planned = [_plan(catalog, resource, item) for item in batch]
    if not catalog.settings.dry_run:
        for states in touched:
            states.intended = [action.source_id for item, action, _ in planned if item.states is states and action.verb == CREATE]
            if states.intended:
                states.save()
    try:
        list(pool.map(lambda one: _apply(catalog, resource, one[0], one[1], one[2], copier), planned))
        for states in touched:
            states.intended = []
    finally:
        for states in touched:
            states.save()


def skip_reason(catalog: Catalog, resource: Resource, source: dict) -> str:
    """Why an object is not moved, "" if it is."""
    settings = catalog.settings
    if resource is EXPERIMENTS and not in_window(source.get("created"), settings.created_after, settings.created_before):
        return "outside of the date window"
    reason = CANNOT_MOVE[resource.name](source) if resource.name in CANNOT_MOVE else None
    return reason or ""


def _record_skipped(catalog: Catalog, resource: Resource, item: Item, reason: str) -> None:
    source = item.source
    name = display_name(resource, source)
    counterpart = (
        catalog.dest_by_key(resource, item.dest_project_id).get(natural_key(resource, source)) if reason == "built-in" else None
    )
    item.states.record(source["id"], name, SKIPPED, dest_id=counterpart["id"] if counterpart else None, reason=reason)
    if resource.name in NEXT_ACTION and resource.name in CANNOT_MOVE:
        item.states.note(source["id"], [_finding(resource, item, "not_readable", detail=reason, next=NEXT_ACTION[resource.name])])
    log.info("skipped %s %r: %s", resource.kind, name, reason, extra=_extra("skipped", resource, item, reason=reason))


# -- preparing and planning


def prepare(catalog: Catalog, resource: Resource, item: Item) -> Prepared:
    """Rewrite one object for the destination. Attachment keys get their new names here; the bytes follow when it is created."""
    source = item.source
    fields = writable_fields(resource, source)
    rewritten = rewrite(fields, resource.references, resource.pins, resolve=catalog.resolve, known=catalog.known())
    # views and ACLs come last: nothing that they could wait for is still to come
    deferred = [one for one in rewritten.unresolved if resource.scope != "object" and catalog.may_come(one.to, one.id)]
    findings = list(_rewriting_findings(catalog, resource, item, rewritten, deferred))
    body = {name: value for name, value in rewritten.value.items() if value is not None}
    if resource is EXPERIMENTS and body.pop("public", None):
        findings.append(
            _finding(resource, item, "made_private", path="public", next="make the experiment public by hand if it should be")
        )
    for path in attachment_places(body):
        reference = value_at(body, path)
        reference["key"] = dest_key(catalog.dest.org_id, reference["key"])
    lost = lost_fields(resource, source)
    findings += [
        _finding(resource, item, "field_not_writable", path=name, detail="no endpoint takes this field") for name in lost
    ]
    if resource.scope == "project":
        body["project_id"] = item.dest_project_id
    elif resource.scope == "organization" and catalog.dest.org_name:
        body["org_name"] = catalog.dest.org_name
    return Prepared(body, deferred, findings)


def _rewriting_findings(
    catalog: Catalog, resource: Resource, item: Item, rewritten: Rewritten, deferred: Sequence[Unresolved]
) -> Iterator[Dict[str, Any]]:
    for path in rewritten.pins:
        yield _finding(resource, item, "version_pin_removed", path=path, detail="it named a transaction of the source")
    for path, found in rewritten.free_text:
        yield _finding(resource, item, "source_id_in_text", path=path, ref=found, next="look whether the text needs the new id")
    for one in rewritten.unresolved:
        if one not in deferred:
            yield unresolved_finding(catalog, resource, item, one)


def unresolved_finding(catalog: Catalog, resource: Resource, item: Item, one: Unresolved) -> Dict[str, Any]:
    """The record of a reference that was left out for good; a failure unless the API cannot carry its target by nature."""
    reason = catalog.cannot_come(one.to, one.id)
    kind = "user_without_counterpart" if one.to == ("users",) else "reference_to_unmovable" if reason else "unresolved_reference"
    detail = reason or f"no {' or '.join(one.to) or 'known kind'} of that id could be found in the destination"
    return _finding(
        resource, item, kind, path=one.path, ref=one.id, detail=detail, next="add the reference by hand once its target is there"
    )


def _plan(catalog: Catalog, resource: Resource, item: Item) -> Tuple[Item, Action, Prepared]:
    """Plan one object.

    Something of its natural key that was about to be created when an earlier process died is ours: created.
    """
    prepared = prepare(catalog, resource, item)
    wanting = {_top(one.path) for one in prepared.deferred}
    existing = catalog.dest_by_key(resource, item.dest_project_id).get(_dest_key(resource, item.source, prepared.body))
    if resource is PROJECT_SETTINGS and existing and settings_cannot_move(existing):
        existing = None  # a project without settings: they are there to be made
    action = plan_object(resource, item.source, prepared.body, existing, wanting)
    reason = not_placeable(resource, item.source, prepared.body)
    if reason:
        action = replace(action, verb=SKIPPED, reason=reason)
        prepared.findings = [one for one in prepared.findings if one["severity"] != FAILURE]
    return item, action, prepared


def not_placeable(resource: Resource, source: dict, body: Dict[str, Any]) -> str:
    """Why a view or ACL has no place in the destination, "" if it has.

    An ACL without its user, group or role would grant something else.
    """
    if resource.scope == "object" and not body.get("object_id"):
        return f"its {source.get('object_type')} is not in the destination"
    if resource is ACLS and any(source.get(name) and not body.get(name) for name in ("user_id", "group_id", "role_id")):
        return "its user, group or role is not in the destination"
    return ""


def _dest_key(resource: Resource, source: dict, body: Dict[str, Any]) -> tuple:
    """Natural keys of objects that belong to an object hold ids, so they are taken from the rewritten body."""
    return natural_key(resource, body if resource.scope == "object" else source)


def _top(path: str) -> str:
    return path.split(".")[0].split("[")[0]


# -- applying


def _apply(
    catalog: Catalog, resource: Resource, item: Item, action: Action, prepared: Prepared, copier: Optional[AttachmentCopier]
) -> None:
    """Carry out one action and record it. An API error is this object's outcome; anything else ends the run."""
    states, source_id = item.states, action.source_id
    findings = list(prepared.findings)
    try:
        if action.verb == CREATE and not catalog.settings.dry_run:
            action = _create(catalog, resource, item, action, copier, findings)
    except ApiError as error:
        states.record(source_id, action.name, FAILED, reason=str(error))
        findings.append(
            _finding(resource, item, "not_created", detail=str(error), next="see the reason; run again once it is mended")
        )
        log.error(
            "failed %s %r: %s", resource.kind, action.name, error, extra=_extra("failed", resource, item, reason=str(error))
        )
    else:
        outcome = _outcome(catalog, states, action)
        dest_id = action.dest_id or (PLANNED + source_id if outcome == WOULD_CREATE else None)
        states.record(source_id, action.name, outcome, dest_id=dest_id, reason=action.reason, fields=action.fields)
        if dest_id:
            catalog.remember(
                resource,
                source_id,
                {**action.body, **_key_of(resource, item.source, action.body), "id": dest_id},
                item.dest_project_id,
            )
            if prepared.deferred:
                states.deferred[source_id] = dest_id
        if outcome == CREATED and resource is AI_SECRETS:
            findings.append(_finding(resource, item, "secret_to_enter", next=NEXT_ACTION[resource.name]))
        log.info(
            "%s %s %r%s", outcome, resource.kind, action.name, f" ({action.reason})" if action.reason else "",
            extra=_extra(outcome, resource, item, dest_id=dest_id, reason=action.reason),
        )  # fmt: skip
    states.note(source_id, findings)


def _key_of(resource: Resource, source: dict, body: Dict[str, Any]) -> Dict[str, Any]:
    origin = body if resource.scope == "object" else source
    return {name: origin.get(name) for name in resource.key}


def _outcome(catalog: Catalog, states: ObjectStates, action: Action) -> str:
    if action.verb == CREATE:
        return WOULD_CREATE if catalog.settings.dry_run else CREATED
    if action.verb == FOUND and action.source_id in states.intended:
        return CREATED
    return action.verb


def _create(
    catalog: Catalog,
    resource: Resource,
    item: Item,
    action: Action,
    copier: Optional[AttachmentCopier],
    findings: List[Dict[str, Any]],
) -> Action:
    """POST the object.

    An existing natural key (made by somebody else a moment ago) comes back unmodified: compared, not claimed.
    """
    if copier:
        findings += _copy_attachments(resource, item, action.body, copier)
    if resource is PROJECT_SETTINGS:
        return _write_settings(catalog, resource, item, action)
    answer = catalog.dest.post(resource.path, action.body)
    made = answer.json
    if answer.headers.get(FOUND_EXISTING, "").lower() in ("true", "1"):
        found = plan_object(resource, item.source, action.body, made)
        return replace(found, body=action.body)
    if resource is PROJECTS:
        catalog.start_empty(made["id"])
    return replace(action, dest_id=made["id"])


def _write_settings(catalog: Catalog, resource: Resource, item: Item, action: Action) -> Action:
    """Settings have no POST: the project's PATCH takes them, replacing all (which is why only projects without any get them)."""
    catalog.dest.patch(f"{resource.path}/{item.dest_project_id}", {"settings": action.body["settings"]})
    return replace(action, dest_id=item.dest_project_id)


def _copy_attachments(resource: Resource, item: Item, body: Dict[str, Any], copier: AttachmentCopier) -> List[Dict[str, Any]]:
    """Copy the bytes that the object refers to; a reference whose bytes could not be copied goes back to the source's key."""
    originals = writable_fields(resource, item.source)
    findings = []
    for path in attachment_places(body):
        original = value_at(originals, path)
        failures = copier.copy_into({"one": dict(original)}) if isinstance(original, dict) else {}
        for key, reason in failures.items():
            value_at(body, path)["key"] = key
            findings.append(_finding(resource, item, "attachment_not_copied", path=str(path), ref=key, detail=reason))
    return findings


# -- second pass


def finish_deferred(catalog: Catalog, resource: Resource, states: ObjectStates) -> None:
    """Complete objects that were made without some references, as far as these exist by now.

    Objects that were found are compared at last.
    """
    for source_id, dest_id in list(states.deferred.items()):
        source = catalog.source_object(resource, source_id)
        if source is None:
            del states.deferred[source_id]
            continue
        project = catalog.resolve(("projects",), source["project_id"]) if resource.scope == "project" else ""
        item = Item(source, states, project or "")
        prepared = prepare(catalog, resource, item)
        try:
            _complete(catalog, resource, item, dest_id, prepared)
        except ApiError as error:
            prepared.findings.append(_finding(resource, item, "reference_not_added", detail=str(error), next="run again"))
        states.note(source_id, _kept_findings(states, source_id) + prepared.findings)
        if not prepared.deferred:
            del states.deferred[source_id]
    states.save()


def _kept_findings(states: ObjectStates, source_id: str) -> List[Dict[str, Any]]:
    """What was noted at creation and is not found again by rewriting."""
    return [one for one in states.findings.get(source_id, []) if one["kind"] in ("secret_to_enter", "attachment_not_copied")]


def _complete(catalog: Catalog, resource: Resource, item: Item, dest_id: str, prepared: Prepared) -> None:
    source_id, states = item.source["id"], item.states
    entry = states.outcomes[source_id]
    existing = catalog.dest.get(f"{resource.path}/{dest_id}")
    method, body = second_pass_body(resource, prepared.body, existing)
    if not body:
        return
    if entry["outcome"] not in (CREATED, UPDATED):
        fields = sorted(set(entry.get("fields", [])) | set(plan_object(resource, item.source, prepared.body, existing).fields))
        states.record(
            source_id, entry["name"], DIFFERS, dest_id=dest_id, reason="exists with other content; left alone", fields=fields
        )
        return
    if method == "PATCH":
        catalog.dest.patch(f"{resource.path}/{dest_id}", body)
    else:
        catalog.dest.put(resource.path, body)
    log.info("completed %s %r", resource.kind, entry["name"], extra=_extra("completed", resource, item, dest_id=dest_id))


def note_deferred(catalog: Catalog, resource: Resource, states: ObjectStates, *, final: bool) -> None:
    """Tell of what still waits: `final` at the end of a whole run (it is unresolved), else of a phase (a later phase may bring
    it).
    """
    for source_id in states.deferred:
        source = catalog.source_object(resource, source_id)
        if source is None:
            continue
        item = Item(source, states)
        prepared = prepare(catalog, resource, item)
        waiting = [
            unresolved_finding(catalog, resource, item, one)
            if final
            else _finding(resource, item, "waits", path=one.path, ref=one.id, detail=" or ".join(one.to))
            for one in prepared.deferred
        ]
        states.note(source_id, _kept_findings(states, source_id) + prepared.findings + waiting)
    states.save()


# -- words


def _finding(resource: Resource, item: Item, kind: str, **more: Any) -> Dict[str, Any]:
    source = item.source
    return finding(
        kind, resource=resource.name, id=source["id"], name=display_name(resource, source), project=item.states.project, **more
    )


def _extra(event: str, resource: Resource, item: Item, **more: Optional[str]) -> Dict[str, Any]:
    """Fields of a JSON log line."""
    facts = {"event": event, "resource": resource.name, "source_id": item.source["id"], "project": item.states.project, **more}
    return {name: value for name, value in facts.items() if value}


def items_of(states: ObjectStates, objects: Iterable[dict], dest_project_id: str = "") -> List[Item]:
    """Items for the objects of one project; `listed` counts them."""
    items = [Item(one, states, dest_project_id) for one in objects]
    states.listed = max(states.listed, len(items))
    return items
