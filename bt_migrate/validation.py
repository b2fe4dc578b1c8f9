"""What is found out before anything is written: rights, what is there, what cannot be moved, and how much the move takes."""

from __future__ import annotations

import logging
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Optional, Sequence, Tuple

from bt_migrate.api import Api
from bt_migrate.btql import OBJECTS_PER_COUNT, Bounds, count_by_object_query, page_query
from bt_migrate.catalog import REFERABLE, Catalog
from bt_migrate.copy_rows import bounds_of
from bt_migrate.errors import ApiError, NetworkError, UsageError
from bt_migrate.prepare_objects import skip_reason
from bt_migrate.resources import (
    AI_SECRETS,
    BY_NAME,
    EXPERIMENTS,
    OBJECT_RESOURCES,
    PROJECT_SETTINGS,
    PROJECTS,
    ROW_KINDS,
    USERS,
    Resource,
)
from bt_migrate.runs import readable_runs_in
from bt_migrate.work import Work, count_rows, row_object_ids

log = logging.getLogger("bt_migrate.validate")

SAMPLE_ROWS = 50  # read per kind to estimate the size of a row
STARTER_QUERIES_PER_MINUTE = 20  # BTQL on Starter and Pro plans (docs: btql-rate-limits-on-free-and-pro-plans)
# Kinds that the API can list at most, but nobody can create through it: (path, what a person has to do)
NOT_MOVABLE = (
    ("/v1/service_token", "service tokens: make new ones by hand (their keys are shown once)"),
    ("/v1/api_key", "API keys: make new ones by hand"),
    ("/v1/env_var", "environment variables: their values cannot be read; enter them again"),
    ("/v1/dataset_snapshot", "dataset snapshots: they name transactions of the source; make new ones"),
)
NEVER_MOVED = (
    "playgrounds (no API)",
    "audit history and classifications of rows",
    "earlier versions of prompts and functions",
    "users: invite them first, so that groups, views and ACLs can name them",
)


def validate(work: Work) -> None:
    """Check and tell. Raises UsageError where a key lacks a right, before the first write."""
    catalog = work.catalog
    kinds = [kind for kind in ROW_KINDS if work.settings.selects(kind)]
    with ThreadPoolExecutor(thread_name_prefix="validate") as pool:  # what does not need each other is asked at once
        asked = pool.submit(_write_right, work)
        catalog.prefetch(*_lists(work))
        rights, projects = asked.result(), catalog.projects()
        objects = _object_counts(catalog, projects)
        cannot_move = pool.submit(_cannot_move, catalog, projects)
        streams = dict(zip(kinds, pool.map(lambda kind: _rows_per_stream(work, kind, projects), kinds)))
    rows = {kind: _per_project(streams[kind]) or _rows_per_project(work, kind, projects) for kind in kinds}
    result = {
        "source": _side(catalog.source),
        "destination": _side(catalog.dest),
        "write_right": rights,
        "objects": objects,
        "rows": rows,
        "streams": streams,
        "cannot_move": cannot_move.result(),
        "estimate": _estimate(work, rows),
        "unavailable": dict(catalog.unavailable),
    }
    work.run.data["validation"] = result
    work.run.save()
    for line in validation_lines(result):
        log.info("%s", line, extra={"event": "validation"})


def _lists(work: Work) -> Tuple[List[Resource], List[Resource]]:
    """What is looked at here and by the phases that come: of the source, and of the destination as a whole. Long ones first."""
    moved = [one for one in OBJECT_RESOURCES if one.scope != "object" and one is not PROJECT_SETTINGS]
    source = sorted({one.name: one for one in (*REFERABLE, *moved)}.values(), key=lambda one: one is not EXPERIMENTS)
    dest = [one for one in moved if one.scope == "organization" and (one is PROJECTS or work.settings.selects(one.name))]
    return source, [*dest, USERS]


def _side(api: Api) -> Dict[str, str]:
    return {"org_id": api.org_id, "org_name": api.display_name, "url": api.url}


