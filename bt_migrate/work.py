"""What phases do, in the words of phases: projects, kinds of objects, rows, references that wait.

Composed of the movers below.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set

from bt_migrate.attachments import AttachmentCopier
from bt_migrate.catalog import REFERABLE, Catalog
from bt_migrate.copy_objects import Made, copy_objects
from bt_migrate.copy_rows import streaming
from bt_migrate.deferred_objects import finish_deferred, note_deferred
from bt_migrate.deferred_rows import finish_deferred_rows, note_deferred_rows
from bt_migrate.errors import ConflictError, LockedError, UsageError
from bt_migrate.findings import finding
from bt_migrate.keys import after_second
from bt_migrate.owned_objects import acl_owners, list_acls, list_dest_acls, list_dest_views, list_views
from bt_migrate.planning import display_name
from bt_migrate.prepare_objects import Item, items_of, note_gone
from bt_migrate.read_ahead import FirstPages
from bt_migrate.resources import ACLS, BY_NAME, PROJECT_SETTINGS, PROJECTS, ROW_KINDS, VIEWS, Resource
from bt_migrate.rounds import Round, round_of
from bt_migrate.row_plan import plan_rows, row_object_ids, row_objects
from bt_migrate.row_streams import Part, RowStream, groups, round_groups
from bt_migrate.runs import RunDirectory, readable_runs_in
from bt_migrate.settings import FAIL, Settings
from bt_migrate.shards import shard_name, unit_name
from bt_migrate.state import DIFFERS, LATER, SKIPPED, save_objects
from bt_migrate.sync_deletes import propagate_deletes
from bt_migrate.tail import Tail

log = logging.getLogger("bt_migrate.work")

CONFLICTS_SHOWN = 20
NO_PROJECT = "its project could not be made"


@dataclass(frozen=True)
class Work:
    """All that a phase needs. `stop` is set when somebody asks for the end."""

    settings: Settings
    catalog: Catalog
    run: RunDirectory
    copier: AttachmentCopier
    stop: threading.Event
    objects_only: bool = False  # rows are neither copied nor counted
    tail: Tail = field(default_factory=Tail)


@dataclass(frozen=True)
class Scope:
    """One project on both sides. `dest_id` is None where the project could not be made; `name` is that of its files in the run."""

    source: dict
    dest_id: Optional[str]
    name: str


def refuse_conflicts(work: Work, phases: Sequence[Callable[[Work], None]]) -> None:
    """Plan all the phases, in memory, before the first of them writes. Raises ConflictError naming the objects that exist with other
    content and for which --on-conflict is fail.
    """
    policies, source, dest = work.settings.on_conflict, work.catalog.source, work.catalog.dest
    if work.settings.dry_run or FAIL not in policies.values():
        return
    log.info("planning everything first: --on-conflict is fail")
    run, settings = RunDirectory(work.run.path, kept=False), replace(work.settings, dry_run=True)
    run.moves = True
    plan = Work(settings, Catalog(source, dest, run, settings), run, work.copier, work.stop, objects_only=True)
    for phase in phases:
        phase(plan)
    finish_objects(plan.catalog, run)
    found = [
        f"{states.resource} {entry['name']!r}{f' of {states.project!r}' if states.project else ''} ({', '.join(entry.get('fields', ()))})"
        for states in run.all_objects()
        for entry in states.outcomes.values()
        if entry["outcome"] == DIFFERS and policies.get(states.resource) == FAIL
    ]
    if found:
        more = f" and {len(found) - CONFLICTS_SHOWN} more" if len(found) > CONFLICTS_SHOWN else ""
        raise ConflictError(
            f"--on-conflict fail: {len(found)} exist with other content: {', '.join(found[:CONFLICTS_SHOWN])}{more}; nothing was written"
        )


def project_scopes(work: Work) -> List[Scope]:
    """The selected projects, found or made in the destination. Those of a shard are there, with their objects."""
    work.catalog.prefetch(REFERABLE, [PROJECTS])
    if work.settings.shard:
        return []
    projects, states = work.catalog.projects(), work.run.objects(PROJECTS.name)
    names = work.run.project_names({one["id"]: one["name"] for one in projects}, states.known())
    work.run.name_folders(names[one["id"]] for one in projects)
    note_gone(work.catalog, PROJECTS, states, work.catalog.source_list(PROJECTS))
    copy_objects(work.catalog, PROJECTS, items_of(states, projects))
    return [Scope(one, work.catalog.resolve(("projects",), one["id"]), names[one["id"]]) for one in projects]


def copy_organization_kind(work: Work, resource: Resource) -> None:
    """Objects of the organization as a whole."""
    if work.settings.selects(resource.name):
        states, objects = work.run.objects(resource.name), work.catalog.source_list(resource)
        note_gone(work.catalog, resource, states, objects)
        items = items_of(states, objects)
        copy_objects(work.catalog, resource, items, copier=work.copier)
        _tell_refused(work, resource)


def copy_project_kind(
    work: Work,
    resource: Resource,
    scopes: Sequence[Scope],
    *,
    later: Optional[Callable[[dict], bool]] = None,
    made: Optional[Made] = None,
) -> None:
    """Objects of a kind in all projects at once, so that references across projects find their order too.

    `later`: those that another phase moves; they are recorded as such and stay open. `made`: see `copy_objects`.
    """
    if not work.settings.selects(resource.name):
        return
    items: List[Item] = []
    for scope in scopes:
        states = work.run.objects(resource.name, scope.name)
        whole = [scope.source] if resource is PROJECT_SETTINGS else work.catalog.source_objects(resource, scope.source["id"])
        note_gone(work.catalog, resource, states, whole)
        for item in items_of(states, whole, scope.dest_id or ""):
            reason = NO_PROJECT if scope.dest_id is None else LATER if later and later(item.source) else ""
            if reason:
                if not states.completed(item.source["id"]):  # the phase that moves it may have been run before this one
                    states.record(item.source["id"], display_name(resource, item.source), SKIPPED, reason=reason)
            else:
                items.append(item)
    copy_objects(work.catalog, resource, items, copier=work.copier, made=made)
    save_objects(work.run.objects(resource.name, scope.name) for scope in scopes)  # those without items too
    _tell_refused(work, resource)


def _tell_refused(work: Work, resource: Resource) -> None:
    """A kind that was not listed may be a plan's that has none of it, or a key's that may not see it: it is told."""
    reason, states = work.catalog.refused.get(resource.name), work.run.objects(resource.name)
    if reason or "" in states.findings:
        told = [finding("not_listed", resource=resource.name, name=resource.name, detail=reason)] if reason else []
        states.note("", told)
        states.save()


def copy_views(work: Work, scopes: Sequence[Scope]) -> None:
    """Views of the organization, of projects and of their datasets and experiments."""
    if not work.settings.selects(VIEWS.name):
        return
    projects = [(scope.source["id"], scope.dest_id, scope.name) for scope in scopes if scope.dest_id]
    for source_id, dest_id, name in [("", "", ""), *projects]:
        views, states = list_views(work.catalog, source_id), work.run.objects(VIEWS.name, name)
        note_gone(work.catalog, VIEWS, states, views)
        items = items_of(states, views, dest_id)
        if items:
            work.catalog.provide(VIEWS, dest_id, list_dest_views(work.catalog, source_id))
        copy_objects(work.catalog, VIEWS, items)


def copy_acls(work: Work, scopes: Sequence[Scope]) -> None:
    """ACLs of everything that was selected, and of the organization itself."""
    if not work.settings.selects(ACLS.name):
        return
    catalog = work.catalog
    owners = acl_owners(catalog, [scope.source for scope in scopes])
    states, acls = work.run.objects(ACLS.name), list_acls(catalog, owners)
    note_gone(catalog, ACLS, states, acls)
    items = items_of(states, acls)
    catalog.provide(ACLS, "", list_dest_acls(catalog, owners))
    copy_objects(catalog, ACLS, items)


def copy_with_rows(work: Work, resource: Resource, scopes: Sequence[Scope]) -> None:
    """All objects of a kind in all projects, and their rows: those of a group begin when its objects are made, and the last ones are
    left on their way. A row that refers to an object which is still to be made waits for it.
    """
    if work.settings.shard:
        _copy_shard(work, resource.name)
        return
    if not _copies_rows(work, resource.name):
        copy_project_kind(work, resource, scopes)
        _plan_rows(work, resource.name)
        return
    round_ = round_of(work.run.data, resource.name, work.settings.lookback)
    if round_:
        copy_project_kind(work, resource, scopes)
        streams = list(_made(work, list(_expected(work, resource.name, scopes))))
        _copy_round(work, resource.name, streams, round_)
        return
    expected = list(groups(list(_expected(work, resource.name, scopes)), work.settings.read_streams))
    group_of = {stream.source_id: group for group in expected for stream in group}  # of those that are still to be made
    with contextlib.ExitStack() as stack:
        reading = stack.enter_context(FirstPages(work.catalog))
        start = stack.enter_context(streaming(work.catalog, work.copier, reading, work.tail.halt))
        first = (group for group in expected[: work.settings.max_concurrent] if _reads_early(work, group))
        reading.begin(ROW_KINDS[resource.name], ([one.source_id for one in group] for group in first), work.tail.rest)

        def start_group(group: Sequence[RowStream]) -> None:
            work.tail.wait()
            start(list(_made(work, group)))

        def start_made(item: Item) -> None:
            group = group_of.pop(item.source["id"], [])
            if group and not any(stream.source_id in group_of for stream in group):
                start_group(group)

        copy_project_kind(work, resource, scopes, made=start_made)
        for group in expected:  # those with objects that an earlier process made, or nobody
            if any(stream.source_id in group_of for stream in group):
                start_group(group)
        work.tail.begin(stack.pop_all().close)


def copy_logs(work: Work, scopes: Sequence[Scope]) -> None:
    """The log rows of all projects."""
    if work.settings.shard:
        _copy_shard(work, "logs")
        return
    if not _copies_rows(work, "logs"):
        _plan_rows(work, "logs")
        return
    states, kind = work.run.objects(PROJECTS.name), ROW_KINDS["logs"]
    streams = [
        RowStream(kind, scope.name, scope.source["id"], scope.dest_id, scope.name, states.made(scope.source["id"]))
        for scope in scopes
        if scope.dest_id
    ]
    round_ = round_of(work.run.data, "logs", work.settings.lookback)
    if round_:
        _copy_round(work, "logs", streams, round_)
        return
    with streaming(work.catalog, work.copier, FirstPages(work.catalog), work.tail.halt) as start:
        for group in groups(streams, work.settings.read_streams):
            start(group)


def _copy_round(work: Work, kind_name: str, streams: Sequence[RowStream], round_: Round) -> None:
    """What is new since the last sync; the objects are there."""
    with streaming(work.catalog, work.copier, FirstPages(work.catalog), work.tail.halt, round_) as start:
        for group in round_groups(work.catalog, streams, round_):
            start(group)
    _close_gone(work, kind_name)
    if work.settings.propagate_deletes:
        propagate_deletes(work.catalog, kind_name, streams, round_)


def _copies_rows(work: Work, kind_name: str) -> bool:
    return work.settings.selects(kind_name) and not work.objects_only and not work.settings.dry_run


def _plan_rows(work: Work, kind_name: str) -> None:
    """A dry run counts rows instead of copying them."""
    if work.settings.selects(kind_name) and not work.objects_only:
        row_plans(work, [kind_name])


def _expected(work: Work, kind_name: str, scopes: Sequence[Scope]) -> Iterator[RowStream]:
    """The streams of all objects of a kind if each can be made, in the order of the source's objects; what they are in the
    destination is not known yet.
    """
    for scope in scopes:
        if scope.dest_id:
            listed = row_object_ids(work.catalog, kind_name, scope.source["id"])
            for source_id in dict.fromkeys((*listed, *work.run.objects(kind_name, scope.name).outcomes)):
                yield RowStream(ROW_KINDS[kind_name], scope.name, source_id, "", "", fresh=True)


def _reads_early(work: Work, group: Sequence[RowStream]) -> bool:
    """Whether the first rows of objects can be read before these are made: not where an earlier process of this run has come to them."""
    begun = any(work.run.has_stream(stream.kind.folder, stream.project, stream.source_id) for stream in group)
    return not begun and (len(group) > 1 or work.settings.read_streams == 1)


def _made(work: Work, group: Sequence[RowStream]) -> Iterator[RowStream]:
    """Those of the group that have a counterpart, with it."""
    for stream in group:
        states = work.run.objects(stream.kind.name, stream.project)
        entry = states.outcomes.get(stream.source_id, {})
        if entry.get("dest_id"):
            yield replace(stream, dest_id=entry["dest_id"], name=entry["name"], fresh=states.made(stream.source_id))


def _close_gone(work: Work, kind_name: str) -> None:
    """A stream whose object is gone from the source has nothing to come, whatever was wrong with it."""
    holder = BY_NAME.get(kind_name, PROJECTS)
    for state in work.run.all_streams():
        gone = not state.done and state.header["kind"] == kind_name
        if gone and work.catalog.source_object(holder, state.header["source_id"]) is None:
            state.done, state.error = True, ""
            state.save()


def _copy_shard(work: Work, kind_name: str) -> None:
    """The rows of a kind that fell to this shard; their objects are there."""
    with streaming(work.catalog, work.copier, FirstPages(work.catalog), work.tail.halt) as start:
        for group in groups(_streams_of_shard(work, kind_name), work.settings.read_streams):
            start(group)


def _streams_of_shard(work: Work, kind_name: str) -> List[RowStream]:
    """What a shard takes of each object. Raises UsageError, before a row of the kind is written, where one is not in the destination
    yet.
    """
    shard, holder = work.settings.shard, BY_NAME.get(kind_name, PROJECTS)
    mark, before = shard["mark"]["source"], after_second(shard["mark"]["dest"])
    streams, missing, gone = [], [], []
    for unit in (unit for unit in shard["units"] if unit["kind"] == kind_name):
        after, end = unit.get("after"), unit.get("end")
        dest_id = work.catalog.resolve((holder.name,), unit["id"])
        if dest_id:
            part = Part(after, end or after_second(mark), not after and not end, mark, unit["new"], before)
            streams.append(RowStream(ROW_KINDS[kind_name], unit["project"], unit["id"], dest_id, unit["name"], False, part))
        elif work.catalog.source_object(holder, unit["id"]):
            missing.append(unit_name(unit))
        else:
            gone.append(unit["id"])
            log.warning("%s was deleted in the source since the shards were planned", unit_name(unit), extra={"event": "gone"})
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise UsageError(f"{missing[0]}{more}: not in the destination; move the objects first, with bin/migrate-all --no-rows")
    work.run.data.setdefault("gone", {})[kind_name] = gone
    if not streams:
        log.info("%s has no rows of %s", shard_name(shard), kind_name, extra={"event": "nothing_to_do"})
    return streams


def row_plans(work: Work, kinds: Sequence[str]) -> Dict[str, Dict[str, Any]]:
    """Kind -> what its rows take, found out once in a dry run; see `plan_rows`."""
    plans: Dict[str, Dict[str, Any]] = work.run.data.setdefault("row_plans", {})
    missing = {kind: list(row_objects(work.catalog, kind)) for kind in kinds if kind not in plans}
    if missing:
        plans.update(found_plans(work.catalog, missing))
        work.run.save()
    return {kind: plans[kind] for kind in kinds}


def found_plans(catalog: Catalog, objects: Mapping[str, Sequence[Dict[str, Any]]]) -> Dict[str, Dict[str, Any]]:
    with ThreadPoolExecutor(len(objects) or 1, thread_name_prefix="plan") as pool:
        return dict(zip(objects, pool.map(lambda kind: plan_rows(catalog, kind, objects[kind]), objects)))


# -- references that wait


def finish_waiting(work: Work) -> None:
    """Complete what waited for objects that exist by now, in this run and in earlier unfinished ones of the same two
    organizations; a dry run looks at its own objects only.
    """
    finish_objects(work.catalog, work.run)
    if work.settings.dry_run:
        return
    _finish_rows(work, work.run)
    for run in _earlier_waiting(work):
        try:
            with run:
                finish_objects(work.catalog, run)
                _finish_rows(work, run)
                run.data["waiting"] = _waits(run)
                run.save()
        except LockedError:
            log.info("run %s is in use; what waits there is left to it", run.path)


def finish_objects(catalog: Catalog, run: RunDirectory) -> None:
    """Complete the objects of a run; a dry run only compares them at last."""
    for states in run.all_objects():
        if states.deferred:
            finish_deferred(catalog, BY_NAME[states.resource], states)


def _finish_rows(work: Work, run: RunDirectory) -> None:
    for stream in run.all_streams():
        if stream.waiting:
            finish_deferred_rows(work.catalog, work.copier, stream)


def _earlier_waiting(work: Work) -> Iterator[RunDirectory]:
    for run in readable_runs_in(work.run.path.parent):
        if run.data.get("waiting") and run.same_pair(work.run.data) and run.path != work.run.path:
            yield run


def _waits(run: RunDirectory) -> bool:
    return any(states.deferred for states in run.all_objects()) or any(stream.waiting for stream in run.all_streams())


def tell_waiting(work: Work, *, final: bool) -> None:
    """Record what still waits: unresolved at the end of a whole run, waiting at the end of a phase."""
    for states in work.run.all_objects():
        if states.deferred:
            note_deferred(work.catalog, BY_NAME[states.resource], states, final=final)
    for stream in work.run.all_streams():
        if stream.waiting or any(one.get("waited") for one in stream.findings):
            note_deferred_rows(work.catalog, stream, final=final)
    work.run.data["waiting"] = _waits(work.run)


def kinds_behind(run: RunDirectory) -> Set[str]:
    """The kinds of rows of which a stream did not come to its end."""
    return {stream.header["kind"] for stream in run.all_streams() if not stream.done}
