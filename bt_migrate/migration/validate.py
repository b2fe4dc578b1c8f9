"""What is found out before anything is written: rights, what is there, what cannot be moved, and how much the move takes."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Dict, List, Optional, Sequence, Tuple

from bt_migrate.api.client import Api
from bt_migrate.errors import ApiError, NetworkError, UsageError
from bt_migrate.migration.context import Migration
from bt_migrate.migration.steps import found_plans, row_plans
from bt_migrate.migration.unmovable import organization_losses
from bt_migrate.model.findings import UNSEEN
from bt_migrate.model.resource import PROJECT, Resource
from bt_migrate.model.resource_table import (
    EXPERIMENTS,
    OBJECT_RESOURCES,
    PROJECTS,
    USERS,
)
from bt_migrate.model.resources import REFERABLE, ROW_KINDS, is_listed_alone
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.prepare import skip_reason
from bt_migrate.report.text import estimate_text
from bt_migrate.rows.count import row_objects
from bt_migrate.rows.estimate import counted, estimate, shown_count, total
from bt_migrate.state.run_directory import readable_runs_in

log = logging.getLogger("bt_migrate.validate")


def validate(migration: Migration) -> Optional[Future[None]]:
    """Check and tell. Raises UsageError where a key lacks a right, before the first write.

    Rows are counted beside what follows, which does not need their number: the result, if it is not there yet. A dry run plans by it.
    """
    catalog = migration.catalog
    pool = ThreadPoolExecutor(
        thread_name_prefix="validate"
    )  # what does not need each other is asked at once
    try:
        asked = pool.submit(_write_right, migration)
        catalog.prefetch(*_lists(migration))
        rights, projects = asked.result(), catalog.projects()
        result = {
            "source": _side(catalog.source),
            "destination": _side(catalog.dest),
            "write_right": rights,
            "objects": _object_counts(catalog, projects),
            "cannot_move": _cannot_move(catalog, projects),
        }
        losses = pool.submit(organization_losses, catalog, projects)
        counts = not migration.run.data.get("round")  # a round reads what is new at once
        kinds = [kind for kind in ROW_KINDS if counts and migration.settings.selects(kind)]
        if migration.settings.dry_run:
            _tell(migration, result, losses, row_plans(migration, kinds))
            return None
        objects = {kind: list(row_objects(catalog, kind)) for kind in kinds}
        return pool.submit(lambda: _tell(migration, result, losses, found_plans(catalog, objects)))
    finally:
        pool.shutdown(wait=False)


def _tell(
    migration: Migration,
    result: Dict[str, Any],
    losses: Future[List[Any]],
    kinds: Dict[str, Dict[str, Any]],
) -> None:
    """Write down and tell what was found, once the rows are counted."""
    rows = {
        kind: counted(one for stream in of_kind["streams"] for one in stream["objects"])
        for kind, of_kind in kinds.items()
    }
    found = {
        "findings": losses.result(),
        "estimate": estimate(migration.catalog, kinds),
        "unavailable": dict(migration.catalog.unavailable),
    }
    migration.run.data["validation"] = result = {**result, "streams": rows, **found}
    migration.run.save()
    for line in validation_lines(result, kinds):
        log.info("%s", line, extra={"event": "validation"})


def _lists(migration: Migration) -> Tuple[List[Resource], List[Resource]]:
    """What is looked at here and by the phases that come: of the source, and of the destination as a whole. Long ones first."""
    moved = [one for one in OBJECT_RESOURCES if is_listed_alone(one)]
    moved = [one for one in moved if one is PROJECTS or migration.settings.selects(one.name)]
    source = sorted(
        {one.name: one for one in (*REFERABLE, *moved)}.values(),
        key=lambda one: one is not EXPERIMENTS,
    )
    dest = [one for one in moved if one.scope == "organization"]
    return source, [*dest, USERS]


def _side(api: Api) -> Dict[str, str]:
    return {"org_id": api.org_id, "org_name": api.display_name, "url": api.url}


def _write_right(migration: Migration) -> str:
    """Whether the destination's key may write, found out by a request that cannot succeed: a project needs a name, so an empty
    one is refused with 400 by who may write and with 403 to who may not. Not asked where an earlier run has written, nor in a
    dry run.
    """
    if migration.settings.dry_run:
        return "not asked in a dry run"
    if _has_written(migration) or migration.run.data.get("round"):
        return "shown by an earlier run"
    try:
        migration.catalog.dest.post("/v1/project", {})
    except ApiError as error:
        if error.status in (401, 403):
            raise UsageError(
                f"destination: the key may not write to {migration.catalog.dest.display_name} ({error.status}); use one with write rights"
            ) from None
        if error.refuses_content:
            return "yes"
        raise
    raise NetworkError(
        f"destination: {migration.catalog.dest.url} takes a project without a name; is it a Braintrust API?"
    )


def _has_written(migration: Migration) -> bool:
    return any(
        run.data.get("wrote") and run.same_pair(migration.run.data)
        for run in readable_runs_in(migration.run.path.parent)
    )


def _object_counts(catalog: Catalog, projects: Sequence[dict]) -> Dict[str, Dict[str, int]]:
    """resource -> project name ("" for the organization's) -> objects in the source.

    Views and ACLs are listed per object, later.
    """
    counts: Dict[str, Dict[str, int]] = {}
    for resource in OBJECT_RESOURCES:
        if not catalog.settings.selects(resource.name) or not is_listed_alone(resource):
            continue
        if resource.scope == "organization":
            counts[resource.name] = {"": len(catalog.source_list(resource))}
        else:
            counts[resource.name] = {
                one["name"]: len(catalog.source_objects(resource, one["id"])) for one in projects
            }
    return counts


def _cannot_move(catalog: Catalog, projects: Sequence[dict]) -> List[str]:
    """By name what the phases will tell of too: values of secrets, and objects that nobody can move."""
    told = []
    for resource in OBJECT_RESOURCES:
        if not catalog.settings.selects(resource.name):
            continue
        if resource.hidden_field and is_listed_alone(resource):
            hidden = catalog.source_list(resource)
            told += [f"the value of {resource.kind} {one['name']!r}" for one in hidden]
        if resource.scope != PROJECT:
            continue
        for project in projects:
            for one in catalog.source_objects(resource, project["id"]):
                reason = skip_reason(catalog, resource, one)
                if reason and "window" not in reason:
                    told.append(
                        f"{resource.kind} {one.get('name')!r} of {project['name']!r}: {reason}"
                    )
    return told


def validation_lines(result: Dict[str, Any], kinds: Dict[str, Dict[str, Any]]) -> List[str]:
    """The result for a person."""
    lines = [
        f"{side}: {result[side]['org_name']} ({result[side]['org_id']}) at {result[side]['url']}"
        for side in ("source", "destination")
    ]
    lines.append(f"key of the destination may write: {result['write_right']}")
    for resource, projects in result["objects"].items():
        lines.append(f"{resource}: {sum(projects.values()):,}{_by_project(projects)}")
    for kind, of_kind in kinds.items():
        streams = of_kind["streams"]
        lines.append(f"rows of {kind}: {shown_count(total(streams, 'rows'))}")
        objects = [
            one for stream in streams for one in stream["objects"] if one["rows"] is not None
        ]
        lines += [
            f"rows of {kind} {one['name']!r} of {one['project']!r}: {one['rows']:,}"
            for one in objects
        ]
    lines.append(f"estimate: {estimate_text(result['estimate'])}")
    lines += [
        f"not on this server: {name} ({reason})" for name, reason in result["unavailable"].items()
    ]
    lines += [f"will not move: {one}" for one in result["cannot_move"]]
    lines += [
        f"will not move: {one['resource']} {one['name']!r}: {one['next']}"
        for one in result["findings"]
    ]
    return lines + [f"cannot be listed: {one}" for one in UNSEEN]


def _by_project(projects: Dict[str, int]) -> str:
    named = [f"{name} {count:,}" for name, count in projects.items() if name and count]
    return f" ({', '.join(named)})" if named else ""
