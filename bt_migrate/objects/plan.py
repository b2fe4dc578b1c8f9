"""Plan one object: find its counterpart in the destination, and decide what happens to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, Mapping, Optional, Tuple

from bt_migrate.config.values import FOLLOW_POLICY, UPDATE_POLICY
from bt_migrate.model.findings import FAILURE
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import (
    CREATED,
    DIFFERS,
    READY_TO_ACTIVATE,
    SKIPPED,
    UPDATED,
    WAITING,
)
from bt_migrate.model.resource import OWNER, Resource
from bt_migrate.model.resource_table import CALLABLE
from bt_migrate.model.resources import BY_NAME
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import (
    CREATE,
    UPDATE,
    Action,
    NaturalKey,
    differing,
    fingerprint,
    natural_key,
    plan_object,
)
from bt_migrate.objects.prepare import (
    PlannedObject,
    Prepared,
    drop_pin_findings,
    expected_body,
    missing_places,
    not_placeable,
    not_taken,
    object_finding,
    prepare,
    waiting_finding,
    waits_for,
    with_versions_there,
)
from bt_migrate.objects.proof import is_left_by_killed_process
from bt_migrate.objects.update import decided, fingerprints_of, policy_of, words_to_activate
from bt_migrate.objects.version_content import dest_digest, holds_begun_version
from bt_migrate.state.object_file import Intention

DELETED_THERE = "deleted in the destination"
NEEDED_BY_VERSION = "what one of its versions refers to is not in the destination"


@dataclass(frozen=True)
class ObjectPlan:
    """What is to be done with one object, and what it would send."""

    item: PlannedObject
    action: Action
    prepared: Prepared


def plan_item(catalog: Catalog, resource: Resource, item: PlannedObject) -> ObjectPlan:
    """Plan one object: what is to be done with it, or why it is skipped or waits."""
    prepared = prepare(catalog, resource, item)
    key = dest_key(resource, item.source, prepared.body)
    existing, was_deleted = counterpart(catalog, resource, item, key)
    if resource.part_of and existing and resource.cannot_move(existing):
        existing = None  # the holder has no such part: it can be created
    prepared = with_versions_there(catalog, resource, item, prepared, existing)
    drop_pin_findings(prepared, {path for path, value in (existing or {}).items() if value})
    action, body = _decided_action(catalog, resource, item, prepared, existing)
    prepared.blocked = catalog.histories.failures.get(item.source["id"], "")
    reason = not_placeable(resource, item.source, body)
    awaited = waits_for(resource, prepared) if reason else []
    if item.source["id"] in catalog.histories.waiting:
        reason, awaited = NEEDED_BY_VERSION, catalog.histories.waiting[item.source["id"]]
    writes = action.verb in (CREATE, UPDATE)
    is_held = action.reason == READY_TO_ACTIVATE
    words = words_to_activate(catalog, resource, item.source, existing)
    if was_deleted and not existing and policy_of(catalog, resource) != UPDATE_POLICY:
        reason, awaited = DELETED_THERE, []
        prepared.findings.append(object_finding(resource, item, "deleted_there"))
    elif words and (writes or is_held):
        facts = {"detail": ",".join(words)}
        prepared.findings.append(object_finding(resource, item, "ready_to_activate", **facts))
        reason = READY_TO_ACTIVATE if action.verb == CREATE else ""
        action = replace(action, verb=DIFFERS, reason=READY_TO_ACTIVATE)
    elif writes and not awaited:
        _check_name(catalog, resource, item, ObjectPlan(item, action, prepared))
    if awaited:
        action = replace(action, verb=WAITING, reason=f"{reason} yet")
        drop_pin_findings(prepared, {reference.path for reference in awaited})
        prepared.findings += [
            waiting_finding(catalog, resource, item, reference) for reference in awaited
        ]
    elif reason:
        action = replace(action, verb=SKIPPED, reason=reason)
        prepared.findings = [
            finding for finding in prepared.findings if finding["severity"] != FAILURE
        ]
    return ObjectPlan(item, action, prepared)


def _decided_action(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    prepared: Prepared,
    existing: Optional[Dict[str, Any]],
) -> Tuple[Action, Dict[str, Any]]:
    """Returns what is to be done if nothing stands in the way, and the body expected then.

    The --on-conflict policy does not apply to an object that a killed process of this tool created
    or that an earlier run left incomplete: it is completed.
    """
    body = expected_body(catalog, resource, prepared, existing)
    missing = missing_places(catalog, resource, prepared, existing) if existing else ()
    prepared.findings += [not_taken(resource, item, place) for place in missing]
    action = plan_object(resource, item.source, body, existing, prepared.waiting_fields)
    source_id = item.source["id"]
    intent = item.states.intended.get(source_id)
    intent = intent or catalog.earlier.intended(resource.name, source_id)
    prepared.made_before = bool(
        existing and intent and _is_left_by_killed_process(resource, item, intent, existing)
    )
    if prepared.made_before or is_incomplete(catalog, resource, item, action):
        return action, body
    return decided(catalog, resource, item.source, action), body


def _is_left_by_killed_process(
    resource: Resource, item: PlannedObject, intent: Intention, existing: Dict[str, Any]
) -> bool:
    now = fingerprint(resource, existing)
    if holds_begun_version(resource, item.states, item.source["id"], existing):
        now = intent.fingerprint
    return is_left_by_killed_process(intent, now, existing)


def is_as_begun(
    catalog: Catalog, resource: Resource, item: PlannedObject, existing: Mapping[str, Any]
) -> bool:
    """Whether the destination's object is as this tool left it while it wrote its versions: in this
    run, or in an earlier one after which no run completed the object.
    """
    source_id = item.source["id"]
    if holds_begun_version(resource, item.states, source_id, existing):
        return True
    has_versions = resource.versioned and catalog.settings.history and existing
    if not has_versions or catalog.earlier.fingerprints(resource, source_id):
        return False
    return dest_digest(resource, existing) in catalog.earlier.begun_versions(
        resource.name, source_id
    )


def is_incomplete(
    catalog: Catalog, resource: Resource, item: PlannedObject, action: Action
) -> bool:
    """Whether this tool wrote the object without some references, and nobody changed it since."""
    source_id = item.source["id"]
    if is_as_begun(catalog, resource, item, action.existing):
        return True
    incomplete_id = catalog.earlier.incomplete(resource.name, source_id)
    if incomplete_id is not None and incomplete_id == action.dest_id:
        return not was_changed(catalog, resource, source_id, action.body, action.existing)
    lacks = source_id in item.states.left_out or catalog.earlier.left_out(resource.name, source_id)
    if not lacks and not _was_deferred(item):
        return False
    before = catalog.earlier.fingerprints(resource, source_id)
    return before == fingerprints_of(resource, item.source, action.existing)


def was_changed(
    catalog: Catalog,
    resource: Resource,
    source_id: str,
    desired: Mapping[str, Any],
    existing: Mapping[str, Any],
) -> bool:
    """Whether somebody changed the object since this tool last wrote it, so that completing it
    would overwrite that.

    A process that was killed between PUT and PATCH left what only PATCH takes.
    """
    if set(differing(resource, desired, existing)).issubset(resource.patch_only):
        return False
    before = catalog.earlier.fingerprints(resource, source_id)
    return before is not None and before[1] != fingerprint(resource, existing)


def _was_deferred(item: PlannedObject) -> bool:
    """Whether an earlier sync of this run wrote the object, and its references still wait."""
    source_id = item.source["id"]
    written = item.states.overall(source_id)
    return (
        source_id in item.states.deferred
        and written is not None
        and written.outcome in (CREATED, UPDATED)
    )


def can_be_made_by_hand(resource: Resource, source: JsonObject) -> bool:
    """Whether the API cannot carry the object and a person can create it in the destination."""
    return bool(resource.next_action and resource.cannot_move(source))


def counterpart_id(catalog: Catalog, resource: Resource, item: PlannedObject) -> Optional[str]:
    """Returns the id of the destination's object with this natural key, unless another object of
    the source is mapped to it.
    """
    key = natural_key(resource, item.source)
    existing = catalog.targets.namesake(resource, item.dest_project_id, key, item.source["id"])
    return existing["id"] if existing else None


def dest_key(resource: Resource, source: JsonObject, body: Dict[str, Any]) -> NaturalKey:
    """Returns the natural key in the destination.

    If the key contains ids, they are those of the rewritten body.
    """
    return natural_key(resource, body if resource.key_holds_ids else source)


def counterpart(
    catalog: Catalog, resource: Resource, item: PlannedObject, key: NaturalKey
) -> Tuple[Optional[JsonObject], bool]:
    """Returns (the destination's object, whether an earlier counterpart was deleted).

    The object is the counterpart that an earlier sync recorded, whatever its name is now; else the
    one with the natural `key`, unless it is another object's counterpart.
    """
    source_id = item.source["id"]
    states = item.states
    dest_id = states.dest_id_of(source_id)
    before = states.earlier.get(source_id)
    was_deleted = before is not None and before.reason == DELETED_THERE
    # Planning its versions may have noticed that.
    was_deleted = was_deleted or source_id in states.unlisted
    if dest_id:
        existing = catalog.index.object(resource, item.dest_project_id, dest_id)
        if existing:
            return existing, False
        was_deleted = True
        catalog.ids.remove(resource.name, source_id)
        catalog.versions.forget_all(states, source_id)
        states.forget(source_id)
    return catalog.targets.namesake(resource, item.dest_project_id, key, source_id), was_deleted


def _check_name(
    catalog: Catalog, resource: Resource, item: PlannedObject, plan: ObjectPlan
) -> None:
    """Decide what happens to another object that has the name in the destination.

    If the source renamed or deleted its counterpart and the policy allows to write it, it is
    renamed first. Otherwise the object is blocked.
    """
    action, prepared = plan.action, plan.prepared
    twin = holder_of_slug(catalog, resource, item) if action.verb == CREATE else None
    if twin:
        prepared.blocked = (
            f"its slug is that of {twin.get('name')!r} ({twin['id']}) in the destination, which is"
            " a prompt or function of another kind and would be overwritten; rename one of the two"
        )
        return
    key = dest_key(resource, item.source, action.body)
    there = catalog.index.by_key(resource, item.dest_project_id).get(key)
    if there is None or there["id"] == action.dest_id:
        return
    other = catalog.ids.source_id(resource.name, there["id"])
    if other is None:
        if action.verb != CREATE:
            prepared.blocked = f"its new name is taken in the destination by {there['id']}"
    elif _is_namesake(resource, item, catalog.lists.source_object(resource, other)):
        prepared.blocked = (
            f"the source has another object of that name ({other}); rename one of the two there"
        )
    elif may_rename(catalog, resource, there):
        prepared.namesake = there
    else:
        is_named_once = resource.key[-1] not in resource.patch
        cure = f"delete {there['id']} there, and give" if is_named_once else "rename that one with"
        prepared.blocked = (
            f"its name is taken in the destination by the counterpart of {other}, which the source"
            f" renamed or deleted; {cure} --on-conflict {resource.name}=update"
        )


def _is_namesake(resource: Resource, item: PlannedObject, other: Optional[JsonObject]) -> bool:
    return other is not None and natural_key(resource, other) == natural_key(resource, item.source)


def holder_of_slug(
    catalog: Catalog, resource: Resource, item: PlannedObject
) -> Optional[JsonObject]:
    """Returns the prompt that has the slug of a function, or the reverse.

    The API stores both together. Whether one slug may name both is not known. If the source has
    both, the servers keep them apart.
    """
    if resource.name not in CALLABLE:
        return None
    twin = BY_NAME[next(name for name in CALLABLE if name != resource.name)]
    key = natural_key(twin, item.source)
    in_source = catalog.lists.source_objects(twin, item.source["project_id"])
    if any(natural_key(twin, obj) == key for obj in in_source):
        return None
    there = catalog.index.by_key(twin, item.dest_project_id).get(key)
    own = catalog.index.by_key(resource, item.dest_project_id).get(key)
    # The list of functions shows prompts too.
    return there if not (there and own and there["id"] == own["id"]) else None


def may_rename(catalog: Catalog, resource: Resource, there: JsonObject) -> bool:
    """Whether the policy lets this tool give another name to a counterpart of a source object."""
    other = catalog.ids.source_id(resource.name, there["id"])
    if other is None or resource.scope == OWNER or resource.key[-1] not in resource.patch:
        return False
    policy = policy_of(catalog, resource)
    if policy != FOLLOW_POLICY:
        return policy == UPDATE_POLICY
    before = catalog.earlier.fingerprints(resource, other)
    return before is not None and before[1] == fingerprint(resource, there)
