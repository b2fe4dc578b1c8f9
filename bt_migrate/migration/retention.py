"""Counts the rows that a retention rule would delete at once, before the rule is created.

Rows keep their original dates, so a rule applies to them as soon as it exists; and to rows that the
destination had before.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from bt_migrate.api.btql import Bounds
from bt_migrate.api.client import Api
from bt_migrate.model.activation import retention_of
from bt_migrate.model.date_windows import iso
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import PROJECT, Resource
from bt_migrate.model.resource_table import DATASETS, PROJECTS
from bt_migrate.model.resources import holder_of_rows
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import natural_key
from bt_migrate.objects.lists import PLANNED
from bt_migrate.objects.prepare import PlannedObject, object_finding
from bt_migrate.report.display import plural
from bt_migrate.rows.count import count_by_object

log = logging.getLogger("bt_migrate.migration")


# What a rule says it is for -> the kind of rows. The date of experiments is that of the move.
ROWS_OF_RULE = {"project_logs": "logs", "dataset": "datasets"}
# Nothing is older than this.
MAX_DAYS = 36_500
# An object of the source, of the destination, or both that belong together: (side, id) of each.
Place = Tuple[Tuple[str, str], ...]


def with_retention(
    catalog: Catalog, resource: Resource, items: Sequence[PlannedObject]
) -> List[PlannedObject]:
    """Yields the objects; a new retention rule with the number of rows that it would delete."""
    new = [item for item in items if _is_new_rule(catalog, resource, item)]
    deleted = deleted_at_once(catalog, resource, [item.source for item in new])
    return [_with_count(resource, item, deleted.get(item.source["id"])) for item in items]


def _is_new_rule(catalog: Catalog, resource: Resource, item: PlannedObject) -> bool:
    if not resource.acts(item.source) or retention_of(item.source) is None:
        return False
    there = catalog.index.by_key(resource, item.dest_project_id)
    done = item.states.completed(item.source["id"])
    return not done and natural_key(resource, item.source) not in there


def _with_count(
    resource: Resource, item: PlannedObject, facts: Optional[Dict[str, Any]]
) -> PlannedObject:
    if not facts:
        return item
    # The finding names the project too; this line has 80 columns.
    log.warning("retention %r: %s", item.source["name"], facts["detail"])
    deletes = object_finding(resource, item, **facts)
    return replace(item, known_findings=(deletes,))


def deleted_at_once(
    catalog: Catalog, resource: Resource, rules: Sequence[JsonObject]
) -> Dict[str, Dict[str, Any]]:
    """Returns rule id -> {kind, count, detail} of the rows that are older than the rule allows.

    A rule without such rows is left out. Rules of the same age are counted together.
    """
    wanted = {rule["id"]: _objects_of_rule(catalog, resource, rule) for rule in rules}
    for api in (catalog.source, catalog.dest):
        ages: Dict[Tuple[str, int], Dict[str, None]] = {}
        for kind, days, places in wanted.values():
            ids = (object_id for place in places for side, object_id in place if side == api.side)
            ages.setdefault((kind, days), {}).update(dict.fromkeys(filter(None, ids)))
        for (kind, days), held in ages.items():
            _count_old_rows(catalog, api, kind, days, list(held))
    deletes = {}
    for rule_id, (kind, days, places) in wanted.items():
        counts = [
            [catalog.old_rows.get((kind, days, object_id)) for _, object_id in place]
            for place in places
        ]
        # The rows of an object may have been moved already.
        rows = sum(max(count or 0 for count in of_place) for of_place in counts)
        if any(None in of_place for of_place in counts):
            known = f"; {plural(rows, 'row')} or more" if rows else ""
            text = f"the rows older than {days} days cannot be counted{known}"
            deletes[rule_id] = {"kind": "retention_not_counted", "count": rows, "detail": text}
        elif rows:
            text = f"{plural(rows, 'row')} older than {days} days"
            deletes[rule_id] = {"kind": "retention_deletes", "count": rows, "detail": text}
    return deletes


def _objects_of_rule(
    catalog: Catalog, resource: Resource, rule: JsonObject
) -> Tuple[str, int, List[Place]]:
    """Returns the kind of rows, the days, and the objects that hold such rows."""
    object_type, days = retention_of(rule) or ("", 0)
    kind = ROWS_OF_RULE.get(object_type, "")
    if not kind or days > MAX_DAYS:
        return kind, days, []
    projects = [project["id"] for project in catalog.lists.projects()]
    there = [project["id"] for project in catalog.lists.dest_objects(PROJECTS)]
    if resource.scope == PROJECT:
        projects = [rule["project_id"]]
        there = [_counterpart(catalog, PROJECTS, rule["project_id"])]
    source_ids = projects
    if kind == "datasets":
        datasets = catalog.lists.source_list(DATASETS)
        source_ids = [obj["id"] for obj in datasets if obj["project_id"] in set(projects)]
        there = _datasets_in(catalog, filter(None, there))
    return kind, days, _places(catalog, holder_of_rows(kind), source_ids, there)


def _places(
    catalog: Catalog, holder: Resource, source_ids: Sequence[str], there: Sequence[str]
) -> List[Place]:
    source, dest = catalog.source.side, catalog.dest.side
    dest_ids = {source_id: _counterpart(catalog, holder, source_id) for source_id in source_ids}
    both = [
        ((source, source_id), *(((dest, dest_id),) if dest_id else ()))
        for source_id, dest_id in dest_ids.items()
    ]
    others = [object_id for object_id in there if object_id not in {*dest_ids.values(), ""}]
    return [*both, *(((dest, object_id),) for object_id in others)]


def _counterpart(catalog: Catalog, holder: Resource, source_id: str) -> str:
    """Returns the destination's object, "" if there is none yet."""
    dest_id = catalog.targets.resolve((holder.name,), source_id) or ""
    return "" if dest_id.startswith(PLANNED) else dest_id


def _datasets_in(catalog: Catalog, projects: Iterable[str]) -> List[str]:
    """Returns the ids of the destination's datasets in these projects."""
    ids = list(projects)
    catalog.lists.prefetch((), [DATASETS], ids)
    return [obj["id"] for place in ids for obj in catalog.lists.dest_objects(DATASETS, place)]


def _count_old_rows(catalog: Catalog, api: Api, kind: str, days: int, ids: Sequence[str]) -> None:
    """Count the rows of these objects that are older, once in a process."""
    new = [object_id for object_id in ids if (kind, days, object_id) not in catalog.old_rows]
    if not new:
        return
    now_s = api.clock.earliest_s()
    oldest = datetime.fromtimestamp(now_s, timezone.utc) - timedelta(days=days)
    bounds = Bounds(created_before=iso(oldest))
    counts = count_by_object(catalog, api, kind, new, bounds)
    catalog.old_rows.update(
        {(kind, days, object_id): counted.rows for object_id, counted in counts.items()}
    )
