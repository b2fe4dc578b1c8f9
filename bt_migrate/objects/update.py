"""Bring an object that exists with other content to the source's: PATCH, or PUT where only that can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Iterable, Sequence

from bt_migrate.api.client import Api
from bt_migrate.config.values import KEEP_POLICY
from bt_migrate.model.resource import Resource
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import (
    DIFFERS,
    Action,
    conflict_reason,
    differing,
    fingerprint,
    may_hold_secret,
    settled,
    update_body,
    updated,
    writable_fields,
)
from bt_migrate.state.object_states import ObjectStates

NOT_ALL = "updated, but the API cannot take away what these fields hold beyond"


def decided(catalog: Catalog, resource: Resource, action: Action) -> Action:
    """The action with what --on-conflict and the memory of earlier runs make of it."""
    if action.verb != DIFFERS:
        return action
    now = (fingerprint(resource, action.body), fingerprint(resource, action.existing))
    reason = conflict_reason(catalog.last_fingerprints(resource, action.source_id), now)
    return settled(action, policy_of(catalog, resource), reason)


def policy_of(catalog: Catalog, resource: Resource) -> str:
    return catalog.settings.on_conflict.get(resource.name, KEEP_POLICY)


def remember_fingerprints(
    catalog: Catalog, resource: Resource, states: ObjectStates, action: Action, *, left: bool
) -> None:
    """Note both sides as they are now; of what was `left` alone, as they were when they last agreed."""
    prints = [fingerprint(resource, action.body), fingerprint(resource, action.existing)]
    before = (
        catalog.last_fingerprints(resource, action.source_id)
        if left and action.reason != NOT_ALL
        else prints
    )
    if before and action.existing:
        states.fingerprints[action.source_id] = before


def note_former(resource: Resource, states: ObjectStates, action: Action) -> bool:
    """Keep what an object is before this run updates it, for an undo; whether that is news, to be saved before the update. What a
    round before this one created goes as a whole. An address that may hold a secret is not kept: then it is not known what it was.
    """
    if (
        action.source_id in states.former
        or states.made(action.source_id)
        or may_hold_secret(resource, action.existing)
    ):
        return False
    place = {name: action.body[name] for name in ("project_id", "org_name") if name in action.body}
    states.former[action.source_id] = {
        "name": action.name,
        "id": action.dest_id,
        "content": {**writable_fields(resource, action.existing), **place},
        "fingerprint": fingerprint(resource, action.body),
    }
    return True


def update_object(
    dest: Api, resource: Resource, action: Action, postponed: Iterable[str] = ()
) -> Action:
    """Carry out an update; the action as it then is: differs where something could not be brought over.

    What waits for a reference is left to the second pass.
    """
    waiting = list(postponed)
    return _as_left(resource, action, waiting, _written(dest, resource, action, waiting))


def foreseen_update(resource: Resource, action: Action, postponed: Iterable[str] = ()) -> Action:
    """What `update_object` should make of it, for a plan."""
    if resource.part_of:
        return action
    waiting = list(postponed)
    left = _as_left(
        resource, action, waiting, updated(resource, action.body, action.existing, waiting)
    )
    return replace(left, existing=action.existing)


def _as_left(
    resource: Resource, action: Action, waiting: Sequence[str], existing: Dict[str, Any]
) -> Action:
    fields = differing(resource, action.body, existing, waiting)
    if fields and not waiting:
        fixed = [name for name in fields if name in resource.key and name not in resource.patch]
        reason = f"the API cannot change its {fixed[0]}" if fixed else NOT_ALL
        return replace(action, verb=DIFFERS, reason=reason, fields=tuple(fields), existing=existing)
    return replace(action, existing=existing)


def _written(dest: Api, resource: Resource, action: Action, postponed: list) -> Dict[str, Any]:
    """The object after the write, as the server tells it."""
    path = f"{resource.path}/{action.dest_id}"
    if resource.part_of:  # its PATCH replaces all settings
        method, body = "PATCH", {name: action.body.get(name) or {} for name in resource.create}
    else:
        method, body = update_body(resource, action.body, action.existing, postponed)
    if not body:
        return dict(action.existing)
    if method == "PATCH":
        return dest.patch(path, body)
    return dest.put(resource.path, body, action.dest_id)
