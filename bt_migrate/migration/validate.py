"""Checks what a migration will meet, before anything is written.

Rights of the keys, objects and rows of the source, what cannot move, and how much work it is.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ContextManager, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from bt_migrate.api.client import Api
from bt_migrate.migration.context import Migration
from bt_migrate.migration.retention import deleted_at_once
from bt_migrate.migration.rights import refused_lists, write_right
from bt_migrate.migration.row_steps import dataset_states_named, found_plans, row_plans
from bt_migrate.migration.unmovable import organization_losses
from bt_migrate.model.activation import acts_not, missing_words
from bt_migrate.model.findings import UNSEEN
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import ORGANIZATION, PROJECT, Resource
from bt_migrate.model.resource_table import (
    DATASETS,
    EXPERIMENTS,
    FUNCTIONS,
    OBJECT_RESOURCES,
    PROJECTS,
    USERS,
)
from bt_migrate.model.resources import REFERABLE, ROW_KINDS, is_listed_alone
from bt_migrate.objects.bundles import bundle_file, unused_files
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.lists import LISTS_READ
from bt_migrate.objects.owned import list_source_group, owner_groups
from bt_migrate.objects.prepare import skip_reason
from bt_migrate.report.display import and_more
from bt_migrate.report.measures import estimate_text, states_text
from bt_migrate.rows.count import OBJECTS_COUNTED, row_objects
from bt_migrate.rows.estimate import Listed, estimate
from bt_migrate.rows.planned_rows import objects_counted, shown_count, total
from bt_migrate.state.live_counts import Task

log = logging.getLogger("bt_migrate.validate")


def validate(migration: Migration) -> Optional[Future[None]]:
    """Validate and record the result. Raises UsageError if a key lacks a right.

    Returns a Future if rows are still being counted: the next phases do not need the counts.
    Returns None in a dry run, which plans by the counts.
    """
    catalog = migration.catalog
    began = time.monotonic()
    pool = ThreadPoolExecutor(thread_name_prefix="validate")
    try:
        # before the lists: a server may create what is only tried
        right = _write_right(migration)
        projects = _read_lists(migration)
        _warn_of_unused_bundles(catalog)
        result = {
            "source": _side(catalog.source),
            "destination": _side(catalog.dest),
            "write_right": right,
            "refused_lists": _refused_lists(migration, projects),
            "objects": _object_counts(catalog, projects),
            "cannot_move": list(_cannot_move(catalog, projects)),
            "dataset_states": _dataset_states(migration, projects),
        }
        losses = pool.submit(organization_losses, catalog, projects)
        objects = {kind: list(row_objects(catalog, kind)) for kind in _kinds_to_count(migration)}
        if migration.settings.dry_run:
            with _counting(migration, objects):
                plans = row_plans(migration, list(objects))
            _record(migration, result, losses.result(), plans, began=began)
            return None

        def count_and_record() -> None:
            with _counting(migration, objects):
                plans = found_plans(migration, objects)
            _record(migration, result, losses.result(), plans, began=began)

        return pool.submit(count_and_record)
    finally:
        pool.shutdown(wait=False)


def _read_lists(migration: Migration) -> List[JsonObject]:
    """Read the lists that the validation needs. Returns the source's projects."""
    lists = migration.catalog.lists
    with migration.run.live.working(LISTS_READ, None) as task:
        lists.prefetch(*_lists(migration), note_read=task.step)
    return lists.projects()


def _counting(
    migration: Migration, objects: Mapping[str, Sequence[Dict[str, Any]]]
) -> ContextManager[Task]:
    """Inside `with`, counted objects are shown as progress."""
    of_both = [obj for of_kind in objects.values() for obj in of_kind]
    count = len(of_both) + sum(bool(obj["dest_id"]) for obj in of_both)
    return migration.run.live.working(OBJECTS_COUNTED, count, "validate")


def _kinds_to_count(migration: Migration) -> List[str]:
    """Returns the selected kinds of rows; none in a sync, which does not need their counts."""
    if migration.run.record.round:
        return []
    return [kind for kind in ROW_KINDS if migration.settings.selects(kind)]


def _record(
    migration: Migration,
    result: Dict[str, Any],
    losses: List[Dict[str, Any]],
    plans: Dict[str, Dict[str, Any]],
    *,
    began: float,
) -> None:
    """Save and log the result, once the rows are counted. `plans`: kind of rows -> its plan."""
    catalog = migration.catalog
    objects = sum(sum(projects.values()) for projects in result["objects"].values())
    sampling_s = sum(plan["page_seconds"] for plan in plans.values())
    # A real run samples one object of a kind.
    more_samples = sum(max(0, plan["samples"] - 1) for plan in plans.values())
    queries = catalog.source.throttle.queries - more_samples
    listing_s = max(0.0, time.monotonic() - began - sampling_s)
    listed = Listed(objects, listing_s, queries, *_moved_versions(catalog))
    rows = {
        kind: objects_counted(obj for stream in plan["streams"] for obj in stream["objects"])
        for kind, plan in plans.items()
    }
    result = {
        **result,
        "streams": rows,
        "findings": losses,
        "estimate": estimate(catalog, plans, listed),
        "listed": listed._asdict(),
        "unavailable": dict(catalog.lists.unavailable),
    }
    migration.run.record.validation = result
    migration.run.save()
    for line in result_lines(result, plans):
        log.info("%s", line, extra={"event": "validation"})


