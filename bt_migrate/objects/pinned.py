"""Which states of datasets the objects of the source point to."""

from __future__ import annotations

from collections import defaultdict
from typing import Dict, Iterable, Iterator, Sequence, Set, Tuple

from bt_migrate.api.transactions import xact_of_version
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.references import paths_matching, value_at
from bt_migrate.model.resource import Pin, Resource
from bt_migrate.model.resource_table import DATASETS
from bt_migrate.model.resources import pins_rows
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.prepare import skip_reason


def pinned_versions(
    catalog: Catalog, resources: Sequence[Resource], projects: Sequence[JsonObject]
) -> Dict[str, Set[int]]:
    """Returns source id of a dataset -> transactions to which objects of the projects refer."""
    return states_named(
        (resource, obj)
        for resource in resources
        if pins_rows(resource)
        for project in projects
        for obj in catalog.lists.source_objects(resource, project["id"])
        if not skip_reason(catalog, resource, obj)
    )


def states_named(objects: Iterable[Tuple[Resource, JsonObject]]) -> Dict[str, Set[int]]:
    """Returns source id of a dataset -> transactions to which these objects refer."""
    pinned: Dict[str, Set[int]] = defaultdict(set)
    for resource, obj in objects:
        for pin in resource.pins:
            for dataset_id, xact in _pinned(pin, obj) if DATASETS.name in pin.to else ():
                pinned[dataset_id].add(xact)
    return pinned


def _pinned(pin: Pin, obj: JsonObject) -> Iterator[Tuple[str, int]]:
    """Yields (dataset, transaction) for each place of the object that is such a pin."""
    for path in paths_matching(obj, pin.path):
        holder = value_at(obj, path[:-1])
        xact = xact_of_version(holder[path[-1]])
        for name in pin.of:
            if xact and isinstance(holder.get(name), str):
                yield holder[name], xact
