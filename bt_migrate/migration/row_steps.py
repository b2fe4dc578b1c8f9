"""Copy the rows of one kind (full copy, sync round or shard), or plan them in a dry run."""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set

from bt_migrate.api.transactions import after_second
from bt_migrate.errors import UsageError
from bt_migrate.migration.context import Migration, ProjectPair
from bt_migrate.migration.kind_steps import copy_project_kind
from bt_migrate.migration.waiting import kinds_that_wait
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import DATASETS, EXPERIMENTS, OBJECT_RESOURCES, PROJECTS
from bt_migrate.model.resources import ROW_KINDS, holder_of_rows
from bt_migrate.model.run_identity import Shard, ShardUnit
from bt_migrate.objects.pinned import pinned_versions
from bt_migrate.objects.prepare import PlannedObject
from bt_migrate.report.display import and_more
from bt_migrate.rows.copy import streaming
from bt_migrate.rows.count import row_object_ids, row_objects
from bt_migrate.rows.deletes import propagate_deletes
from bt_migrate.rows.groups import counted_streams, groups, round_groups
from bt_migrate.rows.planned_rows import plan_rows
from bt_migrate.rows.planned_states import NamedPast
from bt_migrate.rows.prefetch import SourceReaders
from bt_migrate.rows.streams import RowStream, ShardSlice
from bt_migrate.rows.unseen import without_silent
from bt_migrate.state.sync_marks import Round, round_of

log = logging.getLogger("bt_migrate.migration")


def copy_with_rows(migration: Migration, resource: Resource, scopes: Sequence[ProjectPair]) -> None:
    """Copy all objects of a kind in all projects, and their rows.

    The rows of a group of objects start once its objects are created, and the last ones continue in
    the background. A row that refers to a later object waits for it.
    """
    if migration.settings.shard:
        _copy_shard(migration, resource.name)
        return
    if not _copies_rows(migration, resource.name):
        copy_project_kind(migration, resource, scopes, phase=resource.phase)
        _finish_datasets(migration, resource, scopes)
        _plan_rows(migration, resource.name)
        return
    round_ = round_of(migration.run.record, resource.name, migration.settings.lookback)
    if round_:
        copy_project_kind(migration, resource, scopes, phase=resource.phase)
        _finish_datasets(migration, resource, scopes)
        streams = list(
            _with_counterpart(migration, list(_expected(migration, resource.name, scopes)))
        )
        if resource is DATASETS and migration.settings.dataset_versions:
            streams = _in_time(migration, scopes, streams, round_.above)
        _copy_round(migration, resource.name, streams, round_)
        return
    _copy_as_created(migration, resource, scopes)


def _copy_as_created(
    migration: Migration, resource: Resource, scopes: Sequence[ProjectPair]
) -> None:
    """Create the objects, and copy the rows of each group once its objects are created."""
    streams = _counted(migration, list(_expected(migration, resource.name, scopes)))
    if resource is DATASETS and migration.settings.dataset_versions:
        streams = _in_time(migration, scopes, streams)
    expected = list(groups(streams, migration.settings.read_streams))
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
        starts = GroupStarts(migration, expected, start)
        on_created = None if _waits_for_all(migration, resource) else starts.note_created
        copy_project_kind(migration, resource, scopes, phase=resource.phase, on_created=on_created)
        _finish_datasets(migration, resource, scopes)
        starts.start_rest()
        migration.background.begin(stack.pop_all().close)


def _waits_for_all(migration: Migration, resource: Resource) -> bool:
    """Whether the rows of the kind are copied once all of its objects are created, and the earlier
    states of datasets are complete: origins of rows name these.
    """
    return resource is EXPERIMENTS and migration.settings.dataset_versions


def _finish_datasets(
    migration: Migration, resource: Resource, scopes: Sequence[ProjectPair]
) -> None:
    """Copy the datasets whose rows name objects that exist now; see `replay`."""
    if not _waits_for_all(migration, resource):
        return
    migration.background.wait()
    if DATASETS.name in kinds_that_wait(migration.run):
        copy_with_rows(migration, DATASETS, scopes)
        migration.background.wait()


