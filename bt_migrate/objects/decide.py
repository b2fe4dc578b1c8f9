"""Decide what happens to each object: create, found, update, differs, skipped. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from bt_migrate.config.values import FOLLOW_POLICY, UPDATE_POLICY
from bt_migrate.model.equality import canonical, differing_fields, digest, same
from bt_migrate.model.json_object import JsonObject, list_at
from bt_migrate.model.outcomes import DIFFERS, FOUND
from bt_migrate.model.references import paths_matching, value_at
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import SERVER_FIELDS

# The values of the fields that identify an object inside its scope.
NaturalKey = Tuple[Any, ...]

# The verbs of actions; FOUND, DIFFERS and SKIPPED are outcomes too.
CREATE = "create"
UPDATE = "update"

# Members of roles and groups: lists whose order means nothing.
MEMBERS = (
    "member_users", "member_groups", "member_roles", "member_permissions", "member_projects",
)  # fmt: skip
# PATCH cannot set null or remove keys of objects, but these fields take an empty value.
EMPTY: Mapping[str, Any] = {"description": "", "tags": [], "public": False}
OTHER_CONTENT = "exists with other content"
LEFT_ALONE = "left alone"
CHANGED_AT_SOURCE = "changed at the source"


@dataclass(frozen=True)
class Action:
    """What is to be done with one source object.

    `fields` are those that differ, `body` is what POST sends, `existing` is the destination's
    object as it is known. `in_doubt`: POST showed that object, and may have created it.
    """

    resource: str
    source_id: str
    name: str
    verb: str
    reason: str = ""
    fields: Tuple[str, ...] = ()
    dest_id: Optional[str] = None
    body: Dict[str, Any] = field(default_factory=dict)
    existing: Mapping[str, Any] = field(default_factory=dict, compare=False)
    in_doubt: bool = False


def natural_key(resource: Resource, obj: Mapping[str, Any]) -> NaturalKey:
    """What identifies the object in both organizations, inside its scope."""
    key = tuple(obj.get(name) for name in resource.key)
    return tuple(str(part).lower() for part in key) if resource.folds_case else key


def display_name(resource: Resource, obj: Mapping[str, Any]) -> str:
    """The name by which a person knows the object."""
    if resource.grants_access:
        subject = "user" if obj.get("user_id") else "group"
        grants = obj.get("permission") or "role"
        who = f"{subject} {obj.get('user_id') or obj.get('group_id')}"
        return f"{grants} on {obj.get('object_type')} for {who}"
    if obj.get("environment_slug"):
        return f"{obj['environment_slug']} of {obj.get('object_type')} {obj.get('object_id')}"
    return str(obj.get("name") or obj.get("slug") or obj.get("email") or obj.get("id"))


def writable_fields(resource: Resource, obj: Mapping[str, Any]) -> Dict[str, Any]:
    """The fields of a source object that its POST takes, without nulls (null means absent)."""
    return {name: obj[name] for name in resource.create if obj.get(name) is not None}


def lost_fields(resource: Resource, obj: Mapping[str, Any]) -> List[str]:
    """Fields with content that no endpoint takes: the API cannot carry them."""
    if resource.part_of:
        return []  # the fields of the kind of which it is one
    kept = {*resource.create, *resource.server, *SERVER_FIELDS}
    usual = dict(resource.server_values)
    return sorted(
        name
        for name, value in obj.items()
        if name not in kept and value not in (None, {}, [], "", usual.get(name))
    )


def may_hold_secret(resource: Resource, obj: Mapping[str, Any]) -> bool:
    """Whether the object holds a value that must not be written to a file."""
    paths = (path for pattern in resource.secret_paths for path in paths_matching(obj, pattern))
    return any(value_at(obj, path) for path in paths)


def comparable(obj: Mapping[str, Any]) -> Dict[str, Any]:
    """The object with its unordered lists sorted."""
    return {
        name: sorted(value, key=digest) if name in MEMBERS and isinstance(value, list) else value
        for name, value in obj.items()
    }


def differing(
    resource: Resource,
    desired: Mapping[str, Any],
    existing: Mapping[str, Any],
    postponed: Iterable[str] = (),
) -> List[str]:
    """The writable fields in which the destination's object differs, without `postponed` ones.

    Null, absent, empty and false are equal.
    """
    left, right = comparable(desired), comparable(existing)
    passed = {*postponed, *resource.if_ours}
    fields = [name for name in resource.create if name not in passed]
    return [
        name for name in differing_fields(left, right, fields) if left.get(name) or right.get(name)
    ]


def plan_object(
    resource: Resource,
    source: Mapping[str, Any],
    desired: Dict[str, Any],
    existing: Optional[Mapping[str, Any]],
    postponed: Iterable[str] = (),
) -> Action:
    """Create, found or differs, for one object whose references are rewritten.

    `postponed`: fields that still wait for a reference.
    """
    name = display_name(resource, source)
    if existing is None:
        return Action(resource.name, source["id"], name, CREATE, body=desired)
    fields = differing(resource, desired, existing, postponed)
    verb = DIFFERS if fields else FOUND
    reason = f"{OTHER_CONTENT}; {LEFT_ALONE}" if fields else ""
    return Action(
        resource.name,
        source["id"],
        name,
        verb,
        reason,
        tuple(fields),
        existing["id"],
        desired,
        existing,
    )


def fingerprint(resource: Resource, obj: Mapping[str, Any]) -> str:
    """A digest of 32 characters, equal for objects between which `differing` finds nothing."""
    fields = [name for name in resource.create if name not in resource.if_ours]
    return digest(comparable({name: obj[name] for name in fields if obj.get(name)})).hex()


def conflict_reason(before: Optional[Sequence[str]], now: Sequence[str]) -> str:
    """Which side changed since the two were equal.

    Both arguments are fingerprints (source, destination): as this tool last left them, None if it
    never did, and as they are.
    """
    if before is None:
        return OTHER_CONTENT
    source_changed = before[0] != now[0]
    dest_changed = before[1] != now[1]
    if source_changed and dest_changed:
        return "changed on both sides"
    if source_changed:
        return CHANGED_AT_SOURCE
    return "changed at the destination" if dest_changed else "differs as it did before"


def settled(action: Action, policy: str, reason: str) -> Action:
    """Returns the action of the policy for an object that differs; other actions unchanged."""
    if action.verb != DIFFERS:
        return action
    if policy == UPDATE_POLICY or (policy == FOLLOW_POLICY and reason == CHANGED_AT_SOURCE):
        return replace(action, verb=UPDATE, reason=reason)
    return replace(action, reason=f"{reason}; {LEFT_ALONE}")


def dependencies(resource: Resource, obj: Mapping[str, Any], among: Set[str]) -> Set[str]:
    """The ids in `among` (objects of the same resource) that the object refers to."""
    values: List[Any] = []
    for reference in resource.references:
        for path in paths_matching(obj, reference.path):
            values.append(value_at(obj, path))
    ids = {value for value in values if isinstance(value, str)}
    return (ids & among) - {obj["id"]}


def dependency_levels(
    objects: Sequence[JsonObject], depends: Callable[[JsonObject], Set[str]]
) -> List[List[JsonObject]]:
    """Objects in groups, each of which needs only earlier groups. Keeps the order inside a group.

    The members of cycles, and objects that need them, are the last group.
    """
    waiting = {obj["id"]: depends(obj) for obj in objects}
    levels: List[List[JsonObject]] = []
    left = list(objects)
    while left:
        ready = [obj for obj in left if not waiting[obj["id"]]]
        if not ready:
            # A cycle: created without the references, which the second pass adds.
            return [*levels, left]
        levels.append(ready)
        done = {obj["id"] for obj in ready}
        left = [obj for obj in left if obj["id"] not in done]
        for obj in left:
            waiting[obj["id"]] -= done
    return levels


def creation_order(objects: Iterable[JsonObject]) -> List[JsonObject]:
    """Oldest first, by `position` where the kind has one.

    The API lists newest first, and a position cannot be set.
    """
    oldest_first = list(objects)[::-1]
    if all(obj.get("position") for obj in oldest_first):
        return sorted(oldest_first, key=lambda obj: str(obj["position"]))
    return oldest_first


def membership_patch(desired: Mapping[str, Any], existing: Mapping[str, Any]) -> Dict[str, Any]:
    """PATCH body that adds missing members: PATCH of roles and groups has add_… and remove_…."""
    body = {
        f"add_{name}": _lacking(list_at(existing, name), list_at(desired, name)) for name in MEMBERS
    }
    return {name: members for name, members in body.items() if members}


def _has_members(resource: Resource) -> bool:
    return any(name in resource.create for name in MEMBERS)


def owner_fields(resource: Resource, obj: Mapping[str, Any]) -> Dict[str, Any]:
    """The owner, where requests for an object of the kind must name it."""
    return (
        {name: obj[name] for name in ("object_type", "object_id")} if resource.names_owner else {}
    )


def patched_with(resource: Resource, desired: Mapping[str, Any]) -> Dict[str, Any]:
    """What every PATCH of the kind must hold besides the fields that it changes."""
    required = {name: desired[name] for name in resource.patch_required if name in desired}
    return {**owner_fields(resource, desired), **required}


def second_pass_body(
    resource: Resource, desired: Mapping[str, Any], existing: Mapping[str, Any]
) -> Tuple[str, Dict[str, Any]]:
    """Returns (method, body) of the request that adds missing references to an object of ours.

    The body is {} if the object is complete. The method is PATCH if it accepts all the fields; else
    it is PUT (create or replace by natural key), which also accepts the origin of a function.
    """
    fields = differing(resource, desired, existing)
    fields += [name for name in resource.if_ours if desired.get(name) != existing.get(name)]
    if _has_members(resource):
        own = {name: desired[name] for name in fields if name in resource.patch and name in desired}
        return "PATCH", {**own, **membership_patch(desired, existing)}
    if all(name in resource.patch for name in fields):
        body = {name: desired[name] for name in fields if name in desired}
        return "PATCH", {**patched_with(resource, desired), **body} if body else {}
    return "PUT", dict(desired)


# assumption: patch_keeps_other_fields, put_keeps_the_id
def update_body(
    resource: Resource,
    desired: Mapping[str, Any],
    existing: Mapping[str, Any],
    postponed: Sequence[str] = (),
) -> Tuple[str, Dict[str, Any]]:
    """(method, body) that makes an object with other content as equal as the API allows.

    The body is {} where the API allows nothing. PATCH merges objects and cannot remove their keys:
    where that would leave a difference, PUT, which replaces. Not while a reference is `postponed`:
    PUT would remove the destination's.
    """
    fields = differing(resource, desired, existing, postponed)
    body = {name: desired.get(name, EMPTY.get(name)) for name in fields if name in resource.patch}
    body = {
        name: value
        for name, value in body.items()
        if value is not None and not same(_merged(existing.get(name), value), existing.get(name))
    }
    # PUT finds the object that it replaces by its natural key.
    named = natural_key(resource, desired) == natural_key(resource, existing)
    if (
        resource.put
        and named
        and not postponed
        and differing(resource, desired, _patched(desired, existing, body))
    ):
        return "PUT", dict(desired)
    body.update(_membership_change(fields, desired, existing))
    return "PATCH", {**(patched_with(resource, desired) if body else {}), **body}


def updated(
    resource: Resource,
    desired: Mapping[str, Any],
    existing: Mapping[str, Any],
    postponed: Sequence[str] = (),
) -> Dict[str, Any]:
    """The object as an update with `update_body` should leave it."""
    method, body = update_body(resource, desired, existing, postponed)
    return dict(desired) if method == "PUT" else _patched(desired, existing, body)


def not_kept(
    resource: Resource,
    request: Tuple[str, Mapping[str, Any]],
    existing: Mapping[str, Any],
    now: Mapping[str, Any],
) -> List[str]:
    """Returns the fields that (method, body) should have changed and that are as they were."""
    method, body = request
    wanted = dict(existing)
    for name, value in body.items():
        wanted[name] = value if method == "PUT" else _merged(existing.get(name), value)
    for name in MEMBERS:
        added, removed = list_at(body, f"add_{name}"), list_at(body, f"remove_{name}")
        if added or removed:
            wanted[name] = [*_lacking(removed, list_at(existing, name)), *added]
    late = resource.patch_only if method == "PUT" else ()
    changed = differing(resource, wanted, existing, late)
    return [name for name in changed if name not in differing(resource, existing, now)]


def _patched(
    desired: Mapping[str, Any], existing: Mapping[str, Any], body: Mapping[str, Any]
) -> Dict[str, Any]:
    """The object after a PATCH; members are added and removed as desired."""
    members = {name: desired.get(name) for name in MEMBERS}
    return {
        **existing,
        **members,
        **{name: _merged(existing.get(name), value) for name, value in body.items()},
    }


def _merged(old: Any, new: Any) -> Any:
    """A value after a PATCH."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {
        **old,
        **{name: _merged(old.get(name), value) for name, value in new.items() if value is not None},
    }


def _membership_change(
    fields: Iterable[str], desired: Mapping[str, Any], existing: Mapping[str, Any]
) -> Dict[str, Any]:
    body = {}
    for name in MEMBERS:
        wanted, there = list_at(desired, name), list_at(existing, name)
        if name in fields:
            body[f"add_{name}"] = _lacking(there, wanted)
            body[f"remove_{name}"] = _lacking(wanted, there)
    return {name: value for name, value in body.items() if value}


def _lacking(members: Sequence[Any], among: Sequence[Any]) -> List[Any]:
    """Those of `among` that are not members."""
    present = [canonical(member) for member in members]
    return [other for other in among if canonical(other) not in present]
