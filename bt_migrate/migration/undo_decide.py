"""Which of the objects that a run created are deleted, and why the others stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, Iterable, List, Optional, Sequence, Set

from bt_migrate.api.btql import OBJECTS_PER_QUERY, Bounds, count_by_object_query, newest_query
from bt_migrate.api.transactions import xact_of, xact_seconds
from bt_migrate.errors import ApiError
from bt_migrate.migration.undo_objects import (
    CHANGED_SINCE_RUN,
    CreatedObject,
    UndoContext,
    existing_objects,
    reason_to_leave,
)
from bt_migrate.migration.undo_rows import holds_changed_rows, own_transactions
from bt_migrate.model.outcomes import CREATED, DIFFERS, FOUND, UPDATED
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
ROWS_OF_OTHERS = "holds rows that this run did not bring"
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
    there = {
        name: existing_objects(context, of_kind[0].resource, of_kind)
        for name, of_kind in _by_kind(created).items()
    }
    present = [obj for obj in created if obj.dest_id in there[obj.resource.name]]
    rewritten = _with_newer_rows(context, present)
    others = _with_rows_of_others(context, present)
    judged = []
    for obj in present:
        existing = there[obj.resource.name][obj.dest_id]
        reason = reason_to_leave(obj.resource, obj.left_as, existing)
        if not reason and obj.dest_id in others and not obj.resource.part_of:
            reason = ROWS_OF_OTHERS
        if not reason and obj.dest_id in rewritten and not obj.resource.part_of:
            reason = f"rows in it were {CHANGED_SINCE_RUN}"
        project = context.lists.project_of(obj.resource, obj.dest_id)
        path = object_path(obj.resource, existing, project)
        judged.append(replace(obj, reason="" if context.settings.changed else reason, path=path))
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


def _with_newer_rows(context: UndoContext, created: Sequence[CreatedObject]) -> Set[str]:
    """Returns the ids of objects with a row that somebody else wrote last."""
    with_newer: Set[str] = set()
    streams = {
        (stream.header["kind"], stream.header["dest_id"]): stream
        for stream in context.run.all_streams()
    }
    for kind in ROW_KINDS:
        ids = [obj.dest_id for obj in created if obj.resource is holder_of_rows(kind)]
        for start in range(0, len(ids), OBJECTS_PER_QUERY):
            newest = _newest_xacts(context, kind, ids[start : start + OBJECTS_PER_QUERY])
            with_newer |= {
                dest_id
                for dest_id, xact in newest.items()
                if xact and _is_newer(context, streams.get((kind, dest_id)), xact)
            }
    return with_newer


def _is_newer(context: UndoContext, stream: Optional[StreamState], xact: int) -> bool:
    """Whether somebody else wrote the last row of an object.

    Decided by the transactions of the run's deliveries; if not all of these are known, by the
    content of the rows; by time, which may be a gateway's, only if that is not known either.
    """
    transactions = own_transactions(stream) if stream else set()
    if transactions:
        return xact not in transactions
    changed = holds_changed_rows(context, stream) if stream else None
    return xact_seconds(xact) > context.written_until if changed is None else changed


def _newest_xacts(context: UndoContext, kind: str, ids: Sequence[str]) -> Dict[str, int]:
    """Returns object id -> transaction of its last row.

    Objects without an answer in a query for several are queried alone.
    """
    id_field = ROW_KINDS[kind].id_field
    rows = context.dest.query(newest_query(kind, id_field, ids)).json
    newest = {str(row.get(id_field)): xact_of(row.get("newest")) for row in rows}
    for dest_id in ids if len(ids) > 1 else ():
        if dest_id not in newest:
            newest.update(_newest_xacts(context, kind, [dest_id]))
    return newest


def _with_rows_of_others(context: UndoContext, created: Sequence[CreatedObject]) -> Set[str]:
    """Returns the ids of objects with more rows than the run delivered. Counts the rows."""
    delivered = {
        (stream.header["kind"], stream.header["dest_id"]): sum(
            stream.counts[outcome] for outcome in (CREATED, FOUND, UPDATED, DIFFERS)
        )
        for stream in context.run.all_streams()
        # A sync counts only its own rows, and a killed copy did not count all of them.
        if stream.done and not stream.sync.round
    }
    with_others = set()
    for kind in ROW_KINDS:
        ids = [obj.dest_id for obj in created if obj.resource is holder_of_rows(kind)]
        for start in range(0, len(ids), OBJECTS_PER_QUERY):
            batch = ids[start : start + OBJECTS_PER_QUERY]
            for dest_id, rows in _row_counts(context, kind, batch).items():
                context.held_rows[dest_id] = context.held_rows.get(dest_id, 0) + rows
                if rows > delivered.get((kind, dest_id), rows):
                    with_others.add(dest_id)
    return with_others


def _row_counts(context: UndoContext, kind: str, ids: Sequence[str]) -> Dict[str, int]:
    """Returns object id -> its rows; objects without an answer are counted alone."""
    id_field = ROW_KINDS[kind].id_field
    rows = context.dest.query(count_by_object_query(kind, id_field, ids, Bounds())).json
    try:
        counts = {row[id_field]: whole_number(row["rows"]) for row in rows}
    except (AttributeError, KeyError, TypeError, ValueError):
        # A server that does not count by object cannot show rows of others.
        return {}
    for dest_id in ids if len(ids) > 1 else ():
        if dest_id not in counts:
            counts.update(_row_counts(context, kind, [dest_id]))
    return {dest_id: counts[dest_id] for dest_id in ids if dest_id in counts}


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
