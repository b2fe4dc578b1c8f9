"""Plans the rows of a copy before anything is written: how many, how large, in which streams.

Rows are counted by aggregate queries. Bytes are estimated from the first rows of a few objects. A
stream is what the copy reads together: one large object, or several small ones.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence

from bt_migrate.model.resource_table import DATASETS
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.report.display import plural
from bt_migrate.rows.count import RowCounts, count_objects, count_rows
from bt_migrate.rows.facets import asks_for_facets, learn_facets
from bt_migrate.rows.groups import groups
from bt_migrate.rows.planned_comparison import is_compared, verification_queries
from bt_migrate.rows.planned_deletes import plan_deletes
from bt_migrate.rows.planned_sample import Sample, read_sample
from bt_migrate.rows.planned_states import NamedPast, PlannedStates, batch_limits, plan_states
from bt_migrate.rows.query_counts import (
    facet_queries,
    inserts,
    inserts_of_comments,
    inserts_of_merges,
    page_rows,
    pages,
)
from bt_migrate.rows.streams import RowStream, bounds_of
from bt_migrate.rows.sync_plan import leave_out_delivered

log = logging.getLogger("bt_migrate.validate")


def plan_rows(
    catalog: Catalog,
    counts: RowCounts,
    kind_name: str,
    objects: Sequence[Dict[str, Any]],
    past: NamedPast,
) -> Dict[str, Any]:
    """Returns the plan for all rows to copy; in a sync, for those that it would send.

    `streams`: each has kind, objects [{project, id, name, rows, rows_there, bytes}], rows, bytes,
    import_bytes, queries, inserts. Rows are None if the server does not count. `states`: those of
    datasets, see `PlannedStates`. `deletes`: see `PlannedDeletes`. `merges`: see `_merges`.
    `findings`, `attachments`, `page_seconds`, `query_seconds`, `row_seconds`: from the first rows,
    for which `samples` queries were sent. `verification_queries`: to one side.
    """
    count_objects(catalog, counts, kind_name, objects)
    leave_out_delivered(catalog, counts, kind_name, objects)
    sample = _sampled(catalog, kind_name, objects)
    states = _planned_states(catalog, kind_name, objects, past)
    groups = _groups(catalog, kind_name, objects)
    streams = [_stream(catalog, kind_name, group, sample) for group in groups]
    text = (kind_name, shown_count(total(streams, "rows")), plural(len(objects), "object"))
    log.info("rows of %s: %s in %s", *text, extra={"event": "planned_rows"})
    share = sample.attachments / sample.rows if sample.rows else 0.0
    compared = _compared_rows(catalog, counts, kind_name, objects)
    return {
        "streams": streams,
        "states": asdict(states),
        "merges": _merges(catalog, kind_name, objects, sample),
        "deletes": asdict(plan_deletes(catalog, kind_name, objects)),
        "findings": sample.findings,
        "page_seconds": round(sample.page_seconds, 3),
        "query_seconds": round(sample.query_seconds, 3),
        "row_seconds": sample.row_seconds,
        "samples": sample.queries,
        "attachments": round(share * (total(streams, "rows") or 0)),
        "verification_queries": verification_queries(
            catalog, kind_name, compared, states, past.datasets
        ),
    }


def _sampled(catalog: Catalog, kind_name: str, objects: Sequence[Dict[str, Any]]) -> Sample:
    """Read the first rows of some objects, and set the `bytes` of all of them, and `commented`: how
    many of their rows have comments.
    """
    held = [planned["id"] for planned in objects if planned["rows"] != 0]
    learn_facets(catalog.source, kind_name, held, bounds_of(catalog, ROW_KINDS[kind_name]))
    sample = read_sample(catalog, kind_name, objects)
    for planned in objects:
        mean = sample.row_bytes.get(planned["id"], sample.mean)
        planned["bytes"] = int((planned["rows"] or 0) * mean)
        extras = sample.extras.get(planned["id"], sample.extras[""])
        planned["commented"] = (planned["rows"] or 0) * extras.share(extras.commented)
    return sample


def _planned_states(
    catalog: Catalog, kind_name: str, objects: Sequence[Dict[str, Any]], past: NamedPast
) -> PlannedStates:
    """Plan the states of datasets, and set `late` of all objects: see `PlannedStates`.

    In a sync, `rows` are those that it sends besides the ones of the states.
    """
    states = PlannedStates()
    if kind_name == DATASETS.name:
        states = plan_states(catalog, objects, past)
    for planned in objects:
        late = planned["late"] = states.late.get(planned["id"])
        if catalog.run.record.round and late is not None and late < (planned["rows"] or 0):
            planned["bytes"] = planned["bytes"] * late // planned["rows"]
            planned["rows"] = late
    return states


def _compared_rows(
    catalog: Catalog, counts: RowCounts, kind_name: str, objects: Sequence[Dict[str, Any]]
) -> Dict[str, Optional[int]]:
    """Returns object -> its rows. Those that a sync would send are not all of them."""
    if catalog.run.record.round and is_compared(catalog):
        counted = counts.of(catalog, kind_name, [planned["id"] for planned in objects])
        return {object_id: count.rows for object_id, count in counted.items()}
    return {planned["id"]: planned["rows"] for planned in objects}


def objects_counted(objects: Iterable[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Returns {project, id, name, rows} of the objects whose rows were counted."""
    return [
        {**_named(planned), "rows": planned["rows"]}
        for planned in objects
        if planned["rows"] is not None
    ]