def _write_right(work: Work) -> str:
    """Whether the destination's key may write, found out by a request that cannot succeed: a project needs a name, so an empty
    one is refused with 400 by who may write and with 403 to who may not. Not asked where an earlier run has written, nor in a
    dry run.
    """
    if work.settings.dry_run:
        return "not asked in a dry run"
    if _has_written(work):
        return "shown by an earlier run"
    try:
        work.catalog.dest.post("/v1/project", {})
    except ApiError as error:
        if error.status in (401, 403):
            raise UsageError(
                f"destination: the key may not write to {work.catalog.dest.display_name} ({error.status}); use one with write rights"
            ) from None
        if error.refuses_content:
            return "yes"
        raise
    raise NetworkError(f"destination: {work.catalog.dest.url} takes a project without a name; is it a Braintrust API?")


def _has_written(work: Work) -> bool:
    return any(run.data.get("wrote") and run.same_pair(work.run.data) for run in readable_runs_in(work.run.path.parent))


def _object_counts(catalog: Catalog, projects: Sequence[dict]) -> Dict[str, Dict[str, int]]:
    """resource -> project name ("" for the organization's) -> objects in the source.

    Views and ACLs are listed per object, later.
    """
    counts: Dict[str, Dict[str, int]] = {}
    for resource in OBJECT_RESOURCES:
        if not catalog.settings.selects(resource.name) or resource.scope == "object" or resource is PROJECT_SETTINGS:
            continue
        if resource.scope == "organization":
            counts[resource.name] = {"": len(catalog.source_list(resource))}
        else:
            counts[resource.name] = {one["name"]: len(catalog.source_objects(resource, one["id"])) for one in projects}
    return counts


def _rows_per_stream(work: Work, kind: str, projects: Sequence[dict]) -> List[Dict[str, Any]]:
    """{project, name, id, rows} of every object with rows, one query for up to 25 of them; [] where the server does not count by object."""
    catalog, found = work.catalog, []
    for project in projects:
        objects = catalog.source_objects(BY_NAME[kind], project["id"]) if kind in BY_NAME else [project]
        names = {one["id"]: one["name"] for one in objects}
        ids = row_object_ids(work, kind, project["id"])
        found += [{"project": project["name"], "name": names[one], "id": one, "rows": 0} for one in ids]

    def count(start: int) -> bool:
        some = {one["id"]: one for one in found[start : start + OBJECTS_PER_COUNT]}
        query = count_by_object_query(kind, ROW_KINDS[kind].id_field, list(some), bounds_of(catalog, ROW_KINDS[kind]))
        try:
            for row in catalog.source.query(query).json:
                some[row[ROW_KINDS[kind].id_field]]["rows"] = int(row["rows"])
        except (ApiError, KeyError, TypeError, ValueError):
            return False
        return True

    counted = catalog.at_once(count, range(0, len(found), OBJECTS_PER_COUNT))
    return found if all(counted) else []


def _per_project(streams: Sequence[Dict[str, Any]]) -> Dict[str, Optional[int]]:
    counts: Dict[str, Optional[int]] = {}
    for one in streams:
        counts[one["project"]] = (counts.get(one["project"]) or 0) + one["rows"]
    return counts


def _rows_per_project(work: Work, kind: str, projects: Sequence[dict]) -> Dict[str, Optional[int]]:
    """Rows of a kind, None where the server does not count; one query for up to 25 objects, of several projects if they are
    small.
    """
    ids = {one["name"]: row_object_ids(work, kind, one["id"]) for one in projects}
    everything = [one for some in ids.values() for one in some]
    if len(everything) <= OBJECTS_PER_COUNT and len(projects) > 1:
        return {"": count_rows(work.catalog, kind, everything) if everything else 0}
    return {name: count_rows(work.catalog, kind, some) if some else 0 for name, some in ids.items()}


