"""What phases do, in the words of phases: projects, kinds of objects, rows, references that wait.

Composed of the movers below.
"""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from bt_migrate.api.transactions import after_second
from bt_migrate.config.settings import shard_name
from bt_migrate.config.values import FAIL_POLICY
from bt_migrate.errors import ApiError, ConflictError, UsageError
from bt_migrate.migration.context import Migration, ProjectPair
from bt_migrate.migration.waiting import finish_objects
from bt_migrate.model.findings import LIST_REFUSED, finding
from bt_migrate.model.outcomes import DIFFERS, LATER, SKIPPED
from bt_migrate.model.resource import ORGANIZATION, OWNER, Resource
from bt_migrate.model.resource_table import PROJECTS, USERS
from bt_migrate.model.resources import (
    REFERABLE,
    ROW_KINDS,
    SELECTABLE,
    holder_of_rows,
    kinds_of_phase,
    moves_later,
)
from bt_migrate.objects.catalog import Catalog, open_catalog
from bt_migrate.objects.copy import OnCreated, copy_objects, record_undecided
from bt_migrate.objects.decide import display_name
from bt_migrate.objects.lists import Refusal
from bt_migrate.objects.owned import list_dest_group, list_source_group, owner_groups
from bt_migrate.objects.prepare import PlannedObject, items_of, note_gone
from bt_migrate.rows.copy import streaming
from bt_migrate.rows.count import RowCounts, row_object_ids, row_objects
from bt_migrate.rows.deletes import propagate_deletes
from bt_migrate.rows.estimate import plan_rows
from bt_migrate.rows.groups import counted_streams, groups, round_groups
from bt_migrate.rows.prefetch import SourceReaders
from bt_migrate.rows.streams import RowStream, ShardSlice
from bt_migrate.shards.shard_file import unit_name
from bt_migrate.state.object_states import save_objects
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.sync_marks import Round, round_of

log = logging.getLogger("bt_migrate.migration")

CONFLICTS_SHOWN = 20
NO_PROJECT = "its project could not be made"


def refuse_conflicts(migration: Migration, phases: Sequence[Callable[[Migration], None]]) -> None:
    """Plan all the phases, in memory, before the first of them writes. Raises ConflictError naming the objects that exist with other
    content and for which --on-conflict is fail.
    """
    policies, source, dest = (
        migration.settings.on_conflict,
        migration.catalog.source,
        migration.catalog.dest,
    )
    if migration.settings.dry_run or FAIL_POLICY not in policies.values():
        return
    log.info("planning everything first: --on-conflict is fail")
    run, settings = (
        RunDirectory(migration.run.path, kept=False),
        replace(migration.settings, dry_run=True),
    )
    run.moves = True
    plan = Migration(
        settings,
        open_catalog(source, dest, run, settings),
        run,
        migration.copier,
        migration.stop,
        objects_only=True,
    )
    for phase in phases:
        phase(plan)
    finish_objects(plan.catalog, run)
    found = [
        f"{states.resource} {entry['name']!r}{f' of {states.project!r}' if states.project else ''} ({', '.join(entry.get('fields', ()))})"
        for states in run.all_objects()
        for entry in states.outcomes.values()
        if entry["outcome"] == DIFFERS and policies.get(states.resource) == FAIL_POLICY
    ]
    if found:
        more = f" and {len(found) - CONFLICTS_SHOWN} more" if len(found) > CONFLICTS_SHOWN else ""
        raise ConflictError(
            f"--on-conflict fail: {len(found)} exist with other content: {', '.join(found[:CONFLICTS_SHOWN])}{more}; nothing was written"
        )


def project_scopes(migration: Migration) -> List[ProjectPair]:
    """The selected projects, found or made in the destination. Those of a shard are there, with their objects."""
    migration.catalog.lists.prefetch(REFERABLE, [PROJECTS])
    if migration.settings.shard:
        return []
    projects, states = migration.catalog.lists.projects(), migration.run.objects(PROJECTS.name)
    names = migration.run.project_names(
        {one["id"]: one["name"] for one in projects}, states.known()
    )
    migration.run.name_folders(names[one["id"]] for one in projects)
    note_gone(migration.catalog, PROJECTS, states, migration.catalog.lists.source_list(PROJECTS))
    copy_objects(migration.catalog, PROJECTS, items_of(states, projects))
    return [
        ProjectPair(
            one, migration.catalog.targets.resolve(("projects",), one["id"]), names[one["id"]]
        )
        for one in projects
    ]


