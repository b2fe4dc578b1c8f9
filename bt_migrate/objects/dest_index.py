"""The destination's objects by natural key and by id, kept up to date with what this run writes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Tuple

from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import CALLABLE
from bt_migrate.objects.decide import NaturalKey, natural_key
from bt_migrate.objects.lists import Lists, kind_of_twin

ListPlace = Tuple[str, str]  # (resource, destination project or "")


@dataclass
class DestIndex:
    """Safe for many threads."""

    lists: Lists
    lock: threading.RLock
    _by_key: Dict[ListPlace, Dict[NaturalKey, JsonObject]] = field(default_factory=dict)
    _by_id: Dict[ListPlace, Dict[str, JsonObject]] = field(default_factory=dict)
    # objects whose natural key an older object has
    _doubles: Dict[ListPlace, List[JsonObject]] = field(default_factory=dict)

    def by_key(self, resource: Resource, project_id: str = "") -> Dict[NaturalKey, JsonObject]:
        """Returns natural key -> destination object, inside the project."""
        place = (resource.name, project_id)
        if place not in self._by_key:
            # Without the lock: a list that was not read yet is asked for.
            objects = self.lists.dest_objects(resource, project_id)
            with self.lock:
                if place not in self._by_key:
                    self.provide(resource, project_id, objects)
        return self._by_key[place]

    def forget(self, resource: Resource) -> None:
        """List a kind of the whole organization again when it is needed next."""
        self.lists.forget_dest(resource)
        with self.lock:
            self._by_key.pop((resource.name, ""), None)

    def object(self, resource: Resource, project_id: str, dest_id: str) -> Optional[JsonObject]:
        """Returns the destination's object of that id, None if it does not exist."""
        self.by_key(resource, project_id)
        return self._by_id[resource.name, project_id].get(dest_id)

    def objects(self, resource: Resource, project_id: str = "") -> List[JsonObject]:
        """Returns the objects of the project; what this run created is last."""
        self.by_key(resource, project_id)
        return list(self._by_id[resource.name, project_id].values())

    def doubles(self, resource: Resource, project_id: str = "") -> List[JsonObject]:
        """Returns destination objects whose natural key an older one has."""
        self.by_key(resource, project_id)
        return self._doubles[resource.name, project_id]

    def provide(self, resource: Resource, project_id: str, objects: List[JsonObject]) -> None:
        """Set the destination's objects, oldest first, of a kind that is listed by owner."""
        place = (resource.name, project_id)
        by_key: Dict[NaturalKey, JsonObject] = {}
        doubles = []
        for obj in _own_kind_first(resource, objects):
            if by_key.setdefault(natural_key(resource, obj), obj) is not obj:
                doubles.append(obj)
        with self.lock:
            self._by_key[place] = by_key
            self._by_id[place] = {obj["id"]: obj for obj in objects}
            self._doubles[place] = doubles

    def update(self, resource: Resource, obj: JsonObject) -> None:
        """Replace an object, which keeps its natural key, wherever it is indexed."""
        with self.lock:
            places = [place for place in self._by_id if place[0] == resource.name]
            for _, project_id in places:
                if obj["id"] in self._by_id[resource.name, project_id]:
                    self.put(resource, project_id, obj, renamed=False)

    def put(self, resource: Resource, project_id: str, obj: JsonObject, *, renamed: bool) -> None:
        """Add or replace an object. If it was `renamed`, its old key no longer finds it."""
        place = (resource.name, project_id)
        with self.lock:
            if place not in self._by_key:
                return
            before = self._by_id[place].get(obj["id"])
            if before and renamed:
                self._by_key[place].pop(natural_key(resource, before), None)
            self._by_key[place][natural_key(resource, obj)] = obj
            self._by_id[place][obj["id"]] = obj


def _own_kind_first(resource: Resource, objects: List[JsonObject]) -> List[JsonObject]:
    """Returns the objects with those of another kind last, which the list shows as well.

    The list of functions shows prompts, and a prompt and a function may have one slug.
    """
    if resource.name not in CALLABLE:
        return objects
    return sorted(objects, key=lambda obj: kind_of_twin(obj) != resource.name)