def _cannot_move(catalog: Catalog, projects: Sequence[dict]) -> List[str]:
    """By name what a person has to do by hand."""
    told = [f"the value of AI secret {one['name']!r}" for one in catalog.source_list(AI_SECRETS)]
    for resource in OBJECT_RESOURCES:
        if resource.scope == "project":
            for project in projects:
                for one in catalog.source_objects(resource, project["id"]):
                    reason = skip_reason(catalog, resource, one)
                    if reason and "window" not in reason:
                        told.append(f"{resource.kind} {one.get('name')!r} of {project['name']!r}: {reason}")
    told += _users_without_counterpart(catalog)
    counts = catalog.at_once(lambda one: _listed(catalog, one[0]), NOT_MOVABLE)
    told += [f"{count} {sentence}" for count, (_, sentence) in zip(counts, NOT_MOVABLE) if count]
    return [*told, *NEVER_MOVED]


def _listed(catalog: Catalog, path: str) -> int:
    try:
        return sum(1 for _ in catalog.source.list(path, page_size=catalog.settings.batch_size))
    except ApiError:
        return 0


def _users_without_counterpart(catalog: Catalog) -> List[str]:
    try:
        users = catalog.source_list(USERS)
    except ApiError:
        return ["users cannot be listed with this key: references to users are left out"]
    return [f"user {one.get('email')}: not in the destination" for one in users if catalog.resolve(("users",), one["id"]) is None]


def _estimate(work: Work, rows: Dict[str, Dict[str, Optional[int]]]) -> Dict[str, Any]:
    """Bytes, queries and minutes of the rows, from a small sample; counts that are not known are left out."""
    size, queries, total = 0, 0, 0
    sampled = [kind for kind, projects in rows.items() if any(projects.values())]
    row_bytes = dict(zip(sampled, work.catalog.at_once(lambda kind: _sampled_row_bytes(work, kind), sampled)))
    for kind, projects in rows.items():
        count = sum(number or 0 for number in projects.values())
        streams = sum(len(row_object_ids(work, kind, one["id"])) for one in work.catalog.projects())
        total += count
        queries += streams + math.ceil(count / work.settings.rows(kind).fetch_limit)
        size += int(count * row_bytes.get(kind, 0))
    minutes = queries / STARTER_QUERIES_PER_MINUTE
    return {"rows": total, "bytes": size, "queries": queries, "minutes_at_20_queries_a_minute": round(minutes, 1)}


def _sampled_row_bytes(work: Work, kind: str) -> float:
    """Mean size of the first rows of some objects."""
    ids = [one for project in work.catalog.projects() for one in row_object_ids(work, kind, project["id"])][:OBJECTS_PER_COUNT]
    try:
        answer = work.catalog.source.query(page_query(kind, ids, Bounds(), SAMPLE_ROWS))
    except ApiError:
        return 0.0
    return answer.size / len(answer.json) if answer.json else 0.0


def validation_lines(result: Dict[str, Any]) -> List[str]:
    """The result for a person."""
    lines = [
        f"{side}: {result[side]['org_name']} ({result[side]['org_id']}) at {result[side]['url']}"
        for side in ("source", "destination")
    ]
    lines.append(f"key of the destination may write: {result['write_right']}")
    for resource, projects in result["objects"].items():
        lines.append(f"{resource}: {sum(projects.values()):,}{_by_project(projects)}")
    for kind, projects in result["rows"].items():
        known = Counter({name: count for name, count in projects.items() if count is not None})
        unknown = [name for name, count in projects.items() if count is None]
        lines.append(
            f"rows of {kind}: {sum(known.values()):,}{_by_project(known)}" + (f"; not counted: {len(unknown)}" if unknown else "")
        )
        lines += [f"rows of {kind} {one['name']!r} of {one['project']!r}: {one['rows']:,}" for one in result["streams"][kind]]
    estimate = result["estimate"]
    lines.append(
        f"estimate: {estimate['rows']:,} rows, {estimate['bytes']:,} bytes, {estimate['queries']:,} queries, "
        f"{estimate['minutes_at_20_queries_a_minute']:,} min at {STARTER_QUERIES_PER_MINUTE} queries a minute (Starter and Pro plans)"
    )
    lines += [f"not on this server: {name} ({reason})" for name, reason in result["unavailable"].items()]
    return lines + [f"will not move: {one}" for one in result["cannot_move"]]


def _by_project(projects: Dict[str, int]) -> str:
    named = [f"{name} {count:,}" for name, count in projects.items() if name and count]
    return f" ({', '.join(named)})" if named else ""