def move_kinds(migration: Migration, phase: str) -> None:
    """Move every kind that the table gives to a phase, in the order of the table."""
    kinds = kinds_of_phase(phase)
    in_projects = any(not _is_of_organization(resource) for resource in kinds)
    scopes = project_scopes(migration) if in_projects else []
    for resource in kinds:
        try:
            if resource.name in ROW_KINDS:
                copy_with_rows(migration, resource, scopes)
            elif migration.settings.selects(resource.name):
                _copy_kind(migration, resource, scopes, phase)
        except ApiError as error:
            # A list was refused: what one object is refused is recorded with that object.
            if error.status == 401:
                raise
            migration.catalog.lists.refuse(resource, error)
        tell_refused(migration, resource)
    # Nobody moves users, and everything may refer to them.
    tell_refused(migration, USERS)


def _is_of_organization(resource: Resource) -> bool:
    return resource.scope == ORGANIZATION and not resource.part_of


def _copy_kind(
    migration: Migration, resource: Resource, scopes: Sequence[ProjectPair], phase: str
) -> None:
    if resource.scope == OWNER:
        copy_owned_kind(migration, resource, scopes)
    elif _is_of_organization(resource):
        copy_organization_kind(migration, resource)
    else:
        copy_project_kind(migration, resource, scopes, phase=phase)


def copy_organization_kind(migration: Migration, resource: Resource) -> None:
    """Objects of the organization as a whole."""
    states = migration.run.objects(resource.name)
    objects = migration.catalog.lists.source_list(resource)
    note_gone(migration.catalog, resource, states, objects)
    items = items_of(states, objects)
    copy_objects(migration.catalog, resource, items, copier=migration.copier)


def copy_project_kind(
    migration: Migration,
    resource: Resource,
    scopes: Sequence[ProjectPair],
    *,
    phase: str,
    made: Optional[OnCreated] = None,
) -> None:
    """Objects of a kind in all projects at once, so that references across projects find their
    order too.

    Objects that a later phase moves are recorded as such and stay open. `made`: see `copy_objects`.
    """
    if not migration.settings.selects(resource.name):
        return
    items: List[PlannedObject] = []
    for scope in scopes:
        states = migration.run.objects(resource.name, scope.name)
        objects = migration.catalog.lists.source_objects(resource, scope.source["id"])
        note_gone(migration.catalog, resource, states, objects)
        for item in items_of(states, objects, scope.dest_id or ""):
            reason = _reason_to_wait(resource, scope, phase, item)
            if not reason:
                items.append(item)
            # The phase that moves the object may have been run before this one.
            elif not states.completed(item.source["id"]):
                name = display_name(resource, item.source)
                states.record(item.source["id"], name, SKIPPED, reason=reason)
    copy_objects(migration.catalog, resource, items, copier=migration.copier, made=made)
    # The states of projects without objects are saved too.
    save_objects(migration.run.objects(resource.name, scope.name) for scope in scopes)


def _reason_to_wait(resource: Resource, scope: ProjectPair, phase: str, item: PlannedObject) -> str:
    if scope.dest_id is None:
        return NO_PROJECT
    return LATER if moves_later(resource, phase, item.source) else ""


def tell_refused(migration: Migration, resource: Resource) -> None:
    """Report what the source did not list of a kind: all of it, or that of some owners."""
    refusals = migration.catalog.lists.refusals.get(resource.name, [])
    states = migration.run.objects(resource.name)
    if not refusals and "" not in states.findings:
        return
    found = []
    for refusal in refusals:
        kind = "not_listed" if _is_loss(migration, resource, refusal) else LIST_REFUSED
        name = f"{resource.name} of {refusal.place}" if refusal.place else resource.name
        found.append(finding(kind, resource=resource.name, name=name, detail=str(refusal.error)))
    states.note("", found)
    states.save()


def _is_loss(migration: Migration, resource: Resource, refusal: Refusal) -> bool:
    """Whether the refused list is only what this key cannot see; else something did not arrive.

    That is so for kinds that need a right of their own, unless a person asked for them by name or
    they were listed before.
    """
    needs_right = resource.beyond or resource.scope == OWNER
    ours = refusal.error.side == migration.catalog.source.side
    by_name = len(migration.settings.resources) < len(SELECTABLE)
    seen = any(
        states.resource == resource.name and states.known()
        for states in migration.run.all_objects()
    )
    return ours and needs_right and refusal.lacks_right and not by_name and not seen