def _moved_versions(catalog: Catalog) -> Tuple[int, int]:
    """Returns how many earlier versions of objects move, and of one object at most."""
    history = catalog.settings.history
    counts = [
        min(history, len(catalog.histories.source.transactions(obj["id"])) - 1)
        for resource in OBJECT_RESOURCES
        if history and resource.versioned and catalog.settings.selects(resource.name)
        for obj in catalog.lists.source_list_or_empty(resource)
    ]
    moved = [count for count in counts if count > 0]
    return sum(moved), max(moved, default=0)


def _lists(migration: Migration) -> Tuple[List[Resource], List[Resource]]:
    """Yields the lists that this phase and the next ones need from both sides.

    From the destination only lists of the whole organization. Lists that take long come first.
    """
    moved = [
        resource
        for resource in OBJECT_RESOURCES
        if is_listed_alone(resource)
        and (resource is PROJECTS or migration.settings.selects(resource.name))
    ]
    source = {resource.name: resource for resource in (*REFERABLE, *moved)}
    longest_first = sorted(source.values(), key=lambda resource: resource is not EXPERIMENTS)
    dest = [resource for resource in moved if resource.scope == ORGANIZATION]
    return longest_first, [*dest, USERS]


def _side(api: Api) -> Dict[str, str]:
    return {"org_id": api.org_id, "org_name": api.display_name, "url": api.url}


def _write_right(migration: Migration) -> str:
    """Returns `rights.write_right`. Not tried in a dry run, or in a sync of a run that wrote."""
    if migration.settings.dry_run:
        return "not asked in a dry run"
    if migration.run.record.round:
        return "shown by an earlier run"
    return write_right(migration.catalog.dest)


def _refused_lists(migration: Migration, projects: Sequence[JsonObject]) -> List[Dict[str, Any]]:
    """Returns `rights.refused_lists`. Not tried in a sync, which runs every few minutes."""
    if migration.run.record.round:
        return []
    return refused_lists(migration.catalog, projects)


def _dataset_states(migration: Migration, projects: Sequence[JsonObject]) -> Dict[str, Any]:
    """How many states of datasets the source names, and how many of them will be made.

    `kept`: names of datasets that are in the destination already, and keep the history they have.
    """
    catalog, settings = migration.catalog, migration.settings
    pinned = dataset_states_named(migration, projects)
    there = {
        source_id: catalog.lists.source_object(DATASETS, source_id)
        for source_id in pinned
        if settings.dataset_versions and catalog.targets.resolve((DATASETS.name,), source_id)
    }
    new = [xacts for source_id, xacts in pinned.items() if source_id not in there]
    wanted = settings.dataset_versions
    return {
        "wanted": wanted,
        "named": sum(map(len, pinned.values())),
        "to_make": sum(map(len, new)) if wanted else 0,
        "datasets": len(new),
        "kept": sorted(str(obj["name"]) for obj in there.values() if obj),
    }


def _object_counts(catalog: Catalog, projects: Sequence[JsonObject]) -> Dict[str, Dict[str, int]]:
    """Returns resource -> project name ("" for the organization) -> number of source objects.

    Kinds that are listed by owner are counted later, by the phases that move them.
    """
    counts: Dict[str, Dict[str, int]] = {}
    for resource in OBJECT_RESOURCES:
        if not catalog.settings.selects(resource.name) or not is_listed_alone(resource):
            continue
        if resource.scope == ORGANIZATION:
            counts[resource.name] = {"": len(catalog.lists.source_list(resource))}
        else:
            counts[resource.name] = {
                project["name"]: len(catalog.lists.source_objects(resource, project["id"]))
                for project in projects
            }
    return counts


def _warn_of_unused_bundles(catalog: Catalog) -> None:
    if not catalog.settings.bundles.files or not catalog.settings.selects(FUNCTIONS.name):
        return
    unused = unused_files(catalog.lists, FUNCTIONS)
    if unused:
        text = and_more(f"{unused[0].parent.name}/{unused[0].name}", len(unused) - 1)
        log.warning("--bundles: no function has a bundle named like %s", text)


def _cannot_move(catalog: Catalog, projects: Sequence[JsonObject]) -> Iterator[str]:
    """Yields a line for each value and object that cannot move; the phases report them too.

    What is deleted comes first: the screen shows the first lines only.
    """
    selected = [kind for kind in OBJECT_RESOURCES if catalog.settings.selects(kind.name)]
    for resource in selected:
        if resource.acts is not acts_not:
            yield from _deleted_at_once(catalog, resource, projects)
    for resource in selected:
        if resource.hidden_field:
            for obj in _all_of_source(catalog, resource, projects):
                yield f"the value of {resource.kind} {obj['name']!r}"
        if resource.scope == PROJECT:
            for project in projects:
                yield from _unmovable_objects(catalog, resource, project)
        if resource.acts is not acts_not:
            yield from _not_activated(catalog, resource, projects)


