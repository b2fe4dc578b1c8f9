"""The type of a JSON object of the API: an object or a row, its fields by name."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

JsonObject = Dict[str, Any]


def object_at(obj: Mapping[str, Any], name: str) -> JsonObject:
    """Returns the object in a field; an empty one if the field is absent or holds no object."""
    value = obj.get(name)
    return value if isinstance(value, dict) else {}


def list_at(obj: Mapping[str, Any], name: str) -> List[Any]:
    """Returns the list in a field; an empty one if the field is absent or holds no list."""
    value = obj.get(name)
    return value if isinstance(value, list) else []