def copy_owned_kind(
    migration: Migration, resource: Resource, scopes: Sequence[ProjectPair]
) -> None:
    """Objects that belong to another one: to the organization, to a project or to what is in it."""
    catalog = migration.catalog
    places = [
        (scope.source["id"], scope.dest_id or "", scope.name)
        for scope in scopes
        if scope.dest_id or resource.list_all
    ]
    for group in owner_groups(catalog, resource, places):
        objects = list_source_group(catalog, resource, group)
        states = migration.run.objects(resource.name, group.project)
        note_gone(catalog, resource, states, objects)
        items = items_of(states, objects, group.dest_project_id)
        try:
            if items:
                there = list_dest_group(catalog, resource, group)
                catalog.index.provide(resource, group.dest_project_id, there)
        except ApiError as error:
            record_undecided(catalog, resource, items, error)
            continue
        copy_objects(catalog, resource, items)
    tell_refused(migration, resource)


def copy_with_rows(migration: Migration, resource: Resource, scopes: Sequence[ProjectPair]) -> None:
    """All objects of a kind in all projects, and their rows: those of a group begin when its objects are made, and the last ones are
    left on their way. A row that refers to an object which is still to be made waits for it.
    """
    if migration.settings.shard:
        _copy_shard(migration, resource.name)
        return
    if not _copies_rows(migration, resource.name):
        copy_project_kind(migration, resource, scopes, phase=resource.phase)
        _plan_rows(migration, resource.name)
        return
    round_ = round_of(migration.run.record, resource.name, migration.settings.lookback)
    if round_:
        copy_project_kind(migration, resource, scopes, phase=resource.phase)
        streams = list(_made(migration, list(_expected(migration, resource.name, scopes))))
        _copy_round(migration, resource.name, streams, round_)
        return
    streams = _counted(migration, list(_expected(migration, resource.name, scopes)))
    expected = list(groups(streams, migration.settings.read_streams))
    group_of = {
        stream.source_id: group for group in expected for stream in group
    }  # of those that are still to be made
    with contextlib.ExitStack() as stack:
        readers = stack.enter_context(SourceReaders(migration.catalog, migration.counts))
        start = stack.enter_context(
            streaming(migration.catalog, migration.copier, readers, migration.background.halt)
        )
        first = [
            group
            for group in expected[: migration.settings.max_concurrent]
            if _reads_early(migration, group)
        ]
        readers.begin(ROW_KINDS[resource.name], first, migration.background.rest)

        def start_group(group: Sequence[RowStream]) -> None:
            migration.background.wait()
            start(list(_made(migration, group)))

        def start_made(item: PlannedObject) -> None:
            group = group_of.pop(item.source["id"], [])
            if group and not any(stream.source_id in group_of for stream in group):
                start_group(group)

        copy_project_kind(migration, resource, scopes, phase=resource.phase, made=start_made)
        for group in expected:  # those with objects that an earlier process made, or nobody
            if any(stream.source_id in group_of for stream in group):
                start_group(group)
        migration.background.begin(stack.pop_all().close)


def copy_logs(migration: Migration, scopes: Sequence[ProjectPair]) -> None:
    """The log rows of all projects."""
    if migration.settings.shard:
        _copy_shard(migration, "logs")
        return
    if not _copies_rows(migration, "logs"):
        _plan_rows(migration, "logs")
        return
    states, kind = migration.run.objects(PROJECTS.name), ROW_KINDS["logs"]
    streams = [
        RowStream(
            kind,
            scope.name,
            scope.source["id"],
            scope.dest_id,
            scope.name,
            states.made(scope.source["id"]),
        )
        for scope in scopes
        if scope.dest_id
    ]
    round_ = round_of(migration.run.record, "logs", migration.settings.lookback)
    if round_:
        _copy_round(migration, "logs", streams, round_)
        return
    with streaming(
        migration.catalog,
        migration.copier,
        SourceReaders(migration.catalog, migration.counts),
        migration.background.halt,
    ) as start:
        for group in groups(_counted(migration, streams), migration.settings.read_streams):
            start(group)


def _copy_round(
    migration: Migration, kind_name: str, streams: Sequence[RowStream], round_: Round
) -> None:
    """What is new since the last sync; the objects are there."""
    with streaming(
        migration.catalog,
        migration.copier,
        SourceReaders(migration.catalog, migration.counts),
        migration.background.halt,
        round_,
    ) as start:
        for group in round_groups(migration.catalog, migration.counts, streams, round_):
            start(group)
    if migration.settings.propagate_deletes:
        propagate_deletes(migration.catalog, kind_name, streams, round_)


def _copies_rows(migration: Migration, kind_name: str) -> bool:
    return (
        migration.settings.selects(kind_name)
        and not migration.objects_only
        and not migration.settings.dry_run
    )


def _plan_rows(migration: Migration, kind_name: str) -> None:
    """A dry run counts rows instead of copying them."""
    if migration.settings.selects(kind_name) and not migration.objects_only:
        row_plans(migration, [kind_name])


