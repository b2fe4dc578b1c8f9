"""Decide what happens to each object: create, found, update, differs, skipped. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from bt_migrate.model.equality import canonical, differing_fields, digest, same
from bt_migrate.model.references import paths_matching, value_at
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import SERVER_FIELDS

CREATE, FOUND, UPDATE, DIFFERS, SKIPPED = "create", "found", "update", "differs", "skipped"

UNORDERED = frozenset(
    ("member_users", "member_groups", "member_roles", "member_permissions")
)  # lists that are sets
MEMBERS = ("member_users", "member_groups", "member_roles", "member_permissions")
# PATCH cannot set null or remove keys of objects, but these take an empty value of their own kind.
EMPTY: Mapping[str, Any] = {"description": "", "tags": [], "public": False}
OTHER_CONTENT = "exists with other content"
LEFT_ALONE = "left alone"


@dataclass(frozen=True)
class Action:
    """What is to be done with one source object. `fields` are those that differ; `body` is what POST sends; `existing` is the
    destination's object as it is known.
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


def natural_key(resource: Resource, obj: Mapping[str, Any]) -> Tuple[Any, ...]:
    """What makes the object the same one in both organizations, inside its scope."""
    return tuple(obj.get(name) for name in resource.key)


def display_name(resource: Resource, obj: Mapping[str, Any]) -> str:
    """What a person calls it."""
    if resource.name == "acls":
        subject = "user" if obj.get("user_id") else "group"
        grants = obj.get("permission") or "role"
        return f"{grants} on {obj.get('object_type')} for {subject} {obj.get('user_id') or obj.get('group_id')}"
    return str(obj.get("name") or obj.get("slug") or obj.get("email") or obj.get("id"))


def writable_fields(resource: Resource, obj: Mapping[str, Any]) -> Dict[str, Any]:
    """The fields of a source object that its POST takes, without nulls (an absent field is a null one)."""
    return {name: obj[name] for name in resource.create if obj.get(name) is not None}


def lost_fields(resource: Resource, obj: Mapping[str, Any]) -> List[str]:
    """Fields that hold something and that no endpoint takes: what this API cannot carry of the object."""
    kept = {*resource.create, *resource.server, *SERVER_FIELDS}
    return sorted(
        name for name, value in obj.items() if name not in kept and value not in (None, {}, [], "")
    )


def may_hold_secret(resource: Resource, obj: Mapping[str, Any]) -> bool:
    """Whether the object holds a value that must not be written to a file."""
    paths = (path for pattern in resource.secret_paths for path in paths_matching(obj, pattern))
    return any(value_at(obj, path) for path in paths)


def comparable(obj: Mapping[str, Any]) -> Dict[str, Any]:
    """The object with its unordered lists in one order."""
    return {
        name: sorted(value, key=repr) if name in UNORDERED and value else value
        for name, value in obj.items()
    }


def differing(
    resource: Resource,
    desired: Mapping[str, Any],
    existing: Mapping[str, Any],
    postponed: Iterable[str] = (),
) -> List[str]:
    """The writable fields in which the destination's object differs; `postponed` ones still wait for a reference.

    What the source does not say is compared only where the destination says something: null, absent, empty and false are one.
    """
    left, right = comparable(desired), comparable(existing)
    fields = [name for name in resource.create if name not in set(postponed)]
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
    """Create, found or differs for one object whose references are rewritten."""
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
    """Equal for objects between which `differing` finds nothing: one side's content after remapping, in 32 characters."""
    return digest(comparable({name: obj[name] for name in resource.create if obj.get(name)})).hex()


def conflict_reason(before: Optional[Sequence[str]], now: Sequence[str]) -> str:
    """Which side made the two differ. `before` and `now`: fingerprints (source, destination), as this tool last left them (None if it
    never did) and as they are.
    """
    if before is None:
        return OTHER_CONTENT
    source, dest = before[0] != now[0], before[1] != now[1]
    if source and dest:
        return "changed on both sides"
    return (
        "changed at the source"
        if source
        else "changed at the destination"
        if dest
        else "differs as it did before"
    )


def settled(action: Action, policy: str, reason: str) -> Action:
    """What the policy makes of an object that differs; the others stay as they are."""
    if action.verb != DIFFERS:
        return action
    if policy == UPDATE:
        return replace(action, verb=UPDATE, reason=reason)
    return replace(action, reason=f"{reason}; {LEFT_ALONE}")


def dependencies(resource: Resource, obj: Mapping[str, Any], among: Set[str]) -> Set[str]:
    """The ids in `among` (objects of the same resource) that the object refers to."""
    found = set()
    for reference in resource.references:
        for path in paths_matching(obj, reference.path):
            found.add(value_at(obj, path))
    return {one for one in found if isinstance(one, str) and one in among and one != obj["id"]}