def _deleted_at_once(
    catalog: Catalog, resource: Resource, projects: Sequence[JsonObject]
) -> Iterator[str]:
    """Yields what retention rules would delete at once."""
    names, objects = _of_projects(catalog, resource, projects)
    deletes = {} if catalog.run.record.round else deleted_at_once(catalog, resource, objects)
    for obj in objects:
        if obj["id"] in deletes:
            text = deletes[obj["id"]]["detail"]
            yield f"rows that {_titled(resource, obj, names)} deletes at once: {text}"


def _not_activated(
    catalog: Catalog, resource: Resource, projects: Sequence[JsonObject]
) -> Iterator[str]:
    """Yields what needs --activate."""
    names, objects = _of_projects(catalog, resource, projects)
    for obj in objects:
        words = missing_words(resource.acts(obj), catalog.settings.activate)
        if words and not skip_reason(catalog, resource, obj):
            titled = _titled(resource, obj, names)
            yield f"{titled}: created with --activate {','.join(words)} only"


def _of_projects(
    catalog: Catalog, resource: Resource, projects: Sequence[JsonObject]
) -> Tuple[Dict[str, str], List[JsonObject]]:
    """Returns project id -> name, and the objects of the organization and of these projects."""
    names = {project["id"]: project["name"] for project in projects}
    listed = catalog.lists.source_list_or_empty(resource)
    return names, [obj for obj in listed if resource.scope != PROJECT or obj["project_id"] in names]


def _all_of_source(
    catalog: Catalog, resource: Resource, projects: Sequence[JsonObject]
) -> List[JsonObject]:
    """Returns the objects of a kind in the organization, or in the projects and their owners."""
    if is_listed_alone(resource):
        return catalog.lists.source_list(resource)
    places = [(project["id"], "", project["name"]) for project in projects]
    groups = owner_groups(catalog, resource, places)
    return [obj for group in groups for obj in list_source_group(catalog, resource, group)]


def _unmovable_objects(catalog: Catalog, resource: Resource, project: JsonObject) -> Iterator[str]:
    for obj in catalog.lists.source_objects(resource, project["id"]):
        reason = skip_reason(catalog, resource, obj)
        if reason and "window" not in reason and not bundle_file(catalog.lists, resource, obj):
            yield f"{_titled(resource, obj, {project['id']: project['name']})}: {reason}"


def _titled(resource: Resource, obj: JsonObject, project_names: Dict[str, str]) -> str:
    """`prompt 'greeting' of 'Support'`, or without the project if the object is in none"""
    place = project_names.get(obj.get("project_id", ""))
    return f"{resource.kind} {obj.get('name')!r}" + (f" of {place!r}" if place else "")


# -- text


def result_lines(result: Dict[str, Any], plans: Dict[str, Dict[str, Any]]) -> List[str]:
    """Returns the result as lines for a person."""
    lines = [
        f"{side}: {result[side]['org_name']} ({result[side]['org_id']}) at {result[side]['url']}"
        for side in ("source", "destination")
    ]
    lines.append(f"destination key can write: {result['write_right']}")
    lines += [
        f"{entry['side']} key cannot list {entry['resource']} ({entry['reason']})"
        for entry in result.get("refused_lists", ())
    ]
    for resource, projects in result["objects"].items():
        lines.append(f"{resource}: {sum(projects.values()):,}{_by_project(projects)}")
    for kind, plan in plans.items():
        lines += _row_lines(kind, plan["streams"])
    if result["dataset_states"]["named"]:
        lines.append(f"states of datasets: {states_text(result['dataset_states'])}")
    lines.append(f"estimate: {estimate_text(result['estimate'])}")
    lines += [
        f"not on this server: {name} ({reason})" for name, reason in result["unavailable"].items()
    ]
    lines += [f"will not move: {text}" for text in result["cannot_move"]]
    lines += [
        f"will not move: {finding['resource']} {finding['name']!r}: {finding['next']}"
        for finding in result["findings"]
    ]
    return lines + [f"cannot be listed: {text}" for text in UNSEEN]


def _row_lines(kind: str, streams: Sequence[Dict[str, Any]]) -> Iterator[str]:
    yield f"rows of {kind}: {shown_count(total(streams, 'rows'))}"
    for stream in streams:
        for obj in stream["objects"]:
            if obj["rows"] is not None:
                yield f"rows of {kind} {obj['name']!r} of {obj['project']!r}: {obj['rows']:,}"


def _by_project(projects: Dict[str, int]) -> str:
    named = [f"{name} {count:,}" for name, count in projects.items() if name and count]
    return f" ({', '.join(named)})" if named else ""