def _expected(
    migration: Migration, kind_name: str, scopes: Sequence[ProjectPair]
) -> Iterator[RowStream]:
    """The streams of all objects of a kind if each can be made, in the order of the source's objects; what they are in the
    destination is not known yet.
    """
    for scope in scopes:
        if scope.dest_id:
            listed = row_object_ids(migration.catalog, kind_name, scope.source["id"])
            for source_id in dict.fromkeys(
                (*listed, *migration.run.objects(kind_name, scope.name).outcomes)
            ):
                yield RowStream(ROW_KINDS[kind_name], scope.name, source_id, "", "", fresh=True)


def _counted(migration: Migration, streams: Sequence[RowStream]) -> List[RowStream]:
    return counted_streams(migration.catalog, migration.counts, streams)


def _reads_early(migration: Migration, group: Sequence[RowStream]) -> bool:
    """Whether the first rows of objects can be read before these are made: not where an earlier process of this run has come to them."""
    begun = any(
        migration.run.has_stream(stream.kind.folder, stream.project, stream.source_id)
        for stream in group
    )
    early = len(group) > 1 or migration.settings.read_streams == 1
    return not begun and early and not migration.catalog.lists.missing_for_rows()


def _made(migration: Migration, group: Sequence[RowStream]) -> Iterator[RowStream]:
    """Those of the group that have a counterpart, with it."""
    for stream in group:
        states = migration.run.objects(stream.kind.name, stream.project)
        entry = states.outcomes.get(stream.source_id, {})
        if entry.get("dest_id"):
            yield replace(
                stream,
                dest_id=entry["dest_id"],
                name=entry["name"],
                fresh=states.made(stream.source_id),
            )


def _copy_shard(migration: Migration, kind_name: str) -> None:
    """The rows of a kind that fell to this shard; their objects are there."""
    with streaming(
        migration.catalog,
        migration.copier,
        SourceReaders(migration.catalog, migration.counts),
        migration.background.halt,
    ) as start:
        streams = _counted(migration, _streams_of_shard(migration, kind_name))
        for group in groups(streams, migration.settings.read_streams):
            start(group)


def _streams_of_shard(migration: Migration, kind_name: str) -> List[RowStream]:
    """What a shard takes of each object. Raises UsageError, before a row of the kind is written, where one is not in the destination
    yet.
    """
    shard, holder = migration.settings.shard, holder_of_rows(kind_name)
    mark, before = shard["mark"]["source"], after_second(shard["mark"]["dest"])
    streams, missing, gone = [], [], []
    for unit in (unit for unit in shard["units"] if unit["kind"] == kind_name):
        after, end = unit.get("after"), unit.get("end")
        dest_id = migration.catalog.targets.resolve((holder.name,), unit["id"])
        if dest_id:
            part = ShardSlice(
                after, end or after_second(mark), not after and not end, mark, unit["new"], before
            )
            streams.append(
                RowStream(
                    ROW_KINDS[kind_name],
                    unit["project"],
                    unit["id"],
                    dest_id,
                    unit["name"],
                    False,
                    part,
                )
            )
        elif migration.catalog.lists.source_object(holder, unit["id"]):
            missing.append(unit_name(unit))
        else:
            gone.append(unit["id"])
            log.warning(
                "%s was deleted in the source since the shards were planned",
                unit_name(unit),
                extra={"event": "gone"},
            )
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise UsageError(
            f"{missing[0]}{more}: not in the destination; move the objects first, with bin/migrate-all --no-rows"
        )
    migration.run.record.gone[kind_name] = gone
    if not streams:
        log.info(
            "%s has no rows of %s", shard_name(shard), kind_name, extra={"event": "nothing_to_do"}
        )
    return streams


def row_plans(migration: Migration, kinds: Sequence[str]) -> Dict[str, Dict[str, Any]]:
    """Kind -> what its rows take, found out once in a dry run; see `plan_rows`."""
    plans = migration.run.record.row_plans
    missing = {
        kind: list(row_objects(migration.catalog, kind)) for kind in kinds if kind not in plans
    }
    if missing:
        plans.update(found_plans(migration.catalog, migration.counts, missing))
        migration.run.save()
    return {kind: plans[kind] for kind in kinds}


def found_plans(
    catalog: Catalog, counts: RowCounts, objects: Mapping[str, Sequence[Dict[str, Any]]]
) -> Dict[str, Dict[str, Any]]:
    with ThreadPoolExecutor(len(objects) or 1, thread_name_prefix="plan") as pool:
        return dict(
            zip(
                objects,
                pool.map(lambda kind: plan_rows(catalog, counts, kind, objects[kind]), objects),
            )
        )
