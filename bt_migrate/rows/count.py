"""Counts rows with aggregate queries, 25 objects at a time.

Used for plans, to find the end of streams, and for the comparison. If a server does not count, the
result for the object is None, never a wrong number.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
)

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
from bt_migrate.model.portions import portions
from bt_migrate.model.resource_table import EXPERIMENTS
from bt_migrate.model.resources import BY_NAME, ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.lists import PLANNED
from bt_migrate.objects.prepare import skip_reason
from bt_migrate.rows.read import whole_number
from bt_migrate.rows.streams import bounds_of
from bt_migrate.state.sync_marks import round_of

log = logging.getLogger("bt_migrate.validate")

# how long counts of the destination are used
DEST_COUNT_VALID_S = 300
# the last day of the calendar
LAST_DAY = "9999-12-31"

# raised while an answer of an unexpected shape is read
NOT_COUNTED = (ApiError, AttributeError, KeyError, TypeError, ValueError)


# -- rows of objects


OBJECTS_COUNTED = "objects counted"


class Counted(NamedTuple):
    """The number of rows of an object (None: not counted) and the time of the query.

    The time is in unix seconds of the server's clock.
    """

    rows: Optional[int]
    at_s: float


# object id -> its count
Counts = Dict[str, Counted]


# assumption: aggregates_count
def count_by_object(
    catalog: Catalog, api: Api, kind_name: str, object_ids: Sequence[str], bounds: Bounds
) -> Dict[str, Counted]:
    """Returns how many rows each object holds inside the bounds, with one query for 25 of them.

    A server may silently use only the first id of a FROM. Until an answer has shown otherwise, each
    object that seems empty is counted alone.
    """
    at_s = api.clock.mark_s()
    chunks = portions(object_ids, OBJECTS_PER_QUERY)
    rows_of: Dict[str, Optional[int]] = {}
    doubtful: List[str] = []
    steps: List[int] = []  # the objects that each answer counted, for the screen

    def count_chunk(chunk: Sequence[str]) -> Optional[Dict[str, Optional[int]]]:
        counts = _count_together(api, kind_name, chunk, bounds)
        sure = counts is None or api.capabilities.reads_groups or len(chunk) == 1
        shown = chunk if sure else [object_id for object_id in chunk if (counts or {})[object_id]]
        steps.append(len(shown))
        catalog.run.live.step(OBJECTS_COUNTED, len(shown))
        return counts

    for chunk, counts in zip(chunks, catalog.lists.at_once(count_chunk, chunks)):
        rows_of.update(dict.fromkeys(chunk, None) if counts is None else counts)
        if counts is not None:
            doubtful += [object_id for object_id in chunk[1:] if not counts[object_id]]
    filled = next((object_id for object_id, rows in rows_of.items() if rows), None)
    if doubtful and not api.capabilities.reads_groups and filled is not None:
        _count_together(api, kind_name, [doubtful[0], filled], bounds)
    if not api.capabilities.reads_groups:
        alone = catalog.lists.at_once(lambda object_id: count_chunk([object_id]), doubtful)
        for object_id, counts in zip(doubtful, alone):
            rows_of[object_id] = counts[object_id] if counts else None
    catalog.run.live.step(OBJECTS_COUNTED, len(object_ids) - sum(steps))
    return {object_id: Counted(rows_of[object_id], at_s) for object_id in object_ids}


def _count_together(
    api: Api, kind_name: str, object_ids: Sequence[str], bounds: Bounds
) -> Optional[Dict[str, Optional[int]]]:
    """Returns the rows of each object, None if the server does not count by object."""
    id_field = ROW_KINDS[kind_name].id_field
    query = count_by_object_query(kind_name, id_field, object_ids, bounds)
    try:
        shown = {row[id_field]: whole_number(row["rows"]) for row in api.query(query).json}
    except NOT_COUNTED as error:
        log.info(
            "%s: rows of %s cannot be counted for several objects at once (%s)",
            api.side,
            kind_name,
            type(error).__name__,
        )
        return None
    if not set(shown) <= set(object_ids):
        return None
    if any(rows and object_id != object_ids[0] for object_id, rows in shown.items()):
        api.capabilities.reads_groups = True
    return {object_id: shown.get(object_id, 0) for object_id in object_ids}


class RowCounts:
    """Row counts of both sides by object, queried once in a process.

    Safe for many threads: of those that need the same count, one queries and the others wait, and
    no lock is held meanwhile. Counts of the destination expire after DEST_COUNT_VALID_S, because
    others may write rows there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # kind -> object id -> the counts that contain its own, of a query that may still run
        self._queries: Dict[str, Dict[str, Future[Counts]]] = defaultdict(dict)

    def holds(self, kind_name: str, object_id: str) -> bool:
        """Whether the object was counted, or is being counted."""
        with self._lock:
            return object_id in self._queries[kind_name]

    def of(self, catalog: Catalog, kind_name: str, object_ids: Sequence[str]) -> Dict[str, Counted]:
        """Returns the counts of these source objects."""
        return self._of(catalog, catalog.source, kind_name, object_ids, 0.0)

    def of_dest(
        self, catalog: Catalog, kind_name: str, object_ids: Sequence[str]
    ) -> Dict[str, Counted]:
        """Returns the counts of these destination objects."""
        since_s = catalog.dest.clock.mark_s() - DEST_COUNT_VALID_S
        return self._of(catalog, catalog.dest, kind_name, object_ids, since_s)

    def _of(
        self, catalog: Catalog, api: Api, kind_name: str, ids: Sequence[str], since_s: float
    ) -> Dict[str, Counted]:
        queries = self._queries[kind_name]
        own: Future[Counts] = Future()
        with self._lock:
            missing = [
                object_id
                for object_id in ids
                if object_id not in queries or is_older(queries[object_id], object_id, since_s)
            ]
            queries.update(dict.fromkeys(missing, own))
            answering = {object_id: queries[object_id] for object_id in ids}
        try:
            if missing:
                bounds = bounds_of(catalog, ROW_KINDS[kind_name])
                own.set_result(count_by_object(catalog, api, kind_name, missing, bounds))
        except BaseException as error:
            with self._lock:
                for object_id in missing:
                    del queries[object_id]
            own.set_exception(error)
            raise
        return {object_id: query.result()[object_id] for object_id, query in answering.items()}


