"""The fields of listed objects that every step needs.

Knows nothing of how lists are read.
"""

from __future__ import annotations

from typing import Any, Iterable, List, Mapping

from bt_migrate.api.answers import described, text_at
from bt_migrate.api.client import Api
from bt_migrate.errors import AnswerError, Route
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import OWNER, PROJECT, Resource

# Fields of natural keys that are texts.
NAMING_FIELDS = ("name", "slug")


def usable_objects(api: Api, resource: Resource, objects: Iterable[JsonObject]) -> List[JsonObject]:
    """Returns listed objects with "" for a name or slug that is missing or is not a text.

    No server creates an object with such a name, so that object alone fails. Raises AnswerError for
    an object that lacks another field which every step needs.
    """
    route = Route(api.side, "GET", resource.path)
    texts = [name for name in NAMING_FIELDS if name in resource.key]
    usable = []
    for obj in objects:
        _refuse_misshapen(route, resource, obj)
        wrong = {name: "" for name in texts if not isinstance(obj.get(name), str)}
        usable.append({**obj, **wrong} if wrong else obj)
    return usable


def _refuse_misshapen(route: Route, resource: Resource, obj: Mapping[str, Any]) -> None:
    in_project = resource.scope == PROJECT and not resource.part_of
    needed = [resource.inside or "project_id"] if in_project else []
    needed += ["object_type", "object_id"] if resource.scope == OWNER else []
    for name in needed:
        text_at(route, obj, name)
    for name in resource.key:
        if name not in NAMING_FIELDS and isinstance(obj.get(name), (dict, list)):
            problem = f"`{name}` of {obj['id']!r} is {described(obj[name])}, not a text"
            raise AnswerError(route, 200, problem)
