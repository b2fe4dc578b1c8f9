"""Prepare one object for the destination: rewrite its references, and note what is left out.

The copy sends a prepared object, and the comparison expects it: both take it from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from bt_migrate.attachments.copy import dest_attachment_key
from bt_migrate.model.date_windows import in_window
from bt_migrate.model.findings import ACTION, FAILURE, KINDS, TARGET_LIST_REFUSED, finding
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.notes import print_of_all
from bt_migrate.model.references import (
    Path,
    Rewritten,
    Unresolved,
    attachment_places,
    dotted,
    paths_matching,
    pattern_of,
    rewrite,
    set_at,
    top_field,
    value_at,
    without,
)
from bt_migrate.model.resource import IN_PROJECT, ORGANIZATION, OWNER, PROJECT, Resource
from bt_migrate.model.resource_table import PROJECTS, USERS
from bt_migrate.model.resources import (
    BY_NAME,
    TARGETS_OF_TYPE,
    refers_to_projects,
    resource_around,
)
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import display_name, lost_fields, natural_key, writable_fields
from bt_migrate.objects.pins import awaited_by_pins, map_versions_there, resolve_version
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.sync_marks import ABSENCE_S

# Kinds of findings about versions that were removed.
PIN_FINDINGS = ("version_pin_removed", "state_not_there", "version_not_moved")
NO_STATE = "the destination does not have the version that it names"


@dataclass(frozen=True)
class PlannedObject:
    """A source object, the states that record it, and its destination project ("" for none).

    `known_findings`: what is known of it before it is prepared.
    """

    source: JsonObject
    states: ObjectStates
    dest_project_id: str = ""
    known_findings: Tuple[Dict[str, Any], ...] = ()


@dataclass
class Prepared:
    """An object ready to be planned.

    `body` is what would be sent, `deferred` the references that wait for a target, `left_out` the
    other unresolved ones, `pins` the paths of versions that were removed, `findings` what a person
    must know. `made_before`: a process of this run created the object and died before it could
    record that. `blocked`: why the object cannot be written. `namesake`: the destination's object
    that gets another name first.
    """

    body: Dict[str, Any]
    deferred: List[Unresolved]
    left_out: List[Unresolved]
    findings: List[Dict[str, Any]]
    pins: List[str] = field(default_factory=list)
    made_before: bool = False
    blocked: str = ""
    namesake: Optional[Mapping[str, Any]] = None

    @property
    def waiting_fields(self) -> Set[str]:
        """The fields that hold a reference which waits for its target."""
        return {top_field(reference.path) for reference in self.deferred}


def items_of(
    states: ObjectStates, objects: Iterable[JsonObject], dest_project_id: str = ""
) -> List[PlannedObject]:
    """Returns items for the objects of one project, and counts them in `states.listed`."""
    items = [PlannedObject(source, states, dest_project_id) for source in objects]
    states.listed = max(states.listed, len(items))
    return items


def note_gone(
    catalog: Catalog, resource: Resource, states: ObjectStates, objects: Sequence[JsonObject]
) -> None:
    """Report objects of an earlier sync that are not among `objects`, which this one listed.

    Their counterparts stay.
    """
    if resource.name in catalog.lists.unavailable:
        return
    ids = {obj["id"] for obj in objects}
    now_s = int(catalog.lists.source.clock.earliest_s())
    for source_id, entry in states.over_all_rounds().items():
        if source_id in ids or not entry.dest_id:
            states.absent.pop(source_id, None)
            continue
        # An object may have moved to another project.
        if resource.scope != OWNER and catalog.lists.source_object(resource, source_id):
            continue
        facts = {"id": source_id, "name": entry.name, "project": states.project}
        # One list without it does not prove a deletion: a right may be missing for a night.
        since_s = states.absent.setdefault(source_id, now_s)
        kind = "gone_from_source" if now_s - since_s >= ABSENCE_S else "absent_from_source"
        states.note(source_id, [finding(kind, resource=resource.name, ref=entry.dest_id, **facts)])


def skip_reason(catalog: Catalog, resource: Resource, source: JsonObject) -> str:
    """Returns why an object is not moved, "" if it is."""
    settings = catalog.settings
    window = (settings.created_after, settings.created_before)
    if resource.in_date_window and not in_window(source.get("created"), *window):
        return "outside of the date window"
    reason = resource.cannot_move(source) or ""
    if reason and resource.part_of:
        # A part without content is moved too if the destination's has content.
        existing = catalog.index.by_key(resource).get(natural_key(resource, source))
        return "" if existing and not resource.cannot_move(existing) else reason
    return reason


def prepare(catalog: Catalog, resource: Resource, item: PlannedObject) -> Prepared:
    """Rewrite one object for the destination.

    Attachment keys are replaced here; the bytes follow when the object is created.
    """
    source = item.source
    rewritten = rewrite(
        writable_fields(resource, source),
        resource,
        resolve=catalog.targets.resolve,
        known_ids=catalog.targets.known_ids(),
        resolve_version=partial(resolve_version, catalog),
    )
    rewritten.unresolved += awaited_by_pins(catalog, resource, source, rewritten.pins)
    named = _unresolved_name(catalog, resource, source)
    if named:
        del rewritten.value[named.path]
        rewritten.unresolved.append(named)
    deferred = [
        reference
        for reference in rewritten.unresolved
        if catalog.targets.may_resolve_later(reference.to, reference.id)
        and not _is_unselected_member(catalog, resource, reference)
    ]
    left_out = [reference for reference in rewritten.unresolved if reference not in deferred]
    # Texts that still name the source are reported as such, and completed like what was left out.
    left_out += rewritten.in_queries
    findings = list(item.known_findings)
    findings += _rewriting_findings(catalog, resource, item, rewritten, left_out)
    body = {name: value for name, value in rewritten.value.items() if value is not None}
    if not catalog.settings.keep_public and body.pop("public", None):
        findings.append(object_finding(resource, item, "made_private", path="public"))
    _rename_projects(catalog, resource, body)
    for path in attachment_places(body):
        reference = value_at(body, path)
        reference["key"] = dest_attachment_key(catalog.dest.org_id, reference["key"])
    findings += _field_findings(catalog, resource, item)
    body.update(_scope_fields(catalog, resource, item))
    return Prepared(body, deferred, left_out, findings, rewritten.pins)


def with_versions_there(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    prepared: Prepared,
    existing: Optional[Mapping[str, Any]],
) -> Prepared:
    """Returns the object with the versions that the destination's object names already, if they are
    the right ones.
    """
    if existing and prepared.pins and map_versions_there(catalog, resource, item.source, existing):
        return prepare(catalog, resource, item)
    return prepared


def _unresolved_name(
    catalog: Catalog, resource: Resource, source: JsonObject
) -> Optional[Unresolved]:
    """Returns the reference of an object that names another one by its key, such as an environment,
    if that is not in the destination.
    """
    if not resource.needs_kind:
        return None
    kind, path = BY_NAME[resource.needs_kind], resource.key[-1]
    for obj in catalog.lists.source_list_or_empty(kind):
        if obj.get(kind.key[0]) == source.get(path):
            is_there = catalog.targets.resolve((kind.name,), obj["id"])
            return None if is_there else Unresolved(path, (kind.name,), obj["id"])
    return None


def _scope_fields(catalog: Catalog, resource: Resource, item: PlannedObject) -> Dict[str, Any]:
    """Returns the field that names the project or the organization of the object."""
    if resource.listed == IN_PROJECT or resource.inside:
        return {}  # the path, or another object, names the project
    if resource.scope == PROJECT:
        return {"project_id": item.dest_project_id}
    if resource.needs_org_id:
        return {"org_id": catalog.dest.org_id}
    if resource.scope == ORGANIZATION and catalog.dest.org_name:
        return {"org_name": catalog.dest.org_name}
    return {}


def _field_findings(
    catalog: Catalog, resource: Resource, item: PlannedObject
) -> Iterator[Dict[str, Any]]:
    """Returns findings for fields that are not written; for an unknown field once per kind."""
    for name in lost_fields(resource, item.source):
        if name in resource.unwritable:
            facts = {"path": name, "detail": "no endpoint takes this field"}
            yield object_finding(resource, item, "field_not_writable", **facts)
        elif catalog.first_with_field(resource, name, item.source["id"]):
            facts = {"path": name, "detail": f"new field {name!r} on {resource.name}: not carried"}
            yield object_finding(resource, item, "new_field", **facts)


def _rename_projects(catalog: Catalog, resource: Resource, body: Dict[str, Any]) -> None:
    """Replace the names of renamed projects in the object."""
    new_names = catalog.settings.rename_projects
    for pattern in resource.project_names:
        for path in paths_matching(body, pattern):
            name = value_at(body, path)
            if isinstance(name, str) and name in new_names:
                set_at(body, path, new_names[name])


def _rewriting_findings(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    rewritten: Rewritten,
    left_out: Sequence[Unresolved],
) -> Iterator[Dict[str, Any]]:
    waiting = {reference.path for reference in rewritten.unresolved}
    for path in () if "object_id" in waiting else rewritten.pins:
        if path in waiting:
            continue
        kind, detail = "version_pin_removed", "it named a transaction of the source"
        if path in resource.needed:
            kind, detail = resource.without_version, _version_of(catalog, item)
        yield object_finding(resource, item, kind, path=path, detail=detail)
    for path, source_id in rewritten.free_text:
        yield object_finding(resource, item, "source_id_in_text", path=path, ref=source_id)
    for reference in left_out:
        # Without its user, a project belongs to the user of the key, as all other objects do.
        if reference.in_text or reference.path in resource.if_ours:
            continue
        if _is_unselected_member(catalog, resource, reference):
            project = catalog.lists.source_object(PROJECTS, reference.id) or {}
            facts = {"path": reference.path, "ref": reference.id}
            name = project.get("name")
            yield object_finding(resource, item, "project_not_selected", **facts, detail=name)
        else:
            yield unresolved_finding(catalog, resource, item, reference)


def _is_unselected_member(catalog: Catalog, resource: Resource, reference: Unresolved) -> bool:
    """Whether an object of the organization refers to a project that is not selected."""
    names_project = reference.to == (PROJECTS.name,) and refers_to_projects(resource)
    return names_project and not catalog.lists.is_selected(reference.id)


def _version_of(catalog: Catalog, item: PlannedObject) -> str:
    """Returns the object whose version is named, "" if only one kind can be."""
    source_id = str(item.source.get("object_id"))
    for name in TARGETS_OF_TYPE.get(str(item.source.get("object_type")), ()):
        owner = catalog.lists.source_object(BY_NAME[name], source_id)
        if owner:
            return f"{item.source['object_type']} {display_name(BY_NAME[name], owner)!r}"
    return NO_STATE


def unresolved_finding(
    catalog: Catalog, resource: Resource, item: PlannedObject, reference: Unresolved
) -> Dict[str, Any]:
    """The finding for a reference that was left out for good."""
    kind, detail = judge_unresolved(catalog, reference.to, reference.id)
    facts = {"path": reference.path, "ref": reference.id, "detail": detail}
    if KINDS[kind].severity == FAILURE:  # a person may accept that
        facts["fingerprint"] = print_of_all([f"{reference.path} {reference.id}"])
    return object_finding(resource, item, kind, **facts)


# assumption: unknown_references_are_refused
def judge_unresolved(catalog: Catalog, targets: Tuple[str, ...], source_id: str) -> Tuple[str, str]:
    """Returns (kind of finding, detail) for a reference that was left out for good.

    It is a failure, unless the API cannot carry its target, or the target is missing in the source.
    """
    reason = catalog.targets.reason_not_movable(targets, source_id)
    refused = [
        f"{refusal.name_of(BY_NAME[name])}: {refusal.error}"
        for name in targets
        for refusal in catalog.lists.refusals.get(name, ())
    ]
    if refused and not reason:
        return TARGET_LIST_REFUSED, refused[0]
    if targets == (USERS.name,):
        return "user_without_counterpart", reason
    if reason:
        return "reference_to_unmovable", reason
    if catalog.targets.is_lost(targets, source_id):
        return "lost_at_source", f"the source has no {' or '.join(targets)} of that id"
    wanted = " or ".join(targets) or "known kind"
    return "unresolved_reference", f"no {wanted} of that id could be found in the destination"


def expected_body(
    catalog: Catalog,
    resource: Resource,
    prepared: Prepared,
    existing: Optional[Mapping[str, Any]],
) -> Dict[str, Any]:
    """Returns what the destination's object should contain.

    Where a reference or a version was left out, any value in the destination is right: the server
    sets the caller as the user of a view, a person entered the counterpart by hand, or an earlier
    run knew the version. A field that an older data plane does not know and does not show is not
    expected.
    """
    if existing is None:
        return prepared.body
    missing = missing_places(catalog, resource, prepared, existing)
    left_out = [
        *(reference.path for reference in prepared.left_out),
        *prepared.pins,
        *map(dotted, missing),
        *(name for name in resource.callers if prepared.body.get(name) is None),
    ]
    fields = [path for path in left_out if path in existing]
    existing_values = {name: existing[name] for name in fields if existing[name] is not None}
    return {**without(prepared.body, missing), **existing_values}


def missing_places(
    catalog: Catalog, resource: Resource, prepared: Prepared, existing: Mapping[str, Any]
) -> List[Path]:
    """Returns the places of fields that the destination refused as unknown and does not show.

    It may show the default, or another reference: it sets the caller as the user of a view.
    """
    references = {reference.path for reference in resource.references}
    missing = []
    for pattern in sorted(catalog.earlier.fields_not_taken(resource)):
        for place in paths_matching(prepared.body, pattern):
            value = value_at(existing, place)
            differs = value != value_at(prepared.body, place)
            if value is None or (differs and (value is False or pattern in references)):
                missing.append(place)
    return missing


def note_not_taken(
    catalog: Catalog, resource: Resource, item: PlannedObject, places: Sequence[Path]
) -> List[Dict[str, Any]]:
    """Record that the destination refused these fields as unknown. Returns the findings."""
    catalog.earlier.note_not_taken(resource, [pattern_of(place) for place in places])
    return [not_taken(resource, item, place) for place in places]


def not_taken(resource: Resource, item: PlannedObject, place: Path) -> Dict[str, Any]:
    return object_finding(resource, item, "field_not_taken", path=dotted(place))


def drop_pin_findings(prepared: Prepared, paths: Set[str]) -> None:
    """Remove findings about versions at places where the destination has one, or will have."""
    prepared.findings = [
        record
        for record in prepared.findings
        if record["kind"] not in PIN_FINDINGS or record["path"] not in paths
    ]


def not_placeable(resource: Resource, source: JsonObject, body: Mapping[str, Any]) -> str:
    """Returns why an object without some references must not be created, "" if it may.

    An ACL without its user, group or role would grant something else.
    """
    if resource.scope == OWNER and not body.get("object_id"):
        return f"its {source.get('object_type')} is not in the destination"
    missing = {name for name in resource.needed if source.get(name) and not body.get(name)}
    if resource.inside in missing:
        return f"its {resource_around(resource).kind} is not in the destination"
    if resource.needs_kind and resource.key[-1] in missing:
        return f"its {BY_NAME[resource.needs_kind].kind} is not in the destination"
    if missing & {pin.path for pin in resource.pins}:
        return NO_STATE
    return "its user, group or role is not in the destination" if missing else ""


def waits_for(resource: Resource, prepared: Prepared) -> List[Unresolved]:
    """Returns the references that the object needs and whose targets may still be created."""
    needed = {*resource.needed, "object_id"} if resource.scope == OWNER else set(resource.needed)
    return [reference for reference in prepared.deferred if reference.path in needed]


def waiting_finding(
    catalog: Catalog, resource: Resource, item: PlannedObject, reference: Unresolved
) -> Dict[str, Any]:
    """Returns the finding for a reference whose target may still be created.

    It names the command that does so. A plan of one phase is complete although another phase comes
    first.
    """
    facts = {"path": reference.path, "ref": reference.id, "detail": " or ".join(reference.to)}
    facts["fingerprint"] = print_of_all([f"{reference.path} {reference.id}"])
    if catalog.settings.dry_run:
        facts["severity"] = ACTION
    return object_finding(resource, item, "waits", **facts, next=next_of_waiting(reference.to))


def next_of_waiting(targets: Tuple[str, ...]) -> str:
    """Returns the commands that create the targets and add the references."""
    phases = {BY_NAME[target].phase: None for target in targets if target in BY_NAME}
    commands = [f"bin/{phase}" for phase in phases if phase]
    return f"run {' and '.join(commands) or 'bin/migrate-all'}, then the same command again"


def not_readable(resource: Resource, item: PlannedObject, reason: Optional[str]) -> Dict[str, Any]:
    """The finding for an object that the API cannot carry, but a person can create."""
    facts = {"path": "function_data", "detail": reason, "next": resource.next_action}
    return object_finding(resource, item, "not_readable", **facts)


def object_finding(
    resource: Resource, item: PlannedObject, kind: str, **facts: Any
) -> Dict[str, Any]:
    """Returns a finding that names the object."""
    source = item.source
    return finding(
        kind,
        resource=resource.name,
        id=source["id"],
        name=display_name(resource, source),
        project=item.states.project,
        **facts,
    )