def is_older(query: Future[Counts], object_id: str, since_s: float) -> bool:
    return query.done() and query.result()[object_id].at_s < since_s


# -- objects that hold rows


def row_object_ids(catalog: Catalog, kind_name: str, project_id: str) -> List[str]:
    """Returns the source ids of a project's selected objects that hold rows of the kind."""
    if kind_name == "logs":
        return [project_id]
    resource = BY_NAME[kind_name]
    return [
        source["id"]
        for source in catalog.lists.source_objects(resource, project_id)
        if not (resource is EXPERIMENTS and skip_reason(catalog, resource, source))
    ]


def row_objects(catalog: Catalog, kind_name: str) -> Iterable[Dict[str, Any]]:
    """Yields every selected object that holds rows of the kind, with its current counterpart."""
    targets = ("projects",) if kind_name == "logs" else (kind_name,)
    for project in catalog.lists.projects():
        held = (
            [project]
            if kind_name == "logs"
            else catalog.lists.source_objects(BY_NAME[kind_name], project["id"])
        )
        names = {source["id"]: source["name"] for source in held}
        for source_id in row_object_ids(catalog, kind_name, project["id"]):
            dest_id = catalog.targets.resolve(targets, source_id) or ""
            there = "" if dest_id.startswith(PLANNED) else dest_id
            named = {"project": project["name"], "id": source_id, "name": names[source_id]}
            yield {**named, "dest_id": there, "rows": 0, "rows_there": 0}


def count_objects(
    catalog: Catalog, counts: RowCounts, kind_name: str, objects: Sequence[Dict[str, Any]]
) -> None:
    """Set `rows` and `rows_there` of each of `row_objects`; None if a server does not count."""
    marks = sync_marks(catalog, kind_name)
    by_mark: Dict[Optional[int], List[Dict[str, Any]]] = defaultdict(list)
    for planned in objects:
        by_mark[marks.get(planned["id"])].append(planned)
    for mark, objects_of_mark in by_mark.items():
        ids = [planned["id"] for planned in objects_of_mark]
        if mark is None:
            counted = counts.of(catalog, kind_name, ids)
        else:
            bounds = replace(bounds_of(catalog, ROW_KINDS[kind_name]), after_xact=mark)
            counted = count_by_object(catalog, catalog.source, kind_name, ids, bounds)
        for planned in objects_of_mark:
            planned["rows"] = counted[planned["id"]].rows
    there = [planned for planned in by_mark[None] if planned["dest_id"]]
    held = counts.of_dest(catalog, kind_name, [planned["dest_id"] for planned in there])
    for planned in there:
        planned["rows_there"] = held[planned["dest_id"]].rows


