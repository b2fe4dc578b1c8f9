"""The counterparts of objects whose natural keys differ on the two sides.

A comparison finds counterparts by natural key. Only where the counterpart that the run recorded
exists and has another key, because somebody renamed one of the two, the record decides.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import OWNER, Resource
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import NaturalKey, natural_key
from bt_migrate.objects.prepare import PlannedObject
from bt_migrate.state.object_states import ObjectStates

Listed = Callable[[], List[JsonObject]]


def map_renamed(catalog: Catalog, resource: Resource, places: Iterable[Tuple[str, Listed]]) -> None:
    """Map the objects of the source whose recorded counterpart has another natural key.

    `places`: (destination project or "", function that lists the source's objects). Not of kinds
    whose keys hold ids, or that are listed by owner: see `counterpart_of`.
    """
    if resource.scope == OWNER or resource.part_of or resource.key_holds_ids:
        return
    recorded: Dict[str, str] = {}
    for states in _states_of(catalog, resource):
        recorded.update(states.id_mapping())
    for dest_project, list_objects in places if recorded else ():
        try:
            objects = list_objects()
            catalog.index.by_key(resource, dest_project)
        except ApiError as error:
            if error.status >= 500:
                raise
            continue  # the comparison of the kind meets the refused list again, and reports it
        for obj in objects:
            there = catalog.index.object(resource, dest_project, recorded.get(obj["id"], ""))
            if there and natural_key(resource, there) != natural_key(resource, obj):
                catalog.ids.put(resource.name, obj["id"], there["id"])


def counterpart_of(
    catalog: Catalog, resource: Resource, item: PlannedObject, key: NaturalKey
) -> Optional[Dict[str, Any]]:
    """Returns the destination's object to compare with, None if there is none."""
    source_id, project = item.source["id"], item.dest_project_id
    known = catalog.index.object(
        resource, project, catalog.ids.dest_id(resource.name, source_id) or ""
    )
    if known:
        return known
    found = catalog.index.by_key(resource, project).get(key)
    if found and not _is_of_renamed(catalog, resource, found):
        return found
    recorded = [states.dest_id_of(source_id) for states in _states_of(catalog, resource)]
    return catalog.index.object(resource, project, next(filter(None, recorded), ""))


def _is_of_renamed(catalog: Catalog, resource: Resource, there: JsonObject) -> bool:
    """Whether the object is the counterpart of one that has another natural key."""
    if resource.key_holds_ids:
        return False
    other_id = catalog.ids.source_id(resource.name, there["id"])
    other = catalog.lists.source_object(resource, other_id) if other_id else None
    return other is not None and natural_key(resource, other) != natural_key(resource, there)


def _states_of(catalog: Catalog, resource: Resource) -> Iterator[ObjectStates]:
    return (states for states in catalog.run.all_objects() if states.resource == resource.name)