def _in_time(
    migration: Migration,
    scopes: Sequence[ProjectPair],
    streams: Sequence[RowStream],
    after_xact: Optional[int] = None,
) -> List[RowStream]:
    """Returns the streams of datasets with what the source names of their past.

    `after_xact`: of single rows, only what was named after this transaction.
    """
    projects = [scope.source for scope in scopes]
    states = dataset_states_named(migration, projects)
    rows = migration.named_versions.of(migration.catalog, projects, after_xact)
    return [
        replace(
            stream,
            versions=tuple(sorted(states.get(stream.source_id, ()))),
            named=frozenset(rows.get(stream.source_id, ())),
            recorded=True,
        )
        for stream in streams
    ]


def dataset_states_named(
    migration: Migration, projects: Sequence[JsonObject]
) -> Dict[str, Set[int]]:
    """Source id of a dataset -> its states that selected objects of these projects point to."""
    return pinned_versions(migration.catalog, _selected(migration), projects)


def _selected(migration: Migration) -> List[Resource]:
    return [kind for kind in OBJECT_RESOURCES if migration.settings.selects(kind.name)]


def _named_past(migration: Migration) -> NamedPast:
    """Returns what the source names of the past of its datasets, if it is asked for."""
    projects = migration.catalog.lists.projects()
    pinned = [pinned_versions(migration.catalog, [kind], projects) for kind in _selected(migration)]
    if not (migration.settings.dataset_versions and migration.settings.selects(DATASETS.name)):
        return NamedPast(pinned)
    return NamedPast(pinned, migration.named_versions.of(migration.catalog, projects))


class GroupStarts:
    """Starts the rows of each group of objects once the last of its objects is created."""

    def __init__(
        self,
        migration: Migration,
        expected: Sequence[Sequence[RowStream]],
        start: Callable[[Sequence[RowStream]], None],
    ) -> None:
        self._migration = migration
        self._expected = expected
        self._start = start
        # source id of each object that is still to be created -> its group
        self._group_of = {stream.source_id: group for group in expected for stream in group}

    def note_created(self, item: PlannedObject) -> None:
        """Start the group of this object, unless another object of it is still to be created."""
        group = self._group_of.pop(item.source["id"], [])
        if group and not self._is_open(group):
            self._start_group(group)

    def start_rest(self) -> None:
        """Start the groups that still have objects which this process did not create."""
        for group in filter(self._is_open, self._expected):
            self._start_group(group)

    def _is_open(self, group: Sequence[RowStream]) -> bool:
        return any(stream.source_id in self._group_of for stream in group)

    def _start_group(self, group: Sequence[RowStream]) -> None:
        self._migration.background.wait()
        self._start(list(_with_counterpart(self._migration, group)))


def copy_logs(migration: Migration, scopes: Sequence[ProjectPair]) -> None:
    """Copy the log rows of all projects."""
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
            states.created_here(scope.source["id"]),
        )
        for scope in scopes
        if scope.dest_id
    ]
    round_ = round_of(migration.run.record, "logs", migration.settings.lookback)
    if round_:
        _copy_round(migration, "logs", streams, round_)
        return
    _copy_groups(migration, groups(_counted(migration, streams), migration.settings.read_streams))


def _copy_groups(
    migration: Migration,
    grouped: Iterable[Sequence[RowStream]],
    round_: Optional[Round] = None,
) -> None:
    """Copy the rows of groups of streams whose objects exist, and wait for all of them."""
    readers = SourceReaders(migration.catalog, migration.counts)
    halt = migration.background.halt
    with streaming(migration.catalog, migration.copier, readers, halt, round_) as start:
        for group in grouped:
            start(group)


def _copy_round(
    migration: Migration, kind_name: str, streams: Sequence[RowStream], round_: Round
) -> None:
    """Copy what is new since the last sync, in objects that exist."""
    shown = without_silent(migration.catalog, kind_name, streams, round_)
    grouped = round_groups(migration.catalog, migration.counts, shown, round_)
    _copy_groups(migration, grouped, round_)
    if migration.settings.propagate_deletes:
        propagate_deletes(migration.catalog, kind_name, shown, round_)


def _copies_rows(migration: Migration, kind_name: str) -> bool:
    return (
        migration.settings.selects(kind_name)
        and not migration.objects_only
        and not migration.settings.dry_run
    )


