"""Copy objects of any kind: list the source -> rewrite references -> plan against the destination -> apply -> record.

One function for all kinds; the resource table says what is different about them. Objects that need each other are made in the
order of their references; a reference whose target does not exist yet is left out at first and added by `finish_deferred`.
"""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, Callable, Deque, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.config.values import KEEP_POLICY, UPDATE_POLICY
from bt_migrate.errors import ApiError
from bt_migrate.model.date_windows import instant
from bt_migrate.model.findings import FAILURE
from bt_migrate.model.outcomes import (
    CREATED,
    DIFFERS,
    FAILED,
    SKIPPED,
    UPDATED,
    WOULD_CREATE,
    WOULD_UPDATE,
)
from bt_migrate.model.references import attachment_places, dotted, value_at
from bt_migrate.model.resource import OWNER, Resource
from bt_migrate.model.resource_table import (
    PROJECTS,
)
from bt_migrate.objects.catalog import Catalog, planned_id
from bt_migrate.objects.decide import (
    CREATE,
    FOUND,
    UPDATE,
    Action,
    dependencies,
    dependency_levels,
    display_name,
    fingerprint,
    natural_key,
    plan_object,
    writable_fields,
)
from bt_migrate.objects.prepare import (
    PlannedObject,
    Prepared,
    not_placeable,
    object_finding,
    prepare,
    skip_reason,
)
from bt_migrate.objects.update import (
    decided,
    foreseen_update,
    note_former,
    policy_of,
    remember_fingerprints,
    update_object,
)
from bt_migrate.state.object_states import ObjectStates, save_objects

log = logging.getLogger("bt_migrate.objects")
Batch = Tuple[Sequence[PlannedObject], List["Future[None]"]]  # objects on their way
OnCreated = Callable[[PlannedObject], None]
FOUND_EXISTING = "x-bt-found-existing"  # header of a POST that created nothing
MOST_BATCHES = 20  # each rewrites the files of its objects' outcomes: with batches of one size that grows with their square
CLOCK_SLACK_S = 60  # between the clocks of one server
DELETED_THERE = "deleted in the destination"


def copy_objects(
    catalog: Catalog,
    resource: Resource,
    items: Sequence[PlannedObject],
    *,
    copier: Optional[AttachmentCopier] = None,
    made: Optional[OnCreated] = None,
) -> None:
    """Bring every item to an outcome. Objects that an earlier process of this run completed are not looked at again.

    `made` is called with each that has come to its outcome, which is about to be written down: that it was to be made is on the disk.
    """
    todo = []
    for item in items:
        if item.states.completed(item.source["id"]) and not _open_conflict(catalog, resource, item):
            continue
        reason = skip_reason(catalog, resource, item.source)
        if reason:
            _record_skipped(catalog, resource, item, reason)
        else:
            todo.append(item)
    by_id = {item.source["id"]: item for item in todo}
    if resource.scope == "project":
        catalog.prefetch((), [resource], {item.dest_project_id for item in todo})
    among = set(by_id)
    levels = dependency_levels(
        [item.source for item in todo],
        lambda obj: _needs(catalog, resource, by_id[obj["id"]], among),
    )
    # a position cannot be set: what has one is made one after the other
    workers = 1 if "position" in resource.server else catalog.settings.max_concurrent
    with ThreadPoolExecutor(workers, thread_name_prefix="objects") as pool:
        for level in levels:
            _copy_level(
                catalog,
                resource,
                [by_id[obj["id"]] for obj in level],
                pool,
                copier,
                made or (lambda _: None),
            )
    save_objects(_states_of(items))


def _needs(catalog: Catalog, resource: Resource, item: PlannedObject, among: Set[str]) -> Set[str]:
    """The ids of the objects that come before it: those that it refers to, and the one whose counterpart has its name, until that
    is renamed.
    """
    needed = dependencies(resource, item.source, among) if resource.references else set()
    if resource.scope != OWNER and item.dest_project_id is not None:
        there = catalog.dest_by_key(resource, item.dest_project_id).get(
            natural_key(resource, item.source)
        )
        holder = catalog.stands_for(resource, there["id"]) if there else None
        if holder in among and holder != item.source["id"]:
            needed = needed | {holder}
    return needed


