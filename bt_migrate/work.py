"""What phases do, in the words of phases: projects, kinds of objects, rows, references that wait.

Composed of the movers below.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.attachments import AttachmentCopier
from bt_migrate.catalog import REFERABLE, Catalog
from bt_migrate.copy_objects import copy_objects
from bt_migrate.copy_rows import copy_streams
from bt_migrate.deferred_objects import finish_deferred, note_deferred
from bt_migrate.deferred_rows import finish_deferred_rows, note_deferred_rows
from bt_migrate.errors import ConflictError, LockedError
from bt_migrate.owned_objects import acl_owners, list_acls, list_dest_acls, list_dest_views, list_views
from bt_migrate.planning import display_name
from bt_migrate.prepare_objects import Item, items_of, note_gone
from bt_migrate.resources import ACLS, BY_NAME, PROJECT_SETTINGS, PROJECTS, ROW_KINDS, VIEWS, Resource
from bt_migrate.rounds import round_of
from bt_migrate.row_plan import plan_rows
from bt_migrate.row_streams import RowStream
from bt_migrate.runs import RunDirectory, readable_runs_in
from bt_migrate.settings import FAIL, Settings
from bt_migrate.state import DIFFERS, LATER, SKIPPED

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
    """The selected projects, found or made in the destination."""
    work.catalog.prefetch(REFERABLE, [PROJECTS])
    projects, states = work.catalog.projects(), work.run.objects(PROJECTS.name)
    names = work.run.project_names({one["id"]: one["name"] for one in projects}, states.known())
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


def copy_project_kind(
    work: Work, resource: Resource, scopes: Sequence[Scope], *, later: Optional[Callable[[dict], bool]] = None
) -> None:
    """Objects of a kind in all projects at once, so that references across projects find their order too.

    `later`: those that another phase moves; they are recorded as such and stay open.
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
                states.record(item.source["id"], display_name(resource, item.source), SKIPPED, reason=reason)
            else:
                items.append(item)
        states.save()
    copy_objects(work.catalog, resource, items, copier=work.copier)


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


def copy_rows(work: Work, kind_name: str, scopes: Sequence[Scope]) -> None:
    """The rows of all objects of a kind that have a counterpart. A dry run counts them instead."""
    if not work.settings.selects(kind_name) or work.objects_only:
        return
    if work.settings.dry_run:
        row_plans(work, [kind_name])
        return
    streams = [stream for scope in scopes if scope.dest_id for stream in _streams(work, kind_name, scope)]
    round_ = round_of(work.run.data, kind_name, work.settings.lookback)
    copy_streams(work.catalog, streams, work.copier, round_)
    if round_:
        _close_gone(work, kind_name)


def _streams(work: Work, kind_name: str, scope: Scope) -> Iterator[RowStream]:
    kind, source_id = ROW_KINDS[kind_name], scope.source["id"]
    if kind_name == "logs":
        made = work.run.objects(PROJECTS.name).made(source_id)
        yield RowStream(kind, scope.name, source_id, str(scope.dest_id), scope.name, made)
        return
    states = work.run.objects(kind_name, scope.name)
    for source_id, entry in states.outcomes.items():
        if entry.get("dest_id"):
            yield RowStream(kind, scope.name, source_id, entry["dest_id"], entry["name"], states.made(source_id))


def _close_gone(work: Work, kind_name: str) -> None:
    """A stream whose object is gone from the source has nothing to come, whatever was wrong with it."""
    holder = BY_NAME.get(kind_name, PROJECTS)
    for state in work.run.all_streams():
        gone = not state.done and state.header["kind"] == kind_name
        if gone and work.catalog.source_object(holder, state.header["source_id"]) is None:
            state.done, state.error = True, ""
            state.save()


def row_plans(work: Work, kinds: Sequence[str]) -> Dict[str, Dict[str, Any]]:
    """Kind -> what its rows take, found out once in a run; see `plan_rows`."""
    plans: Dict[str, Dict[str, Any]] = work.run.data.setdefault("row_plans", {})
    missing = [kind for kind in kinds if kind not in plans]
    if missing:
        with ThreadPoolExecutor(len(missing), thread_name_prefix="plan") as pool:
            plans.update(zip(missing, pool.map(lambda kind: plan_rows(work.catalog, kind), missing)))
        work.run.save()
    return {kind: plans[kind] for kind in kinds}


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


def incomplete_streams(run: RunDirectory) -> List[Tuple[str, str]]:
    """(name, error) of streams that did not come to their end."""
    return [(stream.header.get("name", ""), stream.error) for stream in run.all_streams() if not stream.done]
