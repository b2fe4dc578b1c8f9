"""One object made ready for the destination: its references rewritten, and what a person should know of that.

The copy sends it, the comparison expects it: both take it from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, Iterator, List, Sequence

from bt_migrate.attachments.copy import dest_key
from bt_migrate.model.date_windows import in_window
from bt_migrate.model.findings import finding
from bt_migrate.model.references import (
    Rewritten,
    Unresolved,
    attachment_places,
    paths_matching,
    rewrite,
    set_at,
    value_at,
)
from bt_migrate.model.resource import OWNER, Resource
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import display_name, lost_fields, natural_key, writable_fields
from bt_migrate.state.object_states import ObjectStates


@dataclass(frozen=True)
class PlannedObject:
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
    made_before: bool = False  # by a process of this run that died before it could say so
    blocked: str = ""  # why it cannot be written


def items_of(
    states: ObjectStates, objects: Iterable[dict], dest_project_id: str = ""
) -> List[PlannedObject]:
    """Items for the objects of one project; `listed` counts them."""
    items = [PlannedObject(one, states, dest_project_id) for one in objects]
    states.listed = max(states.listed, len(items))
    return items


def note_gone(
    catalog: Catalog, resource: Resource, states: ObjectStates, objects: Sequence[dict]
) -> None:
    """Tell of what an earlier round found in the source and this one, which lists `objects`, does not: its counterpart stays."""
    if resource.name in catalog.unavailable:
        return
    ids = {one["id"] for one in objects}
    for source_id, entry in states.known().items():
        there = source_id in ids or (
            resource.scope != OWNER and catalog.source_object(resource, source_id)
        )
        if entry.get("dest_id") and not there:
            facts = {
                "resource": resource.name,
                "id": source_id,
                "name": entry["name"],
                "project": states.project,
            }
            states.note(source_id, [finding("gone_from_source", **facts, ref=entry["dest_id"])])


def skip_reason(catalog: Catalog, resource: Resource, source: dict) -> str:
    """Why an object is not moved, "" if it is."""
    settings = catalog.settings
    if resource.in_date_window and not in_window(
        source.get("created"), settings.created_after, settings.created_before
    ):
        return "outside of the date window"
    reason = resource.cannot_move(source)
    if reason and resource.part_of:  # no settings are a content too, where the destination has some
        existing = catalog.dest_by_key(resource).get(natural_key(resource, source))
        return "" if existing and not resource.cannot_move(existing) else reason
    return reason or ""


def prepare(catalog: Catalog, resource: Resource, item: PlannedObject) -> Prepared:
    """Rewrite one object for the destination. Attachment keys get their new names here; the bytes follow when it is created."""
    source = item.source
    fields = writable_fields(resource, source)
    rewritten = rewrite(
        fields, resource.references, resource.pins, resolve=catalog.resolve, known=catalog.known()
    )
    # views and ACLs come last: nothing that they could wait for is still to come
    deferred = [
        one
        for one in rewritten.unresolved
        if resource.scope != OWNER and catalog.may_come(one.to, one.id)
    ]
    findings = list(_rewriting_findings(catalog, resource, item, rewritten, deferred))
    body = {name: value for name, value in rewritten.value.items() if value is not None}
    if not catalog.settings.keep_public and body.pop("public", None):
        findings.append(object_finding(resource, item, "made_private", path="public"))
    for path in (
        path for pattern in resource.project_names for path in paths_matching(body, pattern)
    ):
        name = value_at(body, path)
        set_at(
            body,
            path,
            catalog.settings.rename_projects.get(name, name) if isinstance(name, str) else name,
        )
    for path in attachment_places(body):
        reference = value_at(body, path)
        reference["key"] = dest_key(catalog.dest.org_id, reference["key"])
    lost = lost_fields(resource, source)
    findings += [
        object_finding(
            resource, item, "field_not_writable", path=name, detail="no endpoint takes this field"
        )
        for name in lost
    ]
    if resource.scope == "project":
        body["project_id"] = item.dest_project_id
    elif resource.scope == "organization" and catalog.dest.org_name:
        body["org_name"] = catalog.dest.org_name
    return Prepared(body, deferred, findings)


def _rewriting_findings(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    rewritten: Rewritten,
    deferred: Sequence[Unresolved],
) -> Iterator[Dict[str, Any]]:
    for path in rewritten.pins:
        yield object_finding(
            resource,
            item,
            "version_pin_removed",
            path=path,
            detail="it named a transaction of the source",
        )
    for path, found in rewritten.free_text:
        yield object_finding(resource, item, "source_id_in_text", path=path, ref=found)
    for one in rewritten.unresolved:
        if one not in deferred:
            yield unresolved_finding(catalog, resource, item, one)


def unresolved_finding(
    catalog: Catalog, resource: Resource, item: PlannedObject, one: Unresolved
) -> Dict[str, Any]:
    """The record of a reference that was left out for good; a failure unless the API cannot carry its target by nature."""
    reason = catalog.cannot_come(one.to, one.id)
    kind = (
        "user_without_counterpart"
        if one.to == ("users",)
        else "reference_to_unmovable"
        if reason
        else "unresolved_reference"
    )
    detail = (
        reason
        or f"no {' or '.join(one.to) or 'known kind'} of that id could be found in the destination"
    )
    return object_finding(resource, item, kind, path=one.path, ref=one.id, detail=detail)


def not_placeable(resource: Resource, source: dict, body: Dict[str, Any]) -> str:
    """Why a view or ACL has no place in the destination, "" if it has.

    An ACL without its user, group or role would grant something else.
    """
    if resource.scope == OWNER and not body.get("object_id"):
        return f"its {source.get('object_type')} is not in the destination"
    if any(source.get(name) and not body.get(name) for name in resource.needed):
        return "its user, group or role is not in the destination"
    return ""


def object_finding(
    resource: Resource, item: PlannedObject, kind: str, **more: Any
) -> Dict[str, Any]:
    """A finding that names the object."""
    source = item.source
    return finding(
        kind,
        resource=resource.name,
        id=source["id"],
        name=display_name(resource, source),
        project=item.states.project,
        **more,
    )