def _open_conflict(catalog: Catalog, resource: Resource, item: PlannedObject) -> bool:
    """Whether the object was left alone by an earlier process of this run, and this one was told otherwise."""
    left = item.states.outcomes[item.source["id"]]["outcome"] == DIFFERS
    return left and policy_of(catalog, resource) != KEEP_POLICY


def _copy_level(
    catalog: Catalog,
    resource: Resource,
    level: Sequence[PlannedObject],
    pool: ThreadPoolExecutor,
    copier: Optional[AttachmentCopier],
    made: OnCreated,
) -> None:
    """Batch by batch, objects that do not need each other: while one is being made, the next one waits for its turn already."""
    size = max(
        min(catalog.settings.batch_size, catalog.settings.checkpoint_interval),
        len(level) // MOST_BATCHES,
    )
    under_way: Deque[Batch] = deque()
    try:
        for start in range(0, len(level), size):
            catalog.dest.check()
            under_way.append(
                _begin_batch(catalog, resource, level[start : start + size], pool, copier)
            )
            if len(under_way) > 1:
                _finish_batch(*under_way[0], made)
                under_way.popleft()
        while under_way:
            _finish_batch(*under_way[0], made)
            under_way.popleft()
    except BaseException:  # what has begun is finished and written down, nothing else begins
        for _, futures in under_way:
            for future in futures:
                future.cancel()
        for items, futures in under_way:
            wait(futures)
            _save_batch(items)
        raise


def _begin_batch(
    catalog: Catalog,
    resource: Resource,
    items: Sequence[PlannedObject],
    pool: ThreadPoolExecutor,
    copier: Optional[AttachmentCopier],
) -> Batch:
    """Write down what is about to be made, and what is about to be overwritten; then have it done: a crash in between finds its
    own objects as its own, and leaves nothing that an undo does not know.
    """
    planned = [_plan(catalog, resource, item) for item in items]
    if not catalog.settings.dry_run:
        changed = []
        for states in _states_of(items):
            ours = [
                (item, action)
                for item, action, prepared in planned
                if item.states is states and not prepared.blocked
            ]
            about = {
                action.source_id: _intent(resource, item, action)
                for item, action in ours
                if action.verb == CREATE
            }
            former = [
                note_former(resource, states, action) for _, action in ours if action.verb == UPDATE
            ]
            if about or any(former):  # those of a process that died stay
                states.intended.update(about)
                changed.append(states)
        save_objects(changed)
    return items, [pool.submit(_apply, catalog, resource, *one, copier) for one in planned]


def _finish_batch(
    items: Sequence[PlannedObject], futures: Sequence[Future[None]], made: OnCreated
) -> None:
    for item, future in zip(items, futures):
        future.result()
        made(item)
    done = {
        item.source["id"]
        for item in items
        if not item.states.outcomes[item.source["id"]].get("in_doubt")
    }
    for states in _states_of(items):
        states.intended = {
            one: intent for one, intent in states.intended.items() if one not in done
        }
    _save_batch(items)


def _save_batch(items: Sequence[PlannedObject]) -> None:
    for states in _states_of(items):
        states.settle([item.source["id"] for item in items if item.states is states])
    save_objects(_states_of(items))


def _states_of(items: Sequence[PlannedObject]) -> Iterable[ObjectStates]:
    return {id(item.states): item.states for item in items}.values()


def _intent(resource: Resource, item: PlannedObject, action: Action) -> Dict[str, Any]:
    """How to find the object in the destination if this process dies before it is recorded."""
    key = _dest_key(resource, item.source, action.body)
    return {
        "key": list(key),
        "project": item.dest_project_id,
        "fingerprint": fingerprint(resource, action.body),
    }


