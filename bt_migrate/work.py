"""What phases do, in the words of phases: projects, kinds of objects, rows, references that wait.

Composed of the movers below.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.attachments import AttachmentCopier
from bt_migrate.btql import OBJECTS_PER_COUNT, count_query
from bt_migrate.catalog import REFERABLE, Catalog
from bt_migrate.copy_objects import copy_objects
from bt_migrate.copy_rows import RowStream, bounds_of, copy_streams
from bt_migrate.deferred_objects import finish_deferred, note_deferred
from bt_migrate.deferred_rows import finish_deferred_rows, note_deferred_rows
from bt_migrate.errors import ApiError, ConflictError, LockedError
from bt_migrate.owned_objects import acl_owners, list_acls, list_dest_acls, list_dest_views, list_views
from bt_migrate.planning import display_name
from bt_migrate.prepare_objects import Item, items_of, skip_reason
from bt_migrate.resources import ACLS, BY_NAME, EXPERIMENTS, PROJECT_SETTINGS, PROJECTS, ROW_KINDS, VIEWS, Resource
from bt_migrate.runs import RunDirectory, readable_runs_in
from bt_migrate.settings import FAIL, Settings
from bt_migrate.state import CREATED, DIFFERS, LATER, SKIPPED

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
    """One project on both sides. `dest_id` is None where the project could not be made."""

    source: dict
    dest_id: Optional[str]

    @property
    def name(self) -> str:
        return str(self.source["name"])


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
    projects = work.catalog.projects()
    copy_objects(work.catalog, PROJECTS, items_of(work.run.objects(PROJECTS.name), projects))
    return [Scope(project, work.catalog.resolve(("projects",), project["id"])) for project in projects]


def copy_organization_kind(work: Work, resource: Resource) -> None:
    """Objects of the organization as a whole."""
    if work.settings.selects(resource.name):
        items = items_of(work.run.objects(resource.name), work.catalog.source_list(resource))
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
        for item in items_of(states, whole, scope.dest_id or ""):
            reason = NO_PROJECT if scope.dest_id is None else LATER if later and later(item.source) else ""
            if reason:
                states.record(item.source["id"], display_name(resource, item.source), SKIPPED, reason=reason)
            else:
                items.append(item)
        states.save()
    copy_objects(work.catalog, resource, items, copier=work.copier)


def copy_views(work: Work, scopes: Sequence[Scope]) -> None:
    """Views of projects and of their datasets and experiments."""
    if not work.settings.selects(VIEWS.name):
        return
    for scope in scopes:
        if scope.dest_id:
            views = list_views(work.catalog, scope.source["id"])
            items = items_of(work.run.objects(VIEWS.name, scope.name), views, scope.dest_id)
            if items:
                work.catalog.provide(VIEWS, scope.dest_id, list_dest_views(work.catalog, scope.source["id"]))
            copy_objects(work.catalog, VIEWS, items)


def copy_acls(work: Work, scopes: Sequence[Scope]) -> None:
    """ACLs of everything that was selected, and of the organization itself."""
    if not work.settings.selects(ACLS.name):
        return
    catalog = work.catalog
    owners = acl_owners(catalog, [scope.source for scope in scopes])
    items = items_of(work.run.objects(ACLS.name), list_acls(catalog, owners))
    catalog.provide(ACLS, "", list_dest_acls(catalog, owners))
    copy_objects(catalog, ACLS, items)


def copy_rows(work: Work, kind_name: str, scopes: Sequence[Scope]) -> None:
    """The rows of all objects of a kind that have a counterpart. A dry run counts them instead."""
    if not work.settings.selects(kind_name) or work.objects_only:
        return
    streams = [stream for scope in scopes if scope.dest_id for stream in _streams(work, kind_name, scope)]
    if work.settings.dry_run:
        for scope in scopes:
            _plan_rows(work, kind_name, scope)
    else:
        copy_streams(work.catalog, streams, work.copier)


def _streams(work: Work, kind_name: str, scope: Scope) -> Iterator[RowStream]:
    kind, source_id = ROW_KINDS[kind_name], scope.source["id"]
    if kind_name == "logs":
        project = work.run.objects(PROJECTS.name).outcomes.get(source_id, {})
        yield RowStream(kind, scope.name, source_id, str(scope.dest_id), scope.name, project.get("outcome") == CREATED)
        return
    states = work.run.objects(kind_name, scope.name)
    for source_id, entry in states.outcomes.items():
        if entry.get("dest_id"):
            yield RowStream(kind, scope.name, source_id, entry["dest_id"], entry["name"], entry["outcome"] == CREATED)


def row_object_ids(work: Work, kind_name: str, project_id: str) -> List[str]:
    """Source ids of the selected objects of a project that hold rows of the kind."""
    if kind_name == "logs":
        return [project_id]
    resource = BY_NAME[kind_name]
    objects = work.catalog.source_objects(resource, project_id)
    return [one["id"] for one in objects if not (resource is EXPERIMENTS and skip_reason(work.catalog, resource, one))]


def _plan_rows(work: Work, kind_name: str, scope: Scope) -> None:
    ids = row_object_ids(work, kind_name, scope.source["id"])
    rows = count_rows(work.catalog, kind_name, ids)
    work.run.data.setdefault("planned_rows", {}).setdefault(scope.name, {})[kind_name] = rows
    work.run.save()
    told = "unknown" if rows is None else f"{rows:,}"
    log.info(
        "planned rows of %s in %r: %s",
        kind_name,
        scope.name,
        told,
        extra={"event": "planned_rows", "resource": kind_name, "rows": rows},
    )


def count_rows(catalog: Catalog, kind_name: str, object_ids: Sequence[str]) -> Optional[int]:
    """Source rows of the objects inside the window; None where the server does not count."""
    total = 0
    for start in range(0, len(object_ids), OBJECTS_PER_COUNT):
        query = count_query(kind_name, object_ids[start : start + OBJECTS_PER_COUNT], bounds_of(catalog, ROW_KINDS[kind_name]))
        try:
            rows = catalog.source.query(query).json
            total += int(rows[0]["rows"]) if rows else 0
        except (ApiError, KeyError, TypeError, ValueError) as error:
            log.info("rows of %s cannot be counted (%s)", kind_name, type(error).__name__)
            return None
    return total


# -- references that wait


def finish_waiting(work: Work) -> None:
    """Complete what waited for objects that exist by now, in this run and in earlier unfinished ones of the same two
    organizations.
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
        if stream.waiting:
            note_deferred_rows(work.catalog, stream, final=final)
    work.run.data["waiting"] = _waits(work.run)


def incomplete_streams(run: RunDirectory) -> List[Tuple[str, str]]:
    """(name, error) of streams that did not come to their end."""
    return [(stream.header.get("name", ""), stream.error) for stream in run.all_streams() if not stream.done]
