"""Counts the rows that a retention rule would delete at once, before the rule is created.

Rows keep their original dates, so a rule applies to them as soon as it exists.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, List, Optional, Sequence

from bt_migrate.api.btql import Bounds
from bt_migrate.model.activation import retention_of
from bt_migrate.model.date_windows import iso
from bt_migrate.model.resource import PROJECT, Resource
from bt_migrate.model.resource_table import DATASETS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import natural_key
from bt_migrate.objects.prepare import PlannedObject, object_finding
from bt_migrate.rows.count import count_by_object

log = logging.getLogger("bt_migrate.migration")


def with_retention(
    catalog: Catalog, resource: Resource, items: Sequence[PlannedObject]
) -> List[PlannedObject]:
    """Yields the objects; a rule that the destination lacks has what it would delete."""
    return [_with_count(catalog, resource, item) for item in items]


def _with_count(catalog: Catalog, resource: Resource, item: PlannedObject) -> PlannedObject:
    if not resource.acts(item.source) or retention_of(item.source) is None:
        return item
    key = natural_key(resource, item.source)
    there = catalog.index.by_key(resource, item.dest_project_id)
    if item.states.completed(item.source["id"]) or key in there:
        return item
    facts = deleted_at_once(catalog, resource, item.source)
    if not facts:
        return item
    # The finding names the project too; this line has 80 columns.
    log.warning("retention %r: %s", item.source["name"], facts["detail"])
    found = object_finding(resource, item, "retention_deletes", **facts)
    return replace(item, known_findings=(found,))


def deleted_at_once(catalog: Catalog, resource: Resource, rule: dict) -> Optional[Dict[str, Any]]:
    """Returns {count, detail} of the rows that are older than the rule allows; None if none are.

    Rows of experiments are not: their date in the destination is that of the move.
    """
    object_type, days = retention_of(rule) or ("", 0)
    projects = [project["id"] for project in catalog.lists.projects()]
    if resource.scope == PROJECT:
        projects = [rule["project_id"]]
    kinds = {"project_logs": "logs", "dataset": "datasets"}
    if object_type not in kinds:
        return None
    ids = projects
    if object_type == "dataset":
        datasets = catalog.lists.source_list(DATASETS)
        ids = [obj["id"] for obj in datasets if obj["project_id"] in projects]
    now_s = catalog.source.clock.earliest_s()
    oldest = datetime.fromtimestamp(now_s, timezone.utc) - timedelta(days=days)
    bounds = Bounds(created_before=iso(oldest))
    counts = count_by_object(catalog, catalog.source, kinds[object_type], ids, bounds)
    rows = sum(counted.rows or 0 for counted in counts.values())
    uncounted = any(counted.rows is None for counted in counts.values())
    if uncounted:
        return {"count": rows, "detail": f"how many rows are older than {days} days is not known"}
    if not rows:
        return None
    return {"count": rows, "detail": f"{rows:,} rows are older than {days} days"}