def _record_skipped(catalog: Catalog, resource: Resource, item: PlannedObject, reason: str) -> None:
    source = item.source
    name = display_name(resource, source)
    counterpart = (
        catalog.dest_by_key(resource, item.dest_project_id).get(natural_key(resource, source))
        if reason == "built-in"
        else None
    )
    item.states.record(
        source["id"],
        name,
        SKIPPED,
        dest_id=counterpart["id"] if counterpart else None,
        reason=reason,
    )
    if resource.next_action and resource.cannot_move(source):
        more = {"path": "function_data", "detail": reason, "next": resource.next_action}
        item.states.note(source["id"], [object_finding(resource, item, "not_readable", **more)])
    log.info(
        "skipped %s %r: %s",
        resource.kind,
        name,
        reason,
        extra=_extra("skipped", resource, item, reason=reason),
    )


def _plan(
    catalog: Catalog, resource: Resource, item: PlannedObject
) -> Tuple[PlannedObject, Action, Prepared]:
    """Plan one object.

    Something of its natural key that was about to be created when an earlier process died is ours: created.
    """
    prepared = prepare(catalog, resource, item)
    wanting = {_top(one.path) for one in prepared.deferred}
    existing, gone = _existing(catalog, resource, item, prepared)
    if resource.part_of and existing and resource.cannot_move(existing):
        existing = None  # the holder has no such part: it can be created
    action = plan_object(resource, item.source, prepared.body, existing, wanting)
    prepared.made_before = existing is not None and item.source["id"] in item.states.intended
    if not prepared.made_before and not _is_incomplete(catalog, action):
        action = decided(catalog, resource, action)
    reason = not_placeable(resource, item.source, prepared.body)
    if gone and not existing and policy_of(catalog, resource) != UPDATE_POLICY:
        reason = DELETED_THERE
        prepared.findings.append(object_finding(resource, item, "deleted_there"))
    elif action.verb in (CREATE, UPDATE):
        prepared.blocked = _blocked(catalog, resource, item, action)
    if reason:
        action = replace(action, verb=SKIPPED, reason=reason)
        prepared.findings = [one for one in prepared.findings if one["severity"] != FAILURE]
    return item, action, prepared


def _existing(
    catalog: Catalog, resource: Resource, item: PlannedObject, prepared: Prepared
) -> Tuple[Optional[dict], bool]:
    """(the destination's object, whether the one that stood for it is gone): the counterpart of an earlier round, whatever it is
    called now; else what has its natural key and stands for no other object.
    """
    source_id, states = item.source["id"], item.states
    dest_id = states.last(source_id).get("dest_id")
    gone = states.earlier.get(source_id, {}).get("reason") == DELETED_THERE
    if dest_id:
        existing = catalog.dest_object(resource, item.dest_project_id, dest_id)
        if existing:
            return existing, False
        gone = True
        catalog.forget(resource, source_id)
        states.forget(source_id)
    found = catalog.dest_by_key(resource, item.dest_project_id).get(
        _dest_key(resource, item.source, prepared.body)
    )
    other = catalog.stands_for(resource, found["id"]) if found else None
    return (found if other in (None, source_id) else None), gone


def _blocked(catalog: Catalog, resource: Resource, item: PlannedObject, action: Action) -> str:
    """Why the object cannot have its name: another one has it. "" if it can."""
    there = catalog.dest_by_key(resource, item.dest_project_id).get(
        _dest_key(resource, item.source, action.body)
    )
    if there is None or there["id"] == action.dest_id:
        return ""
    other = catalog.stands_for(resource, there["id"])
    if other is None:
        return (
            ""
            if action.verb == CREATE
            else f"its new name is taken in the destination by {there['id']}"
        )
    return (
        f"its name is taken in the destination by the counterpart of {other}, which has another name in the source now;"
        f" --on-conflict {resource.name}=update renames that one"
    )


def _dest_key(resource: Resource, source: dict, body: Dict[str, Any]) -> tuple:
    """Natural keys of objects that belong to an object hold ids, so they are taken from the rewritten body."""
    return natural_key(resource, body if resource.scope == OWNER else source)


def _top(path: str) -> str:
    return path.split(".")[0].split("[")[0]


# -- applying


