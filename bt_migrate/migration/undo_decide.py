"""Which of the objects that a run created are deleted, and why the others stay."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Set

from bt_migrate.api.btql import OBJECTS_PER_QUERY, XACTS_PER_QUERY, Bounds, count_by_object_query
from bt_migrate.errors import ApiError
from bt_migrate.migration.undo_objects import (
    CreatedObject,
    UndoContext,
    existing_objects,
    reason_to_leave,
)
from bt_migrate.migration.undo_rows import own_xacts, rows_of_others
from bt_migrate.model.resource import OWNER, PROJECT, Resource, never
from bt_migrate.model.resource_table import OBJECT_RESOURCES, PROJECTS
from bt_migrate.model.resources import ROW_KINDS, holder_of_rows
from bt_migrate.objects.paths import object_path
from bt_migrate.rows.read import whole_number
from bt_migrate.state.stream_state import StreamState

# Objects that react to rows are deleted before the rows. Then the others: each object before those
# to which it refers, projects last.
BEFORE_ROWS = tuple(
    resource
    for resource in reversed(OBJECT_RESOURCES)
    if resource.scope == OWNER or resource.part_of or resource.reacts_to_data is not never
)
AFTER_ROWS = tuple(
    resource for resource in reversed(OBJECT_RESOURCES) if resource not in BEFORE_ROWS
)
OBJECTS_EXAMINED = "objects examined"
ROWS_OF_OTHERS = "holds rows that others wrote"
NOT_EMPTY = "holds something that this run did not make, or that is left"


def decide_deletes(context: UndoContext, created: Sequence[CreatedObject]) -> List[CreatedObject]:
    """Returns the objects to delete, in the order of deletion. The others are noted as left."""
    judged = _keep_holders(context, _judged(context, created))
    projects = {obj.dest_id for obj in judged if obj.resource is PROJECTS}
    parts = [obj for obj in judged if obj.resource.part_of]
    # A part is deleted with its project.
    judged = [obj for obj in judged if not (obj.resource.part_of and obj.dest_id in projects)]
    staying = {obj.dest_id for obj in judged if obj.reason}
    going = {obj.dest_id for obj in created} - staying
    reasons = dict.fromkeys(projects_not_empty(context, projects, going), NOT_EMPTY)
    reasons.update((part.dest_id, part.reason) for part in parts if part.reason)
    deletes = []
    for obj in judged:
        reason = obj.reason
        if obj.resource is PROJECTS:
            reason = reason or reasons.get(obj.dest_id, "")
        if reason:
            context.remaining.append(f"{obj}: {reason}")
        else:
            deletes.append(obj)
    order = (*BEFORE_ROWS, *AFTER_ROWS)
    return sorted(deletes, key=lambda obj: order.index(obj.resource))


def _judged(context: UndoContext, created: Sequence[CreatedObject]) -> List[CreatedObject]:
    """Returns the objects that still exist, each with its reason to stay."""
    holders = [holder_of_rows(kind) for kind in ROW_KINDS]
    there = {}
    for name, of_kind in _by_kind(created).items():
        resource = of_kind[0].resource
        there[name] = existing_objects(context, resource, of_kind)
        if resource not in holders:
            context.run.live.step(OBJECTS_EXAMINED, len(of_kind))
    present = [obj for obj in created if obj.dest_id in there[obj.resource.name]]
    others = _with_rows_of_others(context, present)
    judged = []
    for obj in present:
        existing = there[obj.resource.name][obj.dest_id]
        reason = reason_to_leave(obj.resource, obj.left_as, existing)
        count = others.get(obj.dest_id, 0) if not obj.resource.part_of else 0
        if not reason and count:
            reason = ROWS_OF_OTHERS
        if context.settings.changed:
            reason = ""
        project = context.lists.project_of(obj.resource, obj.dest_id)
        path = object_path(obj.resource, existing, project)
        judged.append(replace(obj, reason=reason, path=path, rows_of_others=count))
    return judged


def _keep_holders(context: UndoContext, judged: Sequence[CreatedObject]) -> List[CreatedObject]:
    """An object stays if one inside it stays, such as a dataset whose snapshot stays."""
    going = {obj.dest_id for obj in judged if not obj.reason}
    full: Set[str] = set()
    for resource in (resource for resource in OBJECT_RESOURCES if resource.inside):
        full |= _holders(context, resource, going)
    return [
        replace(obj, reason=NOT_EMPTY) if obj.dest_id in full and not obj.reason else obj
        for obj in judged
    ]


def _by_kind(created: Iterable[CreatedObject]) -> Dict[str, List[CreatedObject]]:
    kinds: Dict[str, List[CreatedObject]] = {}
    for obj in created:
        kinds.setdefault(obj.resource.name, []).append(obj)
    return kinds


def _with_rows_of_others(context: UndoContext, created: Sequence[CreatedObject]) -> Dict[str, int]:
    """Returns object id -> its rows that somebody else wrote last. Counts the rows.

    Where the transactions of the run do not account for all rows of an object, its rows are read.
    """
    streams = {
        (stream.header["kind"], stream.header["dest_id"]): stream
        for stream in context.run.all_streams()
    }
    with_others: Dict[str, int] = {}
    for kind in ROW_KINDS:
        ids = [obj.dest_id for obj in created if obj.resource is holder_of_rows(kind)]
        for start in range(0, len(ids), OBJECTS_PER_QUERY):
            batch = ids[start : start + OBJECTS_PER_QUERY]
            of_batch = {dest_id: streams.get((kind, dest_id)) for dest_id in batch}
            rows = _row_counts(context, kind, batch)
            own = _own_row_counts(context, kind, of_batch)
            for dest_id, stream in of_batch.items():
                context.held_rows[dest_id] = rows.get(dest_id, 0)
                accounted = dest_id in rows and rows[dest_id] == own[dest_id]
                if not accounted:
                    with_others[dest_id] = rows_of_others(context, kind, dest_id, stream)
            context.run.live.step(OBJECTS_EXAMINED, len(batch))
    return with_others


def _own_row_counts(
    context: UndoContext, kind: str, streams: Mapping[str, Optional[StreamState]]
) -> Counter[str]:
    """Returns object id -> its rows that were last written in a known transaction of the run.

    Too few on a server that cannot compare transactions.
    """
    counts: Counter[str] = Counter()
    known = sorted({xact for stream in streams.values() if stream for xact in own_xacts(stream)})
    for start in range(0, len(known), XACTS_PER_QUERY):
        bounds = Bounds(xacts=known[start : start + XACTS_PER_QUERY])
        try:
            counts.update(_count(context, kind, list(streams), bounds) or {})
        except ApiError:
            break
    return counts


def _row_counts(context: UndoContext, kind: str, ids: Sequence[str]) -> Dict[str, int]:
    """Returns object id -> its rows; objects without an answer are counted alone.

    Empty if the server does not count by object.
    """
    counts = _count(context, kind, ids, Bounds())
    if counts is None:
        return {}
    for dest_id in ids if len(ids) > 1 else ():
        if dest_id not in counts:
            counts.update(_row_counts(context, kind, [dest_id]))
    return {dest_id: counts.get(dest_id, 0) for dest_id in ids}


def _count(
    context: UndoContext, kind: str, ids: Sequence[str], bounds: Bounds
) -> Optional[Dict[str, int]]:
    """Returns object id -> its rows, of those that the answer names; None if it cannot be read."""
    id_field = ROW_KINDS[kind].id_field
    rows = context.dest.query(count_by_object_query(kind, id_field, ids, bounds)).json
    try:
        return {row[id_field]: whole_number(row["rows"]) for row in rows}
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def projects_not_empty(context: UndoContext, projects: Set[str], going: Set[str]) -> Set[str]:
    """Returns those projects that have an object which is not in `going`.

    Playgrounds are not seen.
    """
    if not projects:
        return set()
    not_empty: Set[str] = set()
    for resource in OBJECT_RESOURCES:
        if resource.scope == PROJECT:
            not_empty |= _holders(context, resource, going)
        elif resource.scope == OWNER and not resource.grants_access:
            not_empty |= {
                project
                for project in projects - not_empty
                if _owns_others(context, resource, project, going)
            }
    return projects & not_empty


def _holders(context: UndoContext, resource: Resource, going: Set[str]) -> Set[str]:
    """Returns the ids of projects (or of what else is around it) that have an object of the kind
    which is not in `going`.
    """
    try:
        objects = context.lists.of_kind(resource)
    except ApiError as error:
        if error.status >= 500 or not resource.beyond:
            raise
        return set()
    others = [obj for obj in objects if obj["id"] not in going and not resource.servers_own(obj)]
    return {str(obj.get(resource.inside or "project_id", "")) for obj in others}


def _owns_others(context: UndoContext, resource: Resource, project: str, going: Set[str]) -> bool:
    objects = context.lists.of_owner(resource, ("project", project))
    return any(obj["id"] not in going for obj in objects)