def sync_marks(catalog: Catalog, kind_name: str) -> Dict[str, int]:
    """Returns source object -> the transaction after which a sync reads it.

    Objects that are copied completely are left out.
    """
    round_ = round_of(catalog.run.record, kind_name, catalog.settings.lookback)
    if round_ is None:
        return {}
    marks: Dict[str, int] = {}
    for state in catalog.run.all_streams():
        if state.header["kind"] == kind_name and state.copied:
            behind = None if state.done else state.sync.above
            marks[state.header["source_id"]] = min(behind or round_.above, round_.above)
    return marks


def count_rows(catalog: Catalog, kind_name: str, object_ids: Sequence[str]) -> Optional[int]:
    """Returns the number of source rows of all objects together, None if it is not counted."""
    query = count_query(kind_name, object_ids, bounds_of(catalog, ROW_KINDS[kind_name]))
    try:
        rows = catalog.source.query(query).json
        return whole_number(rows[0]["rows"]) if rows else 0
    except NOT_COUNTED as error:
        log.info("rows of %s cannot be counted (%s)", kind_name, type(error).__name__)
        return None


# -- summaries, for the comparison


class Summary(NamedTuple):
    """What one aggregate query returns for an object."""

    rows: int = 0
    ids: int = 0
    first: Optional[str] = None
    last: Optional[str] = None


Summaries = Dict[str, Optional[Summary]]  # by object id; None where the server does not count


def summaries(catalog: Catalog, api: Api, kind: str, ids: Sequence[str]) -> Summaries:
    """Returns the summary of each object, from one query if possible.

    Objects are queried alone if the server does not group by object, or may use only the first id
    of a FROM.
    """
    row_kind = ROW_KINDS[kind]
    try:
        rows = api.query(
            summary_query(kind, row_kind.id_field, ids, bounds_of(catalog, row_kind))
        ).json
        if len(ids) == 1:
            return {ids[0]: _summary(rows[0]) if rows else Summary()}
        by_id: Summaries = {row[row_kind.id_field]: _summary(row) for row in rows}
    except NOT_COUNTED:
        if len(ids) == 1:
            return {ids[0]: None}
        return {
            object_id: summaries(catalog, api, kind, [object_id])[object_id] for object_id in ids
        }
    if len(by_id) > 1:
        api.capabilities.reads_groups = True
    for object_id in ids:
        if object_id not in by_id and api.capabilities.reads_groups:
            by_id[object_id] = Summary()
        elif object_id not in by_id:
            by_id.update(summaries(catalog, api, kind, [object_id]))
    return by_id


def _summary(row: Mapping[str, Any]) -> Summary:
    return Summary(
        whole_number(row["rows"]), whole_number(row["ids"]), row.get("first"), row.get("last")
    )


# -- days


def day_ranges(unequal: Mapping[str, bool], bounds: Bounds) -> Iterator[Bounds]:
    """Yields the unequal days inside the bounds; consecutive ones as one range.

    `unequal`: day -> whether its counts differ, in order; {"": True} if the server does not group
    by day.
    """
    if unequal.get(""):
        yield bounds
        return
    for differs, together in groupby(unequal, key=lambda day: unequal[day]):
        if differs:
            days = list(together)
            yield inside(bounds, days[0], days[-1])


def inside(bounds: Bounds, first_day: str, last_day: str) -> Bounds:
    """Returns the bounds cut to the days from first to last, both included."""
    after, before = bounds.created_after, bounds.created_before
    if not after or instant(first_day) > instant(after):
        after = iso(instant(first_day))
    if last_day < LAST_DAY:
        end = instant(last_day) + timedelta(days=1)
        if not before or end < instant(before):
            before = iso(end)
    return replace(bounds, created_after=after, created_before=before)