def _apply(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    action: Action,
    prepared: Prepared,
    copier: Optional[AttachmentCopier],
) -> None:
    """Carry out one action, or in a dry run foresee it, and record it. An API error is this object's outcome; anything else ends
    the run.
    """
    states, source_id = item.states, action.source_id
    findings = list(prepared.findings)
    if prepared.blocked:
        states.record(
            source_id,
            action.name,
            FAILED,
            dest_id=action.dest_id,
            reason=prepared.blocked,
            fields=action.fields,
        )
        states.note(
            source_id,
            [*findings, object_finding(resource, item, "not_created", detail=prepared.blocked)],
        )
        log.error(
            "failed %s %r: %s",
            resource.kind,
            action.name,
            prepared.blocked,
            extra=_extra("failed", resource, item),
        )
        return
    try:
        if action.verb == CREATE and not catalog.settings.dry_run:
            action = _create(catalog, resource, item, action, copier, findings)
        if action.verb == UPDATE:
            action = _update(catalog, resource, item, action, prepared, copier, findings)
    except ApiError as error:
        in_doubt = (
            True if action.verb == CREATE and error.status >= 500 else None
        )  # it may have been made all the same
        states.record(
            source_id,
            action.name,
            FAILED,
            dest_id=action.dest_id,
            reason=str(error),
            in_doubt=in_doubt,
        )
        findings.append(object_finding(resource, item, "not_created", detail=str(error)))
        log.error(
            "failed %s %r: %s",
            resource.kind,
            action.name,
            error,
            extra=_extra("failed", resource, item, reason=str(error)),
        )
    else:
        outcome = _outcome(catalog, prepared, action)
        dest_id = action.dest_id or (planned_id(source_id) if outcome == WOULD_CREATE else None)
        ours = outcome in (CREATED, UPDATED)
        told = (
            {}
            if ours and action.verb != UPDATE
            else {"reason": action.reason, "fields": action.fields}
        )
        owner = (
            [action.body["object_type"], action.body["object_id"]]
            if dest_id and resource.scope == OWNER
            else None
        )
        states.record(source_id, action.name, outcome, dest_id=dest_id, owner=owner, **told)
        remember_fingerprints(catalog, resource, states, action, left=outcome == DIFFERS)
        if dest_id:
            content = action.existing if outcome == DIFFERS else action.body
            catalog.remember(
                resource,
                source_id,
                {**content, **_key_of(resource, item.source, action.body), "id": dest_id},
                item.dest_project_id,
                left=outcome == DIFFERS,
            )
            if prepared.deferred or (
                ours and action.verb == DIFFERS
            ):  # to be completed by the second pass
                states.deferred[source_id] = dest_id
        if outcome in (CREATED, WOULD_CREATE) and resource.hidden_field:
            findings.append(
                object_finding(
                    resource,
                    item,
                    "secret_to_enter",
                    path=resource.hidden_field,
                    next=resource.next_action,
                )
            )
        log.info(
            "%s %s %r%s", outcome, resource.kind, action.name, f" ({action.reason})" if action.reason else "",
            extra=_extra(outcome, resource, item, dest_id=dest_id, reason=action.reason),
        )  # fmt: skip
    states.note(source_id, findings)


def _key_of(resource: Resource, source: dict, body: Dict[str, Any]) -> Dict[str, Any]:
    origin = body if resource.scope == OWNER else source
    return {name: origin.get(name) for name in resource.key}


def _outcome(catalog: Catalog, prepared: Prepared, action: Action) -> str:
    """What became of it. What a process that died has made, and what an earlier run left incomplete, is ours."""
    if action.verb == CREATE:
        return WOULD_CREATE if catalog.settings.dry_run else CREATED
    if action.verb == UPDATE:
        return WOULD_UPDATE if catalog.settings.dry_run else UPDATED
    if action.verb in (FOUND, DIFFERS) and prepared.made_before:
        return CREATED
    if action.verb == DIFFERS and _is_incomplete(catalog, action):
        return UPDATED
    return action.verb


def _is_incomplete(catalog: Catalog, action: Action) -> bool:
    """Whether an earlier run made it and could not complete it."""
    made = catalog.incomplete.get((action.resource, action.source_id))
    return made is not None and made == action.dest_id