def _named(planned: Dict[str, Any]) -> Dict[str, Any]:
    return {name: planned[name] for name in ("project", "id", "name")}


# -- references to later objects


def _merges(
    catalog: Catalog, kind_name: str, objects: Sequence[Dict[str, Any]], sample: Sample
) -> int:
    """Returns the requests that add references to rows, once the objects of later phases exist.

    An object whose first rows show such a reference has one request at least for each phase.
    """
    limits = batch_limits(catalog, kind_name)
    expected = 0.0
    for planned in objects:
        is_sampled = planned["id"] in sample.extras
        extras = sample.extras[planned["id"] if is_sampled else ""]
        for late in extras.late.values():
            merges = inserts_of_merges(planned["rows"] or 0, extras.share(late), limits)
            expected += max(1.0, merges) if is_sampled else merges
    return round(expected)


# -- streams


def _groups(
    catalog: Catalog, kind_name: str, objects: Sequence[Dict[str, Any]]
) -> List[List[Dict[str, Any]]]:
    """Returns the objects in the groups in which the copy reads them."""
    by_id = {planned["id"]: planned for planned in objects}
    kind = ROW_KINDS[kind_name]
    streams = [
        RowStream(
            kind,
            planned["project"],
            planned["id"],
            planned["dest_id"],
            planned["name"],
            not planned["dest_id"],
            rows=planned["rows"],
        )
        for planned in objects
    ]
    return [
        [by_id[stream.source_id] for stream in group]
        for group in groups(streams, catalog.settings.read_streams)
    ]


class StreamSize(NamedTuple):
    """How much a stream has, and how much of it the destination lacks."""

    rows: Optional[int]
    row_bytes: int
    new_rows: int
    new_bytes: int


def _size(
    catalog: Catalog, kind_name: str, group: Sequence[Dict[str, Any]], sample: Sample
) -> StreamSize:
    """Returns the sum over the objects, or, if one was not counted, a count of all together."""
    if all(planned["rows"] is not None for planned in group):
        return StreamSize(
            sum(planned["rows"] for planned in group),
            sum(planned["bytes"] for planned in group),
            sum(map(_new_rows, group)),
            sum(_new_bytes(planned) for planned in group),
        )
    rows = count_rows(catalog, kind_name, [planned["id"] for planned in group])
    new_rows = max(0, (rows or 0) - sum(planned["rows_there"] or 0 for planned in group))
    row_bytes = int((rows or 0) * sample.mean)
    return StreamSize(rows, row_bytes, new_rows, int(new_rows * sample.mean))


def _stream(
    catalog: Catalog, kind_name: str, group: Sequence[Dict[str, Any]], sample: Sample
) -> Dict[str, Any]:
    size = _size(catalog, kind_name, group, sample)
    limits = batch_limits(catalog, kind_name)
    share = size.new_rows / size.rows if size.rows else 0.0
    new = [rows * share for rows in page_rows(size.rows or 0, limits.page_rows)]
    new_bytes = size.new_bytes / max(1, size.new_rows)
    commented = sum(planned["commented"] for planned in group) / (size.rows or 1)
    shown = ("rows", "rows_there", "bytes")
    return {
        "kind": kind_name,
        "objects": [
            {**_named(planned), **{name: planned[name] for name in shown}} for planned in group
        ],
        "rows": size.rows,
        "bytes": size.row_bytes,
        "import_bytes": size.new_bytes,
        "queries": _queries(catalog, kind_name, group, size.rows),
        "inserts": inserts(new, new_bytes, limits)
        + inserts_of_comments(new, new_bytes, limits, commented),
    }


def _queries(
    catalog: Catalog, kind_name: str, group: Sequence[Dict[str, Any]], rows: Optional[int]
) -> int:
    """Returns the queries for the rows of a stream, and for those that the destination has."""
    limit = batch_limits(catalog, kind_name).page_rows
    read = sum(planned.get("rows_read") or 0 for planned in group) or rows or 0
    there = sum(planned["rows_there"] or 0 for planned in group if planned["dest_id"])
    with_facets = [
        planned["rows"] or 0
        for planned in group
        if asks_for_facets(catalog.source, kind_name, [planned["id"]])
    ]
    return (
        pages(read, limit)
        + (facet_queries(sum(with_facets), limit) if with_facets else 0)
        + (pages(there, limit) if there else 0)
    )


def _new_rows(planned: Mapping[str, Any]) -> int:
    """Returns how many rows of an object the destination lacks once it has the earlier states."""
    new: int = max(0, planned["rows"] - (planned["rows_there"] or 0))
    return new if planned["late"] is None else min(new, planned["late"])


def _new_bytes(planned: Mapping[str, Any]) -> int:
    rows = planned["rows"]
    return int(planned["bytes"] * _new_rows(planned) / rows) if rows else 0


def total(streams: Iterable[Dict[str, Any]], name: str) -> Optional[int]:
    """Returns the sum of the known values, None if none is known."""
    values = [stream[name] for stream in streams if stream[name] is not None]
    return sum(values) if values else None


def shown_count(count: Optional[int]) -> str:
    return "an unknown number" if count is None else f"{count:,}"
