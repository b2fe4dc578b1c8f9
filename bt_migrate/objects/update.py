"""Update an object that exists with other content: PATCH, or PUT where only that can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from bt_migrate.api.client import Api
from bt_migrate.config.values import KEEP_POLICY
from bt_migrate.model.activation import missing_words
from bt_migrate.model.equality import difference_print
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import DIFFERS, READY_TO_ACTIVATE, WAITING
from bt_migrate.model.references import Path, Unresolved, paths_matching, without
from bt_migrate.model.resource import Resource
from bt_migrate.model.resources import pins_rows
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import (
    UPDATE,
    Action,
    conflict_reason,
    differing,
    fingerprint,
    may_hold_secret,
    patched_with,
    settled,
    update_body,
    updated,
    writable_fields,
)
from bt_migrate.objects.prepare import PlannedObject, Prepared
from bt_migrate.objects.version_content import dest_digest
from bt_migrate.objects.write import read_back, replace_object, without_unknown_fields
from bt_migrate.state.object_file import FormerContent
from bt_migrate.state.object_states import ObjectStates

NOT_ALL = "updated, but the API cannot take away what these fields hold beyond"


def decided(catalog: Catalog, resource: Resource, source: JsonObject, action: Action) -> Action:
    """The action that --on-conflict and the fingerprints of earlier runs give.

    An object that would begin to act outside is left until that is asked for.
    """
    if action.verb != DIFFERS:
        return action
    now = fingerprints_of(resource, source, action.existing)
    reason = conflict_reason(catalog.earlier.fingerprints(resource, action.source_id), now)
    result = settled(action, policy_of(catalog, resource), reason)
    if result.verb == UPDATE and words_to_activate(catalog, resource, source, action.existing):
        return replace(action, reason=READY_TO_ACTIVATE)
    return result


def fingerprints_of(
    resource: Resource, source: Mapping[str, Any], existing: Mapping[str, Any]
) -> List[str]:
    """[source's own content, destination's content], to be compared with later ones.

    The source's before any rewriting: a reference that resolves only now is no change there.
    """
    return [fingerprint(resource, source), fingerprint(resource, existing)]


def difference_of(
    resource: Resource,
    source: Optional[Mapping[str, Any]],
    existing: Optional[Mapping[str, Any]],
) -> str:
    """Returns a digest that identifies the difference between two objects, or a missing one."""
    prints = [fingerprint(resource, obj) if obj else "" for obj in (source, existing)]
    return difference_print(*prints)


def fingerprint_of_difference(
    resource: Resource, source: Mapping[str, Any], action: Action, outcome: str
) -> str:
    """The fingerprint by which a person may accept that an object differs, or waits; "" for any
    other.
    """
    is_acceptable = outcome in (DIFFERS, WAITING)
    return difference_of(resource, source, action.existing) if is_acceptable else ""


def words_to_activate(
    catalog: Catalog,
    resource: Resource,
    source: Mapping[str, Any],
    existing: Optional[Mapping[str, Any]],
) -> List[str]:
    """Returns the --activate words without which the object must not be written as in the source.

    What the destination's object does already, it may continue to do.
    """
    does_already = resource.acts(existing) if existing else ()
    return missing_words(resource.acts(source), (*catalog.settings.activate, *does_already))


def policy_of(catalog: Catalog, resource: Resource) -> str:
    return catalog.settings.on_conflict.get(resource.name, KEEP_POLICY)


def remember_fingerprints(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    action: Action,
    *,
    is_left_alone: bool,
) -> None:
    """Note the content of both sides as it is now.

    Of an object that is left alone, keep the content that both sides had when they were equal.
    """
    prints: Optional[List[str]] = fingerprints_of(resource, item.source, action.existing)
    if is_left_alone and action.reason != NOT_ALL:
        prints = catalog.earlier.fingerprints(resource, action.source_id)
    if prints and action.existing:
        record_fingerprints(catalog, resource, item, prints)


def record_fingerprints(
    catalog: Catalog, resource: Resource, item: PlannedObject, prints: List[str]
) -> None:
    """Record the [source, destination] fingerprints of an object as it is now."""
    item.states.fingerprints[item.source["id"]] = prints
    catalog.earlier.note_fingerprints(resource, item.source["id"], prints)


def note_left_out(
    catalog: Catalog, resource: Resource, item: PlannedObject, prepared: Prepared
) -> None:
    """Record the references, versions and fields that an object lacks and that may come later.

    For example a user who is invited, a function whose code a person pushes, the state of a dataset
    whose rows failed, a field that a newer data plane knows; not what the source lost.
    """
    patterns = sorted(catalog.earlier.fields_not_taken(resource))
    fields = [pattern for pattern in patterns if any(paths_matching(prepared.body, pattern))]
    refs = [*_may_come_later(catalog, prepared.left_out), *_late_pins(catalog, resource, prepared)]
    _note_refs(item, [*refs, *fields])


def note_no_place(
    catalog: Catalog, resource: Resource, item: PlannedObject, prepared: Prepared
) -> None:
    """Note the references and versions without which an object cannot be created."""
    refs = _may_come_later(catalog, [*prepared.left_out, *prepared.deferred])
    _note_refs(item, [*refs, *_late_pins(catalog, resource, prepared)])


def _late_pins(catalog: Catalog, resource: Resource, prepared: Prepared) -> List[str]:
    """Returns the paths of versions that were removed and may get a counterpart later."""
    return prepared.pins if pins_rows(resource) or catalog.settings.history else []


def _may_come_later(catalog: Catalog, references: Iterable[Unresolved]) -> List[str]:
    return [
        reference.id
        for reference in references
        if not catalog.targets.is_lost(reference.to, reference.id)
    ]


def _note_refs(item: PlannedObject, refs: List[str]) -> None:
    item.states.left_out.pop(item.source["id"], None)
    if refs:
        item.states.left_out[item.source["id"]] = refs


def note_update(resource: Resource, states: ObjectStates, action: Action) -> bool:
    """Record what the next process and undo need to know if this one is killed in the update.

    Returns whether there is something new to save before the update.
    """
    between = _between_requests(resource, action)
    if between:
        states.begun_versions[action.source_id] = between
    return note_former(resource, states, action) or bool(between)


def _between_requests(resource: Resource, action: Action) -> List[str]:
    """Returns digests of what the object can be after the PUT and before the PATCH of an update."""
    if not resource.patch_only:
        return []
    replaced = resource.without_patch_only(action.body)
    kept = {name: action.existing.get(name) for name in resource.patch_only}
    return [dest_digest(resource, obj) for obj in (replaced, {**replaced, **kept})]


def note_former(resource: Resource, states: ObjectStates, action: Action) -> bool:
    """Record the content of an object before its first update by this run, for undo.

    Returns whether there is something new to save before the update. An object that this run
    created is undone as a whole. Content with a secret is not kept; undo then reports that it is
    not known.
    """
    if (
        action.source_id in states.former
        or states.created_here(action.source_id)
        or may_hold_secret(resource, action.existing)
    ):
        return False
    place = {name: action.body[name] for name in ("project_id", "org_name") if name in action.body}
    states.former[action.source_id] = FormerContent(
        name=action.name,
        id=str(action.dest_id),
        content={**writable_fields(resource, action.existing), **place},
        fingerprint=fingerprint(resource, action.body),
    )
    return True


def update_object(
    dest: Api, resource: Resource, action: Action, postponed: Iterable[str] = ()
) -> Tuple[Action, List[Path]]:
    """Carry out an update. The returned action is `differs` where the API could not do all of it.

    Returns the places of fields, too, that the server refused as unknown. `postponed` fields wait
    for a reference: the second pass writes them.
    """
    waiting = list(postponed)
    written, left_out = _write_update(dest, resource, action, waiting)
    action = replace(action, body=without(action.body, left_out))
    return _after_update(resource, action, waiting, written), left_out


def foreseen_update(resource: Resource, action: Action, postponed: Iterable[str] = ()) -> Action:
    """The action that `update_object` should return, for a plan."""
    if resource.part_of:
        return action
    waiting = list(postponed)
    expected = updated(resource, action.body, action.existing, waiting)
    foreseen = _after_update(resource, action, waiting, expected)
    return replace(foreseen, existing=action.existing)


def _after_update(
    resource: Resource, action: Action, waiting: Sequence[str], existing: Dict[str, Any]
) -> Action:
    fields = differing(resource, action.body, existing, waiting)
    if fields and not waiting:
        fixed = [name for name in fields if name in resource.key and name not in resource.patch]
        reason = f"the API cannot change its {fixed[0]}" if fixed else NOT_ALL
        return replace(action, verb=DIFFERS, reason=reason, fields=tuple(fields), existing=existing)
    return replace(action, existing=existing)


def _write_update(
    dest: Api, resource: Resource, action: Action, postponed: Sequence[str]
) -> Tuple[Dict[str, Any], List[Path]]:
    """Sends the update. Returns the object, and the places of fields that the server refused."""
    path = resource.path_of(str(action.dest_id), str(action.existing.get("project_id")))
    # assumption: settings_are_replaced
    if resource.part_of:
        # The PATCH of the holder replaces the whole part.
        method, body = "PATCH", {name: action.body.get(name) or {} for name in resource.create}
    else:
        method, body = update_body(resource, action.body, action.existing, postponed)
    if not body:
        return dict(action.existing), []
    written, left_out = send_update(dest, resource, (method, path, body), action.existing)
    request = (method, path, without(body, left_out))
    now = read_back(dest, resource, request, action.existing, written)
    late = {name: action.body.get(name) for name in resource.patch_only}
    late = {
        name: value for name, value in late.items() if value is not None and value != now.get(name)
    }
    if method == "PUT" and late:
        body = {**patched_with(resource, action.body), **late}
        written, unknown = send_update(dest, resource, ("PATCH", path, body), now)
        request = ("PATCH", path, without(body, unknown))
        return read_back(dest, resource, request, now, written), [*left_out, *unknown]
    return now, left_out


def send_update(
    dest: Api,
    resource: Resource,
    request: Tuple[str, str, Dict[str, Any]],
    existing: Mapping[str, Any],
) -> Tuple[Dict[str, Any], List[Path]]:
    """Send (method, path, body) without the fields that an older data plane does not know.

    Returns the answer and the places of these fields.
    """
    method, path, body = request

    def send(sent: Dict[str, Any]) -> Dict[str, Any]:
        is_rest = sent is not body
        is_same = not differing(resource, {**existing, **sent}, existing)
        if is_rest and (not sent or (resource.versioned and is_same)):
            # It would only write a version that is equal to the last one.
            return dict(existing)
        if method == "PATCH":
            return dict(dest.patch(path, sent))
        return replace_object(dest, resource, sent, str(existing["id"]))

    return without_unknown_fields(resource, body, send)
