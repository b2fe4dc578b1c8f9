"""count."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from bt_migrate.api.btql import (
    OBJECTS_PER_QUERY,
    Bounds,
    count_by_object_query,
    count_query,
    summary_query,
)
from bt_migrate.api.client import Api
from bt_migrate.errors import ApiError
from bt_migrate.model.date_windows import instant, iso
from bt_migrate.model.resource_table import EXPERIMENTS
from bt_migrate.model.resources import BY_NAME, ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.lists import PLANNED
from bt_migrate.objects.prepare import skip_reason
from bt_migrate.rows.streams import bounds_of
from bt_migrate.state.sync_marks import round_of

log = logging.getLogger("bt_migrate.validate")


class Summary(NamedTuple):
    """What one aggregate query says of an object."""

    rows: int = 0
    ids: int = 0
    first: Optional[str] = None
    last: Optional[str] = None


Summaries = Dict[str, Optional[Summary]]  # by object id; None where the server does not count


def summaries(catalog: Catalog, api: Api, kind: str, ids: Sequence[str]) -> Summaries:
    """One query for all; one for each where the server does not group, or is not known to look beyond the first id of a FROM."""
    row_kind = ROW_KINDS[kind]
    try:
        rows = api.query(
            summary_query(kind, row_kind.id_field, ids, bounds_of(catalog, row_kind))
        ).json
        if len(ids) == 1:
            return {ids[0]: _summary(rows[0]) if rows else Summary()}
        found: Summaries = {row[row_kind.id_field]: _summary(row) for row in rows}
    except (ApiError, KeyError, TypeError, ValueError):
        return (
            {one: summaries(catalog, api, kind, [one])[one] for one in ids}
            if len(ids) > 1
            else {ids[0]: None}
        )
    api.capabilities.reads_groups = api.capabilities.reads_groups or len(found) > 1
    for one in ids:
        if one not in found:
            found[one] = (
                Summary()
                if api.capabilities.reads_groups
                else summaries(catalog, api, kind, [one])[one]
            )
    return found


def _summary(row: Mapping[str, Any]) -> Summary:
    return Summary(int(row["rows"]), int(row["ids"]), row.get("first"), row.get("last"))


LAST_DAY = "9999-12-31"  # of the calendar


def day_ranges(unequal: Mapping[str, bool], bounds: Bounds) -> Iterator[Bounds]:
    """The unequal days, those without an equal one in between as one range, inside the bounds. `unequal` is in order."""
    if unequal.get(""):
        yield bounds
        return
    for differs, together in groupby(unequal, key=lambda day: unequal[day]):
        if differs:
            days = list(together)
            yield inside(bounds, days[0], days[-1])


def inside(bounds: Bounds, first_day: str, last_day: str) -> Bounds:
    """The bounds cut to the days, both included."""
    after, before = bounds.created_after, bounds.created_before
    if not after or instant(first_day) > instant(after):
        after = iso(instant(first_day))
    if last_day < LAST_DAY and (
        not before or instant(last_day) + timedelta(days=1) < instant(before)
    ):
        before = iso(instant(last_day) + timedelta(days=1))
    return replace(bounds, created_after=after, created_before=before)


def row_object_ids(catalog: Catalog, kind_name: str, project_id: str) -> List[str]:
    """Source ids of the selected objects of a project that hold rows of the kind."""
    if kind_name == "logs":
        return [project_id]
    resource = BY_NAME[kind_name]
    objects = catalog.lists.source_objects(resource, project_id)
    return [
        one["id"]
        for one in objects
        if not (resource is EXPERIMENTS and skip_reason(catalog, resource, one))
    ]


def count_objects(catalog: Catalog, kind_name: str, objects: Sequence[Dict[str, Any]]) -> None:
    """Set `rows` and `rows_there` of each of `row_objects`; None where a server does not count."""
    above = _marks(catalog, kind_name)
    for mark in {above.get(one["id"]) for one in objects}:
        _count(
            catalog.source,
            catalog,
            kind_name,
            [one for one in objects if above.get(one["id"]) == mark],
            "id",
            "rows",
            mark,
        )
    there = [one for one in objects if one["dest_id"] and one["id"] not in above]
    _count(catalog.dest, catalog, kind_name, there, "dest_id", "rows_there")


def _marks(catalog: Catalog, kind_name: str) -> Dict[str, int]:
    """Source object -> the transaction after which a round reads it; without those that are copied as a whole."""
    round_ = round_of(catalog.run.record, kind_name, catalog.settings.lookback)
    streams = (
        [one for one in catalog.run.all_streams() if one.header["kind"] == kind_name and one.copied]
        if round_
        else []
    )
    behind = {one.header["source_id"]: one.sync.above or 0 for one in streams if not one.done}
    return {
        one.header["source_id"]: min(
            round_.above, behind.get(one.header["source_id"], round_.above)
        )
        for one in streams
        if round_
    }


def row_objects(catalog: Catalog, kind_name: str) -> Iterable[Dict[str, Any]]:
    """Every selected object that holds rows of the kind, and its counterpart as it is now, to be counted."""
    targets = ("projects",) if kind_name == "logs" else (kind_name,)
    for project in catalog.lists.projects():
        held = (
            [project]
            if kind_name == "logs"
            else catalog.lists.source_objects(BY_NAME[kind_name], project["id"])
        )
        names = {one["id"]: one["name"] for one in held}
        for source_id in row_object_ids(catalog, kind_name, project["id"]):
            dest_id = catalog.targets.resolve(targets, source_id) or ""
            there = "" if dest_id.startswith(PLANNED) else dest_id
            named = {"project": project["name"], "id": source_id, "name": names[source_id]}
            yield {**named, "dest_id": there, "rows": 0, "rows_there": 0}


# -- counting


def _count(
    api: Api,
    catalog: Catalog,
    kind_name: str,
    objects: Sequence[Dict[str, Any]],
    by: str,
    into: str,
    above: Optional[int] = None,
) -> None:
    """Set the number of rows of each object, 25 of them with one query; None for those of a server that does not count by object.
    `above`: only of what was written after that transaction.
    """
    kind = ROW_KINDS[kind_name]
    bounds = replace(bounds_of(catalog, kind), after_xact=above)

    def count(start: int) -> None:
        some = {one[by]: one for one in objects[start : start + OBJECTS_PER_QUERY]}
        query = count_by_object_query(kind_name, kind.id_field, list(some), bounds)
        try:
            rows = api.query(query).json
            for row in rows:
                some[row[kind.id_field]][into] = int(row["rows"])
            api.capabilities.reads_groups = api.capabilities.reads_groups or len(rows) > 1
        except (ApiError, KeyError, TypeError, ValueError) as error:
            log.info(
                "%s: rows of %s are not counted by object (%s)",
                api.side,
                kind_name,
                type(error).__name__,
            )
            for one in some.values():
                one[into] = None

    catalog.lists.at_once(count, range(0, len(objects), OBJECTS_PER_QUERY))


def count_rows(catalog: Catalog, kind_name: str, object_ids: Sequence[str]) -> Optional[int]:
    """Source rows of the objects together, None where the server does not count."""
    query = count_query(kind_name, object_ids, bounds_of(catalog, ROW_KINDS[kind_name]))
    try:
        rows = catalog.source.query(query).json
        return int(rows[0]["rows"]) if rows else 0
    except (ApiError, KeyError, TypeError, ValueError) as error:
        log.info("rows of %s cannot be counted (%s)", kind_name, type(error).__name__)
        return None
