"""Undo a run: delete what it created, delete the rows that it inserted, restore what it updated.

What was changed since the run is kept unless --changed was given. What the run only found is never
changed. The run recorded everything that is needed: no request goes to the source.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Mapping, NamedTuple, Sequence, Set

from bt_migrate.api.client import Api
from bt_migrate.config.settings import Settings
from bt_migrate.errors import ApiError, UsageError
from bt_migrate.migration.undo_decide import (
    AFTER_ROWS,
    BEFORE_ROWS,
    NOT_EMPTY,
    OBJECTS_EXAMINED,
    decide_deletes,
    projects_not_empty,
)
from bt_migrate.migration.undo_objects import (
    CreatedObject,
    DestLists,
    UndoContext,
    UpdatedObject,
    created_objects,
    existing_objects,
    note_doubtful,
    note_unknown_updates,
    updated_objects,
)
from bt_migrate.migration.undo_rows import streams_to_undo, undo_rows
from bt_migrate.model.date_windows import instant
from bt_migrate.model.outcomes import CREATED, DIFFERS
from bt_migrate.model.references import dotted
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import OBJECT_RESOURCES, PROJECTS
from bt_migrate.objects.decide import UPDATE, Action
from bt_migrate.objects.update import foreseen_update, update_object
from bt_migrate.report.actions import count_and_noun
from bt_migrate.report.display import plural, wrapped
from bt_migrate.state.files import now
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.sessions import end_killed_session
from bt_migrate.state.window_log import record_undone

DATE_HEADER_SLACK_S = 2  # the server's Date has whole seconds
CLOCKS_SLACK_S = 300  # between our clock and the server's, since the run began
ROWS = "rows"
OBJECTS_DELETED = "objects deleted"


class Undone(NamedTuple):
    """Counts: what is left, what was or would be deleted or restored, rows of others in that."""

    remaining: int
    changes: int
    rows_of_others: int


def undo(dest: Api, run: RunDirectory, settings: Settings) -> Undone:
    """Print what would be deleted and what would be left, or with --yes do it."""
    context = _context(dest, run, settings)
    updated = updated_objects(context)
    note_unknown_updates(context)
    note_doubtful(context)
    created = created_objects(context)
    with run.live.working(OBJECTS_EXAMINED, len(created)):
        deletes = decide_deletes(context, created)
    if settings.yes:
        _begin(run)
    restored = _restore_all(context, updated)
    with run.live.working(OBJECTS_DELETED, len(deletes)):
        for resource in BEFORE_ROWS:
            _delete_kind(context, resource, deletes)
        _undo_all_rows(context, created)
        for resource in AFTER_ROWS:
            _delete_kind(context, resource, deletes)
    context.deleted[ROWS] += sum(context.held_rows.get(obj.dest_id, 0) for obj in deletes)
    foreign = sum(obj.rows_of_others for obj in deletes)
    _report(context, restored, foreign)
    return Undone(len(context.remaining), sum(context.deleted.values()) + restored, foreign)


def _undo_all_rows(context: UndoContext, created: Sequence[CreatedObject]) -> None:
    created_keys = {(obj.resource.name, obj.dest_id) for obj in created}
    streams = list(streams_to_undo(context, created_keys))
    rows = sum(stream.counts[CREATED] for stream in streams)
    unit = "rows deleted" if context.settings.yes else "rows to delete found"
    with context.run.live.working(unit, rows) as task:
        for stream in streams:
            task.begin(stream.header, 0, stream.counts[CREATED])
            context.deleted[ROWS] += undo_rows(context, stream, task)
            task.end(stream.header["source_id"])


def _context(dest: Api, run: RunDirectory, settings: Settings) -> UndoContext:
    if run.record.dest.org_id != dest.org_id:
        name = run.record.dest.org_name
        raise UsageError(
            f"{run.path}: was made for the destination {name}; use the key of that one"
        )
    end_killed_session(run, dest.clock.earliest_s() - time.time())
    ends = [session.wrote_until or 0.0 for session in run.record.sessions]
    written_until = max(ends, default=0.0) + DATE_HEADER_SLACK_S
    projects = set(run.objects(PROJECTS.name).id_mapping().values())
    lists = DestLists(dest, settings.batch_size, projects)
    again = run.record.undone is not None
    ahead_s = dest.clock.earliest_s() - time.time()
    began = instant(run.record.created).timestamp() + ahead_s - CLOCKS_SLACK_S
    started = max([run.record.created, *(session.started for session in run.record.sessions)])
    last_start = instant(started).timestamp() + ahead_s
    return UndoContext(
        dest, run, settings, lists, began, written_until, last_start=last_start, again=again
    )


def _begin(run: RunDirectory) -> None:
    """Mark the run as undone, so that no command resumes it."""
    run.record.undone = {"started": now()}
    run.record.finished = True
    run.record.waiting = False
    run.save()
    record_undone(run.path.parent, run.path.name)


def _report(context: UndoContext, restored: int, foreign: int) -> None:
    for line in context.remaining:
        context.say(f"left: {line}")
    invited = len(context.run.record.invited)
    if invited:
        context.say(
            f"members: undo does not remove the {plural(invited, 'user')} that the run invited"
        )
    yes, left_count = context.settings.yes, len(context.remaining)
    rows = context.deleted[ROWS]
    objects = sum(context.deleted.values()) - rows
    if yes:
        counts = {"objects": objects, "rows": rows, "restored": restored, "left": left_count}
        record = context.run.record
        record.undone = {**(record.undone or {}), "ended": now(), **counts}
        context.run.save()
    if context.settings.json:
        print(json.dumps({**_result(context, restored), "rows_of_others": foreign}))
        return
    parts = [f"{'Deleted' if yes else 'Would delete'} {deletion_text(context.deleted)}"]
    parts += [f"{foreign:,} of these rows written by others"] * bool(foreign)
    parts += [f"{'restored' if yes else 'restore'} {plural(restored, 'object')}"] * bool(restored)
    parts += [
        f"left {left_count:,} (see above)" if yes else f"leave {left_count:,} (see above)"
    ] * bool(left_count)
    end = "" if yes else " Nothing is done yet: --yes does it."
    print("\n".join(wrapped(f"{', '.join(parts)}.{end}", first="", more="  ")))


def _result(context: UndoContext, restored: int) -> Dict[str, Any]:
    return {
        "run_directory": str(context.run.path),
        "done": context.settings.yes,
        "deleted": {kind: count for kind, count in context.deleted.items() if count},
        "restored": restored,
        "left": context.remaining,
        "invited": len(context.run.record.invited),
    }


def deletion_text(deleted: Mapping[str, int]) -> str:
    """Returns `5 projects with 30 experiments, 20 datasets and 219,000 rows`."""
    kinds = [resource.name for resource in OBJECT_RESOURCES if deleted.get(resource.name)]
    parts = [count_and_noun(deleted[kind], kind) for kind in kinds]
    parts.append(count_and_noun(deleted.get(ROWS, 0), ROWS))
    if kinds[:1] == [PROJECTS.name]:
        return f"{parts[0]} with {_joined(parts[1:])}"
    return _joined(parts)


def _joined(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


# -- updated objects


def _restore_all(context: UndoContext, updated: Sequence[UpdatedObject]) -> int:
    """Restore objects before any is deleted: an updated object may refer to one that is deleted."""
    for obj in updated:
        context.say_done("restore", f"{obj} ({', '.join(obj.fields)})")
    return sum([_restore(context, obj) for obj in updated])


# assumption: put_keeps_the_id
def _restore(context: UndoContext, obj: UpdatedObject) -> bool:
    """Restore the former content of an object; without --yes only check whether that is possible.

    Returns whether it has that content then; if not, the object is noted as left.
    """
    context.dest.check()
    action = Action(
        obj.resource.name,
        "",
        obj.name,
        UPDATE,
        dest_id=obj.existing["id"],
        body=obj.content,
        existing=obj.existing,
    )
    done = foreseen_update(obj.resource, action)
    try:
        if context.settings.yes:
            done, left_out = update_object(context.dest, obj.resource, action)
            if left_out:
                names = ", ".join(map(dotted, left_out))
                context.remaining.append(f"{obj}: the server no longer takes {names}")
                return False
    except ApiError as error:
        context.remaining.append(f"{obj}: {error}")
        return False
    if done.verb == DIFFERS:
        fields = ", ".join(done.fields)
        reason = f"the API cannot take away what these fields hold beyond: {fields}"
        context.remaining.append(f"{obj}: {reason}")
    return done.verb != DIFFERS


# -- created objects


def _delete_kind(
    context: UndoContext, resource: Resource, deletes: Sequence[CreatedObject]
) -> None:
    """Delete the objects of a kind, or without --yes only print them. Counts them."""
    objects = [obj for obj in deletes if obj.resource is resource]
    for obj in objects:
        foreign = f", with {plural(obj.rows_of_others, 'row')} of others" * bool(obj.rows_of_others)
        context.say_done("delete", f"{obj}{foreign}")
    if context.settings.yes:
        context.deleted[resource.name] += _delete_objects(context, resource, objects)
    else:
        context.deleted[resource.name] += len(objects)


def _delete_objects(
    context: UndoContext, resource: Resource, objects: Sequence[CreatedObject]
) -> int:
    """Delete objects of a kind, the last created first; returns how many were deleted."""
    wanted = objects[::-1]
    if resource is PROJECTS:
        wanted = _still_empty(context, wanted)
    workers = context.settings.max_concurrent
    with ThreadPoolExecutor(workers, thread_name_prefix="undo") as pool:
        answers = list(pool.map(lambda obj: _delete(context, obj), wanted))
    failed = [(obj, error) for obj, error in zip(wanted, answers) if error]
    if not failed:
        return len(wanted)
    context.lists.forget()
    there = existing_objects(context, resource, [obj for obj, _ in failed])
    not_deleted = [(obj, error) for obj, error in failed if obj.dest_id in there]
    context.remaining += [f"{obj}: {error}" for obj, error in not_deleted]
    return len(wanted) - len(not_deleted)


def _still_empty(
    context: UndoContext, projects: Sequence[CreatedObject]
) -> Sequence[CreatedObject]:
    """Returns the projects that are still empty.

    A deletion may have failed, or somebody may have added something.
    """
    context.lists.forget()
    full: Set[str] = projects_not_empty(context, {obj.dest_id for obj in projects}, set())
    context.remaining += [f"{obj}: {NOT_EMPTY}" for obj in projects if obj.dest_id in full]
    return [obj for obj in projects if obj.dest_id not in full]


# assumption: deleted_objects_are_gone
def _delete(context: UndoContext, obj: CreatedObject) -> str:
    """Delete one object; returns why it could not be deleted, "" if it was."""
    context.dest.check()
    context.run.live.step(OBJECTS_DELETED)
    path = obj.path
    try:
        if obj.resource.part_of:
            # The object had no such part. PATCH replaces the whole field.
            empty: Dict[str, Any] = {name: {} for name in obj.resource.create}
            if not obj.resource.cannot_move(context.dest.patch(path, empty)):
                return "the settings stay whatever is sent"
        elif obj.resource.names_owner:
            context.dest.delete(path, dict(zip(("object_type", "object_id"), obj.owner)))
        else:
            context.dest.delete(path)
    except ApiError as error:
        return str(error)
    return ""
