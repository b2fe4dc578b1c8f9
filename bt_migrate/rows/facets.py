"""Facets and classifications of rows, which some servers show only in the query shape `traces`.

All rows are read in shape `spans`. Whether it shows facets is not documented, and a note of the
vendor says that only `traces` does. So each server is tested once for each kind of rows. If `spans`
lacks facets, they are added after each page to the rows of objects that have any.

A query in shape `traces` returns all rows of the traces that its filter matches, in pages of
unknown order. So rows are requested by id, until each has been returned.
"""

from __future__ import annotations

import logging
import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

from bt_migrate.api.btql import (
    Bounds,
    facet_objects_query,
    facets_query,
    ids_condition,
    rows_query,
)
from bt_migrate.api.capabilities import NOWHERE, SPANS, TRACES, FacetPlace
from bt_migrate.api.client import Api
from bt_migrate.api.request import RETRY_STATUSES
from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.portions import portions
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.rows.by_id import by_ids, query_by_ids, query_with_limit, rows_or_refusal
from bt_migrate.rows.page_ahead import SIZE_STATUSES

log = logging.getLogger("bt_migrate.rows")

FACET_FIELDS = ("facets", "classifications")
HAS_FACETS = " or ".join(f"{name} is not null" for name in FACET_FIELDS)
# object ids in one query for the objects that have facets
OBJECTS_ASKED = 250
# rows with facets that are compared in both shapes
MAX_EXAMPLES = 10
# row ids in one query for facets; each may return the other rows of its trace
ROWS_ASKED = 500
# raised while an answer of an unexpected shape is read
NOT_ASKED = (ApiError, AttributeError, KeyError, TypeError)
# Set in a row whose trace is too large to show its facets. No insert accepts such a field, so the
# row is reported.
NOT_SHOWN = "facets (not shown)"


# -- which objects have facets


# assumption: facets_are_shown
def learn_facets(
    api: Api, kind_name: str, object_ids: Sequence[str], bounds: Bounds, *, again: bool = False
) -> None:
    """Find out once in which shape the server shows facets.

    Costs one query if no row has any. `again`: ask once more if none was found.
    """
    places = api.capabilities.facets
    with places.lock:
        queried = places.queried.setdefault(kind_name, set())
        if again and shows_no_facets(api, kind_name):
            queried.clear()
        new = [object_id for object_id in object_ids if object_id not in queried]
        if new:
            queried.update(new)
            _learn(api, kind_name, new, bounds)


def shows_no_facets(api: Api, kind_name: str) -> bool:
    """Whether the server showed no facets of the kind, or was not asked."""
    return api.capabilities.facets.places.get(kind_name, FacetPlace(NOWHERE)).shown == NOWHERE


def queries_to_ask_again(api: Api, kind_name: str, objects: int) -> int:
    """Returns the queries of `learn_facets` for so many objects with rows that it asks again."""
    at_once = OBJECTS_ASKED if api.capabilities.reads_groups else 1
    return math.ceil(objects / at_once) if shows_no_facets(api, kind_name) else 0


def learn_facets_of_copies(
    source: Api, dest: Api, kind_name: str, object_ids: Sequence[str], bounds: Bounds
) -> None:
    """Find out how the destination shows facets, if rows of the source have some.

    The destination is tested again for other objects, and after a copy, until it is known to show
    facets in shape `spans`.
    """
    if not object_ids or shows_no_facets(source, kind_name):
        return
    with dest.capabilities.facets.lock:
        _learn(dest, kind_name, object_ids, bounds)


def doubt_facets(api: Api, kind_name: str, object_ids: Sequence[str]) -> None:
    """Ask for the facets of each row of these objects, if none was found although the source has
    some.
    """
    places = api.capabilities.facets.places
    with api.capabilities.facets.lock:
        if kind_name in places and places[kind_name].shown == NOWHERE:
            places[kind_name] = FacetPlace(TRACES, sorted(object_ids))


def _learn(api: Api, kind_name: str, ids: Sequence[str], bounds: Bounds) -> None:
    """Test the server, and add the result to what is known from other objects."""
    places = api.capabilities.facets.places
    before = places.get(kind_name, FacetPlace(NOWHERE))
    if before.shown != SPANS:
        places[kind_name] = before.joined(_find_place(api, kind_name, ids, bounds))


def _find_place(api: Api, kind_name: str, ids: Sequence[str], bounds: Bounds) -> FacetPlace:
    size = OBJECTS_ASKED if api.capabilities.reads_groups else 1
    holders: List[str] = []
    place = FacetPlace(NOWHERE)
    try:
        for portion in portions(ids, size):
            holders += _holders(api, kind_name, portion, bounds)
        if holders:
            place = FacetPlace(TRACES, sorted(set(holders)))
            place = _place(api, kind_name, holders)
    except NOT_ASKED as error:
        log.debug("%s: facets of %s cannot be queried (%s)", api.side, kind_name, error)
    extra = {"event": "facets"}
    log.debug("%s: facets of %s are shown: %s", api.side, kind_name, place.shown, extra=extra)
    return place