def _create(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    action: Action,
    copier: Optional[AttachmentCopier],
    findings: List[Dict[str, Any]],
) -> Action:
    """POST the object.

    An existing natural key (made by somebody else a moment ago) comes back unmodified: compared, not claimed. Not all kinds are known
    to send the header that says so; then its age tells.
    """
    if copier:
        findings += _copy_attachments(resource, item, action.body, copier)
    if resource.part_of:
        return _write_settings(catalog, resource, item, action)
    begun_s = catalog.dest.clock.mark_s() - CLOCK_SLACK_S  # what is made now must not look old
    answer = catalog.dest.create(resource.path, action.body)
    made = answer.json
    _refuse_another(catalog, resource, item, action, made)
    found, created_s = plan_object(resource, item.source, action.body, made), _created_s(made)
    again = created_s >= begun_s and found.verb == FOUND  # ours: the answer to a first try was lost
    if 0 < created_s < begun_s or (
        answer.headers.get(FOUND_EXISTING, "").lower() in ("true", "1") and not again
    ):
        return decided(catalog, resource, found)
    if resource is PROJECTS:
        catalog.start_empty(made["id"])
    return replace(action, dest_id=made["id"], existing=made)


def _refuse_another(
    catalog: Catalog, resource: Resource, item: PlannedObject, action: Action, made: Dict[str, Any]
) -> None:
    """Raises ApiError where a destination for which two names are one (upper and lower case, blanks, length) gives the object of the
    one for the other: what belongs to both, rows too, would be mixed.
    """
    key = natural_key(resource, made)
    if resource.scope == OWNER or key == natural_key(resource, item.source):
        return
    project = item.source.get("project_id")
    others = {
        natural_key(resource, one)
        for one in catalog.source_list(resource)
        if one.get("project_id") == project
    }
    if key in others or not catalog.claim(made["id"], item.source["id"]):
        text = f"with {', '.join(map(repr, key))}, which is another object of the source; rename one of the two there"
        raise ApiError(catalog.dest.side, "POST", resource.path, 200, text)


def _created_s(made: Dict[str, Any]) -> float:
    """Unix seconds of its creation, 0 where it does not say."""
    try:
        return instant(made["created"]).timestamp()
    except (KeyError, AttributeError, ValueError):
        return 0.0


def _update(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    action: Action,
    prepared: Prepared,
    copier: Optional[AttachmentCopier],
    findings: List[Dict[str, Any]],
) -> Action:
    waiting = {_top(one.path) for one in prepared.deferred}
    if catalog.settings.dry_run:
        return foreseen_update(resource, action, waiting)
    if copier:
        findings += _copy_attachments(resource, item, action.body, copier)
    if note_former(resource, item.states, action):  # POST found it a moment ago
        item.states.save()
    return update_object(catalog.dest, resource, action, waiting)


def _write_settings(
    catalog: Catalog, resource: Resource, item: PlannedObject, action: Action
) -> Action:
    """Settings have no POST: the project's PATCH takes them, replacing all (which is why only projects without any get them)."""
    made = catalog.dest.patch(
        f"{resource.path}/{item.dest_project_id}",
        {name: action.body[name] for name in resource.create},
    )
    return replace(action, dest_id=item.dest_project_id, existing=made)


def _copy_attachments(
    resource: Resource, item: PlannedObject, body: Dict[str, Any], copier: AttachmentCopier
) -> List[Dict[str, Any]]:
    """Copy the bytes that the object refers to; a reference whose bytes could not be copied goes back to the source's key."""
    originals = writable_fields(resource, item.source)
    findings = []
    for path in attachment_places(body):
        original = value_at(originals, path)
        failures = copier.copy_into({"one": dict(original)}) if isinstance(original, dict) else {}
        for key, why in failures.items():
            value_at(body, path)["key"] = key
            findings.append(
                object_finding(
                    resource, item, why.kind, path=dotted(path), ref=key, detail=str(why)
                )
            )
    return findings


def _extra(
    event: str, resource: Resource, item: PlannedObject, **more: Optional[str]
) -> Dict[str, Any]:
    """Fields of a JSON log line."""
    facts = {
        "event": event,
        "resource": resource.name,
        "source_id": item.source["id"],
        "project": item.states.project,
        **more,
    }
    return {name: value for name, value in facts.items() if value}
