"""Versions and facets in rows that are in the destination: an earlier run or start wrote them.

That one may have known other versions of the object than this one. Such a row is not one that
somebody changed.
"""

from __future__ import annotations

from typing import Any, Callable, Collection, Dict, Mapping, Optional

from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.references import remove, set_at, value_at
from bt_migrate.rows.facets import FACET_FIELDS
from bt_migrate.rows.rewrite import ORIGIN_VERSION, VERSION_PLACES, copied

KnownVersions = Callable[[str, str, object], Collection[str]]


def with_same_version(
    known: KnownVersions, row: JsonObject, out: Mapping[str, Any], there: JsonObject
) -> JsonObject:
    """Returns the destination's row with the version of its origin that would be written, if its
    own is one of the `known` copies of the version that the source's row names.
    """
    wanted, written = value_at(out, ORIGIN_VERSION), value_at(there, ORIGIN_VERSION)
    origin = row.get("origin")
    if not wanted or not written or wanted == written or not isinstance(origin, dict):
        return there
    place = (str(origin.get("object_id")), str(origin.get("id")), origin.get("_xact_id"))
    if str(written) not in known(*place):
        return there
    same: JsonObject = copied(there)
    set_at(same, ORIGIN_VERSION, wanted)
    return same


def without_lost_versions(
    row: Mapping[str, Any], out: Mapping[str, Any], there: Dict[str, Any]
) -> Dict[str, Any]:
    """Returns the destination's row without versions for which none is known now.

    The run that wrote the row may have known them. `row` is the source's, `out` what would be
    written.
    """
    lost = [
        place
        for place in VERSION_PLACES
        if value_at(row, place) is not None and value_at(out, place) is None
    ]
    if not lost:
        return there
    changed: Dict[str, Any] = copied(there)
    for place in lost:
        if value_at(changed, place) is not None:
            remove(changed, place)
    return changed


def without_late_facets(
    out: Mapping[str, Any], there: Mapping[str, Any]
) -> Optional[Dict[str, Any]]:
    """Returns what would be written without the facets that the destination's row lacks.

    The run that wrote the row may not have seen them, and nobody removes them. None if it lacks
    none.
    """
    late = {name for name in FACET_FIELDS if out.get(name) and not there.get(name)}
    return {name: value for name, value in out.items() if name not in late} if late else None


def without_late_versions(
    out: Mapping[str, Any], there: Mapping[str, Any]
) -> Optional[Dict[str, Any]]:
    """Returns what would be written without versions that the destination's row lacks.

    The run that wrote the row may not have known them. None if it lacks none.
    """
    late = [
        place
        for place in VERSION_PLACES
        if value_at(out, place) is not None
        and isinstance(value_at(there, place[:-1]), dict)
        and value_at(there, place) is None
    ]
    if not late:
        return None
    changed: Dict[str, Any] = copied(dict(out))
    for place in late:
        remove(changed, place)
    return changed