def dependency_levels(
    objects: Sequence[dict], depends: Callable[[dict], Set[str]]
) -> List[List[dict]]:
    """Objects in groups, each of which needs only earlier groups; the members of cycles, and what hangs on them, come last as
    one.

    Keeps the given order inside a group.
    """
    waiting = {obj["id"]: depends(obj) for obj in objects}
    levels: List[List[dict]] = []
    left = list(objects)
    while left:
        ready = [obj for obj in left if not waiting[obj["id"]]]
        if not ready:  # a cycle: made without the references, which a second pass adds
            return [*levels, left]
        levels.append(ready)
        done = {obj["id"] for obj in ready}
        left = [obj for obj in left if obj["id"] not in done]
        for obj in left:
            waiting[obj["id"]] -= done
    return levels


def creation_order(objects: Iterable[dict]) -> List[dict]:
    """Oldest first, by `position` where the kind has one: the API lists newest first and cannot be told a position."""
    oldest_first = list(objects)[::-1]
    if all(obj.get("position") for obj in oldest_first):
        return sorted(oldest_first, key=lambda obj: str(obj["position"]))
    return oldest_first


def membership_patch(desired: Mapping[str, Any], existing: Mapping[str, Any]) -> Dict[str, Any]:
    """PATCH body that adds the members an existing role or group lacks: PATCH knows add_… and remove_… only."""
    body = {}
    for name in MEMBERS:
        missing = [one for one in desired.get(name) or [] if one not in (existing.get(name) or [])]
        if missing:
            body[f"add_{name}"] = missing
    return body


def second_pass_body(
    resource: Resource, desired: Mapping[str, Any], existing: Mapping[str, Any]
) -> Tuple[str, Dict[str, Any]]:
    """(method, body) that brings an object of ours, made without some references, to its full content; body {} if it has it
    already.

    PATCH where it takes all the fields; else PUT (create or replace by natural key), which also takes a function's origin.
    """
    if resource.name in ("roles", "groups"):
        return "PATCH", membership_patch(desired, existing)
    fields = differing(resource, desired, existing)
    if all(name in resource.patch for name in fields):  # an empty list too: nothing to do
        return "PATCH", {name: desired[name] for name in fields if name in desired}
    return "PUT", dict(desired)


def update_body(
    resource: Resource,
    desired: Mapping[str, Any],
    existing: Mapping[str, Any],
    postponed: Sequence[str] = (),
) -> Tuple[str, Dict[str, Any]]:
    """(method, body) that brings an object with other content as near to the desired one as the API lets us; body {} for not at all.

    PATCH merges objects and cannot remove their keys: where that would leave something, PUT, which replaces. Not while a reference
    is `postponed`: PUT would take the destination's away.
    """
    fields = differing(resource, desired, existing, postponed)
    body = {name: desired.get(name, EMPTY.get(name)) for name in fields if name in resource.patch}
    body = {
        name: value
        for name, value in body.items()
        if value is not None and not same(_merged(existing.get(name), value), existing.get(name))
    }
    named = natural_key(resource, desired) == natural_key(
        resource, existing
    )  # by it PUT finds what it replaces
    if (
        resource.put
        and named
        and not postponed
        and differing(resource, desired, _patched(desired, existing, body))
    ):
        return "PUT", dict(desired)
    body.update(_membership_change(fields, desired, existing))
    owner = (
        {name: desired[name] for name in ("object_type", "object_id")}
        if body and resource.names_owner
        else {}
    )
    return "PATCH", {**owner, **body}


def updated(
    resource: Resource,
    desired: Mapping[str, Any],
    existing: Mapping[str, Any],
    postponed: Sequence[str] = (),
) -> Dict[str, Any]:
    """The object as `update_body` should leave it."""
    method, body = update_body(resource, desired, existing, postponed)
    return dict(desired) if method == "PUT" else _patched(desired, existing, body)


def _patched(
    desired: Mapping[str, Any], existing: Mapping[str, Any], body: Mapping[str, Any]
) -> Dict[str, Any]:
    """What PATCH makes of an object; members are added and removed as is desired."""
    members = {name: desired.get(name) for name in MEMBERS}
    return {
        **existing,
        **members,
        **{name: _merged(existing.get(name), value) for name, value in body.items()},
    }


def _merged(old: Any, new: Any) -> Any:
    """What PATCH makes of a value."""
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
        wanted, there = desired.get(name) or [], existing.get(name) or []
        if name in fields:
            body[f"add_{name}"] = _lacking(there, wanted)
            body[f"remove_{name}"] = _lacking(wanted, there)
    return {name: value for name, value in body.items() if value}


def _lacking(members: Sequence[Any], among: Sequence[Any]) -> List[Any]:
    """Those of `among` that are no members."""
    known = [canonical(one) for one in members]
    return [one for one in among if canonical(one) not in known]