def _holders(api: Api, kind_name: str, ids: Sequence[str], bounds: Bounds) -> List[str]:
    """Returns those of the objects that have rows with facets or classifications."""
    id_field = ROW_KINDS[kind_name].id_field
    try:
        query = facet_objects_query(kind_name, id_field, ids, bounds)
        rows = api.query(query, retry_statuses=RETRY_STATUSES - SIZE_STATUSES).json
        found = [row[id_field] for row in rows]
        if set(found) <= set(ids) and (found or not _hides_facets(api)):
            return found
        log.debug("%s: objects with facets of %s: none of these named", api.side, kind_name)
    except NOT_ASKED as error:
        log.debug("%s: objects with facets of %s: %s", api.side, kind_name, error)
    try:
        # The server lacks this aggregate, or answers it wrongly: any rows with facets.
        shown = _rows_in_traces(api, kind_name, ids, HAS_FACETS)
    except NOT_ASKED:
        # There are too many rows: look at the newest ones instead.
        shown = _rows_in_traces(api, kind_name, ids, "")
    return list(ids) if any(map(_has_facets, shown)) else []


def _hides_facets(api: Api) -> bool:
    """Whether rows of the server have facets that only `traces` shows: an empty answer about other
    rows is not believed at once.
    """
    return any(place.shown == TRACES for place in api.capabilities.facets.places.values())


def _rows_in_traces(
    api: Api, kind_name: str, ids: Sequence[str], condition: str, version: Optional[int] = None
) -> List[JsonObject]:
    id_field = ROW_KINDS[kind_name].id_field

    def query_of(limit: int) -> str:
        return facets_query(kind_name, id_field, ids, condition, limit)

    answer = query_with_limit(api, query_of, api.capabilities.page_rows, version)
    rows: List[JsonObject] = answer.json
    return rows


def _place(api: Api, kind_name: str, holders: List[str]) -> FacetPlace:
    """Compare some rows in both shapes."""
    rows = _rows_in_traces(api, kind_name, holders[:1], HAS_FACETS)
    examples = {str(row.get("id")): row for row in rows if _has_facets(row)}
    shown, _ = query_by_ids(
        api,
        lambda ids, one_by_one: rows_query(kind_name, holders[:1], ids, one_by_one=one_by_one),
        list(examples)[:MAX_EXAMPLES],
    )
    hidden = [row for row in shown if _hides(row, examples.get(str(row.get("id")), {}))]
    if shown and not hidden:
        return FacetPlace(SPANS)
    return FacetPlace(TRACES, sorted(set(holders)))


def _has_facets(row: Dict[str, Any]) -> bool:
    return any(row.get(name) for name in FACET_FIELDS)


def _hides(row: Dict[str, Any], whole: Dict[str, Any]) -> bool:
    return any(whole.get(name) and not row.get(name) for name in FACET_FIELDS)


# -- rows that were read


def asks_for_facets(api: Api, kind_name: str, object_ids: Sequence[str]) -> bool:
    """Whether each page of these objects takes another query, for the facets."""
    place = api.capabilities.facets.places.get(kind_name, FacetPlace(NOWHERE))
    return not set(place.objects).isdisjoint(object_ids)


def add_facets(
    api: Api,
    kind_name: str,
    object_ids: Sequence[str],
    rows: Sequence[JsonObject],
    version: Optional[int] = None,
) -> None:
    """Add the facets to rows that were read in shape `spans`, if only `traces` shows them.

    `version`: the one at which the rows were read. Raises ApiError.
    """
    place = api.capabilities.facets.places.get(kind_name)
    if place is None or place.shown != TRACES:
        return
    id_field = ROW_KINDS[kind_name].id_field
    waiting: Dict[Tuple[str, str], JsonObject] = {}
    for row in rows:
        object_id = str(row.get(id_field) or object_ids[0])
        if object_id in place.objects:
            waiting[object_id, row["id"]] = row
    size = ROWS_ASKED
    while waiting:
        part = list(waiting)[:size]
        shown = _in_traces(api, kind_name, part, version)
        arrived = waiting.keys() & shown.keys()
        if arrived:
            for key in arrived:
                _complete(waiting.pop(key), shown[key])
        elif len(part) > 1:
            size = len(part) // 2
        else:
            row = waiting.pop(part[0])
            if shown:
                row[NOT_SHOWN] = True
                _give_up_trace(waiting, part[0][0], row.get("root_span_id"))


def _give_up_trace(
    waiting: Dict[Tuple[str, str], JsonObject], object_id: str, root_span_id: Optional[str]
) -> None:
    """Mark the other rows of a trace that is too large: each query would return the same rows."""
    for key, row in list(waiting.items()):
        if key[0] == object_id and root_span_id and row.get("root_span_id") == root_span_id:
            waiting.pop(key)[NOT_SHOWN] = True


def _in_traces(
    api: Api, kind_name: str, wanted: Sequence[Tuple[str, str]], version: Optional[int]
) -> Dict[Tuple[str, str], JsonObject]:
    """Returns (object, row) -> facets, of as many rows as one answer holds."""
    id_field = ROW_KINDS[kind_name].id_field
    holders = list(dict.fromkeys(object_id for object_id, _ in wanted))
    row_ids = list(dict.fromkeys(row_id for _, row_id in wanted))

    def rows_of(ids: Sequence[str], one_by_one: bool) -> List[JsonObject]:
        condition = ids_condition(ids, one_by_one=one_by_one)
        return _rows_in_traces(api, kind_name, holders, condition, version)

    shown = rows_or_refusal(by_ids(api, rows_of, row_ids))
    return {(str(row.get(id_field) or holders[0]), str(row.get("id"))): row for row in shown}


def _complete(row: JsonObject, shown: Dict[str, Any]) -> None:
    for name in FACET_FIELDS:
        if row.get(name) is None and shown.get(name) is not None:
            row[name] = shown[name]
