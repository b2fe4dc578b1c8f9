"""The paths of the lists of owners, and of single objects."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Mapping, Tuple
from urllib.parse import quote

from bt_migrate.model.resource import Resource


def list_of_owner(resource: Resource, owner: Tuple[str, ...]) -> Tuple[str, Dict[str, str]]:
    """(path, parameters) of the list of one owner, (object_type, object_id)."""
    if resource.below_owner:
        return _joined(resource, owner), {}
    return resource.path, {"object_type": owner[0], "object_id": owner[1]}


def object_path(resource: Resource, obj: Mapping[str, Any], project_id: str) -> str:
    """The path of one object; of a kind below an owner, `obj` holds the natural key."""
    if resource.below_owner:
        return _joined(resource, (str(obj[name]) for name in resource.key))
    return resource.path_of(obj["id"], project_id)


def _joined(resource: Resource, steps: Iterable[str]) -> str:
    return "/".join((resource.path, *(quote(step, safe="") for step in steps)))