def _plan_rows(migration: Migration, kind_name: str) -> None:
    """Count rows for a dry run."""
    if migration.settings.selects(kind_name) and not migration.objects_only:
        row_plans(migration, [kind_name])


def _expected(
    migration: Migration, kind_name: str, scopes: Sequence[ProjectPair]
) -> Iterator[RowStream]:
    """Yields the streams of all objects of a kind, in the order of the source's objects.

    Their counterparts are not known yet.
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
    """Whether the first rows can be read before the objects are created.

    Not if an earlier process of this run has begun to copy them.
    """
    begun = any(
        migration.run.has_stream(stream.kind.folder, stream.project, stream.source_id)
        for stream in group
    )
    early = len(group) > 1 or migration.settings.read_streams == 1
    return not begun and early and not migration.catalog.lists.missing_for_rows()


def _with_counterpart(migration: Migration, group: Sequence[RowStream]) -> Iterator[RowStream]:
    """Yields the streams of the group that have a counterpart now."""
    for stream in group:
        states = migration.run.objects(stream.kind.name, stream.project)
        entry = states.outcomes.get(stream.source_id)
        if entry and entry.dest_id:
            yield replace(
                stream,
                dest_id=entry.dest_id,
                name=entry.name,
                fresh=states.created_here(stream.source_id),
            )


def _copy_shard(migration: Migration, kind_name: str) -> None:
    """Copy the rows of a kind that belong to this shard. Their objects exist."""
    streams = _counted(migration, _streams_of_shard(migration, kind_name))
    _copy_groups(migration, groups(streams, migration.settings.read_streams))


def _streams_of_shard(migration: Migration, kind_name: str) -> List[RowStream]:
    """Returns what this shard copies of each object.

    Raises UsageError, before a row of the kind is written, if an object is not in the destination.
    """
    shard, holder = migration.settings.shard, holder_of_rows(kind_name)
    assert shard is not None
    streams, missing, deleted_ids = [], [], []
    for unit in (unit for unit in shard.units if unit.kind == kind_name):
        dest_id = migration.catalog.targets.resolve((holder.name,), unit.id)
        if dest_id:
            streams.append(_stream_of_unit(shard, unit, dest_id))
        elif migration.catalog.lists.source_object(holder, unit.id):
            missing.append(str(unit))
        else:
            deleted_ids.append(unit.id)
            text = "%s was deleted in the source since the shards were planned"
            log.warning(text, unit, extra={"event": "gone"})
    if missing:
        raise UsageError(
            f"{and_more(missing[0], len(missing) - 1)}: not in the destination; move the objects"
            " first, with bin/migrate-all --no-rows"
        )
    migration.run.record.gone[kind_name] = deleted_ids
    if not streams:
        extra = {"event": "nothing_to_do"}
        log.info("%s has no rows of %s", shard, kind_name, extra=extra)
    return streams


def _stream_of_unit(shard: Shard, unit: ShardUnit, dest_id: str) -> RowStream:
    mark, before = shard.mark.source, after_second(shard.mark.dest)
    after, end = unit.after, unit.end
    part = ShardSlice(
        after, end or after_second(mark), not after and not end, mark, unit.new, before
    )
    kind = ROW_KINDS[unit.kind]
    return RowStream(kind, unit.project, unit.id, dest_id, unit.name, False, part)


def row_plans(migration: Migration, kinds: Sequence[str]) -> Dict[str, Dict[str, Any]]:
    """Returns kind of rows -> its plan, made once in a dry run; see `plan_rows`."""
    plans = migration.run.record.row_plans
    missing = {
        kind: list(row_objects(migration.catalog, kind)) for kind in kinds if kind not in plans
    }
    if missing:
        plans.update(found_plans(migration, missing))
        migration.run.save()
    return {kind: plans[kind] for kind in kinds}


def found_plans(
    migration: Migration, objects: Mapping[str, Sequence[Dict[str, Any]]]
) -> Dict[str, Dict[str, Any]]:
    """Returns kind of rows -> the plan for these objects."""

    past = _named_past(migration)

    def plan(kind_name: str) -> Dict[str, Any]:
        return plan_rows(migration.catalog, migration.counts, kind_name, objects[kind_name], past)

    with ThreadPoolExecutor(len(objects) or 1, thread_name_prefix="plan") as pool:
        return dict(zip(objects, pool.map(plan, objects)))
